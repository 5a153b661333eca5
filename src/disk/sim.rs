//! A simulated, faulty disk.
//!
//! What it promises is what a real disk promises, and no more: see [`SimDisk`].

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

/// A data directory in memory that loses power, fails and lies on demand; clones are the same disk.
///
/// **What survives a power cut.** What was written is at first only in the cache, where reads see it. Each of these is
/// an *unsynced item* of its own, and any subset of them survives a power cut:
///
/// - a write to a 512-byte sector: the sector as a whole, with all that was written to it before. Of the versions of a
///   sector that survive the latest counts;
/// - a change of a file's length, by a write beyond its end or by an allocation. A file whose length did not survive is
///   cut, and what it gained reads as zeros when it grows again;
/// - a creation, a removal, or a renaming (old name or new, never both or none) in the directory.
///
/// [`DiskFile::sync_data`](super::DiskFile::sync_data) makes a file's content and length durable, but not its name;
/// [`Disk::sync_dir`] makes names durable, but no content. A file whose creation does not survive is gone with all its
/// synced content.
///
/// **Faults** are set for operations by number. An operation is one write, sync, sync of the directory, creation,
/// renaming, removal or allocation that had a chance to succeed, counted from 0. Reads and mappings are counted apart.
///
/// Nothing here takes time, looks at a clock, or asks the system for chance: what an engine draws for a new directory, its
/// id and its hash seed, is of this seed too. The same seed and calls give the same results, to the byte.
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
        // Whoever panicked while holding it was a test that fails anyway.
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
    /// An empty directory on a disk that has never failed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                seed,
                state: Mutex::new(Rank::SimulatedDisk, State::new(seed)),
            }),
        }
    }

    /// Opens and locks the directory: to write, alone; to read, beside other readers. The lock is released when the
    /// handle and every file opened through it are dropped, and by a power cut or crash.
    ///
    /// # Errors
    ///
    /// [`OpenError::Locked`] if somebody has it open, [`OpenError::Io`] while the power is off.
    pub fn open(&self, write: bool) -> Result<Arc<dyn Disk>, OpenError> {
        Ok(Arc::new(SimHandle::lock(self, write)?))
    }

    /// The names of all files, sorted, as they are now (durable or not).
    #[must_use]
    pub fn file_names(&self) -> Vec<String> {
        self.shared.state().names().cloned().collect()
    }

    /// A file's content as it is now (durable or not). It counts as no read, and works when the power is off.
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

/// Cuts and crashes.
impl SimDisk {
    /// How many unsynced items there are: each survives a power cut or not.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.shared.state().unsynced()
    }

    /// Cuts the power and restores it. `choice` is asked once for each unsynced item, `0..unsynced()`, in the order in
    /// which they happened, whether it survives. Whatever was open is dead afterwards, and the lock is free.
    pub fn power_cut(&self, choice: &mut dyn FnMut(usize) -> bool) {
        // Off first, so that nothing is added while the caller chooses (not under the lock: it may look at the disk).
        let count = {
            let mut state = self.shared.state();
            state.power_off = true;
            state.unsynced()
        };
        let survives: Vec<bool> = (0..count).map(choice).collect();
        self.shared.state().power_cut(&survives);
    }

    /// [`SimDisk::power_cut`] with the choices made by the disk's seed.
    pub fn power_cut_random(&self) {
        let mut state = self.shared.state();
        let survives: Vec<bool> = (0..state.unsynced()).map(|_| state.random.coin()).collect();
        state.power_cut(&survives);
    }

    /// [`SimDisk::power_cut`] where item `i` survives if bit `i` of `mask` is set; none from the 64th on do.
    pub fn power_cut_keeping(&self, mask: u64) {
        self.power_cut(&mut |item| item < 64 && mask >> item & 1 == 1);
    }

    /// The process dies and the system lives on: nothing is lost, nothing becomes durable, whatever was open is dead,
    /// and the lock is free. If the power is off, it stays off.
    pub fn crash_process(&self) {
        self.shared.state().kill_handles();
    }

    /// Whether a [`Fault::PowerCut`] has struck, and none of the power cuts has decided yet what is left.
    #[must_use]
    pub fn is_power_off(&self) -> bool {
        self.shared.state().power_off
    }
}

/// Faults.
impl SimDisk {
    /// How many operations there were. The next one has this number.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.shared.state().operations
    }

    /// How many reads and mappings there were. The next one has this number.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.shared.state().reads
    }

    /// Counts operations and reads from 0 again, and forgets the trace and the faults that did not strike.
    pub fn reset_operations(&self) {
        let mut state = self.shared.state();
        state.operations = 0;
        state.reads = 0;
        state.trace.clear();
        state.faults.clear();
        state.read_faults.clear();
    }

    /// Sets what happens to the operation of that number. It strikes once.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.shared.state().faults.insert(operation, fault);
    }

    /// Sets what happens to the read or mapping of that number: faults that are of syncs and writes only make it fail
    /// with `EIO`, but for [`Fault::LostSync`], which does nothing.
    pub fn fail_read_at(&self, read: u64, fault: Fault) {
        self.shared.state().read_faults.insert(read, fault);
    }

    /// One line for each operation, so that line `i` is operation `i`: `write <file> offset=<n> bytes=<n>`,
    /// `sync <file>`, `sync_dir`, `create <file>`, `rename <from> <to>`, `remove <file>`, `allocate <file> bytes=<n>`.
    /// Failed ones are in it too.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.shared.state().trace.clone()
    }

    /// Flips bits of a byte that is already on the disk, durable or not; whether there is such a byte.
    #[must_use]
    pub fn corrupt(&self, file: &str, offset: u64, xor: u8) -> bool {
        self.shared.state().find_mut(file).is_some_and(|file| file.corrupt(offset, xor))
    }

    /// Whether syncs, of files and of the directory, claim success and do nothing: the canary for every test that
    /// means to prove that something is synced.
    pub fn set_sync_disabled(&self, disabled: bool) {
        self.shared.state().sync_disabled = disabled;
    }

    /// How many bytes all files together may be long; writes and allocations beyond it fail with `ENOSPC`. A file that
    /// was removed but is open still counts.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shared.state().capacity_bytes = bytes;
    }

    /// How many writes the queues opened from now on take at a time (at least 1, the default). With more than one,
    /// writes are done and reported in an order that the seed chooses.
    pub fn set_queue_depth(&self, writes: usize) {
        self.shared.state().queue_depth = writes.max(1);
    }
}
