//! Where a run took place.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// Facts that a figure means nothing without.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    /// Days since 1970-01-01 as a date.
    pub(crate) date: String,
    pub(crate) sprag: String,
    pub(crate) commit: String,
    pub(crate) command: String,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let line = |path: &str, name: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let memory = line("/proc/meminfo", "MemTotal");
        let kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        let output = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().ok();
            let output = output.filter(|output| output.status.success());
            output.map_or("unknown".to_owned(), |output| {
                String::from_utf8_lossy(&output.stdout).trim().to_owned()
            })
        };
        Self {
            processor: line("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.div_ceil(1 << 20),
            kernel: output("uname", &["-sr"]),
            date: output("date", &["+%Y-%m-%d"]),
            sprag: env!("CARGO_PKG_VERSION").to_owned(),
            commit: output("git", &["rev-parse", "--short", "HEAD"]),
            command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        }
    }
}
