//! Term and leader of every index of the log, as far back as this opening knows.

use crate::entry::{LeaderTag, LogId};

/// Runs of entries with one term and leader, by their first index. Terms change rarely, so this
/// stays short.
#[derive(Debug, Default)]
pub(crate) struct TermRuns {
    runs: Vec<(u64, Run)>,
}

/// Term and leader of a run's entries; `None` for a gap.
type Run = Option<(u64, LeaderTag)>;

/// The content of the log at an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Held {
    /// An entry.
    Entry(LogId),
    /// No entry: the log skips the index.
    Gap,
    /// Unknown: the index is from before what is remembered.
    Forgotten,
}

impl TermRuns {
    /// Adds the next entry of the log.
    #[inline]
    pub(crate) fn push(&mut self, log_id: LogId) {
        let held = Some((log_id.term, log_id.leader));
        if self.runs.last().is_none_or(|(_, last)| *last != held) {
            self.runs.push((log_id.index, held));
        }
    }

    /// Adds the next entry of a log that may have a gap after `last`.
    #[inline]
    pub(crate) fn push_after(&mut self, last: Option<LogId>, log_id: LogId) {
        if let Some(last) = last
            && last.index + 1 < log_id.index
        {
            self.runs.push((last.index + 1, None));
        }
        self.push(log_id);
    }

    /// The content at `index`, which the caller knows to be at most the last.
    pub(crate) fn held(&self, index: u64) -> Held {
        let after = self.runs.partition_point(|(first, ..)| *first <= index);
        match after.checked_sub(1).and_then(|at| self.runs.get(at)) {
            Some((_, Some((term, leader)))) => {
                Held::Entry(LogId { index, term: *term, leader: *leader })
            }
            Some((_, None)) => Held::Gap,
            None => Held::Forgotten,
        }
    }

    /// The log id at `index`, which the caller knows to be at most the last; `None` if it is
    /// forgotten, or in a gap.
    pub(crate) fn log_id(&self, index: u64) -> Option<LogId> {
        match self.held(index) {
            Held::Entry(log_id) => Some(log_id),
            Held::Gap | Held::Forgotten => None,
        }
    }

    /// The log id of the last entry at or below `index`, which the caller knows to be at most the
    /// last.
    pub(crate) fn last_held(&self, index: u64) -> Option<LogId> {
        let after = self.runs.partition_point(|(first, ..)| *first <= index);
        match self.runs.get(after.checked_sub(1)?)? {
            (_, Some((term, leader))) => Some(LogId { index, term: *term, leader: *leader }),
            // Entries precede a gap.
            (first, None) => self.log_id(first.checked_sub(1)?),
        }
    }

    /// Forgets everything below `first_kept`, which the caller knows to be at most the last index.
    pub(crate) fn forget_below(&mut self, first_kept: u64) {
        let after = self.runs.partition_point(|(first, ..)| *first <= first_kept);
        // The run that has the first kept index stays.
        self.runs.drain(..after.saturating_sub(1));
        if let Some((first, ..)) = self.runs.first_mut() {
            *first = (*first).max(first_kept);
        }
    }

    /// Forgets everything at and above `first_removed`.
    pub(crate) fn truncate(&mut self, first_removed: u64) {
        while self.runs.last().is_some_and(|(first, ..)| *first >= first_removed) {
            self.runs.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_the_term_it_was_pushed_with_also_after_a_truncation() {
        let mut runs = TermRuns::default();
        for (index, term) in [(5, 1), (6, 1), (7, 3), (8, 3), (9, 4)] {
            runs.push(LogId::new(index, term));
        }
        let term = |runs: &TermRuns, index| runs.log_id(index).map(|id| id.term);
        assert_eq!(
            [4, 5, 6, 7, 8, 9].map(|i| term(&runs, i)),
            [None, Some(1), Some(1), Some(3), Some(3), Some(4)]
        );
        runs.truncate(8);
        runs.push(LogId::new(8, 5));
        assert_eq!([7, 8].map(|i| term(&runs, i)), [Some(3), Some(5)]);
        runs.truncate(5);
        assert_eq!(term(&runs, 5), None);
    }

    #[test]
    fn an_index_in_a_gap_has_no_log_id() {
        let mut runs = TermRuns::default();
        runs.push_after(None, LogId::new(3, 1));
        runs.push_after(Some(LogId::new(3, 1)), LogId::new(4, 1));
        runs.push_after(Some(LogId::new(4, 1)), LogId::new(7, 1));
        let held = |runs: &TermRuns, index| runs.log_id(index).is_some();
        assert_eq!(
            [2, 3, 4, 5, 6, 7].map(|i| held(&runs, i)),
            [false, true, true, false, false, true]
        );
        assert_eq!(runs.last_held(6).map(|id| id.index), Some(4));
        assert_eq!(runs.last_held(7).map(|id| id.index), Some(7));
        runs.truncate(6);
        runs.push_after(Some(LogId::new(4, 1)), LogId::new(5, 1));
        assert!(held(&runs, 5));
    }
}
