//! A new directory beside a data directory, for copies of its files.

use std::path::{Path, PathBuf};

use rustix::fs;
use rustix::io::Errno;

use super::around::refuse_inside;
use super::{DIRECTORY_MODE, OpenMode, RealDisk, failed, open_directory, own_directory};
use crate::error::OpenError;

/// Limit of the number in a backup's name.
const BACKUPS_MAX: u32 = 10_000;

/// Makes `<path>-backup-<n>` with the lowest free `n` from 1 on, for its owner alone. Its name is
/// durable when this returns. An existing file or directory is never opened.
pub(crate) fn create_beside(path: &Path) -> Result<(RealDisk, PathBuf), OpenError> {
    let shown = path.display().to_string();
    let real = std::fs::canonicalize(path).map_err(|e| OpenError::io("finding", &shown, e))?;
    let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
        return Err(OpenError::Missing { path: shown });
    };
    // The copies go into the directory around it.
    refuse_inside(&real)?;
    let parent_directory = open_directory(parent)?;
    for number in 1..=BACKUPS_MAX {
        let mut backup_name = name.to_owned();
        backup_name.push(format!("-backup-{number}"));
        let backup = parent.join(&backup_name);
        let shown = backup.display().to_string();
        match fs::mkdirat(&parent_directory, &*backup_name, DIRECTORY_MODE) {
            Ok(()) => {}
            Err(Errno::EXIST) => continue,
            Err(error) => return Err(failed("creating", &shown, error)),
        }
        own_directory(&parent_directory, &backup_name, &shown)?;
        return Ok((RealDisk::open(&backup, OpenMode::Write { create: false })?, backup));
    }
    Err(failed("creating a backup of", &shown, Errno::EXIST))
}
