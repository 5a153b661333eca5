//! META and HARD: two slots each, and what becomes of them when one or both are damaged.

use crc32c::{crc32c, crc32c_append};

use super::bases::first_meta;
use super::files::{Files, disk_with, files_of, with_disk};
use super::frame::ID;
use super::input::Input;
use crate::config::CommitMode;
use crate::disk::sim::SimDisk;
use crate::error::OpenError;
use crate::log::format::{HARD_FILE, META_FILE, put, segment_name, u16_at, u32_at, u64_at};
use crate::log::hard::{HARD_BYTES_MAX, HardFile};
use crate::log::meta::{Meta, MetaFile};
use crate::log::two_slot::{PAYLOAD_AT, SECTOR_BYTES};

const STRIDE_BYTES: usize = 4096;
const CRC_AT: usize = 60;
const MUTATIONS_MAX: usize = 16;
/// The last number that a slot is read with.
const LAST_SEQUENCE: u64 = u64::MAX - 1;

/// The first byte: bit 0 META or HARD, bit 1 repairs checksums, bit 2 puts a segment beside META. Then how often the
/// engine stores, and what happens to the file afterwards.
pub fn slots(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.u8();
    let is_hard = flags & 1 != 0;
    let sim = if is_hard { stored_hard(&mut input) } else { stored_meta(&mut input) };
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
    let has_log = flags & 4 != 0;
    if has_log && !is_hard {
        files.insert(segment_name(1), Vec::new());
    }
    if is_hard { check_hard(&files) } else { check_meta(&files, has_log) }
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

fn stored_hard(input: &mut Input<'_>) -> SimDisk {
    let sim = disk_with(&Files::new());
    let disk = sim.open(true).unwrap();
    let mut hard = HardFile::open(&*disk, ID, true).unwrap();
    for _ in 0..input.u8() % 4 {
        let state = vec![input.u8(); input.below(HARD_BYTES_MAX + 1)];
        hard.store(&*disk, &state).unwrap();
    }
    drop((hard, disk));
    sim
}

fn mutate(file: &mut Vec<u8>, slot_bytes: usize, input: &mut Input<'_>) {
    let slot = usize::from(input.u8() & 1) * STRIDE_BYTES;
    match input.u8() % 6 {
        0 | 1 => {
            let at = slot + input.below(slot_bytes.min(256));
            let len = input.below(24).min(file.len().saturating_sub(at));
            let new = input.bytes(len);
            if !new.is_empty() {
                put(file, at, new);
            }
        }
        2 => {
            let at = slot + [4, 8, 16, 32, 72, 74, 104, 136, 144, 152][input.below(10)];
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
        _ => {
            // One slot in the other's place.
            let other = STRIDE_BYTES - slot;
            if file.len() >= 2 * STRIDE_BYTES {
                file.copy_within(other..other + STRIDE_BYTES, slot);
            }
        }
    }
}

fn repair(file: &mut [u8], slot_bytes: usize, magic: [u8; 4]) {
    for start in [0, STRIDE_BYTES] {
        let Some(slot) = file.get_mut(start..start + slot_bytes) else { continue };
        if slot.iter().any(|byte| *byte != 0) {
            put(slot, 0, &magic);
            let crc = crc_of(slot);
            put(slot, CRC_AT, &crc.to_le_bytes());
        }
    }
}

fn crc_of(slot: &[u8]) -> u32 {
    crc32c_append(crc32c(&slot[..CRC_AT]), &slot[CRC_AT + 4..])
}

/// A slot by the words of the format.
#[derive(Debug, PartialEq)]
enum Read {
    Empty,
    Damaged,
    OtherVersion,
    Misplaced,
    Valid { sequence: u64, id: Vec<u8>, payload: Vec<u8> },
}

impl Read {
    fn sequence(&self) -> u64 {
        if let Self::Valid { sequence, .. } = self { *sequence } else { 0 }
    }
}

fn read(file: &[u8], number: usize, slot_bytes: usize, magic: [u8; 4]) -> Read {
    let start = (number * STRIDE_BYTES).min(file.len());
    let end = (number * STRIDE_BYTES + slot_bytes).min(file.len());
    let mut slot = file[start..end].to_vec();
    slot.resize(slot_bytes, 0);
    let (sequence, len) = (u64_at(&slot, 8), u32_at(&slot, 32) as usize);
    let is_whole = slot[..4] == magic && u32_at(&slot, CRC_AT) == crc_of(&slot);
    if slot.iter().all(|byte| *byte == 0) {
        Read::Empty
    } else if !is_whole {
        Read::Damaged
    } else if u16_at(&slot, 4) != 1 {
        Read::OtherVersion
    } else if sequence == 0
        || sequence == u64::MAX
        || sequence % 2 != number as u64
        || len > slot_bytes - PAYLOAD_AT
    {
        Read::Misplaced
    } else {
        let payload = slot[PAYLOAD_AT..PAYLOAD_AT + len].to_vec();
        Read::Valid { sequence, id: slot[16..32].to_vec(), payload }
    }
}

/// Which slot counts; `None` if none is valid.
fn newest(slots: &[Read; 2]) -> Option<usize> {
    let newest = usize::from(slots[1].sequence() > slots[0].sequence());
    (slots[newest].sequence() > 0).then_some(newest)
}

fn has_refused_slot(slots: &[Read; 2]) -> bool {
    slots.iter().any(|slot| matches!(slot, Read::OtherVersion | Read::Misplaced))
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
    let slots = [0, 1].map(|number| read(file, number, SECTOR_BYTES, *b"SPRM"));
    let sim = disk_with(files);
    let opened = with_disk(&sim, |disk| MetaFile::open(disk, false));
    assert_eq!(files_of(&sim), *files, "reading changes nothing");
    // The file is let go of: it holds the lock.
    let opened = match opened {
        Err(error) => return assert_names(&error, META_FILE),
        Ok(opened) => opened.map(|(_file, meta, damage)| (meta, damage)),
    };
    assert!(!has_refused_slot(&slots), "{slots:?} was taken");
    let Some((meta, damage)) = opened else {
        assert_eq!((newest(&slots), &slots[0], has_log), (None, &Read::Empty, false));
        return;
    };
    let newest = newest(&slots).expect("a slot that is valid");
    let (counted, other) = (&slots[newest], &slots[1 - newest]);
    let Read::Valid { id, payload, .. } = counted else { panic!("no valid slot") };
    assert_eq!(meta.database_id[..], **id);
    let is_other_good = match other {
        Read::Empty => true,
        Read::Valid { id: other, .. } => other == id,
        _ => false,
    };
    let damaged = (!is_other_good).then(|| (1 - newest) as u64 * STRIDE_BYTES as u64);
    assert_eq!(damage.slot_offset, damaged, "damage is named");
    // Written anew it is the same bytes, and the same content.
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

fn check_hard(files: &Files) {
    let empty = Vec::new();
    let file = files.get(HARD_FILE).unwrap_or(&empty);
    let slots = [0, 1].map(|number| read(file, number, STRIDE_BYTES, *b"SPRH"));
    let sim = disk_with(files);
    let opened = with_disk(&sim, |disk| HardFile::open(disk, ID, false));
    assert_eq!(files_of(&sim), *files, "reading changes nothing");
    let hard = match opened {
        Err(error) => return assert_names(&error, HARD_FILE),
        Ok(hard) => hard,
    };
    assert!(!has_refused_slot(&slots), "{slots:?} was taken");
    for slot in &slots {
        if let Read::Valid { id, .. } = slot {
            assert_eq!(**id, ID, "another directory's vote was taken");
        }
    }
    let expected = newest(&slots).map(|newest| match &slots[newest] {
        Read::Valid { payload, .. } => payload.clone(),
        _ => panic!("no valid slot"),
    });
    assert_eq!(hard.load().map(<[u8]>::to_vec), expected);
    assert!(expected.is_some() || slots[0] == Read::Empty, "a vote was forgotten");
    drop(hard);
    let is_last = newest(&slots).is_some_and(|newest| slots[newest].sequence() == LAST_SEQUENCE);
    {
        let disk = sim.open(true).unwrap();
        let mut hard = HardFile::open(&*disk, ID, true).unwrap();
        let stored = hard.store(&*disk, b"next");
        assert_eq!(stored.is_err(), is_last, "a slot that is not read is not written");
    }
    sim.power_cut_keeping(0);
    let hard = with_disk(&sim, |disk| HardFile::open(disk, ID, false)).unwrap();
    assert_eq!(hard.load(), if is_last { expected.as_deref() } else { Some(&b"next"[..]) });
}
