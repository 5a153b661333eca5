//! Tests that openraft's suite leaves out. They cover entries with data and their replies,
//! reopening, power cuts, and snapshots under load. They also cover truncation of durable entries,
//! installing over a state, and an application with its own machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::common::{Data, KvStore, apply_config, small};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::log_id;
use openraft::{
    CommittedLeaderId, Entry, EntryPayload, LogId, Membership, RaftLogReader, RaftSnapshotBuilder,
    Vote, declare_raft_types,
};
use sprag::error::WaitError;
use sprag::testing::SimDisk;
use sprag::{
    EntryRange, Fatal, Journaled, Partition, PayloadRef, PersistentStateMachine, Replies, Reply,
    Stage, StateMachine,
};
use sprag_openraft_09::{Opaque, Reason, Request, Response, SnapshotFile, Store, decode};

type Kv = KvStore<PersistentStateMachine>;

fn open(disk: &SimDisk) -> Kv {
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), small());
    Store::new(machine.unwrap(), apply_config(2)).unwrap()
}

async fn close(store: Kv) {
    let closed = store.handle.closed();
    drop(store);
    closed.await;
}

fn entry(term: u64, index: u64, data: Request) -> Entry<Data> {
    Entry { log_id: log_id(term, 1, index), payload: EntryPayload::Normal(data) }
}

fn puts(term: u64, indexes: std::ops::Range<u64>, value: &str) -> Vec<Entry<Data>> {
    let put = |index| entry(term, index, Request::put(format!("k{}", index % 5), value));
    indexes.map(put).collect()
}

async fn append(store: &mut Kv, entries: Vec<Entry<Data>>) {
    store.log.blocking_append(entries).await.unwrap();
}

async fn apply(store: &mut Kv, entries: Vec<Entry<Data>>) -> Vec<Response> {
    store.state_machine.apply(entries).await.unwrap()
}

fn get(store: &Kv, key: &str) -> Option<Vec<u8>> {
    store.handle.machine().get(key.as_bytes()).unwrap().map(|value| value.to_vec())
}

async fn applied(store: &mut Kv) -> Option<LogId<u64>> {
    store.state_machine.applied_state().await.unwrap().0
}

#[tokio::test]
async fn every_command_has_its_reply_and_reads_back_from_the_log_as_it_was_given() {
    let disk = SimDisk::new(1);
    let mut store = open(&disk);
    let batch =
        Request::Batch { commands: vec![Request::put("a", "1"), Request::increment("n", 5)] };
    let swap = |expected: &str| Request::CompareAndSet {
        key: b"a".to_vec(),
        expected: Some(expected.into()),
        new: None,
    };
    let requests = [
        (batch, Response::Batch { commands: 2 }),
        (Request::increment("n", -7), Response::Counter(-2)),
        (Request::increment("a", 1), Response::Counter(2)),
        (Request::put("s", "x"), Response::Put { replaced: false }),
        (
            Request::increment("s", 1),
            Response::Rejected { reason: Reason::NotANumber, position: None },
        ),
        (swap("1"), Response::Rejected { reason: Reason::Mismatch, position: None }),
        (swap("2"), Response::Swapped),
        (Request::Delete { key: b"s".to_vec() }, Response::Deleted { existed: true }),
    ];
    let entries: Vec<_> = requests
        .iter()
        .zip(0..)
        .map(|((request, _), index)| entry(1, index, request.clone()))
        .collect();
    append(&mut store, entries.clone()).await;
    let replies = apply(&mut store, entries.clone()).await;
    assert_eq!(replies, requests.map(|(_, response)| response));
    assert_eq!(store.log.try_get_log_entries(..).await.unwrap(), entries);
    close(store).await;
    let mut store = open(&disk);
    assert_eq!(store.log.try_get_log_entries(2..5).await.unwrap(), entries[2..5]);
    assert_eq!(applied(&mut store).await, Some(log_id(1, 1, 7)));
}

#[tokio::test]
async fn vote_committed_purged_and_membership_are_there_after_a_restart_between_any_two_steps() {
    let disk = SimDisk::new(2);
    let mut store = open(&disk);
    let vote = Vote::new_committed(3, 7);
    store.log.save_vote(&vote).await.unwrap();
    let membership = Membership::new(vec![[1, 2, 3].into()], None);
    let mut entries = puts(3, 1..5, "x");
    entries.insert(
        0,
        Entry { log_id: log_id(3, 1, 0), payload: EntryPayload::Membership(membership.clone()) },
    );
    for step in 0..5 {
        match step {
            0 => append(&mut store, entries.clone()).await,
            1 => store.log.save_committed(Some(log_id(3, 1, 2))).await.unwrap(),
            2 => assert_eq!(apply(&mut store, entries[..3].to_vec()).await.len(), 3),
            3 => drop(
                store.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap(),
            ),
            _ => store.log.purge(log_id(3, 1, 1)).await.unwrap(),
        }
        close(store).await;
        store = open(&disk);
        assert_eq!(store.log.read_vote().await.unwrap(), Some(vote));
        let state = store.log.get_log_state().await.unwrap();
        assert_eq!(state.last_log_id, Some(log_id(3, 1, 4)));
        assert_eq!(state.last_purged_log_id.is_some(), step == 4);
        let (last, stored) = store.state_machine.applied_state().await.unwrap();
        assert_eq!(last, (step >= 2).then(|| log_id(3, 1, 2)), "step {step}");
        assert_eq!(store.log.read_committed().await.unwrap(), last);
        if step >= 2 {
            assert_eq!(
                (stored.log_id(), stored.membership()),
                (&Some(log_id(3, 1, 0)), &membership)
            );
        }
        let current = store.state_machine.get_current_snapshot().await.unwrap();
        assert_eq!(
            current.and_then(|current| current.meta.last_log_id),
            last.filter(|_| step >= 3)
        );
    }
}

#[tokio::test]
async fn a_power_cut_keeps_what_was_called_durable_and_applies_no_more_than_was_committed() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let mut store = open(&disk);
        append(&mut store, puts(1, 0..4, "a")).await;
        apply(&mut store, puts(1, 0..2, "a")).await;
        if seed % 2 == 0 {
            append(&mut store, puts(1, 4..6, "b")).await;
        }
        disk.power_cut_random();
        let last = if seed % 2 == 0 { 5 } else { 3 };
        close(store).await;
        let mut store = open(&disk);
        let state = store.log.get_log_state().await.unwrap();
        assert_eq!(state.last_log_id, Some(log_id(1, 1, last)), "appended and called durable");
        let had = applied(&mut store).await.map(|last| last.index);
        assert!(had <= Some(1), "{had:?}: no more than was committed");
        // Openraft applies again from there.
        let next = had.map_or(0, |last| last + 1);
        let entries = store.log.try_get_log_entries(next..=last).await.unwrap();
        apply(&mut store, entries).await;
        assert_eq!(applied(&mut store).await, Some(log_id(1, 1, last)));
    }
}

#[tokio::test]
async fn a_vote_and_a_purge_are_durable_when_they_return() {
    let disk = SimDisk::new(14);
    let mut store = open(&disk);
    append(&mut store, puts(1, 0..10, "x")).await;
    apply(&mut store, puts(1, 0..10, "x")).await;
    drop(store.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap());
    for step in 1..8 {
        let vote = Vote::new(step, 1);
        store.log.save_vote(&vote).await.unwrap();
        if step % 2 == 0 {
            store.log.purge(log_id(1, 1, step)).await.unwrap();
        }
        disk.power_cut_keeping(0);
        close(store).await;
        store = open(&disk);
        assert_eq!(store.log.read_vote().await.unwrap(), Some(vote));
        let purged = store.log.get_log_state().await.unwrap().last_purged_log_id;
        assert_eq!(purged.map(|purged| purged.index), (step >= 2).then_some(step / 2 * 2));
    }
}

#[tokio::test]
async fn an_uncommitted_tail_that_was_durable_gives_way_to_other_entries_of_its_indexes() {
    let disk = SimDisk::new(3);
    let mut store = open(&disk);
    append(&mut store, puts(1, 0..10, "old")).await;
    apply(&mut store, puts(1, 0..4, "old")).await;
    store.log.truncate(log_id(1, 1, 4)).await.unwrap();
    assert_eq!(store.log.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 1, 3)));
    let new: Vec<_> = puts(2, 4..8, "new");
    append(&mut store, new.clone()).await;
    disk.power_cut_keeping(0);
    close(store).await;
    let mut store = open(&disk);
    assert_eq!(store.log.try_get_log_entries(4..).await.unwrap(), new);
    apply(&mut store, new).await;
    assert_eq!(get(&store, "k4"), Some(b"new".to_vec()));
    assert_eq!(get(&store, "k3"), Some(b"old".to_vec()), "index 8 was taken back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_a_log_id_is_not_satisfied_by_another_leaders_entry_at_its_index() {
    let disk = SimDisk::new(14);
    let mut store = open(&disk);
    append(&mut store, puts(1, 0..6, "old")).await;
    let mine = store.handle.acknowledged_log_id(&log_id(1, 1, 4));
    let ahead = store.handle.acknowledged_log_id(&log_id(2, 1, 5));
    store.log.truncate(log_id(1, 1, 4)).await.unwrap();
    append(&mut store, puts(2, 4..6, "new")).await;
    let all = [puts(1, 0..4, "old"), puts(2, 4..6, "new")].concat();
    apply(&mut store, all).await;
    let lost = mine.await.unwrap_err();
    assert!(matches!(lost, WaitError::Replaced { index: 4, .. }), "{lost:?}");
    let wait = |log_id: LogId<u64>| {
        let (handle, limit) = (store.handle.clone(), std::time::Duration::from_secs(20));
        let wait = move || handle.wait_for_log_id(&log_id, Stage::Applied, limit);
        async { tokio::task::spawn_blocking(wait).await.unwrap() }
    };
    wait(log_id(2, 1, 5)).await.unwrap();
    // Another node's entry of the same term is another entry.
    let other = wait(log_id(2, 2, 5)).await;
    assert!(matches!(other, Err(WaitError::Replaced { index: 5, .. })), "{other:?}");
    let replaced = ahead.await;
    assert!(matches!(replaced, Err(WaitError::Replaced { index: 5, .. })), "{replaced:?}");
    store.handle.acknowledged_log_id(&log_id(2, 1, 4)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_of_the_entry_at_which_it_was_asked_for_however_late_it_is_built() {
    let disk = SimDisk::new(4);
    let mut store = open(&disk);
    for round in 0..20_u64 {
        let first = round * 50;
        let entries = puts(1, first..first + 50, &round.to_string());
        append(&mut store, entries.clone()).await;
        let (now, beside) = entries.split_at(25);
        apply(&mut store, now.to_vec()).await;
        let mut builder = store.state_machine.get_snapshot_builder().await;
        let building = tokio::spawn(async move { builder.build_snapshot().await });
        apply(&mut store, beside.to_vec()).await;
        let built = building.await.unwrap().unwrap();
        assert_eq!(built.meta.last_log_id, Some(log_id(1, 1, first + 24)));
    }
    // The snapshot was requested before more entries were applied, so it has none of them.
    let mut builder = store.state_machine.get_snapshot_builder().await;
    let entries = puts(1, 1000..1050, "later");
    append(&mut store, entries.clone()).await;
    apply(&mut store, entries).await;
    let built = builder.build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id, Some(log_id(1, 1, 999)));
    let snapshot = built.snapshot.snapshot().unwrap();
    assert_eq!(snapshot.get(b"k1").unwrap(), Some(&b"19"[..]));
    assert_eq!(get(&store, "k1"), Some(b"later".to_vec()));
}

#[tokio::test]
async fn a_snapshot_takes_the_place_of_a_state_and_the_log_goes_on_after_it() {
    let mut leader = open(&SimDisk::new(5));
    let all = puts(4, 0..300, "leader");
    append(&mut leader, all.clone()).await;
    apply(&mut leader, all).await;
    let built = leader.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap();

    let disk = SimDisk::new(6);
    let mut follower = open(&disk);
    append(&mut follower, puts(1, 0..20, "follower")).await;
    apply(&mut follower, puts(1, 0..10, "follower")).await;
    // As openraft does: a conflicting tail is truncated, the log may be purged first, and the bytes
    // come in chunks.
    follower.log.truncate(log_id(1, 1, 10)).await.unwrap();
    follower.log.purge(log_id(4, 1, 299)).await.unwrap();
    let mut given_up = follower.state_machine.begin_receiving_snapshot().await.unwrap();
    copy(&built.snapshot, &mut given_up, 100).await.unwrap_err();
    let mut arriving = follower.state_machine.begin_receiving_snapshot().await.unwrap();
    copy(&built.snapshot, &mut arriving, u64::MAX).await.unwrap();
    follower.state_machine.install_snapshot(&built.meta, arriving).await.unwrap();
    assert_eq!(applied(&mut follower).await, Some(log_id(4, 1, 299)));
    let state = follower.log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(4, 1, 299)));
    assert_eq!(state.last_log_id, Some(log_id(4, 1, 299)));
    append(&mut follower, puts(4, 300..305, "after")).await;
    apply(&mut follower, puts(4, 300..305, "after")).await;
    disk.power_cut_keeping(0);
    close(follower).await;
    let mut follower = open(&disk);
    assert_eq!(applied(&mut follower).await.map(|last| last.index >= 299), Some(true));
    assert_eq!(follower.log.try_get_log_entries(..).await.unwrap(), puts(4, 300..305, "after"));
    let current = follower.state_machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta, built.meta);
}

#[tokio::test]
async fn a_purge_past_the_log_s_end_is_forgotten_with_the_snapshot_that_was_never_installed() {
    for vote_follows in [false, true] {
        let disk = SimDisk::new(10);
        let mut follower = open(&disk);
        let had = puts(1, 0..20, "follower");
        append(&mut follower, had.clone()).await;
        apply(&mut follower, had[..10].to_vec()).await;
        follower.log.purge(log_id(4, 1, 299)).await.unwrap();
        let state = follower.log.get_log_state().await.unwrap();
        assert_eq!(state.last_log_id, Some(log_id(4, 1, 299)), "as openraft has it");
        if vote_follows {
            // The hard state is written, and does not contain it.
            follower.log.save_vote(&Vote::new(5, 2)).await.unwrap();
        }
        disk.power_cut_keeping(0);
        close(follower).await;
        let mut follower = open(&disk);
        let state = follower.log.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (None, Some(log_id(1, 1, 19))));
        assert_eq!(follower.log.try_get_log_entries(..).await.unwrap(), had);
        assert!(applied(&mut follower).await < Some(log_id(1, 1, 10)));
    }
}

#[tokio::test]
async fn a_read_whose_first_entry_is_gone_finds_none_and_not_later_ones() {
    let mut leader = open(&SimDisk::new(11));
    let all = puts(1, 0..60, "x");
    append(&mut leader, all[..50].to_vec()).await;
    apply(&mut leader, all[..50].to_vec()).await;
    let built = leader.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let mut store = open(&SimDisk::new(19));
    store.state_machine.install_snapshot(&built.meta, built.snapshot).await.unwrap();
    append(&mut store, all[50..].to_vec()).await;
    let mut reader = store.log.get_log_reader().await;
    assert_eq!(reader.limited_get_log_entries(49, 60).await.unwrap(), []);
    assert_eq!(reader.limited_get_log_entries(50, 60).await.unwrap(), all[50..]);
    assert_eq!(reader.try_get_log_entries(3..60).await.unwrap(), all[50..], "what there is");
}

/// Openraft sleeps for 10 ms when a sender finds nothing.
#[tokio::test]
async fn an_entry_that_is_purged_and_still_there_is_sent() {
    let disk = SimDisk::new(11);
    let mut store = open(&disk);
    let all = puts(1, 0..10, "x");
    append(&mut store, all.clone()).await;
    apply(&mut store, all.clone()).await;
    store.log.purge(log_id(1, 1, 5)).await.unwrap();
    for _ in 0..2 {
        let mut reader = store.log.get_log_reader().await;
        assert_eq!(reader.limited_get_log_entries(3, 10).await.unwrap(), all[3..]);
        assert_eq!(store.log.limited_get_log_entries(5, 7).await.unwrap(), all[5..7]);
        assert_eq!(store.log.try_get_log_entries(3..10).await.unwrap(), all[6..]);
        drop(reader);
        close(store).await;
        store = open(&disk);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_of_what_is_taken_back_meanwhile_is_no_error() {
    let mut store = open(&SimDisk::new(12));
    let mut reader = store.log.get_log_reader().await;
    append(&mut store, puts(1, 0..10, "kept")).await;
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let reading = tokio::spawn(async move {
        while !stopped.load(Ordering::SeqCst) {
            let found = reader.try_get_log_entries(0..100).await.unwrap();
            let indexes = found.iter().map(|entry| entry.log_id.index);
            assert!(found.len() >= 10 && indexes.eq(0..found.len() as u64), "{found:?}");
        }
    });
    for term in 2..1500 {
        append(&mut store, puts(term, 10..30, "x")).await;
        store.log.truncate(log_id(term, 1, 10)).await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    reading.await.unwrap();
}

#[test]
fn a_machine_that_was_opened_in_another_way_is_refused() {
    use sprag::{CompactionPolicy, Contiguity};
    let refused = |config: sprag::PersistentConfig| {
        let machine =
            PersistentStateMachine::open_on_disk(SimDisk::new(13).open(true).unwrap(), config);
        let store = Kv::new(machine.unwrap(), apply_config(1));
        assert!(matches!(store, Err(sprag::error::OpenError::Config { .. })), "{store:?}");
    };
    refused(sprag::PersistentConfig::new("simulated"));
    refused(small().contiguity(Contiguity::Strict));
    refused(small().compaction(CompactionPolicy::new()));
}

/// Sends a snapshot in small chunks: all of it, or an error after `end` bytes.
async fn copy(from: &SnapshotFile, to: &mut SnapshotFile, end: u64) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
    let mut from = from.clone();
    let length = from.seek(std::io::SeekFrom::End(0)).await?;
    from.seek(std::io::SeekFrom::Start(0)).await?;
    let (mut chunk, mut sent) = ([0; 999], 0);
    while sent < length {
        if sent >= end {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        let read = from.read(&mut chunk).await?;
        to.seek(std::io::SeekFrom::Start(sent)).await?;
        to.write_all(&chunk[..read]).await?;
        sent += read as u64;
    }
    to.shutdown().await
}

#[tokio::test]
async fn a_snapshot_that_has_come_in_full_is_installed_though_the_next_one_begins_before() {
    let mut leader = open(&SimDisk::new(15));
    let mut built = Vec::new();
    for indexes in [0..100, 100..200] {
        let entries = puts(1, indexes, "leader");
        append(&mut leader, entries.clone()).await;
        apply(&mut leader, entries).await;
        let mut builder = leader.state_machine.get_snapshot_builder().await;
        built.push(builder.build_snapshot().await.unwrap());
    }
    let (second, first) = (built.pop().unwrap(), built.pop().unwrap());
    let mut follower = open(&SimDisk::new(16));
    let mut arrived = follower.state_machine.begin_receiving_snapshot().await.unwrap();
    copy(&first.snapshot, &mut arrived, u64::MAX).await.unwrap();
    let mut arriving = follower.state_machine.begin_receiving_snapshot().await.unwrap();
    let from = second.snapshot;
    let arriving =
        tokio::spawn(async move { copy(&from, &mut arriving, u64::MAX).await.map(|()| arriving) });
    follower.state_machine.install_snapshot(&first.meta, arrived).await.unwrap();
    assert_eq!(applied(&mut follower).await, Some(log_id(1, 1, 99)));
    let arrived = arriving.await.unwrap().unwrap();
    follower.state_machine.install_snapshot(&second.meta, arrived).await.unwrap();
    assert_eq!(applied(&mut follower).await, Some(log_id(1, 1, 199)));
}

#[tokio::test]
async fn a_chunk_that_was_given_up_is_no_part_of_the_next() {
    use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
    let mut leader = open(&SimDisk::new(17));
    append(&mut leader, puts(1, 0..100, "leader")).await;
    apply(&mut leader, puts(1, 0..100, "leader")).await;
    let built = leader.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let mut bytes = Vec::new();
    let mut from = built.snapshot.clone();
    from.read_to_end(&mut bytes).await.unwrap();
    let mut follower = open(&SimDisk::new(18));
    let mut before = follower.state_machine.begin_receiving_snapshot().await.unwrap();
    copy(&built.snapshot, &mut before, u64::MAX).await.unwrap();
    let mut arriving = follower.state_machine.begin_receiving_snapshot().await.unwrap();
    let given_up = tokio::time::timeout(std::time::Duration::ZERO, arriving.write(&bytes[..200]));
    assert!(given_up.await.is_err(), "it waits until the one before is installed");
    drop(before);
    for chunk in [0..50, 50..bytes.len()] {
        arriving.seek(std::io::SeekFrom::Start(chunk.start as u64)).await.unwrap();
        arriving.write_all(&bytes[chunk]).await.unwrap();
    }
    arriving.shutdown().await.unwrap();
    arriving.shutdown().await.unwrap();
    follower.state_machine.install_snapshot(&built.meta, arriving).await.unwrap();
    assert_eq!(applied(&mut follower).await, Some(log_id(1, 1, 99)));
}

#[tokio::test]
async fn an_entry_appended_while_a_snapshot_is_on_its_way_is_not_lost_with_the_log_it_replaces() {
    let mut leader = open(&SimDisk::new(7));
    let all = puts(1, 0..50, "leader");
    append(&mut leader, all.clone()).await;
    apply(&mut leader, all).await;
    let built = leader.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let Store { mut log, mut state_machine, handle, .. } = open(&SimDisk::new(8));
    log.purge(log_id(1, 1, 49)).await.unwrap();
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    let appending = tokio::spawn(async move {
        log.blocking_append(puts(1, 50..51, "next")).await.unwrap();
        assert!(INSTALLED.load(Ordering::SeqCst), "it waits for the snapshot");
        log
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    INSTALLED.store(true, Ordering::SeqCst);
    state_machine.install_snapshot(&built.meta, built.snapshot).await.unwrap();
    let mut log = appending.await.unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), puts(1, 50..51, "next"));
    assert_eq!(handle.stats().applied, Some(49));
}

declare_raft_types!(
    /// A node that sums up pairs.
    pub Sums: D = (String, u64), R = Response, SnapshotData = SnapshotFile
);

/// A machine with the sum of all second halves whose first half is "add".
#[derive(Default)]
struct Sum(AtomicU64);

impl StateMachine for Sum {
    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        for entry in range.entries(partition) {
            let entry = entry?;
            let PayloadRef::Opaque(bytes) = entry.payload else { continue };
            let (what, by): (String, u64) =
                decode(bytes).map_err(|error| Fatal::new(error.to_string()))?;
            if what != "add" {
                replies.set_bytes(&entry, what.as_bytes());
                continue;
            }
            let sum = self.0.fetch_add(by, Ordering::Relaxed) + by;
            replies.set(&entry, Reply::Custom(sum));
        }
        Ok(())
    }

    fn reply_bytes_max(&self) -> usize {
        4
    }

    fn snapshot(
        &self,
        out: &mut dyn sprag::snapshot::SnapshotSink,
    ) -> Result<(), sprag::error::SnapshotError> {
        let sum = self.0.load(Ordering::Relaxed).to_le_bytes();
        out.write(&sum).map_err(|source| sprag::error::SnapshotError::Io {
            action: "writing",
            file: "the sum".to_owned(),
            source,
        })
    }

    fn restore(
        &self,
        source: &mut dyn sprag::snapshot::SnapshotSource,
    ) -> Result<(), sprag::error::SnapshotError> {
        let mut sum = [0; 8];
        // A short read would be a defect of the test's own small state.
        assert_eq!(source.read(&mut sum).unwrap(), 8);
        self.0.store(u64::from_le_bytes(sum), Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::test]
async fn any_data_drives_a_machine_of_ones_own_and_its_membership_is_kept() {
    let disk = SimDisk::new(9);
    let open = || {
        let machine =
            Journaled::open_on_disk(disk.open(true).unwrap(), small(), Sum::default()).unwrap();
        Store::<Sums, Opaque<Journaled<Sum>>>::new(machine, apply_config(2)).unwrap()
    };
    let mut store = open();
    let leader = CommittedLeaderId::new(1, 1);
    let membership = Membership::new(vec![[1].into()], None);
    let mut entries = vec![Entry {
        log_id: LogId::new(leader, 0),
        payload: EntryPayload::Membership(membership.clone()),
    }];
    for index in 1..6 {
        let what = if index == 3 { "skip" } else { "add" };
        let payload = EntryPayload::Normal((what.to_owned(), index));
        entries.push(Entry { log_id: LogId::new(leader, index), payload });
    }
    store.log.blocking_append(entries.clone()).await.unwrap();
    let replies = store.state_machine.apply(entries.clone()).await.unwrap();
    let mut sums = [1, 3, 3, 7, 12].map(Response::Custom);
    sums[2] = Response::Bytes(b"skip".to_vec());
    assert_eq!((&replies[0], &replies[1..]), (&Response::Applied, &sums[..]));
    let built = store.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id, Some(LogId::new(leader, 5)));
    assert_eq!(built.meta.last_membership.membership(), &membership);
    drop(built);
    let closed = store.handle.closed();
    drop(store);
    closed.await;
    let mut store = open();
    assert_eq!(store.handle.machine().0.load(Ordering::Relaxed), 12, "from the snapshot");
    let (last, stored) = store.state_machine.applied_state().await.unwrap();
    assert_eq!((last, stored.membership()), (Some(LogId::new(leader, 5)), &membership));
    assert_eq!(store.log.try_get_log_entries(..).await.unwrap(), entries);
}
