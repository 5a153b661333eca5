//! Installing a snapshot: the state jumps to an entry beyond the log's end, and the log starts over
//! after it.
//!
//! The order of the steps makes a crash leave the old state or the new one. First the snapshot
//! becomes durable under its name. From then on, an open that finds it beyond the end of the log
//! completes the installation. Then the log's base moves in `META`, and after that files are
//! removed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::apply::desks::snapshots::SnapshotWork;
use crate::apply::desks::write::snapshot_error;
use crate::apply::manager::snapshots::SnapshotReport;
use crate::apply::pipeline::pause::Pause;
use crate::contract::machine::StateMachine;
use crate::disk::names::segment_name;
use crate::entry::LogId;
use crate::error::{Poison, SnapshotError};
use crate::hook::Hook;
use crate::log::Log;
use crate::numbers::{Mark, SegmentNumber};
use crate::progress::watermark::Stage;
use crate::snapshot::{Snapshot, SnapshotKind, SnapshotReceiver};
use crate::sync::set_aside;

/// Bytes of a piece when a snapshot is copied into the directory.
const COPY_BYTES: usize = 1 << 20;

impl<M: StateMachine> SnapshotWork<'_, M> {
    pub(in crate::apply) fn receive_snapshot(&self) -> Result<SnapshotReceiver, SnapshotError> {
        self.check_open()?;
        let log = self.log_for_snapshots()?;
        SnapshotReceiver::new(Arc::clone(log.disk()), self.desk.receiving())
    }

    /// Installs a snapshot that is open here.
    pub(in crate::apply) fn restore(
        &self,
        snapshot: &Snapshot,
        timeout: Duration,
    ) -> Result<SnapshotReport, SnapshotError> {
        if self.pipeline.log_desk().log().is_none() {
            return self.restore_in_memory(snapshot, timeout);
        }
        let mut receiver = self.receive_snapshot()?;
        for piece in snapshot.pieces(0, COPY_BYTES) {
            receiver.receive(&piece)?;
        }
        self.install(receiver, timeout)
    }

    pub(in crate::apply) fn install(
        &self,
        received: SnapshotReceiver,
        timeout: Duration,
    ) -> Result<SnapshotReport, SnapshotError> {
        let began = Instant::now();
        let _turn = self.desk.turn();
        let log = self.log_for_snapshots()?;
        if !received.is_into(log.disk()) {
            return Err(SnapshotError::OtherDirectory);
        }
        let _view = self.pipeline.pauses().turn();
        // Apply everything committed meanwhile, too, because callers wait for its replies.
        self.pipeline.wait_for_committed(timeout).map_err(snapshot_error)?;
        let pause = Pause::begin(self.pipeline);
        let held = pause.appender_applied(timeout.saturating_sub(began.elapsed()));
        let mut appending = held.map_err(snapshot_error)?;
        if self.pipeline.is_closed() {
            return Err(SnapshotError::Closed);
        }
        // Write all of the log before anything changes, so that no write is in flight to a file
        // that is removed.
        let sequence = appending.appender.close_and_last_sequence();
        let left = timeout.saturating_sub(began.elapsed());
        self.pipeline.log_desk().sync_to(log, sequence, left).map_err(snapshot_error)?;
        let image = appending
            .appender
            .next_image()
            .map_err(|error| SnapshotError::io("allocating memory for", "the log", error))?;
        let image = image.ok_or(SnapshotError::Full)?;
        self.prepare_to_start_over(log, image.image().segment())?;
        let mut known = false;
        let mut changed = false;
        let is_kept = self.pipeline.machine().staging(Hook::ENGINE).is_some();
        let finished = received.finish(|snapshot| {
            let log_id = self.check_installable(snapshot)?;
            if appending.appender.log_id(log_id.index) == Some(log_id) {
                known = true;
                return Err(SnapshotError::Stale { snapshot: log_id.index, committed: None });
            }
            if is_kept {
                return Ok(());
            }
            let posts = self.pipeline.workers().take_posts();
            let loaded = self.load(snapshot);
            drop(posts);
            // Reads see the new state from here on. After a failure, only a new opening tells what
            // is durable.
            changed = loaded.is_ok();
            loaded
        });
        let snapshot = match finished {
            Err(SnapshotError::Stale { snapshot, .. }) if known => {
                drop(appending);
                // Nothing is applied before the pause ends.
                drop(pause);
                return self.commit_instead(snapshot, timeout, began);
            }
            Err(error) if changed => {
                return Err(self
                    .pipeline
                    .signals()
                    .fail(Poison::Snapshot { message: error.to_string() })
                    .into());
            }
            other => other?,
        };
        if is_kept {
            self.load_kept(&snapshot, &**log.disk())?;
        }
        let no_entry = Poison::Internal("a snapshot of no entry was installed");
        let log_id = snapshot.log_id().ok_or_else(|| self.pipeline.signals().fail(no_entry))?;
        let base = log
            .start_over(image.image().segment(), log_id)
            .map_err(|poison| self.pipeline.signals().fail(poison))?;
        let started = appending.appender.start_over(log_id, Some((base, image)));
        started.map_err(|poison| self.pipeline.signals().fail(poison))?;
        self.jump_to(log_id).map_err(|poison| self.pipeline.signals().fail(poison))?;
        drop(appending);
        drop(pause);
        self.move_snapshot_to(log_id)?;
        self.desk.note_bytes(snapshot.bytes());
        log.remove_snapshots_below(log_id.index);
        let (keys, bytes) = (snapshot.len(), snapshot.bytes());
        Ok(SnapshotReport { log_id: Some(log_id), keys, bytes, elapsed: began.elapsed() })
    }

    /// Makes the file ready in which the log will continue, while a full disk is only a failure of
    /// this call.
    fn prepare_to_start_over(
        &self,
        log: &Log,
        segment: SegmentNumber,
    ) -> Result<(), SnapshotError> {
        if !segment.is_possible() {
            let what = "so many segments over the life of a log";
            return Err(SnapshotError::Unsupported { what });
        }
        let ready =
            log.prepare_segment(segment).map_err(|poison| self.pipeline.signals().fail(poison))?;
        ready.map_err(|error| SnapshotError::io("creating", segment_name(segment), error))
    }

    /// Installs a snapshot in a machine that keeps no log.
    fn restore_in_memory(
        &self,
        snapshot: &Snapshot,
        timeout: Duration,
    ) -> Result<SnapshotReport, SnapshotError> {
        let began = Instant::now();
        let _turn = self.desk.turn();
        let _view = self.pipeline.pauses().turn();
        self.check_open()?;
        snapshot.verify()?;
        self.pipeline.wait_for_committed(timeout).map_err(snapshot_error)?;
        let pause = Pause::begin(self.pipeline);
        let held = pause.appender_applied(timeout.saturating_sub(began.elapsed()));
        let mut appending = held.map_err(snapshot_error)?;
        let log_id = self.check_installable(snapshot)?;
        let posts = self.pipeline.workers().take_posts();
        self.load(snapshot)?;
        drop(posts);
        appending.appender.close_frame();
        let started = appending.appender.start_over(log_id, None);
        started.map_err(|poison| self.pipeline.signals().fail(poison))?;
        self.jump_to(log_id).map_err(|poison| self.pipeline.signals().fail(poison))?;
        drop(appending);
        drop(pause);
        let (keys, bytes) = (snapshot.len(), snapshot.bytes());
        Ok(SnapshotReport { log_id: Some(log_id), keys, bytes, elapsed: began.elapsed() })
    }

    /// Checks that the snapshot is of this kind of machine, and goes further than the committed
    /// entries.
    fn check_installable(&self, snapshot: &Snapshot) -> Result<LogId, SnapshotError> {
        snapshot.check_kind(match self.pipeline.machine().views(Hook::ENGINE) {
            Some(_) => SnapshotKind::KeyValue,
            None => SnapshotKind::Blob,
        })?;
        let committed = self.pipeline.progress().committed_mark().last();
        let log_id = snapshot.log_id();
        match log_id {
            Some(log_id) if Some(log_id.index) > committed => Ok(log_id),
            _ => {
                let snapshot = log_id.map_or(0, |log_id| log_id.index);
                Err(SnapshotError::Stale { snapshot, committed })
            }
        }
    }

    pub(in crate::apply) fn load(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        match self.pipeline.machine().views(Hook::ENGINE) {
            Some(views) => views.load(snapshot).map_err(|error| match error {
                // The storage under the machine may have either state.
                SnapshotError::Poisoned(poison) => self.pipeline.signals().fail(poison).into(),
                other => other,
            })?,
            None => {
                let mut blob = snapshot.blob()?;
                let _aside = set_aside();
                let restore = || self.pipeline.machine().restore(&mut blob);
                catch_unwind(AssertUnwindSafe(restore)).unwrap_or_else(|_panic| {
                    let index = snapshot.log_id().map_or(0, |log_id| log_id.index);
                    Err(self.pipeline.signals().fail(Poison::Panic { index }).into())
                })?;
            }
        }
        self.pipeline.machine().jumped_to(Hook::ENGINE, snapshot.log_id(), snapshot.membership());
        Ok(())
    }

    /// Commits the log up to the snapshot's entry, because the log has that entry, and so
    /// everything in the snapshot.
    fn commit_instead(
        &self,
        index: u64,
        timeout: Duration,
        began: Instant,
    ) -> Result<SnapshotReport, SnapshotError> {
        let committed = self.pipeline.commit(index);
        committed.map_err(|error| {
            SnapshotError::io("committing", "the log", std::io::Error::other(error))
        })?;
        let applied = self.pipeline.wait(index, Stage::Applied, timeout);
        applied.map_err(snapshot_error)?;
        let log_id = self.pipeline.log_desk().log_id(index);
        Ok(SnapshotReport { log_id, elapsed: began.elapsed(), ..SnapshotReport::default() })
    }

    /// Moves all marks to a log that ends with this entry, applied and durable.
    fn jump_to(&self, log_id: LogId) -> Result<(), Poison> {
        let mark = Mark::through(log_id.index);
        self.pipeline.latency().truncated(self.pipeline.progress().committed_mark());
        self.pipeline.counters().note_jump(self.pipeline.progress(), mark, 0);
        self.pipeline.workers().jump_to(mark);
        self.pipeline.progress().jump_to(mark)?;
        self.pipeline.signals().notify_workers();
        Ok(())
    }
}
