//! What a directory holds: META, the segments, the frames, the watermarks, the torn end.

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

/// What [`inspect`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Inspection {
    /// `None`: the directory is empty, or making it was interrupted. All but `foreign` is empty too then.
    pub meta: Option<MetaContent>,
    /// Bytes of the consensus engine's hard state; `None` if none was ever saved.
    pub hard_state_bytes: Option<usize>,
    /// The segments from the log base on, rising; those behind the end of the log hold nothing.
    pub segments: Vec<SegmentInfo>,
    /// Files of segments below the log base: kept to be used again, or left by an interrupted compaction.
    pub obsolete: Vec<String>,
    /// Frames of the log, truncations included.
    pub frames: u64,
    /// The last entry of the log, truncations applied.
    pub last: Option<LogId>,
    /// The highest index known to be committed (and, if it commits as it appends, the last).
    pub committed: Option<u64>,
    /// The sequence of the last frame; 0 for none. It only rises, also over truncations.
    pub sequence: u64,
    /// The highest frame sequence that META or a frame says was durable.
    pub durable_sequence: u64,
    /// The torn end, which the next open for writing cuts.
    pub cut: Option<Cut>,
    /// The snapshots, by rising index.
    pub snapshots: Vec<SnapshotInfo>,
    /// Damage to what was durable, where reading stopped: what is said of the log is then of the part before it. See
    /// [`verify`](super::verify) for all damage.
    pub damage: Option<Corrupt>,
    /// Whether somebody was writing meanwhile: there is then no torn end, only frames that are being written.
    pub beside_a_writer: bool,
    /// Files of the directory that are not the engine's. They are passed over.
    pub foreign: ForeignFiles,
}

/// The content of META.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MetaContent {
    /// Drawn when the directory was made; salts its checksums.
    pub database_id: [u8; 16],
    /// When entries commit.
    pub commit_mode: CommitMode,
    /// Whether indexes may have gaps.
    pub contiguity: Contiguity,
    /// What snapshots of its state machine hold; `None` where an earlier build has made it, which did not keep that.
    pub state: Option<SnapshotKind>,
    /// Whether the last open for writing was closed with everything durable.
    pub clean_close: bool,
    /// Where the log starts.
    pub base: LogBase,
    /// Of the last open for writing.
    pub incarnation: u64,
    /// Frames up to this sequence were durable when META was stored; 0 for none.
    pub durable_sequence: u64,
    /// Entries up to this index were committed when META was stored.
    pub committed: Option<u64>,
    /// Where a slot of META is that does not read back (the other one does).
    pub damaged_slot: Option<u64>,
}

/// Where a log starts.
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
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its name.
    pub file: String,
    /// The file's length.
    pub file_bytes: u64,
    /// Where its last good frame ends.
    pub used_bytes: u64,
    /// Good frames in it.
    pub frames: u64,
    /// First index of its entries, truncated ones included.
    pub first_index: Option<u64>,
    /// Highest index of its entries, truncated ones included.
    pub last_index: Option<u64>,
}

/// One frame of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FrameInfo {
    /// The segment file it is in.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// Header and body.
    pub bytes: u64,
    /// Its own number in the log.
    pub sequence: u64,
    /// Of the open that wrote it.
    pub incarnation: u64,
    /// The log id of its first entry; of a truncation, the first index that it removes.
    pub first: LogId,
    /// How many entries; `None` for a truncation.
    pub entries: Option<u32>,
    /// Whether its entries are of the state only, and not of the log
    /// ([`ConsensusLog::apply_only`](crate::ConsensusLog::apply_only)).
    pub apply_only: bool,
    /// The highest frame sequence known to be durable when it was written.
    pub durable_sequence: u64,
    /// The highest index known to be committed when it was written.
    pub committed: Option<u64>,
}

/// What META holds, and nothing else is read; `None` for a directory in which nothing was ever completed.
///
/// # Errors
///
/// [`OpenError`], as [`inspect`] has it.
pub fn meta(path: impl AsRef<Path>) -> Result<Option<MetaContent>, OpenError> {
    let looked = Looked::at(path.as_ref())?;
    Ok(looked.meta.map(|(meta, damage)| MetaContent::new(&meta, damage.slot_offset)))
}

/// Reads the directory at `path` and says what is in it.
///
/// Costs one pass over the log. Damage to what was durable ends it early and is in the result.
///
/// # Errors
///
/// [`OpenError`], as [`verify`](super::verify) has it, and for a META that does not read back.
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
        durable_sequence: meta.durable_sequence,
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

/// Calls `sink` with every good frame of the log at `path`, truncations included, in order, up to damage if there is
/// any, which [`inspect`] names. An error of `sink` ends it.
///
/// # Errors
///
/// [`OpenError`], as [`inspect`] has it; [`OpenError::Io`] with the error of `sink`.
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
        self.sequence = tail.next_sequence - 1;
        self.durable_sequence = tail.durable_sequence_known;
        self.cut = cut.map(Into::into);
        let damage = unreadable.map(|damage| damage.place).or(begins_late);
        self.damage = damage.or_else(|| self.damage.take());
    }
}

/// A log that commits as it appends is committed to its end.
pub(super) fn committed_of(
    meta: &Meta,
    last: &Option<LogId>,
    committed: Option<u64>,
) -> Option<u64> {
    match meta.commit_mode {
        meta::CommitMode::AsAppended => last.map(|last| last.index),
        meta::CommitMode::ByCommit => committed,
    }
}

impl MetaContent {
    fn new(meta: &Meta, damaged_slot: Option<u64>) -> Self {
        let meta::LogBase { segment, sequence, last, .. } = meta.base;
        Self {
            database_id: meta.database_id,
            commit_mode: meta.commit_mode.into(),
            contiguity: Contiguity::of(meta.is_monotone),
            state: meta.state,
            clean_close: meta.clean_close,
            base: LogBase { segment, sequence, last },
            incarnation: meta.incarnation,
            durable_sequence: meta.durable_sequence,
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
            sequence: header.opening.sequence,
            incarnation: header.opening.incarnation,
            first: header.first(),
            entries: (header.opening.kind != FrameKind::Truncation).then_some(header.count),
            apply_only: header.opening.kind == FrameKind::ApplyOnly,
            durable_sequence: header.durable_sequence,
            committed: header.committed,
        }
    }
}
