//! Walks over a snapshot: its entries in key order, or the bytes of a blob.

use std::fmt;
use std::io;
use std::ops::Bound;

use super::chunk::KeyValueChunk;
use super::format::SnapshotKind;
use super::reader::Snapshot;
use crate::error::snapshot::SnapshotError;

/// Iterator over entries in key order, as key and value borrowed from the snapshot.
/// [`Snapshot::iter`], [`Snapshot::range`] and [`Snapshot::prefix`] make it. An error (of the first
/// damaged chunk) is the last item.
pub struct Iter<'a> {
    snapshot: &'a Snapshot,
    start: Start,
    end: End,
    /// The current chunk, if it was already checked.
    current: Option<KeyValueChunk<'a>>,
    chunk: usize,
    record: usize,
    done: bool,
}

/// A key and its value.
type Entry<'a> = (&'a [u8], &'a [u8]);

enum Start {
    /// The start is at `chunk` and `record`.
    Here,
    Key(Box<[u8]>, Skip),
}

/// Whether the start itself is left out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Skip {
    Equal,
    Nothing,
}

enum End {
    Never,
    Before(Box<[u8]>),
    After(Box<[u8]>),
    Prefix(Box<[u8]>),
}

impl fmt::Debug for Iter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter")
            .field("chunk", &self.chunk)
            .field("record", &self.record)
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

impl<'a> Iter<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Self {
        let start = match start {
            Bound::Unbounded => Start::Here,
            Bound::Included(key) => Start::Key(key.into(), Skip::Nothing),
            Bound::Excluded(key) => Start::Key(key.into(), Skip::Equal),
        };
        let end = match end {
            Bound::Unbounded => End::Never,
            Bound::Included(key) => End::After(key.into()),
            Bound::Excluded(key) => End::Before(key.into()),
        };
        Self { snapshot, start, end, current: None, chunk: 0, record: 0, done: false }
    }

    pub(super) fn of_prefix(snapshot: &'a Snapshot, prefix: &[u8]) -> Self {
        let end = End::Prefix(prefix.into());
        Self { end, ..Self::new(snapshot, Bound::Included(prefix), Bound::Unbounded) }
    }

    fn step(&mut self) -> Result<Option<Entry<'a>>, SnapshotError> {
        self.snapshot.check_kind(SnapshotKind::KeyValue)?;
        self.find_start()?;
        while self.chunk < self.snapshot.chunk_count() {
            let records = match self.current {
                Some(records) => records,
                None => *self.current.insert(self.snapshot.key_value_chunk(self.chunk)?),
            };
            if self.record < records.len() {
                let record = self.snapshot.record(self.chunk, &records, self.record)?;
                self.record += 1;
                return Ok(self.is_inside(record.key).then_some((record.key, record.value)));
            }
            (self.chunk, self.record, self.current) = (self.chunk + 1, 0, None);
        }
        Ok(None)
    }

    fn find_start(&mut self) -> Result<(), SnapshotError> {
        let Start::Key(key, skip) = &self.start else { return Ok(()) };
        self.chunk = self.snapshot.chunk_of(key);
        if self.chunk < self.snapshot.chunk_count() {
            let records = self.snapshot.key_value_chunk(self.chunk)?;
            self.record = records.lower_bound(key);
            if *skip == Skip::Equal && self.record < records.len() {
                let found = self.snapshot.record(self.chunk, &records, self.record)?;
                self.record += usize::from(*found.key == **key);
            }
            self.current = Some(records);
        }
        self.start = Start::Here;
        Ok(())
    }

    fn is_inside(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Never => true,
            End::Before(end) => key < &**end,
            End::After(end) => key <= &**end,
            End::Prefix(prefix) => key.starts_with(prefix),
        }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Result<Entry<'a>, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.step().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

impl std::iter::FusedIterator for Iter<'_> {}

/// Reader of the bytes of a blob snapshot, front to back; [`Snapshot::blob`] makes it. Each chunk
/// is checked before any of its bytes is returned. A damaged chunk is an error whose source is the
/// [`SnapshotError`].
#[derive(Debug)]
pub struct BlobReader<'a> {
    snapshot: &'a Snapshot,
    chunk: usize,
    /// The rest of the chunk before that.
    rest: &'a [u8],
}

impl<'a> BlobReader<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, chunk: 0, rest: &[] }
    }
}

impl io::Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() && self.chunk < self.snapshot.chunk_count() {
            self.rest = self.snapshot.chunk_bytes(self.chunk).map_err(io::Error::other)?;
            self.chunk += 1;
        }
        io::Read::read(&mut self.rest, buffer)
    }
}
