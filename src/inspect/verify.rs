//! Whether every byte of a directory is as it was written.

use std::path::Path;
use std::sync::Arc;

use super::{Looked, while_it_stays};
use crate::disk::Disk;
use crate::error::{Corrupt, OpenError};
use crate::log::recovery::files::{ForeignFiles, list_files};
use crate::log::recovery::verify::{VerifyFinding, verify as verify_log};

/// One place that does not read back.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// Which file, where in it, the first index that is lost there (if it is known), and what does not hold.
    pub place: Corrupt,
    /// Whether it was known to be durable. If not it is the torn end that a crash leaves, which opening for writing cuts. It
    /// may hold an acknowledged last group that was damaged after the crash and, under
    /// [`Periodic`](crate::Durability::Periodic) and [`Os`](crate::Durability::Os), acknowledged entries.
    pub was_durable: bool,
}

/// What [`verify`] read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Frames that hold.
    pub frames: u64,
    /// Entries in them, truncated ones included.
    pub entries: u64,
    /// Snapshots that hold.
    pub snapshots: u64,
    /// Every damaged place, in the order of the log, and then of the snapshots.
    pub findings: Vec<Finding>,
    /// Whether somebody was writing meanwhile: the frames being written are neither damage nor a torn end.
    pub beside_a_writer: bool,
    /// Files of the directory that are not the engine's. They are passed over, and no finding.
    pub foreign: ForeignFiles,
}

impl VerifyReport {
    /// Whether nothing that was durable is damaged. A torn end is not damage: every crash may leave one.
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

/// Reads every byte of the directory at `path` and reports every place that does not read back. Goes on behind damage
/// where it can.
///
/// Costs one pass over all files, and some more over what lies behind damage; memory is one buffer of a few MiB (and, beside
/// a writer, the snapshots there are). A
/// directory in which nothing was ever completed (a crash while it was made) is clean and empty.
///
/// # Errors
///
/// [`OpenError`] for what keeps it from looking: a missing directory, an unknown version, a directory that is in use
/// for something else, an I/O error. Damage is not an error but a finding.
pub fn verify(path: impl AsRef<Path>) -> Result<VerifyReport, OpenError> {
    report_of(while_it_stays(path.as_ref(), verify_once))
}

/// As [`verify`], of a directory that nobody has open.
pub(crate) fn verify_on_disk(disk: Arc<dyn Disk>) -> Result<VerifyReport, OpenError> {
    report_of(Looked::on(disk).and_then(|looked| verify_once(&looked)))
}

fn report_of(looked: Result<VerifyReport, OpenError>) -> Result<VerifyReport, OpenError> {
    match looked {
        Err(OpenError::Corrupt(place)) => {
            // Without META nothing is known of the log: neither where it starts nor what its checksums are salted with.
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
    // Before the log, which has every entry that a snapshot has had since before that got its name.
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
        // What cannot be read past: a frame of a kind that there is none of, a file too long for a segment.
        Err(OpenError::Corrupt(place)) => {
            report.findings.push(Finding { place, was_durable: true });
        }
        Err(other) => return Err(other),
    }
    report.findings.extend(of_snapshots);
    Ok(report)
}
