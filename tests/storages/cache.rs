//! Tests of the read cache of a machine over a storage: its options, its figures, and that reads
//! and replies are those without it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use sprag::error::OpenError;
use sprag::testing::storage::MemoryStorage;
use sprag::{
    ApplyConfig, ApplyManager, Command, Entry, PersistentStateMachine, StateMachineStats,
    StorageConfig,
};

use super::{Machine, TIMEOUT, manage};

fn manage_with(config: StorageConfig) -> ApplyManager<Machine> {
    let machine = PersistentStateMachine::with_storage(MemoryStorage::new(), config).unwrap();
    ApplyManager::new(machine, ApplyConfig::new()).unwrap()
}

fn cached() -> StorageConfig {
    StorageConfig::new().enable_cache(true)
}

/// Entries, bytes, hits, misses, evictions.
fn figures(stats: StateMachineStats) -> [u64; 5] {
    let StateMachineStats { cache_size, cache_bytes, cache_hits, cache_misses, .. } = stats;
    [cache_size, cache_bytes, cache_hits, cache_misses, stats.cache_evictions].map(Option::unwrap)
}

#[test]
fn enable_cache_keeps_what_was_read_and_its_figures_say_so() {
    let manager = manage_with(cached());
    manager.propose(Command::put(b"key", b"value"), TIMEOUT).unwrap();
    let machine = manager.machine();
    assert_eq!(figures(manager.stats().machine), [0; 5], "a write is no reason to keep a value");
    assert_eq!(machine.get(b"key").unwrap().unwrap(), b"value");
    assert_eq!(machine.get(b"missing").unwrap(), None);
    assert_eq!(figures(manager.stats().machine), [1, 3 + 5 + 192, 0, 2, 0]);
    // Each kind of get uses the cache.
    let mut out = Vec::new();
    assert_eq!(machine.get(b"key").unwrap().unwrap(), b"value");
    assert!(machine.get_into(b"key", &mut out).unwrap() && machine.contains(b"key").unwrap());
    assert_eq!(machine.get_with(b"key", <[u8]>::len).unwrap(), Some(5));
    assert_eq!(out, b"value");
    let stats = manager.stats().machine;
    assert_eq!(figures(stats), [1, 200, 4, 2, 0]);
    assert!((stats.cache_hit_rate.unwrap() - 100.0 * 4.0 / 6.0).abs() < 1e-9);
    // The entry gets the new value, and goes with its key.
    manager.propose(Command::put(b"key", &[7; 300]), TIMEOUT).unwrap();
    assert_eq!(machine.get(b"key").unwrap().unwrap(), [7; 300]);
    assert_eq!(figures(manager.stats().machine), [1, 3 + 300 + 192, 5, 2, 0]);
    manager.propose(Command::delete(b"key"), TIMEOUT).unwrap();
    assert!(!machine.get_into(b"key", &mut out).unwrap() && out.is_empty());
    assert_eq!(figures(manager.stats().machine), [0, 0, 5, 3, 0]);
    manager.close(TIMEOUT).unwrap();
}

#[test]
fn without_enable_cache_there_are_no_figures() {
    let manager = manage(&MemoryStorage::new());
    manager.propose(Command::put(b"key", b"value"), TIMEOUT).unwrap();
    assert_eq!(manager.machine().get(b"key").unwrap().unwrap(), b"value");
    let stats = manager.stats().machine;
    let StateMachineStats { cache_size, cache_bytes, cache_hits, cache_misses, .. } = stats;
    assert_eq!((cache_size, cache_bytes, cache_hits, cache_misses), (None, None, None, None));
    assert_eq!((stats.cache_hit_rate, stats.cache_evictions), (None, None));
}

#[test]
fn max_cache_size_and_max_cache_bytes_bound_the_cache() {
    for (config, entries_max, bytes_max) in [
        (cached().max_cache_size(5), 5, u64::MAX),
        (cached().max_cache_bytes(1 << 20), u64::MAX, 1 << 20),
    ] {
        let manager = manage_with(config);
        for key in 0..100_u8 {
            manager.propose(Command::put(&[key], &[key; 30_000]), TIMEOUT).unwrap();
        }
        for key in (0..100_u8).chain(0..100) {
            assert_eq!(manager.machine().get(&[key]).unwrap().unwrap(), [key; 30_000]);
            let [entries, bytes, ..] = figures(manager.stats().machine);
            assert!(entries <= entries_max && bytes <= bytes_max, "{entries} {bytes}");
        }
        let [entries, bytes, hits, misses, evictions] = figures(manager.stats().machine);
        assert!(entries == entries_max || bytes * 10 > bytes_max * 9, "{entries} {bytes}");
        assert_eq!(hits + misses, 200);
        assert_eq!(entries + evictions, misses, "each miss put a value in");
    }
}

#[test]
fn limits_out_of_their_ranges_are_refused() {
    for (config, refused) in [
        (cached().max_cache_size(0), "max_cache_size"),
        (cached().max_cache_size(usize::MAX), "max_cache_size"),
        (cached().max_cache_bytes((1 << 20) - 1), "max_cache_bytes"),
        (cached().max_cache_bytes(u64::MAX), "max_cache_bytes"),
    ] {
        let refusal = PersistentStateMachine::with_storage(MemoryStorage::new(), config);
        let Err(OpenError::Config { option, .. }) = refusal else { panic!("{refusal:?}") };
        assert_eq!(option, refused);
    }
}

/// Proves ORD-10.
#[test]
fn replies_and_reads_are_those_without_a_cache() {
    let plain = manage_with(StorageConfig::new());
    let cached = manage_with(cached().max_cache_size(3));
    let mut random = 7_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    for _ in 0..2_000 {
        let key = next(6).to_le_bytes();
        let value = next(3).to_string();
        let expected = value.as_bytes();
        let command = match next(6) {
            0 | 1 => Command::put(&key, value.as_bytes()),
            2 => Command::delete(&key),
            3 | 4 => Command::increment(&key, 1),
            _ => Command::compare_and_set(&key, Some(expected), (next(2) == 0).then_some(b"9")),
        };
        let replies = [&plain, &cached].map(|manager| manager.propose(command, TIMEOUT).unwrap());
        assert_eq!(replies[0], replies[1], "{command:?}");
        let read = next(6).to_le_bytes();
        let found = [&plain, &cached].map(|manager| manager.machine().get(&read).unwrap());
        assert_eq!(found[0], found[1]);
    }
    let states = [&plain, &cached].map(|manager| manager.machine().scan_sorted().unwrap());
    assert_eq!(states[0], states[1]);
    let [.., hits, misses, evictions] = figures(cached.stats().machine);
    assert!(hits > 300 && misses > 300 && evictions > 300, "{hits} {misses} {evictions}");
}

/// This is law 3, end to end.
///
/// Proves ORD-10.
#[test]
fn gets_beside_apply_see_what_was_applied_and_never_go_back() {
    const KEYS: usize = 4;
    let manager = manage_with(cached().max_cache_size(3));
    let (applied, is_over) = (<[AtomicU64; KEYS]>::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..2 {
            let (reader, applied, is_over) = (manager.reader(), &applied, &is_over);
            scope.spawn(move || {
                let mut seen = [0; KEYS];
                for key in (0..KEYS).cycle() {
                    let least = applied[key].load(Ordering::SeqCst).max(seen[key]);
                    let value = reader.get(KEY_BYTES[key]).unwrap();
                    let now =
                        value.map_or(0, |value| str::from_utf8(&value).unwrap().parse().unwrap());
                    assert!(now >= least, "{now} after {least}");
                    seen[key] = now;
                    if is_over.load(Ordering::SeqCst) {
                        break;
                    }
                }
            });
        }
        let mut index = 0;
        for round in 1..=400 {
            let entries: Vec<_> = (0..KEYS)
                .map(|key| Entry::increment(index + 1 + key as u64, 1, KEY_BYTES[key], 1))
                .collect();
            index += KEYS as u64;
            manager.apply_entries_sync(&entries, TIMEOUT, &mut vec![]).unwrap();
            applied.iter().for_each(|applied| applied.store(round, Ordering::SeqCst));
        }
        is_over.store(true, Ordering::SeqCst);
    });
    let [.., hits, misses, _] = figures(manager.stats().machine);
    assert!(hits > 0 && misses > 0, "{hits} {misses}");
}

const KEY_BYTES: [&[u8]; 4] = [&[0], &[1], &[2], &[3]];
