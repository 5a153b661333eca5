//! A network of bytes between nodes of either openraft line. Each request and each response is
//! serialized as JSON, as a process on another machine would get it. Snapshots travel in pieces, in
//! the requests that openraft 0.9 has for them.
//!
//! Error bodies of the two lines are not compatible, so an answer only says what the sender needs.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "tests")]

pub mod cluster;
mod new;
mod old;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sprag::PersistentStateMachine;
use sprag_openraft::KeyValue;
use tokio::sync::watch;

pub use new::NewNode;
pub use old::{Old, OldNode};

pub type App = KeyValue<PersistentStateMachine>;

/// A kind of request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Call {
    Append,
    Vote,
    Snapshot,
}

/// Reason why there is no response.
#[derive(Debug)]
enum Refused {
    Unreachable,
    /// A piece is not of the snapshot that arrives: send it from its beginning.
    Mismatch,
    Failed(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("the node cannot be reached"),
            Self::Mismatch => f.write_str("the piece is not of the snapshot that arrives"),
            Self::Failed(error) => f.write_str(error),
        }
    }
}

fn failed(error: impl ToString) -> Refused {
    Refused::Failed(error.to_string())
}

/// The receiving end of a node.
#[derive(Clone)]
enum Server {
    New(new::Server),
    Old(old::Server),
}

/// One node's end of the network, for its Raft.
#[derive(Clone)]
pub struct Sender {
    wire: Wire,
    from: u64,
}

/// The network; clones share it.
#[derive(Clone, Default)]
pub struct Wire(Arc<Shared>);

#[derive(Default)]
struct Shared {
    servers: Mutex<BTreeMap<u64, Server>>,
    /// Nodes that neither reach another node nor are reached.
    isolated: Mutex<BTreeSet<u64>>,
    /// Number of snapshots whose bytes are damaged on their way.
    to_damage: AtomicUsize,
    damaged: AtomicUsize,
    /// Whether a piece of a snapshot waits on its way, and whether one does.
    holding: watch::Sender<(bool, bool)>,
}

impl Wire {
    fn sender(&self, from: u64) -> Sender {
        Sender { wire: self.clone(), from }
    }

    fn connect(&self, id: u64, server: Server) {
        self.0.servers.lock().unwrap().insert(id, server);
    }

    /// Makes a node unreachable for the others.
    pub fn disconnect(&self, id: u64) {
        self.0.servers.lock().unwrap().remove(&id);
    }

    /// Cuts a node off from all others, or connects it again.
    pub fn isolate(&self, id: u64, isolated: bool) {
        let mut all = self.0.isolated.lock().unwrap();
        if isolated {
            all.insert(id)
        } else {
            all.remove(&id)
        };
    }

    /// Flips a bit of each of the next snapshots that are sent.
    pub fn damage_snapshots(&self, count: usize) {
        self.0.to_damage.store(count, Ordering::SeqCst);
    }

    /// Number of snapshots that were damaged.
    pub fn damaged(&self) -> usize {
        self.0.damaged.load(Ordering::SeqCst)
    }

    /// Has the next piece of a snapshot wait on its way, without an end. The first piece passes.
    pub fn hold_snapshots(&self) {
        self.0.holding.send_replace((true, false));
    }

    /// Waits until a piece waits.
    pub async fn held(&self) {
        self.0.holding.subscribe().wait_for(|(_, held)| *held).await.unwrap();
    }

    async fn call<R: DeserializeOwned>(
        &self,
        (from, to): (u64, u64),
        call: Call,
        request: &impl Serialize,
    ) -> Result<R, Refused> {
        let mut bytes = serde_json::to_vec(request).unwrap();
        if call == Call::Snapshot {
            bytes = self.on_the_way(bytes).await;
        }
        let is_cut_off = |id| self.0.isolated.lock().unwrap().contains(&id);
        if is_cut_off(from) || is_cut_off(to) {
            return Err(Refused::Unreachable);
        }
        let server = self.0.servers.lock().unwrap().get(&to).cloned();
        let answer = match server.ok_or(Refused::Unreachable)? {
            Server::New(server) => server.serve(call, &bytes).await,
            Server::Old(server) => server.serve(call, &bytes).await,
        };
        Ok(serde_json::from_slice(&answer?).unwrap())
    }

    /// Carries a piece of a snapshot: it may be damaged, or wait without an end.
    async fn on_the_way(&self, bytes: Vec<u8>) -> Vec<u8> {
        let mut piece: Value = serde_json::from_slice(&bytes).unwrap();
        let is_first = piece["offset"] == 0;
        if !is_first && self.0.holding.borrow().0 {
            self.0.holding.send_replace((true, true));
            std::future::pending::<()>().await;
        }
        let take = |count: usize| count.checked_sub(1);
        let (ordering, damage) = (Ordering::SeqCst, &self.0.to_damage);
        if !is_first || damage.fetch_update(ordering, ordering, take).is_err() {
            return bytes;
        }
        self.0.damaged.fetch_add(1, ordering);
        let data = piece["data"].as_array_mut().unwrap();
        let middle = data.len() / 2;
        data[middle] = Value::from(data[middle].as_u64().unwrap() ^ 1);
        serde_json::to_vec(&piece).unwrap()
    }
}
