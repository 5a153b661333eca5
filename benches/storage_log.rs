//! Our own log in the rows of `sizes` that the crates of other storages print: `-- sizes KEYS`.
#![allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a benchmark"
)]

mod storages;

use std::path::Path;

use sprag::{Durability, PersistentConfig, PersistentStateMachine};

struct Log;

impl storages::Measured for Log {
    type Machine = PersistentStateMachine;

    /// The log writer ends a group by itself, so `batch` only says how many entries a call has.
    fn open(&self, directory: &Path, _batch: usize, sync: bool) -> PersistentStateMachine {
        let durability = if sync { Durability::Sync } else { Durability::Os };
        let config = PersistentConfig::new(directory.join("state")).durability(durability);
        PersistentStateMachine::open(config).unwrap()
    }

    fn contains(machine: &PersistentStateMachine, key: &[u8]) -> bool {
        machine.contains(key).unwrap()
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("sizes") => storages::sizes(&Log, arguments[1].parse().unwrap()),
        // `cargo test --benches` runs it with other arguments.
        _ => println!("say `sizes KEYS`"),
    }
}
