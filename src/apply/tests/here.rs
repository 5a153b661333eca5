//! Tests of entries that the committing thread applies, and of groups of the log writer, on an
//! engine without threads.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::disk::Disk;
use crate::testing::{SimDisk, Stepped};
use crate::{
    ApplyConfig, CommitMode, CommittedReplies, Entry, Journaled, MemoryConfig, MemoryStateMachine,
    Payload, PersistentConfig, PersistentStateMachine, Reply, StateMachine,
};

fn disk() -> Arc<dyn Disk> {
    SimDisk::new(3).open(true).unwrap()
}

fn config() -> PersistentConfig {
    let config = PersistentConfig::new("simulated").segment_bytes(64 << 10).expected_keys(16);
    config.commit_mode(CommitMode::ByCommit)
}

fn workers(count: usize) -> ApplyConfig {
    ApplyConfig::new().worker_count(NonZeroUsize::new(count).unwrap())
}

/// The replies, if the future has them now.
fn now(mut future: CommittedReplies) -> Option<Vec<Reply>> {
    match Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(replies) => Some(replies.unwrap()),
        Poll::Pending => None,
    }
}

fn append<M: StateMachine>(node: &Stepped<M>, entries: &[Entry<'_>]) {
    let taken = node.consensus().unwrap().append(entries).unwrap();
    assert_eq!(taken.new, entries.len() as u64);
}

/// Appends puts and a membership, which all workers meet. Returns the replies of all that a commit
/// has at once.
fn commit<M: StateMachine>(node: &Stepped<M>) -> Option<Vec<Reply>> {
    let keys: Vec<[u8; 1]> = (1..=6).map(|key| [key]).collect();
    let mut entries: Vec<_> =
        (1..).zip(&keys).map(|(index, key)| Entry::put(index, 1, key, b"value")).collect();
    entries[3].payload = Payload::Membership(b"members");
    append(node, &entries);
    now(node.consensus().unwrap().commit_here(1..=6, |_| true).unwrap())
}

fn is_applied<M: StateMachine>(node: &Stepped<M>, replies: Option<Vec<Reply>>) {
    let put = Reply::Put { replaced: false };
    let wanted = [&put, &put, &put, &Reply::Applied, &put, &put].map(Clone::clone);
    assert_eq!(replies.as_deref(), Some(&wanted[..]));
    assert_eq!(node.stats().applied, Some(6));
    for id in 0..node.workers() {
        assert!(!node.step_worker(id), "nothing is left for worker {id}");
    }
}

#[test]
fn a_built_in_machine_is_applied_to_by_the_thread_that_commits() {
    for count in [1, 3] {
        let machine = PersistentStateMachine::open_on_disk(disk(), config()).unwrap();
        let node = Stepped::applying_inline(machine, workers(count)).unwrap();
        let replies = commit(&node);
        is_applied(&node, replies);
        let memory = MemoryStateMachine::new(MemoryConfig::new()).unwrap();
        let machine = Journaled::open_on_disk(disk(), config(), memory).unwrap();
        let node = Stepped::applying_inline(machine, workers(count)).unwrap();
        let replies = commit(&node);
        is_applied(&node, replies);
    }
}

/// A machine of an embedder: its code may take any time.
#[derive(Debug)]
struct Embedders;

impl StateMachine for Embedders {
    fn apply(
        &self,
        range: &crate::EntryRange<'_>,
        partition: crate::Partition,
        replies: &mut crate::Replies<'_>,
    ) -> Result<(), crate::error::Fatal> {
        for entry in range.entries(partition) {
            let entry = entry?;
            replies.set(&entry, Reply::Custom(entry.log_id.index));
        }
        Ok(())
    }
}

#[test]
fn the_workers_apply_where_the_embedder_says_so_or_runs_code() {
    let machine = PersistentStateMachine::open_on_disk(disk(), config()).unwrap();
    let node = Stepped::new(machine, workers(1)).unwrap();
    assert_eq!(commit(&node), None, "inline apply is off");
    assert!(node.step_worker(0));
    let machine = Journaled::open_on_disk(disk(), config(), Embedders).unwrap();
    let node = Stepped::applying_inline(machine, workers(1)).unwrap();
    assert_eq!(commit(&node), None);
    assert!(node.step_worker(0));
}

#[test]
fn entries_that_a_worker_has_before_are_left_to_the_workers() {
    let machine = PersistentStateMachine::open_on_disk(disk(), config()).unwrap();
    let node = Stepped::applying_inline(machine, workers(1)).unwrap();
    append(&node, &[Entry::noop(1, 1), Entry::noop(2, 1)]);
    node.consensus().unwrap().commit(1).unwrap();
    assert_eq!(now(node.consensus().unwrap().commit_here(2..=2, |_| true).unwrap()), None);
    while node.step_worker(0) {}
    assert_eq!(node.stats().applied, Some(2));
}

#[test]
fn a_group_takes_the_open_frame_with_those_that_are_closed() {
    let machine = PersistentStateMachine::open_on_disk(disk(), config()).unwrap();
    let node = Stepped::new(machine, workers(1)).unwrap();
    append(&node, &[Entry::noop(1, 1)]);
    node.run_until_idle();
    assert_eq!(node.stats().log_writer.groups, 1);
    // The idle log writer has asked for the next frame, and the entry after it opens another.
    append(&node, &[Entry::noop(2, 1)]);
    append(&node, &[Entry::noop(3, 1)]);
    assert!(node.step_log_writer());
    assert_eq!((node.stats().durable, node.stats().log_writer.groups), (Some(3), 2));
}
