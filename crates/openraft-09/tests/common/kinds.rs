//! The kinds of key-value machines that nodes of either openraft line are tested with, and their
//! options.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "tests; each file uses its own part of this"
)]

use std::num::NonZeroUsize;
use std::path::Path;

use sprag::error::OpenError;
use sprag::testing::storage::MemoryStorage;
use sprag::{
    ApplyConfig, ApplyStats, IoBackend, Journaled, MemoryConfig, MemoryStateMachine,
    PersistentConfig, PersistentStateMachine, StateMachine, Storage, StorageConfig, StorageMachine,
};
use sprag_fjall::{FjallConfig, FjallStorage};
use sprag_redb::{RedbConfig, RedbStorage};

/// A kind of key-value machine that nodes are tested with.
pub trait Kind: StateMachine {
    /// Opens the machine. `beside` is a place for files outside of the log's directory.
    fn open(config: PersistentConfig, beside: &Path) -> Result<Self, OpenError>
    where
        Self: Sized;
}

impl Kind for PersistentStateMachine {
    fn open(config: PersistentConfig, _beside: &Path) -> Result<Self, OpenError> {
        Self::open(config)
    }
}

impl Kind for Journaled<MemoryStateMachine> {
    fn open(config: PersistentConfig, _beside: &Path) -> Result<Self, OpenError> {
        Self::open(config, MemoryStateMachine::new(MemoryConfig::new())?)
    }
}

impl Kind for Journaled<StorageMachine<MemoryStorage>> {
    fn open(config: PersistentConfig, _beside: &Path) -> Result<Self, OpenError> {
        over(config, MemoryStorage::new())
    }
}

impl Kind for Journaled<StorageMachine<RedbStorage>> {
    fn open(config: PersistentConfig, beside: &Path) -> Result<Self, OpenError> {
        over(config, RedbStorage::open(beside, RedbConfig::new()).unwrap())
    }
}

impl Kind for Journaled<StorageMachine<FjallStorage>> {
    fn open(config: PersistentConfig, beside: &Path) -> Result<Self, OpenError> {
        over(config, FjallStorage::open(beside, FjallConfig::new()).unwrap())
    }
}

fn over<S: Storage>(
    config: PersistentConfig,
    storage: S,
) -> Result<Journaled<StorageMachine<S>>, OpenError> {
    let machine = PersistentStateMachine::with_storage(storage, StorageConfig::new())?;
    Journaled::open(config, machine)
}

pub fn apply_config(workers: usize) -> ApplyConfig {
    ApplyConfig::new().worker_count(NonZeroUsize::new(workers).unwrap()).pin_workers(false)
}

pub fn config(path: &Path) -> PersistentConfig {
    sprag_raft_store::config(path).segment_bytes(256 << 10).expected_keys(256)
}

/// Makes options for a simulated disk: small, because all of it is in memory.
pub fn small() -> PersistentConfig {
    config(Path::new("simulated")).segment_bytes(64 << 10)
}

/// Checks that a log is written in the way that was asked for.
pub fn check_io(stats: &ApplyStats, io: IoBackend) {
    let expected = if io == IoBackend::Uring { "io_uring" } else { "pwrite" };
    match stats.io_fallback {
        // A kernel or a container may refuse a ring. Then the log is written in the other way, and
        // the stats say why. A gate that asks for rings by this variable requires them.
        Some(_) if io == IoBackend::Uring && std::env::var_os("SPRAG_TEST_IO").is_none() => {
            assert_eq!(stats.io_backend, "pwrite");
        }
        _ => assert_eq!(stats.io_backend, expected),
    }
}
