//! Tests of the log's futures, on an engine without threads.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::error::{SubmitError, WaitError};
use crate::testing::{SimDisk, Stepped};
use crate::{
    ApplyConfig, CommitMode, Durability, Entry, PersistentConfig, PersistentStateMachine, Reply,
};

type Node = Stepped<PersistentStateMachine>;

fn node(durability: Durability) -> Node {
    let config = PersistentConfig::new("simulated")
        .segment_bytes(64 << 10)
        .expected_keys(16)
        .commit_mode(CommitMode::ByCommit)
        .durability(durability);
    let disk = SimDisk::new(3).open(true).unwrap();
    let machine = PersistentStateMachine::open_on_disk(disk, config).unwrap();
    Stepped::new(machine, ApplyConfig::new().worker_count(NonZeroUsize::MIN)).unwrap()
}

fn append(node: &Node, indexes: std::ops::RangeInclusive<u64>, term: u64) {
    let entries: Vec<_> = indexes.map(|index| Entry::put(index, term, b"key", b"value")).collect();
    let taken = node.consensus().unwrap().append(&entries).unwrap();
    assert_eq!(taken.new, entries.len() as u64);
}

#[derive(Default)]
struct Calls(AtomicUsize);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A future, polled by hand, and the number of its waker's calls.
struct Polled<F>(F, Arc<Calls>);

impl<T, F: Future<Output = Result<T, WaitError>> + Unpin> Polled<F> {
    fn new(future: F) -> Self {
        Self(future, Arc::default())
    }

    /// The outcome, if there is one; an error by what it says.
    fn poll(&mut self) -> Poll<Result<T, String>> {
        let waker = Waker::from(Arc::clone(&self.1));
        let polled = Pin::new(&mut self.0).poll(&mut Context::from_waker(&waker));
        polled.map_err(|error| error.to_string())
    }

    fn calls(&self) -> usize {
        self.1.0.load(Ordering::Relaxed)
    }
}

#[test]
fn a_task_learns_that_an_entry_is_durable_by_one_wake_after_its_sync() {
    for durability in [Durability::Sync, Durability::Os] {
        let node = node(durability);
        append(&node, 1..=3, 1);
        let mut future = Polled::new(node.log().unwrap().durable(2));
        assert!(future.poll().is_pending());
        assert_eq!((node.stats().durable, future.calls()), (None, 0));
        // Nothing is committed, so nothing is applied.
        node.run_until_idle();
        assert_eq!((node.stats().durable, node.stats().applied), (Some(3), None));
        assert_eq!(future.calls(), 1, "{durability:?}");
        assert_eq!(future.poll(), Poll::Ready(Ok(())));
        assert_eq!(Polled::new(node.log().unwrap().durable(3)).poll(), Poll::Ready(Ok(())));
    }
}

#[test]
fn a_task_learns_that_its_entry_was_truncated_before_it_was_durable() {
    let node = node(Durability::Sync);
    append(&node, 1..=3, 1);
    let mut future = Polled::new(node.log().unwrap().durable(3));
    assert!(future.poll().is_pending());
    node.consensus().unwrap().truncate_after(Some(2)).unwrap();
    append(&node, 3..=3, 2);
    node.run_until_idle();
    let truncated = WaitError::Truncated { index: 3 };
    assert_eq!(future.poll(), Poll::Ready(Err(truncated.to_string())));
}

#[test]
fn a_commit_gives_the_wanted_replies_when_the_workers_have_applied_them() {
    let node = node(Durability::Sync);
    append(&node, 1..=6, 1);
    let log = || node.consensus().unwrap();
    let mut first = Polled::new(log().commit_with_replies(1..=2, |_| true).unwrap());
    assert!(first.poll().is_pending());
    // A dropped future takes nothing with it.
    drop(log().commit_with_replies(3..=3, |_| true).unwrap());
    let mut later = Polled::new(log().commit_with_replies(2..=5, |index| index != 4).unwrap());
    assert!(later.poll().is_pending());
    while node.step_worker(0) {}
    assert_eq!((first.calls(), later.calls()), (1, 1));
    let (new, replaced) = (Reply::Put { replaced: false }, Reply::Put { replaced: true });
    assert_eq!(first.poll(), Poll::Ready(Ok(vec![new, replaced.clone()])));
    // Entries 2 and 3 were committed by the calls before.
    let known = Reply::AlreadyApplied;
    assert_eq!(later.poll(), Poll::Ready(Ok(vec![known.clone(), known, replaced])));
}

#[test]
fn a_commit_that_is_refused_leaves_nothing_that_a_later_one_meets() {
    let node = node(Durability::Sync);
    append(&node, 1..=2, 1);
    let log = || node.consensus().unwrap();
    for _ in 0..2 {
        let refused = log().commit_with_replies(1..=3, |_| true).unwrap_err();
        assert!(matches!(refused, SubmitError::NotAppended { index: 3, .. }), "{refused:?}");
    }
    append(&node, 3..=3, 1);
    let mut taken = Polled::new(log().commit_with_replies(1..=3, |index| index > 1).unwrap());
    while node.step_worker(0) {}
    let replaced = Reply::Put { replaced: true };
    assert_eq!(taken.poll(), Poll::Ready(Ok(vec![replaced.clone(), replaced])));
}
