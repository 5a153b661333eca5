//! META and HARD: two slots each, and their reading after damage of one or both.

use crc32c::{crc32c, crc32c_append};

use super::bases::first_meta;
use super::files::{Files, disk_with, files_of, with_disk};
use super::frame::ID;
use super::input::Input;
use sprag::config::CommitMode;
use sprag::error::OpenError;
use sprag::testing::SimDisk;
use sprag::testing::internals::bytes::{put, u16_at, u32_at, u64_at};
use sprag::testing::internals::hard::{HARD_BYTES_MAX, HardFile};
use sprag::testing::internals::meta::{HardRecord, Meta, MetaFile};
use sprag::testing::internals::names::{HARD_FILE, META_FILE, segment_name};
use sprag::testing::internals::numbers::SegmentNumber;
use sprag::testing::internals::two_slot::{PAYLOAD_AT, SECTOR_BYTES};

const STRIDE_BYTES: usize = 4096;
const CRC_AT: usize = 60;
const MUTATIONS_MAX: usize = 16;
/// The highest sequence with which a slot is read.
const LAST_SEQUENCE: u64 = u64::MAX - 1;

/// Runs the input. In the first byte, bit 0 selects META or HARD, and bit 1 repairs checksums. Bit
/// 2 puts a segment beside META, or lets META record HARD's sequence. The number of stores follows,
/// and then the damage of the file.
pub fn slots(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.u8();
    let is_hard = flags & 1 != 0;
    let (sim, sequence) =
        if is_hard { stored_hard(&mut input) } else { (stored_meta(&mut input), 0) };
    let mut files = files_of(&sim);
    let (name, slot_bytes) =
        if is_hard { (HARD_FILE, STRIDE_BYTES) } else { (META_FILE, SECTOR_BYTES) };
    if let Some(file) = files.get_mut(name) {
        for _ in 0..MUTATIONS_MAX {
            if input.is_empty() {
                break;
            }
            mutate(file, slot_bytes, &mut input);
        }
        if flags & 2 != 0 {
            repair(file, slot_bytes, if is_hard { *b"SPRH" } else { *b"SPRM" });
        }
    }
    let is_more = flags & 4 != 0;
    if is_hard {
        let hard = HardRecord::Stored(if is_more { sequence } else { 0 });
        return check_hard(&files, &Meta { hard, ..first_meta(CommitMode::ByCommit) });
    }
    if is_more {
        files.insert(segment_name(SegmentNumber::of_stored(1)), Vec::new());
    }
    check_meta(&files, is_more);
}

fn stored_meta(input: &mut Input<'_>) -> SimDisk {
    let sim = disk_with(&Files::new());
    let disk = sim.open(true).unwrap();
    let mut meta = first_meta(CommitMode::ByCommit);
    let mut file = MetaFile::create(&*disk, &meta).unwrap();
    for _ in 0..input.u8() % 4 {
        meta.incarnation += 1;
        meta.committed = Some(input.number(0)).filter(|index| *index < u64::MAX);
        file.store(&meta).unwrap();
    }
    drop((file, disk));
    sim
}

/// A HARD, and the sequence of its last store.
fn stored_hard(input: &mut Input<'_>) -> (SimDisk, u64) {
    let sim = disk_with(&Files::new());
    let disk = sim.open(true).unwrap();
    let mut hard = HardFile::open(&*disk, &first_meta(CommitMode::ByCommit), true).unwrap();
    for _ in 0..input.u8() % 4 {
        let state = vec![input.u8(); input.below(HARD_BYTES_MAX + 1)];
        hard.store(&*disk, &state).unwrap();
    }
    let sequence = hard.sequence();
    drop((hard, disk));
    (sim, sequence)
}

fn mutate(file: &mut Vec<u8>, slot_bytes: usize, input: &mut Input<'_>) {
    let slot = usize::from(input.u8() & 1) * STRIDE_BYTES;
    match input.u8() % 8 {
        0 | 1 => {
            let at = slot + input.below(slot_bytes);
            let len = input.below(24).min(file.len().saturating_sub(at));
            let new = input.bytes(len);
            if !new.is_empty() {
                put(file, at, new);
            }
        }
        2 => {
            let at =
                slot + [4, 6, 8, 16, 32, 36, 72, 74, 104, 136, 144, 152, 160, 168][input.below(14)];
            if at + 8 <= file.len() {
                let value = input.number(u64_at(file, at));
                put(file, at, &value.to_le_bytes());
            }
        }
        3 => file.truncate(input.below(file.len() + 1)),
        4 => {
            let end = (slot + slot_bytes).min(file.len());
            if let Some(bytes) = file.get_mut(slot..end) {
                bytes.fill(0);
            }
        }
        5 => {
            // Copy one slot to the other's place.
            let other = STRIDE_BYTES - slot;
            if file.len() >= 2 * STRIDE_BYTES {
                file.copy_within(other..other + STRIDE_BYTES, slot);
            }
        }
        kind => {
            // Copy one sector of the other slot, or zeros.
            let at = input.below(slot_bytes / SECTOR_BYTES) * SECTOR_BYTES;
            let other = STRIDE_BYTES - slot + at;
            if file.len() < 2 * STRIDE_BYTES {
            } else if kind == 6 {
                file.copy_within(other..other + SECTOR_BYTES, slot + at);
            } else {
                file[slot + at..slot + at + SECTOR_BYTES].fill(0);
            }
        }
    }
}

fn repair(file: &mut [u8], slot_bytes: usize, magic: [u8; 4]) {
    for start in [0, STRIDE_BYTES] {
        let Some(slot) = file.get_mut(start..start + slot_bytes) else { continue };
        for sector in slot.chunks_mut(SECTOR_BYTES) {
            if sector.iter().any(|byte| *byte != 0) {
                put(sector, 0, &magic);
                let crc = crc_of(sector);
                put(sector, CRC_AT, &crc.to_le_bytes());
            }
        }
    }
}

fn crc_of(sector: &[u8]) -> u32 {
    crc32c_append(crc32c(&sector[..CRC_AT]), &sector[CRC_AT + 4..])
}

/// A slot, read by the words of the format.
#[derive(Debug, PartialEq)]
enum Read {
    Empty,
    Damaged,
    OtherVersion,
    Torn { sequence: u64, id: Vec<u8> },
    Valid { sequence: u64, id: Vec<u8>, payload: Vec<u8> },
}

impl Read {
    fn sequence(&self) -> u64 {
        if let Self::Valid { sequence, .. } = self { *sequence } else { 0 }
    }
}

/// Reads the slot `number` of a file of version 2.
fn read(file: &[u8], number: usize, slot_bytes: usize, magic: [u8; 4]) -> Read {
    let start = (number * STRIDE_BYTES).min(file.len());
    let end = (number * STRIDE_BYTES + slot_bytes).min(file.len());
    let mut slot = file[start..end].to_vec();
    slot.resize(slot_bytes, 0);
    let mut sectors = Vec::new();
    for (place, sector) in slot.chunks(SECTOR_BYTES).enumerate() {
        let is_zero = sector.iter().all(|byte| *byte == 0);
        let is_whole = sector[..4] == magic && u32_at(sector, CRC_AT) == crc_of(sector);
        match (is_zero, is_whole, u16_at(sector, 4), usize::from(u16_at(sector, 6)) == place) {
            (true, ..) => {}
            (_, true, 3.., _) => return Read::OtherVersion,
            (_, true, 2, true) => sectors.push(sector),
            _ => return Read::Damaged,
        }
    }
    let Some(newest) = sectors.iter().max_by_key(|sector| u64_at(sector, 8)) else {
        return Read::Empty;
    };
    let (sequence, id, bytes) = (u64_at(newest, 8), &newest[16..32], u32_at(newest, 32) as usize);
    let count = slot_bytes / SECTOR_BYTES;
    let is_placed = sequence % 2 == number as u64 && sequence > 0 && sequence < u64::MAX;
    if !is_placed || bytes > count * (SECTOR_BYTES - PAYLOAD_AT) {
        return Read::Damaged;
    }
    let store = |sector: &[u8]| sector[8..40].to_vec();
    let id = id.to_vec();
    if sectors.len() == count && sectors.iter().all(|sector| store(sector) == store(newest)) {
        let mut payload: Vec<u8> =
            sectors.iter().flat_map(|sector| &sector[PAYLOAD_AT..]).copied().collect();
        payload.truncate(bytes);
        if crc32c(&payload) != u32_at(newest, 36) {
            return Read::Damaged;
        }
        return Read::Valid { sequence, id, payload };
    }
    let older: Vec<_> = sectors.iter().filter(|sector| u64_at(sector, 8) < sequence).collect();
    let is_torn = older.iter().all(|sector| u64_at(sector, 8) + 2 == sequence)
        && older.iter().all(|sector| store(sector) == store(older[0]))
        && sectors.iter().all(|sector| sector[16..32] == id)
        && (sectors.len() == count || sequence <= 2);
    if is_torn { Read::Torn { sequence, id } } else { Read::Damaged }
}

/// The slot that counts; `None` if none is valid.
fn newest(slots: &[Read; 2]) -> Option<usize> {
    let newest = usize::from(slots[1].sequence() > slots[0].sequence());
    (slots[newest].sequence() > 0).then_some(newest)
}

fn assert_names(error: &OpenError, name: &str) {
    let file = match error {
        OpenError::Corrupt(corrupt) => &corrupt.file,
        OpenError::UnknownVersion { file, .. } => file,
        other => panic!("damage is not named: {other}"),
    };
    assert_eq!(file, name);
}

fn check_meta(files: &Files, has_log: bool) {
    let file = &files[META_FILE];
    // A slot of version 1 is one sector that differs in its fields alone; the mutations make none
    // that decodes.
    let slots = [0, 1].map(|number| read(file, number, SECTOR_BYTES, *b"SPRM"));
    let sim = disk_with(files);
    let opened = with_disk(&sim, |disk| MetaFile::open(disk, false));
    assert_eq!(files_of(&sim), *files, "reading changes nothing");
    // Close the file, which holds the lock.
    let opened = match opened {
        Err(error) => return assert_names(&error, META_FILE),
        Ok(opened) => opened.map(|(_file, meta, damage)| (meta, damage)),
    };
    assert!(!slots.contains(&Read::OtherVersion), "{slots:?} was taken");
    let Some((meta, damage)) = opened else {
        assert_eq!((newest(&slots), &slots[0], has_log), (None, &Read::Empty, false));
        return;
    };
    if meta.hard == HardRecord::Unknown {
        return;
    }
    let newest = newest(&slots).expect("a slot that is valid");
    let (counted, other) = (&slots[newest], &slots[1 - newest]);
    let Read::Valid { id, payload, sequence } = counted else { panic!("no valid slot") };
    assert_eq!(meta.database_id[..], **id);
    let is_other_good = match other {
        Read::Empty => *sequence == 1 && !has_log,
        Read::Valid { id: other, .. } => other == id,
        _ => false,
    };
    let damaged = (!is_other_good).then(|| (1 - newest) as u64 * STRIDE_BYTES as u64);
    assert_eq!(damage.slot_offset, damaged, "damage is named");
    // Writing the content again gives the same bytes, and reads as the same.
    let again = disk_with(&Files::new());
    drop(MetaFile::create(&*again.open(true).unwrap(), &meta).unwrap());
    let bytes = again.read_file(META_FILE).unwrap();
    let slot = read(&bytes, 1, SECTOR_BYTES, *b"SPRM");
    assert_eq!(slot, Read::Valid { sequence: 1, id: id.clone(), payload: payload.clone() });
    check_meta_goes_on(&sim, &meta, counted.sequence() == LAST_SEQUENCE);
}

fn check_meta_goes_on(sim: &SimDisk, meta: &Meta, is_last: bool) {
    let next = Meta { clean_close: !meta.clean_close, hash_seed: !meta.hash_seed, ..*meta };
    {
        let disk = sim.open(true).unwrap();
        let (mut file, ..) = MetaFile::open(&*disk, true).unwrap().unwrap();
        let stored = file.store(&next);
        assert_eq!(stored.is_err(), is_last, "a slot that is not read is not written");
    }
    sim.power_cut_keeping(0);
    let opened = with_disk(sim, |disk| MetaFile::open(disk, false));
    let (_, found, damage) = opened.unwrap().unwrap();
    if is_last {
        return assert_eq!(found, *meta, "what was there still counts");
    }
    assert_eq!(found, next, "the newest content counts");
    assert_eq!(damage.slot_offset, None, "the slot that did not count was written");
}

/// The slot's payload that counts, if any; an error for slots that no crash leaves.
fn expected(slots: &[Read; 2], record: u64) -> Result<Option<&[u8]>, ()> {
    let is_ours = |slot: &Read| match slot {
        Read::Valid { id, .. } | Read::Torn { id, .. } => **id == ID,
        _ => true,
    };
    if !slots.iter().all(is_ours) {
        return Err(());
    }
    let Some(newest) = newest(slots) else {
        let was_begun = matches!(slots[1], Read::Empty | Read::Torn { sequence: 1, .. });
        return if slots[0] == Read::Empty && was_begun && record == 0 {
            Ok(None)
        } else {
            Err(())
        };
    };
    let Read::Valid { sequence, payload, .. } = &slots[newest] else { return Err(()) };
    let is_left_by_a_crash = match &slots[1 - newest] {
        Read::Valid { sequence: other, .. } => other + 1 == *sequence,
        Read::Torn { sequence: other, .. } => *other == sequence + 1,
        Read::Empty => *sequence == 1 && record == 0,
        _ => false,
    };
    if is_left_by_a_crash && *sequence >= record { Ok(Some(payload)) } else { Err(()) }
}

fn check_hard(files: &Files, meta: &Meta) {
    let record = meta.hard.sequence();
    let empty = Vec::new();
    let file = files.get(HARD_FILE).unwrap_or(&empty);
    let slots = [0, 1].map(|number| read(file, number, STRIDE_BYTES, *b"SPRH"));
    let sim = disk_with(files);
    let opened = with_disk(&sim, |disk| HardFile::open(disk, meta, false));
    assert_eq!(files_of(&sim), *files, "reading changes nothing");
    let is_other_version = slots.contains(&Read::OtherVersion);
    let expected = expected(&slots, record);
    let hard = match opened {
        Err(error) => {
            assert!(is_other_version || expected.is_err(), "{error}: {slots:?}");
            return assert_names(&error, HARD_FILE);
        }
        Ok(hard) => hard,
    };
    assert!(!is_other_version, "{slots:?} was taken");
    assert_eq!(hard.load(), expected.expect("damage was taken for a vote"));
    drop(hard);
    let sequence = slots[0].sequence().max(slots[1].sequence());
    let before = expected.unwrap_or_default();
    let stored = {
        let disk = sim.open(true).unwrap();
        let mut hard = HardFile::open(&*disk, meta, true).unwrap();
        let stored = hard.settle().is_ok() && hard.store(&*disk, b"next").is_ok();
        assert!(stored || sequence + 2 > LAST_SEQUENCE, "a slot that is not read is not written");
        stored
    };
    sim.power_cut_keeping(0);
    let hard = with_disk(&sim, |disk| HardFile::open(disk, meta, false)).unwrap();
    assert_eq!(hard.load(), if stored { Some(&b"next"[..]) } else { before });
}
