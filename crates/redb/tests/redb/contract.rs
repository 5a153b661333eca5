//! The contract of every storage, checked on redb.

use std::ops::Bound::{Excluded, Included, Unbounded};
use std::ops::ControlFlow;

use sprag::machine::storage::{Storage, StorageBatch, StorageSnapshot, Table};
use sprag::testing::Random;
use sprag_redb::{RedbConfig, RedbStorage};

use crate::disk::Disk;
use crate::{Model, STATE, all, get, of_model, pairs, put};

fn storage() -> RedbStorage {
    RedbStorage::with_backend(Disk::new(), RedbConfig::new()).unwrap()
}

#[test]
fn a_batch_changes_several_tables_at_once_and_removes_keys() {
    let storage = storage();
    let tables = [Table::Meta, Table::Notes(1), STATE];
    for table in tables {
        storage.create_table(table).unwrap();
    }
    let mut batch = StorageBatch::new();
    for table in tables {
        batch.put(table, b"key", table.to_string().as_bytes());
        batch.put(table, b"other", b"");
    }
    assert!(!storage.commit(&batch, false).unwrap(), "it is not durable yet");
    for table in tables {
        assert_eq!(get(&storage, table, b"key"), Some(table.to_string().into_bytes()));
        assert_eq!(get(&storage, table, b"other"), Some(Vec::new()), "an empty value is a value");
        assert_eq!(get(&storage, table, b"no key"), None);
    }
    batch.clear();
    batch.remove(STATE, b"key");
    batch.remove(STATE, b"no key");
    batch.put(Table::Meta, b"key", b"again");
    assert!(storage.commit(&batch, true).unwrap(), "it is durable");
    assert_eq!(get(&storage, STATE, b"key"), None);
    assert_eq!(get(&storage, Table::Meta, b"key"), Some(b"again".to_vec()));
    assert_eq!(get(&storage, Table::Notes(1), b"key"), Some(b"notes-0000000000000001".to_vec()));
}

#[test]
fn keys_come_in_the_order_of_their_bytes_between_any_bounds() {
    let storage = storage();
    storage.create_table(STATE).unwrap();
    let (mut random, mut model) = (Random::new(3), Model::new());
    let mut batch = StorageBatch::new();
    for _ in 0..300 {
        let len = random.below(3) + 1;
        let key: Vec<u8> = random.bytes(len).iter().map(|byte| byte % 4 * 85).collect();
        let value = {
            let len = random.below(20);
            random.bytes(len)
        };
        batch.clear();
        batch.put(STATE, &key, &value);
        storage.commit(&batch, false).unwrap();
        model.insert(key, value);
    }
    let snapshot = storage.snapshot().unwrap();
    assert_eq!(all(&snapshot, STATE), of_model(&model));
    let keys: Vec<_> = model.keys().cloned().chain([vec![0], vec![1], vec![255; 4]]).collect();
    for _ in 0..300 {
        let [one, two] = [(); 2].map(|()| keys[random.below(keys.len())].as_slice());
        let (low, high) = (one.min(two), one.max(two));
        let from = [Included(low), Excluded(low), Unbounded][random.below(3)];
        let to = [Included(high), Excluded(high), Unbounded][random.below(3)];
        let found = pairs(&snapshot, STATE, from, to);
        let is_in = |key: &Vec<u8>| {
            let key = key.as_slice();
            let after = match from {
                Included(from) => key >= from,
                Excluded(from) => key > from,
                Unbounded => true,
            };
            let before = match to {
                Included(to) => key <= to,
                Excluded(to) => key < to,
                Unbounded => true,
            };
            after && before
        };
        let expected = model.iter().filter(|(key, _)| is_in(key));
        assert_eq!(
            found,
            expected.map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
        );
        if low < high {
            assert!(pairs(&snapshot, STATE, Included(high), Included(low)).is_empty());
        }
    }
    // The caller may end a scan anywhere.
    let mut seen = Vec::new();
    let mut first_two = |key: &[u8], _: &[u8]| {
        seen.push(key.to_vec());
        if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    snapshot.scan(STATE, Unbounded, Unbounded, &mut first_two).unwrap();
    assert!(seen.iter().eq(model.keys().take(2)));
}

#[test]
fn the_largest_keys_and_values_are_taken() {
    let disk = Disk::new();
    let storage = RedbStorage::with_backend(disk.clone(), RedbConfig::new()).unwrap();
    storage.create_table(STATE).unwrap();
    let mut batch = StorageBatch::new();
    let keys: Vec<_> =
        (0..3_u8).map(|last| [vec![7; (64 << 10) - 1], vec![last]].concat()).collect();
    let value = vec![9; 16 << 20];
    for (key, value) in keys.iter().zip([&[][..], b"small", &value]) {
        batch.put(STATE, key, value);
    }
    storage.commit(&batch, true).unwrap();
    drop(storage);
    let storage = RedbStorage::with_backend(disk.reopened(), RedbConfig::new()).unwrap();
    assert_eq!(get(&storage, STATE, &keys[0]), Some(Vec::new()));
    assert_eq!(get(&storage, STATE, &keys[1]), Some(b"small".to_vec()));
    assert!(get(&storage, STATE, &keys[2]) == Some(value));
}

#[test]
fn a_snapshot_keeps_its_moment_while_batches_and_removals_go_on() {
    let storage = storage();
    storage.create_table(STATE).unwrap();
    put(&storage, b"key", b"old", false);
    let snapshot = storage.snapshot().unwrap();
    put(&storage, b"key", b"new", true);
    put(&storage, b"more", b"new", false);
    storage.create_table(Table::State(2)).unwrap();
    let mut batch = StorageBatch::new();
    batch.put(Table::State(2), b"key", b"next generation");
    storage.commit(&batch, true).unwrap();
    let newer = storage.snapshot().unwrap();
    storage.remove_table(STATE).unwrap();
    storage.sync().unwrap();
    // redb must not reuse pages that the snapshots need.
    for round in 0..50_u8 {
        batch.clear();
        batch.put(Table::State(2), &[round], &[round; 3000]);
        storage.commit(&batch, round % 3 == 0).unwrap();
    }
    assert_eq!(all(&snapshot, STATE), [(b"key".to_vec(), b"old".to_vec())]);
    assert!(all(&snapshot, Table::State(2)).is_empty(), "a table of later is empty");
    let mut value = Vec::new();
    assert!(newer.get(STATE, b"key", &mut |found| value = found.to_vec()).unwrap());
    assert_eq!((value, all(&newer, STATE).len()), (b"new".to_vec(), 2));
    assert_eq!(all(&newer, Table::State(2)), [(b"key".to_vec(), b"next generation".to_vec())]);
    assert!(all(&storage.snapshot().unwrap(), STATE).is_empty());
    drop(storage);
    assert_eq!(all(&snapshot, STATE).len(), 1, "a snapshot outlives the storage");
}

#[test]
fn tables_come_and_go() {
    let disk = Disk::new();
    let storage = RedbStorage::with_backend(disk.clone(), RedbConfig::new()).unwrap();
    assert_eq!(storage.tables().unwrap(), []);
    assert_eq!(get(&storage, STATE, b"key"), None, "a missing table is empty");
    assert!(all(&storage.snapshot().unwrap(), STATE).is_empty());
    storage.remove_table(STATE).unwrap();
    let tables = [Table::Meta, Table::Notes(3), Table::State(3), Table::State(u64::MAX)];
    for table in tables {
        storage.create_table(table).unwrap();
        put_in(&storage, table);
        storage.create_table(table).unwrap();
        assert_eq!(get(&storage, table, b"key"), Some(b"value".to_vec()), "it is left as it is");
    }
    storage.remove_table(Table::State(3)).unwrap();
    assert_eq!(get(&storage, Table::State(3), b"key"), None);
    storage.create_table(Table::State(3)).unwrap();
    assert_eq!(get(&storage, Table::State(3), b"key"), None, "a new one is empty");
    storage.remove_table(Table::State(3)).unwrap();
    storage.sync().unwrap();
    drop(storage);
    let storage = RedbStorage::with_backend(disk.reopened(), RedbConfig::new()).unwrap();
    let mut found = storage.tables().unwrap();
    found.sort();
    assert_eq!(found, [Table::Meta, Table::Notes(3), Table::State(u64::MAX)]);
    assert_eq!(get(&storage, Table::Notes(3), b"key"), Some(b"value".to_vec()));
}

fn put_in(storage: &RedbStorage, table: Table) {
    let mut batch = StorageBatch::new();
    batch.put(table, b"key", b"value");
    storage.commit(&batch, false).unwrap();
}

#[test]
fn readers_see_whole_batches_in_order_while_batches_are_committed() {
    let storage = storage();
    storage.create_table(STATE).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = Vec::new();
            while last != 200_u64.to_be_bytes() {
                let snapshot = storage.snapshot().unwrap();
                let found = all(&snapshot, STATE);
                let same = found.iter().all(|(_, value)| *value == found[0].1);
                assert!(same && [0, 4].contains(&found.len()), "half a batch: {found:?}");
                let next = get(&storage, STATE, &[0]).unwrap_or_default();
                assert!(next >= last, "{next:?} after {last:?}");
                last = next;
            }
        });
        for round in 1..=200_u64 {
            let mut batch = StorageBatch::new();
            for key in 0..4 {
                batch.put(STATE, &[key], &round.to_be_bytes());
            }
            storage.commit(&batch, round % 50 == 0).unwrap();
            let found = get(&storage, STATE, &[3]);
            assert_eq!(found, Some(round.to_be_bytes().to_vec()), "a get sees what is committed");
        }
        reader.join().unwrap();
    });
}

#[test]
fn the_statistics_have_the_bytes_on_disk_and_in_memory() {
    let disk = Disk::new();
    let config = RedbConfig::new().cache_bytes(1 << 20);
    let storage = RedbStorage::with_backend(disk.clone(), config).unwrap();
    storage.create_table(STATE).unwrap();
    for round in 0..60_u8 {
        put(&storage, &[round], &[round; 50_000], false);
    }
    storage.sync().unwrap();
    for round in 0..60_u8 {
        assert_eq!(get(&storage, STATE, &[round]), Some(vec![round; 50_000]));
    }
    let stats = storage.stats();
    assert_eq!(stats.disk_bytes, Some(disk.len()));
    assert!(disk.len() > 60 * 50_000, "{stats:?}");
    let memory = stats.memory_bytes.unwrap();
    assert!((100_000..=1 << 20).contains(&memory), "the cache stays within its limit: {memory}");
}
