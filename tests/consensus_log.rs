//! Tests of a consensus engine's log: append, commit, truncate, read back, vote, and what a restart
//! keeps.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::thread;

use crate::common::generate;
use crate::common::machines::{compare, memory};
use crate::common::model::Model;
use crate::common::ops::{Logged, Op, log_of, op_of, with_entries};
use crate::common::{
    LONG, Persistent, Scratch, Watch, apply_config, block_on, eventually, manage, open, within,
};
use proptest::collection::vec;
use proptest::prelude::*;
use sprag::error::{ApplyError, LogError, SubmitError, WaitError};
use sprag::{CommitMode, Entry, LogId, Stage, StateMachine};

fn append(manager: &Persistent, log: &[Logged]) -> Result<(), SubmitError> {
    with_entries(log, |entries| manager.consensus().unwrap().append(entries)).map(|_taken| ())
}

/// Appends in parts, and waits while the log is full.
fn append_all(manager: &Persistent, log: &[Logged]) {
    for part in log.chunks(4) {
        let taken = eventually(LONG, || match append(manager, part) {
            Ok(()) => true,
            Err(SubmitError::Full { .. }) => false,
            Err(error) => panic!("{error}"),
        });
        assert!(taken, "the log stays full");
    }
}

fn puts(first: u64, term: u64, count: u64, byte: u8, value_bytes: usize) -> Vec<Logged> {
    let put = |index: u64| Op::put((index % 10).to_be_bytes(), vec![byte; value_bytes]);
    log_of(first, term, (first..first + count).map(put))
}

fn last(manager: &Persistent) -> Option<u64> {
    manager.log().unwrap().state().unwrap().last.map(|last| last.index)
}

/// Reads all entries of a range, in any number of calls.
fn read_back(manager: &Persistent, first: u64, last: u64, bytes_max: usize) -> Vec<Logged> {
    let mut found: Vec<Logged> = Vec::new();
    while (found.len() as u64) < last + 1 - first {
        let from = first + found.len() as u64;
        let entries = manager.log().unwrap().entries(from..=last, bytes_max).unwrap();
        assert!(!entries.is_empty(), "no progress at {from}");
        found.extend(entries.iter().map(|(log_id, payload)| (log_id, op_of(&payload))));
    }
    found
}

// ---- Tests against a model ----

#[derive(Clone, Debug)]
enum Action {
    Append(Vec<Op>),
    /// Commits this share of the uncommitted entries, in sixteenths.
    Commit(u64),
    /// Removes this share of the uncommitted entries; the flag raises the term.
    Truncate(u64, bool),
    /// Replaces the uncommitted entries by the same ones.
    Again,
    Vote(Vec<u8>),
    Reopen(bool),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => vec(generate::op(), 1..24).prop_map(Action::Append),
        4 => (1..=16_u64).prop_map(Action::Commit),
        3 => (1..=16_u64, any::<bool>()).prop_map(|(share, rise)| Action::Truncate(share, rise)),
        1 => Just(Action::Again),
        1 => vec(any::<u8>(), 0..600).prop_map(Action::Vote),
        2 => any::<bool>().prop_map(Action::Reopen),
    ]
}

/// The expected content of a log under consensus.
#[derive(Debug)]
struct Expected {
    first: u64,
    log: Vec<Logged>,
    committed: usize,
    term: u64,
    vote: Option<Vec<u8>>,
}

impl Expected {
    fn share(&self, sixteenths: u64) -> usize {
        let open = self.log.len() - self.committed;
        (open * usize::try_from(sixteenths).unwrap()).div_ceil(16)
    }

    fn index(&self, count: usize) -> Option<u64> {
        count.checked_sub(1).map(|at| self.first + at as u64)
    }

    fn check(&self, manager: &Persistent) {
        let state = manager.log().unwrap().state().unwrap();
        assert_eq!(state.last, self.log.last().map(|(log_id, _)| *log_id));
        assert_eq!(state.first, self.log.first().map(|(log_id, _)| log_id.index));
        assert_eq!(state.committed, self.index(self.committed));
        assert_eq!(manager.log().unwrap().hard_state().unwrap(), self.vote);
        if let Some(committed) = self.index(self.committed) {
            manager.wait_until(committed, Stage::Applied, LONG).unwrap();
        }
        assert_eq!(manager.stats().applied, self.index(self.committed), "only what is committed");
        compare(manager.machine(), &Model::after(&self.log[..self.committed])).unwrap();
        for (log_id, _) in &self.log {
            assert_eq!(manager.log().unwrap().log_id(log_id.index).unwrap(), Some(*log_id));
        }
        let past = self.first + self.log.len() as u64;
        assert_eq!(manager.log().unwrap().log_id(past).unwrap(), None);
        if let Some(last) = self.index(self.log.len()) {
            let found = read_back(manager, self.first, last, 5000);
            assert_eq!(found, self.log, "the log reads back");
        }
    }

    fn perform(&mut self, action: &Action, manager: Persistent, scratch: &Scratch) -> Persistent {
        match action {
            Action::Append(ops) => {
                let next = self.first + self.log.len() as u64;
                let new = log_of(next, self.term, ops.iter().cloned());
                append_all(&manager, &new);
                self.log.extend(new);
            }
            Action::Commit(share) => {
                self.committed += self.share(*share);
                if let Some(index) = self.index(self.committed) {
                    manager.consensus().unwrap().commit(index).unwrap();
                }
            }
            Action::Truncate(share, rise) => {
                self.log.truncate(self.log.len() - self.share(*share));
                manager.consensus().unwrap().truncate_after(self.index(self.log.len())).unwrap();
                self.term += u64::from(*rise);
            }
            Action::Again => {
                let again = self.log.split_off(self.committed);
                manager.consensus().unwrap().truncate_after(self.index(self.committed)).unwrap();
                append_all(&manager, &again);
                self.log.extend(again);
            }
            Action::Vote(vote) => {
                manager.log().unwrap().save_hard_state(vote).unwrap();
                self.vote = Some(vote.clone());
            }
            Action::Reopen(close) => {
                if *close {
                    manager.close(LONG).unwrap()
                } else {
                    drop(manager)
                }
                return open(config(scratch));
            }
        }
        manager
    }
}

fn config(scratch: &Scratch) -> sprag::PersistentConfig {
    scratch.by_commit().segment_bytes(1 << 20).batch_size(7)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 32,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_log_under_consensus_holds_what_was_appended_and_applies_what_was_committed(
        first in 0..2_u64,
        actions in vec(action(), 1..16),
    ) {
        let scratch = Scratch::new();
        let mut manager = open(config(&scratch));
        let mut expected = Expected { first, log: vec![], committed: 0, term: 1, vote: None };
        for action in &actions {
            manager = expected.perform(action, manager, &scratch);
            expected.check(&manager);
        }
        manager.close(LONG).unwrap();
        expected.check(&open(config(&scratch)));
    }
}

// ---- Named cases ----

/// Proves DUR-7.
#[test]
fn an_uncommitted_tail_is_kept_and_not_applied_when_the_directory_is_opened_again() {
    for close in [true, false] {
        let scratch = Scratch::new();
        let manager = open(scratch.by_commit());
        let log = log_of(1, 1, (0..10).map(|_| Op::increment("c", 1)));
        append(&manager, &log).unwrap();
        manager.consensus().unwrap().commit(6).unwrap();
        manager.wait_for_apply(6, LONG).unwrap();
        if close {
            manager.close(LONG).unwrap();
        } else {
            drop(manager);
        }
        let manager = open(scratch.by_commit());
        let state = manager.log().unwrap().state().unwrap();
        assert_eq!((state.last, state.committed), (Some(LogId::new(10, 1)), Some(6)));
        let stats = manager.stats();
        assert_eq!((stats.applied, stats.acknowledged), (Some(6), Some(6)));
        assert_eq!(manager.machine().get(b"c").unwrap().as_deref(), Some(&b"6"[..]));
        manager.consensus().unwrap().commit(8).unwrap();
        manager.wait_for_apply(8, LONG).unwrap();
        assert_eq!(manager.machine().get(b"c").unwrap().as_deref(), Some(&b"8"[..]));
        manager.consensus().unwrap().truncate_after(Some(8)).unwrap();
        append(&manager, &log_of(9, 2, [Op::increment("c", 100)])).unwrap();
        manager.consensus().unwrap().commit(9).unwrap();
        manager.wait_for_apply(9, LONG).unwrap();
        drop(manager);
        let manager = open(scratch.by_commit());
        assert_eq!(manager.machine().get(b"c").unwrap().as_deref(), Some(&b"108"[..]));
    }
}

/// Proves DUR-7.
#[test]
fn a_crash_never_applies_more_than_was_committed() {
    let scratch = Scratch::new();
    let manager = open(scratch.by_commit());
    append(&manager, &log_of(1, 1, (0..20).map(|_| Op::increment("c", 1)))).unwrap();
    manager.wait_until(20, Stage::Durable, LONG).unwrap();
    for committed in [None, Some(3), Some(4), Some(11)] {
        if let Some(index) = committed {
            manager.consensus().unwrap().commit(index).unwrap();
            manager.wait_for_apply(index, LONG).unwrap();
        }
        let image = scratch.crash_image();
        let again = open(image.by_commit());
        let state = again.log().unwrap().state().unwrap();
        assert_eq!(state.last.map(|last| last.index), Some(20), "what was durable is there");
        assert!(again.stats().applied <= committed, "{:?} of {committed:?}", again.stats().applied);
        // The engine commits again, and reaches its earlier position.
        again.consensus().unwrap().commit(committed.unwrap_or(0).max(1)).unwrap();
        again.wait_for_apply(committed.unwrap_or(1), LONG).unwrap();
        let counter = again.machine().get(b"c").unwrap().unwrap();
        assert_eq!(counter, committed.unwrap_or(1).to_string().as_bytes());
    }
}

/// Proves ORD-15.
#[test]
fn who_waits_for_a_truncated_entry_is_told_and_not_satisfied_by_its_replacement() {
    let scratch = Scratch::new();
    let manager = Arc::new(open(scratch.by_commit()));
    append(&manager, &puts(1, 1, 10, 1, 10)).unwrap();
    manager.consensus().unwrap().commit(4).unwrap();
    let waiters: Vec<_> = (1..=10_u64)
        .map(|index| {
            let manager = Arc::clone(&manager);
            let future = manager.acknowledged(index);
            let watches = [Watch::default(), Watch::default()];
            let [first, second] = watches.clone();
            let thread = thread::spawn(move || {
                first.here();
                manager.wait_for_apply(index, LONG)
            });
            let task = thread::spawn(move || {
                second.here();
                block_on(future)
            });
            watches.iter().for_each(Watch::until_asleep);
            (index, thread, task)
        })
        .collect();
    manager.consensus().unwrap().truncate_after(Some(6)).unwrap();
    // The replacements are committed, applied and durable at once.
    append(&manager, &puts(7, 2, 4, 2, 10)).unwrap();
    manager.consensus().unwrap().commit(10).unwrap();
    for (index, thread, future) in waiters {
        for outcome in [
            within(LONG, "a waiter", move || thread.join().unwrap()),
            within(LONG, "a future", move || future.join().unwrap()),
        ] {
            match outcome {
                Ok(()) => assert!(index <= 6, "index {index} was truncated"),
                Err(WaitError::Truncated { index: named }) => {
                    assert!(index > 6 && named == index, "index {index} was kept");
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    // A later wait is for the replacement.
    manager.wait_for_apply(10, LONG).unwrap();
    assert_eq!(manager.log().unwrap().log_id(10).unwrap(), Some(LogId::new(10, 2)));
}

#[test]
fn what_replaces_truncated_entries_wins_after_reopening() {
    let scratch = Scratch::new();
    let manager = open(scratch.by_commit());
    append(&manager, &puts(1, 1, 30, 1, 100)).unwrap();
    manager.wait_until(30, Stage::Durable, LONG).unwrap();
    manager.consensus().unwrap().truncate_after(Some(10)).unwrap();
    assert_eq!(last(&manager), Some(10));
    let replaced = puts(11, 2, 5, 2, 100);
    append(&manager, &replaced).unwrap();
    manager.consensus().unwrap().truncate_after(Some(12)).unwrap();
    append(&manager, &puts(13, 3, 2, 3, 100)).unwrap();
    manager.wait_until(14, Stage::Durable, LONG).unwrap();
    let mut expected = puts(1, 1, 10, 1, 100);
    expected.extend_from_slice(&replaced[..2]);
    expected.extend(puts(13, 3, 2, 3, 100));
    let image = scratch.crash_image();
    drop(manager);
    for scratch in [scratch, image] {
        let manager = open(scratch.by_commit());
        assert_eq!(last(&manager), Some(14));
        assert_eq!(read_back(&manager, 1, 14, 1 << 20), expected);
        manager.consensus().unwrap().commit(14).unwrap();
        manager.wait_for_apply(14, LONG).unwrap();
        compare(manager.machine(), &Model::after(&expected)).unwrap();
    }
}

/// Proves ORD-7.
#[test]
fn all_of_an_uncommitted_log_can_be_truncated() {
    for first in [0, 1] {
        let scratch = Scratch::new();
        let manager = open(scratch.by_commit());
        append(&manager, &puts(first, 1, 5, 1, 10)).unwrap();
        manager.consensus().unwrap().truncate_after(None).unwrap();
        let state = manager.log().unwrap().state().unwrap();
        assert_eq!((state.last, state.committed), (None, None));
        drop(manager);
        let manager = open(scratch.by_commit());
        assert_eq!(last(&manager), None);
        append(&manager, &puts(first, 2, 3, 2, 10)).unwrap();
        manager.consensus().unwrap().commit(first + 2).unwrap();
        manager.wait_for_apply(first + 2, LONG).unwrap();
    }
}

/// Proves ORD-7.
#[test]
fn committed_entries_are_never_truncated() {
    let scratch = Scratch::new();
    let manager = open(scratch.by_commit());
    append(&manager, &puts(1, 1, 10, 1, 10)).unwrap();
    manager.consensus().unwrap().commit(6).unwrap();
    for keep in [None, Some(0), Some(1), Some(5)] {
        match manager.consensus().unwrap().truncate_after(keep) {
            Err(LogError::BelowCommitted { asked, committed: 6 }) => assert_eq!(asked, keep),
            outcome => panic!("{keep:?}: {outcome:?}"),
        }
    }
    manager.consensus().unwrap().truncate_after(Some(10)).unwrap();
    manager.consensus().unwrap().truncate_after(Some(100)).unwrap();
    assert_eq!(last(&manager), Some(10), "nothing above to truncate");
    manager.consensus().unwrap().truncate_after(Some(6)).unwrap();
    assert_eq!(last(&manager), Some(6));
}

#[test]
fn a_log_full_of_uncommitted_entries_and_held_values_still_truncates_and_votes() {
    let scratch = Scratch::new();
    let manager = Arc::new(open(scratch.by_commit()));
    // Hold values of several segments during the whole test.
    let kept = puts(1, 1, 60, 1, 5000);
    append_all(&manager, &kept);
    manager.consensus().unwrap().commit(60).unwrap();
    manager.wait_for_apply(60, LONG).unwrap();
    let held: Vec<_> = (0..10_u64)
        .map(|key| manager.machine().get(&key.to_be_bytes()).unwrap().unwrap())
        .collect();
    // Append as fast as possible, until the log is full (or has a few MB).
    let mut next = 61;
    for _ in 0..1000 {
        match append(&manager, &puts(next, 1, 1, 2, 9000)) {
            Ok(()) => next += 1,
            Err(SubmitError::Full { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let voter = Arc::clone(&manager);
    within(LONG, "truncation and vote", move || {
        voter.consensus().unwrap().truncate_after(Some(70)).unwrap();
        voter.log().unwrap().save_hard_state(b"vote for 2").unwrap();
        voter.consensus().unwrap().truncate_after(Some(60)).unwrap();
        voter.log().unwrap().save_hard_state(b"vote for 3").unwrap();
    });
    assert_eq!(last(&manager), Some(60));
    append_all(&manager, &puts(61, 2, 20, 3, 9000));
    manager.consensus().unwrap().commit(80).unwrap();
    manager.wait_for_apply(80, LONG).unwrap();
    assert!(held.iter().all(|value| *value == vec![1; 5000][..]), "a held value changed");
    drop((held, manager));
    let manager = open(scratch.by_commit());
    assert_eq!(manager.log().unwrap().hard_state().unwrap().unwrap(), b"vote for 3");
    assert_eq!(last(&manager), Some(80));
    let mut log = kept;
    log.extend(puts(61, 2, 20, 3, 9000));
    assert_eq!(read_back(&manager, 1, 80, 30_000), log);
}

#[test]
fn truncating_again_and_again_does_not_use_the_log_up() {
    let scratch = Scratch::new();
    let manager = open(scratch.by_commit());
    append(&manager, &puts(1, 1, 1, 1, 10)).unwrap();
    for round in 0..3000 {
        let term = 2 + round;
        let truncated =
            eventually(LONG, || match manager.consensus().unwrap().truncate_after(Some(1)) {
                Ok(()) => true,
                Err(LogError::Full) => false,
                Err(error) => panic!("round {round}: {error}"),
            });
        assert!(truncated, "round {round}: the log stays full");
        append_all(&manager, &puts(2, term, 1, 1, 10));
    }
    drop(manager);
    let manager = open(scratch.by_commit());
    assert_eq!(manager.log().unwrap().state().unwrap().last, Some(LogId::new(2, 3001)));
}

#[test]
fn entries_read_back_exactly_across_segments() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    assert!(matches!(
        manager.log().unwrap().entries(1..=1, 100),
        Err(LogError::NotInLog { index: 1, .. })
    ));
    let ops = (1..=300_u64).map(|index| match index % 6 {
        0 => Op::Noop,
        1 => Op::Membership(vec![3; 20]),
        2 => Op::Opaque(vec![0xff; 300]),
        3 => Op::increment("counter", -5),
        4 => Op::put(index.to_be_bytes(), vec![index.to_le_bytes()[0]; 4000]),
        _ => Op::Batch {
            commands: vec![
                crate::common::ops::Cmd::put("a", "1"),
                crate::common::ops::Cmd::increment("a", 1),
            ],
            note: Some((b"n".to_vec(), vec![])),
        },
    });
    let log = log_of(1, 3, ops);
    with_entries(&log, |entries| {
        manager.apply_batch(entries.iter().copied(), LONG, |_, _| ()).unwrap();
    });
    assert!(crate::common::frames::segments(&scratch.path()).len() > 2);
    let check = |manager: &Persistent| {
        for bytes_max in [0, 1, 5000, 1 << 30] {
            assert_eq!(read_back(manager, 1, 300, bytes_max), log);
        }
        assert_eq!(read_back(manager, 77, 140, 9000), log[76..140]);
        assert_eq!(manager.log().unwrap().entries(5..=5, 0).unwrap().len(), 1, "at least one");
        let empty = std::ops::RangeInclusive::new(9, 8);
        assert!(manager.log().unwrap().entries(empty, 100).unwrap().is_empty());
        for range in [0..=5, 1..=301, 301..=301, 500..=600] {
            let outcome = manager.log().unwrap().entries(range, 100);
            let Err(LogError::NotInLog { first: Some(1), last: Some(300), .. }) = outcome else {
                panic!("{outcome:?}");
            };
        }
    };
    check(&manager);
    manager.close(LONG).unwrap();
    check(&scratch.open());
}

/// Proves DUR-8.
#[test]
fn the_hard_state_is_durable_and_whole() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    assert_eq!(manager.log().unwrap().hard_state().unwrap(), None);
    for state in [&b"one"[..], b"", &[7; 3584], b"two"] {
        manager.log().unwrap().save_hard_state(state).unwrap();
        assert_eq!(manager.log().unwrap().hard_state().unwrap().unwrap(), state);
        let image = scratch.crash_image();
        assert_eq!(
            image.open().log().unwrap().hard_state().unwrap().unwrap(),
            state,
            "after a crash"
        );
    }
    match manager.log().unwrap().save_hard_state(&[7; 3585]) {
        Err(LogError::HardStateTooLarge { bytes: 3585, limit: 3584 }) => {}
        outcome => panic!("{outcome:?}"),
    }
    assert_eq!(manager.log().unwrap().hard_state().unwrap().unwrap(), b"two");
    // A vote becomes durable after earlier appends.
    let _ = manager.apply_entries(&[Entry::noop(1, 1)]).unwrap();
    manager.log().unwrap().save_hard_state(b"three").unwrap();
    assert_eq!(manager.stats().durable, Some(1));
    drop(manager);
    assert_eq!(scratch.open().log().unwrap().hard_state().unwrap().unwrap(), b"three");
}

#[test]
fn purging_is_refused_until_a_snapshot_covers_it() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    manager.apply(&Entry::noop(1, 1), LONG).unwrap();
    assert!(matches!(manager.log().unwrap().purge(1), Err(LogError::NotCovered { index: 1 })));
    assert_eq!(manager.log().unwrap().state().unwrap().first, Some(1));
}

#[test]
fn the_calls_of_the_other_commit_mode_are_refused() {
    let entry = [Entry::noop(1, 1)];
    let scratch = Scratch::new();
    let on_append = scratch.open();
    // Once, at the facet; the calls on the log are there in both modes.
    assert!(matches!(on_append.consensus(), Err(LogError::CommitMode { .. })));
    assert_eq!(on_append.log().unwrap().options().commit_mode, CommitMode::OnAppend);
    on_append.apply(&entry[0], LONG).unwrap();

    let scratch = Scratch::new();
    let by_commit = open(scratch.by_commit());
    let submitted = by_commit.apply_entries(&entry);
    assert!(matches!(submitted, Err(SubmitError::CommitMode { .. })), "{submitted:?}");
    let said = submitted.unwrap_err().to_string();
    assert!(said.ends_with("use manager.consensus()?.append and commit"), "{said}");
    let apply = by_commit.apply(&entry[0], LONG);
    assert!(matches!(
        apply,
        Err(ApplyError::Submit { source: SubmitError::CommitMode { .. }, .. })
    ));
    let _ = by_commit.consensus().unwrap().append(&entry).unwrap();
    match by_commit.consensus().unwrap().commit(2) {
        Err(SubmitError::NotAppended { index: 2, last: Some(1) }) => {}
        outcome => panic!("{outcome:?}"),
    }
    by_commit.consensus().unwrap().commit(1).unwrap();
    by_commit.consensus().unwrap().commit(0).unwrap();
    assert_eq!(
        by_commit.log().unwrap().state().unwrap().committed,
        Some(1),
        "going back is ignored"
    );
}

#[test]
fn a_machine_without_a_log_says_so() {
    let manager = manage(memory(), apply_config(1));
    assert!(matches!(manager.log(), Err(LogError::NoLog)));
    assert!(matches!(manager.consensus(), Err(LogError::NoLog)));
    assert_eq!(manager.machine().applied(), None);
}

#[test]
fn more_frames_than_ever_wait_for_the_log_writer_are_too_many_and_not_full_for_ever() {
    let scratch = Scratch::new();
    let manager = open(scratch.by_commit().segment_bytes(16 << 20));
    // A frame has one term. 8,192 may wait, with one place for a truncation, and one for an open
    // frame.
    let entries: Vec<_> = (1..=8192).map(|index| Entry::noop(index, index)).collect();
    for (count, fits) in [(8191, false), (8192, false), (8190, true)] {
        match manager.consensus().unwrap().append(&entries[..count]) {
            Ok(_) => assert!(fits, "{count}"),
            Err(SubmitError::TooLarge { limit: 8190, .. }) => assert!(!fits, "{count}"),
            Err(error) => panic!("{count}: {error}"),
        }
    }
    manager.log().unwrap().sync(LONG).unwrap();
    assert_eq!(last(&manager), Some(8190));
}
