//! Three nodes in one process, each with its own directory. Clients write, a leader is killed and
//! comes back, and a node loses its directory and comes back by a snapshot. At the end all nodes
//! have the same state at the same index.
//!
//! ```sh
//! cargo run -p sprag-openraft-09 --example three_nodes_09
//! ```

mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use network::{Network, Types};
use openraft::{BasicNode, Config, Raft, SnapshotPolicy};
use sprag::{ApplyConfig, PersistentStateMachine};
use sprag_openraft_09::{Handle, KeyValue, Request, Store};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;
type App = KeyValue<PersistentStateMachine>;

const NODES: [u64; 3] = [1, 2, 3];
const PATIENCE: Duration = Duration::from_secs(30);

struct Node {
    raft: Raft<Types>,
    handle: Handle<Types, App>,
}

struct Cluster {
    directory: PathBuf,
    config: Arc<Config>,
    network: Network,
    nodes: BTreeMap<u64, Node>,
}

impl Cluster {
    fn new(directory: &Path) -> Result<Self> {
        let config = Config {
            heartbeat_interval: 100,
            election_timeout_min: 300,
            election_timeout_max: 600,
            // The log keeps few entries below a snapshot, so a node that lost its directory needs a
            // snapshot.
            snapshot_policy: SnapshotPolicy::LogsSinceLast(500),
            max_in_snapshot_log_to_keep: 100,
            ..Config::default()
        };
        Ok(Self {
            directory: directory.to_path_buf(),
            config: Arc::new(config.validate()?),
            network: Network::default(),
            nodes: BTreeMap::new(),
        })
    }

    fn path(&self, id: u64) -> PathBuf {
        self.directory.join(format!("node-{id}"))
    }

    async fn start(&mut self, id: u64) -> Result<()> {
        let options = sprag_openraft_09::config(self.path(id)).segment_bytes(1 << 20);
        // Opening reads the log, so it runs outside of the runtime's threads.
        let store = tokio::task::spawn_blocking(move || {
            let machine = PersistentStateMachine::open(options)?;
            Store::<Types, App>::new(machine, ApplyConfig::new())
        });
        let Store { log, state_machine, handle, .. } = store.await??;
        let (config, network) = (Arc::clone(&self.config), self.network.clone());
        let raft = Raft::new(id, config, network, log, state_machine).await?;
        self.network.connect(id, raft.clone());
        self.nodes.insert(id, Node { raft, handle });
        Ok(())
    }

    /// Stops a node, and waits until its directory is free.
    async fn stop(&mut self, id: u64) -> Result<()> {
        self.network.disconnect(id);
        let Some(node) = self.nodes.remove(&id) else { return Ok(()) };
        tokio::time::timeout(PATIENCE, node.raft.shutdown()).await??;
        let closed = node.handle.closed();
        drop(node);
        Ok(tokio::time::timeout(PATIENCE, closed).await?)
    }

    /// Kills a node: it restarts from a copy of its files taken while it ran. All nodes share this
    /// process, so the node is also stopped. The restart sees nothing that a stop closes, syncs or
    /// marks.
    async fn kill(&mut self, id: u64) -> Result<()> {
        self.network.disconnect(id);
        let (path, left) = (self.path(id), self.directory.join(format!("killed-{id}")));
        copy_while_written(&path, &left)?;
        self.stop(id).await?;
        std::fs::remove_dir_all(&path)?;
        Ok(std::fs::rename(&left, &path)?)
    }

    /// The result of `step`, or an error with the state of each node if `step` takes too long.
    async fn within<T, E>(&self, what: &str, step: impl Future<Output = Result<T, E>>) -> Result<T>
    where
        E: Error + Send + Sync + 'static,
    {
        if let Ok(done) = tokio::time::timeout(PATIENCE, step).await {
            return Ok(done?);
        }
        for (id, node) in &self.nodes {
            eprintln!("node {id}: {}", node.raft.metrics().borrow().clone());
        }
        Err(format!("{what} takes longer than {PATIENCE:?}").into())
    }

    /// The id of a node that leads, confirmed by a quorum.
    async fn leader(&self) -> Result<u64> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            for (id, node) in &self.nodes {
                // A node that wrongly believes to lead may get no answer.
                let asked = node.raft.ensure_linearizable();
                if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(2), asked).await {
                    return Ok(*id);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err("no leader".into())
    }

    async fn write(&self, round: u64, count: u64) -> Result<u64> {
        let mut last = 0;
        for number in 0..count {
            let key = format!("key-{:03}", number % 300);
            self.propose(Request::put(key, format!("{round}-{number}"))).await?;
            last = self.propose(Request::increment("writes", 1)).await?;
        }
        Ok(last)
    }

    /// Proposes a command until it is applied. Returns the index of the entry. (A command that is
    /// tried again after a timeout may be applied twice. A client for whom that matters sends a
    /// compare-and-set.)
    async fn propose(&self, request: Request) -> Result<u64> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let leader = self.nodes.get(&self.leader().await?).ok_or("no leader")?;
            let write = leader.raft.client_write(request.clone());
            match tokio::time::timeout(Duration::from_secs(2), write).await {
                Ok(Ok(response)) => return Ok(response.log_id.index),
                Ok(Err(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        Err("no node takes the write".into())
    }

    /// Waits until every node has applied the entry, and prints the watermarks of each node.
    async fn settle(&self, what: &str, index: u64) -> Result<()> {
        println!("{what}:");
        for (id, node) in &self.nodes {
            node.raft.wait(Some(PATIENCE)).applied_index_at_least(Some(index), what).await?;
            let stats = node.handle.stats();
            println!(
                "  node {id}: applied {:?}, committed {:?}, durable {:?}, snapshot {:?}, log on {}",
                stats.applied, stats.committed, stats.durable, stats.snapshot, stats.io_backend
            );
        }
        Ok(())
    }

    /// Digests of all nodes at the same index. The function waits for entries on their way, such as
    /// a new leader's first entry.
    async fn equal_digests(&self) -> Result<BTreeMap<u64, (Option<u64>, u64)>> {
        let started = Instant::now();
        loop {
            let mut digests = BTreeMap::new();
            for (id, node) in &self.nodes {
                let handle = node.handle.clone();
                let digest = tokio::task::spawn_blocking(move || digest(&handle));
                digests.insert(*id, digest.await??);
            }
            let distinct: BTreeSet<_> = digests.values().collect();
            let indexes: BTreeSet<_> = digests.values().map(|(index, _)| index).collect();
            if distinct.len() == 1 {
                return Ok(digests);
            }
            if indexes.len() == 1 {
                return Err(format!("the states differ: {digests:x?}").into());
            }
            if started.elapsed() > PATIENCE {
                return Err("the nodes do not come to the same index".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn leading(&self) -> Result<&Raft<Types>> {
        Ok(&self.nodes.get(&self.leader().await?).ok_or("no leader")?.raft)
    }
}

/// Copies a node's directory while it runs. META is copied last, so that the copy's META does not
/// know more than the other files.
fn copy_while_written(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    let names = std::fs::read_dir(from)?.map(|file| Ok(file?.file_name()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>()?;
    names.sort_by_key(|name| name == "META");
    for name in names {
        match std::fs::copy(from.join(&name), to.join(&name)) {
            // The node removed this file since, because nothing needs it any more.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => drop(copied?),
        }
    }
    Ok(())
}

/// FNV-1a over all keys and values in order, with their lengths.
fn digest(handle: &Handle<Types, App>) -> Result<(Option<u64>, u64)> {
    let view = handle.view()?;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for entry in &view {
        let (key, value) = entry?;
        let lengths = [key.len() as u64, value.len() as u64].map(u64::to_le_bytes);
        for byte in lengths.iter().flatten().chain(key.iter()).chain(value.iter()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok((view.log_id().map(|log_id| log_id.index), hash))
}

#[tokio::main]
async fn main() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("sprag-three-nodes-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let ended = run(&directory).await;
    std::fs::remove_dir_all(&directory)?;
    ended
}

async fn run(directory: &Path) -> Result<()> {
    let mut cluster = Cluster::new(directory)?;
    for id in NODES {
        cluster.start(id).await?;
    }
    let members: BTreeMap<u64, BasicNode> = NODES.map(|id| (id, BasicNode::default())).into();
    cluster.nodes[&1].raft.initialize(members).await?;
    let last = cluster.write(1, 400).await?;
    cluster.settle("after the first writes", last).await?;

    let old = cluster.leader().await?;
    cluster.kill(old).await?;
    // The other nodes notice the loss after an election timeout.
    let new = cluster.leader().await?;
    println!("the leader, node {old}, was killed; node {new} leads");
    cluster.write(2, 400).await?;
    cluster.start(old).await?;
    let last = cluster.write(3, 50).await?;
    cluster.settle("the old leader is back", last).await?;

    let lost = *NODES.iter().find(|id| **id != new).ok_or("no follower")?;
    cluster.stop(lost).await?;
    std::fs::remove_dir_all(cluster.path(lost))?;
    println!("the directory of node {lost} was lost");
    // The node has forgotten its vote, so it may become a member again only after it has caught up.
    let others: BTreeSet<u64> = NODES.into_iter().filter(|id| *id != lost).collect();
    let change = cluster.leading().await?.change_membership(others, false);
    cluster.within("taking it out", change).await?;
    cluster.write(4, 100).await?;
    cluster.start(lost).await?;
    let learner = cluster.leading().await?.add_learner(lost, BasicNode::default(), true);
    cluster.within("adding it as a learner", learner).await?;
    let change = cluster.leading().await?.change_membership(BTreeSet::from(NODES), false);
    cluster.within("taking it in again", change).await?;
    let last = cluster.write(5, 10).await?;
    cluster.settle("it is back, by a snapshot", last).await?;

    let digests = cluster.equal_digests().await?;
    for (id, (index, digest)) in &digests {
        println!("node {id}: state {digest:016x} at index {index:?}");
    }
    for id in NODES {
        cluster.stop(id).await?;
    }
    println!("they are equal");
    Ok(())
}
