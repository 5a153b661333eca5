//! The machine of a run, and the versions of what was measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The lock file of the workspace: the versions that this program was built from.
const LOCK: &str = include_str!("../../../Cargo.lock");

/// Packages whose versions a report names.
const PEERS: &[&str] = &[
    "crossbeam-channel",
    "dashmap",
    "disruptor",
    "fjall",
    "flume",
    "hashbrown",
    "heed",
    "mimalloc",
    "papaya",
    #[cfg(feature = "logs")]
    "raft-engine",
    #[cfg(feature = "logs")]
    "raft-log",
    "redb",
    #[cfg(feature = "rocksdb")]
    "rocksdb",
    "rtrb",
    "scc",
];

/// Facts that a figure means nothing without.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    /// Device and file system of the directory of durable cases.
    pub(crate) disk: String,
    pub(crate) date: String,
    pub(crate) sprag: String,
    pub(crate) commit: String,
    pub(crate) compiler: String,
    /// Name and version of each peer.
    pub(crate) peers: Vec<String>,
    /// Arguments of the run.
    pub(crate) command: String,
}

impl Machine {
    pub(crate) fn here(dir: &Path) -> Self {
        let memory = line("/proc/meminfo", "MemTotal");
        // A system without this file has an unknown amount of memory, shown as 0.
        let kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        let dir = dir.to_string_lossy();
        let disk = output("df", &["--output=source,fstype", &dir]);
        let disk = disk.lines().last().map(|line| line.split_whitespace().collect::<Vec<_>>());
        Self {
            processor: line("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.div_ceil(1 << 20),
            kernel: output("uname", &["-sr"]),
            disk: disk.map_or(String::new(), |words| words.join(", ")),
            date: output("date", &["+%Y-%m-%d"]),
            sprag: env!("CARGO_PKG_VERSION").to_owned(),
            commit: output("git", &["describe", "--always", "--dirty"]),
            compiler: output("rustc", &["--version"]),
            peers: PEERS.iter().map(|name| format!("{name} {}", version(name))).collect(),
            command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        }
    }
}

/// The value of a line of a file of the kernel; empty if there is none.
fn line(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok();
    let output = output.filter(|output| output.status.success());
    output.map_or("unknown".to_owned(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

/// The newest version of a package in the lock file.
fn version(package: &str) -> &'static str {
    let found = LOCK.split("[[package]]\n").filter_map(|entry| {
        let mut lines = entry.lines();
        let name = lines.next()?.strip_prefix("name = \"")?.strip_suffix('"')?;
        let version = lines.next()?.strip_prefix("version = \"")?.strip_suffix('"')?;
        (name == package).then_some(version)
    });
    // Entries of one package are sorted by version.
    found.last().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_every_peer_is_found() {
        for peer in PEERS {
            let version = version(peer);
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{peer}: {version}");
        }
    }

    #[test]
    fn a_machine_without_such_a_file_or_program_is_unknown() {
        assert_eq!(line("/proc/there-is-none", "name"), "");
        assert_eq!(output("there-is-no-such-program", &[]), "unknown");
    }
}
