//! What can be asked for, and the help that teaches it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};
use sprag::Profile;

use crate::generate::Generate;

/// Run and look into sprag, the engine under a Raft node that turns committed log entries into durable state.
#[derive(Parser, Debug)]
#[command(
    name = "sprag",
    version = crate::version::text(),
    arg_required_else_help = true,
    after_help = "\
A data directory (DIR) belongs to one writer at a time. `put`, `delete`, `incr`, `cas`,
`batch`, `import` and `run` create it if it is missing,
`restore` makes a new one; `snapshot` (without --out), `compact` and `bench open` write to one that is there; `repair --yes`
cuts a damaged one. All other commands only read it, and never change a byte. They read beside a writer too, but for
`repair`, which wants the directory to be closed; and up to the damage of one that is damaged (they say so, and exit
with 1), but for `snapshot --out`, which makes nothing of a part. While one of them reads a closed directory, nobody can
open it to write: let it end first.

`run --storage` and `restore --storage` make directories of fjall or redb. `stats`, `get`, `keys`, `export`, `snapshot --out`,
`put`, `delete`, `incr`, `cas` and `batch` know them by what is in them; they take the directory for themselves, reading
included. The other commands are about the log of sprag.

`verify`, `inspect`, `dump` and `repair` are for every directory, and `restore` for every snapshot. The others are for the
key-value machine only, and refuse a directory that records a state machine of somebody's own; those that apply
entries (`put`, `delete`, `incr`, `cas`, `batch`, `import`, `run`) refuse the log of a consensus engine too.

Exit status: 0 done; 1 the data is bad or the work failed (one line on stderr says why); 2 wrong usage. With --json that
line is an object: error, kind and, where they are known, file, offset and index.

Examples:
  sprag run                            the main job: a million entries into a temporary directory, timed and checked
  sprag run --dir data --json          the same into ./data, the figures as one JSON object
  sprag put data name value            set a key
  sprag get data name                  print its value
  sprag keys data user:                the keys that begin with user:
  sprag verify data                    read every byte, and name all damage
  sprag repair data                    what repairing a damaged directory would lose
  sprag export data > state.jsonl      the state, sorted by key
  sprag import data appendonly.aof     what a Redis append-only file holds
  sprag snapshot data --out day.snap   back up: the state, in one file, also beside a writer
  sprag restore day.snap copy          a new directory from it
  sprag restore day.snap b --storage redb    the same, kept in redb"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print JSON for machines, and no progress bars.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the main job: N entries through the apply manager, timed, and everything checked afterwards.
    ///
    /// Puts K keys first (untimed: the warm-up), generates N puts, zipfian 0.99 over these keys, and submits them flat
    /// out. Timed from the first submission to the last acknowledgement. Then random gets are measured, the machine is
    /// closed and opened again, and index, number of keys and a digest of the whole state are compared with what they
    /// were and with a model of what they must be. Exit status 1 if anything differs.
    ///
    /// The entries are generated before the clock starts, and take about V + 130 bytes of memory each.
    Run(RunOptions),
    /// Set a key to a value, durably.
    Put(Put),
    /// Remove a key, durably. A key that is not there is no error.
    Delete(KeyOf),
    /// Add to the decimal number under a key, durably, and print the result. A missing key counts as 0.
    Incr(Incr),
    /// Compare the value of a key and, if it is the expected one, set or delete it, durably.
    ///
    /// Exit status 1 if the key has another value: nothing is changed then.
    Cas(Cas),
    /// Do several commands as one durable entry: all of them, or none if one is rejected.
    ///
    /// A command is a JSON object on a line, as `dump` prints them: {"kind":"put","key":"a","value":"1"},
    /// {"kind":"delete","key":"a"}, {"kind":"increment","key":"n","by":1} or
    /// {"kind":"compare_and_set","key":"a","expected":"1","new":null}, where null is: no value. Bytes that are not UTF-8 are
    /// {"base64":".."}.
    Batch(Batch),
    /// Print the value of a key, and a newline. Exit status 1 if the key has no value.
    ///
    /// With --prefix it prints every key that begins with KEY and its value, sorted, as JSON lines. DIR may be a snapshot file.
    Get(Get),
    /// Print the keys of a directory or of a snapshot file, sorted, one a line.
    ///
    /// A key that holds a line end takes several lines; with --json each is one JSON string, or {"base64":".."}.
    Keys(Keys),
    /// Follow a directory: print each entry as JSON, as `dump` does, when it is committed, also beside a writer.
    ///
    /// Begins with the next entry, or with --from I. Ends by ^C, with exit status 0, or after --count N entries. Entries that
    /// a compaction gave up before they were read are named by one line: {"kind":"compacted","from":..,"to":..}.
    Watch(Watch),
    /// Open a directory read-only and say how far it goes: last index, snapshot, keys, torn end, disk, memory.
    ///
    /// Of a snapshot file: of what index it is, its keys and its length.
    Stats(Dir),
    /// Print the whole state of a directory, or of a snapshot file, sorted by key.
    ///
    /// As JSON lines, {"key":"..","value":".."}, where a key or value that is not UTF-8 is {"base64":".."}; or as SET
    /// commands in the Redis protocol, for `redis-cli --pipe`.
    Export(Export),
    /// Import a Redis command stream: an append-only file, what `redis-cli --pipe` would take, or a command a line.
    ///
    /// Takes SET (without an expiry), SETNX, MSET, MSETNX, GETSET, GETDEL, APPEND, DEL, UNLINK, INCR, INCRBY, DECR, DECRBY,
    /// FLUSHALL, FLUSHDB, SELECT 0, and MULTI with EXEC as one atomic batch. Anything else stops the import with its name
    /// and byte offset: all before it is durable and nothing after it is applied. The same import again goes on where the
    /// last one ended and counts nothing twice. FLUSHALL and FLUSHDB delete every key of the directory.
    ///
    /// FILE may also be a manifest of Redis 7 or the directory it is in. A base file in RDB form is not read.
    Import(Import),
    /// Write the state at one index to a snapshot: into the directory or, with --out, to a file.
    ///
    /// In the directory the next open starts from it; the log stays as it is (see `compact`). With --out the directory is
    /// only read, also beside a writer, and the file is whole or not there: written under a temporary name beside
    /// it, synced, and renamed over the snapshot that has that name. `export` reads it, and `restore` makes a directory of it.
    Snapshot(Snapshot),
    /// Make a new directory whose state is that of a snapshot file.
    ///
    /// The whole file is verified first. DIR must not exist, or be empty, or be what an interrupted restore left. The log of
    /// it goes on after the snapshot's index. It has no vote: to a consensus group it is a new node.
    Restore(Restore),
    /// Write a snapshot into the directory and give up the log that it covers, in whole segments.
    Compact(Dir),
    /// Read every byte of a directory, its snapshots too, and name all damage: file, offset, first index lost.
    ///
    /// DIR may be a snapshot file.
    /// Exit status 1 if anything that was durable is damaged. A torn end is not damage: a crash leaves one, nothing known
    /// to be durable is in it, and the next open for writing cuts it. It may hold an acknowledged last group that was
    /// damaged after the crash and, of runs that did not sync, acknowledged entries.
    Verify(Dir),
    /// Say what is in a directory: META, segments, snapshots, watermarks and, with --frames, every frame.
    ///
    /// DIR may be a snapshot file.
    ///
    /// Of META there is how entries commit and whether their indexes may have gaps (contiguity: strict or monotone), which
    /// an opening has to agree with.
    Inspect(Inspect),
    /// Show what repairing a damaged directory would lose and, with --yes, cut its log at the damage.
    ///
    /// The files that are changed are copied first, into DIR-backup-1 (or the next number that is free). Exit status 0
    /// if nothing is damaged or it was repaired, 1 if it is damaged.
    Repair(Repair),
    /// Measure what snapshots cost here.
    Bench(Bench),
    /// Print the entries of the log as JSON lines, in index order, without those that were truncated.
    ///
    /// Each line has "index", "term", "kind" and the fields of that kind. An entry that is not known to be committed, and
    /// so not part of the state, has "committed":false. The others are enough to build the state from where the log has
    /// everything: after a compaction what is before it is in the snapshot, and what an adapter applied beside the log
    /// (frames of kind "apply_only" of `inspect --frames`) is left out.
    Dump(Dump),
    /// Make shell completions and man pages.
    #[command(hide = true)]
    Generate(Generate),
}

impl Command {
    /// The name and the directory of a command that is about our log, and about no other storage.
    pub(crate) fn of_log(&self) -> Option<(&'static str, &Path)> {
        Some(match self {
            Self::Watch(watch) => ("watch", &watch.of.dir),
            Self::Import(import) => ("import", &import.of.dir),
            Self::Compact(of) => ("compact", &of.dir),
            Self::Verify(of) => ("verify", &of.dir),
            Self::Inspect(inspect) => ("inspect", &inspect.of.dir),
            Self::Repair(repair) => ("repair", &repair.of.dir),
            Self::Dump(dump) => ("dump", &dump.of.dir),
            Self::Bench(Bench { what: BenchWhat::Open(of) }) => ("bench open", &of.dir),
            _ => return None,
        })
    }
}

/// Options of `bench`.
#[derive(clap::Args, Debug)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) what: BenchWhat,
}

#[derive(Subcommand, Debug)]
pub(crate) enum BenchWhat {
    /// What a snapshot costs, idle and under load, beside sorting, gathering, writing and syncing the same bytes.
    ///
    /// Loads N keys of 16 bytes, takes snapshots, compacts, and opens again, in a temporary directory. Under load the
    /// last figures are of overwrites at R a second, and as fast as they go.
    Snapshot(BenchSnapshot),
    /// What opening a directory takes until the first read, and until all keys are in memory.
    Open(Dir),
}

/// Options of `bench snapshot`.
#[derive(clap::Args, Debug)]
pub(crate) struct BenchSnapshot {
    /// How many keys.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub(crate) entries: u32,
    /// Length of a value, in bytes.
    #[arg(long, value_name = "V", default_value_t = 100, value_parser = value_bytes)]
    pub(crate) value_bytes: usize,
    /// How often each figure is taken; the median counts.
    #[arg(long, value_name = "ROUNDS", default_value_t = 5, value_parser = rounds)]
    pub(crate) rounds: usize,
    /// Entries a second of the load that is held back.
    #[arg(long, value_name = "R", default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) rate: u64,
    /// Where the temporary directory is made; default: in $TMPDIR.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// The longest value that an entry may have.
const VALUE_BYTES_MAX: usize = 16 << 20;

fn value_bytes(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|bytes| *bytes <= VALUE_BYTES_MAX).ok_or("must be 0 to 16777216")
}

fn rounds(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|rounds| (1..=1000).contains(rounds)).ok_or("must be 1 to 1000")
}

/// Options of `repair`.
#[derive(clap::Args, Debug)]
pub(crate) struct Repair {
    #[command(flatten)]
    pub(crate) of: Dir,
    /// Repair it, and lose what a run without this shows.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Repair a damaged HARD too, though the node may then vote twice.
    #[arg(long, requires = "yes")]
    pub(crate) forget_hard_state: bool,
}

/// A data directory.
#[derive(clap::Args, Debug)]
pub(crate) struct Dir {
    /// The data directory.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// A key of a data directory.
#[derive(clap::Args, Debug)]
pub(crate) struct KeyOf {
    /// The data directory.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The key: 1 byte to 64 KiB, of any bytes. After `--` it may start with a hyphen.
    #[arg(value_name = "KEY")]
    pub(crate) key: OsString,
}

/// Options of `get`.
#[derive(clap::Args, Debug)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) of: KeyOf,
    /// Print every key that begins with KEY, and its value, as JSON lines. An empty KEY is every key.
    #[arg(long)]
    pub(crate) prefix: bool,
}

/// Options of `keys`.
#[derive(clap::Args, Debug)]
pub(crate) struct Keys {
    /// The data directory, or a snapshot file.
    #[arg(value_name = "DIR|FILE")]
    pub(crate) from: PathBuf,
    /// Only keys that begin with this.
    #[arg(value_name = "PREFIX", default_value = "")]
    pub(crate) prefix: OsString,
}

/// Options of `cas`.
#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("if").required(true).args(["expected", "absent"]))]
#[command(group = clap::ArgGroup::new("then").required(true).args(["new", "delete"]))]
pub(crate) struct Cas {
    #[command(flatten)]
    pub(crate) of: KeyOf,
    /// The value that the key must have.
    #[arg(long, value_name = "VALUE")]
    pub(crate) expected: Option<OsString>,
    /// The key must have no value.
    #[arg(long)]
    pub(crate) absent: bool,
    /// The value that it gets.
    #[arg(long, value_name = "VALUE")]
    pub(crate) new: Option<OsString>,
    /// It is deleted.
    #[arg(long)]
    pub(crate) delete: bool,
}

/// Options of `batch`.
#[derive(clap::Args, Debug)]
pub(crate) struct Batch {
    #[command(flatten)]
    pub(crate) of: Dir,
    /// The file to read, one JSON object a line; `-`: standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
}

/// Options of `watch`.
#[derive(clap::Args, Debug)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) of: Dir,
    /// First index to print; default: the next one.
    #[arg(long, value_name = "I")]
    pub(crate) from: Option<u64>,
    /// End after this many entries.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

/// Options of `put`.
#[derive(clap::Args, Debug)]
pub(crate) struct Put {
    #[command(flatten)]
    pub(crate) of: KeyOf,
    /// The value: up to 16 MiB, of any bytes; `-`: what standard input gives, as it is.
    #[arg(value_name = "VALUE")]
    pub(crate) value: OsString,
}

/// Options of `incr`.
#[derive(clap::Args, Debug)]
pub(crate) struct Incr {
    #[command(flatten)]
    pub(crate) of: KeyOf,
    /// What to add; negative to subtract.
    #[arg(value_name = "BY", default_value_t = 1, allow_negative_numbers = true)]
    pub(crate) by: i64,
}

/// Options of `snapshot`.
#[derive(clap::Args, Debug)]
pub(crate) struct Snapshot {
    #[command(flatten)]
    pub(crate) of: Dir,
    /// The file to write, and not into the directory; `-`: standard output. A FIFO or a device is written to as it is.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// With --out, replace a file that is no snapshot, or write over a block device.
    #[arg(long, requires = "out")]
    pub(crate) force: bool,
}

/// Options of `restore`.
#[derive(clap::Args, Debug)]
pub(crate) struct Restore {
    /// The snapshot file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The directory to make; its parent must exist.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// What keeps the state of the new directory.
    #[arg(long, value_enum, default_value_t = Kept::Log)]
    pub(crate) storage: Kept,
    /// Entries are to commit by a consensus engine's word, and not as they are appended.
    #[arg(long, conflicts_with = "storage")]
    pub(crate) by_commit: bool,
    /// Indexes may have gaps, as the directory of an adapter has it (sprag-openraft, say).
    #[arg(long, requires = "by_commit")]
    pub(crate) monotone: bool,
}

/// Options of `export`.
#[derive(clap::Args, Debug)]
pub(crate) struct Export {
    /// The data directory, or a snapshot file.
    #[arg(value_name = "DIR|FILE")]
    pub(crate) from: PathBuf,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    pub(crate) format: Format,
}

/// Options of `import`.
#[derive(clap::Args, Debug)]
pub(crate) struct Import {
    #[command(flatten)]
    pub(crate) of: Dir,
    /// The file to read: a command stream, a Redis 7 manifest or its directory; `-`: standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Count commands that are not supported, and go on without them. Expiries are left out, and their values put.
    /// Commands that change what later ones mean (SWAPDB, RENAME, SETRANGE and others) stop the import all the same.
    #[arg(long)]
    pub(crate) skip_unknown: bool,
    /// What the position of this import is kept under; default: the absolute path of the file, and one name for all that
    /// comes by standard input or another pipe.
    #[arg(long, value_name = "NAME", value_parser = import_name)]
    pub(crate) name: Option<String>,
}

fn import_name(text: &str) -> Result<String, &'static str> {
    let fits = (1..=1024).contains(&text.len());
    if fits { Ok(text.to_owned()) } else { Err("must be of 1 to 1024 bytes") }
}

/// How a state is printed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// One JSON object a line.
    Jsonl,
    /// SET commands of the Redis protocol.
    Resp,
}

/// Options of `inspect`.
#[derive(clap::Args, Debug)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) of: Dir,
    /// Every frame too, truncations and entries for the state only (apply-only) included.
    #[arg(long)]
    pub(crate) frames: bool,
}

/// Options of `dump`.
#[derive(clap::Args, Debug)]
pub(crate) struct Dump {
    #[command(flatten)]
    pub(crate) of: Dir,
    /// First index to print; default: the first of the log.
    #[arg(long, value_name = "I")]
    pub(crate) from: Option<u64>,
    /// Last index to print; default: the last of the log.
    #[arg(long, value_name = "J")]
    pub(crate) to: Option<u64>,
}

/// Options of `run`.
#[derive(clap::Args, Debug)]
pub(crate) struct RunOptions {
    /// How many entries to time.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub(crate) entries: u64,
    /// The data directory; default: a temporary one (in $TMPDIR), removed afterwards. One that has entries is gone on
    /// with from its last index.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Which state machine.
    #[arg(long, value_enum, default_value_t = Machine::Persistent)]
    pub(crate) machine: Machine,
    /// What the persistent machine keeps its state in. Options of the log have no meaning for the others.
    #[arg(long, value_enum, default_value_t = Kept::Log)]
    pub(crate) storage: Kept,
    /// The engine's options, as the library sets them for a purpose; default: the engine's defaults. Other options that
    /// are given count before it. Room is made for --keys keys in any case.
    #[arg(long, value_name = "NAME", value_parser = profile())]
    pub(crate) profile: Option<Profile>,
    /// Threads that apply; default: the profile's, or 4, but no more than leave a core each to the submitter and the log writer.
    #[arg(long, value_name = "W", value_parser = workers)]
    pub(crate) workers: Option<NonZeroUsize>,
    /// Entries of one submission.
    #[arg(long, value_name = "B", default_value_t = NonZeroUsize::new(128).unwrap_or(NonZeroUsize::MIN))]
    pub(crate) batch: NonZeroUsize,
    /// Length of a value, in bytes.
    #[arg(long, value_name = "V", default_value_t = 100, value_parser = value_bytes)]
    pub(crate) value_bytes: usize,
    /// How many keys there are; each has 16 bytes.
    #[arg(long, value_name = "K", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub(crate) keys: u32,
    /// When an entry is acknowledged: when it is on stable storage, or when the kernel has it; default: the profile's, or
    /// sync.
    #[arg(long, value_enum)]
    pub(crate) durability: Option<AckOn>,
    /// How the log is written; where an io_uring is refused it is pwrite, and the report says which it was; default: the
    /// profile's, or auto.
    #[arg(long, value_enum)]
    pub(crate) io: Option<Io>,
    /// Append the acknowledged index to this file, one a line, as it moves (at most once a millisecond).
    #[arg(long, value_name = "F")]
    pub(crate) ack_file: Option<PathBuf>,
    /// Serve the engine's metrics to a Prometheus while it runs, at http://ADDRESS/metrics.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) metrics: Option<SocketAddr>,
    /// With --ack-file, append to a file that holds something other than such lines.
    #[arg(long, requires = "ack_file")]
    pub(crate) force: bool,
    /// Most entries submitted and not acknowledged; default: the profile's, or
    /// 65,536.
    #[arg(long, value_name = "P")]
    pub(crate) pipeline: Option<NonZeroUsize>,
    /// Length of a segment file, in bytes: a multiple of 4096; default: the profile's, or
    /// 64 MiB.
    #[arg(long, value_name = "S", value_parser = segment_bytes)]
    pub(crate) segment_bytes: Option<usize>,
    /// How many gets to time one by one.
    #[arg(long, value_name = "G", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub(crate) gets: u64,
    /// What the random choices start from; the same seed makes the same entries.
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

/// Which state machine a run feeds.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Machine {
    /// All state in memory, nothing on disk.
    Memory,
    /// Keys in memory, values in the log on disk.
    Persistent,
}

/// What a state is kept in.
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
    /// Its name, as `--storage` takes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
        }
    }
}

/// When a run's entries are acknowledged.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AckOn {
    /// When they are on stable storage.
    Sync,
    /// When the kernel has them, which syncs every 100 ms.
    Periodic,
    /// When the kernel has them, which syncs when it likes.
    Os,
}

/// How a run writes its log.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Io {
    /// What is best for who waits for each entry: pwrite.
    Auto,
    /// An io_uring: ahead flat out, and with large values.
    Uring,
    /// pwrite and fdatasync.
    Pwrite,
}
