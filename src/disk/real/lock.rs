//! The hold on a directory: two locks, and the identities of the locked files.
//!
//! `flock` on the file LOCK comes first. It is the lock that earlier releases know, and the one
//! that network file systems carry to other machines. But its name can be removed or replaced while
//! it is held, and an opener would then lock another file. So the directory's own descriptor is
//! locked as well: a held directory cannot be exchanged for another, only moved. A file system may
//! refuse this second lock. Then only the first one holds, and that is reported.
//!
//! A name is no lock: before META or HARD is written, the named files are compared with the held
//! ones. `docs/durability.md` says which lock holds between processes, and which between machines.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, CWD, FlockOperation, Mode, OFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::super::LOCK_FILE;
use super::super::holders::{self, Holders};
use super::super::process::Process;
use super::{
    FILE_FLAGS, FILE_MODE, OpenMode, check_regular, failed, is_of_something_else, permission_bits,
};
use crate::error::{LockLost, OpenError};
use crate::sync::{tell, tell_under_locks};

/// The directory's descriptors, which every open file shares, so that the locks live as long as any
/// open file.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) directory: OwnedFd,
    /// The locked file LOCK; `None` if the directory was opened read-only and has none, or is read
    /// beside a writer.
    pub(super) lock: Option<OwnedFd>,
    /// Whether the directory itself is locked.
    locked: bool,
    /// Reason why not, if the file system refuses it.
    pub(super) refused: Option<String>,
    /// Path of the directory; `None` if it could not be determined.
    place: Option<Place>,
    pub(super) writable: bool,
    /// Whether another process holds the lock for writing.
    pub(super) beside: bool,
    /// Whether only this user can write to the directory.
    pub(super) is_ours: bool,
    process: Process,
    pub(super) holders: Arc<Holders>,
}

/// A path, and the root that it starts at: after a `chroot` it has no meaning.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    root: Identity,
}

/// Identity of a file or directory, independent of its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "signed on some systems")]
    fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev as u64, inode: stat.st_ino as u64 }
    }

    fn of_path(path: &Path) -> Result<Self, Errno> {
        fs::statat(CWD, path, AtFlags::empty()).map(|stat| Self::of(&stat))
    }

    fn of_open(file: impl AsFd) -> Result<Self, Errno> {
        fs::fstat(file).map(|stat| Self::of(&stat))
    }
}

impl Held {
    /// Takes both locks: exclusively for writing, shared for reading.
    pub(super) fn take(
        directory: OwnedFd,
        mode: OpenMode,
        path: &Path,
        is_ours: bool,
    ) -> Result<Self, OpenError> {
        let name = path.display().to_string();
        let writable = matches!(mode, OpenMode::Write { .. });
        let process = Process::this();
        let place = Place::of(path);
        let mut held = Self {
            directory,
            lock: None,
            locked: false,
            refused: None,
            place,
            writable,
            beside: false,
            is_ours,
            process,
            holders: Arc::default(),
        };
        // Without an identity, the error names no holder.
        let identity = Identity::of_open(&held.directory).ok();
        let identity = identity.map(|identity| (identity.device, identity.inode));
        match held.lock_both(&name) {
            Err(OpenError::Locked { .. }) if mode == OpenMode::ReadBeside => {
                held.unlock();
                (held.lock, held.beside) = (None, true);
            }
            Err(OpenError::Locked { path, holder }) => {
                return Err(OpenError::Locked {
                    path,
                    holder: identity.map_or(holder, holders::describe),
                });
            }
            locked => locked?,
        }
        if writable {
            held.check()?;
        }
        if let Some(identity) = identity {
            held.holders = holders::opened(identity);
        }
        Ok(held)
    }

    fn lock_both(&mut self, path: &str) -> Result<(), OpenError> {
        self.lock = lock_file(&self.directory, self.writable, path)?;
        let operation = if self.writable {
            FlockOperation::NonBlockingLockExclusive
        } else {
            FlockOperation::NonBlockingLockShared
        };
        match retry_on_intr(|| fs::flock(&self.directory, operation)) {
            Ok(()) => self.locked = true,
            Err(Errno::WOULDBLOCK) => return Err(locked(path)),
            Err(error) => {
                let error = io::Error::from(error);
                tell(|| {
                    tracing::warn!(
                        %error,
                        path,
                        "the directory itself cannot be locked, only its file LOCK"
                    );
                });
                self.refused = Some(error.to_string());
            }
        }
        Ok(())
    }

    /// Whether nothing can change the files during a read: a lock keeps writers out, and no other
    /// user can write.
    pub(super) fn may_be_mapped(&self) -> bool {
        self.lock.is_some() && self.is_ours
    }

    /// Refuses a child that `fork` made of the process that opened the directory.
    pub(super) fn check_process(&self) -> Result<(), LockLost> {
        if self.process.is_this() { Ok(()) } else { Err(LockLost::Forked) }
    }

    /// Compares the named files with the held ones. Only a difference is an error, not a failure to
    /// look.
    pub(super) fn check(&self) -> Result<(), LockLost> {
        self.check_process()?;
        if let Some(lock) = &self.lock
            && let Ok(ours) = Identity::of_open(lock)
        {
            match fs::statat(&self.directory, LOCK_FILE, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(named) if Identity::of(&named) == ours => {}
                Ok(_) | Err(Errno::NOENT) => return Err(LockLost::LockFile),
                Err(error) => {
                    tell_under_locks(|| tracing::debug!(%error, "LOCK cannot be looked at"))
                }
            }
        }
        match &self.place {
            Some(place) if place.is_of_another(&self.directory) => Err(LockLost::Directory),
            _ => Ok(()),
        }
    }

    fn unlock(&self) {
        for locked in [self.lock.as_ref(), self.locked.then_some(&self.directory)] {
            if let Some(locked) = locked
                && let Err(error) = fs::flock(locked, FlockOperation::Unlock)
            {
                tell_under_locks(|| {
                    tracing::debug!(%error, "a lock could not be released before closing it");
                });
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A child that `fork` made closes its copies, and leaves the locks to the parent. In the
        // parent, closing is not enough: a child between fork and exec also has the descriptors,
        // and would keep the locks.
        if self.process.is_this() {
            self.unlock();
        }
    }
}

impl Place {
    fn of(path: &Path) -> Option<Self> {
        // A place that cannot be named is not compared.
        let path = std::fs::canonicalize(path).ok()?;
        let root = Identity::of_path(Path::new("/")).ok()?;
        Some(Self { path, root })
    }

    /// Whether the path certainly names another directory, or none.
    fn is_of_another(&self, directory: &OwnedFd) -> bool {
        let Ok(ours) = Identity::of_open(directory) else { return false };
        if Identity::of_path(Path::new("/")) != Ok(self.root) {
            return false;
        }
        match Identity::of_path(&self.path) {
            Ok(named) => named != ours,
            Err(error) => matches!(error, Errno::NOENT | Errno::NOTDIR),
        }
    }
}

/// Locks the file LOCK. A writer makes a missing one; a reader continues without one that is
/// missing or unreadable.
fn lock_file(
    directory: &OwnedFd,
    writable: bool,
    path: &str,
) -> Result<Option<OwnedFd>, OpenError> {
    let fail = |error: io::Error| OpenError::io("locking", format!("{path}/{LOCK_FILE}"), error);
    let (flags, operation) = if writable {
        (OFlags::RDWR | OFlags::CREATE, FlockOperation::NonBlockingLockExclusive)
    } else {
        (OFlags::RDONLY, FlockOperation::NonBlockingLockShared)
    };
    let opened = retry_on_intr(|| fs::openat(directory, LOCK_FILE, flags | FILE_FLAGS, FILE_MODE));
    let opened = opened.map_err(io::Error::from);
    let (lock, stat) = match opened.and_then(|lock| Ok((check_regular(&lock)?, lock))) {
        Ok((stat, lock)) => (lock, stat),
        Err(error) if !writable && is_unreachable(error.kind()) => return Ok(None),
        Err(_) if is_of_something_else(directory, LOCK_FILE) => {
            let taken = OpenError::NameTaken { path: path.into(), file: LOCK_FILE.into() };
            return if writable { Err(taken) } else { Ok(None) };
        }
        Err(error) => return Err(fail(error)),
    };
    match retry_on_intr(|| fs::flock(&lock, operation)) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(locked(path)),
        Err(error) => return Err(fail(error.into())),
    }
    if writable && permission_bits(Mode::from_raw_mode(stat.st_mode)) != permission_bits(FILE_MODE)
    {
        fs::fchmod(&lock, FILE_MODE).map_err(|e| failed("locking", path, e))?;
    }
    Ok(Some(lock))
}

/// The error of a locked directory; [`Held::take`] finds out the holder.
fn locked(path: &str) -> OpenError {
    OpenError::Locked { path: path.into(), holder: "another process holds it".to_owned() }
}

fn is_unreachable(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::RealDisk;
    use super::*;

    #[test]
    fn a_directory_lock_that_is_refused_is_said_and_leaves_the_lock_file() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        std::fs::create_dir(&path).unwrap();
        // The system refuses a lock on such a descriptor, as a file system without locks on
        // directories would.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = fs::openat(CWD, &path, flags, Mode::empty()).unwrap();
        let mode = OpenMode::Write { create: false };
        let held = Held::take(directory, mode, &path, true).unwrap();
        assert!(held.refused.is_some() && !held.locked && held.lock.is_some());
        held.check().unwrap();
        assert!(matches!(RealDisk::open(&path, mode), Err(OpenError::Locked { .. })));
        drop(held);
        let disk = RealDisk::open(&path, mode).unwrap();
        assert!(disk.held.refused.is_none() && disk.held.locked);
    }

    #[test]
    fn a_root_that_changed_says_nothing_of_where_the_directory_is() {
        let parent = tempfile::tempdir().unwrap();
        let directory = fs::openat(CWD, parent.path(), OFlags::RDONLY, Mode::empty()).unwrap();
        let mut place = Place::of(parent.path()).unwrap();
        assert!(!place.is_of_another(&directory));
        place.path = parent.path().join("gone");
        assert!(place.is_of_another(&directory));
        place.root.inode += 1;
        assert!(!place.is_of_another(&directory), "after a chroot");
    }
}
