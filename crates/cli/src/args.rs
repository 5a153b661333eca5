//! The commands, their options, and the help that teaches them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

pub(crate) use self::run::{AckOn, Io, Kept, Machine, RunOptions};
use crate::generate::Generate;

mod run;

/// Run and inspect sprag, the engine under a Raft node: it turns committed log entries into durable
/// state.
#[derive(Parser, Debug)]
#[command(
    name = "sprag",
    version = crate::version::text(),
    arg_required_else_help = true,
    after_help = "\
A data directory (DIR) belongs to one writer at a time. `put`, `delete`, `incr`, `cas`, `batch`,
`import` and `run` create a missing directory; `restore` always makes a new one. `snapshot` (without
--out), `compact` and `bench open` write to an existing directory. `repair --yes` cuts a damaged one.

All other commands only read the directory, and never change a byte. They also read beside a writer,
except for `repair`, which needs a closed directory. They read a damaged directory up to the damage,
say so, and exit with 1; only `snapshot --out` then writes nothing. While a command reads a closed
directory, no program can open it for writing: let the command end first.

`run --storage` and `restore --storage` make directories of fjall or redb. `stats`, `get`, `keys`,
`export`, `snapshot --out`, `put`, `delete`, `incr`, `cas` and `batch` recognise such a directory by
its content. They lock it, for reading too. The other commands work on the log of sprag only.

`verify`, `inspect`, `dump` and `repair` take every directory, and `restore` takes every snapshot.
The other commands serve the key-value machine only, and refuse a directory that records another
state machine. Commands that apply entries (`put`, `delete`, `incr`, `cas`, `batch`, `import`,
`run`) also refuse the log of a consensus engine.

Exit status: 0 done; 1 the data is bad or the work failed (one line on stderr says why); 2 wrong
usage. With --json that line is an object: error, kind and, where they are known, file, offset and
index.

Examples:
  sprag run                            the main job: a million entries into a temporary directory, timed and checked
  sprag run --dir data --json          the same into ./data, the figures as one JSON object
  sprag put data name value            set a key
  sprag get data name                  print its value
  sprag keys data user:                the keys that begin with user:
  sprag verify data                    read every byte, and name all damage
  sprag repair data                    show what a repair would lose
  sprag export data > state.jsonl      the state, sorted by key
  sprag import data appendonly.aof     import a Redis append-only file
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
    /// Run the main job: send N entries through the apply manager, time them, and check everything
    /// afterwards.
    ///
    /// Puts K keys first, untimed, as a warm-up. Then generates N puts, zipfian 0.99 over these
    /// keys, and submits them flat out. The clock runs from the first submission to the last
    /// acknowledgement. Then measures random gets, closes the machine and opens it again. Compares
    /// index, number of keys and a digest of the whole state with the values before closing, and
    /// with a model. Exit status 1 if anything differs.
    ///
    /// The command generates the entries before the clock starts. They take about V + 130 bytes of
    /// memory each.
    Run(RunOptions),
    /// Set a key to a value, durably.
    Put(Put),
    /// Remove a key, durably. A key that is not there is no error.
    Delete(KeyOf),
    /// Add to the decimal number under a key, durably, and print the result. A missing key counts
    /// as 0.
    Incr(Incr),
    /// Set or delete a key, durably, if it has the expected value.
    ///
    /// Exit status 1 if the key has another value: then nothing is changed.
    Cas(Cas),
    /// Do several commands as one durable entry: all of them, or none if one is rejected.
    ///
    /// Each line is one command, a JSON object as `dump` prints it:
    /// {"kind":"put","key":"a","value":"1"}, {"kind":"delete","key":"a"},
    /// {"kind":"increment","key":"n","by":1} or
    /// {"kind":"compare_and_set","key":"a","expected":"1","new":null}. The value null means: no
    /// value. Bytes that are not UTF-8 are {"base64":".."}.
    Batch(Batch),
    /// Print the value of a key, and a newline. Exit status 1 if the key has no value.
    ///
    /// With --prefix, prints every key that begins with KEY and its value, sorted, as JSON lines.
    /// DIR may be a snapshot file.
    Get(Get),
    /// Print the keys of a directory or of a snapshot file, sorted, one a line.
    ///
    /// A key that holds a line end takes several lines. With --json each key is one JSON string, or
    /// {"base64":".."}.
    Keys(Keys),
    /// Follow a directory: print each entry as JSON when it is committed, also beside a writer.
    ///
    /// Begins with the next entry, or with --from I. Ends by ^C, with exit status 0, or after
    /// --count N entries. A compaction may give up entries before they are read. One line names
    /// them: {"kind":"compacted","from":..,"to":..}.
    Watch(Watch),
    /// Open a directory read-only and print how far it goes: last index, snapshot, keys, torn end,
    /// disk, memory.
    ///
    /// For a snapshot file: its index, its number of keys and its length.
    Stats(Dir),
    /// Print the whole state of a directory, or of a snapshot file, sorted by key.
    ///
    /// The format is JSON lines, {"key":"..","value":".."}, where a key or value that is not UTF-8
    /// is {"base64":".."}. With --format resp it is SET commands in the Redis protocol, for
    /// `redis-cli --pipe`.
    Export(Export),
    /// Import a Redis command stream: an append-only file, what `redis-cli --pipe` would take, or a
    /// command a line.
    ///
    /// Takes SET (without an expiry), SETNX, MSET, MSETNX, GETSET, GETDEL, APPEND, DEL, UNLINK,
    /// INCR, INCRBY, DECR and DECRBY. Takes FLUSHALL, FLUSHDB and SELECT 0, and MULTI with EXEC as
    /// one atomic batch. Any other command stops the import, which prints its name and byte offset.
    /// Everything before it is durable; nothing after it is applied. Running the same import again
    /// continues where the last one ended, and counts nothing twice. FLUSHALL and FLUSHDB delete
    /// every key of the directory.
    ///
    /// FILE may also be a manifest of Redis 7, or the directory that holds the manifest. A base
    /// file in RDB form is not read.
    Import(Import),
    /// Write a snapshot of the state at one index: into the directory or, with --out, to a file.
    ///
    /// Without --out, the next open of the directory starts from the snapshot; the log stays as it
    /// is (see `compact`). With --out, the command only reads the directory, also beside a writer.
    /// It writes the file under a temporary name, syncs it, and renames it over an older snapshot
    /// of that name. So the file is whole or not there. `export` reads the file, and `restore`
    /// makes a directory of it.
    Snapshot(Snapshot),
    /// Make a new directory with the state of a snapshot file.
    ///
    /// The command verifies the whole file first. DIR must not exist, or be empty, or be the
    /// remains of an interrupted restore. The log of the new directory continues after the
    /// snapshot's index. The directory has no vote: to a consensus group it is a new node.
    Restore(Restore),
    /// Write a snapshot into the directory, and give up the whole segments of the log that it
    /// covers.
    Compact(Dir),
    /// Read every byte of a directory and its snapshots, and name all damage: file, offset, first
    /// index lost.
    ///
    /// DIR may be a snapshot file. Exit status 1 if anything durable is damaged. A torn end is not
    /// damage. A crash leaves one, it holds nothing known to be durable, and the next open for
    /// writing cuts it. A torn end may hold an acknowledged last group that was damaged after the
    /// crash. After runs that did not sync, it may hold acknowledged entries.
    Verify(Dir),
    /// Print what a directory holds: META, segments, snapshots, watermarks and, with --frames,
    /// every frame.
    ///
    /// DIR may be a snapshot file.
    ///
    /// For META, the command prints how entries commit and whether indexes may have gaps
    /// (contiguity: strict or monotone). An opening has to agree with both.
    Inspect(Inspect),
    /// Show what a repair of a damaged directory would lose. With --yes, cut its log at the damage.
    ///
    /// With --yes, copies the files that it changes first, into DIR-backup-1 (or the next free
    /// number). Exit status 0 if nothing is damaged or the repair is done, 1 if the directory is
    /// damaged.
    Repair(Repair),
    /// Measure the cost of snapshots on this machine.
    Bench(Bench),
    /// Print the entries of the log as JSON lines, in index order, without truncated entries.
    ///
    /// Each line has "index", "term", "kind" and the fields of that kind. An entry that is not
    /// known to be committed is not part of the state, and has "committed":false. The other entries
    /// are enough to build the state if the log holds all of them. After a compaction the earlier
    /// state is in the snapshot. Entries that an adapter applied beside the log are left out
    /// (frames of kind "apply_only" of `inspect --frames`).
    Dump(Dump),
    /// Make shell completions and man pages.
    #[command(hide = true)]
    Generate(Generate),
}

impl Command {
    /// The name and the directory of a command that works on our log only; `None` for commands that
    /// work on any storage.
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
    /// Measure a snapshot, idle and under load, beside sorting, gathering, writing and syncing the
    /// same bytes.
    ///
    /// Loads N keys of 16 bytes, takes snapshots, compacts, and opens again, in a temporary
    /// directory. The figures under load are taken with overwrites at R a second, and with
    /// overwrites as fast as the engine takes them.
    Snapshot(BenchSnapshot),
    /// Measure an open of a directory: until the first read, and until all keys are in memory.
    Open(Dir),
}

/// Options of `bench snapshot`.
#[derive(clap::Args, Debug)]
pub(crate) struct BenchSnapshot {
    /// Number of keys.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub(crate) entries: u32,
    /// Length of a value, in bytes.
    #[arg(long, value_name = "V", default_value_t = 100, value_parser = value_bytes)]
    pub(crate) value_bytes: usize,
    /// Number of times that each figure is taken; the median counts.
    #[arg(long, value_name = "ROUNDS", default_value_t = 5, value_parser = rounds)]
    pub(crate) rounds: usize,
    /// Entries a second of the load that has a fixed rate.
    #[arg(long, value_name = "R", default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) rate: u64,
    /// Directory in which the temporary directory is made; default: $TMPDIR.
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
    /// Carry the repair out, and lose what a run without this option shows.
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
    /// Print every key that begins with KEY, and its value, as JSON lines. An empty KEY is every
    /// key.
    #[arg(long)]
    pub(crate) prefix: bool,
}

/// Options of `keys`.
#[derive(clap::Args, Debug)]
pub(crate) struct Keys {
    /// The data directory, or a snapshot file.
    #[arg(value_name = "DIR|FILE")]
    pub(crate) from: PathBuf,
    /// Print only keys that begin with this prefix.
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
    /// The value to set.
    #[arg(long, value_name = "VALUE")]
    pub(crate) new: Option<OsString>,
    /// Delete the key.
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
    /// The value: up to 16 MiB, of any bytes; `-`: all of standard input.
    #[arg(value_name = "VALUE")]
    pub(crate) value: OsString,
}

/// Options of `incr`.
#[derive(clap::Args, Debug)]
pub(crate) struct Incr {
    #[command(flatten)]
    pub(crate) of: KeyOf,
    /// The number to add; a negative one subtracts.
    #[arg(value_name = "BY", default_value_t = 1, allow_negative_numbers = true)]
    pub(crate) by: i64,
}

/// Options of `snapshot`.
#[derive(clap::Args, Debug)]
pub(crate) struct Snapshot {
    #[command(flatten)]
    pub(crate) of: Dir,
    /// The file to write instead of a snapshot in the directory; `-`: standard output. A FIFO or a
    /// device is written to as it is.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Replace a file of --out that is no snapshot, or write over a block device.
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
    /// The storage that keeps the state of the new directory.
    #[arg(long, value_enum, default_value_t = Kept::Log)]
    pub(crate) storage: Kept,
    /// Let entries commit by a consensus engine's word, and not when they are appended.
    #[arg(long, conflicts_with = "storage")]
    pub(crate) by_commit: bool,
    /// Let indexes have gaps, as in the directory of an adapter (sprag-openraft, for example).
    #[arg(long, requires = "by_commit")]
    pub(crate) monotone: bool,
}

/// Options of `export`.
#[derive(clap::Args, Debug)]
pub(crate) struct Export {
    /// The data directory, or a snapshot file.
    #[arg(value_name = "DIR|FILE")]
    pub(crate) from: PathBuf,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    pub(crate) format: Format,
}

/// Options of `import`.
#[derive(clap::Args, Debug)]
pub(crate) struct Import {
    #[command(flatten)]
    pub(crate) of: Dir,
    /// The file to read: a command stream, a Redis 7 manifest or its directory; `-`: standard
    /// input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Count commands that are not supported, and continue without them. An expiry is left out, and
    /// its value is put. Commands that change the meaning of later ones (SWAPDB, RENAME, SETRANGE
    /// and others) still stop the import.
    #[arg(long)]
    pub(crate) skip_unknown: bool,
    /// Name under which the position of this import is kept; default: the absolute path of the
    /// file. All input by standard input or another pipe shares one default name.
    #[arg(long, value_name = "NAME", value_parser = import_name)]
    pub(crate) name: Option<String>,
}

fn import_name(text: &str) -> Result<String, &'static str> {
    let fits = (1..=1024).contains(&text.len());
    if fits { Ok(text.to_owned()) } else { Err("must be of 1 to 1024 bytes") }
}

/// Output formats of a state.
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
    /// Print every frame too, with truncations and entries for the state only (apply-only).
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
