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

/// Number of a frame. It rises by one with each frame of a log, over truncations too.
///
/// A frame has no sequence 0: [`FrameSequence::NONE`] is that of the frame before the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub(crate) struct FrameSequence(u64);

impl FrameSequence {
    /// No frame, before the first one.
    pub(crate) const NONE: Self = Self(0);

    /// The sequence with this number, as the files have it.
    #[inline]
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, as the files have it.
    #[inline]
    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// The next frame. The greatest number gives itself: only damaged bytes have it, and
    /// [`FrameSequence::is_before`] says that no frame follows.
    #[inline]
    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The frame before, or none.
    #[inline]
    pub(crate) const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// Whether `next` is the frame right after this one.
    #[inline]
    pub(crate) const fn is_before(self, next: Self) -> bool {
        matches!(self.0.checked_add(1), Some(after) if after == next.0)
    }
}

impl fmt::Display for FrameSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for FrameSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameSequence({})", self.0)
    }
}

/// A frame sequence that several threads read. The models of the engine do not schedule it: they
/// explore no log writer.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct AtomicFrameSequence(std::sync::atomic::AtomicU64);

impl AtomicFrameSequence {
    #[inline]
    pub(crate) fn load(&self, order: std::sync::atomic::Ordering) -> FrameSequence {
        FrameSequence(self.0.load(order))
    }

    #[inline]
    pub(crate) fn store(&self, sequence: FrameSequence, order: std::sync::atomic::Ordering) {
        self.0.store(sequence.0, order);
    }

    /// Raises it to `sequence`, if it is below.
    #[inline]
    pub(crate) fn raise(&self, sequence: FrameSequence, order: std::sync::atomic::Ordering) {
        self.0.fetch_max(sequence.0, order);
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

    #[test]
    fn a_frame_sequence_has_one_before_and_one_after_but_for_the_ends() {
        let five = FrameSequence::new(5);
        assert_eq!((five.next().get(), five.previous().get()), (6, 4));
        assert_eq!(FrameSequence::new(1).previous(), FrameSequence::NONE);
        assert!(
            five.is_before(five.next()) && !five.is_before(five) && !five.next().is_before(five)
        );
        let greatest = FrameSequence::new(u64::MAX);
        assert_eq!((greatest.next(), greatest.is_before(greatest.next())), (greatest, false));
        assert_eq!(FrameSequence::NONE.previous(), FrameSequence::NONE);
    }
}
