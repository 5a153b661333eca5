//! Every option, with its unit and its default.

mod compaction;
mod profiles;
mod retry;
pub(crate) mod storage;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Clock;
use crate::codec::{FRAME_BYTES_MAX, KEY_BYTES_MAX, Limits, VALUE_BYTES_MAX};
use crate::error::OpenError;
use crate::threads::host::Host;

pub use compaction::CompactionPolicy;
pub use profiles::Profile;
pub(crate) use profiles::workers_at_most;
pub use retry::RetryPolicy;
pub use storage::StorageConfig;

/// More keys than any memory holds: a larger number is a typing error, refused before memory is
/// allocated.
pub(crate) const EXPECTED_KEYS_MAX: usize = 1 << 32;
pub(crate) const BATCH_SIZE_MAX: usize = 1 << 16;

/// Length of a snapshot's chunk at most, unless one entry alone is longer.
pub(crate) const SNAPSHOT_CHUNK_BYTES: usize = 4 << 20;

/// Refuses an option that is out of its range.
pub(crate) fn within(
    option: &'static str,
    value: usize,
    min: usize,
    max: usize,
) -> Result<(), OpenError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(OpenError::Config { option, message: format!("{value} is not within {min} to {max}") })
}

impl Limits {
    /// Refuses limits that the format cannot hold.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        within("limits.key_bytes_max", self.key_bytes_max, 1, KEY_BYTES_MAX)?;
        within("limits.value_bytes_max", self.value_bytes_max, 0, VALUE_BYTES_MAX)?;
        within("limits.entry_bytes_max", self.entry_bytes_max, 1, FRAME_BYTES_MAX)
    }
}

/// Durability of an acknowledgement: when it is given, and so what a crash can take back.
///
/// A crash of the *process* loses no written entry: the kernel has it. For a storage without our
/// log, see [`StorageConfig::sync_writes`](crate::StorageConfig::sync_writes).
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Durability {
    /// Acknowledges once the entry is on stable storage. A crash of the process or a power cut
    /// loses nothing acknowledged.
    #[default]
    Sync,
    /// Acknowledges once the kernel has the entry; the log writer syncs at least this often. A
    /// power cut may lose the entries of the last interval and of one sync, never out of order.
    #[cfg_attr(feature = "serde", serde(rename = "periodic_ns"))]
    Periodic(
        #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::nanos"))] Duration,
    ),
    /// Acknowledges once the kernel has the entry, which it syncs in its own time. A power cut may
    /// lose what the kernel had not written (usually up to 30 seconds), never out of order.
    Os,
}

/// Ways of writing the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum IoBackend {
    /// The one of the other two that was faster of late on this disk, for short groups and for long
    /// ones apart. The log begins with [`IoBackend::Pwrite`], and tries the other way for a few
    /// groups from time to time (`docs/operating.md`). Without a sync of each group, and where a
    /// ring is refused, it is [`IoBackend::Pwrite`].
    #[default]
    Auto,
    /// An io_uring, past the page cache, with several writes in flight. Where the kernel, a
    /// container, a limit or the file system refuses a ring, [`IoBackend::Pwrite`] is used, and the
    /// stats say why. The same holds in a build without the feature `uring`.
    Uring,
    /// `pwrite` and `fdatasync`, one write at a time.
    Pwrite,
}

/// Commit mode: when an entry may be applied. It is fixed when the directory is created.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum CommitMode {
    /// An entry commits as soon as it is appended: `apply` and its relatives take entries that are
    /// already committed.
    #[default]
    OnAppend,
    /// An entry commits when [`commit`](crate::ConsensusLog::commit) says so. The log belongs to a
    /// consensus engine, and its uncommitted tail may be truncated.
    ByCommit,
}

impl CommitMode {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::OnAppend => "as it appends",
            Self::ByCommit => "by commit()",
        }
    }
}

/// Contiguity: which indexes may follow each other in the log. It is fixed when the directory is
/// created.
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Contiguity {
    /// Each index is one more than the one before; the first is 0 or 1.
    #[default]
    Strict,
    /// Indexes rise: the log may start at any index and have gaps, over which nothing can be
    /// committed. It is for adapters, whose consensus engine vouches for the order, and only
    /// together with [`CommitMode::ByCommit`]. [`apply_only`](crate::ConsensusLog::apply_only)
    /// takes entries that the log does not hold.
    Monotone,
}

impl Contiguity {
    /// The contiguity that META has, as one byte.
    pub(crate) const fn of_stored(byte: u8) -> Self {
        if byte == 1 { Self::Monotone } else { Self::Strict }
    }

    /// The byte in META.
    pub(crate) const fn stored(self) -> u8 {
        match self {
            Self::Strict => 0,
            Self::Monotone => 1,
        }
    }

    /// Whether indexes may have gaps.
    pub(crate) const fn is_monotone(self) -> bool {
        matches!(self, Self::Monotone)
    }

    pub(crate) fn check(self, commit_mode: CommitMode) -> Result<(), OpenError> {
        if self == Self::Strict || commit_mode == CommitMode::ByCommit {
            return Ok(());
        }
        let message = "is only for a log that commits by commit()".to_owned();
        Err(OpenError::Config { option: "contiguity", message })
    }

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Strict => "without a gap",
            Self::Monotone => "only upwards",
        }
    }
}

/// Options of an [`ApplyManager`](crate::ApplyManager).
#[derive(Clone, Debug)]
#[must_use]
pub struct ApplyConfig {
    pub(crate) pipeline_depth: usize,
    pub(crate) worker_count: Option<NonZeroUsize>,
    pub(crate) batch_size: usize,
    pub(crate) batch_timeout: Duration,
    pub(crate) pin_workers: bool,
    pub(crate) worker_cores: Vec<usize>,
    pub(crate) log_writer_core: Option<usize>,
    pub(crate) inline_apply: bool,
    /// `Some`: the engine has no threads, is stepped by hand, and reads the time from this clock.
    pub(crate) by_hand: Option<Clock>,
    pub(crate) close_timeout: Duration,
    /// The threads that run the engine; `None`: the engine has its own.
    pub(crate) host: Option<Host>,
}

impl Default for ApplyConfig {
    fn default() -> Self {
        Self {
            pipeline_depth: 65_536,
            worker_count: None,
            batch_size: 128,
            batch_timeout: Duration::ZERO,
            pin_workers: true,
            worker_cores: Vec::new(),
            log_writer_core: None,
            inline_apply: true,
            by_hand: None,
            close_timeout: Duration::from_secs(30),
            host: None,
        }
    }
}

impl ApplyConfig {
    /// Makes the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum of entries that are submitted and not yet acknowledged; more are refused as
    /// full. Default: 65,536. A short pipeline is slow: the log syncs all pending entries as one
    /// group. It takes 88 bytes an entry, and twice the
    /// [`reply_bytes_max`](crate::StateMachine::reply_bytes_max) of the machine.
    ///
    /// Under [`CommitMode::ByCommit`] it refuses nothing. It only bounds how many committed entries
    /// are applied at a time (twice as many); later committed entries wait in the log.
    pub fn pipeline_depth(mut self, entries: usize) -> Self {
        self.pipeline_depth = entries;
        self
    }

    /// Sets the number of threads that apply, at most 64. Default: 4, reduced so that the submitter
    /// and the log writer have a core each; 1 on a machine of two cores.
    pub fn worker_count(mut self, workers: NonZeroUsize) -> Self {
        self.worker_count = Some(workers);
        self
    }

    /// Sets the maximum of entries that a worker gets as one range. A range never spans two frames.
    /// Default: 128.
    pub fn batch_size(mut self, entries: usize) -> Self {
        self.batch_size = entries;
        self
    }

    /// Sets how long fewer than `batch_size` committed entries wait for more before the workers get
    /// them. Default: zero (the requirement's 10 ms would be the latency of every synchronous
    /// call).
    ///
    /// A synchronous call that applies its entries itself
    /// ([`inline_apply`](ApplyConfig::inline_apply)) does not wait for this timeout. With
    /// `inline_apply(false)` it waits.
    pub fn batch_timeout(mut self, timeout: Duration) -> Self {
        self.batch_timeout = timeout;
        self
    }

    /// Sets whether workers are pinned to cores, best effort. The stats show the result for each
    /// thread. Default: true.
    ///
    /// Without [`worker_cores`](ApplyConfig::worker_cores), a worker takes the core to which the
    /// fewest threads of this process are pinned. So several engines spread over the cores.
    pub fn pin_workers(mut self, pin: bool) -> Self {
        self.pin_workers = pin;
        self
    }

    /// Sets the cores that workers are pinned to, by the system's numbers: worker 0 to the first,
    /// and so on. If there are more workers, the list starts again. Default: empty, so the engine
    /// chooses. No effect without [`pin_workers`](ApplyConfig::pin_workers).
    pub fn worker_cores(mut self, cores: Vec<usize>) -> Self {
        self.worker_cores = cores;
        self
    }

    /// Sets the core that the log writer is pinned to, by the system's number. Default: none, so
    /// the system places the thread. No effect for a machine without a log.
    pub fn log_writer_core(mut self, core: Option<usize>) -> Self {
        self.log_writer_core = core;
        self
    }

    /// Sets whether a synchronous call may apply its entries itself when nothing else is pending.
    /// Default: true. Such a call waits for no [`batch_timeout`](ApplyConfig::batch_timeout).
    pub fn inline_apply(mut self, inline: bool) -> Self {
        self.inline_apply = inline;
        self
    }

    /// Sets how long dropping the manager waits for pending entries, and for its threads to end.
    /// Default: 30 s.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Lets the threads of `host` run the engine, beside other engines. Default: the engine has its
    /// own threads.
    ///
    /// Such an engine has one worker at a time: a [`worker_count`](ApplyConfig::worker_count) above
    /// 1 is refused. [`pin_workers`](ApplyConfig::pin_workers) and the cores have no effect.
    pub fn host(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// Makes an engine without threads, which its owner steps by hand ([`crate::testing`]).
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn by_hand(mut self, clock: Clock) -> Self {
        self.by_hand = Some(clock);
        self
    }
}

/// Options of a [`PersistentStateMachine`](crate::PersistentStateMachine).
#[derive(Clone, Debug)]
#[must_use]
pub struct PersistentConfig {
    pub(crate) path: PathBuf,
    pub(crate) create: bool,
    pub(crate) strict: bool,
    pub(crate) durability: Durability,
    pub(crate) commit_mode: CommitMode,
    pub(crate) contiguity: Contiguity,
    pub(crate) batch_size: usize,
    pub(crate) batch_interval: Duration,
    pub(crate) frame_bytes: usize,
    pub(crate) group_bytes: usize,
    pub(crate) segment_bytes: usize,
    pub(crate) segment_images: usize,
    pub(crate) pinned_images: usize,
    pub(crate) spare_segments: usize,
    pub(crate) expected_keys: usize,
    pub(crate) limits: Limits,
    pub(crate) hash_seed: Option<u64>,
    pub(crate) io: IoBackend,
    pub(crate) io_uring_refused: bool,
    pub(crate) retain_entries: u64,
    pub(crate) snapshot_chunk_bytes: usize,
    pub(crate) compaction: Option<Option<CompactionPolicy>>,
    /// The policy that applies where none was set and entries commit as they are appended.
    pub(crate) compaction_default: CompactionPolicy,
}

impl PersistentConfig {
    /// Makes the default options for the directory at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            create: true,
            strict: false,
            durability: Durability::Sync,
            commit_mode: CommitMode::OnAppend,
            contiguity: Contiguity::Strict,
            batch_size: 128,
            batch_interval: Duration::ZERO,
            frame_bytes: 256 << 10,
            group_bytes: 4 << 20,
            segment_bytes: 64 << 20,
            segment_images: 3,
            pinned_images: 1,
            spare_segments: 4,
            expected_keys: 1 << 16,
            limits: Limits::new(),
            hash_seed: None,
            io: IoBackend::Auto,
            io_uring_refused: false,
            retain_entries: 0,
            snapshot_chunk_bytes: SNAPSHOT_CHUNK_BYTES,
            compaction: None,
            compaction_default: CompactionPolicy::new(),
        }
    }

    /// Sets whether to create a missing directory. Default: true.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Sets whether a torn end of the log is an error. A crash leaves such an end, and opening cuts
    /// it otherwise. Default: false.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Sets when an acknowledgement is given. Default: [`Durability::Sync`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets the durability under the requirement's name: `true` is [`Durability::Sync`], `false` is
    /// [`Durability::Os`].
    pub fn sync_writes(self, sync: bool) -> Self {
        self.durability(if sync { Durability::Sync } else { Durability::Os })
    }

    /// Sets when an entry may be applied. It must be the mode that the directory was created with.
    /// Default: [`CommitMode::OnAppend`].
    pub fn commit_mode(mut self, mode: CommitMode) -> Self {
        self.commit_mode = mode;
        self
    }

    /// Sets which indexes may follow each other, as the directory was created. Default:
    /// [`Contiguity::Strict`], which is right for every program but the adapter of a consensus
    /// engine.
    pub fn contiguity(mut self, contiguity: Contiguity) -> Self {
        self.contiguity = contiguity;
        self
    }

    /// Sets the maximum of entries in a frame, the unit that is checksummed. Default: 128 (a header
    /// of 128 bytes is then one byte an entry).
    pub fn batch_size(mut self, entries: usize) -> Self {
        self.batch_size = entries;
        self
    }

    /// Sets how long the log writer lets fewer than `batch_size` entries gather before it writes
    /// them. Default: zero. The next group gathers anyway while one is synced, and the
    /// requirement's 10 ms would be the latency of every call.
    pub fn batch_interval(mut self, interval: Duration) -> Self {
        self.batch_interval = interval;
        self
    }

    /// Sets the maximum of entry bytes in a frame with more than one entry. Default: 256 KiB.
    pub fn frame_bytes(mut self, bytes: usize) -> Self {
        self.frame_bytes = bytes;
        self
    }

    /// Sets the maximum of bytes of one write to the log. Default: 4 MiB.
    pub fn group_bytes(mut self, bytes: usize) -> Self {
        self.group_bytes = bytes;
        self
    }

    /// Sets the length of a segment file, and of its image in memory, in bytes. Default: 64 MiB. An
    /// entry must fit into one.
    pub fn segment_bytes(mut self, bytes: usize) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Sets how many segments may be in memory at once: one filling, the others being written. At
    /// least 2. Default: 3.
    pub fn segment_images(mut self, images: usize) -> Self {
        self.segment_images = images;
        self
    }

    /// Sets how many of them values in use may hold. Beyond that, gets of fresh values copy.
    /// Default: 1 (for which there is room beside `segment_images`).
    pub fn pinned_images(mut self, images: usize) -> Self {
        self.pinned_images = images;
        self
    }

    /// Sets the number of keys to make room for. More keys are fine, and grow the store while
    /// applying. Default: 65,536.
    pub fn expected_keys(mut self, keys: usize) -> Self {
        self.expected_keys = keys;
        self
    }

    /// Sets the largest key, value and entry.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the seed of the key hash of a *new* directory. Default: random, so that a client cannot
    /// choose colliding keys. A fixed seed is for tests.
    pub fn hash_seed(mut self, seed: u64) -> Self {
        self.hash_seed = Some(seed);
        self
    }

    /// Sets how the log is written. Default: [`IoBackend::Auto`].
    /// [`ApplyStats::io_backend`](crate::ApplyStats::io_backend) shows the way in use.
    pub fn io(mut self, backend: IoBackend) -> Self {
        self.io = backend;
        self
    }

    /// Sets how many files of given-up segments are kept for reuse, at most 1,024. Default: 4.
    ///
    /// A write to such a file is cheaper to sync than one to a new file: by a third with one group
    /// in flight. A full disk does not stop the log at the next segment. Each takes `segment_bytes`
    /// of disk. A file that a value or a view still reads is never reused.
    pub fn spare_segments(mut self, files: usize) -> Self {
        self.spare_segments = files;
        self
    }

    /// Sets how many of the last entries a compaction leaves in the log, for followers that are
    /// behind. Default: 0, with which a follower that is behind needs the snapshot.
    pub fn retain_entries(mut self, entries: u64) -> Self {
        self.retain_entries = entries;
        self
    }

    /// Sets when to compact; `None`: only by [`Snapshots::compact`](crate::Snapshots::compact).
    /// Default: the policy's defaults, and `None` under [`CommitMode::ByCommit`], where the
    /// consensus engine decides.
    pub fn compaction(mut self, policy: impl Into<Option<CompactionPolicy>>) -> Self {
        self.compaction = Some(policy.into());
        self
    }

    /// Sets the policy for engines without an own setting whose log no consensus engine commits.
    fn compaction_default(mut self, policy: CompactionPolicy) -> Self {
        self.compaction_default = policy;
        self
    }

    /// The policy that was set, or the default.
    pub(crate) fn compaction_policy(&self) -> Option<CompactionPolicy> {
        let default = || match self.commit_mode {
            CommitMode::OnAppend => Some(self.compaction_default),
            CommitMode::ByCommit => None,
        };
        self.compaction.unwrap_or_else(default)
    }

    /// Sets the length of a chunk of a snapshot, for tests: a small snapshot then has several.
    #[cfg(any(test, feature = "testing"))]
    #[doc(hidden)]
    pub fn snapshot_chunk_bytes(mut self, bytes: usize) -> Self {
        self.snapshot_chunk_bytes = bytes;
        self
    }

    /// Acts as if the kernel refused an io_uring with `EPERM`, for tests.
    #[cfg(any(test, feature = "testing"))]
    #[doc(hidden)]
    pub fn io_uring_refused(mut self, refused: bool) -> Self {
        self.io_uring_refused = refused;
        self
    }

    /// Memory of the machine without keys and values, in bytes: the images of its segments.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.segment_bytes * (self.segment_images + self.pinned_images)
    }
}
