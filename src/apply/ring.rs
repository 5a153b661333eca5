//! The rings between the appender and the workers: one `ArrayQueue` of index ranges for each
//! worker.
//!
//! Every worker gets every range, so each sees the whole log in order, and no sequencer is needed.
//! Only the holder of the appender pushes; only the owner of a partition pops.

use crate::codec::Extent;
use crate::error::Poison;
use crate::sync::ArrayQueue;

/// Consecutive entries of one frame, ready to be applied. A descriptor holds no payload, and has 32
/// bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) first: u64,
    pub(crate) count: u32,
    /// The entries' place; the header of their frame has the term and leader of all.
    pub(crate) extent: Extent,
    pub(crate) kind: RangeKind,
}

/// Kind of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RangeKind {
    /// Entries, each of one partition.
    Entries,
    /// A single entry that concerns all partitions.
    Barrier,
    /// No entry: the place at which a view is taken.
    ViewToken,
}

impl Descriptor {
    /// Makes the view token: the view has everything before `first`.
    pub(crate) fn view_token(first: u64) -> Self {
        Self { first, count: 0, extent: Extent::NOWHERE, kind: RangeKind::ViewToken }
    }

    pub(crate) fn is_barrier(&self) -> bool {
        self.kind == RangeKind::Barrier
    }
}

impl From<bool> for RangeKind {
    fn from(barrier: bool) -> Self {
        if barrier { Self::Barrier } else { Self::Entries }
    }
}

const _: () = assert!(size_of::<Descriptor>() <= 32);

/// One ring for each worker.
#[derive(Debug)]
pub(crate) struct Rings(Box<[ArrayQueue<Descriptor>]>);

impl Rings {
    pub(crate) fn new(workers: usize, ranges: usize) -> Self {
        Self((0..workers).map(|_| ArrayQueue::new(ranges)).collect())
    }

    /// Whether every ring has room for one more range. It stays true until the (single) pusher
    /// pushes.
    #[inline]
    pub(crate) fn have_room(&self) -> bool {
        self.0.iter().all(|ring| !ring.is_full())
    }

    /// Gives a range to every worker. The caller holds the appender, and has seen room.
    ///
    /// # Errors
    ///
    /// Returns a poison if a ring has no room after all. Some workers may have the range then and
    /// others not, so the caller fails the engine.
    #[inline]
    pub(crate) fn push(&self, range: Descriptor) -> Result<(), Poison> {
        for ring in &self.0 {
            ring.push(range).map_err(|_| Poison::Internal("a worker's ring had no room"))?;
        }
        Ok(())
    }

    /// The next range for a worker.
    #[inline]
    pub(crate) fn pop(&self, worker: usize) -> Option<Descriptor> {
        self.0.get(worker)?.pop()
    }

    /// Whether a worker has nothing to pop.
    pub(crate) fn is_empty(&self, worker: usize) -> bool {
        self.0.get(worker).is_none_or(ArrayQueue::is_empty)
    }

    /// Memory of the rings in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.0.iter().map(|ring| ring.capacity() * (size_of::<Descriptor>() + 8)).sum()
    }
}
