//! Direct apply: a synchronous call that finds the engine idle applies its entries itself, from the
//! caller's memory, and takes their replies along.
//!
//! The call holds the appender and every worker's post, and everything submitted before is applied.
//! So no other thread applies, and nothing of the call has to wait for its turn: it needs no range,
//! no ring and no claim. Its entries are encoded once, for the log or for later comparisons, and
//! are not decoded again. The marks move in the same order as on the way through the rings.

use crate::apply::desks::log::Appending;
use crate::apply::pipeline::Pipeline;
use crate::apply::pipeline::worker::{Applying, InlineWork, Worker, WorkerState};
use crate::codec::PayloadRef;
use crate::contract::machine::StateMachine;
use crate::contract::run::run_machine;
use crate::entry::{Entry, LogId, Reply};
use crate::error::Poison;
use crate::hook::Hook;
use crate::log::appender::Parts;
use crate::numbers::Mark;
use crate::ranges::in_flight_ring::InFlightRing;
use crate::ranges::partition::{Footprint, Partition};
use crate::ranges::range::{Payloads, RangeParts};

/// The place for the replies of a synchronous call.
#[derive(Debug)]
pub(crate) enum Out<'o> {
    /// For the reply of a single entry.
    One(&'o mut Reply),
    /// For the replies of all entries, in order.
    Many(&'o mut Vec<Reply>),
}

impl Out<'_> {
    /// Adds the reply of the next entry.
    #[inline]
    pub(crate) fn add(&mut self, reply: Reply) {
        match self {
            Self::One(place) => **place = reply,
            Self::Many(replies) => replies.push(reply),
        }
    }

    /// Takes back all replies, because the call fails.
    pub(crate) fn clear(&mut self) {
        match self {
            Self::One(place) => **place = Reply::Applied,
            Self::Many(replies) => replies.clear(),
        }
    }
}

impl<M: StateMachine> Pipeline<M> {
    /// Appends, commits and applies `new`, entries that room was made for in at most `frames`
    /// frames, and puts their replies into `out`. Returns false, and has changed nothing, if they
    /// must go through the rings. A failure is not yet recorded.
    pub(super) fn apply_directly(
        &self,
        appending: &mut Appending,
        new: &[Entry<'_>],
        frames: usize,
        out: &mut Out<'_>,
    ) -> Result<bool, Poison> {
        let [first, ..] = new else { return Ok(false) };
        let first = first.log_id;
        let ring = self.in_flight.direct();
        let before = self.progress.submitted_mark();
        let is_idle = before == Mark::before(first.index)
            && before == self.progress.applied_mark()
            && appending.appender.unfed().is_empty();
        let may = is_idle
            && new.len() as u64 <= ring.capacity()
            // One more part may go into the frame that is open.
            && frames < Parts::MAX
            && self.config.inline_apply
            && !self.pauses.is_any()
            && !self.overlaps(new.len())
            && self.machine.staging(Hook::ENGINE).is_none();
        if !may {
            return Ok(false);
        }
        let Some(barrier) = self.catching(|at| {
            for (index, entry) in (first.index..).zip(new) {
                // A range has entries of one term and leader. A batch is read in its encoded form.
                let payload = PayloadRef::of_given(&entry.payload);
                let Some(payload) = payload.filter(|_| entry.log_id == first.at(index)) else {
                    return Ok(None);
                };
                match self.footprint(at, index, &payload) {
                    Footprint::Key(hash) => ring.fill(index, hash, 0),
                    Footprint::All if new.len() > 1 => return Ok(None),
                    Footprint::All => {
                        ring.fill(index, 0, 0);
                        return Ok(Some(true));
                    }
                }
            }
            Ok(Some(false))
        })?
        else {
            return Ok(false);
        };
        let applying = self.applying();
        let parts = Parts::new();
        let mark = Mark::before(first.index + new.len() as u64);
        let mut work =
            Directly { applying: &applying, appending, ring, new, first, barrier, mark, parts };
        if !applying.with_posts_from(0, &mut work)? {
            return Ok(false);
        }
        for entry in new {
            // An entry without a reply of its own has none in the ring.
            out.add(ring.reply(entry.log_id.index).unwrap_or(Reply::Applied));
        }
        Ok(true)
    }
}

/// The entries of one call.
struct Directly<'a, M> {
    applying: &'a Applying<'a, M>,
    appending: &'a mut Appending,
    /// Has the slots of the entries.
    ring: &'a InFlightRing,
    new: &'a [Entry<'a>],
    first: LogId,
    barrier: bool,
    /// The mark of the last entry.
    mark: Mark,
    /// The places where the entries were encoded.
    parts: Parts,
}

impl<M: StateMachine> InlineWork for Directly<'_, M> {
    /// Encodes the entries, and commits them: a get may return their values from now on.
    #[inline]
    fn begin(&mut self) -> Result<(), Poison> {
        let (progress, appender) = (self.applying.progress, &mut self.appending.appender);
        appender.append_unqueued(self.new, self.ring, &mut self.parts)?;
        progress.submit_to(self.mark)?;
        progress.commit_to(self.mark)?;
        appender.note_committed(self.mark);
        Ok(())
    }

    #[inline]
    fn apply(&mut self, worker: &Worker, state: &mut WorkerState) -> Result<(), Poison> {
        // Worker 0 runs a barrier. It comes last, so every other partition is where it must be.
        if !self.barrier || worker.id() == 0 {
            self.run(worker, state)?;
        }
        worker.move_to(self.mark);
        if worker.id() == 0 {
            self.applying.latency.applies(self.mark);
            self.applying.progress.apply_to(self.mark)?;
        }
        Ok(())
    }
}

impl<M: StateMachine> Directly<'_, M> {
    /// Runs the machine for the worker's partition.
    #[inline]
    fn run(&self, worker: &Worker, state: &mut WorkerState) -> Result<(), Poison> {
        let Self { applying, ring: in_flight, barrier, .. } = *self;
        let partition = Partition::new(worker.id(), applying.workers.count());
        let mut rest = self.new;
        let mut first = self.first;
        for (extent, count) in self.parts.iter() {
            // Each entry is in one part.
            let (part, after) = rest.split_at_checked(count as usize).unwrap_or((rest, &[]));
            let payloads = Payloads::Given(part, extent);
            let parts = RangeParts { in_flight, first, count, barrier, payloads };
            let rejected = applying.timed(worker, state, count, |_| {
                Ok(run_machine(applying.machine, parts, partition)?)
            })?;
            applying.counters.reject(rejected);
            (rest, first) = (after, first.at(first.index + u64::from(count)));
        }
        Ok(())
    }
}
