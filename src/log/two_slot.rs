//! A small record that is replaced whole: two slots of a file, written in turn, the newest valid one counts.
//!
//! ```text
//! offset  size  field                       slot n of the file starts at 4096 n; slot = slot sequence % 2
//!      0     4  magic
//!      4     2  version
//!      6     2  0
//!      8     8  slot sequence, from 1
//!     16    16  database id
//!     32     4  payload length
//!     36    24  0
//!     60     4  CRC-32C of the slot without these four bytes
//!     64     -  payload, then zeros to the end of the slot
//! ```
//!
//! Magic, version, slot sequence, checksum and the length of a slot never move, whatever the version.
//!
//! A slot whose payload fits its first 512-byte sector is never torn (the other sectors hold zeros before and after
//! the write), so if it does not read back, it was damaged after it was complete.

use std::io;
use std::sync::Arc;

use crc32c::{crc32c, crc32c_append};

use crate::disk::DiskFile;
use crate::error::{Corrupt, OpenError};
use crate::log::format::{DatabaseId, put, u16_at, u32_at, u64_at};

/// What a disk writes whole or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;
/// Where the payload starts in its slot.
pub(crate) const PAYLOAD_AT: usize = 64;
const CRC_AT: usize = 60;
/// Where the second slot starts.
const SLOT_STRIDE_BYTES: u64 = 4096;

/// What tells one two-slot file from another.
#[derive(Debug)]
pub(crate) struct SlotLayout {
    /// Its file's name.
    pub(crate) file: &'static str,
    /// The first four bytes of a slot.
    pub(crate) magic: u32,
    /// The version written, and the only one read.
    pub(crate) version: u16,
    /// How long a slot is, 512 to 4096.
    pub(crate) slot_bytes: usize,
}

/// One slot, read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// All zeros: never written.
    Empty,
    /// Its checksum does not fit.
    Damaged {
        /// Whether a crash while it was written can have done that.
        may_be_torn: bool,
    },
    /// Its checksum fits.
    Valid {
        /// The higher one of two is the newer.
        sequence: u64,
        /// The directory it belongs to.
        database_id: DatabaseId,
        /// What was stored.
        payload: Vec<u8>,
    },
}

impl Slot {
    /// The slot sequence; 0 if it is not valid.
    pub(crate) fn sequence(&self) -> u64 {
        if let Self::Valid { sequence, .. } = self { *sequence } else { 0 }
    }
}

/// Where a slot starts in its file.
pub(crate) fn slot_offset(slot: usize) -> u64 {
    slot as u64 * SLOT_STRIDE_BYTES
}

/// Reads both slots. Fails for a slot of another version whose checksum fits, even if the other slot is ours: a later
/// release has written here.
pub(crate) fn read_slots(
    file: &dyn DiskFile,
    layout: &'static SlotLayout,
) -> Result<[Slot; 2], OpenError> {
    let slot = |number| read_slot(&slot_bytes(file, number, layout)?, number, layout);
    Ok([slot(0)?, slot(1)?])
}

/// As [`read_slots`], and a slot that says something impossible is as damaged as one that does not read back.
pub(crate) fn read_slots_apart(
    file: &dyn DiskFile,
    layout: &'static SlotLayout,
) -> Result<[Slot; 2], OpenError> {
    let slot = |number| match read_slot(&slot_bytes(file, number, layout)?, number, layout) {
        Err(OpenError::Corrupt(_)) => Ok(Slot::Damaged { may_be_torn: false }),
        slot => slot,
    };
    Ok([slot(0)?, slot(1)?])
}

fn slot_bytes(
    file: &dyn DiskFile,
    number: usize,
    layout: &'static SlotLayout,
) -> Result<Vec<u8>, OpenError> {
    let mut bytes = vec![0; layout.slot_bytes];
    // What the file is too short for reads as zeros.
    file.read_at(&mut bytes, slot_offset(number))
        .map_err(|source| OpenError::io("reading", layout.file, source))?;
    Ok(bytes)
}

fn read_slot(bytes: &[u8], number: usize, layout: &'static SlotLayout) -> Result<Slot, OpenError> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Slot::Empty);
    }
    if u32_at(bytes, 0) != layout.magic || u32_at(bytes, CRC_AT) != slot_crc(bytes) {
        let in_one_sector = u32_at(bytes, 32) as usize <= SECTOR_BYTES - PAYLOAD_AT
            && bytes[SECTOR_BYTES..].iter().all(|byte| *byte == 0);
        return Ok(Slot::Damaged { may_be_torn: !in_one_sector });
    }
    let version = u16_at(bytes, 4);
    if version != layout.version {
        let file = layout.file.to_owned();
        return Err(OpenError::UnknownVersion { file, found: version, supported: layout.version });
    }
    let sequence = u64_at(bytes, 8);
    let payload = bytes[PAYLOAD_AT..].get(..u32_at(bytes, 32) as usize);
    match payload {
        // After the last number there would be none for the next store.
        Some(payload) if (1..u64::MAX).contains(&sequence) && sequence % 2 == number as u64 => {
            Ok(Slot::Valid {
                sequence,
                database_id: std::array::from_fn(|byte| bytes[16 + byte]),
                payload: payload.to_vec(),
            })
        }
        _ => Err(corrupt(layout, number, "a slot is not where it belongs").into()),
    }
}

/// Names a slot as corrupt.
pub(crate) fn corrupt(layout: &'static SlotLayout, slot: usize, what: &'static str) -> Corrupt {
    Corrupt { file: layout.file.to_owned(), offset: slot_offset(slot), index: None, what }
}

fn slot_crc(bytes: &[u8]) -> u32 {
    crc32c_append(crc32c(&bytes[..CRC_AT]), &bytes[CRC_AT + 4..])
}

/// The writing side of a two-slot file.
#[derive(Debug)]
pub(crate) struct SlotWriter {
    file: Arc<dyn DiskFile>,
    layout: &'static SlotLayout,
    /// Of the newest valid slot.
    sequence: u64,
    /// After a failed store nobody knows what the slot holds; the next store would write over the one good slot.
    failed: bool,
    bytes: Box<[u8]>,
}

impl SlotWriter {
    /// Goes on after the slot of `sequence`, or starts with 0.
    pub(crate) fn new(file: Arc<dyn DiskFile>, layout: &'static SlotLayout, sequence: u64) -> Self {
        let bytes = vec![0; layout.slot_bytes].into();
        Self { file, layout, sequence, failed: false, bytes }
    }

    /// Reserves the file's bytes, so that a store touches no file-system metadata.
    pub(crate) fn allocate(&self) -> io::Result<()> {
        self.file.allocate(2 * SLOT_STRIDE_BYTES)
    }

    /// Writes `payload` to the next slot and syncs the file. After an error every further call fails.
    pub(crate) fn store(&mut self, database_id: &DatabaseId, payload: &[u8]) -> io::Result<()> {
        // A slot of the number after would not be read: no engine gets there, but a file that was made up may.
        let next = self.sequence.checked_add(1).filter(|next| *next < u64::MAX);
        let next =
            next.ok_or_else(|| io::Error::other("the numbers of the file's slots are used up"))?;
        if self.failed {
            return Err(io::Error::other("an earlier store of this file failed"));
        }
        let length = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        if payload.len() > self.layout.slot_bytes - PAYLOAD_AT {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.bytes.fill(0);
        put(&mut self.bytes, 0, &self.layout.magic.to_le_bytes());
        put(&mut self.bytes, 4, &self.layout.version.to_le_bytes());
        put(&mut self.bytes, 8, &next.to_le_bytes());
        put(&mut self.bytes, 16, database_id);
        put(&mut self.bytes, 32, &length.to_le_bytes());
        put(&mut self.bytes, PAYLOAD_AT, payload);
        let crc = slot_crc(&self.bytes);
        put(&mut self.bytes, CRC_AT, &crc.to_le_bytes());
        self.file.check_held()?;
        self.failed = true;
        self.file.write_all_at(&self.bytes, next % 2 * SLOT_STRIDE_BYTES)?;
        self.file.sync_data()?;
        self.failed = false;
        self.sequence = next;
        Ok(())
    }
}
