//! Reply cells: each reply that a future wants moves to the future's cell when its entry is
//! applied.
//!
//! So a future that is never polled, or is leaked, keeps no reply in the ring, and no other call
//! waits for it. A thread that is about to raise `applied` first moves the replies below the new
//! mark. So a future that sees its entry acknowledged finds its reply.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::entry::{Entry, Reply};
use crate::numbers::Mark;
use crate::ranges::in_flight_ring::InFlightRing;
use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sync::{Mutex, OnceLock, Rank};

/// The cell for the replies of some entries of one submission.
#[derive(Clone, Debug)]
pub(crate) struct ReplyCell(Arc<[OnceLock<Reply>]>);

impl ReplyCell {
    fn new(entries: usize) -> Self {
        Self((0..entries).map(|_| OnceLock::default()).collect())
    }

    /// The reply of the first entry; `None` before it is applied.
    pub(crate) fn reply(&self) -> Option<&Reply> {
        self.replies().next().flatten()
    }

    /// The reply of each entry, in order; `None` before it is applied.
    pub(crate) fn replies(&self) -> impl Iterator<Item = Option<&Reply>> {
        self.0.iter().map(OnceLock::get)
    }

    /// Number of its entries.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a future still has the cell.
    fn is_wanted(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// A cell that is not full.
#[derive(Debug)]
struct Waiting {
    cell: ReplyCell,
    /// Number of its entries that have their reply.
    filled: usize,
    indexes: Indexes,
}

/// The indexes of a cell's entries.
#[derive(Debug)]
enum Indexes {
    /// Consecutive ones, from this one on.
    From(u64),
    /// Indexes of a log with gaps.
    Each(Box<[u64]>),
}

impl Waiting {
    /// The index of the next entry that has no reply; `None` if all have one.
    fn next(&self) -> Option<u64> {
        (self.filled < self.cell.0.len()).then_some(())?;
        match &self.indexes {
            Indexes::From(first) => Some(*first + self.filled as u64),
            Indexes::Each(indexes) => indexes.get(self.filled).copied(),
        }
    }

    /// Moves the replies of entries below `mark` to the cell. Returns whether it is full.
    fn fill_to(&mut self, mark: Mark, in_flight: &InFlightRing) -> bool {
        let is_wanted = self.cell.is_wanted();
        while let Some(index) = self.next() {
            if !mark.covers(index) {
                return false;
            }
            // A dropped future wants no reply.
            if is_wanted && let Some(place) = self.cell.0.get(self.filled) {
                let reply = in_flight.reply(index).unwrap_or(Reply::Applied);
                let first = place.set(reply).is_ok();
                debug_assert!(first, "a reply is filled in once");
            }
            self.filled += 1;
        }
        true
    }
}

/// The cells of entries that are not applied yet, of as many entries as the pipeline is deep at
/// most.
#[derive(Debug)]
pub(crate) struct ReplyCells {
    /// Lowest index without a reply in its cell; [`NONE`] if there is none, so that workers need
    /// not take the lock. It is stored after the cells are filled (Release fence). A thread that
    /// reads an index (Acquire) at or above its mark sees all replies below that mark in their
    /// cells.
    lowest: AtomicU64,
    waiting: Mutex<VecDeque<Waiting>>,
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
    pub(crate) fn add(&self, index: u64) -> ReplyCell {
        self.add_waiting(1, Indexes::From(index))
    }

    /// Adds a cell for `entries`, at least one, as [`ReplyCells::add`] does for one.
    pub(crate) fn add_all(&self, entries: &[Entry<'_>]) -> ReplyCell {
        let index = |entry: &Entry<'_>| entry.log_id.index;
        let (first, last) = (entries.first().map_or(0, index), entries.last().map_or(0, index));
        let indexes = match last - first + 1 == entries.len() as u64 {
            true => Indexes::From(first),
            false => Indexes::Each(entries.iter().map(index).collect()),
        };
        self.add_waiting(entries.len(), indexes)
    }

    fn add_waiting(&self, entries: usize, indexes: Indexes) -> ReplyCell {
        let cell = ReplyCell::new(entries);
        let added = Waiting { cell: cell.clone(), filled: 0, indexes };
        let first = added.next().unwrap_or(NONE);
        let mut waiting = self.waiting.lock();
        debug_assert!(waiting.back().and_then(Waiting::next).is_none_or(|last| last < first));
        waiting.push_back(added);
        // Relaxed: the hand-over of the entry to a worker makes this visible to the worker.
        self.lowest.fetch_min(first, Ordering::Relaxed);
        cell
    }

    /// Removes the cells from the entry at `index` on, because these entries are not committed. The
    /// caller holds the appender since it added them.
    pub(crate) fn remove_from(&self, index: u64) {
        let mut waiting = self.waiting.lock();
        let is_gone = |cell: &mut Waiting| cell.next().is_none_or(|first| first >= index);
        while waiting.pop_back_if(is_gone).is_some() {}
        self.lowest.store(lowest(&waiting), Ordering::Relaxed);
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
        while waiting.pop_front_if(|cell| cell.fill_to(mark, in_flight)).is_some() {}
        let lowest = lowest(&waiting);
        // This fence pairs with the load in `fill_to`.
        fence(Ordering::Release);
        self.lowest.store(lowest, Ordering::Relaxed);
    }
}

fn lowest(waiting: &VecDeque<Waiting>) -> u64 {
    waiting.front().and_then(Waiting::next).unwrap_or(NONE)
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

    #[test]
    fn a_cell_of_many_entries_fills_as_they_are_applied_also_over_gaps() {
        for gap in [0, 1_u64 << 40] {
            let (cells, in_flight) = (ReplyCells::new(), InFlightRing::new(8));
            let indexes = [5, 6, 7 + gap];
            let entries = indexes.map(|index| Entry::noop(index, 1));
            let cell = cells.add_all(&entries);
            for index in indexes {
                in_flight.fill(index, 0, 0);
                assert!(in_flight.set_reply(index, &Reply::Custom(index)));
            }
            let filled = || cell.replies().flatten().count();
            cells.fill_to(Mark::before(6), &in_flight);
            assert_eq!((filled(), cells.lowest.load(Ordering::Relaxed)), (1, 6));
            cells.fill_to(Mark::before(8 + gap), &in_flight);
            let replies: Vec<_> = cell.replies().map(|reply| reply.cloned().unwrap()).collect();
            assert_eq!(replies, indexes.map(Reply::Custom));
            assert_eq!(cells.lowest.load(Ordering::Relaxed), NONE);
        }
    }
}
