//! Every row of sprag with its two ratios: those behind a peer first.

use std::fmt::Write as _;

use anyhow::Result;

use super::escape;
use crate::report::{Role, Row, figure};

pub(super) fn table(out: &mut String, rows: &[Row]) -> Result<()> {
    let mut ours: Vec<&Row> = rows.iter().filter(|row| row.role == Role::Sprag).collect();
    // Rows without a peer come last.
    let order = |row: &Row| row.ratio_to_best_peer.unwrap_or(f64::INFINITY);
    ours.sort_by(|a, b| order(a).total_cmp(&order(b)));
    let compared: Vec<f64> = ours.iter().filter_map(|row| row.ratio_to_best_peer).collect();
    let behind = compared.iter().filter(|ratio| **ratio < 1.0).count();
    write!(
        out,
        "<h2>Ratios, losses first</h2><p><strong>In {behind} of {} rows a peer is ahead of \
         sprag.</strong> To the best peer: below 1, the peer is ahead; above 1, sprag is. To the \
         limit: 1 is the bare work.</p><div class=\"wide\"><table><thead><tr>\
         <th>to the best peer</th><th>to the limit</th><th>group</th><th>case</th><th>subject</th>\
         <th>median</th><th>range</th><th>best peer</th></tr></thead><tbody>",
        compared.len(),
    )?;
    for row in ours {
        let best = row.ratio_to_best_peer.and_then(|_| best_peer(rows, row));
        let mark = match row.ratio_to_best_peer {
            Some(ratio) if ratio < 1.0 => "loses",
            Some(_) => "wins",
            None => "",
        };
        let ratio = |ratio: Option<f64>| ratio.map_or("-".to_owned(), figure);
        write!(
            out,
            "<tr class=\"{mark}\"><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{} {}</td><td>{} to {}</td><td>{}</td></tr>",
            ratio(row.ratio_to_best_peer),
            ratio(row.ratio_to_limit),
            escape(&row.group),
            escape(&row.case),
            escape(&row.subject),
            figure(row.median),
            row.unit.name(),
            figure(row.low),
            figure(row.high),
            best.map_or_else(
                || format!("<small>{}</small>", escape(row.why.as_deref().unwrap_or_default())),
                |best| format!("{} ({})", escape(&best.subject), figure(best.median)),
            ),
        )?;
    }
    out.push_str("</tbody></table></div>");
    Ok(())
}

fn best_peer<'a>(rows: &'a [Row], of: &Row) -> Option<&'a Row> {
    let same_case = rows.iter().filter(|row| row.group == of.group && row.case == of.case);
    let peers = same_case.filter(|row| row.role == Role::Peer && row.ratio_to_best_peer.is_some());
    peers.min_by(|a, b| a.median.total_cmp(&b.median))
}
