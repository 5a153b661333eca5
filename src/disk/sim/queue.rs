//! The simulated write queue: several writes in flight, performed and reported in an order that the
//! seed chooses.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::random::Random;
use crate::disk::pwrite::perform;
use crate::disk::{Completion, LogWrite, WriteFailure, WriteQueue};

#[derive(Debug)]
pub(super) struct SimQueue {
    depth: usize,
    random: Random,
    /// The writes in order of submission.
    in_flight: Vec<InFlight>,
}

#[derive(Debug)]
struct InFlight {
    write: LogWrite,
    /// Result of the write, once it was performed; it may be reported much later.
    outcome: Option<(Result<(), WriteFailure>, Option<Duration>)>,
}

impl SimQueue {
    pub(super) fn new(depth: usize, seed: u64) -> Self {
        Self { depth, random: Random::new(seed), in_flight: Vec::with_capacity(depth) }
    }

    /// Performs a write, unless it was. A write with a sync covers earlier writes to the same open
    /// file, so those are performed first.
    fn execute(&mut self, index: usize) {
        if self.in_flight[index].outcome.is_some() {
            return;
        }
        if self.in_flight[index].write.sync {
            let file = Arc::clone(&self.in_flight[index].write.file);
            let mut failed = false;
            for earlier in 0..index {
                if Arc::ptr_eq(&self.in_flight[earlier].write.file, &file) {
                    self.execute(earlier);
                    failed |= matches!(self.in_flight[earlier].outcome, Some((Err(_), _)));
                }
            }
            if failed {
                let error = io::Error::other("a write that the sync should cover failed");
                self.in_flight[index].outcome = Some((Err(WriteFailure::Sync(error)), None));
                return;
            }
        }
        let outcome = perform(&self.in_flight[index].write);
        self.in_flight[index].outcome = Some(outcome);
    }
}

impl WriteQueue for SimQueue {
    fn backend(&self) -> &'static str {
        "simulated"
    }

    fn depth(&self) -> usize {
        self.depth
    }

    /// # Panics
    ///
    /// Takes a write. More writes in flight than [`WriteQueue::depth`] are an error of the caller,
    /// and panic.
    fn submit(&mut self, write: LogWrite) {
        assert!(self.in_flight.len() < self.depth, "more writes in flight than the depth");
        self.in_flight.push(InFlight { write, outcome: None });
        // Some writes reach the disk before their completion is taken, so that a cut finds them
        // there, or half there.
        if self.depth > 1 && self.random.coin() {
            self.execute(self.in_flight.len() - 1);
        }
    }

    fn complete(&mut self, wait: bool) -> Option<Completion> {
        if self.in_flight.is_empty() || (!wait && (self.depth == 1 || self.random.coin())) {
            return None;
        }
        let index = self.random.below(self.in_flight.len());
        self.execute(index);
        let done = self.in_flight.remove(index);
        let (result, written_at) = done.outcome?;
        Some(Completion { token: done.write.token, result, written_at })
    }
}
