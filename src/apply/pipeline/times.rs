//! Times of an engine outside of its log: submissions to the state, ranges, snapshots, compactions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::apply::pipeline::latency::Latency;
use crate::contract::staging::Staging;
use crate::error::Fatal;
use crate::numbers::Mark;
use crate::times::{TimeRecorder, TimeStats};

/// Least time between the starts of two timed submissions; one is timed at a time.
const PROBE_INTERVAL_NS: u64 = 64_000;
/// Value that means: no submission is timed. It is above every mark but the greatest, whose
/// submission is never timed.
const NONE: u64 = u64::MAX;
/// Value that means: the timed submission is being recorded.
const CLAIMED: u64 = u64::MAX - 1;

/// Number of entries of a worker's ranges that go untimed after a range that took little time.
const UNTIMED_ENTRIES: u32 = 64;
/// Duration of a range from which the two clock reads are less than a hundredth of it.
const RANGE_SLOW: Duration = Duration::from_micros(5);

/// The histograms of [`TimeStats`] that neither the log nor a worker records.
#[derive(Debug, Default)]
pub(crate) struct EngineTimes {
    probe: Probe,
    submit_to_applied: TimeRecorder,
    /// Recorded by the holder of the turn of snapshots.
    pub(crate) snapshot: TimeRecorder,
    /// Recorded by the holder of the turn of snapshots.
    pub(crate) compaction: TimeRecorder,
    /// Recorded in the worker's post.
    storage_commit: TimeRecorder,
    /// Recorded in the worker's post, and by the holder of the turn to sync.
    storage_sync: TimeRecorder,
}

/// The submission that is being timed.
#[derive(Debug)]
struct Probe {
    /// Mark of its last entry, or [`NONE`], or [`CLAIMED`]. Stored with Release after the other
    /// fields.
    next: AtomicU64,
    began_ns: AtomicU64,
    /// Earliest time of the next timed submission. Accessed by the holder of the appender.
    next_ns: AtomicU64,
}

impl Default for Probe {
    fn default() -> Self {
        let (began_ns, next_ns) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { next: AtomicU64::new(NONE), began_ns, next_ns }
    }
}

impl Latency {
    /// Begins to time the entries up to `mark`, which are about to be handed over, from `began_ns`
    /// on. The caller holds the appender.
    #[inline]
    pub(crate) fn submits(&self, mark: Mark, began_ns: u64) {
        let probe = &self.times.probe;
        if began_ns < probe.next_ns.load(Ordering::Relaxed)
            || probe.next.load(Ordering::Acquire) != NONE
        {
            return;
        }
        // A time beyond 584 years is never reached.
        probe.next_ns.store(began_ns.saturating_add(PROBE_INTERVAL_NS), Ordering::Relaxed);
        probe.began_ns.store(began_ns, Ordering::Relaxed);
        probe.next.store(mark.next(), Ordering::Release);
    }

    /// Ends the timing if entries up to `mark` cover it; the applied mark is about to move. Most
    /// calls cost a load.
    #[inline]
    pub(crate) fn applies(&self, mark: Mark) {
        if mark.next() >= self.times.probe.next.load(Ordering::Relaxed) {
            self.record_applied(mark);
        }
    }

    #[cold]
    fn record_applied(&self, mark: Mark) {
        let EngineTimes { probe, submit_to_applied, .. } = &self.times;
        let timed = probe.next.load(Ordering::Acquire);
        // Of several workers that arrive, one claims the record: there is one recorder at a time.
        if timed > mark.next() || timed >= CLAIMED || !probe.moves(timed, CLAIMED) {
            return;
        }
        let began = Duration::from_nanos(probe.began_ns.load(Ordering::Relaxed));
        submit_to_applied.record(self.since(began));
        probe.next.store(NONE, Ordering::Release);
    }

    /// Commits in the machine's storage, and records the time. The caller has the worker's post.
    pub(in crate::apply) fn commit_storage(&self, staging: &dyn Staging) -> Result<bool, Fatal> {
        let began = self.now();
        let durable = staging.commit()?;
        self.times.storage_commit.record(self.since(began));
        Ok(durable)
    }

    /// Syncs the machine's storage, and records the time.
    pub(in crate::apply) fn sync_storage(&self, staging: &dyn Staging) -> Result<(), Fatal> {
        let began = self.now();
        staging.sync()?;
        self.times.storage_sync.record_shared(self.since(began));
        Ok(())
    }

    /// Forgets a timed submission from `mark` on, which is gone from the log and never applied. The
    /// caller holds the appender.
    pub(in crate::apply) fn forget_submission_from(&self, mark: Mark) {
        let probe = &self.times.probe;
        let timed = probe.next.load(Ordering::Acquire);
        if timed > mark.next() && timed < CLAIMED {
            let _applied_meanwhile = probe.moves(timed, NONE);
        }
    }
}

impl Probe {
    fn moves(&self, from: u64, to: u64) -> bool {
        self.next.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// Choice of the ranges of a worker that are timed.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::apply) struct RangeSampling {
    /// Number of entries until the next timed range.
    untimed_entries: u32,
}

impl RangeSampling {
    /// Whether the next range, of `count` entries, is to be timed.
    #[inline]
    pub(in crate::apply) fn takes(&mut self, count: u32) -> bool {
        // A range may be longer than what is left untimed.
        self.untimed_entries = self.untimed_entries.saturating_sub(count);
        self.untimed_entries == 0
    }

    /// Notes the duration of a timed range.
    pub(in crate::apply) fn timed(&mut self, took: Duration) {
        self.untimed_entries = if took < RANGE_SLOW { UNTIMED_ENTRIES } else { 0 };
    }
}

impl EngineTimes {
    /// Every histogram of these times at this moment.
    pub(in crate::apply) fn histograms(&self) -> TimeStats {
        TimeStats {
            submit_to_applied: self.submit_to_applied.histogram(),
            snapshot: self.snapshot.histogram(),
            compaction: self.compaction.histogram(),
            storage_commit: self.storage_commit.histogram(),
            storage_sync: self.storage_sync.histogram(),
            ..TimeStats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;

    fn latency() -> (Latency, Arc<AtomicU64>) {
        let nanos = Arc::new(AtomicU64::new(0));
        (Latency::new(Clock::Manual(Arc::clone(&nanos)), 64), nanos)
    }

    fn shown(latency: &Latency) -> (u64, u128) {
        let histogram = latency.times.submit_to_applied.histogram();
        (histogram.count(), histogram.sum().as_nanos())
    }

    #[test]
    fn one_submission_at_a_time_is_timed_and_not_more_often_than_the_interval() {
        let (latency, nanos) = latency();
        latency.submits(Mark::before(10), 0);
        latency.submits(Mark::before(20), PROBE_INTERVAL_NS);
        nanos.store(500, Ordering::Relaxed);
        latency.applies(Mark::before(9));
        assert_eq!(shown(&latency), (0, 0));
        latency.applies(Mark::before(10));
        latency.applies(Mark::before(20));
        assert_eq!(shown(&latency), (1, 500), "the second came while the first was on its way");
        latency.submits(Mark::before(30), PROBE_INTERVAL_NS - 1);
        latency.applies(Mark::before(30));
        assert_eq!(shown(&latency), (1, 500), "too soon");
        latency.submits(Mark::before(40), PROBE_INTERVAL_NS);
        nanos.store(PROBE_INTERVAL_NS + 7, Ordering::Relaxed);
        latency.applies(Mark::before(41));
        assert_eq!(shown(&latency), (2, 507));
    }

    #[test]
    fn a_submission_that_was_truncated_is_not_timed_and_the_next_one_is() {
        let (latency, nanos) = latency();
        latency.submits(Mark::before(10), 0);
        latency.truncated(Mark::before(10));
        latency.truncated(Mark::before(5));
        latency.submits(Mark::before(8), PROBE_INTERVAL_NS);
        nanos.store(PROBE_INTERVAL_NS + 3, Ordering::Relaxed);
        latency.applies(Mark::before(8));
        assert_eq!(shown(&latency), (1, 3));
        latency.applies(Mark::ALL);
        assert_eq!(shown(&latency), (1, 3), "the greatest mark is not taken for none");
    }

    #[test]
    fn of_fast_ranges_some_are_timed_and_of_slow_ones_all() {
        let mut sampling = RangeSampling::default();
        let fast = Duration::from_nanos(300);
        let mut timed = Vec::new();
        for range in 0..200 {
            if sampling.takes(1) {
                sampling.timed(fast);
                timed.push(range);
            }
        }
        assert_eq!(timed, [0, 64, 128, 192]);
        assert!((0..10).all(|_| {
            sampling.timed(fast);
            sampling.takes(128)
        }));
        sampling.timed(RANGE_SLOW);
        assert!(sampling.takes(1));
    }
}
