//! Tests of the format, the names, and the table of the documentation.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use prometheus_client::encoding::text as openmetrics;
use sprag::{ApplyConfig, ApplyManager, Entry, Journaled};
use sprag_prometheus::{SpragCollector, described};

use crate::scrape::Scrape;
use crate::{Cached, LONG, memory, persistent, promtool, registry, registry_of, stored, text};

#[test]
fn promtool_accepts_a_scrape() {
    if !promtool::is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (on_disk, in_memory) = (persistent(&dir), memory());
    on_disk.apply(&Entry::put(1, 1, b"k", b"v"), LONG).unwrap();
    let collector = SpragCollector::new();
    collector.add("on \"disk\"\n", on_disk.stats_reader()).unwrap();
    collector.add("in memory", in_memory.stats_reader()).unwrap();
    let scrape = text(&registry(&collector));
    assert_eq!(promtool::complaint(&["check", "metrics"], &scrape), None, "{scrape}");
}

#[test]
fn both_text_formats_have_the_same_samples() {
    let manager = memory();
    let registry = registry_of(&manager);
    let mut other = String::new();
    openmetrics::encode(&mut other, &registry).unwrap();
    assert!(other.ends_with("# EOF\n"));
    // One formatter writes the bound of a bucket as 0.000001, the other as 1e-06.
    let samples = |text: &str| -> BTreeSet<String> {
        let samples = Scrape::parse(text).samples.into_iter().map(|mut sample| {
            if let Some(bound) = sample.labels.get_mut("le") {
                *bound = bound.parse::<f64>().unwrap().to_string();
            }
            format!("{} {:?}", sample.name, sample.labels)
        });
        samples.collect()
    };
    let (one, other) = (samples(&text(&registry)), samples(&other));
    assert!(one.len() > 50, "{one:?}");
    let differ: Vec<_> = one.symmetric_difference(&other).collect();
    assert!(differ.is_empty(), "{differ:?}");
}

/// The label names of all samples that belong to one metric of a scrape.
fn labels_of(scrape: &Scrape, name: &str) -> BTreeSet<String> {
    let of_it = |sample: &&crate::scrape::Sample| {
        let suffix = sample.name.strip_prefix(name);
        suffix.is_some_and(|suffix| ["", "_bucket", "_sum", "_count"].contains(&suffix))
    };
    let samples = scrape.samples.iter().filter(of_it);
    let names = samples.flat_map(|sample| sample.labels.keys().cloned());
    names.filter(|name| name != "engine" && name != "le").collect()
}

#[test]
fn a_scrape_has_the_metrics_of_the_table_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let manager = persistent(&dir);
    let cached = ApplyManager::new(Cached, ApplyConfig::new()).unwrap();
    let collector = SpragCollector::new();
    collector.add("on disk", manager.stats_reader()).unwrap();
    collector.add("cached", cached.stats_reader()).unwrap();
    let stored = stored();
    collector.add("stored", stored.stats_reader()).unwrap();
    let scrape = Scrape::of(&registry(&collector));
    let described = described();
    for metric in &described {
        let name = &metric.name;
        // This metric has a series for each thread that is to be pinned, and there may be none.
        if name == "sprag_thread_pinned" && !scrape.types.contains_key(name) {
            continue;
        }
        let kind = scrape.types.get(name).map(String::as_str);
        assert_eq!(kind, Some(metric.kind), "{name}");
        assert_eq!(scrape.helps[name], metric.help);
        let labels: BTreeSet<_> = metric.labels.iter().map(|label| (*label).to_owned()).collect();
        assert_eq!(labels_of(&scrape, name), labels, "{name}");
    }
    for name in scrape.types.keys() {
        assert!(described.iter().any(|metric| metric.name == *name), "{name} is in no table");
    }
    manager.close(LONG).unwrap();
}

#[test]
fn the_documentation_lists_every_metric_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operating.md");
    let document = fs::read_to_string(path).unwrap();
    let (_, table) = document.split_once("### Every metric").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `sprag_"));
    let listed: Vec<&str> = rows.collect();
    let rows: Vec<String> = described()
        .iter()
        .map(|metric| {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let unit = ["seconds", "bytes", "ratio", "entries"];
            let base = metric.name.trim_end_matches("_total");
            let unit = unit.iter().find(|unit| base.ends_with(*unit)).unwrap_or(&"");
            let (name, kind, help) = (&metric.name, metric.kind, metric.help);
            format!("| `{name}` | {kind} | {unit} | {} | {help} |", labels.join(", "))
        })
        .collect();
    let same = listed == rows;
    assert!(same, "the table of docs/operating.md must be:\n{}", rows.join("\n"));
}

#[test]
fn engines_are_told_apart_and_a_dropped_one_is_left_out() {
    let (one, other) = (memory(), memory());
    let collector = SpragCollector::new();
    collector.add("one", one.stats_reader()).unwrap();
    collector.add("other", other.stats_reader()).unwrap();
    other.apply(&Entry::put(1, 1, b"k", b"v"), LONG).unwrap();
    let registry = registry(&collector);
    let applied = |name| {
        let scrape = Scrape::of(&registry);
        scrape.sum("sprag_applied_entries_total", &[("engine", name)])
    };
    assert_eq!((applied("one"), applied("other")), (Some(0.0), Some(1.0)));
    let error = collector.add("other", one.stats_reader()).unwrap_err();
    assert!(error.to_string().contains("\"other\""), "{error}");
    other.close(LONG).unwrap();
    assert_eq!((applied("one"), applied("other")), (Some(0.0), None));
    collector.add("other", one.stats_reader()).unwrap();
    assert_eq!(applied("other"), Some(0.0));
    assert!(collector.remove("other") && !collector.remove("other"));
    assert_eq!(applied("other"), None);
}

#[test]
fn a_scraped_directory_opens_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let manager = persistent(&dir);
    let registry = registry_of(&manager);
    let before = Scrape::of(&registry);
    assert!(before.sum("sprag_log_segments", &[]).is_some());
    manager.close(LONG).unwrap();
    assert_eq!(Scrape::of(&registry).samples.len(), 0);
    persistent(&dir).close(LONG).unwrap();
}

/// A machine that panics at the first entry.
struct Panics;

impl sprag::StateMachine for Panics {
    #[allow(clippy::panic, reason = "this is what it is for")]
    fn apply(
        &self,
        _: &sprag::EntryRange<'_>,
        _: sprag::Partition,
        _: &mut sprag::Replies<'_>,
    ) -> Result<(), sprag::Fatal> {
        panic!("as it is meant to")
    }
}

#[test]
fn poison_is_shown_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let config = sprag::PersistentConfig::new(dir.path()).segment_bytes(64 << 10);
    let machine = Journaled::open(config, Panics).unwrap();
    let manager = sprag::ApplyManager::new(machine, sprag::ApplyConfig::new()).unwrap();
    let registry = registry_of(&manager);
    let poisoned = |labels: &[_]| Scrape::of(&registry).sum("sprag_poisoned", labels);
    assert_eq!(poisoned(&[]), Some(0.0));
    manager.apply(&Entry::noop(1, 1), LONG).unwrap_err();
    assert_eq!(poisoned(&[]), Some(1.0));
    assert_eq!(poisoned(&[("reason", "panic")]), Some(1.0));
    assert_eq!(poisoned(&[("reason", "io")]), Some(0.0));
}

#[test]
fn what_recovery_cut_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let manager = persistent(&dir);
    for index in 1..=5 {
        manager.apply(&Entry::put(index, 1, b"k", b"v"), LONG).unwrap();
    }
    // Copy the open directory, as a crash leaves it, and tear its last frame.
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let paths = fs::read_dir(copy.path()).unwrap().map(|file| file.unwrap().path());
    let segments = paths.filter(|path| path.extension().is_some_and(|end| end == "seg"));
    let first = &segments.min().unwrap();
    let mut bytes = fs::read(first).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end] ^= 1;
    fs::write(first, bytes).unwrap();
    let torn = persistent(&copy);
    let scrape = Scrape::of(&registry_of(&torn));
    assert!(scrape.sum("sprag_recovery_cut_bytes", &[]).unwrap() > 0.0);
    assert_eq!(scrape.sum("sprag_recovery_index", &[("mark", "last")]), Some(4.0));
    assert_eq!(scrape.sum("sprag_recovery_frames", &[]), Some(4.0));
}
