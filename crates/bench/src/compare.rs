//! The `compare` subcommand: runs groups and hands the rows to the reports.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::groups::{self, Settings};
use crate::html;
use crate::machine::Machine;
use crate::report::{Report, print_table};

/// Groups to run, and files to write.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Runs fewer entries and three rounds: a look, not a figure to publish.
    #[arg(long)]
    quick: bool,
    /// Runs one group only; repeat it for more.
    #[arg(long, value_name = "GROUP")]
    only: Vec<String>,
    /// Rounds that count; one more runs first and is dropped.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Most keys of the group `growth`. 50,000,000 keys take some 15 GB of memory.
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    keys_max: usize,
    /// The directory for the files of durable cases. It must be on the disk that is measured.
    #[arg(long, value_name = "DIR", default_value = "target/compare")]
    dir: PathBuf,
    /// Writes the rows as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes one self-contained page with charts.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let all = groups::ALL;
    for name in &options.only {
        if !all.iter().any(|group| group.name == name) {
            let names: Vec<_> = all.iter().map(|group| group.name).collect();
            bail!("there is no group {name:?}; the groups are {}", names.join(", "));
        }
    }
    fs::create_dir_all(&options.dir)
        .with_context(|| format!("creating {}", options.dir.display()))?;
    let settings = Settings {
        keys: if options.quick { 100_000 } else { 1_000_000 },
        keys_max: options.keys_max,
        quick: options.quick,
        rounds: options.rounds.unwrap_or(if options.quick { 3 } else { 7 }).max(1),
        dir: options.dir.clone(),
    };
    let mut rows = Vec::new();
    for group in all {
        if options.only.is_empty() || options.only.iter().any(|name| name == group.name) {
            eprintln!("group {}: {}", group.name, group.about);
            let more = (group.run)(&settings).with_context(|| format!("group {}", group.name))?;
            print_table(&more);
            rows.extend(more);
        }
    }
    let report = Report { machine: Machine::here(&options.dir), quick: options.quick, rows };
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = &options.html {
        fs::write(path, html::page(&report)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
