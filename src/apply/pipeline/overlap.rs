//! Overlap of applying and syncing: which durable calls leave their entries to the workers.
//!
//! A durable call that waits has two things to do, and neither needs the other: to apply its
//! entries, and to write and sync them. A short range costs less than the wake of a worker, so its
//! caller applies it and then writes. A long range goes to the workers, and the caller writes and
//! syncs meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::apply::pipeline::Pipeline;
use crate::bytes::nanos;
use crate::contract::machine::StateMachine;
use crate::progress::watermark::AckRule;

/// Least expected time of applying a range for which the workers are woken.
///
/// The wake costs the caller some 5 us before its write, and the overlap saves at most the time of
/// applying (`docs/benchmarks.md`).
const OVERLAP_MIN: Duration = Duration::from_micros(15);

/// Expected time of a worker for one entry, from the ranges that it timed.
///
/// It falls fast and rises slowly, and a range counts for twice the expectation at most. So a range
/// in which the system took the worker's core away changes little.
#[derive(Debug, Default)]
pub(in crate::apply) struct EntryTime {
    /// Nanoseconds; 0 before the first timed range. Written in the worker's post.
    expected_ns: AtomicU64,
}

impl EntryTime {
    /// Notes a timed range of `count` entries. The caller has the worker's post.
    pub(in crate::apply) fn note(&self, took: Duration, count: u32) {
        let range_ns = nanos(took) / u64::from(count.max(1));
        let before_ns = self.expected_ns.load(Ordering::Relaxed);
        let expected_ns = match before_ns {
            // The first range finds cold caches: it counts for little.
            0 => range_ns.div_ceil(8),
            _ if range_ns < before_ns => u64::midpoint(before_ns, range_ns),
            // An expectation that saturates is long enough for any decision.
            _ => before_ns.saturating_add((range_ns - before_ns).min(before_ns).div_ceil(8)),
        };
        self.expected_ns.store(expected_ns, Ordering::Relaxed);
    }

    /// Expected time of `count` entries.
    #[inline]
    pub(in crate::apply) fn of(&self, count: u64) -> Duration {
        // A product that saturates is long enough for any decision.
        Duration::from_nanos(self.expected_ns.load(Ordering::Relaxed).saturating_mul(count))
    }
}

impl<M: StateMachine> Pipeline<M> {
    /// Whether the workers should apply the `count` entries of a call that waits, while the caller
    /// writes and syncs them.
    #[inline]
    pub(super) fn overlaps(&self, count: usize) -> bool {
        // Without a log of ours nothing is written here, and without a sync there is no wait that
        // an apply could fill.
        self.log_desk().log().is_some()
            && self.progress().rule() == AckRule::Durable
            && self.workers().expected_time(count as u64) >= OVERLAP_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(time: &EntryTime) -> u128 {
        time.of(1).as_nanos()
    }

    #[test]
    fn the_expected_time_of_an_entry_follows_the_ranges_and_passes_over_a_pause() {
        let time = EntryTime::default();
        assert_eq!(time.of(u64::MAX), Duration::ZERO, "nothing is known yet");
        time.note(Duration::from_nanos(128_000), 16);
        assert_eq!(expected(&time), 1_000, "an eighth of the first");
        time.note(Duration::from_nanos(25_600), 128);
        assert_eq!(expected(&time), 600, "half way to a lower time");
        time.note(Duration::from_millis(10), 1);
        assert_eq!(expected(&time), 675, "a pause counts as twice the expectation");
        (0..100).for_each(|_| time.note(Duration::from_nanos(1), 1));
        assert_eq!(expected(&time), 1);
        (0..200).for_each(|_| time.note(Duration::from_micros(50), 1));
        assert!(expected(&time) > 40_000, "slow entries are believed in the end: {time:?}");
        assert_eq!(time.of(u64::MAX), Duration::from_nanos(u64::MAX));
    }
}
