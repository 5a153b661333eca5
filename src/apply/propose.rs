//! Proposing: the engine numbers the entry. For callers that have no consensus engine and no log of their own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::cells::ReplyCell;
use super::engine::{Appending, Engine};
use super::manager::ApplyManager;
use super::retry::Deadline;
use super::submit::{Mode, Submission};
use crate::entry::{Entry, LogId, Payload, Reply};
use crate::error::{Poison, ProposeError, SubmitError, WaitError};
use crate::machine::StateMachine;
use crate::progress::waiter::Acknowledged;
use crate::progress::watermark::Stage;

/// The log id of the first entry of a log that the engine numbers.
const FIRST: LogId = LogId::new(1, 1);

impl<M: StateMachine> ApplyManager<M> {
    /// Appends a command (or any payload) as the next entry, and waits until it is acknowledged; its reply.
    ///
    /// The engine gives the entry its log id: the next index, and the term of the log's last entry, or index 1 and term 1
    /// in a new log. Any number of threads may propose at once. While the pipeline is full the call waits for room. When
    /// nothing else is pending the caller applies and writes the entry itself, without a hop to another thread.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use sprag::{ApplyConfig, ApplyManager, Command, MemoryConfig, MemoryStateMachine, Reply};
    /// # let machine = MemoryStateMachine::new(MemoryConfig::default())?;
    /// # let manager = ApplyManager::new(machine, ApplyConfig::new())?;
    /// let reply = manager.propose(Command::increment(b"visits", 2), Duration::from_secs(10))?;
    /// assert_eq!(reply, Reply::Counter(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ProposeError`]; `timeout` is for all of it. With [`ProposeError::Taken`] the entry is under way: its log id is in the
    /// error, and [`wait_for_log_id`](ApplyManager::wait_for_log_id) waits on. With all others nothing was taken. A log opened
    /// with [`CommitMode::ByCommit`](crate::CommitMode::ByCommit) refuses the call: its consensus engine numbers the entries.
    pub fn propose<'p>(
        &self,
        payload: impl Into<Payload<'p>>,
        timeout: Duration,
    ) -> Result<Reply, ProposeError> {
        let deadline = Deadline::new(timeout);
        let (log_id, taken) = self.propose_when_room(payload.into(), Mode::Sync, &deadline)?;
        let index = log_id.index;
        let waited = self.engine.wait(index, Stage::Acknowledged, deadline.left());
        waited.map_err(|source| ProposeError::Taken { log_id, source })?;
        debug_assert!(taken.claim.is_some(), "only a claim keeps the reply");
        Ok(self.engine.slots.reply(index).unwrap_or(Reply::Applied))
    }

    /// As [`propose`](ApplyManager::propose), but returns as soon as the entry is taken: the future gives the reply once the
    /// entry is acknowledged. The future is bound to no runtime.
    ///
    /// `room_timeout` is how long the call may block its thread while the pipeline is full; with [`Duration::ZERO`] it never
    /// blocks. Nothing limits how long the future waits: a runtime's own timeout does, and cancels nothing.
    ///
    /// The entry is under way whether the future is polled, dropped or leaked. Its reply moves into memory that belongs to
    /// the future (one allocation) when the entry is applied, so a future that is not polled delays no other call.
    ///
    /// # Errors
    ///
    /// The future gives [`ProposeError`], also for an entry that was refused; [`Proposal::log_id`] says at once whether it was
    /// taken.
    pub fn propose_async<'p>(
        &self,
        payload: impl Into<Payload<'p>>,
        room_timeout: Duration,
    ) -> Proposal {
        let deadline = Deadline::new(room_timeout);
        let state = match self.propose_when_room(payload.into(), Mode::Future, &deadline) {
            Ok((log_id, Submission { cell: Some(cell), .. })) => {
                let acknowledged = self.acknowledged(log_id.index);
                State::Taken { log_id, cell, acknowledged }
            }
            Ok((log_id, _)) => {
                let source = WaitError::Poisoned(Poison::Internal("a proposal has no cell"));
                State::Refused(ProposeError::Taken { log_id, source })
            }
            Err(error) => State::Refused(error),
        };
        Proposal { state }
    }

    /// The index that the next proposed entry gets, unless another thread submits first.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.engine.progress.submitted_mark().max(FIRST.index)
    }

    fn propose_when_room(
        &self,
        payload: Payload<'_>,
        mode: Mode,
        deadline: &Deadline,
    ) -> Result<(LogId, Submission<'_>), ProposeError> {
        loop {
            match self.engine.propose(payload, mode) {
                Err(ProposeError::Refused(SubmitError::Full { pending })) => {
                    if deadline.left().is_zero() {
                        let waited = deadline.waited();
                        return Err(ProposeError::NoRoom { pending, waited });
                    }
                    self.wait_for_room(deadline);
                }
                taken => return taken,
            }
        }
    }
}

impl<M: StateMachine> Engine<M> {
    /// Takes `payload` as the next entry; [`SubmitError::Full`] if there is no room right now.
    fn propose(
        &self,
        payload: Payload<'_>,
        mode: Mode,
    ) -> Result<(LogId, Submission<'_>), ProposeError> {
        let began_ns = self.latency.now_ns();
        let _tasks = self.wakes_tasks();
        let appending = self.lock_appender();
        self.check_may_submit(mode).map_err(|error| match error {
            SubmitError::CommitMode { mode, .. } => {
                ProposeError::Refused(SubmitError::CommitMode { call: "propose", mode })
            }
            other => ProposeError::Refused(other),
        })?;
        let log_id = next_log_id(&appending);
        let entries = [Entry::new(log_id, payload)];
        let plan = appending.appender.plan(&entries).map_err(ProposeError::Refused)?;
        let taken = self.take(appending, &entries, (plan, 0), mode, began_ns);
        match taken {
            Ok(submission) => Ok((log_id, submission)),
            // The engine had not failed before: it failed with the entry.
            Err(SubmitError::Poisoned(poison)) => {
                Err(ProposeError::Taken { log_id, source: WaitError::Poisoned(poison) })
            }
            Err(error) => Err(ProposeError::Refused(error)),
        }
    }
}

/// Of the last entry's term and leader. `u64::MAX` is no index, and is refused as such.
fn next_log_id(appending: &Appending) -> LogId {
    let last = appending.appender.last();
    last.map_or(FIRST, |last| last.at(last.index.saturating_add(1)))
}

/// The reply to a proposed entry, once that is acknowledged; made by
/// [`ApplyManager::propose_async`](crate::ApplyManager::propose_async).
///
/// Bound to no runtime. The entry is under way whatever becomes of the future.
#[derive(Debug)]
#[must_use = "it says whether the entry was taken, and what came of it"]
pub struct Proposal {
    state: State,
}

#[derive(Debug)]
enum State {
    Refused(ProposeError),
    Taken { log_id: LogId, cell: Arc<ReplyCell>, acknowledged: Acknowledged },
}

impl Proposal {
    /// The entry's log id; `None` if it was not taken.
    #[must_use]
    pub fn log_id(&self) -> Option<LogId> {
        match &self.state {
            State::Refused(error) => error.log_id(),
            State::Taken { log_id, .. } => Some(*log_id),
        }
    }
}

impl Future for Proposal {
    type Output = Result<Reply, ProposeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (log_id, cell, acknowledged) = match &mut self.state {
            State::Refused(error) => return Poll::Ready(Err(error.clone())),
            State::Taken { log_id, cell, acknowledged } => (*log_id, cell, acknowledged),
        };
        let taken = |source| ProposeError::Taken { log_id, source };
        Pin::new(acknowledged).poll(context).map(|waited| {
            waited.map_err(taken)?;
            let lost = Poison::Internal("an acknowledged proposal has no reply");
            cell.reply().cloned().ok_or(taken(WaitError::Poisoned(lost)))
        })
    }
}
