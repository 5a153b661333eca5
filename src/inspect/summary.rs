//! The content of a directory: META, the segments, the frames, the watermarks, the torn end.

use std::io;
use std::path::Path;

use super::{Looked, SnapshotInfo, while_it_stays};
use crate::config::{CommitMode, Contiguity};
use crate::disk::names::segment_name;
use crate::entry::LogId;
use crate::error::{Corrupt, OpenError};
use crate::log::Cut;
use crate::log::format::FrameKind;
use crate::log::hard::HardFile;
use crate::log::meta::{self, Meta};
use crate::log::recovery::files::{ForeignFiles, list_files};
use crate::log::recovery::freeze::look_again;
use crate::log::recovery::older::OlderMeta;
use crate::log::recovery::scan::{GoodFrame, ScanOptions, ScanResult, SegmentSummary, scan};
use crate::snapshot::SnapshotKind;

/// Findings of [`inspect`].
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Inspection {
    /// Content of META; `None`: the directory is empty, or making it was interrupted. Then
    /// everything but `foreign` is empty too.
    pub meta: Option<MetaContent>,
    /// Length of the consensus engine's hard state in bytes; `None` if none was ever saved.
    pub hard_state_bytes: Option<usize>,
    /// The segments from the log base on, rising; segments behind the end of the log hold nothing.
    pub segments: Vec<SegmentInfo>,
    /// Files of segments below the log base: kept for reuse, or left by an interrupted compaction.
    pub obsolete: Vec<String>,
    /// Number of frames of the log, including truncations.
    pub frames: u64,
    /// The last entry of the log, after truncations.
    #[cfg_attr(feature = "serde", serde(flatten, serialize_with = "crate::serial::last"))]
    pub last: Option<LogId>,
    /// The highest index known to be committed (and, if it commits as it appends, the last).
    #[cfg_attr(feature = "serde", serde(rename = "committed_index"))]
    pub committed: Option<u64>,
    /// The sequence of the last frame; 0 for none. It only rises, also over truncations.
    pub sequence: u64,
    /// The highest frame sequence that META or a frame says was durable.
    pub durable_sequence: u64,
    /// The torn end, which the next open for writing cuts.
    pub cut: Option<Cut>,
    /// The snapshots, by rising index.
    pub snapshots: Vec<SnapshotInfo>,
    /// Damage of durable bytes, at which reading stopped; the other findings are of the part before
    /// it. [`verify`](super::verify) lists all damage.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::text"))]
    pub damage: Option<Corrupt>,
    /// Whether another process was writing meanwhile: then there is no torn end, only frames that
    /// are being written.
    pub beside_a_writer: bool,
    /// Files of the directory that are not the engine's. They are ignored.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::if_any"))]
    pub foreign: ForeignFiles,
}

/// The content of META.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MetaContent {
    /// Random identity of the directory, which is part of its checksums.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::hex"))]
    pub database_id: [u8; 16],
    /// Rule by which entries commit.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::mode"))]
    pub commit_mode: CommitMode,
    /// Whether indexes may have gaps.
    pub contiguity: Contiguity,
    /// Content of its state machine's snapshots; `None` if an earlier build made the directory, and
    /// did not record it.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "state_machine", serialize_with = "crate::serial::machine")
    )]
    pub state: Option<SnapshotKind>,
    /// Whether the last open for writing was closed with everything durable.
    pub clean_close: bool,
    /// The start of the log.
    #[cfg_attr(feature = "serde", serde(flatten, serialize_with = "crate::serial::base"))]
    pub base: LogBase,
    /// Incarnation of the last open for writing.
    pub incarnation: u64,
    /// Frames up to this sequence were durable when META was stored; 0 for none.
    pub durable_sequence: u64,
    /// Entries up to this index were committed when META was stored.
    #[cfg_attr(feature = "serde", serde(rename = "committed_index"))]
    pub committed: Option<u64>,
    /// Offset of a slot of META that cannot be read back (the other one can).
    pub damaged_slot: Option<u64>,
}

/// The start of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LogBase {
    /// The segment of its first frame.
    pub segment: u64,
    /// The sequence of the last frame before it; 0 for none.
    pub sequence: u64,
    /// The last entry before it.
    pub last: Option<LogId>,
}

/// One segment file.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Name of the file.
    pub file: String,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// End of its last good frame.
    pub used_bytes: u64,
    /// Number of good frames in it.
    pub frames: u64,
    /// First index of its entries, including truncated ones.
    pub first_index: Option<u64>,
    /// Highest index of its entries, including truncated ones.
    pub last_index: Option<u64>,
}

/// One frame of the log.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FrameInfo {
    /// The segment file that contains it.
    pub file: String,
    /// Offset in the file.
    pub offset: u64,
    /// Length of header and body in bytes.
    pub bytes: u64,
    /// Sequence of the frame.
    pub sequence: u64,
    /// Incarnation of the open that wrote it.
    pub incarnation: u64,
    /// The log id of its first entry; of a truncation, the first index that it removes.
    #[cfg_attr(feature = "serde", serde(flatten, serialize_with = "crate::serial::first"))]
    pub first: LogId,
    /// Number of entries; `None` for a truncation.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::number"))]
    pub entries: Option<u32>,
    /// Whether its entries are of the state only, and not of the log
    /// ([`ConsensusLog::apply_only`](crate::ConsensusLog::apply_only)).
    pub apply_only: bool,
    /// The highest frame sequence known to be durable when it was written.
    pub durable_sequence: u64,
    /// The highest index known to be committed when it was written.
    #[cfg_attr(feature = "serde", serde(rename = "committed_index"))]
    pub committed: Option<u64>,
}

/// Reads META, and nothing else; `None` for a directory that was never completed.
///
/// # Errors
///
/// Returns the errors of [`inspect`].
pub fn meta(path: impl AsRef<Path>) -> Result<Option<MetaContent>, OpenError> {
    let looked = Looked::at(path.as_ref())?;
    Ok(looked.meta.map(|(meta, damage)| MetaContent::new(&meta, damage.slot_offset)))
}

/// Reads the directory at `path` and summarises its content.
///
/// The call costs one pass over the log. Damage of durable bytes ends it early and is in the
/// result.
///
/// # Errors
///
/// Returns the errors of [`verify`](super::verify), and one for a META that cannot be read back.
pub fn inspect(path: impl AsRef<Path>) -> Result<Inspection, OpenError> {
    while_it_stays(path.as_ref(), inspect_once)
}

fn inspect_once(looked: &Looked) -> Result<Inspection, OpenError> {
    let foreign = list_files(&*looked.disk)?.foreign;
    let Some((meta, damage)) = &looked.meta else {
        return Ok(Inspection { foreign, ..Inspection::default() });
    };
    let mut inspection = Inspection {
        foreign,
        meta: Some(MetaContent::new(meta, damage.slot_offset)),
        committed: meta.committed,
        durable_sequence: meta.durable_sequence.get(),
        beside_a_writer: looked.is_beside_a_writer(),
        ..Inspection::default()
    };
    let disk = &*looked.disk;
    let hard = look_again(disk, &mut || Ok((HardFile::open(disk, meta, false)?, false)));
    match hard {
        Ok(hard) => inspection.hard_state_bytes = hard.load().map(<[u8]>::len),
        Err(OpenError::Corrupt(place)) => inspection.damage = Some(place),
        Err(other) => return Err(other),
    }
    inspection.snapshots = looked.snapshots()?;
    let damaged = inspection.snapshots.iter().find_map(|snapshot| snapshot.damage.clone());
    inspection.damage = inspection.damage.or(damaged);
    let snapshot = inspection.snapshots.iter().rev().find(|snapshot| snapshot.damage.is_none());
    let snapshot = snapshot.and_then(|snapshot| snapshot.log_id);
    let options = ScanOptions { snapshot, ..looked.options() };
    let result = scan(&*looked.disk, meta, options, &mut |_| Ok(()))?;
    let older = OlderMeta::of_scan(meta, damage, &result).map(OlderMeta::place);
    inspection.take(meta, result);
    inspection.damage = inspection.damage.or(older);
    Ok(inspection)
}

/// Calls `sink` with every good frame of the log at `path`, in order and including truncations. It
/// stops at damage, which [`inspect`] names. An error of `sink` ends the call.
///
/// # Errors
///
/// Returns the errors of [`inspect`], and [`OpenError::Io`] with the error of `sink`.
pub fn frames(
    path: impl AsRef<Path>,
    sink: &mut dyn FnMut(&FrameInfo) -> io::Result<()>,
) -> Result<(), OpenError> {
    let path = path.as_ref();
    let looked = Looked::at(path)?;
    let Some((meta, _)) = &looked.meta else { return Ok(()) };
    let seen = scan(&*looked.disk, meta, looked.options(), &mut |frame| {
        sink(&FrameInfo::new(frame)).map_err(super::sink_failed)
    });
    looked.if_it_stayed(path, seen).map(drop)
}

impl Inspection {
    fn take(&mut self, meta: &Meta, result: ScanResult) {
        let ScanResult { tail, cut, segments, obsolete, unreadable, begins_late, .. } = result;
        self.frames = segments.iter().map(|segment| segment.frames).sum();
        self.segments = segments.iter().map(SegmentInfo::new).collect();
        self.obsolete = obsolete.into_iter().map(segment_name).collect();
        self.last = tail.last;
        self.committed = committed_of(meta, &tail.last, tail.committed);
        self.sequence = tail.next_sequence.previous().get();
        self.durable_sequence = tail.durable_sequence_known.get();
        self.cut = cut.map(Into::into);
        let damage = unreadable.map(|damage| damage.place).or(begins_late);
        self.damage = damage.or_else(|| self.damage.take());
    }
}

/// The committed index of the summary: a log that commits as it appends is committed to its end.
pub(super) fn committed_of(
    meta: &Meta,
    last: &Option<LogId>,
    committed: Option<u64>,
) -> Option<u64> {
    match meta.commit_mode {
        CommitMode::OnAppend => last.map(|last| last.index),
        CommitMode::ByCommit => committed,
    }
}

impl MetaContent {
    fn new(meta: &Meta, damaged_slot: Option<u64>) -> Self {
        let meta::LogBase { segment, sequence, last, .. } = meta.base;
        Self {
            database_id: meta.database_id,
            commit_mode: meta.commit_mode,
            contiguity: meta.contiguity,
            state: meta.state,
            clean_close: meta.clean_close,
            base: LogBase { segment: segment.stored(), sequence: sequence.get(), last },
            incarnation: meta.incarnation,
            durable_sequence: meta.durable_sequence.get(),
            committed: meta.committed,
            damaged_slot,
        }
    }
}

impl SegmentInfo {
    fn new(summary: &SegmentSummary) -> Self {
        let SegmentSummary { number, file_bytes, used_bytes, frames, .. } = *summary;
        let SegmentSummary { first_index, last_index, .. } = *summary;
        let file = segment_name(number);
        Self { file, file_bytes, used_bytes, frames, first_index, last_index }
    }
}

impl FrameInfo {
    fn new(frame: &GoodFrame<'_>) -> Self {
        let header = &frame.header;
        Self {
            file: segment_name(frame.segment),
            offset: frame.offset,
            bytes: header.frame_bytes(),
            sequence: header.opening.sequence.get(),
            incarnation: header.opening.incarnation,
            first: header.first(),
            entries: (header.opening.kind != FrameKind::Truncation).then_some(header.count),
            apply_only: header.opening.kind == FrameKind::ApplyOnly,
            durable_sequence: header.durable_sequence.get(),
            committed: header.committed,
        }
    }
}
