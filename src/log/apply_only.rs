//! Entries that are applied and not of the log: an adapter's consensus engine may apply what this log does not hold under
//! that log id, or out of turn. A record of their own keeps them, so that they come back at their place in the order.
//!
//! The log and the state then have positions of their own: the state jumps to a record's last entry, and what the log has
//! up to there is never applied.

use super::appender::{Appender, FRAME_OVERHEAD_BYTES, Plan, Run};
use super::format::FrameKind;
use super::image::EntryOffset;
use super::recovery::scan::GoodFrame;
use super::table::{SegmentBytes, SegmentTable};
use super::terms::Held;
use crate::codec;
use crate::entry::{Entry, LogId};
use crate::error::{Poison, SubmitError};

/// One of them, as it is found in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    /// Of its frame.
    pub(crate) sequence: u64,
    /// Of its frame.
    pub(crate) segment: u64,
    /// Its last entry.
    pub(crate) last: LogId,
    /// What of the log was applied before it, as a mark.
    pub(crate) before_mark: u64,
}

impl Record {
    /// The record that a frame is.
    pub(crate) fn of(frame: &GoodFrame<'_>) -> Option<Self> {
        Some(Self {
            sequence: frame.header.opening.sequence,
            segment: frame.segment,
            last: frame.header.last()?,
            before_mark: frame.header.committed.map_or(0, |index| index + 1),
        })
    }

    fn mark(&self) -> u64 {
        self.last.index + 1
    }
}

/// A step of replay, which takes a pass over the log: entries of the log, then records that follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Phase {
    /// Entries of the log up to this mark are applied.
    pub(crate) committed_mark: u64,
    /// Then the records with these frame sequences; 0 and 0 for none.
    pub(crate) records: (u64, u64),
}

impl Phase {
    /// All steps, in order. Without records it is one.
    pub(super) fn all(records: &[Record], committed_mark: u64) -> Vec<Self> {
        let mut phases: Vec<Self> = Vec::new();
        let mut reached = None;
        for record in records {
            match phases.last_mut() {
                // Nothing of the log was applied between the two. (Those of one call all say what was before the first.)
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
        phases.push(Self { committed_mark, records: (0, 0) });
        phases
    }
}

/// Where a record is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordPlace {
    pub(crate) segment: u32,
    pub(crate) start: EntryOffset,
    pub(crate) end: EntryOffset,
}

impl Appender {
    /// Writes an entry, for which [`Appender::make_room`] has made room, into a frame of its own that is not of the log.
    pub(crate) fn append_record(&mut self, entry: &Entry<'_>) -> Result<RecordPlace, Poison> {
        let ruled_out = || Poison::Internal("a record did not fit where room had been made");
        let bytes = self.encoded_len(entry).map_err(|_| ruled_out())?;
        self.open_frame(FrameKind::ApplyOnly, entry.log_id, bytes).ok_or_else(ruled_out)?;
        let (segment, start, end) = self.encode_into_open(entry, bytes).ok_or_else(ruled_out)?;
        self.close_frame();
        Ok(RecordPlace { segment, start, end })
    }

    /// The last entry of the log at or below `index`, as far back as is known.
    pub(crate) fn last_held(&self, index: u64) -> Option<LogId> {
        let last = self.position.last?;
        if index >= last.index { Some(last) } else { self.position.terms.last_held(index) }
    }

    /// What the log has at `index`; `None` beyond its end.
    pub(crate) fn held_at(&self, index: u64) -> Option<Held> {
        self.position.last.filter(|last| index <= last.index)?;
        Some(self.position.terms.held(index))
    }

    /// Whether the state may have come past `index` by records, so that the log's entry there was not applied.
    pub(crate) fn is_skipped(&self, index: u64) -> bool {
        self.position.skipped.as_ref().is_some_and(|skipped| skipped.contains(&index))
    }

    /// What records of these entries need.
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

    /// Whether nothing of a run is to be applied: in a log with gaps the state may be past it, by records.
    pub(super) fn is_behind(&self, run: &Run) -> bool {
        self.config.is_monotone && run.first < self.position.committed_mark
    }

    /// What the log has below `mark` will not be applied.
    pub(crate) fn skip_to(&mut self, mark: u64) -> Option<()> {
        let before = self.position.committed_mark;
        self.position.skipped.get_or_insert(before..mark).end = mark;
        self.note_committed(mark);
        while let Some(front) = self.unfed().front().copied() {
            if front.first >= mark {
                break;
            }
            self.unfed().pop_front();
            if front.first + u64::from(front.count) > mark {
                let rest = front.skip_to(mark, self.table())?;
                self.unfed().push_front(rest);
            }
        }
        Some(())
    }
}

impl Run {
    /// The rest of it from `mark` on, which is in it or before it. `None`: its segment is gone.
    pub(crate) fn skip_to(mut self, mark: u64, table: &SegmentTable) -> Option<Self> {
        let segment = table.get(self.segment)?;
        let bytes = segment.entries(self.start, self.end).ok()?;
        let mut skip = 0;
        while self.first < mark {
            let (_, len) = codec::decode(bytes.get(skip..)?, self.segment, 0).ok()?;
            skip += len;
            self.first += 1;
            self.count -= 1;
        }
        self.start = SegmentBytes::entry_after(self.start, u32::try_from(skip).ok()?);
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sequence: u64, before_mark: u64, last: u64) -> Record {
        Record { sequence, segment: 1, last: LogId::new(last, 1), before_mark }
    }

    #[test]
    fn a_log_without_records_is_replayed_in_one_step() {
        assert_eq!(Phase::all(&[], 7), [Phase { committed_mark: 7, records: (0, 0) }]);
    }

    #[test]
    fn records_that_follow_each_other_share_a_step_and_others_wait_for_the_log() {
        // The second and third are of one call.
        let records = [record(3, 2, 4), record(4, 5, 5), record(9, 5, 8), record(12, 11, 20)];
        let expected = [
            Phase { committed_mark: 2, records: (3, 9) },
            Phase { committed_mark: 11, records: (12, 12) },
            Phase { committed_mark: 30, records: (0, 0) },
        ];
        assert_eq!(Phase::all(&records, 30), expected);
    }
}
