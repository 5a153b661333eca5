//! The directory and its files as the engine sees them, which [`SimDisk::open`] returns.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::queue::SimQueue;
use super::state::State;
use super::{Shared, SimDisk};
use crate::disk::{Access, Disk, DiskFile, Mapping, WriteQueue, check_name};
use crate::error::OpenError;
use crate::sync::MutexGuard;

/// The lock, which the directory and all its open files share. It is released when the last of them
/// is dropped.
struct Hold {
    shared: Arc<Shared>,
    generation: u64,
    writable: bool,
}

impl Hold {
    /// The state of the disk, if this handle is alive.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.shared.state();
        state.check_alive(self.generation)?;
        Ok(state)
    }

    fn writable_state(&self) -> io::Result<MutexGuard<'_, State>> {
        if self.writable { self.state() } else { Err(Errno::ROFS.into()) }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        // A cut or crash has already taken the lock from this handle, and another one may have it.
        if state.generation == self.generation {
            if self.writable {
                state.writer = false;
            } else {
                state.readers -= 1;
            }
        }
    }
}

/// One opening of the simulated directory.
pub(super) struct SimHandle {
    hold: Arc<Hold>,
}

impl SimHandle {
    pub(super) fn lock(disk: &SimDisk, writable: bool) -> Result<Self, OpenError> {
        let path = disk.shared.describe();
        let mut state = disk.shared.state();
        if let Err(error) = state.check_alive(state.generation) {
            return Err(OpenError::io("opening", path, error));
        }
        if state.writer || (writable && state.readers > 0) {
            let holder = "another handle holds it".to_owned();
            return Err(OpenError::Locked { path, holder });
        }
        if writable {
            state.writer = true;
        } else {
            state.readers += 1;
        }
        let generation = state.generation;
        Ok(Self { hold: Arc::new(Hold { shared: Arc::clone(&disk.shared), generation, writable }) })
    }
}

impl fmt::Debug for SimHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimHandle").field("writable", &self.hold.writable).finish_non_exhaustive()
    }
}

impl Disk for SimHandle {
    fn describe(&self) -> String {
        self.hold.shared.describe()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.hold.state()?.names().cloned().collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        let mut state = match access {
            Access::Read => self.hold.state()?,
            Access::Write | Access::Create => self.hold.writable_state()?,
        };
        let inode = match access {
            Access::Read | Access::Write => state.find(name)?,
            Access::Create => state.create(name)?,
        };
        state.opened(inode)?;
        drop(state);
        let writable = access != Access::Read;
        Ok(Arc::new(SimFile { inode, writable, hold: Arc::clone(&self.hold) }))
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.hold.state()?.entropy.fill(bytes);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        self.hold.writable_state()?.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.hold.writable_state()?.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.hold.writable_state()?.sync_dir()
    }

    fn queue(&self) -> io::Result<Box<dyn WriteQueue>> {
        let mut state = self.hold.writable_state()?;
        let seed = state.random.next_u64();
        Ok(Box::new(SimQueue::new(state.queue_depth, seed)))
    }
}

struct SimFile {
    inode: u64,
    writable: bool,
    hold: Arc<Hold>,
}

impl SimFile {
    fn writable_state(&self) -> io::Result<MutexGuard<'_, State>> {
        // The kernel's answer to a write through a descriptor that was opened for reading.
        if self.writable { self.hold.state() } else { Err(Errno::BADF.into()) }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.hold.shared.state();
        if state.generation == self.hold.generation {
            state.closed(self.inode);
        }
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("writable", &self.writable).finish_non_exhaustive()
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.hold.state()?.inode(self.inode)?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.hold.state()?.read(self.inode, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.writable_state()?.write(self.inode, bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.writable_state()?.allocate(self.inode, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.hold.state()?.sync_file(self.inode)
    }

    fn map(&self, bytes: usize) -> io::Result<Mapping> {
        let mut state = self.hold.state()?;
        if state.inode(self.inode)?.len() < bytes as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut copy = vec![0; bytes].into_boxed_slice();
        state.read(self.inode, &mut copy, 0)?;
        let copy = copy.into();
        state.mapped(self.inode, &copy)?;
        Ok(Mapping::Copied(copy))
    }
}
