//! The calls on the log, in either commit mode: the facet [`ManagerLog`].

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::apply::desks::log::Appending;
use crate::apply::desks::log_waits::LOG_TIMEOUT;
use crate::apply::engine::Engine;
use crate::apply::manager::ApplyManager;
use crate::config::{CommitMode, Contiguity};
use crate::contract::machine::StateMachine;
use crate::entry::LogId;
use crate::error::{LogError, WaitError};
use crate::hook::Hook;
use crate::log::Log;
use crate::log::appender::known::KnownPlaces;
use crate::log::reader::LogEntries;
use crate::numbers::SegmentNumber;

/// The bounds of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogState {
    /// First index of the log.
    pub first: Option<u64>,
    /// The last entry of the log, committed or not.
    pub last: Option<LogId>,
    /// Last index that may be applied.
    pub committed: Option<u64>,
    /// Last index on stable storage.
    pub durable: Option<u64>,
    /// Last index that was purged from the log; a snapshot covers it.
    pub purged: Option<u64>,
}

/// The options of an open log that an adapter relies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogOptions {
    /// Rule by which entries are committed.
    pub commit_mode: CommitMode,
    /// Whether indexes may have gaps.
    pub contiguity: Contiguity,
    /// Whether the engine gives up the front of the log on its own.
    pub compacts: bool,
}

/// The log of an [`ApplyManager`], in either commit mode; made by [`ApplyManager::log`].
///
/// It borrows the manager and is free to copy. Its calls may be made from any thread.
#[derive(Debug)]
pub struct ManagerLog<'m, M: StateMachine> {
    pub(in crate::apply) engine: &'m Engine<M>,
    pub(in crate::apply) log: &'m Log,
}

impl<M: StateMachine> Clone for ManagerLog<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: StateMachine> Copy for ManagerLog<'_, M> {}

impl<M: StateMachine> ApplyManager<M> {
    /// The log of the machine: its entries, its ends, its hard state.
    ///
    /// # Errors
    ///
    /// Returns [`LogError::NoLog`] for a machine without a log. The answer is the same for the life
    /// of the manager.
    pub fn log(&self) -> Result<ManagerLog<'_, M>, LogError> {
        let log = self.engine.pipeline().log_desk().log().ok_or(LogError::NoLog)?;
        Ok(ManagerLog { engine: &self.engine, log })
    }
}

impl<'m, M: StateMachine> ManagerLog<'m, M> {
    pub(in crate::apply) fn log_unless_failed(&self) -> Result<&'m Log, LogError> {
        self.engine.pipeline().progress().poison.check()?;
        Ok(self.log)
    }

    /// The options that the log was opened with.
    #[must_use]
    pub fn options(&self) -> LogOptions {
        let Self { log, .. } = self;
        let contiguity = log.contiguity();
        let compacts = log.compaction_policy().is_some();
        LogOptions { commit_mode: log.commit_mode(), contiguity, compacts }
    }

    /// The start and end of the log.
    ///
    /// # Errors
    ///
    /// Returns [`LogError::Poisoned`] after a failure.
    pub fn state(&self) -> Result<LogState, LogError> {
        let log = self.log_unless_failed()?;
        let appending = self.engine.pipeline().log_desk().appending();
        let progress = self.engine.pipeline().progress();
        let base = log.base();
        Ok(LogState {
            first: appending.appender.index().first(base.segment),
            last: appending.appender.last(),
            committed: progress.committed_mark().last(),
            durable: progress.durable_mark().last(),
            purged: base.last.map(|last| last.index),
        })
    }

    /// The log id at `index`, if the log holds it.
    ///
    /// # Errors
    ///
    /// Returns [`LogError::Poisoned`] after a failure.
    pub fn log_id(&self, index: u64) -> Result<Option<LogId>, LogError> {
        self.log_unless_failed()?;
        Ok(self.engine.pipeline().log_desk().log_id(index))
    }

    /// Copies entries of the log, from the start of `range`: as many as fit `bytes_max`, and at
    /// least one.
    ///
    /// The call does not wait: entries that the log writer has not written yet are copied from
    /// memory. It costs one read of at most 64 KiB to find the first entry.
    ///
    /// # Errors
    ///
    /// Returns [`LogError::NotInLog`] if the log does not hold the whole range, and
    /// [`LogError::Corrupt`] if it cannot be read back.
    pub fn entries(
        &self,
        range: RangeInclusive<u64>,
        bytes_max: usize,
    ) -> Result<LogEntries, LogError> {
        let log = self.log_unless_failed()?;
        if range.is_empty() {
            return Ok(LogEntries::default());
        }
        loop {
            let desk = self.engine.pipeline().log_desk();
            let (before, places) = LogBounds::with_places(&desk.appending(), log, &range);
            let (first, last) = (before.first, before.last);
            let missing = [*range.start(), *range.end()]
                .into_iter()
                .find(|index| first.is_none_or(|first| *index < first) || Some(*index) > last);
            if let Some(index) = missing {
                return Err(LogError::NotInLog { index, first, last });
            }
            let found = log.entries(&places, range.clone(), bytes_max);
            let after = LogBounds::of(&desk.appending(), log);
            let truncated = after.truncations != before.truncations;
            let given_up = after.segment != before.segment;
            let whole = found.as_ref().is_ok_and(|found| !found.is_empty());
            // Entries that were removed during the read are not damaged, so look again whether they
            // exist.
            if !truncated && (!given_up || whole) {
                return found;
            }
        }
    }

    /// Blocks until everything appended or truncated before the call is on stable storage, whatever
    /// the durability mode. Does not wait for apply. The commit index becomes durable only with a
    /// later frame.
    ///
    /// Appends before the call share one sync, as far as it has not started; calls of several
    /// threads share it too.
    ///
    /// # Errors
    ///
    /// Returns [`LogError::Timeout`], which cancels nothing, or [`LogError::Poisoned`].
    pub fn sync(&self, timeout: Duration) -> Result<(), LogError> {
        self.log_unless_failed()?;
        let _tasks = self.engine.pipeline().wakes_tasks();
        log_error(self.engine.pipeline().log_desk().sync(timeout))
    }

    /// Purges the log through `index`, in whole segments. The newest snapshot must cover `index`; a
    /// machine's storage must have applied it, and is synced if necessary. Segments with one of the
    /// last [`retain_entries`](crate::PersistentConfig::retain_entries) stay. So a part may stay
    /// until a later call.
    ///
    /// The call waits a minute at most for the log to become durable, and reads the given-up part
    /// once more, as [`compact`](crate::Snapshots::compact) does.
    ///
    /// The call takes no timeout: a log that was not given up in time only stays longer.
    ///
    /// # Errors
    ///
    /// Returns [`LogError::NotCovered`] if the newest snapshot's entry is before `index`, or
    /// [`LogError::Snapshot`].
    pub fn purge(&self, index: u64) -> Result<(), LogError> {
        self.log_unless_failed()?;
        let _tasks = self.engine.pipeline().wakes_tasks();
        let _turn = self.engine.snapshots().turn();
        if self.engine.pipeline().is_closed() {
            return Err(LogError::Closed);
        }
        if let Some(staging) = self.engine.pipeline().machine().staging(Hook::ENGINE) {
            return self.engine.snapshot_work().purge_kept(staging, self.log, index);
        }
        let newest = self.engine.snapshot_work().newest_snapshot()?;
        let covered = newest.as_ref().and_then(|newest| newest.log_id());
        match (newest, covered) {
            (Some(newest), Some(covered)) if covered.index >= index => {
                Ok(self.engine.snapshot_work().purge(index, covered, &newest)?)
            }
            _ => Err(LogError::NotCovered { index }),
        }
    }

    /// The hard state (vote, for example) that was saved last.
    ///
    /// # Errors
    ///
    /// Returns [`LogError::Poisoned`] after a failure.
    pub fn hard_state(&self) -> Result<Option<Vec<u8>>, LogError> {
        Ok(self.log_unless_failed()?.hard_state())
    }

    /// Makes a hard state of at most 3,584 bytes durable. Everything appended or truncated before
    /// the call becomes durable first; the call waits up to a minute for that.
    ///
    /// The call costs one write and one sync. The first one in a directory costs three writes and
    /// four syncs, one of them of the directory, because it makes the file `HARD`.
    ///
    /// The call takes no timeout. A vote that may or may not be durable must not be given, so a
    /// caller has no use for giving up.
    ///
    /// # Errors
    ///
    /// Returns [`LogError::HardStateTooLarge`]; any failed write poisons the engine.
    pub fn save_hard_state(&self, state: &[u8]) -> Result<(), LogError> {
        let log = self.log_unless_failed()?;
        let _tasks = self.engine.pipeline().wakes_tasks();
        log_error(self.engine.pipeline().log_desk().sync(LOG_TIMEOUT))?;
        log.save_hard_state(state).map_err(|error| match error {
            LogError::Poisoned(poison) => {
                LogError::Poisoned(self.engine.pipeline().signals().fail(poison))
            }
            other => other,
        })
    }
}

/// Start and end of a log, and a count that tells whether they have changed.
struct LogBounds {
    first: Option<u64>,
    last: Option<u64>,
    /// Number of its first segment.
    segment: SegmentNumber,
    truncations: u64,
}

impl LogBounds {
    fn of(appending: &Appending, log: &Log) -> Self {
        // The base moves before anything is removed, and the appender learns it last.
        let segment = log.base().segment;
        let index = appending.appender.index();
        let last = appending.appender.last().map(|last| last.index);
        Self { first: index.first(segment), last, segment, truncations: index.truncations() }
    }

    /// The bounds of the log, and the places of the entries of `range` at that moment.
    fn with_places(
        appending: &Appending,
        log: &Log,
        range: &RangeInclusive<u64>,
    ) -> (Self, KnownPlaces) {
        let bounds = Self::of(appending, log);
        let (first, last) = (*range.start(), *range.end());
        let places = appending.appender.known_places(bounds.segment, first, last);
        (bounds, places)
    }
}

/// Converts the result of a wait for the log's durability.
fn log_error(waited: Result<(), WaitError>) -> Result<(), LogError> {
    match waited {
        // Truncated entries need no wait.
        Ok(()) | Err(WaitError::Truncated { .. }) => Ok(()),
        Err(WaitError::Poisoned(poison)) => Err(poison.into()),
        Err(WaitError::Closed { .. }) => Err(LogError::Closed),
        Err(error) => Err(LogError::Timeout(error)),
    }
}
