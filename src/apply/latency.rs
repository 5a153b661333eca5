//! How long entries take from submission to acknowledgement: real percentiles, no lock on a hot path.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use histogram::AtomicHistogram;

use crate::clock::Clock;

/// Percentiles of the latency from submission to acknowledgement, in nanoseconds, over the life of the manager.
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
        let Ok(mut head) = self.head.try_lock() else { return };
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
