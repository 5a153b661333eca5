//! Comparison of resubmitted entries with the log, before anything of the submission is taken.
//!
//! The comparison runs without the appender's lock, so a truncation, an installation or a
//! compaction may change the log meanwhile. Its result counts only if the log's [`Removals`] is the
//! same afterwards, under the lock.

use crate::apply::desks::log::{Appending, LogDesk};
use crate::entry::Entry;
use crate::error::SubmitError;
use crate::log::appender::known::KnownPlaces;
use crate::log::known::{Comparison, Difference};
use crate::numbers::SegmentNumber;
use crate::places::unmapped::NotRead;

/// Result of a submission.
#[must_use = "entries that are not new have changed nothing"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Submitted {
    /// Number of entries that the log took.
    pub new: u64,
    /// Number of entries that the log already has, with the same log ids and the same payloads.
    pub known_same: u64,
    /// Number of entries at or below the log's end that could not be compared, because their bytes
    /// are gone. A snapshot covers them or, in a machine without a log, their memory is in use
    /// again. These entries have changed nothing.
    pub unverifiable: u64,
}

/// Number of changes of the log that a comparison tolerates. The next attempt holds the appender.
const ATTEMPTS_MAX: u32 = 4;

/// Facts that tell whether entries were removed from the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Removals {
    truncations: u64,
    base_segment: SegmentNumber,
}

type Compared = Result<Result<u64, Difference>, NotRead>;

/// The comparison of one submission.
#[derive(Debug)]
pub(in crate::apply) struct Comparing {
    attempts: u32,
    /// Number of entries at the front that were compared, the removals by then, and the
    /// result.
    compared: Option<(usize, Removals, Compared)>,
}

impl Comparing {
    pub(in crate::apply) const fn new() -> Self {
        Self { attempts: 0, compared: None }
    }

    /// The number of the `known` entries that are the same, if it is known. Otherwise `None`, and
    /// the caller releases the appender and calls [`Comparing::compare`].
    pub(in crate::apply) fn known_same(
        &mut self,
        desk: &LogDesk,
        appending: &Appending,
        known: &[Entry<'_>],
    ) -> Result<Option<u64>, SubmitError> {
        if known.is_empty() {
            return Ok(Some(0));
        }
        let removals = Removals::of(desk, appending);
        match self.compared.take() {
            // Entries that another thread submitted meanwhile were not compared.
            Some((count, before, compared)) if before == removals && count == known.len() => {
                return outcome(compared).map(Some);
            }
            // An earlier entry differs, whatever follows it.
            Some((_, before, Ok(Err(difference)))) if before == removals => {
                return outcome(Ok(Err(difference))).map(Some);
            }
            _ => {}
        }
        if self.attempts < ATTEMPTS_MAX {
            return Ok(None);
        }
        // The appender is held, so nothing is truncated or installed. A compaction may still move
        // the log's base, each time by at least one segment, and no segment is added meanwhile. So
        // the loop ends.
        loop {
            let removals = Removals::of(desk, appending);
            let compared = compare(desk, known, &known_places(appending, removals, known));
            if Removals::of(desk, appending) == removals {
                return outcome(compared).map(Some);
            }
        }
    }

    /// Compares entries that the log already has. The caller holds no lock.
    pub(in crate::apply) fn compare(&mut self, desk: &LogDesk, known: &[Entry<'_>]) {
        self.attempts += 1;
        let appending = desk.appending();
        let removals = Removals::of(desk, &appending);
        let places = known_places(&appending, removals, known);
        drop(appending);
        let compared = compare(desk, known, &places);
        self.compared = Some((known.len(), removals, compared));
    }
}

fn known_places(appending: &Appending, removals: Removals, known: &[Entry<'_>]) -> KnownPlaces {
    let [first, ..] = known else { return KnownPlaces::default() };
    let last = known.last().unwrap_or(first).log_id.index;
    appending.appender.known_places(removals.base_segment, first.log_id.index, last)
}

fn compare(desk: &LogDesk, known: &[Entry<'_>], places: &KnownPlaces) -> Compared {
    // Without a log, no frame is read by its header.
    let database_id = desk.log().map_or(&[0; 16], |log| log.database_id());
    Comparison::new(known).run(desk.table(), database_id, places)
}

impl Removals {
    fn of(desk: &LogDesk, appending: &Appending) -> Self {
        let base_segment = desk.log().map_or(SegmentNumber::LOWEST, |log| log.base().segment);
        Self { truncations: appending.appender.index().truncations(), base_segment }
    }
}

fn outcome(compared: Compared) -> Result<u64, SubmitError> {
    compared?.map_err(|Difference { known, got }| SubmitError::Conflict {
        index: got.index,
        known,
        got,
    })
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::config::{ApplyConfig, CommitMode, PersistentConfig};
    use crate::disk::sim::SimDisk;
    use crate::machine::PersistentStateMachine;
    use crate::testing::Stepped;

    type Node = Stepped<PersistentStateMachine>;

    fn node() -> Node {
        let config = PersistentConfig::new("sim").commit_mode(CommitMode::ByCommit);
        let disk = SimDisk::new(1).open(true).unwrap();
        let machine = PersistentStateMachine::open_on_disk(disk, config).unwrap();
        Stepped::new(machine, ApplyConfig::new()).unwrap()
    }

    fn put(index: u64, value: &[u8]) -> Entry<'_> {
        Entry::put(index, 1, b"key", value)
    }

    #[test]
    fn what_was_compared_before_a_truncation_is_compared_again() {
        let node = node();
        let entries = [put(1, b"a"), put(2, b"b")];
        assert_eq!(node.consensus().unwrap().append(&entries).unwrap().new, 2);
        let mut comparing = Comparing::new();
        let same = |comparing: &mut Comparing| {
            let desk = node.engine.pipeline().log_desk();
            comparing.known_same(desk, &desk.appending(), &entries)
        };
        for _ in 0..ATTEMPTS_MAX {
            comparing.compare(node.engine.pipeline().log_desk(), &entries);
            node.consensus().unwrap().truncate_after(Some(1)).unwrap();
            assert_eq!(node.consensus().unwrap().append(&[put(2, b"x")]).unwrap().new, 1);
            if comparing.attempts < ATTEMPTS_MAX {
                assert_eq!(same(&mut comparing).unwrap(), None);
            }
        }
        // The last attempt holds the appender.
        let conflict = same(&mut comparing).unwrap_err();
        assert!(matches!(conflict, SubmitError::Conflict { index: 2, .. }), "{conflict:?}");
    }

    #[test]
    fn a_difference_that_was_truncated_meanwhile_is_none() {
        let node = node();
        let entries = [put(1, b"a"), put(2, b"b")];
        assert_eq!(node.consensus().unwrap().append(&[put(1, b"a"), put(2, b"x")]).unwrap().new, 2);
        let mut comparing = Comparing::new();
        comparing.compare(node.engine.pipeline().log_desk(), &entries);
        node.consensus().unwrap().truncate_after(Some(1)).unwrap();
        let desk = node.engine.pipeline().log_desk();
        let appending = desk.appending();
        let known = entries.get(..1).unwrap_or_default();
        assert_eq!(comparing.known_same(desk, &appending, known).unwrap(), None);
    }
}
