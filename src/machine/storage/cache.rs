//! A bounded cache of values, for a storage with slow reads.
//!
//! # Never stale
//!
//! A get through the cache returns what the storage would have returned at some moment of the call.
//! Each key has a *stamp*: an even number while the key is open, an odd one while a commit may be
//! changing it.
//!
//! | the committer, one at a time | a reader |
//! |---|---|
//! | 1. *closes* each key of its batch, under the write lock of the key's shard: the stamp becomes odd, and the entry, if there is one, loses its value but keeps its place | 1. looks the key up under the read lock: an entry with a value is a *hit* and ends the call; else the reader takes the stamp along |
//! | 2. commits the batch in the storage | 2. reads the storage, with no lock held |
//! | 3. *opens* each key under the write lock: the entry that lost its value gets the new one, or goes; the stamp becomes the next even number | 3. *fills* under the write lock: it puts the value in only if the stamp is even and still the one that it took along |
//!
//! **Claim.** While no thread holds a shard's lock, each value in the shard is the last one that
//! the storage committed for its key.
//!
//! - *A fill keeps it.* Stamps only rise. The stamp was even at the lookup and is the same at the
//!   fill. So no commit of this key was between its closing and its opening at any time from the
//!   lookup to the fill. The storage did not change the key during that time. So the value that the
//!   reader read is the last one committed.
//! - *A closing keeps it*, because it only removes values. Until the opening, the shard has no
//!   value for the key, and no fill adds one. So the storage may change the key at any time in
//!   between.
//! - *An opening keeps it.* The commit has ended, and the next one has not begun, because there is
//!   one committer. So the value that the opening adds is the last one committed.
//!
//! A hit is therefore a read of the storage at the moment of the lookup. If the storage's gets
//! never go back for a key, then gets through the cache do not either. Each is a get of the storage
//! at a moment within its call. A get that begins after a commit has returned sees that commit.
//!
//! Keys share stamps by their hash. A shared stamp may refuse a fill that was valid, and never
//! accepts an invalid one. A commit that fails or panics leaves its keys closed forever: the
//! machine is poisoned then.
//!
//! The models in `src/apply/models/loom_cache.rs` and the tests beside this file leave out one step
//! at a time, and observe a get that goes back.

mod shard;

use std::hash::{BuildHasher, Hasher};

use crossbeam_utils::CachePadded;
use foldhash::quality::RandomState;

use self::shard::{Entry, Shard};
use super::{StorageBatch, Table};
use crate::bytes::to_usize;
pub use crate::config::storage::CacheLimits;
use crate::contract::value::Value;

/// Maximum of shards; each has its own lock.
const SHARDS_MAX: usize = 16;
/// Least room of a shard in entries; a smaller cache has fewer shards. The next constant is the
/// least room in bytes.
const SHARD_ENTRIES_MIN: usize = 64;
const SHARD_BYTES_MIN: u64 = 1 << 20;
/// Number of stamps of all shards: 64 KiB of memory. While a commit of 100 keys runs, one fill in
/// 80 of other keys is refused.
const STAMPS: usize = 8_192;

/// Figures of a [`ReadCache`], read without a lock. Each figure is exact; together they are not of
/// one moment.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Number of entries in the cache.
    pub entries: u64,
    /// Bytes of the entries: keys, values, and 192 bytes each.
    pub bytes: u64,
    /// Number of lookups that found a value.
    pub hits: u64,
    /// Number of lookups that did not.
    pub misses: u64,
    /// Number of entries that were evicted because of a limit.
    pub evictions: u64,
}

impl CacheStats {
    /// Percentage of hits among all lookups, 0.0 to 100.0; 0.0 before the first lookup.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a percentage")]
    pub fn hit_rate(&self) -> f64 {
        let lookups = self.hits + self.misses;
        if lookups == 0 { 0.0 } else { 100.0 * self.hits as f64 / lookups as f64 }
    }
}

/// Values of a storage, kept in memory within two limits. The module's documentation proves that
/// they are current.
///
/// `quick_cache` (a Clock-PRO that resists scans) chooses the entries to evict, for each shard
/// separately. Missing keys are not kept.
#[derive(Debug)]
pub struct ReadCache {
    shards: Box<[CachePadded<Shard>]>,
    hasher: RandomState,
    /// The step of the protocol that a test omits.
    #[cfg(test)]
    left_out: Option<Step>,
}

/// The steps of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The closing before the storage's commit.
    Close,
    /// The comparison of the stamps at a fill.
    Compare,
}

/// A permit to put a value into the cache, after the storage was read.
#[derive(Debug)]
#[must_use = "a lookup that missed is for reading the storage next"]
pub struct Fill<'c> {
    shard: &'c Shard,
    hash: u64,
    stamp: u64,
    is_compared: bool,
}

impl Fill<'_> {
    /// Adds the value of `key`, unless a commit has begun to change the key since the lookup.
    ///
    /// `key` must be the key of the lookup. `value` must have been read from the storage after the
    /// lookup.
    pub fn keep(self, key: &[u8], value: &Value) {
        self.shard.fill(self.hash, self.stamp, self.is_compared, key, value);
    }
}

impl ReadCache {
    /// Makes an empty cache.
    #[must_use]
    pub fn new(limits: CacheLimits) -> Self {
        let CacheLimits { entries, bytes } = limits;
        let by_bytes = to_usize(bytes / SHARD_BYTES_MIN);
        let room = (entries / SHARD_ENTRIES_MIN).min(by_bytes).clamp(1, SHARDS_MAX);
        // Round down to a power of two.
        let count = 1_usize << room.ilog2();
        let shards = (0..count).map(|at| {
            let entries = entries / count + usize::from(at < entries % count);
            let share = bytes / count as u64;
            CachePadded::new(Shard::new(entries, share, STAMPS / count))
        });
        Self {
            shards: shards.collect(),
            hasher: RandomState::default(),
            #[cfg(test)]
            left_out: None,
        }
    }

    /// Makes a cache without one step of the protocol.
    #[cfg(test)]
    pub(crate) fn without(step: Step, limits: CacheLimits) -> Self {
        Self { left_out: Some(step), ..Self::new(limits) }
    }

    #[inline]
    fn leaves_out(&self, step: Step) -> bool {
        #[cfg(test)]
        return self.left_out == Some(step);
        #[cfg(not(test))]
        return {
            let _ = step;
            false
        };
    }

    /// The value of `key`, or a permit to add it after the storage was read.
    ///
    /// Values of up to 128 bytes are copied, and longer ones are shared. The caller must choose the
    /// table of the storage after this call: [`during_switch`](ReadCache::during_switch) relies on
    /// it.
    #[inline]
    pub fn look_up(&self, key: &[u8]) -> Result<Value, Fill<'_>> {
        let (shard, hash) = self.place(key);
        shard.look_up(hash, key, true).map_err(|stamp| {
            let is_compared = !self.leaves_out(Step::Compare);
            Fill { shard, hash, stamp, is_compared }
        })
    }

    /// The value of `key`, if the cache has it. The call is not counted, and does not keep the key
    /// longer in the cache.
    #[inline]
    #[must_use]
    pub fn peek(&self, key: &[u8]) -> Option<Value> {
        let (shard, hash) = self.place(key);
        // A miss has a permit to fill, which a peek does not use.
        shard.look_up(hash, key, false).ok()
    }

    /// Runs `commit`, which must change only the keys of `table` in `batch`.
    ///
    /// One commit runs at a time. Entries of changed keys get the new values; other changed keys
    /// are not added.
    ///
    /// # Errors
    ///
    /// Returns the error of `commit`. After an error the batch's keys are never cached again.
    pub fn during_commit<R, E>(
        &self,
        batch: &StorageBatch,
        table: Table,
        commit: impl FnOnce() -> Result<R, E>,
    ) -> Result<R, E> {
        let writes = || batch.writes().filter(|(of, ..)| *of == table);
        let close = |key: &[u8]| {
            let (shard, hash) = self.place(key);
            shard.close(hash, key)
        };
        if self.leaves_out(Step::Close) {
            let result = commit()?;
            let had_value: Vec<_> = writes().map(|(_, key, _)| close(key)).collect();
            self.open(writes(), &had_value);
            return Ok(result);
        }
        let had_value: Vec<_> = writes().map(|(_, key, _)| close(key)).collect();
        let result = commit()?;
        self.open(writes(), &had_value);
        Ok(result)
    }

    fn open<'b>(
        &self,
        writes: impl Iterator<Item = (Table, &'b [u8], Option<&'b [u8]>)>,
        had_value: &[bool],
    ) {
        for ((_, key, value), had_value) in writes.zip(had_value) {
            let (shard, hash) = self.place(key);
            if *had_value {
                // Copy before the lock is taken.
                shard.open_with(hash, key, value.map(|value| Entry::new(hash, key, value)));
            } else {
                shard.open(hash);
            }
        }
    }

    /// Runs `switch`, which may change the value of any key, because another table becomes current.
    ///
    /// The cache is empty afterwards. One commit or switch runs at a time.
    ///
    /// # Errors
    ///
    /// Returns the error of `switch`. After an error nothing is ever cached again.
    pub fn during_switch<R, E>(&self, switch: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
        self.shards.iter().for_each(|shard| shard.close_all());
        let result = switch()?;
        self.shards.iter().for_each(|shard| shard.open_all());
        Ok(result)
    }

    /// Figures of the cache. The call takes no lock.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let mut sum = CacheStats::default();
        for shard in &self.shards {
            shard.add_to(&mut sum);
        }
        sum
    }

    /// The most bytes of a key and its value that can be cached.
    #[must_use]
    #[cfg(any(test, feature = "testing"))]
    pub fn entry_bytes_max(&self) -> u64 {
        let least = self.shards.iter().map(|shard| shard.entry_bytes_max()).min();
        // A part smaller than an entry takes no value.
        least.unwrap_or(0).saturating_sub(shard::ENTRY_BYTES)
    }

    #[inline]
    fn place(&self, key: &[u8]) -> (&Shard, u64) {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        let hash = hasher.finish();
        // Use bits that neither the shard's table nor its stamps use.
        #[allow(clippy::cast_possible_truncation, reason = "the lowest bits count")]
        let at = (hash >> 48) as usize & (self.shards.len() - 1);
        (&self.shards[at], hash)
    }
}
