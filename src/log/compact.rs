//! Giving up the front of the log: which segments may go once a snapshot covers them, and the step that lets them go.
//!
//! The log base moves in `META`, in one synced write; only then are files removed. A crash in between leaves files below
//! the base, which the next writable open removes.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Log;
use super::format::META_FILE;
use super::meta::LogBase;
use super::table::Retired;
use crate::disk::Access;
use crate::entry::LogId;
use crate::error::{OpenError, Poison};
use crate::log::recovery::files::is_no_snapshot;
use crate::log::recovery::walk::check_frames;
use crate::snapshot::format::parse_snapshot_name;

/// Where a segment begins: what the base of the log would be if it began there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentStart {
    pub(crate) segment: u64,
    /// The last frame before it.
    pub(crate) sequence: u64,
    /// Checksum of that frame.
    pub(crate) chain: u64,
    /// Last index of the log before it, plus one.
    pub(crate) mark: u64,
}

impl SegmentStart {
    /// As the base of the log. `last` is the entry before it.
    pub(crate) fn base(&self, last: LogId) -> LogBase {
        LogBase {
            segment: self.segment,
            sequence: self.sequence,
            chain: self.chain,
            last: Some(last),
        }
    }
}

/// The starts of the log's segments after the first, in order. The log writer adds to them.
///
/// A segment whose first frames take back entries of the one before is none of them: if the log began there, what is
/// taken back would be from before its beginning.
#[derive(Debug, Default)]
pub(crate) struct SegmentStarts {
    starts: Mutex<VecDeque<SegmentStart>>,
    /// Where entries are that were applied and are not of the log: segment, and mark of the last.
    records: Mutex<Vec<(u64, u64)>>,
}

impl SegmentStarts {
    fn lock(&self) -> MutexGuard<'_, VecDeque<SegmentStart>> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_records(&self) -> MutexGuard<'_, Vec<(u64, u64)>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries up to `mark` are in `segment` without being of the log.
    pub(crate) fn record(&self, segment: u64, mark: u64) {
        self.lock_records().push((segment, mark));
    }

    /// The next segment begins.
    pub(crate) fn push(&self, start: SegmentStart) {
        self.lock().push_back(start);
    }

    /// The frame of a truncation was written.
    pub(crate) fn truncated(&self, first_removed: u64) {
        self.lock().retain(|start| start.mark <= first_removed);
    }

    /// The last one before which only entries below `mark` are.
    pub(crate) fn below(&self, mark: u64) -> Option<SegmentStart> {
        let (starts, records) = (self.lock(), self.lock_records());
        let covered = |start: &&SegmentStart| {
            start.mark > 0
                && start.mark <= mark
                && records.iter().all(|(segment, end)| *segment >= start.segment || *end <= mark)
        };
        starts.iter().rev().find(covered).copied()
    }

    /// The log begins at `segment` from now on.
    fn forget_to(&self, segment: u64) {
        self.lock().retain(|start| start.segment > segment);
        self.lock_records().retain(|(at, _)| *at >= segment);
    }

    /// How many segments come before the one that [`SegmentStarts::below`] finds.
    fn count_below(&self, mark: u64) -> usize {
        let last = self.below(mark).map_or(0, |start| start.segment);
        self.lock().iter().filter(|start| start.segment <= last).count()
    }
}

impl Log {
    /// Makes the log begin at `base`, which a durable snapshot covers, as it does all entries up to `covered`. Segments before it are gone
    /// afterwards. A file that nobody reads is kept to be used again; of others the name is gone at once, and the bytes
    /// when the last view or value that refers to them is.
    pub(crate) fn move_base(&self, base: LogBase, covered: u64) -> Result<(), Poison> {
        let Some(writing) = &self.writing else { return Ok(()) };
        self.poison.check()?;
        let mut meta = super::lock(&self.meta);
        let content = super::Meta {
            base,
            durable_sequence: self.durable_sequence().max(meta.1.durable_sequence),
            committed: meta.1.committed.max(Some(covered)),
            ..self.with_hard_sequence(meta.1)
        };
        let Some(file) = &mut meta.0 else { return Ok(()) };
        file.store(&content).map_err(|source| Poison::io("writing", META_FILE, source))?;
        let before = std::mem::replace(&mut meta.1, content).base.segment;
        *super::lock(&self.base) = base;
        drop(meta);
        writing.shared.starts.forget_to(base.segment);
        for number in before..base.segment {
            let segment = u32::try_from(number).unwrap_or(u32::MAX);
            match self.table.retire_file(segment) {
                Retired::Free => writing.files.let_go(number),
                // What still reads it keeps what it reads: the file loses its name only.
                Retired::Held => writing.files.remove(number),
                // The next open removes it.
                Retired::Named => {}
            }
        }
        Ok(())
    }

    /// Reads the log from its base through the frame `sequence`, all of which is on disk, as opening does, and refuses what
    /// does not hold: what is about to be given up is the only copy that says so.
    pub(crate) fn check_through(
        &self,
        sequence: u64,
        stopping: &dyn Fn() -> bool,
    ) -> Result<(), OpenError> {
        let meta = super::lock(&self.meta).1;
        check_frames(&*self.disk, &meta, sequence, stopping)
    }

    /// Removes all snapshots below `index`, of which there is a durable one.
    pub(crate) fn remove_snapshots_below(&self, index: u64) {
        let names = self.disk.list().unwrap_or_default();
        let older = |name: &String| parse_snapshot_name(name).is_some_and(|older| older < index);
        for name in names.into_iter().filter(older) {
            let opened = self.disk.open(&name, Access::Read);
            if opened.and_then(|file| is_no_snapshot(&*file)).is_ok_and(|is_none| is_none) {
                tracing::warn!(name, "a file with the name of a snapshot is none, and stays");
                continue;
            }
            if let Err(error) = self.disk.remove(&name) {
                tracing::warn!(%error, name, "an older snapshot could not be removed");
            }
        }
    }

    /// The log writer goes on in `segment`, which is after its own, with the frame that follows its last one; what the base
    /// of a log is that begins there, after the entry `last`. Every frame is written, and nobody appends.
    pub(crate) fn writer_starts_over(&self, segment: u32, last: LogId) -> Result<LogBase, Poison> {
        let ruled_out = Poison::Internal("a log that is read-only cannot start over");
        let writing = self.writing.as_ref().ok_or(ruled_out)?;
        let mut writer = super::lock(&writing.writer);
        let start = writer.start_over(segment, last.index + 1)?;
        Ok(start.base(last))
    }

    /// How much of a segment has to be used to be worth ending early: a sixteenth.
    pub(crate) fn segment_used_min(&self) -> usize {
        let segment_bytes =
            self.writing.as_ref().map_or(0, |writing| writing.files.segment_bytes());
        usize::try_from(segment_bytes / 16).unwrap_or(usize::MAX)
    }

    /// Gives up the files that are kept to be used again, but for one; whether there were any.
    pub(crate) fn free_spares(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.files.free_spares())
    }

    /// Makes the file of segment `number` ready. The inner error changes nothing.
    pub(crate) fn prepare_segment(&self, number: u32) -> Result<io::Result<()>, Poison> {
        match &self.writing {
            Some(writing) => writing.files.have_ready(number),
            None => Ok(Err(io::ErrorKind::ReadOnlyFilesystem.into())),
        }
    }

    /// The log writer should go on to segment `number` whether anything is written to it or not. All frames before it
    /// are queued.
    pub(crate) fn want_segment(&self, number: u32) {
        if let Some(writing) = &self.writing {
            writing.shared.segment_wanted.store(number, Ordering::Release);
        }
    }

    /// The segment the log writer is in.
    pub(crate) fn writer_segment(&self) -> u32 {
        self.writing
            .as_ref()
            .map_or(u32::MAX, |writing| writing.shared.segment.load(Ordering::Acquire))
    }

    /// Where the log begins.
    pub(crate) fn base(&self) -> LogBase {
        *super::lock(&self.base)
    }

    /// The last segment start before which only entries below `mark` are.
    pub(crate) fn start_below(&self, mark: u64) -> Option<SegmentStart> {
        self.writing.as_ref()?.shared.starts.below(mark)
    }

    /// The length of all full segments that a snapshot of what is below `mark` would let go. Others are no reason for one:
    /// they would be there after it as before.
    pub(crate) fn sealed_bytes_below(&self, mark: u64) -> u64 {
        self.writing.as_ref().map_or(0, |writing| {
            writing.shared.starts.count_below(mark) as u64 * writing.files.segment_bytes()
        })
    }

    /// What may go from the log of the entries before `mark`, by `retain_entries`, if it ends at `submitted`.
    pub(crate) fn free_below(&self, mark: u64, submitted: u64) -> u64 {
        mark.min(submitted.saturating_sub(self.retain_entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(segment: u64, mark: u64) -> SegmentStart {
        SegmentStart { segment, sequence: segment * 10, chain: 7, mark }
    }

    #[test]
    fn the_log_may_begin_where_everything_before_is_below_a_mark() {
        let starts = SegmentStarts::default();
        for (segment, mark) in [(2, 0), (3, 11), (4, 21), (5, 21)] {
            starts.push(start(segment, mark));
        }
        assert_eq!(starts.below(10), None);
        assert_eq!(starts.below(11), Some(start(3, 11)));
        assert_eq!(starts.below(99), Some(start(5, 21)));
        // The first of them takes back what is before it, so that nothing can begin there; the file goes with the others.
        assert_eq!([10, 11, 99].map(|mark| starts.count_below(mark)), [0, 2, 4]);
        starts.forget_to(4);
        assert_eq!((starts.below(20), starts.below(21)), (None, Some(start(5, 21))));
    }

    #[test]
    fn what_was_applied_and_is_not_of_the_log_keeps_its_segment_until_it_is_covered() {
        let starts = SegmentStarts::default();
        starts.push(start(2, 11));
        starts.push(start(3, 12));
        starts.record(2, 31);
        assert_eq!(starts.below(30), Some(start(2, 11)));
        assert_eq!(starts.below(31), Some(start(3, 12)));
    }

    #[test]
    fn a_segment_that_takes_back_what_is_before_it_is_no_beginning() {
        let starts = SegmentStarts::default();
        starts.push(start(2, 11));
        starts.push(start(3, 21));
        starts.truncated(16);
        assert_eq!(starts.below(99), Some(start(2, 11)));
        starts.truncated(11);
        assert_eq!(starts.below(99), Some(start(2, 11)), "nothing before it was taken back");
    }
}
