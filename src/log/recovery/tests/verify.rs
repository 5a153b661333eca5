//! What verify says of damage, and that it goes on behind it.

use super::super::verify::{VerifyFinding, VerifySummary, verify};
use super::*;

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
