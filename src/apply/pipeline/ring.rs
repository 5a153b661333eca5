//! The rings between the appender and the workers: one `ArrayQueue` of index ranges for each
//! worker.
//!
//! Every worker gets every range, so each sees the whole log in order, and no sequencer is needed.
//! Only the holder of the appender pushes; only the owner of a partition pops.

use crate::error::Poison;
use crate::ranges::index_range::IndexRange;
use crate::sync::ArrayQueue;

/// One ring for each worker.
#[derive(Debug)]
pub(crate) struct Rings(Box<[ArrayQueue<IndexRange>]>);

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
    pub(crate) fn push(&self, range: IndexRange) -> Result<(), Poison> {
        for ring in &self.0 {
            ring.push(range).map_err(|_| Poison::Internal("a worker's ring had no room"))?;
        }
        Ok(())
    }

    /// The next range for a worker.
    #[inline]
    pub(crate) fn pop(&self, worker: usize) -> Option<IndexRange> {
        self.0.get(worker)?.pop()
    }

    /// Whether a worker has nothing to pop.
    pub(crate) fn is_empty(&self, worker: usize) -> bool {
        self.0.get(worker).is_none_or(ArrayQueue::is_empty)
    }

    /// Memory of the rings in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.0.iter().map(|ring| ring.capacity() * (size_of::<IndexRange>() + 8)).sum()
    }
}
