//! One key-value chunk: checked once as a whole, and then read record by record without a copy.
//!
//! rkyv's checked access visits everything in an archive (in a build without optimisation each byte
//! of the blob, too). That is right once, and too much work for each get. Later reads use its
//! findings without trust. The layout is fixed, so the places of the records follow from the
//! chunk's length and their number. Each record is a separate archive that is accessed with the
//! same checks.

use rkyv::api::low;
use rkyv::rancor::Failure;

use super::format::{
    ArchivedChunk, ArchivedRecord, CHUNK_ROOT_BYTES, RECORD_ALIGN_BYTES, RECORD_BYTES,
};

/// The bytes of a chunk whose checksum fits.
#[derive(Clone, Copy)]
pub(super) struct KeyValueChunk<'a> {
    bytes: &'a [u8],
    records: usize,
}

/// An entry, and the place of its value in its chunk.
#[derive(Clone, Copy)]
pub(super) struct ChunkRecord<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) value_offset: u32,
    pub(super) value_bytes: u32,
}

/// Requirements on a chunk, from the index's data on it and on the next one.
pub(super) struct Expected<'a> {
    pub(super) records: usize,
    pub(super) first_key: &'a [u8],
    /// The first key of the next chunk.
    pub(super) below: Option<&'a [u8]>,
}

impl<'a> KeyValueChunk<'a> {
    /// A chunk that was checked before; nothing is read.
    pub(super) fn of_checked(bytes: &'a [u8], records: usize) -> Self {
        Self { bytes, records }
    }

    /// Checks everything that later reads rely on. These are the archive, its layout, and that
    /// records lie one after the other. Keys must rise, from the first key in the index to below
    /// the next chunk's.
    pub(super) fn check(bytes: &'a [u8], expected: &Expected<'_>) -> Result<Self, &'static str> {
        let archived = low::access::<ArchivedChunk, Failure>(bytes)
            .map_err(|_| "a chunk is not the archive it should be")?;
        let address = |pointer: *const u8| pointer.addr().checked_sub(bytes.as_ptr().addr());
        let (blob, records) = (&*archived.bytes, &*archived.records);
        let records_at = blob.len().next_multiple_of(RECORD_ALIGN_BYTES);
        let root_at = records_at + records.len() * RECORD_BYTES;
        let in_place = address(blob.as_ptr()) == Some(0)
            && address(records.as_ptr().cast()) == Some(records_at)
            && root_at + CHUNK_ROOT_BYTES == bytes.len()
            && bytes[blob.len()..records_at].iter().all(|byte| *byte == 0);
        if !in_place {
            return Err("a chunk's parts are not where they should be");
        }
        if records.len() != expected.records {
            return Err("a chunk does not hold as many records as the index says");
        }
        check_records(blob, records, expected)?;
        Ok(Self { bytes, records: records.len() })
    }

    pub(super) fn len(&self) -> usize {
        self.records
    }

    /// A record; `None` if there are fewer. (Or if the bytes under the mapping have changed since
    /// the check.)
    pub(super) fn record(&self, number: usize) -> Option<ChunkRecord<'a>> {
        let records_at =
            self.bytes.len().checked_sub(CHUNK_ROOT_BYTES + self.records * RECORD_BYTES)?;
        if number >= self.records {
            return None;
        }
        let at = records_at + number * RECORD_BYTES;
        let record = self.bytes.get(at..at + RECORD_BYTES)?;
        // A record that is not one ends the chunk's records, and its check says so.
        let record = low::access::<ArchivedRecord, Failure>(record).ok()?;
        let value_offset = record.value_offset.to_native();
        let key = part(self.bytes, record.key_offset.to_native(), record.key_bytes.to_native())?;
        let value_bytes = record.value_bytes.to_native();
        let value = part(self.bytes, value_offset, value_bytes)?;
        Some(ChunkRecord { key, value, value_offset, value_bytes })
    }

    /// The number of the first record whose key is not below `key`.
    pub(super) fn lower_bound(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.records);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.record(middle).is_some_and(|record| record.key < key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

fn part(bytes: &[u8], offset: u32, len: u32) -> Option<&[u8]> {
    let start = offset as usize;
    bytes.get(start..start.checked_add(len as usize)?)
}

fn check_records(
    blob: &[u8],
    records: &[ArchivedRecord],
    expected: &Expected<'_>,
) -> Result<(), &'static str> {
    let (mut at, mut last): (usize, Option<&[u8]>) = (0, None);
    for record in records {
        let key = part(blob, record.key_offset.to_native(), record.key_bytes.to_native());
        let value = part(blob, record.value_offset.to_native(), record.value_bytes.to_native());
        let (Some(key), Some(value)) = (key, value) else {
            return Err("a record reaches out of its chunk");
        };
        let key_at = record.key_offset.to_native() as usize;
        let value_at = record.value_offset.to_native() as usize;
        if key_at != at || value_at != at + key.len() {
            return Err("a record does not follow the one before it");
        }
        let rises = match last {
            Some(last) => last < key,
            None => key == expected.first_key,
        };
        if !rises || key.is_empty() {
            return Err("keys of a chunk are not in order");
        }
        (at, last) = (value_at + value.len(), Some(key));
    }
    if at != blob.len() {
        return Err("a chunk has bytes that belong to no record");
    }
    match (last, expected.below) {
        (Some(last), Some(below)) if last >= below => Err("chunks are not in order"),
        (None, _) => Err("a chunk is empty"),
        _ => Ok(()),
    }
}
