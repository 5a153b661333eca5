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
        // `u64::MAX` is no index, as the type's documentation says.
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
        // An `earlier` that is ahead leaves no index between the two.
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
pub struct FrameSequence(u64);

impl FrameSequence {
    /// No frame, before the first one.
    pub const NONE: Self = Self(0);

    /// The sequence with this number, as the files have it.
    #[inline]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, as the files have it.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next frame. The greatest number gives itself: only damaged bytes have it, and
    /// [`FrameSequence::is_before`] says that no frame follows.
    #[inline]
    pub(crate) const fn next(self) -> Self {
        // As the documentation says, no frame follows the last number.
        Self(self.0.saturating_add(1))
    }

    /// The frame before, or none.
    #[inline]
    pub(crate) const fn previous(self) -> Self {
        // Before the first frame there is none.
        Self(self.0.saturating_sub(1))
    }

    /// Whether `next` is the frame right after this one.
    #[inline]
    pub const fn is_before(self, next: Self) -> bool {
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

/// Number of a segment of the log. A later segment has a higher number.
///
/// The files have 64 bits for it, and a log has at most `SegmentNumber::COUNT_MAX` segments over
/// its life. So a number is narrowed where it is parsed, and one beyond 32 bits reads as
/// `SegmentNumber::NOWHERE`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct SegmentNumber(u32);

impl SegmentNumber {
    /// The most segments that a log can have over its life: their numbers are below it.
    pub(crate) const COUNT_MAX: u32 = 4 << 20;
    /// The lowest number. A log on disk begins above it, so a file of it is never made.
    pub(crate) const LOWEST: Self = Self(0);
    /// No segment: no file and no image has this number, which is above all others.
    pub(crate) const NOWHERE: Self = Self(u32::MAX);

    /// The segment with this number.
    #[cfg(test)]
    pub(crate) const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The segment that has this number in a file, or nowhere.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "compared with the greatest before")]
    pub const fn of_stored(number: u64) -> Self {
        if number < u32::MAX as u64 { Self(number as u32) } else { Self::NOWHERE }
    }

    /// The number, as the files have it.
    #[inline]
    pub const fn stored(self) -> u64 {
        self.0 as u64
    }

    /// The number, as the places in memory have it.
    #[inline]
    pub(crate) const fn get(self) -> u32 {
        self.0
    }

    /// Whether a segment can have the number.
    #[inline]
    pub(crate) const fn is_possible(self) -> bool {
        self.0 < Self::COUNT_MAX
    }

    /// Number of segments from `first` to the one before this.
    #[inline]
    pub(crate) const fn since(self, first: Self) -> u64 {
        // No segment is from a later one to an earlier one.
        self.0.saturating_sub(first.0) as u64
    }

    /// The segment after this one; nowhere after the last.
    #[inline]
    pub const fn next(self) -> Self {
        // The greatest number is nowhere, and nowhere has no next.
        Self(self.0.saturating_add(1))
    }

    /// The number in a log in memory, whose numbers repeat after `count` segments.
    #[inline]
    pub(crate) const fn modulo(self, count: u32) -> Self {
        Self(self.0 % count)
    }

    /// The segments from this one to the one before `end`.
    pub(crate) fn until(self, end: Self) -> impl Iterator<Item = Self> {
        (self.0..end.0).map(Self)
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentNumber({})", self.0)
    }
}

/// A segment number that several threads read. The models of the engine do not schedule it: they
/// explore no log writer.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct AtomicSegmentNumber(std::sync::atomic::AtomicU32);

impl AtomicSegmentNumber {
    #[inline]
    pub(crate) fn load(&self, order: std::sync::atomic::Ordering) -> SegmentNumber {
        SegmentNumber(self.0.load(order))
    }

    #[inline]
    pub(crate) fn store(&self, segment: SegmentNumber, order: std::sync::atomic::Ordering) {
        self.0.store(segment.0, order);
    }

    /// Stores `segment`; gives what was there.
    #[inline]
    pub(crate) fn swap(
        &self,
        segment: SegmentNumber,
        order: std::sync::atomic::Ordering,
    ) -> SegmentNumber {
        SegmentNumber(self.0.swap(segment.0, order))
    }
}

impl Default for AtomicSegmentNumber {
    fn default() -> Self {
        Self(std::sync::atomic::AtomicU32::new(SegmentNumber::LOWEST.0))
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

    #[test]
    fn a_segment_number_that_no_segment_has_is_nowhere_above_all_others() {
        assert_eq!(SegmentNumber::of_stored(7).stored(), 7);
        let last = SegmentNumber::of_stored(u64::from(u32::MAX) - 1);
        for number in [u64::from(u32::MAX), 1 << 32, (1 << 32) + 7, u64::MAX] {
            assert_eq!(SegmentNumber::of_stored(number), SegmentNumber::NOWHERE);
        }
        assert!(last < SegmentNumber::NOWHERE);
        assert!(!last.is_possible() && SegmentNumber::LOWEST.is_possible());
        assert_eq!(last.next(), SegmentNumber::NOWHERE);
        assert_eq!(SegmentNumber::NOWHERE.next(), SegmentNumber::NOWHERE);
    }

    #[test]
    fn the_segments_until_one_begin_at_the_first_and_leave_it_out() {
        let (three, five) = (SegmentNumber::new(3), SegmentNumber::new(5));
        assert_eq!(three.until(five).collect::<Vec<_>>(), [three, three.next()]);
        assert_eq!(five.until(three).count(), 0);
        assert_eq!((five.since(three), three.since(five)), (2, 0));
    }
}
