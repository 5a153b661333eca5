//! An open snapshot, and its read calls.

use std::fmt;
use std::ops::{Bound, Deref, Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crc32c::crc32c;

use super::chunk::{ChunkRecord, Expected, KeyValueChunk};
use super::format::{ALIGN_BYTES, SnapshotKind};
use super::index::{ChunkInfo, IndexInfo, read_index};
use super::iter::{BlobReader, Iter};
use crate::disk::holders::{Holder, Holding};
use crate::disk::{Access, Disk, Mapping, real};
use crate::entry::LogId;
use crate::error::snapshot::SnapshotError;
use crate::hook::Hook;

/// The state at one exact index, in a file that is read in place.
///
/// Cloning is cheap, and clones share the snapshot; any number of threads may read it at once.
/// Results borrow from the mapped file. Opening costs nothing per entry. A chunk (a few MiB) is
/// checked at its first use, which takes about a millisecond. Any call that uses a damaged chunk
/// fails. [`Snapshot::verify`] checks all of them at once.
///
/// While the file is open, the engine may remove it, and does not change it. If another program
/// cuts it shorter, or the medium fails under it, the process gets a SIGBUS: a limit of mapped
/// files.
///
/// # Examples
///
/// ```no_run
/// use sprag::Snapshot;
///
/// let snapshot = Snapshot::open("/var/lib/node/0000000000002710.snap")?;
/// println!("{} entries at {:?}", snapshot.len(), snapshot.log_id());
/// for entry in snapshot.prefix(b"user/") {
///     let (key, value) = entry?;
///     println!("{} bytes under a key of {}", value.len(), key.len());
/// }
/// # Ok::<(), sprag::error::SnapshotError>(())
/// ```
#[derive(Clone)]
pub struct Snapshot(Arc<Inner>);

struct Inner {
    mapping: Mapping,
    /// Name of the file in errors.
    file: String,
    index: IndexInfo,
    /// For each chunk, [`UNCHECKED`] or [`GOOD`]. Relaxed is enough: the bytes never change, and
    /// two threads that check the same chunk at once find the same.
    states: Box<[AtomicU8]>,
    #[allow(dead_code, reason = "held for the directory's lock, which a mapping does not keep")]
    disk: Option<Arc<dyn Disk>>,
    #[allow(dead_code, reason = "counts while it lives")]
    holding: Option<Holding>,
}

const UNCHECKED: u8 = 0;
const GOOD: u8 = 1;

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("file", &self.0.file)
            .field("log_id", &self.0.index.log_id)
            .field("entries", &self.0.index.entries)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// Constructors.
impl Snapshot {
    /// Opens a snapshot file at any path; it must be a regular file. No lock is taken. The file is
    /// mapped if only its owner (this user, or root) may write to it. Otherwise it is copied into
    /// memory, so that another user cannot change checked bytes.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError::NotASnapshot`], [`SnapshotError::UnknownVersion`] or
    /// [`SnapshotError::OtherSettings`] for a file that this build does not read. Returns
    /// [`SnapshotError::Corrupt`] for a damaged header, footer or index, and [`SnapshotError::Io`]
    /// if the file cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SnapshotError> {
        let path = path.as_ref();
        let file = path.display().to_string();
        let mapping = real::by_path::map(path)
            .map_err(|error| SnapshotError::io("mapping", file.clone(), error))?;
        Self::of_mapping(mapping, file, None)
    }

    /// Makes a snapshot of the bytes of a snapshot file, and verifies all of them.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Snapshot::open`], and [`SnapshotError::Corrupt`] for damage.
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Result<Self, SnapshotError> {
        let bytes = Mapping::Copied(bytes.into());
        let snapshot = Self::of_mapping(bytes, "the snapshot".to_owned(), None)?;
        snapshot.verify()?;
        Ok(snapshot)
    }

    /// Opens a file of a directory, and keeps the directory locked while it is open.
    pub(crate) fn open_on(disk: &Arc<dyn Disk>, name: &str) -> Result<Self, SnapshotError> {
        let fail = |action| move |error| SnapshotError::io(action, name, error);
        let file = disk.open(name, Access::Read).map_err(fail("opening"))?;
        let bytes = file.len().map_err(fail("measuring"))?;
        let bytes = usize::try_from(bytes)
            .map_err(|error| SnapshotError::io("mapping", name, std::io::Error::other(error)))?;
        let mapping = file.map(bytes).map_err(fail("mapping"))?;
        Self::of_mapping(mapping, name.to_owned(), Some(Arc::clone(disk)))
    }

    /// Reads all bytes of `source` into memory, and verifies them.
    pub(crate) fn of_source(source: &mut dyn super::SnapshotSource) -> Result<Self, SnapshotError> {
        Self::from_bytes(source.read_all(usize::MAX)?)
    }

    /// Checks header, footer and index. `disk` is kept as long as the snapshot is.
    pub(crate) fn of_mapping(
        mapping: Mapping,
        file: String,
        disk: Option<Arc<dyn Disk>>,
    ) -> Result<Self, SnapshotError> {
        let index = read_index(&mapping, &file)?;
        let states = index.chunks.iter().map(|_| AtomicU8::new(UNCHECKED)).collect();
        let holders = disk.as_ref().and_then(|disk| disk.holders(Hook::ENGINE));
        let holding = holders.map(|holders| holders.hold(Holder::Snapshot));
        Ok(Self(Arc::new(Inner { mapping, file, index, states, disk, holding })))
    }
}

/// Properties.
impl Snapshot {
    /// Kind of the content.
    #[must_use]
    pub fn kind(&self) -> SnapshotKind {
        self.0.index.kind
    }

    /// Number of key-value entries; 0 for a blob.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.index.entries
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.mapping.len() as u64
    }

    /// The last log entry in the state; `None` for the state before any.
    #[must_use]
    pub fn log_id(&self) -> Option<LogId> {
        self.0.index.log_id
    }

    /// The last membership of the consensus group up to that entry, and the log id of its entry.
    #[must_use]
    pub fn membership(&self) -> Option<(LogId, &[u8])> {
        let (log_id, range) = self.0.index.membership.as_ref()?;
        Some((*log_id, self.bytes_at(range.clone())?))
    }

    /// The value of a note.
    #[must_use]
    pub fn note(&self, name: &[u8]) -> Option<&[u8]> {
        let at = self.0.index.notes.partition_point(|note| self.note_at(note).0 < name);
        let (found, value) = self.note_at(self.0.index.notes.get(at)?);
        (found == name).then_some(value)
    }

    /// All notes, as name and value, by name.
    pub fn notes(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.index.notes.iter().map(|note| self.note_at(note))
    }

    fn note_at(&self, note: &super::index::NoteInfo) -> (&[u8], &[u8]) {
        // Opening has checked that notes lie in the file, so the parts are not empty by mistake.
        let value_at = note.start + note.name_bytes as usize;
        let value = value_at..value_at + note.value_bytes as usize;
        let name = self.bytes_at(note.start..value_at).unwrap_or_default();
        (name, self.bytes_at(value).unwrap_or_default())
    }

    fn bytes_at(&self, range: Range<usize>) -> Option<&[u8]> {
        self.0.mapping.get(range)
    }
}

/// The read calls.
impl Snapshot {
    /// The value of a key.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError::Corrupt`] if the chunk that has the key, or would have it, is
    /// damaged, and [`SnapshotError::OtherKind`] for a blob.
    pub fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, SnapshotError> {
        Ok(self.find(key)?.map(|(_, record)| record.value))
    }

    /// The result of `read` over the value of a key.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Snapshot::get`].
    pub fn get_with<R>(
        &self,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, SnapshotError> {
        Ok(self.get(key)?.map(read))
    }

    /// All entries, as key and value, by rising key. The iterator ends after an error. A blob has
    /// none: use [`Snapshot::blob`].
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter::new(self, Bound::Unbounded, Bound::Unbounded)
    }

    /// The entries whose keys are in a range, such as `&b"a"[..]..&b"b"[..]`, or `(Bound, Bound)`.
    pub fn range<'k>(&self, range: impl RangeBounds<&'k [u8]>) -> Iter<'_> {
        Iter::new(self, range.start_bound().cloned(), range.end_bound().cloned())
    }

    /// The entries whose keys start with `prefix`.
    #[must_use]
    pub fn prefix(&self, prefix: &[u8]) -> Iter<'_> {
        Iter::of_prefix(self, prefix)
    }

    /// The bytes of a blob, as a stream ([`Read`](std::io::Read), and so a
    /// [`SnapshotSource`](super::SnapshotSource)).
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError::OtherKind`] for a snapshot of key-value entries.
    pub fn blob(&self) -> Result<BlobReader<'_>, SnapshotError> {
        self.check_kind(SnapshotKind::Blob)?;
        Ok(BlobReader::new(self))
    }

    /// Checks every chunk that was not checked yet.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError::Corrupt`] at the first damage.
    pub fn verify(&self) -> Result<(), SnapshotError> {
        (0..self.chunk_count()).try_for_each(|chunk| self.chunk_bytes(chunk).map(|_| ()))
    }
}

/// A key, and where its value is in its chunk: offset and length.
pub(crate) type Located<'a> = (&'a [u8], u32, u32);

/// Calls for the engine.
impl Snapshot {
    /// The damage of every damaged chunk.
    pub(crate) fn damages(&self) -> impl Iterator<Item = SnapshotError> {
        (0..self.chunk_count()).filter_map(|chunk| self.chunk_bytes(chunk).err())
    }

    pub(crate) fn chunk_count(&self) -> usize {
        self.0.index.chunks.len()
    }

    /// A chunk's checked bytes. They are the content of a blob, and otherwise an archive.
    pub(crate) fn chunk_bytes(&self, chunk: usize) -> Result<&[u8], SnapshotError> {
        let info = self.info(chunk)?;
        let bytes = self.bytes_at(info.start..info.start + info.bytes);
        let bytes = bytes.ok_or_else(|| self.corrupt(info.start, "a chunk is not in the file"))?;
        let state = self.0.states.get(chunk);
        if state.is_none_or(|state| state.load(Ordering::Relaxed) != GOOD) {
            self.check(chunk, info, bytes).map_err(|what| self.corrupt(info.start, what))?;
            if let Some(state) = state {
                state.store(GOOD, Ordering::Relaxed);
            }
        }
        Ok(bytes)
    }

    /// A chunk's checked bytes, in a handle that keeps the file mapped.
    pub(crate) fn chunk_slice(&self, chunk: usize) -> Result<ChunkSlice, SnapshotError> {
        let len = self.chunk_bytes(chunk)?.len();
        Ok(ChunkSlice { start: self.info(chunk)?.start, len, chunk, snapshot: self.clone() })
    }

    /// The entries of a chunk: each key, and the place of its value in the chunk (offset and
    /// length).
    pub(crate) fn chunk_records(
        &self,
        chunk: usize,
    ) -> Result<impl Iterator<Item = Result<Located<'_>, SnapshotError>>, SnapshotError> {
        let records = self.key_value_chunk(chunk)?;
        Ok((0..records.len()).map(move |number| {
            let record = self.record(chunk, &records, number)?;
            Ok((record.key, record.value_offset, record.value_bytes))
        }))
    }

    /// The chunk of a key, and the place of its value in the chunk (offset and length).
    pub(crate) fn locate(&self, key: &[u8]) -> Result<Option<(usize, u32, u32)>, SnapshotError> {
        let found = self.find(key)?;
        Ok(found.map(|(chunk, record)| (chunk, record.value_offset, record.value_bytes)))
    }

    /// All bytes of the file.
    pub(super) fn file_bytes(&self) -> &[u8] {
        &self.0.mapping
    }

    pub(crate) fn check_kind(&self, kind: SnapshotKind) -> Result<(), SnapshotError> {
        if self.kind() == kind {
            return Ok(());
        }
        Err(SnapshotError::OtherKind { holds: self.kind().holds() })
    }

    /// The chunk that can have a key; 0 for a key below all chunks.
    pub(super) fn chunk_of(&self, key: &[u8]) -> usize {
        let above = self.0.index.chunks.partition_point(|chunk| self.first_key(chunk) <= key);
        // As the documentation says: 0 for a key below all chunks.
        above.saturating_sub(1)
    }

    pub(super) fn key_value_chunk(&self, chunk: usize) -> Result<KeyValueChunk<'_>, SnapshotError> {
        self.check_kind(SnapshotKind::KeyValue)?;
        let bytes = self.chunk_bytes(chunk)?;
        Ok(KeyValueChunk::of_checked(bytes, self.info(chunk)?.records as usize))
    }

    /// A record of a checked chunk.
    pub(super) fn record<'a>(
        &self,
        chunk: usize,
        records: &KeyValueChunk<'a>,
        number: usize,
    ) -> Result<ChunkRecord<'a>, SnapshotError> {
        let lost = || self.corrupt(self.info(chunk).map_or(0, |info| info.start), CHANGED);
        records.record(number).ok_or_else(lost)
    }

    fn find(&self, key: &[u8]) -> Result<Option<(usize, ChunkRecord<'_>)>, SnapshotError> {
        self.check_kind(SnapshotKind::KeyValue)?;
        let chunk = self.chunk_of(key);
        // The key is below all keys, so no chunk has it, and none need be checked.
        if self.0.index.chunks.get(chunk).is_none_or(|info| key < self.first_key(info)) {
            return Ok(None);
        }
        let records = self.key_value_chunk(chunk)?;
        let number = records.lower_bound(key);
        if number == records.len() {
            return Ok(None);
        }
        let record = self.record(chunk, &records, number)?;
        Ok((record.key == key).then_some((chunk, record)))
    }

    fn info(&self, chunk: usize) -> Result<&ChunkInfo, SnapshotError> {
        let info = self.0.index.chunks.get(chunk);
        info.ok_or_else(|| self.corrupt(self.0.mapping.len(), "there are not so many chunks"))
    }

    fn first_key(&self, chunk: &ChunkInfo) -> &[u8] {
        let end = chunk.first_key_at + chunk.first_key_bytes as usize;
        self.bytes_at(chunk.first_key_at..end).unwrap_or_default()
    }

    fn check(&self, chunk: usize, info: &ChunkInfo, bytes: &[u8]) -> Result<(), &'static str> {
        if crc32c(bytes) != info.crc {
            return Err("the checksum of a chunk does not fit");
        }
        let end = info.start + info.bytes;
        let padding = self.bytes_at(end..end.next_multiple_of(ALIGN_BYTES));
        if padding.is_none_or(|padding| padding.iter().any(|byte| *byte != 0)) {
            return Err("padding is not zero");
        }
        if self.kind() == SnapshotKind::Blob {
            return Ok(());
        }
        let next = self.0.index.chunks.get(chunk + 1);
        let expected = Expected {
            records: info.records as usize,
            first_key: self.first_key(info),
            below: next.map(|next| self.first_key(next)),
        };
        KeyValueChunk::check(bytes, &expected).map(|_| ())
    }

    fn corrupt(&self, offset: usize, what: &'static str) -> SnapshotError {
        SnapshotError::Corrupt { file: self.0.file.clone(), offset: offset as u64, what }
    }
}

const CHANGED: &str = "the file was changed while it was read";

impl<'a> IntoIterator for &'a Snapshot {
    type Item = <Iter<'a> as Iterator>::Item;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// A chunk's bytes, checked when this was made. It keeps the file mapped, and the directory locked.
#[derive(Clone)]
pub(crate) struct ChunkSlice {
    snapshot: Snapshot,
    start: usize,
    len: usize,
    chunk: usize,
}

impl ChunkSlice {
    /// Verifies the checksum again, because the medium may have failed since.
    pub(crate) fn check_again(&self) -> Result<(), SnapshotError> {
        if crc32c(self) == self.snapshot.info(self.chunk)?.crc {
            return Ok(());
        }
        Err(self.snapshot.corrupt(self.start, "the checksum of a chunk does not fit any more"))
    }
}

impl Deref for ChunkSlice {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // Both were checked against the mapping, whose length never changes.
        &self.snapshot.0.mapping[self.start..self.start + self.len]
    }
}

impl fmt::Debug for ChunkSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkSlice")
            .field("file", &self.snapshot.0.file)
            .field("start", &self.start)
            .field("len", &self.len)
            .finish()
    }
}
