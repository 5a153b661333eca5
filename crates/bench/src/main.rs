//! Measures sprag beside what its users could pick instead: one process, interleaved rounds,
//! medians and ranges.
//!
//! `compare` runs groups of cases. A case names one question ("durable, 128 entries a call"). Its
//! subjects are the bare limit, sprag, and the peers. Each round runs every subject once, in an
//! order that rotates.
#![allow(clippy::expect_used, reason = "a benchmark stops where its own work is impossible")]

mod compare;
mod groups;
mod html;
mod machine;
mod measure;
mod report;
mod subjects;
mod syncs;
mod workload;

use anyhow::Result;
use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

/// One allocator for all subjects.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Benchmarks that hold sprag against bare limits and peers.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs all groups, prints a table, and writes JSON and HTML where asked to.
    Compare(compare::Options),
}

fn main() -> Result<()> {
    let Command::Compare(options) = Arguments::parse().command;
    compare::run(&options)
}
