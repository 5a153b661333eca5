//! The versions of the formats on disk.

use crate::log::format::FRAME_VERSION;
use crate::log::two_slot::VERSION_2;
use crate::snapshot::format::VERSION as SNAPSHOT_VERSION;

/// The versions of the formats that a release writes. It also reads earlier versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FormatVersions {
    /// Version of META and HARD.
    pub slots: u16,
    /// Version of the frames of the log.
    pub frames: u16,
    /// Version of snapshot files.
    pub snapshots: u16,
}

/// The versions of the formats that this release writes.
pub const FORMAT_VERSIONS: FormatVersions =
    FormatVersions { slots: VERSION_2, frames: FRAME_VERSION, snapshots: SNAPSHOT_VERSION };
