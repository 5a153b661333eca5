//! Tests that no call blocks a thread of the runtime. There is one such thread, and its heart beats
//! on while a call waits.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::stream;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::log_id;
use openraft::{RaftSnapshotBuilder, declare_raft_types};
use sprag::Journaled;
use sprag::testing::SimDisk;
use sprag_openraft::{Opaque, Response, Store};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWriteExt, ReadBuf};

use crate::common::acting_disk::ActingDisk;
use crate::common::held::{Gate, Held};
use crate::common::{apply_config, small};

declare_raft_types!(
    /// A node whose machine keeps no state.
    Node: D = String, R = Response
);

type Entry = openraft::type_config::alias::EntryOf<Node>;
type NodeStore = Store<Node, Opaque<Journaled<Held>>>;

/// Number of beats that show that the runtime's thread is free.
const BEATS: u64 = 20;
/// Opens a store. The machine waits at the first gate, and syncs of the log at the second.
fn open(seed: u64, machine: &Arc<Gate>, syncs: &Arc<Gate>) -> NodeStore {
    open_with(seed, machine, syncs, &Arc::default())
}

/// Opens a store as [`open`] does. Removals of files wait at the last gate.
fn open_with(seed: u64, machine: &Arc<Gate>, syncs: &Arc<Gate>, removals: &Arc<Gate>) -> NodeStore {
    let disk = SimDisk::new(seed).open(true).unwrap();
    let passing = |gate: &Arc<Gate>| {
        let gate = Arc::clone(gate);
        move || assert!(gate.pass(), "stuck")
    };
    let disk = ActingDisk::new(disk).at_sync(passing(syncs)).at_removal(passing(removals));
    let held = Held(Arc::clone(machine));
    let machine = Journaled::open_on_disk(Arc::new(disk), small(), held).unwrap();
    Store::new(machine, apply_config(1)).unwrap()
}

fn entries(indexes: std::ops::Range<u64>, bytes: usize) -> Vec<Entry> {
    use openraft::entry::RaftEntry;
    let data = || "x".repeat(bytes);
    indexes.map(|index| Entry::new_normal(log_id::<Node>(1, 1, index), data())).collect()
}

async fn apply(store: &mut NodeStore, entries: Vec<Entry>) -> Result<(), io::Error> {
    let entries = entries.into_iter().map(|entry| Ok((entry, None)));
    store.state_machine.apply(stream::iter(entries)).await
}

/// Runs a call that waits at a gate, and opens the gate only after the runtime's thread had time
/// for beats of its heart.
async fn beats_on<T>(gate: &Gate, call: impl Future<Output = T>) -> T {
    let beats = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&beats);
    let heart = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut call = std::pin::pin!(call);
    let opened = async {
        gate.visited().await;
        let from = beats.load(Ordering::Relaxed);
        while beats.load(Ordering::Relaxed) < from + BEATS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        biased;
        _done = &mut call => panic!("the call did not wait"),
        () = opened => gate.open(),
    }
    let result = call.await;
    heart.abort();
    result
}

#[tokio::test]
async fn the_heart_beats_on_while_the_machine_takes_long() {
    let (machine, syncs) = (Arc::<Gate>::default(), Arc::<Gate>::default());
    let mut store = open(1, &machine, &syncs);
    store.log.blocking_append(entries(0..10, 10)).await.unwrap();
    machine.close();
    beats_on(&machine, apply(&mut store, entries(0..10, 10))).await.unwrap();
    assert_eq!(store.handle.stats().applied, Some(9));
}

#[tokio::test]
async fn the_heart_beats_on_while_the_disk_syncs() {
    let (machine, syncs) = (Arc::<Gate>::default(), Arc::<Gate>::default());
    let mut store = open(2, &machine, &syncs);
    store.log.blocking_append(entries(0..1, 10)).await.unwrap();
    syncs.close();
    beats_on(&syncs, store.log.blocking_append(entries(1..2, 10))).await.unwrap();
    assert_eq!(store.handle.stats().durable, Some(1));
    syncs.close();
    let vote = openraft::type_config::alias::VoteOf::<Node>::new(2, 1);
    store.log.append(entries(2..3, 10), openraft::storage::IOFlushed::noop()).await.unwrap();
    beats_on(&syncs, store.log.save_vote(&vote)).await.unwrap();
}

#[tokio::test]
async fn the_heart_beats_on_while_the_log_is_full() {
    let (machine, syncs) = (Arc::<Gate>::default(), Arc::<Gate>::default());
    let mut store = open(3, &machine, &syncs);
    store.log.blocking_append(entries(0..1, 10)).await.unwrap();
    syncs.close();
    // Far more than the segments in memory hold. An append that has room returns before its sync.
    let many = entries(1..200, 10 << 10);
    let append = store.log.append(many, openraft::storage::IOFlushed::noop());
    beats_on(&syncs, append).await.unwrap();
    store.log.blocking_append(entries(200..201, 10)).await.unwrap();
    assert_eq!(store.handle.stats().durable, Some(200));
}

#[tokio::test]
async fn the_heart_beats_on_while_a_snapshot_is_installed() {
    let (machine, syncs) = (Arc::<Gate>::default(), Arc::<Gate>::default());
    let mut leader = open(4, &machine, &syncs);
    leader.log.blocking_append(entries(0..50, 10)).await.unwrap();
    apply(&mut leader, entries(0..50, 10)).await.unwrap();
    let mut builder = leader.state_machine.get_snapshot_builder().await;
    let built = builder.build_snapshot().await.unwrap();
    let NodeStore { mut log, mut state_machine, handle, .. } = open(5, &machine, &syncs);
    log.blocking_append(entries(0..10, 10)).await.unwrap();
    machine.close();
    let install = state_machine.install_snapshot(&built.meta, built.snapshot);
    beats_on(&machine, install).await.unwrap();
    assert_eq!(handle.stats().applied, Some(49));
}

#[tokio::test]
async fn the_heart_beats_on_while_a_snapshot_that_was_replaced_is_removed() {
    let removals = Arc::<Gate>::default();
    let store = open_with(6, &Arc::default(), &Arc::default(), &removals);
    let mut first = store.handle.receive_snapshot();
    first.write_all(b"the beginning").await.unwrap();
    removals.close();
    let mut next = store.handle.receive_snapshot();
    beats_on(&removals, next.write_all(b"the next one")).await.unwrap();
    let error = first.write_all(b"the end").await.unwrap_err();
    assert!(error.to_string().contains("another snapshot"), "{error}");
}

#[test]
fn a_snapshot_is_read_by_a_thread_that_may_wait_for_the_disk() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build().unwrap();
    let gate = Arc::<Gate>::default();
    runtime.block_on(async {
        let mut store = open(7, &Arc::default(), &Arc::default());
        store.log.blocking_append(entries(0..50, 10)).await.unwrap();
        apply(&mut store, entries(0..50, 10)).await.unwrap();
        let mut builder = store.state_machine.get_snapshot_builder().await;
        let built = builder.build_snapshot().await.unwrap();
        let snapshot = built.snapshot.snapshot().unwrap();
        let mut file = built.snapshot;
        gate.close();
        let held = Arc::clone(&gate);
        let held = tokio::task::spawn_blocking(move || held.pass());
        let mut bytes = [0; 10];
        let mut context = Context::from_waker(Waker::noop());
        let polled = Pin::new(&mut file).poll_read(&mut context, &mut ReadBuf::new(&mut bytes));
        assert!(polled.is_pending(), "the only such thread is held");
        gate.open();
        assert!(held.await.unwrap());
        let whole: Vec<u8> = snapshot.pieces(0, 7).flat_map(|piece| piece.bytes.to_vec()).collect();
        let mut read = Vec::new();
        file.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, whole);
        file.seek(io::SeekFrom::Start(20)).await.unwrap();
        file.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, whole[20..30]);
    });
}
