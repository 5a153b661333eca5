//! Tests of a cluster of three in one process, on simulated disks whose power fails: acknowledged
//! writes are there, and all nodes agree.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{apply_config, small};
use crate::network::{Network, Types};
use openraft::{BasicNode, Config, Raft, SnapshotPolicy};
use sprag::testing::{self, SimDisk};
use sprag::{PersistentStateMachine, StateMachine};
use sprag_openraft_09::{Handle, KeyValue, Reason, Request, Response, Store};

const ROUNDS: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(60);

type App = KeyValue<PersistentStateMachine>;

struct Node {
    raft: Raft<Types>,
    handle: Handle<Types, App>,
}

struct Cluster {
    disks: BTreeMap<u64, SimDisk>,
    network: Network,
    nodes: BTreeMap<u64, Node>,
}

impl Cluster {
    async fn new() -> Self {
        let disks: BTreeMap<_, _> = (1..=3).map(|id| (id, SimDisk::new(id))).collect();
        let mut cluster = Self { disks, network: Network::default(), nodes: BTreeMap::new() };
        for id in 1..=3 {
            cluster.start(id).await;
        }
        let members: BTreeMap<_, _> = (1..=3).map(|id| (id, BasicNode::default())).collect();
        cluster.nodes[&1].raft.initialize(members).await.unwrap();
        cluster
    }

    async fn start(&mut self, id: u64) {
        let config = Config {
            heartbeat_interval: 50,
            election_timeout_min: 150,
            election_timeout_max: 300,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(150),
            max_in_snapshot_log_to_keep: 20,
            ..Config::default()
        };
        let disk = self.disks[&id].clone();
        let open = move || {
            let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), small());
            Store::<Types, App>::new(machine.unwrap(), apply_config(2)).unwrap()
        };
        let store = tokio::task::spawn_blocking(open).await.unwrap();
        let config = Arc::new(config.validate().unwrap());
        let (log, state_machine) = (store.log, store.state_machine);
        let raft = Raft::new(id, config, self.network.clone(), log, state_machine).await.unwrap();
        self.network.connect(id, raft.clone());
        self.nodes.insert(id, Node { raft, handle: store.handle });
    }

    /// Cuts the power of a node at any moment: some unsynced writes are on disk and some are not.
    async fn cut(&mut self, id: u64) {
        self.disks[&id].power_cut_random();
        self.network.disconnect(id);
        let node = self.nodes.remove(&id).unwrap();
        // The node's storage is dead, so the node ends by itself or is told to.
        let _ended = node.raft.shutdown().await;
        let closed = node.handle.closed();
        drop(node);
        tokio::time::timeout(PATIENCE, closed).await.unwrap();
    }

    /// Cuts the power of all nodes at the same moment. Only synced writes remain, because no node
    /// has the rest.
    async fn cut_all(&mut self) {
        for disk in self.disks.values() {
            disk.power_cut_random();
        }
        for id in 1..=3 {
            self.cut(id).await;
        }
        for id in 1..=3 {
            self.start(id).await;
        }
    }

    /// The leader according to node 1; waits while an election has none.
    async fn leader(&self) -> u64 {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let leader = self.nodes[&1].raft.metrics().borrow().current_leader;
            if let Some(leader) = leader {
                return leader;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no node leads");
    }

    /// Repeats a put until it is acknowledged.
    async fn put(&self, key: &str, value: &str) {
        self.client_write(&Request::put(key, value)).await;
    }

    /// Repeats a proposal until there is an answer.
    async fn client_write(&self, request: &Request) -> Response {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            for node in self.nodes.values() {
                let write = node.raft.client_write(request.clone());
                if let Ok(Ok(written)) = tokio::time::timeout(Duration::from_secs(2), write).await {
                    return written.data;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no node answers");
    }

    /// The states of all three nodes at the same index.
    async fn states(&self) -> BTreeMap<u64, BTreeMap<Vec<u8>, Vec<u8>>> {
        let started = Instant::now();
        loop {
            let views: BTreeMap<_, _> =
                self.nodes.iter().map(|(id, node)| (*id, node.handle.view().unwrap())).collect();
            let mut indexes = views.values().map(sprag::View::log_id);
            let first = indexes.next().unwrap();
            if indexes.all(|index| index == first) {
                let state = |view: &sprag::View| {
                    let entries = view.iter().map(Result::unwrap);
                    entries.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
                };
                return views.iter().map(|(id, view)| (*id, state(view))).collect();
            }
            assert!(started.elapsed() < PATIENCE, "the nodes do not come to the same index");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A generator with the same numbers in every run; their effects still depend on the threads.
struct Random(testing::Random);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_power_cuts_of_one_node_or_all_lose_nothing_acknowledged_and_all_nodes_agree() {
    let mut cluster = Cluster::new().await;
    let mut random = Random(testing::Random::new(0x5eed));
    let mut acknowledged: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for round in 0..ROUNDS {
        let cut = 1 + random.below(3);
        let (before, after) = (random.below(12), random.below(12));
        let all = round % 5 == 4;
        for write in 0..before + after {
            let (key, value) = (format!("k{}", random.below(40)), format!("{round}-{write}"));
            if write == before && all {
                cluster.cut_all().await;
            } else if write == before {
                cluster.cut(cut).await;
            }
            cluster.put(&key, &value).await;
            acknowledged.insert(key.into(), value.into());
        }
        if after == 0 && all {
            cluster.cut_all().await;
        } else if after == 0 {
            cluster.cut(cut).await;
        }
        if !all {
            cluster.start(cut).await;
        }
    }
    cluster.put("last", "one").await;
    acknowledged.insert(b"last".to_vec(), b"one".to_vec());
    for (id, state) in cluster.states().await {
        assert_eq!(state, acknowledged, "node {id}");
    }
    let snapshots = cluster.nodes.values().map(|node| node.handle.stats().snapshot);
    assert!(snapshots.flatten().next().is_some(), "the run was long enough for snapshots");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_catches_up_by_the_log_or_by_a_snapshot() {
    let mut cluster = Cluster::new().await;
    cluster.put("first", "1").await;
    for (writes, by_snapshot) in [(15, false), (500, true)] {
        let leader = cluster.leader().await;
        let away = (1..=3).find(|id| *id != leader).unwrap();
        // Wait until each node has applied something.
        cluster.states().await;
        let had = cluster.nodes[&away].handle.machine().applied().unwrap().index;
        cluster.cut(away).await;
        for write in 0..writes {
            cluster.put(&format!("k{}", write % 30), &write.to_string()).await;
        }
        let gone = |node: &Node| {
            let purged = node.raft.metrics().borrow().purged;
            purged.is_some_and(|purged| purged.index > had)
        };
        let started = Instant::now();
        // Any node may lead. A node that snapshots and purges does so later than the writes.
        while by_snapshot && !cluster.nodes.values().all(gone) {
            assert!(started.elapsed() < PATIENCE, "no node purges what it missed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cluster.start(away).await;
        cluster.put("caught", "up").await;
        let states = cluster.states().await;
        assert!(states.values().all(|state| *state == states[&leader]));
        let gone = gone(&cluster.nodes[&leader]);
        assert_eq!(gone, by_snapshot, "what it missed is in the leader's log, or is not");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_no_log_can_hold_is_rejected_and_stops_no_node() {
    let mut cluster = Cluster::new().await;
    cluster.put("first", "1").await;
    let nested = Request::Batch { commands: vec![Request::Batch { commands: Vec::new() }] };
    let malformed =
        [Request::put("", "x"), nested, Request::Delete { key: vec![b'k'; (64 << 10) + 1] }];
    for command in malformed {
        let response = cluster.client_write(&command).await;
        let rejected = Response::Rejected { reason: Reason::Unsupported, position: None };
        assert_eq!(response, rejected);
        cluster.put("next", "one").await;
    }
    for id in 1..=3 {
        cluster.cut(id).await;
        cluster.start(id).await;
        cluster.put("after", &id.to_string()).await;
    }
    for (id, state) in cluster.states().await {
        assert_eq!(state.len(), 3, "node {id}");
    }
}
