//! Apply-only records: entries that are applied and are not of the log. An adapter's consensus
//! engine may apply an entry that this log does not hold under that log id, or out of turn. The
//! records keep such entries, so that replay applies them at their place in the order.
//!
//! The log and the state then have separate positions. The state jumps to a record's last entry,
//! and earlier entries of the log that were not applied never are.

use super::appender::{Appender, FRAME_OVERHEAD_BYTES, Plan};
use super::format::FrameKind;
use super::recovery::scan::GoodFrame;
use super::terms::Held;
use crate::codec::{self, Extent};
use crate::entry::{Entry, LogId};
use crate::error::{Poison, SubmitError};
use crate::numbers::{FrameSequence, Mark, SegmentNumber};
use crate::places::table::SegmentTable;
use crate::ranges::index_range::IndexRange;

/// A record as it is found in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    /// Sequence of its frame.
    pub(crate) sequence: FrameSequence,
    /// Segment of its frame.
    pub(crate) segment: SegmentNumber,
    /// Log id of its last entry.
    pub(crate) last: LogId,
    /// Mark of the log's entries that were applied before the record.
    pub(crate) before_mark: Mark,
}

impl Record {
    /// The record in a frame; `None` for a frame of another kind.
    pub(crate) fn of(frame: &GoodFrame<'_>) -> Option<Self> {
        Some(Self {
            sequence: frame.header.opening.sequence,
            segment: frame.segment,
            last: frame.header.last()?,
            before_mark: Mark::of(frame.header.committed),
        })
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark::through(self.last.index)
    }
}

/// A phase of replay, which takes one pass over the log: entries of the log, then consecutive
/// records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Phase {
    /// Entries of the log below this mark are applied.
    pub(crate) committed_mark: Mark,
    /// Frame sequences of the first and last record applied afterwards; none without records.
    pub(crate) records: (FrameSequence, FrameSequence),
}

impl Phase {
    /// All phases, in order. Without records there is one.
    pub(crate) fn all(records: &[Record], committed_mark: Mark) -> Vec<Self> {
        let mut phases: Vec<Self> = Vec::new();
        let mut reached = None;
        for record in records {
            match phases.last_mut() {
                // Nothing of the log was applied between the two. (Records of one call all name the
                // position before the first.)
                Some(phase) if reached >= Some(record.before_mark) => {
                    phase.records.1 = record.sequence;
                }
                _ => phases.push(Self {
                    committed_mark: record.before_mark,
                    records: (record.sequence, record.sequence),
                }),
            }
            reached = Some(record.mark());
        }
        phases.push(Self { committed_mark, records: (FrameSequence::NONE, FrameSequence::NONE) });
        phases
    }
}

impl Appender {
    /// Writes an entry, for which [`Appender::make_room`] has made room, into a separate apply-only
    /// frame. Returns the entry's extent.
    pub(crate) fn append_record(&mut self, entry: &Entry<'_>) -> Result<Extent, Poison> {
        let ruled_out = || Poison::Internal("a record did not fit where room had been made");
        let bytes = self.encoded_len(entry).map_err(|_| ruled_out())?;
        self.open_frame(FrameKind::ApplyOnly, entry.log_id, bytes).ok_or_else(ruled_out)?;
        let extent = self.encode_into_open(entry, bytes).ok_or_else(ruled_out)?;
        self.close_frame();
        Ok(extent)
    }

    /// The last entry of the log at or below `index`; `None` if it is from before what the appender
    /// remembers.
    pub(crate) fn last_held(&self, index: u64) -> Option<LogId> {
        let last = self.position.last?;
        if index >= last.index { Some(last) } else { self.position.terms.last_held(index) }
    }

    /// The content of the log at `index`; `None` beyond its end.
    pub(crate) fn held_at(&self, index: u64) -> Option<Held> {
        self.position.last.filter(|last| index <= last.index)?;
        Some(self.position.terms.held(index))
    }

    /// Whether records may have moved the state past `index`, so that the log's entry there was not
    /// applied.
    pub(crate) fn is_skipped(&self, index: u64) -> bool {
        self.position.skipped.as_ref().is_some_and(|skipped| skipped.contains(&index))
    }

    /// The needs of records for these entries.
    pub(crate) fn plan_records(&self, entries: &[Entry<'_>]) -> Result<Plan, SubmitError> {
        let mut plan = Plan { known: 0, bytes: 0, frames: entries.len() + 1 };
        for entry in entries {
            let index = entry.log_id.index;
            let bytes = self.encoded_len(entry);
            plan.bytes += bytes.map_err(|source| SubmitError::Entry { index, source })?;
        }
        plan.bytes += plan.frames * FRAME_OVERHEAD_BYTES;
        Ok(plan)
    }

    /// Whether no entry of a run is to be applied: in a log with gaps, records may have moved the
    /// state past it.
    pub(crate) fn is_behind(&self, run: &IndexRange) -> bool {
        self.config.contiguity.is_monotone() && self.position.committed_mark.covers(run.first)
    }

    /// Drops the log's entries that `mark` covers from those to be applied.
    pub(crate) fn skip_to(&mut self, mark: Mark) -> Option<()> {
        let before = self.position.committed_mark;
        self.position.skipped.get_or_insert(before.next()..mark.next()).end = mark.next();
        self.note_committed(mark);
        while let Some(front) = self.unfed().front().copied() {
            if !mark.covers(front.first) {
                break;
            }
            self.unfed().pop_front();
            if front.mark() > mark {
                let rest = front.skip_to(mark, self.table())?;
                self.unfed().push_front(rest);
            }
        }
        Some(())
    }
}

impl IndexRange {
    /// The part of the run after `mark`; the mark ends in the run or before it. Returns `None`
    /// if its segment is gone.
    pub(crate) fn skip_to(mut self, mark: Mark, table: &SegmentTable) -> Option<Self> {
        let segment = table.get(self.extent.segment())?;
        // A segment that cannot be read is gone for the caller, which fails.
        let bytes = segment.entries(self.extent).ok()?;
        let mut rest = self.extent.over(&bytes)?;
        while mark.covers(self.first) {
            let (_, len) = codec::decode(rest).ok()?;
            rest = rest.skip(len)?;
            self.first += 1;
            self.count -= 1;
        }
        (_, self.extent) = self.extent.split_at(rest.offset())?;
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sequence: u64, before_mark: u64, last: u64) -> Record {
        Record {
            sequence: FrameSequence::new(sequence),
            segment: SegmentNumber::new(1),
            last: LogId::new(last, 1),
            before_mark: Mark::before(before_mark),
        }
    }

    fn through(first: u64, last: u64) -> (FrameSequence, FrameSequence) {
        (FrameSequence::new(first), FrameSequence::new(last))
    }

    #[test]
    fn a_log_without_records_is_replayed_in_one_step() {
        assert_eq!(
            Phase::all(&[], Mark::before(7)),
            [Phase { committed_mark: Mark::before(7), records: through(0, 0) }]
        );
    }

    #[test]
    fn records_that_follow_each_other_share_a_step_and_others_wait_for_the_log() {
        // The second and third record are of one call.
        let records = [record(3, 2, 4), record(4, 5, 5), record(9, 5, 8), record(12, 11, 20)];
        let expected = [
            Phase { committed_mark: Mark::before(2), records: through(3, 9) },
            Phase { committed_mark: Mark::before(11), records: through(12, 12) },
            Phase { committed_mark: Mark::before(30), records: through(0, 0) },
        ];
        assert_eq!(Phase::all(&records, Mark::before(30)), expected);
    }
}
