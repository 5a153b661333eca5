//! Logs that the engine wrote, for the fuzzer to damage: the same bytes in every run.

use std::num::NonZeroUsize;
use std::sync::OnceLock;

use super::files::{Files, disk_with, files_of, with_disk};
use super::frame::ID;
use sprag::config::{ApplyConfig, CommitMode, Contiguity, PersistentConfig};
use sprag::entry::{Command, Entry, Note, Payload};
use sprag::machine::PersistentStateMachine;
use sprag::testing::SimDisk;
use sprag::testing::Stepped;
use sprag::testing::internals::bytes::u64_at;
use sprag::testing::internals::format::FRAME_HEADER_BYTES;
use sprag::testing::internals::meta::{self, LogBase, Meta, MetaFile};
use sprag::testing::internals::names::{parse_segment_name, segment_name};
use sprag::testing::internals::numbers::{FrameSequence, SegmentNumber};
use sprag::testing::internals::writer_segment;

/// Length of the shortest segment.
pub(super) const SEGMENT_BYTES: usize = 16 << 10;

pub(super) type Node = Stepped<PersistentStateMachine>;

#[derive(Debug)]
pub(super) struct Base {
    pub(super) mode: CommitMode,
    pub(super) meta: Meta,
    /// Segment files only.
    pub(super) segments: Files,
}

pub(super) fn config(mode: CommitMode) -> PersistentConfig {
    PersistentConfig::new("simulated")
        .segment_bytes(SEGMENT_BYTES)
        .segment_images(2)
        .expected_keys(16)
        .batch_size(4)
        .commit_mode(mode)
}

pub(super) fn node(machine: PersistentStateMachine, workers: usize) -> Node {
    let workers = NonZeroUsize::new(workers).unwrap();
    let config = ApplyConfig::new().worker_count(workers).pipeline_depth(64).batch_size(8);
    Stepped::new(machine, config).unwrap()
}

/// The META of a directory whose id and seed must be known.
pub(super) fn first_meta(mode: CommitMode) -> Meta {
    Meta {
        database_id: ID,
        hash_seed: 7,
        commit_mode: mode,
        contiguity: Contiguity::Strict,
        state: None,
        is_kept: false,
        clean_close: false,
        base: LogBase { segment: SegmentNumber::of_stored(1), ..LogBase::default() },
        incarnation: 0,
        durable_sequence: FrameSequence::NONE,
        committed: None,
        hard: meta::HardRecord::Stored(0),
    }
}

/// An empty directory with the META of [`first_meta`].
pub(super) fn new_disk(mode: CommitMode) -> SimDisk {
    let sim = disk_with(&Files::new());
    drop(MetaFile::create(&*sim.open(true).unwrap(), &first_meta(mode)).unwrap());
    sim
}

pub(super) fn read_meta(sim: &SimDisk) -> Meta {
    with_disk(sim, |disk| MetaFile::open(disk, false).unwrap().unwrap().1)
}

pub(super) fn bases() -> &'static [Base] {
    static BASES: OnceLock<Vec<Base>> = OnceLock::new();
    BASES.get_or_init(|| {
        vec![
            base(CommitMode::OnAppend, 1, true),
            base(CommitMode::OnAppend, 3, false),
            base(CommitMode::ByCommit, 1, false),
            base(CommitMode::ByCommit, 3, true),
            recycled(true),
            recycled(false),
        ]
    })
}

/// Two segments, from one or more lives, the last of which ended in a close or not.
fn base(mode: CommitMode, lives: u64, closed: bool) -> Base {
    let sim = new_disk(mode);
    for life in 1..=lives {
        let machine = PersistentStateMachine::open_on_disk(sim.open(true).unwrap(), config(mode));
        let node = node(machine.unwrap(), 1);
        if life == lives {
            // Fill the first segment, so that there is a second one.
            for _ in 0..5 {
                write(&node, mode, life, &[9; 2500]);
            }
        }
        write(&node, mode, life, b"12");
        if mode == CommitMode::ByCommit {
            rewrite_the_end(&node, life);
        }
        if life < lives || !closed {
            sim.crash_process();
        }
        drop(node);
        sim.reset_operations();
    }
    let mut segments = files_of(&sim);
    segments.retain(|name, _| parse_segment_name(name).is_some());
    assert!(segments.len() >= 2, "two segments");
    Base { mode, meta: read_meta(&sim), segments }
}

/// A log whose last segment is in a recycled file. The file's earlier content lies behind the log's
/// end. The very end of the file has the mark that tells it from a torn end, or not.
fn recycled(marked: bool) -> Base {
    let mode = CommitMode::OnAppend;
    let sim = new_disk(mode);
    let machine = PersistentStateMachine::open_on_disk(sim.open(true).unwrap(), config(mode));
    let node = node(machine.unwrap(), 1);
    for _ in 0..9 {
        write(&node, mode, 1, &[9; 2500]);
    }
    node.snapshots().compact().unwrap();
    while node.stats().log_writer.recycled_segments == 0 {
        write(&node, mode, 2, &[8; 900]);
    }
    let log_segment = || writer_segment(&node).unwrap();
    let in_use = log_segment();
    // The file that is ready belongs to the next segment.
    while log_segment() == in_use {
        write(&node, mode, 2, &[7; 900]);
    }
    let last = segment_name(log_segment());
    sim.crash_process();
    drop(node);
    let mut segments = files_of(&sim);
    let meta = read_meta(&sim);
    // Leave the spare files out. With frames of the last incarnation, which only damage gives them,
    // a spare file would be in the log's way after opening.
    segments.retain(|name, _| parse_segment_name(name) >= Some(meta.base.segment));
    let bytes = segments.get_mut(&last).unwrap();
    let marker = bytes.len() - FRAME_HEADER_BYTES;
    assert_eq!(bytes[marker..][..4], *b"SPRG", "the mark of a file that is used again");
    assert!(frames_before(bytes) > 0, "what the file had before");
    if !marked {
        bytes[marker..].fill(0);
    }
    Base { mode, meta, segments }
}

/// Number of places in a file that look like a frame of an earlier segment, without the mark.
fn frames_before(bytes: &[u8]) -> usize {
    let own = u64_at(bytes, 96);
    let places = (0..bytes.len() - FRAME_HEADER_BYTES).step_by(64);
    places.filter(|at| bytes[*at..].starts_with(b"SPRG") && u64_at(bytes, at + 96) < own).count()
}

/// Submits a few entries of every kind.
fn write(node: &Node, mode: CommitMode, term: u64, value: &[u8]) {
    let state = node.stats();
    let next = state.submitted.map_or(1, |last| last + 1);
    let batch = [
        Command::Put { key: b"b", value: b"5" },
        Command::Increment { key: b"b", by: -7 },
        Command::CompareAndSet { key: b"c", expected: Some(b"x"), new: Some(b"yy") },
    ];
    let note = Some(Note { name: b"position", value: b"77" });
    let commands = [
        Payload::Command(Command::Put { key: b"a", value }),
        Payload::Command(Command::Put { key: b"c", value: b"x" }),
        Payload::Command(Command::Batch { commands: &batch, note }),
        Payload::Command(Command::Increment { key: b"n", by: 3 }),
        Payload::Command(Command::CompareAndSet { key: b"d", expected: None, new: Some(b"1") }),
        Payload::Command(Command::Delete { key: b"d" }),
        Payload::Membership(b"m"),
        Payload::Opaque(b"o"),
        Payload::Noop,
    ];
    for (at, payload) in commands.into_iter().enumerate() {
        let index = next + at as u64;
        let entry = Entry { payload, ..Entry::noop(index, term) };
        if mode == CommitMode::OnAppend {
            let _ = node.apply_entries(&[entry]).unwrap();
        } else {
            let _ = node.consensus().unwrap().append(&[entry]).unwrap();
            if at % 4 == 2 {
                node.consensus().unwrap().commit(index).unwrap();
            }
        }
        if at % 3 == 2 {
            node.run_until_idle();
        }
    }
    node.run_until_idle();
}

/// Truncates the uncommitted entries and appends others; the very end stays uncommitted.
fn rewrite_the_end(node: &Node, term: u64) {
    let committed = node.log().unwrap().state().unwrap().committed;
    node.consensus().unwrap().truncate_after(committed).unwrap();
    let next = committed.map_or(1, |index| index + 1);
    let entries: Vec<_> =
        (next..next + 6).map(|index| Entry::put(index, term, b"again", b"other")).collect();
    for entry in entries.chunks(2) {
        let _ = node.consensus().unwrap().append(entry).unwrap();
        node.run_until_idle();
    }
    node.consensus().unwrap().commit(next + 3).unwrap();
    let _ = node.consensus().unwrap().append(&[Entry::noop(next + 6, term)]).unwrap();
    node.run_until_idle();
}
