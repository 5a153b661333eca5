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
mod latency;
mod machine;
mod measure;
mod open_loop;
mod pages;
mod report;
mod subjects;
mod syncs;
mod targets;
mod workload;

use std::path::PathBuf;

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
    /// Writes the tables of a run into pages, between the lines that mark their places.
    Pages(pages::Options),
    /// Puts so many keys into one subject, and prints the bytes of memory that it took.
    #[command(hide = true)]
    Held { subject: String, keys: usize, dir: PathBuf },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Compare(options) => compare::run(&options),
        Command::Pages(options) => pages::run(&options),
        Command::Held { subject, keys, dir } => {
            println!("{}", groups::held(&subject, keys, &dir)?);
            Ok(())
        }
    }
}
