//! Histograms of times and sizes, with fixed buckets in powers of two.
//!
//! An engine records a group, a range or a call, and never a single entry. A recording is a few
//! loads and stores. Each histogram has one recorder at a time, which holds a lock anyway. Reading
//! takes no lock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Number of buckets: upper bounds 1, 2, 4 and so on up to 2^26, and one bucket for larger values.
const BUCKETS: usize = 28;

const NANOS_PER_MICRO: u64 = 1000;

/// The bucket whose upper bound is the least power of two at or above `value`.
fn bucket_of(value: u64) -> usize {
    // 0 and 1 are in the first bucket.
    let bits = u64::BITS - value.saturating_sub(1).leading_zeros();
    (bits as usize).min(BUCKETS - 1)
}

/// The bucket of a time, and its nanoseconds.
fn bucket_of_time(took: Duration) -> (usize, u64) {
    // A time of more than 584 years counts as 584 years.
    let whole_ns = took.as_secs().saturating_mul(1_000_000_000);
    let took_ns = whole_ns.saturating_add(u64::from(took.subsec_nanos()));
    (bucket_of(took_ns.div_ceil(NANOS_PER_MICRO)), took_ns)
}

/// The greatest value of a bucket; `None` for the last, which has no bound.
fn bound_of(bucket: usize) -> Option<u64> {
    (bucket + 1 < BUCKETS).then(|| 1 << bucket)
}

/// The counts of both kinds of histogram.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    buckets: [u64; BUCKETS],
    sum: u64,
    max: u64,
}

impl Counts {
    fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    fn add(&mut self, other: &Self) {
        for (count, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
        // A sum at its end stays there.
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// The counts recorded after `earlier` was read. The bounds of buckets are `unit` times the
    /// values.
    fn since(&self, earlier: &Self, unit: u64) -> Self {
        let mut since = *self;
        for (count, before) in since.buckets.iter_mut().zip(&earlier.buckets) {
            // A scrape may read a cell before it reads the same cell of the earlier figures.
            *count = count.saturating_sub(*before);
        }
        // As above.
        since.sum = self.sum.saturating_sub(earlier.sum);
        if self.max == earlier.max {
            // The greatest value may have come before `earlier`; of the later values only the
            // bucket is known.
            let greatest = since.buckets.iter().rposition(|count| *count > 0);
            // The last bucket has no bound.
            let bound = greatest.map_or(Some(0), bound_of).unwrap_or(u64::MAX);
            // The last bucket has no bound; the maximum is the bound then.
            since.max = bound.saturating_mul(unit).min(self.max);
        }
        since
    }

    fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        self.buckets.iter().enumerate().map(|(bucket, count)| (bound_of(bucket), *count))
    }

    /// The bound of the bucket that the percentile falls into: `Some(None)` for the last.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among counts"
    )]
    fn percentile(&self, percent: f64) -> Option<Option<u64>> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((count as f64 * percent.clamp(0.0, 100.0) / 100.0).ceil() as u64).max(1);
        let mut seen = 0;
        let reaching = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        Some(bound_of(reaching.unwrap_or(BUCKETS - 1)))
    }
}

/// The counts as their recorder keeps them.
#[derive(Debug, Default)]
struct Cells {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    max: AtomicU64,
}

impl Cells {
    /// Records a value. Two recorders at once would lose counts, so callers hold a lock.
    #[inline]
    fn record(&self, bucket: usize, value: u64) {
        let add = |cell: &AtomicU64, value: u64| {
            // A sum at its end stays there.
            cell.store(cell.load(Ordering::Relaxed).saturating_add(value), Ordering::Relaxed);
        };
        if let Some(count) = self.buckets.get(bucket) {
            add(count, 1);
        }
        add(&self.sum, value);
        if value > self.max.load(Ordering::Relaxed) {
            self.max.store(value, Ordering::Relaxed);
        }
    }

    /// Records a value where several threads may record at once.
    fn record_shared(&self, bucket: usize, value: u64) {
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
        self.max.fetch_max(value, Ordering::Relaxed);
    }

    fn load(&self) -> Counts {
        let mut counts = Counts::default();
        for (count, cell) in counts.buckets.iter_mut().zip(&self.buckets) {
            *count = cell.load(Ordering::Relaxed);
        }
        counts.sum = self.sum.load(Ordering::Relaxed);
        counts.max = self.max.load(Ordering::Relaxed);
        counts
    }
}

/// Durations of one operation since the engine was made: counts in buckets from 1 us to 67 s, the
/// sum, and the longest.
///
/// A histogram only grows, even when [`reset_latency`](crate::ApplyManager::reset_latency) is
/// called. So the difference of two readings covers the time between them. A reading during a
/// recording may have the count and not yet the sum.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeHistogram(Counts);

impl TimeHistogram {
    /// Makes a histogram of one time.
    pub(crate) fn of(took: Duration) -> Self {
        let recorder = TimeRecorder::default();
        recorder.record(took);
        recorder.histogram()
    }

    /// Adds the counts of another histogram.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0);
    }

    /// Number of recorded times.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.count()
    }

    /// Sum of all times.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.0.sum)
    }

    /// The longest time; zero if there is none.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max)
    }

    /// The arithmetic mean; zero if there is none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.0.sum.checked_div(self.count()).unwrap_or(0))
    }

    /// The times recorded since an earlier reading of the same histogram. Its
    /// [`max`](TimeHistogram::max) is the bound of a bucket, unless the longest of all is one of
    /// these.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(self.0.since(&earlier.0, NANOS_PER_MICRO))
    }

    /// Every bucket, in order: the longest time that belongs into it, and the number of times that
    /// are in it and in none before it. The bounds are 1 us, 2 us, 4 us and so on up to 2^26 us;
    /// the last bucket has no bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        self.0.buckets().map(|(bound, count)| (bound.map(Duration::from_micros), count))
    }

    /// A time that at least `percent` of 100 times do not exceed. Above 1 us it is less than twice
    /// the exact one. `None` if nothing was recorded.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let bound = self.0.percentile(percent)?;
        Some(bound.map_or(self.max(), |bound| Duration::from_micros(bound).min(self.max())))
    }
}

impl fmt::Debug for TimeHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("TimeHistogram");
        out.field("count", &self.count()).field("sum", &self.sum()).field("max", &self.max());
        out.finish_non_exhaustive()
    }
}

/// Sizes since the engine was made: counts in buckets from 1 to 2^26, the sum, and the largest. The
/// histogram only grows.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SizeHistogram(Counts);

impl SizeHistogram {
    /// Number of recorded sizes.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.count()
    }

    /// Sum of all sizes.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.sum
    }

    /// The largest size; 0 if there is none.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.0.max
    }

    /// The arithmetic mean; 0.0 if there is none.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a mean")]
    pub fn mean(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            count => self.0.sum as f64 / count as f64,
        }
    }

    /// The sizes recorded since an earlier reading of the same histogram. Its
    /// [`max`](SizeHistogram::max) is the bound of a bucket, unless the largest of all is one of
    /// these.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(self.0.since(&earlier.0, 1))
    }

    /// Every bucket, in order: the largest size that belongs into it, and the number of sizes that
    /// are in it and in none before it. The bounds are 1, 2, 4 and so on up to 2^26; the last
    /// bucket has no bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        self.0.buckets()
    }

    /// A size that at least `percent` of 100 sizes do not exceed, and that is less than twice the
    /// exact one. `None` if nothing was recorded.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Option<u64> {
        let bound = self.0.percentile(percent)?;
        Some(bound.map_or(self.max(), |bound| bound.min(self.max())))
    }
}

impl fmt::Debug for SizeHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("SizeHistogram");
        out.field("count", &self.count()).field("sum", &self.sum()).field("max", &self.max());
        out.finish_non_exhaustive()
    }
}

/// A recorder of times, for one thread at a time.
#[derive(Debug, Default)]
pub(crate) struct TimeRecorder(Cells);

impl TimeRecorder {
    pub(crate) fn record(&self, took: Duration) {
        let (bucket, took_ns) = bucket_of_time(took);
        self.0.record(bucket, took_ns);
    }

    /// Records a time where several threads may record at once, for rare events.
    pub(crate) fn record_shared(&self, took: Duration) {
        let (bucket, took_ns) = bucket_of_time(took);
        self.0.record_shared(bucket, took_ns);
    }

    pub(crate) fn histogram(&self) -> TimeHistogram {
        TimeHistogram(self.0.load())
    }
}

/// A recorder of sizes, for one thread at a time.
#[derive(Debug, Default)]
pub(crate) struct SizeRecorder(Cells);

impl SizeRecorder {
    pub(crate) fn record(&self, size: u64) {
        self.0.record(bucket_of(size), size);
    }

    pub(crate) fn histogram(&self) -> SizeHistogram {
        SizeHistogram(self.0.load())
    }
}

/// Times and sizes of an engine's operations, in [`ApplyStats::times`](crate::ApplyStats::times).
/// Each histogram begins when the engine is made. Histograms of parts that a machine lacks stay
/// empty.
///
/// No histogram costs anything for each entry: clocks are read for a group, a range or a call.
/// Operations so short that reading the clock would show are sampled, as their docs say.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TimeStats {
    /// One write of the log: from the moment the log writer hands a group of frames to the disk
    /// until the system has it. A group that an io_uring writes and syncs in one request counts in
    /// `log_sync` instead, with both.
    pub log_write: TimeHistogram,
    /// One sync of the log, from the end of the write before it until the disk has confirmed. It
    /// has [`LogWriterStats::syncs`](crate::LogWriterStats::syncs) times. A slow disk shows here
    /// first.
    pub log_sync: TimeHistogram,
    /// Entries of a group, which is what one write of the log takes. It has
    /// [`LogWriterStats::groups`](crate::LogWriterStats::groups) sizes; a group may have no entry,
    /// but a truncation.
    pub group_entries: SizeHistogram,
    /// Bytes of a group, with the headers of its frames.
    pub group_bytes: SizeHistogram,
    /// Time from the beginning of a submission until it is durable. Each sync gives one time: that
    /// of the first newly covered entry, which has waited the longest.
    pub submit_to_durable: TimeHistogram,
    /// Time from the beginning of a submission until its last entry is in the state, for every
    /// partition. One submission at a time is timed, and at most one in 64 us. Under
    /// [`CommitMode::ByCommit`](crate::CommitMode::ByCommit) the wait for the commit is included.
    pub submit_to_applied: TimeHistogram,
    /// Time of one worker for its part of a range of up to
    /// [`batch_size`](crate::ApplyConfig::batch_size) entries, also inline. A range of 5 us or more
    /// is timed if the range before was as long; otherwise one range in 64 entries. A slow state
    /// machine shows here first.
    pub apply_range: TimeHistogram,
    /// Writing one snapshot, into the directory or to a sink, also for compactions. One that fails
    /// does not count.
    pub snapshot: TimeHistogram,
    /// One compaction, its snapshot included. One that fails does not count.
    pub compaction: TimeHistogram,
    /// Time that the log writer waited for the file of the next segment, at each change of segment.
    /// The file is made ahead of time, so this is short where the disk keeps up.
    pub segment_wait: TimeHistogram,
    /// One commit of a batch by a machine's storage. With `sync_writes`, and without a log of ours,
    /// it includes the sync.
    pub storage_commit: TimeHistogram,
    /// One sync of such a storage apart from a commit: to flush, to close, or for a waiter.
    pub storage_sync: TimeHistogram,
    /// Opening the directory: reading its newest snapshot, and replaying its log. There is one
    /// time, or none without a log.
    pub recovery: TimeHistogram,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_bucket_takes_what_is_above_the_bound_before_it_up_to_its_own() {
        assert_eq!((bucket_of(0), bucket_of(1)), (0, 0));
        for bucket in 1..BUCKETS - 1 {
            let bound = bound_of(bucket).unwrap();
            assert_eq!(bucket_of(bound), bucket);
            assert_eq!(bucket_of(bound_of(bucket - 1).unwrap() + 1), bucket);
        }
        let last = bound_of(BUCKETS - 2).unwrap();
        assert_eq!((last, bound_of(BUCKETS - 1)), (1 << 26, None));
        assert_eq!((bucket_of(last + 1), bucket_of(u64::MAX)), (BUCKETS - 1, BUCKETS - 1));
    }

    #[test]
    fn a_time_between_two_microseconds_is_in_the_bucket_of_the_longer() {
        let recorder = TimeRecorder::default();
        for nanos in [0, 1, 1000, 1001, 2000, 2001] {
            recorder.record(Duration::from_nanos(nanos));
        }
        let histogram = recorder.histogram();
        let filled: Vec<_> = histogram.buckets().filter(|(_, count)| *count > 0).collect();
        let micros = |micros| Some(Duration::from_micros(micros));
        assert_eq!(filled, [(micros(1), 3), (micros(2), 2), (micros(4), 1)]);
        assert_eq!(histogram.buckets().last(), Some((None, 0)));
        assert_eq!((histogram.count(), histogram.sum().as_nanos()), (6, 6003));
        assert_eq!((histogram.max().as_nanos(), histogram.mean().as_nanos()), (2001, 1000));
    }

    #[test]
    fn a_percentile_is_the_bound_of_its_bucket_and_never_above_the_longest() {
        let recorder = TimeRecorder::default();
        assert_eq!(recorder.histogram().percentile(50.0), None);
        for _ in 0..99 {
            recorder.record(Duration::from_micros(3));
        }
        recorder.record(Duration::from_micros(1_000_000));
        let histogram = recorder.histogram();
        let at = |percent| histogram.percentile(percent).unwrap().as_micros();
        let shown = [at(0.0), at(50.0), at(99.0), at(99.1), at(100.0)];
        assert_eq!(shown, [4, 4, 4, 1_000_000, 1_000_000]);
        recorder.record(Duration::MAX);
        let longest = recorder.histogram().max();
        assert_eq!(longest, Duration::from_nanos(u64::MAX), "more than can be is the most");
    }

    #[test]
    fn beyond_the_last_bound_the_longest_is_all_that_is_known() {
        let recorder = TimeRecorder::default();
        recorder.record(Duration::from_secs(1000));
        assert_eq!(recorder.histogram().percentile(100.0), Some(Duration::from_secs(1000)));
    }

    #[test]
    fn what_several_record_at_once_is_counted_once_each() {
        let recorder = TimeRecorder::default();
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let recorder = &recorder;
                scope.spawn(move || {
                    (0..1000).for_each(|_| recorder.record_shared(Duration::from_micros(thread)));
                });
            }
        });
        let histogram = recorder.histogram();
        assert_eq!((histogram.count(), histogram.sum()), (4000, Duration::from_millis(10)));
        assert_eq!(histogram.max(), Duration::from_micros(4));
    }

    #[test]
    fn sizes_and_sums_of_histograms_add_up() {
        let recorder = SizeRecorder::default();
        [0, 1, 128, 129].into_iter().for_each(|size| recorder.record(size));
        let sizes = recorder.histogram();
        let filled: Vec<_> = sizes.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(Some(1), 2), (Some(128), 1), (Some(256), 1)]);
        assert_eq!((sizes.count(), sizes.sum(), sizes.max(), sizes.mean()), (4, 258, 129, 64.5));
        assert_eq!((sizes.percentile(50.0), sizes.percentile(99.0)), (Some(1), Some(129)));
        let mut all = TimeHistogram::of(Duration::from_micros(7));
        all.add(&TimeHistogram::of(Duration::from_micros(9)));
        assert_eq!(
            (all.count(), all.sum(), all.max()),
            (2, Duration::from_micros(16), Duration::from_micros(9))
        );
    }

    #[test]
    fn the_difference_of_two_readings_is_of_the_time_between_them() {
        let recorder = TimeRecorder::default();
        let recorded = |micros: &[u64]| {
            micros.iter().for_each(|micros| recorder.record(Duration::from_micros(*micros)));
            recorder.histogram()
        };
        let before = recorded(&[5, 500]);
        assert_eq!(before.since(&TimeHistogram::default()), before);
        assert_eq!(before.since(&before), TimeHistogram::default());
        let since = recorded(&[3, 70]).since(&before);
        assert_eq!((since.count(), since.sum()), (2, Duration::from_micros(73)));
        assert_eq!(since.max(), Duration::from_micros(128), "70 is all that its bucket tells");
        let since = recorded(&[900]).since(&before);
        assert_eq!((since.count(), since.max()), (3, Duration::from_micros(900)));
        let sizes = SizeRecorder::default();
        sizes.record(9);
        let before = sizes.histogram();
        sizes.record(5);
        let since = sizes.histogram().since(&before);
        assert_eq!((since.count(), since.sum(), since.max()), (1, 5, 8));
    }

    #[test]
    fn a_histogram_is_one_line_in_a_log_and_has_its_count() {
        let text = format!("{:?}", TimeHistogram::of(Duration::from_micros(7)));
        assert_eq!(
            text,
            "TimeHistogram { count: 1, sum: 7us, max: 7us, .. }".replace("us", "\u{b5}s")
        );
    }
}
