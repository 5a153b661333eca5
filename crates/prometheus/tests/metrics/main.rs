//! Tests of a scrape's output, and of what Prometheus makes of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::float_cmp, reason = "tests")]

#[path = "../../../../tests/common/acting_disk.rs"]
mod acting_disk;
mod exposition;
mod incidents;
mod lists;
mod promtool;
mod scrape;

use std::time::Duration;

use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;
use sprag::testing::storage::MemoryStorage;
use sprag::{
    ApplyConfig, ApplyManager, Entry, EntryRange, Fatal, MemoryConfig, MemoryStateMachine,
    Partition, PersistentConfig, PersistentStateMachine, Replies, StateMachine, StateMachineStats,
    StorageConfig, StorageMachine,
};
use sprag_prometheus::SpragCollector;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// A machine that reports figures of a read cache.
struct Cached;

impl StateMachine for Cached {
    fn apply(&self, _: &EntryRange<'_>, _: Partition, _: &mut Replies<'_>) -> Result<(), Fatal> {
        Ok(())
    }

    fn stats(&self) -> StateMachineStats {
        let mut stats = StateMachineStats::default();
        (stats.cache_size, stats.cache_hits) = (Some(70), Some(30));
        (stats.cache_misses, stats.cache_hit_rate) = (Some(10), Some(75.0));
        (stats.cache_bytes, stats.cache_evictions) = (Some(7000), Some(5));
        (stats.memory_bytes, stats.disk_bytes) = (Some(4096), Some(8192));
        stats
    }
}

fn memory() -> ApplyManager<MemoryStateMachine> {
    let machine = MemoryStateMachine::new(MemoryConfig::new()).unwrap();
    ApplyManager::new(machine, ApplyConfig::new()).unwrap()
}

fn persistent(dir: &tempfile::TempDir) -> ApplyManager<PersistentStateMachine> {
    let config = PersistentConfig::new(dir.path()).segment_bytes(64 << 10);
    ApplyManager::new(PersistentStateMachine::open(config).unwrap(), ApplyConfig::new()).unwrap()
}

/// A registry with one engine, `test`.
fn registry_of<M: StateMachine>(manager: &ApplyManager<M>) -> Registry {
    let collector = SpragCollector::new();
    collector.add("test", manager.stats_reader()).unwrap();
    registry(&collector)
}

/// A machine over a storage that is not our log, with one entry.
fn stored() -> ApplyManager<StorageMachine<MemoryStorage>> {
    let config = StorageConfig::new();
    let machine = PersistentStateMachine::with_storage(MemoryStorage::new(), config).unwrap();
    let manager = ApplyManager::new(machine, ApplyConfig::new()).unwrap();
    manager.apply(&Entry::put(1, 1, b"k", b"v"), LONG).unwrap();
    manager
}

fn registry(collector: &SpragCollector) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector.clone()));
    registry
}

/// The text of a scrape, in the format that `promtool check metrics` reads.
fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_text::encode(&mut text, registry).unwrap();
    text
}
