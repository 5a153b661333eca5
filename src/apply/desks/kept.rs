//! Our log under a machine that keeps its state in a storage, which replaces snapshots.
//!
//! The log is given up as far as the storage is durable, and no snapshot is written for that. A
//! snapshot to install is durable in the directory before the storage takes it over, so that the
//! next open can complete an interrupted installation.

use std::time::Instant;

use crate::apply::desks::log_waits::LOG_TIMEOUT;
use crate::apply::desks::snapshots::SnapshotWork;
use crate::apply::desks::write::snapshot_error;
use crate::apply::manager::snapshots::{CompactionReport, SnapshotReport};
use crate::contract::machine::StateMachine;
use crate::contract::run::call_storage;
use crate::contract::staging::Staging;
use crate::disk::Disk;
use crate::disk::names::snapshot_name;
use crate::entry::LogId;
use crate::error::{LogError, Poison, SnapshotError};
use crate::log::Log;
use crate::snapshot::Snapshot;

impl<M: StateMachine> SnapshotWork<'_, M> {
    /// Gives up the log that the storage has, in whole segments. The caller has the turn of
    /// snapshots.
    pub(in crate::apply) fn compact_kept(
        &self,
        staging: &dyn Staging,
        log: &Log,
        began: Instant,
    ) -> Result<CompactionReport, SnapshotError> {
        let before = log.base();
        if let Some(durable) = self.sync_kept(staging, None)? {
            self.give_up_kept(log, durable, durable.index)?;
        }
        let base = log.base();
        Ok(CompactionReport {
            snapshot: SnapshotReport::default(),
            purged: base.last.map(|last| last.index),
            segments: base.segment.since(before.segment),
            elapsed: began.elapsed(),
        })
    }

    /// Gives up the log through `index`, which the storage must have. The caller has the turn of
    /// snapshots.
    pub(in crate::apply) fn purge_kept(
        &self,
        staging: &dyn Staging,
        log: &Log,
        index: u64,
    ) -> Result<(), LogError> {
        match self.sync_kept(staging, Some(index))? {
            Some(durable) if durable.index >= index => Ok(self.give_up_kept(log, durable, index)?),
            _ => Err(LogError::NotCovered { index }),
        }
    }

    /// The last durable entry in the storage; syncs unless `index` is durable.
    fn sync_kept(
        &self,
        staging: &dyn Staging,
        index: Option<u64>,
    ) -> Result<Option<LogId>, SnapshotError> {
        let durable = staging.durable();
        if index.is_some() && durable.map(|durable| durable.index) >= index {
            return Ok(durable);
        }
        let first = durable.map_or(0, |durable| durable.index + 1);
        let what = || format!("its storage did not sync what it has from entry {first} on");
        call_storage(first, what, || staging.sync())
            .map_err(|poison| self.pipeline.signals().fail(poison))?;
        Ok(staging.durable())
    }

    /// Moves the log's beginning to the last segment before which only entries up to `index` are.
    /// The storage has all of them durably, up to `durable`.
    fn give_up_kept(&self, log: &Log, durable: LogId, index: u64) -> Result<(), SnapshotError> {
        self.pipeline.log_desk().sync(LOG_TIMEOUT).map_err(snapshot_error)?;
        match self.start_for(log, index) {
            Some(start) => self.move_beginning(log, durable, start),
            None => Ok(()),
        }
    }

    /// Makes the storage take over the state of a snapshot that is durable in the directory. If the
    /// storage has no room for it, nothing has changed, and the snapshot is removed.
    pub(in crate::apply) fn load_kept(
        &self,
        snapshot: &Snapshot,
        disk: &dyn Disk,
    ) -> Result<(), SnapshotError> {
        let posts = self.pipeline.workers().take_posts();
        let loaded = self.load(snapshot);
        drop(posts);
        let Err(error) = loaded else { return Ok(()) };
        let name = snapshot.log_id().map(|log_id| snapshot_name(log_id.index));
        if let Some(name) = name.filter(|_| error.is_disk_full()) {
            let removed = disk.remove(&name).and_then(|()| disk.sync_dir());
            let Err(source) = removed else { return Err(error) };
            return Err(self.pipeline.signals().fail(Poison::io("removing", name, source)).into());
        }
        // The next open takes the snapshot over.
        Err(self.pipeline.signals().fail(Poison::Snapshot { message: error.to_string() }).into())
    }
}
