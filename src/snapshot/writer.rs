//! Writing a snapshot, front to back: entries are gathered into chunks, which
//! [`chunk_file`](super::chunk_file) writes.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use super::chunk_file::{ChunkFile, ChunkLane};
use super::format::{
    BESIDE_BYTES_MAX, CHUNK_ROOT_BYTES, Chunk, Index, KEY_BYTES_MAX, LogIdEntry, NoteEntry,
    RECORD_ALIGN_BYTES, RECORD_BYTES, Record, SnapshotKind, VALUE_BYTES_MAX,
};
use super::stream::SnapshotSink;
use crate::config::SNAPSHOT_CHUNK_BYTES;
use crate::entry::LogId;
use crate::error::Poison;
use crate::error::snapshot::SnapshotError;

/// Parts of a snapshot beside the state.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SnapshotMeta {
    /// Log id of the last entry in the state; `None` for the state before any.
    pub log_id: Option<LogId>,
    /// The last membership, and the log id of its entry.
    pub membership: Option<(LogId, Box<[u8]>)>,
    /// The notes by name.
    pub notes: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

impl fmt::Debug for SnapshotMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotMeta").field("log_id", &self.log_id).finish_non_exhaustive()
    }
}

/// Figures of a written snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Length of the whole file.
    pub bytes: u64,
    /// Number of key-value entries.
    pub entries: u64,
    /// Number of chunks.
    pub chunks: u64,
}

/// A writer that takes the state in key order (or a blob's bytes in any pieces) and writes the
/// file's bytes to a sink.
///
/// It holds one chunk, of 4 MiB or the longest entry, twice: as it is gathered, and as it is
/// written. A second thread takes two more. The buffers are reused. After an error it takes nothing
/// more, and the sink's bytes are no snapshot.
pub struct SnapshotWriter<'a> {
    lane: ChunkLane<'a>,
    kind: SnapshotKind,
    chunk_bytes_max: usize,
    chunk: Chunk,
    /// The first keys of the earlier chunks, one after the other.
    first_keys: Vec<u8>,
    /// The highest key of the chunk before.
    last_key: Vec<u8>,
    entries: u64,
    failed: bool,
}

impl fmt::Debug for SnapshotWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotWriter")
            .field("kind", &self.kind)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

impl<'a> SnapshotWriter<'a> {
    /// Makes a writer of a key-value state. Nothing is written yet.
    pub fn new(out: &'a mut dyn SnapshotSink) -> Self {
        Self::by(ChunkLane::Here(ChunkFile::new(out)))
    }

    /// Makes a writer whose chunks go this way.
    pub(super) fn by(lane: ChunkLane<'a>) -> Self {
        Self {
            lane,
            kind: SnapshotKind::KeyValue,
            chunk_bytes_max: SNAPSHOT_CHUNK_BYTES,
            chunk: Chunk::default(),
            first_keys: Vec::new(),
            last_key: Vec::new(),
            entries: 0,
            failed: false,
        }
    }

    /// Makes it a writer of a blob instead.
    pub fn blob(self) -> Self {
        debug_assert!(self.entries == 0 && self.chunk.bytes.is_empty(), "nothing was pushed");
        Self { kind: SnapshotKind::Blob, ..self }
    }

    /// Makes chunks shorter, so that a small file has several.
    pub fn with_chunk_bytes(self, chunk_bytes_max: usize) -> Self {
        Self { chunk_bytes_max, ..self }
    }

    /// Takes an entry. Its key must be higher than the last one's. An entry that is refused for
    /// that, or for a length, is not taken, and the writer continues.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), SnapshotError> {
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
            // Do not double the buffer: a value of 16 MiB must not take 32.
            bytes.reserve_exact(key.len() + value.len());
        }
        // A chunk of several entries is at most `chunk_bytes_max` long, one of a single entry has
        // checked lengths.
        records.push(Record {
            key_offset: in_chunk(bytes.len())?,
            key_bytes: in_chunk(key.len())?,
            value_offset: in_chunk(bytes.len() + key.len())?,
            value_bytes: in_chunk(value.len())?,
        });
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        self.entries += 1;
        Ok(())
    }

    /// Takes the next bytes of a blob.
    pub fn push_bytes(&mut self, mut bytes: &[u8]) -> Result<(), SnapshotError> {
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

    /// Writes the rest, the index and the footer.
    pub fn finish(mut self, meta: &SnapshotMeta) -> Result<Summary, SnapshotError> {
        self.check(self.kind)?;
        if !self.chunk.bytes.is_empty() {
            self.flush()?;
        }
        let index = self.index(meta)?;
        let (bytes, chunks) = self.lane.finish(self.kind, index)?;
        Ok(Summary { bytes, entries: self.entries, chunks })
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

    /// The highest key so far.
    fn last_key(&self) -> Option<&[u8]> {
        match self.chunk.records.last() {
            Some(last) => key_of(&self.chunk.bytes, last),
            None => Some(&self.last_key[..]).filter(|key| !key.is_empty()),
        }
    }

    /// Length of the chunk's archive with this entry added.
    fn archived_bytes_with(&self, key: &[u8], value: &[u8]) -> usize {
        let blob = self.chunk.bytes.len() + key.len() + value.len();
        let records = (self.chunk.records.len() + 1) * RECORD_BYTES;
        blob.next_multiple_of(RECORD_ALIGN_BYTES) + records + CHUNK_ROOT_BYTES
    }

    /// Passes the gathered chunk on.
    fn flush(&mut self) -> Result<(), SnapshotError> {
        // A chunk of a blob has no records, and no key.
        let outside = Poison::Internal("a key lies outside of its chunk");
        let key = |record: Option<&Record>| match record {
            Some(record) => key_of(&self.chunk.bytes, record).ok_or_else(|| outside.clone()),
            None => Ok(&[][..]),
        };
        self.first_keys.extend_from_slice(key(self.chunk.records.first())?);
        self.last_key.clear();
        self.last_key.extend_from_slice(key(self.chunk.records.last())?);
        if self.first_keys.len() > BESIDE_BYTES_MAX {
            return Err(too_much_beside(self.first_keys.len()));
        }
        // The flag stays set on failure: no chunk may follow one that was not written.
        self.failed = true;
        self.lane.send(self.kind, &mut self.chunk)?;
        self.failed = false;
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
        // A sum that saturates is over the limit.
        let beside = bytes.len().saturating_add(membership.len()).saturating_add(notes_bytes);
        if beside > BESIDE_BYTES_MAX {
            return Err(too_much_beside(beside));
        }
        bytes.extend_from_slice(membership);
        let mut notes = Vec::with_capacity(meta.notes.len());
        for (name, value) in &meta.notes {
            let (name_bytes, value_bytes) = (in_chunk(name.len())?, in_chunk(value.len())?);
            notes.push(NoteEntry { name_bytes, value_bytes });
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(value);
        }
        Ok(Index {
            bytes,
            chunks: Vec::new(),
            notes,
            entries: self.entries,
            membership_bytes: membership.len() as u64,
            zero: 0,
            log_id: LogIdEntry::of(meta.log_id),
            membership: LogIdEntry::of(membership_id),
        })
    }
}

/// The sink for an embedder's state machine.
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

/// A length or an offset as a chunk's record and a note have it.
pub(super) fn in_chunk(bytes: usize) -> Result<u32, SnapshotError> {
    u32::try_from(bytes).map_err(|_| SnapshotError::Length {
        what: "a part of a snapshot",
        bytes: bytes as u64,
        limit: u64::from(u32::MAX),
    })
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
