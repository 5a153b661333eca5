//! The log's write paths against each other, through the whole engine: one in flight and flat out, interleaved.
//!
//! `cargo bench --bench log_io -- [ROUNDS] [MS]` prints medians over the rounds; figures are in `docs/benchmarks.md`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

use std::time::{Duration, Instant};

use sprag::{
    ApplyConfig, ApplyManager, Command, Entry, IoBackend, LeaderTag, LogId, Payload,
    PersistentConfig, PersistentStateMachine, Stage,
};

fn main() {}
