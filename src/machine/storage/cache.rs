//! A bounded cache of values before a storage that is slow to read.
//!
//! # Never stale
//!
//! A get through the cache returns what the storage itself would have returned at some moment of the call.
//! Each key has a *stamp*: an even number while the key is open, an odd one while a commit may be changing it.
//!
//! | the committer, one at a time | a reader |
//! |---|---|
//! | 1. *closes* each key of its batch, under the write lock of the key's shard: the stamp becomes odd, and the entry, if there is one, loses its value but keeps its place | 1. looks the key up under the read lock: an entry with a value is a *hit* and ends the call; else the reader takes the stamp along |
//! | 2. commits the batch in the storage | 2. reads the storage, with no lock held |
//! | 3. *opens* each key under the write lock: the entry that lost its value gets the new one, or goes; the stamp becomes the next even number | 3. *fills* under the write lock: it puts the value in only if the stamp is even and still the one that it took along |
//!
//! **Claim.** While no thread holds a shard's lock, each value in the shard is the one that the storage has committed
//! last for its key.
//!
//! - *A fill keeps it.* Stamps only rise. The stamp was even at the lookup and is the same at the fill, so no commit of
//!   this key was between its closing and its opening at any time from the lookup to the fill. The storage did not
//!   change the key in between. The value that the reader read in between is the last one committed.
//! - *A closing keeps it*, because it only takes values away. After it the shard has no value for the key, and no fill
//!   puts one in, before the opening. So the storage may change the key at any time in between.
//! - *An opening keeps it.* The commit has ended, and the next one has not begun: there is one committer. So the value
//!   that it puts in is the last one committed.
//!
//! A hit is therefore a read of the storage at the moment of the lookup. If the gets of the storage never go back for a
//! key, then neither do gets through the cache: they are gets of the storage, each at a moment within its call. A get
//! that begins after a commit has returned sees that commit.
//!
//! Keys share stamps by their hash. A shared stamp refuses a fill that it could have taken, and never takes one that it
//! should have refused. A commit that fails or panics leaves its keys closed for ever: the machine is poisoned then.
//!
//! The models in `src/apply/models/loom_cache.rs` and the tests beside this file leave out one step at a time, and see
//! a get go back.

mod shard;

use std::hash::{BuildHasher, Hasher};

use crossbeam_utils::CachePadded;
use foldhash::quality::RandomState;

use self::shard::{ENTRY_BYTES, Entry, Shard};
use super::{StorageBatch, Table};
use crate::Value;

/// Most shards: each has a lock of its own.
const SHARDS_MAX: usize = 16;
/// A shard has room for at least so many entries, and for so many bytes, or there are fewer shards.
const SHARD_ENTRIES_MIN: usize = 64;
const SHARD_BYTES_MIN: u64 = 1 << 20;
/// All shards together: 64 KiB. While a commit of 100 keys runs, one fill in 80 of other keys is refused.
const STAMPS: usize = 8_192;

/// The limits of a [`ReadCache`]. Both hold at every moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Most entries, at least 1.
    pub entries: usize,
    /// Most bytes: keys, values, and 192 bytes for each entry. At most 1 TiB.
    pub bytes: u64,
}

/// What a [`ReadCache`] has done, read without a lock: each figure for itself is exact, all together are not of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Entries in the cache.
    pub entries: u64,
    /// What they take: keys, values, and 192 bytes each.
    pub bytes: u64,
    /// Lookups that found a value.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Entries that a limit has pushed out.
    pub evictions: u64,
}

impl CacheStats {
    /// Hits of all lookups, 0.0 to 100.0; 0.0 before the first lookup.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a percentage")]
    pub fn hit_rate(&self) -> f64 {
        let lookups = self.hits + self.misses;
        if lookups == 0 { 0.0 } else { 100.0 * self.hits as f64 / lookups as f64 }
    }
}

/// Values of a storage, kept in memory within two limits. See the module's documentation for how it stays true.
///
/// What is pushed out is decided by `quick_cache` (a Clock-PRO that resists scans), for each shard by itself. Missing
/// keys are not kept.
#[derive(Debug)]
pub struct ReadCache {
    shards: Box<[CachePadded<Shard>]>,
    hasher: RandomState,
    /// The step of the protocol that a test leaves out.
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

/// The right to put a value into the cache that the storage is asked for after the lookup.
#[derive(Debug)]
#[must_use = "a lookup that missed is for reading the storage next"]
pub struct Fill<'c> {
    shard: &'c Shard,
    hash: u64,
    stamp: u64,
    is_compared: bool,
}

impl Fill<'_> {
    /// Puts the value of `key` in, if no commit has begun to change the key since the lookup.
    ///
    /// `key` is the one that was looked up. `value` was read from the storage after the lookup.
    pub fn keep(self, key: &[u8], value: &Value) {
        self.shard.fill(self.hash, self.stamp, self.is_compared, key, value);
    }
}

impl ReadCache {
    /// An empty cache.
    #[must_use]
    pub fn new(limits: CacheLimits) -> Self {
        let CacheLimits { entries, bytes } = limits;
        let by_bytes = usize::try_from(bytes / SHARD_BYTES_MIN).unwrap_or(SHARDS_MAX);
        let room = (entries / SHARD_ENTRIES_MIN).min(by_bytes).clamp(1, SHARDS_MAX);
        // The largest power of two that is not above it.
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

    /// A cache without one step of the protocol.
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

    /// The value of `key`, or the right to put it in after the storage has been asked.
    ///
    /// Copies up to 128 bytes, shares more. Which table of the storage is asked has to be decided after this call:
    /// [`during_switch`](ReadCache::during_switch) relies on it.
    #[inline]
    pub fn look_up(&self, key: &[u8]) -> Result<Value, Fill<'_>> {
        let (shard, hash) = self.place(key);
        shard.look_up(hash, key, true).map_err(|stamp| {
            let is_compared = !self.leaves_out(Step::Compare);
            Fill { shard, hash, stamp, is_compared }
        })
    }

    /// The value of `key` if the cache has it. Counts nothing, and is no reason to keep the key longer.
    #[inline]
    #[must_use]
    pub fn peek(&self, key: &[u8]) -> Option<Value> {
        let (shard, hash) = self.place(key);
        shard.look_up(hash, key, false).ok()
    }

    /// Runs `commit`, which changes the keys of `table` that are in `batch`, and no others.
    ///
    /// One commit runs at a time. Entries of changed keys get the new values; a key that has none is not put in.
    ///
    /// # Errors
    ///
    /// Those of `commit`. The batch's keys are never kept again after one.
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
                // Copied before the lock is taken.
                shard.open_with(hash, key, value.map(|value| Entry::new(hash, key, value)));
            } else {
                shard.open(hash);
            }
        }
    }

    /// Runs `switch`, which changes what any key's value is: another table counts from then on.
    ///
    /// The cache is empty afterwards. One commit or switch runs at a time.
    ///
    /// # Errors
    ///
    /// Those of `switch`. Nothing is ever kept again after one.
    pub fn during_switch<R, E>(&self, switch: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
        self.shards.iter().for_each(|shard| shard.close_all());
        let result = switch()?;
        self.shards.iter().for_each(|shard| shard.open_all());
        Ok(result)
    }

    /// What the cache has done. Takes no lock.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let mut sum = CacheStats::default();
        for shard in &self.shards {
            shard.add_to(&mut sum);
        }
        sum
    }

    /// The most bytes that a key and its value may have to be kept.
    #[must_use]
    pub fn entry_bytes_max(&self) -> u64 {
        let least = self.shards.iter().map(|shard| shard.entry_bytes_max()).min();
        least.unwrap_or(0).saturating_sub(ENTRY_BYTES)
    }

    #[inline]
    fn place(&self, key: &[u8]) -> (&Shard, u64) {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        let hash = hasher.finish();
        // Bits that neither the shard's table nor its stamps use.
        #[allow(clippy::cast_possible_truncation, reason = "the lowest bits count")]
        let at = (hash >> 48) as usize & (self.shards.len() - 1);
        (&self.shards[at], hash)
    }
}
