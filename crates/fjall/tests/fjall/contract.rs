//! The contract of every storage, checked on fjall.

use std::ops::Bound::{Excluded, Included, Unbounded};
use std::ops::ControlFlow;

use sprag::machine::storage::{Storage, StorageBatch, StorageSnapshot, Table};
use sprag::testing::Random;
use sprag_fjall::FjallStorage;

use crate::{Model, STATE, Scratch, all, get, of_model, pairs, put, small};

/// Keys that are near each other: short ones, and ones too long for fjall.
fn key(random: &mut Random) -> Vec<u8> {
    let byte = |random: &mut Random| [0, 1, 128, 255][random.below(4)];
    if random.below(4) > 0 {
        let len = random.below(3) + 1;
        return (0..len).map(|_| byte(random)).collect();
    }
    let mut key = vec![byte(random) % 2; (64 << 10) - 2];
    let more = random.below(3);
    key.extend((0..more).map(|_| byte(random)));
    key
}

fn value(random: &mut Random) -> Vec<u8> {
    let len = [0, 1, 30, 3000][random.below(4)];
    random.bytes(len)
}

#[test]
fn random_batches_leave_what_a_map_has_between_any_bounds_and_after_opening_again() {
    let scratch = Scratch::new();
    let mut storage = scratch.open();
    let (mut random, mut model) = (Random::new(3), Model::new());
    let mut kept = Vec::new();
    for round in 0..60 {
        let (mut batch, mut changes) = (StorageBatch::new(), Model::new());
        for _ in 0..random.below(12) + 1 {
            let (key, value) = (key(&mut random), value(&mut random));
            changes.insert(key, value);
        }
        for (key, value) in changes {
            if random.below(3) == 0 {
                batch.remove(STATE, &key);
                model.remove(&key);
            } else {
                batch.put(STATE, &key, &value);
                model.insert(key, value);
            }
        }
        let sync = random.below(10) == 0;
        assert_eq!(storage.commit(&batch, sync).unwrap(), sync);
        if round % 20 == 10 {
            kept.push((storage.snapshot().unwrap(), model.clone()));
        }
        if round % 10 == 9 {
            assert!(all(&storage.snapshot().unwrap(), STATE) == of_model(&model), "round {round}");
            let key = key(&mut random);
            assert_eq!(get(&storage, STATE, &key).as_ref(), model.get(&key));
        }
        if round % 30 == 29 {
            for (snapshot, model) in kept.drain(..) {
                assert!(all(&snapshot, STATE) == of_model(&model), "as it was, round {round}");
            }
            drop(storage);
            storage = scratch.open();
        }
    }
    assert!(model.keys().any(|key| key.len() == 64 << 10), "there are long keys");
    let snapshot = storage.snapshot().unwrap();
    for _ in 0..60 {
        let (one, two) = (key(&mut random), key(&mut random));
        let (low, high) = (one.as_slice().min(&two), one.as_slice().max(&two));
        let from = [Included(low), Excluded(low), Unbounded][random.below(3)];
        let to = [Included(high), Excluded(high), Unbounded][random.below(3)];
        let is_in = |key: &[u8]| {
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
        let mut expected = of_model(&model);
        expected.retain(|(key, _)| is_in(key));
        assert!(pairs(&snapshot, STATE, from, to) == expected);
        if low < high {
            assert!(pairs(&snapshot, STATE, Included(high), Included(low)).is_empty());
        }
    }
    // The caller may end a scan anywhere.
    for count in [1, model.len() / 2, model.len()] {
        let mut seen = Vec::new();
        let mut some = |key: &[u8], _: &[u8]| {
            seen.push(key.to_vec());
            if seen.len() == count { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        snapshot.scan(STATE, Unbounded, Unbounded, &mut some).unwrap();
        assert!(seen.iter().eq(model.keys().take(count)));
    }
}

#[test]
fn a_batch_changes_several_tables_at_once() {
    let scratch = Scratch::new();
    let storage = scratch.open();
    let tables = [Table::Meta, Table::Notes(1), STATE];
    let mut batch = StorageBatch::new();
    for table in tables {
        storage.create_table(table).unwrap();
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
    batch.clear();
    assert!(!storage.commit(&batch, false).unwrap() && storage.commit(&batch, true).unwrap());
    // A wrong write that no machine makes is an error, and changes nothing.
    for (table, key) in [(Table::State(9), &b"key"[..]), (STATE, b""), (STATE, &[1; 65_537])] {
        batch.clear();
        batch.put(STATE, b"beside", b"value");
        batch.put(table, key, b"value");
        assert!(storage.commit(&batch, false).is_err(), "{table}, {} bytes", key.len());
        assert_eq!(get(&storage, STATE, b"beside"), None);
        assert_eq!(get(&storage, table, key), None);
    }
}

#[test]
fn the_largest_value_is_taken_and_lies_apart_from_its_key() {
    let scratch = Scratch::new();
    let storage = scratch.open();
    let value = Random::new(1).bytes(16 << 20);
    put(&storage, b"key", &value, true);
    put(&storage, &[3; 64 << 10], &value, true);
    drop(storage);
    let storage = scratch.open();
    for key in [&b"key"[..], &[3; 64 << 10]] {
        assert!(get(&storage, STATE, key).as_ref() == Some(&value));
    }
}

#[test]
fn a_snapshot_keeps_its_moment_while_batches_and_removals_go_on() {
    let scratch = Scratch::new();
    let storage = scratch.open();
    let long = [7; 64 << 10];
    for key in [&b"key"[..], &long] {
        put(&storage, key, b"old", false);
    }
    let snapshot = storage.snapshot().unwrap();
    for key in [&b"key"[..], &long] {
        put(&storage, key, b"new", false);
    }
    put(&storage, b"more", b"new", false);
    storage.create_table(Table::State(2)).unwrap();
    let newer = storage.snapshot().unwrap();
    storage.remove_table(STATE).unwrap();
    // The rounds make fjall write buffers and merge files.
    let mut random = Random::new(4);
    for round in 0..60_u8 {
        let mut batch = StorageBatch::new();
        batch.put(Table::State(2), &[round % 3], &random.bytes(20_000));
        storage.commit(&batch, round % 20 == 0).unwrap();
    }
    let expected = [&long[..], b"key"].map(|key| (key.to_vec(), b"old".to_vec()));
    assert!(all(&snapshot, STATE) == expected);
    assert!(all(&snapshot, Table::State(2)).is_empty(), "a table of later is empty");
    let mut value = Vec::new();
    assert!(newer.get(STATE, &long, &mut |found| value = found.to_vec()).unwrap());
    assert_eq!((value, all(&newer, STATE).len()), (b"new".to_vec(), 3));
    assert!(all(&newer, Table::State(2)).is_empty());
    assert!(all(&storage.snapshot().unwrap(), STATE).is_empty());
    drop(storage);
    assert_eq!(all(&snapshot, STATE).len(), 2, "a snapshot outlives the storage");
}

#[test]
fn tables_come_and_go() {
    let scratch = Scratch::new();
    let storage = scratch.open();
    storage.remove_table(STATE).unwrap();
    assert_eq!(storage.tables().unwrap(), []);
    assert_eq!(get(&storage, STATE, b"key"), None, "a missing table is empty");
    assert!(all(&storage.snapshot().unwrap(), STATE).is_empty());
    storage.remove_table(STATE).unwrap();
    let tables = [Table::Meta, Table::Notes(3), Table::State(3), Table::State(u64::MAX)];
    let long = [7; 64 << 10];
    for table in tables {
        storage.create_table(table).unwrap();
        let mut batch = StorageBatch::new();
        for key in [&b"key"[..], &long] {
            batch.put(table, key, b"value");
        }
        storage.commit(&batch, false).unwrap();
        storage.create_table(table).unwrap();
        assert_eq!(get(&storage, table, b"key"), Some(b"value".to_vec()), "it is left as it is");
    }
    storage.remove_table(Table::State(3)).unwrap();
    assert_eq!(get(&storage, Table::State(3), b"key"), None);
    storage.create_table(Table::State(3)).unwrap();
    for key in [&b"key"[..], &long] {
        assert_eq!(get(&storage, Table::State(3), key), None, "a new one is empty");
    }
    storage.remove_table(Table::State(3)).unwrap();
    drop(storage);
    let storage = scratch.open();
    let mut found = storage.tables().unwrap();
    found.sort();
    assert_eq!(found, [Table::Meta, Table::Notes(3), STATE, Table::State(u64::MAX)]);
    for key in [&b"key"[..], &long] {
        assert_eq!(get(&storage, Table::Notes(3), key), Some(b"value".to_vec()));
    }
}

#[test]
fn readers_see_whole_batches_in_order_while_batches_are_committed() {
    const ROUNDS: u64 = 3000;
    let scratch = Scratch::new();
    // fjall's threads write many files, and raise the sequence number of fjall's own snapshots.
    let config = small().write_buffer_bytes(20_000);
    let storage = FjallStorage::open(scratch.path(), config).unwrap();
    storage.create_table(STATE).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = Vec::new();
            let mut random = Random::new(1);
            while last != ROUNDS.to_be_bytes() {
                // After a get that finds a batch, every get finds it.
                let next = get(&storage, STATE, &[random.below(8) as u8]).unwrap_or_default();
                assert!(next >= last, "{next:?} after {last:?}");
                last = next;
                let found = all(&storage.snapshot().unwrap(), STATE);
                let same = found.iter().all(|(_, value)| *value == found[0].1);
                assert!(same && [0, 8].contains(&found.len()), "half a batch: {found:?}");
                assert!(found.first().is_none_or(|(_, value)| *value >= last));
            }
        });
        for round in 1..=ROUNDS {
            let mut batch = StorageBatch::new();
            for key in 0..8 {
                batch.put(STATE, &[key], &round.to_be_bytes());
            }
            storage.commit(&batch, round % 1000 == 0).unwrap();
            // Each such write takes a sequence number of fjall, as a batch does.
            if round % 300 == 0 {
                storage.create_table(Table::State(round)).unwrap();
            }
        }
        reader.join().unwrap();
    });
}
