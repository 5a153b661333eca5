//! The requirements on the next frame, given all good frames before it.

use crate::config::{CommitMode, Contiguity};
use crate::disk::names::META_FILE;
use crate::entry::LogId;
use crate::error::Corrupt;
use crate::log::format::{FrameHeader, FrameKind};
use crate::log::meta::{LogBase, Meta};
use crate::numbers::{FrameSequence, SegmentNumber};

/// The state of the log after its last good frame.
#[derive(Debug)]
pub(in crate::log) struct Chain {
    base: LogBase,
    /// Whether every entry is committed as soon as it is there.
    commits_as_appended: bool,
    /// Rule for the indexes that follow each other. Where indexes may have gaps, apply-only records
    /// exist.
    contiguity: Contiguity,
    /// The last entry of an apply-only record.
    pub(in crate::log) applied_only: Option<LogId>,
    /// Sequence of the last good frame.
    pub(in crate::log) sequence: FrameSequence,
    /// Checksum of the last good frame, which the next one names.
    pub(in crate::log) checksum: u64,
    /// Incarnation of the last good frame or, where META says that a later opening continued from
    /// here, of that opening. The next frame is not older. A torn write of the same bytes over a
    /// cut frame could complete that frame, except for its header.
    pub(in crate::log) incarnation: u64,
    /// The frame after which META's incarnation starts, and that incarnation.
    opened: (FrameSequence, u64),
    /// The last entry.
    pub(in crate::log) last: Option<LogId>,
    /// The highest `committed` in a good header.
    pub(in crate::log) committed: Option<u64>,
    /// The highest durable sequence in META or a good header.
    pub(in crate::log) durable_sequence: FrameSequence,
    /// The start of each run of entries of one term and leader, so that a truncation finds the log
    /// id before it.
    runs: Vec<LogId>,
    /// The entry of a snapshot: see [`Chain::watch`].
    watched: Option<Watched>,
}

/// An entry, and whether it was found.
#[derive(Clone, Copy, Debug)]
struct Watched {
    log_id: LogId,
    /// Whether the log has the entry, or begins right behind it.
    is_in_log: bool,
    /// Whether a record says that the entry was applied.
    is_recorded: bool,
}

impl Chain {
    pub(in crate::log) fn new(meta: &Meta) -> Self {
        let opened = (meta.durable_sequence, meta.incarnation);
        Self {
            base: meta.base,
            commits_as_appended: meta.commit_mode == CommitMode::OnAppend,
            contiguity: meta.contiguity,
            applied_only: None,
            sequence: meta.base.sequence,
            checksum: meta.base.chain,
            incarnation: if meta.base.sequence >= opened.0 { opened.1 } else { 0 },
            opened,
            last: meta.base.last,
            committed: None,
            durable_sequence: meta.durable_sequence,
            runs: Vec::new(),
            watched: None,
        }
    }

    /// Begins to watch for `log_id`, the entry of a snapshot.
    pub(in crate::log) fn watch(&mut self, log_id: Option<LogId>) {
        self.watched = log_id.map(|log_id| Watched {
            log_id,
            is_in_log: self.base.last == Some(log_id),
            is_recorded: false,
        });
    }

    /// The snapshot's entry, if this log does not have it; the log has been read to its end.
    ///
    /// An engine writes a snapshot of its state after the log is durable up to the snapshot's
    /// entry. So a snapshot of another entry was being installed, or is newer than the META by
    /// which the log was read. For apply-only entries, a record names them, or META says that they
    /// were committed.
    pub(in crate::log) fn lacks_snapshot(&self, meta: &Meta) -> Option<LogId> {
        let Watched { log_id, is_in_log, is_recorded } = self.watched?;
        let was_committed = meta.committed >= Some(log_id.index);
        let is_applied = self.contiguity.is_monotone() && (is_recorded || was_committed);
        (!is_in_log && !is_applied).then_some(log_id)
    }

    /// The sequence of the next frame.
    pub(in crate::log) fn next_sequence(&self) -> FrameSequence {
        self.sequence.next()
    }

    /// The index of the next entry, if it is known.
    pub(in crate::log) fn next_index(&self) -> Option<u64> {
        // A frame with the index u64::MAX is not valid.
        self.last.map(|last| last.index.saturating_add(1))
    }

    /// Whether a frame found at this place is the next one, except for its body and incarnation.
    pub(in crate::log) fn continues(
        &self,
        header: &FrameHeader,
        place: (SegmentNumber, u64),
    ) -> bool {
        (header.segment, header.offset) == place
            && self.sequence.is_before(header.opening.sequence)
            && header.previous == self.checksum
            && self.index_continues(header)
    }

    fn index_continues(&self, header: &FrameHeader) -> bool {
        let (first, Some(last)) = (header.opening.first_index, self.last) else { return true };
        match header.opening.kind {
            FrameKind::Entries => {
                let follows = if self.contiguity.is_monotone() {
                    first > last.index
                } else {
                    first == last.index + 1
                };
                follows && header.opening.term >= last.term
            }
            // Such a frame is not of the log; `contradiction` says whether it may be there at all.
            FrameKind::ApplyOnly => true,
            FrameKind::Truncation => {
                first <= last.index + 1 && self.base.last.is_none_or(|base| first > base.index)
            }
        }
    }

    /// The error of META, or of a header, once the whole log is read. It says that a committed
    /// entry is neither in the log nor before its base. Later entries could never be applied. No
    /// crash leaves this; a META of another time that was copied here does.
    pub(in crate::log) fn begins_late(&self, meta: &Meta) -> Option<Corrupt> {
        let committed = self.committed.max(meta.committed);
        let first = self.runs.first().map(|run| run.index);
        let has_before = self.base.last.is_some() || self.contiguity.is_monotone();
        let what = "an entry is committed that the log begins after";
        (!has_before && committed.is_some() && committed < first).then(|| Corrupt {
            file: META_FILE.to_owned(),
            offset: 0,
            index: committed,
            what,
        })
    }

    /// The error of a frame that is the next one and cannot be, because its writer was wrong.
    pub(in crate::log) fn contradiction(&self, header: &FrameHeader) -> Option<&'static str> {
        if header.opening.kind == FrameKind::ApplyOnly {
            let rises =
                header.last().map(|last| last.index) > self.applied_only.map(|last| last.index);
            return (!self.contiguity.is_monotone() || !rises)
                .then_some("entries that may not be applied here");
        }
        let committed = self.committed.max(header.committed);
        let truncates = header.opening.kind == FrameKind::Truncation;
        let removes = self.last.is_some_and(|last| last.index >= header.opening.first_index);
        (truncates
            && (committed >= Some(header.opening.first_index)
                || (self.commits_as_appended && removes)))
            .then_some("a truncation of what was committed")
    }

    /// Adds the next frame.
    pub(in crate::log) fn accept(&mut self, header: &FrameHeader, checksum: u64) {
        self.sequence = header.opening.sequence;
        self.checksum = checksum;
        self.incarnation = self.incarnation.max(header.opening.incarnation);
        if self.sequence >= self.opened.0 {
            self.incarnation = self.incarnation.max(self.opened.1);
        }
        self.committed = self.committed.max(header.committed);
        self.durable_sequence = self.durable_sequence.max(header.durable_sequence);
        if header.opening.kind == FrameKind::ApplyOnly {
            self.applied_only = header.last();
            if let Some(watched) = &mut self.watched {
                watched.is_recorded |= self.applied_only == Some(watched.log_id);
            }
            return;
        }
        match header.last() {
            Some(last) => {
                let first = header.first();
                if let Some(Watched { log_id, is_in_log, .. }) = &mut self.watched
                    && (first.index..=last.index).contains(&log_id.index)
                {
                    *is_in_log = first.at(log_id.index) == *log_id;
                }
                if self.runs.last().is_none_or(|run| run.at(first.index) != first) {
                    self.runs.push(first);
                }
                self.last = Some(last);
            }
            None => self.truncate(header.opening.first_index),
        }
    }

    fn truncate(&mut self, first_removed: u64) {
        if self.last.is_none_or(|last| last.index < first_removed) {
            return;
        }
        // A truncation starts above the base.
        if let Some(watched) = &mut self.watched {
            watched.is_in_log &= watched.log_id.index < first_removed;
        }
        while self.runs.last().is_some_and(|run| run.index >= first_removed) {
            self.runs.pop();
        }
        let kept = first_removed.checked_sub(1);
        let run = self.runs.last().and_then(|run| Some(run.at(kept?)));
        self.last = run.or(self.base.last.filter(|base| Some(base.index) == kept));
    }

    /// Continues as if the frame before `header` had been good, only to look for more damage.
    pub(in crate::log) fn resume_before(&mut self, header: &FrameHeader) {
        self.sequence = header.opening.sequence.previous();
        self.checksum = header.previous;
        self.last = None;
        self.runs.clear();
    }
}
