//! A shard of the cache: entries and stamps under one lock, with the eviction of `quick_cache`.

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::unsync::Cache;
use quick_cache::{Equivalent, Lifecycle, OptionsBuilder, Weighter};

use super::CacheStats;
use crate::bytes::to_usize;
use crate::contract::value::Value;
use crate::sync::{RwLock, RwLockWriteGuard};

/// Bytes of an entry beside its key and value. They are its place, places of keys remembered
/// without values, both allocations, and free places of tables. Measured: 172 to 207
/// (`benches/cache_hit_rates`).
pub(super) const ENTRY_BYTES: u64 = 192;

/// Share of keys that are remembered without their values, of the entries that there is room for. A
/// key that comes back is then kept as a frequent one. With the crate's 0.5, a loop of 4,000 keys
/// in a cache of 4,780 hit 18 % instead of 64 %. A zipfian load hit 0.3 % more
/// (`benches/cache_hit_rates`).
const GHOSTS: f64 = 0.85;

/// A stamp with which no fill is accepted.
const CLOSED: u64 = 1;

/// Weights are bytes in units of this fraction, so that the weight of one entry is precise.
const WEIGHT_OF_BYTE: u64 = 1 << 16;

/// The part of the cache under one lock.
pub(super) struct Shard {
    state: RwLock<State>,
    // These counters share the cache line of the lock, to which a lookup has just written. No order
    // depends on them, so they are not the model checkers' types.
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
    entry_bytes_max: u64,
}

struct State {
    entries: Entries,
    /// Bytes of the entries.
    bytes: u64,
    /// The stamps: odd while a commit may be changing a key with this stamp. Stamps only rise.
    stamps: Box<[u64]>,
}

type Entries = Cache<Key, Held, Weights, BuildHasherDefault<Known>, Collect>;

/// A key with its hash, so that a call hashes it once, and its eviction does not hash it again.
struct Key {
    hash: u64,
    bytes: Box<[u8]>,
}

/// The value; `None`: a commit may be changing it.
type Held = Option<Arc<[u8]>>;

/// A key and its value, allocated before a lock is taken.
pub(super) struct Entry {
    key: Key,
    value: Arc<[u8]>,
}

impl Entry {
    pub(super) fn new(hash: u64, key: &[u8], value: &[u8]) -> Self {
        Self { key: Key { hash, bytes: key.into() }, value: value.into() }
    }

    fn bytes(&self) -> u64 {
        (self.key.bytes.len() + self.value.len()) as u64 + ENTRY_BYTES
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A key to look up.
struct Sought<'k> {
    hash: u64,
    bytes: &'k [u8],
}

impl Hash for Sought<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<Key> for Sought<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.bytes == *key.bytes
    }
}

/// A hasher that returns a given hash.
#[derive(Default)]
struct Known(u64);

impl Hasher for Known {
    fn write(&mut self, _: &[u8]) {
        debug_assert!(false, "keys write their hash");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn bytes_of(key: &Key, value: &Held) -> u64 {
    let value = value.as_ref().map_or(0, |bytes| bytes.len());
    (key.bytes.len() + value) as u64 + ENTRY_BYTES
}

/// Weights of entries: the bytes of an entry, or the share of one entry where that is more.
///
/// So one capacity keeps both limits, and it is the least weight that does. With entries of very
/// different sizes, the cache may be full at half of both limits.
#[derive(Clone)]
struct Weights {
    /// The least weight such that the capacity cannot hold more than the maximum of entries.
    of_entry: u64,
}

impl Weights {
    fn new(entries_max: usize, capacity: u64) -> Self {
        // This is above capacity / (entries_max + 1), so one entry more would be too heavy.
        Self { of_entry: capacity / (entries_max as u64).saturating_add(1) + 1 }
    }
}

impl Weighter<Key, Held> for Weights {
    fn weight(&self, key: &Key, value: &Held) -> u64 {
        // A weight that saturates is over every capacity, so the value is not cached.
        bytes_of(key, value).saturating_mul(WEIGHT_OF_BYTE).max(self.of_entry)
    }
}

/// Hands out entries that leave the cache, so that they are counted, and freed after the lock is
/// released.
#[derive(Clone)]
struct Collect;

#[derive(Default)]
struct Left {
    first: Option<(Key, Held)>,
    others: Vec<(Key, Held)>,
}

impl Left {
    fn entries(&self) -> u64 {
        (usize::from(self.first.is_some()) + self.others.len()) as u64
    }

    fn bytes(&self) -> u64 {
        self.first.iter().chain(&self.others).map(|(key, value)| bytes_of(key, value)).sum()
    }
}

impl Lifecycle<Key, Held> for Collect {
    type RequestState = Left;

    fn on_evict(&self, left: &mut Left, key: Key, value: Held) {
        if left.first.is_none() {
            left.first = Some((key, value));
        } else {
            left.others.push((key, value));
        }
    }
}

impl Shard {
    /// Makes a shard; `stamps` must be a power of two.
    pub(super) fn new(entries_max: usize, bytes_max: u64, stamps: usize) -> Self {
        debug_assert!(stamps.is_power_of_two());
        // A capacity that saturates is more than any memory.
        let capacity = bytes_max.saturating_mul(WEIGHT_OF_BYTE);
        // Expect as many entries as there can be of the smallest size. The room for keys without
        // values depends on it.
        let by_bytes = to_usize(bytes_max / ENTRY_BYTES);
        let entries_expected = entries_max.min(by_bytes);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(entries_expected)
            .weight_capacity(capacity)
            .ghost_allocation(GHOSTS)
            .shards(1)
            .build();
        let Ok(options) = options else { unreachable!("both capacities are set") };
        let weights = Weights::new(entries_max, capacity);
        let mut entries =
            Cache::with_options(options, weights, BuildHasherDefault::default(), Collect);
        // Without this the table doubles as it fills, and up to half of its places are never used.
        entries.reserve(entries_expected);
        let state = State { entries, bytes: 0, stamps: vec![0; stamps].into() };
        Self {
            state: RwLock::new(state),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            // The crate refuses an entry heavier than 97 % of its capacity.
            entry_bytes_max: bytes_max / 4 * 3,
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn entry_bytes_max(&self) -> u64 {
        self.entry_bytes_max
    }

    /// The value, or the stamp of the key. Only a `counted` lookup keeps the key longer in the
    /// cache.
    #[inline]
    pub(super) fn look_up(&self, hash: u64, key: &[u8], counted: bool) -> Result<Value, u64> {
        let sought = Sought { hash, bytes: key };
        let found = self.state.read().map_or(Err(CLOSED), |state| {
            let entries = &state.entries;
            match if counted { entries.get(&sought) } else { entries.peek(&sought) } {
                Some(Some(bytes)) => Ok(Value::held(bytes)),
                _ => Err(state.stamps[state.stamp_at(hash)]),
            }
        });
        if counted {
            let counter = if found.is_ok() { &self.hits } else { &self.misses };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// Adds a value if the key is open and its stamp is `stamp`.
    pub(super) fn fill(&self, hash: u64, stamp: u64, compared: bool, key: &[u8], value: &Value) {
        let bytes = (key.len() + value.len()) as u64 + ENTRY_BYTES;
        if bytes > self.entry_bytes_max || compared && stamp % 2 == 1 {
            return;
        }
        let entry = Entry { key: Key { hash, bytes: key.into() }, value: value.to_shared() };
        let mut left = Left::default();
        let Some(mut state) = self.write() else { return };
        let is_same = state.stamps[state.stamp_at(hash)] == stamp;
        if (is_same || !compared) && !state.entries.contains_key(&entry.key) {
            state.bytes += bytes;
            state.entries.insert_with_lifecycle(entry.key, Some(entry.value), &mut left);
            state.bytes -= left.bytes();
            self.evictions.fetch_add(left.entries(), Ordering::Relaxed);
            self.publish(&state);
        }
    }

    /// Closes a key: no fill adds its value from now on, and no lookup finds it. Returns whether it
    /// was in the cache.
    pub(super) fn close(&self, hash: u64, key: &[u8]) -> bool {
        // The value is freed here, after the lock was released.
        self.take(hash, key).is_some()
    }

    fn take(&self, hash: u64, key: &[u8]) -> Held {
        let mut state = self.write()?;
        let at = state.stamp_at(hash);
        state.stamps[at] |= 1;
        let taken = state.entries.peek_mut(&Sought { hash, bytes: key })?.take()?;
        state.bytes -= taken.len() as u64;
        self.publish(&state);
        Some(taken)
    }

    /// Opens a key: fills are accepted again.
    pub(super) fn open(&self, hash: u64) {
        if let Some(mut state) = self.write() {
            state.open(hash);
        }
    }

    /// Opens a key: fills are accepted again. The entry that lost its value gets the new one, or is
    /// removed.
    pub(super) fn open_with(&self, hash: u64, key: &[u8], new: Option<Entry>) {
        let sought = Sought { hash, bytes: key };
        let new = new.filter(|entry| entry.bytes() <= self.entry_bytes_max);
        let mut left = Left::default();
        let removed;
        let Some(mut state) = self.write() else { return };
        state.open(hash);
        // The entry may have been evicted meanwhile. Or another key of the batch has opened the
        // shared stamp, and a fill followed.
        let Some(held) = state.entries.peek(&sought) else { return };
        let held_bytes = key.len() as u64 + held.as_ref().map_or(0, |value| value.len() as u64);
        if let Some(entry) = new {
            state.bytes += entry.bytes();
            let Entry { key, value } = entry;
            let replaced = state.entries.replace_with_lifecycle(key, Some(value), true, &mut left);
            debug_assert!(replaced.is_ok(), "it is there, and fits");
            // The old entry is among those that left.
            state.bytes -= left.bytes();
            // The old entry of the key is among those that left, and was not evicted.
            self.evictions.fetch_add(left.entries().saturating_sub(1), Ordering::Relaxed);
        } else {
            removed = state.entries.remove(&sought);
            debug_assert!(removed.is_some());
            state.bytes -= held_bytes + ENTRY_BYTES;
        }
        self.publish(&state);
    }

    /// Closes every key, and empties the shard.
    pub(super) fn close_all(&self) {
        let Some(mut state) = self.write() else { return };
        state.stamps.iter_mut().for_each(|stamp| *stamp |= 1);
        state.entries.clear();
        state.bytes = 0;
        self.publish(&state);
    }

    /// Opens every key: fills are accepted again.
    pub(super) fn open_all(&self) {
        if let Some(mut state) = self.write() {
            state.stamps.iter_mut().for_each(|stamp| *stamp += *stamp & 1);
        }
    }

    pub(super) fn add_to(&self, sum: &mut CacheStats) {
        sum.entries += self.entries.load(Ordering::Relaxed);
        sum.bytes += self.bytes.load(Ordering::Relaxed);
        sum.hits += self.hits.load(Ordering::Relaxed);
        sum.misses += self.misses.load(Ordering::Relaxed);
        sum.evictions += self.evictions.load(Ordering::Relaxed);
    }

    /// Publishes the sizes for readers without a lock.
    fn publish(&self, state: &State) {
        self.entries.store(state.entries.len() as u64, Ordering::Relaxed);
        self.bytes.store(state.bytes, Ordering::Relaxed);
    }

    /// Locks the shard; `None` after a panic under the lock, after which the shard is not used
    /// again. No foreign code runs under the lock.
    fn write(&self) -> Option<RwLockWriteGuard<'_, State>> {
        // As the documentation says: after a panic the shard is not used.
        self.state.write().ok()
    }
}

impl State {
    #[inline]
    fn stamp_at(&self, hash: u64) -> usize {
        // Use bits that neither the table nor the choice of the shard uses.
        #[allow(clippy::cast_possible_truncation, reason = "the lowest bits count")]
        let at = (hash >> 32) as usize & (self.stamps.len() - 1);
        at
    }

    /// Raises the stamp to the next even number. Another key of the batch that shares the stamp may
    /// have opened it already.
    fn open(&mut self, hash: u64) {
        let at = self.stamp_at(hash);
        self.stamps[at] += self.stamps[at] & 1;
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard").finish_non_exhaustive()
    }
}
