//! Waiting for room in the pipeline. A call that was refused as full waits in the line of
//! [`Room`](crate::progress::room::Room), and tries again when it is told.

use std::future::poll_fn;
use std::task::{Context, Poll};

use crate::apply::manager::retry::Deadline;
use crate::apply::pipeline::Pipeline;
use crate::contract::machine::StateMachine;
use crate::error::{ProposeError, SubmitError};
use crate::progress::room::{Room, Ticket};
use crate::progress::seats::Target;
use crate::sync::spin::Spin;
use crate::sync::{looks, thread};

/// An attempt at a submission: by a call that stands in the line, or by one that does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::apply) enum Attempt {
    /// The call leaves room for the threads in the line.
    AtTheDoor,
    /// The line has told the call to try.
    InLine,
}

/// An error that may say that there is no room.
pub(in crate::apply) trait MayBeFull {
    fn is_full(&self) -> bool;
}

impl MayBeFull for SubmitError {
    fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

impl MayBeFull for ProposeError {
    fn is_full(&self) -> bool {
        matches!(self, Self::Refused(source) if source.is_full())
    }
}

/// Number of yields after the looks, before a thread enters the line.
const YIELDS: u32 = looks(8);

/// The place of one call in the line, until it is dropped.
struct Place<'p, M: StateMachine> {
    pipeline: &'p Pipeline<M>,
    ticket: Ticket,
    /// Whether the last attempt was refused though the pipeline had room.
    blocked: bool,
}

impl<'p, M: StateMachine> Place<'p, M> {
    fn enter(pipeline: &'p Pipeline<M>, need: u64, is_task: bool) -> Self {
        let ticket = pipeline.room().enter(need, is_task);
        Self { pipeline, ticket, blocked: false }
    }

    /// Whether the line has told the call to try.
    fn is_told(&self) -> bool {
        self.pipeline.room().is_told(self.ticket)
    }

    /// Tries as long as the line tells the call to. Returns `None` when the call is to sleep: it
    /// then wakes by `target`.
    fn attempt<T, E: MayBeFull>(
        &mut self,
        target: impl Fn() -> Target,
        mut take: impl FnMut(Attempt) -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let pipeline = self.pipeline;
        loop {
            let (progress, was_blocked) = (pipeline.progress(), self.blocked);
            let tries = pipeline.room().prepare(progress, self.ticket, was_blocked, target());
            // An end of the engine that this does not see wakes the call.
            if !tries && !pipeline.has_failed() && !pipeline.is_closed() {
                self.blocked = false;
                break;
            }
            match take(Attempt::InLine) {
                Err(error) if error.is_full() => self.blocked = true,
                outcome => return Some(outcome),
            }
            // A call that sleeps for any change has tried after it was registered for that.
            if was_blocked {
                break;
            }
        }
        pipeline.hurry();
        None
    }
}

impl<M: StateMachine> Drop for Place<'_, M> {
    fn drop(&mut self) {
        let pipeline = self.pipeline;
        pipeline.room().leave(pipeline.progress(), self.ticket);
        // The caller may hold locks of its own, so a thread of the engine calls the wakers.
        pipeline.signals().leave_tasks(pipeline.log_desk().log().is_some());
    }
}

impl<M: StateMachine> Pipeline<M> {
    fn room(&self) -> &Room {
        &self.progress().room
    }

    /// Wakes the threads that make room: the log writer, and the workers.
    fn hurry(&self) {
        self.signals().writer().notify();
        self.signals().notify_workers();
        // A failure has poisoned the engine, and the next attempt says so.
        let _fed = self.end_linger();
    }

    /// Calls `take` until it does not refuse as full, for `deadline` at most. The thread sleeps in
    /// the line meanwhile, for the room of `need` entries. The last refusal is the outcome after
    /// that time.
    pub(in crate::apply) fn when_room<T, E: MayBeFull>(
        &self,
        need: u64,
        deadline: &Deadline,
        mut take: impl FnMut(Attempt) -> Result<T, E>,
    ) -> Result<T, E> {
        if self.room().is_free() || deadline.left().is_zero() {
            let mut spin = Spin::long();
            loop {
                match take(Attempt::AtTheDoor) {
                    Err(error) if error.is_full() && !deadline.left().is_zero() => {}
                    outcome => return outcome,
                }
                if self.room().has_room(self.progress(), need) || !self.look(need, &mut spin) {
                    break;
                }
            }
        }
        let mut place = Place::enter(self, need, false);
        loop {
            let outcome = place.attempt(|| Target::Thread(thread::current()), &mut take);
            if let Some(outcome) = outcome {
                return outcome;
            }
            // A waker that is due may be that of a task in front of this call. It is foreign code,
            // and may take the wake-up of this thread.
            if self.progress().has_due_tasks() {
                self.progress().wake_tasks();
                if place.is_told() {
                    continue;
                }
            }
            match deadline.left() {
                left if !left.is_zero() => thread::park_timeout(left),
                _ if place.is_told() => return take(Attempt::InLine),
                // Its turn has not come, and it does not pass the calls before it.
                _ => {
                    drop(place);
                    return take(Attempt::AtTheDoor);
                }
            }
        }
    }

    /// Entries of a part of a long batch: a quarter of the pipeline at most. So one part is filled
    /// while others are in progress.
    pub(in crate::apply) fn part_entries(&self) -> usize {
        (self.config().pipeline_depth / 4).clamp(1, 1024)
    }

    /// Looks until the pipeline has room for so many entries. Returns false if the thread has
    /// looked often enough.
    fn look(&self, need: u64, spin: &mut Spin) -> bool {
        self.hurry();
        while spin.pass(YIELDS) {
            if self.room().is_free() && self.room().has_room(self.progress(), need) {
                return true;
            }
        }
        false
    }

    /// Calls `take` until it does not refuse as full. The task waits in the line meanwhile.
    pub(in crate::apply) async fn when_room_async<T, E: MayBeFull>(
        &self,
        need: u64,
        mut take: impl FnMut(Attempt) -> Result<T, E>,
    ) -> Result<T, E> {
        if self.room().is_free() {
            match take(Attempt::AtTheDoor) {
                Err(error) if error.is_full() => {}
                outcome => return outcome,
            }
        }
        let mut place = Place::enter(self, need, true);
        poll_fn(|context: &mut Context<'_>| {
            let target = || Target::Task(context.waker().clone());
            place.attempt(target, &mut take).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
