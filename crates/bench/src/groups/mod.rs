//! The groups: each answers the questions of one kind of user.

mod arrivals;
mod durable;
mod get;
mod growth;
mod halves;
mod hand_off;
mod in_turn;
mod memory;
mod one_call;
mod open;
mod openraft;
mod options;
mod snapshot;
mod space;
mod stalls;
mod stops;
mod submitters;
mod workers;

#[cfg(test)]
use std::path::Path;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

pub(crate) use self::space::held;
use crate::report::Row;

/// Amount of work of a run, and its directory.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Preloaded keys.
    pub(crate) keys: usize,
    /// Most keys of the group `growth`.
    pub(crate) keys_max: usize,
    /// Divisor of the counts of a full run.
    pub(crate) divisor: usize,
    pub(crate) rounds: usize,
    pub(crate) dir: PathBuf,
    /// Stores to run in the group `openraft`; all if there are no names.
    pub(crate) stores: Vec<String>,
    /// Numbers of clients to run in the group `openraft`; those of a full run if there are none.
    pub(crate) clients: Vec<usize>,
}

impl Settings {
    /// Settings of a test: so little work that its figures mean nothing.
    #[cfg(test)]
    pub(crate) fn of_test(dir: &Path) -> Self {
        let dir = dir.to_owned();
        let (stores, clients) = (Vec::new(), Vec::new());
        Self { keys: 1_000, keys_max: 10_000_000, divisor: 5_000, rounds: 1, dir, stores, clients }
    }

    /// A count of a full run, or a part of it.
    pub(crate) fn scaled(&self, count: usize) -> usize {
        (count / self.divisor).max(1)
    }
}

/// One group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Settings) -> Result<Vec<Row>>,
}

/// Every group, in the order of a full run.
pub(crate) const ALL: &[Group] = &[
    Group { name: "memory", about: "updates of a state in memory", run: memory::run },
    Group {
        name: "hand-off",
        about: "entries to another thread, applied there",
        run: hand_off::run,
    },
    Group { name: "one-call", about: "one call in flight, its latency", run: one_call::run },
    Group { name: "durable", about: "entries on stable storage", run: durable::run },
    Group { name: "get", about: "reads, hit and miss, alone and beside updates", run: get::run },
    Group { name: "snapshot", about: "a snapshot, idle and beside updates", run: snapshot::run },
    Group { name: "open", about: "opening a state", run: open::run },
    Group { name: "space", about: "bytes on disk and in memory", run: space::run },
    Group { name: "growth", about: "updates and reads as the state grows", run: growth::run },
    Group { name: "workers", about: "one and two workers, by work a command", run: workers::run },
    Group {
        name: "submitters",
        about: "threads that propose at once, all of them together",
        run: submitters::run,
    },
    Group { name: "arrivals", about: "latency at a fixed rate, open loop", run: arrivals::run },
    Group { name: "stalls", about: "longest waits beside other work", run: stalls::run },
    Group { name: "options", about: "options beside the default engine", run: options::run },
    Group {
        name: "openraft",
        about: "three nodes of openraft 0.10, clients that put",
        run: openraft::run,
    },
];

/// Longest time that any call of a benchmark may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(300);
/// Length of a value, unless a case says otherwise.
pub(crate) const VALUE_BYTES: usize = 100;

/// Nanoseconds since `started` for each of `count`.
#[allow(clippy::cast_precision_loss, reason = "a count of entries is far below 2^53")]
pub(crate) fn each(started: Instant, count: usize) -> f64 {
    started.elapsed().as_nanos() as f64 / count as f64
}

pub(crate) fn milliseconds(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}
