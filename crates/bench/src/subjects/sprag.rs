//! sprag's persistent machine.

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Result, anyhow};
use sprag::{
    ApplyConfig, ApplyManager, Entry, IoBackend, PersistentConfig, PersistentStateMachine,
    StateMachine,
};

use super::{Store, fresh, locked, sum};
use crate::groups::TIMEOUT;
use crate::open_loop::submit;
use crate::workload::{Key, Writes};

/// Entries of a call that does not wait.
pub(crate) const ASYNC_RANGE: usize = 512;

/// Submits all of `entries` and waits until the last one is acknowledged.
pub(crate) fn submit_all<M: StateMachine>(
    manager: &ApplyManager<M>,
    entries: &[Entry<'_>],
) -> Result<()> {
    entries.chunks(ASYNC_RANGE).try_for_each(|part| submit(manager, part))?;
    let last = entries.last().ok_or_else(|| anyhow!("no entries"))?;
    Ok(manager.wait_for_apply(last.log_id.index, TIMEOUT)?)
}

/// The engine under test.
pub(crate) struct Sprag {
    pub(crate) manager: ApplyManager<PersistentStateMachine>,
    next_and_replies: Mutex<(u64, Vec<sprag::Reply>)>,
}

/// Outcome of entries submitted as fast as the engine takes them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlatOut {
    pub(crate) ns_each: f64,
    pub(crate) syncs: u64,
    /// Entries of a group of the log, on average.
    pub(crate) of_group: usize,
    /// Bytes that the log wrote for each entry.
    pub(crate) bytes_each: f64,
    /// Segments that began in a recycled file.
    pub(crate) recycled: u64,
}

impl Sprag {
    pub(crate) fn config(dir: &Path, keys: usize, io: IoBackend) -> PersistentConfig {
        PersistentConfig::new(dir).expected_keys(keys).io(io)
    }

    pub(crate) fn create(dir: &Path, keys: usize, io: IoBackend) -> Result<Self> {
        // The engine takes a directory only if it is empty or its own.
        fresh(dir)?;
        Self::with(Self::config(dir, keys, io))
    }

    /// An engine that gives up nothing of its log by itself.
    pub(crate) fn without_compaction(dir: &Path, keys: usize, io: IoBackend) -> Result<Self> {
        fresh(dir)?;
        Self::with(Self::config(dir, keys, io).compaction(None))
    }

    pub(crate) fn with(config: PersistentConfig) -> Result<Self> {
        Self::with_both(config, ApplyConfig::new())
    }

    pub(crate) fn with_both(config: PersistentConfig, apply: ApplyConfig) -> Result<Self> {
        let machine = PersistentStateMachine::open(config)?;
        let manager = ApplyManager::new(machine, apply)?;
        let next = manager.applied().map_or(1, |last| last.index + 1);
        Ok(Self { manager, next_and_replies: Mutex::new((next, Vec::new())) })
    }

    /// Writes and compacts until the log goes on in recycled files, as it does for the rest of its
    /// life.
    pub(crate) fn reach_recycled(&self, writes: &Writes) -> Result<()> {
        for _ in 0..8 {
            if self.flat_out(writes)?.recycled > 0 {
                break;
            }
            self.manager.snapshots().compact()?;
            self.manager.flush_pending(TIMEOUT)?;
        }
        Ok(())
    }

    /// First of the next indexes to submit.
    pub(crate) fn take_indexes(&self, count: usize) -> Result<u64> {
        let mut guard = locked(&self.next_and_replies)?;
        let first = guard.0;
        guard.0 += count as u64;
        Ok(first)
    }

    /// Submits the writes as fast as the engine takes them; the last one is durable at the end.
    #[allow(clippy::cast_precision_loss, reason = "counts of a round are far below 2^53")]
    pub(crate) fn flat_out(&self, writes: &Writes) -> Result<FlatOut> {
        let entries = writes.entries(self.take_indexes(writes.len())?);
        let before = self.manager.stats().log_writer;
        let started = Instant::now();
        submit_all(&self.manager, &entries)?;
        let ns_each = started.elapsed().as_nanos() as f64 / writes.len() as f64;
        let after = self.manager.stats().log_writer;
        let groups = usize::try_from(after.groups - before.groups)?.max(1);
        let of_group = writes.len().div_ceil(groups);
        Ok(FlatOut {
            ns_each,
            syncs: after.syncs - before.syncs,
            of_group,
            bytes_each: (after.bytes - before.bytes) as f64 / writes.len() as f64,
            recycled: after.recycled_segments - before.recycled_segments,
        })
    }
}

impl Store for Sprag {
    fn write(&self, writes: &mut dyn Iterator<Item = (&Key, &[u8])>) -> Result<()> {
        let mut guard = locked(&self.next_and_replies)?;
        let (next, replies) = &mut *guard;
        let entries: Vec<_> = (*next..)
            .zip(writes)
            .map(|(index, (key, value))| Entry::put(index, 1, key, value))
            .collect();
        *next += entries.len() as u64;
        replies.clear();
        self.manager.apply_entries_sync(&entries, TIMEOUT, replies)?;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<u64>> {
        Ok(self.manager.machine().get_with(key, sum)?)
    }

    fn own_syncs(&self) -> u64 {
        self.manager.stats().log_writer.syncs
    }
}
