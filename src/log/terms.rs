//! Which term and leader every index of the log has, as far back as this opening of it knows.

use crate::entry::{LeaderTag, LogId};

/// Runs of one term and leader, by their first index. Terms change rarely, so this stays short.
#[derive(Debug, Default)]
pub(crate) struct TermRuns {
    runs: Vec<(u64, u64, LeaderTag)>,
}

impl TermRuns {
    /// The next entry of the log.
    #[inline]
    pub(crate) fn push(&mut self, log_id: LogId) {
        match self.runs.last() {
            Some((_, term, leader)) if *term == log_id.term && *leader == log_id.leader => {}
            _ => self.runs.push((log_id.index, log_id.term, log_id.leader)),
        }
    }

    /// The log id at `index`, which the caller knows to be at most the last; `None` if it is from before.
    pub(crate) fn log_id(&self, index: u64) -> Option<LogId> {
        let after = self.runs.partition_point(|(first, ..)| *first <= index);
        let (_, term, leader) = self.runs.get(after.checked_sub(1)?)?;
        Some(LogId { index, term: *term, leader: *leader })
    }

    /// Forgets everything below `first_kept`, which the caller knows to be at most the last.
    pub(crate) fn forget_below(&mut self, first_kept: u64) {
        let after = self.runs.partition_point(|(first, ..)| *first <= first_kept);
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
}
