//! Tests of the moments at which unsynced batches become durable, and of a full disk.

use std::thread;
use std::time::{Duration, Instant};

use sprag::machine::storage::{Storage, StorageBatch};
use sprag::testing::Random;
use sprag_redb::{RedbConfig, RedbStorage};

use crate::disk::Disk;
use crate::{STATE, get, put};

fn by_hand() -> RedbConfig {
    RedbConfig::new().sync_every(None)
}

/// The value of `key` that a power cut at this moment leaves.
fn after_a_cut(disk: &Disk, key: &[u8]) -> Option<Vec<u8>> {
    let disk = disk.after_a_cut(&mut Random::new(1), 0);
    get(&RedbStorage::with_backend(disk, by_hand()).unwrap(), STATE, key)
}

#[test]
fn a_batch_is_durable_when_the_storage_says_so_and_not_before() {
    let disk = Disk::new();
    let storage = RedbStorage::with_backend(disk.clone(), by_hand()).unwrap();
    assert_eq!(storage.syncs_every(), None);
    storage.create_table(STATE).unwrap();
    assert!(put(&storage, b"one", b"1", true));
    assert!(!put(&storage, b"two", b"2", false));
    assert!(after_a_cut(&disk, b"one").is_some() && after_a_cut(&disk, b"two").is_none());
    storage.sync().unwrap();
    assert_eq!(after_a_cut(&disk, b"two"), Some(b"2".to_vec()));
    let syncs = disk.syncs();
    storage.sync().unwrap();
    assert_eq!(disk.syncs(), syncs, "there is nothing to sync");
    assert!(!put(&storage, b"three", b"3", false));
    assert!(put(&storage, b"four", b"4", true));
    assert_eq!(after_a_cut(&disk, b"three"), Some(b"3".to_vec()), "a sync takes all before it");
}

#[test]
fn batches_without_sync_are_synced_once_they_are_many_bytes() {
    let disk = Disk::new();
    let config = by_hand().unsynced_bytes(10_000);
    let storage = RedbStorage::with_backend(disk.clone(), config).unwrap();
    storage.create_table(STATE).unwrap();
    let durable: Vec<bool> = (0..9).map(|key| put(&storage, &[key], &[0; 3999], false)).collect();
    assert_eq!(durable, [false, false, true, false, false, true, false, false, true]);
    assert!(after_a_cut(&disk, &[8]).is_some());
}

#[test]
fn the_thread_of_the_storage_syncs_what_no_caller_does() {
    let disk = Disk::new();
    let config = by_hand().sync_every(Some(Duration::from_millis(5)));
    let storage = RedbStorage::with_backend(disk.clone(), config).unwrap();
    assert_eq!(storage.syncs_every(), Some(Duration::from_millis(5)));
    storage.create_table(STATE).unwrap();
    for round in 0..5 {
        put(&storage, &[round], b"value", false);
        let start = Instant::now();
        while after_a_cut(&disk, &[round]).is_none() {
            assert!(start.elapsed() < Duration::from_secs(60), "round {round} is never synced");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn dropping_the_storage_syncs_even_while_a_snapshot_is_alive() {
    let disk = Disk::new();
    let storage = RedbStorage::with_backend(disk.clone(), by_hand()).unwrap();
    storage.create_table(STATE).unwrap();
    put(&storage, b"key", b"value", false);
    let snapshot = storage.snapshot().unwrap();
    assert!(after_a_cut(&disk, b"key").is_none());
    drop(storage);
    assert!(after_a_cut(&disk, b"key").is_some());
    drop(snapshot);
}

#[test]
fn the_file_does_not_grow_without_bound_where_no_batch_is_synced() {
    let disk = Disk::new();
    let config = by_hand().unsynced_bytes(200_000);
    let storage = RedbStorage::with_backend(disk.clone(), config).unwrap();
    storage.create_table(STATE).unwrap();
    let mut random = Random::new(1);
    let mut round = || {
        let mut batch = StorageBatch::new();
        for _ in 0..8 {
            let key = random.below(500).to_be_bytes();
            batch.remove(STATE, &key);
        }
        batch.clear();
        let first = random.below(500);
        for key in first..first + 8 {
            batch.put(STATE, &key.to_be_bytes(), &[1; 400]);
        }
        storage.commit(&batch, false).unwrap();
    };
    (0..300).for_each(|_| round());
    let early = disk.len();
    (0..700).for_each(|_| round());
    assert!(disk.len() <= early * 2, "{early} bytes became {}", disk.len());
}

#[test]
fn a_full_disk_is_named_and_leaves_whole_batches() {
    for sync in [true, false] {
        let disk = Disk::new();
        let storage = RedbStorage::with_backend(disk.clone(), by_hand()).unwrap();
        storage.create_table(STATE).unwrap();
        put(&storage, b"key", b"first", true);
        disk.fill_up();
        let mut batch = StorageBatch::new();
        batch.put(STATE, b"key", b"second");
        let result = storage.commit(&batch, sync).and_then(|_| storage.sync());
        assert!(result.unwrap_err().is_disk_full());
        let next = storage.commit(&batch, true).unwrap_err();
        assert!(next.to_string().contains("open it again"), "{next}");
        drop(storage);
        let found = after_a_cut(&disk, b"key");
        assert_eq!(found, Some(b"first".to_vec()));
    }
}

#[test]
fn what_the_syncing_thread_meets_reaches_the_next_caller() {
    let disk = Disk::new();
    let config = by_hand().sync_every(Some(Duration::from_millis(1)));
    let storage = RedbStorage::with_backend(disk.clone(), config).unwrap();
    storage.create_table(STATE).unwrap();
    disk.fill_up();
    let mut batch = StorageBatch::new();
    batch.put(STATE, b"key", b"value");
    let start = Instant::now();
    let error = loop {
        match storage.commit(&batch, false) {
            Err(error) => break error,
            Ok(_) => assert!(start.elapsed() < Duration::from_secs(60), "it never fails"),
        }
        thread::sleep(Duration::from_millis(1));
    };
    assert!(error.is_disk_full(), "{error}");
}
