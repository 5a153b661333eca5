//! The appender turns entries, in index order, into frames in the active segment's image.
//!
//! There is one appender, behind a lock that every submission takes. The lock's holder "has the
//! appender's place". No method here waits: what does not fit is refused before any part of it is
//! visible.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::format::{FRAME_HEADER_BYTES as HEADER_BYTES, FrameKind, OpeningHalf};
use super::index::{LogIndex, Waypoint};
use super::meta::LogBase;
use super::queue::{ClosedFrame, LogQueue};
use super::terms::TermRuns;
use crate::bytes::at_most;
use crate::codec::{self, Extent, Limits, PayloadRef};
use crate::config::{BATCH_SIZE_MAX, Contiguity, within};
use crate::entry::{Entry, LogId};
use crate::error::{EntryError, Excess, OpenError, Poison, SubmitError};
use crate::image::{Closing, HALF_HEADER_BYTES, ImageWriter};
use crate::log::pool::ImagePool;
use crate::numbers::{FrameSequence, Mark, SegmentNumber};
use crate::places::spare::SpareHolders;
use crate::places::table::SegmentTable;
use crate::ranges::in_flight_ring::InFlightRing;
use crate::ranges::index_range::{IndexRange, RangeKind, truncate};
use crate::ranges::partition::Footprint;
use crate::sync::tell_under_locks;
use known::Spans;

pub(crate) mod known;
mod segments;

/// Bytes that a frame can cost beside its entries: its header and the padding before it.
pub(super) const FRAME_OVERHEAD_BYTES: usize = HEADER_BYTES + HALF_HEADER_BYTES - 1;
/// Bytes kept free at the end of every segment, so that a full log can still record truncations.
pub(crate) const SEGMENT_SLACK_BYTES: usize = 32 * HEADER_BYTES;

/// Number of segment numbers that a memory journal's images take in turn; it exceeds the number of
/// images.
const MEMORY_SEGMENTS: u32 = 1024;

/// The frame that currently takes entries.
#[derive(Debug)]
struct OpenFrame {
    opening: OpeningHalf,
    count: u32,
    closing: Closing,
    entries_start: usize,
    submitted_ns: Option<u64>,
}

/// The failure of an appender that had made room.
const NO_ROOM: Poison = Poison::Internal("an entry did not fit where room had been made");

/// Entries of one submission by the frames that took them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    /// The extent of a part, and its number of entries; 0 for an unused place.
    parts: [(Extent, u32); Self::MAX],
}

impl Parts {
    /// Most parts of a submission without a queue: one in the open frame, and the others in frames
    /// of their own.
    pub(crate) const MAX: usize = 5;

    pub(crate) const fn new() -> Self {
        Self { parts: [(Extent::NOWHERE, 0); Self::MAX] }
    }

    /// Adds the next entry; `None` if there is no place for another part.
    #[inline]
    fn add(&mut self, extent: Extent) -> Option<()> {
        for (part, count) in &mut self.parts {
            match part.joined(extent) {
                _ if *count == 0 => (*part, *count) = (extent, 1),
                Some(joined) => (*part, *count) = (joined, *count + 1),
                None => continue,
            }
            return Some(());
        }
        None
    }

    /// The parts in order, each with its number of entries.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Extent, u32)> + '_ {
        self.parts.iter().copied().take_while(|(_, count)| *count > 0)
    }
}

/// The needs of a submission, computed before anything is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Number of entries at the front that the log already has, under the same log ids.
    pub(crate) known: usize,
    /// Most bytes that the other entries can take.
    pub(crate) bytes: usize,
    /// Most frames that the other entries can take.
    pub(crate) frames: usize,
}

/// Limits by which the appender cuts the log into frames and ranges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AppenderConfig {
    pub(crate) limits: Limits,
    /// Most entries of a frame.
    pub(crate) frame_entries_max: u32,
    /// Most bytes of entries in a frame with more than one entry.
    pub(crate) frame_bytes_max: usize,
    /// Whether indexes may have gaps.
    pub(crate) contiguity: Contiguity,
}

impl AppenderConfig {
    /// Entries of a frame, by the option `batch_size`, which opening has checked too.
    pub(crate) fn frame_entries(batch_size: usize) -> Result<u32, OpenError> {
        within("batch_size", batch_size, 1, BATCH_SIZE_MAX)?;
        Ok(at_most(batch_size as u64, u32::MAX))
    }
}

/// The position from which a log continues.
#[derive(Debug, Default)]
pub(crate) struct LogPosition {
    pub(crate) incarnation: u64,
    pub(crate) next_sequence: FrameSequence,
    pub(crate) last: Option<LogId>,
    /// The mark of the committed entries.
    pub(crate) committed_mark: Mark,
    pub(crate) terms: TermRuns,
    /// The range from the first apply-only record to the last one; entries of the log in it may not
    /// be applied.
    pub(crate) skipped: Option<Range<u64>>,
    pub(crate) index: LogIndex,
    /// Entries in the log and not in the state: the uncommitted tail.
    pub(crate) unfed: VecDeque<IndexRange>,
}

/// The appender; see the module.
#[derive(Debug)]
pub(crate) struct Appender {
    pub(super) config: AppenderConfig,
    pub(super) position: LogPosition,
    pool: Arc<ImagePool>,
    table: Arc<SegmentTable>,
    active: ImageWriter,
    /// An image taken from the pool for a submission that may need it.
    next: Option<ImageWriter>,
    open: Option<OpenFrame>,
    /// The queue to the log writer; `None` in memory, where frames are not written.
    to_writer: Option<Arc<LogQueue>>,
    /// Images whose entries are all submitted, with the mark from which they are free; used in
    /// memory only.
    retired: VecDeque<(Mark, SegmentNumber)>,
    spares: SpareHolders,
    spans: Spans,
    /// Start of the submission that is being appended, by the engine's clock.
    submitted_ns: u64,
}

impl Appender {
    pub(crate) fn new(
        config: AppenderConfig,
        position: LogPosition,
        pool: Arc<ImagePool>,
        table: Arc<SegmentTable>,
        active: ImageWriter,
        to_writer: Option<Arc<LogQueue>>,
    ) -> Self {
        let mut appender = Self {
            config,
            position,
            pool,
            table,
            active,
            next: None,
            open: None,
            to_writer,
            retired: VecDeque::with_capacity(64),
            spares: SpareHolders::default(),
            spans: Spans::new(),
            submitted_ns: 0,
        };
        appender.show_active();
        appender
    }

    /// The last entry of the log.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.position.last
    }

    /// The log id at `index`; `None` if it is from before what the appender remembers.
    pub(crate) fn log_id(&self, index: u64) -> Option<LogId> {
        self.position.last.filter(|last| index <= last.index)?;
        self.position.terms.log_id(index)
    }

    /// Records the start time of the submission whose entries are appended next.
    pub(crate) fn note_submission(&mut self, began_ns: u64) {
        self.submitted_ns = began_ns;
    }

    /// Records in later frames that entries before `mark` are committed.
    pub(crate) fn note_committed(&mut self, mark: Mark) {
        self.position.committed_mark = mark;
    }

    /// The sparse index: the places of the log's entries.
    pub(crate) fn index(&self) -> &LogIndex {
        &self.position.index
    }

    /// Makes the log begin at `base`.
    pub(crate) fn forget_before(&mut self, base: &LogBase) {
        self.position.index.forget_below(base.segment);
        self.position.terms.forget_below(base.last.map_or(0, |last| last.index));
    }

    /// The entries that wait to be fed to the workers.
    pub(crate) fn unfed(&mut self) -> &mut VecDeque<IndexRange> {
        &mut self.position.unfed
    }

    pub(crate) fn table(&self) -> &SegmentTable {
        &self.table
    }

    /// Checks a submission against the log and the limits, without changing anything.
    pub(crate) fn plan(&self, entries: &[Entry<'_>]) -> Result<Plan, SubmitError> {
        let mut plan = Plan { known: 0, bytes: 0, frames: 0 };
        let mut last = self.position.last;
        let mut frame_room = 0;
        let mut before = None;
        for entry in entries {
            let got = entry.log_id;
            let length = |source| SubmitError::Entry { index: got.index, source };
            // Most entries follow the one before in the same frame, and pass every check below.
            if frame_room > 0
                && got.index < u64::MAX
                && last.is_some_and(|last| last.at(last.index + 1) == got)
            {
                plan.bytes += codec::encoded_len(entry, &self.config.limits).map_err(length)?;
                frame_room -= 1;
                (last, before) = (Some(got), Some(got.index));
                continue;
            }
            // The index u64::MAX was refused before.
            if let Some(expected) = before.map(|index: u64| index.saturating_add(1))
                && got.index != expected
                && !(self.config.contiguity.is_monotone() && got.index > expected)
            {
                return Err(SubmitError::Gap { expected, got: got.index });
            }
            before = Some(got.index);
            let bytes = codec::encoded_len(entry, &self.config.limits).map_err(length)?;
            if plan.bytes == 0 && self.is_known(last, got)? {
                plan.known += 1;
                continue;
            }
            follow(last, got, self.config.contiguity)?;
            frame_room = self.config.frame_entries_max - 1;
            plan.frames += 1;
            plan.bytes += bytes;
            last = Some(got);
        }
        if plan.bytes > 0 {
            // A frame also ends when its bytes are full (two neighbours together exceed the limit),
            // and once at the end of a segment. Each frame has an entry.
            plan.frames += plan.bytes / self.config.frame_bytes_max.max(1) * 2 + 1;
            plan.frames = plan.frames.min(entries.len() - plan.known);
        }
        plan.bytes += plan.frames * FRAME_OVERHEAD_BYTES;
        Ok(plan)
    }

    /// Whether the log has this entry; an error if it has another one at the index.
    #[inline]
    fn is_known(&self, last: Option<LogId>, got: LogId) -> Result<bool, SubmitError> {
        if last.is_none_or(|last| got.index > last.index) {
            return Ok(false);
        }
        match self.position.terms.log_id(got.index) {
            Some(known) if known != got => {
                Err(SubmitError::Conflict { index: got.index, known, got })
            }
            None if self
                .position
                .index
                .first(SegmentNumber::LOWEST)
                .is_some_and(|first| got.index > first) =>
            {
                // The index lies in a gap, which no later entry fills.
                let expected = last.map_or(0, |last| last.index.saturating_add(1));
                Err(SubmitError::Gap { expected, got: got.index })
            }
            _ => Ok(true),
        }
    }

    /// Makes room for all of `plan`, or for none of it, without changing the log.
    pub(crate) fn make_room(
        &mut self,
        plan: &Plan,
        pending: u64,
        applied_mark: Mark,
    ) -> Result<(), SubmitError> {
        if let Some(queue) = &self.to_writer {
            // Two places are kept, for a truncation and for the open frame.
            let limit = queue.frames.capacity().saturating_sub(2);
            if plan.frames > limit {
                let (size, limit) = (plan.frames as u64, limit as u64);
                return Err(SubmitError::TooLarge { what: Excess::Frames, size, limit });
            }
            if plan.frames + queue.frames.len() > limit {
                return Err(SubmitError::Full { pending });
            }
        }
        let needed = plan.bytes + SEGMENT_SLACK_BYTES;
        if needed <= self.active.room() || self.next_fits(needed) {
            return Ok(());
        }
        let largest =
            if self.to_writer.is_some() { self.pool.image_bytes() } else { self.pool.largest() };
        if needed > largest {
            let (size, limit) =
                // Every segment is longer than the slack.
                (plan.bytes as u64, largest.saturating_sub(SEGMENT_SLACK_BYTES) as u64);
            return Err(SubmitError::TooLarge { what: Excess::Bytes, size, limit });
        }
        self.free_retired(applied_mark);
        let number = self.active.image().segment().next();
        if !number.is_possible() && self.to_writer.is_some() {
            let limit = u64::from(SegmentNumber::COUNT_MAX);
            return Err(SubmitError::TooLarge { what: Excess::Segments, size: limit + 1, limit });
        }
        self.next = None;
        // In memory only a few images are in use at a time, and their numbers repeat.
        let number = if self.to_writer.is_some() { number } else { number.modulo(MEMORY_SEGMENTS) };
        self.next = self.pool.begin(number, needed, &[]).unwrap_or_else(|error| {
            tell_under_locks(|| tracing::warn!(%error, "no memory for another segment image"));
            None
        });
        if self.next.is_some() { Ok(()) } else { Err(SubmitError::Full { pending }) }
    }

    /// Encodes entries that [`Appender::plan`] and [`Appender::make_room`] have accepted, and
    /// queues them for the workers. `in_flight_limit` covers the
    /// indexes that the in-flight ring has room for.
    pub(crate) fn append(
        &mut self,
        entries: &[Entry<'_>],
        in_flight: &InFlightRing,
        in_flight_limit: Mark,
        range_entries_max: u32,
        footprint: impl Fn(u64, &PayloadRef<'_>) -> Footprint,
    ) -> Result<(), Poison> {
        let mut run: Option<IndexRange> = None;
        for entry in entries {
            let log_id = entry.log_id;
            let (extent, out) = self.encode_next(entry).ok_or(NO_ROOM)?;
            let mut kind = RangeKind::Unclassified;
            if in_flight_limit.covers(log_id.index) {
                let payload = match PayloadRef::of_given(&entry.payload) {
                    Some(payload) => payload,
                    None => decoded(extent, out)?,
                };
                let footprint = footprint(log_id.index, &payload);
                kind = in_flight.classify(log_id.index, footprint, extent.start());
            }
            let entry_run = IndexRange { first: log_id.index, count: 1, extent, kind };
            // No run crosses this mark, because entries below it will not be applied.
            let is_cut = entry_run.first == self.position.committed_mark.next();
            if is_cut || !run.as_mut().is_some_and(|run| run.join(&entry_run, range_entries_max)) {
                self.queue_run(run.replace(entry_run), range_entries_max);
            }
        }
        self.active.publish();
        self.queue_run(run, range_entries_max);
        self.close_if_wanted();
        Ok(())
    }

    /// Encodes entries as [`Appender::append`] does, and queues nothing: the caller applies them
    /// at once. All have the first one's term and leader, and their slots in `ring`, which get the
    /// offset where each entry ends. Notes in `parts` what each frame took.
    pub(crate) fn append_unqueued(
        &mut self,
        entries: &[Entry<'_>],
        ring: &InFlightRing,
        parts: &mut Parts,
    ) -> Result<(), Poison> {
        for entry in entries {
            let (extent, _) = self.encode_next(entry).ok_or(NO_ROOM)?;
            ring.set_offset(entry.log_id.index, extent.end());
            parts.add(extent).ok_or(NO_ROOM)?;
        }
        self.active.publish();
        self.close_if_wanted();
        Ok(())
    }

    /// Encodes the next entry of the log, into the open frame or a new one. Returns its extent and
    /// its bytes; `None` if no room was made for it.
    #[inline(always)]
    fn encode_next(&mut self, entry: &Entry<'_>) -> Option<(Extent, &[u8])> {
        let log_id = entry.log_id;
        // The plan has refused an entry beyond the limits.
        let bytes = codec::encoded_len(entry, &self.config.limits).ok()?;
        if !self.continues_open_frame(log_id, bytes) {
            self.open_frame(FrameKind::Entries, log_id, bytes)?;
        }
        let open = self.open.as_mut()?;
        let (extent, out) = self.active.reserve_entry(bytes)?;
        codec::encode(entry, out);
        open.count += 1;
        self.position.terms.push_after(self.position.last, log_id);
        self.position.last = Some(log_id);
        Some((extent, out))
    }

    /// Queues a run, and joins it to the last one where possible.
    fn queue_run(&mut self, run: Option<IndexRange>, range_entries_max: u32) {
        let Some(run) = run.filter(|run| !self.is_behind(run)) else { return };
        let last = self.position.unfed.back_mut();
        if !last.is_some_and(|last| last.join(&run, range_entries_max)) {
            self.position.unfed.push_back(run);
        }
    }

    #[inline]
    fn continues_open_frame(&self, log_id: LogId, bytes: usize) -> bool {
        let Some(open) = &self.open else { return false };
        open.opening.term == log_id.term
            && open.opening.leader == log_id.leader
            && open.opening.first_index + u64::from(open.count) == log_id.index
            && open.count < self.config.frame_entries_max
            && self.active.end() - open.entries_start + bytes <= self.config.frame_bytes_max
            && self.active.end() + bytes + SEGMENT_SLACK_BYTES <= self.active.image().capacity()
    }

    /// Opens a frame for entries of `log_id`'s term, in the next segment if this one has no room
    /// for an entry of `bytes`.
    pub(super) fn open_frame(
        &mut self,
        kind: FrameKind,
        log_id: LogId,
        bytes: usize,
    ) -> Option<()> {
        self.close_frame();
        if self.active.room() < HEADER_BYTES + bytes + SEGMENT_SLACK_BYTES {
            self.roll()?;
        }
        self.start_frame(kind, log_id)
    }

    /// Encodes an entry into the frame that was opened for it. Returns the entry's extent.
    pub(super) fn encode_into_open(&mut self, entry: &Entry<'_>, bytes: usize) -> Option<Extent> {
        let open = self.open.as_mut()?;
        let (extent, out) = self.active.reserve_entry(bytes)?;
        codec::encode(entry, out);
        open.count += 1;
        Some(extent)
    }

    /// Checks an entry against the limits, and returns its encoded length.
    pub(super) fn encoded_len(&self, entry: &Entry<'_>) -> Result<usize, EntryError> {
        codec::encoded_len(entry, &self.config.limits)
    }

    fn start_frame(&mut self, kind: FrameKind, log_id: LogId) -> Option<()> {
        let sequence = self.position.next_sequence;
        let opening = OpeningHalf {
            kind,
            first_index: log_id.index,
            term: log_id.term,
            leader: log_id.leader,
            sequence,
            incarnation: self.position.incarnation,
        };
        let (offset, closing) = self.active.open_frame(&opening.to_bytes())?;
        self.position.next_sequence = sequence.next();
        let entries_start = self.active.end();
        if kind == FrameKind::Entries && self.to_writer.is_some() {
            let segment = self.active.image().segment();
            let waypoint = Waypoint { first_index: log_id.index, segment, offset };
            self.position.index.push(waypoint);
        }
        let submitted_ns = (kind == FrameKind::Entries).then_some(self.submitted_ns);
        self.open = Some(OpenFrame { opening, count: 0, closing, entries_start, submitted_ns });
        Some(())
    }

    /// Ends the open frame and gives it to the log writer.
    pub(crate) fn close_frame(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.active.publish();
        self.note_span(&open);
        let Some(queue) = &self.to_writer else { return };
        let mark = Mark::of(self.position.last.map(|last| last.index));
        let frame = ClosedFrame {
            opening: open.opening,
            count: open.count,
            closing: open.closing,
            body: self.active.body(),
            mark,
            committed_mark: self.position.committed_mark,
            submitted_ns: open.submitted_ns,
        };
        queue.push(frame);
    }

    /// Ends the open frame. Returns the sequence of the last frame of the log.
    pub(crate) fn close_and_last_sequence(&mut self) -> FrameSequence {
        self.close_frame();
        self.position.next_sequence.previous()
    }

    /// Sequence of the frame that took the last entry.
    pub(crate) fn last_sequence(&self) -> FrameSequence {
        self.position.next_sequence.previous()
    }

    /// Ends the open frame if the log writer waits for it.
    pub(crate) fn close_if_wanted(&mut self) {
        if let Some(queue) = &self.to_writer
            && queue.close_wanted.load(Ordering::Relaxed)
            && queue.close_wanted.swap(false, Ordering::AcqRel)
        {
            self.close_frame();
        }
    }

    /// Records that everything from `first_removed` on is gone; `None` if there is no room for the
    /// record at the moment. Returns the frame sequence of the record.
    pub(crate) fn truncate(&mut self, first_removed: u64) -> Option<FrameSequence> {
        self.close_frame();
        if self.to_writer.as_ref().is_some_and(|queue| queue.frames.is_full()) {
            return None;
        }
        if self.active.room() < HEADER_BYTES {
            if self.next.is_none() {
                let number = self.active.image().segment().next();
                if !number.is_possible() {
                    return None;
                }
                self.next =
                    // Without memory for an image now, the caller finds the log full, and tries
                    // again.
                    self.pool.begin(number, HEADER_BYTES + SEGMENT_SLACK_BYTES, &[]).ok().flatten();
            }
            self.roll()?;
        }
        let kept = first_removed.checked_sub(1).and_then(|index| self.log_id(index));
        let term = self.position.last.unwrap_or_default();
        self.start_frame(FrameKind::Truncation, term.at(first_removed))?;
        let sequence = self.position.next_sequence.previous();
        self.position.last = kept;
        self.position.terms.truncate(first_removed);
        self.position.index.truncate(first_removed);
        self.spans.truncate(first_removed);
        truncate(&mut self.position.unfed, first_removed);
        self.close_frame();
        Some(sequence)
    }
}

/// The payload of an entry that was just encoded.
fn decoded(extent: Extent, encoded: &[u8]) -> Result<PayloadRef<'_>, Poison> {
    let decoded = extent.over(encoded).and_then(|encoded| codec::decode(encoded).ok());
    let undecoded = || Poison::internal("an entry does not decode as encoded");
    decoded.map(|(payload, _)| payload).ok_or_else(undecoded)
}

/// Checks that an entry may follow the last one of the log.
#[inline]
fn follow(last: Option<LogId>, got: LogId, contiguity: Contiguity) -> Result<(), SubmitError> {
    if got.index == u64::MAX {
        return Err(SubmitError::IndexExhausted);
    }
    match last {
        Some(last)
            if got.index != last.index + 1
                && !(contiguity.is_monotone() && got.index > last.index) =>
        {
            Err(SubmitError::Gap { expected: last.index + 1, got: got.index })
        }
        Some(last) if got.term < last.term => {
            Err(SubmitError::TermRegression { index: got.index, last: last.term, got: got.term })
        }
        // This is the first entry of the log: consensus engines start at 0 or at 1.
        None if got.index > 1 && !contiguity.is_monotone() => {
            Err(SubmitError::Gap { expected: 1, got: got.index })
        }
        _ => Ok(()),
    }
}
