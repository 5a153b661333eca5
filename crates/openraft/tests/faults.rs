//! Tests on our store of faults that openraft mended in 2026. They are completions out of order,
//! and a conflicting snapshot at the committed index. The third is a follower behind a log that is
//! purged to its end. The last two are a membership that a snapshot covers, and proposals that a
//! purge strands.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;

use futures_util::stream;
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::log_id;
use openraft::type_config::alias::{EntryOf, SnapshotOf};
use openraft::{Membership, RaftSnapshotBuilder, StorageHelper};
use sprag::PersistentStateMachine;
use sprag::testing::SimDisk;
use sprag_openraft::{Request, SnapshotFile};

use crate::common::{Data, KvStore, apply_config, small};
use crate::wire::cluster::{Cluster, Line, Node, until};

type Kv = KvStore<PersistentStateMachine>;
type Entry = EntryOf<Data>;

fn open(disk: &SimDisk) -> Kv {
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), small());
    Kv::new(machine.unwrap(), apply_config(2)).unwrap()
}

async fn close(store: Kv) {
    let closed = store.handle.closed();
    drop(store);
    closed.await;
}

fn puts(term: u64, indexes: std::ops::Range<u64>, value: &str) -> Vec<Entry> {
    let put = |index| Request::put(format!("k{}", index % 5), value);
    indexes.map(|index| Entry::new_normal(log_id::<Data>(term, 1, index), put(index))).collect()
}

fn membership(term: u64, index: u64, voters: impl Into<BTreeSet<u64>>) -> Entry {
    let membership = Membership::new_with_defaults(vec![voters.into()], []);
    Entry::new_membership(log_id::<Data>(term, 1, index), membership)
}

async fn append(store: &mut Kv, entries: Vec<Entry>) {
    store.log.blocking_append(entries).await.unwrap();
}

async fn apply(store: &mut Kv, entries: Vec<Entry>) {
    let entries = stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
    store.state_machine.apply(entries).await.unwrap();
}

async fn snapshot(store: &mut Kv) -> SnapshotOf<Data, SnapshotFile> {
    store.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap()
}

/// All entries that are in the log and not purged.
async fn held(store: &mut Kv) -> Vec<Entry> {
    store.log.get_log_reader().await.try_get_log_entries(..).await.unwrap()
}

fn get(store: &Kv, key: &str) -> Option<Vec<u8>> {
    store.handle.machine().get(key.as_bytes()).unwrap().map(|value| value.to_vec())
}

/// A cluster of one node appends under two votes at its start, and writes nothing after that. An
/// append whose completion was lost would leave it without a leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_node_on_its_own_commits_its_membership_without_a_write() {
    for _ in 0..10 {
        let mut cluster = Cluster::new(&[Line::New]).await;
        assert_eq!(cluster.leader().await, 1);
        until("entry applied", || cluster.nodes[&1].applied() >= Some(1)).await;
        cluster.stop(1).await;
    }
}

#[tokio::test]
async fn a_snapshot_of_another_entry_at_the_committed_index_is_refused_and_changes_nothing() {
    let mut other = open(&SimDisk::new(1));
    append(&mut other, puts(2, 0..10, "other")).await;
    apply(&mut other, puts(2, 0..10, "other")).await;
    let sent = snapshot(&mut other).await;
    let disk = SimDisk::new(2);
    let mut store = open(&disk);
    append(&mut store, puts(1, 0..12, "mine")).await;
    apply(&mut store, puts(1, 0..10, "mine")).await;
    let refused = store.state_machine.install_snapshot(&sent.meta, sent.snapshot).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("another snapshot"), "{refused}");
    for _ in 0..2 {
        assert_eq!(get(&store, "k4").as_deref(), Some(&b"mine"[..]));
        assert_eq!(held(&mut store).await, puts(1, 0..12, "mine"));
        assert!(store.state_machine.get_current_snapshot().await.unwrap().is_none());
        assert!(store.handle.poison().is_none());
        close(store).await;
        store = open(&disk);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_behind_a_log_that_is_purged_to_its_end_catches_up_without_a_write() {
    let mut cluster = Cluster::new(&[Line::New; 3]).await;
    cluster.write(Request::put("first", "1")).await;
    let behind = cluster.follower().await;
    cluster.stop(behind).await;
    cluster.fill().await;
    let leader = cluster.leader().await;
    cluster.nodes[&leader].compact().await;
    let metrics = cluster.nodes[&leader].metrics();
    assert_eq!(metrics.purged, metrics.last, "no entry is left");
    // The node loses its directory, and the leader is told so: it knows no entry that they have in
    // common.
    let Node::New(node) = &cluster.nodes[&leader] else { panic!("a node of 0.10") };
    node.raft.trigger().allow_next_revert(&behind, true).await.unwrap().unwrap();
    cluster.disks.insert(behind, SimDisk::new(9));
    cluster.start(behind, Line::New).await;
    let last = metrics.last;
    until("snapshot installed", || cluster.nodes[&behind].applied() >= last).await;
    assert_eq!(cluster.state().await.len(), 21);
}

#[tokio::test]
async fn a_membership_that_an_installed_snapshot_covers_is_gone_with_its_entry() {
    let mut leader = open(&SimDisk::new(1));
    let mut entries = puts(2, 0..20, "leader");
    entries[5] = membership(2, 5, [1, 2, 3]);
    append(&mut leader, entries.clone()).await;
    apply(&mut leader, entries).await;
    let sent = snapshot(&mut leader).await;
    let disk = SimDisk::new(2);
    let mut store = open(&disk);
    let mut entries = puts(1, 0..18, "mine");
    // A newer membership by its index, which was never committed.
    entries[15] = membership(1, 15, [1, 7]);
    append(&mut store, entries.clone()).await;
    apply(&mut store, entries[..3].to_vec()).await;
    store.log.purge(log_id::<Data>(2, 1, 19)).await.unwrap();
    store.state_machine.install_snapshot(&sent.meta, sent.snapshot).await.unwrap();
    for _ in 0..2 {
        let Kv { log, state_machine, .. } = &mut store;
        let state = StorageHelper::new(log, state_machine).with_id(1).get_initial_state().await;
        let state = state.unwrap();
        let known = state.membership_state;
        let voters: Vec<u64> = known.effective().voter_ids().collect();
        assert_eq!(voters, [1, 2, 3]);
        assert_eq!(known.effective().log_id(), &Some(log_id::<Data>(2, 1, 5)));
        assert_eq!(known.committed(), known.effective());
        assert_eq!(held(&mut store).await, []);
        close(store).await;
        store = open(&disk);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_that_a_snapshot_strands_is_answered_and_the_node_applies_on() {
    let mut cluster = Cluster::new(&[Line::New; 3]).await;
    cluster.write(Request::put("first", "1")).await;
    let old = cluster.leader().await;
    // No other node hears of the old leader, nor it of them.
    cluster.wire.isolate(old, true);
    let Node::New(node) = cluster.nodes[&old].clone() else { panic!("a node of 0.10") };
    let raft = node.raft.clone();
    let stranded = tokio::spawn(async move { raft.client_write(Request::put("lost", "1")).await });
    drop(node);
    let isolated = cluster.nodes.remove(&old).unwrap();
    cluster.fill().await;
    cluster.compact().await;
    cluster.nodes.insert(old, isolated);
    cluster.wire.isolate(old, false);
    let answer = tokio::time::timeout(crate::wire::cluster::PATIENCE, stranded).await;
    assert!(answer.unwrap().unwrap().is_err(), "another leader's entries took its place");
    cluster.write(Request::put("last", "1")).await;
    let state = cluster.state().await;
    assert!(!state.contains_key(&b"lost"[..]) && state.contains_key(&b"last"[..]));
    assert!(cluster.nodes[&old].metrics().is_running);
}
