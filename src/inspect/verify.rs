//! Verification that every byte of a directory is as it was written.

use std::path::Path;
#[cfg(any(test, feature = "testing"))]
use std::sync::Arc;

use super::{Looked, while_it_stays};
#[cfg(any(test, feature = "testing"))]
use crate::disk::Disk;
use crate::error::{Corrupt, OpenError};
use crate::log::recovery::files::{ForeignFiles, list_files};
use crate::log::recovery::verify::{VerifyFinding, verify as verify_log};

/// One damaged place.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// The file, the offset, the first index lost there (if it is known), and the kind of damage.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub place: Corrupt,
    /// Whether the bytes were known to be durable. If not, the place is the torn end that a crash
    /// leaves, and opening for writing cuts it. It may hold an acknowledged last group that was
    /// damaged after the crash and, under [`Periodic`](crate::Durability::Periodic) and
    /// [`Os`](crate::Durability::Os), acknowledged entries.
    pub was_durable: bool,
}

/// Report of [`verify`].
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Number of good frames.
    pub frames: u64,
    /// Number of entries in them, including truncated ones.
    pub entries: u64,
    /// Number of good snapshots.
    pub snapshots: u64,
    /// Every damaged place, in the order of the log, and then of the snapshots.
    pub findings: Vec<Finding>,
    /// Whether another process was writing meanwhile: the frames being written are neither damage
    /// nor a torn end.
    pub beside_a_writer: bool,
    /// Files of the directory that are not the engine's. They are ignored, and are no finding.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::if_any"))]
    pub foreign: ForeignFiles,
}

impl VerifyReport {
    /// Whether no durable byte is damaged. A torn end is not damage: every crash may leave one.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| !finding.was_durable)
    }

    /// The torn end of the log, if it has one.
    #[must_use]
    pub fn torn_end(&self) -> Option<&Corrupt> {
        self.findings.iter().find(|finding| !finding.was_durable).map(|finding| &finding.place)
    }
}

/// Reads every byte of the directory at `path` and reports every damaged place. The call continues
/// behind damage where it can.
///
/// The call costs one pass over all files, and more over the bytes behind damage. Its memory is one
/// buffer of a few MiB (and, beside a writer, the snapshots). A directory that was never completed
/// (after a crash while it was made) is clean and empty.
///
/// # Errors
///
/// Returns [`OpenError`] for obstacles to reading: a missing directory, an unknown version, a
/// directory that another program uses, an I/O error. Damage is not an error but a finding.
pub fn verify(path: impl AsRef<Path>) -> Result<VerifyReport, OpenError> {
    report_of(while_it_stays(path.as_ref(), verify_once))
}

/// Verifies as [`verify`] does, a directory that no writer has open.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn verify_on_disk(disk: Arc<dyn Disk>) -> Result<VerifyReport, OpenError> {
    report_of(Looked::on(disk).and_then(|looked| verify_once(&looked)))
}

fn report_of(looked: Result<VerifyReport, OpenError>) -> Result<VerifyReport, OpenError> {
    match looked {
        Err(OpenError::Corrupt(place)) => {
            // Without META nothing is known of the log: neither its start nor the salt of its
            // checksums.
            let findings = vec![Finding { place, was_durable: true }];
            Ok(VerifyReport { findings, ..VerifyReport::default() })
        }
        looked => looked,
    }
}

fn verify_once(looked: &Looked) -> Result<VerifyReport, OpenError> {
    let mut report = VerifyReport {
        beside_a_writer: looked.is_beside_a_writer(),
        foreign: list_files(&*looked.disk)?.foreign,
        ..VerifyReport::default()
    };
    let Some((meta, _)) = &looked.meta else { return Ok(report) };
    // Read snapshots before the log, which has had every entry of a snapshot since before the
    // snapshot got its name.
    let mut of_snapshots = Vec::new();
    let (whole, newest) = looked.verify_snapshots(meta, &mut |place| {
        of_snapshots.push(Finding { place, was_durable: true });
    })?;
    report.snapshots = whole;
    let newest =
        newest.filter(|newest| Some(newest.index) >= meta.base.last.map(|base| base.index));
    let VerifyReport { findings, .. } = &mut report;
    let mut found = |VerifyFinding { place, was_durable }| {
        findings.push(Finding { place, was_durable });
    };
    let summary = verify_log(&*looked.disk, meta, newest, &mut found);
    match summary {
        Ok(summary) => (report.frames, report.entries) = (summary.frames, summary.entries),
        // This cannot be read past: a frame of an unknown kind, or a file too long for a segment.
        Err(OpenError::Corrupt(place)) => {
            report.findings.push(Finding { place, was_durable: true });
        }
        Err(other) => return Err(other),
    }
    report.findings.extend(of_snapshots);
    Ok(report)
}
