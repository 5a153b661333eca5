//! Helpers of the command's tests.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests; their modules share this"
)]

#[path = "../../../../tests/common/io.rs"]
pub mod io;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use sprag::{ApplyConfig, ApplyManager, CommitMode, Entry, PersistentStateMachine, testing};
use tempfile::TempDir;

pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A temporary directory, and a path in it at which nothing exists.
pub fn fresh() -> (TempDir, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("data");
    (temporary, path)
}

/// Whether this process and its children ignore a signal, as background processes of a shell ignore
/// an interrupt. The command leaves such a signal ignored.
pub fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal - 1) & 1 == 1
}

/// A process of the command, not started yet.
pub fn command<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sprag"));
    let arguments: Vec<OsString> = arguments.into_iter().map(|s| s.as_ref().to_owned()).collect();
    command.args(&arguments).stdin(Stdio::null());
    if asks_for_io(&arguments) {
        command.args(["--io", io::asked_name()]);
    }
    command
}

/// Whether the test should choose a back-end: the command takes one, none is named, and it has a
/// log.
fn asks_for_io(arguments: &[OsString]) -> bool {
    let is_other = |pair: &[OsString]| pair[0] == "--storage" && pair[1] != "log";
    arguments.first().is_some_and(|first| first == "run")
        && !arguments.iter().any(|argument| argument == "--io")
        && !arguments.windows(2).any(is_other)
}

/// Runs the command to its end.
pub fn sprag<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    command(arguments).output().unwrap()
}

/// Runs the command, which must succeed without a word on stderr. Returns its output.
pub fn succeed<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Vec<u8> {
    let output = sprag(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{}: {stderr}", output.status);
    output.stdout
}

/// Runs the command, which must fail with this exit status. Returns its one line on stderr.
pub fn fail<S: AsRef<OsStr>>(status: i32, arguments: impl IntoIterator<Item = S>) -> String {
    let output = sprag(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    if status == 1 {
        assert!(stderr.starts_with("sprag: ") && stderr.ends_with('\n'), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    stderr
}

/// Runs the command, which must succeed, and reads its output as one JSON object.
pub fn json<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Value {
    let arguments: Vec<OsString> = arguments.into_iter().map(|s| s.as_ref().to_owned()).collect();
    let report: Value = serde_json::from_slice(&succeed(&arguments)).unwrap();
    if asks_for_io(&arguments) {
        io::check_name(report["io_backend"].as_str().unwrap(), io::asked(), || None);
    }
    report
}

/// Runs the first command that writes to a directory after a kill, and reads its output as one JSON
/// object.
///
/// A kill can end a write at a page's border. The log then has a torn end, and this command says on
/// stderr that it was cut. It may say nothing else.
pub fn json_after_kill<S: AsRef<OsStr>>(
    dir: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Value {
    let output = sprag(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{}: {stderr}", output.status);
    let cut = format!("sprag: {}: the log had a torn end, which was cut: ", text(dir));
    assert!(stderr.lines().all(|line| line.starts_with(&cut)), "{stderr}");
    assert!(stderr.lines().count() <= 1, "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Name, content and times of every file.
pub fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>, [i64; 4], u64)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|file| {
            let path = file.unwrap().path();
            let metadata = fs::metadata(&path).unwrap();
            let times =
                [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
            (path.clone(), fs::read(&path).unwrap(), times, metadata.ino())
        })
        .collect();
    files.sort();
    files
}

pub type Manager = ApplyManager<PersistentStateMachine>;

/// Length of small segments, so that small tests have several.
pub const SEGMENT_BYTES: usize = 256 << 10;

pub fn open(path: &Path, workers: usize) -> Manager {
    let config = io::config(path).segment_bytes(SEGMENT_BYTES).commit_mode(CommitMode::OnAppend);
    let machine = PersistentStateMachine::open(config).unwrap();
    let config = ApplyConfig::new().worker_count(workers.try_into().unwrap());
    io::manage(machine, config)
}

/// Random numbers of a seed.
pub struct Random(testing::Random);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(testing::Random::new(seed))
    }

    /// Seeds the generator from the time, and prints the seed.
    pub fn of_now() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seed = now.as_nanos() as u64;
        println!("seed {seed}");
        Self::new(seed)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0.next_u64() % limit
    }
}

/// Makes a directory with `entries` puts, one a frame, closed cleanly.
pub fn filled(path: &Path, entries: u64) {
    let manager = open(path, 1);
    for index in 1..=entries {
        let key = format!("key-{}", index % 7);
        let value = format!("value of {index} {}", "x".repeat((index * 37 % 500) as usize));
        let entry = Entry::put(index, 1, key.as_bytes(), value.as_bytes());
        manager.apply(&entry, TIMEOUT).unwrap();
    }
    manager.close(TIMEOUT).unwrap();
}

/// Flips one bit of a file in place.
pub fn flip(path: &Path, offset: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[usize::try_from(offset).unwrap()] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// The last whole line of an acknowledgement file, as a number.
pub fn last_acknowledged(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let whole = &text[..text.rfind('\n')? + 1];
    let numbers: Vec<u64> = whole.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "the acknowledged index only rises");
    numbers.last().copied()
}
