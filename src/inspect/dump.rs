//! The entries of a log, without truncated ones.

use std::io;
use std::ops::RangeBounds;
use std::path::Path;

use super::Looked;
use super::summary::committed_of;
use crate::codec::{self, Encoded, PayloadRef};
use crate::disk::names::segment_name;
use crate::entry::LogId;
use crate::error::{Corrupt, OpenError};
use crate::log::Cut;
use crate::log::format::FrameKind;
use crate::log::recovery::scan::{GoodFrame, scan};
use crate::numbers::FrameSequence;

/// One entry that is in the log and was not truncated.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LiveEntry<'a> {
    /// The entry's log id.
    pub log_id: LogId,
    /// Whether it is known to be committed: only committed entries are part of the state.
    pub committed: bool,
    /// The entry's payload.
    pub payload: PayloadRef<'a>,
}

/// Summary of [`dump`].
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct DumpSummary {
    /// Number of entries passed to the sink.
    pub entries: u64,
    /// The last entry of the log.
    #[cfg_attr(feature = "serde", serde(flatten, serialize_with = "crate::serial::last"))]
    pub last: Option<LogId>,
    /// The highest index that is committed.
    #[cfg_attr(feature = "serde", serde(rename = "committed_index"))]
    pub committed: Option<u64>,
    /// The torn end, which is not part of the log.
    pub cut: Option<Cut>,
    /// Damage of durable bytes, at which reading stopped: no later entry was passed.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::text"))]
    pub unreadable: Option<Corrupt>,
    /// Whether another process was writing meanwhile.
    pub beside_a_writer: bool,
}

/// Calls `sink` with every entry of the log at `path` whose index is in `indexes`, in index order.
/// Truncated entries are left out. An error of `sink` ends the call.
///
/// The call costs two passes over the log, because only the first tells which entries a later frame
/// removes.
///
/// # Errors
///
/// Returns the errors of [`inspect`](super::inspect()), and [`OpenError::Io`] with the error of
/// `sink`. A damaged log is no error: its entries up to the damage are passed, and the summary has
/// the place of the damage.
pub fn dump(
    path: impl AsRef<Path>,
    indexes: impl RangeBounds<u64>,
    sink: &mut dyn FnMut(&LiveEntry<'_>) -> io::Result<()>,
) -> Result<DumpSummary, OpenError> {
    let path = path.as_ref();
    let looked = Looked::at(path)?;
    let dumped = dump_once(&looked, &indexes, sink);
    looked.if_it_stayed(path, dumped)
}

fn dump_once(
    looked: &Looked,
    indexes: &impl RangeBounds<u64>,
    sink: &mut dyn FnMut(&LiveEntry<'_>) -> io::Result<()>,
) -> Result<DumpSummary, OpenError> {
    let Some((meta, _)) = &looked.meta else { return Ok(DumpSummary::default()) };
    let mut truncations = Truncations::default();
    let result = scan(&*looked.disk, meta, looked.options(), &mut |frame| {
        truncations.note(frame);
        Ok(())
    })?;
    let last = result.tail.last;
    let committed = committed_of(meta, &last, result.tail.committed);
    let mut entries = 0;
    scan(&*looked.disk, meta, looked.options(), &mut |frame| {
        if frame.header.opening.sequence >= result.tail.next_sequence {
            // The frame was written since the first pass, which does not know the truncations from
            // then on.
            return Ok(());
        }
        let limit = truncations.limit_of(frame.header.opening.sequence);
        each_entry(frame, &mut |log_id, payload| {
            let wanted = indexes.contains(&log_id.index);
            if !wanted || limit.is_some_and(|limit| log_id.index >= limit) {
                return Ok(());
            }
            entries += 1;
            let committed = Some(log_id.index) <= committed;
            sink(&LiveEntry { log_id, committed, payload }).map_err(super::sink_failed)
        })
    })?;
    Ok(DumpSummary {
        entries,
        last,
        committed,
        cut: result.cut.map(Into::into),
        unreadable: result.unreadable.map(|damage| damage.place),
        beside_a_writer: looked.is_beside_a_writer(),
    })
}

type OnEntry<'a> = dyn FnMut(LogId, PayloadRef<'_>) -> Result<(), OpenError> + 'a;

fn each_entry(frame: &GoodFrame<'_>, on_entry: &mut OnEntry<'_>) -> Result<(), OpenError> {
    let header = &frame.header;
    if header.opening.kind == FrameKind::ApplyOnly {
        // The entry is not of the log.
        return Ok(());
    }
    let undecodable = || Corrupt {
        file: segment_name(frame.segment),
        offset: frame.offset,
        index: Some(header.opening.first_index),
        what: "an entry does not decode, though its checksum fits",
    };
    let mut body = Encoded::elsewhere(frame.body);
    for position in 0..header.count {
        let (payload, len) = codec::decode(body).map_err(|_| undecodable())?;
        on_entry(header.first().at(header.opening.first_index + u64::from(position)), payload)?;
        body = body.skip(len).ok_or_else(undecodable)?;
    }
    Ok(())
}

/// The truncations of a log, by frame sequence.
#[derive(Debug, Default)]
struct Truncations {
    /// Sequence and first index removed; both rise, because a truncation is dropped when a later
    /// one goes below it.
    frames: Vec<(FrameSequence, u64)>,
}

impl Truncations {
    fn note(&mut self, frame: &GoodFrame<'_>) {
        let opening = &frame.header.opening;
        if opening.kind == FrameKind::Truncation {
            while self.frames.last().is_some_and(|(_, first)| *first >= opening.first_index) {
                self.frames.pop();
            }
            self.frames.push((opening.sequence, opening.first_index));
        }
    }

    /// The lowest index that any truncation after frame `sequence` removes.
    fn limit_of(&self, sequence: FrameSequence) -> Option<u64> {
        let next = self.frames.partition_point(|(at, _)| *at <= sequence);
        self.frames.get(next).map(|(_, first)| *first)
    }
}
