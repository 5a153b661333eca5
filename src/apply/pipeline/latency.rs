//! Latency of entries from submission to acknowledgement: real percentiles, without a lock on a hot
//! path.
//!
//! A submission leaves a stamp in a ring, and an acknowledgement removes the stamps that it covers.
//! The clock is read once for each of the two, never for an entry. Entries that are acknowledged
//! before their submission returns leave no stamp.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use histogram::AtomicHistogram;

use crate::apply::pipeline::times::EngineTimes;
use crate::bytes::nanos;
use crate::clock::Clock;
use crate::numbers::Mark;
use crate::sync::zeroed::zeroed;
use crate::sync::{Mutex, MutexGuard, Rank};

/// Percentiles of the latency from submission to acknowledgement, in nanoseconds. They begin when
/// the manager is made or [`reset_latency`](crate::ApplyManager::reset_latency) is called.
///
/// Each entry counts, with the time of its submission: `count` is the number of acknowledged
/// entries without the `unmeasured` ones.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LatencyStats {
    /// Number of entries that were measured.
    pub count: u64,
    /// Number of entries that were not measured. Under
    /// [`CommitMode::ByCommit`](crate::CommitMode::ByCommit) more submissions than the
    /// [`pipeline_depth`](crate::ApplyConfig::pipeline_depth) can wait for their commit; the ones
    /// beyond it count here. Always 0 under `OnAppend`.
    pub unmeasured: u64,
    /// Arithmetic mean.
    pub mean_ns: u64,
    /// Median.
    pub p50_ns: u64,
    /// Upper limit of 90 of 100 entries.
    pub p90_ns: u64,
    /// Upper limit of 99 of 100 entries.
    pub p99_ns: u64,
    /// Upper limit of 999 of 1,000 entries.
    pub p999_ns: u64,
    /// Maximum.
    pub max_ns: u64,
}

/// Time and entries of a submission.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    /// Mark of its last entry.
    mark: Mark,
    count: u64,
    at_ns: u64,
}

/// A stamp in shared memory: the first index that its mark does not cover, count and time. `tail`
/// and `head` order the accesses. The models of the rest leave these atomics out, so the first is
/// no [`AtomicMark`](crate::numbers::AtomicMark).
type StampCell = [AtomicU64; 3];

/// Least number of stamps that the ring has room for.
const STAMPS_MIN: usize = 64;

/// Stamps in the order of the log, in a ring of fixed size.
struct Stamps {
    cells: Box<[StampCell]>,
    /// Number of stamps ever added. Stored with Release by the holder of the appender, after the
    /// cell.
    tail: CachePadded<AtomicU64>,
    /// Number of stamps ever removed. Stored with Release by the holder of the turn, after it has
    /// read the cell.
    head: CachePadded<AtomicU64>,
}

impl fmt::Debug for Stamps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The cells are left out: there are as many as the pipeline is deep, and the output is for
        // a log line.
        f.debug_struct("Stamps")
            .field("tail", &self.tail)
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

impl Stamps {
    fn new(submissions: usize) -> Self {
        let capacity = submissions.max(STAMPS_MIN).next_power_of_two();
        Self { cells: zeroed(capacity), tail: CachePadded::default(), head: CachePadded::default() }
    }

    #[allow(clippy::cast_possible_truncation, reason = "masked to the ring's length, a usize")]
    fn cell(&self, number: u64) -> &StampCell {
        &self.cells[(number & (self.cells.len() as u64 - 1)) as usize]
    }

    fn store(&self, number: u64, stamp: Stamp) {
        let [next, count, at_ns] = self.cell(number);
        next.store(stamp.mark.next(), Ordering::Relaxed);
        count.store(stamp.count, Ordering::Relaxed);
        at_ns.store(stamp.at_ns, Ordering::Relaxed);
    }

    fn load(&self, number: u64) -> Stamp {
        let [next, count, at_ns] = self.cell(number);
        Stamp {
            mark: Mark::before(next.load(Ordering::Relaxed)),
            count: count.load(Ordering::Relaxed),
            at_ns: at_ns.load(Ordering::Relaxed),
        }
    }

    /// Adds a stamp; returns false if there is no room. The caller holds the appender.
    fn push(&self, stamp: Stamp) -> bool {
        let tail = self.tail.load(Ordering::Relaxed);
        // Acquire: a thread that removes a stamp has read it before its cell is reused.
        if tail - self.head.load(Ordering::Acquire) == self.cells.len() as u64 {
            return false;
        }
        self.store(tail, stamp);
        self.tail.store(tail + 1, Ordering::Release);
        true
    }

    /// Removes and returns the oldest stamp, if `mark` covers it. The caller has the turn.
    fn pop_covered(&self, mark: Mark) -> Option<Stamp> {
        let head = self.head.load(Ordering::Relaxed);
        if head == self.tail.load(Ordering::Acquire) {
            return None;
        }
        let stamp = self.load(head);
        if stamp.mark > mark {
            return None;
        }
        self.head.store(head + 1, Ordering::Release);
        Some(stamp)
    }

    /// Removes stamps above `mark`. The caller has the turn and the appender.
    fn truncate(&self, mark: Mark) {
        let head = self.head.load(Ordering::Relaxed);
        let mut tail = self.tail.load(Ordering::Relaxed);
        while tail > head {
            let stamp = self.load(tail - 1);
            let gone = stamp.mark.since(mark);
            if gone < stamp.count {
                let (mark, count) = (stamp.mark.min(mark), stamp.count - gone);
                self.store(tail - 1, Stamp { mark, count, ..stamp });
                break;
            }
            tail -= 1;
        }
        self.tail.store(tail, Ordering::Release);
    }
}

/// The latency of one engine; see the module.
#[derive(Debug)]
pub(crate) struct Latency {
    clock: Clock,
    stamps: Stamps,
    /// The turn to remove stamps. Threads try it and do not wait for it, except for a submission
    /// that finds the ring full.
    turn: Mutex<()>,
    /// The highest noted mark, up to which the holder of the turn also removes stamps for threads
    /// that found it taken.
    noted: CachePadded<AtomicU64>,
    /// Number of requests to remove stamps. The holder of the turn looks again if the number has
    /// changed meanwhile.
    looks: AtomicU64,
    histogram: Option<AtomicHistogram>,
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
    unmeasured: AtomicU64,
    /// Histograms of other times, by the same clock.
    pub(crate) times: EngineTimes,
}

impl Latency {
    /// Makes room for `submissions` submissions at once.
    pub(crate) fn new(clock: Clock, submissions: usize) -> Self {
        Self {
            clock,
            stamps: Stamps::new(submissions),
            turn: Mutex::new(Rank::LatencyTurn, ()),
            noted: CachePadded::default(),
            looks: AtomicU64::new(0),
            // The histogram has 2^6 steps for each doubling: a precision of 1.6 %, up to 2^40 ns
            // (18 minutes).
            histogram: AtomicHistogram::new(6, 40).ok(),
            sum_ns: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
            unmeasured: AtomicU64::new(0),
            times: EngineTimes::default(),
        }
    }

    /// The current time of the engine.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Time since a moment of the engine's time.
    pub(crate) fn since(&self, began: Duration) -> Duration {
        // The clock may have been read on another core; then no time has passed.
        self.now().saturating_sub(began)
    }

    pub(crate) fn now_ns(&self) -> u64 {
        nanos(self.now())
    }

    /// Bytes of memory that the stamps take.
    pub(crate) fn memory_bytes(&self) -> usize {
        std::mem::size_of_val(&*self.stamps.cells)
    }

    /// Leaves a stamp for `count` entries up to `mark`, submitted by a call that began at `at_ns`,
    /// and not known to be acknowledged. The caller holds the appender, and passes the acknowledged
    /// mark.
    #[inline]
    pub(crate) fn submitted(
        &self,
        mark: Mark,
        count: u64,
        at_ns: u64,
        acknowledged: impl FnOnce() -> Mark,
    ) {
        let stamp = Stamp { mark, count, at_ns };
        if !self.stamps.push(stamp) {
            self.submitted_when_full(stamp, acknowledged());
        }
    }

    /// Makes room in a full ring: acknowledged entries may not have been removed, or even noted,
    /// and now are.
    #[cold]
    fn submitted_when_full(&self, stamp: Stamp, acknowledged: Mark) {
        self.noted.fetch_max(acknowledged.next(), Ordering::Relaxed);
        let turn = self.turn.lock();
        self.take_off(turn);
        if !self.stamps.push(stamp) {
            self.unmeasured.fetch_add(stamp.count, Ordering::Relaxed);
        }
    }

    /// Records `count` acknowledged entries of a call that began at `at_ns` and left no stamp.
    #[inline]
    pub(crate) fn done(&self, count: u64, at_ns: u64) {
        // As in `since`: no time has passed.
        self.record(self.now_ns().saturating_sub(at_ns), count);
    }

    /// Notes that everything up to `mark` is acknowledged. The call costs a load if that was noted
    /// before.
    #[inline]
    pub(crate) fn note(&self, mark: Mark) {
        if mark.next() > self.noted.load(Ordering::Relaxed) {
            self.note_late(mark);
        }
    }

    /// Notes the same for a caller that has left a stamp since `mark` may have been noted.
    pub(crate) fn note_late(&self, mark: Mark) {
        self.noted.fetch_max(mark.next(), Ordering::Relaxed);
        self.looks.fetch_add(1, Ordering::Relaxed);
        loop {
            // Either this thread has the turn, or the holder of the turn sees afterwards that this
            // thread came.
            fence(Ordering::SeqCst);
            let Some(turn) = self.turn.try_lock() else { return };
            let looks = self.looks.load(Ordering::Relaxed);
            self.take_off(turn);
            fence(Ordering::SeqCst);
            if self.looks.load(Ordering::Relaxed) == looks {
                return;
            }
        }
    }

    /// Notes that everything up to `mark` is acknowledged, and has it measured on return, for a
    /// reader of the figures. The thread that moved the mark may not have noted it yet.
    pub(crate) fn settle(&self, mark: Mark) {
        self.noted.fetch_max(mark.next(), Ordering::Relaxed);
        self.take_off(self.turn.lock());
        // Look again for threads that found the turn taken.
        self.note_late(mark);
    }

    /// Removes stamps above `mark`, whose entries are gone from the log. No thread submits
    /// meanwhile. These entries are never acknowledged, and their successors must not wait for
    /// them.
    pub(crate) fn truncated(&self, mark: Mark) {
        let _turn = self.turn.lock();
        self.stamps.truncate(mark);
        self.forget_submission_from(mark);
    }

    fn take_off(&self, _turn: MutexGuard<'_, ()>) {
        let mark = Mark::before(self.noted.load(Ordering::Relaxed));
        let mut now_ns = None;
        while let Some(stamp) = self.stamps.pop_covered(mark) {
            let now_ns = *now_ns.get_or_insert_with(|| self.now_ns());
            // One reading serves all stamps; a stamp may be younger than the reading.
            self.record(now_ns.saturating_sub(stamp.at_ns), stamp.count);
        }
    }

    fn record(&self, took_ns: u64, count: u64) {
        if let Some(histogram) = &self.histogram {
            let _beyond_range = histogram.add(took_ns.min((1 << 40) - 1), count);
        }
        // A sum of more than 584 years counts as 584 years.
        self.sum_ns.fetch_add(took_ns.saturating_mul(count), Ordering::Relaxed);
        // The maximum hardly ever moves, and a load costs less.
        if took_ns > self.max_ns.load(Ordering::Relaxed) {
            self.max_ns.fetch_max(took_ns, Ordering::Relaxed);
        }
    }

    /// Restarts the figures. Entries acknowledged meanwhile may count before or after.
    pub(crate) fn reset(&self) {
        if let Some(histogram) = &self.histogram {
            let _counted_so_far = histogram.drain();
        }
        self.sum_ns.store(0, Ordering::Relaxed);
        self.max_ns.store(0, Ordering::Relaxed);
        self.unmeasured.store(0, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> LatencyStats {
        let unmeasured = self.unmeasured.load(Ordering::Relaxed);
        let nothing = LatencyStats { unmeasured, ..LatencyStats::default() };
        let Some(histogram) = &self.histogram else { return nothing };
        let loaded = histogram.load();
        let count = loaded.as_slice().iter().sum::<u64>();
        if count == 0 {
            return nothing;
        }
        let at = |quantile: f64| {
            // The quantiles are constants from 0 to 1, so there is no error.
            loaded.quantile_bucket(quantile).ok().flatten().map_or(0, |bucket| bucket.end())
        };
        let max_ns = self.max_ns.load(Ordering::Relaxed);
        LatencyStats {
            count,
            unmeasured,
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
        (Latency::new(Clock::Manual(Arc::clone(&nanos)), STAMPS_MIN), nanos)
    }

    #[test]
    fn what_was_truncated_is_not_measured_and_holds_up_nothing() {
        let (latency, nanos) = latency();
        for mark in [11, 21, 31] {
            latency.submitted(Mark::before(mark), 10, 0, || Mark::NONE);
        }
        latency.note(Mark::before(5));
        latency.truncated(Mark::before(15));
        latency.submitted(Mark::before(16), 1, 0, || Mark::NONE);
        nanos.store(7, Ordering::Relaxed);
        latency.note(Mark::before(16));
        let stats = latency.stats();
        assert_eq!((stats.count, stats.max_ns, stats.unmeasured), (10 + 4 + 1, 7, 0));
        latency.submitted(Mark::before(17), 1, 0, || Mark::NONE);
        latency.truncated(Mark::before(16));
        latency.note(Mark::before(17));
        assert_eq!(latency.stats().count, 15, "nothing was left of it");
    }

    #[test]
    fn a_note_that_finds_the_turn_taken_is_made_up_for_by_the_next() {
        let (latency, _nanos) = latency();
        for mark in 1..=3 {
            latency.submitted(Mark::before(mark), 1, 0, || Mark::NONE);
        }
        let turn = latency.turn.lock();
        latency.note(Mark::before(2));
        drop(turn);
        assert_eq!(latency.stats().count, 0);
        // The holder of the turn looks again after it; here that thread has a lower mark.
        latency.note(Mark::before(1));
        assert_eq!(latency.stats().count, 0, "that was known");
        latency.note_late(Mark::before(1));
        assert_eq!(latency.stats().count, 2);
    }

    #[test]
    fn a_stamp_that_comes_after_its_mark_was_noted_waits_for_no_other() {
        let (latency, nanos) = latency();
        latency.note(Mark::before(9));
        latency.submitted(Mark::before(9), 3, 0, || Mark::NONE);
        nanos.store(5, Ordering::Relaxed);
        latency.note_late(Mark::before(9));
        assert_eq!((latency.stats().count, latency.stats().max_ns), (3, 5));
    }

    #[test]
    fn a_full_ring_takes_off_what_is_acknowledged_and_counts_what_it_cannot_measure() {
        let (latency, nanos) = latency();
        let full = STAMPS_MIN as u64;
        for mark in 1..=full {
            latency.submitted(Mark::before(mark), 1, 0, || Mark::NONE);
        }
        nanos.store(4, Ordering::Relaxed);
        // The mark has moved, and the thread that moved it has not noted it yet.
        latency.submitted(Mark::before(full + 1), 1, 0, || Mark::before(1));
        assert_eq!((latency.stats().count, latency.stats().unmeasured), (1, 0));
        latency.submitted(Mark::before(full + 6), 5, 0, || Mark::before(1));
        assert_eq!((latency.stats().count, latency.stats().unmeasured), (1, 5));
        latency.note(Mark::before(full + 6));
        assert_eq!((latency.stats().count, latency.stats().unmeasured), (full + 1, 5));
        latency.reset();
        assert_eq!(latency.stats(), LatencyStats::default());
    }

    #[test]
    fn every_submission_is_measured_once_while_others_note() {
        let (latency, _nanos) = latency();
        let latency = &latency;
        let submitted = &AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while submitted.load(Ordering::Acquire) < 20_000 {
                        latency.note(Mark::before(submitted.load(Ordering::Acquire)));
                    }
                    latency.note_late(Mark::before(20_000));
                });
            }
            for mark in 1..=20_000 {
                latency.submitted(Mark::before(mark), 1, 0, || Mark::before(mark - 1));
                submitted.store(mark, Ordering::Release);
            }
        });
        assert_eq!((latency.stats().count, latency.stats().unmeasured), (20_000, 0));
    }
}
