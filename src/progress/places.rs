//! The places of registered waiters, found by id in constant time.

use std::fmt;
use std::task::Waker;

use super::order::{Ticket, WaiterId};
use super::watermark::Stage;
use crate::bytes::at_most;
use crate::sync::thread::Thread;

/// Places of one allocation. Places never move, so that no registration pays for copying all
/// others.
const CHUNK: usize = CHUNK_PLACES as usize;
/// Places of a chunk, in the type of a place's number.
const CHUNK_PLACES: u32 = 256;

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
pub(super) struct Place {
    turn: u32,
    pub(super) kind: Kind,
    pub(super) stage: Stage,
    pub(super) index: u64,
    /// Whether an order has a ticket of it, and it is not notified, except by a truncation.
    pub(super) queued: bool,
    pub(super) truncated: bool,
    /// Whether it was notified because its index was covered, and not truncated before.
    pub(super) reached: bool,
    /// The target; `None` for a free place, and after the notification. A truncation leaves a
    /// thread's.
    pub(super) target: Option<Target>,
}

impl Place {
    pub(super) fn has_waker(&self, waker: &Waker) -> bool {
        matches!(&self.target, Some(Target::Task(mine)) if mine.will_wake(waker))
    }
}

/// The waiters, each found by its id.
#[derive(Default)]
pub(super) struct Places {
    chunks: Vec<Box<[Place; CHUNK]>>,
    free: Vec<u32>,
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The places are left out: there may be a million.
        f.debug_struct("Places").field("chunks", &self.chunks.len()).finish_non_exhaustive()
    }
}

impl Places {
    fn at(&mut self, slot: u32) -> Option<&mut Place> {
        self.chunks.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)
    }

    pub(super) fn get(&mut self, id: WaiterId) -> Option<&mut Place> {
        self.at(id.slot).filter(|place| place.turn == id.turn)
    }

    pub(super) fn is_queued(&self, ticket: &Ticket) -> bool {
        let chunk = self.chunks.get(ticket.id.slot as usize / CHUNK);
        let place = chunk.and_then(|chunk| chunk.get(ticket.id.slot as usize % CHUNK));
        place.is_some_and(|place| place.turn == ticket.id.turn && place.queued)
    }

    pub(super) fn add(&mut self, index: u64, stage: Stage, target: Target) -> WaiterId {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.grow(),
        };
        let mut id = WaiterId { slot, turn: 0 };
        if let Some(place) = self.at(slot) {
            id.turn = place.turn;
            let turn = place.turn;
            *place = Place {
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

    /// Makes places, and returns the lowest of them.
    #[cold]
    fn grow(&mut self) -> u32 {
        // Memory ends long before the numbers do: 4 Gi places take 256 GiB.
        let first = at_most((self.chunks.len() * CHUNK) as u64, u32::MAX - CHUNK_PLACES);
        self.chunks.push(Box::new(std::array::from_fn(|_| Place {
            turn: 0,
            kind: Kind::Thread,
            stage: Stage::Applied,
            index: 0,
            queued: false,
            truncated: false,
            reached: false,
            target: None,
        })));
        // Use the lowest slot first.
        self.free.extend((first + 1..first + CHUNK_PLACES).rev());
        first
    }

    pub(super) fn remove(&mut self, id: WaiterId) -> Option<Place> {
        let place = self.get(id)?;
        let free = Place { turn: id.turn.wrapping_add(1), queued: false, target: None, ..*place };
        let gone = std::mem::replace(place, free);
        self.free.push(id.slot);
        Some(gone)
    }

    /// Notes that the entry of a live ticket's waiter is gone. Returns how to wake the waiter,
    /// unless it knows.
    pub(super) fn truncate(&mut self, ticket: &Ticket) -> Option<&Target> {
        let place = self.get(ticket.id).filter(|place| place.queued && !place.truncated)?;
        place.truncated = true;
        place.target.as_ref()
    }
}
