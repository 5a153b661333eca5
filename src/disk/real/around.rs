//! Finding the data directory that contains a path. A directory of ours holds the engine's files
//! only, so nothing else is put there.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, pread, retry_on_intr};

use super::{DIRECTORY_FLAGS, FILE_FLAGS, LOCK_FILE};
use crate::disk::names::{HARD_FILE, META_FILE, parse_segment_name};
use crate::error::OpenError;

/// The files that mark a data directory, each with the first bytes of its slots.
const MARKS: [(&str, [u8; 4]); 2] = [(META_FILE, *b"SPRM"), (HARD_FILE, *b"SPRH")];
/// Offsets of the slots.
const SLOTS_AT: [u64; 2] = [0, 4096];

/// The data directory that `folder` is, or that contains it at any depth. Links are resolved.
pub(crate) fn enclosing(folder: &Path) -> io::Result<Option<PathBuf>> {
    let folder = std::fs::canonicalize(folder)?;
    let mut above = folder.ancestors().enumerate();
    let found = above.find(|(depth, directory)| is_data_directory(directory, *depth == 0));
    Ok(found.map(|(_, directory)| directory.to_owned()))
}

/// Refuses a directory's path inside a data directory.
pub(crate) fn refuse_inside(path: &Path) -> Result<(), OpenError> {
    let shown = || path.display().to_string();
    let real = match std::fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        real => real.map_err(|error| OpenError::io("finding", shown(), error))?,
    };
    let parent = real.parent().filter(|parent| !parent.as_os_str().is_empty());
    match enclosing(parent.unwrap_or(Path::new("."))) {
        Ok(None) => Ok(()),
        Ok(Some(directory)) => {
            let directory = directory.display().to_string();
            Err(OpenError::InsideDataDirectory { path: shown(), directory })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(OpenError::Missing { path: shown() })
        }
        Err(error) => Err(OpenError::io("finding the directory of", shown(), error)),
    }
}

/// Whether a directory holds files of the engine. With `closely`, also recognises one whose META
/// and HARD are damaged or incomplete, by reading all of its names. An unreadable directory does
/// not count.
fn is_data_directory(path: &Path, closely: bool) -> bool {
    let Ok(directory) = fs::openat(fs::CWD, path, DIRECTORY_FLAGS, Mode::empty()) else {
        return false;
    };
    if MARKS.iter().any(|(name, magic)| begins_with(&directory, name, magic)) {
        return true;
    }
    if !closely {
        return false;
    }
    let is_there = |name: &str| {
        fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| is_regular(&stat))
    };
    if is_there(META_FILE) && is_there(LOCK_FILE) {
        return true;
    }
    let Ok(entries) = Dir::read_from(&directory) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name().to_str();
        name.is_ok_and(|name| parse_segment_name(name).is_some() && is_there(name))
    })
}

/// Whether a slot of the file `name` begins with `magic`. A file that this user may not read counts
/// by its name.
fn begins_with(directory: &impl std::os::fd::AsFd, name: &str, magic: &[u8; 4]) -> bool {
    let flags = OFlags::RDONLY | FILE_FLAGS;
    let file = match retry_on_intr(|| fs::openat(directory, name, flags, Mode::empty())) {
        Ok(file) => file,
        Err(error) => return error == Errno::ACCESS,
    };
    fs::fstat(&file).is_ok_and(|stat| is_regular(&stat))
        && SLOTS_AT.iter().any(|at| {
            let mut first = [0; 4];
            retry_on_intr(|| pread(&file, &mut first[..], *at)).is_ok() && first == *magic
        })
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}
