//! Findings of a pass over a log beside its frames: terms, places of indexes, truncations, and
//! entries that are not applied.

use std::collections::VecDeque;
use std::ops::Range;

use super::replay::Truncations;
use crate::error::OpenError;
use crate::log::apply_only::{Phase, Record};
use crate::log::compact::SegmentStart;
use crate::log::format::FrameKind;
use crate::log::index::{LogIndex, Waypoint};
use crate::log::meta::LogBase;
use crate::log::recovery::scan::GoodFrame;
use crate::log::terms::TermRuns;
use crate::numbers::{Mark, SegmentNumber};
use crate::places::table::SegmentTable;
use crate::ranges::index_range::{IndexRange, RangeKind, truncate};

/// The findings that replay collects.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) starts: Vec<SegmentStart>,
    /// Mark of the log's last entry so far.
    pub(super) mark: Mark,
    pub(super) terms: TermRuns,
    pub(super) index: LogIndex,
    /// Frames of entries that may not be committed: all live frames of a log that commits by
    /// `commit`.
    pub(super) frames: VecDeque<IndexRange>,
    /// The segment of the last frame.
    pub(super) segment: Option<SegmentNumber>,
    /// The apply-only records, in order.
    pub(super) records: Vec<Record>,
    pub(super) truncations: Truncations,
}

impl Tally {
    pub(super) fn at(base: &LogBase) -> Self {
        let mut tally =
            Self { mark: Mark::of(base.last.map(|last| last.index)), ..Self::default() };
        if let Some(last) = base.last {
            tally.terms.push(last);
        }
        tally
    }

    pub(super) fn frame(&mut self, frame: &GoodFrame<'_>) -> Result<(), OpenError> {
        let header = &frame.header;
        let before = self.segment.replace(frame.segment);
        if before.is_some_and(|before| before != frame.segment) {
            self.starts.push(SegmentStart {
                segment: frame.segment,
                sequence: header.opening.sequence.previous(),
                chain: header.previous,
                mark: self.mark,
            });
        }
        if header.opening.kind == FrameKind::ApplyOnly {
            self.records.extend(Record::of(frame));
            return Ok(());
        }
        let before = self.mark.last();
        let first = Mark::before(header.opening.first_index);
        self.mark = header.last().map_or(first, |last| Mark::through(last.index));
        if header.opening.kind == FrameKind::Truncation {
            self.starts.retain(|start| start.mark <= Mark::before(header.opening.first_index));
            self.truncations.push(header.opening.sequence, header.opening.first_index);
            self.truncate(header.opening.first_index);
            return Ok(());
        }
        let first = header.first();
        self.terms.push_after(before.map(|index| first.at(index)), first);
        let extent = frame.extent().ok_or_else(|| OpenError::Config {
            option: "segment_bytes",
            message: format!("segment {} is beyond what can be addressed", frame.segment),
        })?;
        let (segment, offset) = (extent.segment(), extent.frame());
        self.index.push(Waypoint { first_index: header.opening.first_index, segment, offset });
        let run = IndexRange {
            first: header.opening.first_index,
            count: header.count,
            extent,
            kind: RangeKind::Unclassified,
        };
        // Entries that a later header calls committed are not fed again.
        if let Some(committed) = header.committed {
            let committed = Mark::before(committed);
            while self.frames.front().is_some_and(|run| run.mark() <= committed) {
                self.frames.pop_front();
            }
        }
        self.frames.push_back(run);
        Ok(())
    }

    fn truncate(&mut self, first_removed: u64) {
        self.terms.truncate(first_removed);
        self.index.truncate(first_removed);
        truncate(&mut self.frames, first_removed);
    }

    /// The runs above `applied`; the first may start in the middle of a frame.
    pub(super) fn unfed(
        &self,
        applied: Option<u64>,
        table: &SegmentTable,
    ) -> Option<VecDeque<IndexRange>> {
        let mark = Mark::of(applied);
        let above = |run: &&IndexRange| run.mark() > mark;
        let mut unfed: VecDeque<IndexRange> = self.frames.iter().filter(above).copied().collect();
        if let Some(front) = unfed.front_mut() {
            *front = front.skip_to(mark, table)?;
        }
        Some(unfed)
    }

    /// The range from the first record's start to the last one's end: entries of the log in it may
    /// not be applied.
    pub(super) fn skipped(&self) -> Option<Range<u64>> {
        let ranges =
            self.records.iter().map(|record| record.before_mark.next()..record.mark().next());
        ranges.reduce(|all, next| all.start.min(next.start)..all.end.max(next.end))
    }

    /// The phases in which the committed entries are replayed.
    pub(super) fn phases(&self, committed_mark: Mark) -> Vec<Phase> {
        Phase::all(&self.records, committed_mark)
    }
}
