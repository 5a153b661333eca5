#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::machine::cell::{HeapCell, PlaceCell};
use crate::ranges::partition::hash_part;

const SEED: u64 = 0x5eed;

impl Refers for u64 {
    const REFERS: bool = false;
}

fn put<C: Refers + Send + Sync>(store: &Store<C>, key: &[u8], cell: C) {
    store.update(store.hash(key), key, 0, |_| (Change::Set(cell), ()));
}

fn get<C: Send + Sync + Copy>(store: &Store<C>, key: &[u8]) -> Option<C> {
    store.read(store.hash(key), key, |cell| cell.copied())
}

fn remove<C: Refers + Send + Sync>(store: &Store<C>, key: &[u8]) -> bool {
    store.update(store.hash(key), key, 0, |cell| (Change::Remove, cell.is_some()))
}

#[test]
fn every_shard_lies_in_exactly_one_hash_part() {
    for expected_keys in [0, 1, 300_000, 1_000_000] {
        let store = Store::<u64>::new(expected_keys, SEED);
        let shards_per_part = store.hints.len() / HASH_PARTS;
        assert!(shards_per_part >= 1 && store.hints.len().is_power_of_two());
        let mut seen = vec![false; store.hints.len()];
        for number in 0..50_000u64 {
            let hash = store.hash(&number.to_le_bytes());
            let shard = store.shard(hash);
            assert_eq!(shard / shards_per_part, hash_part(hash));
            seen[shard] = true;
        }
        assert!(seen.iter().all(|seen| *seen), "some shard was never reached");
    }
}

#[test]
fn a_slot_takes_at_most_41_bytes_and_in_memory_two_fill_a_cache_line() {
    assert_eq!(Store::<HeapCell>::SLOT_BYTES, CACHE_LINE_BYTES / 2 + 1);
    assert_eq!(Store::<PlaceCell>::SLOT_BYTES, 41);
    let store = Store::<PlaceCell>::new(900_000, SEED);
    // Tables are powers of two, at most 7/8 full: 900,000 keys and their headroom take 2^21 slots.
    let slots = 1 << 21;
    assert!(
        store.memory_bytes() <= slots * 41 + store.hints.len() * (128 + 16 + size_of::<Hint>())
    );
}

#[test]
fn tables_for_a_round_number_of_keys_are_as_full_as_those_of_one_table() {
    for expected_keys in [100_000, 1_000_000, 10_000_000_usize] {
        let shards = shard_count(expected_keys);
        let buckets = |capacity: usize| (capacity * 8 / 7).next_power_of_two();
        let sharded = shards * buckets(shard_capacity(expected_keys, shards));
        assert!(sharded <= buckets(expected_keys), "{expected_keys}");
    }
}

#[test]
fn the_expected_number_of_keys_grows_hardly_any_shard() {
    for expected_keys in [1_000u64, 100_000, 200_000] {
        let store = Store::<u64>::new(expected_keys as usize, SEED);
        let before = store.memory_bytes();
        let capacities: Vec<usize> =
            store.map.shards().iter().map(|shard| shard.read().capacity()).collect();
        for number in 0..expected_keys {
            put(&store, &number.to_le_bytes(), number);
        }
        assert_eq!(store.len() as u64, expected_keys);
        let grown = store
            .map
            .shards()
            .iter()
            .zip(&capacities)
            .filter(|(shard, before)| shard.read().capacity() != **before)
            .count();
        assert!(grown * 100 <= store.hints.len(), "{grown} of {} grew", store.hints.len());
        assert!(store.memory_bytes() <= before * 102 / 100);
    }
}

#[test]
fn a_store_does_what_a_map_does_over_any_bytes_and_while_it_grows() {
    let store = Store::<u64>::new(0, SEED);
    let mut model = BTreeMap::new();
    let mut state = 1u64;
    for step in 0..60_000u64 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let number = (state >> 40) % 9_000;
        let len = [1, 21, 22, 23, 24, 60][number as usize % 6];
        let mut key = vec![number as u8; len];
        for (byte, part) in key.iter_mut().zip(number.to_le_bytes()) {
            *byte = part;
        }
        if state >> 33 & 3 == 0 {
            assert_eq!(remove(&store, &key), model.remove(&key).is_some());
        } else {
            put(&store, &key, step);
            model.insert(key.clone(), step);
        }
        assert_eq!(get(&store, &key), model.get(&key).copied());
    }
    assert_eq!(store.len(), model.len());
    let mut scanned = BTreeMap::new();
    store.scan(
        |key, cell| (key.as_slice().to_vec(), *cell),
        |shard| scanned.extend(shard.drain(..)),
    );
    assert_eq!(scanned, model);
    for key in model.keys() {
        store.prefetch(store.hash(key));
    }
}

#[test]
fn a_cell_changed_in_place_stays_changed_and_a_vacant_key_stays_vacant() {
    let store = Store::<u64>::new(0, SEED);
    let hash = store.hash(b"k");
    assert!(store.update(hash, b"k", 0, |cell| (Change::Keep, cell.is_none())));
    assert_eq!(store.len(), 0);
    put(&store, b"k", 1);
    store.update(hash, b"k", 0, |cell| {
        *cell.unwrap() += 1;
        (Change::Keep, ())
    });
    assert_eq!(get(&store, b"k"), Some(2));
}

#[test]
fn a_scan_hands_out_copies_with_no_lock_held() {
    let store = Store::<u64>::new(0, SEED);
    put(&store, b"k", 1);
    store.scan(
        |key, _| key.clone(),
        |shard| {
            for key in shard.drain(..) {
                assert!(remove(&store, key.as_slice()), "would deadlock under a guard");
            }
        },
    );
    assert_eq!(store.len(), 0);
}

#[test]
fn a_prefetch_may_race_with_a_table_that_grows() {
    let store = Store::<u64>::new(0, SEED);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut hash = 1u64;
            while !done.load(Ordering::Relaxed) {
                hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
                store.prefetch(hash);
            }
        });
        for number in 0..20_000u64 {
            put(&store, &number.to_le_bytes(), number);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(store.len(), 20_000);
}

#[test]
fn the_hint_points_at_the_slot_where_a_probe_begins() {
    let store = Store::<u64>::new(4_000, SEED);
    let mut near = 0;
    for number in 0..4_000u64 {
        let key = number.to_le_bytes();
        put(&store, &key, number);
        let hash = store.hash(&key);
        let [_, hinted, _] =
            store.hints[store.shard(hash)].addresses(hash, size_of::<(Key, u64)>());
        let actual = store.read(hash, &key, |cell| std::ptr::from_ref(cell.unwrap()).addr());
        near += usize::from(actual.abs_diff(hinted.addr()) <= 4 * size_of::<(Key, u64)>());
    }
    assert!(near > 3_500, "only {near} of 4000 keys lie near their hint");
}

#[test]
fn hashes_depend_on_every_byte_and_on_the_seed() {
    let (one, other) = (Store::<u64>::new(0, 1), Store::<u64>::new(0, 2));
    let mut hashes: Vec<u64> = (0..=255u8)
        .flat_map(|byte| [vec![byte], vec![byte, 0], vec![0, byte, 1], vec![byte; 40]])
        .flat_map(|key| [one.hash(&key), other.hash(&key)])
        .collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 256 * 4 * 2);
}
