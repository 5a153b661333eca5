//! The findings of opening a log.

use std::time::Duration;

use super::recovery;
use super::recovery::files::ForeignFiles;
use crate::entry::LogId;
use crate::error::Corrupt;
use crate::progress::watermark::StartMarks;

/// The findings of an opening that an open log keeps.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The marks with which an engine starts.
    pub(crate) start: StartMarks,
    pub(crate) recovery: RecoveryReport,
    /// Index and length of the snapshot that the log was opened from.
    pub(crate) snapshot: Option<(u64, u64)>,
    /// Duration of the opening.
    pub(crate) took: Duration,
}

/// Findings of opening a directory.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The last entry of the log.
    #[cfg_attr(feature = "serde", serde(flatten, serialize_with = "crate::serial::last"))]
    pub last: Option<LogId>,
    /// The last entry replayed into the state.
    #[cfg_attr(feature = "serde", serde(rename = "applied_index"))]
    pub applied: Option<u64>,
    /// Number of frames read.
    pub frames: u64,
    /// The torn end that opening cut, if there was one. Nothing known to be durable is in it. After
    /// a crash it may hold an acknowledged last group that was damaged later. Under `Periodic` and
    /// `Os` it may also hold acknowledged entries.
    pub cut: Option<Cut>,
    /// Whether one of META's two slots cannot be read back. The other one can; no crash leaves
    /// this.
    pub meta_slot_damaged: bool,
    /// Damage of durable bytes, met by a read-only open. Reading the log ended there, and this
    /// report covers the part before it. If `HARD` is damaged, the hard state is missing.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::text"))]
    pub unreadable: Option<Corrupt>,
    /// The entry of the snapshot that opening started from; later entries of the log were replayed.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "snapshot_index", serialize_with = "crate::serial::index")
    )]
    pub snapshot: Option<LogId>,
    /// The last entry that was purged from the log; the snapshot has it.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "purged_index", serialize_with = "crate::serial::index")
    )]
    pub purged: Option<LogId>,
    /// Newer snapshots that cannot be read back. The log had what they had.
    pub damaged_snapshots: Vec<String>,
    /// Whether another process was writing during a read-only open: the report covers the log up to
    /// some moment of the opening.
    pub beside_a_writer: bool,
    /// Files of the directory that are not the engine's. Opening ignores them, and changes nothing
    /// of them.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::if_any"))]
    pub foreign: ForeignFiles,
    /// Reason why the directory itself could not be locked, beside its file `LOCK`; `None` if it is
    /// locked. Another process can then open it once `LOCK` is removed or replaced.
    pub directory_lock_refused: Option<String>,
}

/// The torn end of a log.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// The segment in which it starts.
    pub file: String,
    /// Offset in that segment.
    pub offset: u64,
    /// Number of bytes up to the last one that is not zero, over all segments.
    pub bytes: u64,
    /// First and last index of whole frames among these bytes, if there are any.
    pub indexes: Option<(u64, u64)>,
}

impl RecoveryReport {
    /// Adds findings from the copy of a directory that is read beside its writer.
    pub(crate) fn add_copied(&mut self, result: Option<recovery::scan::ScanResult>) {
        let Some(result) = result else { return };
        self.cut = result.cut.map(Into::into);
        if let Some(damage) = result.unreadable {
            self.unreadable = Some(damage.place);
        }
    }
}

impl From<recovery::scan::CutReport> for Cut {
    fn from(cut: recovery::scan::CutReport) -> Self {
        let recovery::scan::CutReport { file, offset, bytes, indexes, .. } = cut;
        Self { file, offset, bytes, indexes }
    }
}
