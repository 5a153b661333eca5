//! Tests of HARD after each crash and each kind of damage.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::io;

use crate::disk::names::HARD_FILE;
use crate::disk::{Access, Disk};
use crate::error::{Corrupt, OpenError};
use crate::log::format::DatabaseId;
use crate::log::hard::{HARD_BYTES_MAX, HardFile, mend};
use crate::log::meta::{HardRecord, Meta, tests::meta};
use crate::log::test_disk::MemoryDisk;
use crate::log::two_slot::SECTOR_BYTES;
use crate::numbers::{FrameSequence, SegmentNumber};

const ID: DatabaseId = *b"0123456789abcdef";
const SLOT_BYTES: usize = 4096;
const SLOT_SECTORS: usize = SLOT_BYTES / SECTOR_BYTES;

fn recording(hard: HardRecord) -> Meta {
    Meta { hard, ..meta() }
}

/// META of a directory whose HARD has reached this sequence.
fn at(sequence: u64) -> Meta {
    recording(HardRecord::Stored(sequence))
}

fn load(disk: &MemoryDisk, meta: &Meta) -> Result<Option<Vec<u8>>, OpenError> {
    Ok(HardFile::open(disk, meta, false)?.load().map(<[u8]>::to_vec))
}

fn open(disk: &MemoryDisk, meta: &Meta) -> HardFile {
    let mut hard = HardFile::open(disk, meta, true).unwrap();
    hard.settle().unwrap();
    hard
}

/// Checks that a damaged HARD is refused, for reading and for writing.
fn assert_damaged(disk: &MemoryDisk, meta: &Meta, what: &str) -> Corrupt {
    let before = disk.bytes(HARD_FILE);
    let Err(OpenError::Corrupt(read)) = load(disk, meta) else { panic!("{what}: read") };
    let Err(OpenError::Corrupt(write)) = HardFile::open(disk, meta, true) else {
        panic!("{what}: opened to write")
    };
    assert_eq!((&read, &*read.file), (&write, HARD_FILE), "{what}");
    assert_eq!(disk.bytes(HARD_FILE), before, "{what}: nothing is changed");
    read
}

/// A HARD after these stores, and the META recorded after the last one.
fn voted(votes: &[&[u8]]) -> (MemoryDisk, Meta) {
    let disk = MemoryDisk::default();
    let mut hard = open(&disk, &at(0));
    for vote in votes {
        hard.store(&disk, vote).unwrap();
    }
    (disk, at(hard.sequence()))
}

/// `file` with some sectors of one slot taken from `from`: those whose bits are set in `kept`.
fn mixed(file: &[u8], from: &[u8], slot: usize, kept: usize) -> Vec<u8> {
    let mut bytes = file.to_vec();
    bytes.resize(2 * SLOT_BYTES, 0);
    for sector in (0..SLOT_SECTORS).filter(|sector| kept >> sector & 1 == 1) {
        let start = slot * SLOT_BYTES + sector * SECTOR_BYTES;
        bytes[start..start + SECTOR_BYTES].copy_from_slice(&from[start..start + SECTOR_BYTES]);
    }
    bytes
}

#[test]
fn a_hard_state_of_any_length_reads_back_and_the_first_store_makes_both_slots() {
    let disk = MemoryDisk::default();
    let mut hard = open(&disk, &at(0));
    assert_eq!((hard.load(), disk.list().unwrap().len()), (None, 0));
    let mut sequence = 0;
    for length in [0, 1, 448, 449, HARD_BYTES_MAX, 5] {
        let state = vec![9; length];
        let is_first = hard.store(&disk, &state).unwrap();
        assert_eq!(is_first, sequence == 0);
        sequence += if is_first { 2 } else { 1 };
        assert_eq!(hard.sequence(), sequence);
        assert_eq!(load(&disk, &at(sequence)).unwrap(), Some(state.clone()));
        assert_eq!(hard.load(), Some(&state[..]));
        hard = open(&disk, &at(sequence));
    }
    let error = hard.store(&disk, &[0; HARD_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    hard.store(&disk, b"still works").unwrap();
}

#[test]
fn a_store_torn_between_sectors_leaves_the_one_before() {
    // Test third and later stores, and the first two, which go into empty slots.
    for (before, length) in [(2, 10), (2, 3000), (3, 3584), (4, 0)] {
        let (disk, meta) = voted(&vec![&b"first"[..]; before - 1]);
        let torn = disk.bytes(HARD_FILE);
        let mut hard = open(&disk, &meta);
        hard.store(&disk, &vec![7; length]).unwrap();
        let after = disk.bytes(HARD_FILE);
        let slot = (before + 1) % 2;
        for kept in 0..1 << SLOT_SECTORS {
            let bytes = mixed(&torn, &after, slot, kept);
            let expected = if bytes == after { vec![7; length] } else { b"first".to_vec() };
            disk.set(HARD_FILE, bytes);
            assert_eq!(load(&disk, &meta).unwrap(), Some(expected.clone()), "{kept:08b}");
            // After an opening for writing, both slots are whole again.
            let sequence = open(&disk, &meta).sequence();
            assert_eq!(load(&disk, &at(sequence)).unwrap(), Some(expected), "{kept:08b}");
        }
    }
}

#[test]
fn a_crash_while_the_file_is_made_leaves_no_hard_state_or_the_first() {
    let (disk, _) = voted(&[&[5; 3000]]);
    let after = disk.bytes(HARD_FILE);
    let one = mixed(&[], &after, 1, 0xff);
    let mut states: Vec<(Vec<u8>, bool)> = vec![(vec![], false), (vec![0; 2 * SLOT_BYTES], false)];
    states.extend((0..0x100).map(|kept| (mixed(&[], &after, 1, kept), kept == 0xff)));
    states.extend((0..0x100).map(|kept| (mixed(&one, &after, 0, kept), true)));
    for (bytes, is_made) in states {
        let expected = is_made.then(|| vec![5; 3000]);
        disk.set(HARD_FILE, bytes.clone());
        assert_eq!(load(&disk, &at(0)).unwrap(), expected);
        let mut hard = open(&disk, &at(0));
        assert_eq!(hard.load(), expected.as_deref());
        let is_first = hard.store(&disk, b"vote").unwrap();
        assert_eq!(is_first, !is_made);
        assert_eq!(load(&disk, &at(hard.sequence())).unwrap(), Some(b"vote".to_vec()));
        // Once META says that HARD was made, no crash leaves such a file.
        disk.set(HARD_FILE, bytes.clone());
        if bytes != after {
            assert_damaged(&disk, &at(2), "made");
        }
    }
}

#[test]
fn two_torn_stores_of_one_sequence_are_never_mixed_to_a_third() {
    let (disk, meta) = voted(&[b"first", b"second"]);
    let before = disk.bytes(HARD_FILE);
    let store = |bytes: &[u8], vote: &[u8]| {
        disk.set(HARD_FILE, bytes.to_vec());
        let mut hard = HardFile::open(&disk, &meta, true).unwrap();
        hard.store(&disk, vote).unwrap();
        disk.bytes(HARD_FILE)
    };
    let (one, other) = (store(&before, &[1; 3000]), store(&before, &[2; 3000]));
    for kept in 0..0xff_usize {
        for over in [!kept & 0xff, 0x0f, 0xf0, 0x55, 0xfe].into_iter().filter(|over| *over != 0xff)
        {
            let torn = mixed(&before, &one, 0, kept);
            disk.set(HARD_FILE, mixed(&torn, &other, 0, over));
            let found = load(&disk, &meta).unwrap();
            assert_eq!(found.as_deref(), Some(&b"second"[..]), "{kept:08b} {over:08b}");
        }
    }
}

/// Proves DUR-8.
#[test]
fn a_flipped_bit_anywhere_in_hard_is_named_and_never_takes_back_a_vote() {
    for votes in [&[&[1; 10][..]][..], &[&[1; 10], &[2; 3584]], &[&[1; 3000], &[2; 10], &[3; 700]]]
    {
        let (disk, meta) = voted(votes);
        let whole = disk.bytes(HARD_FILE);
        for byte in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[byte] ^= 1 << (byte % 8);
            disk.set(HARD_FILE, bytes);
            assert_damaged(&disk, &meta, &format!("byte {byte}"));
        }
    }
}

#[test]
fn a_changed_sector_of_hard_is_named_after_one_vote_two_and_three() {
    for count in 1..=3 {
        let votes: Vec<Vec<u8>> = (1..=count).map(|n| vec![n; 600]).collect();
        let votes: Vec<&[u8]> = votes.iter().map(Vec::as_slice).collect();
        let (disk, meta) = voted(&votes);
        let whole = disk.bytes(HARD_FILE);
        let (earlier, _) = voted(&votes[..votes.len() - 1]);
        let earlier = if count == 1 { vec![0; whole.len()] } else { earlier.bytes(HARD_FILE) };
        for sector in 0..2 * SLOT_SECTORS {
            let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
            let elsewhere = (sector + SLOT_SECTORS) % (2 * SLOT_SECTORS) * SECTOR_BYTES;
            let contents = [
                vec![0; SECTOR_BYTES],
                vec![0xa5; SECTOR_BYTES],
                earlier[range.clone()].to_vec(),
                whole[elsewhere..elsewhere + SECTOR_BYTES].to_vec(),
            ];
            for content in contents {
                let mut bytes = whole.clone();
                bytes[range.clone()].copy_from_slice(&content);
                disk.set(HARD_FILE, bytes.clone());
                if bytes == whole {
                    assert_eq!(load(&disk, &meta).unwrap().as_deref(), votes.last().copied());
                } else {
                    assert_damaged(&disk, &meta, &format!("{count} votes, sector {sector}"));
                }
            }
        }
    }
}

#[test]
fn a_hard_that_is_missing_emptied_or_older_than_meta_says_is_damage() {
    let votes: [&[u8]; 3] = [b"one", b"two", b"three"];
    for count in 1..=3 {
        let (disk, meta) = voted(&votes[..count]);
        let whole = disk.bytes(HARD_FILE);
        for slot in 0..2 {
            let mut bytes = whole.clone();
            bytes[slot * SLOT_BYTES..][..SLOT_BYTES].fill(0);
            disk.set(HARD_FILE, bytes);
            assert_damaged(&disk, &meta, &format!("{count} votes, slot {slot} zeroed"));
        }
        disk.set(HARD_FILE, vec![]);
        assert_damaged(&disk, &meta, "emptied");
        for earlier in 1..count {
            let (older, _) = voted(&votes[..earlier]);
            disk.set(HARD_FILE, older.bytes(HARD_FILE));
            let place = assert_damaged(&disk, &meta, "an older copy");
            assert_eq!(place.what, "the hard state is older than META says it was");
        }
        disk.remove(HARD_FILE).unwrap();
        for writable in [false, true] {
            let opened = HardFile::open(&disk, &meta, writable);
            assert!(
                matches!(opened, Err(OpenError::Corrupt(place)) if place.what.contains("missing"))
            );
        }
    }
}

#[test]
fn a_slot_of_another_directory_or_of_an_earlier_store_is_damage() {
    let (disk, meta) = voted(&[b"one", b"two", b"three"]);
    let whole = disk.bytes(HARD_FILE);
    assert!(HardFile::open(&disk, &Meta { database_id: [4; 16], ..meta }, false).is_err());
    // Roll the store before the newest back to the one three before.
    let (earlier, _) = voted(&[b"one"]);
    disk.set(HARD_FILE, mixed(&whole, &earlier.bytes(HARD_FILE), 0, 0));
    assert_eq!(load(&disk, &meta).unwrap().as_deref(), Some(&b"three"[..]));
    let mut hard = HardFile::open(&disk, &meta, true).unwrap();
    hard.store(&disk, b"four").unwrap();
    let four = disk.bytes(HARD_FILE);
    disk.set(HARD_FILE, mixed(&four, &earlier.bytes(HARD_FILE), 0, 0xff));
    assert_damaged(&disk, &at(hard.sequence()), "rolled back");
}

#[test]
fn a_later_version_is_refused_by_name() {
    let (disk, meta) = voted(&[b"one", b"two"]);
    let mut bytes = disk.bytes(HARD_FILE);
    bytes[4] = 3;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..60]), &bytes[64..SECTOR_BYTES]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    disk.set(HARD_FILE, bytes);
    let error = load(&disk, &meta).unwrap_err();
    assert_eq!(error.to_string(), "HARD has format version 3; this release reads version 2");
}

#[test]
fn a_mended_hard_is_whole_and_no_older_than_what_is_recorded_of_it() {
    for (damaged, left) in [(&[70][..], Some(&b"second"[..])), (&[70, 4166], None)] {
        let (disk, meta) = voted(&[b"first", b"second", b"third"]);
        // The third store has sequence 4, and is in slot 0.
        let mut bytes = disk.bytes(HARD_FILE);
        damaged.iter().for_each(|at: &usize| bytes[*at] ^= 1);
        disk.set(HARD_FILE, bytes);
        assert_damaged(&disk, &meta, "before");
        let record = mend(&disk, &meta).unwrap();
        let mended = recording(record);
        assert_eq!(load(&disk, &mended).unwrap().as_deref(), left);
        let mut hard = HardFile::open(&disk, &mended, true).unwrap();
        hard.store(&disk, b"next").unwrap();
        assert_eq!(load(&disk, &at(hard.sequence())).unwrap().as_deref(), Some(&b"next"[..]));
    }
    let (disk, meta) = voted(&[b"first"]);
    disk.remove(HARD_FILE).unwrap();
    assert_eq!(mend(&disk, &meta).unwrap(), HardRecord::Stored(0));
}

// ---- Version 1 ----

const V1: Meta = Meta {
    database_id: ID,
    hash_seed: 77,
    commit_mode: crate::config::CommitMode::OnAppend,
    contiguity: crate::config::Contiguity::Strict,
    state: None,
    is_kept: false,
    clean_close: false,
    base: crate::log::meta::LogBase {
        segment: SegmentNumber::LOWEST,
        sequence: FrameSequence::NONE,
        chain: 0,
        last: None,
    },
    incarnation: 1,
    durable_sequence: FrameSequence::NONE,
    committed: None,
    hard: HardRecord::Unknown,
};

/// HARD as version 1 wrote these votes, one store each.
fn version_1(votes: &[&[u8]]) -> Vec<u8> {
    let mut file = vec![0; 2 * SLOT_BYTES];
    for (number, vote) in (1_u64..).zip(votes) {
        let slot = &mut file[(number % 2) as usize * SLOT_BYTES..][..SLOT_BYTES];
        slot.fill(0);
        slot[..4].copy_from_slice(b"SPRH");
        slot[4] = 1;
        slot[8..16].copy_from_slice(&number.to_le_bytes());
        slot[16..32].copy_from_slice(&ID);
        slot[32..36].copy_from_slice(&u32::try_from(vote.len()).unwrap().to_le_bytes());
        slot[64..64 + vote.len()].copy_from_slice(vote);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&slot[..60]), &slot[64..]);
        slot[60..64].copy_from_slice(&crc.to_le_bytes());
    }
    file
}

#[test]
fn no_flipped_bit_takes_back_a_vote_of_version_1() {
    for votes in [&[&b"vote 1"[..]][..], &[b"vote 1", b"vote 2"], &[&[1; 448], &[2; 448], &[3; 9]]]
    {
        let disk = MemoryDisk::default();
        let whole = version_1(votes);
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            disk.set(HARD_FILE, bytes);
            match load(&disk, &V1) {
                Ok(found) => assert_eq!(found.as_deref(), votes.last().copied(), "bit {bit}"),
                Err(OpenError::Corrupt(_)) => {}
                Err(other) => panic!("bit {bit}: {other}"),
            }
        }
    }
}

#[test]
fn a_short_vote_of_version_1_before_torn_zeros_reads_back() {
    let disk = MemoryDisk::default();
    let torn = mixed(
        &version_1(&[b"one", &[2; 3000], b"three"]),
        &version_1(&[b"one", &[2; 3000], b"three", b"four"]),
        0,
        0b0000_0001,
    );
    disk.set(HARD_FILE, torn);
    assert_eq!(load(&disk, &V1).unwrap().as_deref(), Some(&b"four"[..]));
}

#[test]
fn zeros_at_the_head_of_a_slot_of_version_1_are_torn_only_where_it_was_never_complete() {
    let disk = MemoryDisk::default();
    let headless = |votes: &[&[u8]], slot: usize| {
        let mut bytes = version_1(votes);
        bytes[slot * SLOT_BYTES..][..SECTOR_BYTES].fill(0);
        bytes
    };
    disk.set(HARD_FILE, headless(&[&[1; 3000]], 1));
    assert_eq!(load(&disk, &V1).unwrap(), None);
    disk.set(HARD_FILE, headless(&[b"one", &[2; 3000]], 0));
    assert_eq!(load(&disk, &V1).unwrap().as_deref(), Some(&b"one"[..]));
    disk.set(HARD_FILE, headless(&[b"one", &[2; 3000], b"three"], 0));
    assert_damaged(&disk, &V1, "beside sequence 3");
    disk.set(HARD_FILE, headless(&[b"one", b"two", &[3; 3000]], 1));
    assert_damaged(&disk, &V1, "slot 1 beside sequence 2");
}

#[test]
fn a_long_vote_of_version_1_that_does_not_hold_is_said_to_be_torn_or_damaged() {
    let disk = MemoryDisk::default();
    let torn = mixed(
        &version_1(&[&[1; 3000], &[2; 3000]]),
        &version_1(&[&[1; 3000], &[2; 3000], &[3; 3000]]),
        1,
        0b0000_1111,
    );
    disk.set(HARD_FILE, torn);
    assert!(assert_damaged(&disk, &V1, "torn").what.contains("torn by a crash"));
    let mut bytes = version_1(&[b"one", b"two"]);
    bytes[65] ^= 1;
    disk.set(HARD_FILE, bytes);
    let place = assert_damaged(&disk, &V1, "short");
    assert_eq!(place.what, "a slot was damaged after it was complete");
}

#[test]
fn meta_alone_says_by_which_version_hard_is_read() {
    let disk = MemoryDisk::default();
    disk.set(HARD_FILE, version_1(&[b"one", b"two"]));
    assert_eq!(load(&disk, &V1).unwrap().as_deref(), Some(&b"two"[..]));
    assert_damaged(&disk, &at(2), "version 1 beside a META of version 2");
    assert_damaged(&disk, &at(0), "version 1 beside a META of version 2");
    let upgrading = recording(HardRecord::Upgrading(2));
    assert_eq!(load(&disk, &upgrading).unwrap().as_deref(), Some(&b"two"[..]));
    let mut hard = HardFile::open(&disk, &upgrading, true).unwrap();
    hard.upgrade().unwrap();
    assert_eq!(hard.sequence(), 4);
    assert_eq!(load(&disk, &at(4)).unwrap().as_deref(), Some(&b"two"[..]));
    assert_damaged(&disk, &V1, "version 2 beside a META of version 1");
}

#[test]
fn while_hard_is_upgraded_any_slot_that_is_whole_has_what_counts() {
    for votes in [&[&b"one"[..]][..], &[b"one", b"two"], &[&[1; 3000], &[2; 3000], &[3; 3000]]] {
        let disk = MemoryDisk::default();
        let before = version_1(votes);
        disk.set(HARD_FILE, before.clone());
        let count = votes.len();
        let upgrading = recording(HardRecord::Upgrading(count as u64));
        HardFile::open(&disk, &upgrading, true).unwrap().upgrade().unwrap();
        let after = disk.bytes(HARD_FILE);
        let half = mixed(&before, &after, (count + 1) % 2, 0xff);
        for kept in 0..0x100 {
            for bytes in [
                mixed(&before, &after, (count + 1) % 2, kept),
                mixed(&half, &after, count % 2, kept),
            ] {
                disk.set(HARD_FILE, bytes);
                assert_eq!(load(&disk, &upgrading).unwrap().as_deref(), votes.last().copied());
                let mut hard = HardFile::open(&disk, &upgrading, true).unwrap();
                hard.upgrade().unwrap();
                let sequence = hard.sequence();
                assert_eq!(load(&disk, &at(sequence)).unwrap().as_deref(), votes.last().copied());
            }
        }
        // If an earlier slot is all that is left, it is older than META says.
        let older = version_1(&votes[..count - 1]);
        disk.set(HARD_FILE, older);
        assert_damaged(&disk, &upgrading, "an older copy");
        let file = disk.open(HARD_FILE, Access::Write).unwrap();
        file.write_all_at(&[0; 2 * SLOT_BYTES], 0).unwrap();
        assert_damaged(&disk, &upgrading, "zeros");
    }
}
