//! Segment recovery: the engine's reading of a damaged log, compared with a plain reading of the
//! format.

use std::collections::BTreeMap;

use crc32c::crc32c;

use super::bases::{Base, Node, bases, config, node, read_meta};
use super::files::{Files, disk_with, files_of, with_disk};
use super::frame::ID;
use super::input::Input;
use super::model::{Op, State, state_after};
use super::mutate::{Damaged, damage};
use sprag::config::{CommitMode, Contiguity};
use sprag::entry::{Entry, LogId};
use sprag::error::OpenError;
use sprag::machine::PersistentStateMachine;
use sprag::testing::SimDisk;
use sprag::testing::internals::codec::{self, Encoded};
use sprag::testing::internals::format::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use sprag::testing::internals::meta::{Meta, MetaFile};
use sprag::testing::internals::names::{META_FILE, segment_name, snapshot_name};
use sprag::testing::internals::numbers::SegmentNumber;
use sprag::testing::internals::scan::{ScanResult, scan};
use sprag::testing::internals::snapshots::{SnapshotMeta, SnapshotWriter};
use sprag::testing::internals::verify;

/// A frame, its header and its body.
type Frame = (FrameHeader, Vec<u8>);

/// Runs the input: the first byte chooses a log that the engine wrote, and the rest damages it.
pub fn recovery(data: &[u8]) {
    let mut input = Input::new(data);
    // Inputs from when there were four bases keep their meaning.
    let number = input.below(8);
    let base: &Base = bases().get(number).unwrap_or(&bases()[number % 4]);
    let damaged = damage(base, &mut input);
    let mut files = damaged.segments.clone();
    files.insert(META_FILE.to_owned(), meta_file(&damaged.meta));
    if let Some(last) = damaged.meta.base.last {
        // The entries before the base are a state without keys.
        files.insert(snapshot_name(last.index), empty_snapshot(last));
    }
    let sim = disk_with(&files);
    let reference = read_plainly(&damaged);
    let (seen, result) = scanned(&sim, &damaged.meta);
    assert!(seen.len() <= reference.len(), "a frame was taken that does not hold");
    assert_eq!(seen, reference[..seen.len()], "other frames than those that hold");
    if !ends_as_closed(&damaged.meta, &seen) {
        check_verify(&sim, &damaged.meta, &result);
    }
    let before = files_of(&sim);
    let opened = PersistentStateMachine::open_on_disk(sim.open(true).unwrap(), config(base.mode));
    match (result, opened) {
        (Ok(result), Ok(machine)) => {
            assert_eq!(seen.len(), reference.len(), "a frame that holds was left out");
            assert!(!is_older(&damaged.meta, &result), "META does not know a frame's opening");
            let log = Log::read(&reference, &damaged.meta);
            check_state(&machine, &log, base.mode, &result);
            drop(machine);
            check_reopened(&sim, &damaged.meta, &seen);
            check_goes_on(&sim, base.mode, &log, &seen);
        }
        (Err(error), Err(_)) => {
            check_typed(&error);
            assert_eq!(files_of(&sim), before, "a directory that was refused was changed");
        }
        (Ok(result), Err(OpenError::Corrupt(corrupt))) => {
            let seen_max = result.tail.incarnation_seen_max.max(damaged.meta.incarnation);
            let log = Log::read(&reference, &damaged.meta);
            let has_before = damaged.meta.base.last.is_some()
                || (damaged.meta.contiguity == Contiguity::Monotone);
            let first = log.entries.keys().next().copied();
            // A committed entry is nowhere.
            let nowhere = !has_before && log.committed.is_some() && log.committed < first;
            let is_older = is_older(&damaged.meta, &result);
            assert!(seen_max == u64::MAX || nowhere || is_older, "{corrupt}");
            assert!(nowhere || result.begins_late.is_none(), "{corrupt}");
            assert_eq!(corrupt.file, META_FILE, "{corrupt}");
            assert_eq!(files_of(&sim), before, "a directory that was refused was changed");
        }
        (Ok(_), Err(OpenError::NameTaken { file, .. })) => {
            check_is_no_segment(&damaged, &file, &seen);
            assert_eq!(files_of(&sim), before, "a directory that was refused was changed");
        }
        (Ok(_), Err(error)) => panic!("the log reads well, and opening fails: {error}"),
        (Err(error), Ok(_)) => panic!("opened, and yet: {error}"),
    }
}

/// Checks that only a file that no engine leaves is taken for another program's. Such a file does
/// not have whole pages, and begins neither with zeros nor with a frame.
fn check_is_no_segment(damaged: &Damaged, file: &str, frames: &[Frame]) {
    let bytes = &damaged.segments[file];
    let head = &bytes[..bytes.len().min(FRAME_HEADER_BYTES)];
    assert!(!bytes.len().is_multiple_of(4096) && head.iter().any(|byte| *byte != 0));
    let is_frame = head.first_chunk().is_some_and(|head| FrameHeader::parse(head, &ID).is_ok());
    assert!(!is_frame, "it begins with a frame");
    let is_read = |(header, _): &Frame| segment_name(header.segment) == file;
    assert!(!frames.iter().any(is_read), "the log is in it");
}

/// Whether META says that the log was closed after these frames: then the bytes behind them are not
/// read.
fn ends_as_closed(meta: &Meta, frames: &[Frame]) -> bool {
    let last = frames.last().map_or(meta.base.sequence, |(last, _)| last.opening.sequence);
    meta.clean_close && last == meta.durable_sequence
}

/// Whether META is older than a frame: no opening appends before META has its incarnation.
fn is_older(meta: &Meta, result: &ScanResult) -> bool {
    result.tail.incarnation_seen_max > meta.incarnation
}

/// The snapshot of a state without keys.
fn empty_snapshot(last: LogId) -> Vec<u8> {
    let mut bytes = Vec::new();
    let meta = SnapshotMeta { log_id: Some(last), ..SnapshotMeta::default() };
    SnapshotWriter::new(&mut bytes).finish(&meta).unwrap();
    bytes
}

/// A META file with exactly this content.
fn meta_file(meta: &Meta) -> Vec<u8> {
    let sim = disk_with(&Files::new());
    drop(MetaFile::create(&*sim.open(true).unwrap(), meta).unwrap());
    sim.read_file(META_FILE).unwrap()
}

fn scanned(sim: &SimDisk, meta: &Meta) -> (Vec<Frame>, Result<ScanResult, OpenError>) {
    let mut seen = Vec::new();
    let result = with_disk(sim, |disk| {
        // Opening asks for the same.
        scan(disk, meta, meta.clean_close, &mut |frame| {
            let place = (frame.header.segment, frame.header.offset);
            assert_eq!(place, (frame.segment, frame.offset), "a frame out of its place");
            seen.push((frame.header, frame.body.to_vec()));
            Ok(())
        })
    });
    (seen, result)
}

/// The good frames, by the words of `docs/format.md` and nothing else.
fn read_plainly(damaged: &Damaged) -> Vec<Frame> {
    let mut found: Vec<Frame> = Vec::new();
    let mut live = Live::new(&damaged.meta);
    let mut place = (damaged.meta.base.segment, 0);
    loop {
        let follows = |place: (SegmentNumber, u64)| {
            let (header, body) = frame_at(&damaged.segments, place)?;
            let (previous, sequence, incarnation) = match found.last() {
                Some((last, _)) => {
                    (last.checksum(&ID), last.opening.sequence, last.opening.incarnation)
                }
                None => (damaged.meta.base.chain, damaged.meta.base.sequence, 0),
            };
            // META names the frame after which its incarnation starts; an older frame there is a
            // cut tail.
            let opened = sequence >= damaged.meta.durable_sequence;
            let incarnation =
                if opened { damaged.meta.incarnation.max(incarnation) } else { incarnation };
            let holds = (header.segment, header.offset) == place
                && header.previous == previous
                && sequence.is_before(header.opening.sequence)
                && header.opening.incarnation >= incarnation
                && live.may_be_followed_by(&header);
            holds.then_some((header, body))
        };
        let Some(frame) = follows(place).or_else(|| follows((place.0.next(), 0))) else {
            return found;
        };
        let (header, _) = &frame;
        place = (header.segment, (header.offset + header.frame_bytes()).next_multiple_of(64));
        live.take(header);
        found.push(frame);
    }
}

fn frame_at(segments: &Files, (number, offset): (SegmentNumber, u64)) -> Option<Frame> {
    let rest = segments.get(&segment_name(number))?.get(usize::try_from(offset).ok()?..)?;
    let (head, rest) = rest.split_first_chunk::<FRAME_HEADER_BYTES>()?;
    let header = FrameHeader::parse(head, &ID).ok()?;
    let body = rest.get(..header.body_bytes as usize)?;
    (crc32c(body) == header.body_crc).then(|| (header, body.to_vec()))
}

/// Every entry in the log.
struct Live {
    before: Option<LogId>,
    ids: Vec<LogId>,
}

impl Live {
    fn new(meta: &Meta) -> Self {
        Self { before: meta.base.last, ids: Vec::new() }
    }

    fn last(&self) -> Option<LogId> {
        self.ids.last().copied().or(self.before)
    }

    fn may_be_followed_by(&self, header: &FrameHeader) -> bool {
        let (first, Some(last)) = (header.opening.first_index, self.last()) else { return true };
        match header.opening.kind {
            FrameKind::Entries => {
                Some(first) == last.index.checked_add(1) && header.opening.term >= last.term
            }
            // Such frames exist only in logs with gaps, and these logs have none.
            FrameKind::ApplyOnly => false,
            FrameKind::Truncation => {
                last.index.checked_add(1).is_none_or(|next| first <= next)
                    && self.before.is_none_or(|before| first > before.index)
            }
        }
    }

    fn take(&mut self, header: &FrameHeader) {
        let first = header.first();
        if header.opening.kind == FrameKind::Truncation {
            self.ids.retain(|id| id.index < first.index);
        }
        self.ids.extend((0..u64::from(header.count)).map(|more| first.at(first.index + more)));
    }
}

/// The entries of a log, and its committed mark.
#[derive(Debug)]
struct Log {
    last: Option<LogId>,
    entries: BTreeMap<u64, Op>,
    committed: Option<u64>,
}

impl Log {
    fn read(frames: &[Frame], meta: &Meta) -> Self {
        let mut live = Live::new(meta);
        let (mut entries, mut committed) = (BTreeMap::new(), meta.committed);
        for (header, body) in frames {
            live.take(header);
            if header.opening.kind == FrameKind::Truncation {
                entries.retain(|index, _| *index < header.opening.first_index);
            }
            let mut rest = &body[..];
            for index in header.opening.first_index.. {
                let Ok((payload, len)) = codec::decode_deep(Encoded::elsewhere(rest)) else {
                    break;
                };
                entries.insert(index, Op::decoded(&payload));
                rest = &rest[len..];
            }
            assert!(rest.is_empty(), "a frame that does not decode was taken");
            committed = committed.max(header.committed);
        }
        let last = live.last();
        assert_eq!(live.ids.len(), entries.len(), "each entry once");
        Self { last, entries, committed: committed.min(last.map(|last| last.index)) }
    }

    fn state(&self, mode: CommitMode) -> State {
        let may_apply = |index: u64| mode == CommitMode::OnAppend || Some(index) <= self.committed;
        let entries = self.entries.iter().filter(|(index, _)| may_apply(**index));
        state_after(entries.map(|(_, op)| op))
    }
}

fn check_typed(error: &OpenError) {
    let file = match error {
        OpenError::Corrupt(corrupt) => &corrupt.file,
        OpenError::UnknownVersion { file, .. } => file,
        other => panic!("damage is not named: {other}"),
    };
    assert!(file.ends_with(".seg"), "damage of {file}, which is whole");
}

/// Checks that reading every byte finds damage of durable bytes where opening is refused, and
/// nowhere else.
fn check_verify(sim: &SimDisk, meta: &Meta, result: &Result<ScanResult, OpenError>) {
    let (mut lost, mut torn) = (0, 0);
    let verified = with_disk(sim, |disk| {
        verify(disk, meta, meta.base.last, &mut |finding| {
            *if finding.was_durable { &mut lost } else { &mut torn } += 1
        })
    });
    match (result, verified) {
        (Ok(result), Ok(_)) => {
            let contradicted = result.begins_late.is_some() || is_older(meta, result);
            assert_eq!(lost > 0, contradicted, "opened in spite of damage");
            assert_eq!(torn > 0, result.cut.is_some(), "a torn end is reported");
        }
        (Err(OpenError::Corrupt(_)), Ok(_)) => assert!(lost > 0, "refused, and nothing is found"),
        _ => {}
    }
}

fn check_state(machine: &PersistentStateMachine, log: &Log, mode: CommitMode, result: &ScanResult) {
    assert_eq!(result.tail.last, log.last);
    assert_eq!(machine.recovery().last, log.last);
    assert_eq!(machine.recovery().cut.is_some(), result.cut.is_some());
    compare(machine, &log.state(mode));
}

fn compare(machine: &PersistentStateMachine, expected: &State) {
    let state = machine.scan_sorted().unwrap();
    let state: State = state.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    assert!(state == *expected, "another state: keys {:?}, {:?}", state.len(), expected.len());
}

/// Opens and closes the directory, and checks that only META records it.
fn check_reopened(sim: &SimDisk, before: &Meta, seen: &[Frame]) {
    let meta = read_meta(sim);
    let (again, result) = scanned(sim, &meta);
    assert_eq!(again, seen, "opening changed the log");
    let result = result.unwrap();
    assert_eq!(result.cut, None, "what was cut is there again");
    assert!(meta.clean_close);
    assert!(meta.durable_sequence.is_before(result.tail.next_sequence));
    assert!(meta.incarnation > before.incarnation);
    assert!(meta.incarnation >= result.tail.incarnation_seen_max);
}

/// Checks that one more entry is taken, and survives with all before it.
fn check_goes_on(sim: &SimDisk, mode: CommitMode, log: &Log, seen: &[Frame]) {
    let next = log.last.map_or(Some(1), |last| last.index.checked_add(1));
    let Some(next) = next.filter(|next| *next < u64::MAX) else { return };
    if read_meta(sim).incarnation >= u64::MAX - 1 {
        // Two more openings follow, and there are incarnations for one at most.
        return;
    }
    // A forged META that calls the log closed makes opening read nothing behind its end. Frames
    // there that claim more, which no engine leaves, are found after the next crash, and refused
    // then.
    let meta = read_meta(sim);
    let whole = with_disk(sim, |disk| scan(disk, &meta, false, &mut |_| Ok(())));
    if !whole.is_ok_and(|whole| whole.cut.is_none() && !is_older(&meta, &whole)) {
        return;
    }
    let term = log.last.map_or(1, |last| last.term);
    let open = || PersistentStateMachine::open_on_disk(sim.open(true).unwrap(), config(mode));
    let node: Node = node(open().unwrap(), 1);
    let entry = Entry::put(next, term, b"one more", b"value");
    if mode == CommitMode::OnAppend {
        let _ = node.apply_entries(&[entry]).unwrap();
    } else {
        let _ = node.consensus().unwrap().append(&[entry]).unwrap();
        node.consensus().unwrap().commit(next).unwrap();
    }
    node.run_until_idle();
    assert_eq!(node.stats().acknowledged, Some(next));
    let mut state = if mode == CommitMode::OnAppend {
        log.state(mode)
    } else {
        state_after(log.entries.values())
    };
    state.insert(b"one more".to_vec(), b"value".to_vec());
    compare(node.machine(), &state);
    sim.power_cut_keeping(0);
    drop(node);
    let (again, result) = scanned(sim, &read_meta(sim));
    assert_eq!(again[..seen.len()], *seen);
    assert_eq!(result.unwrap().tail.last.map(|last| last.index), Some(next));
    let machine = open().unwrap();
    assert_eq!(machine.recovery().last.map(|last| last.index), Some(next));
    if mode == CommitMode::OnAppend {
        compare(&machine, &state);
    }
}
