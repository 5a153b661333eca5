//! Tests of installing a snapshot over a storage. A crash leaves the old state or the new one, a
//! failure changes nothing, and a read finds one of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use sprag::error::SnapshotError;
use sprag::testing::storage::MemoryStorage;
use sprag::{
    ApplyConfig, ApplyManager, Command, Entry, LogId, MemoryConfig, MemoryStateMachine, Note,
    Payload, PersistentStateMachine, Snapshot, StateMachine, Storage, StorageConfig, Table,
};

use super::{Machine, TIMEOUT, manage, open};

/// Length of a value so long that a snapshot with a few of them is loaded in several batches.
const LONG: usize = 5 << 19;

/// Ends the loops of other threads, also when this one panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Gives a state to a manager: keys `k0` and up with values of `bytes` bytes, a note and a
/// membership.
fn fill<M: StateMachine>(manager: &ApplyManager<M>, from: u64, keys: u64, bytes: usize, mark: u8) {
    let value = vec![mark; bytes];
    for number in 0..keys {
        let key = format!("k{number}");
        let entry = Entry::put(from + number, 1, key.as_bytes(), &value);
        manager.apply(&entry, TIMEOUT).unwrap();
    }
    let note = Some(Note { name: b"note", value: &[mark] });
    let batch = Payload::Command(Command::Batch { commands: &[], note });
    manager.apply(&Entry::new(LogId::new(from + keys, 1), batch), TIMEOUT).unwrap();
    let members = [mark];
    let membership = Entry::new(LogId::new(from + keys + 1, 1), Payload::Membership(&members));
    manager.apply(&membership, TIMEOUT).unwrap();
}

/// The bytes of a snapshot of a machine in memory, and the snapshot.
fn snapshot_of(keys: u64, bytes: usize, mark: u8, last: u64) -> (Vec<u8>, Snapshot) {
    let machine = MemoryStateMachine::new(MemoryConfig::new()).unwrap();
    let manager = ApplyManager::new(machine, ApplyConfig::new()).unwrap();
    fill(&manager, 1, keys, bytes, mark);
    for index in keys + 3..=last {
        manager.apply(&Entry::noop(index, 1), TIMEOUT).unwrap();
    }
    let mut bytes = Vec::new();
    manager.snapshots().write_to(&mut bytes).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    (bytes, Snapshot::open(file.path()).unwrap())
}

/// A storage with an earlier state.
fn old() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let manager = manage(&storage);
    fill(&manager, 1, 2, 10, b'o');
    manager.close(TIMEOUT).unwrap();
    storage
}

fn bytes_of(machine: &Machine) -> Vec<u8> {
    let mut bytes = Vec::new();
    machine.snapshot(&mut bytes).unwrap();
    bytes
}

fn tables(storage: &MemoryStorage) -> usize {
    storage.tables().unwrap().len()
}

/// Proves DUR-30.
#[test]
fn a_power_cut_at_every_change_of_an_installation_leaves_the_old_state_or_the_new_one() {
    let (new, snapshot) = snapshot_of(4, LONG, b'n', 20);
    let mut left_old = 0;
    for cut in 0.. {
        let storage = old();
        let manager = manage(&storage);
        let before = bytes_of(manager.machine());
        storage.fail_after(cut);
        let installed = manager.snapshots().restore(&snapshot, TIMEOUT);
        for keep in 0..=storage.unsynced() {
            let left = storage.after_power_cut(keep);
            let machine = open(&left);
            let found = bytes_of(&machine);
            assert!(found == before || found == new, "{cut}, {keep}");
            assert!(installed.is_err() || found == new, "{cut}, {keep}");
            assert_eq!(tables(&left), 3, "{cut}, {keep}: the other state is gone");
            left_old += u32::from(found == before);
            // The machine continues from there.
            let next = machine.applied().unwrap().index + 1;
            let manager = ApplyManager::new(machine, ApplyConfig::new()).unwrap();
            manager.apply(&Entry::put(next, 1, b"next", b"1"), TIMEOUT).unwrap();
            manager.close(TIMEOUT).unwrap();
        }
        if installed.is_ok() && storage.operations() < cut {
            assert!(cut > 6 && left_old > 3, "{cut}, {left_old}");
            return;
        }
    }
}

/// Proves DUR-30.
#[test]
fn a_failure_at_any_change_of_an_installation_changes_nothing_or_poisons() {
    let (new, snapshot) = snapshot_of(4, LONG, b'n', 20);
    let mut poisoned = 0;
    for at in 0.. {
        let storage = old();
        let manager = manage(&storage);
        let before = bytes_of(manager.machine());
        let operations = storage.operations();
        storage.fail_once_after(at);
        match manager.snapshots().restore(&snapshot, TIMEOUT) {
            Ok(_) => {
                assert_eq!(bytes_of(manager.machine()), new);
                if storage.operations() - operations <= at {
                    // The operations are the two tables made, the batches, and the one that
                    // switches. Only one of these leaves the outcome unknown.
                    assert!(at > 6 && poisoned == 1, "{at}, {poisoned}");
                    return;
                }
            }
            Err(SnapshotError::Poisoned(_)) => {
                poisoned += 1;
                assert!(manager.poison().is_some() && manager.machine().get(b"k0").is_err());
                drop(manager);
                let found = bytes_of(&open(&storage));
                assert!(found == before || found == new);
            }
            Err(error) => {
                assert!(matches!(error, SnapshotError::Storage { .. }), "{at}: {error}");
                assert_eq!((manager.poison().is_none(), tables(&storage)), (true, 3), "{at}");
                assert_eq!(bytes_of(manager.machine()), before);
                let next = manager.applied().unwrap().index + 1;
                manager.apply(&Entry::put(next, 1, b"k0", b"1"), TIMEOUT).unwrap();
                manager.snapshots().restore(&snapshot, TIMEOUT).unwrap();
                assert_eq!(bytes_of(manager.machine()), new);
            }
        }
    }
}

/// Proves DUR-30.
#[test]
fn too_little_room_fails_the_call_and_changes_nothing() {
    let (new, snapshot) = snapshot_of(4, LONG, b'n', 20);
    let storage = old();
    let manager = manage(&storage);
    let before = bytes_of(manager.machine());
    storage.set_capacity(Some(3 * LONG));
    let error = manager.snapshots().restore(&snapshot, TIMEOUT).unwrap_err();
    assert!(error.is_disk_full(), "{error}");
    assert_eq!((bytes_of(manager.machine()), tables(&storage)), (before, 3));
    storage.set_capacity(Some(5 * LONG));
    manager.snapshots().restore(&snapshot, TIMEOUT).unwrap();
    assert_eq!((bytes_of(manager.machine()), tables(&storage)), (new, 3));
    manager.close(TIMEOUT).unwrap();
}

#[test]
fn a_snapshot_of_another_kind_and_one_that_ends_early_change_nothing() {
    let (new, _) = snapshot_of(4, 10, b'n', 20);
    let storage = old();
    let machine = open(&storage);
    let before = bytes_of(&machine);
    let mut short = &new[..new.len() - 1];
    assert!(machine.restore(&mut short).is_err());
    assert_eq!((bytes_of(&machine), tables(&storage)), (before, 3));
}

#[test]
fn a_read_during_an_installation_finds_the_old_value_or_the_new_one() {
    for cached in [false, true] {
        check_reads(&cached_or_not(cached));
    }
}

fn cached_or_not(cached: bool) -> Machine {
    let config = StorageConfig::new().enable_cache(cached);
    PersistentStateMachine::with_storage(MemoryStorage::new(), config).unwrap()
}

fn check_reads(machine: &Machine) {
    let states = [snapshot_of(40, 10, b'a', 60).0, snapshot_of(40, 10, b'b', 61).0];
    machine.restore(&mut &states[0][..]).unwrap();
    let done = AtomicBool::new(false);
    let is_whole = |value: &[u8], len| value.len() == len && matches!(value[0], b'a' | b'b');
    let is_done = || done.load(Ordering::Relaxed);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in (0..40).cycle() {
                let key = format!("k{number}");
                let value = machine.get(key.as_bytes()).unwrap();
                assert!(value.is_some_and(|value| is_whole(&value, 10)), "{key}");
                assert!(machine.contains(key.as_bytes()).unwrap());
                let note = machine.note(b"note").unwrap();
                assert!(note.is_some_and(|note| is_whole(&note, 1)));
                if is_done() {
                    return;
                }
            }
        });
        scope.spawn(|| {
            while !is_done() {
                let keys = machine.scan_sorted().unwrap();
                assert_eq!(keys.len(), 40);
                assert!(keys.iter().all(|(_, value)| value[0] == keys[0].1[0]), "of one state");
                assert_eq!(machine.len().unwrap(), 40);
            }
        });
        let _stop = Stop(&done);
        for round in 0..200 {
            machine.restore(&mut &states[round % 2][..]).unwrap();
            let value = machine.get(b"k0").unwrap().unwrap();
            assert_eq!(value[0], [b'a', b'b'][round % 2], "what was installed is read at once");
        }
    });
    assert_eq!(bytes_of(machine), states[1]);
}

/// Proves ORD-9.
#[test]
fn a_view_is_of_its_index_while_apply_and_installations_go_on() {
    let storage = MemoryStorage::new();
    let manager = manage(&storage);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let views = scope.spawn(|| {
            let mut views = Vec::new();
            while !done.load(Ordering::Relaxed) {
                views.push(manager.snapshots().view().unwrap());
            }
            views
        });
        let stop = Stop(&done);
        for _ in 0..300 {
            manager.propose(Command::increment(b"n", 1), TIMEOUT).unwrap();
        }
        drop(stop);
        let views = views.join().unwrap();
        let (new, snapshot) = snapshot_of(4, 10, b'n', 1000);
        manager.snapshots().restore(&snapshot, TIMEOUT).unwrap();
        for view in &views {
            let index = view.log_id().map_or(0, |log_id| log_id.index);
            let count = view
                .get(b"n")
                .unwrap()
                .map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap());
            assert_eq!((count, view.len() as u64), (index, index.min(1)));
        }
        assert_eq!(bytes_of(manager.machine()), new);
    });
    assert_eq!(storage.tables().unwrap(), [Table::Meta, Table::Notes(2), Table::State(2)]);
}
