//! Three nodes in one process, and clients that write to the leader.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use futures_util::StreamExt;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, VoteRequest,
    VoteResponse,
};
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::type_config::alias::{SnapshotOf, VoteOf};
use openraft::{
    BasicNode, Config, OptionalSend, Raft, RaftNetworkFactory, RaftNetworkV2, ServerState,
    SnapshotPolicy,
};

use super::types::{Key, Put, Types};
use crate::groups::VALUE_BYTES;

/// Log and state machine of one node.
pub(crate) struct Node<L, S> {
    pub(crate) log: L,
    pub(crate) state: S,
    /// Syncs of this node so far, where its store knows.
    pub(crate) syncs: Option<Syncs>,
}

/// A counter of syncs.
pub(crate) type Syncs = Box<dyn Fn() -> u64 + Send + Sync>;

/// A kind of node: how its log and its state are kept.
pub(crate) trait Kind {
    type Log: RaftLogStorage<Types>;
    type State: RaftStateMachine<Types>;

    /// Makes an empty node. `dir` is the node's own.
    fn create(&self, dir: &Path) -> Result<Node<Self::Log, Self::State>>;
}

/// Clients, and for how long they write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
}

/// Figures of a round, for each write of a client where nothing else is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) writes_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) leader_syncs: f64,
    /// Syncs of one follower.
    pub(crate) follower_syncs: f64,
    /// Syncs of all nodes in the time that is measured, those of stores that do not know left out.
    pub(crate) node_syncs: u64,
    /// Bytes given to the kernel's write calls, of one node.
    pub(crate) written_bytes: f64,
    /// Processor time of the three nodes and of the clients.
    pub(crate) processor_us: f64,
}

const LEADER: u64 = 1;
const NODES: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(30);
/// Keys that the clients write to.
const KEYS: u64 = 100_000;

type Rafts<S> = Arc<Mutex<BTreeMap<u64, Raft<Types, S>>>>;

/// The way from one node to the others: a call.
struct Calls<S: RaftStateMachine<Types>>(Rafts<S>);

/// The way to one node.
struct Call<S: RaftStateMachine<Types>> {
    rafts: Rafts<S>,
    target: u64,
}

fn unreachable(error: &(impl std::error::Error + 'static)) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl<S: RaftStateMachine<Types>> Call<S> {
    fn raft(&self) -> Result<Raft<Types, S>, RPCError<Types>> {
        let rafts = self.rafts.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || RPCError::Unreachable(Unreachable::from_string("the node is gone"));
        rafts.get(&self.target).cloned().ok_or_else(gone)
    }
}

impl<S: RaftStateMachine<Types>> RaftNetworkFactory<Types> for Calls<S> {
    type Network = Call<S>;

    async fn new_client(&mut self, target: u64, _: &BasicNode) -> Call<S> {
        Call { rafts: Arc::clone(&self.0), target }
    }
}

impl<S: RaftStateMachine<Types>> RaftNetworkV2<Types> for Call<S> {
    type SnapshotData = S::SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.raft()?.append_entries(request).await.map_err(|error| unreachable(&error))
    }

    /// Requests follow each other without a wait for the answers.
    fn stream_append<'s, I>(
        &'s mut self,
        input: I,
        _: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        I: futures_util::Stream<Item = AppendEntriesRequest<Types>>
            + OptionalSend
            + Unpin
            + 'static,
    {
        Box::pin(async move {
            let answers = self.raft()?.stream_append(input);
            let answers = answers.map(|answer| answer.map_err(|error| unreachable(&error)));
            Ok(Box::pin(answers) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.raft()?.vote(request).await.map_err(|error| unreachable(&error))
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, S::SnapshotData>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let installed = self.raft()?.install_full_snapshot(vote, snapshot).await;
        installed.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))
    }
}

/// Three nodes, the first of which leads.
pub(crate) struct Cluster<S: RaftStateMachine<Types>> {
    rafts: Rafts<S>,
    pub(crate) leader: Raft<Types, S>,
    syncs: Vec<Option<Syncs>>,
}

impl<S: RaftStateMachine<Types>> Cluster<S> {
    pub(crate) async fn start<L: RaftLogStorage<Types>>(
        kind: &impl Kind<Log = L, State = S>,
        dir: &Path,
    ) -> Result<Self> {
        let config = Config {
            // No election falls into a round, however late the disk answers.
            heartbeat_interval: 1_000,
            election_timeout_min: 10_000,
            election_timeout_max: 20_000,
            snapshot_policy: SnapshotPolicy::Never,
            ..Config::default()
        };
        let config = Arc::new(config.validate()?);
        let rafts = Rafts::<S>::default();
        let mut syncs = Vec::new();
        for id in 1..=NODES {
            let dir = dir.join(id.to_string());
            std::fs::create_dir_all(&dir)?;
            let node = kind.create(&dir).with_context(|| format!("node {id}"))?;
            let (config, calls) = (Arc::clone(&config), Calls(Arc::clone(&rafts)));
            let raft = Raft::new(id, config, calls, node.log, node.state).await?;
            rafts.lock().unwrap_or_else(PoisonError::into_inner).insert(id, raft);
            syncs.push(node.syncs);
        }
        let leader = rafts.lock().unwrap_or_else(PoisonError::into_inner)[&LEADER].clone();
        leader
            .initialize(
                (1..=NODES).map(|id| (id, BasicNode::default())).collect::<BTreeMap<_, _>>(),
            )
            .await?;
        let wait = leader.wait(Some(PATIENCE));
        wait.state(ServerState::Leader, "the first node leads").await?;
        // The node is told that it leads a moment before it takes writes.
        let began = Instant::now();
        while let Err(error) = leader.client_write(put(0)).await {
            if began.elapsed() > PATIENCE {
                return Err(error).context("the first write");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(Self { rafts, leader, syncs })
    }

    /// Runs the clients, and measures between the end of the warm-up and the end of the time.
    pub(crate) async fn run(&self, load: &Load) -> Result<Outcome> {
        let phase = Arc::new(AtomicU8::new(WARM_UP));
        let clients: Vec<_> = (0..load.clients)
            .map(|client| tokio::spawn(write(self.leader.clone(), client, Arc::clone(&phase))))
            .collect();
        tokio::time::sleep(load.warm_up).await;
        let before = Reading::now(&self.syncs)?;
        phase.store(MEASURED, Ordering::SeqCst);
        tokio::time::sleep(load.time).await;
        phase.store(OVER, Ordering::SeqCst);
        let after = Reading::now(&self.syncs)?;
        let (mut writes, mut times) = (0, Vec::new());
        for client in clients {
            let done = tokio::time::timeout(PATIENCE, client).await;
            let done = done.context("a client's write does not return")???;
            writes += done.writes;
            times.extend(done.times_us);
        }
        Outcome::of(&before, &after, writes, &mut times)
    }

    /// Ends all nodes.
    pub(crate) async fn stop(self) -> Result<()> {
        let Self { rafts, leader, .. } = self;
        drop(leader);
        let rafts = std::mem::take(&mut *rafts.lock().unwrap_or_else(PoisonError::into_inner));
        for raft in rafts.into_values() {
            raft.shutdown().await?;
        }
        Ok(())
    }
}

const WARM_UP: u8 = 0;
const MEASURED: u8 = 1;
const OVER: u8 = 2;

/// The `n`-th put of all clients.
pub(crate) fn put(n: u64) -> Put {
    let mut key = Key::default();
    // Neighbours in time are no neighbours in the table.
    let number = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS;
    key[8..].copy_from_slice(&number.to_be_bytes());
    let mut value = [0x5a; VALUE_BYTES];
    value[..8].copy_from_slice(&n.to_le_bytes());
    Put::new(&key, &value)
}

/// Writes of a client in the time that is measured.
struct Done {
    writes: u64,
    /// Times of the writes that began in that time too.
    times_us: Vec<u32>,
}

async fn write<S: RaftStateMachine<Types>>(
    leader: Raft<Types, S>,
    client: usize,
    phase: Arc<AtomicU8>,
) -> Result<Done> {
    let mut done = Done { writes: 0, times_us: Vec::new() };
    let first = (client as u64) << 32;
    for n in first + 1.. {
        let (began, began_in) = (Instant::now(), phase.load(Ordering::Relaxed));
        leader.client_write(put(n)).await?;
        match phase.load(Ordering::Relaxed) {
            WARM_UP => {}
            MEASURED => {
                done.writes += 1;
                if began_in == MEASURED {
                    done.times_us.push(u32::try_from(began.elapsed().as_micros())?);
                }
            }
            _ => break,
        }
    }
    Ok(done)
}

/// Counters at one moment.
struct Reading {
    at: Instant,
    processor: Duration,
    written_bytes: u64,
    /// Syncs of each node; not a number where the store does not know.
    syncs: Vec<f64>,
}

impl Reading {
    #[allow(clippy::cast_precision_loss, reason = "syncs of a run are far below 2^53")]
    fn now(syncs: &[Option<Syncs>]) -> Result<Self> {
        let processor = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let io = std::fs::read_to_string("/proc/self/io")?;
        let bytes = io.lines().find_map(|line| line.strip_prefix("wchar: "));
        Ok(Self {
            at: Instant::now(),
            processor: processor.try_into().map_err(|_| anyhow!("the clock went back"))?,
            written_bytes: bytes.context("/proc/self/io has no wchar")?.parse()?,
            syncs: syncs
                .iter()
                .map(|syncs| syncs.as_ref().map_or(f64::NAN, |n| n() as f64))
                .collect(),
        })
    }
}

impl Outcome {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "counts of a round are whole numbers far below 2^53"
    )]
    fn of(before: &Reading, after: &Reading, writes: u64, times_us: &mut [u32]) -> Result<Self> {
        times_us.sort_unstable();
        let at = |part: usize| {
            let place = (times_us.len() * part / 100).min(times_us.len().saturating_sub(1));
            times_us.get(place).copied().map(f64::from)
        };
        let none = || anyhow!("no write completed in the time that is measured");
        let of_command = |amount: f64| amount / writes as f64;
        let syncs = |node: usize| of_command(after.syncs[node] - before.syncs[node]);
        let followers = (1..before.syncs.len()).map(syncs);
        let of_node = |node: usize| after.syncs[node] - before.syncs[node];
        let known = (0..before.syncs.len()).map(of_node).filter(|syncs| !syncs.is_nan());
        let written_bytes =
            (after.written_bytes - before.written_bytes) as f64 / before.syncs.len() as f64;
        Ok(Self {
            writes_per_s: writes as f64 / (after.at - before.at).as_secs_f64(),
            p50_us: at(50).ok_or_else(none)?,
            p99_us: at(99).ok_or_else(none)?,
            leader_syncs: syncs(0),
            follower_syncs: followers.sum::<f64>() / (NODES - 1) as f64,
            node_syncs: known.sum::<f64>() as u64,
            written_bytes: of_command(written_bytes),
            processor_us: of_command((after.processor - before.processor).as_secs_f64() * 1e6),
        })
    }
}
