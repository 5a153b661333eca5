//! Profiles: sets of options for a purpose, by name. Four of them favour one property, and three
//! fit a size of a cluster.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    ApplyConfig, CompactionPolicy, Durability, IoBackend, PersistentConfig, StorageConfig,
};
use crate::sync::thread;

/// A purpose with a set of options. [`apply_config`](Profile::apply_config),
/// [`persistent_config`](Profile::persistent_config) and
/// [`storage_config`](Profile::storage_config) return the options. So do constructors of the same
/// names, such as [`ApplyConfig::low_latency`]. Every builder method works on the result.
///
/// `docs/operating.md` has one table of the options that each profile sets, and their measured
/// effects beside the default.
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
    /// Most entries a second, at the price of longer waits: [`ApplyConfig::high_throughput`].
    HighThroughput,
    /// Little memory, and less disk: [`PersistentConfig::memory_efficient`].
    MemoryEfficient,
    /// Acknowledged entries survive a power cut, and snapshots are regular:
    /// [`PersistentConfig::durable`].
    Durable,
    /// A node in a cluster of three to five: [`ApplyConfig::small_cluster`].
    SmallCluster,
    /// A node in a cluster of five to ten: [`ApplyConfig::medium_cluster`].
    MediumCluster,
    /// A node in a cluster of more than ten, or with much work: [`ApplyConfig::large_cluster`].
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

    /// The profile's name on a command line, such as `low-latency` or `large-cluster`.
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
    pub fn persistent_config(self, path: impl Into<PathBuf>) -> PersistentConfig {
        let config = PersistentConfig::new(path);
        let policy = CompactionPolicy::new();
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
        let config = StorageConfig::new();
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

/// A number of workers from 1 to `most` that leaves a core each to the submitter and the log
/// writer.
pub(crate) fn workers_at_most(most: usize) -> NonZeroUsize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // One or two cores leave none over; then there is one worker.
    NonZeroUsize::new(cores.saturating_sub(2).min(most)).unwrap_or(NonZeroUsize::MIN)
}

impl ApplyConfig {
    /// Makes options for entries that wait behind few others: `pipeline_depth` of 1,024, and the
    /// defaults otherwise.
    ///
    /// A submitter that is ahead of the disk is refused as full sooner, so the price is fewer
    /// entries a second. Smaller batches and fewer workers did not make the wait shorter when
    /// measured, so both are the defaults. A synchronous call that waits alone already has the same
    /// latency by default.
    pub fn low_latency() -> Self {
        Profile::LowLatency.apply_config()
    }

    /// Makes options for most entries a second: `pipeline_depth` of 131,072, and the defaults
    /// otherwise.
    ///
    /// An entry waits behind more others, and the queue takes 11.5 MB. It belongs with
    /// [`PersistentConfig::high_throughput`], whose io_uring uses the queue: `pwrite` gains nothing
    /// by it.
    pub fn high_throughput() -> Self {
        Profile::HighThroughput.apply_config()
    }

    /// Makes options for little memory: `pipeline_depth` of 4,096, and the defaults otherwise.
    pub fn memory_efficient() -> Self {
        Profile::MemoryEfficient.apply_config()
    }

    /// Makes the default options, because durability is an option of the machine
    /// ([`PersistentConfig::durable`]).
    pub fn durable() -> Self {
        Profile::Durable.apply_config()
    }

    /// Makes options for a node in a cluster of three to five: `pipeline_depth` of 16,384, and the
    /// defaults otherwise.
    ///
    /// The machine may be a [`MemoryStateMachine`](crate::MemoryStateMachine) where the consensus
    /// engine has its own log, or a persistent one with [`PersistentConfig::small_cluster`].
    pub fn small_cluster() -> Self {
        Profile::SmallCluster.apply_config()
    }

    /// Makes options for a node in a cluster of five to ten: `pipeline_depth` of 32,768, and the
    /// defaults otherwise.
    pub fn medium_cluster() -> Self {
        Profile::MediumCluster.apply_config()
    }

    /// Makes options for a node in a cluster of more than ten, or with much work. It has up to 8
    /// workers, reduced so that the submitter and the log writer have a core each. Other options
    /// are the defaults. A longer pipeline and larger batches gained nothing when measured.
    pub fn large_cluster() -> Self {
        Profile::LargeCluster.apply_config()
    }
}

impl PersistentConfig {
    /// Makes options for entries that wait behind few others: the log is written with
    /// [`IoBackend::Pwrite`], even if [`IoBackend::Auto`] changes its meaning. Other options are
    /// the defaults. [`ApplyConfig::low_latency`] has the shorter queue.
    pub fn low_latency(path: impl Into<PathBuf>) -> Self {
        Profile::LowLatency.persistent_config(path)
    }

    /// Makes options for most entries a second: [`IoBackend::Uring`] (where the kernel refuses it,
    /// the stats say why), `group_bytes` of 16 MiB, and the defaults otherwise.
    pub fn high_throughput(path: impl Into<PathBuf>) -> Self {
        Profile::HighThroughput.persistent_config(path)
    }

    /// Makes options for little memory: `segment_bytes` of 8 MiB, two `segment_images`, and no
    /// `pinned_images` (16 MiB in place of 256). `expected_keys` is 1,024, and a compaction starts
    /// at 32 MiB of log.
    ///
    /// An entry must fit into a segment, so an entry of more than some 8 million bytes is refused
    /// as too large. Every get of a value that is still in an image copies the value.
    pub fn memory_efficient(path: impl Into<PathBuf>) -> Self {
        Profile::MemoryEfficient.persistent_config(path)
    }

    /// Makes options for data that must survive: [`Durability::Sync`], which is the default, and a
    /// snapshot at least every ten minutes with an applied entry. Under
    /// [`CommitMode::ByCommit`](crate::CommitMode) the consensus engine decides on snapshots, as
    /// always.
    ///
    /// A snapshot reads back the log that it replaces, so damage of that is found within ten
    /// minutes. The option [`strict`](PersistentConfig::strict) stays off: add it where an operator
    /// must look at every torn end.
    pub fn durable(path: impl Into<PathBuf>) -> Self {
        Profile::Durable.persistent_config(path)
    }

    /// Makes options for a node in a cluster of three to five. `segment_bytes` is 16 MiB (64 MiB of
    /// images in place of 256), and `retain_entries` is 10,000 for followers that are behind.
    pub fn small_cluster(path: impl Into<PathBuf>) -> Self {
        Profile::SmallCluster.persistent_config(path)
    }

    /// Makes options for a node in a cluster of five to ten: `retain_entries` of 100,000 for
    /// followers that are behind, and the defaults otherwise.
    pub fn medium_cluster(path: impl Into<PathBuf>) -> Self {
        Profile::MediumCluster.persistent_config(path)
    }

    /// Makes options for a node in a cluster of more than ten, or with much work. `expected_keys`
    /// is 1,048,576, and `retain_entries` is 1,000,000 for followers that are behind.
    pub fn large_cluster(path: impl Into<PathBuf>) -> Self {
        Profile::LargeCluster.persistent_config(path)
    }
}

impl StorageConfig {
    /// Makes options for short waits: the read cache, and the defaults otherwise.
    pub fn low_latency() -> Self {
        Profile::LowLatency.storage_config()
    }

    /// Makes options for most entries a second: `batch_size` of 1,024, and the read cache. The
    /// entries of a batch are acknowledged together.
    pub fn high_throughput() -> Self {
        Profile::HighThroughput.storage_config()
    }

    /// Makes the default options, which have no read cache. Most memory belongs to the storage:
    /// lower its cache too.
    pub fn memory_efficient() -> Self {
        Profile::MemoryEfficient.storage_config()
    }

    /// Makes the default options, which have `sync_writes`. The caller takes the snapshots.
    pub fn durable() -> Self {
        Profile::Durable.storage_config()
    }

    /// Makes the default options, for a node in a cluster of three to five.
    pub fn small_cluster() -> Self {
        Profile::SmallCluster.storage_config()
    }

    /// Makes options for a node in a cluster of five to ten: the read cache, of 5,000 entries at
    /// most.
    pub fn medium_cluster() -> Self {
        Profile::MediumCluster.storage_config()
    }

    /// Makes options for a node in a cluster of more than ten, or with much work. `batch_size` is
    /// 1,024, and the read cache has 10,000 entries.
    pub fn large_cluster() -> Self {
        Profile::LargeCluster.storage_config()
    }
}

#[cfg(test)]
#[path = "profiles/tests.rs"]
mod tests;
