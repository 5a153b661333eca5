//! The targets of the groups that ran, those that were missed first.

use std::fmt::Write as _;

use anyhow::Result;

use super::escape;
use crate::targets::{Outcome, Verdict};

pub(super) fn table(out: &mut String, targets: &[Outcome]) -> Result<()> {
    if targets.is_empty() {
        return Ok(());
    }
    let mut sorted: Vec<&Outcome> = targets.iter().collect();
    sorted.sort_by_key(|outcome| outcome.verdict);
    let missed = targets.iter().filter(|outcome| outcome.verdict == Verdict::Missed).count();
    write!(
        out,
        "<h2>Targets, those that were missed first</h2><p><strong>{missed} of {} targets are \
         missed.</strong> <i>x</i> is the speed of sprag to that of the other where the bound is \
         <i>&gt;=</i>, and its time or size to the other's where it is <i>&lt;=</i>.</p>\
         <div class=\"wide\"><table class=\"targets\"><thead><tr><th>verdict</th><th>measured</th>\
         <th>wanted</th><th>target</th><th>held against</th><th>case</th><th>subject</th></tr>\
         </thead><tbody>",
        targets.len(),
    )?;
    for outcome in sorted {
        let class = match outcome.verdict {
            Verdict::Missed => "loses",
            Verdict::FloorReached => "floor",
            Verdict::Reached => "wins",
        };
        write!(
            out,
            "<tr class=\"{class}\"><td>{}</td><td>{}</td><td>{}</td><td>{}. {}</td><td>{}</td>\
             <td>{}: {}</td><td>{}</td></tr>",
            outcome.verdict,
            outcome.text(outcome.measured),
            escape(&outcome.wanted()),
            outcome.target_row,
            escape(&outcome.says),
            escape(outcome.against.as_deref().unwrap_or("-")),
            outcome.group,
            escape(&outcome.case),
            escape(&outcome.subject),
        )?;
    }
    out.push_str("</tbody></table></div>");
    Ok(())
}
