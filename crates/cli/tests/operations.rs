//! Tests that every command line of `docs/operating.md` does what the page says.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{filled, flip, fresh, succeed};

const PAGE: &str = include_str!("../../../docs/operating.md");
const ALERTS: &str = include_str!("../../../docs/metrics/alerts.yml");
/// Marks a block whose directory is damaged, and whose commands may end with 1.
const DAMAGED: &str = "<!-- run on a damaged directory -->";

/// A block of commands.
struct Block {
    commands: String,
    is_damaged: bool,
}

fn blocks() -> Vec<Block> {
    let (mut found, mut is_damaged) = (Vec::new(), false);
    let mut lines = PAGE.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line == "```sh" {
            let commands: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push(Block { commands: commands.join("\n"), is_damaged });
        }
        is_damaged = line == DAMAGED;
    }
    assert!(found.len() >= 10, "the page has {} blocks of commands", found.len());
    found
}

/// Makes the directory that the page calls `data`.
fn make_data(data: &Path, is_damaged: bool) {
    filled(data, 60);
    if is_damaged {
        let inspection = sprag::inspect::inspect(data).unwrap();
        let segment = &inspection.segments[0];
        flip(&data.join(&segment.file), segment.used_bytes / 2);
    }
}

#[test]
fn every_command_line_of_the_page_runs() {
    let binaries = Path::new(env!("CARGO_BIN_EXE_sprag")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    for Block { commands, is_damaged } in blocks() {
        let (_temporary, data) = fresh();
        make_data(&data, is_damaged);
        // A command that reads damage ends with 1; a wrong call would end with 2.
        let statuses = if is_damaged { "trap '[ $? = 1 ] || exit 9' ERR" } else { "set -e" };
        let script = format!("set -u -o pipefail\n{statuses}\n{commands}\n");
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(data.parent().unwrap()).env("PATH", &path);
        let output = bash.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let status = output.status.code().unwrap();
        assert!(status == 0 || is_damaged && status == 1, "{status}: {said}\n{commands}");
        if commands.contains("--yes") {
            assert_eq!(status, 0, "it is whole when it is repaired: {said}");
        }
    }
}

#[test]
fn commands_within_the_text_are_commands() {
    let mut seen = 0;
    for words in PAGE.split('`').skip(1).step_by(2).filter(|text| text.starts_with("sprag ")) {
        let words: Vec<_> = words.split_whitespace().skip(1).collect();
        let (options, words): (Vec<_>, Vec<_>) =
            words.into_iter().partition(|word| word.starts_with("--"));
        let Some(command) = words.first() else { continue };
        let help = String::from_utf8(succeed([command, "--help"])).unwrap();
        for option in options {
            assert!(help.contains(option), "{option} of {command}");
        }
        seen += 1;
    }
    assert!(seen >= 3, "{seen} commands");
}

#[test]
fn every_metric_that_the_page_names_is_one_and_every_alert_has_a_row() {
    let (_, table) = PAGE.split_once("### Every metric").unwrap();
    let metrics: BTreeSet<_> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `sprag_"))
        .filter_map(|rest| rest.split('`').next())
        .collect();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut seen = 0;
    for rest in PAGE.split("`sprag_").skip(1) {
        let name = rest.split(|c| !is_part(c)).next().unwrap();
        assert!(metrics.contains(name), "sprag_{name} is not in the table of metrics");
        seen += 1;
    }
    assert!(seen >= 15, "{seen} metrics");
    let alerts = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let missing: Vec<_> = alerts.filter(|name| !PAGE.contains(&format!("| `{name}` |"))).collect();
    assert!(missing.is_empty() && ALERTS.contains("- alert: "), "no row: {missing:?}");
    for reason in sprag::error::Poison::REASONS {
        assert!(PAGE.contains(&format!("`{reason}`")), "{reason} has no row");
    }
}
