//! A plain reading of a snapshot by the words of `docs/format.md`: all at once, by hand, without
//! rkyv.

use std::collections::BTreeMap;

use crc32c::crc32c;

use sprag::entry::{LeaderTag, LogId};
use sprag::testing::internals::bytes::{u32_at, u64_at};

/// The whole content of a snapshot.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plain {
    pub(super) is_blob: bool,
    pub(super) log_id: Option<LogId>,
    pub(super) membership: Option<(LogId, Vec<u8>)>,
    pub(super) notes: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) entries: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) blob: Vec<u8>,
}

impl Plain {
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.entries.get(key).map(Vec::as_slice)
    }
}

const ROOT_BYTES: usize = 128;

/// Bytes that are taken from the front.
struct Cut<'a>(&'a [u8]);

impl<'a> Cut<'a> {
    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(head)
    }
}

fn zeros(bytes: &[u8]) -> Option<()> {
    bytes.iter().all(|byte| *byte == 0).then_some(())
}

fn holds(is_so: bool) -> Option<()> {
    is_so.then_some(())
}

/// Takes `len` bytes and the zeros up to the next multiple of `align`.
fn part<'a>(from: &mut Cut<'a>, len: u64, align: u64) -> Option<&'a [u8]> {
    let bytes = from.take(len)?;
    zeros(from.take(len.checked_next_multiple_of(align)? - len)?)?;
    Some(bytes)
}

/// The target of a relative pointer at `at`.
fn target(bytes: &[u8], at: usize) -> i64 {
    at as i64 + i64::from(u32_at(bytes, at).cast_signed())
}

/// Decodes a file; `None` if anything violates the format.
pub(super) fn decode(file: &[u8]) -> Option<Plain> {
    let mut rest = Cut(file);
    let header = rest.take(4096)?;
    let known = [1, 0, header[10], 1, 4, 8];
    holds(header[..8] == *b"SPRGSNAP" && header[8..14] == known)?;
    holds(matches!(header[10], 1 | 2) && u32_at(header, 4092) == crc32c(&header[..4092]))?;
    zeros(&header[14..4092])?;
    let footer = rest.0.last_chunk::<64>()?;
    holds(footer[..8] == *b"SPRGSNFT" && u32_at(footer, 60) == crc32c(&footer[..60]))?;
    zeros(&footer[36..60])?;
    let (index_at, index_bytes) = (u64_at(footer, 8), u64_at(footer, 16));
    holds(u64_at(footer, 24) == file.len() as u64 && index_at.is_multiple_of(16))?;
    let mut chunks = Cut(rest.take(index_at.checked_sub(4096)?)?);
    let index = part(&mut rest, index_bytes, 16)?;
    holds(rest.0.len() == 64 && crc32c(index) == u32_at(footer, 32))?;
    let mut plain = Plain { is_blob: header[10] == 2, ..Plain::default() };
    read(index, &mut chunks, &mut plain)?;
    holds(chunks.0.is_empty())?;
    Some(plain)
}

fn read(index: &[u8], chunks: &mut Cut<'_>, plain: &mut Plain) -> Option<()> {
    let root_at = index.len().checked_sub(ROOT_BYTES)?;
    let (mut tables, root) = (Cut(&index[..root_at]), &index[root_at..]);
    let [blob_bytes, chunk_count, note_count] = [4, 12, 20].map(|at| u64::from(u32_at(root, at)));
    let mut blob = Cut(part(&mut tables, blob_bytes, 8)?);
    let chunks_at = root_at - tables.0.len();
    let chunk_table = tables.take(24 * chunk_count)?;
    let notes_at = root_at - tables.0.len();
    let note_table = tables.take(8 * note_count)?;
    holds(tables.0.is_empty())?;
    for (field, at) in [(0, 0), (8, chunks_at), (16, notes_at)] {
        holds(target(index, root_at + field) == at as i64)?;
    }
    zeros(&root[40..48])?;
    let (mut total, mut last) = (0, None);
    for entry in chunk_table.chunks(24) {
        let (bytes, count) = (u64_at(entry, 0), u32_at(entry, 12));
        let (first_key, zero) = (blob.take(u64::from(u32_at(entry, 16)))?, u32_at(entry, 20));
        let chunk = part(chunks, bytes, 16)?;
        holds(!chunk.is_empty() && zero == 0 && crc32c(chunk) == u32_at(entry, 8))?;
        total += u64::from(count);
        if plain.is_blob {
            holds(count == 0 && first_key.is_empty())?;
            plain.blob.extend_from_slice(chunk);
        } else {
            let entries = read_chunk(chunk, u64::from(count))?;
            holds(entries.first()?.0 == first_key)?;
            for (key, value) in entries {
                holds(!key.is_empty() && last < Some(key))?;
                last = Some(key);
                plain.entries.insert(key.to_vec(), value.to_vec());
            }
        }
    }
    holds(total == u64_at(root, 24))?;
    plain.log_id = log_id(&root[48..88])?;
    let membership = blob.take(u64_at(root, 32))?;
    let set_by = log_id(&root[88..])?;
    holds(set_by.is_some() || membership.is_empty())?;
    plain.membership = set_by.map(|log_id| (log_id, membership.to_vec()));
    let mut last = None;
    for note in note_table.chunks(8) {
        let name = blob.take(u64::from(u32_at(note, 0)))?;
        let value = blob.take(u64::from(u32_at(note, 4)))?;
        holds(last < Some(name))?;
        last = Some(name);
        plain.notes.insert(name.to_vec(), value.to_vec());
    }
    holds(blob.0.is_empty())
}

fn read_chunk(chunk: &[u8], count: u64) -> Option<Vec<(&[u8], &[u8])>> {
    let root_at = chunk.len().checked_sub(16)?;
    let blob_bytes = u32_at(chunk, root_at + 4);
    let mut parts = Cut(&chunk[..root_at]);
    let mut blob = Cut(part(&mut parts, u64::from(blob_bytes), 4)?);
    let records_at = root_at - parts.0.len();
    holds(target(chunk, root_at) == 0 && target(chunk, root_at + 8) == records_at as i64)?;
    holds(u64::from(u32_at(chunk, root_at + 12)) == count && parts.0.len() as u64 == 16 * count)?;
    let mut entries = Vec::new();
    for record in parts.0.chunks(16) {
        let [key_at, key_bytes, value_at, value_bytes] = [0, 4, 8, 12].map(|at| u32_at(record, at));
        holds(key_at as usize == blob_bytes as usize - blob.0.len())?;
        let key = blob.take(u64::from(key_bytes))?;
        holds(value_at as usize == blob_bytes as usize - blob.0.len())?;
        entries.push((key, blob.take(u64::from(value_bytes))?));
    }
    holds(blob.0.is_empty())?;
    Some(entries)
}

/// Decodes a log id; the outer `None` means that no writer writes these bytes.
fn log_id(bytes: &[u8]) -> Option<Option<LogId>> {
    zeros(&bytes[34..])?;
    if bytes[33] == 0 {
        return zeros(bytes).map(|()| None);
    }
    holds(bytes[33] == 1 && u64_at(bytes, 0) < u64::MAX)?;
    let (tag, padding) = bytes[16..32].split_at_checked(usize::from(bytes[32]))?;
    zeros(padding)?;
    let leader = LeaderTag::new(tag)?;
    Some(Some(LogId { index: u64_at(bytes, 0), term: u64_at(bytes, 8), leader }))
}
