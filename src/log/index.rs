//! Where in the log an index is: a sparse mark every 64 KiB of frames, so that reading starts close by.

/// A frame of live entries, and from which index on it is the place to start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    pub(crate) first_index: u64,
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}

/// Marks in the order of the log, which is also that of their indexes: a truncation takes those above it away, and the
/// next frame after it always gets one.
#[derive(Debug, Default)]
pub(crate) struct LogIndex {
    marks: Vec<Mark>,
    truncated: bool,
    /// How often something was truncated: what was read across one may be of both sides.
    truncations: u64,
}

/// Bytes of frames that share a mark.
const MARK_BYTES: u32 = 64 << 10;

impl LogIndex {
    /// A frame of entries was added to the log.
    pub(crate) fn push(&mut self, mark: Mark) {
        let near = self.marks.last().is_some_and(|last| {
            last.segment == mark.segment && mark.offset - last.offset < MARK_BYTES
        });
        if !near || self.truncated {
            self.marks.push(mark);
            self.truncated = false;
        }
    }

    /// Everything from `first_removed` on is gone.
    pub(crate) fn truncate(&mut self, first_removed: u64) {
        while self.marks.last().is_some_and(|last| last.first_index >= first_removed) {
            self.marks.pop();
        }
        self.truncated = true;
        self.truncations += 1;
    }

    /// Nothing that was in the log is any more.
    pub(crate) fn start_over(&mut self) {
        self.marks.clear();
        self.truncated = true;
        self.truncations += 1;
    }

    /// How often something was truncated since the log was opened; starting over counts too.
    pub(crate) fn truncations(&self) -> u64 {
        self.truncations
    }

    /// The log begins at `segment` from now on.
    pub(crate) fn forget_below(&mut self, segment: u32) {
        self.marks.retain(|mark| mark.segment >= segment);
    }

    /// The first index of a log that begins at `segment`, also before [`forget_below`](LogIndex::forget_below) says so.
    pub(crate) fn first(&self, segment: u64) -> Option<u64> {
        let there = self.marks.iter().find(|mark| u64::from(mark.segment) >= segment);
        there.map(|mark| mark.first_index)
    }

    /// Where to start reading for `index`, and the first index that is not to be read from there.
    pub(crate) fn locate(&self, index: u64) -> Option<(Mark, u64)> {
        let after = self.marks.partition_point(|mark| mark.first_index <= index);
        let mark = self.marks.get(after.checked_sub(1)?)?;
        let until = self.marks.get(after).map_or(u64::MAX, |next| next.first_index);
        Some((*mark, until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(first_index: u64, segment: u32, offset: u32) -> Mark {
        Mark { first_index, segment, offset }
    }

    #[test]
    fn an_index_is_found_at_the_last_mark_that_may_hold_it_also_after_truncations() {
        let mut index = LogIndex::default();
        for (first, segment, offset) in [(1, 1, 0), (5, 1, 1000), (9, 1, 70_000), (20, 2, 0)] {
            index.push(mark(first, segment, offset));
        }
        assert_eq!(index.locate(0), None);
        assert_eq!(index.locate(8), Some((mark(1, 1, 0), 9)), "offset 1000 is near its mark");
        assert_eq!(index.locate(19), Some((mark(9, 1, 70_000), 20)));
        assert_eq!(index.locate(99), Some((mark(20, 2, 0), u64::MAX)));
        index.truncate(12);
        index.push(mark(12, 2, 640));
        assert_eq!(index.locate(11), Some((mark(9, 1, 70_000), 12)));
        assert_eq!(index.locate(12), Some((mark(12, 2, 640), u64::MAX)));
        index.truncate(0);
        assert_eq!(index.locate(12), None);
    }
}
