//! Feeding: committed entries go into the workers' rings, in order, as far as there is room.
//!
//! The holder of the appender feeds: a submission, a commit, or a worker that ran dry. Entries that
//! do not fit stay queued, so a commit never waits.

use std::time::Duration;

use crate::apply::pipeline::ring::Rings;
use crate::bytes::at_most;
use crate::codec::{self, PayloadRef};
use crate::error::Poison;
use crate::log::appender::Appender;
use crate::numbers::Mark;
use crate::progress::watermark::Progress;
use crate::ranges::in_flight_ring::InFlightRing;
use crate::ranges::index_range::{IndexRange, RangeKind};
use crate::ranges::partition::Footprint;

/// The inputs of feeding.
pub(crate) struct Feeding<'a, F> {
    pub(crate) progress: &'a Progress,
    pub(crate) rings: &'a Rings,
    pub(crate) in_flight: &'a InFlightRing,
    pub(crate) range_entries_max: u32,
    /// First index for which the in-flight ring has no room.
    pub(crate) in_flight_limit: Mark,
    pub(crate) footprint: F,
}

impl<F: Fn(u64, &PayloadRef<'_>) -> Footprint> Feeding<'_, F> {
    /// Hands over committed entries that fit. Returns whether there were any.
    pub(crate) fn feed(&self, appender: &mut Appender) -> Result<bool, Poison> {
        let limit = self.progress.committed_mark().min(self.in_flight_limit);
        let mut fed = false;
        while let Some(run) = appender.unfed().front().copied() {
            if !limit.covers(run.first) || !self.rings.have_room() {
                break;
            }
            let within = at_most(limit.next() - run.first, u32::MAX);
            let count = run.count.min(within).min(self.range_entries_max);
            let (range, rest) = match run.kind {
                RangeKind::Unclassified => self.classify_run(appender, &run, count)?,
                _ if count == run.count => (run, None),
                _ => {
                    let (range, rest) = run.split(count, self.in_flight)?;
                    (range, Some(rest))
                }
            };
            match (rest, appender.unfed().front_mut()) {
                (Some(rest), Some(front)) => *front = rest,
                _ => drop(appender.unfed().pop_front()),
            }
            self.rings.push(range)?;
            fed = true;
        }
        Ok(fed)
    }

    /// Puts entries into the in-flight ring that were appended long before their commit.
    fn classify_run(
        &self,
        appender: &Appender,
        run: &IndexRange,
        count: u32,
    ) -> Result<(IndexRange, Option<IndexRange>), Poison> {
        let gone = "the segment of an uncommitted entry is gone";
        let undecoded = || Poison::internal("an uncommitted entry does not decode");
        let bytes = appender.table().get(run.extent.segment());
        let bytes = bytes.ok_or_else(|| Poison::internal(gone))?;
        let bytes = bytes.entries(run.extent).map_err(|error| error.poison(gone))?;
        let mut rest = run.extent.over(&bytes).ok_or_else(|| Poison::internal(gone))?;
        let (mut taken, mut kind) = (0, RangeKind::Entries);
        while taken < count && kind == RangeKind::Entries {
            let (payload, len) = codec::decode(rest).map_err(|_| undecoded())?;
            let index = run.first + u64::from(taken);
            let footprint = (self.footprint)(index, &payload);
            if footprint == Footprint::All && taken > 0 {
                // A barrier needs a separate range: it waits for the next one.
                break;
            }
            kind = self.in_flight.classify(index, footprint, rest.offset());
            taken += 1;
            rest = rest.skip(len).ok_or_else(undecoded)?;
        }
        let (extent, rest) = run.extent.split_at(rest.offset()).ok_or_else(undecoded)?;
        let range = IndexRange { count: taken, extent, kind, ..*run };
        let left = run.count - taken;
        let first = range.mark().next();
        Ok((range, (left > 0).then_some(IndexRange { first, count: left, extent: rest, ..*run })))
    }
}

/// Time since when less than a full range has been waiting, if a linger is set.
#[derive(Debug, Default)]
pub(crate) struct Linger {
    since: Option<Duration>,
    /// Mark of the flushed entries, which wait for nothing but room.
    flushed: Mark,
}

impl Linger {
    /// Ends the wait of everything committed up to `mark`, even where there is no room for it now.
    pub(crate) fn flush_to(&mut self, mark: Mark) {
        self.flushed = self.flushed.max(mark);
    }

    /// The mark up to which entries of `from..to` are fed now: they are a full range, were flushed,
    /// or have waited long enough. Returns `None` if they wait. With `whole`, the rest beyond full
    /// ranges also waits.
    pub(crate) fn feeds_to(
        &mut self,
        from: u64,
        to: Mark,
        (full, whole): (u64, bool),
        linger: Duration,
        now: impl Fn() -> Duration,
    ) -> Option<Mark> {
        // A mark behind `from` has no entries that wait.
        let waiting = to.next().saturating_sub(from);
        if !self.is_over(from, to, full, linger, now) {
            return None;
        }
        let over = waiting.checked_rem(full).unwrap_or(0);
        Some(if whole && !self.flushed.covers(from) { Mark::before(to.next() - over) } else { to })
    }

    /// Whether the entries `from..to` are fed now: they are a full range, were flushed, or have
    /// waited long enough.
    fn is_over(
        &mut self,
        from: u64,
        to: Mark,
        full: u64,
        linger: Duration,
        now: impl Fn() -> Duration,
    ) -> bool {
        // A mark behind `from` has no entries that wait.
        let waiting = to.next().saturating_sub(from);
        if linger.is_zero() || waiting >= full || self.flushed.min(to).covers(from) {
            self.since = None;
            return true;
        }
        if waiting == 0 {
            self.since = None;
            return false;
        }
        let now = now();
        let since = *self.since.get_or_insert(now);
        // The clock may have been read on another core; then no time has passed.
        if now.saturating_sub(since) >= linger {
            self.since = None;
            self.flush_to(to);
            return true;
        }
        false
    }
}
