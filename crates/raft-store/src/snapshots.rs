//! Snapshots of a node: built, received and installed beside apply.

use std::mem;
use std::sync::{Arc, PoisonError};

use sprag::Snapshot;
use sprag::error::{SnapshotError, ViewError};

use crate::consensus::{Consensus, RaftLogId};
use crate::failure::{Action, Failure, Subject};
use crate::node::{Installs, NO_LIMIT, Node, beside, blocking};
use crate::snapshot::{Arrived, SnapshotFile};

/// Number of pauses after a failed snapshot that together last as long as the patience with a slow
/// disk.
const BUILD_PAUSES: u32 = 6;

/// The state that a snapshot is to be written of.
///
/// It has no view for a machine without views, which stops applying while its snapshot is written.
#[derive(Debug)]
pub struct View(Option<Result<sprag::View, ViewError>>);

/// Content to install.
#[derive(Debug)]
pub enum Content {
    /// An existing snapshot, of this node or another one.
    Snapshot(Snapshot),
    /// A received snapshot.
    Received(Arrived),
}

impl<E: Consensus> Node<E> {
    /// The state at this moment, for [`Node::build`].
    pub async fn view(self: &Arc<Self>) -> View {
        let node = Arc::clone(self);
        let view = tokio::task::spawn_blocking(move || node.manager.snapshots().view()).await;
        View(match view {
            Ok(Err(ViewError::Unsupported)) | Err(_) => None,
            Ok(view) => Some(view),
        })
    }

    /// Writes a snapshot of `view`. Returns the newest snapshot after that.
    ///
    /// A full disk costs this snapshot only: the result is an older one, or `None`, after a pause.
    /// The Raft library asks again, and would end the node after an error.
    ///
    /// # Errors
    ///
    /// Returns [`Failure`].
    pub async fn build(self: &Arc<Self>, view: View) -> Result<Option<Snapshot>, Failure> {
        let node = Arc::clone(self);
        let (newest, failed) = blocking(Subject::Snapshot, move || node.write(view)).await?;
        if failed {
            // The Raft library soon asks for the next snapshot. No other task waits for this one.
            let mut installs = self.installs.subscribe();
            let ended = installs.wait_for(|hope| *hope == Installs::Ended);
            let _over = tokio::time::timeout(self.patience / BUILD_PAUSES, ended).await;
        }
        Ok(newest)
    }

    /// Writes a snapshot. Returns the newest snapshot after that, and whether this one failed.
    fn write(&self, view: View) -> Result<(Option<Snapshot>, bool), Failure> {
        let written = match view.0 {
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
            Err(error) => return Err(Failure::new(Subject::Snapshot, Action::Write, error)),
        };
        let newest = match self.newest_now() {
            // This build failed as the one before did.
            Err(_) if failed => None,
            newest => newest?,
        };
        Ok((newest, failed))
    }

    fn newest_now(&self) -> Result<Option<Snapshot>, Failure> {
        let newest = self.manager.snapshots().newest();
        newest.map_err(Failure::of(Subject::Snapshot, Action::Read))
    }

    /// The newest snapshot.
    ///
    /// # Errors
    ///
    /// Returns [`Failure`].
    pub async fn newest(self: &Arc<Self>) -> Result<Option<Snapshot>, Failure> {
        let node = Arc::clone(self);
        blocking(Subject::Snapshot, move || node.newest_now()).await
    }

    /// Begins to receive a snapshot. One arrives at a time: a new one replaces one that is not
    /// complete. A complete snapshot is installed first; the next transfer begins after that.
    #[must_use]
    pub fn receive(self: &Arc<Self>) -> SnapshotFile {
        let node = Arc::downgrade(self);
        let begin = move || match node.upgrade() {
            Some(node) => node.manager.snapshots().receive(),
            None => Err(SnapshotError::Closed),
        };
        let (file, arriving) = SnapshotFile::receiving(Box::new(begin), self.patience);
        let mut current = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        let before = mem::replace(&mut *current, arriving).upgrade();
        drop(current);
        if let Some(before) = before
            && before.give_way()
        {
            // Its bytes may be written at this moment, and the removal of a long file takes time.
            // The directory is in use until then.
            let node = Arc::clone(self);
            beside(move || {
                before.leave();
                drop((before, node));
            });
        }
        file
    }

    /// Installs a snapshot whose last entry is `last`. Appends wait meanwhile.
    ///
    /// # Errors
    ///
    /// Returns [`Failure`].
    pub async fn install(
        self: &Arc<Self>,
        last: Option<RaftLogId<E::NodeId>>,
        content: Content,
    ) -> Result<(), Failure> {
        self.installs.send_replace(Installs::Possible);
        let installing = self.installing.write().await;
        let node = Arc::clone(self);
        let install = move || node.install_now(last.as_ref(), content);
        let installed = blocking(Subject::Snapshot, install).await;
        drop(installing);
        let hope = if installed.is_ok() { Installs::Possible } else { Installs::Ended };
        self.installs.send_replace(hope);
        installed
    }

    fn install_now(
        &self,
        last: Option<&RaftLogId<E::NodeId>>,
        content: Content,
    ) -> Result<(), Failure> {
        let failed = |error: SnapshotError| Failure::new(Subject::Snapshot, Action::Write, error);
        let installed = match content {
            Content::Snapshot(snapshot) => self.manager.snapshots().restore(&snapshot, NO_LIMIT),
            Content::Received(arrived) => match arrived.take() {
                Some(receiver) => self.manager.snapshots().install(receiver, NO_LIMIT),
                None => Err(SnapshotError::OtherSnapshot),
            },
        };
        // The log may begin anew.
        self.tail().clear();
        match installed {
            // The state already covers the snapshot.
            Ok(_) | Err(SnapshotError::Stale { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        if self.applied()?.as_ref() < last {
            return Err(failed(SnapshotError::OtherSnapshot));
        }
        let newest = self.newest_now()?.and_then(|newest| newest.log_id());
        let newest = newest.map(RaftLogId::from_sprag).transpose();
        let newest = newest.map_err(Failure::of(Subject::Snapshot, Action::Read))?;
        if newest.as_ref() < last {
            // The log had all entries of the snapshot, and they were applied from there. The Raft
            // library still expects a snapshot.
            self.manager.snapshots().write().map_err(failed)?;
        }
        Ok(())
    }
}
