//! Tests of the promises of `Journaled` to an embedder's machine. After every end of the process,
//! its state is that of the log. It never gets an entry twice, early, or of another log.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Mutex;

use crate::common::machines::{Gate, gated};
use crate::common::{LONG, Scratch, apply_config, dir_bytes, manage, workers};
use sprag::error::{OpenError, Poison, ReadError, SnapshotError};
use sprag::testing::{Fault, FaultError, SimDisk, Stepped};
use sprag::{
    ApplyConfig, ApplyManager, CommitMode, Entry, EntryRange, Fatal, Footprint, Journaled, LogId,
    MemoryConfig, MemoryStateMachine, Partition, Payload, PayloadRef, PersistentConfig,
    PersistentStateMachine, Replies, Reply, SnapshotSink, SnapshotSource, Stage, StateMachine,
};

/// Sixteen numbers, and the indexes seen; the order of one number's entries shows in it.
#[derive(Debug)]
struct Numbers {
    numbers: Vec<Mutex<u64>>,
    seen: Mutex<Vec<u64>>,
    /// The last entry that it claims to have.
    had: Option<LogId>,
    panics_on_snapshot: bool,
    panics_on_restore: bool,
}

/// Payload that makes the machine fail; the next constant kills the process.
const FATAL: u8 = 0xfe;
const PANIC: u8 = 0xff;
/// Payload that concerns every number.
const ALL: u8 = 0xfd;

impl Numbers {
    fn new() -> Self {
        Self::from(None)
    }

    fn from(had: Option<LogId>) -> Self {
        let numbers = (0..16).map(|_| Mutex::new(0)).collect();
        Self {
            numbers,
            seen: Mutex::default(),
            had,
            panics_on_snapshot: false,
            panics_on_restore: false,
        }
    }

    fn numbers(&self) -> Vec<u64> {
        self.numbers.iter().map(|number| *number.lock().unwrap()).collect()
    }

    /// The indexes that the machine got, in no order between partitions.
    fn seen(&self) -> Vec<u64> {
        let mut seen = self.seen.lock().unwrap().clone();
        seen.sort_unstable();
        seen
    }

    fn push(number: &Mutex<u64>, index: u64) -> u64 {
        let mut number = number.lock().unwrap();
        *number = number.wrapping_mul(31).wrapping_add(index);
        *number
    }
}

impl StateMachine for Numbers {
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        match payload {
            PayloadRef::Opaque([ALL]) => Footprint::All,
            PayloadRef::Opaque(bytes) => Footprint::key(bytes),
            _ => Footprint::key(b""),
        }
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        for entry in range.entries(partition) {
            let entry = entry?;
            let PayloadRef::Opaque([which]) = entry.payload else { continue };
            self.seen.lock().unwrap().push(entry.log_id.index);
            let number = match *which {
                FATAL => return Err(Fatal::new("told to")),
                PANIC => panic!("told to"),
                ALL => {
                    let all = self.numbers.iter();
                    all.map(|number| Self::push(number, entry.log_id.index)).last().unwrap()
                }
                which => {
                    let number = &self.numbers[usize::from(which) % self.numbers.len()];
                    Self::push(number, entry.log_id.index)
                }
            };
            replies.set(&entry, Reply::Custom(number));
        }
        Ok(())
    }

    fn applied(&self) -> Option<LogId> {
        self.had
    }

    fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
        assert!(!self.panics_on_snapshot, "told to");
        for number in self.numbers() {
            out.write(&number.to_le_bytes()).unwrap();
        }
        Ok(())
    }

    fn restore(&self, source: &mut dyn SnapshotSource) -> Result<(), SnapshotError> {
        assert!(!self.panics_on_restore, "told to");
        for number in &self.numbers {
            let mut bytes = [0; 8];
            assert_eq!(source.read(&mut bytes).unwrap(), 8);
            *number.lock().unwrap() = u64::from_le_bytes(bytes);
        }
        Ok(())
    }
}

/// The payload of entry `index`, without special meaning.
fn payload(index: u64) -> [u8; 1] {
    match index % 10 {
        9 => [ALL],
        _ => [u8::try_from(index * 7 % 16).unwrap()],
    }
}

fn entry(index: u64, payload: &[u8]) -> Entry<'_> {
    Entry::new(LogId::new(index, 1), Payload::Opaque(payload))
}

fn submit<M: StateMachine>(manager: &ApplyManager<M>, indexes: std::ops::RangeInclusive<u64>) {
    let payloads: Vec<_> = indexes.clone().map(payload).collect();
    let entries: Vec<_> =
        indexes.zip(&payloads).map(|(index, payload)| entry(index, payload)).collect();
    let _ = manager.apply_entries(&entries).unwrap();
}

/// The numbers after entries `1..=last`, by definition.
fn expected(last: u64) -> Vec<u64> {
    let numbers = Numbers::new();
    for index in 1..=last {
        match payload(index) {
            [ALL] => numbers.numbers.iter().for_each(|number| {
                Numbers::push(number, index);
            }),
            [which] => {
                Numbers::push(&numbers.numbers[usize::from(which)], index);
            }
        }
    }
    numbers.numbers()
}

fn open(config: PersistentConfig) -> Journaled<Numbers> {
    Journaled::open(config, Numbers::new()).unwrap()
}

fn refused(config: PersistentConfig, machine: Numbers) -> OpenError {
    match Journaled::open(config, machine) {
        Ok(_) => panic!("opening must be refused"),
        Err(error) => error,
    }
}

/// A closed directory with entries `1..=last`.
fn written(last: u64) -> Scratch {
    let scratch = Scratch::new();
    let manager = manage(open(scratch.config()), apply_config(3).inline_apply(false));
    for first in (1..=last).step_by(1000) {
        submit(&manager, first..=last.min(first + 999));
        manager.flush_pending(LONG).unwrap();
    }
    manager.close(LONG).unwrap();
    scratch
}

#[test]
fn a_machine_comes_back_from_the_log_with_every_entry_once() {
    let scratch = Scratch::new();
    let mut last = 0;
    for round in 1..=4_usize {
        let machine = open(scratch.config());
        assert_eq!(machine.applied().map(|applied| applied.index), (last > 0).then_some(last));
        assert_eq!(machine.seen(), (1..=last).collect::<Vec<_>>());
        assert_eq!(machine.recovery().applied, (last > 0).then_some(last));
        let manager = manage(machine, apply_config(round).inline_apply(round % 2 == 0));
        submit(&manager, last + 1..=last + 500);
        last += 500;
        let mut replies = Vec::new();
        manager
            .apply_entries_sync(&[entry(last + 1, &payload(last + 1))], LONG, &mut replies)
            .unwrap();
        last += 1;
        assert!(expected(last).iter().any(|number| replies == [Reply::Custom(*number)]));
        assert_eq!(manager.machine().numbers(), expected(last), "{round} workers");
        assert_eq!(manager.machine().applied(), Some(LogId::new(last, 1)));
        assert_eq!(manager.stats().machine.last_applied, Some(last));
        manager.close(LONG).unwrap();
    }
    assert!(dir_bytes(&scratch.path()).len() > 3, "several segments");
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_and_the_rest_is_a_prefix() {
    let config = PersistentConfig::new("simulated").segment_bytes(64 << 10);
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let machine =
            Journaled::open_on_disk(disk.open(true).unwrap(), config.clone(), Numbers::new());
        let engine = Stepped::new(machine.unwrap(), ApplyConfig::new().worker_count(workers(2)));
        let engine = engine.unwrap();
        for index in 1..=60 {
            submit(&engine, index..=index);
            if (index + seed) % 7 == 0 {
                engine.step_log_writer();
                engine.step_worker(usize::try_from(index % 2).unwrap());
            }
        }
        let acknowledged = engine.stats().acknowledged.unwrap_or(0);
        disk.power_cut_random();
        drop(engine);

        let machine =
            Journaled::open_on_disk(disk.open(true).unwrap(), config.clone(), Numbers::new());
        let machine = machine.unwrap();
        let recovered = machine.applied().map_or(0, |applied| applied.index);
        assert!(recovered >= acknowledged, "seed {seed}: {recovered} of {acknowledged}");
        assert_eq!(machine.seen(), (1..=recovered).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(machine.numbers(), expected(recovered), "seed {seed}");
    }
}

#[test]
fn a_panic_in_replay_is_an_open_error_that_names_the_index_and_changes_nothing() {
    for (what, ends) in [("panic", PANIC), ("fatal", FATAL)] {
        let scratch = written(200);
        let gate = Gate::shut();
        let manager = manage(gated(open(scratch.config()), &gate), apply_config(1));
        let _opener = gate.opener();
        let bytes = [ends];
        let _ = manager.apply_entries(&[entry(201, &bytes), entry(202, &payload(202))]).unwrap();
        // After the failure the entry would not be written any more.
        manager.wait_until(202, Stage::Durable, LONG).unwrap();
        gate.open();
        manager.wait_for_apply(202, LONG).unwrap_err();
        let poison = manager.poison().unwrap();
        drop(manager);
        let before = dir_bytes(&scratch.path());
        let OpenError::Replay(replay) = refused(scratch.config(), Numbers::new()) else {
            panic!("{what}: another error");
        };
        for poison in [poison, replay] {
            match poison {
                Poison::Panic { index } => assert_eq!((what, index), ("panic", 201)),
                Poison::Fatal { index, message } => {
                    assert_eq!((what, index, &*message), ("fatal", 201, "told to"));
                }
                other => panic!("{what}: {other}"),
            }
        }
        assert!(dir_bytes(&scratch.path()) == before, "{what}: a refused open changed a byte");
    }
}

#[test]
fn a_machine_that_has_state_already_is_given_what_comes_after_it() {
    let scratch = written(300);
    for had in [1, 127, 128, 129, 299, 300] {
        let machine = Numbers::from(Some(LogId::new(had, 1)));
        let machine = Journaled::open(scratch.config(), machine).unwrap();
        assert_eq!(machine.seen(), (had + 1..=300).collect::<Vec<_>>());
        assert_eq!(machine.applied(), Some(LogId::new(300, 1)));
    }
    // The engine continues from the log's end, not from the machine's own count.
    let machine = Numbers::from(Some(LogId::new(200, 1)));
    let manager = manage(Journaled::open(scratch.config(), machine).unwrap(), apply_config(2));
    submit(&manager, 301..=310);
    manager.wait_for_apply(310, LONG).unwrap();
    assert_eq!(manager.machine().seen(), (201..=310).collect::<Vec<_>>());
    manager.close(LONG).unwrap();
}

#[test]
fn a_machine_with_the_state_of_another_log_is_refused() {
    let scratch = written(300);
    let before = dir_bytes(&scratch.path());
    for (applied, found) in [
        (LogId::new(301, 1), None),
        (LogId::new(u64::MAX, 1), None),
        (LogId::new(150, 2), Some(LogId::new(150, 1))),
    ] {
        match refused(scratch.config(), Numbers::from(Some(applied))) {
            OpenError::OtherLog { applied: said, found: there } => {
                assert_eq!((said, there), (applied, found));
            }
            other => panic!("{other}"),
        }
        assert!(dir_bytes(&scratch.path()) == before, "a refused open changed a byte");
    }
    // An empty log has not committed the entry either, and none is made.
    let empty = Scratch::new();
    let error = refused(empty.config(), Numbers::from(Some(LogId::new(0, 1))));
    assert!(matches!(error, OpenError::OtherLog { found: None, .. }), "{error}");
    assert_eq!(dir_bytes(&empty.path()).iter().filter(|(name, _)| name == "META").count(), 0);
}

#[test]
fn a_machine_that_has_a_log_of_its_own_is_refused() {
    let (outer, inner) = (Scratch::new(), Scratch::new());
    let machine = PersistentStateMachine::open(inner.config()).unwrap();
    match Journaled::open(outer.config(), machine) {
        Err(OpenError::Config { option: "state machine", .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_what_is_committed_is_replayed_and_what_was_truncated_is_not() {
    let scratch = Scratch::new();
    let manager = manage(open(scratch.by_commit()), apply_config(2));
    let append = |index: u64, term: u64, payload: [u8; 1]| {
        let entry = Entry::new(LogId::new(index, term), Payload::Opaque(&payload));
        let _ = manager.consensus().unwrap().append(&[entry]).unwrap();
    };
    (1..=20).for_each(|index| append(index, 1, payload(index)));
    manager.consensus().unwrap().commit(10).unwrap();
    manager.consensus().unwrap().truncate_after(Some(12)).unwrap();
    // The numbers, and a panic, would reveal these entries.
    (13..=16).for_each(|index| append(index, 2, payload(index)));
    append(17, 2, [PANIC]);
    manager.consensus().unwrap().commit(16).unwrap();
    manager.wait_for_apply(16, LONG).unwrap();
    manager.close(LONG).unwrap();

    let machine = open(scratch.by_commit());
    assert_eq!(machine.numbers(), expected(16));
    assert_eq!(machine.seen(), (1..=16).collect::<Vec<_>>());
    assert_eq!(machine.applied(), Some(LogId::new(16, 2)));
    assert_eq!(machine.recovery().last, Some(LogId::new(17, 2)));
    let manager = manage(machine, apply_config(2));
    manager.consensus().unwrap().truncate_after(Some(16)).unwrap();
    let payload = payload(17);
    let _ = manager
        .consensus()
        .unwrap()
        .append(&[Entry::new(LogId::new(17, 3), Payload::Opaque(&payload))])
        .unwrap();
    manager.consensus().unwrap().commit(17).unwrap();
    manager.wait_for_apply(17, LONG).unwrap();
    assert_eq!(manager.machine().numbers(), expected(17));
    manager.close(LONG).unwrap();
    match refused(scratch.config().commit_mode(CommitMode::OnAppend), Numbers::new()) {
        OpenError::CommitMode { .. } => {}
        other => panic!("{other}"),
    }
}

/// Proves DUR-16.
#[test]
fn looking_at_a_directory_changes_nothing_even_beside_its_writer() {
    let scratch = written(100);
    let before = dir_bytes(&scratch.path());
    let machine = Journaled::open_read_only(scratch.path(), Numbers::new()).unwrap();
    assert_eq!(machine.numbers(), expected(100));
    assert!(!machine.recovery().beside_a_writer);
    match ApplyManager::new(machine, apply_config(1)) {
        Err(OpenError::Config { option: "state machine", .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(dir_bytes(&scratch.path()) == before);

    let manager = manage(open(scratch.config()), apply_config(2));
    submit(&manager, 101..=150);
    manager.wait_for_apply(150, LONG).unwrap();
    let machine = Journaled::open_read_only(scratch.path(), Numbers::new()).unwrap();
    assert!(machine.recovery().beside_a_writer);
    assert_eq!(machine.numbers(), expected(150));
    manager.close(LONG).unwrap();
}

#[test]
fn a_machine_opens_from_its_snapshot_and_is_given_what_comes_after_it() {
    let scratch = written(20_000);
    let manager = manage(open(scratch.config()), apply_config(3));
    let report = manager.snapshots().compact().unwrap();
    assert_eq!(report.snapshot.log_id, Some(LogId::new(20_000, 1)));
    let purged = report.purged.unwrap();
    submit(&manager, 20_001..=20_100);
    manager.close(LONG).unwrap();

    let machine = open(scratch.config());
    assert_eq!(machine.numbers(), expected(20_100));
    assert_eq!(machine.seen(), (20_001..=20_100).collect::<Vec<_>>());
    assert_eq!(machine.recovery().snapshot, Some(LogId::new(20_000, 1)));
    drop(machine);
    // A machine with state beyond the snapshot does not need it; one that is behind the log's start
    // gets it.
    for (had, first) in [(20_050, 20_051), (purged, 20_001), (1, 20_001)] {
        let machine = Numbers::from(Some(LogId::new(had, 1)));
        let machine = Journaled::open(scratch.config(), machine).unwrap();
        assert_eq!(machine.seen(), (first..=20_100).collect::<Vec<_>>(), "it had {had}");
        assert_eq!(machine.applied(), Some(LogId::new(20_100, 1)));
    }
    let machine = Journaled::open_read_only(scratch.path(), Numbers::new()).unwrap();
    assert_eq!(machine.numbers(), expected(20_100));
}

#[test]
fn a_machine_without_snapshots_says_so_and_goes_on() {
    struct Plain(Numbers);
    impl StateMachine for Plain {
        fn apply(
            &self,
            range: &EntryRange<'_>,
            partition: Partition,
            replies: &mut Replies<'_>,
        ) -> Result<(), Fatal> {
            self.0.apply(range, partition, replies)
        }

        fn applied(&self) -> Option<LogId> {
            self.0.applied()
        }
    }
    let scratch = Scratch::new();
    let machine = Journaled::open(scratch.config(), Plain(Numbers::new())).unwrap();
    let manager = manage(machine, apply_config(2));
    submit(&manager, 1..=10);
    let unsupported = |error| matches!(error, SnapshotError::Unsupported { .. });
    assert!(manager.snapshots().write().is_err_and(unsupported));
    assert!(manager.snapshots().compact().is_err_and(unsupported));
    submit(&manager, 11..=20);
    manager.close(LONG).unwrap();
    let machine = Journaled::open(scratch.config(), Plain(Numbers::new())).unwrap();
    assert_eq!(machine.0.numbers(), expected(20));
}

#[test]
fn a_panic_while_a_snapshot_is_written_or_restored_is_an_error_that_names_the_index() {
    let scratch = written(300);
    let manager = manage(open(scratch.config()), apply_config(2));
    manager.snapshots().write().unwrap();
    submit(&manager, 301..=310);
    manager.close(LONG).unwrap();

    let mut machine = Numbers::new();
    machine.panics_on_restore = true;
    match refused(scratch.config(), machine) {
        OpenError::Replay(Poison::Panic { index: 300 }) => {}
        other => panic!("{other}"),
    }
    let mut machine = Numbers::new();
    machine.panics_on_snapshot = true;
    let manager = manage(Journaled::open(scratch.config(), machine).unwrap(), apply_config(2));
    match manager.snapshots().write() {
        Err(SnapshotError::Poisoned(Poison::Panic { index: 310 })) => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(manager.poison(), Some(Poison::Panic { index: 310 })));
    drop(manager);

    // A running engine gets one, too.
    let manager = manage(open(scratch.config()), apply_config(2));
    manager.snapshots().write().unwrap();
    let snapshot = manager.snapshots().newest().unwrap().unwrap();
    let other = Scratch::new();
    let mut machine = Numbers::new();
    machine.panics_on_restore = true;
    let receiver = manage(Journaled::open(other.config(), machine).unwrap(), apply_config(2));
    match receiver.snapshots().restore(&snapshot, LONG) {
        Err(SnapshotError::Poisoned(Poison::Panic { index: 310 })) => {}
        other => panic!("{other:?}"),
    }
    assert!(receiver.poison().is_some());
    drop(receiver);
    manager.close(LONG).unwrap();
    drop(snapshot);
    assert_eq!(open(scratch.config()).numbers(), expected(310));
}

#[test]
fn a_machine_takes_up_the_snapshot_of_another_node_and_goes_on() {
    let (from, to) = (written(500), written(20));
    let sender = manage(open(from.config()), apply_config(2));
    sender.snapshots().write().unwrap();
    let snapshot = sender.snapshots().newest().unwrap().unwrap();
    let receiver = manage(open(to.config()), apply_config(2));
    receiver.snapshots().restore(&snapshot, LONG).unwrap();
    assert_eq!(receiver.machine().numbers(), expected(500));
    assert_eq!(receiver.machine().applied(), Some(LogId::new(500, 1)));
    submit(&receiver, 501..=600);
    receiver.close(LONG).unwrap();
    let machine = open(to.config());
    assert_eq!(machine.numbers(), expected(600));
    assert_eq!(machine.seen(), (501..=600).collect::<Vec<_>>());
}

#[test]
fn a_second_opening_is_refused_while_the_first_is_there() {
    let scratch = written(3);
    let first = open(scratch.config());
    assert!(matches!(refused(scratch.config(), Numbers::new()), OpenError::Locked { .. }));
    drop(first);
    open(scratch.config());
}

#[test]
fn the_memory_machine_over_a_log_keeps_its_values_in_memory_and_comes_back() {
    let scratch = Scratch::new();
    let open = || {
        let memory = MemoryStateMachine::new(MemoryConfig::new()).unwrap();
        Journaled::open(scratch.config(), memory).unwrap()
    };
    let manager = manage(open(), apply_config(3));
    let long = vec![7; 5000];
    let entries =
        [Entry::put(1, 1, b"k", &long), Entry::increment(2, 1, b"n", 5), Entry::delete(3, 1, b"x")];
    let _ = manager.apply_entries(&entries).unwrap();
    assert_eq!(manager.apply(&Entry::increment(4, 1, b"n", 2), LONG).unwrap(), Reply::Counter(7));
    manager.close(LONG).unwrap();
    let machine = open();
    assert_eq!(machine.get(b"n").unwrap().as_deref(), Some(&b"7"[..]));
    // In memory, a value outlives the machine, and holds no segment and no lock.
    let value = machine.get(b"k").unwrap().unwrap();
    assert_eq!(machine.len().unwrap(), 2);
    drop(machine);
    let machine = open();
    assert_eq!(*value, *long);
    drop(machine);
}

#[test]
fn a_failed_log_makes_reads_fail_and_acknowledges_nothing() {
    let config = PersistentConfig::new("simulated").segment_bytes(64 << 10);
    let disk = SimDisk::new(1);
    let memory = MemoryStateMachine::new(MemoryConfig::new()).unwrap();
    let machine = Journaled::open_on_disk(disk.open(true).unwrap(), config, memory).unwrap();
    let engine = Stepped::new(machine, ApplyConfig::new().worker_count(workers(1))).unwrap();
    let _ = engine.apply_entries(&[Entry::put(1, 1, b"k", b"1")]).unwrap();
    engine.run_until_idle();
    assert!(engine.machine().read().is_ok());
    disk.fail_at(disk.operations(), Fault::Error(FaultError::Eio));
    let _ = engine.apply_entries(&[Entry::put(2, 1, b"k", b"2")]).unwrap();
    engine.run_until_idle();
    assert_eq!(engine.stats().acknowledged, Some(1));
    assert!(matches!(engine.machine().read(), Err(ReadError::Poisoned(Poison::Io { .. }))));
    // Reads of the inner machine fail too.
    assert!(matches!(engine.machine().get(b"k"), Err(ReadError::Poisoned(Poison::Io { .. }))));
}

#[test]
fn the_memory_machine_is_saved_and_taken_up_again_without_a_log() {
    let memory = || MemoryStateMachine::new(MemoryConfig::new()).unwrap();
    let manager = manage(memory(), apply_config(2));
    let long = vec![9; 3000];
    let _ = manager
        .apply_entries(&[Entry::put(1, 1, b"a", &long), Entry::put(2, 2, b"b", b"")])
        .unwrap();
    manager.apply(&Entry::increment(3, 2, b"n", 5), LONG).unwrap();
    let (mut by_engine, mut by_itself) = (Vec::new(), Vec::new());
    manager.snapshots().write_to(&mut by_engine).unwrap();
    manager.machine().snapshot(&mut by_itself).unwrap();
    assert!(by_engine == by_itself);

    let machine = memory();
    machine.restore(&mut &by_itself[..]).unwrap();
    assert_eq!(machine.applied(), Some(LogId::new(3, 2)));
    let manager = manage(machine, apply_config(2));
    assert_eq!(manager.machine().get(b"a").unwrap().unwrap(), long[..]);
    assert_eq!(manager.apply(&Entry::increment(4, 2, b"n", 1), LONG).unwrap(), Reply::Counter(6));
    // The directory belongs to the other kind: an embedder's machine wrote it.
    let scratch = written(10);
    let manager = manage(open(scratch.config()), apply_config(1));
    let mut blob = Vec::new();
    manager.snapshots().write_to(&mut blob).unwrap();
    let machine = memory();
    let refused = machine.restore(&mut &blob[..]);
    assert!(matches!(refused, Err(SnapshotError::OtherKind { .. })), "{refused:?}");
    assert_eq!((machine.len().unwrap(), machine.applied()), (0, None));
}
