//! Giving up the front of the log: which segments a snapshot makes unnecessary, and the step that
//! gives them up.
//!
//! The log base moves in `META`, in one synced write. Only then the files below it are kept for
//! reuse, up to `spare_segments`, or removed. A crash between the two leaves files below the base.
//! The next writable open keeps or removes these in the same way.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;

use super::Log;
use super::meta::LogBase;
use crate::bytes::to_usize;
use crate::disk::Access;
use crate::disk::names::{META_FILE, parse_snapshot_name};
use crate::entry::LogId;
use crate::error::{OpenError, Poison};
use crate::log::recovery::files::is_no_snapshot;
use crate::log::recovery::walk::check_frames;
use crate::numbers::{FrameSequence, Mark, SegmentNumber};
use crate::places::table::Retired;
use crate::poison::invariant;
use crate::sync::{Mutex, Rank, tell_under_locks};

/// The start of a segment: the base of a log that begins there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentStart {
    pub(crate) segment: SegmentNumber,
    /// Sequence of the last frame before the segment.
    pub(crate) sequence: FrameSequence,
    /// Checksum of that frame.
    pub(crate) chain: u64,
    /// Mark of the log's last entry before the segment.
    pub(crate) mark: Mark,
}

impl SegmentStart {
    /// The start as a base of the log. `last` is the entry before it.
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
/// A segment whose first frames take back entries of the segment before is left out. A log that
/// began there would take back entries from before its beginning.
#[derive(Debug)]
pub(crate) struct SegmentStarts {
    starts: Mutex<VecDeque<SegmentStart>>,
    /// Places of apply-only records: segment, and mark of the last entry.
    records: Mutex<Vec<(SegmentNumber, Mark)>>,
}

impl Default for SegmentStarts {
    fn default() -> Self {
        Self {
            starts: Mutex::new(Rank::SegmentStarts, VecDeque::new()),
            records: Mutex::new(Rank::RecordSegments, Vec::new()),
        }
    }
}

impl SegmentStarts {
    /// Notes that apply-only entries up to `mark` are in `segment`.
    pub(crate) fn record(&self, segment: SegmentNumber, mark: Mark) {
        self.records.lock().push((segment, mark));
    }

    /// Adds the start of the next segment.
    pub(crate) fn push(&self, start: SegmentStart) {
        self.starts.lock().push_back(start);
    }

    /// Removes the starts that a written truncation has made unusable.
    pub(crate) fn truncated(&self, first_removed: u64) {
        self.starts.lock().retain(|start| start.mark <= Mark::before(first_removed));
    }

    /// The last start before which only entries are that `mark` covers.
    pub(crate) fn below(&self, mark: Mark) -> Option<SegmentStart> {
        let (starts, records) = (self.starts.lock(), self.records.lock());
        let covered = |start: &&SegmentStart| {
            start.mark > Mark::NONE
                && start.mark <= mark
                && records.iter().all(|(segment, end)| *segment >= start.segment || *end <= mark)
        };
        starts.iter().rev().find(covered).copied()
    }

    /// Removes the starts up to `segment`, where the log begins from now on.
    fn forget_to(&self, segment: SegmentNumber) {
        self.starts.lock().retain(|start| start.segment > segment);
        self.records.lock().retain(|(at, _)| *at >= segment);
    }

    /// Number of segments before the one that [`SegmentStarts::below`] finds.
    fn count_below(&self, mark: Mark) -> usize {
        let last = self.below(mark).map_or(SegmentNumber::LOWEST, |start| start.segment);
        self.starts.lock().iter().filter(|start| start.segment <= last).count()
    }
}

impl Log {
    /// Makes the log begin at `base`; a durable snapshot covers that and all entries up to
    /// `covered`. Segments before the base are given up. A file without readers is kept for reuse,
    /// or removed if there are `spare_segments` already. Other files lose their name at once, and
    /// their bytes when the last view or value that refers to them is dropped.
    pub(crate) fn move_base(&self, base: LogBase, covered: u64) -> Result<(), Poison> {
        let Some(writing) = &self.writing else { return Ok(()) };
        self.poison.check()?;
        let mut meta = self.meta.lock();
        let (segment, purged, was) = (base.segment, base.last.map(|last| last.index), meta.1.base);
        let was_purged = was.last.map(|last| last.index);
        let in_memory = self.base();
        invariant!(
            self.poison,
            in_memory == was,
            "the base in memory is the one that META has",
            "{in_memory:?} and {was:?}"
        );
        invariant!(
            self.poison,
            was.segment <= segment && was_purged <= purged,
            "purged never falls",
            "from {was_purged:?} in segment {} to {purged:?} in {segment}",
            was.segment
        );
        invariant!(
            self.poison,
            purged <= Some(covered),
            "purged <= snapshot",
            "{purged:?} and {covered}"
        );
        let content = super::Meta {
            base,
            durable_sequence: self.durable_sequence().max(meta.1.durable_sequence),
            committed: meta.1.committed.max(Some(covered)),
            ..self.with_hard_sequence(meta.1)
        };
        let Some(file) = &mut meta.0 else { return Ok(()) };
        file.store(&content).map_err(|source| Poison::io("writing", META_FILE, source))?;
        let before = std::mem::replace(&mut meta.1, content).base.segment;
        *self.base.lock() = base;
        drop(meta);
        writing.shared.starts.forget_to(base.segment);
        for number in before.until(base.segment) {
            match self.table.retire(number) {
                Retired::Free => writing.files.let_go(number),
                // Readers keep the bytes; only the file's name is removed.
                Retired::Held => writing.files.remove(number),
                // The next writable open keeps this file for reuse, or removes it.
                Retired::Named => {}
            }
        }
        Ok(())
    }

    /// Reads the log from its base through the frame `sequence`, as opening does, and refuses any
    /// damage. All of these frames are on disk. The segments to be given up may be the only
    /// evidence of damage.
    pub(crate) fn check_through(
        &self,
        sequence: FrameSequence,
        stopping: &dyn Fn() -> bool,
    ) -> Result<(), OpenError> {
        let meta = self.meta.lock().1;
        check_frames(&*self.disk, &meta, sequence, stopping)
    }

    /// Removes all snapshots below `index`, for which there is a durable one.
    pub(crate) fn remove_snapshots_below(&self, index: u64) {
        let names = match self.disk.list() {
            Ok(names) => names,
            Err(error) => {
                tell_under_locks(|| {
                    tracing::warn!(
                        %error,
                        "older snapshots stay: the directory could not be listed"
                    );
                });
                return;
            }
        };
        let older = |name: &String| parse_snapshot_name(name).is_some_and(|older| older < index);
        for name in names.into_iter().filter(older) {
            let opened = self.disk.open(&name, Access::Read);
            if opened.and_then(|file| is_no_snapshot(&*file)).is_ok_and(|is_none| is_none) {
                tell_under_locks(|| {
                    tracing::warn!(name, "a file with the name of a snapshot is none, and stays")
                });
                continue;
            }
            if let Err(error) = self.disk.remove(&name) {
                tell_under_locks(|| {
                    tracing::warn!(%error, name, "an older snapshot could not be removed");
                });
            }
        }
    }

    /// Empties the log, which continues after `last` in a new segment: the base moves there.
    pub(crate) fn start_over(
        &self,
        segment: SegmentNumber,
        last: LogId,
    ) -> Result<LogBase, Poison> {
        let base = self.writer_starts_over(segment, last)?;
        self.move_base(base, last.index)?;
        Ok(base)
    }

    /// Moves the log writer to `segment`, which is after its current one; its frame sequence
    /// continues. Returns the base of a log that begins there, after the entry `last`. The caller
    /// makes sure that every frame is written and no thread appends.
    fn writer_starts_over(&self, segment: SegmentNumber, last: LogId) -> Result<LogBase, Poison> {
        let ruled_out = Poison::Internal("a log that is read-only cannot start over");
        let writing = self.writing.as_ref().ok_or(ruled_out)?;
        let mut writer = writing.writer.lock();
        let start = writer.start_over(segment, Mark::through(last.index))?;
        Ok(start.base(last))
    }

    /// Used bytes from which a segment is worth ending early: a sixteenth of its length.
    pub(crate) fn segment_used_min(&self) -> usize {
        let segment_bytes =
            self.writing.as_ref().map_or(0, |writing| writing.files.segment_bytes());
        to_usize(segment_bytes / 16)
    }

    /// Removes all spare files but one. Returns whether there were any.
    pub(crate) fn free_spares(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.files.free_spares())
    }

    /// Makes the file of segment `number` ready. The inner error changes nothing.
    pub(crate) fn prepare_segment(&self, number: SegmentNumber) -> Result<io::Result<()>, Poison> {
        match &self.writing {
            Some(writing) => writing.files.have_ready(number),
            None => Ok(Err(io::ErrorKind::ReadOnlyFilesystem.into())),
        }
    }

    /// Asks the log writer to continue in segment `number`, even if nothing is written to it. All
    /// frames before it are queued.
    pub(crate) fn want_segment(&self, number: SegmentNumber) {
        if let Some(writing) = &self.writing {
            writing.shared.segment_wanted.store(number, Ordering::Release);
        }
    }

    /// The segment that the log writer writes to.
    pub(crate) fn writer_segment(&self) -> SegmentNumber {
        self.writing.as_ref().map_or(SegmentNumber::NOWHERE, |writing| {
            writing.shared.segment.load(Ordering::Acquire)
        })
    }

    /// The base of the log.
    pub(crate) fn base(&self) -> LogBase {
        *self.base.lock()
    }

    /// The last segment start before which only entries are that `mark` covers.
    pub(crate) fn start_below(&self, mark: Mark) -> Option<SegmentStart> {
        self.writing.as_ref()?.shared.starts.below(mark)
    }

    /// Length in bytes of all full segments that a snapshot up to `mark` would
    /// release. Other segments are no reason for a snapshot, because they would stay.
    pub(crate) fn sealed_bytes_below(&self, mark: Mark) -> u64 {
        self.writing.as_ref().map_or(0, |writing| {
            writing.shared.starts.count_below(mark) as u64 * writing.files.segment_bytes()
        })
    }

    /// The mark up to which the log may be given up, by `retain_entries`, for entries up to `mark`
    /// and a log that ends at `submitted`.
    pub(crate) fn free_below(&self, mark: Mark, submitted: Mark) -> Mark {
        // A log shorter than what is retained gives up nothing.
        mark.min(Mark::before(submitted.next().saturating_sub(self.settings.retain_entries)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(segment: u32, mark: u64) -> SegmentStart {
        SegmentStart {
            segment: SegmentNumber::new(segment),
            sequence: FrameSequence::new(u64::from(segment) * 10),
            chain: 7,
            mark: Mark::before(mark),
        }
    }

    #[test]
    fn the_log_may_begin_where_everything_before_is_below_a_mark() {
        let starts = SegmentStarts::default();
        for (segment, mark) in [(2, 0), (3, 11), (4, 21), (5, 21)] {
            starts.push(start(segment, mark));
        }
        assert_eq!(starts.below(Mark::before(10)), None);
        assert_eq!(starts.below(Mark::before(11)), Some(start(3, 11)));
        assert_eq!(starts.below(Mark::before(99)), Some(start(5, 21)));
        // The first frame of that segment takes back entries before it, so no log can begin there.
        // Its file is removed with the others.
        assert_eq!([10, 11, 99].map(|mark| starts.count_below(Mark::before(mark))), [0, 2, 4]);
        starts.forget_to(SegmentNumber::new(4));
        assert_eq!(
            (starts.below(Mark::before(20)), starts.below(Mark::before(21))),
            (None, Some(start(5, 21)))
        );
    }

    #[test]
    fn what_was_applied_and_is_not_of_the_log_keeps_its_segment_until_it_is_covered() {
        let starts = SegmentStarts::default();
        starts.push(start(2, 11));
        starts.push(start(3, 12));
        starts.record(SegmentNumber::new(2), Mark::before(31));
        assert_eq!(starts.below(Mark::before(30)), Some(start(2, 11)));
        assert_eq!(starts.below(Mark::before(31)), Some(start(3, 12)));
    }

    #[test]
    fn a_segment_that_takes_back_what_is_before_it_is_no_beginning() {
        let starts = SegmentStarts::default();
        starts.push(start(2, 11));
        starts.push(start(3, 21));
        starts.truncated(16);
        assert_eq!(starts.below(Mark::before(99)), Some(start(2, 11)));
        starts.truncated(11);
        assert_eq!(
            starts.below(Mark::before(99)),
            Some(start(2, 11)),
            "nothing before it was taken back"
        );
    }
}
