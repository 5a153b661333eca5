//! The options of `run`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use sprag::Profile;

use super::value_bytes;

/// Options of `run`.
#[derive(clap::Args, Debug)]
pub(crate) struct RunOptions {
    /// Number of entries to time.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub(crate) entries: u64,
    /// The data directory; default: a temporary one (in $TMPDIR), removed afterwards. In a
    /// directory that has entries, the run continues after its last index.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The state machine.
    #[arg(long, value_enum, default_value_t = Machine::Persistent)]
    pub(crate) machine: Machine,
    /// The storage in which the persistent machine keeps its state. Options of the log have no
    /// meaning for the other storages.
    #[arg(long, value_enum, default_value_t = Kept::Log)]
    pub(crate) storage: Kept,
    /// The engine's options for a purpose, as the library sets them; default: the engine's
    /// defaults. Options given beside it take precedence. The run makes room for --keys keys in any
    /// case.
    #[arg(long, value_name = "NAME", value_parser = profile())]
    pub(crate) profile: Option<Profile>,
    /// Number of worker threads; default: the profile's, or 4, reduced so that the submitter and
    /// the log writer have a core each.
    #[arg(long, value_name = "W", value_parser = workers)]
    pub(crate) workers: Option<NonZeroUsize>,
    /// Number of entries in one submission.
    #[arg(long, value_name = "B", default_value_t = NonZeroUsize::new(128).unwrap_or(NonZeroUsize::MIN))]
    pub(crate) batch: NonZeroUsize,
    /// Length of a value, in bytes.
    #[arg(long, value_name = "V", default_value_t = 100, value_parser = value_bytes)]
    pub(crate) value_bytes: usize,
    /// Number of keys; each has 16 bytes.
    #[arg(long, value_name = "K", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub(crate) keys: u32,
    /// The moment that acknowledges an entry: it is on stable storage, or the kernel has it;
    /// default: the profile's, or sync.
    #[arg(long, value_enum)]
    pub(crate) durability: Option<AckOn>,
    /// Way of writing the log; default: the profile's, or auto. Where the kernel refuses an
    /// io_uring, pwrite is used; the report names the one used.
    #[arg(long, value_enum)]
    pub(crate) io: Option<Io>,
    /// Append the acknowledged index to this file, one a line, whenever it moves (at most once a
    /// millisecond).
    #[arg(long, value_name = "F")]
    pub(crate) ack_file: Option<PathBuf>,
    /// Serve the engine's metrics to Prometheus during the run, at http://ADDRESS/metrics.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) metrics: Option<SocketAddr>,
    /// Append to --ack-file even if the file holds other lines than indexes.
    #[arg(long, requires = "ack_file")]
    pub(crate) force: bool,
    /// Maximum of entries that are submitted and not acknowledged; default: the profile's, or
    /// 65,536.
    #[arg(long, value_name = "P")]
    pub(crate) pipeline: Option<NonZeroUsize>,
    /// Length of a segment file, in bytes: a multiple of 4096; default: the profile's, or
    /// 64 MiB.
    #[arg(long, value_name = "S", value_parser = segment_bytes)]
    pub(crate) segment_bytes: Option<usize>,
    /// Number of gets to time one by one.
    #[arg(long, value_name = "G", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub(crate) gets: u64,
    /// Seed of the random choices; the same seed makes the same entries.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub(crate) seed: u64,
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "must be an address and a port, as in 127.0.0.1:9464 or [::1]:9464")
}

fn segment_bytes(text: &str) -> Result<usize, &'static str> {
    let bytes = text.parse().ok().filter(|bytes| (16_384..=4_294_963_200).contains(bytes));
    let bytes = bytes.filter(|bytes: &usize| bytes.is_multiple_of(4096));
    bytes.ok_or("must be a multiple of 4096, and 16384 to 4294963200")
}

/// The name of a profile.
fn profile() -> impl TypedValueParser<Value = Profile> {
    PossibleValuesParser::new(Profile::ALL.map(Profile::name)).try_map(|name| {
        let found = Profile::ALL.into_iter().find(|profile| profile.name() == name);
        found.ok_or("no such profile")
    })
}

fn workers(text: &str) -> Result<NonZeroUsize, &'static str> {
    let workers = text.parse().ok().filter(|workers: &NonZeroUsize| workers.get() <= 64);
    workers.ok_or("must be 1 to 64")
}

/// The state machines that a run can feed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Machine {
    /// All state in memory, nothing on disk.
    Memory,
    /// Keys in memory, values in the log on disk.
    Persistent,
}

/// The storages that can keep a state.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kept {
    /// The log of sprag, and snapshots.
    Log,
    /// fjall, an LSM tree.
    Fjall,
    /// redb, a B-tree in one file.
    Redb,
}

impl Kept {
    /// The name of the storage, as `--storage` takes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
        }
    }
}

/// The moments that can acknowledge an entry of a run.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AckOn {
    /// The entry is on stable storage.
    Sync,
    /// The kernel has the entry; the engine syncs every 100 ms.
    Periodic,
    /// The kernel has the entry, and syncs when it likes.
    Os,
}

/// The ways in which a run can write its log.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Io {
    /// The best for a caller that waits for each entry: pwrite.
    Auto,
    /// An io_uring: faster flat out, and with large values.
    Uring,
    /// pwrite and fdatasync.
    Pwrite,
}
