//! The sharded map under the key-value machines: key to value cell.
//!
//! It is [`dashmap::DashMap`], used only through its `raw-api` and with a hash that is computed once per entry, at
//! submission. No guard leaves this file, and closures given to it are this crate's own, never a user's.

#![allow(unsafe_code, reason = "prefetch and iteration over raw tables; see docs/unsafe.md")]

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use dashmap::{DashMap, SharedValue};
use foldhash::SharedSeed;
use foldhash::quality::{FixedState, FoldHasher};

use super::HASH_PARTS;
use super::capture::{Capture, ShardCopy};

/// Keys a shard is made for, at most: few enough that growing one, or copying it for a view, is a short stall.
const SHARD_KEYS_MAX: usize = 512;

const _: () = assert!(size_of::<usize>() == size_of::<u64>(), "a hash is used as a usize");
const _: () = assert!(size_of::<Key>() == 24);
const _: () = assert!(HASH_PARTS.is_power_of_two());

/// A sharded map from keys to cells.
pub(crate) struct Store<C> {
    /// The hasher in it is never asked: hashes come from [`Store::hash`].
    map: DashMap<Key, C, FixedState>,
    /// Foldhash resists chosen keys only if *all* its seeds are unknown; `FixedState` seeds one and publishes the rest.
    seeds: SharedSeed,
    seed: u64,
    hints: Box<[Hint]>,
    /// The view being taken.
    pub(crate) capture: Capture<C>,
}

/// The slots of a table, under its shard's lock.
macro_rules! slots {
    ($table:expr) => {{
        // SAFETY: the lock, of which `$table` is the guard, keeps the table where and as it is while it is borrowed, as
        // it is by the expression that drives the iterator.
        let buckets = unsafe { $table.iter() };
        buckets.map(|bucket| {
            // SAFETY: the iterator yields full buckets of the live table, and under the lock nobody has a mutable
            // reference to one.
            let (key, cell) = unsafe { bucket.as_ref() };
            (key, cell.get())
        })
    }};
}

/// What becomes of a key after [`Store::update`] has looked at it.
#[derive(Debug)]
pub(crate) enum Change<C> {
    /// Nothing more than was done to the cell in place.
    Keep,
    /// It has this cell from now on.
    Set(C),
    /// It is removed.
    Remove,
}

impl<C: Send + Sync> Store<C> {
    /// Bytes of one slot of a table: key, cell and control byte.
    pub(crate) const SLOT_BYTES: usize = size_of::<(Key, SharedValue<C>)>() + 1;

    /// An empty store with room for `expected_keys`, spread by a hash that depends on `hash_seed`.
    pub(crate) fn new(expected_keys: usize, hash_seed: u64) -> Self {
        let shards = shard_count(expected_keys);
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

    /// The hash of a key: what every other call takes beside the key.
    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.seeds);
        hasher.write(key);
        hasher.finish()
    }

    /// Runs `read` over the cell of `key`, under the shard's read lock.
    #[inline]
    pub(crate) fn read<R>(&self, hash: u64, key: &[u8], read: impl FnOnce(Option<&C>) -> R) -> R {
        // Nothing is loaded past a locked instruction: asked for before it, the three lines come at the same time.
        self.prefetch(hash);
        let table = self.map.shards()[self.shard(hash)].read();
        read(table.get(hash, |(known, _)| known.as_slice() == key).map(|(_, cell)| cell.get()))
    }

    /// Runs `change` over the cell of `key` and does what it says, under one take of the shard's write lock.
    ///
    /// A key that stays, or stays away, is probed for once. If the shard was last copied for a view before `generation`,
    /// it is copied first.
    #[inline]
    pub(crate) fn update<R>(
        &self,
        hash: u64,
        key: &[u8],
        generation: u64,
        change: impl FnOnce(Option<&mut C>) -> (Change<C>, R),
    ) -> R
    where
        C: Clone,
    {
        let shard = self.shard(hash);
        let mut table = self.map.shards()[shard].write();
        let copied = &self.hints[shard].generation;
        if copied.load(Ordering::Relaxed) < generation {
            self.capture.copy_before_write(shard, |copies| {
                self.hints[shard].prefetch_all(Self::SLOT_BYTES - 1);
                copy(copies, slots!(table));
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

    /// Asks the processor for the memory that a look-up of `hash` is going to touch. Takes no lock, changes nothing.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        let shard = self.shard(hash);
        prefetch_line((&raw const self.map.shards()[shard]).cast());
        let [control, slot, next] = self.hints[shard].addresses(hash, Self::SLOT_BYTES - 1);
        prefetch_line(control);
        prefetch_line(slot);
        prefetch_line(next);
    }

    /// Shows `look` the cell that `hash` most likely belongs to, if its shard is free: to prefetch what it refers to.
    #[inline]
    pub(crate) fn peek(&self, hash: u64, look: impl FnOnce(&C)) {
        if let Some(table) = self.map.shards()[self.shard(hash)].try_read()
            && let Some((_, cell)) = table.get(hash, |_| true)
        {
            look(cell.get());
        }
    }

    /// Copies every entry by `copy`, under its shard's read lock, and hands each shard's copies to `each` outside
    /// of it.
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
        C: Clone,
    {
        for (number, shard) in self.map.shards().iter().enumerate() {
            // Whoever writes to the shard, and so may copy it, has its lock alone; there is one sweep at a time.
            let table = shard.read();
            let copied = &self.hints[number].generation;
            if copied.load(Ordering::Relaxed) < generation {
                self.capture.add(number, |copies| {
                    self.hints[number].prefetch_all(Self::SLOT_BYTES - 1);
                    copy(copies, slots!(table));
                });
                copied.store(generation, Ordering::Relaxed);
            }
        }
    }

    /// Room for a copy of every shard, and of some more keys in each, all of it touched. `blank` is a cell of no
    /// matter.
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

    /// An empty store whose shards can take the place of this one's.
    pub(crate) fn empty_like(&self, expected_keys: usize) -> Self {
        let shards = self.shards();
        let capacity = shard_capacity(expected_keys, shards).saturating_mul(shards);
        Self::with_shards(shards, capacity, SharedSeed::clone(&self.seeds), self.seed)
    }

    /// Takes the keys of `other`, which has as many shards, in the place of its own, a shard at a time.
    pub(crate) fn take_over(&self, other: &Self) {
        debug_assert_eq!(self.shards(), other.shards());
        for ((hint, shard), new) in self.hints.iter().zip(self.map.shards()).zip(other.map.shards())
        {
            let mut table = shard.write();
            std::mem::swap(&mut *table, &mut *new.write());
            hint.set(table.data_end().as_ptr().cast(), table.buckets());
        }
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> usize {
        self.hints.len()
    }

    /// How many keys there are. Takes every shard's lock in turn: exact while nothing is being applied.
    pub(crate) fn len(&self) -> usize {
        self.map.shards().iter().map(|shard| shard.read().len()).sum()
    }

    /// Bytes of memory the tables take, long keys and what cells refer to not counted.
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

fn copy<'a, C: Clone + 'a>(
    copies: &mut ShardCopy<C>,
    slots: impl Iterator<Item = (&'a Key, &'a C)>,
) {
    let room = copies.as_ptr().cast::<u8>();
    prefetch_lines(room, copies.capacity() * size_of::<(Key, C)>());
    copies.extend(slots.map(|(key, cell)| (key.clone(), cell.clone())));
}

impl<C> fmt::Debug for Store<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the seed: who knows it can choose keys that collide.
        f.debug_struct("Store").field("shards", &self.hints.len()).finish_non_exhaustive()
    }
}

/// A power of two, so that a hash finds its shard by its bits; at least one a hash part.
fn shard_count(expected_keys: usize) -> usize {
    expected_keys.div_ceil(SHARD_KEYS_MAX).next_power_of_two().max(HASH_PARTS)
}

/// Keys fall into shards unevenly: four standard deviations of room leave about one shard in 30,000 to grow.
fn shard_capacity(expected_keys: usize, shards: usize) -> usize {
    let mean = expected_keys.div_ceil(shards);
    mean + 4 * mean.isqrt() + 2
}

/// Where a shard's table was last seen: good enough to prefetch by, and used for nothing else.
///
/// It is set under the shard's write lock and read under none, so it may be of a table that has grown since; an
/// address to prefetch may be wrong without harm. Relaxed, for the same reason.
#[derive(Debug, Default)]
struct Hint {
    /// Control bytes start here and go up; slots end here and go down.
    control: AtomicPtr<u8>,
    buckets: AtomicUsize,
    /// Of the last view the shard was copied for. Read and written under the shard's lock only.
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

    /// Asks the processor for the whole table. It is walked from its end, slot by slot and past empty ones, which the
    /// processor does not foresee: 999 of 1,000 copies of some 500 keys then took 72 us at most, not 76.
    fn prefetch_all(&self, slot_bytes: usize) {
        let buckets = self.buckets.load(Ordering::Relaxed);
        let slots_bytes = buckets.wrapping_mul(slot_bytes);
        let control = self.control.load(Ordering::Relaxed).cast_const();
        prefetch_lines(control.wrapping_sub(slots_bytes), slots_bytes.wrapping_add(buckets));
    }

    /// The control byte, the slot and the line beyond it where a probe for `hash` begins.
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

/// A hint to the processor; `address` may point anywhere.
#[inline]
pub(super) fn prefetch_line(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing a program could see and faults on no address; it needs SSE, which every
        // x86-64 processor has.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    {
        // SAFETY: as above: PRFM is a hint that faults on no address and touches no register or flag.
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

/// The same for each line of `bytes` bytes from `start` on; up to a table that has grown far beyond what shards are made for.
fn prefetch_lines(start: *const u8, bytes: usize) {
    for line in 0..bytes.div_ceil(CACHE_LINE_BYTES).min(PREFETCH_LINES_MAX) {
        prefetch_line(start.wrapping_add(line * CACHE_LINE_BYTES));
    }
}

/// 256 KiB: what the second cache holds.
const PREFETCH_LINES_MAX: usize = 4096;

/// A key: up to 22 bytes in the slot itself, longer ones on the heap.
#[derive(Clone)]
pub(crate) enum Key {
    /// The first `len` bytes.
    Inline { len: u8, bytes: [u8; Key::INLINE_BYTES_MAX] },
    /// All of them.
    Boxed(Box<[u8]>),
}

impl Key {
    /// The longest key without an allocation of its own.
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
