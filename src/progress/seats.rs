//! The seats of registered waiters, found by id in constant time.

use std::fmt;
use std::task::Waker;

use super::order::{Ticket, WaiterId};
use super::watermark::Stage;
use crate::bytes::at_most;
use crate::sync::thread::Thread;

/// Seats of one allocation. Seats never move, so that no registration pays for copying all
/// others.
const CHUNK: usize = CHUNK_SEATS as usize;
/// Seats of a chunk, in the type of a seat's number.
const CHUNK_SEATS: u32 = 256;

/// The way to wake a waiter.
#[derive(Debug)]
pub(crate) enum Target {
    Thread(Thread),
    Task(Waker),
}

/// Kind of a waiter. Each kind has separate orders, because threads are woken before tasks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Thread,
    Task,
}

impl Target {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Thread(_) => Kind::Thread,
            Self::Task(_) => Kind::Task,
        }
    }
}

/// A registered waiter.
#[derive(Debug)]
pub(super) struct Seat {
    turn: u32,
    pub(super) kind: Kind,
    pub(super) stage: Stage,
    pub(super) index: u64,
    /// Whether an order has a ticket of it, and it is not notified, except by a truncation.
    pub(super) queued: bool,
    pub(super) truncated: bool,
    /// Whether it was notified because its index was covered, and not truncated before.
    pub(super) reached: bool,
    /// The target; `None` for a free seat, and after the notification. A truncation leaves a
    /// thread's.
    pub(super) target: Option<Target>,
}

impl Seat {
    pub(super) fn has_waker(&self, waker: &Waker) -> bool {
        matches!(&self.target, Some(Target::Task(mine)) if mine.will_wake(waker))
    }
}

/// The waiters, each found by its id.
#[derive(Default)]
pub(super) struct Seats {
    chunks: Vec<Box<[Seat; CHUNK]>>,
    free: Vec<u32>,
}

impl fmt::Debug for Seats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The seats are left out: there may be a million.
        f.debug_struct("Seats").field("chunks", &self.chunks.len()).finish_non_exhaustive()
    }
}

impl Seats {
    fn at(&mut self, number: u32) -> Option<&mut Seat> {
        self.chunks.get_mut(number as usize / CHUNK)?.get_mut(number as usize % CHUNK)
    }

    pub(super) fn get(&mut self, id: WaiterId) -> Option<&mut Seat> {
        self.at(id.seat).filter(|seat| seat.turn == id.turn)
    }

    pub(super) fn is_queued(&self, ticket: &Ticket) -> bool {
        let chunk = self.chunks.get(ticket.id.seat as usize / CHUNK);
        let seat = chunk.and_then(|chunk| chunk.get(ticket.id.seat as usize % CHUNK));
        seat.is_some_and(|seat| seat.turn == ticket.id.turn && seat.queued)
    }

    pub(super) fn add(&mut self, index: u64, stage: Stage, target: Target) -> WaiterId {
        let number = match self.free.pop() {
            Some(number) => number,
            None => self.grow(),
        };
        let mut id = WaiterId { seat: number, turn: 0 };
        if let Some(seat) = self.at(number) {
            id.turn = seat.turn;
            let turn = seat.turn;
            *seat = Seat {
                turn,
                kind: target.kind(),
                stage,
                index,
                queued: true,
                truncated: false,
                reached: false,
                target: Some(target),
            };
        }
        id
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(super) fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// Makes seats, and returns the lowest of them.
    #[cold]
    fn grow(&mut self) -> u32 {
        // Memory ends long before the numbers do: 4 Gi seats take 256 GiB.
        let first = at_most((self.chunks.len() * CHUNK) as u64, u32::MAX - CHUNK_SEATS);
        self.chunks.push(Box::new(std::array::from_fn(|_| Seat {
            turn: 0,
            kind: Kind::Thread,
            stage: Stage::Applied,
            index: 0,
            queued: false,
            truncated: false,
            reached: false,
            target: None,
        })));
        // Use the lowest seat first.
        self.free.extend((first + 1..first + CHUNK_SEATS).rev());
        first
    }

    pub(super) fn remove(&mut self, id: WaiterId) -> Option<Seat> {
        let seat = self.get(id)?;
        let free = Seat { turn: id.turn.wrapping_add(1), queued: false, target: None, ..*seat };
        let gone = std::mem::replace(seat, free);
        self.free.push(id.seat);
        Some(gone)
    }

    /// Notes that the entry of a live ticket's waiter is gone. Returns how to wake the waiter,
    /// unless it knows.
    pub(super) fn truncate(&mut self, ticket: &Ticket) -> Option<&Target> {
        let seat = self.get(ticket.id).filter(|seat| seat.queued && !seat.truncated)?;
        seat.truncated = true;
        seat.target.as_ref()
    }
}
