//! Tests with keys chosen to collide: they do under the seed they were chosen for, and under no
//! other.
//!
//! The tests count work, and not time: keys compared on the way to each key, and keys under one
//! lock.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::sync::Arc;

use super::*;
use crate::PersistentConfig;
use crate::disk::real::{OpenMode, RealDisk};
use crate::opening::LogOpening;
use crate::ranges::partition::hash_part;
use crate::snapshot::SnapshotKind;

const KEYS: u64 = 100_000;
const KNOWN: u64 = 0x1234_5678_9abc_def0;

type FloodKey = [u8; 16];

/// Keys that all have one hash under [`KNOWN`]. Foldhash multiplies the halves of a short key, each
/// mixed with a seed. An attacker who knows the first seed makes the first half zero, whatever the
/// second half is.
fn chosen() -> impl Iterator<Item = FloodKey> + Clone {
    let cancels = KNOWN.rotate_left(32).rotate_right(16);
    (0..KEYS).map(move |number| {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&cancels.to_ne_bytes());
        key[8..].copy_from_slice(&number.to_ne_bytes());
        key
    })
}

/// Yields as many random keys (splitmix64, Steele, Lea and Flood 2014).
fn ordinary() -> impl Iterator<Item = FloodKey> + Clone {
    let mix = |number: u64| {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    (0..KEYS).map(move |number| {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&mix(2 * number + 1).to_ne_bytes());
        key[8..].copy_from_slice(&mix(2 * number + 2).to_ne_bytes());
        key
    })
}

/// The work that a set of keys causes in a store.
#[derive(Debug)]
struct Work {
    /// Number of keys compared to find each key once.
    compared: u64,
    /// Number of keys of the fullest shard, which one lock guards.
    shard_max: usize,
    /// Number of keys in the fullest of the workers' parts: the least that one worker applies.
    part_max: usize,
}

fn work(seed: u64, keys: impl Iterator<Item = FloodKey> + Clone) -> Work {
    let count = keys.clone().count();
    let store = Store::<u64>::new(count, seed);
    let (mut shards, mut parts) = (vec![0; store.hints.len()], vec![0; HASH_PARTS]);
    for key in keys.clone() {
        let hash = store.hash(&key);
        shards[store.shard(hash)] += 1;
        parts[hash_part(hash)] += 1;
        store.update(hash, &key, 0, |_| (Change::Set(0), ()));
    }
    let mut compared = 0;
    for key in keys {
        let hash = store.hash(&key);
        let table = store.map.shards()[store.shard(hash)].read();
        let found = table.get(hash, |(known, _)| {
            compared += 1;
            known.as_slice() == key
        });
        assert!(found.is_some());
    }
    let (shard_max, part_max) = (*shards.iter().max().unwrap(), *parts.iter().max().unwrap());
    Work { compared, shard_max, part_max }
}

/// A seed as a new directory draws it.
fn seed_of_a_directory() -> u64 {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("data");
    let disk = RealDisk::open(&path, OpenMode::Write { create: true }).unwrap();
    LogOpening::new(
        Arc::new(disk),
        PersistentConfig::new(&path),
        true,
        (SnapshotKind::KeyValue, false),
    )
    .unwrap()
    .hash_seed()
}

#[test]
fn keys_that_collide_under_a_known_seed_are_ordinary_under_a_directorys_own() {
    for _ in 0..2 {
        let seed = seed_of_a_directory();
        let (chosen, ordinary) = (work(seed, chosen()), work(seed, ordinary()));
        let shown = format!("chosen {chosen:?}, ordinary {ordinary:?}");
        println!("{shown}");
        assert!(chosen.compared <= 2 * ordinary.compared, "{shown}");
        assert!(chosen.shard_max <= 2 * ordinary.shard_max, "{shown}");
        assert!(chosen.part_max <= 2 * ordinary.part_max, "{shown}");
    }
}

/// A canary, without which the test above would prove nothing. It uses few keys, because the work
/// is the square of their number.
#[test]
fn canary_they_do_collide_under_the_seed_they_were_chosen_for() {
    let store = Store::<u64>::new(0, KNOWN);
    let first = store.hash(&chosen().next().unwrap());
    assert!(chosen().all(|key| store.hash(&key) == first));
    let few = 2000;
    let (chosen, ordinary) = (work(KNOWN, chosen().take(few)), work(KNOWN, ordinary().take(few)));
    assert_eq!((chosen.shard_max, chosen.part_max), (few, few));
    assert!(chosen.compared > 500 * ordinary.compared, "{chosen:?}, ordinary {ordinary:?}");
}
