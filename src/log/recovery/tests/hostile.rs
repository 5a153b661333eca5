//! Tests of headers that no writer of this version wrote, and of lengths that must not be believed.

use super::super::files::{Segment, Window};
use super::*;
use crate::log::format::SEGMENT_BYTES_MAX;

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
    // The version does not matter in a stale frame of another place.
    log.segments[0][start + 96] = 7;
    reseal(&mut log.segments[0][start..]);
    assert_eq!(read(&log.disk(0), &meta(1)).0.len(), 1);
}

#[test]
fn an_unknown_kind_is_an_error_and_not_a_cut() {
    let mut log = Writer::new();
    log.entries(&["a"]);
    log.segments[0][6] = 4;
    reseal(&mut log.segments[0]);
    assert_eq!(corrupt(read(&log.disk(0), &meta(0)).1).what, "a frame is of an unknown kind");
}

#[test]
fn entries_that_are_not_of_the_log_are_damage_where_indexes_have_no_gaps() {
    let mut log = Writer::new();
    log.entries(&["a"]);
    log.segments[0][6] = 3;
    reseal(&mut log.segments[0]);
    let complaint = "entries that may not be applied here";
    assert_eq!(corrupt(read(&log.disk(0), &meta(0)).1).what, complaint);
    let monotone =
        Meta { commit_mode: CommitMode::ByCommit, contiguity: Contiguity::Monotone, ..meta(0) };
    let (seen, result) = read(&log.disk(0), &monotone);
    assert_eq!((seen.len(), result.unwrap().tail.last), (1, None));
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
        // A length in range is a torn frame; no writer of ours wrote one out of range.
        assert_eq!(result.is_ok(), length == 32 << 20, "{length}");
        let segment = Segment::open(&disk, super::segment(0)).unwrap();
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
