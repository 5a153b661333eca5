//! Sets of options for a purpose, by name: four that weigh one thing more than others, and three sizes of a cluster.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    ApplyConfig, CompactionPolicy, Durability, IoBackend, PersistentConfig, StorageConfig,
};
use crate::sync::thread;

/// A purpose that options are set for. [`apply_config`](Profile::apply_config),
/// [`persistent_config`](Profile::persistent_config) and [`storage_config`](Profile::storage_config) give the options, and
/// so do constructors of their names, such as [`ApplyConfig::low_latency`]. Every builder method works on the result.
///
/// `docs/operating.md` has one table of what each profile sets, and the measured effect of each beside the default.
///
/// ```no_run
/// use sprag::{ApplyConfig, ApplyManager, PersistentConfig, PersistentStateMachine};
///
/// let config = PersistentConfig::low_latency("data").expected_keys(1_000_000);
/// let machine = PersistentStateMachine::open(config)?;
/// let manager = ApplyManager::new(machine, ApplyConfig::low_latency())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Profile {
    /// An entry waits behind few others: [`ApplyConfig::low_latency`].
    LowLatency,
    /// Most entries a second, whatever each of them waits: [`ApplyConfig::high_throughput`].
    HighThroughput,
    /// Little memory, and less disk: [`PersistentConfig::memory_efficient`].
    MemoryEfficient,
    /// What was acknowledged survives a power cut, and snapshots are regular: [`PersistentConfig::durable`].
    Durable,
    /// A node of three to five: [`ApplyConfig::small_cluster`].
    SmallCluster,
    /// A node of five to ten: [`ApplyConfig::medium_cluster`].
    MediumCluster,
    /// A node of more than ten, or of much work: [`ApplyConfig::large_cluster`].
    LargeCluster,
}

impl Profile {
    /// Every profile, in the order of the table in `docs/operating.md`.
    pub const ALL: [Self; 7] = [
        Self::LowLatency,
        Self::HighThroughput,
        Self::MemoryEfficient,
        Self::Durable,
        Self::SmallCluster,
        Self::MediumCluster,
        Self::LargeCluster,
    ];

    /// Its name on a command line: `low-latency`, `large-cluster`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LowLatency => "low-latency",
            Self::HighThroughput => "high-throughput",
            Self::MemoryEfficient => "memory-efficient",
            Self::Durable => "durable",
            Self::SmallCluster => "small-cluster",
            Self::MediumCluster => "medium-cluster",
            Self::LargeCluster => "large-cluster",
        }
    }

    /// The options of the apply manager.
    #[must_use]
    pub fn apply_config(self) -> ApplyConfig {
        let config = ApplyConfig::new();
        match self {
            Self::LowLatency => config.pipeline_depth(1024),
            Self::HighThroughput => config.pipeline_depth(131_072),
            Self::MemoryEfficient => config.pipeline_depth(4096),
            Self::Durable => config,
            Self::SmallCluster => config.pipeline_depth(16_384),
            Self::MediumCluster => config.pipeline_depth(32_768),
            Self::LargeCluster => config.worker_count(workers_at_most(8)),
        }
    }

    /// The options of the persistent machine in the directory at `path`.
    #[must_use]
    pub fn persistent_config(self, path: impl Into<PathBuf>) -> PersistentConfig {
        let config = PersistentConfig::new(path);
        let policy = CompactionPolicy::default();
        match self {
            Self::LowLatency => config.io(IoBackend::Pwrite),
            Self::HighThroughput => config.io(IoBackend::Uring).group_bytes(16 << 20),
            Self::MemoryEfficient => config
                .segment_bytes(8 << 20)
                .segment_images(2)
                .pinned_images(0)
                .expected_keys(1024)
                .compaction_default(policy.log_bytes(32 << 20)),
            Self::Durable => config
                .durability(Durability::Sync)
                .compaction_default(policy.interval(Duration::from_secs(600))),
            Self::SmallCluster => config.segment_bytes(16 << 20).retain_entries(10_000),
            Self::MediumCluster => config.retain_entries(100_000),
            Self::LargeCluster => config.expected_keys(1 << 20).retain_entries(1_000_000),
        }
    }
}

impl Profile {
    /// The options of a machine over another storage.
    pub fn storage_config(self) -> StorageConfig {
        let config = StorageConfig::default();
        match self {
            Self::LowLatency => config.enable_cache(true),
            Self::HighThroughput => config.batch_size(1024).enable_cache(true),
            Self::MemoryEfficient | Self::SmallCluster => config,
            Self::Durable => config.sync_writes(true),
            Self::MediumCluster => config.enable_cache(true).max_cache_size(5000),
            Self::LargeCluster => config.batch_size(1024).enable_cache(true),
        }
    }
}

/// As many workers as leave a core each to the submitter and the log writer, 1 to `most`.
pub(crate) fn workers_at_most(most: usize) -> NonZeroUsize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    NonZeroUsize::new(cores.saturating_sub(2).min(most)).unwrap_or(NonZeroUsize::MIN)
}

impl ApplyConfig {
    /// For an entry that waits behind few others: `pipeline_depth` of 1,024, and all else as by default.
    ///
    /// A submitter that is ahead of the disk is refused as full sooner, so fewer entries a second are the price. Batches
    /// are no smaller and the workers no more than by default: neither made the wait shorter when it was measured. A
    /// synchronous call that waits alone has the default's latency already.
    #[must_use]
    pub fn low_latency() -> Self {
        Profile::LowLatency.apply_config()
    }

    /// For most entries a second: `pipeline_depth` of 131,072, and all else as by default.
    ///
    /// An entry waits behind more others, and the queue takes 11.5 MB. It is meant for
    /// [`PersistentConfig::high_throughput`], whose io_uring makes use of the queue: `pwrite` gains nothing by it.
    #[must_use]
    pub fn high_throughput() -> Self {
        Profile::HighThroughput.apply_config()
    }

    /// For little memory: `pipeline_depth` of 4,096, and all else as by default.
    #[must_use]
    pub fn memory_efficient() -> Self {
        Profile::MemoryEfficient.apply_config()
    }

    /// For what must survive: the default, as durability is the machine's ([`PersistentConfig::durable`]).
    #[must_use]
    pub fn durable() -> Self {
        Profile::Durable.apply_config()
    }

    /// For a node of three to five: `pipeline_depth` of 16,384, and all else as by default.
    ///
    /// The machine may be a [`MemoryStateMachine`](crate::MemoryStateMachine) where the consensus engine has a log of
    /// its own, or a persistent one with [`PersistentConfig::small_cluster`].
    #[must_use]
    pub fn small_cluster() -> Self {
        Profile::SmallCluster.apply_config()
    }

    /// For a node of five to ten: `pipeline_depth` of 32,768, and all else as by default.
    #[must_use]
    pub fn medium_cluster() -> Self {
        Profile::MediumCluster.apply_config()
    }

    /// For a node of more than ten, or of much work: up to 8 workers, but no more than leave a core each to the submitter
    /// and the log writer, and all else as by default. A longer pipeline and larger batches gained nothing when measured.
    #[must_use]
    pub fn large_cluster() -> Self {
        Profile::LargeCluster.apply_config()
    }
}

impl PersistentConfig {
    /// For an entry that waits behind few others: the log is written with [`IoBackend::Pwrite`], whatever
    /// [`IoBackend::Auto`] comes to mean, and all else is as by default. [`ApplyConfig::low_latency`] has the shorter queue.
    #[must_use]
    pub fn low_latency(path: impl Into<PathBuf>) -> Self {
        Profile::LowLatency.persistent_config(path)
    }

    /// For most entries a second: [`IoBackend::Uring`] (where it is refused, the stats say why), `group_bytes` of 16 MiB,
    /// and all else as by default.
    #[must_use]
    pub fn high_throughput(path: impl Into<PathBuf>) -> Self {
        Profile::HighThroughput.persistent_config(path)
    }

    /// For little memory: `segment_bytes` of 8 MiB, two `segment_images`, no `pinned_images` (16 MiB in place of 256),
    /// `expected_keys` of 1,024, and a compaction from 32 MiB of log on.
    ///
    /// An entry must fit into a segment: one of more than some 8 million bytes is refused as too large. Every get of a
    /// value that is still in an image copies it.
    #[must_use]
    pub fn memory_efficient(path: impl Into<PathBuf>) -> Self {
        Profile::MemoryEfficient.persistent_config(path)
    }

    /// For what must survive: [`Durability::Sync`], which is the default, and a snapshot at least every ten minutes in
    /// which anything was applied (under [`CommitMode::ByCommit`](crate::CommitMode) the consensus engine decides
    /// that, as always).
    ///
    /// A snapshot reads back the log that it replaces, so damage to that is found within ten minutes. Opening does not
    /// become [`strict`](PersistentConfig::strict) by this: add that where an operator is to look at every torn end.
    #[must_use]
    pub fn durable(path: impl Into<PathBuf>) -> Self {
        Profile::Durable.persistent_config(path)
    }

    /// For a node of three to five: `segment_bytes` of 16 MiB (64 MiB of images in place of 256), and `retain_entries` of
    /// 10,000 for followers that are behind.
    #[must_use]
    pub fn small_cluster(path: impl Into<PathBuf>) -> Self {
        Profile::SmallCluster.persistent_config(path)
    }

    /// For a node of five to ten: `retain_entries` of 100,000 for followers that are behind, and all else as by default.
    #[must_use]
    pub fn medium_cluster(path: impl Into<PathBuf>) -> Self {
        Profile::MediumCluster.persistent_config(path)
    }

    /// For a node of more than ten, or of much work: `expected_keys` of 1,048,576, and `retain_entries` of 1,000,000 for
    /// followers that are behind.
    #[must_use]
    pub fn large_cluster(path: impl Into<PathBuf>) -> Self {
        Profile::LargeCluster.persistent_config(path)
    }
}

impl StorageConfig {
    /// For short waits: the read cache, and all else as by default.
    pub fn low_latency() -> Self {
        Profile::LowLatency.storage_config()
    }

    /// For most entries a second: `batch_size` of 1,024, and the read cache. The entries of a batch are acknowledged
    /// together.
    pub fn high_throughput() -> Self {
        Profile::HighThroughput.storage_config()
    }

    /// For little memory: the default, which has no read cache. Most memory is the storage's own: lower its cache too.
    pub fn memory_efficient() -> Self {
        Profile::MemoryEfficient.storage_config()
    }

    /// For what must survive: `sync_writes`, which is the default. Snapshots are for the caller to take.
    pub fn durable() -> Self {
        Profile::Durable.storage_config()
    }

    /// For a node of three to five: the default.
    pub fn small_cluster() -> Self {
        Profile::SmallCluster.storage_config()
    }

    /// For a node of five to ten: the read cache, of 5,000 entries at most.
    pub fn medium_cluster() -> Self {
        Profile::MediumCluster.storage_config()
    }

    /// For a node of more than ten, or of much work: `batch_size` of 1,024, and the read cache of 10,000 entries.
    pub fn large_cluster() -> Self {
        Profile::LargeCluster.storage_config()
    }
}

#[cfg(test)]
#[path = "profiles/tests.rs"]
mod tests;
