//! Tests of every kind of damage, and of what reading the log makes of it.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::scan::{CutReport, ScanOptions, ScanResult, erase_after, scan};
use crate::bytes::put;
use crate::config::{CommitMode, Contiguity};
use crate::disk::Disk;
use crate::disk::names;
use crate::entry::LogId;
use crate::error::{Corrupt, OpenError};
use crate::log::format::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::log::meta::{HardRecord, LogBase, Meta, MetaFile};
use crate::log::test_disk::MemoryDisk;
use crate::numbers::{FrameSequence, SegmentNumber};

mod beside;
mod blame;
mod hostile;
mod verify;
mod writer;

use writer::{Writer, reseal};

/// The file name of the segment with this number.
fn segment_name(number: usize) -> String {
    names::segment_name(segment(number))
}

fn segment(number: usize) -> SegmentNumber {
    SegmentNumber::of_stored(number as u64)
}

const ID: [u8; 16] = *b"0123456789abcdef";

fn meta(durable_sequence: u64) -> Meta {
    Meta {
        database_id: ID,
        hash_seed: 0,
        commit_mode: CommitMode::OnAppend,
        contiguity: Contiguity::Strict,
        state: None,
        is_kept: false,
        clean_close: false,
        base: LogBase::default(),
        incarnation: 1,
        durable_sequence: FrameSequence::new(durable_sequence),
        committed: None,
        hard: HardRecord::Stored(0),
    }
}

/// Three frames in one segment, two in the next; no header claims that any is durable.
fn five_frames() -> Writer {
    let mut log = Writer::new();
    log.entries(&["a", "bb"]).entries(&["ccc"]).entries(&["d", "e", "f"]).segment();
    log.entries(&["g"]).entries(&["h", "i"]);
    log
}

type Seen = Vec<(u64, Vec<u8>)>;

/// The sequences and bodies of the good frames, and the result of the scan.
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
        seen.push((frame.header.opening.sequence.get(), frame.body.to_vec()));
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
    assert_eq!((tail.segment, tail.offset), (segment(1), log.segments[1].len() as u64));
    assert_eq!(
        (tail.next_sequence.get(), tail.chain, tail.last),
        (6, log.chain, Some(LogId::new(8, 1)))
    );
    assert_eq!((tail.incarnation_seen_max, tail.durable_sequence_known.get()), (1, 5));
    let shape: Vec<_> = result
        .segments
        .iter()
        .map(|s| (s.number.get(), s.frames, s.first_index, s.last_index))
        .collect();
    assert_eq!(shape, [(0, 3, Some(0), Some(5)), (1, 2, Some(6), Some(8))]);
    assert_eq!(result.segments[0].used_bytes, log.segments[0].len() as u64);
}

#[test]
fn an_empty_directory_is_an_empty_log() {
    let (seen, result) = read(&MemoryDisk::default(), &meta(0));
    let result = result.unwrap();
    assert!(seen.is_empty() && result.cut.is_none() && result.segments.is_empty());
    assert_eq!((result.tail.next_sequence.get(), result.tail.last), (1, None));
    let place = corrupt(read(&MemoryDisk::default(), &meta(1)).1);
    assert_eq!((&*place.file, place.what), ("0000000000000000.seg", "the file is missing"));
}

/// Checks that the good frames are a prefix of the true log.
fn assert_prefix(seen: &Seen, whole: &Seen) {
    assert!(whole.starts_with(seen), "not a prefix: {} frames", seen.len());
}

/// Proves DUR-11.
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
            let mut flipped = disk.bytes(&segment_name(number));
            flipped[at] ^= 1 << (bit % 8);
            disk.set(&segment_name(number), flipped);
            for durable in [0, 2, 5] {
                let (seen, result) = read(&disk, &meta(durable));
                let Some(frame) = frame else {
                    // This is padding, so no byte of the log is affected.
                    assert_eq!(seen, whole);
                    assert_eq!(result.unwrap().cut, None);
                    continue;
                };
                assert_eq!(seen.len(), frame, "bit {bit} of segment {number}");
                assert_prefix(&seen, &whole);
                if (frame as u64) < durable {
                    let place = corrupt(result);
                    let start = log.frames[frame].1 as u64;
                    assert_eq!((place.file, place.offset), (segment_name(number), start));
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
            disk.set(&segment_name(number), bytes[..length].to_vec());
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
    // Frames 1 and 2 are durable; 3, 4 and 5 were in flight, as each header says.
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
                let name = segment_name(*number);
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
        // The reverse: once these frames are durable, the same loss is corruption.
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
    // The fifth frame shares its sectors with the ends of its neighbours: the log never ends right
    // before it.
    assert!([2, 3, 5].iter().all(|frames| lengths[*frames] > 0), "{lengths:?}");
    assert_eq!(lengths[6], 1, "only all sectors make the whole log");
}

/// Proves DUR-14.
#[test]
fn a_cut_tail_never_comes_back() {
    // Frame 2 is torn, and frame 3 is whole. The next incarnation writes the same entries again.
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
    assert_eq!((result.tail.next_sequence.get(), result.tail.incarnation_seen_max), (3, 2));
    // With the same incarnation the old frame 3 would be back, so this test can fail.
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
        let name = segment_name(target);
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
    // A write that never reached the disk leaves zeros.
    let disk = log.disk(64);
    let (_, start, end) = log.frames[1];
    let mut bytes = disk.bytes(&segment_name(0));
    bytes[start..end].fill(0);
    disk.set(&segment_name(0), bytes);
    let place = corrupt(read(&disk, &meta(5)).1);
    assert_eq!((place.offset, place.index), (start as u64, Some(2)));
    // One segment is replaced by another, and one is missing.
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
    // Frame 1 was to be replaced by another of the same sequence and length, and the write was
    // lost. Frame 2 after it fits in everything but the checksum that it names.
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
    // The header in segment 2 proves that the frames of segment 1 were durable.
    let place = corrupt(read(&disk, &meta(0)).1);
    let expected =
        Corrupt { file: segment_name(1), offset: 0, index: Some(6), what: "the file is missing" };
    assert_eq!(place, expected);
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

/// Proves ORD-2.
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
    // A term below that of the removed entries is allowed, and the sequence continues.
    let mut lower = log.clone();
    lower.truncation(2).term = 1;
    lower.entries(&["x"]);
    let result = read(&lower.disk(0), &meta(4)).1.unwrap();
    assert_eq!((result.tail.last, result.tail.next_sequence.get()), (Some(LogId::new(2, 1)), 5));
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
    let base = LogBase {
        segment: segment(1),
        sequence: FrameSequence::new(3),
        chain: third.checksum(&ID),
        last,
    };
    let based = Meta { base, committed: Some(40), ..meta(5) };
    let (seen, result) = read(&log.disk(0), &based);
    let result = result.unwrap();
    assert_eq!((seen.len(), &result.obsolete[..]), (2, &[segment(0)][..]));
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

/// Proves DUR-12.
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
fn neither_a_snapshot_nor_a_file_that_is_not_ours_stops_reading() {
    let disk = five_frames().disk(0);
    let before = read(&disk, &meta(5)).1.unwrap();
    disk.set("0000000000000001.snap", vec![1]);
    disk.set("thesis.doc", vec![1]);
    assert_eq!(read(&disk, &meta(5)).1.unwrap(), before);
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
