//! A node under openraft 0.10, and its ends of the network.

use std::io::SeekFrom;
use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf, VoteOf};
use openraft::{BasicNode, OptionalSend, Raft};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sprag_openraft::{Handle, SnapshotFile, StateMachineStore, to_snapshot};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::{App, Call, Refused, Sender, Wire, failed};
use crate::common::Data;

/// Bytes of a piece of a snapshot.
const PIECE_BYTES: usize = 2 << 10;

#[derive(Clone)]
pub struct NewNode {
    pub raft: Raft<Data, StateMachineStore<Data, App>>,
    pub handle: Handle<Data, App>,
}

/// A piece of a snapshot, in the form of openraft 0.9.
#[derive(Serialize, Deserialize)]
struct Piece {
    vote: VoteOf<Data>,
    /// The metadata, with the id of the snapshot that openraft 0.9 looks at.
    meta: Value,
    offset: u64,
    data: Vec<u8>,
    done: bool,
}

/// The receiving end.
#[derive(Clone)]
pub(super) struct Server {
    node: NewNode,
    /// The snapshot that arrives, and its id.
    arriving: Arc<tokio::sync::Mutex<Option<(Value, SnapshotFile)>>>,
}

impl Server {
    pub(super) fn new(node: NewNode) -> Self {
        Self { node, arriving: Arc::default() }
    }

    pub(super) async fn serve(&self, call: Call, bytes: &[u8]) -> Result<Vec<u8>, Refused> {
        let raft = &self.node.raft;
        let answer = match call {
            Call::Append => {
                let request: AppendEntriesRequest<Data> = serde_json::from_slice(bytes).unwrap();
                serde_json::to_vec(&raft.append_entries(request).await.map_err(failed)?)
            }
            Call::Vote => {
                let request: VoteRequest<Data> = serde_json::from_slice(bytes).unwrap();
                serde_json::to_vec(&raft.vote(request).await.map_err(failed)?)
            }
            Call::Snapshot => {
                let piece = serde_json::from_slice(bytes).unwrap();
                serde_json::to_vec(&self.receive(piece).await?)
            }
        };
        Ok(answer.unwrap())
    }

    async fn receive(&self, piece: Piece) -> Result<SnapshotResponse<Data>, Refused> {
        let vote = self.node.raft.metrics().borrow_watched().vote;
        if vote > piece.vote {
            return Ok(SnapshotResponse::new(vote));
        }
        let id = &piece.meta["snapshot_id"];
        let mut arriving = self.arriving.lock().await;
        if piece.offset == 0 {
            *arriving = Some((id.clone(), self.node.handle.receive_snapshot()));
        }
        let current = arriving.as_mut().filter(|(current, _)| current == id);
        let Some((_, file)) = current else { return Err(Refused::Mismatch) };
        file.seek(SeekFrom::Start(piece.offset)).await.map_err(failed)?;
        file.write_all(&piece.data).await.map_err(failed)?;
        if !piece.done {
            return Ok(SnapshotResponse::new(vote));
        }
        let Some((_, mut file)) = arriving.take() else { return Err(Refused::Mismatch) };
        file.finish().await.map_err(failed)?;
        let snapshot = to_snapshot::<Data>(file).map_err(failed)?;
        self.node.raft.install_full_snapshot(piece.vote, snapshot).await.map_err(failed)
    }
}

/// The sending end.
pub struct Connection {
    wire: Wire,
    /// The sender and the receiver.
    ends: (u64, u64),
}

impl RaftNetworkFactory<Data> for Sender {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Connection {
        Connection { wire: self.wire.clone(), ends: (self.from, target) }
    }
}

impl From<Refused> for RPCError<Data> {
    fn from(refused: Refused) -> Self {
        let error = std::io::Error::other(refused.to_string());
        match refused {
            Refused::Unreachable => Unreachable::new(&error).into(),
            Refused::Mismatch | Refused::Failed(_) => NetworkError::new(&error).into(),
        }
    }
}

impl RaftNetworkV2<Data> for Connection {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Data>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Data>, RPCError<Data>> {
        Ok(self.wire.call(self.ends, Call::Append, &request).await?)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Data>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Data>, RPCError<Data>> {
        Ok(self.wire.call(self.ends, Call::Vote, &request).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Data>,
        mut snapshot: SnapshotOf<Data, SnapshotFile>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Data>, StreamingError<Data>> {
        let unread =
            |error: &dyn ToString| NetworkError::new(&std::io::Error::other(error.to_string()));
        let file = snapshot.snapshot.snapshot().map_err(|error| unread(&error))?;
        let (end, id) = (file.bytes(), file.id());
        // The file may be sent for as long as it takes, so its content must not be kept.
        drop(file);
        let meta: &SnapshotMetaOf<Data> = &snapshot.meta;
        let mut meta = serde_json::to_value(meta).unwrap();
        meta["snapshot_id"] = Value::from(format!("{:x}-{:08x}", id.file_bytes, id.footer_crc));
        let mut offset = 0;
        while offset < end {
            let mut data = vec![0; PIECE_BYTES.min(usize::try_from(end - offset).unwrap())];
            let read = snapshot.snapshot.read_exact(&mut data).await;
            read.map_err(|error| unread(&error))?;
            let next = offset + data.len() as u64;
            let piece = Piece { vote, meta: meta.clone(), offset, data, done: next == end };
            match self.wire.call::<SnapshotResponse<Data>>(self.ends, Call::Snapshot, &piece).await
            {
                Ok(response) if response.vote > vote => return Ok(response),
                Ok(_) => offset = next,
                Err(Refused::Mismatch) => {
                    offset = 0;
                    snapshot
                        .snapshot
                        .seek(SeekFrom::Start(0))
                        .await
                        .map_err(|error| unread(&error))?;
                }
                Err(refused) => return Err(RPCError::from(refused).into()),
            }
        }
        Ok(SnapshotResponse::new(vote))
    }
}
