//! A node under openraft 0.9, and its ends of the network.

use openraft_09::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, SnapshotMismatch,
    Unreachable,
};
use openraft_09::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft_09::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft_09::{BasicNode, Raft, SnapshotSegmentId};
use sprag_openraft_09::Handle;

use super::{App, Call, Refused, Sender, Wire, failed};

openraft_09::declare_raft_types!(
    /// A key-value node under openraft 0.9.
    pub Old:
        D = sprag_openraft::Request,
        R = sprag_openraft::Response,
        SnapshotData = sprag_openraft::SnapshotFile
);

#[derive(Clone)]
pub struct OldNode {
    pub raft: Raft<Old>,
    pub handle: Handle<Old, App>,
}

/// The receiving end.
#[derive(Clone)]
pub(super) struct Server(pub(super) OldNode);

impl Server {
    pub(super) async fn serve(&self, call: Call, bytes: &[u8]) -> Result<Vec<u8>, Refused> {
        let raft = &self.0.raft;
        let answer = match call {
            Call::Append => {
                let request: AppendEntriesRequest<Old> = serde_json::from_slice(bytes).unwrap();
                serde_json::to_vec(&raft.append_entries(request).await.map_err(failed)?)
            }
            Call::Vote => {
                let request: VoteRequest<u64> = serde_json::from_slice(bytes).unwrap();
                serde_json::to_vec(&raft.vote(request).await.map_err(failed)?)
            }
            Call::Snapshot => {
                let request: InstallSnapshotRequest<Old> = serde_json::from_slice(bytes).unwrap();
                let installed = raft.install_snapshot(request).await;
                serde_json::to_vec(&installed.map_err(|error| match error {
                    RaftError::APIError(InstallSnapshotError::SnapshotMismatch(_)) => {
                        Refused::Mismatch
                    }
                    error => failed(error),
                })?)
            }
        };
        Ok(answer.unwrap())
    }
}

/// The sending end.
pub struct Connection {
    wire: Wire,
    /// The sender and the receiver.
    ends: (u64, u64),
}

impl RaftNetworkFactory<Old> for Sender {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Connection {
        Connection { wire: self.wire.clone(), ends: (self.from, target) }
    }
}

type Failure<E> = RPCError<u64, BasicNode, RaftError<u64, E>>;

fn failure<E: std::error::Error>(refused: &Refused) -> Failure<E> {
    let error = std::io::Error::other(refused.to_string());
    match refused {
        Refused::Unreachable => Unreachable::new(&error).into(),
        Refused::Mismatch | Refused::Failed(_) => NetworkError::new(&error).into(),
    }
}

impl RaftNetwork<Old> for Connection {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Old>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failure<openraft_09::error::Infallible>> {
        let answer = self.wire.call(self.ends, Call::Append, &request).await;
        answer.map_err(|refused| failure(&refused))
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Old>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failure<InstallSnapshotError>> {
        let answer = self.wire.call(self.ends, Call::Snapshot, &request).await;
        answer.map_err(|refused| match refused {
            Refused::Mismatch => {
                let segment =
                    |offset| SnapshotSegmentId { id: request.meta.snapshot_id.clone(), offset };
                let (expect, got) = (segment(0), segment(request.offset));
                let mismatch = SnapshotMismatch { expect, got };
                RemoteError::new(self.ends.1, RaftError::APIError(mismatch.into())).into()
            }
            refused => failure(&refused),
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failure<openraft_09::error::Infallible>> {
        let answer = self.wire.call(self.ends, Call::Vote, &request).await;
        answer.map_err(|refused| failure(&refused))
    }
}
