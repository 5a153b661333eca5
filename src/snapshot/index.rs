//! Header, footer and index of a mapped snapshot, checked and parsed. Parsing costs nothing per
//! entry, and allocates no more than twice the index's length.

use std::ops::Range;

use crc32c::crc32c;
use rkyv::api::low;
use rkyv::rancor::Failure;

use super::format::{
    ALIGN_BYTES, ArchivedChunkEntry, ArchivedIndex, FOOTER_BYTES, Footer, HEADER_BYTES,
    HeaderError, INDEX_ALIGN_BYTES, RKYV_SETTINGS, SnapshotKind, VERSION, parse_header,
};
use crate::bytes::to_usize;
use crate::entry::LogId;
use crate::error::snapshot::SnapshotError;

/// One chunk.
#[derive(Debug)]
pub(super) struct ChunkInfo {
    /// Offset in the file.
    pub(super) start: usize,
    /// Length without the zeros after it.
    pub(super) bytes: usize,
    pub(super) crc: u32,
    pub(super) records: u32,
    /// Offset of its first key in the file; the key is in the index.
    pub(super) first_key_at: usize,
    pub(super) first_key_bytes: u32,
}

/// One note: the offset of its name in the file; its value follows at once.
#[derive(Debug)]
pub(super) struct NoteInfo {
    pub(super) start: usize,
    pub(super) name_bytes: u32,
    pub(super) value_bytes: u32,
}

/// Everything of a snapshot except its chunks.
#[derive(Debug)]
pub(super) struct IndexInfo {
    pub(super) kind: SnapshotKind,
    pub(super) chunks: Box<[ChunkInfo]>,
    pub(super) notes: Box<[NoteInfo]>,
    pub(super) entries: u64,
    pub(super) log_id: Option<LogId>,
    pub(super) membership: Option<(LogId, Range<usize>)>,
}

/// Parses the index in a whole file. `file` is its name in errors.
pub(super) fn read_index(bytes: &[u8], file: &str) -> Result<IndexInfo, SnapshotError> {
    let corrupt = |offset: usize, what: &'static str| SnapshotError::Corrupt {
        file: file.to_owned(),
        offset: offset as u64,
        what,
    };
    let kind = read_header(bytes, file)?;
    let Some(footer_at) = bytes.len().checked_sub(FOOTER_BYTES) else {
        return Err(corrupt(bytes.len(), "the file is cut off"));
    };
    let footer = bytes[footer_at..].try_into().ok().and_then(Footer::parse);
    let footer = footer.ok_or_else(|| corrupt(footer_at, "the footer is not whole"))?;
    if footer.file_bytes != bytes.len() as u64 {
        return Err(corrupt(footer_at, "the file is not as long as its footer says"));
    }
    let index_at = to_usize(footer.index_offset);
    let index_end = index_at.checked_add(to_usize(footer.index_bytes)).filter(|end| {
        index_at >= HEADER_BYTES
            && index_at.is_multiple_of(ALIGN_BYTES)
            && end.checked_next_multiple_of(ALIGN_BYTES) == Some(footer_at)
    });
    let misplaced = || corrupt(footer_at, "the index is not where it should be");
    let index_end = index_end.ok_or_else(misplaced)?;
    let index = &bytes[index_at..index_end];
    if crc32c(index) != footer.index_crc {
        return Err(corrupt(index_at, "the checksum of the index does not fit"));
    }
    if bytes[index_end..footer_at].iter().any(|byte| *byte != 0) {
        return Err(corrupt(index_end, "padding is not zero"));
    }
    take_apart(index, index_at, kind).map_err(|what| corrupt(index_at, what))
}

fn read_header(bytes: &[u8], file: &str) -> Result<SnapshotKind, SnapshotError> {
    let corrupt = |offset: usize, what: &'static str| SnapshotError::Corrupt {
        file: file.to_owned(),
        offset: offset as u64,
        what,
    };
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        // For the start of a snapshot, report that the file is cut off.
        let is_start =
            !bytes.is_empty() && super::format::MAGIC.starts_with(&bytes[..bytes.len().min(8)]);
        return Err(if is_start {
            corrupt(bytes.len(), "the file is cut off")
        } else {
            SnapshotError::NotASnapshot { file: file.to_owned() }
        });
    };
    parse_header(header).map_err(|error| match error {
        HeaderError::NotASnapshot => SnapshotError::NotASnapshot { file: file.to_owned() },
        HeaderError::Checksum => corrupt(0, "the checksum of the header does not fit"),
        HeaderError::Version(found) => {
            SnapshotError::UnknownVersion { file: file.to_owned(), found, supported: VERSION }
        }
        HeaderError::Settings(found) => {
            SnapshotError::OtherSettings { file: file.to_owned(), found, ours: RKYV_SETTINGS }
        }
        HeaderError::Kind => corrupt(10, "the kind is not known"),
        HeaderError::Reserved => corrupt(14, "reserved bytes are not zero"),
    })
}

fn take_apart(
    index: &[u8],
    index_at: usize,
    kind: SnapshotKind,
) -> Result<IndexInfo, &'static str> {
    let archived = low::access::<ArchivedIndex, Failure>(index)
        .map_err(|_| "the index is not the archive it should be")?;
    check_layout(index, archived)?;
    let log_ids = (archived.log_id.read(), archived.membership.read());
    let (Ok(log_id), Ok(membership)) = log_ids else {
        return Err("a log id is not one");
    };
    let mut bytes = Slices { next: 0, end: archived.bytes.len(), at: index_at };
    let chunks = read_chunks(&archived.chunks, &mut bytes, index_at, kind)?;
    let membership_at = bytes.take(archived.membership_bytes.to_native())?;
    if membership.is_none() && !membership_at.is_empty() {
        return Err("a membership has no log id");
    }
    let mut notes = Vec::with_capacity(archived.notes.len());
    for note in &*archived.notes {
        let (name_bytes, value_bytes) = (note.name_bytes.to_native(), note.value_bytes.to_native());
        let start = bytes.take(u64::from(name_bytes))?.start;
        bytes.take(u64::from(value_bytes))?;
        notes.push(NoteInfo { start, name_bytes, value_bytes });
    }
    if bytes.next != bytes.end {
        return Err("the index has bytes that belong to nothing");
    }
    let in_index = |start: usize, len: u32| &index[start - index_at..][..len as usize];
    let name = |note: &NoteInfo| in_index(note.start, note.name_bytes);
    if !notes.is_sorted_by(|a, b| name(a) < name(b)) {
        return Err("notes are not in order");
    }
    let first_key = |chunk: &ChunkInfo| in_index(chunk.first_key_at, chunk.first_key_bytes);
    if kind == SnapshotKind::KeyValue && !chunks.is_sorted_by(|a, b| first_key(a) < first_key(b)) {
        return Err("chunks are not in order");
    }
    let entries = chunks.iter().map(|chunk| u64::from(chunk.records)).sum::<u64>();
    if entries != archived.entries.to_native() {
        return Err("chunks do not hold as many entries as the index says");
    }
    let membership = membership.map(|log_id| (log_id, membership_at));
    let (chunks, notes) = (chunks.into(), notes.into());
    Ok(IndexInfo { kind, chunks, notes, entries, log_id, membership })
}

/// Checks that blob, chunks, notes and root lie in this order, with only zeros between them, so
/// that an index has one encoding.
fn check_layout(index: &[u8], archived: &ArchivedIndex) -> Result<(), &'static str> {
    let address = |pointer: *const u8| pointer.addr().checked_sub(index.as_ptr().addr());
    let (blob, chunks, notes) = (&*archived.bytes, &*archived.chunks, &*archived.notes);
    let chunks_at = blob.len().next_multiple_of(INDEX_ALIGN_BYTES);
    let notes_at = chunks_at + size_of_val(chunks);
    let root_at = notes_at + size_of_val(notes);
    let is_at = |at: usize, found: Option<usize>| found == Some(at);
    let in_place = is_at(0, address(blob.as_ptr()))
        && is_at(chunks_at, address(chunks.as_ptr().cast()))
        && is_at(notes_at, address(notes.as_ptr().cast()))
        && root_at + size_of_val(archived) == index.len()
        && index[blob.len()..chunks_at].iter().all(|byte| *byte == 0)
        && archived.zero == 0;
    if in_place { Ok(()) } else { Err("parts of the index are not where they should be") }
}

fn read_chunks(
    entries: &[ArchivedChunkEntry],
    first_keys: &mut Slices,
    index_at: usize,
    kind: SnapshotKind,
) -> Result<Vec<ChunkInfo>, &'static str> {
    let mut chunks = Vec::with_capacity(entries.len());
    let mut start = HEADER_BYTES;
    for entry in entries {
        let (records, first_key_bytes) =
            (entry.records.to_native(), entry.first_key_bytes.to_native());
        let fits_kind = match kind {
            SnapshotKind::KeyValue => records > 0 && first_key_bytes > 0,
            SnapshotKind::Blob => records == 0 && first_key_bytes == 0,
        };
        if !fits_kind || entry.bytes == 0 || entry.zero != 0 {
            return Err("a chunk is not of the snapshot's kind");
        }
        let bytes = usize::try_from(entry.bytes.to_native()).map_err(|_| "a chunk is too long")?;
        let end =
            start.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(ALIGN_BYTES));
        let end = end.filter(|end| *end <= index_at).ok_or("a chunk is too long")?;
        let first_key_at = first_keys.take(u64::from(first_key_bytes))?.start;
        let crc = entry.crc.to_native();
        chunks.push(ChunkInfo { start, bytes, crc, records, first_key_at, first_key_bytes });
        start = end;
    }
    if start != index_at {
        return Err("there are bytes that belong to no chunk");
    }
    Ok(chunks)
}

/// Takes lengths from the front of the index's blob.
struct Slices {
    next: usize,
    end: usize,
    /// Offset of the blob in the file.
    at: usize,
}

impl Slices {
    /// The range in the file of the next `bytes` bytes.
    fn take(&mut self, bytes: u64) -> Result<Range<usize>, &'static str> {
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= self.end - self.next);
        let bytes = bytes.ok_or("the index is too short for what it says")?;
        let start = self.at + self.next;
        self.next += bytes;
        Ok(start..start + bytes)
    }
}
