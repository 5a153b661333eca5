//! Under openraft: three nodes in one process, clients that put 16 + 100 bytes, and the stores that
//! a node can have.
//!
//! Every round begins with empty nodes. A client has one write in flight.

mod check;
mod cluster;
mod gather;
mod log;
mod peers;
#[cfg(feature = "logs")]
mod raft_log;
mod state;
#[cfg(test)]
mod tests;
mod types;
mod wal;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use sprag::{ApplyConfig, PersistentStateMachine};
use sprag_openraft::{KeyValue, LogStore, StateMachineStore, Store};

use self::cluster::{Cluster, Kind, Load, Node, Outcome};
use self::gather::Gathered;
use self::log::{Log, Nowhere};
use self::peers::{Fjall, Redb};
#[cfg(feature = "logs")]
use self::raft_log::RaftLog;
use self::state::{Memory, State};
use self::types::Types;
use self::wal::Wal;
use super::Settings;
use crate::measure::{Case, Figure, Measured, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::fresh;

const CLIENTS: [usize; 5] = [1, 16, 64, 256, 1_024];

/// Log and state in memory.
#[derive(Debug)]
pub(crate) struct InMemory;

impl Kind for InMemory {
    type Log = Log<Nowhere>;
    type State = State<Memory>;

    fn create(&self, _: &Path) -> Result<Node<Self::Log, Self::State>> {
        let state = State::new(Memory::default());
        Ok(Node { log: Log::new(Arc::new(Nowhere)), state, syncs: Some(Box::new(|| 0)) })
    }
}

/// A plain write-ahead log, and the state in memory.
#[derive(Debug)]
pub(crate) struct PlainLog {
    /// Length of the log's file: some 150 bytes a put.
    pub(crate) file_bytes: u64,
}

impl Kind for PlainLog {
    type Log = Log<Gathered<Wal>>;
    type State = State<Memory>;

    fn create(&self, dir: &Path) -> Result<Node<Self::Log, Self::State>> {
        let disk = Arc::new(Gathered::start(Wal::create(&dir.join("wal"), self.file_bytes)?)?);
        let log = Log::new(Arc::clone(&disk));
        let state = State::new(Memory::default());
        Ok(Node { log, state, syncs: Some(Box::new(move || disk.syncs())) })
    }
}

/// sprag: one log for openraft and for the state, which is the key-value machine on disk.
#[derive(Debug)]
pub(crate) struct Sprag;

impl Kind for Sprag {
    type Log = LogStore<Types, KeyValue<PersistentStateMachine>>;
    type State = StateMachineStore<Types, KeyValue<PersistentStateMachine>>;

    fn create(&self, dir: &Path) -> Result<Node<Self::Log, Self::State>> {
        let dir = dir.join("sprag");
        fresh(&dir)?;
        let machine = PersistentStateMachine::open(sprag_openraft::config(&dir))?;
        let Store { log, state_machine, handle, .. } = Store::new(machine, ApplyConfig::new())?;
        let syncs = move || handle.stats().log_writer.syncs;
        Ok(Node { log, state: state_machine, syncs: Some(Box::new(syncs)) })
    }
}

/// Runs one round on a runtime of its own, and ends the nodes.
fn round(kind: &impl Kind, dir: &Path, load: &Load) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    runtime.block_on(async {
        let cluster = Cluster::start(kind, dir).await?;
        let outcome = cluster.run(load).await;
        cluster.stop().await?;
        outcome
    })
}

fn subject<'a>(
    name: &str,
    role: Role,
    kind: impl Kind + 'a,
    settings: &Settings,
    load: Load,
) -> Subject<'a> {
    let dir = settings.dir.join(format!("openraft-{name}"));
    Subject::new(name, role, move || {
        let outcome = round(&kind, &dir, &load)?;
        let values = vec![
            1e6 / outcome.writes_per_s,
            outcome.p50_us,
            outcome.p99_us,
            outcome.leader_syncs,
            outcome.follower_syncs,
            outcome.written_bytes,
            outcome.processor_us,
        ];
        // sprag's system calls bypass the C library, whose syncs the process counts.
        let own_syncs = if role == Role::Sprag { outcome.node_syncs } else { 0 };
        Ok(Measured { values, own_syncs })
    })
}

/// Divisor from which on a run looks only whether the group works.
const DIVISOR_OF_TESTS: usize = 1_000;

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let is_test = settings.divisor >= DIVISOR_OF_TESTS;
    if !is_test {
        match check::plain_log_is_near_the_bare_calls(&settings.dir) {
            // The figures of a quick run are not for publication.
            Err(error) if settings.divisor > 1 => eprintln!("  {error:#}"),
            checked => checked?,
        }
    }
    let warm_up = Duration::from_millis(if settings.divisor > 1 { 20 } else { 100 });
    let time = Duration::from_millis(if settings.divisor > 1 { 100 } else { 500 });
    let file_bytes = if is_test { 4 << 20 } else { 128 << 20 };
    let mut rows = Vec::new();
    let all_clients = if is_test { &CLIENTS[1..2] } else { &CLIENTS[..] };
    let clients = if settings.clients.is_empty() { all_clients } else { &settings.clients };
    for clients in clients {
        let load = Load { clients: *clients, warm_up, time };
        let figures = [
            ("", Unit::MicrosecondsEach),
            ("p50", Unit::Microseconds),
            ("p99", Unit::Microseconds),
            ("syncs on the leader", Unit::CountEach),
            ("syncs on a follower", Unit::CountEach),
            ("bytes written by a node", Unit::BytesEach),
            ("processor time", Unit::MicrosecondsEach),
        ];
        let mut case = Case {
            group: "openraft",
            name: format!("{clients} clients"),
            figures: figures
                .map(|(name, unit)| Figure { name: name.to_owned(), unit, point: None })
                .to_vec(),
            subjects: vec![
                subject("mem", Role::Limit, InMemory, settings, load)
                    .differs(Some("in memory: nothing is durable")),
                subject("wal", Role::Limit, PlainLog { file_bytes }, settings, load),
                subject("sprag", Role::Sprag, Sprag, settings, load),
                subject("fjall1", Role::Peer, Fjall { syncs_state: false }, settings, load),
                subject("fjall2", Role::Peer, Fjall { syncs_state: true }, settings, load),
                subject("redb", Role::Peer, Redb, settings, load),
                #[cfg(feature = "logs")]
                subject("raft-log", Role::Peer, RaftLog, settings, load),
            ],
        };
        keep(&mut case, &settings.stores)?;
        rows.extend(case.run(settings.rounds)?);
    }
    Ok(rows)
}

/// Removes the subjects that were not asked for; no names ask for all.
fn keep(case: &mut Case<'_>, names: &[String]) -> Result<()> {
    let known: Vec<String> = case.subjects.iter().map(|store| store.name().to_owned()).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(name)) {
        bail!("there is no store {name:?}; the stores are {}", known.join(", "));
    }
    let is_kept = |name: &str| names.is_empty() || names.iter().any(|kept| kept == name);
    case.subjects.retain(|store| is_kept(store.name()));
    Ok(())
}
