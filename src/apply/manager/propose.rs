//! Proposals: the engine numbers the entry. They serve callers without a consensus engine or a log.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::apply::desks::log::Appending;
use crate::apply::manager::ApplyManager;
use crate::apply::manager::retry::Deadline;
use crate::apply::pipeline::Pipeline;
use crate::apply::pipeline::cells::ReplyCell;
use crate::apply::pipeline::direct::Out;
use crate::apply::pipeline::room::{Attempt, MayBeFull as _};
use crate::apply::pipeline::submit::{Call, Mode, Submission};
use crate::contract::machine::StateMachine;
use crate::entry::{Entry, LogId, Payload, Reply};
use crate::error::{Poison, ProposeError, SubmitError, WaitError};
use crate::progress::waiter::Acknowledged;

/// The log id of the first entry of a log that the engine numbers.
const FIRST: LogId = LogId::new(1, 1);

impl<M: StateMachine> ApplyManager<M> {
    /// Appends a command (or any payload) as the next entry, and waits until it is acknowledged.
    /// Returns its reply.
    ///
    /// The engine chooses the log id: the next index, and the term of the log's last entry. In a
    /// new log it is index 1 and term 1. Any number of threads may propose at once. While the
    /// pipeline is full the call waits for room. When nothing else is pending, the caller applies
    /// and writes the entry itself, without a hop to another thread.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use sprag::{ApplyConfig, ApplyManager, Command, MemoryConfig, MemoryStateMachine, Reply};
    /// # let machine = MemoryStateMachine::new(MemoryConfig::new())?;
    /// # let manager = ApplyManager::new(machine, ApplyConfig::new())?;
    /// let reply = manager.propose(Command::increment(b"visits", 2), Duration::from_secs(10))?;
    /// assert_eq!(reply, Reply::Counter(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ProposeError`]; `timeout` limits the whole call. With [`ProposeError::Taken`] the
    /// entry is in progress: the error has its log id, and
    /// [`wait_for_log_id`](ApplyManager::wait_for_log_id) waits for it. With every other error
    /// nothing was taken. A log opened with [`CommitMode::ByCommit`](crate::CommitMode::ByCommit)
    /// refuses the call: its consensus engine numbers the entries.
    pub fn propose<'p>(
        &self,
        payload: impl Into<Payload<'p>>,
        timeout: Duration,
    ) -> Result<Reply, ProposeError> {
        let deadline = Deadline::new(timeout);
        let pipeline = self.engine.pipeline();
        let mut reply = Reply::Applied;
        let out = Some(&mut Out::One(&mut reply));
        let (log_id, taken) = self.propose_when_room(payload.into(), Mode::Sync, out, &deadline)?;
        let waited = pipeline.wait_for_submission(&taken, deadline.left());
        waited.map_err(|source| ProposeError::Taken { log_id, source })?;
        if taken.has_replies {
            return Ok(reply);
        }
        debug_assert!(taken.claim.is_some(), "only a claim keeps the reply");
        Ok(pipeline.in_flight().reply(log_id.index))
    }

    /// Proposes as [`propose`](ApplyManager::propose) does, and returns as soon as the entry is
    /// taken. The future returns the reply once the entry is acknowledged. The future is bound to
    /// no runtime.
    ///
    /// `room_timeout` limits how long the call may block its thread while the pipeline is full;
    /// with [`Duration::ZERO`] it never blocks. The future's wait has no limit: a runtime's timeout
    /// limits it, and cancels nothing.
    ///
    /// The entry is in progress, whether the future is polled, dropped or leaked. The reply moves
    /// into memory of the future (one allocation) when the entry is applied. So an unpolled future
    /// delays no other call.
    ///
    /// # Errors
    ///
    /// The future returns [`ProposeError`], also for an entry that was refused;
    /// [`Proposal::log_id`] tells at once whether it was taken.
    pub fn propose_async<'p>(
        &self,
        payload: impl Into<Payload<'p>>,
        room_timeout: Duration,
    ) -> Proposal {
        let deadline = Deadline::new(room_timeout);
        self.proposal(self.propose_when_room(payload.into(), Mode::Future, None, &deadline))
    }

    /// Proposes as [`propose_async`](ApplyManager::propose_async) does, and waits for room without
    /// blocking a thread. Await the [`Proposal`] for the reply.
    ///
    /// Nothing happens before the first poll. Dropping the future before it is ready takes nothing,
    /// and leaves nothing.
    ///
    /// # Errors
    ///
    /// The [`Proposal`] returns [`ProposeError`]; it is never `NoRoom`.
    pub async fn propose_waiting<'p>(&self, payload: impl Into<Payload<'p>>) -> Proposal {
        let (pipeline, payload) = (self.engine.pipeline(), payload.into());
        let take = |attempt| {
            let taken = propose(pipeline, payload, (Mode::Future, attempt), None);
            match taken {
                Err(error) if error.is_full() => Err(error),
                taken => Ok(self.proposal(taken)),
            }
        };
        let taken = pipeline.when_room_async(1, take).await;
        taken.unwrap_or_else(|error| Proposal { state: State::Refused(error) })
    }

    fn proposal(&self, taken: Result<(LogId, Submission<'_>), ProposeError>) -> Proposal {
        let state = match taken {
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

    /// The index of the next proposed entry, unless another thread submits first.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.engine.pipeline().progress().submitted_mark().next().max(FIRST.index)
    }

    fn propose_when_room(
        &self,
        payload: Payload<'_>,
        mode: Mode,
        mut out: Option<&mut Out<'_>>,
        deadline: &Deadline,
    ) -> Result<(LogId, Submission<'_>), ProposeError> {
        let pipeline = self.engine.pipeline();
        let taken = pipeline.when_room(1, deadline, |attempt| {
            propose(pipeline, payload, (mode, attempt), out.as_deref_mut())
        });
        taken.map_err(|error| match error {
            ProposeError::Refused(SubmitError::Full { pending }) => {
                ProposeError::NoRoom { pending, waited: deadline.waited() }
            }
            other => other,
        })
    }
}

/// Takes `payload` as the next entry; [`SubmitError::Full`] if there is no room at the moment.
fn propose<'p, M: StateMachine>(
    pipeline: &'p Pipeline<M>,
    payload: Payload<'_>,
    (mode, attempt): (Mode, Attempt),
    out: Option<&mut Out<'_>>,
) -> Result<(LogId, Submission<'p>), ProposeError> {
    let began_ns = pipeline.latency().now_ns();
    let _tasks = pipeline.wakes_tasks();
    let mut claim = pipeline.claim_for(mode);
    let appending = pipeline.log_desk().appending();
    pipeline.check_may_submit(mode).map_err(|error| match error {
        SubmitError::CommitMode { mode, instead, .. } => {
            ProposeError::Refused(SubmitError::CommitMode { call: "propose", mode, instead })
        }
        other => ProposeError::Refused(other),
    })?;
    let log_id = next_log_id(&appending);
    let entries = [Entry::new(log_id, payload)];
    let plan = appending.appender.plan(&entries).map_err(ProposeError::Refused)?;
    let call = Call { mode, attempt, began_ns, out };
    let taken = pipeline.take(claim.as_mut(), appending, &entries, (plan, 0), call);
    match taken {
        Ok(submission) => Ok((log_id, Submission { claim, ..submission })),
        // The engine had not failed before, so it failed with this entry.
        Err(SubmitError::Poisoned(poison)) => {
            Err(ProposeError::Taken { log_id, source: WaitError::Poisoned(poison) })
        }
        Err(error) => Err(ProposeError::Refused(error)),
    }
}

/// The log id after the last entry, with its term and leader. `u64::MAX` is no index, and is
/// refused as such.
fn next_log_id(appending: &Appending) -> LogId {
    let last = appending.appender.last();
    last.map_or(FIRST, LogId::next)
}

/// A future for the reply of a proposed entry;
/// [`ApplyManager::propose_async`](crate::ApplyManager::propose_async) makes it.
///
/// The future is bound to no runtime. The entry is in progress, whatever happens to the future.
#[derive(Debug)]
#[must_use = "it says whether the entry was taken, and what came of it"]
pub struct Proposal {
    state: State,
}

#[derive(Debug)]
enum State {
    Refused(ProposeError),
    Taken { log_id: LogId, cell: ReplyCell, acknowledged: Acknowledged },
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
