//! Three nodes on simulated disks, each under either openraft line.
#![allow(clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::async_runtime::WatchReceiver;
use sprag::testing::SimDisk;
use sprag::{PersistentStateMachine, View};
use sprag_openraft::{Request, Response};

use super::{App, NewNode, Old, OldNode, Server, Wire, new, old};
use crate::common::{Data, apply_config, small};

/// Longer than anything takes that is not stuck.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An openraft line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    Old,
    New,
}

#[derive(Clone)]
pub enum Node {
    Old(OldNode),
    New(NewNode),
}

/// The same code for a node of either line.
macro_rules! each {
    ($node:expr, $inner:ident => $result:expr) => {
        match $node {
            Node::Old($inner) => $result,
            Node::New($inner) => $result,
        }
    };
}

/// Metrics of a node, as far as the tests look at them.
pub struct Metrics {
    pub id: u64,
    pub leader: Option<u64>,
    pub last: Option<u64>,
    pub purged: Option<u64>,
    pub snapshot: Option<u64>,
    /// Whether openraft has ended the node.
    pub is_running: bool,
}

macro_rules! metrics {
    ($metrics:expr) => {{
        let metrics = $metrics;
        Metrics {
            id: metrics.id,
            leader: metrics.current_leader,
            last: metrics.last_log_index,
            purged: metrics.purged.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            is_running: metrics.running_state.is_ok(),
        }
    }};
}

impl Node {
    pub fn metrics(&self) -> Metrics {
        match self {
            Self::Old(node) => metrics!(node.raft.metrics().borrow().clone()),
            Self::New(node) => metrics!(node.raft.metrics().borrow_watched().clone()),
        }
    }

    /// Whether the node takes itself for the leader.
    pub fn leads(&self) -> bool {
        let metrics = self.metrics();
        metrics.leader == Some(metrics.id)
    }

    pub fn applied(&self) -> Option<u64> {
        each!(self, node => node.handle.stats().applied)
    }

    pub fn view(&self) -> View {
        each!(self, node => node.handle.view().unwrap())
    }

    /// Proposes a command; `None` if the node does not lead, or does not answer for a while.
    pub async fn propose(&self, request: Request) -> Option<Response> {
        let limit = Duration::from_secs(2);
        each!(self, node => {
            let written = tokio::time::timeout(limit, node.raft.client_write(request)).await;
            Some(written.ok()?.ok()?.data)
        })
    }

    /// Has the node write a snapshot of all that it has applied, and purge its whole log.
    pub async fn compact(&self) {
        let applied = self.applied().unwrap();
        each!(self, node => node.raft.trigger().snapshot().await.unwrap());
        until("a snapshot", || self.metrics().snapshot >= Some(applied)).await;
        each!(self, node => node.raft.trigger().purge_log(applied).await.unwrap());
        until("a purge", || self.metrics().purged >= Some(applied)).await;
    }

    /// Stops the node, and waits until its directory is free.
    pub async fn stop(self) {
        let closed: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = match self {
            Self::Old(node) => {
                node.raft.shutdown().await.unwrap();
                Box::pin(node.handle.closed())
            }
            Self::New(node) => {
                node.raft.shutdown().await.unwrap();
                Box::pin(node.handle.closed())
            }
        };
        tokio::time::timeout(PATIENCE, closed).await.unwrap();
    }
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "there is no {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub struct Cluster {
    pub disks: BTreeMap<u64, SimDisk>,
    pub wire: Wire,
    pub nodes: BTreeMap<u64, Node>,
}

/// Options of a node, which are the same under either line.
macro_rules! options {
    ($line:ident) => {
        $line::Config {
            heartbeat_interval: 100,
            election_timeout_min: 400,
            election_timeout_max: 800,
            install_snapshot_timeout: 60_000,
            snapshot_max_chunk_size: 2 << 10,
            snapshot_policy: $line::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: 0,
            ..$line::Config::default()
        }
    };
}

impl Cluster {
    /// Starts a cluster whose nodes have these lines, from node 1 on.
    pub async fn new(lines: &[Line]) -> Self {
        let ids = 1..=lines.len() as u64;
        let disks = ids.clone().map(|id| (id, SimDisk::new(id))).collect();
        let mut cluster = Self { disks, wire: Wire::default(), nodes: BTreeMap::new() };
        for (id, line) in ids.clone().zip(lines) {
            cluster.start(id, *line).await;
        }
        match &cluster.nodes[&1] {
            Node::Old(node) => {
                let members: BTreeMap<_, _> =
                    ids.map(|id| (id, openraft_09::BasicNode::default())).collect();
                node.raft.initialize(members).await.unwrap();
            }
            Node::New(node) => {
                let members: BTreeMap<_, _> =
                    ids.map(|id| (id, openraft::BasicNode::default())).collect();
                node.raft.initialize(members).await.unwrap();
            }
        }
        cluster
    }

    pub async fn start(&mut self, id: u64, line: Line) {
        let disk = self.disks[&id].clone();
        let open = move || PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), small());
        let machine = tokio::task::spawn_blocking(open).await.unwrap().unwrap();
        let (wire, apply) = (self.wire.sender(id), apply_config(1));
        let (node, server) = match line {
            Line::Old => {
                let store = sprag_openraft_09::Store::<Old, App>::new(machine, apply).unwrap();
                let config = Arc::new(options!(openraft_09).validate().unwrap());
                let (log, state_machine) = (store.log, store.state_machine);
                let raft = openraft_09::Raft::new(id, config, wire, log, state_machine);
                let node = OldNode { raft: raft.await.unwrap(), handle: store.handle };
                (Node::Old(node.clone()), Server::Old(old::Server(node)))
            }
            Line::New => {
                let store = sprag_openraft::Store::<Data, App>::new(machine, apply).unwrap();
                let config = Arc::new(options!(openraft).validate().unwrap());
                let (log, state_machine) = (store.log, store.state_machine);
                let raft = openraft::Raft::new(id, config, wire, log, state_machine);
                let node = NewNode { raft: raft.await.unwrap(), handle: store.handle };
                (Node::New(node.clone()), Server::New(new::Server::new(node)))
            }
        };
        self.wire.connect(id, server);
        self.nodes.insert(id, node);
    }

    /// Stops a node, and waits until its directory is free.
    pub async fn stop(&mut self, id: u64) {
        self.take(id).stop().await;
    }

    /// Takes a node out, unreachable for the others.
    pub fn take(&mut self, id: u64) -> Node {
        self.wire.disconnect(id);
        self.nodes.remove(&id).unwrap()
    }

    /// Has every node apply what the leader has, write a snapshot of it, and purge its log.
    pub async fn compact(&self) {
        let last = self.nodes[&self.leader().await].applied();
        for node in self.nodes.values() {
            until("entry applied", || node.applied() >= last).await;
            node.compact().await;
        }
    }

    /// The node that most of the others take for their leader.
    pub async fn leader(&self) -> u64 {
        let began = Instant::now();
        loop {
            for id in self.nodes.keys() {
                let agree = |node: &&Node| node.metrics().leader == Some(*id);
                if self.nodes.values().filter(agree).count() * 2 > self.disks.len() {
                    return *id;
                }
            }
            assert!(began.elapsed() < PATIENCE, "no node leads");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Proposes a command until a node has applied it.
    pub async fn write(&self, request: Request) -> Response {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let leader = self.leader().await;
            if let Some(response) = self.nodes[&leader].propose(request.clone()).await {
                return response;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no node answers");
    }

    /// Puts keys until the snapshot of the state has several pieces.
    pub async fn fill(&self) {
        for number in 0..20 {
            self.write(Request::put(format!("key-{number}"), vec![b'v'; 500])).await;
        }
    }

    /// The state of all nodes, once it is of the same entry.
    pub async fn state(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let began = Instant::now();
        loop {
            let views: Vec<View> = self.nodes.values().map(Node::view).collect();
            let first = views[0].log_id();
            if views.iter().all(|view| view.log_id() == first) {
                let content = |view: &View| -> BTreeMap<Vec<u8>, Vec<u8>> {
                    let entries = view.iter().map(Result::unwrap);
                    entries.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
                };
                let states: Vec<_> = views.iter().map(content).collect();
                assert!(states.iter().all(|state| *state == states[0]), "the states differ");
                return states[0].clone();
            }
            assert!(began.elapsed() < PATIENCE, "the nodes do not come to the same entry");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A node that does not lead.
    pub async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        *self.nodes.keys().find(|id| **id != leader).unwrap()
    }
}
