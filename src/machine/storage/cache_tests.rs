//! Tests of the read cache: its limits, its figures, and that no get goes back.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::cache::{CacheStats, ReadCache, Step};
use super::{StorageBatch, Table};
use crate::Value;
use crate::config::storage::CacheLimits;

const STATE: Table = Table::State(1);
const LIMITS: CacheLimits = CacheLimits { entries: 1_000, bytes: 8 << 20 };
/// Bytes of an entry beside key and value.
const ENTRY: u64 = 192;

/// A storage in memory, for which the cache works.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Memory {
    fn get(&self, key: &[u8]) -> Option<Value> {
        self.0.lock().unwrap().get(key).map(|value| Value::copied(value))
    }

    fn commit(&self, batch: &StorageBatch) -> Result<(), ()> {
        let mut map = self.0.lock().unwrap();
        for (table, key, value) in batch.writes() {
            assert_eq!(table, STATE);
            match value {
                Some(value) => map.insert(key.to_vec(), value.to_vec()),
                None => map.remove(key),
            };
        }
        Ok(())
    }

    /// Gets through `cache`, and calls `slowly` between the storage's answer and the fill.
    fn get_through(&self, cache: &ReadCache, key: &[u8], slowly: impl FnOnce()) -> Option<Value> {
        match cache.look_up(key) {
            Ok(value) => Some(value),
            Err(fill) => {
                let value = self.get(key);
                slowly();
                if let Some(value) = &value {
                    fill.keep(key, value);
                }
                value
            }
        }
    }

    fn commit_through(&self, cache: &ReadCache, batch: &StorageBatch) {
        cache.during_commit(batch, STATE, || self.commit(batch)).unwrap();
    }

    fn put_through(&self, cache: &ReadCache, key: &[u8], value: &[u8]) {
        self.commit_through(cache, &putting(key, value));
    }
}

fn putting(key: &[u8], value: &[u8]) -> StorageBatch {
    let mut batch = StorageBatch::new();
    batch.put(STATE, key, value);
    batch
}

fn removing(key: &[u8]) -> StorageBatch {
    let mut batch = StorageBatch::new();
    batch.remove(STATE, key);
    batch
}

/// Looks up a missing key, and adds it.
fn fill(cache: &ReadCache, key: &[u8], value: &[u8]) {
    cache.look_up(key).unwrap_err().keep(key, &Value::copied(value));
}

fn sizes(stats: CacheStats) -> (u64, u64) {
    (stats.entries, stats.bytes)
}

#[test]
fn every_figure_moves_by_what_was_done() {
    let cache = ReadCache::new(CacheLimits { entries: 2, bytes: 1 << 20 });
    assert_eq!(cache.stats(), CacheStats::default());
    assert_eq!(cache.stats().hit_rate(), 0.0);
    fill(&cache, b"key", &[7; 500]);
    let one = CacheStats { entries: 1, bytes: 503 + ENTRY, misses: 1, ..Default::default() };
    assert_eq!(cache.stats(), one);
    assert_eq!(cache.look_up(b"key").unwrap(), [7; 500]);
    assert_eq!(cache.peek(b"key").unwrap(), [7; 500], "and this is not counted");
    assert_eq!(cache.stats(), CacheStats { hits: 1, ..one });
    assert_eq!(cache.stats().hit_rate(), 50.0);

    fill(&cache, b"b", b"");
    fill(&cache, b"c", b"");
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.evictions, stats.misses), (2, 1, 3));
    // A removal by a commit is no eviction.
    let storage = Memory::default();
    for key in [b"key", &b"b"[..], b"c"] {
        storage.commit_through(&cache, &removing(key));
    }
    assert_eq!(cache.stats(), CacheStats { entries: 0, bytes: 0, ..stats });
}

#[test]
fn neither_limit_is_passed_at_any_moment_and_both_are_used() {
    for (entries, bytes, value_len) in [
        (1, 1 << 20, 10),
        (2, 1 << 20, 300_000),
        (10_000, 64 << 20, 100),
        (10_007, 64 << 20, 0),
        (10_000, 4 << 20, 2_000),
        (100_000, 1 << 20, 5),
        (50, 1 << 30, 1_000),
    ] {
        let limits = CacheLimits { entries, bytes };
        let cache = ReadCache::new(limits);
        let entry_bytes = 4 + value_len as u64 + ENTRY;
        let room = (entries as u64).min(bytes / entry_bytes);
        let value = vec![1; value_len];
        for number in 0..3 * room as u32 {
            let key = number.to_le_bytes();
            fill(&cache, &key, &value);
            let (entries_now, bytes_now) = sizes(cache.stats());
            assert!(entries_now <= entries as u64 && bytes_now <= bytes, "{limits:?}");
            assert_eq!(bytes_now, entries_now * entry_bytes, "{limits:?}");
        }
        let stats = cache.stats();
        assert!(stats.entries * 100 >= room * 95, "{limits:?}: {stats:?} of {room}");
        assert_eq!(stats.evictions + stats.entries, stats.misses, "{limits:?}");
    }
}

#[test]
fn values_that_grow_in_their_places_push_others_out_and_pass_no_limit() {
    let limits = CacheLimits { entries: 1_000, bytes: 1 << 20 };
    let (cache, storage) = (ReadCache::new(limits), Memory::default());
    for key in 0..1_000_u32 {
        storage.put_through(&cache, &key.to_le_bytes(), &[0; 10]);
        storage.get_through(&cache, &key.to_le_bytes(), || ());
    }
    assert_eq!(cache.stats().entries, 1_000);
    for len in [50_000, 100, 1 << 20, 0, 500_000] {
        let mut batch = StorageBatch::new();
        (0..20_u32).for_each(|key| batch.put(STATE, &key.to_le_bytes(), &vec![1; len]));
        storage.commit_through(&cache, &batch);
        let (entries, bytes) = sizes(cache.stats());
        assert!(entries <= 1_000 && bytes <= limits.bytes, "{entries}, {bytes}");
        for key in 0..1_000_u32 {
            let key = key.to_le_bytes();
            let value = storage.get_through(&cache, &key, || ()).unwrap();
            assert_eq!(Some(value), storage.get(&key));
            assert!(cache.stats().bytes <= limits.bytes);
        }
    }
}

#[test]
fn a_value_that_would_push_out_nearly_all_others_is_not_kept() {
    let cache = ReadCache::new(LIMITS);
    let most = cache.entry_bytes_max() as usize - 1;
    fill(&cache, b"k", &vec![1; most]);
    fill(&cache, b"l", &vec![1; most + 1]);
    assert!(cache.peek(b"k").is_some() && cache.peek(b"l").is_none());
    assert_eq!(cache.stats().evictions, 0);
    // An entry that grows beyond the limit is removed.
    let storage = Memory::default();
    storage.put_through(&cache, b"k", &vec![2; most + 1]);
    assert_eq!((cache.peek(b"k").is_none(), sizes(cache.stats())), (true, (0, 0)));
}

#[test]
fn long_values_are_shared_with_the_cache_and_not_copied() {
    let cache = ReadCache::new(LIMITS);
    let value = Value::copied(&[9; 10_000]);
    cache.look_up(b"key").unwrap_err().keep(b"key", &value);
    let found = cache.look_up(b"key").unwrap();
    assert_eq!(found.as_ptr(), value.as_ptr());
    // Values outlive their place in the cache.
    let storage = Memory::default();
    storage.commit_through(&cache, &removing(b"key"));
    assert_eq!((cache.peek(b"key"), found), (None, Value::copied(&[9; 10_000])));
}

#[test]
fn a_commit_changes_what_is_kept_and_keeps_nothing_else() {
    let (cache, storage) = (ReadCache::new(LIMITS), Memory::default());
    for key in [b"a", b"b", b"c"] {
        fill(&cache, key, b"old");
    }
    let mut batch = StorageBatch::new();
    batch.put(STATE, b"a", &[1; 200]);
    batch.remove(STATE, b"b");
    batch.put(STATE, b"new", b"not read so far");
    storage.commit_through(&cache, &batch);
    let now = [b"a", b"b", b"c", &b"new"[..]].map(|key| cache.peek(key));
    let expected = [Some(Value::copied(&[1; 200])), None, Some(Value::copied(b"old")), None];
    assert_eq!(now, expected);
    assert_eq!(sizes(cache.stats()), (2, 1 + 200 + 1 + 3 + 2 * ENTRY));
    // Other tables have other keys.
    let mut other = StorageBatch::new();
    other.put(Table::Notes(1), b"a", b"a note");
    cache.during_commit(&other, STATE, || Ok::<_, ()>(())).unwrap();
    assert_eq!(cache.peek(b"a").unwrap(), [1; 200]);
}

/// The result of a get after a slow reader, which read, waited for a commit, and then filled.
fn after_a_slow_reader(cache: &ReadCache, commit: &StorageBatch) -> Option<Value> {
    let storage = Memory::default();
    storage.commit(&putting(b"key", b"old")).unwrap();
    storage.get_through(cache, b"key", || storage.commit_through(cache, commit));
    storage.get_through(cache, b"key", || ())
}

#[test]
fn a_reader_that_read_before_a_commit_brings_neither_an_old_value_nor_a_deleted_one_back() {
    for (commit, then) in [(putting(b"key", b"new"), Some(&b"new"[..])), (removing(b"key"), None)] {
        let found = after_a_slow_reader(&ReadCache::new(LIMITS), &commit);
        assert_eq!(found.as_deref(), then);
        // The canary: without the comparison of stamps, the old value comes back.
        let found = after_a_slow_reader(&ReadCache::without(Step::Compare, LIMITS), &commit);
        assert_eq!(found.as_deref(), Some(&b"old"[..]));
    }
}

/// Two consecutive gets while a commit is between the storage's change and the cache's.
fn after_the_storage_has_changed(cache: &ReadCache) -> [Option<Value>; 2] {
    let storage = Memory::default();
    storage.commit(&putting(b"key", b"old")).unwrap();
    storage.get_through(cache, b"key", || ());
    let batch = putting(b"key", b"new");
    let mut found = [None, None];
    let commit = || {
        storage.commit(&batch)?;
        // This reader's lookup was before the commit.
        found[0] = storage.get(b"key");
        found[1] = storage.get_through(cache, b"key", || ());
        Ok::<_, ()>(())
    };
    cache.during_commit(&batch, STATE, commit).unwrap();
    found
}

#[test]
fn no_get_goes_back_between_the_change_of_the_storage_and_that_of_the_cache() {
    let new = Some(Value::copied(b"new"));
    let cache = ReadCache::new(LIMITS);
    assert_eq!(after_the_storage_has_changed(&cache), [new.clone(), new.clone()]);
    assert_eq!(cache.peek(b"key"), new, "the key has kept its place");
    // The canary: without the closing, a get goes back.
    let found = after_the_storage_has_changed(&ReadCache::without(Step::Close, LIMITS));
    assert_eq!(found, [new, Some(Value::copied(b"old"))]);
}

#[test]
fn what_was_read_while_a_commit_ran_is_not_kept_after_it() {
    for by in [Some(Step::Compare), None] {
        let cache = by.map_or_else(|| ReadCache::new(LIMITS), |by| ReadCache::without(by, LIMITS));
        let batch = putting(b"key", b"new");
        let mut taken = None;
        let commit = || {
            taken = Some(cache.look_up(b"key").unwrap_err());
            Ok::<_, ()>(())
        };
        cache.during_commit(&batch, STATE, commit).unwrap();
        taken.unwrap().keep(b"key", &Value::copied(b"old"));
        assert_eq!(cache.peek(b"key").is_some(), by.is_some());
    }
}

#[test]
fn a_switch_to_another_table_empties_the_cache_and_refuses_what_was_read_before() {
    for by in [Some(Step::Compare), None] {
        let cache = by.map_or_else(|| ReadCache::new(LIMITS), |by| ReadCache::without(by, LIMITS));
        fill(&cache, b"kept", b"old");
        let before = cache.look_up(b"key").unwrap_err();
        let mut during = None;
        let switch = || {
            assert!(cache.peek(b"kept").is_none());
            during = Some(cache.look_up(b"other").unwrap_err());
            Ok::<_, ()>(())
        };
        cache.during_switch(switch).unwrap();
        assert_eq!(sizes(cache.stats()), (0, 0));
        before.keep(b"key", &Value::copied(b"old"));
        during.unwrap().keep(b"other", &Value::copied(b"old"));
        let kept = [b"key", &b"other"[..], b"kept"].map(|key| cache.peek(key).is_some());
        assert_eq!(kept, [by.is_some(), by.is_some(), false]);
        // After that the key is like any other.
        fill(&cache, b"kept", b"new");
        assert_eq!(cache.peek(b"kept").unwrap(), b"new");
    }
}

#[test]
fn after_a_commit_that_failed_its_keys_are_never_kept_again() {
    let cache = ReadCache::new(LIMITS);
    fill(&cache, b"key", b"old");
    let failed = cache.during_commit(&putting(b"key", b"new"), STATE, || Err::<(), _>("full"));
    assert_eq!(failed, Err("full"));
    cache.look_up(b"key").unwrap_err().keep(b"key", &Value::copied(b"either"));
    assert!(cache.peek(b"key").is_none());
    cache.during_switch(|| Err::<(), _>("full")).unwrap_err();
    cache.look_up(b"other").unwrap_err().keep(b"other", &Value::copied(b"either"));
    assert!(cache.peek(b"other").is_none());
}

#[test]
fn keys_that_are_often_read_outlive_a_scan_also_while_they_are_written() {
    let limits = CacheLimits { entries: 640, bytes: 64 << 20 };
    let (cache, storage) = (ReadCache::new(limits), Memory::default());
    let hot = (0..300_u32).map(u32::to_le_bytes);
    for key in hot.clone().chain((1_000..11_000).map(u32::to_le_bytes)) {
        storage.commit(&putting(&key, b"value")).unwrap();
    }
    for round in 0..4_u8 {
        hot.clone().for_each(|key| drop(storage.get_through(&cache, &key, || ())));
        hot.clone().for_each(|key| storage.put_through(&cache, &key, &[round]));
    }
    for key in (1_000..11_000).map(u32::to_le_bytes) {
        storage.get_through(&cache, &key, || ());
    }
    let kept = hot.filter(|key| cache.peek(key).is_some()).count();
    assert!(kept >= 270, "{kept} of 300: a plain LRU keeps none");
}

/// Keys, each with a rising version; a version divisible by three is a deletion.
const KEYS: usize = 6;
/// Fewest gets beside a writer: on a busy machine it may be done before a reader has begun.
const GETS_MIN: u64 = 1_000;

#[derive(Default)]
struct Race {
    storage: Memory,
    /// The version that a commit has begun to write.
    begun: [AtomicU64; KEYS],
    /// The last committed version.
    committed: [AtomicU64; KEYS],
    /// The highest version that a get has seen.
    seen: [AtomicU64; KEYS],
    went_back: AtomicU64,
    /// Number of gets that ended.
    gets: AtomicU64,
    is_over: AtomicBool,
}

impl Race {
    /// Writes for at least so many rounds, and until the readers have met the writer often.
    fn write(&self, cache: &ReadCache, rounds: u64) {
        let is_met = || self.gets.load(Ordering::SeqCst) >= GETS_MIN;
        for round in (1..).take_while(|round| *round <= rounds || !is_met()) {
            let mut batch = StorageBatch::new();
            let chosen = (0..KEYS).filter(|key| round >> key & 1 == 1);
            for key in chosen.clone() {
                let version = self.begun[key].fetch_add(1, Ordering::SeqCst) + 1;
                if version.is_multiple_of(3) {
                    batch.remove(STATE, &[key as u8]);
                } else {
                    // Some values are shared, and some are copied.
                    let mut value = vec![0; if key % 2 == 0 { 8 } else { 200 }];
                    value[..8].copy_from_slice(&version.to_le_bytes());
                    batch.put(STATE, &[key as u8], &value);
                }
            }
            let commit = || {
                thread::yield_now();
                self.storage.commit(&batch)?;
                thread::yield_now();
                Ok::<_, ()>(())
            };
            cache.during_commit(&batch, STATE, commit).unwrap();
            for key in chosen {
                let version = self.begun[key].load(Ordering::SeqCst);
                self.committed[key].store(version, Ordering::SeqCst);
            }
            if self.went_back.load(Ordering::SeqCst) > 0 {
                break;
            }
        }
        self.is_over.store(true, Ordering::SeqCst);
    }

    fn read(&self, cache: &ReadCache, first: usize) {
        for key in (0..KEYS).cycle().skip(first) {
            if self.is_over.load(Ordering::SeqCst) {
                break;
            }
            let seen = self.seen[key].load(Ordering::SeqCst);
            let least = seen.max(self.committed[key].load(Ordering::SeqCst));
            let slowly = || (0..first).for_each(|_| thread::yield_now());
            let found = self.storage.get_through(cache, &[key as u8], slowly);
            let version = match found {
                Some(value) => u64::from_le_bytes(value[..8].try_into().unwrap()),
                // This is the earliest possible deletion; version 0 is missing as well.
                None => least.next_multiple_of(3),
            };
            if version < least || version > self.begun[key].load(Ordering::SeqCst) {
                self.went_back.fetch_add(1, Ordering::SeqCst);
            }
            self.seen[key].fetch_max(version, Ordering::SeqCst);
            self.gets.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Number of gets that went back.
    fn run(cache: &ReadCache, rounds: u64) -> u64 {
        let race = Self::default();
        thread::scope(|scope| {
            for first in 0..3 {
                let race = &race;
                scope.spawn(move || race.read(cache, first));
            }
            race.write(cache, rounds);
        });
        race.went_back.into_inner()
    }
}

/// Proves ORD-10.
#[test]
fn gets_and_commits_at_once_never_go_back_nor_bring_a_deleted_value_back() {
    for limits in [LIMITS, CacheLimits { entries: 3, bytes: 1 << 20 }] {
        let cache = ReadCache::new(limits);
        assert_eq!(Race::run(&cache, 700), 0);
        let stats = cache.stats();
        assert!(stats.hits > 0 && stats.misses > 0, "{stats:?}");
        assert!(stats.entries <= limits.entries as u64);
    }
}

#[test]
fn canary_with_a_step_left_out_a_get_goes_back() {
    for step in [Step::Close, Step::Compare] {
        let cache = || ReadCache::without(step, LIMITS);
        let went_back = (0..100).any(|_| Race::run(&cache(), 1_500) > 0);
        assert!(went_back, "{step:?}");
    }
}
