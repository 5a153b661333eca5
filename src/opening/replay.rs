//! Replay: applies the committed part of a log to a state machine, on one thread, as the workers
//! would.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::bytes::at_most;
use crate::codec::{self, Encoded, PayloadRef};
use crate::config::Contiguity;
use crate::contract::machine::StateMachine;
use crate::contract::run::{Failed, call_storage, run_machine};
use crate::entry::LogId;
use crate::error::{Corrupt, OpenError, Poison};
use crate::hook::Hook;
use crate::log::apply_only::Phase;
use crate::log::format::FrameKind;
use crate::log::recovery::scan::GoodFrame;
use crate::numbers::{FrameSequence, Mark};
use crate::ranges::in_flight_ring::InFlightRing;
use crate::ranges::index_range::RangeKind;
use crate::ranges::partition::{Footprint, Partition};
use crate::ranges::range::{Payloads, RangeParts};

/// Number of entries that the machine gets at once.
const CHUNK: u32 = 1024;

/// Applies frames as they are read.
pub(crate) struct Replay<'a, M> {
    machine: &'a M,
    in_flight: InFlightRing,
    /// Mark of the committed entries; later ones are not applied.
    committed_mark: Mark,
    /// The machine's last entry before replay, or its last entry since.
    applied: Option<LogId>,
    applied_mark: Mark,
    truncations: Truncations,
    /// Frame sequences of the records that are applied: see [`Phase`].
    records: RangeInclusive<FrameSequence>,
    /// Whether the log may hold other entries than were applied.
    contiguity: Contiguity,
    /// For a machine over a storage: the number of entries applied and not committed, and the first
    /// of them.
    staged: (u64, u64),
}

/// The truncations of a log, by which a second pass leaves truncated entries out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truncations {
    /// Frame sequence and first index removed, both rising. A truncation that goes lower than an
    /// earlier one removes everything that the earlier one did.
    removed: VecDeque<(FrameSequence, u64)>,
}

impl Truncations {
    /// Adds the next truncation of the log.
    pub(crate) fn push(&mut self, sequence: FrameSequence, first_removed: u64) {
        while self.removed.back().is_some_and(|(_, first)| *first >= first_removed) {
            self.removed.pop_back();
        }
        self.removed.push_back((sequence, first_removed));
    }

    /// Mark up to which entries of this frame are live; later ones were truncated. The caller asks
    /// for frames in their order.
    fn live_mark(&mut self, sequence: FrameSequence) -> Mark {
        while self.removed.front().is_some_and(|(truncation, _)| *truncation < sequence) {
            self.removed.pop_front();
        }
        self.removed.front().map_or(Mark::ALL, |(_, first_removed)| Mark::before(*first_removed))
    }
}

impl<'a, M: StateMachine> Replay<'a, M> {
    pub(crate) fn new(machine: &'a M, committed_mark: Mark, truncations: Truncations) -> Self {
        let applied = machine.applied();
        let applied_mark = Mark::of(applied.map(|last| last.index));
        let in_flight =
            InFlightRing::new(CHUNK as usize).forgetting_replies(machine.reply_bytes_max());
        let records = FrameSequence::NONE..=FrameSequence::NONE;
        Self {
            machine,
            in_flight,
            committed_mark,
            applied,
            applied_mark,
            truncations,
            records,
            contiguity: Contiguity::Strict,
            staged: (0, 0),
        }
    }

    /// One phase of the replay of a log that commits by `commit`.
    pub(crate) fn phase(
        machine: &'a M,
        phase: &Phase,
        truncations: Truncations,
        contiguity: Contiguity,
    ) -> Self {
        let replay = Self::new(machine, phase.committed_mark, truncations);
        Self { records: phase.records.0..=phase.records.1, contiguity, ..replay }
    }

    /// Applies the entries of `frame` that are committed, and were not truncated before.
    pub(crate) fn frame(&mut self, frame: &GoodFrame<'_>) -> Result<(), OpenError> {
        let sequence = frame.header.opening.sequence;
        let end_mark = match frame.header.opening.kind {
            FrameKind::Entries => self.committed_mark.min(self.truncations.live_mark(sequence)),
            FrameKind::ApplyOnly if self.records.contains(&sequence) => Mark::ALL,
            FrameKind::ApplyOnly | FrameKind::Truncation => return Ok(()),
        };
        let undecodable = || Corrupt {
            file: crate::disk::names::segment_name(frame.segment),
            offset: frame.offset,
            index: Some(frame.header.opening.first_index),
            what: "a frame does not fit its segment",
        };
        let extent = frame.extent().ok_or_else(undecodable)?;
        let body = extent.over(frame.body).ok_or_else(undecodable)?;
        let mut chunk =
            Chunk { first: frame.header.first(), count: 0, barrier: false, body, skip: 0 };
        for position in 0..frame.header.count {
            let index = frame.header.opening.first_index + u64::from(position);
            if !end_mark.covers(index) {
                break;
            }
            let rest = chunk.body.skip(chunk.skip).ok_or_else(undecodable)?;
            let (payload, len) = codec::decode(rest).map_err(|_| undecodable())?;
            if self.applied_mark.covers(index) {
                let found = frame.header.first().at(index);
                if let Some(applied) = self.applied
                    && !self.contiguity.is_monotone()
                    && applied.index == index
                    && applied != found
                {
                    return Err(OpenError::OtherLog { applied, found: Some(found) });
                }
                // Such a log's entries below a record were not applied.
                if let PayloadRef::Membership(bytes) = payload
                    && !self.contiguity.is_monotone()
                {
                    self.machine.had_membership(Hook::ENGINE, found, bytes);
                }
                chunk.skip += len;
                chunk = chunk.after(found.at(index + 1)).ok_or_else(undecodable)?;
                continue;
            }
            let footprint = catch_unwind(AssertUnwindSafe(|| self.machine.footprint(&payload)))
                .map_err(|_panic| OpenError::Replay(Poison::Panic { index }))?;
            if (footprint == Footprint::All && chunk.count > 0) || chunk.count == self.chunk_max() {
                self.apply(&chunk)?;
                chunk = chunk.after(frame.header.first().at(index)).ok_or_else(undecodable)?;
            }
            let kind = self.in_flight.classify(index, footprint, rest.offset());
            chunk.count += 1;
            chunk.skip += len;
            if kind == RangeKind::Barrier {
                chunk.barrier = true;
                self.apply(&chunk)?;
                chunk = chunk.after(frame.header.first().at(index + 1)).ok_or_else(undecodable)?;
            }
        }
        self.apply(&chunk)
    }

    fn apply(&mut self, chunk: &Chunk<'_>) -> Result<(), OpenError> {
        if chunk.count == 0 {
            return Ok(());
        }
        let Chunk { first, count, barrier, body: encoded, .. } = *chunk;
        let parts = RangeParts {
            in_flight: &self.in_flight,
            first,
            count,
            barrier,
            payloads: Payloads::Encoded(encoded),
        };
        // If a chunk of the snapshot cannot be read back, the machine is not to blame.
        let failed = |failed: Failed| match failed.damage {
            Some(place) => OpenError::Corrupt(*place),
            None => OpenError::Replay(failed.poison),
        };
        run_machine(self.machine, parts, Partition::WHOLE).map_err(failed)?;
        self.applied_mark = Mark::before(chunk.first.index + u64::from(chunk.count));
        if let Some(staging) = self.machine.staging(Hook::ENGINE) {
            let (entries, first) = self.staged;
            let first = if entries == 0 { chunk.first.index } else { first };
            self.staged = (entries + u64::from(chunk.count), first);
            if self.staged.0 >= staging.batch_size() as u64 {
                self.finish()?;
            }
        }
        Ok(())
    }

    /// Number of entries that may be applied before a machine over a storage commits.
    fn chunk_max(&self) -> u32 {
        let Some(staging) = self.machine.staging(Hook::ENGINE) else { return CHUNK };
        // A batch that is full commits before the next entry.
        let room = (staging.batch_size() as u64).saturating_sub(self.staged.0);
        at_most(room, CHUNK).max(1)
    }

    /// Commits the batch that a machine over a storage has applied.
    pub(crate) fn finish(&mut self) -> Result<(), OpenError> {
        let (entries, first) = std::mem::take(&mut self.staged);
        let Some(staging) = self.machine.staging(Hook::ENGINE).filter(|_| entries > 0) else {
            return Ok(());
        };
        let last = self.applied_mark.last().unwrap_or(first);
        let what = || format!("its storage did not commit the batch of entries {first} to {last}");
        call_storage(first, what, || staging.commit()).map(drop).map_err(OpenError::Replay)
    }
}

/// Entries of one frame, gathered until they are applied. It is no
/// [`IndexRange`](crate::ranges::index_range::IndexRange), because the bytes come from the file
/// that is being read, and the table of segments does not have them yet.
#[derive(Clone, Copy)]
struct Chunk<'a> {
    first: LogId,
    count: u32,
    barrier: bool,
    /// The encoded entries from the chunk's first to the frame's last.
    body: Encoded<'a>,
    /// Number of bytes of `body` that belong to the chunk.
    skip: usize,
}

impl Chunk<'_> {
    /// The empty chunk that starts where this one ends; `None` if that is behind the frame.
    fn after(self, first: LogId) -> Option<Self> {
        Some(Self { first, count: 0, barrier: false, body: self.body.skip(self.skip)?, skip: 0 })
    }
}
