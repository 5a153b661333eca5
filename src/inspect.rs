//! Looking at a data directory from outside: is it whole, what is in it, which entries does it hold.
//!
//! For tools and tests; the `sprag` command is built on this. A directory is opened read-only and nothing of it is
//! changed, ever: no file is created, no byte is written, a torn end stays as it is. While it is open for writing
//! somewhere, every call here is refused with [`OpenError::Locked`].
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
//! sprag::inspect::dump(&path, .., &mut |entry| {
//!     indexes.push(entry.log_id.index);
//!     Ok(())
//! })?;
//! assert_eq!(indexes, [1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod dump;
mod summary;
mod verify;

#[cfg(test)]
mod tests;

pub use dump::{DumpSummary, LiveEntry, dump};
pub use summary::{FrameInfo, Inspection, LogBase, MetaContent, SegmentInfo, frames, inspect};
pub use verify::{Finding, VerifyReport, verify};

use std::path::Path;

use crate::disk::real::{OpenMode, RealDisk};
use crate::error::OpenError;
use crate::log::meta::{Meta, MetaDamage, MetaFile};

/// A directory opened to be looked at, and its META, if it was ever completed.
struct Looked {
    disk: RealDisk,
    meta: Option<(Meta, MetaDamage)>,
}

impl Looked {
    fn at(path: &Path) -> Result<Self, OpenError> {
        let disk = RealDisk::open(path, OpenMode::ReadOnly)?;
        let meta = MetaFile::open(&disk, false)?;
        Ok(Self { disk, meta: meta.map(|(_, meta, damage)| (meta, damage)) })
    }
}

/// The caller's own failure, carried out through the reading of the log.
fn sink_failed(source: std::io::Error) -> OpenError {
    OpenError::io("writing", "what was read", source)
}
