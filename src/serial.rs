//! The shapes in which a report's fields are serialized, where they are not written as they are.
//!
//! An entry is written as its index and its term. Damage that a report has beside its figures is
//! written as text, and a time with its unit in the name.
#![allow(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference to the field"
)]

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::apply::manager::snapshots::SnapshotReport;
use crate::config::CommitMode;
use crate::entry::LogId;
use crate::error::Corrupt;
use crate::inspect::LogBase;
use crate::log::recovery::files::ForeignFiles;
use crate::snapshot::SnapshotKind;
use crate::times::{SizeHistogram, TimeHistogram};

/// Index and term of the last entry, among the fields of the report.
pub(crate) fn last<S: Serializer>(last: &Option<LogId>, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Last {
        last_index: Option<u64>,
        last_term: Option<u64>,
    }
    let (last_index, last_term) = (last.map(|last| last.index), last.map(|last| last.term));
    Last { last_index, last_term }.serialize(to)
}

/// Index and term of the report's entry, among the fields of the report.
pub(crate) fn entry<S: Serializer>(of: &Option<LogId>, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Entry {
        index: Option<u64>,
        term: Option<u64>,
    }
    Entry { index: of.map(|of| of.index), term: of.map(|of| of.term) }.serialize(to)
}

/// The start of a log, among the fields of the report.
pub(crate) fn base<S: Serializer>(base: &LogBase, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Base {
        base_segment: u64,
        base_sequence: u64,
        base_index: Option<u64>,
    }
    let LogBase { segment, sequence, last } = *base;
    let base_index = last.map(|last| last.index);
    Base { base_segment: segment, base_sequence: sequence, base_index }.serialize(to)
}

pub(crate) fn index<S: Serializer>(of: &Option<LogId>, to: S) -> Result<S::Ok, S::Error> {
    of.map(|of| of.index).serialize(to)
}

pub(crate) fn text<T: Display, S: Serializer>(of: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
    of.as_ref().map(ToString::to_string).serialize(to)
}

/// The kind of damage, where the field's name says the file.
pub(crate) fn what<S: Serializer>(damage: &Option<Corrupt>, to: S) -> Result<S::Ok, S::Error> {
    damage.as_ref().map(|damage| damage.what).serialize(to)
}

/// The names of damaged files.
pub(crate) fn files<S: Serializer>(damaged: &[Corrupt], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(damaged.iter().map(|damage| &damage.file))
}

/// The files that are not the engine's; nothing if there are none.
pub(crate) fn if_any<S: Serializer>(foreign: &ForeignFiles, to: S) -> Result<S::Ok, S::Error> {
    (!foreign.is_empty()).then_some(foreign).serialize(to)
}

pub(crate) fn path<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.display().to_string()).serialize(to)
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex<S: Serializer>(id: &[u8; 16], to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{:032x}", u128::from_be_bytes(*id)))
}

pub(crate) fn mode<S: Serializer>(mode: &CommitMode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(match mode {
        CommitMode::OnAppend => "on append",
        CommitMode::ByCommit => "by commit",
    })
}

/// The kind of a directory's state machine.
pub(crate) fn machine<S: Serializer>(
    kind: &Option<SnapshotKind>,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.serialize_str(match kind {
        Some(SnapshotKind::KeyValue) => "key-value",
        Some(SnapshotKind::Blob) => "custom",
        None => "not recorded",
    })
}

pub(crate) fn millis<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    time.as_millis().serialize(to)
}

pub(crate) fn nanos<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    time.as_nanos().serialize(to)
}

/// Index and term of a frame's first entry, among the fields of the frame.
pub(crate) fn first<S: Serializer>(first: &LogId, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct First {
        first_index: u64,
        term: u64,
    }
    First { first_index: first.index, term: first.term }.serialize(to)
}

/// A number of entries; 0 where there is none.
pub(crate) fn number<S: Serializer>(entries: &Option<u32>, to: S) -> Result<S::Ok, S::Error> {
    entries.unwrap_or(0).serialize(to)
}

/// Like [`entry`], for a report that always has one.
pub(crate) fn of<S: Serializer>(of: &LogId, to: S) -> Result<S::Ok, S::Error> {
    entry(&Some(*of), to)
}

/// A compaction's snapshot, among the fields of the compaction, which has the time of both.
pub(crate) fn snapshot<S: Serializer>(of: &SnapshotReport, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Snapshot {
        #[serde(flatten, serialize_with = "entry")]
        log_id: Option<LogId>,
        keys: u64,
        bytes: u64,
    }
    let SnapshotReport { log_id, keys, bytes, .. } = *of;
    Snapshot { log_id, keys, bytes }.serialize(to)
}

impl Serialize for TimeHistogram {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        /// `buckets` has those that are not empty: the bound, which the last one lacks, and the
        /// count.
        #[derive(Serialize)]
        struct Times {
            count: u64,
            sum_ns: u128,
            max_ns: u128,
            buckets: Vec<(Option<u128>, u64)>,
        }
        let nanos = |bound: Duration| bound.as_nanos();
        let buckets = self.buckets().filter(|(_, count)| *count > 0);
        Times {
            count: self.count(),
            sum_ns: nanos(self.sum()),
            max_ns: nanos(self.max()),
            buckets: buckets.map(|(bound, count)| (bound.map(nanos), count)).collect(),
        }
        .serialize(to)
    }
}

impl Serialize for SizeHistogram {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        /// `buckets` as of times.
        #[derive(Serialize)]
        struct Sizes {
            count: u64,
            sum: u64,
            max: u64,
            buckets: Vec<(Option<u64>, u64)>,
        }
        let buckets = self.buckets().filter(|(_, count)| *count > 0).collect();
        Sizes { count: self.count(), sum: self.sum(), max: self.max(), buckets }.serialize(to)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::{Value, json};

    use super::*;
    use crate::config::Durability;
    use crate::error::Poison;
    use crate::inspect::{Finding, Inspection, VerifyReport};
    use crate::log::{Cut, RecoveryReport};
    use crate::{ApplyStats, CompactionReport, LostLog, RepairReport, RestoreReport};

    fn value(report: &impl Serialize) -> Value {
        serde_json::to_value(report).unwrap()
    }

    fn names(report: &impl Serialize) -> Vec<String> {
        value(report).as_object().unwrap().keys().cloned().collect()
    }

    /// Names in the order in which a map keeps them.
    fn sorted(names: &str) -> Vec<&str> {
        let mut names: Vec<_> = names.split_whitespace().collect();
        names.sort_unstable();
        names
    }

    fn damage() -> Corrupt {
        Corrupt { file: "META".to_owned(), offset: 64, index: None, what: "zeros" }
    }

    #[test]
    fn a_report_has_an_entry_by_index_and_term_and_damage_as_text() {
        let foreign = ForeignFiles::default();
        let last = Some(LogId { index: 7, term: 2, ..LogId::default() });
        let unreadable = Some(damage());
        let report =
            RecoveryReport { last, snapshot: last, unreadable, foreign, ..Default::default() };
        let expected = json!({
            "last_index": 7, "last_term": 2, "applied_index": null, "frames": 0, "cut": null,
            "meta_slot_damaged": false, "unreadable": damage().to_string(), "snapshot_index": 7,
            "purged_index": null, "damaged_snapshots": [], "beside_a_writer": false,
            "foreign": null, "directory_lock_refused": null,
        });
        assert_eq!(value(&report), expected);
    }

    #[test]
    fn a_finding_and_a_loss_have_the_place_among_their_fields() {
        let finding = Finding { place: damage(), was_durable: true };
        let place = json!({
            "file": "META", "offset": 64, "index": null, "what": "zeros", "was_durable": true,
        });
        let report = VerifyReport { findings: vec![finding], ..Default::default() };
        assert_eq!(value(&report)["findings"], json!([place]));
        let (segments, indexes) = (Vec::new(), Some((3, 4)));
        let damage = damage();
        let lost = LostLog { damage, bytes: 9, frames: 1, entries: 2, indexes, segments };
        let expected = json!({
            "file": "META", "offset": 64, "index": null, "what": "zeros", "bytes": 9, "frames": 1,
            "entries": 2, "indexes": [3, 4], "segments": [],
        });
        assert_eq!(value(&lost), expected);
    }

    #[test]
    fn a_repair_names_what_is_damaged_and_the_files() {
        let damaged_snapshots = vec![damage()];
        let backup = Some("copies".into());
        let hard = Some(damage());
        let report = RepairReport { hard, damaged_snapshots, backup, ..Default::default() };
        let expected = json!({
            "log": null, "meta_slot": null, "meta": null, "hard": "zeros",
            "damaged_snapshots": ["META"], "last_index": null, "last_term": null,
            "snapshot_index": null, "torn_end": null, "repaired": false, "backup": "copies",
            "backed_up": [],
        });
        assert_eq!(value(&report), expected);
    }

    #[test]
    fn an_inspection_has_the_names_that_the_docs_have() {
        let cut = Cut { file: "a.seg".to_owned(), offset: 1, bytes: 2, indexes: None };
        let found = Inspection { cut: Some(cut), ..Inspection::default() };
        let expected = sorted(
            "meta hard_state_bytes segments obsolete frames last_index last_term committed_index \
             sequence durable_sequence cut snapshots damage beside_a_writer foreign",
        );
        assert_eq!(names(&found), expected);
        let cut = json!({"file": "a.seg", "offset": 1, "bytes": 2, "indexes": null});
        assert_eq!(value(&found)["cut"], cut);
    }

    #[test]
    fn a_snapshot_and_a_compaction_have_their_entry_and_milliseconds() {
        let log_id = LogId { index: 7, term: 2, ..LogId::default() };
        let report = RestoreReport { log_id, keys: 3, bytes: 4 };
        assert_eq!(value(&report), json!({"index": 7, "term": 2, "keys": 3, "bytes": 4}));
        let elapsed = Duration::from_millis(5);
        let snapshot = SnapshotReport { log_id: Some(log_id), keys: 3, bytes: 4, elapsed };
        let expected = json!({"index": 7, "term": 2, "keys": 3, "bytes": 4, "ms": 5});
        assert_eq!(value(&snapshot), expected);
        let elapsed = Duration::from_millis(6);
        let compaction = CompactionReport { snapshot, purged: Some(7), segments: 1, elapsed };
        let expected = json!({
            "index": 7, "term": 2, "keys": 3, "bytes": 4, "purged_index": 7, "segments": 1, "ms": 6,
        });
        assert_eq!(value(&compaction), expected);
    }

    #[test]
    fn statistics_have_the_names_of_their_fields_and_times_in_nanoseconds() {
        let poison = Poison::Panic { index: 3 };
        let stats = ApplyStats {
            waker_longest: Duration::from_micros(2),
            durability: Some(Durability::Periodic(Duration::from_micros(3))),
            poison: Some(poison.clone()),
            ..ApplyStats::default()
        };
        let stats = value(&stats);
        assert_eq!(stats["waker_longest_ns"], 2_000);
        assert_eq!(stats["durability"], json!({"periodic_ns": 3_000}));
        assert_eq!(stats["poison"], poison.to_string());
        for (part, name) in [
            ("latency", "p99_ns"),
            ("log_writer", "durable_sequence"),
            ("compaction", "last_error"),
            ("memory", "in_flight"),
            ("disk", "segment_bytes"),
            ("machine", "cache_hits"),
        ] {
            assert!(stats[part].as_object().unwrap().contains_key(name), "{part}.{name}");
        }
        let recorder = crate::times::TimeRecorder::default();
        recorder.record(Duration::from_micros(3));
        let expected =
            json!({"count": 1, "sum_ns": 3_000, "max_ns": 3_000, "buckets": [[4_000, 1]]});
        assert_eq!(value(&recorder.histogram()), expected);
    }
}
