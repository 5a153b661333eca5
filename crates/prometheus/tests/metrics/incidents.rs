//! Tests that play incidents on engines and record them by scrapes. Only the alert that names the
//! cause may fire.
//!
//! Each scrape counts as a sample of every 15 seconds, so seconds of an incident are minutes of the
//! rules. The rules compare times and counts only by their ratio, or check whether they move, so
//! the scale does not matter to them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use sprag::error::SubmitError;
use sprag::testing::SimDisk;
use sprag::{
    ApplyConfig, ApplyManager, Entry, EntryRange, Fatal, Journaled, Partition, PersistentConfig,
    PersistentStateMachine, Replies, StateMachine,
};

use crate::acting_disk::ActingDisk;
use crate::scrape::Scrape;
use crate::{LONG, promtool, registry_of};

/// Number of scrapes of an incident: 15 minutes of the rules.
const SCRAPES: usize = 60;
const EVERY: Duration = Duration::from_millis(50);

/// Every series with its value in each scrape.
type Recording = BTreeMap<String, Vec<String>>;

fn record(scrape: &Scrape, at: usize, recording: &mut Recording) {
    for sample in &scrape.samples {
        let labels = sample.labels.iter().fold(String::new(), |mut labels, (name, value)| {
            write!(labels, ",{name}=\"{value}\"").unwrap();
            labels
        });
        // Label the series as Prometheus does.
        let series = format!("{}{{job=\"sprag\",instance=\"node\"{labels}}}", sample.name);
        let values = recording.entry(series).or_insert_with(|| vec!["_".to_owned(); at]);
        values.push(sample.value.to_string());
    }
}

/// Scrapes an engine under load. Entries are put again and again, and `beside` is called once a
/// scrape.
///
/// With `moves` the next scrape waits until entries were written and applied, so that a busy
/// computer does not look like a stuck engine.
fn play<M: StateMachine>(
    manager: &ApplyManager<M>,
    moves: bool,
    beside: impl Fn(&ApplyManager<M>, usize),
) -> Recording {
    let registry = registry_of(manager);
    let marks = || {
        let stats = manager.stats();
        (stats.written, stats.applied)
    };
    let (mut recording, is_over) = (Recording::new(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                put(manager, b"value");
            }
        });
        for at in 0..SCRAPES {
            record(&Scrape::of(&registry), at, &mut recording);
            let (written, applied) = marks();
            beside(manager, at);
            thread::sleep(EVERY);
            let have_moved = |now: (_, _)| now.0 > written && now.1 > applied;
            while moves && !have_moved(marks()) {
                thread::sleep(Duration::from_millis(1));
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    recording
}

/// Puts a key as the next entry, and waits a little if the engine is full.
fn put<M: StateMachine>(manager: &ApplyManager<M>, value: &[u8]) {
    let next = manager.stats().submitted.map_or(1, |index| index + 1);
    match manager.apply_entries(&[Entry::put(next, 1, &(next % 100).to_le_bytes(), value)]) {
        Ok(_) | Err(SubmitError::Full { .. }) => thread::sleep(Duration::from_millis(1)),
        Err(error) => panic!("{error}"),
    }
}

fn apply_config() -> ApplyConfig {
    ApplyConfig::new().worker_count(NonZeroUsize::MIN).pipeline_depth(64)
}

fn config() -> PersistentConfig {
    PersistentConfig::new("simulated").segment_bytes(1 << 20).compaction(None)
}

/// The alerts that fire during a recording, according to a real `promtool` with the real rules.
fn alerts(recording: &Recording, expected: Option<&str>) -> Option<String> {
    let mut test = format!(
        "rule_files: [{:?}]\nevaluation_interval: 15s\ntests:\n  - interval: 15s\n    input_series:\n",
        promtool::directory().join("alerts.yml")
    );
    for (series, values) in recording {
        writeln!(test, "      - series: '{series}'\n        values: '{}'", values.join(" "))
            .unwrap();
    }
    let expected = expected.map(|name| format!("{{labels: '{{alertname=\"{name}\"}}', value: 1}}"));
    write!(
        test,
        "    promql_expr_test:\n      - expr: count by (alertname) \
         (count_over_time(ALERTS{{alertstate=\"firing\"}}[15m]))\n        \
         eval_time: 14m45s\n        exp_samples: [{}]\n",
        expected.unwrap_or_default()
    )
    .unwrap();
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    std::fs::write(file.path(), test).unwrap();
    promtool::complaint(&["test", "rules", file.path().to_str().unwrap()], "")
}

fn healthy() -> Recording {
    let machine =
        PersistentStateMachine::open_on_disk(SimDisk::new(1).open(true).unwrap(), config());
    let manager = ApplyManager::new(machine.unwrap(), apply_config()).unwrap();
    play(&manager, true, |_, _| {})
}

fn slow_syncs() -> Recording {
    let disk = SimDisk::new(1).open(true).unwrap();
    let disk = ActingDisk::new(disk).at_sync(|| thread::sleep(EVERY));
    let machine = PersistentStateMachine::open_on_disk(Arc::new(disk), config()).unwrap();
    let manager = ApplyManager::new(machine, apply_config()).unwrap();
    let recording = play(&manager, true, |_, _| {});
    manager.close(LONG).unwrap();
    recording
}

/// A gate that holds an entry until it is opened.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opens: Condvar,
}

struct Stuck(Arc<Gate>);

impl StateMachine for Stuck {
    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        _: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        for entry in range.entries(partition) {
            if entry?.log_id.index >= 100 {
                let is_open = self.0.is_open.lock().unwrap();
                drop(self.0.opens.wait_while(is_open, |is_open| !*is_open).unwrap());
            }
        }
        Ok(())
    }
}

fn stuck_apply() -> Recording {
    let gate = Arc::new(Gate::default());
    let disk = SimDisk::new(1).open(true).unwrap();
    let machine = Journaled::open_on_disk(disk, config(), Stuck(Arc::clone(&gate))).unwrap();
    // An entry that the caller applies would hold the caller.
    let manager = ApplyManager::new(machine, apply_config().inline_apply(false)).unwrap();
    let recording = play(&manager, false, |_, _| {});
    *gate.is_open.lock().unwrap() = true;
    gate.opens.notify_all();
    manager.close(LONG).unwrap();
    recording
}

fn no_room_for_a_compaction() -> Recording {
    let disk = SimDisk::new(1);
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config()).unwrap();
    let manager = ApplyManager::new(machine, apply_config()).unwrap();
    // Fill the first segment, whose file grows. The next segment exists, and takes all of the
    // incident.
    while manager.stats().disk.segments < 2 {
        put(&manager, &[7; 4096]);
    }
    manager.flush_pending(LONG).unwrap();
    play(&manager, true, |manager, at| {
        if at == 10 {
            disk.set_capacity(Some(0));
        }
        if at % 10 == 5 {
            let outcome = manager.snapshots().compact();
            assert_eq!(outcome.is_err_and(|error| error.is_disk_full()), at > 10, "{at}");
        }
    })
}

/// A case: its name, the function that plays it, and the alert that must fire.
type Incident = (&'static str, fn() -> Recording, Option<&'static str>);

const INCIDENTS: [Incident; 4] = [
    ("a healthy engine", healthy, None),
    ("a disk whose syncs take 50 ms", slow_syncs, Some("SpragLogSyncSlow")),
    ("an apply that is stuck in a slow machine", stuck_apply, Some("SpragApplyStuck")),
    (
        "a compaction that fails for want of room",
        no_room_for_a_compaction,
        Some("SpragCompactionDiskFull"),
    ),
];

#[test]
fn each_incident_fires_the_alert_that_names_its_cause_and_no_other() {
    if !promtool::is_there() {
        return;
    }
    let played: Vec<_> = INCIDENTS.map(|(_, play, _)| thread::spawn(play)).into();
    for ((name, _, alert), played) in INCIDENTS.iter().zip(played) {
        let recording = played.join().unwrap();
        assert!(recording.len() > 300, "{name}: {} series", recording.len());
        if let Ok(directory) = std::env::var("SPRAG_RECORD_INCIDENTS") {
            save(&recording, &directory, name);
        }
        assert_eq!(alerts(&recording, *alert), None, "{name}");
        // The test can fail: the opposite expectation does not hold.
        let opposite = if alert.is_some() { None } else { Some("SpragPoisoned") };
        assert!(alerts(&recording, opposite).is_some(), "{name}");
    }
}

/// Writes the recording with times, as `promtool tsdb create-blocks-from openmetrics` reads it, for
/// a look at the dashboard.
fn save(recording: &Recording, directory: &str, name: &str) {
    let mut text = String::new();
    for (series, values) in recording {
        for (at, value) in values.iter().enumerate().filter(|(_, value)| *value != "_") {
            writeln!(text, "{series} {value} {}", 1_700_000_000 + at * 15).unwrap();
        }
    }
    text.push_str("# EOF\n");
    let file = format!("{directory}/{}.om", name.replace(' ', "_"));
    std::fs::write(file, text).unwrap();
}
