//! Places of the entries that the log already has, for reading them and for comparing resubmitted
//! entries.
//!
//! Frames that the log writer has completed are found by their headers, from the waypoints of the
//! index on. The appender notes all later frames as spans, and all frames of a memory journal.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Appender, OpenFrame};
use crate::log::format::FrameKind;
use crate::log::index::Waypoint;
use crate::numbers::SegmentNumber;
use crate::places::table::{SegmentBytes, SegmentTable};
use crate::ranges::index_range::{IndexRange, RangeKind, truncate};

/// Most spans that are noted. A log has fewer frames between the appender and the log writer; a
/// memory journal compares with its last frames only.
const SPANS_MAX: usize = 8192 + 64;

/// The spans of closed frames of entries, the newest last. Indexes rise.
#[derive(Debug)]
pub(super) struct Spans(VecDeque<IndexRange>);

impl Spans {
    pub(super) fn new() -> Self {
        Self(VecDeque::with_capacity(SPANS_MAX))
    }

    pub(crate) const fn memory_bytes() -> usize {
        SPANS_MAX * size_of::<IndexRange>()
    }

    /// Notes the newest frame. Forgets frames at the front that are gone or, on disk, complete.
    fn push(&mut self, span: IndexRange, table: &SegmentTable, is_on_disk: bool) {
        while let Some(front) = self.0.front() {
            let is_needed = table.get(front.extent.segment()).is_some_and(|bytes| {
                let end = front.extent.end() as usize;
                !(is_on_disk && bytes.is_complete_to(end))
            });
            let is_over = !is_on_disk && self.0.len() >= SPANS_MAX;
            if is_needed && !is_over {
                break;
            }
            self.0.pop_front();
        }
        self.0.push_back(span);
    }

    /// Removes everything from `first_removed` on.
    pub(super) fn truncate(&mut self, first_removed: u64) {
        truncate(&mut self.0, first_removed);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The places of a run of entries, in the order of their indexes. They stay readable without the
/// appender.
#[derive(Debug, Default)]
pub(crate) struct KnownPlaces {
    /// Waypoints to walk frames from, each with the first index that is not to be read from there.
    pub(crate) waypoints: Vec<(Waypoint, u64)>,
    /// The last requested entry that is in a frame from these waypoints on.
    pub(crate) waypoint_last: Option<u64>,
    /// Frames after these.
    pub(crate) spans: Vec<(IndexRange, Arc<SegmentBytes>)>,
}

impl Appender {
    /// Memory of the notes about frames, in bytes.
    pub(crate) const fn spans_bytes() -> usize {
        Spans::memory_bytes()
    }

    /// The places of the entries of `first..=last`, as far as their bytes still exist. The log
    /// begins at `base_segment`, which the appender may not know yet.
    pub(crate) fn known_places(
        &self,
        base_segment: SegmentNumber,
        first: u64,
        last: u64,
    ) -> KnownPlaces {
        let open = self.open.as_ref().and_then(|open| self.span_of(open));
        let all = || self.spans.0.iter().copied().chain(open);
        let spans_first = all().next().map_or(u64::MAX, |span| span.first);
        let overlaps = |span: &IndexRange| span.first <= last && span.mark().covers(first);
        let held = |span: IndexRange| Some((span, self.table.get(span.extent.segment())?));
        let spans = all().filter(overlaps).filter_map(held).collect();
        let index = &self.position.index;
        let mut waypoints = Vec::new();
        // Without a waypoint, the log has no complete frame to read from.
        let mut next = first.max(index.first(base_segment).unwrap_or(u64::MAX));
        while next <= last
            && let Some((waypoint, until)) = index.locate(next)
            && waypoint.first_index < spans_first
        {
            waypoints.push((waypoint, until.min(spans_first)));
            next = until;
        }
        let before_spans = spans_first.checked_sub(1).and_then(|index| self.last_held(index));
        let waypoint_last = before_spans.map(|log_id| log_id.index.min(last));
        KnownPlaces { waypoints, waypoint_last, spans }
    }

    /// Notes the frame that was closed.
    pub(super) fn note_span(&mut self, open: &OpenFrame) {
        if let Some(span) = self.span_of(open) {
            self.spans.push(span, &self.table, self.to_writer.is_some());
        }
    }

    fn span_of(&self, open: &OpenFrame) -> Option<IndexRange> {
        if open.opening.kind != FrameKind::Entries || open.count == 0 {
            return None;
        }
        let (first, count) = (open.opening.first_index, open.count);
        Some(IndexRange { first, count, extent: self.active.body(), kind: RangeKind::Unclassified })
    }
}
