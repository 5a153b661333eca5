//! Tests that verify names damage, and continues behind it.

use super::super::verify::{VerifyFinding, VerifySummary, verify};
use super::*;

fn verified(disk: &MemoryDisk, meta: &Meta) -> (VerifySummary, Vec<VerifyFinding>) {
    let mut findings = Vec::new();
    let summary = verify(disk, meta, None, &mut |finding| findings.push(finding)).unwrap();
    assert_eq!(summary.findings, findings.len() as u64);
    (summary, findings)
}

/// Proves DUR-11.
#[test]
fn verify_names_all_damage_and_goes_on_behind_it() {
    let log = five_frames();
    let disk = log.disk(128);
    MetaFile::create(&disk, &meta(5)).unwrap();
    assert_eq!(
        verified(&disk, &meta(5)),
        (VerifySummary { frames: 5, entries: 9, findings: 0 }, vec![])
    );
    // Damage the body of frame 1, the header of frame 3, and a bit of the older META slot.
    let damage = |number: usize, at: usize| {
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
    // Damage its header, and then its body.
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

#[test]
fn what_is_committed_is_in_the_log_or_before_its_base() {
    let by_commit = Meta { commit_mode: CommitMode::ByCommit, ..meta(0) };
    let mut log = Writer::new();
    log.next_index = 10;
    log.entries(&["a", "b"]);
    let index_said = |log: &Writer, meta: &Meta| {
        let disk = log.disk(0);
        MetaFile::create(&disk, meta).unwrap();
        let begins_late = read(&disk, meta).1.unwrap().begins_late;
        let findings: Vec<_> =
            verified(&disk, meta).1.into_iter().map(|found| found.place).collect();
        assert_eq!(findings, begins_late.iter().cloned().collect::<Vec<_>>());
        begins_late.map(|place| (place.file, place.index))
    };
    let late = |index| Some(("META".to_owned(), Some(index)));
    for (committed, said) in [(None, None), (Some(9), late(9)), (Some(10), None), (Some(99), None)]
    {
        let meta = Meta { committed, ..by_commit };
        assert_eq!(index_said(&log, &meta), said, "{committed:?}");
        assert_eq!(index_said(&log, &Meta { contiguity: Contiguity::Monotone, ..meta }), None);
        let base = LogBase { last: Some(LogId::new(9, 1)), ..LogBase::default() };
        assert_eq!(index_said(&log, &Meta { base, ..meta }), None);
    }
    // The log begins with what truncations leave.
    log.truncation(10).next_index = 3;
    log.entries(&["c", "d"]);
    assert_eq!(index_said(&log, &Meta { committed: Some(3), ..by_commit }), None);
    assert_eq!(index_said(&log, &Meta { committed: Some(2), ..by_commit }), late(2));
}

#[test]
fn a_snapshot_is_of_the_log_if_its_entry_is_live_there_or_right_before_its_base() {
    let lacks = |log: &Writer, meta: &Meta, snapshot: LogId| {
        let options = ScanOptions { snapshot: Some(snapshot), ..ScanOptions::default() };
        let lacks = read_with(&log.disk(0), meta, options).1.unwrap().lacks_snapshot;
        assert!(lacks.is_none_or(|lacked| lacked == snapshot));
        lacks.is_some()
    };
    let by_commit = Meta { commit_mode: CommitMode::ByCommit, ..meta(0) };
    let mut log = Writer::new();
    log.entries(&["a", "b"]).entries(&["c"]);
    for (index, term, expected) in [(0, 1, false), (2, 1, false), (2, 2, true), (3, 1, true)] {
        assert_eq!(lacks(&log, &by_commit, LogId::new(index, term)), expected, "{index} {term}");
    }
    // A truncated entry is gone; another entry takes its place.
    log.truncation(1);
    assert!(
        !lacks(&log, &by_commit, LogId::new(0, 1)) && lacks(&log, &by_commit, LogId::new(1, 1))
    );
    log.term = 2;
    log.entries(&["d", "e"]);
    assert!(
        lacks(&log, &by_commit, LogId::new(1, 1)) && !lacks(&log, &by_commit, LogId::new(1, 2))
    );
    // An entry in a gap is not of the log, unless it was committed.
    log.next_index = 10;
    log.entries(&["f"]);
    let monotone = Meta { contiguity: Contiguity::Monotone, ..by_commit };
    assert!(lacks(&log, &monotone, LogId::new(5, 2)) && !lacks(&log, &monotone, LogId::new(10, 2)));
    let committed = Meta { committed: Some(5), ..monotone };
    assert!(!lacks(&log, &committed, LogId::new(5, 2)));
    let mut log = Writer::new();
    log.next_index = 8;
    log.entries(&["a"]);
    let base = LogBase { last: Some(LogId::new(7, 1)), ..LogBase::default() };
    let behind = Meta { base, ..by_commit };
    assert!(!lacks(&log, &behind, LogId::new(7, 1)) && lacks(&log, &behind, LogId::new(7, 2)));
}
