//! The versions of the formats on disk.

use crate::log::format::FRAME_VERSION;
use crate::log::two_slot::VERSION_2;
use crate::snapshot::format::VERSION as SNAPSHOT_VERSION;

/// The versions of the formats that a release writes. It reads those before them too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FormatVersions {
    /// Of META and HARD.
    pub slots: u16,
    /// Of the frames of the log.
    pub frames: u16,
    /// Of snapshot files.
    pub snapshots: u16,
}

/// The versions of the formats that this release writes.
pub const FORMAT_VERSIONS: FormatVersions =
    FormatVersions { slots: VERSION_2, frames: FRAME_VERSION, snapshots: SNAPSHOT_VERSION };
