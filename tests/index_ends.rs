//! Tests of the least and the greatest index: `u64::MAX` is no index, `u64::MAX - 1` is the last
//! one, and 0 may be the first.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use crate::common::machines::memory;
use crate::common::{LONG, Persistent, Scratch, apply_config, manage, open};
use sprag::error::{ApplyError, LogError, SubmitError, WaitError};
use sprag::{ApplyManager, CommitMode, Contiguity, Entry, LogId, Stage, StateMachine};

const LAST: u64 = u64::MAX - 1;
const BRIEF: Duration = Duration::from_millis(5);
const STAGES: [Stage; 4] = [Stage::Written, Stage::Durable, Stage::Applied, Stage::Acknowledged];

fn put(index: u64) -> Entry<'static> {
    Entry::put(index, 1, b"key", b"value")
}

/// Checks that no wait for `u64::MAX` succeeds, whatever is applied.
fn waits_end_at_the_last_index<M: StateMachine>(manager: &ApplyManager<M>, stages: &[Stage]) {
    let mut future = manager.acknowledged(u64::MAX);
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut future).poll(&mut context).is_pending());
    for stage in stages {
        manager.wait_until(LAST, *stage, LONG).unwrap();
        let waited = manager.wait_until(u64::MAX, *stage, BRIEF);
        let reached = Some(LAST);
        assert!(
            matches!(waited, Err(WaitError::Timeout { index: u64::MAX, reached: r, .. }) if r == reached),
            "{stage:?}: {waited:?}"
        );
    }
    manager.wait_for_apply(LAST, LONG).unwrap();
    let waited = manager.wait_for_apply(u64::MAX, BRIEF);
    assert!(matches!(waited, Err(WaitError::Timeout { .. })), "{waited:?}");
    assert!(Pin::new(&mut future).poll(&mut context).is_pending());
}

fn monotone(scratch: &Scratch) -> Persistent {
    open(scratch.by_commit().contiguity(Contiguity::Monotone))
}

#[test]
fn a_log_goes_up_to_the_last_index_and_no_further() {
    let scratch = Scratch::new();
    let manager = monotone(&scratch);
    let _ = manager.consensus().unwrap().append(&[put(LAST - 1), put(LAST)]).unwrap();
    assert!(matches!(
        manager.consensus().unwrap().append(&[put(u64::MAX)]),
        Err(SubmitError::IndexExhausted)
    ));
    let refused = manager.consensus().unwrap().commit(u64::MAX);
    assert!(matches!(refused, Err(SubmitError::NotAppended { index: u64::MAX, .. })));
    let mut replies = Vec::new();
    let refused = manager.consensus().unwrap().apply_committed(LAST..=u64::MAX, LONG, &mut replies);
    assert!(matches!(refused, Err(ApplyError::Submit { .. })), "{refused:?}");
    manager.consensus().unwrap().apply_committed(LAST - 1..=LAST, LONG, &mut replies).unwrap();
    assert_eq!(replies.len(), 2);
    waits_end_at_the_last_index(&manager, &STAGES);
    assert_eq!(manager.log().unwrap().log_id(LAST).unwrap(), Some(LogId::new(LAST, 1)));
    assert_eq!(manager.log().unwrap().log_id(u64::MAX).unwrap(), None);
    assert_eq!(manager.log().unwrap().entries(LAST - 1..=LAST, 1000).unwrap().len(), 2);
    assert_eq!(
        manager.log().unwrap().entries(LAST..=LAST, 1000).unwrap().last(),
        Some(LogId::new(LAST, 1))
    );
    for range in [LAST..=u64::MAX, u64::MAX..=u64::MAX, 0..=LAST, 0..=u64::MAX] {
        let read = manager.log().unwrap().entries(range.clone(), 1000);
        assert!(matches!(read, Err(LogError::NotInLog { .. })), "{range:?}: {read:?}");
    }
    manager.consensus().unwrap().truncate_after(Some(u64::MAX)).unwrap();
    manager.consensus().unwrap().truncate_after(Some(LAST)).unwrap();
    for keep in [None, Some(0), Some(LAST - 1)] {
        let cut = manager.consensus().unwrap().truncate_after(keep);
        assert!(matches!(cut, Err(LogError::BelowCommitted { .. })), "{keep:?}: {cut:?}");
    }
    manager.snapshots().write().unwrap();
    assert_eq!(manager.snapshots().view().unwrap().log_id(), Some(LogId::new(LAST, 1)));
    assert!(matches!(
        manager.log().unwrap().purge(u64::MAX),
        Err(LogError::NotCovered { index: u64::MAX })
    ));
    manager.log().unwrap().purge(LAST).unwrap();
    manager.snapshots().compact().unwrap();
    let refused = manager.consensus().unwrap().apply_only(&[put(u64::MAX)], LONG, &mut replies);
    assert!(refused.is_err(), "{refused:?}");
    let stats = manager.stats();
    assert_eq!((stats.applied, stats.snapshot, stats.pending_count), (Some(LAST), Some(LAST), 0));
    manager.close(LONG).unwrap();
    let manager = monotone(&scratch);
    assert_eq!(manager.stats().applied, Some(LAST));
    waits_end_at_the_last_index(&manager, &STAGES);
    assert!(matches!(
        manager.consensus().unwrap().append(&[put(u64::MAX)]),
        Err(SubmitError::IndexExhausted)
    ));
}

#[test]
fn a_state_jumps_to_the_last_index_by_a_snapshot_and_by_records() {
    let from = Scratch::new();
    let manager = monotone(&from);
    let _ = manager.consensus().unwrap().append(&[put(LAST)]).unwrap();
    manager.consensus().unwrap().commit(LAST).unwrap();
    manager.wait_for_apply(LAST, LONG).unwrap();
    manager.snapshots().write().unwrap();
    let snapshot = manager.snapshots().newest().unwrap().unwrap();
    let installed = Scratch::new();
    let into = open(installed.by_commit());
    into.snapshots().restore(&snapshot, LONG).unwrap();
    waits_end_at_the_last_index(&into, &STAGES);
    assert!(matches!(
        into.consensus().unwrap().append(&[put(u64::MAX)]),
        Err(SubmitError::IndexExhausted)
    ));
    let memory = manage(memory(), apply_config(1));
    memory.snapshots().restore(&snapshot, LONG).unwrap();
    waits_end_at_the_last_index(&memory, &[Stage::Applied, Stage::Acknowledged]);
    let refused = memory.apply(&put(u64::MAX), LONG);
    assert!(matches!(refused, Err(ApplyError::Submit { source: SubmitError::IndexExhausted, .. })));
    let records = Scratch::new();
    let by_records = monotone(&records);
    by_records.consensus().unwrap().apply_only(&[put(LAST)], LONG, &mut Vec::new()).unwrap();
    waits_end_at_the_last_index(&by_records, &STAGES);
    by_records.close(LONG).unwrap();
    assert_eq!(monotone(&records).stats().applied, Some(LAST));
}

#[test]
fn a_log_that_begins_at_zero_counts_zero_as_an_index() {
    let scratch = Scratch::new();
    let manager = open(scratch.config().commit_mode(CommitMode::ByCommit));
    assert!(matches!(
        manager.wait_for_apply(0, BRIEF),
        Err(WaitError::Timeout { reached: None, .. })
    ));
    let _ = manager.consensus().unwrap().append(&[put(0)]).unwrap();
    manager.consensus().unwrap().truncate_after(None).unwrap();
    assert_eq!(manager.log().unwrap().state().unwrap().last, None);
    let _ = manager.consensus().unwrap().append(&[put(0), put(1)]).unwrap();
    manager.consensus().unwrap().truncate_after(Some(0)).unwrap();
    assert_eq!(manager.log().unwrap().entries(0..=0, 100).unwrap().last(), Some(LogId::new(0, 1)));
    manager.consensus().unwrap().commit(0).unwrap();
    for stage in STAGES {
        manager.wait_until(0, stage, LONG).unwrap();
        assert!(manager.wait_until(1, stage, BRIEF).is_err());
    }
    manager.snapshots().write().unwrap();
    manager.log().unwrap().purge(0).unwrap();
    let stats = manager.stats();
    assert_eq!((stats.applied, stats.snapshot, stats.total_applied), (Some(0), Some(0), 1));
    manager.close(LONG).unwrap();
    assert_eq!(open(scratch.by_commit()).stats().applied, Some(0));
}
