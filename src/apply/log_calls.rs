//! The calls of a consensus engine whose log this is.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::engine::{Appending, Engine};
use super::known::Submitted;
use super::manager::ApplyManager;
use super::submit::Mode;
use crate::config::{CommitMode, Contiguity};
use crate::entry::{Entry, LogId};
use crate::error::{LogError, SubmitError, WaitError};
use crate::log::Log;
use crate::log::appender::known::KnownPlaces;
use crate::log::reader::LogEntries;
use crate::machine::StateMachine;
use crate::progress::watermark::{decode, encode};

/// What the log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogState {
    /// First index of the log.
    pub first: Option<u64>,
    /// The last entry of the log, committed or not.
    pub last: Option<LogId>,
    /// What may be applied.
    pub committed: Option<u64>,
    /// What is on stable storage.
    pub durable: Option<u64>,
    /// The last index that is gone from the log, covered by a snapshot.
    pub purged: Option<u64>,
}

/// How a log was opened: what an adapter has to rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogOptions {
    /// How entries come to be committed.
    pub commit_mode: CommitMode,
    /// Whether indexes may have gaps.
    pub contiguity: Contiguity,
    /// Whether the engine gives up the front of the log by itself.
    pub compacts: bool,
}

/// How long a call that needs the log on disk waits for it.
const LOG_TIMEOUT: Duration = Duration::from_secs(60);

impl<M: StateMachine> ApplyManager<M> {
    /// Appends proposed entries to the log; they are applied when [`commit`](ApplyManager::commit) says so.
    ///
    /// Returns at once; `wait_until(index, Stage::Durable, ..)` waits until a vote for them may be given.
    ///
    /// # Errors
    ///
    /// [`SubmitError`]; all of `entries` are taken or none. Only for a log opened with
    /// [`CommitMode::ByCommit`](crate::CommitMode::ByCommit). Entries that the log has already are compared with what it has,
    /// as in [`apply_entries`](ApplyManager::apply_entries).
    pub fn append(&self, entries: &[Entry<'_>]) -> Result<Submitted, SubmitError> {
        let taken = self.engine.submit(entries, Mode::Append)?;
        Ok(taken.map_or(Submitted::default(), |submission| submission.submitted))
    }

    /// Lets entries up to `index` be applied, and waits for none of that; going back is ignored.
    ///
    /// As a submission it takes its turn: while a snapshot is installed or [`apply_only`](ApplyManager::apply_only) runs, it waits
    /// until that is done.
    ///
    /// # Errors
    ///
    /// [`SubmitError::NotAppended`] past the end of the log, and as [`append`](ApplyManager::append).
    pub fn commit(&self, index: u64) -> Result<(), SubmitError> {
        self.engine.commit(index)
    }

    fn log(&self) -> Result<&Log, LogError> {
        self.engine.progress.poison.check()?;
        self.engine.log.as_deref().ok_or(LogError::NoLog)
    }

    /// How the log was opened.
    ///
    /// # Errors
    ///
    /// As [`log_state`](ApplyManager::log_state).
    pub fn log_options(&self) -> Result<LogOptions, LogError> {
        let log = self.log()?;
        let contiguity = Contiguity::of(log.is_monotone());
        let compacts = log.compaction_policy().is_some();
        Ok(LogOptions { commit_mode: log.commit_mode(), contiguity, compacts })
    }

    /// Where the log starts and ends.
    ///
    /// # Errors
    ///
    /// [`LogError::NoLog`], [`LogError::Poisoned`].
    pub fn log_state(&self) -> Result<LogState, LogError> {
        let log = self.log()?;
        let appending = self.engine.lock_appender();
        let progress = &self.engine.progress;
        let base = log.base();
        Ok(LogState {
            first: appending.appender.index().first(base.segment),
            last: appending.appender.last(),
            committed: decode(progress.committed_mark()),
            durable: decode(progress.durable_mark()),
            purged: base.last.map(|last| last.index),
        })
    }

    /// The log id at `index`, if the log holds it.
    ///
    /// # Errors
    ///
    /// As [`log_state`](ApplyManager::log_state).
    pub fn log_id(&self, index: u64) -> Result<Option<LogId>, LogError> {
        self.log()?;
        Ok(self.engine.lock_appender().appender.log_id(index))
    }

    /// Copies entries of the log out, from the start of `range`: as many as fit `bytes_max`, at least one.
    ///
    /// Waits for nothing: entries that the log writer has not written yet are copied from memory. Costs one read of at most
    /// 64 KiB to find the first.
    ///
    /// # Errors
    ///
    /// [`LogError::NotInLog`] if the log does not hold the whole range, or no more; [`LogError::Corrupt`] if it does not read back.
    pub fn entries(
        &self,
        range: RangeInclusive<u64>,
        bytes_max: usize,
    ) -> Result<LogEntries, LogError> {
        let log = self.log()?;
        if range.is_empty() {
            return Ok(LogEntries::default());
        }
        loop {
            let (before, places) = self.engine.log_extent_and_places(log, &range);
            let (first, last) = (before.first, before.last);
            let missing = [*range.start(), *range.end()]
                .into_iter()
                .find(|index| first.is_none_or(|first| *index < first) || Some(*index) > last);
            if let Some(index) = missing {
                return Err(LogError::NotInLog { index, first, last });
            }
            let found = log.entries(&places, range.clone(), bytes_max);
            let after = self.engine.log_extent(log);
            let truncated = after.truncations != before.truncations;
            let given_up = after.segment != before.segment;
            let whole = found.as_ref().is_ok_and(|found| !found.is_empty());
            // What went while it was read is not damaged: look again whether it is there.
            if !truncated && (!given_up || whole) {
                return found;
            }
        }
    }

    /// Removes everything after `keep` (`None`: everything) from the log. Those who wait for it get
    /// [`WaitError::Truncated`].
    ///
    /// # Errors
    ///
    /// [`LogError::BelowCommitted`]: committed entries stay. [`LogError::Full`]: nothing was changed, try again.
    pub fn truncate_after(&self, keep: Option<u64>) -> Result<(), LogError> {
        self.log()?;
        if self.engine.is_closed() {
            return Err(LogError::Closed);
        }
        let _tasks = self.engine.wakes_tasks();
        let mut appending = self.engine.lock_appender();
        let progress = &self.engine.progress;
        let held = keep.and_then(|index| appending.appender.last_held(index));
        let mark = encode(held.map(|log_id| log_id.index));
        let last = appending.appender.last();
        if keep >= last.map(|last| last.index) {
            return Ok(());
        }
        if let Some(committed) = decode(progress.committed_mark()).filter(|index| *index >= mark) {
            return Err(LogError::BelowCommitted { asked: keep, committed });
        }
        let sequence = appending.appender.truncate(mark).ok_or(LogError::Full)?;
        progress.truncate_to(sequence, mark);
        self.engine.latency.truncated(mark);
        drop(appending);
        self.engine.writer_signal.notify();
        Ok(())
    }

    /// Blocks until everything appended or truncated before the call is on stable storage, whatever the durability mode.
    /// Nothing is waited for to be applied; and that it was committed by [`commit`](ApplyManager::commit) is said by the
    /// frames that follow, and on stable storage with these.
    ///
    /// What was appended before one call is one sync, as far as it is not under way: callers on several threads share it.
    ///
    /// # Errors
    ///
    /// [`LogError::Timeout`], which cancels nothing; [`LogError::Poisoned`].
    pub fn sync(&self, timeout: Duration) -> Result<(), LogError> {
        self.log()?;
        let _tasks = self.engine.wakes_tasks();
        log_error(self.engine.sync_log(timeout))
    }

    /// Gives up the log through `index`, which the newest snapshot must cover (of a machine over a storage: which the
    /// storage must have applied, and is made to sync if need be): whole segments, and none that has one of the
    /// last [`retain_entries`](crate::PersistentConfig::retain_entries). So some of it may stay, and go with a later call.
    ///
    /// Waits a minute at most for the log to be durable, and reads once more what it gives up, as
    /// [`compact`](ApplyManager::compact) does.
    ///
    /// # Errors
    ///
    /// [`LogError::NotCovered`] if the newest snapshot is of an entry before `index`; [`LogError::Snapshot`].
    pub fn purge(&self, index: u64) -> Result<(), LogError> {
        self.log()?;
        let _tasks = self.engine.wakes_tasks();
        let _turn = self.engine.lock_snapshots();
        if self.engine.is_closed() {
            return Err(LogError::Closed);
        }
        if let Some(staging) = self.engine.machine.staging() {
            return self.engine.purge_kept(staging, self.log()?, index);
        }
        let newest = self.engine.newest_snapshot()?;
        let covered = newest.as_ref().and_then(|newest| newest.log_id());
        match (newest, covered) {
            (Some(newest), Some(covered)) if covered.index >= index => {
                Ok(self.engine.purge(index, covered, &newest)?)
            }
            _ => Err(LogError::NotCovered { index }),
        }
    }

    /// The hard state (vote and the like) saved last.
    ///
    /// # Errors
    ///
    /// As [`log_state`](ApplyManager::log_state).
    pub fn hard_state(&self) -> Result<Option<Vec<u8>>, LogError> {
        Ok(self.log()?.hard_state())
    }

    /// Makes a hard state of at most 3,584 bytes durable, after everything appended or truncated before the call, for
    /// which it waits up to a minute.
    ///
    /// Costs one write and one sync. The first one in a directory costs three of each, as it makes the file `HARD`.
    ///
    /// # Errors
    ///
    /// [`LogError::HardStateTooLarge`]; any failure to write poisons the engine.
    pub fn save_hard_state(&self, state: &[u8]) -> Result<(), LogError> {
        let log = self.log()?;
        let _tasks = self.engine.wakes_tasks();
        log_error(self.engine.sync_log(LOG_TIMEOUT))?;
        log.save_hard_state(state).map_err(|error| match error {
            LogError::Poisoned(poison) => LogError::Poisoned(self.engine.fail(poison)),
            other => other,
        })
    }
}

/// Where a log begins and ends, and what tells whether that has changed.
struct Extent {
    first: Option<u64>,
    last: Option<u64>,
    /// Where it begins.
    segment: u64,
    truncations: u64,
}

impl<M: StateMachine> Engine<M> {
    fn log_extent(&self, log: &Log) -> Extent {
        Extent::of(&self.lock_appender(), log)
    }

    /// The same, and where the entries of `range` are at that moment.
    fn log_extent_and_places(
        &self,
        log: &Log,
        range: &RangeInclusive<u64>,
    ) -> (Extent, KnownPlaces) {
        let appending = self.lock_appender();
        let extent = Extent::of(&appending, log);
        let (first, last) = (*range.start(), *range.end());
        let places = appending.appender.known_places(extent.segment, first, last);
        (extent, places)
    }
}

impl Extent {
    fn of(appending: &Appending, log: &Log) -> Self {
        // The base moves before anything goes, and the appender hears of it last.
        let segment = log.base().segment;
        let index = appending.appender.index();
        let last = appending.appender.last().map(|last| last.index);
        Self { first: index.first(segment), last, segment, truncations: index.truncations() }
    }
}

/// What came of waiting for the log to reach the disk.
fn log_error(waited: Result<(), WaitError>) -> Result<(), LogError> {
    match waited {
        // What was truncated meanwhile needs no waiting for.
        Ok(()) | Err(WaitError::Truncated { .. }) => Ok(()),
        Err(WaitError::Poisoned(poison)) => Err(poison.into()),
        Err(WaitError::Closed { .. }) => Err(LogError::Closed),
        Err(error) => Err(LogError::Timeout(error)),
    }
}
