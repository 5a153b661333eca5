//! sprag's persistent machine.

use std::path::Path;

use anyhow::Result;
use sprag::{
    ApplyConfig, ApplyManager, Entry, IoBackend, PersistentConfig, PersistentStateMachine,
};

use super::{Store, fresh, sum};
use crate::groups::TIMEOUT;
use crate::workload::Key;

/// The engine under test.
pub(crate) struct Sprag {
    pub(crate) manager: ApplyManager<PersistentStateMachine>,
    next: u64,
    replies: Vec<sprag::Reply>,
}

impl Sprag {
    pub(crate) fn config(dir: &Path, keys: usize, io: IoBackend) -> PersistentConfig {
        PersistentConfig::new(dir).expected_keys(keys).io(io)
    }

    pub(crate) fn create(dir: &Path, keys: usize, io: IoBackend) -> Result<Self> {
        fresh(dir)?;
        // A directory of ours must be made by the engine or be empty.
        let machine = PersistentStateMachine::open(Self::config(dir, keys, io))?;
        let manager = ApplyManager::new(machine, ApplyConfig::new())?;
        Ok(Self { manager, next: 1, replies: Vec::new() })
    }

    /// The next index to submit.
    pub(crate) fn take_indexes(&mut self, count: u64) -> u64 {
        let first = self.next;
        self.next += count;
        first
    }
}

impl Store for Sprag {
    fn write(&mut self, writes: &mut dyn Iterator<Item = (&Key, &[u8])>) -> Result<()> {
        let entries: Vec<_> = (self.next..)
            .zip(writes)
            .map(|(index, (key, value))| Entry::put(index, 1, key, value))
            .collect();
        self.next += entries.len() as u64;
        self.replies.clear();
        self.manager.apply_entries_sync(&entries, TIMEOUT, &mut self.replies)?;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<u64>> {
        Ok(self.manager.machine().get_with(key, sum)?)
    }

    fn own_syncs(&self) -> u64 {
        self.manager.stats().log_writer.syncs
    }
}
