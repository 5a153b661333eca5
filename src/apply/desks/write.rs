//! Snapshots of a running engine, and giving up the part of the log that a snapshot covers.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::apply::desks::log_waits::LOG_TIMEOUT;
use crate::apply::desks::snapshots::SnapshotWork;
use crate::apply::desks::still::Still;
use crate::apply::desks::views::{take_view, while_paused};
use crate::apply::manager::snapshots::{CompactionReport, SnapshotReport};
use crate::contract::machine::StateMachine;
use crate::contract::view::View;
use crate::disk::names::snapshot_name;
use crate::entry::LogId;
use crate::error::{Poison, SnapshotError, WaitError};
use crate::hook::Hook;
use crate::log::Log;
use crate::log::compact::SegmentStart;
use crate::numbers::{Mark, SegmentNumber};
use crate::poison::invariant;
use crate::snapshot::file::write_snapshot_file;
use crate::snapshot::writer::{SnapshotWriter, Summary};
use crate::snapshot::{Snapshot, SnapshotSink};
use crate::sync::tell_under_locks;

pub(super) fn report(log_id: Option<LogId>, summary: Summary, began: Instant) -> SnapshotReport {
    let Summary { bytes, entries, .. } = summary;
    SnapshotReport { log_id, keys: entries, bytes, elapsed: began.elapsed() }
}

/// Treatment of the log that a snapshot covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Covered {
    Stays,
    /// Gives up as much of the log as possible.
    Goes,
}

/// A written snapshot.
struct Written {
    report: SnapshotReport,
    /// Entry of the snapshot, and the snapshot; `None` for an empty state, which has neither.
    snapshot: Option<(LogId, Snapshot)>,
    /// The new start of the log; everything before it was read back.
    start: Option<SegmentStart>,
}

/// The turn to write a snapshot, or to give up a part of the log.
pub(in crate::apply) type Turn<'a> = crate::sync::TurnGuard<'a>;

impl<M: StateMachine> SnapshotWork<'_, M> {
    /// Refuses to change snapshots or the log after the end. The caller has the turn, without which
    /// the log is not closed.
    pub(in crate::apply) fn check_open(&self) -> Result<(), SnapshotError> {
        if self.pipeline.is_closed() { Err(SnapshotError::Closed) } else { Ok(()) }
    }

    pub(in crate::apply) fn log_for_snapshots(&self) -> Result<&Log, SnapshotError> {
        self.pipeline.progress().poison.check()?;
        let log = self.pipeline.log_desk().log();
        log.ok_or(SnapshotError::Unsupported { what: "a directory for its snapshots" })
    }

    /// Writes the state of this moment into the directory.
    pub(in crate::apply) fn snapshot(&self) -> Result<SnapshotReport, SnapshotError> {
        let _turn = self.desk.turn();
        self.check_open()?;
        self.write_snapshot(Covered::Stays).map(|written| written.report)
    }

    /// Writes the state of this moment to `out`, which is foreign code. It runs without a lock,
    /// except for a user's machine, which stands still until it has written.
    pub(in crate::apply) fn snapshot_to(
        &self,
        out: &mut dyn SnapshotSink,
    ) -> Result<SnapshotReport, SnapshotError> {
        let (began, began_at) = (Instant::now(), self.pipeline.latency().now());
        let (log_id, summary) = self.with_state(|state| {
            let (log_id, meta) = (state.log_id(), state.meta());
            let summary = state.write(SnapshotWriter::new(out), &meta, &|| false)?;
            Ok((log_id, summary))
        })?;
        self.pipeline.latency().times.snapshot.record(self.pipeline.latency().since(began_at));
        Ok(report(log_id, summary, began))
    }

    /// Writes a view that was taken of this engine into the directory.
    pub(in crate::apply) fn snapshot_of(
        &self,
        view: View,
    ) -> Result<SnapshotReport, SnapshotError> {
        let _turn = self.desk.turn();
        self.check_open()?;
        let newest = self.desk.newest_mark();
        if let Some(log_id) = view.log_id().filter(|log_id| Mark::through(log_id.index) < newest) {
            let (snapshot, committed) = (log_id.index, newest.last());
            return Err(SnapshotError::Stale { snapshot, committed });
        }
        let state = Still::View(view);
        let written = self.or_without_spares(|| self.write_snapshot_of(&state, Covered::Stays));
        written.map(|written| written.report)
    }

    /// Runs `write` with the state at one index.
    fn with_state<R>(
        &self,
        write: impl FnOnce(&Still<'_, M>) -> Result<R, SnapshotError>,
    ) -> Result<R, SnapshotError> {
        if self.pipeline.machine().views(Hook::ENGINE).is_some() {
            return write(&Still::View(take_view(self.pipeline)?));
        }
        let written = while_paused(self.pipeline, |machine, applied, posts| {
            let state = Still::Paused(machine, applied, Cell::new(Some(posts)));
            catch_unwind(AssertUnwindSafe(|| write(&state)))
        })?;
        written.unwrap_or_else(|_panic| {
            // An empty state has no last entry; the poison then names index 0.
            let index = self.pipeline.progress().applied_mark().last().unwrap_or(0);
            Err(self.pipeline.signals().fail(Poison::Panic { index }).into())
        })
    }

    /// Takes a snapshot into the directory. The caller has the turn.
    fn write_snapshot(&self, covered: Covered) -> Result<Written, SnapshotError> {
        self.or_without_spares(|| self.with_state(|state| self.write_snapshot_of(state, covered)))
    }

    /// Runs `write`. If the disk is full, removes the spare files and runs it once more.
    fn or_without_spares(
        &self,
        write: impl Fn() -> Result<Written, SnapshotError>,
    ) -> Result<Written, SnapshotError> {
        match write() {
            Err(error) if error.is_disk_full() && self.log_for_snapshots()?.free_spares() => {
                tell_under_locks(|| {
                    tracing::warn!(
                        %error,
                        "gave up the files that are kept for the log, and try again"
                    );
                });
                write()
            }
            written => written,
        }
    }

    /// Writes a snapshot of an unchanging state.
    fn write_snapshot_of(
        &self,
        state: &Still<'_, M>,
        covered: Covered,
    ) -> Result<Written, SnapshotError> {
        let log = self.log_for_snapshots()?;
        let (began, began_at) = (Instant::now(), self.pipeline.latency().now());
        let stopping = || self.pipeline.lifecycle().is_stopping();
        let Some(log_id) = state.log_id() else {
            let report = SnapshotReport { elapsed: began.elapsed(), ..SnapshotReport::default() };
            return Ok(Written { report, snapshot: None, start: None });
        };
        let meta = state.meta();
        let mut start = None;
        let (name, beside) =
            (snapshot_name(log_id.index), self.pipeline.config().by_hand.is_none());
        let summary = write_snapshot_file(&**log.disk(), &name, beside, |writer| {
            let writer = writer.with_chunk_bytes(log.settings.snapshot_chunk_bytes);
            let summary = state.write(writer, &meta, &stopping)?;
            // A snapshot must not have entries that the log could lose: it would be of a log that
            // never existed.
            self.pipeline.log_desk().sync(LOG_TIMEOUT).map_err(snapshot_error)?;
            if covered == Covered::Goes {
                start = self.start_for(log, log_id.index);
            }
            // A snapshot must not copy damaged values under new checksums, which would hide the
            // damage.
            self.check_sources(log, start, &stopping)?;
            Ok(summary)
        })?;
        let before = self.move_snapshot_to(log_id)?;
        // The snapshot before stays until a compaction, as a fallback.
        if let Some(before) = before.last().filter(|before| *before < log_id.index) {
            log.remove_snapshots_below(before);
        }
        self.desk.note_bytes(summary.bytes);
        let snapshot = Snapshot::open_on(log.disk(), &name)?;
        let report = report(Some(log_id), summary, began);
        self.pipeline.latency().times.snapshot.record(self.pipeline.latency().since(began_at));
        Ok(Written { report, snapshot: Some((log_id, snapshot)), start })
    }

    /// Fails for [`invariant!`], and returns the first failure.
    #[cold]
    fn violated(&self, invariant: &'static str, found: String) -> Poison {
        self.pipeline.signals().fail(Poison::Invariant { invariant, found })
    }

    /// Moves `snapshot` to this entry. Returns the mark of the snapshot before.
    pub(in crate::apply) fn move_snapshot_to(&self, log_id: LogId) -> Result<Mark, Poison> {
        let (mark, applied) =
            (Mark::through(log_id.index), self.pipeline.progress().applied_mark());
        let before = self.desk.newest_mark();
        invariant!(self, mark <= applied, "snapshot <= applied", "{mark} and {applied}");
        invariant!(self, before <= mark, "snapshot never falls", "from {before} to {mark}");
        self.desk.note_newest(mark);
        Ok(before)
    }

    pub(crate) fn compact(&self) -> Result<CompactionReport, SnapshotError> {
        self.compact_in(&self.desk.turn())
    }

    /// Compacts, for a caller that has the turn.
    pub(in crate::apply) fn compact_in(
        &self,
        _turn: &Turn<'_>,
    ) -> Result<CompactionReport, SnapshotError> {
        let began_at = self.pipeline.latency().now();
        let result = self.compact_now();
        if result.is_ok() {
            self.pipeline
                .latency()
                .times
                .compaction
                .record(self.pipeline.latency().since(began_at));
        }
        self.desk.compaction().note(&result);
        result
    }

    fn compact_now(&self) -> Result<CompactionReport, SnapshotError> {
        let began = Instant::now();
        self.check_open()?;
        self.end_segment(self.log_for_snapshots()?)?;
        if let Some(staging) = self.pipeline.machine().staging(Hook::ENGINE) {
            return self.compact_kept(staging, self.log_for_snapshots()?, began);
        }
        let Written { report, snapshot, start } = self.write_snapshot(Covered::Goes)?;
        let log = self.log_for_snapshots()?;
        let before = log.base();
        if let Some((log_id, file)) = &snapshot {
            self.give_up_log(log, *log_id, start, file)?;
        }
        let base = log.base();
        Ok(CompactionReport {
            snapshot: report,
            purged: base.last.map(|last| last.index),
            segments: base.segment.since(before.segment),
            elapsed: began.elapsed(),
        })
    }

    /// Makes the log continue in a new segment, so that it can begin right behind a snapshot taken
    /// after this. An open then reads no part of a segment that the snapshot covers. This may fail;
    /// then the log begins earlier.
    fn end_segment(&self, log: &Log) -> Result<(), SnapshotError> {
        let used_min = log.segment_used_min();
        // Skip it also where the snapshot may fail again: the segment could not be given up, and
        // its room would be lost each time.
        if log.retain_entries() > 0 || self.desk.compaction().has_failed() {
            return Ok(());
        }
        let Some(number) = self.pipeline.log_desk().appending().appender.segment_after(used_min)
        else {
            return Ok(());
        };
        // Do this before the appender's place is taken, and not in the log writer, for which a full
        // disk would be the end.
        if let Err(error) =
            log.prepare_segment(number).map_err(|poison| self.pipeline.signals().fail(poison))?
        {
            tell_under_locks(|| tracing::warn!(%error, "the next segment could not be made ready"));
            return Ok(());
        }
        let mut appending = self.pipeline.log_desk().appending();
        let Some(number) = appending.appender.end_segment(used_min) else { return Ok(()) };
        log.want_segment(number);
        drop(appending);
        // Without it the log begins earlier.
        let _in_time =
            self.pipeline.log_desk().write_until(LOG_TIMEOUT, || log.writer_segment() >= number)?;
        Ok(())
    }

    /// The newest snapshot. The call does not wait for a writer of the next one.
    pub(in crate::apply) fn newest_snapshot(&self) -> Result<Option<Snapshot>, SnapshotError> {
        let log = self.log_for_snapshots()?;
        loop {
            let mark = self.desk.newest_mark();
            let Some(index) = mark.last() else { return Ok(None) };
            let opened = Snapshot::open_on(log.disk(), &snapshot_name(index));
            // A snapshot may be removed before it is opened, but only after another has become the
            // newest.
            if opened.is_ok() || self.desk.newest_mark() == mark {
                return opened.map(Some);
            }
        }
    }

    /// Purges as [`ManagerLog::purge`](crate::ManagerLog::purge) does, up to an entry in
    /// `snapshot`, whose entry is `covered`.
    pub(in crate::apply) fn purge(
        &self,
        index: u64,
        covered: LogId,
        snapshot: &Snapshot,
    ) -> Result<(), SnapshotError> {
        let log = self.log_for_snapshots()?;
        self.pipeline.log_desk().sync(LOG_TIMEOUT).map_err(snapshot_error)?;
        let start = self.start_for(log, index);
        self.check_sources(log, start, &|| self.pipeline.lifecycle().is_stopping())?;
        self.give_up_log(log, covered, start, snapshot)
    }

    /// The possible start of the log once a snapshot covers it up to `index`, which is committed.
    /// The log has been synced since the commit.
    ///
    /// The sync must come first. A truncation in the log writer's queue may take back entries
    /// before a place that still counts as a possible start. A later truncation cannot reach below
    /// the committed index.
    pub(in crate::apply) fn start_for(&self, log: &Log, index: u64) -> Option<SegmentStart> {
        let submitted = self.pipeline.progress().submitted_mark();
        log.start_below(log.free_below(Mark::through(index), submitted))
            // Entries before a segment that began since may not be durable.
            .filter(|start| start.sequence <= log.durable_sequence())
    }

    /// Checks that the sources of the machine's values that are about to be removed are unchanged.
    fn check_sources(
        &self,
        log: &Log,
        start: Option<SegmentStart>,
        stopping: &dyn Fn() -> bool,
    ) -> Result<(), SnapshotError> {
        let Some(views) = self.pipeline.machine().views(Hook::ENGINE) else { return Ok(()) };
        if views.check_sources(stopping)?
            && let Some(start) = start
        {
            log.check_through(start.sequence, stopping).map_err(SnapshotError::of_log)?;
        }
        if stopping() { Err(SnapshotError::Closed) } else { Ok(()) }
    }

    /// Moves the beginning of the log to `start`, which the snapshot covers.
    fn give_up_log(
        &self,
        log: &Log,
        covered: LogId,
        start: Option<SegmentStart>,
        snapshot: &Snapshot,
    ) -> Result<(), SnapshotError> {
        let below = start.map_or(SegmentNumber::LOWEST, |start| start.segment);
        if let Some(views) = self.pipeline.machine().views(Hook::ENGINE) {
            views.let_go(snapshot, below)?;
        }
        if let Some(start) = start {
            self.move_beginning(log, covered, start)?;
        }
        log.remove_snapshots_below(covered.index);
        Ok(())
    }

    /// Moves the beginning of the log to `start`. The state up to `covered`, which is beyond, is
    /// durable elsewhere.
    pub(in crate::apply) fn move_beginning(
        &self,
        log: &Log,
        covered: LogId,
        start: SegmentStart,
    ) -> Result<(), SnapshotError> {
        let last = start.mark.last().and_then(|index| self.pipeline.log_desk().log_id(index));
        let last = last.ok_or(Poison::Internal("the log id before a segment is not known"))?;
        let base = start.base(last);
        log.move_base(base, covered.index)
            .map_err(|poison| self.pipeline.signals().fail(poison))?;
        self.pipeline.log_desk().appending().appender.forget_before(&base);
        Ok(())
    }
}

pub(in crate::apply) fn snapshot_error(error: WaitError) -> SnapshotError {
    match error {
        WaitError::Poisoned(poison) => SnapshotError::Poisoned(poison),
        WaitError::Closed { .. } => SnapshotError::Closed,
        other => SnapshotError::io(
            "waiting for the log before finishing",
            "a snapshot",
            std::io::Error::other(other),
        ),
    }
}
