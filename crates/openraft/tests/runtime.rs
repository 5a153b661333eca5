//! Tests that no call blocks a thread of the runtime. There is one such thread, and its heart beats
//! on while a call waits.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::stream;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::log_id;
use openraft::{RaftSnapshotBuilder, declare_raft_types};
use sprag::disk::{Access, Completion, Disk, DiskFile, LogWrite, WriteQueue};
use sprag::error::SnapshotError;
use sprag::snapshot::{SnapshotSink, SnapshotSource};
use sprag::testing::SimDisk;
use sprag::{EntryRange, Fatal, Journaled, Partition, Replies, Reply, StateMachine};
use sprag_openraft::{Opaque, Response, Store};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWriteExt, ReadBuf};

use crate::common::{apply_config, small};

declare_raft_types!(
    /// A node whose machine keeps no state.
    Node: D = String, R = Response
);

type Entry = openraft::type_config::alias::EntryOf<Node>;
type NodeStore = Store<Node, Opaque<Journaled<Held>>>;

/// Number of beats that show that the runtime's thread is free.
const BEATS: u64 = 20;
/// Longer than any test holds a gate closed. A wait of this length means that a call blocks the
/// thread that would open the gate.
const STUCK: Duration = Duration::from_secs(60);

/// A gate at which threads of the engine wait.
#[derive(Debug, Default)]
struct Gate {
    /// Whether the gate is closed, and whether a thread has arrived at it since.
    state: Mutex<(bool, bool)>,
    moved: Condvar,
}

impl Gate {
    fn close(&self) {
        *self.state.lock().unwrap() = (true, false);
    }

    fn open(&self) {
        self.state.lock().unwrap().0 = false;
        self.moved.notify_all();
    }

    fn has_a_visitor(&self) -> bool {
        self.state.lock().unwrap().1
    }

    fn pass(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.1 = true;
        let (_state, stuck) =
            self.moved.wait_timeout_while(state, STUCK, |(closed, _)| *closed).unwrap();
        !stuck.timed_out()
    }
}

/// A disk whose syncs of the log wait at a gate, and removals of files at another.
#[derive(Debug)]
struct HeldDisk {
    disk: Arc<dyn Disk>,
    syncs: Arc<Gate>,
    removals: Arc<Gate>,
}

#[derive(Debug)]
struct HeldQueue {
    queue: Box<dyn WriteQueue>,
    gate: Arc<Gate>,
    synced: BTreeSet<u64>,
}

impl WriteQueue for HeldQueue {
    fn backend(&self) -> &'static str {
        self.queue.backend()
    }

    fn depth(&self) -> usize {
        self.queue.depth()
    }

    fn submit(&mut self, write: LogWrite) {
        if write.sync {
            self.synced.insert(write.token);
        }
        self.queue.submit(write);
    }

    fn complete(&mut self, wait: bool) -> Option<Completion> {
        let completion = self.queue.complete(wait)?;
        if self.synced.remove(&completion.token) {
            assert!(self.gate.pass(), "stuck");
        }
        Some(completion)
    }
}

impl Disk for HeldDisk {
    fn describe(&self) -> String {
        self.disk.describe()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name, access)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        assert!(self.removals.pass(), "stuck");
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.disk.random(bytes)
    }

    fn queue(&self) -> io::Result<Box<dyn WriteQueue>> {
        let (queue, gate) = (self.disk.queue()?, Arc::clone(&self.syncs));
        Ok(Box::new(HeldQueue { queue, gate, synced: BTreeSet::new() }))
    }
}

/// A machine that stops at a gate.
struct Held(Arc<Gate>);

impl StateMachine for Held {
    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        if !self.0.pass() {
            return Err(Fatal::new("stuck".to_owned()));
        }
        for entry in range.entries(partition) {
            replies.set(&entry?, Reply::Custom(7));
        }
        Ok(())
    }

    fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
        out.write(b"nothing").map_err(|source| SnapshotError::Io {
            action: "writing",
            file: "nothing".to_owned(),
            source,
        })
    }

    fn restore(&self, _source: &mut dyn SnapshotSource) -> Result<(), SnapshotError> {
        if self.0.pass() { Ok(()) } else { Err(SnapshotError::OtherSnapshot) }
    }
}

/// Opens a store. The machine waits at the first gate, and syncs of the log at the second.
fn open(seed: u64, machine: &Arc<Gate>, syncs: &Arc<Gate>) -> NodeStore {
    open_with(seed, machine, syncs, &Arc::default())
}

/// Opens a store as [`open`] does. Removals of files wait at the last gate.
fn open_with(seed: u64, machine: &Arc<Gate>, syncs: &Arc<Gate>, removals: &Arc<Gate>) -> NodeStore {
    let disk = SimDisk::new(seed).open(true).unwrap();
    let disk = HeldDisk { disk, syncs: Arc::clone(syncs), removals: Arc::clone(removals) };
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
        while !gate.has_a_visitor() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
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
        let snapshot = built.snapshot.snapshot().unwrap().clone();
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
