//! A command goes to disk once: bytes and syncs, counted where the simulated disk takes them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
#[path = "../examples/three_nodes/network.rs"]
mod network;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::{apply_config, small};
use network::{Network, Types};
use openraft::storage::{RaftLogStorageExt, RaftStateMachine};
use openraft::testing::log_id;
use openraft::{BasicNode, Config, Entry, EntryPayload, Raft};
use sprag::PersistentStateMachine;
use sprag::testing::SimDisk;
use sprag_openraft::{KeyValue, Request, Store};

type Kv = Store<Types, KeyValue<PersistentStateMachine>>;

const KEY_BYTES: u64 = 16;
const VALUE_BYTES: u64 = 100;
const PAYLOAD_BYTES: u64 = KEY_BYTES + VALUE_BYTES;

fn request(number: u64) -> Request {
    Request::put(format!("{:016}", number % 500), vec![b'v'; 100])
}

fn open(disk: &SimDisk) -> Kv {
    let config = small().segment_bytes(4 << 20);
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config);
    Store::new(machine.unwrap(), apply_config(1)).unwrap()
}

/// What was done since the counts were reset: bytes written, and syncs of files. The next segment is made ready in the
/// background; its allocation is no write, and its sync is of an empty file.
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

#[tokio::test]
async fn a_batch_of_sixty_four_is_one_sync_and_little_more_than_its_payload() {
    for batch in [64, 256] {
        let disk = SimDisk::new(batch);
        let mut store = open(&disk);
        // The first segment is taken into use.
        let first = Entry { log_id: log_id(1, 1, 0), payload: EntryPayload::Blank };
        store.log.blocking_append([first.clone()]).await.unwrap();
        store.state_machine.apply([first]).await.unwrap();
        disk.reset_operations();
        let batches = 50;
        for number in 0..batches {
            let first = 1 + number * batch;
            let entry = |index| Entry {
                log_id: log_id(1, 1, index),
                payload: EntryPayload::Normal(request(index)),
            };
            let entries: Vec<_> = (first..first + batch).map(entry).collect();
            store.log.blocking_append(entries.clone()).await.unwrap();
            store.state_machine.apply(entries).await.unwrap();
        }
        let (bytes, syncs) = written(&disk);
        let ratio = ratio(bytes, batches * batch);
        println!(
            "batches of {batch}: {ratio:.3} bytes a byte of payload, {syncs} syncs of {batches} batches"
        );
        assert!(ratio <= 1.2, "{ratio}");
        assert!(
            (batches..=batches + 2).contains(&syncs),
            "{syncs}: one a batch, and the next segment's"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_write_is_one_sync_on_each_of_three_nodes() {
    let network = Network::default();
    let mut nodes = BTreeMap::new();
    for id in 1..=3 {
        let disk = SimDisk::new(id);
        let Store { log, state_machine, .. } = open(&disk);
        let config =
            Config { election_timeout_min: 2000, election_timeout_max: 3000, ..Config::default() };
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
    let commands = 200;
    let mut last = 0;
    for number in 0..commands {
        last = leader.client_write(request(number)).await.unwrap().log_id.index;
    }
    for (id, (raft, disk)) in &nodes {
        raft.wait(patience).applied_index_at_least(Some(last), "all").await.unwrap();
        let (bytes, syncs) = written(disk);
        println!("node {id}: {} bytes and {syncs} syncs for {commands} commands", bytes / commands);
        // A frame's header for each, and the padding to the next frame; a follower may take two in one append.
        assert!(bytes / commands <= 3 * PAYLOAD_BYTES, "node {id}: {bytes}");
        assert!(syncs <= commands + 2, "node {id}: {syncs}");
    }
    for (raft, _) in nodes.values() {
        raft.shutdown().await.unwrap();
    }
}
