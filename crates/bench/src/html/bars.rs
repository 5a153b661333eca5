//! One case as bars with ranges.

use std::fmt::Write as _;

use anyhow::Result;

use super::{class, escape};
use crate::report::{Role, Row, figure, rate};

/// Times and sizes are drawn on a logarithmic scale if the longest is this many times the shortest.
const LINEAR_MAX: f64 = 30.0;

/// Draws the rows of a case: as throughput where the unit has one.
pub(super) fn chart(out: &mut String, rows: &[&Row]) -> Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    let is_rate = first.unit.per_second(1.0).is_some();
    // A throughput is highest where the time is lowest.
    let values = |row: &Row| match row.unit.per_second(row.median) {
        Some(median) => {
            let bound = |time| row.unit.per_second(time).unwrap_or(median);
            (bound(row.high), median, bound(row.low))
        }
        None => (row.low, row.median, row.high),
    };
    let all: Vec<_> = rows.iter().map(|row| values(row)).collect();
    let low = all.iter().map(|value| value.0).fold(f64::INFINITY, f64::min).max(1e-3);
    let high = all.iter().map(|value| value.2).fold(0.0, f64::max).max(low * 1.01);
    let logarithmic = !is_rate && high / low > LINEAR_MAX;
    let share = |value: f64| match logarithmic {
        true => 4.0 + 96.0 * (value.max(low) / low).ln() / (high / low).ln(),
        false => 100.0 * value / high,
    };
    let scale = match (is_rate, logarithmic) {
        (true, _) => "entries a second, longer is better",
        (false, true) => "shorter is better, logarithmic",
        (false, false) => "shorter is better",
    };
    write!(
        out,
        "<section><h3>{} <small>{scale}</small></h3><dl class=\"bars\">",
        escape(&first.case)
    )?;
    for (row, (low, median, high)) in rows.iter().zip(all) {
        let text = |value: f64| match is_rate {
            true => rate(value),
            false => format!("{} {}", figure(value), row.unit.name()),
        };
        let class = class(row.role);
        write!(
            out,
            "<dt class=\"{class}\">{}</dt><dd class=\"{class}\"><span class=\"track\">\
             <span class=\"bar\" style=\"width:{:.2}%\"></span>\
             <span class=\"range\" style=\"left:{:.2}%;width:{:.2}%\"></span></span>\
             <span class=\"value\"><b>{}</b> <small>{} to {}</small></span>{}</dd>",
            escape(&row.subject),
            share(median),
            share(low),
            (share(high) - share(low)).max(0.2),
            text(median),
            text(low),
            text(high),
            note(row),
        )?;
    }
    out.push_str("</dl></section>");
    Ok(())
}

/// Syncs of a round, and the reason of a row that is not compared.
fn note(row: &Row) -> String {
    let mut notes = Vec::new();
    if row.syncs > 0.0 {
        notes.push(format!("{:.0} syncs a round", row.syncs));
    }
    if row.role == Role::Peer && row.ratio_to_best_peer.is_none() {
        notes.extend(row.why.clone());
    }
    match notes.is_empty() {
        true => String::new(),
        false => format!(" <small class=\"note\">{}</small>", escape(&notes.join("; "))),
    }
}
