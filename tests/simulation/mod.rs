//! Tests of the engine on the simulated disk: every step in one thread, in an order that a seed
//! decides.
//!
//! A [`World`](world::World) is a disk, the engine on it, and a serial model of the log's effect.
//! Tests set a fault, let the world run until it strikes, decide what the crash leaves, open again,
//! and compare. The recovered state is the model's at exactly the recovered index, and nothing
//! promised is missing.
//!
//! `SPRAG_SIM_SEEDS=100000 cargo test --release --test engine campaign -- --nocapture` runs more
//! random lives. A failure names its seed, and `SPRAG_SIM_SEED=<seed>` with the test's name runs
//! that one alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod by_commit;
mod campaign;
mod canaries;
mod closed_directories;
mod corruption;
mod durability;
mod errors;
mod history;
mod installs;
mod interleavings;
mod older_meta;
mod power_cuts;
mod process_crashes;
mod random;
mod repeat;
mod single_sectors;
mod snapshot_crashes;
mod snapshot_damage;
mod snapshots;
mod truncations;
mod world;
mod zeros_ahead;
