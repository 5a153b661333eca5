//! One self-contained page: bars with ranges, a table of ratios with the losses first.

use std::fmt::Write as _;

use anyhow::Result;

use crate::report::{Report, Role, Row, figure};

const STYLE: &str = include_str!("style.css");

/// The page of a run.
pub(crate) fn page(report: &Report) -> Result<String> {
    let mut out = String::new();
    let machine = &report.machine;
    write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>sprag beside its peers</title><style>{STYLE}</style></head><body><main>\
         <h1>sprag beside its peers</h1><p>{} cores of {}, {} GiB, {}. sprag {} ({}), {}. \
         <code>sprag-bench {}</code>{}</p>\
         <p>Every figure is a median over interleaved rounds in one process; a thin line is the range. Less is better \
         everywhere.</p>",
        machine.cores,
        escape(&machine.processor),
        machine.memory_gib,
        escape(&machine.kernel),
        escape(&machine.sprag),
        escape(&machine.commit),
        escape(&machine.date),
        escape(&machine.command),
        if report.quick { " <strong>A quick run: not figures to publish.</strong>" } else { "" },
    )?;
    ratios(&mut out, &report.rows)?;
    let mut rest = &report.rows[..];
    let mut group = "";
    while let Some(first) = rest.first() {
        let end = rest.iter().position(|row| row.case != first.case || row.group != first.group);
        let (case, more) = rest.split_at(end.unwrap_or(rest.len()));
        rest = more;
        if first.group != group {
            group = &first.group;
            write!(out, "<h2>{}</h2>", escape(group))?;
        }
        chart(&mut out, case)?;
    }
    out.push_str("</main></body></html>\n");
    Ok(out)
}

/// Every row of ours with its two ratios: those that lose come first.
fn ratios(out: &mut String, rows: &[Row]) -> Result<()> {
    let mut ours: Vec<&Row> = rows.iter().filter(|row| row.role == Role::Sprag).collect();
    ours.sort_by(|a, b| {
        let least = |row: &Row| row.ratio_to_best_peer.unwrap_or(f64::INFINITY);
        least(a).total_cmp(&least(b))
    });
    out.push_str(
        "<h2>Ratios, losses first</h2><p>To the best peer: above 1, sprag is ahead. To the limit: 1 is the bare \
         work.</p><div class=\"wide\"><table><thead><tr><th>to the best peer</th><th>to the limit</th><th>group</th>\
         <th>case</th><th>subject</th><th>median</th></tr></thead><tbody>",
    );
    for row in ours {
        let loses = row.ratio_to_best_peer.is_some_and(|ratio| ratio < 1.0);
        let ratio =
            |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        write!(
            out,
            "<tr{}><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{} {}</td></tr>",
            if loses { " class=\"loses\"" } else { "" },
            ratio(row.ratio_to_best_peer),
            ratio(row.ratio_to_limit),
            escape(&row.group),
            escape(&row.case),
            escape(&row.subject),
            figure(row.median),
            row.unit.name(),
        )?;
    }
    out.push_str("</tbody></table></div>");
    Ok(())
}

/// One case as bars; on a logarithmic scale where the longest is far longer than the shortest.
fn chart(out: &mut String, rows: &[Row]) -> Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    let low = rows.iter().map(|row| row.low).fold(f64::INFINITY, f64::min).max(1e-3);
    let high = rows.iter().map(|row| row.high).fold(0.0, f64::max).max(low * 1.01);
    let logarithmic = high / low > 30.0;
    let share = |value: f64| match logarithmic {
        true => 4.0 + 96.0 * (value.max(low) / low).ln() / (high / low).ln(),
        false => 100.0 * value / high,
    };
    write!(
        out,
        "<section><h3>{} <small>{}{}</small></h3><dl>",
        escape(&first.case),
        first.unit.name(),
        if logarithmic { ", logarithmic" } else { "" },
    )?;
    for row in rows {
        let role = match row.role {
            Role::Limit => "limit",
            Role::Sprag => "sprag",
            Role::Peer => "peer",
        };
        write!(
            out,
            "<dt class=\"{role}\">{}</dt><dd class=\"{role}\"><span class=\"track\">\
             <span class=\"bar\" style=\"width:{:.2}%\"></span>\
             <span class=\"range\" style=\"left:{:.2}%;width:{:.2}%\"></span></span>\
             <span class=\"value\">{} <small>{} to {}</small></span>{}{}</dd>",
            escape(&row.subject),
            share(row.median),
            share(row.low),
            (share(row.high) - share(row.low)).max(0.2),
            figure(row.median),
            figure(row.low),
            figure(row.high),
            if row.syncs > 0.0 {
                format!(" <small class=\"note\">{:.0} syncs a round</small>", row.syncs)
            } else {
                String::new()
            },
            row.why.as_ref().filter(|_| row.role != Role::Sprag).map_or(
                String::new(),
                |why| format!(" <small class=\"note\">{}</small>", escape(why))
            ),
        )?;
    }
    out.push_str("</dl></section>");
    Ok(())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_shown_can_not_be_markup() {
        assert_eq!(super::escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
