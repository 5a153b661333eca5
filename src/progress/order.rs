//! Waiters of one stage, in the order of the indexes they wait for.
//!
//! Most callers register in rising order, so a sorted run takes their tickets, and a heap takes the
//! others. Adding is amortized O(1) in the run and O(log n) in the heap; taking the first is the
//! same. A waiter that leaves early leaves a dead ticket behind, which a later sweep removes. The
//! memory is kept for later waiters.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::numbers::Mark;

/// The id of a waiter, which stays unique after its seat is reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct WaiterId {
    pub(super) seat: u32,
    /// Number of waiters that have had the seat.
    pub(super) turn: u32,
}

/// A waiter's ticket in an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ticket {
    pub(super) index: u64,
    pub(super) id: WaiterId,
}

/// Dead tickets that an order keeps without a sweep, beside one for each live ticket.
const DEAD_MAX: usize = 64;

/// The tickets of one stage; see the module.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Tickets with rising indexes.
    run: VecDeque<Ticket>,
    /// Tickets that arrived with a lower index than the run's last.
    heap: BinaryHeap<Reverse<Ticket>>,
    /// Number of tickets whose waiters have left.
    dead: usize,
}

impl Order {
    pub(super) fn add(&mut self, ticket: Ticket) {
        match self.run.back() {
            Some(last) if last.index > ticket.index => self.heap.push(Reverse(ticket)),
            _ => self.run.push_back(ticket),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.run.is_empty() && self.heap.is_empty()
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(super) fn capacity(&self) -> usize {
        self.run.capacity() + self.heap.capacity()
    }

    /// Notes that the waiter of a ticket has left; `lives` distinguishes such tickets.
    pub(super) fn leave(&mut self, lives: impl Fn(&Ticket) -> bool) {
        self.dead += 1;
        // At least half of all tickets are dead then, so a sweep costs no more than the tickets it
        // removes.
        if self.dead > DEAD_MAX + (self.run.len() + self.heap.len()) / 2 {
            self.run.retain(&lives);
            self.heap.retain(|Reverse(ticket)| lives(ticket));
            self.dead = 0;
        }
    }

    /// The live ticket of the lowest index.
    pub(super) fn first(&mut self, lives: impl Fn(&Ticket) -> bool) -> Option<Ticket> {
        loop {
            let first = self.peek()?;
            if lives(&first) {
                return Some(first);
            }
            self.remove_first();
            self.has_died();
        }
    }

    fn peek(&self) -> Option<Ticket> {
        match (self.run.front(), self.heap.peek()) {
            (Some(run), Some(Reverse(heap))) => Some(*run.min(heap)),
            (Some(only), None) | (None, Some(Reverse(only))) => Some(*only),
            (None, None) => None,
        }
    }

    /// Removes the ticket that [`first`](Order::first) has just returned.
    pub(super) fn remove_first(&mut self) {
        let of_run = match (self.run.front(), self.heap.peek()) {
            (Some(run), Some(Reverse(heap))) => run < heap,
            (run, _) => run.is_some(),
        };
        if of_run {
            self.run.pop_front();
        } else {
            self.heap.pop();
        }
    }

    /// Takes the first ticket, dead or alive.
    pub(super) fn pop(&mut self) -> Option<Ticket> {
        let first = self.peek()?;
        self.remove_first();
        Some(first)
    }

    /// Takes the first ticket if its index is below `mark`.
    pub(super) fn pop_below(&mut self, mark: Mark) -> Option<Ticket> {
        self.peek().filter(|first| mark.covers(first.index))?;
        self.pop()
    }

    /// Notes that a taken ticket was dead.
    pub(super) fn has_died(&mut self) {
        // A sweep may have forgotten the ticket's death already.
        self.dead = self.dead.saturating_sub(1);
    }

    /// The tickets that `until` covers and `from` does not, dead ones among them. Costs a look at
    /// each ticket of the heap.
    pub(super) fn between(&self, from: Mark, until: Mark) -> impl Iterator<Item = Ticket> {
        let start = self.run.partition_point(|ticket| from.covers(ticket.index));
        let run =
            self.run.range(start..).copied().take_while(move |ticket| until.covers(ticket.index));
        let heap = self.heap.iter().map(|Reverse(ticket)| *ticket);
        run.chain(
            heap.filter(move |ticket| !from.covers(ticket.index) && until.covers(ticket.index)),
        )
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn ticket(index: u64, seat: u32) -> Ticket {
        Ticket { index, id: WaiterId { seat, turn: 0 } }
    }

    proptest! {
        #[test]
        fn tickets_come_out_by_index_whatever_the_order_they_came_in(
            steps in proptest::collection::vec((0..4_u8, 0..50_u64), 0..2000),
        ) {
            let mut order = Order::default();
            let mut model: BTreeSet<Ticket> = BTreeSet::new();
            for (seat, (step, index)) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => {
                        let ticket = ticket(index, u32::try_from(seat).unwrap());
                        order.add(ticket);
                        model.insert(ticket);
                    }
                    2 => {
                        let gone = model.iter().nth(usize::try_from(index).unwrap()).copied();
                        if let Some(gone) = gone {
                            model.remove(&gone);
                            order.leave(|ticket| model.contains(ticket));
                            let held = order.run.len() + order.heap.len();
                            let most = 2 * (model.len() + DEAD_MAX + 1);
                            prop_assert!(held <= most, "{held} tickets are held");
                        }
                    }
                    _ => {
                        let first = order.first(|ticket| model.contains(ticket));
                        prop_assert_eq!(first, model.first().copied());
                        if first.is_some() {
                            order.remove_first();
                            model.pop_first();
                        }
                    }
                }
                let live = |ticket: &Ticket| model.contains(ticket);
                let found: BTreeMap<_, _> =
                    order.between(Mark::before(10), Mark::before(20)).filter(live).map(|ticket| (ticket, ())).collect();
                let expected = model.range(ticket(10, 0)..ticket(20, 0)).copied();
                prop_assert!(found.into_keys().eq(expected));
            }
        }
    }
}
