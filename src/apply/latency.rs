//! How long entries take from submission to acknowledgement: real percentiles, no lock on a hot path.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_queue::ArrayQueue;
use histogram::AtomicHistogram;

use crate::clock::Clock;

/// Percentiles of the latency from submission to acknowledgement, in nanoseconds, since the manager was made or
/// [`reset_latency`](crate::ApplyManager::reset_latency) was called. Of more than 4,096 submissions in flight some are not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LatencyStats {
    /// How many entries were measured.
    pub count: u64,
    /// Arithmetic mean.
    pub mean_ns: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90 of 100 took at most this.
    pub p90_ns: u64,
    /// 99 of 100 took at most this.
    pub p99_ns: u64,
    /// 999 of 1,000 took at most this.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// When a submission was made, and which entries it had.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    mark: u64,
    count: u64,
    at_ns: u64,
}

/// Submissions in flight that are measured at once; when there are more, those beyond go unmeasured.
const STAMPS_MAX: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct Latency {
    clock: Clock,
    stamps: ArrayQueue<Stamp>,
    /// The oldest stamp, taken off the queue and not acknowledged yet. Tried, never waited for.
    head: Mutex<Option<Stamp>>,
    /// The highest mark that was noted: whoever takes stamps off does so for those who found the place taken, too.
    acknowledged: AtomicU64,
    histogram: Option<AtomicHistogram>,
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Latency {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            stamps: ArrayQueue::new(STAMPS_MAX),
            head: Mutex::new(None),
            acknowledged: AtomicU64::new(0),
            // 2^6 steps for each doubling: 1.6 % of precision, up to 2^40 ns (18 minutes).
            histogram: AtomicHistogram::new(6, 40).ok(),
            sum_ns: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
        }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.clock.now().as_nanos()).unwrap_or(u64::MAX)
    }

    /// `count` entries up to `mark` were submitted by a call that began at `at_ns`.
    #[inline]
    pub(crate) fn submitted(&self, mark: u64, count: u64, at_ns: u64) {
        // A full queue drops the measurement, never the entry.
        let _unmeasured = self.stamps.push(Stamp { mark, count, at_ns });
    }

    /// Everything up to `mark` is acknowledged.
    pub(crate) fn note(&self, mark: u64) {
        self.acknowledged.fetch_max(mark, Ordering::Relaxed);
        loop {
            // Either we have the place, or whoever has it sees our mark after it.
            fence(Ordering::SeqCst);
            let Ok(head) = self.head.try_lock() else { return };
            let mark = self.acknowledged.load(Ordering::Relaxed);
            self.take(head, mark);
            fence(Ordering::SeqCst);
            if self.acknowledged.load(Ordering::Relaxed) <= mark {
                return;
            }
        }
    }

    /// Everything above `mark` is gone from the log; nobody submits meanwhile. It is never acknowledged, and what takes its
    /// place must not wait for it.
    pub(crate) fn truncated(&self, mark: u64) {
        let kept = |stamp: Stamp| {
            let gone = stamp.mark.saturating_sub(mark);
            let count = stamp.count.saturating_sub(gone);
            (count > 0).then_some(Stamp { mark: stamp.mark - gone, count, ..stamp })
        };
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        *head = head.take().and_then(kept);
        for _ in 0..self.stamps.len() {
            if let Some(stamp) = self.stamps.pop().and_then(kept) {
                let _unmeasured = self.stamps.push(stamp);
            }
        }
    }

    fn take(&self, mut head: MutexGuard<'_, Option<Stamp>>, mark: u64) {
        let mut now_ns = None;
        while let Some(stamp) = head.take().or_else(|| self.stamps.pop()) {
            if stamp.mark > mark {
                *head = Some(stamp);
                break;
            }
            let now_ns = *now_ns.get_or_insert_with(|| self.now_ns());
            self.record(now_ns.saturating_sub(stamp.at_ns), stamp.count);
        }
    }

    fn record(&self, took_ns: u64, count: u64) {
        if let Some(histogram) = &self.histogram {
            let _beyond_range = histogram.add(took_ns.min((1 << 40) - 1), count);
        }
        self.sum_ns.fetch_add(took_ns.saturating_mul(count), Ordering::Relaxed);
        self.max_ns.fetch_max(took_ns, Ordering::Relaxed);
    }

    /// Starts anew. What is acknowledged meanwhile may be counted before or after.
    pub(crate) fn reset(&self) {
        if let Some(histogram) = &self.histogram {
            let _counted_so_far = histogram.drain();
        }
        self.sum_ns.store(0, Ordering::Relaxed);
        self.max_ns.store(0, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> LatencyStats {
        let Some(histogram) = &self.histogram else { return LatencyStats::default() };
        let loaded = histogram.load();
        let count = loaded.as_slice().iter().sum::<u64>();
        if count == 0 {
            return LatencyStats::default();
        }
        let at = |quantile: f64| {
            loaded.quantile_bucket(quantile).ok().flatten().map_or(0, |bucket| bucket.end())
        };
        let max_ns = self.max_ns.load(Ordering::Relaxed);
        LatencyStats {
            count,
            mean_ns: self.sum_ns.load(Ordering::Relaxed) / count,
            p50_ns: at(0.50).min(max_ns),
            p90_ns: at(0.90).min(max_ns),
            p99_ns: at(0.99).min(max_ns),
            p999_ns: at(0.999).min(max_ns),
            max_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn latency() -> (Latency, Arc<AtomicU64>) {
        let nanos = Arc::new(AtomicU64::new(0));
        (Latency::new(Clock::Manual(Arc::clone(&nanos))), nanos)
    }

    #[test]
    fn what_was_truncated_is_not_measured_and_holds_up_nothing() {
        let (latency, nanos) = latency();
        for mark in [11, 21, 31] {
            latency.submitted(mark, 10, 0);
        }
        // The first of them is at the head now.
        latency.note(5);
        latency.truncated(15);
        latency.submitted(16, 1, 0);
        nanos.store(7, Ordering::Relaxed);
        latency.note(16);
        let stats = latency.stats();
        assert_eq!((stats.count, stats.max_ns), (10 + 4 + 1, 7));
    }

    #[test]
    fn a_note_that_finds_the_place_taken_is_made_up_for_by_the_next() {
        let (latency, _nanos) = latency();
        for mark in 1..=3 {
            latency.submitted(mark, 1, 0);
        }
        let head = latency.head.lock();
        latency.note(2);
        drop(head);
        assert_eq!(latency.stats().count, 0);
        // Whoever has the place looks again after it; here it is somebody with less to tell.
        latency.note(1);
        assert_eq!(latency.stats().count, 2);
    }
}
