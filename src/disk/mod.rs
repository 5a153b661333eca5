//! The seam to the file system: only this module touches files.
//!
//! A [`Disk`] is one data directory. Two kinds stand behind it: the real one (`real`: `pwrite` and
//! `fdatasync`, or an io_uring, and read-only mappings), and a simulated, faulty one ([`sim`]). All
//! code above runs on both.
//!
//! The content that a power cut leaves is known only after [`DiskFile::sync_data`], and the name
//! only after [`Disk::sync_dir`]; the two are independent. A failed sync is final: its bytes may or
//! may not be on disk, and reads may show them. A second, successful sync proves nothing about
//! them.
//!
//! The log writer's groups go through a [`WriteQueue`], which may have several of them in flight.
//! Everything off the path of an entry (META, HARD, preparing a segment) uses [`DiskFile`]
//! directly.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::hook::Hook;
use crate::image::ImageSlice;
use holders::Holders;

mod auto;
pub(crate) mod frozen;
pub(crate) mod holders;
mod limits;
mod mmap;
pub(crate) mod names;
mod process;
mod pwrite;
pub(crate) mod real;
#[cfg(any(test, feature = "testing"))]
pub mod sim;
#[cfg(all(target_os = "linux", feature = "uring"))]
mod uring;

#[cfg(test)]
mod tests;

/// The name of the back-end that writes through an io_uring.
pub(crate) const RING_BACKEND: &str = "io_uring";
/// The file that carries the directory's lock.
pub(crate) const LOCK_FILE: &str = "LOCK";

/// Refuses a name that is no plain file name (it could lead out of the directory), and the name of
/// the lock file.
fn check_name(name: &str) -> io::Result<()> {
    let plain = !name.is_empty() && name.is_ascii() && !name.contains(['/', '\\', '\0']);
    if !plain || matches!(name, "." | ".." | LOCK_FILE) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file name of the engine"));
    }
    Ok(())
}

/// Access to a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reading; the file must exist.
    Read,
    /// Reading and writing; the file must exist.
    Write,
    /// Reading and writing; the file must not exist. Its directory entry is durable after
    /// [`Disk::sync_dir`].
    Create,
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The name; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// Whether the name belongs to a regular file, and not to a directory, a link or anything else.
    pub is_file: bool,
}

impl Listed {
    /// Makes the entry of a regular file.
    #[must_use]
    pub fn file(name: String) -> Self {
        Self { name, is_file: true }
    }
}

/// One data directory: a flat set of named files, locked against other writers for as long as the
/// value lives.
///
/// Names are the engine's own (ASCII, no separators). The lock is released when the last reference
/// to the directory *and* to each of its open files is dropped. A [`Mapping`] does not hold it, so
/// the owner of a mapping must keep the `Disk`.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Name of the directory in errors.
    fn describe(&self) -> String;
    /// The names of all files, in no particular order. The lock file is left out.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Lists as [`Disk::list`] does, with the kind of each name. A lock file that is no regular
    /// file is included.
    fn list_kinds(&self) -> io::Result<Vec<Listed>> {
        Ok(self.list()?.into_iter().map(Listed::file).collect())
    }
    /// Opens a file. Symbolic links are not followed, and only regular files are opened.
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file, over an existing one of that name; durable after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; durable after [`Disk::sync_dir`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all earlier creations, renamings and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Whether the directory is read without its lock, because a writer holds that. Then files may
    /// grow during a read.
    fn is_beside_a_writer(&self) -> bool {
        false
    }
    /// Whether the caller is in the process that opened the directory, and not in a child that
    /// `fork` made, which must write nothing.
    fn is_of_this_process(&self) -> bool {
        true
    }
    /// Reason why the directory itself, beside its lock file, could not be locked; `None` if it is
    /// locked, or need not be.
    fn directory_lock_refused(&self) -> Option<String> {
        None
    }
    /// The counts of the directory's holders, for the error of an open that finds it locked.
    #[doc(hidden)]
    fn holders(&self, _: Hook) -> Option<&Arc<Holders>> {
        None
    }
    /// Fills `bytes` with unpredictable bytes, for a new directory's id and hash seed. A simulated
    /// disk draws them from its own seed, so that a simulation repeats to the byte.
    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(io::Error::other)
    }
    /// Makes a queue for the log writer's groups.
    fn queue(&self) -> io::Result<Box<dyn WriteQueue>>;
}

/// One open file.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Length of the file in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads at `offset` until `buffer` is full or the file ends. Returns the number of bytes read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`; durable after [`DiskFile::sync_data`].
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the file `bytes` long, with space reserved for all of them; new bytes read as zeros.
    /// The call never shortens a file. Durable after [`DiskFile::sync_data`].
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Makes all earlier writes and the length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Begins to bring written bytes to stable storage, so that a later sync has less to wait for.
    /// The call is a hint, and makes nothing durable.
    fn write_behind(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let _ = (offset, bytes);
        Ok(())
    }
    /// Checks that the directory of the file is still held. An error says that it or its lock file
    /// was replaced since it was opened, or that a child of `fork` calls.
    fn check_held(&self) -> io::Result<()> {
        Ok(())
    }
    /// Maps the first `bytes` bytes read-only. The caller writes none of them while the mapping
    /// lives.
    fn map(&self, bytes: usize) -> io::Result<Mapping>;
    /// The same file opened past the page cache; `None` if that is impossible.
    #[doc(hidden)]
    fn direct(&self, _: Hook) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Bytes of a file that are read in place.
pub enum Mapping {
    /// The kernel's page cache.
    Mapped(mmap::MappedFile),
    /// A copy, for a disk without mappings (the simulated one), or a file that must not be mapped.
    Copied(Arc<[u8]>),
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Copied(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes)", self.len())
    }
}

/// One write of the log writer: consecutive, whole frames of one segment.
#[derive(Debug)]
pub struct LogWrite {
    /// Token that the completion returns.
    pub token: u64,
    /// The file to write.
    pub file: Arc<dyn DiskFile>,
    /// Offset in the file.
    pub offset: u64,
    /// The bytes; their memory is held until the completion is taken.
    pub bytes: ImageSlice,
    /// Whether the write must be durable on completion, together with all earlier writes to the
    /// same file that did not ask for it. An earlier write that did ask has a separate completion,
    /// which may come later.
    pub sync: bool,
    /// The clock that is read between the write and its sync.
    pub watch: Watch,
}

/// The engine's clock, for telling a write from its sync.
#[derive(Clone, Debug)]
pub struct Watch(pub(crate) Clock);

impl Watch {
    /// The time, measured from a moment that is the same for all writes of an engine.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.now()
    }
}

/// Result of a [`LogWrite`].
#[derive(Debug)]
pub struct Completion {
    /// The write's token.
    pub token: u64,
    /// `Ok` when the kernel has the write or, with `sync`, it is on stable storage.
    pub result: Result<(), WriteFailure>,
    /// Time at which the write was done and its sync began, by [`LogWrite::watch`]; `None` without
    /// a sync, or if both were one request.
    pub written_at: Option<Duration>,
}

/// The failed half of a log write.
#[derive(Debug)]
pub enum WriteFailure {
    /// The write itself.
    Write(io::Error),
    /// The sync after it: its bytes may or may not be on disk, and another attempt proves nothing.
    Sync(io::Error),
}

/// Log writes in flight. Completions may come in any order; the log writer puts them in order.
pub trait WriteQueue: fmt::Debug + Send {
    /// The name of the back-end, as the stats show it.
    fn backend(&self) -> &'static str;
    /// Reason why it is not the back-end asked for.
    fn fallback(&self) -> Option<&str> {
        None
    }
    /// Maximum of writes in flight.
    fn depth(&self) -> usize;
    /// Takes a write. The caller keeps to [`WriteQueue::depth`] writes at a time.
    fn submit(&mut self, write: LogWrite);
    /// The next completion; with `wait`, blocks for one if any write is in flight. Without `wait`,
    /// `None` may mean that a write is still in flight, and a back-end may make no progress. So a
    /// caller without other work waits.
    fn complete(&mut self, wait: bool) -> Option<Completion>;
}
