//! A view: the state at one exact index, for reading while apply continues.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use super::capture::{Captured, Head, ShardCopy};
use super::cell::{Cell, HeapCell, PlaceCell};
use super::storage::view::{Pages, Stored};
use super::store::prefetch_line;
use super::value::Value;
use crate::entry::LogId;
use crate::error::{ReadError, SnapshotError};
use crate::places::table::SegmentHold;
use crate::poison::PoisonCell;
use crate::ranges::partition::Partition;
use crate::snapshot::Snapshot;

/// Distance of the prefetch ahead of the entry being read: neither slots nor values lie in the
/// order of keys. With it, gathering is as fast as the memory: most of its time is in the
/// prefetches, which wait for each other.
const SLOTS_AHEAD: usize = 32;
const VALUES_AHEAD: usize = 16;

/// The interface by which the engine takes views of a built-in machine.
#[doc(hidden)]
pub trait Views: Send + Sync {
    /// Prepares a view before its token is put into the rings. Afterwards the store has all of the
    /// snapshot that the machine was opened from.
    #[allow(clippy::missing_errors_doc, reason = "not called from outside")]
    fn begin_view(&self) -> Result<(), SnapshotError>;
    /// Notes that the worker of `partition` has reached the view token.
    fn reach_view_token(&self, partition: Partition);
    /// Number of partitions that have reached the token.
    fn partitions_reached(&self) -> usize;
    /// Completes the view after all partitions have reached the token: copies what no worker has
    /// copied.
    #[allow(clippy::missing_errors_doc, reason = "not called from outside")]
    fn finish_view(&self, hold: SegmentHold) -> Result<View, SnapshotError>;
    /// Puts a part of the opened snapshot into the store. Returns whether there was anything left.
    #[allow(clippy::missing_errors_doc, reason = "not called from outside")]
    fn fill_some(&self) -> Result<bool, SnapshotError>;
    /// Replaces the state by that of a verified snapshot. Nothing is applied meanwhile.
    #[allow(clippy::missing_errors_doc, reason = "not called from outside")]
    fn load(&self, snapshot: &Snapshot) -> Result<(), SnapshotError>;
    /// Checks that the snapshots that values are read from are unchanged. Returns whether values
    /// are also read from the log.
    #[allow(clippy::missing_errors_doc, reason = "not called from outside")]
    fn check_sources(&self, stopping: &dyn Fn() -> bool) -> Result<bool, SnapshotError>;
    /// Releases the log before segment `below`, and older snapshots: `snapshot` has the values that
    /// keys refer to there.
    #[allow(clippy::missing_errors_doc, reason = "not called from outside")]
    fn let_go(&self, snapshot: &Snapshot, below: u64) -> Result<(), SnapshotError>;
}

/// A view of a key-value machine at one exact index: every key and value, the membership, the
/// notes.
///
/// A view is taken while apply continues ([`Snapshots::view`](crate::Snapshots::view)) and
/// does not change. Keys are in the order of their bytes. A view of a machine over a storage is the
/// storage's own snapshot, takes no memory for keys, and copies what it reads. Other views take 56
/// bytes a key of memory (64 for a memory machine) while they live. Keys of more than 22 bytes come
/// on top. Their values are shared with the machine, whose log keeps the values' segments.
#[derive(Debug)]
pub struct View(
    Kind,
    #[allow(dead_code, reason = "held for the segments that places are in")] Option<SegmentHold>,
);

/// Runs the same expression for each kind.
macro_rules! either {
    ($kind:expr, $state:ident => $result:expr) => {
        match $kind {
            Kind::Memory($state) => $result,
            Kind::Persistent($state) => $result,
            Kind::Stored($state) => $result,
        }
    };
}

enum Kind {
    Memory(Sorted<HeapCell>),
    Persistent(Sorted<PlaceCell>),
    Stored(Stored),
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (log_id, len) = either!(self, state => (state.head().applied, state.len()));
        f.debug_struct("Kind").field("log_id", &log_id).field("len", &len).finish()
    }
}

/// The slots of a store, with their order.
pub(crate) struct Sorted<C: Cell> {
    head: Head,
    shards: Vec<ShardCopy<C>>,
    order: Vec<Position>,
    context: C::Context,
    poison: Arc<PoisonCell>,
}

/// Position of a slot, and the first bytes in which its key may differ from others, so that most
/// comparisons end there.
#[derive(Clone, Copy)]
struct Position {
    prefix: u64,
    shard: u32,
    slot: u32,
}

impl<C: Cell> Sorted<C> {
    pub(crate) fn new(captured: Captured<C>, context: C::Context, poison: Arc<PoisonCell>) -> Self {
        let Captured { head, mut shards } = captured;
        // A tombstone may outlast its filling by a moment.
        shards.iter_mut().for_each(|copies| copies.retain(|(_, cell)| !cell.is_gone()));
        let mut keys = shards.iter().flatten().map(|(key, _)| key.as_slice());
        let first = keys.next().unwrap_or_default();
        let common = keys.try_fold(first.len(), |common, key| {
            let same = first.iter().zip(key).take(common).take_while(|(one, other)| one == other);
            Some(same.count()).filter(|count| *count > 0)
        });
        let common = common.unwrap_or(0);
        let mut order = Vec::with_capacity(shards.iter().map(Vec::len).sum());
        for (shard, copies) in (0_u32..).zip(&shards) {
            order.extend((0_u32..).zip(copies).map(|(slot, (key, _))| {
                let prefix = prefix(key.as_slice(), common);
                Position { prefix, shard, slot }
            }));
        }
        let mut sorted = Self { head, shards, order, context, poison };
        let mut order = std::mem::take(&mut sorted.order);
        order.sort_unstable_by(|one, other| {
            let by_prefix = one.prefix.cmp(&other.prefix);
            by_prefix.then_with(|| sorted.key(*one).cmp(sorted.key(*other)))
        });
        sorted.order = order;
        sorted
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn len(&self) -> usize {
        self.order.len()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>, ReadError> {
        self.find(key).map(|cell| self.value(cell)).transpose()
    }

    fn slot(&self, position: Position) -> Option<&(super::store::Key, C)> {
        self.shards.get(position.shard as usize)?.get(position.slot as usize)
    }

    fn key(&self, position: Position) -> &[u8] {
        self.slot(position).map_or(&[], |(key, _)| key.as_slice())
    }

    fn at(&self, place: usize) -> Option<(&[u8], &C)> {
        let (key, cell) = self.slot(*self.order.get(place)?)?;
        Some((key.as_slice(), cell))
    }

    fn entry(&self, place: usize) -> Option<ViewEntry<'_>> {
        let (key, cell) = self.at(place)?;
        Some(self.value(cell).map(|value| (Cow::Borrowed(key), value)))
    }

    /// The positions of the keys between these bounds.
    fn places(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Range<usize> {
        let place = |key: &[u8], after: bool| {
            let at = self.lower_bound(key);
            let found = self.at(at).map(|(found, _)| found);
            at + usize::from(after && found == Some(key))
        };
        let start = match from {
            Bound::Included(key) => place(key, false),
            Bound::Excluded(key) => place(key, true),
            Bound::Unbounded => 0,
        };
        let end = match to {
            Bound::Included(key) => place(key, true),
            Bound::Excluded(key) => place(key, false),
            Bound::Unbounded => self.len(),
        };
        start..end.max(start)
    }

    /// Prefetches the slot at one position, and the value at another, nearer one.
    #[inline]
    fn prefetch(&self, slot_at: usize, value_at: usize, reader: &mut C::Reader<'_>) {
        if let Some(slot) = self.order.get(slot_at).and_then(|position| self.slot(*position)) {
            prefetch_line((&raw const *slot).cast());
            prefetch_line((&raw const slot.1).cast());
        }
        if let Some((_, cell)) = self.at(value_at) {
            cell.prefetch_value(reader);
        }
    }

    /// The first position whose key is not below `key`.
    fn lower_bound(&self, key: &[u8]) -> usize {
        self.order.partition_point(|position| self.key(*position) < key)
    }

    fn find(&self, key: &[u8]) -> Option<&C> {
        let (found, cell) = self.at(self.lower_bound(key))?;
        (found == key).then_some(cell)
    }

    fn try_for_each<E: From<ReadError>>(
        &self,
        each: &mut impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut reader = C::reader(&self.context);
        for place in 0..self.order.len() {
            self.prefetch(place + SLOTS_AHEAD, place + VALUES_AHEAD, &mut reader);
            if let Some((key, cell)) = self.at(place) {
                self.poison.check().map_err(ReadError::from)?;
                cell.read_with(&mut reader, |value| each(key, value))??;
            }
        }
        Ok(())
    }

    fn value(&self, cell: &C) -> Result<Value, ReadError> {
        self.poison.check()?;
        cell.value(&self.context)
    }
}

/// Up to eight bytes after the first `common`, as a number with the same order.
fn prefix(key: &[u8], common: usize) -> u64 {
    // A key that has no more bytes comes first.
    let rest = key.get(common..).unwrap_or_default();
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(rest) {
        *to = *from;
    }
    u64::from_be_bytes(bytes)
}

impl View {
    pub(crate) fn memory(sorted: Sorted<HeapCell>, hold: SegmentHold) -> Self {
        Self(Kind::Memory(sorted), Some(hold))
    }

    pub(crate) fn persistent(sorted: Sorted<PlaceCell>, hold: SegmentHold) -> Self {
        Self(Kind::Persistent(sorted), Some(hold))
    }

    pub(crate) fn stored(stored: Stored, hold: Option<SegmentHold>) -> Self {
        Self(Kind::Stored(stored), hold)
    }

    fn head(&self) -> &Head {
        either!(&self.0, state => state.head())
    }

    /// The view's entry: everything up to it is in the view, and nothing after it. `None`: the view
    /// is from before the first entry.
    #[must_use]
    pub fn log_id(&self) -> Option<LogId> {
        self.head().applied
    }

    /// The newest membership, and the log id of its entry.
    #[must_use]
    pub fn membership(&self) -> Option<(LogId, &[u8])> {
        self.head().membership.as_ref().map(|(log_id, bytes)| (*log_id, &**bytes))
    }

    /// The note with this name.
    #[must_use]
    pub fn note(&self, name: &[u8]) -> Option<&[u8]> {
        self.head().notes.get(name).map(|value| &**value)
    }

    /// All notes, by name.
    pub fn notes(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.head().notes.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        either!(&self.0, state => state.len())
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of `key`. The call costs a binary search, or a read of the storage.
    ///
    /// # Errors
    ///
    /// Returns [`ReadError::Poisoned`] after the engine has failed, and [`ReadError::Storage`] if
    /// the storage fails.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>, ReadError> {
        either!(&self.0, state => state.get(key))
    }

    /// All keys and values, sorted by key.
    #[must_use]
    pub fn iter(&self) -> ViewIter<'_> {
        self.range::<&[u8]>(..)
    }

    /// The keys within `bounds` and their values, sorted by key, from either end. Bounds that
    /// exclude each other are an empty range.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use sprag::{ApplyConfig, ApplyManager, Entry, MemoryConfig, MemoryStateMachine};
    /// # let machine = MemoryStateMachine::new(MemoryConfig::default())?;
    /// # let manager = ApplyManager::new(machine, ApplyConfig::new())?;
    /// manager.apply(&Entry::put(1, 1, b"apple", b"red"), Duration::from_secs(1))?;
    /// manager.apply(&Entry::put(2, 1, b"pear", b"green"), Duration::from_secs(1))?;
    /// let view = manager.snapshots().view()?;
    /// let mut few = view.range("a".."b");
    /// assert_eq!(few.next().transpose()?.map(|(key, _)| key).as_deref(), Some(&b"apple"[..]));
    /// assert!(few.next().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn range<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> ViewIter<'_> {
        let from = bounds.start_bound().map(AsRef::as_ref);
        let to = bounds.end_bound().map(AsRef::as_ref);
        ViewIter(match &self.0 {
            Kind::Memory(sorted) => Entries::Memory(sorted, sorted.places(from, to)),
            Kind::Persistent(sorted) => Entries::Persistent(sorted, sorted.places(from, to)),
            Kind::Stored(stored) => Entries::Stored(stored.pages(from, to)),
        })
    }

    /// The keys that begin with `prefix` and their values, sorted by key.
    #[must_use]
    pub fn prefix(&self, prefix: &[u8]) -> ViewIter<'_> {
        match after_prefix(prefix) {
            Some(end) => self.range(prefix..&end),
            None => self.range(prefix..),
        }
    }

    /// Runs `each` over all keys and values, in order, until it fails. No value is copied.
    ///
    /// # Errors
    ///
    /// Returns the error of `each`, [`ReadError::Poisoned`] after the engine has failed, or
    /// [`ReadError::Storage`] if the storage fails.
    pub fn try_for_each<E: From<ReadError>>(
        &self,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        either!(&self.0, state => state.try_for_each(&mut each))
    }
}

/// The first key that is greater than all keys with `prefix`; `None` if there cannot be one.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

/// A key and its value, or the error that ends the iteration.
pub(crate) type ViewEntry<'a> = Result<(Cow<'a, [u8]>, Value), ReadError>;

/// Iterator over keys and values of a [`View`], in order, from either end. In a view of a storage,
/// keys are copies, read in pages of at most 1 MiB.
#[derive(Clone, Debug)]
pub struct ViewIter<'a>(Entries<'a>);

#[derive(Clone)]
enum Entries<'a> {
    Memory(&'a Sorted<HeapCell>, Range<usize>),
    Persistent(&'a Sorted<PlaceCell>, Range<usize>),
    Stored(Pages<'a>),
}

impl fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(_, places) | Self::Persistent(_, places) => places.fmt(f),
            Self::Stored(pages) => pages.fmt(f),
        }
    }
}

impl<'a> Iterator for ViewIter<'a> {
    type Item = ViewEntry<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Entries::Memory(sorted, places) => sorted.entry(places.next()?),
            Entries::Persistent(sorted, places) => sorted.entry(places.next()?),
            Entries::Stored(pages) => pages.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Entries::Memory(_, places) | Entries::Persistent(_, places) => places.size_hint(),
            Entries::Stored(pages) => (0, Some(pages.len_max())),
        }
    }
}

impl DoubleEndedIterator for ViewIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Entries::Memory(sorted, places) => sorted.entry(places.next_back()?),
            Entries::Persistent(sorted, places) => sorted.entry(places.next_back()?),
            Entries::Stored(pages) => pages.next_back(),
        }
    }
}

impl<'a> IntoIterator for &'a View {
    type Item = ViewEntry<'a>;
    type IntoIter = ViewIter<'a>;

    fn into_iter(self) -> ViewIter<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::after_prefix;

    #[test]
    fn the_end_of_a_prefix_is_the_first_key_above_all_that_have_it() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff\xff"), None);
        assert_eq!(after_prefix(b""), None);
    }
}
