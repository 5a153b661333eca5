//! Output files that the user names. The command looks at an existing file before it makes
//! anything.
//!
//! A command writes to a FIFO or a device directly. It follows a link, which stays. A regular file
//! is replaced only if it is of the kind that the command writes, or is empty, or with `--force`. A
//! file in a data directory is never replaced.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use sprag::inspect::enclosing_data_directory;
use tempfile::TempDir;
use thiserror::Error;

use crate::leftovers::Leftover;

/// Time that a command waits for a reader of a FIFO.
const READER_WAIT_MAX: Duration = Duration::from_secs(5);
const READER_LOOK_EVERY: Duration = Duration::from_millis(10);
/// Number of links that the kernel follows.
const LINKS_MAX: usize = 40;

/// Kind of content that a command writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    /// Name of the content in messages, with its article.
    pub(crate) name: &'static str,
    /// Whether an existing file has this kind of content. The function reads from the start of the
    /// file.
    pub(crate) is_same: fn(&mut File) -> io::Result<bool>,
}

/// Destination of a command's output. Nothing has been opened for writing yet.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// Standard output, by the name `-` or by another of its names.
    Standard,
    /// A FIFO or a device.
    Straight(PathBuf),
    /// A regular file, or a missing one; the path contains no links any more.
    File(PathBuf),
}

/// Reason why a command does not write to a name.
#[derive(Debug, Error)]
pub(crate) enum OutputError {
    #[error(
        "{path}: lies in the data directory {directory}, which is for the engine's files only; name a file outside of it"
    )]
    InsideDataDirectory { path: String, directory: String },
    #[error("{path}: has other content than {content}; --force replaces it")]
    OtherContent { path: String, content: &'static str },
    #[error("{path}: is a directory; name a file")]
    Directory { path: String },
    #[error("{path}: is a block device; --force writes over what it holds")]
    BlockDevice { path: String },
    #[error("{path}: is a socket; name a file, a FIFO or a device")]
    Socket { path: String },
    #[error("{path}: there is no directory {parent}; make it first")]
    NoParent { path: String, parent: String },
    #[error("{action} {path} failed: {source}")]
    Io { action: &'static str, path: String, source: io::Error },
}

impl Output {
    /// Decides where output to `path` goes. `own` is a directory that the command may later make
    /// into a data directory.
    pub(crate) fn decide(
        path: &Path,
        content: Content,
        own: Option<&Path>,
        force: bool,
    ) -> Result<Self, OutputError> {
        if path == Path::new("-") {
            return Ok(Self::Standard);
        }
        let shown = || path.display().to_string();
        let failed = |action| move |source| OutputError::Io { action, path: shown(), source };
        let found = match fs::metadata(path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("looking at")(error)),
        };
        if let Some(found) = &found {
            if is_standard_output(found) {
                return Ok(Self::Standard);
            }
            let kind = found.file_type();
            if kind.is_dir() {
                return Err(OutputError::Directory { path: shown() });
            }
            if kind.is_socket() {
                return Err(OutputError::Socket { path: shown() });
            }
            if kind.is_block_device() && !force {
                return Err(OutputError::BlockDevice { path: shown() });
            }
        }
        if found.as_ref().is_some_and(|found| !found.is_file()) {
            outside(path, path, own)?;
            return Ok(Self::Straight(path.to_owned()));
        }
        let target = resolved(path, own)?;
        if let Some(found) = found.filter(|found| found.len() > 0 && !force) {
            let mut file = File::open(&target).map_err(failed("opening"))?;
            let opened = file.metadata().map_err(failed("looking at"))?;
            let same = (opened.dev(), opened.ino()) == (found.dev(), found.ino());
            if !same || !(content.is_same)(&mut file).map_err(failed("reading"))? {
                let content = content.name;
                return Err(OutputError::OtherContent { path: shown(), content });
            }
        }
        Ok(Self::File(target))
    }

    /// Opens the output for appending; a missing file is created.
    pub(crate) fn append(&self) -> io::Result<File> {
        match self {
            Self::Standard => standard_output(),
            Self::Straight(path) => open_straight(path, OpenOptions::new().append(true)),
            Self::File(path) => OpenOptions::new().append(true).create(true).open(path),
        }
    }

    /// Writes the whole output anew. A file is whole under its name, and durable, or the earlier
    /// content stays.
    pub(crate) fn write<R, E: From<io::Error>>(
        &self,
        fill: impl FnOnce(&mut dyn Write) -> Result<R, E>,
    ) -> Result<R, E> {
        match self {
            Self::Standard => straight(standard_output()?, fill),
            Self::Straight(path) => {
                straight(open_straight(path, OpenOptions::new().write(true))?, fill)
            }
            Self::File(path) => replace(path, fill),
        }
    }
}

/// Opens a FIFO or a device. Waits for a reader of a FIFO, but not forever.
fn open_straight(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let began = Instant::now();
    loop {
        match options.custom_flags(nonblocking).open(path) {
            Ok(file) => {
                fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
                return Ok(file);
            }
            Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
                if !fs::metadata(path)?.file_type().is_fifo() {
                    return Err(error);
                }
                if began.elapsed() >= READER_WAIT_MAX {
                    let message = "no process reads from it; start the reader first";
                    return Err(io::Error::new(error.kind(), message));
                }
                thread::sleep(READER_LOOK_EVERY);
            }
            Err(error) => return Err(error),
        }
    }
}

fn standard_output() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

fn straight<R, E: From<io::Error>>(
    file: File,
    fill: impl FnOnce(&mut dyn Write) -> Result<R, E>,
) -> Result<R, E> {
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let result = fill(&mut file)?;
    file.flush()?;
    match file.get_ref().sync_all() {
        // An output without storage, such as a pipe, cannot be synced.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(result),
        synced => Ok(synced.map(|()| result)?),
    }
}

fn replace<R, E: From<io::Error>>(
    target: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<R, E>,
) -> Result<R, E> {
    let parent = parent_of(target);
    let temporary =
        tempfile::Builder::new().prefix(".sprag-").suffix(".tmp").tempfile_in(parent)?;
    let _leftover = Leftover::new(temporary.path());
    let mut temporary = BufWriter::with_capacity(1 << 20, temporary);
    let result = fill(&mut temporary)?;
    let temporary = temporary.into_inner().map_err(|error| error.into_error())?;
    temporary.as_file().sync_all()?;
    temporary.persist(target).map_err(|error| error.error)?;
    File::open(parent)?.sync_all()?;
    Ok(result)
}

pub(crate) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether the file is standard output under another name. A character device accepts several
/// writers, so it counts as a device.
fn is_standard_output(found: &Metadata) -> bool {
    let standard = standard_output().and_then(|out| out.metadata());
    let is_same = standard.is_ok_and(|out| (out.dev(), out.ino()) == (found.dev(), found.ino()));
    is_same && (!found.file_type().is_char_device() || io::stdout().is_terminal())
}

/// Resolves `path` to a file, which may not exist. Refuses a path that leads through or into a data
/// directory.
fn resolved(path: &Path, own: Option<&Path>) -> Result<PathBuf, OutputError> {
    let mut target = path.to_owned();
    for _ in 0..LINKS_MAX {
        let parent = outside(path, &target, own)?;
        let Some(name) = target.file_name() else {
            return Err(OutputError::Directory { path: path.display().to_string() });
        };
        match fs::read_link(&target) {
            Ok(next) => target = parent.join(next),
            Err(_) => return Ok(parent.join(name)),
        }
    }
    let source = io::Error::other("too many of them");
    let path = path.display().to_string();
    Err(OutputError::Io { action: "following the links of", path, source })
}

/// The directory of `target`, to which `path` leads, with its links resolved. It must not be in a
/// data directory.
fn outside(path: &Path, target: &Path, own: Option<&Path>) -> Result<PathBuf, OutputError> {
    let shown = || path.display().to_string();
    let parent = parent_of(target);
    let real = fs::canonicalize(parent);
    let found = real.and_then(|real| Ok((enclosing_data_directory(&real)?, real)));
    let (around, real) = found.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            OutputError::NoParent { path: shown(), parent: parent.display().to_string() }
        }
        _ => OutputError::Io { action: "finding the directory of", path: shown(), source },
    })?;
    // A data directory that is not there contains no file.
    let own = own.and_then(|own| fs::canonicalize(own).ok());
    match around.or(own.filter(|own| real.starts_with(own))) {
        None => Ok(real),
        Some(directory) => {
            let directory = directory.display().to_string();
            Err(OutputError::InsideDataDirectory { path: shown(), directory })
        }
    }
}

/// Makes the directory at `path`, for files, unless it exists. Its parent must exist. Neither
/// directory may be in a data directory.
pub(crate) fn make_directory(path: &Path) -> Result<(), OutputError> {
    outside(path, path, None)?;
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(OutputError::Io { action: "making", path: path.display().to_string(), source })
        }
        _ => outside(path, &path.join("page"), None).map(drop),
    }
}

/// A directory that is removed when the value is dropped, and when the process is interrupted.
#[derive(Debug)]
pub(crate) struct TemporaryDirectory {
    directory: TempDir,
    _leftover: Leftover,
}

impl TemporaryDirectory {
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Makes a temporary directory in `folder`, or in the system's place for them, outside of every
/// data directory.
pub(crate) fn temporary_directory(
    prefix: &str,
    folder: Option<&Path>,
) -> Result<TemporaryDirectory, OutputError> {
    let folder = folder.map_or_else(std::env::temp_dir, Path::to_owned);
    outside(&folder, &folder.join(prefix), None)?;
    let made = tempfile::Builder::new().prefix(prefix).tempdir_in(&folder);
    let directory = made.map_err(|source| OutputError::Io {
        action: "creating a temporary directory in",
        path: folder.display().to_string(),
        source,
    })?;
    let _leftover = Leftover::new(directory.path());
    Ok(TemporaryDirectory { directory, _leftover })
}
