//! A view of a state in a storage: the storage's own snapshot, read in pages.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use super::meta::{read_membership, read_state};
use super::{StorageSnapshot, Table};
use crate::bytes::to_usize;
use crate::codec::KEY_BYTES_MAX;
use crate::contract::value::Value;
use crate::contract::view::{Head, ViewEach, ViewEntries, ViewEntry, ViewState};
use crate::error::{ReadError, StorageError};
use crate::poison::PoisonCell;

/// Number of entries in the first page of an iterator; each page is twice as long as the one
/// before.
const FIRST_PAGE_ENTRIES: usize = 16;
/// Most entries of a page; this and the limit of bytes still allow one entry.
const PAGE_ENTRIES_MAX: usize = 512;
const PAGE_BYTES_MAX: usize = 1 << 20;

/// The state in a snapshot of a storage.
pub(crate) struct Stored {
    head: Head,
    table: Table,
    keys: u64,
    snapshot: Box<dyn StorageSnapshot>,
    /// Name of the storage.
    storage: &'static str,
    poison: Arc<PoisonCell>,
}

/// A key and its value.
type Entry = (Box<[u8]>, Value);

impl Stored {
    /// Reads the data beside the keys; the notes are kept in memory.
    pub(crate) fn new(
        snapshot: impl StorageSnapshot,
        storage: &'static str,
        poison: Arc<PoisonCell>,
    ) -> Result<Self, ReadError> {
        let failed = |source| ReadError::Storage { storage, source: Arc::new(source) };
        let record = read_state(&snapshot).map_err(|error| failed(error.into_storage_error()))?;
        let missing =
            || StorageError::Corrupt { message: "the record of the state is gone".into() };
        let record = record.ok_or_else(|| failed(missing()))?;
        let membership = read_membership(&snapshot);
        let membership = membership.map_err(|error| failed(error.into_storage_error()))?;
        let mut head = Head { applied: record.applied, membership, ..Head::default() };
        let mut each = |name: &[u8], value: &[u8]| {
            head.notes.insert(name.into(), value.into());
            ControlFlow::Continue(())
        };
        let notes = Table::Notes(record.generation);
        snapshot.scan(notes, Bound::Unbounded, Bound::Unbounded, &mut each).map_err(failed)?;
        let (table, snapshot) = (Table::State(record.generation), Box::new(snapshot));
        Ok(Self { head, table, keys: record.keys, snapshot, storage, poison })
    }

    fn failed(&self, source: StorageError) -> ReadError {
        ReadError::Storage { storage: self.storage, source: Arc::new(source) }
    }
}

impl ViewState for Stored {
    fn head(&self) -> &Head {
        &self.head
    }

    fn len(&self) -> usize {
        to_usize(self.keys)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>, ReadError> {
        self.poison.check()?;
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Ok(None);
        }
        let mut found = None;
        let mut read = |bytes: &[u8]| found = Some(Value::copied(bytes));
        self.snapshot.get(self.table, key, &mut read).map_err(|source| self.failed(source))?;
        Ok(found)
    }

    fn range<'a>(&'a self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Box<dyn ViewEntries<'a> + 'a> {
        Box::new(Pages {
            stored: self,
            from: from.map(Box::from),
            to: to.map(Box::from),
            front: VecDeque::new(),
            back: VecDeque::new(),
            page_entries: FIRST_PAGE_ENTRIES,
            is_read: excludes_all(from, to),
        })
    }

    fn scan(&self, each: &mut ViewEach<'_>) -> Result<(), ReadError> {
        let (mut keys, mut poisoned, mut is_cut) = (0_u64, Ok(()), false);
        let mut step = |key: &[u8], value: &[u8]| {
            keys += 1;
            poisoned = self.poison.check();
            if poisoned.is_err() {
                return ControlFlow::Break(());
            }
            let flow = each(key, value);
            is_cut = flow.is_break();
            flow
        };
        self.snapshot
            .scan(self.table, Bound::Unbounded, Bound::Unbounded, &mut step)
            .map_err(|source| self.failed(source))?;
        poisoned?;
        if is_cut || keys == self.keys {
            return Ok(());
        }
        let message = format!("it holds {keys} keys, and its record says {}", self.keys);
        Err(self.failed(StorageError::Corrupt { message }))
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("storage", &self.storage)
            .field("log_id", &self.head.applied)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// Whether no key can be between these bounds.
fn excludes_all(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from >= to,
        _ => false,
    }
}

/// The end of a range from which a page is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Front,
    Back,
}

/// Keys and values of a range, from both ends, read a page at a time.
#[derive(Clone)]
pub(crate) struct Pages<'a> {
    stored: &'a Stored,
    /// The bounds of the part that has not been read.
    from: Bound<Box<[u8]>>,
    to: Bound<Box<[u8]>>,
    /// Pairs read and not returned yet, each in reading order: keys before `from`, and keys after
    /// `to`.
    front: VecDeque<Entry>,
    back: VecDeque<Entry>,
    page_entries: usize,
    /// Whether nothing is left between the bounds.
    is_read: bool,
}

impl<'a> Pages<'a> {
    fn give(&mut self, pop: impl FnOnce(&mut Self) -> Option<Entry>) -> Option<ViewEntry<'a>> {
        let (key, value) = pop(self)?;
        let checked = self.stored.poison.check().map_err(ReadError::from);
        Some(checked.map(|()| (Cow::Owned(key.into_vec()), value)))
    }

    /// Reads the next page from one end. An error ends the iteration.
    fn read(&mut self, end: End) -> Result<(), ReadError> {
        if self.is_read {
            return Ok(());
        }
        self.is_read = true;
        let mut page: VecDeque<Entry> = VecDeque::new();
        let (mut bytes, entries_max) = (0, self.page_entries);
        let mut is_cut = false;
        let mut each = |key: &[u8], value: &[u8]| {
            bytes += key.len() + value.len();
            page.push_back((Box::from(key), Value::copied(value)));
            is_cut = page.len() >= entries_max || bytes >= PAGE_BYTES_MAX;
            if is_cut { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let Self { stored, from, to, .. } = &*self;
        let (from, to) = (from.as_ref().map(|key| &**key), to.as_ref().map(|key| &**key));
        let scanned = match end {
            End::Front => stored.snapshot.scan(stored.table, from, to, &mut each),
            End::Back => stored.snapshot.scan_back(stored.table, from, to, &mut each),
        };
        scanned.map_err(|source| stored.failed(source))?;
        self.page_entries = (2 * self.page_entries).min(PAGE_ENTRIES_MAX);
        self.is_read = !is_cut;
        let last = page.back().map(|(key, _)| Bound::Excluded(key.clone()));
        match (end, last) {
            (End::Front, Some(last)) => self.from = last,
            (End::Back, Some(last)) => self.to = last,
            (_, None) => {}
        }
        match end {
            End::Front => self.front = page,
            End::Back => self.back = page,
        }
        let (from, to) = (self.from.as_ref(), self.to.as_ref());
        self.is_read |= excludes_all(from.map(|key| &**key), to.map(|key| &**key));
        Ok(())
    }
}

impl<'a> ViewEntries<'a> for Pages<'a> {
    fn next(&mut self) -> Option<ViewEntry<'a>> {
        if self.front.is_empty()
            && let Err(error) = self.read(End::Front)
        {
            return Some(Err(error));
        }
        // If the front is empty, the next pair is the last one read from the back.
        self.give(|pages| pages.front.pop_front().or_else(|| pages.back.pop_back()))
    }

    fn next_back(&mut self) -> Option<ViewEntry<'a>> {
        if self.back.is_empty()
            && let Err(error) = self.read(End::Back)
        {
            return Some(Err(error));
        }
        self.give(|pages| pages.back.pop_front().or_else(|| pages.front.pop_back()))
    }

    fn len_bounds(&self) -> (usize, Option<usize>) {
        let most =
            if self.is_read { self.front.len() + self.back.len() } else { self.stored.len() };
        (0, Some(most))
    }

    fn boxed(&self) -> Box<dyn ViewEntries<'a> + 'a> {
        Box::new(self.clone())
    }
}

impl fmt::Debug for Pages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("stored", &self.stored).finish_non_exhaustive()
    }
}
