//! Tests that a command goes to disk once: bytes and syncs, counted at the simulated disk.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{apply_config, small};
use crate::network::{Network, Types};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::log_id;
use openraft::{BasicNode, Config, Entry, EntryPayload, Raft, SnapshotPolicy};
use sprag::PersistentStateMachine;
use sprag::testing::SimDisk;
use sprag_openraft_09::{KeyValue, Request, Store};

type Kv = Store<Types, KeyValue<PersistentStateMachine>>;

const BATCHES: u64 = 50;
const COMMANDS: u64 = 200;
const KEY_BYTES: u64 = 16;
const VALUE_BYTES: u64 = 100;
const PAYLOAD_BYTES: u64 = KEY_BYTES + VALUE_BYTES;

fn request(number: u64) -> Request {
    Request::put(format!("{:016}", number % 500), vec![b'v'; 100])
}

fn open(disk: &SimDisk) -> Kv {
    // Segments of 4 MiB and more begin with zeros, which a log in recycled files does not write.
    let config = small().segment_bytes((4 << 20) - 4096);
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config);
    Store::new(machine.unwrap(), apply_config(1)).unwrap()
}

/// Bytes written and syncs of files since the counts were reset. The next segment is made in the
/// background. Its allocation is no write, and its sync is of an empty file.
fn written(disk: &SimDisk) -> (u64, u64) {
    let trace = disk.trace();
    let bytes = trace.iter().filter(|line| line.starts_with("write "));
    let bytes = bytes.map(|line| line.rsplit_once('=').unwrap().1.parse::<u64>().unwrap());
    let syncs = trace.iter().filter(|line| line.starts_with("sync ")).count();
    (bytes.sum(), syncs as u64)
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn ratio(bytes: u64, commands: u64) -> f64 {
    bytes as f64 / (commands * PAYLOAD_BYTES) as f64
}

/// Appends and applies batches. Returns bytes written per byte of payload, and syncs.
async fn batches(
    disk: &SimDisk,
    log: &mut impl RaftLogStorageExt<Types>,
    state_machine: &mut impl RaftStateMachine<Types>,
    batch: u64,
) -> (f64, u64) {
    // The first entry makes the log take its first segment into use.
    let first = Entry { log_id: log_id(1, 1, 0), payload: EntryPayload::Blank };
    log.blocking_append([first.clone()]).await.unwrap();
    state_machine.apply([first]).await.unwrap();
    disk.reset_operations();
    for number in 0..BATCHES {
        let first = 1 + number * batch;
        let entry = |index| Entry {
            log_id: log_id(1, 1, index),
            payload: EntryPayload::Normal(request(index)),
        };
        let entries: Vec<_> = (first..first + batch).map(entry).collect();
        log.blocking_append(entries.clone()).await.unwrap();
        state_machine.apply(entries).await.unwrap();
    }
    let (bytes, syncs) = written(disk);
    (ratio(bytes, BATCHES * batch), syncs)
}

/// Proves RES-1.
#[tokio::test]
async fn a_batch_is_one_sync_and_little_more_than_its_payload_and_the_usual_way_is_twice_both() {
    for batch in [64, 256] {
        let disk = SimDisk::new(batch);
        let mut store = open(&disk);
        let (bytes, syncs) = batches(&disk, &mut store.log, &mut store.state_machine, batch).await;
        println!(
            "batches of {batch}: {bytes:.3} bytes a byte of payload, {syncs} syncs of {BATCHES} batches"
        );
        assert!(bytes <= 1.2, "{bytes}");
        // A frame holds 128 entries. The log writer may take the first frame before the next is
        // closed.
        let most = BATCHES * batch.div_ceil(128) + 2;
        assert!((BATCHES..=most).contains(&syncs), "{syncs}: one a frame, and the next segment's");
        let disk = SimDisk::new(batch);
        let (mut log, mut state) = crate::usual::open(&disk);
        let (bytes, syncs) = batches(&disk, &mut log, &mut state, batch).await;
        println!("  the usual way: {bytes:.3} bytes, {syncs} syncs");
        assert!(bytes > 2.0 && syncs == 2 * BATCHES, "{bytes} {syncs}");
    }
}

/// Runs three nodes with these stores, and single writes through the leader. Returns bytes and
/// syncs of each node, the leader's first.
async fn single_writes<L: RaftLogStorage<Types>, S: RaftStateMachine<Types>>(
    open: impl Fn(&SimDisk) -> (L, S),
) -> Vec<(u64, u64)> {
    let network = Network::default();
    let mut nodes = BTreeMap::new();
    for id in 1..=3 {
        let disk = SimDisk::new(id);
        let (log, state_machine) = open(&disk);
        let config = Config {
            // No other node may lead, however slow the machine is.
            enable_elect: id == 1,
            snapshot_policy: SnapshotPolicy::Never,
            ..Config::default()
        };
        let config = Arc::new(config.validate().unwrap());
        let raft = Raft::new(id, config, network.clone(), log, state_machine).await.unwrap();
        network.connect(id, raft.clone());
        nodes.insert(id, (raft, disk));
    }
    let members: BTreeMap<_, _> = (1..=3).map(|id| (id, BasicNode::default())).collect();
    let leader = nodes[&1].0.clone();
    leader.initialize(members).await.unwrap();
    let patience = Some(Duration::from_secs(30));
    leader.wait(patience).current_leader(1, "the first to ask").await.unwrap();
    let warm = leader.client_write(request(0)).await.unwrap().log_id.index;
    for (raft, _) in nodes.values() {
        raft.wait(patience).applied_index_at_least(Some(warm), "warm").await.unwrap();
    }
    nodes.values().for_each(|(_, disk)| disk.reset_operations());
    let mut last = 0;
    for number in 0..COMMANDS {
        last = leader.client_write(request(number)).await.unwrap().log_id.index;
    }
    for (raft, _) in nodes.values() {
        raft.wait(patience).applied_index_at_least(Some(last), "all").await.unwrap();
    }
    let counts = nodes.values().map(|(_, disk)| written(disk)).collect();
    for (raft, _) in nodes.values() {
        raft.shutdown().await.unwrap();
    }
    counts
}

/// Proves RES-1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_write_is_one_sync_on_each_of_three_nodes_and_two_the_usual_way() {
    let ours = single_writes(|disk| {
        let Store { log, state_machine, .. } = open(disk);
        (log, state_machine)
    });
    for (bytes, syncs) in ours.await {
        println!("a node: {} bytes and {syncs} syncs for {COMMANDS} commands", bytes / COMMANDS);
        // Each write has a frame's header and the padding to the next frame; a follower may take
        // two in one append.
        assert!(bytes / COMMANDS <= 3 * PAYLOAD_BYTES, "{bytes}");
        assert!(syncs <= COMMANDS + 2, "{syncs}");
    }
    let theirs = single_writes(crate::usual::open).await;
    for (bytes, syncs) in &theirs {
        println!("  the usual way: {} bytes and {syncs} syncs", bytes / COMMANDS);
        assert!(bytes / COMMANDS >= 2 * PAYLOAD_BYTES, "{bytes}");
    }
    // A slow follower takes several entries in one append; the leader appends one after another.
    assert!(theirs[0].1 >= 2 * COMMANDS, "{theirs:?}");
}
