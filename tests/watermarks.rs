//! Tests of the watermarks and their inequalities at every moment, for each durability mode, and of
//! gets that never go back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::machines::{KeyValueReads, memory};
use crate::common::ops::{Op, log_of, with_entries};
use crate::common::{LONG, Scratch, StopOnDrop, apply_config, eventually, manage, open};
use sprag::{
    ApplyManager, ApplyStats, CommitMode, Durability, Entry, PersistentConfig,
    PersistentStateMachine, Stage, StateMachine,
};

/// Checks two consecutive samples. The figures of one sample are not of one moment. But an index
/// that another watermark covers when it is read is still covered later.
fn check(earlier: &ApplyStats, later: &ApplyStats, durability: Option<Durability>) {
    let laws = [
        ("acknowledged <= applied", earlier.acknowledged, later.applied),
        ("applied <= committed", earlier.applied, later.committed),
        ("committed <= submitted", earlier.committed, later.submitted),
        ("acknowledged never falls", earlier.acknowledged, later.acknowledged),
        ("applied never falls", earlier.applied, later.applied),
        ("committed never falls", earlier.committed, later.committed),
        ("submitted never falls", earlier.submitted, later.submitted),
    ];
    let of_a_log = [
        ("durable <= written", earlier.durable, later.written),
        ("written <= submitted", earlier.written, later.submitted),
        ("durable never falls", earlier.durable, later.durable),
        ("written never falls", earlier.written, later.written),
        ("acknowledged <= written", earlier.acknowledged, later.written),
    ];
    let synced = [("acknowledged <= durable", earlier.acknowledged, later.durable)];
    let logged = durability.is_some();
    let sync = durability == Some(Durability::Sync);
    let all =
        laws.iter().chain(of_a_log.iter().filter(|_| logged)).chain(synced.iter().filter(|_| sync));
    for (law, low, high) in all {
        assert!(low <= high, "{law}: {low:?}, then {high:?}");
    }
    if !logged {
        assert_eq!((later.written, later.durable), (None, None));
    }
    let machine = later.machine.last_applied;
    assert!(earlier.acknowledged <= machine || machine.is_none(), "{machine:?}");
}

/// Least number of samples of a sampler, however busy the machine is; the next constant is the gets
/// of a reader.
const SAMPLES_MIN: u64 = 20;
const READS_MIN: u64 = 100;

/// Samples until it is told to stop.
fn sample<M: StateMachine>(
    manager: &ApplyManager<M>,
    stop: &AtomicBool,
    durability: Option<Durability>,
) {
    let mut earlier = manager.stats();
    let mut samples = 0;
    loop {
        // The last sample is taken after the end.
        let over = stop.load(Ordering::SeqCst);
        let later = manager.stats();
        check(&earlier, &later, durability);
        if let Some(index) = earlier.acknowledged {
            manager.wait_for_apply(index, Duration::ZERO).unwrap();
        }
        (earlier, samples) = (later, samples + 1);
        if over && samples > SAMPLES_MIN {
            return;
        }
    }
}

fn run<M: StateMachine>(manager: ApplyManager<M>, durability: Option<Durability>, entries: u64) {
    let manager = Arc::new(manager);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stopping = StopOnDrop(&stop);
        let samplers: Vec<_> =
            (0..2).map(|_| scope.spawn(|| sample(&manager, &stop, durability))).collect();
        let put = |index: u64| match index % 50 {
            0 => Op::Membership(vec![1]),
            _ => Op::put((index % 97).to_be_bytes(), vec![1; 100]),
        };
        let log = log_of(1, 1, (1..=entries).map(put));
        for (number, part) in log.chunks(60).enumerate() {
            with_entries(part, |entries| match number % 3 {
                0 => drop(manager.apply_batch(entries.iter().copied(), LONG, |_, _| ()).unwrap()),
                1 => manager.apply_entries_sync(entries, LONG, &mut vec![]).unwrap(),
                _ => {
                    for entry in entries {
                        manager.apply(entry, LONG).unwrap();
                    }
                }
            });
            let done = manager.stats();
            assert!(done.acknowledged >= part.last().map(|(log_id, _)| log_id.index));
        }
        manager.flush_pending(LONG).unwrap();
        drop(stopping);
        for sampler in samplers {
            sampler.join().unwrap();
        }
    });
    let stats = manager.stats();
    let last = Some(entries);
    assert_eq!((stats.submitted, stats.committed, stats.applied), (last, last, last));
    assert_eq!(stats.acknowledged, last);
    if durability.is_some() {
        assert_eq!((stats.written, stats.durable), (last, last));
    }
    assert_eq!((stats.pending_count, stats.pipeline_size), (0, 0));
    assert_eq!(stats.total_applied, entries);
}

/// Proves ORD-2, ORD-7.
#[test]
fn the_watermarks_keep_their_order_while_entries_are_applied() {
    for durability in
        [Durability::Sync, Durability::Os, Durability::Periodic(Duration::from_millis(3))]
    {
        let scratch = Scratch::new();
        let config = scratch.config().durability(durability);
        let machine = PersistentStateMachine::open(config).unwrap();
        run(manage(machine, apply_config(2).batch_size(8)), Some(durability), 1800);
    }
    run(manage(memory(), apply_config(3).batch_size(8)), None, 6000);
}

/// Proves ORD-7.
#[test]
fn what_is_only_appended_is_durable_and_not_committed() {
    let scratch = Scratch::new();
    let manager = open(scratch.config().commit_mode(CommitMode::ByCommit));
    let noops = |from, to| -> Vec<_> { (from..=to).map(|index| Entry::noop(index, 1)).collect() };
    let _ = manager.consensus().unwrap().append(&noops(0, 9)).unwrap();
    manager.wait_until(9, Stage::Durable, LONG).unwrap();
    let stats = manager.stats();
    assert_eq!((stats.submitted, stats.durable), (Some(9), Some(9)));
    assert_eq!((stats.committed, stats.applied, stats.acknowledged), (None, None, None));
    manager.consensus().unwrap().commit(0).unwrap();
    manager.wait_for_apply(0, LONG).unwrap();
    let stats = manager.stats();
    assert_eq!((stats.committed, stats.applied, stats.acknowledged), (Some(0), Some(0), Some(0)));
    manager.flush_pending(LONG).unwrap();
    assert_eq!(manager.stats().applied, Some(0), "a flush commits nothing");
    // A truncation removes uncommitted entries only.
    manager.consensus().unwrap().truncate_after(Some(4)).unwrap();
    let stats = manager.stats();
    assert_eq!((stats.submitted, stats.committed), (Some(4), Some(0)));
    assert!(stats.written <= Some(4) && stats.durable <= stats.written, "{stats:?}");
    let _ = manager.consensus().unwrap().append(&noops(5, 6)).unwrap();
    manager.consensus().unwrap().commit(6).unwrap();
    manager.wait_for_apply(6, LONG).unwrap();
    let stats = manager.stats();
    assert_eq!((stats.durable, stats.acknowledged), (Some(6), Some(6)));
}

#[test]
fn the_figures_of_the_pipeline_count_entries() {
    let manager = manage(memory(), apply_config(1));
    for index in 0..=9 {
        manager.apply(&Entry::noop(index, 1), LONG).unwrap();
    }
    let stats = manager.stats();
    assert_eq!((stats.total_applied, stats.total_failed), (10, 0));
    assert_eq!(stats.pending_count, 0);
    // The last entry may be counted right after its caller has the answer.
    assert!(eventually(LONG, || manager.stats().latency.count == 10));
    let stats = manager.stats();
    let latency = stats.latency;
    assert!(0 < latency.p50_ns && latency.p50_ns <= latency.p90_ns);
    assert!(latency.p90_ns <= latency.p99_ns && latency.p99_ns <= latency.p999_ns);
    assert!(latency.mean_ns > 0 && latency.mean_ns <= latency.max_ns);
    assert!((stats.average_latency_ms - latency.mean_ns as f64 / 1e6).abs() < 1e-9);
    assert_eq!((stats.io_backend, stats.recovery.is_none()), ("memory", true));
    let backend = open(Scratch::new().config()).stats().io_backend;
    assert!(["pwrite", "io_uring"].contains(&backend), "{backend}");
}

// ---- Gets ----

/// A value that names its entry at both ends and in the middle.
fn value(index: u64, len: usize) -> Vec<u8> {
    index.to_be_bytes().iter().copied().cycle().take(len * 8).collect()
}

fn index_of(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    assert!(rest.is_empty() && words.iter().all(|word| *word == words[0]), "a torn value");
    u64::from_be_bytes(words[0])
}

fn gets_never_go_back<M: StateMachine + KeyValueReads>(manager: &ApplyManager<M>, entries: u64) {
    let keys: Vec<Vec<u8>> = vec![b"a".to_vec(), b"b".to_vec(), vec![7; 40], vec![8; 300]];
    // The values are copied, shared, and of changing length.
    let lens = [1, 17, 400];
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let stopping = StopOnDrop(&stop);
        let reader = |seed: usize| {
            let (keys, stop, acknowledged) = (&keys, &stop, &acknowledged);
            move || {
                let (mut last, mut reads) = (vec![0; keys.len()], 0_u64);
                while !stop.load(Ordering::SeqCst) || reads < READS_MIN {
                    let at = (seed + usize::try_from(reads).unwrap()) % keys.len();
                    // A reader sees everything acknowledged: the key's last entry at or below it.
                    let floor = acknowledged.load(Ordering::SeqCst);
                    let got = manager.machine().value_of(&keys[at]).unwrap();
                    let found = got.map_or(0, |value| index_of(&value));
                    let applied_to = manager.stats().committed.unwrap_or(0);
                    assert!(found >= last[at], "key {at} went back from {} to {found}", last[at]);
                    assert!(found + keys.len() as u64 > floor, "{found} read at {floor}");
                    assert!(found <= applied_to, "{found} read, {applied_to} committed");
                    (last[at], reads) = (found, reads + 1);
                }
            }
        };
        let readers: Vec<_> = (0..2).map(|seed| scope.spawn(reader(seed))).collect();
        let log = log_of(
            1,
            1,
            (1..=entries).map(|index| {
                let at = usize::try_from(index).unwrap();
                Op::put(keys[at % keys.len()].clone(), value(index, lens[at / 7 % lens.len()]))
            }),
        );
        for part in log.chunks(23) {
            with_entries(part, |entries| {
                manager.apply_batch(entries.iter().copied(), LONG, |_, _| ()).unwrap();
            });
            acknowledged.store(part.last().unwrap().0.index, Ordering::SeqCst);
        }
        drop(stopping);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

/// Proves ORD-8.
#[test]
fn a_get_never_goes_back_and_never_tears_in_memory() {
    gets_never_go_back(&manage(memory(), apply_config(2).batch_size(5)), 8000);
}

/// Proves ORD-8.
#[test]
fn a_get_never_goes_back_and_never_tears_over_a_log_that_rolls() {
    let scratch = Scratch::new();
    let config: PersistentConfig = scratch.config().durability(Durability::Os);
    let machine = PersistentStateMachine::open(config).unwrap();
    gets_never_go_back(&manage(machine, apply_config(2).batch_size(5)), 3000);
    assert!(crate::common::frames::segments(&scratch.path()).len() > 5);
}
