//! The `pages` subcommand: writes the tables of a run into pages, each between the line that names
//! it and the line that ends it.
//!
//! A page has `<!-- run: NAME -->`, and later `<!-- end of run -->`. What stands between them is
//! replaced. So the figures of a page are those of one run, and the text around them stays.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::groups;
use crate::report::{Report, Role, Row, figure, rate};
use crate::targets::{Outcome, Verdict};

/// A run, and the pages that show it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The JSON that `compare --json` wrote.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The pages to write anew.
    #[arg(value_name = "PAGE", required = true)]
    pages: Vec<PathBuf>,
}

const BEGIN: &str = "<!-- run: ";
const BEGIN_END: &str = " -->";
const END: &str = "<!-- end of run -->";

pub(crate) fn run(options: &Options) -> Result<()> {
    let text = fs::read_to_string(&options.from)
        .with_context(|| format!("reading {}", options.from.display()))?;
    let report: Report = serde_json::from_str(&text)?;
    for page in &options.pages {
        let before =
            fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
        let after = filled(&before, &report).with_context(|| format!("{}", page.display()))?;
        fs::write(page, after).with_context(|| format!("writing {}", page.display()))?;
    }
    Ok(())
}

/// The page with the tables of this run.
fn filled(page: &str, report: &Report) -> Result<String> {
    let mut out = String::new();
    let mut rest = page;
    while let Some((before, from)) = rest.split_once(BEGIN) {
        let (name, from) = from.split_once(BEGIN_END).context("a marker does not end")?;
        let (_, after) = from.split_once(END).with_context(|| format!("{name} does not end"))?;
        write!(out, "{before}{BEGIN}{name}{BEGIN_END}\n\n{}\n{END}", table(name, report)?)?;
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// The table of this name; ends with a line break.
fn table(name: &str, report: &Report) -> Result<String> {
    match name.split_once(' ').unwrap_or((name, "")) {
        ("machine", "") => Ok(machine(report)),
        ("losses", "") => losses(report),
        ("missed", "") => targets(report, |outcome| outcome.verdict != Verdict::Reached),
        ("targets", "") => targets(report, |_| true),
        ("group", group) => of_group(report, group),
        ("readme", "") => readme(report),
        ("options", "") => options(report),
        _ => bail!("there is no table {name:?}"),
    }
}

fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let quick =
        if report.quick { " A quick run: its figures are not for publication." } else { "" };
    format!(
        "The run of {}: {} cores of {}, {} GiB, {}, disk {};\ncommit `{}`, `{}`.{quick}\n",
        machine.date,
        machine.cores,
        machine.processor,
        machine.memory_gib,
        machine.kernel,
        machine.disk,
        machine.commit,
        machine.compiler,
    )
}

/// The figure of a row, with its unit; a throughput as such.
fn cell(row: &Row) -> String {
    match row.unit.per_second(row.median) {
        Some(per_second) => rate(per_second),
        None => format!("{} {}", figure(row.median), row.unit.name()),
    }
}

fn range(row: &Row) -> String {
    match (row.unit.per_second(row.high), row.unit.per_second(row.low)) {
        (Some(low), Some(high)) => format!("{} to {}", rate(low), rate(high)),
        _ => format!("{} to {}", figure(row.low), figure(row.high)),
    }
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"))
}

/// The best row of a role in the case of a row, of those that do the same.
fn best<'a>(report: &'a Report, of: &Row, role: Role) -> Option<&'a Row> {
    let same = report.rows.iter().filter(|row| {
        row.role == role
            && row.group == of.group
            && row.case == of.case
            && (row.ratio_to_limit.is_some() || row.ratio_to_best_peer.is_some())
    });
    same.min_by(|a, b| a.median.total_cmp(&b.median))
}

/// The rows of sprag, those furthest behind a peer first, then those furthest behind the limit.
fn ours(report: &Report, chosen: impl Fn(&Row) -> bool) -> Vec<&Row> {
    let mut rows: Vec<&Row> =
        report.rows.iter().filter(|row| row.role == Role::Sprag && chosen(row)).collect();
    let order = |row: &Row| {
        let far = f64::INFINITY;
        let behind = row.ratio_to_best_peer.filter(|ratio| *ratio < 1.0);
        (behind.unwrap_or(far), row.ratio_to_limit.or(row.ratio_to_best_peer).unwrap_or(far))
    };
    rows.sort_by(|a, b| {
        let (a, b) = (order(a), order(b));
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    rows
}

/// Every row in which a peer that does the same is ahead.
fn losses(report: &Report) -> Result<String> {
    let is_behind = |row: &Row| row.ratio_to_best_peer.is_some_and(|ratio| ratio < 1.0);
    let rows = ours(report, is_behind);
    if rows.is_empty() {
        return Ok("No peer is ahead in this run.\n".to_owned());
    }
    let mut out = "| group, case | sprag | figure | ahead of it | ratio |\n|---|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        let peer = best(report, row, Role::Peer).context("a ratio to a peer that is not there")?;
        writeln!(
            out,
            "| `{}`: {} | {} | {} | {}, {} | {} |",
            row.group,
            row.case,
            row.subject,
            cell(row),
            peer.subject,
            cell(peer),
            ratio(row.ratio_to_best_peer),
        )?;
    }
    Ok(out)
}

fn targets(report: &Report, chosen: impl Fn(&Outcome) -> bool) -> Result<String> {
    let mut outcomes: Vec<&Outcome> =
        report.targets.iter().filter(|outcome| chosen(outcome)).collect();
    outcomes.sort_by_key(|outcome| outcome.verdict);
    let mut out = "| question | target | measured | wanted | verdict |\n\
                   |---|---|---|---|---|\n"
        .to_owned();
    for outcome in outcomes {
        writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            outcome.target_row,
            outcome.says,
            outcome.text(outcome.measured),
            outcome.wanted(),
            outcome.verdict,
        )?;
    }
    Ok(out)
}

/// Targets of the short table, by name.
const SHORT: [&str; 11] = [
    "get-with-memory",
    "memory-synchronous",
    "hand-off-rate",
    "one-call-inline-p50",
    "durable-one-p50",
    "durable-128-100",
    "durable-1024-fjall",
    "flat-out-compacting",
    "get-with-durable",
    "snapshot-idle",
    "open-first-read",
];

/// The figures behind a few of the targets.
fn readme(report: &Report) -> Result<String> {
    let mut out = "| measure | sprag | held against | ratio |\n|---|---|---|---|\n".to_owned();
    for outcome in SHORT.iter().filter_map(|name| report.targets.iter().find(|it| it.name == *name))
    {
        let row = |subject: &str| {
            let same = |row: &&Row| row.group == outcome.group && row.case == outcome.case;
            report.rows.iter().filter(same).find(|row| row.subject == subject)
        };
        let ours = row(&outcome.subject).context("a target without its row")?;
        let other = outcome.against.as_deref().and_then(row);
        let held =
            other.map_or(String::new(), |other| format!("{}, {}", other.subject, cell(other)));
        let speed = other.map(|other| other.median / ours.median);
        writeln!(out, "| {} | {} | {held} | {} |", outcome.says, cell(ours), ratio(speed))?;
    }
    Ok(out)
}

/// Every row of sprag in a group, with the bare work and the best peer beside it.
fn of_group(report: &Report, name: &str) -> Result<String> {
    if !groups::ALL.iter().any(|group| group.name == name) {
        bail!("there is no group {name:?}");
    }
    let rows = ours(report, |row| row.group == name);
    if rows.is_empty() {
        return Ok("The run did not measure this group.\n".to_owned());
    }
    let mut out = "| case | sprag | figure (range) | bare work | ratio | best peer | ratio |\n\
                   |---|---|---|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        let other = |role: Role, ratio: Option<f64>| {
            let found = ratio.and_then(|_| best(report, row, role));
            found.map_or(String::new(), |other| format!("{}, {}", other.subject, cell(other)))
        };
        writeln!(
            out,
            "| {} | {} | {} ({}) | {} | {} | {} | {} |",
            row.case,
            row.subject,
            cell(row),
            range(row),
            other(Role::Limit, row.ratio_to_limit),
            ratio(row.ratio_to_limit),
            other(Role::Peer, row.ratio_to_best_peer),
            ratio(row.ratio_to_best_peer),
        )?;
    }
    Ok(out)
}

/// The rows of the group `options`, in the order of the run.
fn options(report: &Report) -> Result<String> {
    let rows = report.rows.iter().filter(|row| row.group == "options");
    let rows: Vec<&Row> = rows.filter(|row| row.role == Role::Sprag).collect();
    if rows.is_empty() {
        return Ok("The run did not measure the options.\n".to_owned());
    }
    let mut out = "| option, figure | value | figure (range) | speed to the default |\n\
                   |---|---|---|---|\n"
        .to_owned();
    for row in rows {
        writeln!(
            out,
            "| {} | {} | {} ({}) | {} |",
            row.case,
            row.subject,
            cell(row),
            range(row),
            ratio(row.ratio_to_limit)
        )?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::machine::Machine;
    use crate::report::Unit;

    fn report() -> Report {
        let row = |case: &str, subject: &str, role, median: f64| {
            let name = ("memory", case, subject);
            Row::new(name, role, Unit::NanosecondsEach, &mut [median])
        };
        let mut rows = Vec::new();
        for (case, ours) in [("won", 10.0), ("lost", 40.0)] {
            let mut of_case = vec![
                row(case, "bare", Role::Limit, 8.0),
                row(case, "sprag", Role::Sprag, ours),
                row(case, "other", Role::Peer, 20.0),
            ];
            Row::compare(&mut of_case);
            rows.append(&mut of_case);
        }
        let machine = Machine::here(std::path::Path::new("."));
        Report { machine, quick: false, targets: Vec::new(), rows }
    }

    #[test]
    fn the_tables_of_a_page_are_replaced_and_its_text_stays() {
        let page = "before\n<!-- run: group memory -->old<!-- end of run -->\nafter\n";
        let once = filled(page, &report()).unwrap();
        assert!(once.starts_with("before\n<!-- run: group memory -->\n\n| case |"), "{once}");
        assert!(once.ends_with("<!-- end of run -->\nafter\n") && !once.contains("old"));
        assert_eq!(filled(&once, &report()).unwrap(), once);
        let (lost, won) = (once.find("| lost |").unwrap(), once.find("| won |").unwrap());
        assert!(lost < won, "losses first: {once}");
        assert!(once.contains("| 25.0 M/s (25.0 M/s to 25.0 M/s) | bare, 125 M/s | 0.20 |"));
    }

    #[test]
    fn the_losses_are_the_rows_in_which_a_peer_is_ahead() {
        let text = losses(&report()).unwrap();
        assert!(text.contains("other, 50.0 M/s | 0.50 |") && !text.contains("won"), "{text}");
    }

    #[test]
    fn a_marker_that_names_no_table_is_refused() {
        for page in ["<!-- run: nothing --><!-- end of run -->", "<!-- run: losses -->"] {
            assert!(filled(page, &report()).is_err(), "{page}");
        }
    }

    #[test]
    fn a_report_reads_back_from_its_json() {
        let mut report = report();
        report.rows[0].syncs = f64::NAN;
        let text = serde_json::to_string(&report).unwrap();
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }
}
