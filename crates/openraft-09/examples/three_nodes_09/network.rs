//! A network inside one process: a node calls another node's functions. It hands over values that a
//! real network would serialize.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use openraft::error::{
    Fatal, InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable,
};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, Raft, declare_raft_types};
use sprag_openraft_09::{Request, Response, SnapshotFile};

declare_raft_types!(
    /// A key-value node.
    pub(crate) Types: D = Request, R = Response, SnapshotData = SnapshotFile
);

/// The nodes that can be reached, by their ids.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<BTreeMap<u64, Raft<Types>>>>);

impl Network {
    fn nodes(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Raft<Types>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the node reachable.
    pub(crate) fn connect(&self, id: u64, raft: Raft<Types>) {
        self.nodes().insert(id, raft);
    }

    /// Makes the node unreachable.
    #[allow(dead_code, reason = "a test that shares this file stops no node")]
    pub(crate) fn disconnect(&self, id: u64) -> Option<Raft<Types>> {
        self.nodes().remove(&id)
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

type Failure<E> = RPCError<u64, BasicNode, RaftError<u64, E>>;

fn unreachable<E: std::error::Error>() -> Failure<E> {
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    Unreachable::new(&refused).into()
}

impl Connection {
    fn target(&self) -> Option<Raft<Types>> {
        self.network.nodes().get(&self.target).cloned()
    }

    fn failed<E: std::error::Error>(&self, error: RaftError<u64, E>) -> Failure<E> {
        match error {
            // A node that is going down sends no answer, as a dead process would.
            RaftError::Fatal(Fatal::Stopped | Fatal::Panicked | Fatal::StorageError(_)) => {
                let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                NetworkError::new(&reset).into()
            }
            error => RemoteError::new(self.target, error).into(),
        }
    }
}

impl RaftNetwork<Types> for Connection {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failure<openraft::error::Infallible>> {
        let target = self.target().ok_or_else(unreachable)?;
        target.append_entries(request).await.map_err(|error| self.failed(error))
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failure<InstallSnapshotError>> {
        let target = self.target().ok_or_else(unreachable)?;
        target.install_snapshot(request).await.map_err(|error| self.failed(error))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failure<openraft::error::Infallible>> {
        let target = self.target().ok_or_else(unreachable)?;
        target.vote(request).await.map_err(|error| self.failed(error))
    }
}
