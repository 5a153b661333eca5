//! A real directory, through `pread`, `pwrite` and `fdatasync`.
//!
//! Everything is opened relative to the directory's descriptor. So the checked directory is used
//! from then on, even if its path changes.

use std::ffi::OsStr;
use std::io;
#[cfg(target_os = "linux")]
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};
use rustix::process::geteuid;

use self::lock::Held;
use super::auto::AutoQueue;
use super::holders::Holders;
use super::limits::{Reserve, bytes_within_limit, check_file_end};
use super::names::claimed_by;
use super::pwrite::PwriteQueue;
#[cfg(all(target_os = "linux", feature = "uring"))]
use super::uring::UringQueue;
use super::{Access, Disk, DiskFile, LOCK_FILE, Listed, Mapping, WriteQueue, check_name, mmap};
use crate::config::IoBackend;
use crate::error::OpenError;
use crate::hook::Hook;
use crate::sync::{tell, tell_under_locks};

pub(crate) mod around;
pub(crate) mod backup;
pub(crate) mod by_path;
mod lock;
#[cfg(test)]
mod tests;

const DIRECTORY_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const WRITABLE_BY_OTHERS: Mode = Mode::WGRP.union(Mode::WOTH);
const DIRECTORY_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Flags of opening a file. `NONBLOCK` has no effect on a regular file, and keeps a FIFO in its
/// place from blocking the open forever.
const FILE_FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Modes of opening a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OpenMode {
    /// Reading: nothing is created, not even the lock file, and no byte is changed.
    ReadOnly,
    /// Reading as in [`OpenMode::ReadOnly`], without the lock if a writer holds it.
    ReadBeside,
    /// Reading and writing.
    Write {
        /// Whether a missing directory is created (but not a missing parent).
        create: bool,
    },
}

/// A data directory of the file system; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct RealDisk {
    path: String,
    held: Arc<Held>,
    /// Descriptor in reserve for a writer's files.
    reserve: Arc<Reserve>,
    /// The back-end that [`Disk::queue`] tries, and whether a test has the io_uring refused.
    io: (IoBackend, bool),
}

impl RealDisk {
    /// Opens, checks and locks a directory.
    pub(crate) fn open(path: &Path, mode: OpenMode) -> Result<Self, OpenError> {
        let name = path.display().to_string();
        let directory = match open_directory(path) {
            Err(OpenError::Missing { .. }) if mode == (OpenMode::Write { create: true }) => {
                create_directory(path)?
            }
            opened => opened?,
        };
        let writable = matches!(mode, OpenMode::Write { .. });
        let is_ours = match check_directory(&directory, &name) {
            Ok(()) => true,
            // Reading changes nothing, so only the system's permissions count.
            Err(OpenError::ForeignOwner { .. } | OpenError::WritableByOthers { .. })
                if !writable =>
            {
                false
            }
            Err(error) => return Err(error),
        };
        if writable {
            refuse_strangers_directory(&directory, &name)?;
        }
        let held = Held::take(directory, mode, path, is_ours)?;
        if writable {
            // Sync on every open, also of an existing directory: its creator may have been killed
            // before the sync.
            sync_parent(&held.directory).map_err(|e| failed("syncing the parent of", &name, e))?;
        }
        let (held, reserve) = (Arc::new(held), Arc::default());
        Ok(Self { path: name, held, reserve, io: (IoBackend::Pwrite, false) })
    }

    /// Chooses the write queue; a disk that is not asked writes by `pwrite`.
    pub(crate) fn with_io(mut self, tried: IoBackend, uring_refused: bool) -> Self {
        self.io = (tried, uring_refused);
        self
    }
}

#[cfg(all(target_os = "linux", feature = "uring"))]
fn make_ring(held: &Held, refused: bool) -> io::Result<UringQueue> {
    if refused {
        return Err(Errno::PERM.into());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECT | FILE_FLAGS;
    fs::openat(&held.directory, LOCK_FILE, flags, Mode::empty())
        .map_err(|error| io::Error::other(format!("no writing past the page cache: {error}")))?;
    UringQueue::new()
}

/// Refuses, as a kernel may. The reason is in the stats.
#[cfg(not(all(target_os = "linux", feature = "uring")))]
fn make_ring(_held: &Held, _refused: bool) -> io::Result<PwriteQueue> {
    let missing = "the program has the engine without the feature `uring`, or is not for Linux";
    Err(io::Error::new(io::ErrorKind::Unsupported, missing))
}

fn failed(action: &'static str, file: &str, error: Errno) -> OpenError {
    OpenError::io(action, file, error.into())
}

/// Opens a directory, and follows a symbolic link at the end of the path if the user put one there.
/// The target is checked.
fn open_directory(path: &Path) -> Result<OwnedFd, OpenError> {
    let name = || path.display().to_string();
    retry_on_intr(|| fs::openat(CWD, path, DIRECTORY_FLAGS, Mode::empty())).map_err(|e| match e {
        Errno::NOENT => OpenError::Missing { path: name() },
        Errno::NOTDIR => OpenError::NotADirectory { path: name() },
        other => failed("opening", &name(), other),
    })
}

fn create_directory(path: &Path) -> Result<OwnedFd, OpenError> {
    let name = path.display().to_string();
    let missing = || OpenError::Missing { path: name.clone() };
    let last = path.file_name().ok_or_else(missing)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Open the parent before anything is created: a parent that cannot be synced must not get a
    // directory.
    let parent = open_directory(parent).map_err(|error| match error {
        OpenError::Missing { path: parent } => {
            OpenError::MissingParent { path: name.clone(), parent }
        }
        other => other,
    })?;
    around::refuse_inside(path)?;
    match fs::mkdirat(&parent, last, DIRECTORY_MODE) {
        Ok(()) => {}
        // Another process was faster, so its directory's mode stays.
        Err(Errno::EXIST) => return open_directory(path),
        Err(error) => return Err(failed("creating", &name, error)),
    }
    own_directory(&parent, last, &name)
}

/// Opens a directory that was just made, and makes its permissions and its name final and durable.
fn own_directory(parent: &OwnedFd, last: &OsStr, name: &str) -> Result<OwnedFd, OpenError> {
    let flags = DIRECTORY_FLAGS | OFlags::NOFOLLOW;
    let open = || retry_on_intr(|| fs::openat(parent, last, flags, Mode::empty()));
    let directory = match open() {
        // The umask has removed the owner's own permissions. This follows a link to a file of this
        // user's, if another process has put one there meanwhile. The open after it does not.
        Err(Errno::ACCESS) => {
            fs::chmodat(parent, last, DIRECTORY_MODE, AtFlags::empty()).and_then(|()| open())
        }
        opened => opened,
    };
    let directory = directory.map_err(|e| failed("opening", name, e))?;
    fs::fchmod(&directory, DIRECTORY_MODE)
        .map_err(|e| failed("setting the permissions of", name, e))?;
    fs::fsync(parent).map_err(|e| failed("syncing the parent of", name, e))?;
    Ok(directory)
}

/// Lists everything in a directory. A name that is not UTF-8 does not belong to the engine; it
/// stays visible in reports.
fn list_directory(directory: &OwnedFd) -> io::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems do not tell the kind in the listing.
            FileType::Unknown => {
                match fs::statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    // The file was removed meanwhile.
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            kind => kind,
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        listed.push(Listed { name, is_file: kind == FileType::RegularFile });
    }
    Ok(listed)
}

/// Refuses to begin a log in a directory that another program uses, before anything is made in it.
/// If LOCK exists, it is too late for this check, and reading META decides.
fn refuse_strangers_directory(directory: &OwnedFd, path: &str) -> Result<(), OpenError> {
    let listed = list_directory(directory).map_err(|e| OpenError::io("listing", path, e))?;
    if listed.iter().any(|listed| listed.name == LOCK_FILE) {
        return Ok(());
    }
    match claimed_by(listed.iter().map(|listed| &*listed.name)) {
        Some(file) => Err(OpenError::ForeignFile { path: path.into(), file: file.into() }),
        None => Ok(()),
    }
}

fn check_directory(directory: &OwnedFd, name: &str) -> Result<(), OpenError> {
    let stat = fs::fstat(directory).map_err(|e| failed("examining", name, e))?;
    let user = geteuid().as_raw();
    if stat.st_uid != user {
        return Err(OpenError::ForeignOwner { path: name.into(), owner: stat.st_uid, user });
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    if mode.intersects(WRITABLE_BY_OTHERS) {
        return Err(OpenError::WritableByOthers { path: name.into(), mode: permission_bits(mode) });
    }
    Ok(())
}

#[allow(clippy::useless_conversion, reason = "modes have 16 bits on some systems")]
fn permission_bits(mode: Mode) -> u32 {
    (mode & (Mode::RWXU | Mode::RWXG | Mode::RWXO)).as_raw_mode().into()
}

/// Whether a name belongs to a directory, a link or a device, and not to a regular file.
fn is_of_something_else(directory: &OwnedFd, name: &str) -> bool {
    let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile)
}

/// Syncs the parent directory, opened by `..`: that is the true parent, even if the path went
/// through a symbolic link.
fn sync_parent(directory: &OwnedFd) -> Result<(), Errno> {
    match retry_on_intr(|| fs::openat(directory, "..", DIRECTORY_FLAGS, Mode::empty())) {
        Ok(parent) => match fs::fsync(&parent) {
            // This is a mount point, in a file system that syncs no directories. This process did
            // not make it.
            Err(Errno::INVAL) => Ok(()),
            synced => synced,
        },
        // This process may not read the parent, so it did not make the directory (see
        // `create_directory`).
        Err(Errno::ACCESS | Errno::PERM) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Checks that a file is regular and has one link: a second link would let it be changed from
/// outside of the directory.
fn check_regular(file: &OwnedFd) -> io::Result<Stat> {
    let stat = fs::fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if stat.st_nlink == 0 {
        // A writer has removed the file since it was opened.
        return Err(Errno::NOENT.into());
    }
    if stat.st_nlink != 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file with a single link"));
    }
    Ok(stat)
}

impl RealDisk {
    /// Whether files may change during a read, because no lock keeps a writer out, or another user
    /// owns the directory. They must not be mapped then.
    pub(crate) fn may_change(&self) -> bool {
        !self.held.may_be_mapped()
    }

    fn check_writable(&self) -> io::Result<()> {
        self.held.check_process()?;
        if self.held.writable { Ok(()) } else { Err(Errno::ROFS.into()) }
    }
}

impl Disk for RealDisk {
    fn holders(&self, _: Hook) -> Option<&Arc<Holders>> {
        Some(&self.held.holders)
    }

    fn describe(&self) -> String {
        self.path.clone()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let listed = list_directory(&self.held.directory)?.into_iter();
        Ok(listed.filter(|listed| listed.name != LOCK_FILE).map(|listed| listed.name).collect())
    }

    fn list_kinds(&self) -> io::Result<Vec<Listed>> {
        let mut listed = list_directory(&self.held.directory)?;
        listed.retain(|listed| listed.name != LOCK_FILE || !listed.is_file);
        Ok(listed)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
            Access::Create => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        };
        if access != Access::Read {
            self.check_writable()?;
        }
        let directory = &self.held.directory;
        let open = || retry_on_intr(|| fs::openat(directory, name, flags | FILE_FLAGS, FILE_MODE));
        let file = if self.held.writable {
            let keep = || fs::openat(directory, ".", DIRECTORY_FLAGS, Mode::empty());
            self.reserve.open(open, keep)?
        } else {
            open()?
        };
        check_regular(&file)?;
        if access == Access::Create {
            // The umask may have removed permissions of the owner.
            fs::fchmod(&file, FILE_MODE)?;
        }
        let (name, held) = (name.to_owned(), Arc::clone(&self.held));
        Ok(Arc::new(RealFile { file, name, held, direct: OnceLock::new() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        self.check_writable()?;
        Ok(fs::renameat(&self.held.directory, from, &self.held.directory, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.check_writable()?;
        Ok(fs::unlinkat(&self.held.directory, name, AtFlags::empty())?)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.check_writable()?;
        Ok(fs::fsync(&self.held.directory)?)
    }

    fn is_beside_a_writer(&self) -> bool {
        self.held.beside
    }

    fn is_of_this_process(&self) -> bool {
        self.held.check_process().is_ok()
    }

    fn directory_lock_refused(&self) -> Option<String> {
        self.held.refused.clone()
    }

    fn queue(&self) -> io::Result<Box<dyn WriteQueue>> {
        self.check_writable()?;
        let (tried, refused) = self.io;
        let plain = || Box::new(PwriteQueue::new());
        match tried {
            IoBackend::Pwrite => return Ok(plain()),
            IoBackend::Auto => {
                let held = Arc::clone(&self.held);
                let ring = move || Ok(Box::new(make_ring(&held, refused)?) as Box<dyn WriteQueue>);
                return Ok(Box::new(AutoQueue::new(plain(), Box::new(ring))));
            }
            IoBackend::Uring => {}
        }
        match make_ring(&self.held, refused) {
            Ok(queue) => Ok(Box::new(queue)),
            Err(error) => {
                tell(|| {
                    tracing::warn!(%error, "io_uring is refused; the log is written with pwrite");
                });
                Ok(Box::new(PwriteQueue::because(format!("io_uring is refused: {error}"))))
            }
        }
    }
}

#[derive(Debug)]
struct RealFile {
    file: OwnedFd,
    /// Name that the file was opened by; it may have been renamed since.
    name: String,
    held: Arc<Held>,
    /// The file opened past the page cache, once it was asked for; `None` if that is refused.
    direct: OnceLock<Option<OwnedFd>>,
}

impl RealFile {
    #[cfg(target_os = "linux")]
    fn open_direct(&self) -> io::Result<Option<OwnedFd>> {
        if !fs::fcntl_getfl(&self.file)?.contains(OFlags::RDWR) {
            return Ok(None);
        }
        let directory = &self.held.directory;
        let flags = OFlags::RDWR | OFlags::DIRECT | FILE_FLAGS;
        let direct = retry_on_intr(|| fs::openat(directory, &*self.name, flags, Mode::empty()))?;
        let (ours, found) = (fs::fstat(&self.file)?, fs::fstat(&direct)?);
        let same = (ours.st_dev, ours.st_ino) == (found.st_dev, found.st_ino);
        Ok(same.then_some(direct))
    }

    #[cfg(not(target_os = "linux"))]
    fn open_direct(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }

    /// Sets at least the length where space cannot be reserved, so that no later write changes it.
    fn lengthen(&self, bytes: u64) -> io::Result<()> {
        if self.len()? < bytes {
            retry_on_intr(|| fs::ftruncate(&self.file, bytes))?;
        }
        Ok(())
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        let stat = fs::fstat(&self.file)?;
        u64::try_from(stat.st_size).map_err(io::Error::other)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let at = advanced(offset, done)?;
            match retry_on_intr(|| pread(&self.file, &mut buffer[done..], at))? {
                0 => break,
                read => done += read,
            }
        }
        Ok(done)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.held.check_process()?;
        let fits = bytes_within_limit(offset, bytes.len());
        let mut done = 0;
        while done < bytes.len() {
            let at = advanced(offset, done)?;
            if done == fits {
                return Err(Errno::FBIG.into());
            }
            match retry_on_intr(|| pwrite(&self.file, &bytes[done..fits], at))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => done += written,
            }
        }
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        check_file_end(bytes)?;
        if !reserve(&self.file, bytes)? {
            self.lengthen(bytes)?;
        }
        if self.len()? < bytes {
            return Err(io::Error::other("the file is shorter than what was allocated"));
        }
        Ok(())
    }

    /// Syncs the file, without a retry, even when interrupted. The kernel reports a failed
    /// write-back once, and a second, successful call proves nothing.
    fn sync_data(&self) -> io::Result<()> {
        #[cfg(target_vendor = "apple")]
        fs::fcntl_fullfsync(&self.file)?;
        #[cfg(not(target_vendor = "apple"))]
        fs::fdatasync(&self.file)?;
        Ok(())
    }

    /// Starts the write-back by the only safe call for it. Linux begins to write pages that it is
    /// asked to drop, and keeps them.
    #[cfg(target_os = "linux")]
    fn write_behind(&self, offset: u64, bytes: u64) -> io::Result<()> {
        if let Some(bytes) = NonZeroU64::new(bytes) {
            fs::fadvise(&self.file, offset, Some(bytes), fs::Advice::DontNeed)?;
        }
        Ok(())
    }

    fn check_held(&self) -> io::Result<()> {
        Ok(self.held.check()?)
    }

    fn map(&self, bytes: usize) -> io::Result<Mapping> {
        if self.len()? < u64::try_from(bytes).map_err(io::Error::other)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Bytes that a writer or another user may change must not be mapped.
        if bytes == 0 || !self.held.may_be_mapped() {
            let mut copy = vec![0; bytes];
            if self.read_at(&mut copy, 0)? < bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            return Ok(Mapping::Copied(copy.into()));
        }
        mmap::map_read_only(&self.file, bytes).map(Mapping::Mapped)
    }

    fn direct(&self, _: Hook) -> Option<BorrowedFd<'_>> {
        self.held.check_process().ok()?;
        let direct = self.direct.get_or_init(|| {
            self.open_direct().unwrap_or_else(|error| {
                tell_under_locks(|| {
                    tracing::debug!(%error, "a segment is written through the page cache");
                });
                None
            })
        });
        direct.as_ref().map(AsFd::as_fd)
    }
}

fn advanced(offset: u64, done: usize) -> io::Result<u64> {
    u64::try_from(done).ok().and_then(|done| offset.checked_add(done)).ok_or(Errno::OVERFLOW.into())
}

/// Reserves space for the first `bytes` bytes; returns `false` if the file system (or system)
/// cannot.
#[cfg(target_os = "linux")]
fn reserve(file: &OwnedFd, bytes: u64) -> io::Result<bool> {
    match retry_on_intr(|| fs::fallocate(file, fs::FallocateFlags::empty(), 0, bytes)) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(_file: &OwnedFd, _bytes: u64) -> io::Result<bool> {
    Ok(false)
}
