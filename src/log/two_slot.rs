//! A small record that is replaced as a whole: two slots of a file, written in turn, of which the
//! newest whole one counts.
//!
//! Slot *n* of the file starts at 4096 *n*. Slot sequence *s* goes to slot *s* mod 2; the first one
//! is 1. A slot is a row of 512-byte sectors. Each sector says which store it is of, and has a
//! checksum of its own:
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
//! Magic, version, slot sequence and checksum of a slot's first sector stay in place in every
//! version.
//!
//! **What a crash leaves of a store.** A disk writes a sector whole or not at all. So after a crash
//! each sector of the slot being written belongs to the new store, or to the store two before. It
//! is zeros if the slot was never complete. Such a mixture is a torn store: none of it was
//! acknowledged, and the other slot counts. A torn store that is repeated has the same sequence.
//! The payload's checksum in each sector tells its sectors from those of the first attempt. Any
//! other content of a slot is damage. No byte that may be damaged decides between the two: a sector
//! counts as part of a store only if its checksum fits.
//!
//! Version 1 had one header and one checksum a slot: see [`version_1`].

use std::io;
use std::sync::Arc;

use crc32c::{crc32c, crc32c_append};

use crate::bytes::{put, u16_at, u32_at, u64_at};
use crate::disk::DiskFile;
use crate::error::{Corrupt, OpenError};
use crate::log::format::DatabaseId;

pub(crate) mod version_1;

/// Number of bytes that a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;
/// Offset of the payload in each sector.
pub const PAYLOAD_AT: usize = 64;
/// Bytes of payload in a sector.
pub(crate) const SECTOR_PAYLOAD_BYTES: usize = SECTOR_BYTES - PAYLOAD_AT;
const CRC_AT: usize = 60;
/// Offset of the second slot.
const SLOT_STRIDE_BYTES: u64 = 4096;

/// Version 1 of a two-slot file.
pub(crate) const VERSION_1: u16 = 1;
/// The version that is written.
pub(crate) const VERSION_2: u16 = 2;

/// Properties that distinguish one two-slot file from another.
#[derive(Debug)]
pub(crate) struct SlotLayout {
    /// Name of the file.
    pub(crate) file: &'static str,
    /// The first four bytes of a sector.
    pub(crate) magic: u32,
    /// Number of sectors in a slot, 1 to 8.
    pub(crate) sectors: usize,
}

impl SlotLayout {
    /// The longest payload, in bytes.
    pub(crate) const fn payload_bytes_max(&self) -> usize {
        self.sectors * SECTOR_PAYLOAD_BYTES
    }

    const fn slot_bytes(&self) -> usize {
        self.sectors * SECTOR_BYTES
    }
}

/// One slot, as read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The slot is all zeros: it was never written.
    Empty,
    /// The slot holds a store that a crash interrupted; nothing else leaves such a slot.
    Torn {
        /// The sequence of that store.
        sequence: u64,
        /// The directory that the store belongs to.
        database_id: DatabaseId,
    },
    /// A slot whose first sector is zeros, and which other bytes follow (version 1 only).
    Headless,
    /// The slot is damaged in any other way.
    Damaged {
        /// Whether a crash may have left the slot in this way (version 1 only).
        may_be_torn: bool,
    },
    /// The slot is whole.
    Valid(Stored),
}

/// The content of a whole slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The version it was written in.
    pub(crate) version: u16,
    /// Slot sequence: the higher one of two is the newer.
    pub(crate) sequence: u64,
    /// The directory that the slot belongs to.
    pub(crate) database_id: DatabaseId,
    /// The stored payload.
    pub(crate) payload: Vec<u8>,
}

impl Slot {
    /// The slot sequence; 0 if the slot is not whole.
    pub(crate) fn sequence(&self) -> u64 {
        if let Self::Valid(stored) = self { stored.sequence } else { 0 }
    }
}

/// The slot that counts if one is whole: the newer one.
pub(crate) fn newest(slots: &[Slot; 2]) -> usize {
    usize::from(slots[1].sequence() > slots[0].sequence())
}

/// Offset of a slot in its file.
pub(crate) fn slot_offset(slot: usize) -> u64 {
    slot as u64 * SLOT_STRIDE_BYTES
}

/// The versions that the slots of a file may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Versions {
    /// Both slots have version 1.
    One,
    /// Both slots have version 2.
    Two,
    /// Each slot has one or the other version.
    Either,
}

/// Reads both slots. Fails for a slot of a later version whose checksum fits, even if the other
/// slot's version is known. A later release has written such a file.
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

/// The bytes of a slot; bytes beyond the end of the file read as zeros.
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

/// Identity of the store that a sector belongs to. Two sectors of one store have the same identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct StoreId {
    sequence: u64,
    database_id: DatabaseId,
    payload_bytes: u32,
    payload_crc: u32,
}

/// One sector, as read.
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
    // Every store goes to all sectors. So the sectors that are not of the newest store are all of
    // the store two before, which was complete.
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

/// Whether a slot sequence belongs into the slot `number`. The last sequence is refused, because
/// the next store would have none.
fn is_placed(sequence: u64, number: usize) -> bool {
    (1..u64::MAX).contains(&sequence) && sequence % 2 == number as u64
}

fn unknown_version(layout: &'static SlotLayout, found: u16) -> OpenError {
    let file = layout.file.to_owned();
    OpenError::UnknownVersion { file, found, supported: VERSION_2 }
}

/// The error for a corrupt slot.
pub(crate) fn corrupt(layout: &'static SlotLayout, slot: usize, what: &'static str) -> Corrupt {
    Corrupt { file: layout.file.to_owned(), offset: slot_offset(slot), index: None, what }
}

/// The checksum of a sector (or of a slot of version 1), without the four bytes that hold it.
fn crc_of(bytes: &[u8]) -> u32 {
    crc32c_append(crc32c(&bytes[..CRC_AT]), &bytes[CRC_AT + 4..])
}

/// The writer of a two-slot file.
#[derive(Debug)]
pub(crate) struct SlotWriter {
    file: Arc<dyn DiskFile>,
    layout: &'static SlotLayout,
    /// Sequence of the newest whole slot.
    sequence: u64,
    /// Set while a store runs, and after a failed one. The content of the slot is unknown after a
    /// failed store. Another store would overwrite the one good slot.
    failed: bool,
    bytes: Box<[u8]>,
}

impl SlotWriter {
    /// Makes a writer that continues after the slot of `sequence`, or starts with 0.
    pub(crate) fn new(file: Arc<dyn DiskFile>, layout: &'static SlotLayout, sequence: u64) -> Self {
        let bytes = vec![0; layout.slot_bytes()].into();
        Self { file, layout, sequence, failed: false, bytes }
    }

    /// The sequence of the last durable store.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Reserves the file's bytes, so that a store touches no file-system metadata.
    pub(crate) fn allocate(&self) -> io::Result<()> {
        self.file.allocate(2 * SLOT_STRIDE_BYTES)
    }

    /// Writes `payload` to the next slot and syncs the file. After an error every further call
    /// fails.
    pub(crate) fn store(&mut self, database_id: &DatabaseId, payload: &[u8]) -> io::Result<()> {
        self.store_as(VERSION_2, database_id, payload)
    }

    /// Stores as [`SlotWriter::store`] does, in a given version. Version 1 is only for slots of one
    /// sector, which differ in the header's fields alone.
    pub(crate) fn store_as(
        &mut self,
        version: u16,
        database_id: &DatabaseId,
        payload: &[u8],
    ) -> io::Result<()> {
        // A slot of the number after could not be read. No engine gets there, but a forged file
        // may.
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
        for (sector_number, sector) in (0_u16..).zip(self.bytes.chunks_mut(SECTOR_BYTES)) {
            let number = usize::from(sector_number);
            let start = payload.len().min(number * SECTOR_PAYLOAD_BYTES);
            let end = payload.len().min(start + SECTOR_PAYLOAD_BYTES);
            put(sector, 0, &self.layout.magic.to_le_bytes());
            put(sector, 4, &version.to_le_bytes());
            put(sector, 6, &sector_number.to_le_bytes());
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

    /// Writes the newest slot again unchanged, and syncs it. A store that a crash or a failed sync
    /// interrupted may be in the page cache only. A later sync alone would not write it. A crash
    /// during the rewrite leaves the other slot whole.
    pub(crate) fn rewrite(&self) -> Result<(), OpenError> {
        let error = |action| move |source| OpenError::io(action, self.layout.file, source);
        let number = usize::from(self.sequence % 2 == 1);
        let bytes = slot_bytes(&*self.file, number, self.layout)?;
        self.file.check_held().map_err(error("writing"))?;
        self.file.write_all_at(&bytes, slot_offset(number)).map_err(error("writing"))?;
        self.file.sync_data().map_err(error("syncing"))
    }
}
