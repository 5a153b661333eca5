//! The report of a run.

use std::io::Write;

use serde::Serialize;

use super::times::Times;
use crate::error::Outcome;
use crate::text::{Maybe, line, size};

/// Every figure of a run; the field names are those of the JSON object.
#[derive(Serialize, Clone, Debug)]
pub(super) struct Report {
    pub(super) machine: &'static str,
    /// Storage that keeps the state on disk.
    pub(super) storage: Option<&'static str>,
    pub(super) dir: Option<String>,
    pub(super) profile: Option<&'static str>,
    pub(super) durability: Option<&'static str>,
    pub(super) io_backend: &'static str,
    pub(super) workers: usize,
    pub(super) workers_pinned: u64,
    pub(super) batch: usize,
    pub(super) pipeline: u64,
    pub(super) keys: u32,
    pub(super) key_bytes: usize,
    pub(super) value_bytes: usize,
    pub(super) entries: u64,
    pub(super) acknowledged: u64,
    pub(super) first_index: u64,
    pub(super) applied_index: Option<u64>,
    pub(super) durable_index: Option<u64>,
    pub(super) seconds: f64,
    pub(super) entries_per_second: f64,
    pub(super) fulls: u64,
    pub(super) ack_p50_us: f64,
    pub(super) ack_p90_us: f64,
    pub(super) ack_p99_us: f64,
    pub(super) ack_p999_us: f64,
    pub(super) ack_max_us: f64,
    pub(super) gets: u64,
    pub(super) gets_per_second: f64,
    pub(super) get_p50_ns: u64,
    pub(super) get_p90_ns: u64,
    pub(super) get_p99_ns: u64,
    pub(super) get_p999_ns: u64,
    pub(super) get_max_ns: u64,
    pub(super) allocations: u64,
    pub(super) allocations_per_entry: f64,
    /// This and the next two figures are of the timed part; the last writes may not be synced yet.
    pub(super) log_writes: u64,
    pub(super) log_syncs: u64,
    pub(super) log_bytes: u64,
    pub(super) disk_bytes: u64,
    pub(super) memory_bytes: usize,
    pub(super) close_ms: f64,
    pub(super) open_ms: f64,
    pub(super) index_after: Option<u64>,
    pub(super) len_before: usize,
    pub(super) len_after: usize,
    pub(super) len_model: usize,
    pub(super) digest_before: String,
    pub(super) digest_after: String,
    pub(super) digest_model: String,
    pub(super) times: Times,
    pub(super) verified: bool,
}

impl Report {
    /// The first figure that differs from its expected value.
    pub(super) fn complaint(&self) -> Option<String> {
        let last = self.first_index.checked_add(self.entries).map(|end| end - 1);
        let differs =
            |what: &str, is: String, must: String| Some(format!("{what} is {is}, must be {must}"));
        let maybe = |index: Option<u64>| Maybe(index).to_string();
        if self.acknowledged != self.entries {
            let (is, must) = (self.acknowledged.to_string(), self.entries.to_string());
            return differs("the number of acknowledged entries", is, must);
        }
        for (what, index) in [
            ("the applied index", self.applied_index),
            ("the index after opening again", self.index_after),
        ] {
            if index != last {
                return differs(what, maybe(index), maybe(last));
            }
        }
        for (what, len) in [
            ("the number of keys", self.len_before),
            ("the number of keys after opening again", self.len_after),
        ] {
            if len != self.len_model {
                return differs(what, len.to_string(), self.len_model.to_string());
            }
        }
        for (what, digest) in [
            ("the digest", &self.digest_before),
            ("the digest after opening again", &self.digest_after),
        ] {
            if *digest != self.digest_model {
                return differs(what, digest.clone(), self.digest_model.clone());
            }
        }
        None
    }

    pub(super) fn print(&self, json: bool, out: &mut dyn Write) -> Outcome {
        if json {
            return line(out, self);
        }
        let pinned = self.workers_pinned;
        let (machine, backend) = (self.machine, self.io_backend);
        match (&self.dir, self.durability) {
            (Some(dir), Some(durability)) => writeln!(
                out,
                "machine       {machine} in {dir}, {backend}, acknowledged on {durability}"
            )?,
            _ => writeln!(out, "machine       {machine}")?,
        }
        if let Some(profile) = self.profile {
            writeln!(out, "profile       {profile}")?;
        }
        writeln!(out, "workers       {} ({pinned} pinned)", self.workers)?;
        writeln!(
            out,
            "workload      {} puts of {} + {} bytes, zipfian over {} keys, submitted {} at a time",
            self.entries, self.key_bytes, self.value_bytes, self.keys, self.batch
        )?;
        writeln!(
            out,
            "throughput    {:.0} entries/s: {} acknowledged in {:.3} s, {} times full",
            self.entries_per_second, self.acknowledged, self.seconds, self.fulls
        )?;
        writeln!(
            out,
            "acknowledged  p50 {:.0} us, p90 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, max {:.0} us",
            self.ack_p50_us, self.ack_p90_us, self.ack_p99_us, self.ack_p999_us, self.ack_max_us
        )?;
        writeln!(
            out,
            "get           p50 {} ns, p90 {} ns, p99 {} ns, p99.9 {} ns, max {} ns; {:.0}/s untimed",
            self.get_p50_ns,
            self.get_p90_ns,
            self.get_p99_ns,
            self.get_p999_ns,
            self.get_max_ns,
            self.gets_per_second
        )?;
        writeln!(
            out,
            "allocations   {:.3} an entry ({} in all), {} of engine memory",
            self.allocations_per_entry,
            self.allocations,
            size(self.memory_bytes as u64)
        )?;
        if self.dir.is_some() {
            writeln!(
                out,
                "log           {} writes, {} syncs, {}; the directory takes {}",
                self.log_writes,
                self.log_syncs,
                size(self.log_bytes),
                size(self.disk_bytes)
            )?;
        }
        self.times.print(out)?;
        writeln!(
            out,
            "indexes       {} to {} (durable {})",
            self.first_index,
            Maybe(self.applied_index),
            Maybe(self.durable_index)
        )?;
        writeln!(out, "close, open   {:.1} ms, {:.1} ms", self.close_ms, self.open_ms)?;
        let verified = if self.verified { "verified" } else { "NOT VERIFIED" };
        Ok(writeln!(out, "{verified}: {} keys, digest {}", self.len_after, self.digest_after)?)
    }
}

/// Rounds to three digits after the point.
pub(crate) fn three_digits(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        Report {
            machine: "persistent",
            storage: None,
            dir: None,
            profile: None,
            durability: None,
            io_backend: "pwrite",
            workers: 1,
            workers_pinned: 0,
            batch: 1,
            pipeline: 1,
            keys: 5,
            key_bytes: 16,
            value_bytes: 1,
            entries: 10,
            acknowledged: 10,
            first_index: 6,
            applied_index: Some(15),
            durable_index: Some(15),
            seconds: 1.0,
            entries_per_second: 10.0,
            fulls: 0,
            ack_p50_us: 1.0,
            ack_p90_us: 1.0,
            ack_p99_us: 1.0,
            ack_p999_us: 1.0,
            ack_max_us: 1.0,
            gets: 1,
            gets_per_second: 1.0,
            get_p50_ns: 1,
            get_p90_ns: 1,
            get_p99_ns: 1,
            get_p999_ns: 1,
            get_max_ns: 1,
            allocations: 0,
            allocations_per_entry: 0.0,
            log_writes: 1,
            log_syncs: 1,
            log_bytes: 1,
            disk_bytes: 1,
            memory_bytes: 1,
            close_ms: 1.0,
            open_ms: 1.0,
            index_after: Some(15),
            len_before: 5,
            len_after: 5,
            len_model: 5,
            digest_before: "d".to_owned(),
            digest_after: "d".to_owned(),
            digest_model: "d".to_owned(),
            times: Times::default(),
            verified: true,
        }
    }

    #[test]
    fn whatever_differs_is_complained_about() {
        assert_eq!(good().complaint(), None);
        type Spoil = fn(&mut Report);
        let bad: [(&str, Spoil); 7] = [
            ("acknowledged", |report| report.acknowledged -= 1),
            ("applied index", |report| report.applied_index = Some(14)),
            ("index after", |report| report.index_after = None),
            ("number of keys", |report| report.len_before += 1),
            ("keys after", |report| report.len_after -= 1),
            ("digest", |report| report.digest_before = "e".to_owned()),
            ("digest after", |report| report.digest_after = "e".to_owned()),
        ];
        for (what, spoil) in bad {
            let mut report = good();
            spoil(&mut report);
            let complaint = report.complaint().unwrap_or_default();
            assert!(complaint.contains(what), "{what}: {complaint}");
        }
    }

    #[test]
    fn half_an_allocation_per_thousand_entries_is_not_rounded_away() {
        assert_eq!(three_digits(0.0005), 0.001);
        assert_eq!(three_digits(0.0004), 0.0);
        assert_eq!(three_digits(2.0), 2.0);
    }
}
