//! An engine: what the threads and the calls of one apply manager share.

use crate::apply::desks::snapshots::{SnapshotDesk, SnapshotWork};
use crate::apply::pipeline::Pipeline;
use crate::config::ApplyConfig;
use crate::contract::machine::StateMachine;
use crate::error::OpenError;
use crate::sync::{Mutex, Rank};
use crate::threads::cores::PinnedThread;

/// The engine of one apply manager; see the module.
#[derive(Debug)]
pub(crate) struct Engine<M> {
    pipeline: Pipeline<M>,
    snapshots: SnapshotDesk,
    /// Results of pinning the threads.
    pinned: Mutex<Vec<PinnedThread>>,
}

impl<M> Engine<M> {
    #[inline]
    pub(crate) fn pipeline(&self) -> &Pipeline<M> {
        &self.pipeline
    }
}

impl<M: StateMachine> Engine<M> {
    pub(crate) fn new(machine: M, config: ApplyConfig, workers: usize) -> Result<Self, OpenError> {
        let pipeline = Pipeline::new(machine, config, workers)?;
        let newest = pipeline.log_desk().log().and_then(|log| log.opened_from());
        Ok(Self {
            pipeline,
            snapshots: SnapshotDesk::new(newest),
            pinned: Mutex::new(Rank::PinnedThreads, Vec::new()),
        })
    }

    pub(super) fn snapshots(&self) -> &SnapshotDesk {
        &self.snapshots
    }

    /// The work on snapshots, and on the part of the log that they cover.
    pub(super) fn snapshot_work(&self) -> SnapshotWork<'_, M> {
        SnapshotWork { pipeline: &self.pipeline, desk: &self.snapshots }
    }

    pub(super) fn pinned(&self) -> &Mutex<Vec<PinnedThread>> {
        &self.pinned
    }
}
