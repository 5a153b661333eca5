//! The state machine store: committed entries are applied from the log, which already has their
//! bytes.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use sprag_raft_store::{Application, Node, SnapshotFile, View};

use crate::types::{Openraft, Types, failed, meta, stored, to_openraft, to_raft};

/// The state machine of one node. [`Store::new`](crate::Store::new) makes it.
#[derive(Debug)]
pub struct StateMachineStore<C: Types, A: Application<C::D, C::R>>(
    pub(crate) Arc<Node<Openraft<C, A>>>,
);

/// A builder that writes a snapshot, beside apply.
#[derive(Debug)]
pub struct SnapshotBuilder<C: Types, A: Application<C::D, C::R>> {
    node: Arc<Node<Openraft<C, A>>>,
    /// The state to write; `None` once it was written.
    view: Option<View>,
}

impl<C: Types, A: Application<C::D, C::R>> Drop for StateMachineStore<C, A> {
    fn drop(&mut self) {
        self.0.ends_installs();
    }
}

impl<C: Types, A: Application<C::D, C::R>> RaftStateMachine<C> for StateMachineStore<C, A> {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder<C, A>;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<C>>, StoredMembershipOf<C>), io::Error> {
        let kept = self.0.membership();
        let membership = kept.map(|(log_id, bytes)| stored::<C>(log_id, &bytes)).transpose();
        let membership = membership.map_err(failed)?.unwrap_or_default();
        Ok((self.0.applied().map_err(failed)?.as_ref().map(to_openraft::<C>), membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<C>, io::Error>> + Unpin + OptionalSend,
    {
        let (mut committed, mut responders) = (Vec::new(), Vec::new());
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            committed.push(entry);
            responders.push(responder);
        }
        let wants: Vec<bool> = responders.iter().map(Option::is_some).collect();
        let wants = |at: usize| wants.get(at).copied() == Some(true);
        let replies = self.0.apply(&committed, wants).await.map_err(failed)?;
        for (responder, reply) in responders.into_iter().flatten().zip(replies) {
            responder.send(A::response(reply));
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        SnapshotBuilder { node: Arc::clone(&self.0), view: Some(self.0.view().await) }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<C>,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        let last = meta.last_log_id.as_ref().map(to_raft::<C>);
        self.0.install(last, snapshot).await.map_err(failed)
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<C, SnapshotFile>>, io::Error> {
        let newest = self.0.newest().await.map_err(failed)?;
        newest.map(to_snapshot::<C>).transpose()
    }
}

impl<C: Types, A: Application<C::D, C::R>> RaftSnapshotBuilder<C> for SnapshotBuilder<C, A> {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<C, SnapshotFile>, io::Error> {
        let view = match self.view.take() {
            Some(view) => view,
            None => self.node.view().await,
        };
        match self.node.build(view).await.map_err(failed)? {
            Some(newest) => to_snapshot::<C>(newest),
            None => {
                let meta = SnapshotMetaOf::<C>::default();
                Ok(SnapshotOf::<C, _> { meta, snapshot: SnapshotFile::nothing() })
            }
        }
    }
}

/// Openraft's snapshot of a file, with the metadata that is in the file itself. For an arriving
/// file, call [`SnapshotFile::finish`] first.
///
/// A network that gives the result to
/// [`install_full_snapshot`](openraft::Raft::install_full_snapshot) need not trust the metadata of
/// the request.
///
/// # Errors
///
/// Returns the errors of [`SnapshotFile::snapshot`], and
/// [`DataError`](sprag_raft_store::DataError) for a snapshot of another kind of node.
pub fn to_snapshot<C: Types>(file: SnapshotFile) -> Result<SnapshotOf<C, SnapshotFile>, io::Error> {
    let meta = meta::<C>(&file.snapshot().map_err(failed)?).map_err(failed)?;
    Ok(SnapshotOf::<C, _> { meta, snapshot: file })
}
