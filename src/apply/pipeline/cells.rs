//! Reply cells: each reply that a future wants moves to the future's cell when its entry is
//! applied.
//!
//! So a future that is never polled, or is leaked, keeps no reply in the ring, and no other call
//! waits for it. A thread that is about to raise `applied` first moves the replies below the new
//! mark. So a future that sees its entry acknowledged finds its reply.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::entry::Reply;
use crate::numbers::Mark;
use crate::ranges::in_flight_ring::InFlightRing;
use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sync::{Mutex, OnceLock, Rank};

/// The cell for the reply of one entry.
#[derive(Debug, Default)]
pub(crate) struct ReplyCell(OnceLock<Reply>);

impl ReplyCell {
    /// The reply; `None` before the entry is applied.
    pub(crate) fn reply(&self) -> Option<&Reply> {
        self.0.get()
    }
}

/// The cells of entries that are not applied yet: at most as many as the pipeline is deep.
#[derive(Debug)]
pub(crate) struct ReplyCells {
    /// Lowest index with a cell; [`NONE`] if there is none, so that workers need not take the lock.
    /// It is stored after the cells are filled (Release fence). A thread that reads an index
    /// (Acquire) at or above its mark sees all replies below that mark in their cells.
    lowest: AtomicU64,
    waiting: Mutex<VecDeque<(u64, Arc<ReplyCell>)>>,
}

const NONE: u64 = u64::MAX;

impl ReplyCells {
    pub(crate) fn new() -> Self {
        Self {
            lowest: AtomicU64::new(NONE),
            waiting: Mutex::new(Rank::ReplyCells, VecDeque::new()),
        }
    }

    /// Adds a cell for the entry at `index`, which is above all others. The caller holds the
    /// appender, and no worker has the entry yet.
    pub(crate) fn add(&self, index: u64) -> Arc<ReplyCell> {
        let cell = Arc::<ReplyCell>::default();
        let mut waiting = self.waiting.lock();
        debug_assert!(waiting.back().is_none_or(|(last, _)| *last < index));
        waiting.push_back((index, Arc::clone(&cell)));
        // Relaxed: the hand-over of the entry to a worker makes this visible to the worker.
        self.lowest.fetch_min(index, Ordering::Relaxed);
        cell
    }

    /// Removes the cells from the entry at `index` on, because these entries are not committed. The
    /// caller holds the appender since it added them.
    pub(crate) fn remove_from(&self, index: u64) {
        let mut waiting = self.waiting.lock();
        while waiting.pop_back_if(|(last, _)| *last >= index).is_some() {}
        let lowest = waiting.front().map_or(NONE, |(index, _)| *index);
        self.lowest.store(lowest, Ordering::Relaxed);
    }

    /// Moves the replies of all entries below `mark`, which every partition has applied. The caller
    /// raises `applied` to `mark` afterwards, which frees their room in the ring.
    #[inline]
    pub(crate) fn fill_to(&self, mark: Mark, in_flight: &InFlightRing) {
        if mark.covers(self.lowest.load(Ordering::Acquire)) {
            self.fill_slow(mark, in_flight);
        }
    }

    #[cold]
    fn fill_slow(&self, mark: Mark, in_flight: &InFlightRing) {
        let mut waiting = self.waiting.lock();
        while let Some((index, cell)) = waiting.pop_front_if(|(index, _)| mark.covers(*index)) {
            // A dropped future wants no reply.
            if Arc::strong_count(&cell) > 1 {
                let reply = in_flight.reply(index).unwrap_or(Reply::Applied);
                let first = cell.0.set(reply).is_ok();
                debug_assert!(first, "a cell is filled once");
            }
        }
        let lowest = waiting.front().map_or(NONE, |(index, _)| *index);
        // This fence pairs with the load in `fill_to`.
        fence(Ordering::Release);
        self.lowest.store(lowest, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_reply_moves_to_its_cell_below_the_mark_and_a_dropped_future_gets_none() {
        let (cells, in_flight) = (ReplyCells::new(), InFlightRing::new(8));
        let added: Vec<_> = (5..9).map(|index| cells.add(index)).collect();
        for index in 5..9 {
            in_flight.fill(index, 0, 0);
            assert!(in_flight.set_reply(index, &Reply::Custom(index)));
        }
        let dropped = added.into_iter().enumerate().filter(|(at, _)| *at != 1);
        let cells_left: Vec<_> = dropped.map(|(_, cell)| cell).collect();
        let replies = || cells_left.iter().map(|cell| cell.reply().cloned()).collect::<Vec<_>>();
        cells.fill_to(Mark::before(5), &in_flight);
        assert_eq!(replies(), [None, None, None]);
        cells.fill_to(Mark::before(8), &in_flight);
        assert_eq!(replies(), [Some(Reply::Custom(5)), Some(Reply::Custom(7)), None]);
        assert_eq!(cells.lowest.load(Ordering::Relaxed), 8);
        cells.fill_to(Mark::before(9), &in_flight);
        assert_eq!(replies().pop(), Some(Some(Reply::Custom(8))));
        assert_eq!((cells.lowest.load(Ordering::Relaxed), cells.waiting.lock().len()), (NONE, 0));
    }
}
