//! A network inside one process: a node calls another node's functions. It hands over values that a
//! real network would serialize.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use openraft::errors::{
    NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotOf, VoteOf};
use openraft::{BasicNode, OptionalSend, Raft, declare_raft_types};
use sprag::PersistentStateMachine;
use sprag_openraft::{
    Handle, KeyValue, Request, Response, SnapshotFile, StateMachineStore, to_snapshot,
};

declare_raft_types!(
    /// A key-value node.
    pub(crate) Types: D = Request, R = Response
);

pub(crate) type App = KeyValue<PersistentStateMachine>;
pub(crate) type Node = Raft<Types, StateMachineStore<Types, App>>;

/// The nodes that can be reached, by their ids.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<BTreeMap<u64, Peer>>>);

/// A node, and its storage, which receives snapshots.
#[derive(Clone)]
struct Peer {
    raft: Node,
    handle: Handle<Types, App>,
}

impl Network {
    fn nodes(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Peer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the node reachable.
    pub(crate) fn connect(&self, id: u64, raft: Node, handle: Handle<Types, App>) {
        self.nodes().insert(id, Peer { raft, handle });
    }

    /// Makes the node unreachable.
    #[allow(dead_code, reason = "a measurement that shares this file stops no node")]
    pub(crate) fn disconnect(&self, id: u64) {
        self.nodes().remove(&id);
    }
}

/// A connection from one node to another.
pub(crate) struct Connection {
    network: Network,
    target: u64,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Connection {
        Connection { network: self.clone(), target }
    }
}

/// A node that is going down sends no answer, as a dead process would.
fn reset(_ended: RaftError<Types>) -> RPCError<Types> {
    NetworkError::new(&std::io::Error::from(std::io::ErrorKind::ConnectionReset)).into()
}

impl Connection {
    fn target(&self) -> Result<Peer, Unreachable<Types>> {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        self.network.nodes().get(&self.target).cloned().ok_or(Unreachable::new(&refused))
    }
}

impl RaftNetworkV2<Types> for Connection {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.target()?.raft.append_entries(request).await.map_err(reset)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.target()?.raft.vote(request).await.map_err(reset)
    }

    /// Sends the bytes of the snapshot's file, and installs what has arrived.
    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        mut snapshot: SnapshotOf<Types, SnapshotFile>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let peer = self.target()?;
        let mut arriving = peer.handle.receive_snapshot();
        let sent = tokio::io::copy(&mut snapshot.snapshot, &mut arriving).await;
        sent.map_err(|error| NetworkError::new(&error))?;
        // A damaged snapshot is an error of this call, and the leader sends it again.
        arriving.finish().await.map_err(|error| NetworkError::new(&error))?;
        let arrived = to_snapshot::<Types>(arriving).map_err(|error| NetworkError::new(&error))?;
        let installed = peer.raft.install_full_snapshot(vote, arrived).await;
        Ok(installed.map_err(|error| NetworkError::new(&error))?)
    }
}
