//! Tests of our log under a machine over a storage. The log is replayed from the storage's last
//! entry, and given up as far as the storage is durable. Increments prove that nothing is applied
//! twice, and nothing is left out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod crashes;
mod openings;

use std::time::Duration;

use sprag::error::OpenError;
use sprag::testing::storage::MemoryStorage;
use sprag::testing::{SimDisk, Stepped};
use sprag::{
    ApplyConfig, Command, CommitMode, Durability, Entry, Journaled, LogId, PersistentConfig,
    PersistentStateMachine, StateMachine, StorageConfig, StorageMachine,
};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) type Machine = Journaled<StorageMachine<MemoryStorage>>;
pub(crate) type Engine = Stepped<Machine>;

/// A directory on the simulated disk, and a storage beside it.
pub(crate) struct World {
    pub(crate) disk: SimDisk,
    pub(crate) storage: MemoryStorage,
    pub(crate) config: PersistentConfig,
}

impl World {
    pub(crate) fn new(seed: u64, commit_mode: CommitMode) -> Self {
        let config = PersistentConfig::new("simulated")
            .segment_bytes(64 << 10)
            .commit_mode(commit_mode)
            .durability(Durability::Os);
        Self { disk: SimDisk::new(seed), storage: MemoryStorage::new(), config }
    }

    pub(crate) fn machine(&self) -> Result<Machine, OpenError> {
        let config = StorageConfig::new().batch_size(4);
        let machine = PersistentStateMachine::with_storage(self.storage.clone(), config)?;
        Journaled::open_on_disk(self.disk.open(true)?, self.config.clone(), machine)
    }

    pub(crate) fn open(&self) -> Engine {
        Stepped::new(self.machine().unwrap(), ApplyConfig::new().pipeline_depth(256)).unwrap()
    }

    /// Kills the process. The storage keeps its commits.
    pub(crate) fn kill(&mut self, engine: Engine) {
        self.disk.crash_process();
        drop(engine);
        self.storage.heal();
    }

    /// Cuts the power: the disk loses items as `keep_log` says, and the storage all but the first
    /// `keep` unsynced changes.
    pub(crate) fn cut_power(&mut self, engine: Engine, keep_log: u64, keep: usize) {
        self.disk.power_cut_keeping(keep_log);
        drop(engine);
        self.storage = self.storage.after_power_cut(keep);
    }
}

static PAD: [u8; 3000] = [b'.'; 3000];

/// Entries with odd indexes count, and the others make the log long.
pub(crate) fn entry(index: u64, term: u64) -> Entry<'static> {
    let command = match index % 2 {
        1 => Command::increment(b"counter", 1),
        _ => Command::put(b"pad", &PAD),
    };
    Entry::new(LogId::new(index, term), command.into())
}

pub(crate) fn submit(engine: &Engine, from: u64, to: u64) {
    for index in from..=to {
        assert_eq!(engine.apply_entries(&[entry(index, 1)]).unwrap().new, 1);
    }
}

pub(crate) fn append(engine: &Engine, from: u64, to: u64, term: u64) {
    let entries: Vec<_> = (from..=to).map(|index| entry(index, term)).collect();
    assert_eq!(engine.consensus().unwrap().append(&entries).unwrap().new, entries.len() as u64);
}

/// Checks that the state is that after exactly `applied` entries, each applied once.
pub(crate) fn assert_state(engine: &Engine, applied: u64) {
    assert_eq!(engine.stats().applied, Some(applied).filter(|applied| *applied > 0));
    assert_eq!(counter(engine), applied.div_ceil(2), "after {applied} entries");
}

pub(crate) fn counter(engine: &Engine) -> u64 {
    let value = engine.machine().get(b"counter").unwrap();
    value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap())
}

pub(crate) fn has_snapshots(world: &World) -> bool {
    world.disk.file_names().iter().any(|name| name.contains(".snap"))
}

pub(crate) fn applied(engine: &Engine) -> u64 {
    engine.machine().applied().map_or(0, |last| last.index)
}
