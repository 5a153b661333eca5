//! Which part of the state an entry concerns.

use std::fmt;
use std::hash::{BuildHasher, Hasher};

/// The partition that an entry concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Footprint {
    /// The partition that this hash falls into; entries with the same hash share a partition. Bits
    /// 49 to 56 decide, so the hash must be well mixed: [`Footprint::key`] makes one.
    Key(u64),
    /// All partitions: the entry is a barrier.
    All,
}

impl Footprint {
    /// The footprint of the object that `bytes` name, such as an account or a key.
    #[must_use]
    pub fn key(bytes: &[u8]) -> Self {
        // The seed is fixed. A partition is not worth an attack, and the same footprint on every
        // node is easier to reason about.
        let mut hasher = foldhash::quality::FixedState::with_seed(0).build_hasher();
        hasher.write(bytes);
        Self::Key(hasher.finish())
    }
}

/// Number of equal parts that hashes fall into. A partition is a run of parts, and a store's shard
/// lies in one part.
pub(crate) const HASH_PARTS: usize = 256;

/// The part, of [`HASH_PARTS`], that a hash falls into.
#[inline]
pub(crate) fn hash_part(hash: u64) -> usize {
    // The store's tables compare slots by the top seven bits, so the bits after them choose the
    // shard. The parts use the same bits, so every shard lies in exactly one part.
    (hash << 7 >> 56) as usize
}

/// One worker's share of the state: partition `id` of `count`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partition {
    id: usize,
    count: usize,
}

impl Partition {
    /// The whole state as one partition.
    pub const WHOLE: Self = Self { id: 0, count: 1 };

    pub(crate) fn new(id: usize, count: usize) -> Self {
        debug_assert!(id < count && count <= HASH_PARTS);
        Self { id, count }
    }

    /// Number of this partition, from 0.
    #[must_use]
    pub fn id(&self) -> usize {
        self.id
    }

    /// Number of partitions.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether an entry with this footprint hash belongs here.
    #[inline]
    #[must_use]
    pub fn owns(&self, hash: u64) -> bool {
        self.count == 1 || hash_part(hash) * self.count / HASH_PARTS == self.id
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.id, self.count)
    }
}
