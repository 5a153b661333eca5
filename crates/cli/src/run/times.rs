//! Histograms of the time that a run took in each part.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;
use sprag::{SizeHistogram, TimeHistogram, TimeStats};

use super::report::three_digits;
use crate::error::Outcome;

/// The histograms of the timed part of a run, and the duration of the opening before it.
#[derive(Serialize, Clone, Debug, Default)]
pub(super) struct Times {
    log_write: Took,
    log_sync: Took,
    group_entries: Size,
    group_bytes: Size,
    submit_to_durable: Took,
    submit_to_applied: Took,
    apply_range: Took,
    snapshot: Took,
    compaction: Took,
    segment_wait: Took,
    storage_commit: Took,
    storage_sync: Took,
    recovery: Took,
}

/// A histogram in a few figures. Percentiles are bounds of buckets, and less than twice the exact
/// ones.
#[derive(Serialize, Clone, Copy, Debug, Default)]
struct Took {
    count: u64,
    sum_us: f64,
    mean_us: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    max_us: f64,
}

#[derive(Serialize, Clone, Copy, Debug, Default)]
struct Size {
    count: u64,
    sum: u64,
    mean: f64,
    p50: u64,
    p90: u64,
    p99: u64,
    max: u64,
}

impl Took {
    fn of(histogram: &TimeHistogram) -> Self {
        let micros = |time: Duration| three_digits(time.as_secs_f64() * 1e6);
        let at = |percent| micros(histogram.percentile(percent).unwrap_or_default());
        Self {
            count: histogram.count(),
            sum_us: micros(histogram.sum()),
            mean_us: micros(histogram.mean()),
            p50_us: at(50.0),
            p90_us: at(90.0),
            p99_us: at(99.0),
            max_us: micros(histogram.max()),
        }
    }
}

impl Size {
    fn of(histogram: &SizeHistogram) -> Self {
        let at = |percent| histogram.percentile(percent).unwrap_or_default();
        Self {
            count: histogram.count(),
            sum: histogram.sum(),
            mean: three_digits(histogram.mean()),
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            max: histogram.max(),
        }
    }
}

impl Times {
    /// The times between two readings.
    pub(super) fn between(before: &TimeStats, after: &TimeStats) -> Self {
        let took = |of: fn(&TimeStats) -> &TimeHistogram| Took::of(&of(after).since(of(before)));
        let sized = |of: fn(&TimeStats) -> &SizeHistogram| Size::of(&of(after).since(of(before)));
        Self {
            log_write: took(|times| &times.log_write),
            log_sync: took(|times| &times.log_sync),
            group_entries: sized(|times| &times.group_entries),
            group_bytes: sized(|times| &times.group_bytes),
            submit_to_durable: took(|times| &times.submit_to_durable),
            submit_to_applied: took(|times| &times.submit_to_applied),
            apply_range: took(|times| &times.apply_range),
            snapshot: took(|times| &times.snapshot),
            compaction: took(|times| &times.compaction),
            segment_wait: took(|times| &times.segment_wait),
            storage_commit: took(|times| &times.storage_commit),
            storage_sync: took(|times| &times.storage_sync),
            recovery: Took::of(&after.recovery),
        }
    }

    /// Prints a line for each part that has any times.
    pub(super) fn print(&self, out: &mut dyn Write) -> Outcome {
        let times = [
            ("log write", &self.log_write),
            ("log sync", &self.log_sync),
            ("to durable", &self.submit_to_durable),
            ("to applied", &self.submit_to_applied),
            ("apply range", &self.apply_range),
            ("segment wait", &self.segment_wait),
            ("commit", &self.storage_commit),
            ("sync", &self.storage_sync),
            ("snapshot", &self.snapshot),
            ("compaction", &self.compaction),
        ];
        for (name, took) in times.into_iter().filter(|(_, took)| took.count > 0) {
            let Took { count, mean_us, p50_us, p99_us, max_us, .. } = took;
            writeln!(
                out,
                "{name:<13} mean {mean_us:.0} us, p50 {p50_us:.0} us, p99 {p99_us:.0} us, \
                 max {max_us:.0} us, of {count}"
            )?;
        }
        if self.group_entries.count > 0 {
            let (entries, bytes) = (&self.group_entries, &self.group_bytes);
            writeln!(
                out,
                "log group     mean {:.0} entries and {:.0} bytes, at most {} and {}",
                entries.mean, bytes.mean, entries.max, bytes.max
            )?;
        }
        Ok(())
    }
}
