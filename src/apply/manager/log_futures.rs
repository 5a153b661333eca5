//! Futures of the log: durable entries, and the replies of committed ones. They serve an adapter
//! whose threads must not block.

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::apply::manager::consensus::ConsensusLog;
use crate::apply::manager::log::ManagerLog;
use crate::apply::pipeline::cells::ReplyCell;
use crate::config::Durability;
use crate::contract::machine::StateMachine;
use crate::entry::Reply;
use crate::error::{Poison, SubmitError, WaitError};
use crate::progress::waiter::TaskWait;
use crate::progress::watermark::Stage;

/// Future that completes when an entry is on stable storage; [`ManagerLog::durable`] makes it.
///
/// The future is bound to no runtime. The log writer's thread calls the waker, mostly, after its
/// sync: the waker must not block. Dropping the future cancels only the wait.
#[derive(Debug)]
#[must_use = "a future does nothing until it is polled"]
pub struct Durable(TaskWait);

impl Future for Durable {
    type Output = Result<(), WaitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}

/// Future of the replies of committed entries; [`ConsensusLog::commit_with_replies`] makes it.
///
/// The future is bound to no runtime. A worker calls the waker, mostly. The entries are applied,
/// whether the future is polled or dropped. It keeps no slot of the pipeline.
#[derive(Debug)]
#[must_use = "a future does nothing until it is polled"]
pub struct CommittedReplies {
    applied: TaskWait,
    /// The cells of the wanted replies; `None` for an entry that was committed before.
    cells: Vec<Option<ReplyCell>>,
}

impl Future for CommittedReplies {
    type Output = Result<Vec<Reply>, WaitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(self.applied.poll(context))?;
        let lost = || WaitError::Poisoned(Poison::Internal("an applied entry has no reply"));
        let replies = self.cells.iter().map(|cell| match cell {
            None => Ok(Reply::AlreadyApplied),
            Some(cell) => cell.reply().cloned().ok_or_else(lost),
        });
        Poll::Ready(replies.collect())
    }
}

impl<M: StateMachine> ManagerLog<'_, M> {
    /// A future that completes when the entry at `index` is on stable storage, whatever the
    /// durability mode. The wait begins with the first poll.
    ///
    /// It does not wait for an entry at or below the applied state that
    /// [`apply_only`](ConsensusLog::apply_only) passed: [`sync`](ManagerLog::sync) does.
    ///
    /// # Errors
    ///
    /// The future returns [`WaitError::Truncated`] if the entry was removed meanwhile,
    /// [`WaitError::Poisoned`] after a failure, and [`WaitError::Closed`] at the end.
    pub fn durable(&self, index: u64) -> Durable {
        if self.log.durability() != Durability::Sync {
            self.engine.pipeline().log_desk().want_sync(self.log);
        }
        Durable(TaskWait::new(Arc::clone(self.engine.pipeline().progress()), index, Stage::Durable))
    }
}

impl<M: StateMachine> ConsensusLog<'_, M> {
    /// Commits entries up to the end of `indexes`, as [`commit`](ConsensusLog::commit) does, and
    /// returns without waiting for their apply. The future returns the replies of those entries of
    /// `indexes` for which `wants` returns true, in order.
    ///
    /// An entry that was committed before this call has [`Reply::AlreadyApplied`]. A wanted reply
    /// costs one allocation.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`commit`](ConsensusLog::commit); nothing is committed then. The
    /// future returns [`WaitError::Poisoned`] after a failure, and [`WaitError::Closed`] at the
    /// end.
    pub fn commit_with_replies(
        &self,
        indexes: RangeInclusive<u64>,
        wants: impl Fn(u64) -> bool,
    ) -> Result<CommittedReplies, SubmitError> {
        let pipeline = self.engine.pipeline();
        let _tasks = pipeline.wakes_tasks();
        let last = *indexes.end();
        let cells = pipeline.commit_with_cells(indexes, wants)?;
        Ok(self.replies_of(last, cells))
    }

    fn replies_of(&self, last: u64, cells: Vec<Option<ReplyCell>>) -> CommittedReplies {
        let progress = Arc::clone(self.engine.pipeline().progress());
        CommittedReplies { applied: TaskWait::new(progress, last, Stage::Applied), cells }
    }

    /// Whether [`commit_here`](ConsensusLog::commit_here) may apply entries in the calling thread.
    #[must_use]
    pub fn applies_here(&self) -> bool {
        self.engine.pipeline().applies_here()
    }

    /// Commits entries as [`commit_with_replies`](ConsensusLog::commit_with_replies) does, and
    /// applies them in the calling thread where that is brief. The future is ready then.
    ///
    /// Applying is brief if the machine is a built-in one, over our log or in memory, whose state
    /// is complete in memory ([`unfilled_chunks`](crate::StateMachineStats::unfilled_chunks) is 0).
    /// The workers must be idle, no view may be under way, and
    /// [`inline_apply`](crate::ApplyConfig::inline_apply) must be set. In all other cases the
    /// workers apply the entries. So the call runs no code of an embedder, but for wakers of tasks.
    ///
    /// It takes the time of the entries that it applies, some 0.3 us for a put. A caller that may
    /// not block commits a few at a time.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`commit`](ConsensusLog::commit); nothing is committed then. The
    /// future returns [`WaitError::Poisoned`] after a failure, and [`WaitError::Closed`] at the
    /// end.
    pub fn commit_here(
        &self,
        indexes: RangeInclusive<u64>,
        wants: impl Fn(u64) -> bool,
    ) -> Result<CommittedReplies, SubmitError> {
        let pipeline = self.engine.pipeline();
        let _tasks = pipeline.wakes_tasks();
        let last = *indexes.end();
        let cells = pipeline.commit_here(indexes, wants)?;
        Ok(self.replies_of(last, cells))
    }
}
