//! The seam to the file system: nothing outside of this module touches a file.
//!
//! A [`Disk`] is one data directory. Behind it stand the real one (`real`: `pwrite` and `fdatasync`, or an io_uring,
//! and read-only mappings) and a simulated, faulty one ([`sim`]). Above it everything runs on both.
//!
//! What a power cut leaves of a file is known only after [`DiskFile::sync_data`], and of a name after
//! [`Disk::sync_dir`]; the two are apart. A failed sync is final: what it covered may or may not be on disk, reads may
//! show it all the same, and a second sync that succeeds says nothing about it.
//!
//! The log writer's groups go through a [`WriteQueue`], which may have several of them in flight; everything that is
//! not on the path of an entry (META, HARD, preparing a segment) goes through [`DiskFile`] directly.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::image::ImageSlice;
use holders::Holders;

pub(crate) mod frozen;
pub(crate) mod holders;
mod limits;
mod mmap;
pub(crate) mod names;
mod process;
mod pwrite;
pub(crate) mod real;
pub mod sim;
#[cfg(target_os = "linux")]
mod uring;

#[cfg(test)]
mod tests;

/// The file that carries the directory's lock.
pub(crate) const LOCK_FILE: &str = "LOCK";

/// Refuses what is no plain file name (it could lead out of the directory) and the lock file's, which is not the
/// callers' to touch.
fn check_name(name: &str) -> io::Result<()> {
    let plain = !name.is_empty() && name.is_ascii() && !name.contains(['/', '\\', '\0']);
    if !plain || matches!(name, "." | ".." | LOCK_FILE) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file name of the engine"));
    }
    Ok(())
}

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// To be read; it must exist.
    Read,
    /// To be read and written; it must exist.
    Write,
    /// To be read and written; it must not exist. Its directory entry is durable after [`Disk::sync_dir`].
    Create,
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The name; what is not UTF-8 in it is replaced.
    pub name: String,
    /// Whether it is of a regular file, and not of a directory, a link or anything else.
    pub is_file: bool,
}

impl Listed {
    /// The name of a regular file.
    #[must_use]
    pub fn file(name: String) -> Self {
        Self { name, is_file: true }
    }
}

/// One data directory: a flat set of named files, locked against other writers for as long as the value lives.
///
/// Names are the engine's own (ASCII, no separators). The lock is released when the last reference to the directory
/// *and* to each of its open files is dropped; a [`Mapping`] does not hold it, so whoever keeps one keeps the `Disk`.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// What to call the directory in errors.
    fn describe(&self) -> String;
    /// The names of all files, in no order. The lock file is not among them.
    fn list(&self) -> io::Result<Vec<String>>;
    /// As [`Disk::list`], with what each name is of. A lock file that is no regular file is among them.
    fn list_kinds(&self) -> io::Result<Vec<Listed>> {
        Ok(self.list()?.into_iter().map(Listed::file).collect())
    }
    /// Opens a file. Symbolic links are not followed, and only regular files are opened.
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file, over another if there is one of that name; durable after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; durable after [`Disk::sync_dir`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes every creation, renaming and removal so far durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Whether it is read without its lock, which a writer holds: files may then grow while they are read.
    fn is_beside_a_writer(&self) -> bool {
        false
    }
    /// Whether the caller is in the process that opened it, and not in a child that `fork` made, which writes nothing.
    fn is_of_this_process(&self) -> bool {
        true
    }
    /// Why the directory itself, beside its lock file, could not be locked; `None` if it is, or need not be.
    fn directory_lock_refused(&self) -> Option<String> {
        None
    }
    /// Where its holders are counted, for the error of an open that finds it locked.
    #[doc(hidden)]
    fn holders(&self) -> Option<&Arc<Holders>> {
        None
    }
    /// Fills `bytes` with what nobody can guess: a new directory's id and hash seed. A simulated disk draws them from its
    /// own seed, so that a simulation repeats to the byte.
    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(io::Error::other)
    }
    /// A queue for the log writer's groups.
    fn queue(&self) -> io::Result<Box<dyn WriteQueue>>;
}

/// One open file.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads at `offset` until `buffer` is full or the file ends; how many bytes were read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`; durable after [`DiskFile::sync_data`].
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the file `bytes` long with space reserved for all of them; new bytes read as zeros.
    /// Never shortens. Durable after [`DiskFile::sync_data`].
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Makes every write so far durable, and the length with them.
    fn sync_data(&self) -> io::Result<()>;
    /// Begins to bring these bytes, which were written, to stable storage, so that a sync that comes later has less to wait
    /// for. A hint; it makes nothing durable.
    fn write_behind(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let _ = (offset, bytes);
        Ok(())
    }
    /// Whether the directory of the file is still held: an error says that it, or its lock file, is not what it was when
    /// it was opened, or that the caller is in a child that `fork` made.
    fn check_held(&self) -> io::Result<()> {
        Ok(())
    }
    /// The first `bytes` bytes, read-only, for as long as the mapping lives. The caller writes none of them meanwhile.
    fn map(&self, bytes: usize) -> io::Result<Mapping>;
    /// The file once more, past the page cache; `None` where there is no such thing.
    #[doc(hidden)]
    fn direct(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Bytes of a file that are read in place.
pub enum Mapping {
    /// The kernel's page cache.
    Mapped(mmap::MappedFile),
    /// A copy, where the disk has no mappings (the simulated one) or must not be mapped.
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
    /// Comes back with the completion.
    pub token: u64,
    /// Where to.
    pub file: Arc<dyn DiskFile>,
    /// How far into the file.
    pub offset: u64,
    /// What; the memory is held until the completion is taken.
    pub bytes: ImageSlice,
    /// Whether the write must be durable on completion, and with it every write before it, for the same file, that did
    /// not ask for it. One that did has a completion of its own to say so, which may come later than this one's.
    pub sync: bool,
    /// What to look at between the write and its sync.
    pub watch: Watch,
}

/// The engine's clock, for telling a write from its sync.
#[derive(Clone, Debug)]
pub struct Watch(pub(crate) Clock);

impl Watch {
    /// The time, since a moment that is the same for all writes of an engine.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.now()
    }
}

/// What became of a [`LogWrite`].
#[derive(Debug)]
pub struct Completion {
    /// The write's token.
    pub token: u64,
    /// `Ok` when it is in the kernel's hands or, with `sync`, on stable storage.
    pub result: Result<(), WriteFailure>,
    /// When the write was done and its sync began, by [`LogWrite::watch`]; `None` if there was no sync, or both were
    /// one request.
    pub written_at: Option<Duration>,
}

/// Which half of a log write failed.
#[derive(Debug)]
pub enum WriteFailure {
    /// The write itself.
    Write(io::Error),
    /// The sync after it: what it covered may or may not be on disk, and trying again proves nothing.
    Sync(io::Error),
}

/// Log writes in flight. Completions may come in any order; the log writer puts them in order.
pub trait WriteQueue: fmt::Debug + Send {
    /// The name of the back-end, as the stats show it.
    fn backend(&self) -> &'static str;
    /// Why it is not the back-end that was asked for.
    fn fallback(&self) -> Option<&str> {
        None
    }
    /// How many writes may be in flight.
    fn depth(&self) -> usize;
    /// Takes a write. Never more than [`WriteQueue::depth`] at a time.
    fn submit(&mut self, write: LogWrite);
    /// The next completion; with `wait` blocks for one if any write is in flight. Without it `None` may mean that a
    /// write is still in flight, and a back-end may make no progress: who has nothing else to do waits.
    fn complete(&mut self, wait: bool) -> Option<Completion>;
}
