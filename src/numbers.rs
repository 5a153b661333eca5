//! Numbers of the log, each a type of its own, so that a call that mixes two of them up does not
//! compile.

use std::fmt;

use crate::sync::atomic::{AtomicU64, Ordering};

/// Reach in the log: a mark covers every entry up to an index, or none.
///
/// A mark is kept as index + 1, so that 0 is "none yet" and a log that starts at index 0 works.
/// `u64::MAX` is no index of an entry, so no mark has to cover it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub(crate) struct Mark(u64);

impl Mark {
    /// Covers nothing.
    pub(crate) const NONE: Self = Self(0);
    /// Covers every entry there can be.
    pub(crate) const ALL: Self = Self(u64::MAX);

    /// The mark of a watermark that is at `last`, or nowhere.
    #[inline]
    pub(crate) const fn of(last: Option<u64>) -> Self {
        match last {
            Some(last) => Self::through(last),
            None => Self::NONE,
        }
    }

    /// Covers `index`, and everything before it.
    #[inline]
    pub(crate) const fn through(index: u64) -> Self {
        Self(index.saturating_add(1))
    }

    /// Covers everything before `index`.
    #[inline]
    pub(crate) const fn before(index: u64) -> Self {
        Self(index)
    }

    /// The last index that it covers.
    #[inline]
    pub(crate) const fn last(self) -> Option<u64> {
        self.0.checked_sub(1)
    }

    /// The first index that it does not cover.
    #[inline]
    pub(crate) const fn next(self) -> u64 {
        self.0
    }

    /// Whether it covers `index`.
    #[inline]
    pub(crate) const fn covers(self, index: u64) -> bool {
        index < self.0
    }

    /// Number of indexes that it covers and `earlier` does not.
    #[inline]
    pub(crate) const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last() {
            Some(last) => write!(f, "entry {last}"),
            None => f.write_str("no entry"),
        }
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mark({self})")
    }
}

/// A mark that several threads read.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct AtomicMark(AtomicU64);

impl AtomicMark {
    pub(crate) fn new(mark: Mark) -> Self {
        Self(AtomicU64::new(mark.0))
    }

    #[inline]
    pub(crate) fn load(&self, order: Ordering) -> Mark {
        Mark(self.0.load(order))
    }

    #[inline]
    pub(crate) fn store(&self, mark: Mark, order: Ordering) {
        self.0.store(mark.0, order);
    }

    /// Stores `mark`; gives what was there.
    #[inline]
    pub(crate) fn swap(&self, mark: Mark, order: Ordering) -> Mark {
        Mark(self.0.swap(mark.0, order))
    }

    /// Raises it to `mark`, if it is below; gives what was there.
    #[inline]
    pub(crate) fn fetch_max(&self, mark: Mark, order: Ordering) -> Mark {
        Mark(self.0.fetch_max(mark.0, order))
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_mark_keeps_index_zero_apart_from_none() {
        for last in [None, Some(0), Some(1), Some(u64::MAX - 1)] {
            assert_eq!(Mark::of(last).last(), last);
        }
        assert!(!Mark::NONE.covers(0) && Mark::through(0).covers(0));
        assert!(Mark::NONE < Mark::through(0));
    }

    #[test]
    fn a_mark_covers_what_is_up_to_its_index_and_nothing_after() {
        let mark = Mark::through(7);
        assert_eq!((mark.covers(7), mark.covers(8)), (true, false));
        assert_eq!((mark, mark.next()), (Mark::before(8), 8));
        assert_eq!((mark.since(Mark::through(4)), mark.since(Mark::through(9))), (3, 0));
    }

    #[test]
    fn no_mark_is_below_one_of_a_lower_index_not_even_that_of_the_greatest_number() {
        assert!(Mark::through(u64::MAX) >= Mark::through(u64::MAX - 1));
        assert!(Mark::ALL.covers(u64::MAX - 1));
    }
}
