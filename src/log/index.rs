//! A sparse index of the log: a waypoint every 64 KiB of frames, so that a read starts near its
//! index.

use crate::numbers::SegmentNumber;

/// A waypoint: a frame of live entries, and the index from which a read starts there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Waypoint {
    pub(crate) first_index: u64,
    pub(crate) segment: SegmentNumber,
    pub(crate) offset: u32,
}

/// Waypoints in the order of the log, which is also the order of their indexes. A truncation
/// removes the ones above it, and the next frame after it always gets one.
#[derive(Debug, Default)]
pub(crate) struct LogIndex {
    waypoints: Vec<Waypoint>,
    truncated: bool,
    /// Number of truncations. A read across a truncation may have entries from both sides of it.
    truncations: u64,
}

/// Bytes of frames that share a waypoint.
const WAYPOINT_BYTES: u32 = 64 << 10;

impl LogIndex {
    /// Notes that a frame of entries was added to the log.
    pub(crate) fn push(&mut self, waypoint: Waypoint) {
        let near = self.waypoints.last().is_some_and(|last| {
            last.segment == waypoint.segment && waypoint.offset - last.offset < WAYPOINT_BYTES
        });
        if !near || self.truncated {
            self.waypoints.push(waypoint);
            self.truncated = false;
        }
    }

    /// Removes everything from `first_removed` on.
    pub(crate) fn truncate(&mut self, first_removed: u64) {
        while self.waypoints.last().is_some_and(|last| last.first_index >= first_removed) {
            self.waypoints.pop();
        }
        self.truncated = true;
        self.truncations += 1;
    }

    /// Removes everything.
    pub(crate) fn start_over(&mut self) {
        self.waypoints.clear();
        self.truncated = true;
        self.truncations += 1;
    }

    /// Number of truncations since the log was opened; starting over counts too.
    pub(crate) fn truncations(&self) -> u64 {
        self.truncations
    }

    /// Makes the index begin at `segment`.
    pub(crate) fn forget_below(&mut self, segment: SegmentNumber) {
        self.waypoints.retain(|waypoint| waypoint.segment >= segment);
    }

    /// The first index of a log that begins at `segment`, even before
    /// [`forget_below`](LogIndex::forget_below) is called.
    pub(crate) fn first(&self, segment: SegmentNumber) -> Option<u64> {
        let there = self.waypoints.iter().find(|waypoint| waypoint.segment >= segment);
        there.map(|waypoint| waypoint.first_index)
    }

    /// The waypoint from which to read `index`, and the first index that is not to be read from
    /// there.
    pub(crate) fn locate(&self, index: u64) -> Option<(Waypoint, u64)> {
        let after = self.waypoints.partition_point(|waypoint| waypoint.first_index <= index);
        let waypoint = self.waypoints.get(after.checked_sub(1)?)?;
        let until = self.waypoints.get(after).map_or(u64::MAX, |next| next.first_index);
        Some((*waypoint, until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waypoint(first_index: u64, segment: u32, offset: u32) -> Waypoint {
        Waypoint { first_index, segment: SegmentNumber::new(segment), offset }
    }

    #[test]
    fn an_index_is_found_at_the_last_mark_that_may_hold_it_also_after_truncations() {
        let mut index = LogIndex::default();
        for (first, segment, offset) in [(1, 1, 0), (5, 1, 1000), (9, 1, 70_000), (20, 2, 0)] {
            index.push(waypoint(first, segment, offset));
        }
        assert_eq!(index.locate(0), None);
        assert_eq!(
            index.locate(8),
            Some((waypoint(1, 1, 0), 9)),
            "offset 1000 is near its waypoint"
        );
        assert_eq!(index.locate(19), Some((waypoint(9, 1, 70_000), 20)));
        assert_eq!(index.locate(99), Some((waypoint(20, 2, 0), u64::MAX)));
        index.truncate(12);
        index.push(waypoint(12, 2, 640));
        assert_eq!(index.locate(11), Some((waypoint(9, 1, 70_000), 12)));
        assert_eq!(index.locate(12), Some((waypoint(12, 2, 640), u64::MAX)));
        index.truncate(0);
        assert_eq!(index.locate(12), None);
    }
}
