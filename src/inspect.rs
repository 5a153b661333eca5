//! Inspection of a data directory from outside: whether it is whole, what it holds, and which
//! entries.
//!
//! The module serves tools and tests; the `sprag` command is built on it. A directory is opened
//! read-only and never changed: no file is created, no byte is written, and a torn end stays as it
//! is. A damaged directory is read up to the damage (and by [`verify`] past it). A directory that
//! is open for writing is read as it is at the moment of reading. The frames being written are its
//! end.
//!
//! ```
//! use sprag::{ApplyConfig, ApplyManager, Entry, PersistentConfig, PersistentStateMachine};
//! # let temporary = tempfile::tempdir()?;
//! # let path = temporary.path().join("data");
//! let machine = PersistentStateMachine::open(PersistentConfig::new(&path))?;
//! let manager = ApplyManager::new(machine, ApplyConfig::new())?;
//! let timeout = std::time::Duration::from_secs(10);
//! manager.apply(&Entry::put(1, 1, b"key", b"value"), timeout)?;
//! manager.close(timeout)?;
//!
//! let report = sprag::inspect::verify(&path)?;
//! assert!(report.is_clean() && report.entries == 1);
//! let mut indexes = Vec::new();
//! sprag::inspect::dump(&path, .., &mut |entry| Ok(indexes.push(entry.log_id.index)))?;
//! assert_eq!(indexes, [1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod dump;
mod snapshots;
mod summary;
mod verify;
mod versions;

#[cfg(test)]
mod tests;

pub use dump::{DumpSummary, LiveEntry, dump};
pub use snapshots::SnapshotInfo;
pub use summary::{
    FrameInfo, Inspection, LogBase, MetaContent, SegmentInfo, frames, inspect, meta,
};
#[cfg(any(test, feature = "testing"))]
pub(crate) use verify::verify_on_disk;
pub use verify::{Finding, VerifyReport, verify};
pub use versions::{FORMAT_VERSIONS, FormatVersions};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;
use crate::disk::real::{OpenMode, RealDisk, around};
use crate::error::OpenError;
use crate::log::meta::{LogBase as Base, Meta, MetaDamage, MetaFile};
use crate::log::recovery::freeze::{Looks, look_again};
use crate::log::recovery::scan::ScanOptions;

/// The data directory that `folder` is, or in which it lies at any depth; `None` if there is none.
/// Links are resolved.
///
/// It serves tools that write a file by a name from the user: a data directory is for the engine's
/// files only. META or HARD mark a data directory. `folder` itself is also recognised by a segment,
/// or by META beside LOCK, whatever they hold.
///
/// The call costs a few system calls for `folder` and each directory above it, and reads the names
/// of `folder`.
///
/// # Errors
///
/// Returns the system's error if there is no such folder, or it cannot be looked up.
pub fn enclosing_data_directory(folder: impl AsRef<Path>) -> io::Result<Option<PathBuf>> {
    around::enclosing(folder.as_ref())
}

/// A directory that was opened for inspection, and its META, if it was ever completed.
struct Looked {
    disk: Arc<dyn Disk>,
    meta: Option<(Meta, MetaDamage)>,
}

impl Looked {
    fn at(path: &Path) -> Result<Self, OpenError> {
        Self::on(Arc::new(RealDisk::open(path, OpenMode::ReadBeside)?))
    }

    fn on(disk: Arc<dyn Disk>) -> Result<Self, OpenError> {
        let meta = look_again(&*disk, &mut || {
            let meta = MetaFile::open(&*disk, false)?;
            let torn = meta.as_ref().is_some_and(|(.., damage)| damage.slot_offset.is_some());
            Ok((meta, torn))
        })?;
        Ok(Self { disk, meta: meta.map(|(_, meta, damage)| (meta, damage)) })
    }

    fn options(&self) -> ScanOptions {
        let options = ScanOptions::looking_at(&*self.disk);
        match &self.meta {
            Some((meta, damage)) => options.by_meta(meta, damage),
            None => options,
        }
    }

    /// The start of the log; `None` before anything was completed.
    fn base(&self) -> Option<Base> {
        self.meta.as_ref().map(|(meta, _)| meta.base)
    }

    /// Returns `seen`, unless the log's start has moved. A compaction may have removed its front
    /// during the read, and entries given to a sink cannot be taken back.
    fn if_it_stayed<T>(&self, path: &Path, seen: Result<T, OpenError>) -> Result<T, OpenError> {
        if !self.is_beside_a_writer() || Self::at(path)?.base() == self.base() {
            return seen;
        }
        let moved = std::io::Error::other("it was compacted while it was read; read it again");
        Err(OpenError::io("reading the log of", path.display().to_string(), moved))
    }

    /// The start of the log, and the incarnation of the last opening for writing.
    fn era(&self) -> Option<(Base, u64)> {
        self.meta.as_ref().map(|(meta, _)| (meta.base, meta.incarnation))
    }

    fn is_beside_a_writer(&self) -> bool {
        self.disk.is_beside_a_writer()
    }
}

/// Calls `read`, and repeats it if the log's start moved or a writer opened the log meanwhile.
/// Files may have been removed then, or be newer than the META by which they were read.
fn while_it_stays<T>(
    path: &Path,
    look: impl Fn(&Looked) -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    let mut looked = Looked::at(path)?;
    let mut looks = Looks::new();
    loop {
        let seen = look(&looked);
        if !looked.is_beside_a_writer() {
            return seen;
        }
        let now = Looked::at(path)?;
        if now.era() == looked.era() || !looks.again() {
            return seen;
        }
        looked = now;
    }
}

/// The error for a failure of the caller's sink, carried out through the read of the log.
fn sink_failed(source: std::io::Error) -> OpenError {
    OpenError::io("writing", "what was read", source)
}
