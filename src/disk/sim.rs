//! A simulated, faulty disk.
//!
//! It promises what a real disk promises, and no more: see [`SimDisk`].

use std::fmt;
use std::sync::Arc;

use self::handle::SimHandle;
use self::state::State;
use super::Disk;
use crate::error::OpenError;
use crate::sync::{Mutex, MutexGuard, Rank};

mod fault;
mod handle;
mod inode;
mod queue;
mod random;
mod state;

#[cfg(test)]
mod tests;

pub use self::fault::{Fault, FaultError};
pub use self::random::Random;

/// A data directory in memory that loses power, fails and lies on demand; clones share the disk.
///
/// **After a power cut.** A write is at first only in the cache, where reads see it. Each of these
/// is a separate *unsynced item*, and any subset of them survives a power cut:
///
/// - a write to a 512-byte sector: the sector as a whole, with all earlier writes to it. The latest
///   surviving version of a sector counts;
/// - a change of a file's length, by a write beyond its end or by an allocation. A file whose new
///   length did not survive is cut, and the lost part reads as zeros when the file grows again;
/// - a creation, a removal, or a renaming (old name or new, never both or none) in the directory.
///
/// [`DiskFile::sync_data`](super::DiskFile::sync_data) makes a file's content and length durable,
/// but not its name; [`Disk::sync_dir`] makes names durable, but no content. A file whose creation
/// does not survive is gone with all its synced content.
///
/// **Faults** are set for operations by number, from 0 on. An operation is one write, sync, sync of
/// the directory, creation, renaming, removal or allocation that had a chance to succeed. Reads and
/// mappings are counted separately.
///
/// The disk takes no time, reads no clock, and asks the system for no random numbers. A new
/// directory's id and hash seed come from the disk's seed too. The same seed and calls give the
/// same results, to the byte.
///
/// # Examples
///
/// ```
/// use sprag::disk::sim::SimDisk;
/// use sprag::disk::{Access, Disk as _, DiskFile as _};
///
/// let sim = SimDisk::new(7);
/// let disk = sim.open(true)?;
/// let file = disk.open("a", Access::Create)?;
/// disk.sync_dir()?;
/// file.write_all_at(b"synced", 0)?;
/// file.sync_data()?;
/// file.write_all_at(b"lost", 6)?;
///
/// sim.power_cut_keeping(0);
/// assert_eq!(sim.read_file("a").as_deref(), Some(&b"synced"[..]));
/// assert!(file.len().is_err(), "what was open is dead");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked under the lock belongs to a test that fails anyway.
        self.state.lock()
    }

    fn describe(&self) -> String {
        format!("simulated disk {}", self.seed)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("seed", &self.shared.seed).finish_non_exhaustive()
    }
}

impl SimDisk {
    /// Makes an empty directory on a disk that has never failed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                seed,
                state: Mutex::new(Rank::SimulatedDisk, State::new(seed)),
            }),
        }
    }

    /// Opens and locks the directory: for writing, exclusively; for reading, beside other readers.
    /// The lock is released when the handle and every file opened through it are dropped, and by a
    /// power cut or crash.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError::Locked`] if another handle has it open, and [`OpenError::Io`] while the
    /// power is off.
    pub fn open(&self, write: bool) -> Result<Arc<dyn Disk>, OpenError> {
        Ok(Arc::new(SimHandle::lock(self, write)?))
    }

    /// The current names of all files, sorted (durable or not).
    #[must_use]
    pub fn file_names(&self) -> Vec<String> {
        self.shared.state().names().cloned().collect()
    }

    /// The current content of a file (durable or not). The call does not count as a read, and works
    /// when the power is off.
    #[must_use]
    pub fn read_file(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.shared.state();
        let file = state.find(name).ok()?;
        let file = state.inode(file).ok()?;
        let mut bytes = vec![0; usize::try_from(file.len()).ok()?];
        file.read(&mut bytes, 0);
        Some(bytes)
    }
}

/// Power cuts and crashes.
impl SimDisk {
    /// Number of unsynced items, each of which survives a power cut or not.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.shared.state().unsynced()
    }

    /// Cuts the power and restores it. `choice` is asked once for each unsynced item,
    /// `0..unsynced()`, in order of time, whether it survives. Everything open is dead afterwards,
    /// and the lock is free.
    pub fn power_cut(&self, choice: &mut dyn FnMut(usize) -> bool) {
        // Turn the power off first, so that nothing is added while the caller chooses. The caller
        // may look at the disk, so the lock is not held meanwhile.
        let count = {
            let mut state = self.shared.state();
            state.power_off = true;
            state.unsynced()
        };
        let survives: Vec<bool> = (0..count).map(choice).collect();
        self.shared.state().power_cut(&survives);
    }

    /// Cuts the power as [`SimDisk::power_cut`] does, with choices from the disk's seed.
    pub fn power_cut_random(&self) {
        let mut state = self.shared.state();
        let survives: Vec<bool> = (0..state.unsynced()).map(|_| state.random.coin()).collect();
        state.power_cut(&survives);
    }

    /// Cuts the power as [`SimDisk::power_cut`] does: item `i` survives if bit `i` of `mask` is
    /// set, and no item from the 64th on does.
    pub fn power_cut_keeping(&self, mask: u64) {
        self.power_cut(&mut |item| item < 64 && mask >> item & 1 == 1);
    }

    /// Ends the process while the system lives on: nothing is lost, nothing becomes durable,
    /// everything open is dead, and the lock is free. If the power is off, it stays off.
    pub fn crash_process(&self) {
        self.shared.state().kill_handles();
    }

    /// Whether a [`Fault::PowerCut`] has struck, and no power cut has decided yet what is left.
    #[must_use]
    pub fn is_power_off(&self) -> bool {
        self.shared.state().power_off
    }
}

/// Settings of faults.
impl SimDisk {
    /// Number of operations so far. The next one has this number.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.shared.state().operations
    }

    /// Number of reads and mappings so far. The next one has this number.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.shared.state().reads
    }

    /// Restarts the counts of operations and reads from 0, and clears the trace and the faults that
    /// did not strike.
    pub fn reset_operations(&self) {
        let mut state = self.shared.state();
        state.operations = 0;
        state.reads = 0;
        state.trace.clear();
        state.faults.clear();
        state.read_faults.clear();
    }

    /// Sets a fault for the operation of that number. It strikes once.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.shared.state().faults.insert(operation, fault);
    }

    /// Sets a fault for the read or mapping of that number. Faults of syncs and writes make it fail
    /// with `EIO`, except for [`Fault::LostSync`], which does nothing.
    pub fn fail_read_at(&self, read: u64, fault: Fault) {
        self.shared.state().read_faults.insert(read, fault);
    }

    /// One line for each operation, so that line `i` is operation `i`. Failed operations are
    /// included. The lines are:
    ///
    /// - `write <file> offset=<n> bytes=<n>`
    /// - `sync <file>`
    /// - `sync_dir`
    /// - `create <file>`
    /// - `rename <from> <to>`
    /// - `remove <file>`
    /// - `allocate <file> bytes=<n>`
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.shared.state().trace.clone()
    }

    /// Flips bits of a byte that is on the disk, durable or not. Returns whether there is such a
    /// byte.
    #[must_use]
    pub fn corrupt(&self, file: &str, offset: u64, xor: u8) -> bool {
        self.shared.state().find_mut(file).is_some_and(|file| file.corrupt(offset, xor))
    }

    /// Sets whether syncs, of files and of the directory, report success and do nothing. It is the
    /// canary of every test that proves a sync.
    pub fn set_sync_disabled(&self, disabled: bool) {
        self.shared.state().sync_disabled = disabled;
    }

    /// Sets the total length of all files; writes and allocations beyond it fail with `ENOSPC`. A
    /// file that was removed and is open still counts.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shared.state().capacity_bytes = bytes;
    }

    /// Sets the depth of queues that are opened from now on (at least 1, the default). With more
    /// than one, writes are done and reported in an order that the seed chooses.
    pub fn set_queue_depth(&self, writes: usize) {
        self.shared.state().queue_depth = writes.max(1);
    }
}
