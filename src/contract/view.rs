//! A view: the state at one exact index, for reading while apply continues.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, ControlFlow, RangeBounds};

use super::value::Value;
use crate::entry::LogId;
use crate::error::{ReadError, SnapshotError};
use crate::numbers::SegmentNumber;
use crate::places::table::SegmentHold;
use crate::ranges::partition::Partition;
use crate::snapshot::Snapshot;

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
    fn let_go(&self, snapshot: &Snapshot, below: SegmentNumber) -> Result<(), SnapshotError>;
}

/// The parts of a state beside its keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: Option<(LogId, Box<[u8]>)>,
    pub(crate) notes: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

/// Called with each key and its value, in order, until it breaks.
pub(crate) type ViewEach<'e> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'e;

/// The state of a view, as its machine holds it.
pub(crate) trait ViewState: Send + Sync {
    /// The parts beside the keys.
    fn head(&self) -> &Head;
    /// Number of keys.
    fn len(&self) -> usize;
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Value>, ReadError>;
    /// The entries between these bounds.
    fn range<'a>(&'a self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Box<dyn ViewEntries<'a> + 'a>;
    /// Runs `each` over all keys and values, in order, until it breaks.
    fn scan(&self, each: &mut ViewEach<'_>) -> Result<(), ReadError>;
}

/// Entries of a view, in order, from either end.
pub(crate) trait ViewEntries<'a>: Send + Sync {
    /// The next entry from the front.
    fn next(&mut self) -> Option<ViewEntry<'a>>;
    /// The next entry from the back.
    fn next_back(&mut self) -> Option<ViewEntry<'a>>;
    /// Lower and upper limit of the entries that are left.
    fn len_bounds(&self) -> (usize, Option<usize>);
    /// A copy that goes on from here.
    fn boxed(&self) -> Box<dyn ViewEntries<'a> + 'a>;
}

/// A view of a key-value machine at one exact index: every key and value, the membership, the
/// notes.
///
/// A view is taken while apply continues ([`Snapshots::view`](crate::Snapshots::view)) and
/// does not change. Keys are in the order of their bytes. A view of a machine over a storage is the
/// storage's own snapshot, takes no memory for keys, and copies what it reads. Other views take 56
/// bytes a key of memory (64 for a memory machine) while they live. Keys of more than 22 bytes come
/// on top. Their values are shared with the machine, whose log keeps the values' segments.
pub struct View {
    state: Box<dyn ViewState>,
    #[allow(dead_code, reason = "held for the segments that places are in")]
    hold: Option<SegmentHold>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (log_id, len) = (self.head().applied, self.state.len());
        f.debug_struct("View").field("log_id", &log_id).field("len", &len).finish_non_exhaustive()
    }
}

impl View {
    /// Makes a view of a state whose values lie in the segments of `hold`.
    pub(crate) fn new(state: impl ViewState + 'static, hold: Option<SegmentHold>) -> Self {
        Self { state: Box::new(state), hold }
    }

    fn head(&self) -> &Head {
        self.state.head()
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
        self.state.len()
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
        self.state.get(key)
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
    /// # let machine = MemoryStateMachine::new(MemoryConfig::new())?;
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
        ViewIter(self.state.range(from, to))
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
        let mut failed = None;
        self.state.scan(&mut |key, value| match each(key, value) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failed.map_or(Ok(()), Err)
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
pub struct ViewIter<'a>(Box<dyn ViewEntries<'a> + 'a>);

impl Clone for ViewIter<'_> {
    fn clone(&self) -> Self {
        Self(self.0.boxed())
    }
}

impl fmt::Debug for ViewIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewIter").field("len", &self.0.len_bounds()).finish_non_exhaustive()
    }
}

impl<'a> Iterator for ViewIter<'a> {
    type Item = ViewEntry<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.len_bounds()
    }
}

impl DoubleEndedIterator for ViewIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back()
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
