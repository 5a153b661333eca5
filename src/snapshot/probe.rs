//! Access for benches of snapshots; not part of the public API.

use std::path::Path;

use super::file::write_snapshot_file;
use super::writer::SnapshotMeta;
use crate::disk::names::snapshot_name;
use crate::disk::real::{OpenMode, RealDisk};
use crate::entry::LogId;
use crate::error::snapshot::SnapshotError;

/// Writes entries, by rising key, as the snapshot of index 1 of a directory. Returns the number of
/// bytes.
///
/// # Errors
///
/// Returns the errors of taking a snapshot.
pub fn write<'a>(
    directory: &Path,
    entries: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<u64, SnapshotError> {
    let disk = RealDisk::open(directory, OpenMode::Write { create: false }).map_err(|error| {
        let error = std::io::Error::other(error);
        SnapshotError::io("opening", directory.display().to_string(), error)
    })?;
    let summary = write_snapshot_file(&disk, &snapshot_name(1), true, |mut writer| {
        entries.into_iter().try_for_each(|(key, value)| writer.push(key, value))?;
        writer.finish(&SnapshotMeta { log_id: Some(LogId::new(1, 1)), ..SnapshotMeta::default() })
    })?;
    Ok(summary.bytes)
}
