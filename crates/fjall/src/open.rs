//! Opening a directory as a database of this storage.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::Database;

use crate::config::FjallConfig;
use crate::error::OpenError;
use crate::journal;

/// Name of the folder in which fjall keeps its keyspaces.
pub(crate) const KEYSPACES: &str = "keyspaces";
const LOCK: &str = "lock";
const VERSION: &str = "version";
const FIRST_JOURNAL: &str = "0.jnl";
/// First bytes of the file `version`; the version follows.
const MAGIC: &[u8] = b"FJL";
const VERSION_LEN: usize = 4;

pub(crate) struct Opened {
    pub(crate) database: Database,
    /// Number of bytes of a torn batch that were cut off the journal.
    pub(crate) cut_bytes: u64,
}

/// Whether the directory holds a fjall database.
///
/// # Errors
///
/// Returns the system's error, except for a directory that does not exist.
pub fn is_fjall(path: impl AsRef<Path>) -> io::Result<bool> {
    match fs::read(path.as_ref().join(VERSION)) {
        Ok(version) => Ok(version.starts_with(MAGIC)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(false),
            _ => Err(error),
        },
    }
}

pub(crate) fn open(path: &Path, config: FjallConfig) -> Result<Opened, OpenError> {
    config.check()?;
    make_directory(path)?;
    let io = |what: &'static str| {
        let path = path.to_owned();
        move |source| OpenError::Io { what, path, source }
    };
    let mut cut_bytes = 0;
    if refuse_foreign(path)? {
        // fjall takes the lock again. Between the two, another process may open the directory; then
        // fjall reports it as locked.
        let _lock = lock(path)?;
        clear_if_half_made(path).map_err(io("clearing"))?;
        cut_bytes = journal::check(path)?;
    }
    let opened = catch_unwind(AssertUnwindSafe(|| {
        Database::builder(path)
            .cache_size(config.cache_bytes)
            .max_journaling_size(config.journal_bytes)
            .worker_threads(config.worker_threads)
            .open()
    }));
    let database = match opened {
        Ok(Ok(database)) => database,
        Ok(Err(error)) => return Err(OpenError::of(path.into(), error)),
        Err(panic) => return Err(OpenError::of_panic(path.into(), &*panic)),
    };
    // fjall has synced everything it found, so all of it is durable.
    match fs::remove_file(path.join(journal::UNSYNCED)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("opening")(error)),
        _ => Ok(Opened { database, cut_bytes }),
    }
}

/// Makes the directory if it is missing, for its owner only.
fn make_directory(path: &Path) -> Result<(), OpenError> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let io =
        |what: &'static str| move |source| OpenError::Io { what, path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(OpenError::IsFile { path: path.into() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !parent.is_dir() {
                return Err(OpenError::NoParent { path: path.into() });
            }
        }
        Err(error) => return Err(io("opening")(error)),
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io("making")(error)),
        // Without this sync, a power cut could remove the directory, with durable batches in it.
        _ => sync_directory(parent).map_err(io("syncing the directory above")),
    }
}

pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Refuses a directory with content that fjall does not make. Returns false if the directory is
/// empty.
fn refuse_foreign(path: &Path) -> Result<bool, OpenError> {
    let io = |source| OpenError::Io { what: "reading", path: path.into(), source };
    if is_fjall(path).map_err(io)? {
        return match foreign_keyspace(path).map_err(io)? {
            None => Ok(true),
            Some(found) => Err(OpenError::Foreign { path: path.into(), found }),
        };
    }
    let mut is_begun = false;
    for entry in fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let is_of_fjall = match name.to_str() {
            Some(KEYSPACES) => fs::read_dir(entry.path()).map_err(io)?.next().is_none(),
            Some(VERSION) => entry.metadata().map_err(io)?.len() < VERSION_LEN as u64,
            Some(LOCK | FIRST_JOURNAL) => true,
            _ => false,
        };
        if !is_of_fjall {
            let found = name.to_string_lossy().into_owned();
            return Err(OpenError::Foreign { path: path.into(), found });
        }
        is_begun = true;
    }
    Ok(is_begun)
}

/// A directory among fjall's keyspaces that fjall does not make. It would make fjall abort the
/// process.
fn foreign_keyspace(path: &Path) -> io::Result<Option<String>> {
    let entries = match fs::read_dir(path.join(KEYSPACES)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let is_number = name.to_str().is_some_and(|name| name.parse::<u64>().is_ok());
        if !is_number && !entry.file_type()?.is_file() {
            return Ok(Some(format!("{KEYSPACES}/{}", name.display())));
        }
    }
    Ok(None)
}

/// Takes fjall's lock, so that no other process opens the directory meanwhile.
fn lock(path: &Path) -> Result<File, OpenError> {
    let io = |source| OpenError::Io { what: "locking", path: path.into(), source };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(LOCK))
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path.into() }),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

/// Removes the files of a database whose making a crash interrupted. fjall writes `version` last,
/// and does not continue with a directory that lacks it.
fn clear_if_half_made(path: &Path) -> io::Result<()> {
    let version = match fs::read(path.join(VERSION)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        version => version?,
    };
    if version.len() >= VERSION_LEN {
        return Ok(());
    }
    for name in [VERSION, FIRST_JOURNAL] {
        match fs::remove_file(path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    sync_directory(path)
}

/// Bytes that everything below `path` takes on disk. Files that vanish during the walk do not
/// count.
pub(crate) fn disk_bytes(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;

    /// Unit of `st_blocks`, on every file system.
    const BLOCK_BYTES: u64 = 512;
    let (mut bytes, mut folders) = (0, vec![PathBuf::from(path)]);
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(metadata) = entry.metadata() else { continue };
            bytes += metadata.blocks() * BLOCK_BYTES;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(bytes)
}
