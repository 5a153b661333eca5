//! The report of a bench of snapshots.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use crate::error::Outcome;
use crate::text::{line, size};

pub(super) use crate::run::report::three_digits;

/// Every figure of the bench; the field names are those of the JSON object. Times are medians over
/// the rounds.
#[derive(Serialize, Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) entries: u32,
    pub(super) value_bytes: usize,
    pub(super) rounds: usize,
    /// A durable snapshot by the engine, while nothing is applied.
    pub(super) snapshot_idle_ms: f64,
    /// Sorting, gathering, writing and syncing the same bytes, and nothing else.
    pub(super) limit_ms: f64,
    pub(super) idle_to_limit: f64,
    /// Longest stop of a worker to copy a shard, in processor time; the field after it has the time
    /// by the clock.
    pub(super) longest_stall_us: f64,
    pub(super) longest_stall_wall_us: f64,
    /// Upper limit of 999 of 1,000 of these stops.
    pub(super) stall_p999_us: f64,
    pub(super) stall_wall_p999_us: f64,
    /// Entries applied a second while a snapshot was taken, divided by those without one; the load
    /// runs at `apply_rate`.
    pub(super) apply_ratio_during: f64,
    pub(super) apply_rate: u64,
    pub(super) snapshot_during_ms: f64,
    /// The same ratio with a load as fast as the engine takes it.
    pub(super) apply_ratio_during_flat_out: f64,
    pub(super) apply_rate_flat_out: f64,
    pub(super) snapshot_during_flat_out_ms: f64,
    /// Opening from the snapshot, in a new process.
    pub(super) open_first_read_ms: f64,
    pub(super) open_complete_ms: f64,
    pub(super) compact_ms: f64,
    pub(super) compact_segments: u64,
    pub(super) load_seconds: f64,
    pub(super) snapshot_bytes: u64,
    pub(super) bytes_per_entry: f64,
    /// Bytes of the tables, divided by the number of keys.
    pub(super) resident_bytes_per_entry: f64,
    /// Anonymous memory of an open, less that of opening an empty directory, divided by the number
    /// of keys.
    pub(super) rss_anon_bytes_per_entry: f64,
}

impl Report {
    pub(super) fn print(&self, json: bool, out: &mut dyn Write) -> Outcome {
        if json {
            return line(out, self);
        }
        let Self { entries, value_bytes, rounds, .. } = self;
        writeln!(
            out,
            "{entries} keys of 16 bytes, values of {value_bytes} bytes, medians of {rounds} rounds"
        )?;
        writeln!(out)?;
        let mut row = |name: &str, figure: String, beside: String| {
            let row = format!("{name:<34}{figure:>14}   {beside}");
            writeln!(out, "{}", row.trim_end())
        };
        let ms = |figure: f64| format!("{figure} ms");
        let us = |figure: f64| format!("{figure} us");
        let percent = |ratio: f64| format!("entries applied meanwhile: {:.0} %", ratio * 100.0);
        let size = |bytes: u64| size(bytes).to_string();
        row(
            "the least that it could take",
            ms(self.limit_ms),
            "sorting, gathering, writing and syncing the same bytes".to_owned(),
        )?;
        row(
            "snapshot, idle",
            ms(self.snapshot_idle_ms),
            format!("{} times the least", self.idle_to_limit),
        )?;
        row(
            "snapshot, under load",
            ms(self.snapshot_during_ms),
            format!(
                "{} entries/s asked for; {}",
                self.apply_rate,
                percent(self.apply_ratio_during)
            ),
        )?;
        row(
            "snapshot, flat out",
            ms(self.snapshot_during_flat_out_ms),
            format!(
                "{} entries/s without it; {}",
                self.apply_rate_flat_out,
                percent(self.apply_ratio_during_flat_out)
            ),
        )?;
        row(
            "longest stop of a worker",
            us(self.longest_stall_us),
            format!("by the clock {}", us(self.longest_stall_wall_us)),
        )?;
        row(
            "99.9 % of its stops, at most",
            us(self.stall_p999_us),
            format!("by the clock {}", us(self.stall_wall_p999_us)),
        )?;
        row("opening, to the first read", ms(self.open_first_read_ms), String::new())?;
        row("opening, to the last key", ms(self.open_complete_ms), String::new())?;
        row(
            "compaction",
            ms(self.compact_ms),
            format!("{} segments given up", self.compact_segments),
        )?;
        row("loading", format!("{} s", self.load_seconds), String::new())?;
        row(
            "the snapshot",
            size(self.snapshot_bytes),
            format!("{} bytes a key", self.bytes_per_entry),
        )?;
        row("the tables", format!("{} bytes", self.resident_bytes_per_entry), "a key".to_owned())?;
        row(
            "memory taken by an open",
            format!("{} bytes", self.rss_anon_bytes_per_entry),
            "a key, more than of an empty directory".to_owned(),
        )?;
        Ok(())
    }
}

pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    // Without a time, there is no median.
    times.get(times.len() / 2).copied().unwrap_or_default()
}

pub(super) fn median_of(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    // Without a figure, there is no median.
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    three_digits(time.as_secs_f64() * 1e3)
}

#[allow(clippy::cast_precision_loss, reason = "a ratio")]
pub(super) fn ratio(of: u64, to: u64) -> f64 {
    of as f64 / to as f64
}
