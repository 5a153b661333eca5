//! Snapshots of a node: built, received and installed beside apply.

use std::sync::{Arc, PoisonError, Weak};

use sprag::Snapshot;
use sprag::error::{SnapshotError, ViewError};
use sprag::snapshot::SnapshotReceiver;

use crate::arriving::{Arriving, Destination};
use crate::consensus::{Consensus, RaftLogId};
use crate::failure::{Action, Failure, Subject};
use crate::lease::Lent;
use crate::node::{Installs, NO_LIMIT, Node, beside, blocking};
use crate::snapshot::SnapshotFile;

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
pub(crate) enum Content {
    /// An existing snapshot, of this node or another one.
    Snapshot(Lent),
    /// A received snapshot.
    Received(Arrived),
}

/// A snapshot that has arrived, for its installation; `None` without any bytes.
#[derive(Debug)]
pub(crate) struct Arrived(pub(crate) Option<Arc<Arriving>>);

impl Arrived {
    /// Takes its bytes; `None` if there are none, or another snapshot has replaced it.
    fn take(self) -> Option<SnapshotReceiver> {
        self.0.and_then(|arriving| arriving.take())
    }
}

impl<E: Consensus> Destination for Node<E> {
    fn begin(&self) -> Result<SnapshotReceiver, SnapshotError> {
        self.manager.snapshots().receive()
    }
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
    pub async fn build(self: &Arc<Self>, view: View) -> Result<Option<SnapshotFile>, Failure> {
        let node = Arc::clone(self);
        let (newest, failed) = blocking(Subject::Snapshot, move || node.write(view)).await?;
        if failed {
            // The Raft library soon asks for the next snapshot. No other task waits for this one.
            let mut installs = self.installs.subscribe();
            let ended = installs.wait_for(|hope| *hope == Installs::Ended);
            let _over = tokio::time::timeout(self.patience / BUILD_PAUSES, ended).await;
        }
        Ok(newest.map(|newest| self.lend(newest)))
    }

    /// A file of a snapshot of this node, which is readable until the node ends.
    fn lend(&self, snapshot: Snapshot) -> SnapshotFile {
        let file_bytes = snapshot.bytes();
        SnapshotFile::leased(self.leases.lend(snapshot, &self.gone), file_bytes)
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
    pub async fn newest(self: &Arc<Self>) -> Result<Option<SnapshotFile>, Failure> {
        let node = Arc::clone(self);
        let newest = move || Ok(node.newest_now()?.map(|newest| node.lend(newest)));
        blocking(Subject::Snapshot, newest).await
    }

    /// Begins to receive a snapshot. One arrives at a time: a new one replaces one that is not
    /// complete. A complete snapshot is installed first; the next transfer begins after that.
    #[must_use]
    pub fn receive(self: &Arc<Self>) -> SnapshotFile {
        let node: Arc<dyn Destination> = Arc::clone(self) as _;
        let arriving = Arriving::new(Arc::downgrade(&node), self.patience);
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.retain(|arriving| arriving.strong_count() > 0);
        let before = arrivals.last().and_then(Weak::upgrade);
        arrivals.push(Arc::downgrade(&arriving));
        drop(arrivals);
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
        SnapshotFile::receiving(arriving)
    }

    /// Takes back every snapshot that is sent or received. The directory is in use otherwise, for
    /// as long as a task of the Raft library has such a file.
    pub(crate) fn end_transfers(&self) {
        self.leases.end();
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        for arriving in arrivals.iter().filter_map(Weak::upgrade) {
            arriving.leave();
        }
    }

    /// Installs a snapshot whose last entry is `last`. Appends wait meanwhile.
    ///
    /// # Errors
    ///
    /// Returns [`Failure`].
    pub async fn install(
        self: &Arc<Self>,
        last: Option<RaftLogId<E::NodeId>>,
        snapshot: SnapshotFile,
    ) -> Result<(), Failure> {
        let content = snapshot.into_content().inspect_err(|_| {
            self.installs.send_replace(Installs::Ended);
        });
        let content = content.map_err(Failure::of(Subject::Snapshot, Action::Read))?;
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
            Content::Snapshot(lent) => self.manager.snapshots().restore(&lent.snapshot, NO_LIMIT),
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
