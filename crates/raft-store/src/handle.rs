//! The application's side of a node's storage.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sprag::error::{Poison, SnapshotError, ViewError, WaitError};
use sprag::snapshot::SnapshotSink;
use sprag::{
    Acknowledged, AcknowledgedLogId, ApplyStats, SnapshotReport, Stage, StatsReader, View,
};

use crate::consensus::Consensus;
use crate::failure::Failure;
use crate::node::Node;
use crate::snapshot::SnapshotFile;

/// The application's side of a node's storage. It is cheap to clone and usable from any thread,
/// also while the Raft library has the store.
pub struct Handle<E: Consensus>(Arc<Node<E>>);

impl<E: Consensus> Clone for Handle<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E: Consensus> fmt::Debug for Handle<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.0).finish()
    }
}

impl<E: Consensus> Handle<E> {
    pub(crate) fn new(node: Arc<Node<E>>) -> Self {
        Self(node)
    }

    /// The state machine, for reads of entries that this node has applied. A read that must see
    /// everything committed asks the Raft library first (openraft's `ensure_linearizable`).
    #[must_use]
    pub fn machine(&self) -> &E::Machine {
        self.0.manager.machine()
    }

    /// Figures and watermarks of the engine.
    #[must_use]
    pub fn stats(&self) -> ApplyStats {
        self.0.manager.stats()
    }

    /// A reader of the same figures for an exporter. It does not keep the store open.
    #[must_use]
    pub fn stats_reader(&self) -> StatsReader {
        self.0.manager.stats_reader()
    }

    /// The first failure of the engine; `None` while it works. A node with a failure is to be
    /// stopped, and opened again.
    #[must_use]
    pub fn poison(&self) -> Option<Poison> {
        self.0.manager.poison()
    }

    /// Blocks until a watermark of this node covers the entry with this log id. Another entry of
    /// the same index does not count.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError`]. It is [`Replaced`](WaitError::Replaced) or
    /// [`Truncated`](WaitError::Truncated) if another leader's entry took the index, and
    /// [`NoLongerKnown`](WaitError::NoLongerKnown) below what the log remembers.
    pub fn wait_for_log_id(
        &self,
        log_id: &E::LogId,
        stage: Stage,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        self.0.manager.wait_for_log_id(E::log_id(log_id).to_sprag(), stage, timeout)
    }

    /// A future that waits for [`Stage::Acknowledged`]: the entry is applied here, and as safe as
    /// the durability mode asks. The future does not keep the store open.
    #[must_use = "a future does nothing until it is polled"]
    pub fn acknowledged_log_id(&self, log_id: &E::LogId) -> AcknowledgedLogId {
        self.0.manager.acknowledged_log_id(E::log_id(log_id).to_sprag())
    }

    /// A future that waits for [`Stage::Acknowledged`] of whatever entry has the index in the end:
    /// see [`acknowledged_log_id`](Self::acknowledged_log_id). The future does not keep the store
    /// open.
    #[must_use = "a future does nothing until it is polled"]
    pub fn acknowledged(&self, index: u64) -> Acknowledged {
        self.0.manager.acknowledged(index)
    }

    /// A future that completes when the store and all its handles are dropped, and the directory is
    /// free.
    ///
    /// A [`SnapshotFile`] that a task of the Raft library still has does not keep the directory
    /// locked: its reads and writes fail with [`SnapshotError::Closed`]. A
    /// [`Value`](sprag::Value), [`View`] or [`Snapshot`](sprag::Snapshot) that the application
    /// still has does.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<E> {
        let mut gone = self.0.gone.subscribe();
        async move { while gone.changed().await.is_ok() {} }
    }

    /// Begins to receive a snapshot of another node. Write its bytes to the result, call
    /// [`SnapshotFile::finish`], and give it to the Raft library. One arrives at a time: a new one
    /// replaces one that is not complete.
    #[must_use]
    pub fn receive_snapshot(&self) -> SnapshotFile {
        self.0.receive()
    }

    /// The newest snapshot of this node, for a transport of the application's; `None` before the
    /// first.
    ///
    /// # Errors
    ///
    /// Returns [`Failure`] if the snapshot cannot be read back.
    pub async fn newest_snapshot(&self) -> Result<Option<SnapshotFile>, Failure> {
        self.0.newest().await
    }

    /// Writes the bytes of a snapshot file, with the state at one exact index, to `out`. The node's
    /// own snapshots and its log stay as they are. The call blocks.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError`]; the engine continues.
    pub fn snapshot_to(&self, out: &mut dyn SnapshotSink) -> Result<SnapshotReport, SnapshotError> {
        self.0.manager.snapshots().write_to(out)
    }

    /// The state of a key-value machine at one exact index.
    ///
    /// # Errors
    ///
    /// Returns [`ViewError`], as [`Snapshots::view`](sprag::Snapshots::view) does.
    pub fn view(&self) -> Result<View, ViewError> {
        self.0.manager.snapshots().view()
    }
}
