//! One timed open of a directory, in a process that has done nothing else.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sprag::{ApplyConfig, ApplyManager, PersistentConfig, PersistentStateMachine};

use super::report::milliseconds;
use crate::error::{Outcome, about, opening};
use crate::text::line;

/// Interval at which the bench checks whether all keys are in the tables.
const LOOK: Duration = Duration::from_millis(1);

/// Figures of one open.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub(super) struct Opened {
    /// Time until a get has returned.
    pub(super) first_read_ms: f64,
    /// Time until all keys are in the tables.
    pub(super) complete_ms: f64,
    pub(super) keys: usize,
    /// Anonymous memory that the open took, fixed buffers included.
    pub(super) rss_anon_bytes: f64,
}

pub(super) fn open(dir: &Path) -> Outcome<Opened> {
    let found = sprag::inspect::meta(dir).map_err(opening(dir))?;
    let mut config = PersistentConfig::new(dir).create(false).compaction(None);
    if let Some(meta) = found {
        config = config.commit_mode(meta.commit_mode).contiguity(meta.contiguity);
    }
    let before = rss_anon_bytes()?;
    let began = Instant::now();
    let machine = PersistentStateMachine::open(config).map_err(opening(dir))?;
    machine.get(b"key-000000000000").map_err(about(dir.display()))?;
    let first_read = began.elapsed();
    let manager = ApplyManager::new(machine, ApplyConfig::new()).map_err(opening(dir))?;
    while manager.stats().machine.unfilled_chunks > 0 {
        if let Some(poison) = manager.poison() {
            return Err(about(dir.display())(poison));
        }
        thread::sleep(LOOK);
    }
    let complete = began.elapsed();
    let keys = manager.machine().len().map_err(about(dir.display()))?;
    let rss_anon_bytes = rss_anon_bytes()? - before;
    Ok(Opened {
        first_read_ms: milliseconds(first_read),
        complete_ms: milliseconds(complete),
        keys,
        rss_anon_bytes,
    })
}

impl Opened {
    pub(super) fn print(&self, json: bool, out: &mut dyn Write) -> Outcome {
        if json {
            return line(out, self);
        }
        let Self { first_read_ms, complete_ms, keys, rss_anon_bytes } = self;
        writeln!(
            out,
            "first read after {first_read_ms} ms, all {keys} keys after {complete_ms} ms"
        )?;
        Ok(writeln!(out, "{rss_anon_bytes} bytes of anonymous memory taken")?)
    }
}

/// Resident anonymous memory of this process in bytes; 0 where the system does not say.
fn rss_anon_bytes() -> Outcome<f64> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: Option<f64> = found
        .map(|text| text.trim().trim_end_matches("kB").trim().parse())
        .transpose()
        .map_err(about("/proc/self/status"))?;
    Ok(kib.unwrap_or(0.0) * 1024.0)
}
