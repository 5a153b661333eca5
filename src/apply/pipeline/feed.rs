//! Feeding: committed entries go into the workers' rings, in order, as far as there is room.
//!
//! The holder of the appender feeds: a submission, a commit, or a worker that ran dry. Entries that
//! do not fit stay queued, so a commit never waits.

use std::time::Duration;

use crate::apply::desks::log::Appending;
use crate::apply::pipeline::Pipeline;
use crate::apply::pipeline::ring::Rings;
use crate::bytes::at_most;
use crate::codec::{self, PayloadRef};
use crate::contract::machine::StateMachine;
use crate::error::Poison;
use crate::hook::Hook;
use crate::log::appender::Appender;
use crate::numbers::Mark;
use crate::progress::watermark::Progress;
use crate::ranges::in_flight_ring::InFlightRing;
use crate::ranges::index_range::{IndexRange, RangeKind};
use crate::ranges::partition::Footprint;
use crate::sync::atomic::{Ordering, fence};

/// Committed entries to feed, as far as there is room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Feed {
    /// Entries that linger no longer: full ranges, flushed ones, and those that have waited long
    /// enough. During a pause there are none.
    Due,
    /// All, which are flushed by that. During a pause there are none, and they stay flushed.
    All,
    /// All, for the thread that pauses the workers.
    InPause,
}

impl<M: StateMachine> Pipeline<M> {
    /// Hands committed entries to the workers while there is room. The caller holds the appender.
    /// Returns whether there were any.
    pub(crate) fn feed(&self, appending: &mut Appending, which: Feed) -> Result<bool, Poison> {
        if which != Feed::InPause && self.pauses().is_any() {
            return Ok(false);
        }
        let Some(through) = self.fed_through(appending, which) else { return Ok(false) };
        let limit = self.in_flight_limit().min(through);
        let fed = self.hand_over(appending, limit)?;
        if self.progress().committed_mark().min(through) <= limit {
            return Ok(fed);
        }
        // Pairs with the fence in `released`: of a commit and a claim's end, one sees the other.
        fence(Ordering::SeqCst);
        let limit_now = self.in_flight_limit().min(through);
        Ok(limit_now > limit && self.hand_over(appending, limit_now)? || fed)
    }

    /// The mark of the entries that do not linger; `None` if all of them do.
    #[inline]
    fn fed_through(&self, appending: &mut Appending, which: Feed) -> Option<Mark> {
        let committed = || self.progress().committed_mark();
        match which {
            Feed::InPause => Some(Mark::ALL),
            Feed::All => {
                appending.linger.flush_to(committed());
                Some(Mark::ALL)
            }
            Feed::Due => {
                let linger = self.linger();
                if linger.is_zero() {
                    return Some(Mark::ALL);
                }
                let first = appending.appender.unfed().front().map_or(u64::MAX, |run| run.first);
                let full = (self.full_batch(), self.machine().staging(Hook::ENGINE).is_some());
                let now = || self.latency().now();
                appending.linger.feeds_to(first, committed(), full, linger, now)
            }
        }
    }

    /// Hands committed entries below `in_flight_limit` to the workers.
    fn hand_over(&self, appending: &mut Appending, in_flight_limit: Mark) -> Result<bool, Poison> {
        self.guarded(|footprint| {
            let feeding = Feeding {
                progress: self.progress(),
                rings: self.workers().rings(),
                in_flight: self.in_flight().ring(),
                range_entries_max: self.range_entries_max(),
                in_flight_limit,
                footprint,
            };
            feeding.run(&mut appending.appender)
        })
    }
}

/// The inputs of handing over.
struct Feeding<'a, F> {
    progress: &'a Progress,
    rings: &'a Rings,
    in_flight: &'a InFlightRing,
    range_entries_max: u32,
    /// The mark of the indexes that the in-flight ring has room for.
    in_flight_limit: Mark,
    footprint: F,
}

impl<F: Fn(u64, &PayloadRef<'_>) -> Footprint> Feeding<'_, F> {
    /// Hands over committed entries that fit. Returns whether there were any.
    fn run(&self, appender: &mut Appender) -> Result<bool, Poison> {
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
