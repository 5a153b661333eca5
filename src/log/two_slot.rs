//! A small record that is replaced whole: two slots of a file, written in turn, the newest whole one counts.
//!
//! Slot *n* of the file starts at 4096 *n*. Slot sequence *s* goes to slot *s* mod 2; the first is 1. A slot is a row of
//! 512-byte sectors. Each sector says which store it is of, and has a checksum of its own:
//!
//! ```text
//! offset  size  field                           of each sector
//!      0     4  magic
//!      4     2  version, 2
//!      6     2  which sector of the slot, from 0
//!      8     8  slot sequence
//!     16    16  database id
//!     32     4  payload length, of the whole slot
//!     36     4  CRC-32C of the payload, of the whole slot
//!     40    20  0
//!     60     4  CRC-32C of the sector without these four bytes
//!     64   448  payload, then zeros
//! ```
//!
//! Magic, version, slot sequence and checksum of a slot's first sector never move, whatever the version.
//!
//! **What a crash leaves of a store.** A disk writes a sector whole or not at all. So after a crash each sector of the slot
//! that was being written is of the new store, or of the store two before, or zeros if the slot was never complete. Such a
//! mixture is a torn store: nothing of it was acknowledged, and the other slot counts. A store that was torn and is done
//! again has the same sequence; the payload's checksum in each sector tells its sectors from those of the first try.
//! Whatever else a slot holds is damage. No byte that may be damaged decides which of the two it is: a sector counts
//! as being of a store only if its checksum fits.
//!
//! Version 1 had one header and one checksum a slot: see [`version_1`].

use std::io;
use std::sync::Arc;

use crc32c::{crc32c, crc32c_append};

use crate::disk::DiskFile;
use crate::error::{Corrupt, OpenError};
use crate::log::format::{DatabaseId, put, u16_at, u32_at, u64_at};

pub(crate) mod version_1;

/// What a disk writes whole or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;
/// Where the payload starts in each sector.
pub(crate) const PAYLOAD_AT: usize = 64;
/// Payload that a sector has room for.
pub(crate) const SECTOR_PAYLOAD_BYTES: usize = SECTOR_BYTES - PAYLOAD_AT;
const CRC_AT: usize = 60;
/// Where the second slot starts.
const SLOT_STRIDE_BYTES: u64 = 4096;

/// Version 1 of a two-slot file.
pub(crate) const VERSION_1: u16 = 1;
/// The version that is written.
pub(crate) const VERSION_2: u16 = 2;

/// What tells one two-slot file from another.
#[derive(Debug)]
pub(crate) struct SlotLayout {
    /// Its file's name.
    pub(crate) file: &'static str,
    /// The first four bytes of a sector.
    pub(crate) magic: u32,
    /// How many sectors a slot has, 1 to 8.
    pub(crate) sectors: usize,
}

impl SlotLayout {
    /// The longest payload.
    pub(crate) const fn payload_bytes_max(&self) -> usize {
        self.sectors * SECTOR_PAYLOAD_BYTES
    }

    const fn slot_bytes(&self) -> usize {
        self.sectors * SECTOR_BYTES
    }
}

/// One slot, read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// All zeros: never written.
    Empty,
    /// A store that a crash cut short; nothing else leaves that.
    Torn {
        /// The sequence of that store.
        sequence: u64,
        /// The directory it belongs to.
        database_id: DatabaseId,
    },
    /// Version 1 only: zeros in the first sector, and other bytes behind it.
    Headless,
    /// Anything else that does not read back.
    Damaged {
        /// Version 1 only: a crash may have left that too.
        may_be_torn: bool,
    },
    /// Whole.
    Valid(Stored),
}

/// What a whole slot holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The version it was written in.
    pub(crate) version: u16,
    /// The higher one of two is the newer.
    pub(crate) sequence: u64,
    /// The directory it belongs to.
    pub(crate) database_id: DatabaseId,
    /// What was stored.
    pub(crate) payload: Vec<u8>,
}

impl Slot {
    /// The slot sequence; 0 if it is not whole.
    pub(crate) fn sequence(&self) -> u64 {
        if let Self::Valid(stored) = self { stored.sequence } else { 0 }
    }
}

/// Which of two slots counts if one is whole: the newer one.
pub(crate) fn newest(slots: &[Slot; 2]) -> usize {
    usize::from(slots[1].sequence() > slots[0].sequence())
}

/// Where a slot starts in its file.
pub(crate) fn slot_offset(slot: usize) -> u64 {
    slot as u64 * SLOT_STRIDE_BYTES
}

/// Which slots of a file hold, by the versions that it may be of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Versions {
    /// Version 1 alone.
    One,
    /// Version 2 alone.
    Two,
    /// Each slot is of one or the other.
    Either,
}

/// Reads both slots. Fails for a slot of a later version whose checksum fits, even if the other slot is ours: a later
/// release has written here.
pub(crate) fn read_slots(
    file: &dyn DiskFile,
    layout: &'static SlotLayout,
    versions: Versions,
) -> Result<[Slot; 2], OpenError> {
    let slot = |number| {
        let bytes = slot_bytes(file, number, layout)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(Slot::Empty);
        }
        match versions {
            Versions::One => version_1::read_slot(&bytes, number, layout),
            Versions::Two => read_slot(&bytes, number, layout),
            Versions::Either => match read_slot(&bytes, number, layout)? {
                whole @ Slot::Valid(_) => Ok(whole),
                _ => version_1::read_slot(&bytes, number, layout),
            },
        }
    };
    Ok([slot(0)?, slot(1)?])
}

/// The bytes of a slot; what the file is too short for reads as zeros.
pub(crate) fn slot_bytes(
    file: &dyn DiskFile,
    number: usize,
    layout: &'static SlotLayout,
) -> Result<Vec<u8>, OpenError> {
    let mut bytes = vec![0; layout.slot_bytes()];
    file.read_at(&mut bytes, slot_offset(number))
        .map_err(|source| OpenError::io("reading", layout.file, source))?;
    Ok(bytes)
}

/// Which store a sector is of. Two sectors of one store have the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct StoreId {
    sequence: u64,
    database_id: DatabaseId,
    payload_bytes: u32,
    payload_crc: u32,
}

/// One sector, read.
enum Sector {
    Zeros,
    Of(StoreId),
    Damaged,
}

fn read_sector(
    bytes: &[u8],
    number: usize,
    layout: &'static SlotLayout,
) -> Result<Sector, OpenError> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Sector::Zeros);
    }
    if u32_at(bytes, 0) != layout.magic || u32_at(bytes, CRC_AT) != crc_of(bytes) {
        return Ok(Sector::Damaged);
    }
    let version = u16_at(bytes, 4);
    if version > VERSION_2 {
        return Err(unknown_version(layout, version));
    }
    if version != VERSION_2 || usize::from(u16_at(bytes, 6)) != number {
        return Ok(Sector::Damaged);
    }
    Ok(Sector::Of(StoreId {
        sequence: u64_at(bytes, 8),
        database_id: std::array::from_fn(|byte| bytes[16 + byte]),
        payload_bytes: u32_at(bytes, 32),
        payload_crc: u32_at(bytes, 36),
    }))
}

/// Reads a slot of version 2 that is not all zeros.
fn read_slot(bytes: &[u8], number: usize, layout: &'static SlotLayout) -> Result<Slot, OpenError> {
    let damaged = Slot::Damaged { may_be_torn: false };
    let mut zeros = 0;
    let mut stores = Vec::with_capacity(layout.sectors);
    for (place, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
        match read_sector(sector, place, layout)? {
            Sector::Zeros => zeros += 1,
            Sector::Of(store) => stores.push(store),
            Sector::Damaged => return Ok(damaged),
        }
    }
    let Some(newest) = stores.iter().max_by_key(|store| store.sequence).copied() else {
        return Ok(Slot::Empty);
    };
    let payload_bytes = newest.payload_bytes as usize;
    if !is_placed(newest.sequence, number) || payload_bytes > layout.payload_bytes_max() {
        return Ok(damaged);
    }
    if zeros == 0 && stores.iter().all(|store| *store == newest) {
        let sectors = bytes.chunks(SECTOR_BYTES).flat_map(|sector| &sector[PAYLOAD_AT..]);
        let payload: Vec<u8> = sectors.take(payload_bytes).copied().collect();
        if crc32c(&payload) != newest.payload_crc {
            return Ok(damaged);
        }
        let StoreId { sequence, database_id, .. } = newest;
        return Ok(Slot::Valid(Stored { version: VERSION_2, sequence, database_id, payload }));
    }
    // Every store goes to all sectors. So those that are not of the newest are all of the one before it here, which is two
    // before, and was complete.
    let before: Vec<_> =
        stores.iter().filter(|store| store.sequence != newest.sequence).copied().collect();
    let is_one_store = before.windows(2).all(|pair| pair[0] == pair[1]);
    let is_two_before = before.iter().all(|store| store.sequence + 2 == newest.sequence);
    let is_of_one_directory = stores.iter().all(|store| store.database_id == newest.database_id);
    let was_never_complete = newest.sequence <= 2;
    if is_one_store && is_two_before && is_of_one_directory && (zeros == 0 || was_never_complete) {
        let StoreId { sequence, database_id, .. } = newest;
        return Ok(Slot::Torn { sequence, database_id });
    }
    Ok(damaged)
}

/// Whether a slot sequence belongs into the slot `number`. After the last one there would be none for the next store.
fn is_placed(sequence: u64, number: usize) -> bool {
    (1..u64::MAX).contains(&sequence) && sequence % 2 == number as u64
}

fn unknown_version(layout: &'static SlotLayout, found: u16) -> OpenError {
    let file = layout.file.to_owned();
    OpenError::UnknownVersion { file, found, supported: VERSION_2 }
}

/// Names a slot as corrupt.
pub(crate) fn corrupt(layout: &'static SlotLayout, slot: usize, what: &'static str) -> Corrupt {
    Corrupt { file: layout.file.to_owned(), offset: slot_offset(slot), index: None, what }
}

/// The checksum of a sector (or of a slot of version 1) without the four bytes that hold it.
fn crc_of(bytes: &[u8]) -> u32 {
    crc32c_append(crc32c(&bytes[..CRC_AT]), &bytes[CRC_AT + 4..])
}

/// The writing side of a two-slot file.
#[derive(Debug)]
pub(crate) struct SlotWriter {
    file: Arc<dyn DiskFile>,
    layout: &'static SlotLayout,
    /// Of the newest whole slot.
    sequence: u64,
    /// Set while a store runs. After a failed store it is not known what the slot holds; the next store would write
    /// over the one good slot.
    failed: bool,
    bytes: Box<[u8]>,
}

impl SlotWriter {
    /// Goes on after the slot of `sequence`, or starts with 0.
    pub(crate) fn new(file: Arc<dyn DiskFile>, layout: &'static SlotLayout, sequence: u64) -> Self {
        let bytes = vec![0; layout.slot_bytes()].into();
        Self { file, layout, sequence, failed: false, bytes }
    }

    /// The sequence of the last store that is durable.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Reserves the file's bytes, so that a store touches no file-system metadata.
    pub(crate) fn allocate(&self) -> io::Result<()> {
        self.file.allocate(2 * SLOT_STRIDE_BYTES)
    }

    /// Writes `payload` to the next slot and syncs the file. After an error every further call fails.
    pub(crate) fn store(&mut self, database_id: &DatabaseId, payload: &[u8]) -> io::Result<()> {
        self.store_as(VERSION_2, database_id, payload)
    }

    /// As [`SlotWriter::store`]. Version 1 only for slots of one sector, which differ in the header's fields alone.
    pub(crate) fn store_as(
        &mut self,
        version: u16,
        database_id: &DatabaseId,
        payload: &[u8],
    ) -> io::Result<()> {
        // A slot of the number after would not be read: no engine gets there, but a file that was made up may.
        let next = self.sequence.checked_add(1).filter(|next| *next < u64::MAX);
        let next =
            next.ok_or_else(|| io::Error::other("the numbers of the file's slots are used up"))?;
        if self.failed {
            return Err(io::Error::other("an earlier store of this file failed"));
        }
        let length = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let is_too_long = payload.len() > self.layout.payload_bytes_max();
        if is_too_long || (version == VERSION_1 && self.layout.sectors > 1) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let payload_crc = if version == VERSION_1 { 0 } else { crc32c(payload) };
        self.bytes.fill(0);
        for (number, sector) in self.bytes.chunks_mut(SECTOR_BYTES).enumerate() {
            let start = payload.len().min(number * SECTOR_PAYLOAD_BYTES);
            let end = payload.len().min(start + SECTOR_PAYLOAD_BYTES);
            put(sector, 0, &self.layout.magic.to_le_bytes());
            put(sector, 4, &version.to_le_bytes());
            put(sector, 6, &u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes());
            put(sector, 8, &next.to_le_bytes());
            put(sector, 16, database_id);
            put(sector, 32, &length.to_le_bytes());
            put(sector, 36, &payload_crc.to_le_bytes());
            put(sector, PAYLOAD_AT, &payload[start..end]);
            let crc = crc_of(sector);
            put(sector, CRC_AT, &crc.to_le_bytes());
        }
        self.file.check_held()?;
        self.failed = true;
        self.file.write_all_at(&self.bytes, next % 2 * SLOT_STRIDE_BYTES)?;
        self.file.sync_data()?;
        self.failed = false;
        self.sequence = next;
        Ok(())
    }

    /// Writes the newest slot again as it is, and syncs it. A store that a crash or a failed sync cut short may be in the page
    /// cache only; a later sync alone would not write it. The other slot is what a crash meanwhile falls back on.
    pub(crate) fn rewrite(&self) -> Result<(), OpenError> {
        let error = |action| move |source| OpenError::io(action, self.layout.file, source);
        let number = usize::from(self.sequence % 2 == 1);
        let bytes = slot_bytes(&*self.file, number, self.layout)?;
        self.file.check_held().map_err(error("writing"))?;
        self.file.write_all_at(&bytes, slot_offset(number)).map_err(error("writing"))?;
        self.file.sync_data().map_err(error("syncing"))
    }
}
