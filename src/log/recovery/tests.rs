//! Damage of every kind, and what reading the log makes of it.

#![allow(clippy::unwrap_used, reason = "tests")]

use crc32c::crc32c;

use super::files::{Segment, Window};
use super::scan::{CutReport, ScanOptions, ScanResult, erase_after, scan};
use super::verify::{VerifyFinding, VerifySummary, verify};
use crate::codec::{self, Limits};
use crate::disk::Disk;
use crate::entry::{Entry, LeaderTag, LogId};
use crate::error::{Corrupt, OpenError};
use crate::log::format::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, OpeningHalf, SEGMENT_BYTES_MAX, put, segment_name,
};
use crate::log::meta::{CommitMode, LogBase, Meta, MetaFile};
use crate::log::test_disk::MemoryDisk;

mod beside;
mod blame;

const ID: [u8; 16] = *b"0123456789abcdef";

fn meta(durable_sequence: u64) -> Meta {
    Meta {
        database_id: ID,
        hash_seed: 0,
        commit_mode: CommitMode::AsAppended,
        clean_close: false,
        base: LogBase::default(),
        incarnation: 1,
        durable_sequence,
        committed: None,
    }
}

/// Writes logs as a log writer would.
#[derive(Clone)]
struct Writer {
    segments: Vec<Vec<u8>>,
    /// Where each frame is: segment, start, end.
    frames: Vec<(usize, usize, usize)>,
    sequence: u64,
    chain: u64,
    incarnation: u64,
    term: u64,
    next_index: u64,
    durable_sequence: u64,
    committed: Option<u64>,
}

impl Writer {
    fn new() -> Self {
        Self {
            segments: vec![Vec::new()],
            frames: Vec::new(),
            sequence: 0,
            chain: 0,
            incarnation: 1,
            term: 1,
            next_index: 0,
            durable_sequence: 0,
            committed: None,
        }
    }

    fn bodies(&self, keys: &[&str]) -> Vec<u8> {
        let mut body = Vec::new();
        for key in keys {
            let entry = Entry::put(0, 0, key.as_bytes(), b"a value");
            let start = body.len();
            body.resize(start + codec::encoded_len(&entry, &Limits::default()).unwrap(), 0);
            codec::encode(&entry, &mut body[start..]);
        }
        body
    }

    fn header(&self, kind: FrameKind, first_index: u64, count: u32, body: &[u8]) -> FrameHeader {
        FrameHeader {
            opening: OpeningHalf {
                kind,
                first_index,
                term: self.term,
                leader: LeaderTag::EMPTY,
                sequence: self.sequence + 1,
                incarnation: self.incarnation,
            },
            body_bytes: u32::try_from(body.len()).unwrap(),
            count,
            previous: self.chain,
            durable_sequence: self.durable_sequence,
            committed: self.committed,
            segment: self.segments.len() as u64 - 1,
            offset: self.segments.last().unwrap().len().next_multiple_of(64) as u64,
            body_crc: crc32c(body),
        }
    }

    fn write(&mut self, header: &FrameHeader, body: &[u8]) -> &mut Self {
        let number = self.segments.len() - 1;
        let segment = &mut self.segments[number];
        let start = segment.len().next_multiple_of(64);
        segment.resize(start, 0);
        segment.extend_from_slice(&header.to_bytes(&ID));
        segment.extend_from_slice(body);
        self.frames.push((number, start, segment.len()));
        self.sequence = header.opening.sequence;
        self.chain = header.checksum(&ID);
        self
    }

    fn entries(&mut self, keys: &[&str]) -> &mut Self {
        let body = self.bodies(keys);
        let count = u32::try_from(keys.len()).unwrap();
        let header = self.header(FrameKind::Entries, self.next_index, count, &body);
        self.next_index += keys.len() as u64;
        self.write(&header, &body)
    }

    fn truncation(&mut self, first_removed: u64) -> &mut Self {
        let header = self.header(FrameKind::Truncation, first_removed, 0, b"");
        self.next_index = first_removed;
        self.write(&header, b"")
    }

    fn segment(&mut self) -> &mut Self {
        self.segments.push(Vec::new());
        self
    }

    /// On a disk, with `zeros` preallocated bytes behind each segment.
    fn disk(&self, zeros: usize) -> MemoryDisk {
        let disk = MemoryDisk::default();
        for (number, bytes) in self.segments.iter().enumerate() {
            let bytes = [&bytes[..], &vec![0; zeros][..]].concat();
            disk.set(&segment_name(number as u64), bytes);
        }
        disk
    }
}

/// Three frames in one segment, two in the next; nothing claimed durable.
fn five_frames() -> Writer {
    let mut log = Writer::new();
    log.entries(&["a", "bb"]).entries(&["ccc"]).entries(&["d", "e", "f"]).segment();
    log.entries(&["g"]).entries(&["h", "i"]);
    log
}

type Seen = Vec<(u64, Vec<u8>)>;

/// The sequences and bodies of the good frames, and what came of the scan.
fn read(disk: &MemoryDisk, meta: &Meta) -> (Seen, Result<ScanResult, OpenError>) {
    read_with(disk, meta, ScanOptions::default())
}

fn read_with(
    disk: &MemoryDisk,
    meta: &Meta,
    options: ScanOptions,
) -> (Seen, Result<ScanResult, OpenError>) {
    let mut seen = Vec::new();
    let result = scan(disk, meta, options, &mut |frame| {
        assert_eq!((frame.segment, frame.offset), (frame.header.segment, frame.header.offset));
        seen.push((frame.header.opening.sequence, frame.body.to_vec()));
        Ok(())
    });
    (seen, result)
}

fn corrupt(result: Result<ScanResult, OpenError>) -> Corrupt {
    match result {
        Err(OpenError::Corrupt(place)) => place,
        other => panic!("not corrupt: {other:?}"),
    }
}

#[test]
fn a_whole_log_is_read_to_its_end_over_segments_and_ends_without_a_cut() {
    let log = five_frames();
    let (seen, result) = read(&log.disk(4096), &meta(5));
    let result = result.unwrap();
    assert_eq!(seen.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(result.cut, None);
    let tail = result.tail;
    assert_eq!((tail.segment, tail.offset), (1, log.segments[1].len() as u64));
    assert_eq!((tail.next_sequence, tail.chain, tail.last), (6, log.chain, Some(LogId::new(8, 1))));
    assert_eq!((tail.incarnation_seen_max, tail.durable_sequence_known), (1, 5));
    let shape: Vec<_> =
        result.segments.iter().map(|s| (s.number, s.frames, s.first_index, s.last_index)).collect();
    assert_eq!(shape, [(0, 3, Some(0), Some(5)), (1, 2, Some(6), Some(8))]);
    assert_eq!(result.segments[0].used_bytes, log.segments[0].len() as u64);
}

#[test]
fn an_empty_directory_is_an_empty_log() {
    let (seen, result) = read(&MemoryDisk::default(), &meta(0));
    let result = result.unwrap();
    assert!(seen.is_empty() && result.cut.is_none() && result.segments.is_empty());
    assert_eq!((result.tail.next_sequence, result.tail.last), (1, None));
    let place = corrupt(read(&MemoryDisk::default(), &meta(1)).1);
    assert_eq!((&*place.file, place.what), ("0000000000000000.seg", "the file is missing"));
}

/// A good result is a prefix of the true log.
fn assert_prefix(seen: &Seen, whole: &Seen) {
    assert!(whole.starts_with(seen), "not a prefix: {} frames", seen.len());
}

#[test]
fn every_flipped_bit_of_what_was_durable_is_corrupt_and_of_what_was_not_a_cut() {
    let log = five_frames();
    let whole = read(&log.disk(64), &meta(5)).0;
    for (number, bytes) in log.segments.iter().enumerate() {
        for bit in 0..bytes.len() * 8 {
            let at = bit / 8;
            let frame = log.frames.iter().position(|(segment, start, end)| {
                *segment == number && (*start..*end).contains(&at)
            });
            let disk = log.disk(64);
            let mut flipped = disk.bytes(&segment_name(number as u64));
            flipped[at] ^= 1 << (bit % 8);
            disk.set(&segment_name(number as u64), flipped);
            for durable in [0, 2, 5] {
                let (seen, result) = read(&disk, &meta(durable));
                let Some(frame) = frame else {
                    // Padding: no byte of the log is concerned.
                    assert_eq!(seen, whole);
                    assert_eq!(result.unwrap().cut, None);
                    continue;
                };
                assert_eq!(seen.len(), frame, "bit {bit} of segment {number}");
                assert_prefix(&seen, &whole);
                if (frame as u64) < durable {
                    let place = corrupt(result);
                    let start = log.frames[frame].1 as u64;
                    assert_eq!((place.file, place.offset), (segment_name(number as u64), start));
                } else {
                    let cut = result.unwrap().cut;
                    assert!(cut.is_some_and(|cut| cut.bytes > 0), "bit {bit} of {number}");
                }
            }
        }
    }
}

#[test]
fn a_bit_flipped_behind_the_end_is_reported_and_loses_nothing() {
    let log = five_frames();
    let disk = log.disk(256);
    let name = segment_name(1);
    let mut bytes = disk.bytes(&name);
    let at = log.segments[1].len().next_multiple_of(64) + 100;
    bytes[at] = 1;
    disk.set(&name, bytes);
    let (seen, result) = read(&disk, &meta(5));
    let offset = log.segments[1].len() as u64;
    let bytes = at as u64 + 1 - offset.next_multiple_of(64);
    let cut = CutReport { file: name, offset, bytes, frames_seen: 0, indexes: None };
    assert_eq!((seen.len(), result.unwrap().cut), (5, Some(cut)));
}

#[test]
fn a_file_cut_short_at_any_byte_is_corrupt_if_durable_and_else_a_prefix() {
    let log = five_frames();
    let whole = read(&log.disk(0), &meta(5)).0;
    for (number, bytes) in log.segments.iter().enumerate() {
        for length in 0..bytes.len() {
            let disk = log.disk(0);
            disk.set(&segment_name(number as u64), bytes[..length].to_vec());
            let good = log
                .frames
                .iter()
                .position(|(segment, _, end)| *segment == number && length < *end)
                .unwrap();
            for durable in [0, 2, 5] {
                let (seen, result) = read(&disk, &meta(durable));
                assert_eq!(seen.len(), good, "{length} bytes of segment {number}");
                assert_prefix(&seen, &whole);
                assert_eq!(result.is_err(), (good as u64) < durable, "{length} of {number}");
            }
        }
    }
}

#[test]
fn headers_of_later_frames_prove_durability_without_meta() {
    let mut log = Writer::new();
    for key in ["a", "b", "c", "d"] {
        log.durable_sequence = log.sequence;
        log.entries(&[key]);
    }
    for (number, (_, start, _)) in log.frames.iter().enumerate() {
        let disk = log.disk(64);
        let mut bytes = disk.bytes(&segment_name(0));
        bytes[start + 10] ^= 1;
        disk.set(&segment_name(0), bytes);
        let (seen, result) = read(&disk, &meta(0));
        assert_eq!((seen.len(), result.is_err()), (number, number < 3), "frame {number}");
    }
}

#[test]
fn frames_in_flight_may_be_lost_in_any_order_and_that_is_a_cut() {
    // Defect 33: frames 1 and 2 are durable; 3, 4, 5 were in flight, each header saying so.
    let mut log = Writer::new();
    log.entries(&["a"]).entries(&["b"]);
    log.durable_sequence = 2;
    log.entries(&["c"]).entries(&["d", "e"]).segment();
    log.entries(&["f"]);
    let whole = read(&log.disk(64), &meta(2)).0;
    for lost in 1..8_usize {
        let disk = log.disk(64);
        for (frame, (number, start, end)) in log.frames[2..].iter().enumerate() {
            if lost >> frame & 1 == 1 {
                let name = segment_name(*number as u64);
                let mut bytes = disk.bytes(&name);
                bytes[*start..*end].fill(0);
                disk.set(&name, bytes);
            }
        }
        let (seen, result) = read(&disk, &meta(2));
        let good = 2 + lost.trailing_zeros() as usize;
        assert_eq!(seen, whole[..good], "lost {lost:03b}");
        let seen_later = 5 - good as u64 - u64::from(lost.count_ones());
        let cut = result.unwrap().cut;
        assert_eq!(cut.as_ref().map_or(0, |cut| cut.frames_seen), seen_later, "lost {lost:03b}");
        assert_eq!(cut.is_some(), seen_later > 0);
        // The reverse: once they are durable, the same loss is corruption.
        corrupt(read(&disk, &meta(5)).1);
    }
}

#[test]
fn any_sectors_of_a_group_may_be_lost_and_what_was_durable_stays() {
    let mut log = Writer::new();
    log.entries(&["a"]).entries(&["b"]);
    let durable = log.segments[0].clone();
    log.durable_sequence = 2;
    let long = "k".repeat(900);
    log.entries(&["c"]).entries(&[&long]).entries(&["d", "e"]).entries(&[&long, &long]);
    let after = log.disk(4096).bytes(&segment_name(0));
    let mut before = durable.clone();
    before.resize(after.len(), 0);
    let whole = read(&log.disk(0), &meta(2)).0;
    let sectors = log.segments[0].len().div_ceil(512);
    assert!((8..=10).contains(&sectors));
    let mut lengths = [0; 7];
    for arrived in 0..1_usize << sectors {
        let mut bytes = before.clone();
        for sector in (0..sectors).filter(|sector| arrived >> sector & 1 == 1) {
            let range = sector * 512..(sector + 1) * 512;
            bytes[range.clone()].copy_from_slice(&after[range]);
        }
        let disk = MemoryDisk::default();
        disk.set(&segment_name(0), bytes);
        let (seen, result) = read(&disk, &meta(2));
        let cut = result.unwrap().cut;
        assert_prefix(&seen, &whole);
        assert!(seen.len() >= 2, "sectors {arrived:b}");
        assert_eq!(cut.is_none(), seen.len() == 6 || arrived == 0, "sectors {arrived:b}");
        lengths[seen.len()] += 1;
    }
    // The fifth frame shares its sectors with the ends of its neighbours: the log never ends right before it.
    assert!([2, 3, 5].iter().all(|frames| lengths[*frames] > 0), "{lengths:?}");
    assert_eq!(lengths[6], 1, "only all sectors make the whole log");
}

#[test]
fn a_cut_tail_never_comes_back() {
    // Defect 32: frame 2 is torn, frame 3 whole. The next incarnation writes the same entries again.
    let mut log = Writer::new();
    log.entries(&["a"]);
    let again = log.clone();
    log.entries(&["b"]).entries(&["c"]);
    let (_, start, end) = log.frames[1];
    let disk = log.disk(512);
    let mut bytes = disk.bytes(&segment_name(0));
    bytes[end - 1] ^= 1;
    disk.set(&segment_name(0), bytes.clone());
    let (seen, result) = read(&disk, &meta(1));
    let cut = result.unwrap().cut.unwrap();
    assert_eq!((seen.len(), cut.frames_seen, cut.indexes), (1, 2, Some((1, 2))));

    let write_again = |incarnation| {
        let mut again = Writer { incarnation, ..again.clone() };
        again.entries(&["b"]);
        assert_eq!(again.frames[1], (0, start, end), "the same entries in the same place");
        let mut bytes = bytes.clone();
        bytes[start..end].copy_from_slice(&again.segments[0][start..end]);
        disk.set(&segment_name(0), bytes);
        read(&disk, &meta(1))
    };
    let (seen, result) = write_again(2);
    let result = result.unwrap();
    assert_eq!((seen.len(), result.cut), (2, None), "what is behind is stale, and no cut");
    assert_eq!((result.tail.next_sequence, result.tail.incarnation_seen_max), (3, 2));
    // With the same incarnation the old frame 3 would be back: this test can fail.
    assert_eq!(write_again(1).0.len(), 3);
}

#[test]
fn a_frame_of_an_older_incarnation_is_refused_even_if_it_chains_on() {
    let mut log = Writer::new();
    log.incarnation = 2;
    log.entries(&["a"]);
    log.incarnation = 1;
    log.entries(&["b"]);
    let (seen, result) = read(&log.disk(64), &meta(1));
    assert_eq!((seen.len(), result.unwrap().cut), (1, None));
    assert_eq!(
        corrupt(read(&log.disk(64), &meta(2)).1).what,
        "a frame is of an earlier incarnation"
    );
}

#[test]
fn a_lost_misdirected_or_duplicated_frame_is_found() {
    let log = five_frames();
    let copy = |from: usize, to: usize| {
        let disk = log.disk(64);
        let (source, start, end) = log.frames[from];
        let (target, at, _) = log.frames[to];
        let name = segment_name(target as u64);
        let mut bytes = disk.bytes(&name);
        let frame = &log.segments[source][start..end];
        let needed = bytes.len().max(at + frame.len());
        bytes.resize(needed, 0);
        put(&mut bytes, at, frame);
        disk.set(&name, bytes);
        disk
    };
    for (from, to) in [(0, 1), (1, 0), (2, 1), (0, 3), (3, 0), (4, 3), (3, 4)] {
        let disk = copy(from, to);
        let (seen, result) = read(&disk, &meta(5));
        assert_eq!(seen.len(), to, "{from} over {to}");
        assert_eq!(corrupt(result).what, "a frame is not the one that belongs here");
        let (seen, result) = read(&disk, &meta(0));
        assert_eq!(seen.len(), to, "{from} over {to}");
        result.unwrap();
    }
    // A write that never reached the disk leaves what was there before: zeros.
    let disk = log.disk(64);
    let (_, start, end) = log.frames[1];
    let mut bytes = disk.bytes(&segment_name(0));
    bytes[start..end].fill(0);
    disk.set(&segment_name(0), bytes);
    let place = corrupt(read(&disk, &meta(5)).1);
    assert_eq!((place.offset, place.index), (start as u64, Some(2)));
    // A segment swapped for another, and one that is gone.
    let disk = log.disk(64);
    disk.set(&segment_name(1), disk.bytes(&segment_name(0)));
    assert_eq!(corrupt(read(&disk, &meta(5)).1).file, segment_name(1));
    disk.remove(&segment_name(1)).unwrap();
    corrupt(read(&disk, &meta(5)).1);
    assert_eq!(read(&disk, &meta(3)).1.unwrap().cut, None);
}

#[test]
fn the_next_frame_in_the_wrong_place_is_not_the_next_frame() {
    // Frame 2 went to the start of segment 1: its sequence and chain are right.
    let mut log = Writer::new();
    log.entries(&["a"]).entries(&["b"]);
    let (_, start, _) = log.frames[1];
    let misdirected = log.segments[0].split_off(start);
    log.segments.push(misdirected);
    let (seen, result) = read(&log.disk(64), &meta(2));
    assert_eq!(seen.len(), 1);
    assert_eq!(corrupt(result).what, "a frame is not the one that belongs here");
    assert_eq!(read(&log.disk(64), &meta(1)).0.len(), 1);
}

#[test]
fn a_lost_overwrite_breaks_the_chain() {
    // Frame 1 was to be replaced by another of the same sequence and length, and the write was lost; frame 2 after
    // it fits in everything but the checksum it names.
    let (mut old, mut new) = (Writer::new(), Writer::new());
    old.entries(&["a"]);
    new.entries(&["b"]).entries(&["c"]);
    let (_, start, end) = old.frames[0];
    new.segments[0][start..end].copy_from_slice(&old.segments[0]);
    let (seen, result) = read(&new.disk(64), &meta(2));
    assert_eq!(seen.len(), 1);
    assert_eq!(corrupt(result).offset, new.frames[1].1 as u64);
}

#[test]
fn a_missing_segment_in_the_middle_is_named() {
    let mut log = five_frames();
    log.durable_sequence = 5;
    log.segment().entries(&["j"]);
    let disk = log.disk(64);
    disk.remove(&segment_name(1)).unwrap();
    // The header in segment 2 proves that what was in segment 1 was durable.
    let place = corrupt(read(&disk, &meta(0)).1);
    let expected =
        Corrupt { file: segment_name(1), offset: 0, index: Some(6), what: "the file is missing" };
    assert_eq!(place, expected);
}

#[test]
fn a_frame_of_another_version_is_refused_by_name_and_a_flipped_version_is_damage() {
    let mut log = Writer::new();
    log.entries(&["a"]).entries(&["b"]);
    let (_, start, _) = log.frames[1];
    log.segments[0][start + 4] = 2;
    let disk = log.disk(0);
    assert_eq!(corrupt(read(&disk, &meta(2)).1).what, "a frame header does not read back");
    assert_eq!(read(&disk, &meta(1)).0.len(), 1);
    reseal(&mut log.segments[0][start..]);
    let error = read(&log.disk(0), &meta(1)).1.unwrap_err().to_string();
    assert_eq!(error, "0000000000000000.seg has format version 2; this release reads version 1");
    // The version is not looked at where the frame is a stale one of somewhere else.
    log.segments[0][start + 96] = 7;
    reseal(&mut log.segments[0][start..]);
    assert_eq!(read(&log.disk(0), &meta(1)).0.len(), 1);
}

/// Makes the checksum of a header fit again.
fn reseal(header: &mut [u8]) {
    let crc = crc32c::crc32c_append(crc32c(&ID), &header[..124]);
    put(header, 124, &crc.to_le_bytes());
}

#[test]
fn an_unknown_kind_is_an_error_and_not_a_cut() {
    let mut log = Writer::new();
    log.entries(&["a"]);
    log.segments[0][6] = 3;
    reseal(&mut log.segments[0]);
    assert_eq!(corrupt(read(&log.disk(0), &meta(0)).1).what, "a frame is of an unknown kind");
}

#[test]
fn hostile_lengths_allocate_nothing() {
    let mut log = Writer::new();
    log.entries(&["a"]);
    for length in [u32::MAX, 32 << 20, (32 << 20) + 1] {
        let mut hostile = log.clone();
        put(&mut hostile.segments[0], 64, &length.to_le_bytes());
        reseal(&mut hostile.segments[0]);
        let disk = hostile.disk(0);
        let (seen, result) = read(&disk, &meta(0));
        assert!(seen.is_empty());
        // In range, it is a torn frame; out of range, no writer of ours wrote it.
        assert_eq!(result.is_ok(), length == 32 << 20, "{length}");
        let segment = Segment::open(&disk, 0).unwrap();
        let mut window = Window::default();
        assert!(window.read(&segment, 0, 128 + u64::from(length)).unwrap().is_none());
        assert!(window.read(&segment, u64::MAX, u64::MAX).unwrap().is_none());
        assert_eq!(window.capacity(), 0);
    }
    let disk = MemoryDisk::default();
    disk.set_claiming(&segment_name(0), log.segments[0].clone(), Some(SEGMENT_BYTES_MAX + 1));
    assert_eq!(corrupt(read(&disk, &meta(0)).1).what, "the file is longer than a segment can be");
    disk.set_claiming(&segment_name(0), log.segments[0].clone(), Some(SEGMENT_BYTES_MAX));
    assert_eq!(read(&disk, &meta(0)).0.len(), 1);
}

#[test]
fn entries_that_do_not_decode_under_a_good_checksum_are_corrupt() {
    let log = Writer::new();
    let body = log.bodies(&["a", "b"]);
    for (body, count) in [(&body[..], 1), (&body[..body.len() - 1], 2), (&[0xff; 16][..], 1)] {
        let mut log = Writer::new();
        let header = log.header(FrameKind::Entries, 0, count, body);
        log.write(&header, body);
        let (seen, result) = read(&log.disk(0), &meta(0));
        assert!(seen.is_empty());
        assert_eq!(corrupt(result).what, "an entry does not decode, though its checksum fits");
    }
}

#[test]
fn indexes_have_no_gap_and_terms_never_fall() {
    for (index, term) in [(3, 2), (1, 2), (0, 2), (2, 1)] {
        let mut log = Writer::new();
        log.term = 2;
        log.entries(&["a", "b"]);
        log.next_index = index;
        log.term = term;
        log.entries(&["c"]);
        assert_eq!(read(&log.disk(0), &meta(0)).0.len(), 1, "index {index}, term {term}");
    }
}

#[test]
fn a_truncation_takes_the_log_back_to_the_id_before_it() {
    let meta = |durable| Meta { commit_mode: CommitMode::ByCommit, ..meta(durable) };
    let mut log = Writer::new();
    log.entries(&["0", "1"]);
    log.term = 2;
    log.entries(&["2", "3"]);
    let last = |log: &Writer| read(&log.disk(0), &meta(0)).1.unwrap().tail.last;
    assert_eq!(last(&log), Some(LogId::new(3, 2)));
    assert_eq!(last(log.clone().truncation(3)), Some(LogId::new(2, 2)));
    assert_eq!(last(log.clone().truncation(2)), Some(LogId::new(1, 1)));
    assert_eq!(last(log.clone().truncation(1)), Some(LogId::new(0, 1)));
    assert_eq!(last(log.clone().truncation(0)), None);
    assert_eq!(last(log.clone().truncation(2).entries(&["x"])), Some(LogId::new(2, 2)));
    // The term may be one that would have been lower than what was removed, and the sequence goes on.
    let mut lower = log.clone();
    lower.truncation(2).term = 1;
    lower.entries(&["x"]);
    let result = read(&lower.disk(0), &meta(4)).1.unwrap();
    assert_eq!((result.tail.last, result.tail.next_sequence), (Some(LogId::new(2, 1)), 5));
    // There is nothing at index 5 to truncate.
    assert_eq!(read(&log.clone().truncation(5).disk(0), &meta(0)).0.len(), 2);
}

#[test]
fn a_truncation_of_what_was_committed_is_corrupt() {
    let meta = |durable| Meta { commit_mode: CommitMode::ByCommit, ..meta(durable) };
    let mut log = Writer::new();
    log.entries(&["0", "1", "2"]);
    log.committed = Some(1);
    assert!(read(&log.clone().truncation(2).disk(0), &meta(0)).1.is_ok());
    let place = corrupt(read(&log.truncation(1).disk(0), &meta(0)).1);
    assert_eq!(place.what, "a truncation of what was committed");
}

#[test]
fn a_log_with_a_base_starts_there_and_names_segments_below_as_obsolete() {
    let log = five_frames();
    let (_, _, end) = log.frames[2];
    let third = FrameHeader::parse(
        log.segments[0][log.frames[2].1..].first_chunk::<FRAME_HEADER_BYTES>().unwrap(),
        &ID,
    )
    .unwrap();
    assert!(end > 0);
    let last = Some(LogId::new(5, 1));
    let base = LogBase { segment: 1, sequence: 3, chain: third.checksum(&ID), last };
    let based = Meta { base, committed: Some(40), ..meta(5) };
    let (seen, result) = read(&log.disk(0), &based);
    let result = result.unwrap();
    assert_eq!((seen.len(), &result.obsolete[..]), (2, &[0][..]));
    assert_eq!(result.tail.committed, Some(8), "nothing is committed here that is not here");
    let wrong = Meta { base: LogBase { last: Some(LogId::new(6, 1)), ..base }, ..based };
    corrupt(read(&log.disk(0), &wrong).1);
}

#[test]
fn a_recycled_segment_ends_where_its_stale_frames_start() {
    // Segment 1 is a recycled segment 0 over which one frame was written.
    let mut old = Writer::new();
    let long = "k".repeat(900);
    old.entries(&[&long]).entries(&["e"]).entries(&["f"]);
    let mut new = Writer { segments: old.segments.clone(), ..old.clone() };
    new.segment().entries(&["g"]);
    let written = new.segments[1].len();
    let recycled = [&new.segments[1][..], &old.segments[0][written..]].concat();
    let disk = new.disk(0);
    disk.set(&segment_name(1), recycled);
    let (seen, result) = read(&disk, &meta(0));
    assert_eq!((seen.len(), result.unwrap().cut), (4, None));
}

#[test]
fn a_strict_open_refuses_a_cut_and_accepts_a_whole_log() {
    let log = five_frames();
    let strict = ScanOptions { strict: true, ..ScanOptions::default() };
    read_with(&log.disk(512), &meta(0), strict).1.unwrap();
    let disk = log.disk(0);
    let bytes = disk.bytes(&segment_name(1));
    disk.set(&segment_name(1), bytes[..bytes.len() - 1].to_vec());
    let error = read_with(&disk, &meta(0), strict).1.unwrap_err();
    let end = log.frames[3].2 as u64;
    assert!(matches!(error, OpenError::Torn { offset, .. } if offset == end), "{error}");
}

#[test]
fn erasing_a_cut_leaves_the_same_log_and_nothing_to_cut() {
    let log = five_frames();
    let disk = log.disk(300);
    let mut bytes = disk.bytes(&segment_name(0));
    bytes[log.frames[1].1 + 130] ^= 1;
    disk.set(&segment_name(0), bytes);
    let (seen, result) = read(&disk, &meta(0));
    let before = result.unwrap();
    assert_eq!((seen.len(), before.cut.as_ref().map(|cut| cut.frames_seen)), (1, Some(4)));
    assert!(erase_after(&disk, &before.tail).unwrap() > 0);
    let (seen, result) = read(&disk, &meta(0));
    let after = result.unwrap();
    assert_eq!((seen.len(), after.tail, after.cut), (1, before.tail, None));
    assert_eq!(erase_after(&disk, &after.tail).unwrap(), 0);
}

#[test]
fn a_file_that_is_not_ours_stops_everything_and_a_snapshot_does_not() {
    let disk = five_frames().disk(0);
    disk.set("0000000000000001.snap", vec![1]);
    read(&disk, &meta(5)).1.unwrap();
    disk.set("thesis.doc", vec![1]);
    let error = read(&disk, &meta(5)).1.unwrap_err();
    assert!(matches!(&error, OpenError::ForeignFile { file, .. } if file == "thesis.doc"));
}

#[test]
fn an_error_of_the_visitor_ends_the_scan() {
    let disk = five_frames().disk(0);
    let mut frames = 0;
    let result = scan(&disk, &meta(5), ScanOptions::default(), &mut |_| {
        frames += 1;
        Err(OpenError::Missing { path: String::new() })
    });
    assert!(matches!(result, Err(OpenError::Missing { .. })));
    assert_eq!(frames, 1);
}

fn verified(disk: &MemoryDisk, meta: &Meta) -> (VerifySummary, Vec<VerifyFinding>) {
    let mut findings = Vec::new();
    let summary = verify(disk, meta, &mut |finding| findings.push(finding)).unwrap();
    assert_eq!(summary.findings, findings.len() as u64);
    (summary, findings)
}

#[test]
fn verify_names_all_damage_and_goes_on_behind_it() {
    let log = five_frames();
    let disk = log.disk(128);
    MetaFile::create(&disk, &meta(5)).unwrap();
    assert_eq!(
        verified(&disk, &meta(5)),
        (VerifySummary { frames: 5, entries: 9, findings: 0 }, vec![])
    );
    // The body of frame 1, the header of frame 3, and a bit of the older META slot.
    let damage = |number: u64, at: usize| {
        let mut bytes = disk.bytes(&segment_name(number));
        bytes[at] ^= 4;
        disk.set(&segment_name(number), bytes);
    };
    damage(0, log.frames[0].1 + 130);
    damage(0, log.frames[2].1 + 50);
    let (mut file, ..) = MetaFile::open(&disk, true).unwrap().unwrap();
    file.store(&meta(5)).unwrap();
    let mut bytes = disk.bytes("META");
    bytes[4096 + 70] ^= 1;
    disk.set("META", bytes);
    let (summary, findings) = verified(&disk, &meta(5));
    assert_eq!((summary.frames, summary.entries), (3, 4));
    let places: Vec<_> =
        findings.iter().map(|f| (&*f.place.file, f.place.offset, f.place.index)).collect();
    let third = log.frames[2].1 as u64;
    let segment = "0000000000000000.seg";
    assert_eq!(places, [("META", 4096, None), (segment, 0, Some(0)), (segment, third, Some(3))]);
    assert!(findings.iter().all(|finding| finding.was_durable));
}

#[test]
fn verify_names_the_first_frame_of_a_later_segment_once() {
    let log = five_frames();
    let disk = log.disk(128);
    MetaFile::create(&disk, &meta(5)).unwrap();
    let whole = disk.bytes(&segment_name(1));
    // Its header, and its body.
    for at in [50, 130] {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        disk.set(&segment_name(1), bytes);
        let (_, findings) = verified(&disk, &meta(5));
        let places: Vec<_> = findings.iter().map(|f| (&*f.place.file, f.place.offset)).collect();
        assert_eq!(places, [(&*segment_name(1), 0)], "byte {at}");
    }
}

#[test]
fn verify_tells_a_torn_end_from_damage() {
    let log = five_frames();
    let disk = log.disk(0);
    MetaFile::create(&disk, &meta(4)).unwrap();
    let bytes = disk.bytes(&segment_name(1));
    disk.set(&segment_name(1), bytes[..bytes.len() - 1].to_vec());
    let (summary, findings) = verified(&disk, &meta(4));
    assert_eq!((summary.frames, findings.len()), (4, 1));
    assert!(!findings[0].was_durable);
    let (_, findings) = verified(&disk, &meta(5));
    assert!(findings[0].was_durable);
}
