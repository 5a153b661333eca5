//! The groups: each answers the questions of one kind of user.

mod durable;
mod get;
mod hand_off;
mod memory;
mod one_call;
mod open;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::report::Row;

/// Amount of work of a run, and its directory.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Preloaded keys.
    pub(crate) keys: usize,
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) dir: PathBuf,
}

/// One group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Settings) -> Result<Vec<Row>>,
}

/// Every group, in the order of a full run.
pub(crate) fn all() -> [Group; 6] {
    [
        Group { name: "memory", about: "updates of a state in memory", run: memory::run },
        Group {
            name: "hand-off",
            about: "entries to another thread, applied there",
            run: hand_off::run,
        },
        Group { name: "one-call", about: "one call in flight, its latency", run: one_call::run },
        Group { name: "durable", about: "entries on stable storage", run: durable::run },
        Group { name: "get", about: "reads, hit and miss", run: get::run },
        Group { name: "open", about: "opening a state, and its size", run: open::run },
    ]
}

/// More than any call of a benchmark may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(300);
/// Length of a value, unless a case says otherwise.
pub(crate) const VALUE_BYTES: usize = 100;
