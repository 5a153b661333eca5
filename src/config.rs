//! Every option, its unit and its default.

mod profiles;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Clock;
use crate::codec::{FRAME_BYTES_MAX, KEY_BYTES_MAX, Limits, VALUE_BYTES_MAX};
use crate::error::OpenError;

pub use profiles::Profile;
pub(crate) use profiles::workers_at_most;

/// More keys than any memory holds: a slip of the pen, caught before it is allocated for.
pub(crate) const EXPECTED_KEYS_MAX: usize = 1 << 32;
pub(crate) const BATCH_SIZE_MAX: usize = 1 << 16;

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

/// When an acknowledgement is given, and so what a crash can take back.
///
/// A crash of the *process* loses nothing that was written, in any mode: the kernel has it. Over another storage without
/// a log of ours, the storage says what such a crash loses
/// ([`StorageConfig::sync_writes`](crate::StorageConfig::sync_writes)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Durability {
    /// After the entry is on stable storage. Nothing acknowledged is lost by a crash of the process or a power cut.
    #[default]
    Sync,
    /// After the entry is handed to the kernel, which is told to sync at least this often. A power cut may lose what
    /// was acknowledged during the last interval (and the time one sync takes); never out of order.
    Periodic(Duration),
    /// After the entry is handed to the kernel, which syncs when it likes. A power cut may lose whatever the kernel had
    /// not written (usually up to 30 seconds); never out of order.
    Os,
}

/// How the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum IoBackend {
    /// [`IoBackend::Pwrite`], in every durability mode: ahead for a caller who waits, with small groups. Flat out and with large
    /// values [`IoBackend::Uring`] is (`docs/io.md` has the figures).
    #[default]
    Auto,
    /// An io_uring, past the page cache, with several writes in flight. Where the kernel, a container, a limit or the
    /// file system refuses, it is [`IoBackend::Pwrite`], and the stats say why.
    Uring,
    /// `pwrite` and `fdatasync`, one write at a time.
    Pwrite,
}

/// When an entry may be applied. It is fixed when the directory is created.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum CommitMode {
    /// As soon as it is appended: `apply` and its relatives take entries that are committed already.
    #[default]
    OnAppend,
    /// When [`commit`](crate::ApplyManager::commit) says so: the log is a consensus engine's own, and its uncommitted
    /// tail may be truncated.
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

/// Which indexes may follow each other in the log. It is fixed when the directory is created.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Contiguity {
    /// Each one more than the one before; the first is 0 or 1.
    #[default]
    Strict,
    /// They rise. For adapters, whose consensus engine vouches for the order, and only together with
    /// [`CommitMode::ByCommit`]: the log may start at any index and have gaps, over which nothing can be committed, and
    /// [`apply_only`](crate::ApplyManager::apply_only) takes entries that the log does not hold.
    Monotone,
}

impl Contiguity {
    pub(crate) fn of(is_monotone: bool) -> Self {
        if is_monotone { Self::Monotone } else { Self::Strict }
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
pub struct ApplyConfig {
    pub(crate) pipeline_depth: usize,
    pub(crate) worker_count: Option<NonZeroUsize>,
    pub(crate) batch_size: usize,
    pub(crate) batch_timeout: Duration,
    pub(crate) pin_workers: bool,
    pub(crate) worker_cores: Vec<usize>,
    pub(crate) log_writer_core: Option<usize>,
    pub(crate) inline_apply: bool,
    /// `Some`: without threads, stepped by hand, at the time this clock tells.
    pub(crate) by_hand: Option<Clock>,
    pub(crate) close_timeout: Duration,
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
        }
    }
}

impl ApplyConfig {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Most entries submitted and not yet acknowledged; what is more is refused as full. Default: 65,536 (the log
    /// syncs what is pending as one group, so a short pipeline is a slow one; it takes 88 bytes an entry, and twice what
    /// a machine declares as [`reply_bytes_max`](crate::StateMachine::reply_bytes_max)).
    ///
    /// Under [`CommitMode::ByCommit`] nothing is refused for it: it only bounds how many committed entries are being applied
    /// at a time (twice as many), and what is committed beyond waits in the log.
    #[must_use]
    pub fn pipeline_depth(mut self, entries: usize) -> Self {
        self.pipeline_depth = entries;
        self
    }

    /// Threads that apply, at most 64. Default: 4, but no more than leave a core each to the submitter and the log
    /// writer; 1 on a machine of two cores.
    #[must_use]
    pub fn worker_count(mut self, workers: NonZeroUsize) -> Self {
        self.worker_count = Some(workers);
        self
    }

    /// Most entries handed to a worker as one range; a range never spans two frames. Default: 128.
    #[must_use]
    pub fn batch_size(mut self, entries: usize) -> Self {
        self.batch_size = entries;
        self
    }

    /// How long less than `batch_size` committed entries wait for more before they are handed to the workers.
    /// Default: zero (the requirement's 10 ms would be the latency of every synchronous call).
    ///
    /// A synchronous call that applies its entries itself ([`inline_apply`](ApplyConfig::inline_apply)) hands nothing
    /// over, and does not wait for this. With `inline_apply(false)` it waits.
    #[must_use]
    pub fn batch_timeout(mut self, timeout: Duration) -> Self {
        self.batch_timeout = timeout;
        self
    }

    /// Whether workers are pinned to cores, best effort; the stats say what came of it for each thread. Default: true.
    ///
    /// Without [`worker_cores`](ApplyConfig::worker_cores) a worker takes the core that the fewest threads of all engines of
    /// this process are pinned to, so that several engines spread over the cores.
    #[must_use]
    pub fn pin_workers(mut self, pin: bool) -> Self {
        self.pin_workers = pin;
        self
    }

    /// The cores that workers are pinned to, by the system's numbers: worker 0 to the first, and so on, from the beginning
    /// again if there are more workers. Default: empty, which leaves the choice to the engine. No effect without
    /// [`pin_workers`](ApplyConfig::pin_workers).
    #[must_use]
    pub fn worker_cores(mut self, cores: Vec<usize>) -> Self {
        self.worker_cores = cores;
        self
    }

    /// The core that the log writer is pinned to, by the system's number. Default: none, the system places it. No effect for
    /// a machine without a log.
    #[must_use]
    pub fn log_writer_core(mut self, core: Option<usize>) -> Self {
        self.log_writer_core = core;
        self
    }

    /// Whether a synchronous call may apply its entries itself when nothing else is pending. Default: true. Such a call
    /// waits for no [`batch_timeout`](ApplyConfig::batch_timeout).
    #[must_use]
    pub fn inline_apply(mut self, inline: bool) -> Self {
        self.inline_apply = inline;
        self
    }

    /// How long dropping the manager waits for what is pending, and for its threads to end. Default: 30 s.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Without threads: somebody steps the engine by hand ([`crate::testing`]).
    #[must_use]
    pub(crate) fn by_hand(mut self, clock: Clock) -> Self {
        self.by_hand = Some(clock);
        self
    }
}

/// When the engine takes a snapshot and gives up the log that it covers, by itself. Any of the conditions is enough.
///
/// What is written for it is a part of what is put in: with a ratio of 1, a snapshot is written when as much of the log
/// can be given up as the last snapshot has, so that the disk has three times the state at most (the log, the old
/// snapshot, and the new one while it is written) and some six segments with those kept to be used again, and twice as much
/// is written as without.
#[derive(Clone, Copy, PartialEq, Debug)]
#[must_use]
pub struct CompactionPolicy {
    pub(crate) garbage_ratio: f64,
    pub(crate) log_bytes: u64,
    pub(crate) entries: Option<u64>,
    pub(crate) interval: Option<Duration>,
}

impl Default for CompactionPolicy {
    fn default() -> Self {
        Self { garbage_ratio: 1.0, log_bytes: 128 << 20, entries: None, interval: None }
    }
}

impl CompactionPolicy {
    /// When the full segments of the log that could go (those that `retain_entries` keeps do not count) are this many times
    /// as long as the newest snapshot (and [`log_bytes`](CompactionPolicy::log_bytes) at least). Default: 1.
    pub fn garbage_ratio(mut self, ratio: f64) -> Self {
        self.garbage_ratio = ratio.max(0.0);
        self
    }

    /// The least length of full segments that the ratio starts to count at, in bytes. Default: 128 MiB, two segments.
    pub fn log_bytes(mut self, bytes: u64) -> Self {
        self.log_bytes = bytes;
        self
    }

    /// When so many entries were applied since the newest snapshot. Default: never for that.
    pub fn entries(mut self, entries: u64) -> Self {
        self.entries = Some(entries);
        self
    }

    /// When so much time has passed since the last compaction, if anything was applied since. Default: never for that.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }
}

/// Options of a [`PersistentStateMachine`](crate::PersistentStateMachine).
#[derive(Clone, Debug)]
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
    /// What it is where nothing was asked for and entries commit as they are appended.
    pub(crate) compaction_default: CompactionPolicy,
}

impl PersistentConfig {
    /// The defaults, for the directory at `path`.
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
            limits: Limits::default(),
            hash_seed: None,
            io: IoBackend::Auto,
            io_uring_refused: false,
            retain_entries: 0,
            snapshot_chunk_bytes: crate::snapshot::format::CHUNK_BYTES,
            compaction: None,
            compaction_default: CompactionPolicy::default(),
        }
    }

    /// Whether to create the directory if it is missing. Default: true.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether a torn end of the log, which a crash leaves and opening cuts, is an error instead. Default: false.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// When an acknowledgement is given. Default: [`Durability::Sync`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// `true` is [`Durability::Sync`], `false` is [`Durability::Os`]: the requirement's name for the choice.
    #[must_use]
    pub fn sync_writes(self, sync: bool) -> Self {
        self.durability(if sync { Durability::Sync } else { Durability::Os })
    }

    /// When an entry may be applied; must be what the directory was created with. Default: [`CommitMode::OnAppend`].
    #[must_use]
    pub fn commit_mode(mut self, mode: CommitMode) -> Self {
        self.commit_mode = mode;
        self
    }

    /// Which indexes may follow each other; must be what the directory was created with. Default:
    /// [`Contiguity::Strict`], which is right for everybody but the adapter of a consensus engine.
    #[must_use]
    pub fn contiguity(mut self, contiguity: Contiguity) -> Self {
        self.contiguity = contiguity;
        self
    }

    /// Most entries of a frame, the unit that is checksummed. Default: 128 (a header of 128 bytes is then one byte an
    /// entry).
    #[must_use]
    pub fn batch_size(mut self, entries: usize) -> Self {
        self.batch_size = entries;
        self
    }

    /// How long the log writer lets less than `batch_size` entries gather before it writes them. Default: zero (the
    /// next group gathers anyway while one is synced; the requirement's 10 ms would be the latency of every call).
    #[must_use]
    pub fn batch_interval(mut self, interval: Duration) -> Self {
        self.batch_interval = interval;
        self
    }

    /// Most bytes of entries in a frame that has more than one. Default: 256 KiB.
    #[must_use]
    pub fn frame_bytes(mut self, bytes: usize) -> Self {
        self.frame_bytes = bytes;
        self
    }

    /// Most bytes of one write to the log. Default: 4 MiB.
    #[must_use]
    pub fn group_bytes(mut self, bytes: usize) -> Self {
        self.group_bytes = bytes;
        self
    }

    /// Length of a segment file, and of its image in memory. Default: 64 MiB. An entry must fit into one.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: usize) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// How many segments may be in memory at once: one filling, the others being written. At least 2. Default: 3.
    #[must_use]
    pub fn segment_images(mut self, images: usize) -> Self {
        self.segment_images = images;
        self
    }

    /// How many of them may be held by values handed out; beyond that, gets of fresh values copy. Default: 1 (which is
    /// made room for beside `segment_images`).
    #[must_use]
    pub fn pinned_images(mut self, images: usize) -> Self {
        self.pinned_images = images;
        self
    }

    /// How many keys to make room for. More is fine, and grows the store while applying. Default: 65,536.
    #[must_use]
    pub fn expected_keys(mut self, keys: usize) -> Self {
        self.expected_keys = keys;
        self
    }

    /// The largest key, value and entry.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The seed of the key hash of a *new* directory. Default: random, which is what keeps others from choosing keys
    /// that collide; for tests.
    #[must_use]
    pub fn hash_seed(mut self, seed: u64) -> Self {
        self.hash_seed = Some(seed);
        self
    }

    /// How the log is written. Default: [`IoBackend::Auto`]. [`ApplyStats::io_backend`](crate::ApplyStats::io_backend)
    /// shows what it came to.
    #[must_use]
    pub fn io(mut self, backend: IoBackend) -> Self {
        self.io = backend;
        self
    }

    /// How many files of segments that a compaction has given up are kept to be used again, at most 1,024. Default: 4.
    ///
    /// Writing to such a file is cheaper to sync than to one that is new, with one group in flight by a third, and a
    /// full disk does not stop the log at the next segment. Each takes `segment_bytes` of disk. One that a value or a
    /// view still reads is never used again.
    #[must_use]
    pub fn spare_segments(mut self, files: usize) -> Self {
        self.spare_segments = files;
        self
    }

    /// How many of the last entries a compaction leaves in the log, at least, for followers that are behind. Default: 0. Then
    /// it may leave none, and whoever is behind needs the snapshot.
    #[must_use]
    pub fn retain_entries(mut self, entries: u64) -> Self {
        self.retain_entries = entries;
        self
    }

    /// When to compact; `None`: only by [`ApplyManager::compact`](crate::ApplyManager::compact). Default: the policy's
    /// defaults, and `None` under [`CommitMode::ByCommit`], as there the consensus engine decides what followers need.
    #[must_use]
    pub fn compaction(mut self, policy: impl Into<Option<CompactionPolicy>>) -> Self {
        self.compaction = Some(policy.into());
        self
    }

    /// When to compact where nothing was asked for and no consensus engine decides it.
    fn compaction_default(mut self, policy: CompactionPolicy) -> Self {
        self.compaction_default = policy;
        self
    }

    /// What was asked for, or the default.
    pub(crate) fn compaction_policy(&self) -> Option<CompactionPolicy> {
        let default = || match self.commit_mode {
            CommitMode::OnAppend => Some(self.compaction_default),
            CommitMode::ByCommit => None,
        };
        self.compaction.unwrap_or_else(default)
    }

    /// How long a chunk of a snapshot becomes: for tests, so that a small one has several.
    #[doc(hidden)]
    #[must_use]
    pub fn snapshot_chunk_bytes(mut self, bytes: usize) -> Self {
        self.snapshot_chunk_bytes = bytes.max(1);
        self
    }

    /// As if the kernel refused an io_uring with `EPERM`: for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn io_uring_refused(mut self, refused: bool) -> Self {
        self.io_uring_refused = refused;
        self
    }

    /// The back-end that is tried.
    pub(crate) fn io_tried(&self) -> IoBackend {
        match self.io {
            // Ahead with one small group in flight, level flat out; the ring wins with large values (`docs/io.md`).
            IoBackend::Auto => IoBackend::Pwrite,
            asked => asked,
        }
    }

    /// What the machine may take in memory, keys and values apart: the images of its segments.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.segment_bytes * (self.segment_images + self.pinned_images)
    }
}
