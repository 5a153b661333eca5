//! The state machine store: committed entries are applied from the log, which already has their
//! bytes.

use std::sync::{Arc, PoisonError};

use openraft::storage::RaftStateMachine;
use openraft::{
    Entry, ErrorSubject, ErrorVerb, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot,
    SnapshotMeta, StorageError, StoredMembership,
};
use sprag::error::{ApplyError, LogError, SnapshotError, SubmitError, ViewError};
use sprag::{ConsensusLog, Rejection, Reply, StateMachine, View};

use crate::log::to_entry;
use crate::snapshot::{self, Content, SnapshotFile};
use crate::store::{Installs, NO_LIMIT, Shared, blocking, failed};
use crate::types::{Application, Scratch, Types, to_sprag};

/// The state machine of one node. [`Store::new`](crate::Store::new) makes it.
#[derive(Debug)]
pub struct StateMachineStore<C: Types, A: Application<C>>(Arc<Shared<C, A>>);

/// A builder that writes a snapshot, beside apply.
#[derive(Debug)]
pub struct SnapshotBuilder<C: Types, A: Application<C>> {
    shared: Arc<Shared<C, A>>,
    /// The state to write; `None` for a machine without views, which stops applying while its
    /// snapshot is written.
    view: Option<Result<View, ViewError>>,
}

/// Number of pauses after a failed snapshot that together last as long as the patience with a slow
/// disk.
const BUILD_PAUSES: u32 = 6;

impl<C: Types, A: Application<C>> StateMachineStore<C, A> {
    pub(crate) fn new(shared: Arc<Shared<C, A>>) -> Self {
        Self(shared)
    }
}

impl<C: Types, A: Application<C>> Drop for StateMachineStore<C, A> {
    /// Wakes waiters for an installation, which would otherwise wait forever.
    fn drop(&mut self) {
        self.0.installs.send_replace(Installs::Ended);
    }
}

impl<C: Types, A: Application<C>> RaftStateMachine<C> for StateMachineStore<C, A> {
    type SnapshotBuilder = SnapshotBuilder<C, A>;

    async fn applied_state(
        &mut self,
    ) -> Result<
        (Option<LogId<C::NodeId>>, StoredMembership<C::NodeId, C::Node>),
        StorageError<C::NodeId>,
    > {
        let kept = self.0.manager.machine().last_membership();
        let stored = kept.map(|(log_id, bytes)| snapshot::stored::<C>(log_id, &bytes));
        let stored = stored.transpose();
        let stored =
            stored.map_err(|error| failed(ErrorSubject::StateMachine, ErrorVerb::Read, &error))?;
        Ok((self.0.applied()?, stored.unwrap_or_default()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<C::R>, StorageError<C::NodeId>>
    where
        I: IntoIterator<Item = Entry<C>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (shared, entries) = (Arc::clone(&self.0), entries.into_iter().collect::<Vec<_>>());
        let replies = blocking(ErrorSubject::StateMachine, move || shared.apply(&entries)).await?;
        self.0.installs.send_replace(Installs::Possible);
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        let shared = Arc::clone(&self.0);
        let view = tokio::task::spawn_blocking(move || shared.manager.snapshots().view()).await;
        let view = match view {
            Ok(Err(ViewError::Unsupported)) | Err(_) => None,
            Ok(view) => Some(view),
        };
        SnapshotBuilder { shared: Arc::clone(&self.0), view }
    }

    async fn begin_receiving_snapshot(
        &mut self,
    ) -> Result<Box<SnapshotFile>, StorageError<C::NodeId>> {
        let shared = Arc::clone(&self.0);
        blocking(ErrorSubject::Snapshot(None), move || Ok(shared.begin_receiving())).await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<C::NodeId, C::Node>,
        snapshot: Box<SnapshotFile>,
    ) -> Result<(), StorageError<C::NodeId>> {
        self.0.installs.send_replace(Installs::Possible);
        let installing = self.0.installing.write().await;
        let (shared, meta) = (Arc::clone(&self.0), meta.clone());
        let install = move || shared.install(&meta, snapshot.into_content());
        let installed = blocking(ErrorSubject::Snapshot(None), install).await;
        drop(installing);
        let hope = if installed.is_ok() { Installs::Possible } else { Installs::Ended };
        self.0.installs.send_replace(hope);
        installed
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<C>>, StorageError<C::NodeId>> {
        let shared = Arc::clone(&self.0);
        blocking(ErrorSubject::Snapshot(None), move || shared.newest()).await
    }
}

impl<C: Types, A: Application<C>> RaftSnapshotBuilder<C> for SnapshotBuilder<C, A> {
    async fn build_snapshot(&mut self) -> Result<Snapshot<C>, StorageError<C::NodeId>> {
        let (shared, view) = (Arc::clone(&self.shared), self.view.take());
        let build = move || shared.build(view);
        let (snapshot, failed) = blocking(ErrorSubject::Snapshot(None), build).await?;
        if failed {
            // Openraft soon asks for the next snapshot. No other task waits for this one.
            let mut installs = self.shared.installs.subscribe();
            let ended = installs.wait_for(|hope| *hope == Installs::Ended);
            let _over = tokio::time::timeout(self.shared.patience / BUILD_PAUSES, ended).await;
        }
        Ok(snapshot)
    }
}

fn snapshot_failed<C: Types>(verb: ErrorVerb, error: &SnapshotError) -> StorageError<C::NodeId> {
    failed(ErrorSubject::Snapshot(None), verb, error)
}

impl<C: Types, A: Application<C>> Shared<C, A> {
    /// Applies entries from the log, as far as the log holds them. The machine gets the other
    /// entries for the state only.
    fn apply(&self, entries: &[Entry<C>]) -> Result<Vec<C::R>, StorageError<C::NodeId>> {
        let mut responses = Vec::with_capacity(entries.len());
        let mut replies = Vec::new();
        let mut rest = entries;
        while let Some(first) = rest.first() {
            let first = first.log_id.index;
            let next = |(at, entry): &(usize, &Entry<C>)| {
                entry.log_id.index == first + *at as u64 && self.holds(&entry.log_id)
            };
            let held = rest.iter().enumerate().take_while(next).count();
            let (now, later) = rest.split_at(held.max(1));
            if held == 0 || !self.apply_held(now, &mut replies)? {
                self.apply_only(now, &mut replies)?;
            }
            self.tell_rejected(now, &mut replies);
            responses.extend(replies.drain(..).map(A::response));
            rest = later;
        }
        Ok(responses)
    }

    fn log(&self) -> Result<ConsensusLog<'_, A::Machine>, StorageError<C::NodeId>> {
        let unusable =
            |error: LogError| failed(ErrorSubject::StateMachine, ErrorVerb::Write, &error);
        self.manager.consensus().map_err(unusable)
    }

    /// Fills in the replies of commands that could not be entries.
    fn tell_rejected(&self, entries: &[Entry<C>], replies: &mut [Reply]) {
        let mut rejected = self.lock_rejected();
        if rejected.is_empty() {
            return;
        }
        for (entry, reply) in entries.iter().zip(replies) {
            if rejected.remove(&entry.log_id.index) {
                *reply = Reply::Rejected(Rejection::Unsupported);
            }
        }
    }

    fn holds(&self, log_id: &LogId<C::NodeId>) -> bool {
        // `apply_only` takes what the log does not show, or returns the failure of the log.
        self.manager.log().and_then(|log| log.log_id(log_id.index)).ok().flatten()
            == Some(to_sprag(log_id))
    }

    /// Applies entries that the log holds. Returns false if a gap before them prevents their
    /// commit.
    fn apply_held(
        &self,
        entries: &[Entry<C>],
        replies: &mut Vec<Reply>,
    ) -> Result<bool, StorageError<C::NodeId>> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(true) };
        let indexes = first.log_id.index..=last.log_id.index;
        match self.log()?.apply_committed(indexes, NO_LIMIT, replies) {
            Ok(()) => Ok(true),
            Err(ApplyError::Submit { source: SubmitError::Gap { .. }, .. }) => Ok(false),
            Err(error) => {
                Err(failed(ErrorSubject::Apply(last.log_id.clone()), ErrorVerb::Write, &error))
            }
        }
    }

    fn apply_only(
        &self,
        entries: &[Entry<C>],
        replies: &mut Vec<Reply>,
    ) -> Result<(), StorageError<C::NodeId>> {
        let mut scratches: Vec<Scratch<'_>> = entries.iter().map(|_| Scratch::default()).collect();
        let mut ours = Vec::with_capacity(entries.len());
        for (entry, scratch) in entries.iter().zip(&mut scratches) {
            ours.push(to_entry::<C, A>(entry, scratch).map_err(|error| {
                failed(ErrorSubject::Apply(entry.log_id.clone()), ErrorVerb::Write, &error)
            })?);
        }
        let applied = self.log()?.apply_only(&ours, NO_LIMIT, replies);
        applied.map_err(|error| failed(ErrorSubject::StateMachine, ErrorVerb::Write, &error))
    }

    /// Writes a snapshot. Returns the newest snapshot after that, and whether this one failed. A
    /// full disk costs this snapshot only. An error would make openraft end the node; an older
    /// snapshot makes it ask again.
    fn build(
        &self,
        view: Option<Result<View, ViewError>>,
    ) -> Result<(Snapshot<C>, bool), StorageError<C::NodeId>> {
        let written = match view {
            Some(view) => view.map_err(SnapshotError::from).and_then(|view| {
                match self.manager.snapshots().write_view(view) {
                    // Another snapshot was written meanwhile, and covers more.
                    Err(SnapshotError::Stale { .. }) => Ok(()),
                    written => written.map(|_report| ()),
                }
            }),
            None => self.manager.snapshots().write().map(|_report| ()),
        };
        let failed = match written {
            Ok(()) => false,
            Err(error @ SnapshotError::Io { .. }) => {
                tracing::warn!(%error, "no snapshot was written, and the log stays as long as it is");
                true
            }
            Err(error) => return Err(snapshot_failed::<C>(ErrorVerb::Write, &error)),
        };
        let nothing = || Snapshot {
            meta: SnapshotMeta::default(),
            snapshot: Box::new(SnapshotFile::nothing()),
        };
        let newest = match self.newest() {
            // This build failed as the one before did.
            Err(_) if failed => None,
            newest => newest?,
        };
        Ok((newest.unwrap_or_else(nothing), failed))
    }

    fn newest(&self) -> Result<Option<Snapshot<C>>, StorageError<C::NodeId>> {
        let newest = self.manager.snapshots().newest();
        let newest = newest.map_err(|error| snapshot_failed::<C>(ErrorVerb::Read, &error))?;
        let Some(newest) = newest else { return Ok(None) };
        let meta = snapshot::meta::<C>(&newest);
        let meta =
            meta.map_err(|error| failed(ErrorSubject::Snapshot(None), ErrorVerb::Read, &error))?;
        Ok(Some(Snapshot { meta, snapshot: Box::new(SnapshotFile::reading(newest)) }))
    }

    /// Begins to receive a snapshot. One arrives at a time: a new one replaces one that is not
    /// complete. A complete snapshot is installed first; the next transfer begins after that.
    fn begin_receiving(self: &Arc<Self>) -> Box<SnapshotFile> {
        let mut current = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = current.upgrade() {
            before.give_way();
        }
        let shared = Arc::downgrade(self);
        let begin = move || match shared.upgrade() {
            Some(shared) => shared.manager.snapshots().receive(),
            None => Err(SnapshotError::Closed),
        };
        let (file, arriving) = SnapshotFile::receiving(Box::new(begin), self.patience);
        *current = arriving;
        Box::new(file)
    }

    fn install(
        &self,
        meta: &SnapshotMeta<C::NodeId, C::Node>,
        content: Content,
    ) -> Result<(), StorageError<C::NodeId>> {
        let installed = match content {
            Content::Snapshot(snapshot) => self.manager.snapshots().restore(&snapshot, NO_LIMIT),
            Content::Received(Some(receiver)) => {
                self.manager.snapshots().install(receiver, NO_LIMIT)
            }
            Content::Received(None) => Err(SnapshotError::OtherSnapshot),
        };
        match installed {
            // The state already covers the snapshot.
            Ok(_) | Err(SnapshotError::Stale { .. }) => {}
            Err(error) => return Err(snapshot_failed::<C>(ErrorVerb::Write, &error)),
        }
        let reached = self.applied()?;
        if reached < meta.last_log_id {
            let other = SnapshotError::OtherSnapshot;
            return Err(snapshot_failed::<C>(ErrorVerb::Write, &other));
        }
        let newest = self.newest()?.and_then(|newest| newest.meta.last_log_id);
        if newest < meta.last_log_id {
            // The log had all entries of the snapshot, and they were applied from there. Openraft
            // still expects a snapshot.
            self.manager
                .snapshots()
                .write()
                .map_err(|error| snapshot_failed::<C>(ErrorVerb::Write, &error))?;
        }
        Ok(())
    }
}
