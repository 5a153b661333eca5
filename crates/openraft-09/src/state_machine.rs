//! The state machine store: committed entries are applied from the log, which already has their
//! bytes.

use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, Entry, ErrorSubject, ErrorVerb, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot,
    SnapshotMeta, StorageError, StorageIOError, StoredMembership,
};
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
    type SnapshotBuilder = SnapshotBuilder<C, A>;

    async fn applied_state(
        &mut self,
    ) -> Result<
        (Option<LogId<C::NodeId>>, StoredMembership<C::NodeId, C::Node>),
        StorageError<C::NodeId>,
    > {
        let kept = self.0.membership();
        let membership = kept.map(|(log_id, bytes)| stored::<C>(log_id, &bytes)).transpose();
        let membership = membership
            .map_err(|error| foreign::<C>(ErrorSubject::StateMachine, &error))?
            .unwrap_or_default();
        Ok((self.0.applied().map_err(failed)?.as_ref().map(to_openraft), membership))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<C::R>, StorageError<C::NodeId>>
    where
        I: IntoIterator<Item = Entry<C>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let replies = self.0.apply(&entries, |_| true).await.map_err(failed)?;
        Ok(replies.into_iter().map(A::response).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        SnapshotBuilder { node: Arc::clone(&self.0), view: Some(self.0.view().await) }
    }

    async fn begin_receiving_snapshot(
        &mut self,
    ) -> Result<Box<SnapshotFile>, StorageError<C::NodeId>> {
        Ok(Box::new(self.0.receive()))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<C::NodeId, C::Node>,
        snapshot: Box<SnapshotFile>,
    ) -> Result<(), StorageError<C::NodeId>> {
        let last = meta.last_log_id.as_ref().map(to_raft);
        self.0.install(last, *snapshot).await.map_err(failed)
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<C>>, StorageError<C::NodeId>> {
        let newest = self.0.newest().await.map_err(failed)?;
        newest.map(to_snapshot::<C>).transpose()
    }
}

impl<C: Types, A: Application<C::D, C::R>> RaftSnapshotBuilder<C> for SnapshotBuilder<C, A> {
    async fn build_snapshot(&mut self) -> Result<Snapshot<C>, StorageError<C::NodeId>> {
        let view = match self.view.take() {
            Some(view) => view,
            None => self.node.view().await,
        };
        match self.node.build(view).await.map_err(failed)? {
            Some(newest) => to_snapshot::<C>(newest),
            None => Ok(Snapshot {
                meta: SnapshotMeta::default(),
                snapshot: Box::new(SnapshotFile::nothing()),
            }),
        }
    }
}

/// Openraft's snapshot of a file, with the metadata that is in the file itself. For an arriving
/// file, call [`SnapshotFile::finish`] first.
///
/// # Errors
///
/// Returns the errors of [`SnapshotFile::snapshot`], and
/// [`DataError`](sprag_raft_store::DataError) for a snapshot of another kind of node.
pub fn to_snapshot<C: Types>(file: SnapshotFile) -> Result<Snapshot<C>, StorageError<C::NodeId>> {
    let subject = || ErrorSubject::Snapshot(None);
    let snapshot = file.snapshot().map_err(|error| foreign::<C>(subject(), &error))?;
    let meta = meta::<C>(&snapshot).map_err(|error| foreign::<C>(subject(), &error))?;
    Ok(Snapshot { meta, snapshot: Box::new(file) })
}

fn foreign<C: Types>(
    subject: ErrorSubject<C::NodeId>,
    error: &(impl std::error::Error + 'static),
) -> StorageError<C::NodeId> {
    StorageIOError::new(subject, ErrorVerb::Read, AnyError::new(error)).into()
}
