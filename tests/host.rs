//! Tests of a host: many engines on few threads.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::acting_disk::ActingDisk;
use crate::common::generate::Dice;
use crate::common::machines::{Gate, Hooked, compare, gated, memory};
use crate::common::model::Model;
use crate::common::ops::{Op, log_of, with_entries};
use crate::common::{
    CountingWaker, LONG, Scratch, apply_config, child, child_directory, eventually, manage, workers,
};
use sprag::error::{OpenError, Poison, WaitError};
use sprag::testing::SimDisk;
use sprag::{
    ApplyConfig, ApplyManager, CommitMode, Entry, Host, HostConfig, MemoryStateMachine,
    PersistentConfig, PersistentStateMachine, Stage,
};

type Group = ApplyManager<PersistentStateMachine>;

/// A host of so many workers and log writers.
fn host_of(workers_count: usize, writers: usize) -> Host {
    Host::new(HostConfig::new().workers(workers(workers_count)).writers(workers(writers))).unwrap()
}

/// A group over a simulated disk. Its callers apply nothing themselves.
fn group(host: &Host, disk: &SimDisk) -> Group {
    let config = PersistentConfig::new("simulated").segment_bytes(64 << 10).expected_keys(16);
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config).unwrap();
    manage(machine, config_in(host))
}

fn config_in(host: &Host) -> ApplyConfig {
    ApplyConfig::new().host(host).inline_apply(false).pipeline_depth(1024)
}

/// The threads of hosts in this process, each with its number of waits.
fn host_threads() -> BTreeMap<String, u64> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let waits = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?.trim().to_owned();
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let waits =
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        let is_it =
            ["sprag-work-", "sprag-sync-", "sprag-tend-"].iter().any(|of| name.starts_with(of));
        is_it.then(|| (name, waits.trim().parse().unwrap()))
    };
    tasks.filter_map(|task| waits(task.ok()?)).collect()
}

/// Runs the test `name` in a child, where it is alone in its process.
fn in_a_child(name: &str, run: impl FnOnce(&Path)) {
    if let Some(directory) = child_directory() {
        fs::create_dir_all(&directory).unwrap();
        return run(&directory);
    }
    let scratch = Scratch::new();
    let output = child(module_path!(), name, &scratch.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

fn op(random: &mut Dice) -> Op {
    let key = [b'k', random.below(8) as u8];
    match random.below(8) {
        0 => Op::delete(key),
        1 => Op::Noop,
        2 => Op::increment(key, 7),
        of => Op::put(key, [b'0' + of as u8]),
    }
}

/// Proves ORD-1.
#[test]
fn a_hundred_groups_of_one_host_come_to_what_one_entry_at_a_time_does() {
    let name = "a_hundred_groups_of_one_host_come_to_what_one_entry_at_a_time_does";
    in_a_child(name, |_| {
        let host = Host::new(HostConfig::new()).unwrap();
        let disks: Vec<SimDisk> = (0..100).map(SimDisk::new).collect();
        let groups: Vec<Group> = disks.iter().map(|disk| group(&host, disk)).collect();
        let cores = thread::available_parallelism().unwrap().get();
        let threads = fs::read_dir("/proc/self/task").unwrap().count();
        // One of the process, and one of the test.
        assert!(threads <= 2 * cores + 4 + 2, "{threads} threads");
        assert!(host_threads().len() > 2, "{:?}", host_threads());
        let mut random = Dice::new(13);
        let mut logs: Vec<Vec<_>> = vec![Vec::new(); groups.len()];
        for _ in 0..12 {
            for (group, log) in groups.iter().zip(&mut logs) {
                let count = 1 + random.below(9) as usize;
                let more = log_of(log.len() as u64 + 1, 1, (0..count).map(|_| op(&mut random)));
                with_entries(&more, |entries| group.apply_entries(entries).map(drop).unwrap());
                log.extend(more);
            }
        }
        for (group, log) in groups.iter().zip(&logs) {
            group.wait_for_apply(log.len() as u64, LONG).unwrap();
            compare(group.machine(), &Model::after(log)).unwrap();
        }
        for (group, (disk, log)) in groups.into_iter().zip(disks.iter().zip(&logs)) {
            group.close(LONG).unwrap();
            let machine = PersistentStateMachine::open_on_disk(
                disk.open(true).unwrap(),
                PersistentConfig::new("simulated").segment_bytes(64 << 10).expected_keys(16),
            );
            compare(&machine.unwrap(), &Model::after(log)).unwrap();
        }
    });
}

#[test]
fn fewer_slow_machines_than_workers_hold_up_no_other_group() {
    let host = host_of(3, 1);
    let gate = Gate::shut();
    let slow: Vec<ApplyManager<Hooked<MemoryStateMachine>>> =
        (0..2).map(|_| manage(gated(memory(), &gate), config_in(&host))).collect();
    let _opener = gate.opener();
    for group in &slow {
        let _ = group.apply_entries(&[Entry::noop(1, 1)]).unwrap();
    }
    gate.wait_for_somebody();
    let others: Vec<_> = (0..8).map(|_| manage(memory(), config_in(&host))).collect();
    for index in 1..=50 {
        for group in &others {
            group.apply(&Entry::put(index, 1, b"key", b"value"), LONG).unwrap();
        }
    }
    assert!(slow.iter().all(|group| group.stats().applied.is_none()), "they are at the gate");
    gate.open();
    for group in &slow {
        group.wait_for_apply(1, LONG).unwrap();
    }
}

#[test]
fn one_worker_serves_groups_with_endless_work_in_turn() {
    let host = host_of(1, 1);
    let (busy, other) = (manage(memory(), config_in(&host)), manage(memory(), config_in(&host)));
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut index = 1;
            while !ends.load(Ordering::Relaxed) {
                index += u64::from(busy.apply_entries(&[Entry::noop(index, 1)]).is_ok());
            }
        });
        for index in 1..=200 {
            other.apply(&Entry::noop(index, 1), LONG).unwrap();
        }
        ends.store(true, Ordering::Relaxed);
    });
}

/// Proves ORD-3.
#[test]
fn an_acknowledgement_waits_for_the_sync_of_its_own_group() {
    let host = host_of(1, 2);
    let gate = Gate::shut();
    let (disk, at_sync) = (SimDisk::new(7), Arc::clone(&gate));
    let slow = ActingDisk::new(disk.open(true).unwrap()).at_sync(move || at_sync.pass());
    let config = PersistentConfig::new("simulated").segment_bytes(64 << 10).expected_keys(16);
    let machine = PersistentStateMachine::open_on_disk(Arc::new(slow), config).unwrap();
    let slow = manage(machine, config_in(&host));
    let _opener = gate.opener();
    let other_disk = SimDisk::new(8);
    let other = group(&host, &other_disk);
    let _ = slow.apply_entries(&[Entry::put(1, 1, b"key", b"value")]).unwrap();
    gate.wait_for_somebody();
    for index in 1..=20 {
        let _ = other.apply_entries(&[Entry::put(index, 1, b"key", b"value")]).unwrap();
        other.wait_for_apply(index, LONG).unwrap();
        assert_eq!(slow.stats().durable, None);
        assert_eq!(slow.stats().acknowledged, None, "its sync has not come back");
    }
    gate.open();
    slow.wait_for_apply(1, LONG).unwrap();
}

#[test]
fn a_group_whose_disk_is_full_fails_alone() {
    let host = host_of(1, 1);
    let disks: Vec<SimDisk> = (0..5).map(SimDisk::new).collect();
    let groups: Vec<Group> = disks.iter().map(|disk| group(&host, disk)).collect();
    let value = vec![b'v'; 200];
    for index in 1..=4 {
        for group in &groups {
            group.apply(&Entry::put(index, 1, b"key", &value), LONG).unwrap();
        }
    }
    disks[2].set_capacity(Some(0));
    let large = vec![b'v'; 40_000];
    let mut failed = None;
    for index in 5..=10 {
        for (number, group) in groups.iter().enumerate() {
            if number == 2 && failed.is_some() {
                continue;
            }
            let put = Entry::put(index, 1, b"key", &large);
            let outcome = group.apply(&put, LONG);
            match number {
                2 => failed = outcome.err(),
                _ => drop(outcome.unwrap()),
            }
        }
    }
    assert!(failed.is_some(), "the disk is full");
    for (number, group) in groups.iter().enumerate() {
        let is_full = matches!(group.poison(), Some(Poison::Io { .. }));
        assert_eq!(is_full, number == 2, "{:?}", group.poison());
    }
}

#[test]
fn a_panic_of_one_machine_fails_its_group_alone() {
    let host = host_of(1, 1);
    let broken = Hooked::new(memory(), |_, _| panic!("of a test"));
    let (broken, other) = (manage(broken, config_in(&host)), manage(memory(), config_in(&host)));
    let _ = broken.apply_entries(&[Entry::noop(1, 1)]).unwrap();
    let outcome = broken.wait_for_apply(1, LONG);
    assert!(matches!(outcome, Err(WaitError::Poisoned(Poison::Panic { index: 1 }))), "{outcome:?}");
    other.apply(&Entry::noop(1, 1), LONG).unwrap();
    other.close(LONG).unwrap();
}

#[test]
fn a_host_runs_until_its_last_engine_is_closed_and_then_its_threads_end() {
    let name = "a_host_runs_until_its_last_engine_is_closed_and_then_its_threads_end";
    in_a_child(name, |_| {
        let host = host_of(2, 2);
        let disk = SimDisk::new(1);
        let group = group(&host, &disk);
        drop(host);
        let _ = group.apply_entries(&[Entry::noop(1, 1)]).unwrap();
        group.wait_for_apply(1, LONG).unwrap();
        assert_eq!(host_threads().len(), 5);
        group.close(LONG).unwrap();
        assert!(eventually(LONG, || host_threads().is_empty()), "{:?}", host_threads());
    });
}

#[test]
fn an_idle_group_wakes_no_thread_of_its_host() {
    in_a_child("an_idle_group_wakes_no_thread_of_its_host", |_| {
        let host = Host::new(HostConfig::new()).unwrap();
        let disks: Vec<SimDisk> = (0..50).map(SimDisk::new).collect();
        let groups: Vec<Group> = disks.iter().map(|disk| group(&host, disk)).collect();
        for group in &groups {
            let _ = group.apply_entries(&[Entry::put(1, 1, b"key", b"value")]).unwrap();
            group.wait_for_apply(1, LONG).unwrap();
        }
        // A compaction is looked for once more after the last entry.
        let sleeps_on = || {
            let before = host_threads();
            thread::sleep(Duration::from_millis(1200));
            before == host_threads()
        };
        assert!(eventually(LONG, sleeps_on), "{:?}", host_threads());
        drop(groups);
    });
}

#[test]
fn a_closed_group_has_released_its_directory() {
    let host = host_of(2, 2);
    let scratch = Scratch::new();
    for index in 1..=40 {
        let machine = PersistentStateMachine::open(scratch.config()).unwrap();
        let group = manage(machine, config_in(&host));
        let _ = group.apply_entries(&[Entry::put(index, 1, b"key", b"value")]).unwrap();
        group.close(LONG).unwrap();
    }
}

#[test]
fn entries_that_linger_and_syncs_by_the_clock_come_without_a_call() {
    let host = host_of(1, 1);
    let disk = SimDisk::new(3);
    let config = PersistentConfig::new("simulated")
        .segment_bytes(64 << 10)
        .expected_keys(16)
        .durability(sprag::Durability::Periodic(Duration::from_millis(20)));
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config).unwrap();
    let linger = config_in(&host).batch_timeout(Duration::from_millis(5)).batch_size(64);
    let group = manage(machine, linger);
    for index in 1..=5 {
        let _ = group.apply_entries(&[Entry::put(index, 1, b"key", b"value")]).unwrap();
        assert!(eventually(LONG, || group.stats().applied == Some(index)), "its linger is over");
        assert!(eventually(LONG, || group.stats().durable == Some(index)), "the interval is over");
    }
}

#[test]
fn futures_of_a_group_are_woken_by_the_host() {
    let host = host_of(1, 1);
    let disk = SimDisk::new(4);
    let config = PersistentConfig::new("simulated")
        .segment_bytes(64 << 10)
        .expected_keys(16)
        .commit_mode(CommitMode::ByCommit);
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config).unwrap();
    let group = manage(machine, config_in(&host));
    for index in 1..=20 {
        let _ = group.consensus().unwrap().append(&[Entry::noop(index, 1)]).unwrap();
        group.consensus().unwrap().commit(index).unwrap();
        let woken = Arc::new(CountingWaker::default());
        let waker = Arc::clone(&woken).into();
        let mut future = std::pin::pin!(group.acknowledged(index));
        let mut context = std::task::Context::from_waker(&waker);
        let is_ready = future.as_mut().poll(&mut context).is_ready();
        assert!(is_ready || eventually(LONG, || woken.count() > 0));
        group.wait_until(index, Stage::Acknowledged, LONG).unwrap();
    }
}

#[test]
fn more_than_one_worker_is_refused_in_a_host() {
    let host = host_of(1, 1);
    let config = apply_config(2).host(&host);
    let refused = ApplyManager::new(memory(), config).map(drop);
    let expected = |error: &OpenError| matches!(error, OpenError::Config { option, .. } if *option == "worker_count");
    assert!(refused.as_ref().is_err_and(expected), "{refused:?}");
    let one = ApplyConfig::new().worker_count(NonZeroUsize::MIN).host(&host);
    ApplyManager::new(memory(), one).unwrap().apply(&Entry::noop(1, 1), LONG).unwrap();
}
