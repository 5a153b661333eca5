//! One self-contained page: a table of ratios with the losses first, curves, and bars with ranges.

mod bars;
mod curves;
mod ratios;
mod targets;

use std::fmt::Write as _;

use anyhow::Result;

use crate::groups;
use crate::report::{PERCENTILE, Report, Role, Row};

const STYLE: &str = include_str!("style.css");

/// The page of a run.
pub(crate) fn page(report: &Report) -> Result<String> {
    let mut out = String::new();
    write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>sprag beside its peers</title><style>{STYLE}</style></head><body><main>\
         <h1>sprag beside its peers</h1>",
    )?;
    if report.quick {
        out.push_str("<p class=\"quick\">A quick run: its figures are not for publication.</p>");
    }
    facts(&mut out, report)?;
    targets::table(&mut out, &report.targets)?;
    ratios::table(&mut out, &report.rows)?;
    for rows in report.rows.chunk_by(|a, b| a.group == b.group) {
        group(&mut out, rows)?;
    }
    out.push_str("</main></body></html>\n");
    Ok(out)
}

fn facts(out: &mut String, report: &Report) -> Result<()> {
    let machine = &report.machine;
    let command = format!("sprag-bench {}", machine.command);
    let facts = [
        (
            "machine",
            format!("{} cores of {}, {} GiB", machine.cores, machine.processor, machine.memory_gib),
        ),
        ("kernel, disk", format!("{}; {}", machine.kernel, machine.disk)),
        ("sprag", format!("{}, commit {}, {}", machine.sprag, machine.commit, machine.date)),
        ("compiler", machine.compiler.clone()),
        ("peers", machine.peers.join(", ")),
        ("command", command),
    ];
    out.push_str("<dl class=\"facts\">");
    for (name, fact) in facts {
        write!(out, "<dt>{name}</dt><dd>{}</dd>", escape(&fact))?;
    }
    out.push_str(
        "</dl><p>Every figure is a median of interleaved rounds in one process; a thin line is the \
         range. All subjects have the same keys, values, allocator and durability. A bar of a \
         throughput is better if it is longer, and a bar of a time or a size if it is shorter. In \
         the charts with curves, lower is better.</p>",
    );
    Ok(())
}

fn group(out: &mut String, rows: &[Row]) -> Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    let about = groups::ALL.iter().find(|group| group.name == first.group);
    write!(
        out,
        "<h2 id=\"{0}\">{0} <small>{1}</small></h2>",
        escape(&first.group),
        about.map_or("", |group| group.about),
    )?;
    let mut charts: Vec<&str> = Vec::new();
    for point in rows.iter().filter_map(|row| row.point.as_ref()) {
        if !charts.contains(&&*point.chart) {
            charts.push(&point.chart);
        }
    }
    out.push_str("<div class=\"charts\">");
    for chart in charts {
        curves::chart(out, chart, rows)?;
    }
    out.push_str("</div>");
    let is_percentile =
        |row: &Row| row.point.as_ref().is_some_and(|point| point.axis == PERCENTILE);
    let (in_curves, plain): (Vec<&Row>, Vec<&Row>) =
        rows.iter().partition(|row| is_percentile(row));
    out.push_str("<div class=\"cases\">");
    for case in plain.chunk_by(|a, b| a.case == b.case) {
        bars::chart(out, case)?;
    }
    out.push_str("</div>");
    if !in_curves.is_empty() {
        out.push_str("<details><summary>The curves as bars</summary><div class=\"cases\">");
        for case in in_curves.chunk_by(|a, b| a.case == b.case) {
            bars::chart(out, case)?;
        }
        out.push_str("</div></details>");
    }
    Ok(())
}

/// Class of a row's elements.
fn class(role: Role) -> &'static str {
    match role {
        Role::Limit => "limit",
        Role::Sprag => "sprag",
        Role::Peer => "peer",
    }
}

/// The text without characters that would be markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::machine::Machine;
    use crate::report::{Point, Unit};

    fn row(case: &str, subject: &str, role: Role, unit: Unit, value: f64) -> Row {
        Row::new(("memory", case, subject), role, unit, &mut [value, value * 1.1, value * 0.9])
    }

    fn rows() -> Vec<Row> {
        let mut lost = vec![
            row("lost", "the <bare> limit", Role::Limit, Unit::NanosecondsEach, 10.0),
            row("lost", "sprag", Role::Sprag, Unit::NanosecondsEach, 40.0),
            row("lost", "other", Role::Peer, Unit::NanosecondsEach, 20.0),
        ];
        let mut won = vec![
            row("won", "sprag", Role::Sprag, Unit::Microseconds, 1.0),
            row("won", "other", Role::Peer, Unit::Microseconds, 900.0),
        ];
        Row::compare(&mut lost);
        Row::compare(&mut won);
        for (row, x) in won.iter_mut().zip([0.5, 0.5]) {
            row.point = Some(Point { chart: "waits".to_owned(), axis: PERCENTILE.to_owned(), x });
        }
        won.append(&mut lost);
        won
    }

    #[test]
    fn the_page_has_every_row_and_the_losses_before_the_wins() {
        let report = Report {
            machine: Machine::here(std::path::Path::new(".")),
            quick: true,
            targets: Vec::new(),
            rows: rows(),
        };
        let page = page(&report).unwrap();
        let (lost, won) = (page.find("<td>lost</td>").unwrap(), page.find("<td>won</td>").unwrap());
        assert!(lost < won);
        assert!(page.contains("1 of 2 rows"), "{page}");
        assert!(page.contains("25.0 M/s"), "a throughput: {page}");
        assert!(page.contains("the &lt;bare&gt; limit"));
        assert!(page.contains("<svg"));
        assert!(page.contains("not for publication"));
        // Self-contained: nothing is loaded from elsewhere.
        assert!(!page.contains("src=") && !page.contains("href=\"http"));
    }

    #[test]
    fn a_page_of_no_rows_is_a_page() {
        let report = Report {
            machine: Machine::here(std::path::Path::new(".")),
            quick: false,
            targets: Vec::new(),
            rows: Vec::new(),
        };
        assert!(page(&report).unwrap().ends_with("</html>\n"));
    }

    #[test]
    fn what_is_shown_can_not_be_markup() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
