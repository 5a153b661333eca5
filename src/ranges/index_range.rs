//! The unit of hand-off: consecutive entries of one frame.
//!
//! One type serves on the whole way: entries that wait for their commit, entries in the workers'
//! rings, and the frames that the appender remembers. What a state machine is given is a
//! [`EntryRange`](super::range::EntryRange), which has the bytes too.

use std::collections::VecDeque;

use super::in_flight_ring::InFlightRing;
use crate::bytes::at_most;
use crate::codec::Extent;
use crate::error::Poison;
use crate::numbers::Mark;

/// Knowledge about a range's entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RangeKind {
    /// Entries that are not in the in-flight ring yet. Their footprints are not known yet, so there
    /// may be barriers among them.
    Unclassified,
    /// Entries in the in-flight ring, each of one partition.
    Entries,
    /// A single entry that concerns all partitions.
    Barrier,
    /// No entry: the place at which a view is taken.
    ViewToken,
}

/// Consecutive entries of one frame. It holds no payload, and has 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IndexRange {
    /// Index of the first entry.
    pub(crate) first: u64,
    pub(crate) count: u32,
    /// The entries' place; the header of their frame has the term and leader of all. After a
    /// truncation it may have bytes of removed entries at its end.
    pub(crate) extent: Extent,
    pub(crate) kind: RangeKind,
}

const _: () = assert!(size_of::<IndexRange>() <= 32);

impl IndexRange {
    /// Makes the view token: the view has everything before `first`.
    pub(crate) fn view_token(first: u64) -> Self {
        Self { first, count: 0, extent: Extent::NOWHERE, kind: RangeKind::ViewToken }
    }

    pub(crate) fn is_barrier(&self) -> bool {
        self.kind == RangeKind::Barrier
    }

    /// The mark that covers its entries and everything before them.
    #[inline]
    pub(crate) fn mark(&self) -> Mark {
        Mark::before(self.first + u64::from(self.count))
    }

    /// Adds `next`, if the two make one range of at most `entries_max` entries. Returns whether it
    /// did.
    #[inline]
    pub(crate) fn join(&mut self, next: &Self, entries_max: u32) -> bool {
        let Some(extent) = self.extent.joined(next.extent) else { return false };
        let joins = self.mark() == Mark::before(next.first)
            && self.kind == next.kind
            && self.kind != RangeKind::Barrier
            && self.count + next.count <= entries_max;
        if joins {
            (self.count, self.extent) = (self.count + next.count, extent);
        }
        joins
    }

    /// The first `count` entries, and the others, of which there is one at least. The entries are
    /// in the in-flight ring.
    pub(crate) fn split(
        self,
        count: u32,
        in_flight: &InFlightRing,
    ) -> Result<(Self, Self), Poison> {
        let first = self.first + u64::from(count);
        let (extent, rest) = in_flight.split(self.extent, first)?;
        let others = Self { first, count: self.count - count, extent: rest, ..self };
        Ok((Self { count, extent, ..self }, others))
    }
}

/// Removes the entries from `first_removed` on. The indexes of `ranges` rise.
pub(crate) fn truncate(ranges: &mut VecDeque<IndexRange>, first_removed: u64) {
    while let Some(last) = ranges.back_mut() {
        if last.first >= first_removed {
            ranges.pop_back();
            continue;
        }
        let left = first_removed - last.first;
        last.count = at_most(left, last.count);
        break;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, count: u32) -> IndexRange {
        IndexRange { first, count, extent: Extent::NOWHERE, kind: RangeKind::Entries }
    }

    #[test]
    fn ranges_join_where_one_follows_the_other_and_barriers_stay_alone() {
        let joined = |mut one: IndexRange, next: IndexRange, max| {
            one.join(&next, max).then_some((one.first, one.count))
        };
        assert_eq!(joined(range(1, 2), range(3, 1), 3), Some((1, 3)));
        assert_eq!(joined(range(1, 2), range(3, 2), 3), None, "more than a range may have");
        assert_eq!(joined(range(1, 2), range(4, 1), 9), None, "entry 3 is missing");
        let of = |kind, first| IndexRange { kind, ..range(first, 1) };
        for kind in [RangeKind::Barrier, RangeKind::Unclassified] {
            assert_eq!(joined(range(1, 1), of(kind, 2), 9), None, "{kind:?}");
        }
        assert_eq!(joined(of(RangeKind::Barrier, 1), of(RangeKind::Barrier, 2), 9), None);
        let unclassified = of(RangeKind::Unclassified, 1);
        assert_eq!(joined(unclassified, of(RangeKind::Unclassified, 2), 9), Some((1, 2)));
    }

    #[test]
    fn a_truncation_removes_whole_ranges_and_shortens_the_one_it_cuts() {
        let all: VecDeque<_> = [range(1, 3), range(4, 3), range(9, 1)].into();
        let left = |first_removed| {
            let mut ranges = all.clone();
            truncate(&mut ranges, first_removed);
            ranges.iter().map(|range| (range.first, range.count)).collect::<Vec<_>>()
        };
        assert_eq!(left(10), [(1, 3), (4, 3), (9, 1)]);
        assert_eq!(left(8), [(1, 3), (4, 3)]);
        assert_eq!(left(5), [(1, 3), (4, 1)]);
        assert_eq!(left(4), [(1, 3)]);
        assert_eq!(left(0), []);
    }
}
