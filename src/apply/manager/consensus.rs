//! The calls of a consensus engine whose log this is: the facet [`ConsensusLog`].

use std::ops::Deref;

use crate::apply::manager::ApplyManager;
use crate::apply::manager::log::ManagerLog;
use crate::apply::pipeline::known::Submitted;
use crate::apply::pipeline::submit::Mode;
use crate::config::CommitMode;
use crate::contract::machine::StateMachine;
use crate::entry::Entry;
use crate::error::{LogError, SubmitError};
use crate::numbers::Mark;

/// The log of a consensus engine, which appends entries and commits them later; made by
/// [`ApplyManager::consensus`].
///
/// It has every call of [`ManagerLog`] besides. It borrows the manager and is free to copy. Its
/// calls may be made from any thread.
#[derive(Debug)]
pub struct ConsensusLog<'m, M: StateMachine>(ManagerLog<'m, M>);

impl<M: StateMachine> Clone for ConsensusLog<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: StateMachine> Copy for ConsensusLog<'_, M> {}

impl<'m, M: StateMachine> Deref for ConsensusLog<'m, M> {
    type Target = ManagerLog<'m, M>;

    fn deref(&self) -> &ManagerLog<'m, M> {
        &self.0
    }
}

impl<M: StateMachine> ApplyManager<M> {
    /// The log, for the consensus engine whose log this is.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use sprag::error::LogError;
    /// # use sprag::{ApplyConfig, ApplyManager, MemoryConfig, MemoryStateMachine};
    /// # let machine = MemoryStateMachine::new(MemoryConfig::new())?;
    /// # let manager = ApplyManager::new(machine, ApplyConfig::new())?;
    /// // A machine in memory keeps no log: that is met here, and not by each call.
    /// assert!(matches!(manager.consensus(), Err(LogError::NoLog)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`LogError::NoLog`] if the machine keeps no log of ours. [`LogError::CommitMode`] if the
    /// directory was not opened with [`CommitMode::ByCommit`](crate::CommitMode::ByCommit). The
    /// answer is the same for the life of the manager.
    pub fn consensus(&self) -> Result<ConsensusLog<'_, M>, LogError> {
        let log = self.log()?;
        match log.log.commit_mode() {
            CommitMode::ByCommit => Ok(ConsensusLog(log)),
            mode @ CommitMode::OnAppend => Err(LogError::CommitMode { mode: mode.describe() }),
        }
    }
}

impl<M: StateMachine> ConsensusLog<'_, M> {
    /// Appends proposed entries to the log; they are applied after
    /// [`commit`](ConsensusLog::commit).
    ///
    /// The call returns at once. `wait_until(index, Stage::Durable, ..)` waits until a vote for the
    /// entries may be given.
    ///
    /// # Errors
    ///
    /// Returns [`SubmitError`]; all of `entries` are taken or none. Entries that the log already
    /// has are compared with it, as in [`apply_entries`](ApplyManager::apply_entries).
    pub fn append(&self, entries: &[Entry<'_>]) -> Result<Submitted, SubmitError> {
        let taken = self.engine.pipeline().submit(entries, Mode::Append)?;
        Ok(taken.map_or(Submitted::default(), |submission| submission.submitted))
    }

    /// Commits entries up to `index`, and does not wait for their apply. A lower index than before
    /// is ignored.
    ///
    /// The call takes its turn like a submission: during an installation of a snapshot, or
    /// [`apply_only`](ConsensusLog::apply_only), it waits for the end of that.
    ///
    /// # Errors
    ///
    /// Returns [`SubmitError::NotAppended`] past the end of the log, and the errors of
    /// [`append`](ConsensusLog::append).
    pub fn commit(&self, index: u64) -> Result<(), SubmitError> {
        self.engine.pipeline().commit(index)
    }

    /// Removes everything after `keep` (`None`: everything) from the log. Waiters for these entries
    /// get [`WaitError::Truncated`](crate::error::WaitError::Truncated).
    ///
    /// # Errors
    ///
    /// Returns [`LogError::BelowCommitted`] because committed entries stay. Returns
    /// [`LogError::Full`] if nothing was changed; try again.
    pub fn truncate_after(&self, keep: Option<u64>) -> Result<(), LogError> {
        self.log_unless_failed()?;
        if self.engine.pipeline().is_closed() {
            return Err(LogError::Closed);
        }
        let _tasks = self.engine.pipeline().wakes_tasks();
        let mut appending = self.engine.pipeline().log_desk().appending();
        let progress = self.engine.pipeline().progress();
        let held = keep.and_then(|index| appending.appender.last_held(index));
        let mark = Mark::of(held.map(|log_id| log_id.index));
        let last = appending.appender.last();
        if keep >= last.map(|last| last.index) {
            return Ok(());
        }
        if let Some(committed) = progress.committed_mark().last().filter(|last| !mark.covers(*last))
        {
            return Err(LogError::BelowCommitted { asked: keep, committed });
        }
        let sequence = appending.appender.truncate(mark.next()).ok_or(LogError::Full)?;
        progress.truncate_to(sequence, mark).map_err(LogError::Poisoned)?;
        self.engine.pipeline().latency().truncated(mark);
        drop(appending);
        self.engine.pipeline().signals().writer().notify();
        Ok(())
    }
}
