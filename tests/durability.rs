//! Tests that acknowledged entries are there again, after a close, a drop, and a `kill -9` at any
//! moment.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::common::generate::Dice;
use crate::common::machines::compare;
use crate::common::model::Model;
use crate::common::ops::{Cmd, Logged, Op, log_of, with_entries};
use crate::common::{LONG, Persistent, SHORT, Scratch, child, child_directory, eventually, open};
use sprag::error::ApplyError;
use sprag::{Durability, Entry, PersistentConfig, PersistentStateMachine, Reply};

/// The operation of an index, the same in every process.
fn op(index: u64) -> Op {
    let key = (index % 40).to_be_bytes();
    match index % 7 {
        0 => Op::delete(key),
        1 | 2 => Op::increment("counter", 1),
        3 => Op::put(key, vec![index.to_le_bytes()[0]; 3000]),
        4 => Op::Batch {
            commands: vec![Cmd::put(key, index.to_be_bytes()), Cmd::increment("counter", 1)],
            note: Some((b"n".to_vec(), index.to_be_bytes().to_vec())),
        },
        5 => Op::Membership(index.to_be_bytes().to_vec()),
        _ => Op::put(key, index.to_be_bytes()),
    }
}

fn log(last: u64) -> Vec<Logged> {
    log_of(1, 1, (1..=last).map(op))
}

fn apply(manager: &Persistent, log: &[Logged]) {
    with_entries(log, |entries| {
        manager.apply_batch(entries.iter().copied(), LONG, |_, _| ()).unwrap();
    });
}

/// Proves DUR-2.
#[test]
fn periodic_syncs_what_a_caller_wrote_in_the_log_writers_place() {
    let interval = Durability::Periodic(Duration::from_millis(20));
    let scratch = Scratch::new();
    let manager = open(scratch.config().durability(interval));
    for index in 1..=5 {
        // The log writer's thread has no work, and goes to sleep without a time.
        thread::sleep(Duration::from_millis(40));
        manager.apply(&Entry::put(index, 1, b"k", b"v"), LONG).unwrap();
        // No call flushes, submits or waits.
        assert!(eventually(LONG, || manager.stats().durable == Some(index)), "{index}");
    }
}

/// Proves DUR-5.
#[test]
fn the_applied_index_comes_back_and_nothing_counts_twice() {
    let scratch = Scratch::new();
    for reopened in 0..6 {
        let manager = scratch.open();
        let stats = manager.stats();
        let applied = Some(reopened * 100).filter(|index| *index > 0);
        assert_eq!((stats.applied, stats.durable, stats.committed), (applied, applied, applied));
        assert_eq!((stats.submitted, stats.acknowledged), (applied, applied));
        assert_eq!(stats.recovery.unwrap().applied, applied);
        assert_eq!(stats.total_applied, 0, "entries applied by this manager");
        for index in reopened * 100 + 1..=(reopened + 1) * 100 {
            let reply = manager.apply(&Entry::increment(index, 1, b"counter", 1), LONG).unwrap();
            assert_eq!(reply, Reply::Counter(i64::try_from(index).unwrap()));
        }
        let again = manager.apply(&Entry::increment(1, 1, b"counter", 1), LONG).unwrap();
        assert_eq!(again, Reply::AlreadyApplied);
        if reopened % 2 == 0 {
            manager.close(LONG).unwrap();
        }
    }
}

/// Proves DUR-5.
#[test]
fn results_that_no_log_entry_holds_survive_reopening() {
    let scratch = Scratch::new();
    let ops = [
        Op::put("n", "9007199254740992"),
        Op::increment("n", 1),
        Op::increment("missing", i64::MIN),
        Op::Batch {
            commands: vec![Cmd::increment("batch", 5), Cmd::increment("batch", 6)],
            note: None,
        },
        Op::compare_and_set(b"batch", Some(b"11"), Some(b"-1")),
        Op::increment("batch", -1),
        Op::put("gone", "1"),
        Op::increment("gone", 1),
        Op::delete("gone"),
        Op::increment("n", 1),
        Op::put("text", "07"),
        Op::increment("text", 1),
    ];
    let expected = log_of(1, 1, ops);
    let model = Model::after(&expected);
    assert_eq!(model.state[&b"n"[..]], b"9007199254740994");
    let manager = scratch.open();
    apply(&manager, &expected);
    compare(manager.machine(), &model).unwrap();
    let image = scratch.crash_image();
    manager.close(LONG).unwrap();
    for scratch in [scratch, image] {
        for _ in 0..3 {
            compare(scratch.open().machine(), &model).unwrap();
        }
    }
}

/// Proves DUR-1, DUR-2, DUR-3.
#[test]
fn what_was_acknowledged_is_in_the_files_at_that_moment() {
    for durability in [Durability::Sync, Durability::Os, Durability::Periodic(LONG)] {
        let scratch = Scratch::new();
        let manager = open(scratch.config().durability(durability));
        let all = log(240);
        for end in [1, 2, 17, 60, 120, 240] {
            let from = usize::try_from(manager.stats().submitted.unwrap_or(0)).unwrap();
            apply(&manager, &all[from..end]);
            let image = scratch.crash_image();
            let again = image.open();
            assert_eq!(again.stats().applied, Some(end as u64), "{durability:?}");
            compare(again.machine(), &Model::after(&all[..end])).unwrap();
        }
    }
}

/// Proves DUR-5.
#[test]
fn opening_again_and_again_changes_nothing() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    let all = log(300);
    apply(&manager, &all);
    manager.close(LONG).unwrap();
    let model = Model::after(&all);
    for _ in 0..4 {
        let machine = PersistentStateMachine::open(scratch.config()).unwrap();
        assert!(machine.recovery().cut.is_none() && !machine.recovery().meta_slot_damaged);
        compare(&machine, &model).unwrap();
        drop(machine);
        let before = crate::common::dir_bytes(&scratch.path());
        let machine = PersistentStateMachine::open_read_only(scratch.path()).unwrap();
        compare(&machine, &model).unwrap();
        drop(machine);
        assert_eq!(crate::common::dir_bytes(&scratch.path()), before, "reading changed a byte");
    }
}

#[test]
fn a_log_of_another_segment_length_opens_too() {
    let scratch = Scratch::new();
    let mut done = 0;
    let all = log(900);
    for segment_kib in [64, 256, 128, 64, 1024] {
        let manager = open(scratch.config().segment_bytes(segment_kib << 10));
        apply(&manager, &all[done..done + 180]);
        done += 180;
        compare(manager.machine(), &Model::after(&all[..done])).unwrap();
        if segment_kib != 128 {
            manager.close(LONG).unwrap();
        }
    }
    compare(scratch.open().machine(), &Model::after(&all[..done])).unwrap();
}

// ---- kill -9 ----

fn kill_config(directory: impl Into<std::path::PathBuf>, round: u64) -> PersistentConfig {
    let durability = match round % 3 {
        0 => Durability::Sync,
        1 => Durability::Os,
        _ => Durability::Periodic(Duration::from_millis(2)),
    };
    crate::common::io::config(directory).segment_bytes(64 << 10).durability(durability)
}

const ROUND: &str = "SPRAG_TEST_ROUND";

/// The child: applies entry after entry and prints the acknowledged ones, until it is killed.
#[test]
fn child_applies_until_it_is_killed() {
    let Some(directory) = child_directory() else { return };
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    println!("started");
    let manager = open(kill_config(directory, round));
    let mut next = manager.stats().submitted.unwrap_or(0) + 1;
    loop {
        let part = log_of(next, 1, (next..next + 1 + round % 5).map(op));
        apply(&manager, &part);
        next += part.len() as u64;
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {}", next - 1).unwrap();
        out.flush().unwrap();
    }
}

/// Proves DUR-1, DUR-2, DUR-3.
#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    let mut dice = Dice::new(7);
    let mut killed_while_opening = 0;
    let mut scratch = Scratch::new();
    let mut acknowledged = 0;
    for round in 0..24 {
        if round % 4 == 0 {
            scratch = Scratch::new();
            acknowledged = 0;
        }
        let mut command =
            child(module_path!(), "child_applies_until_it_is_killed", &scratch.path());
        command.env(ROUND, round.to_string()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        assert!(lines.by_ref().any(|line| line.unwrap().ends_with("started")), "the child runs");
        // Kill a third of the children while the directory is made or recovered, and the others
        // later.
        let mut said: Vec<u64> = Vec::new();
        let number = |line: String| line.strip_prefix("acknowledged ")?.parse::<u64>().ok();
        if round == 0 {
            // Kill at once: on a machine where all others are late, this one is not.
        } else if round % 3 == 0 {
            thread::sleep(Duration::from_micros(dice.below(1500)));
        } else {
            said.extend(lines.by_ref().map_while(Result::ok).find_map(number));
            thread::sleep(Duration::from_micros(dice.below(30_000)));
        }
        process.kill().unwrap();
        process.wait().unwrap();
        said.extend(lines.map_while(Result::ok).filter_map(number));
        killed_while_opening += u64::from(said.is_empty());
        acknowledged = said.last().copied().unwrap_or(acknowledged);
        let manager = open(kill_config(scratch.path(), round));
        let applied = manager.stats().applied.unwrap_or(0);
        assert!(applied >= acknowledged, "round {round}: {applied}, acknowledged {acknowledged}");
        compare(manager.machine(), &Model::after(&log(applied))).unwrap();
        acknowledged = applied;
    }
    assert!((1..=8).contains(&killed_while_opening), "{killed_while_opening} of 24");
}

#[test]
#[cfg(target_os = "linux")]
fn a_long_log_that_nobody_asks_to_be_synced_keeps_few_files_open() {
    let scratch = Scratch::new();
    let manager = open(scratch.config().durability(Durability::Os).compaction(None));
    let value = vec![7; 30 << 10];
    let (mut most, mut index) = (0, 0);
    for _ in 0..20 {
        for _ in 0..20 {
            index += 1;
            manager.apply(&Entry::put(index, 1, b"key", &value), LONG).unwrap();
        }
        let names = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let targets = names.filter_map(|name| std::fs::read_link(name.path()).ok());
        most = most.max(targets.filter(|target| target.starts_with(scratch.path())).count());
    }
    let segments = manager.stats().log_writer.bytes / (64 << 10);
    assert!(segments > 150, "{segments}");
    assert!(most < 40, "{most} files are open");
    manager.close(LONG).unwrap();
}

#[test]
fn what_a_batch_that_fails_has_submitted_is_written_without_another_call() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    for round in 0..10 {
        let first = 1 + round;
        // The log writer goes to sleep.
        thread::sleep(SHORT);
        let value = vec![7; 70 << 10];
        let entries =
            [Entry::put(first, 1, b"key", b"small"), Entry::put(first + 1, 1, b"key", &value)];
        let failed = manager.apply_batch(entries, LONG, |_, _| ()).unwrap_err();
        let ApplyError::Submit { submitted_through, .. } = failed else { panic!("{failed}") };
        assert_eq!(submitted_through, Some(first));
        assert!(eventually(LONG, || manager.stats().durable == Some(first)), "round {round}");
    }
}
