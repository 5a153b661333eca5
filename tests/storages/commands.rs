//! Tests of commands over a storage, and of what reads see.

use sprag::error::ReadError;
use sprag::testing::storage::MemoryStorage;
use sprag::{
    Command, Entry, LogId, Note, Payload, PersistentStateMachine, Rejection, Reply, StateMachine,
    Storage, StorageBatch, StorageConfig, Table,
};

use super::{TIMEOUT, manage, open, raw};

#[test]
fn every_command_replies_and_changes_what_it_says() {
    let storage = MemoryStorage::new();
    let manager = manage(&storage);
    let swap = |expected, new| Command::compare_and_set(b"k", expected, new);
    let commands = [Command::increment(b"n", 4), Command::delete(b"k"), Command::put(b"l", b"")];
    let note = Some(Note { name: b"note", value: b"7" });
    let batch = Command::Batch { commands: &commands, note };
    let fails = [Command::put(b"n", b"x"), Command::increment(b"n", 1)];
    let fails = Command::Batch { commands: &fails, note };
    let cases = [
        (Command::put(b"k", b"v"), Reply::Put { replaced: false }),
        (Command::put(b"k", b"w"), Reply::Put { replaced: true }),
        (swap(Some(b"v"), None), Reply::Rejected(Rejection::Mismatch)),
        (swap(Some(b"w"), Some(b"")), Reply::Swapped),
        (Command::increment(b"n", -3), Reply::Counter(-3)),
        (Command::increment(b"k", 1), Reply::Rejected(Rejection::NotANumber)),
        (batch, Reply::Batch { commands: 3 }),
        (Command::delete(b"k"), Reply::Deleted { existed: false }),
        (Command::increment(b"n", i64::MAX), Reply::Rejected(Rejection::Overflow)),
    ];
    for (command, expected) in cases {
        assert_eq!(manager.propose(command, TIMEOUT).unwrap(), expected, "{command:?}");
    }
    let rejected = manager.propose(fails, TIMEOUT).unwrap();
    assert!(matches!(rejected, Reply::Rejected(Rejection::InBatch { position: 1, .. })));
    let machine = manager.machine();
    assert_eq!(machine.get(b"n").unwrap().unwrap(), b"1");
    assert_eq!(machine.get(b"l").unwrap().unwrap(), b"");
    assert_eq!(machine.get(b"k").unwrap(), None);
    assert_eq!(machine.get(b"").unwrap(), None);
    assert_eq!(machine.note(b"note").unwrap().unwrap(), b"7");
    assert_eq!((machine.len().unwrap(), machine.is_empty().unwrap()), (2, false));
    assert!(machine.contains(b"l").unwrap() && !machine.contains(b"k").unwrap());
    let mut out = b"before".to_vec();
    assert!(machine.get_into(b"n", &mut out).unwrap());
    assert_eq!(out, b"1");
    assert!(!machine.get_into(b"k", &mut out).unwrap() && out.is_empty());
    assert_eq!(machine.get_with(b"n", <[u8]>::len).unwrap(), Some(1));
    let keys: Vec<_> = machine.scan_sorted().unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [Box::from(&b"l"[..]), Box::from(&b"n"[..])]);
    assert_eq!(manager.stats().machine.keys, 2);
    manager.close(TIMEOUT).unwrap();
}

#[test]
fn a_membership_is_kept_with_its_entry_over_reopening() {
    let storage = MemoryStorage::new();
    let manager = manage(&storage);
    let entry = Entry::new(LogId::new(1, 5), Payload::Membership(b"a,b"));
    manager.apply(&entry, TIMEOUT).unwrap();
    let expected = Some((LogId::new(1, 5), b"a,b".to_vec()));
    assert_eq!(manager.machine().membership().unwrap(), expected);
    manager.close(TIMEOUT).unwrap();
    let machine = open(&storage);
    assert_eq!(machine.membership().unwrap(), expected);
    assert_eq!((machine.applied(), machine.len().unwrap()), (Some(LogId::new(1, 5)), 0));
}

/// Proves DUR-28.
#[test]
fn an_entry_changes_keys_and_log_id_in_one_batch() {
    let storage = MemoryStorage::new();
    let manager = manage(&storage);
    let before = storage.batches();
    let commands = [Command::put(b"a", b"1"), Command::put(b"b", b"2"), Command::put(b"a", b"3")];
    let batch = Command::Batch { commands: &commands, note: None };
    manager.propose(batch, TIMEOUT).unwrap();
    assert_eq!((storage.batches() - before, storage.unsynced()), (1, 0));
    assert_eq!(raw(&storage, Table::State(1), b"a").unwrap(), b"3");
    manager.close(TIMEOUT).unwrap();
    assert_eq!(open(&storage).applied().map(|log_id| log_id.index), Some(1));
}

#[test]
fn an_option_out_of_its_range_is_refused_by_name() {
    let limits = sprag::Limits::new().key_bytes_max(0);
    let config = StorageConfig::default;
    let cases = [
        (config().batch_size(0), "batch_size"),
        (config().batch_size(1 << 17), "batch_size"),
        (config().batch_interval(std::time::Duration::from_secs(61)), "batch_interval"),
        (config().limits(limits), "limits.key_bytes_max"),
    ];
    for (config, name) in cases {
        let storage = MemoryStorage::new();
        match PersistentStateMachine::with_storage(storage.clone(), config) {
            Err(sprag::error::OpenError::Config { option, .. }) => assert_eq!(option, name),
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(storage.operations(), 0);
    }
}

/// Proves DUR-29.
#[test]
fn a_storage_that_fails_poisons_and_its_reply_is_not_given() {
    let storage = MemoryStorage::new();
    let manager = manage(&storage);
    manager.propose(Command::put(b"k", b"1"), TIMEOUT).unwrap();
    storage.fail_once_after(0);
    let error = manager.propose(Command::put(b"k", b"2"), TIMEOUT).unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");
    assert!(manager.poison().is_some());
    assert!(matches!(manager.machine().get(b"k"), Err(ReadError::Poisoned(_))));
    assert!(manager.propose(Command::put(b"k", b"3"), TIMEOUT).is_err());
    drop(manager);
    assert_eq!(open(&storage).get(b"k").unwrap().unwrap(), b"1");
}

/// Proves DUR-29.
#[test]
fn a_storage_with_more_keys_than_it_counts_poisons_and_removes_none() {
    let storage = MemoryStorage::new();
    let manager = manage(&storage);
    let mut batch = StorageBatch::new();
    batch.put(Table::State(1), b"foreign", b"1");
    storage.commit(&batch, true).unwrap();
    let error = manager.propose(Command::delete(b"foreign"), TIMEOUT).unwrap_err();
    assert!(error.to_string().contains("more keys than it counts"), "{error}");
    drop(manager);
    assert_eq!(raw(&storage, Table::State(1), b"foreign").unwrap(), b"1");
}

#[test]
fn a_read_that_fails_names_the_storage_and_poisons_nothing() {
    let storage = MemoryStorage::new();
    let manager = manage(&storage);
    manager.propose(Command::put(b"k", b"1"), TIMEOUT).unwrap();
    storage.fail_reads(true);
    let error = manager.machine().get(b"k").unwrap_err();
    assert!(matches!(error, ReadError::Storage { storage: "memory", .. }), "{error}");
    assert!(manager.machine().scan_sorted().is_err());
    storage.fail_reads(false);
    assert_eq!(manager.machine().get(b"k").unwrap().unwrap(), b"1");
}
