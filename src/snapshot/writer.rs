//! Writing a snapshot, front to back, with one chunk in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use crc32c::crc32c;
use rkyv::api::high::{HighSerializer, to_bytes_in};
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;

use super::error::SnapshotError;
use super::format::{
    ALIGN_BYTES, BESIDE_BYTES_MAX, CHUNK_BYTES, CHUNK_ROOT_BYTES, Chunk, ChunkEntry, FOOTER_BYTES,
    Footer, Index, KEY_BYTES_MAX, LogIdEntry, NoteEntry, RECORD_ALIGN_BYTES, RECORD_BYTES, Record,
    SnapshotKind, VALUE_BYTES_MAX, header,
};
use super::stream::SnapshotSink;
use crate::entry::LogId;

/// What a snapshot says beside the state.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct SnapshotMeta {
    /// Of the last entry that is in the state; `None` for the state before any.
    pub(crate) log_id: Option<LogId>,
    /// The last membership, and the entry it is from.
    pub(crate) membership: Option<(LogId, Box<[u8]>)>,
    /// The notes by name.
    pub(crate) notes: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

impl fmt::Debug for SnapshotMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotMeta").field("log_id", &self.log_id).finish_non_exhaustive()
    }
}

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Summary {
    /// The length of the whole file.
    pub(crate) bytes: u64,
    /// Key-value entries.
    pub(crate) entries: u64,
    /// Chunks.
    pub(crate) chunks: u64,
}

/// Takes the state in key order (or, of a blob, its bytes in any pieces) and writes the file's bytes to a sink.
///
/// It holds one chunk, which is 4 MiB or the longest entry, twice: as it gathers, and as it is written. The buffers are
/// reused. After an error nothing more is taken: what the sink got is not a snapshot.
pub(crate) struct SnapshotWriter<'a> {
    out: &'a mut dyn SnapshotSink,
    kind: SnapshotKind,
    chunk_bytes_max: usize,
    /// How far the sink is.
    position: u64,
    chunk: Chunk,
    /// The archive of the chunk that was written last.
    archive: AlignedVec,
    /// The first key of each chunk written, one after the other.
    first_keys: Vec<u8>,
    chunks: Vec<ChunkEntry>,
    entries: u64,
    failed: bool,
}

impl fmt::Debug for SnapshotWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotWriter")
            .field("kind", &self.kind)
            .field("position", &self.position)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

impl<'a> SnapshotWriter<'a> {
    /// Of a key-value state. Writes nothing yet.
    pub(crate) fn new(out: &'a mut dyn SnapshotSink) -> Self {
        Self {
            out,
            kind: SnapshotKind::KeyValue,
            chunk_bytes_max: CHUNK_BYTES,
            position: 0,
            chunk: Chunk::default(),
            archive: AlignedVec::new(),
            first_keys: Vec::new(),
            chunks: Vec::new(),
            entries: 0,
            failed: false,
        }
    }

    /// Of a blob instead.
    pub(crate) fn blob(self) -> Self {
        debug_assert!(self.position == 0 && self.chunk.bytes.is_empty(), "nothing was pushed");
        Self { kind: SnapshotKind::Blob, ..self }
    }

    /// With shorter chunks, so that a small file has several.
    pub(crate) fn with_chunk_bytes(self, chunk_bytes_max: usize) -> Self {
        Self { chunk_bytes_max, ..self }
    }

    /// Takes an entry. Its key must be higher than the last one's; one that is refused for that, or for a length, is
    /// not taken, and the writer goes on.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), SnapshotError> {
        self.check(SnapshotKind::KeyValue)?;
        if key.is_empty() {
            return Err(SnapshotError::Length {
                what: "a key",
                bytes: 0,
                limit: KEY_BYTES_MAX as u64,
            });
        }
        check_length("a key", key.len(), KEY_BYTES_MAX)?;
        check_length("a value", value.len(), VALUE_BYTES_MAX)?;
        if self.last_key().is_some_and(|last| key <= last) {
            return Err(SnapshotError::OutOfOrder { entry: self.entries });
        }
        if !self.chunk.records.is_empty()
            && self.archived_bytes_with(key, value) > self.chunk_bytes_max
        {
            self.flush()?;
        }
        let Chunk { bytes, records } = &mut self.chunk;
        if bytes.capacity() == 0 {
            bytes.reserve_exact(self.chunk_bytes_max.max(key.len() + value.len()));
        } else if bytes.is_empty() {
            // Not doubled: a value of 16 MiB is to take no 32.
            bytes.reserve_exact(key.len() + value.len());
        }
        // A chunk of several entries is at most `chunk_bytes_max` long, one of a single entry has checked lengths.
        let at = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        records.push(Record {
            key_offset: at(bytes.len()),
            key_bytes: at(key.len()),
            value_offset: at(bytes.len() + key.len()),
            value_bytes: at(value.len()),
        });
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        self.entries += 1;
        Ok(())
    }

    /// Takes the next bytes of a blob.
    pub(crate) fn push_bytes(&mut self, mut bytes: &[u8]) -> Result<(), SnapshotError> {
        self.check(SnapshotKind::Blob)?;
        while !bytes.is_empty() {
            let room = self.chunk_bytes_max - self.chunk.bytes.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if self.chunk.bytes.capacity() == 0 {
                self.chunk.bytes.reserve_exact(self.chunk_bytes_max);
            }
            self.chunk.bytes.extend_from_slice(now);
            if self.chunk.bytes.len() == self.chunk_bytes_max {
                self.flush()?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Writes what is left, the index and the footer.
    pub(crate) fn finish(mut self, meta: &SnapshotMeta) -> Result<Summary, SnapshotError> {
        self.check(self.kind)?;
        if !self.chunk.bytes.is_empty() {
            self.flush()?;
        }
        self.start()?;
        let index = self.index(meta)?;
        self.archive.clear();
        let archive = archived(&index, std::mem::take(&mut self.archive))?;
        let footer = Footer {
            index_offset: self.position,
            index_bytes: archive.len() as u64,
            file_bytes: self.position + padded(archive.len() as u64) + FOOTER_BYTES as u64,
            index_crc: crc32c(&archive),
        };
        self.write_padded(&archive)?;
        self.write(&footer.to_bytes())?;
        let chunks = self.chunks.len() as u64;
        Ok(Summary { bytes: self.position, entries: self.entries, chunks })
    }

    fn check(&self, kind: SnapshotKind) -> Result<(), SnapshotError> {
        if self.failed {
            let error = io::Error::other("an earlier write of this snapshot failed");
            return Err(SnapshotError::io("writing", "a snapshot", error));
        }
        if self.kind != kind {
            return Err(SnapshotError::OtherKind { holds: self.kind.holds() });
        }
        Ok(())
    }

    /// The highest key so far. After a flush it is still in the chunk's archive.
    fn last_key(&self) -> Option<&[u8]> {
        if let Some(last) = self.chunk.records.last() {
            return key_of(&self.chunk.bytes, last);
        }
        let record: usize = self.archive.len().checked_sub(CHUNK_ROOT_BYTES + RECORD_BYTES)?;
        let word = |at: usize| crate::log::format::u32_at(&self.archive, record + 4 * at) as usize;
        let (start, len) = (word(0), word(1));
        self.archive.get(start..start + len)
    }

    /// How long the chunk's archive would be with this entry in it.
    fn archived_bytes_with(&self, key: &[u8], value: &[u8]) -> usize {
        let blob = self.chunk.bytes.len() + key.len() + value.len();
        let records = (self.chunk.records.len() + 1) * RECORD_BYTES;
        blob.next_multiple_of(RECORD_ALIGN_BYTES) + records + CHUNK_ROOT_BYTES
    }

    /// The header, if it is not written yet.
    fn start(&mut self) -> Result<(), SnapshotError> {
        if self.position == 0 { self.write(&header(self.kind)) } else { Ok(()) }
    }

    /// Writes the chunk that was gathered.
    fn flush(&mut self) -> Result<(), SnapshotError> {
        self.start()?;
        let records = u32::try_from(self.chunk.records.len()).unwrap_or(u32::MAX);
        let mut first_key_bytes = 0;
        if let Some(first) = self.chunk.records.first() {
            first_key_bytes = first.key_bytes;
            self.first_keys.extend_from_slice(key_of(&self.chunk.bytes, first).unwrap_or_default());
        }
        if self.first_keys.len() > BESIDE_BYTES_MAX {
            return Err(too_much_beside(self.first_keys.len()));
        }
        // Until it is done: a chunk that is not written may not be followed by another.
        self.failed = true;
        let mut archive = std::mem::take(&mut self.archive);
        archive.clear();
        let bytes = match self.kind {
            SnapshotKind::KeyValue => {
                archive = archived(&self.chunk, archive)?;
                &archive[..]
            }
            SnapshotKind::Blob => &self.chunk.bytes[..],
        };
        let (length, crc) = (bytes.len() as u64, crc32c(bytes));
        let written = write_padded(self.out, bytes);
        self.archive = archive;
        self.note(written, padded(length))?;
        self.chunks.push(ChunkEntry { bytes: length, crc, records, first_key_bytes, zero: 0 });
        self.chunk.bytes.clear();
        self.chunk.records.clear();
        Ok(())
    }

    fn index(&mut self, meta: &SnapshotMeta) -> Result<Index, SnapshotError> {
        let mut bytes = std::mem::take(&mut self.first_keys);
        let (membership_id, membership) = match &meta.membership {
            Some((log_id, membership)) => (Some(*log_id), &membership[..]),
            None => (None, &[][..]),
        };
        let notes_bytes: usize =
            meta.notes.iter().map(|(name, value)| name.len() + value.len()).sum();
        let beside = bytes.len().saturating_add(membership.len()).saturating_add(notes_bytes);
        if beside > BESIDE_BYTES_MAX {
            return Err(too_much_beside(beside));
        }
        bytes.extend_from_slice(membership);
        let mut notes = Vec::with_capacity(meta.notes.len());
        for (name, value) in &meta.notes {
            let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX);
            notes.push(NoteEntry { name_bytes: length(name), value_bytes: length(value) });
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(value);
        }
        Ok(Index {
            bytes,
            chunks: self.chunks.clone(),
            notes,
            entries: self.entries,
            membership_bytes: membership.len() as u64,
            zero: 0,
            log_id: LogIdEntry::of(meta.log_id),
            membership: LogIdEntry::of(membership_id),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let written = self.out.write(bytes);
        self.note(written, bytes.len() as u64)
    }

    fn write_padded(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let written = write_padded(self.out, bytes);
        self.note(written, padded(bytes.len() as u64))
    }

    fn note(&mut self, written: io::Result<()>, bytes: u64) -> Result<(), SnapshotError> {
        self.failed = written.is_err();
        self.position += bytes;
        written.map_err(|error| SnapshotError::io("writing", "a snapshot", error))
    }
}

/// A state machine of the user's own writes into it as into any other sink.
impl SnapshotSink for SnapshotWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.push_bytes(bytes).map_err(|error| match error {
            SnapshotError::Io { source, .. } => source,
            other => io::Error::other(other),
        })
    }
}

fn key_of<'b>(bytes: &'b [u8], record: &Record) -> Option<&'b [u8]> {
    let start = record.key_offset as usize;
    bytes.get(start..start + record.key_bytes as usize)
}

fn check_length(what: &'static str, bytes: usize, limit: usize) -> Result<(), SnapshotError> {
    if bytes <= limit {
        return Ok(());
    }
    Err(SnapshotError::Length { what, bytes: bytes as u64, limit: limit as u64 })
}

fn too_much_beside(bytes: usize) -> SnapshotError {
    let (bytes, limit) = (bytes as u64, BESIDE_BYTES_MAX as u64);
    SnapshotError::Length { what: "what a snapshot keeps beside the state", bytes, limit }
}

/// The next place where something may start.
pub(super) fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGN_BYTES as u64)
}

fn write_padded(out: &mut dyn SnapshotSink, bytes: &[u8]) -> io::Result<()> {
    out.write(bytes)?;
    let short = bytes.len().next_multiple_of(ALIGN_BYTES) - bytes.len();
    if short > 0 { out.write(&[0; ALIGN_BYTES][..short]) } else { Ok(()) }
}

type Serializer<'s> = HighSerializer<AlignedVec, ArenaHandle<'s>, RkyvError>;

fn archived(
    value: &impl for<'s> rkyv::Serialize<Serializer<'s>>,
    into: AlignedVec,
) -> Result<AlignedVec, SnapshotError> {
    to_bytes_in(value, into).map_err(|error| {
        SnapshotError::io("archiving a chunk of", "a snapshot", io::Error::other(error))
    })
}
