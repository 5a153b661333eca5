//! Tests of opening over a storage that has a state, the beginning of one, or foreign content.

use sprag::error::OpenError;
use sprag::testing::storage::MemoryStorage;
use sprag::{
    Command, PersistentStateMachine, StateMachine, Storage, StorageBatch, StorageConfig, Table,
};

use super::{TIMEOUT, manage, open, raw};

fn refused(storage: &MemoryStorage) -> OpenError {
    let before = storage.operations();
    let opened = PersistentStateMachine::with_storage(storage.clone(), StorageConfig::new());
    let error = opened.unwrap_err();
    assert_eq!(storage.operations(), before, "nothing was changed");
    error
}

fn put(storage: &MemoryStorage, table: Table, key: &[u8], value: &[u8]) {
    storage.create_table(table).unwrap();
    let mut batch = StorageBatch::new();
    batch.put(table, key, value);
    storage.commit(&batch, true).unwrap();
}

#[test]
fn a_power_cut_at_every_change_while_a_storage_is_made_leaves_one_that_opens_empty() {
    for cut in 0.. {
        let storage = MemoryStorage::new();
        storage.fail_after(cut);
        let made = PersistentStateMachine::with_storage(storage.clone(), StorageConfig::new());
        for keep in 0..=storage.unsynced() {
            let left = storage.after_power_cut(keep);
            let machine = open(&left);
            assert_eq!((machine.applied(), machine.len().unwrap()), (None, 0), "{cut}, {keep}");
            drop(machine);
            let manager = manage(&left);
            manager.propose(Command::put(b"k", b"v"), TIMEOUT).unwrap();
            manager.close(TIMEOUT).unwrap();
            assert_eq!(open(&left).len().unwrap(), 1);
        }
        if made.is_ok() {
            assert!(cut > 3, "{cut}");
            return;
        }
    }
}

#[test]
fn keys_without_a_record_of_the_state_are_refused_and_left_alone() {
    for table in [Table::State(1), Table::Notes(1), Table::State(9), Table::Meta] {
        let storage = MemoryStorage::new();
        put(&storage, table, b"foreign", b"bytes");
        let error = refused(&storage);
        assert!(matches!(error, OpenError::Corrupt(_)), "{error}");
        assert!(error.to_string().contains("no record of the state"), "{error}");
        assert_eq!(raw(&storage, table, b"foreign").unwrap(), b"bytes");
    }
}

#[test]
fn tables_without_keys_and_without_a_record_are_a_storage_that_was_being_made() {
    let storage = MemoryStorage::new();
    for table in [Table::State(1), Table::State(4), Table::Meta] {
        storage.create_table(table).unwrap();
    }
    assert!(open(&storage).is_empty().unwrap());
    assert_eq!(storage.tables().unwrap(), [Table::Meta, Table::Notes(1), Table::State(1)]);
}

#[test]
fn a_damaged_record_is_refused_and_a_later_version_by_its_number() {
    let storage = MemoryStorage::new();
    drop(open(&storage));
    let good = raw(&storage, Table::Meta, b"state").unwrap();
    let mut damaged = good.clone();
    damaged[20] ^= 1;
    put(&storage, Table::Meta, b"state", &damaged);
    let error = refused(&storage);
    assert!(matches!(error, OpenError::Corrupt(_)), "{error}");
    let mut later = good[..good.len() - 4].to_vec();
    later[8] = 2;
    let crc = crc32c::crc32c(&later).to_le_bytes();
    put(&storage, Table::Meta, b"state", &[later, crc.to_vec()].concat());
    let error = refused(&storage);
    let is_version = matches!(error, OpenError::UnknownVersion { found: 2, supported: 1, .. });
    assert!(is_version, "{error}");
    put(&storage, Table::Meta, b"state", &good);
    put(&storage, Table::Meta, b"membership", b"short");
    let error = refused(&storage);
    assert!(error.to_string().contains("\"membership\""), "{error}");
}

#[test]
fn a_storage_that_fails_while_it_is_opened_says_so() {
    let storage = MemoryStorage::new();
    drop(open(&storage));
    storage.fail_reads(true);
    let error = refused(&storage);
    assert!(matches!(error, OpenError::Storage { storage: "memory", .. }), "{error}");
}

#[test]
fn what_was_committed_without_a_sync_is_synced_before_it_counts_as_durable() {
    let storage = MemoryStorage::new();
    drop(open(&storage));
    let config = StorageConfig::new().sync_writes(false);
    let machine = PersistentStateMachine::with_storage(storage.clone(), config).unwrap();
    let manager = sprag::ApplyManager::new(machine, sprag::ApplyConfig::new()).unwrap();
    let taken = manager.apply_entries(&[sprag::Entry::put(1, 1, b"k", b"v")]).unwrap();
    assert_eq!(taken.new, 1);
    manager.wait_until(1, sprag::Stage::Applied, TIMEOUT).unwrap();
    assert!(storage.unsynced() > 0);
    // The process is killed, and the storage keeps its commits.
    std::mem::forget(manager);
    let machine = open(&storage);
    assert_eq!((machine.len().unwrap(), storage.unsynced()), (1, 0));
    let staging = machine.staging(sprag::testing::hooks::ENGINE).unwrap();
    assert_eq!(staging.durable(), machine.applied());
}
