//! The bodies of the fuzz targets in `fuzz/`, as plain functions, so that each finding is also a
//! test on the stable toolchain.
//!
//! Each takes any bytes, and panics if a promise does not hold. `docs/testing.md` says what each
//! one compares with.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "an oracle: what does not hold is a panic"
)]

mod bases;
mod engine;
mod files;
mod frame;
mod import;
mod input;
mod model;
mod mutate;
mod plain_snapshot;
mod recovery;
mod seeds;
mod slots;
mod snapshot;
#[cfg(test)]
mod tests;

pub use self::engine::engine;
pub use self::frame::frame;
pub use self::import::import;
pub use self::recovery::recovery;
pub use self::seeds::{Seed, seeds};
pub use self::slots::slots;
pub use self::snapshot::snapshot;
