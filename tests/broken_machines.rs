//! Tests of the effects of a state machine that panics or fails, on waiters and on the engine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::common::machines::{Gate, Hooked, meets, memory};
use crate::common::ops::{Logged, Op, log_of, with_entries};
use crate::common::{
    LONG, SHORT, Scratch, apply_config, block_on, child, child_directory, eventually, manage,
    within,
};
use sprag::error::{ApplyError, CloseError, Poison, ReadError, SubmitError, WaitError};
use sprag::testing::{Fault, FaultError, SimDisk};
use sprag::{
    ApplyConfig, ApplyManager, Durability, Entry, EntryRange, Fatal, MemoryStateMachine, Partition,
    PersistentConfig, PersistentStateMachine, Stage, StateMachine,
};

fn puts(indexes: std::ops::RangeInclusive<u64>) -> Vec<Logged> {
    let first = *indexes.start();
    let put = |index: u64| Op::put((index % 50).to_be_bytes(), index.to_be_bytes());
    log_of(first, 1, indexes.map(put))
}

fn submit<M: StateMachine>(manager: &ApplyManager<M>, log: &[Logged]) -> Result<(), SubmitError> {
    with_entries(log, |entries| manager.apply_entries(entries)).map(|_taken| ())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Broken {
    Panics,
    Fails,
}

/// A machine that breaks at the entry of index 5, once the gate is open.
fn breaking<M: StateMachine>(inner: M, how: Broken, gate: &Arc<Gate>) -> Hooked<M> {
    let gate = Arc::clone(gate);
    Hooked::new(inner, move |range: &EntryRange<'_>, partition: Partition| {
        gate.pass();
        match how {
            _ if !meets(range, partition, 5) => Ok(()),
            Broken::Panics => panic!("broken on purpose"),
            Broken::Fails => Err(Fatal::new("broken on purpose")),
        }
    })
}

fn assert_names_five(poison: &Poison, how: Broken) {
    match (how, poison) {
        (Broken::Panics, Poison::Panic { index: 5 }) => {}
        (Broken::Fails, Poison::Fatal { index: 5, message }) => {
            assert_eq!(message, "broken on purpose");
        }
        _ => panic!("{how:?} gave {poison:?}"),
    }
}

fn poison_of(error: ApplyError) -> Poison {
    match error {
        ApplyError::Submit { source: SubmitError::Poisoned(poison), .. }
        | ApplyError::Wait { source: WaitError::Poisoned(poison), .. } => poison,
        error => panic!("not poisoned: {error:?}"),
    }
}

/// Starts every kind of wait; then the machine breaks at index 5 of `log`.
fn break_it<M: StateMachine>(inner: M, how: Broken, config: ApplyConfig, log: &[Logged]) {
    let gate = Gate::shut();
    let manager = Arc::new(manage(breaking(inner, how, &gate), config));
    let _opener = gate.opener();
    submit(&manager, log).unwrap();
    let next = log.len() as u64 + 1;
    type Waiter<M> = fn(&ApplyManager<Hooked<M>>, u64) -> Result<(), Poison>;
    let waiters: [(&str, Waiter<M>); 8] = [
        ("the index", |it, _| poisoned_wait(it.wait_for_apply(5, LONG))),
        ("a later one", |it, next| poisoned_wait(it.wait_for_apply(next - 1, LONG))),
        ("one never submitted", |it, _| poisoned_wait(it.wait_for_apply(1000, LONG))),
        ("applied", |it, _| poisoned_wait(it.wait_until(5, Stage::Applied, LONG))),
        ("flush", |it, _| poisoned_wait(it.flush_pending(LONG))),
        ("a future", |it, _| poisoned_wait(block_on(it.acknowledged(6)))),
        ("apply", |it, next| it.apply(&Entry::noop(next, 1), LONG).map(drop).map_err(poison_of)),
        ("a batch", |it, next| {
            let mut log = puts(1..=next + 4000);
            let known = usize::try_from(next - 1).unwrap();
            // The call above submits the same entry: whichever comes first, the other finds it.
            log[known].1 = Op::Noop;
            with_entries(&log[known..], |entries| {
                let batch = entries.iter().copied();
                it.apply_batch(batch, LONG, |_, _| ()).map(drop).map_err(poison_of)
            })
        }),
    ];
    let waiting: Vec<_> = waiters
        .into_iter()
        .map(|(what, waiter)| {
            let manager = Arc::clone(&manager);
            (what, thread::spawn(move || waiter(&manager, next)))
        })
        .collect();
    thread::sleep(SHORT);
    gate.open();
    for (what, waiter) in waiting {
        match within(LONG, what, move || waiter.join().unwrap()) {
            Err(poison) => assert_names_five(&poison, how),
            Ok(()) => panic!("{what} was reached"),
        }
    }
    assert_stays_poisoned(&manager, how);
    let manager = Arc::into_inner(manager).unwrap();
    let closed = within(LONG, "close", move || manager.close(LONG));
    assert!(
        matches!(&closed, Err(CloseError::Poisoned(_) | CloseError::Wait(WaitError::Poisoned(_)))),
        "{closed:?}"
    );
}

fn poisoned_wait(outcome: Result<(), WaitError>) -> Result<(), Poison> {
    match outcome {
        Err(WaitError::Poisoned(poison)) => Err(poison),
        Ok(()) => Ok(()),
        Err(error) => panic!("not poisoned: {error:?}"),
    }
}

fn assert_stays_poisoned<M: StateMachine>(manager: &ApplyManager<M>, how: Broken) {
    assert_names_five(&manager.poison().unwrap(), how);
    let before = manager.stats();
    assert!(before.applied < Some(5), "the applied index passed the hole: {:?}", before.applied);
    let refused = manager.apply_entries(&[Entry::noop(before.submitted.unwrap() + 1, 1)]);
    assert!(matches!(refused, Err(SubmitError::Poisoned(_))), "{refused:?}");
    thread::sleep(SHORT);
    let after = manager.stats();
    assert!(after.acknowledged < Some(5) && after.applied < Some(5));
}

/// Proves ORD-13.
#[test]
fn a_panic_or_failure_in_a_state_machine_names_its_index_and_wakes_every_waiter() {
    for how in [Broken::Panics, Broken::Fails] {
        for workers in [1, 3] {
            break_it(memory(), how, apply_config(workers), &puts(1..=6));
            break_it(memory(), how, apply_config(workers).batch_size(1), &puts(1..=6));
            let scratch = Scratch::new();
            let machine = PersistentStateMachine::open(scratch.config()).unwrap();
            break_it(machine, how, apply_config(workers), &puts(1..=6));
        }
    }
}

#[test]
fn a_barrier_that_breaks_does_the_same() {
    let mut log = puts(1..=6);
    log[4].1 = Op::Membership(vec![1]);
    for how in [Broken::Panics, Broken::Fails] {
        break_it(memory(), how, apply_config(3), &log);
    }
}

#[test]
fn a_machine_that_breaks_under_its_caller_poisons_the_engine_too() {
    for how in [Broken::Panics, Broken::Fails] {
        let gate = Arc::new(Gate::default());
        let manager = manage(breaking(memory(), how, &gate), apply_config(1));
        for index in 1..=4 {
            manager.apply(&Entry::noop(index, 1), LONG).unwrap();
        }
        let outcome = manager.apply(&Entry::noop(5, 1), LONG);
        assert_names_five(&poison_of(outcome.unwrap_err()), how);
        assert_stays_poisoned(&manager, how);
        assert_eq!(manager.stats().acknowledged, Some(4));
    }
}

/// Proves DUR-9.
#[test]
fn reads_fail_after_a_failure_and_reopening_brings_back_what_was_acknowledged() {
    let scratch = Scratch::new();
    let open_gate = Arc::new(Gate::default());
    let machine = PersistentStateMachine::open(scratch.config()).unwrap();
    let manager = manage(breaking(machine, Broken::Panics, &open_gate), apply_config(2));
    for index in 1..=4 {
        manager.apply(&Entry::increment(index, 1, b"c", 1), LONG).unwrap();
    }
    assert!(manager.apply(&Entry::increment(5, 1, b"c", 1), LONG).is_err());
    let reader = manager.reader();
    assert!(matches!(reader.get(b"c"), Err(ReadError::Poisoned(_))));
    assert!(matches!(reader.get_with(b"c", <[u8]>::len), Err(ReadError::Poisoned(_))));
    assert!(matches!(reader.get_into(b"c", &mut Vec::new()), Err(ReadError::Poisoned(_))));
    assert!(matches!(reader.contains(b"c"), Err(ReadError::Poisoned(_))));
    assert!(matches!(reader.len(), Err(ReadError::Poisoned(_))));
    assert!(matches!(reader.scan_sorted(), Err(ReadError::Poisoned(_))));
    drop((reader, manager));
    let again = scratch.open();
    let applied = again.stats().applied.unwrap();
    assert!(applied == 4 || applied == 5, "{applied}");
    let counter = again.machine().get(b"c").unwrap().unwrap();
    assert_eq!(counter, applied.to_string().as_bytes());
}

#[test]
fn an_engine_that_is_poisoned_does_not_poison_another() {
    let gate = Arc::new(Gate::default());
    let broken = manage(breaking(memory(), Broken::Panics, &gate), apply_config(1));
    let sound: ApplyManager<MemoryStateMachine> = manage(memory(), apply_config(1));
    submit(&broken, &puts(1..=6)).unwrap();
    assert!(eventually(LONG, || broken.poison().is_some()));
    submit(&sound, &puts(1..=6)).unwrap();
    sound.wait_for_apply(6, LONG).unwrap();
}

/// Processor time of the engine's threads, in hundredths of a second.
fn ticks() -> u64 {
    let of_task = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap();
        let (head, tail) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        if head.contains("(sprag-") { ticks } else { 0 }
    };
    fs::read_dir("/proc/self/task").unwrap().map(|task| of_task(task.unwrap())).sum()
}

/// This runs in a separate process, where no other test has threads of these names.
#[test]
fn child_fails_and_rests() {
    let Some(_) = child_directory() else { return };
    let disk = SimDisk::new(1);
    let config = PersistentConfig::new("simulated")
        .segment_bytes(64 << 10)
        .durability(Durability::Periodic(Duration::from_millis(1)));
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config).unwrap();
    let config = ApplyConfig::new().batch_timeout(Duration::from_micros(1)).pin_workers(false);
    let manager = ApplyManager::new(machine, config).unwrap();
    // A write of such a large part of a segment asks for the next one, and fails.
    disk.reset_operations();
    disk.fail_at(0, Fault::Error(FaultError::Eio));
    let _ = manager.apply_entries(&[Entry::put(1, 1, b"key", &[7; 40 << 10])]).unwrap();
    assert!(eventually(LONG, || manager.poison().is_some()));
    // The threads look for work once a second.
    thread::sleep(Duration::from_millis(1500));
    let before = ticks();
    thread::sleep(Duration::from_secs(1));
    println!("took {} ticks", ticks() - before);
}

#[test]
#[cfg(target_os = "linux")]
fn after_a_failure_the_threads_of_the_engine_rest() {
    let output = child(module_path!(), "child_fails_and_rests", Scratch::new().path().as_path())
        .output()
        .unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let took = output.split("took ").nth(1).unwrap_or_else(|| panic!("{output}"));
    let took: u64 = took.split_whitespace().next().unwrap().parse().unwrap();
    assert!(took < 8, "{took} hundredths of a second");
}
