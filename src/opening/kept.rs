//! Opening for a machine that keeps its state in a separate storage.
//!
//! The storage's last entry counts as committed, like that of a snapshot. Where the log has that
//! entry, replay continues behind it. Where the log ends before it, the log has lost an unsynced
//! tail, and starts over behind the entry. Another entry at that index means another log. A storage
//! that ends before the log begins has lost entries that nothing else has.

use super::LogOpening;
use crate::entry::LogId;
use crate::error::OpenError;
use crate::log::recovery::scan::ScanResult;
use crate::opening::tally::Tally;

impl LogOpening {
    /// Notes that the machine's storage has everything up to `applied`. These entries count as
    /// committed, like those of a snapshot.
    pub(crate) fn keeps(&mut self, applied: Option<LogId>) {
        self.kept = applied;
    }

    /// The last entry of the state that opening starts from.
    pub(super) fn start(&self) -> Option<LogId> {
        let snapshot = self.snapshot.map(|(log_id, _)| log_id);
        let index = |log_id: Option<LogId>| log_id.map(|log_id| log_id.index);
        if index(self.kept) >= index(snapshot) { self.kept } else { snapshot }
    }

    /// Whether the machine's storage has the entry at `index`.
    pub(super) fn has(&self, index: u64) -> bool {
        self.kept.is_some_and(|kept| kept.index >= index)
    }

    pub(super) fn is_behind(&self, base: LogId) -> OpenError {
        OpenError::StorageBehind { applied: self.kept.map(|kept| kept.index), purged: base.index }
    }

    /// Whether the newest snapshot is of this entry.
    pub(super) fn is_of_snapshot(&self, log_id: LogId) -> bool {
        self.snapshot.is_some_and(|(snapshot, _)| snapshot == log_id)
    }

    /// Checks that the storage has the entry before the log's beginning, and not another one.
    pub(super) fn check_kept_at_base(&self) -> Result<(), OpenError> {
        let (Some(applied), Some(base)) = (self.kept, self.content.base.last) else {
            return Ok(());
        };
        if applied.index < base.index {
            return Err(self.is_behind(base));
        }
        if applied.index == base.index && applied != base {
            return Err(OpenError::OtherLog { applied, found: Some(base) });
        }
        Ok(())
    }

    /// Checks that the log does not have another entry at the index of the storage's last one. If a
    /// snapshot of that entry is here, it was being installed, and the log's entry was not
    /// committed.
    pub(super) fn check_kept_in_log(
        &self,
        result: &ScanResult,
        tally: &Tally,
    ) -> Result<(), OpenError> {
        let lacks = result.lacks_snapshot.filter(|lacks| Some(*lacks) == self.kept);
        let last = result.tail.last.map(|last| last.index);
        match lacks {
            Some(applied) if Some(applied.index) <= last && !self.is_of_snapshot(applied) => {
                Err(OpenError::OtherLog { applied, found: tally.terms.log_id(applied.index) })
            }
            _ => Ok(()),
        }
    }
}
