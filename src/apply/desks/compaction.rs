//! Automatic compaction: runs when the log has become so long that a snapshot pays.

use std::time::{Duration, Instant};

use crate::apply::engine::Engine;
use crate::config::CompactionPolicy;
use crate::contract::machine::StateMachine;
use crate::error::{Poison, SnapshotError};
use crate::hook::Hook;
use crate::numbers::Mark;
use crate::sync::{Mutex, Rank, tell};
use crate::threads::Step;

/// Pause after the first failure; each further failure doubles it.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// Time between two looks whether a compaction is due.
pub(in crate::apply) const LOOK: Duration = Duration::from_secs(1);

/// Figures of compactions so far.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionStats {
    /// Number of compactions that succeeded, including those by a call.
    pub done: u64,
    /// Number of compactions that failed.
    pub failed: u64,
    /// Number of these that failed because the disk (or a quota) was full.
    pub failed_disk_full: u64,
    /// Error of the last failure, if no compaction has succeeded since.
    pub last_error: Option<String>,
}

/// State that is kept between compactions.
#[derive(Debug)]
pub(crate) struct Compaction(Mutex<State>);

#[derive(Debug)]
struct State {
    stats: CompactionStats,
    /// Time of the last compaction, or of the start.
    last: Instant,
    /// Earliest time of the next attempt after a failure, and the pause.
    not_before: Option<(Instant, Duration)>,
    /// Whether the machine has no snapshots.
    never: bool,
}

impl Compaction {
    pub(crate) fn new() -> Self {
        let last = Instant::now();
        let stats = CompactionStats::default();
        Self(Mutex::new(
            Rank::CompactionState,
            State { stats, last, not_before: None, never: false },
        ))
    }

    fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.0.lock())
    }

    pub(crate) fn stats(&self) -> CompactionStats {
        self.with(|state| state.stats.clone())
    }

    /// Records the end of a compaction.
    pub(crate) fn note<T>(&self, result: &Result<T, SnapshotError>) {
        self.with(|state| match result {
            Ok(_) => {
                state.stats.done += 1;
                state.stats.last_error = None;
                state.last = Instant::now();
                state.not_before = None;
            }
            Err(error) => {
                state.stats.failed += 1;
                state.stats.failed_disk_full += u64::from(error.is_disk_full());
                state.stats.last_error = Some(error.to_string());
                state.never |= matches!(error, SnapshotError::Unsupported { .. });
                let wait =
                    state.not_before.map_or(BACKOFF, |(_, wait)| (2 * wait).min(BACKOFF_MAX));
                state.not_before = Some((Instant::now() + wait, wait));
            }
        });
    }

    /// Whether the last compaction failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.with(|state| state.not_before.is_some())
    }

    /// Whether a failed compaction is to be tried again.
    fn is_to_try_again(&self) -> bool {
        self.with(|state| !state.never && state.not_before.is_some())
    }

    /// Time since the last compaction; `None` if none is to be tried now.
    fn since_last(&self) -> Option<Duration> {
        self.with(|state| {
            let held_back = state.not_before.is_some_and(|(until, _)| Instant::now() < until);
            (!state.never && !held_back).then(|| state.last.elapsed())
        })
    }
}

impl<M: StateMachine> Engine<M> {
    /// Whether the policy requires a compaction now.
    pub(crate) fn compaction_is_due(&self) -> bool {
        let Some(log) = self.pipeline().log_desk().log() else { return false };
        let Some(policy) = log.compaction_policy() else { return false };
        if self.pipeline().progress().poison.get().is_some() {
            return false;
        }
        let Some(since_last) = self.snapshots().compaction().since_last() else { return false };
        let applied = self.pipeline().progress().applied_mark();
        let free = log.free_below(applied, self.pipeline().progress().submitted_mark());
        let sealed_bytes = log.sealed_bytes_below(free);
        // Compacting a machine over a storage writes no snapshot.
        let (snapshot, snapshot_bytes) = match self.pipeline().machine().staging(Hook::ENGINE) {
            Some(_) => (Mark::of(log.base().last.map(|last| last.index)), 0),
            None => (self.snapshots().newest_mark(), self.snapshots().newest_bytes()),
        };
        let entries = applied.since(snapshot.max(self.pipeline().progress().base()));
        policy.is_due(&Facts { sealed_bytes, snapshot_bytes, entries, since_last })
    }

    /// Time after which a role of a host looks again whether a compaction is due; `None`: once the
    /// log has grown. `seen` is the applied mark of its last look.
    pub(in crate::apply) fn next_look(&self, seen: Mark) -> Option<Duration> {
        let policy = self.pipeline().log_desk().log()?.compaction_policy()?;
        if self.pipeline().has_failed() {
            return None;
        }
        let desk = self.snapshots().compaction();
        if desk.is_to_try_again() || self.pipeline().progress().applied_mark() != seen {
            return Some(LOOK);
        }
        // No time is left after the interval; then nothing is due until a segment is full.
        let left = policy.interval?.saturating_sub(desk.since_last()?);
        (!left.is_zero()).then(|| left.max(LOOK))
    }

    /// Takes one step of filling the store from the snapshot it was opened from: one chunk. A
    /// damaged chunk ends the engine, because its keys are nowhere else.
    pub(crate) fn step_fill(&self) -> Step {
        let Some(views) = self.pipeline().machine().views(Hook::ENGINE) else { return Step::Idle };
        if self.pipeline().progress().poison.get().is_some() {
            return Step::Idle;
        }
        match views.fill_some() {
            Ok(true) => Step::Worked,
            Ok(false) => Step::Idle,
            Err(error) => {
                self.pipeline().signals().fail(Poison::Snapshot { message: error.to_string() });
                Step::Idle
            }
        }
    }

    /// Takes one step of compaction: a whole compaction, if one is due. It waits for the log and
    /// the workers; a failure concerns only this compaction.
    pub(crate) fn step_compaction(&self) -> Step {
        if !self.compaction_is_due() {
            return Step::Idle;
        }
        let turn = self.snapshots().turn();
        // Another thread's compaction may have run during the wait.
        if !self.compaction_is_due() {
            return Step::Worked;
        }
        let compacted = self.snapshot_work().compact_in(&turn);
        drop(turn);
        match compacted {
            Ok(report) => tell(|| tracing::debug!(?report, "compacted")),
            Err(error) => {
                tell(|| tracing::warn!(%error, "compaction failed; the log stays as it is"))
            }
        }
        Step::Worked
    }
}

/// The facts that a policy is applied to.
#[derive(Clone, Copy, Debug)]
struct Facts {
    sealed_bytes: u64,
    snapshot_bytes: u64,
    entries: u64,
    since_last: Duration,
}

impl CompactionPolicy {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a ratio of lengths"
    )]
    fn is_due(&self, facts: &Facts) -> bool {
        // Only whole segments are given up, so nothing would be gained without a sealed one.
        if facts.entries == 0 || facts.sealed_bytes == 0 {
            return false;
        }
        let garbage = (facts.snapshot_bytes as f64 * self.garbage_ratio) as u64;
        facts.sealed_bytes >= garbage.max(self.log_bytes)
            || self.entries.is_some_and(|most| facts.entries >= most)
            || self.interval.is_some_and(|longest| facts.since_last >= longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Facts =
        Facts { sealed_bytes: 0, snapshot_bytes: 0, entries: 0, since_last: Duration::ZERO };

    #[test]
    fn each_condition_of_a_policy_is_enough_and_none_without_something_to_give_up() {
        let policy = CompactionPolicy::new().log_bytes(100).garbage_ratio(2.0);
        let facts = Facts { sealed_bytes: 100, entries: 1, ..NOTHING };
        assert!(policy.is_due(&facts));
        assert!(!policy.is_due(&Facts { sealed_bytes: 99, ..facts }));
        assert!(!policy.is_due(&Facts { snapshot_bytes: 51, ..facts }));
        assert!(policy.is_due(&Facts { snapshot_bytes: 50, ..facts }));
        assert!(!policy.is_due(&Facts { entries: 0, ..facts }));
        let few = Facts { sealed_bytes: 1, entries: 7, ..NOTHING };
        assert!(policy.entries(7).is_due(&few) && !policy.entries(8).is_due(&few));
        let late = Facts { since_last: Duration::from_secs(5), ..few };
        assert!(policy.interval(Duration::from_secs(5)).is_due(&late));
        assert!(!policy.interval(Duration::from_secs(6)).is_due(&late));
        let all = policy.entries(0).interval(Duration::ZERO);
        assert!(!all.is_due(&Facts { sealed_bytes: 0, ..late }));
    }

    #[test]
    fn after_a_failure_the_next_try_waits_and_a_machine_without_snapshots_is_asked_once() {
        let compaction = Compaction::new();
        assert!(compaction.since_last().is_some());
        compaction.note::<()>(&Err(SnapshotError::Closed));
        assert!(compaction.since_last().is_none());
        assert_eq!(compaction.stats().failed, 1);
        assert!(compaction.stats().last_error.is_some());
        compaction.note(&Ok(()));
        assert!(compaction.since_last().is_some());
        assert_eq!(compaction.stats().last_error, None);
        compaction.note::<()>(&Err(SnapshotError::Unsupported { what: "snapshots" }));
        compaction.note(&Ok(()));
        assert!(compaction.since_last().is_none());
    }
}
