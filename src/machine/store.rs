//! The sharded map under the key-value machines, from key to value cell.
//!
//! It is [`dashmap::DashMap`], used only through its `raw-api`, with a hash that is computed once
//! per entry, at submission. No guard leaves this file, and closures that it calls belong to this
//! crate, never to an embedder.

#![allow(unsafe_code, reason = "prefetch and iteration over raw tables; see docs/unsafe.md")]

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use dashmap::{DashMap, SharedValue};
use foldhash::SharedSeed;
use foldhash::quality::{FixedState, FoldHasher};

use super::capture::{Capture, ShardCopy};
use crate::ranges::partition::HASH_PARTS;

/// Most keys that a shard is made for. They are few enough that growing it, or copying it for a
/// view, is a short stall. They are enough that a core's caches hold the locks of a million keys.
const SHARD_KEYS_MAX: usize = 2048;

const _: () = assert!(size_of::<usize>() == size_of::<u64>(), "a hash is used as a usize");
const _: () = assert!(size_of::<Key>() == 24);
const _: () = assert!(HASH_PARTS.is_power_of_two());

/// A sharded map from keys to cells.
pub(crate) struct Store<C> {
    /// The map; its hasher is never used, because hashes come from [`Store::hash`].
    map: DashMap<Key, C, FixedState>,
    /// Foldhash resists chosen keys only if *all* its seeds are unknown; `FixedState` seeds one and
    /// publishes the rest.
    seeds: SharedSeed,
    seed: u64,
    hints: Box<[Hint]>,
    /// The view being taken.
    pub(crate) capture: Capture<C>,
}

/// Iterates over the slots of a table, under its shard's lock.
macro_rules! slots {
    ($table:expr) => {{
        // SAFETY: the lock, of which `$table` is the guard, keeps the table in place and unchanged
        // while it is borrowed. The expression that drives the iterator borrows it.
        let buckets = unsafe { $table.iter() };
        buckets.map(|bucket| {
            // SAFETY: the iterator yields full buckets of the live table, and under the lock no
            // thread has a mutable reference to one.
            let (key, cell) = unsafe { bucket.as_ref() };
            (key, cell.get())
        })
    }};
}

/// A cell, which may refer to memory outside of its slot.
pub(crate) trait Refers: Clone {
    /// Whether writing to a cell, or copying it, touches such memory.
    const REFERS: bool;

    /// Prefetches that memory.
    fn prefetch(&self) {}
}

/// Change of a key after the closure of [`Store::update`] has seen it.
#[derive(Debug)]
pub(crate) enum Change<C> {
    /// No change beyond the one made to the cell in place.
    Keep,
    /// The key gets this cell.
    Set(C),
    /// The key is removed.
    Remove,
}

impl<C: Send + Sync> Store<C> {
    /// Bytes of one slot of a table: key, cell and control byte.
    pub(crate) const SLOT_BYTES: usize = size_of::<(Key, SharedValue<C>)>() + 1;

    /// Makes an empty store with room for `expected_keys`, spread by a hash that depends on
    /// `hash_seed`.
    pub(crate) fn new(expected_keys: usize, hash_seed: u64) -> Self {
        let shards = shard_count(expected_keys);
        // `expected_keys` is 2^32 at most, so the product does not saturate.
        let capacity = shard_capacity(expected_keys, shards).saturating_mul(shards);
        Self::with_shards(
            shards,
            capacity,
            SharedSeed::from_u64(hash_seed),
            hash_seed.rotate_left(32),
        )
    }

    fn with_shards(shards: usize, capacity: usize, seeds: SharedSeed, seed: u64) -> Self {
        let map = DashMap::with_capacity_and_hasher_and_shard_amount(
            capacity,
            FixedState::default(),
            shards,
        );
        let hints = (0..shards).map(|_| Hint::default()).collect();
        let store = Self { map, seeds, seed, hints, capture: Capture::new(HASH_PARTS) };
        for (hint, shard) in store.hints.iter().zip(store.map.shards()) {
            let table = shard.read();
            hint.set(table.data_end().as_ptr().cast(), table.buckets());
        }
        store
    }

    /// The hash of a key, which every other call takes beside the key.
    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.seeds);
        hasher.write(key);
        hasher.finish()
    }

    /// Runs `read` over the cell of `key`, under the shard's read lock.
    #[inline]
    pub(crate) fn read<R>(&self, hash: u64, key: &[u8], read: impl FnOnce(Option<&C>) -> R) -> R {
        // Prefetch first: no load passes a locked instruction. Requested before it, the three lines
        // arrive at the same time.
        self.prefetch(hash);
        let table = self.map.shards()[self.shard(hash)].read();
        read(table.get(hash, |(known, _)| known.as_slice() == key).map(|(_, cell)| cell.get()))
    }

    /// Runs `change` over the cell of `key` and applies its result, under one take of the shard's
    /// write lock.
    ///
    /// A key that stays, or stays missing, is probed once. If the shard was last copied for a view
    /// before `generation`, it is copied first.
    #[inline]
    pub(crate) fn update<R>(
        &self,
        hash: u64,
        key: &[u8],
        generation: u64,
        change: impl FnOnce(Option<&mut C>) -> (Change<C>, R),
    ) -> R
    where
        C: Refers,
    {
        let shard = self.shard(hash);
        let mut table = self.map.shards()[shard].write();
        let copied = &self.hints[shard].generation;
        if copied.load(Ordering::Relaxed) < generation {
            self.capture.copy_before_write(shard, |copies| {
                self.hints[shard].prefetch_all(Self::SLOT_BYTES - 1);
                copy(copies, slots!(table), slots!(table));
            });
            copied.store(generation, Ordering::Relaxed);
        }
        if let Some((_, cell)) = table.get_mut(hash, |(known, _)| known.as_slice() == key) {
            let (change, result) = change(Some(cell.get_mut()));
            match change {
                Change::Keep => {}
                Change::Set(new) => *cell.get_mut() = new,
                Change::Remove => {
                    let removed = table.remove_entry(hash, |(known, _)| known.as_slice() == key);
                    drop(table);
                    drop(removed);
                }
            }
            return result;
        }
        let (change, result) = change(None);
        if let Change::Set(cell) = change {
            let slot = (Key::new(key), SharedValue::new(cell));
            table.insert_entry(hash, slot, |(known, _)| self.hash(known.as_slice()));
            self.hints[shard].set(table.data_end().as_ptr().cast(), table.buckets());
        }
        result
    }

    /// Prefetches the memory that a look-up of `hash` will touch. The call takes no lock and
    /// changes nothing.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        let shard = self.shard(hash);
        prefetch_line((&raw const self.map.shards()[shard]).cast());
        let [control, slot, next] = self.hints[shard].addresses(hash, Self::SLOT_BYTES - 1);
        prefetch_line(control);
        prefetch_line(slot);
        prefetch_line(next);
    }

    /// Shows `look` the cell that `hash` most likely belongs to, if its shard is free, so that
    /// `look` can prefetch what it refers to.
    #[inline]
    pub(crate) fn peek(&self, hash: u64, look: impl FnOnce(&C)) {
        if let Some(table) = self.map.shards()[self.shard(hash)].try_read()
            && let Some((_, cell)) = table.get(hash, |_| true)
        {
            look(cell.get());
        }
    }

    /// Copies every entry with `copy`, under its shard's read lock, and calls `each` with each
    /// shard's copies outside of it.
    pub(crate) fn scan<T>(&self, copy: impl Fn(&Key, &C) -> T, mut each: impl FnMut(&mut Vec<T>)) {
        let mut copies = Vec::new();
        for shard in self.map.shards() {
            copies.clear();
            let table = shard.read();
            copies.reserve(table.len());
            copies.extend(slots!(table).map(|(key, cell)| copy(key, cell)));
            drop(table);
            each(&mut copies);
        }
    }

    /// Copies every shard that was last copied for a view before `generation`.
    pub(crate) fn sweep(&self, generation: u64)
    where
        C: Refers,
    {
        for (number, shard) in self.map.shards().iter().enumerate() {
            // A thread that writes to the shard, and so may copy it, has the lock exclusively.
            // There is one sweep at a time.
            let table = shard.read();
            let copied = &self.hints[number].generation;
            if copied.load(Ordering::Relaxed) < generation {
                self.capture.add(number, |copies| {
                    self.hints[number].prefetch_all(Self::SLOT_BYTES - 1);
                    copy(copies, slots!(table), slots!(table));
                });
                copied.store(generation, Ordering::Relaxed);
            }
        }
    }

    /// Room for a copy of every shard, and for some more keys in each; all of the memory is
    /// touched. `blank` is any cell.
    pub(crate) fn room(&self, blank: &C) -> Vec<ShardCopy<C>>
    where
        C: Clone,
    {
        let room = |keys: usize| {
            let mut copies = Vec::with_capacity(keys + keys / 16 + 8);
            copies.resize(copies.capacity(), (Key::new(&[]), blank.clone()));
            copies.clear();
            copies
        };
        self.map.shards().iter().map(|shard| room(shard.read().len())).collect()
    }

    /// An empty store whose shards can replace this one's.
    pub(crate) fn empty_like(&self, expected_keys: usize) -> Self {
        let shards = self.shards();
        // `expected_keys` is 2^32 at most, so the product does not saturate.
        let capacity = shard_capacity(expected_keys, shards).saturating_mul(shards);
        Self::with_shards(shards, capacity, SharedSeed::clone(&self.seeds), self.seed)
    }

    /// Replaces the keys by those of `other`, which has as many shards, a shard at a time.
    pub(crate) fn take_over(&self, other: &Self) {
        debug_assert_eq!(self.shards(), other.shards());
        for ((hint, shard), new) in self.hints.iter().zip(self.map.shards()).zip(other.map.shards())
        {
            let mut table = shard.write();
            std::mem::swap(&mut *table, &mut *new.write());
            hint.set(table.data_end().as_ptr().cast(), table.buckets());
        }
    }

    /// Number of shards.
    pub(crate) fn shards(&self) -> usize {
        self.hints.len()
    }

    /// Number of keys. The call takes every shard's lock in turn: exact while nothing is being
    /// applied.
    pub(crate) fn len(&self) -> usize {
        self.map.shards().iter().map(|shard| shard.read().len()).sum()
    }

    /// Memory of the tables in bytes, without long keys and what cells refer to.
    pub(crate) fn memory_bytes(&self) -> usize {
        let tables: usize =
            self.map.shards().iter().map(|shard| shard.read().allocation_info().1.size()).sum();
        tables + size_of_val(self.map.shards()) + size_of_val(&*self.hints)
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "usize is 64 bits wide, asserted above")]
    fn shard(&self, hash: u64) -> usize {
        self.map.determine_shard(hash as usize)
    }
}

/// Copies the slots of a shard. `ahead` yields the same slots: what they refer to is prefetched.
fn copy<'a, C: Refers + 'a>(
    copies: &mut ShardCopy<C>,
    slots: impl Iterator<Item = (&'a Key, &'a C)>,
    mut ahead: impl Iterator<Item = (&'a Key, &'a C)>,
) {
    let room = copies.as_ptr().cast::<u8>();
    prefetch_lines(room, copies.capacity() * size_of::<(Key, C)>());
    if C::REFERS {
        ahead.by_ref().take(COPY_AHEAD).for_each(|(_, cell)| cell.prefetch());
    }
    copies.extend(slots.map(|(key, cell)| {
        if C::REFERS
            && let Some((_, next)) = ahead.next()
        {
            next.prefetch();
        }
        (key.clone(), cell.clone())
    }));
}

/// Number of slots by which a copy prefetches ahead.
const COPY_AHEAD: usize = 16;

impl<C> fmt::Debug for Store<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The seed is left out: a client that knows it can choose colliding keys.
        f.debug_struct("Store").field("shards", &self.hints.len()).finish_non_exhaustive()
    }
}

/// Number of shards: a power of two, so that bits of a hash choose the shard, and at least one for
/// each hash part.
fn shard_count(expected_keys: usize) -> usize {
    expected_keys.div_ceil(SHARD_KEYS_MAX).next_power_of_two().max(HASH_PARTS)
}

/// Capacity of a shard. Keys fall into shards unevenly, so there are 2.5 standard deviations of
/// room: at most about one shard in 160 grows.
///
/// More room may take all tables to the next power of two, which costs more than it saves. With
/// four deviations, tables for 100,000 keys are half as full.
fn shard_capacity(expected_keys: usize, shards: usize) -> usize {
    let mean = expected_keys.div_ceil(shards);
    mean + 5 * mean.isqrt() / 2 + 2
}

/// Last known address of a shard's table, and the last view that the shard was copied for.
///
/// The address is good enough for prefetching, and used for nothing else. It is set under the
/// shard's write lock and read without a lock, so the table may have grown since. A wrong address
/// to prefetch does no harm. Its accesses are relaxed for the same reason. Views rely on the
/// generation, which the shard's lock orders.
#[derive(Debug, Default)]
struct Hint {
    /// Start of the control bytes, which go up; slots end here and go down.
    control: AtomicPtr<u8>,
    buckets: AtomicUsize,
    /// Generation of the last view that the shard was copied for. It is read and written under the
    /// shard's lock only. A thread that writes it has the write lock, or is the one sweep and has
    /// the read lock.
    generation: AtomicU64,
}

impl Hint {
    #[inline]
    fn set(&self, control: *mut u8, buckets: usize) {
        if self.control.load(Ordering::Relaxed) != control {
            self.control.store(control, Ordering::Relaxed);
            self.buckets.store(buckets, Ordering::Relaxed);
        }
    }

    /// Prefetches the whole table. The walk goes from the end, slot by slot and past empty ones,
    /// which the processor does not foresee. With it, 999 of 1,000 copies of some 500 keys took 72
    /// us at most, not 76.
    fn prefetch_all(&self, slot_bytes: usize) {
        let buckets = self.buckets.load(Ordering::Relaxed);
        let slots_bytes = buckets.wrapping_mul(slot_bytes);
        let control = self.control.load(Ordering::Relaxed).cast_const();
        prefetch_lines(control.wrapping_sub(slots_bytes), slots_bytes.wrapping_add(buckets));
    }

    /// Addresses of the control byte, the slot and the line beyond it where a probe for `hash`
    /// begins.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "usize is 64 bits wide, asserted above")]
    fn addresses(&self, hash: u64, slot_bytes: usize) -> [*const u8; 3] {
        let mask = self.buckets.load(Ordering::Relaxed).wrapping_sub(1);
        let bucket = hash as usize & mask;
        let control = self.control.load(Ordering::Relaxed).cast_const();
        let slot = control.wrapping_sub(bucket.wrapping_add(1).wrapping_mul(slot_bytes));
        [control.wrapping_add(bucket), slot, slot.wrapping_sub(CACHE_LINE_BYTES)]
    }
}

pub(super) const CACHE_LINE_BYTES: usize = 64;

/// Prefetches a line; `address` may point anywhere.
#[inline]
pub(super) fn prefetch_line(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that a program could see, and faults on no address. It
        // needs SSE, which every x86-64 processor has.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    {
        // SAFETY: PRFM is a hint that faults on no address and touches no register or flag.
        unsafe {
            std::arch::asm!(
                "prfm pldl1keep, [{address}]",
                address = in(reg) address,
                options(nostack, preserves_flags, readonly)
            );
        }
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = address;
}

/// Prefetches each line of `bytes` bytes from `start` on; a table that has grown far beyond its
/// planned size is prefetched in part.
fn prefetch_lines(start: *const u8, bytes: usize) {
    for line in 0..bytes.div_ceil(CACHE_LINE_BYTES).min(PREFETCH_LINES_MAX) {
        prefetch_line(start.wrapping_add(line * CACHE_LINE_BYTES));
    }
}

/// Number of lines in 256 KiB, the size of the second-level cache.
const PREFETCH_LINES_MAX: usize = 4096;

/// A key: up to 22 bytes in the slot itself, longer ones on the heap.
#[derive(Clone)]
pub(crate) enum Key {
    /// The first `len` bytes are the key.
    Inline { len: u8, bytes: [u8; Key::INLINE_BYTES_MAX] },
    /// All bytes are the key.
    Boxed(Box<[u8]>),
}

impl Key {
    /// Length of the longest key without a separate allocation.
    pub(crate) const INLINE_BYTES_MAX: usize = 22;

    pub(crate) fn new(key: &[u8]) -> Self {
        let mut bytes = [0; Self::INLINE_BYTES_MAX];
        match (bytes.get_mut(..key.len()), u8::try_from(key.len())) {
            (Some(target), Ok(len)) => {
                target.copy_from_slice(key);
                Self::Inline { len, bytes }
            }
            _ => Self::Boxed(key.into()),
        }
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Boxed(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.as_slice().len())
    }
}

impl Eq for Key {}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.as_slice());
    }
}

#[cfg(test)]
#[path = "flood_tests.rs"]
mod flood_tests;
#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
