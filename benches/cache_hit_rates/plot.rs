//! The curves as an SVG.

use std::fmt::Write;

use super::Curves;

const COLUMNS: usize = 2;
const PANEL: (f64, f64) = (470.0, 280.0);
/// Margins for the numbers of the axes around a panel's curves.
const MARGIN: (f64, f64, f64, f64) = (46.0, 34.0, 14.0, 40.0);
const LEGEND_HEIGHT: f64 = 36.0;
const COLORS: [(&str, &str, &str); 3] = [
    ("best that any cache can do", "#888888", "5 4"),
    ("read cache", "#0b62a4", ""),
    ("plain LRU", "#d9730d", ""),
];

pub(crate) fn draw(all: &[Curves], sizes: &[f64]) -> String {
    let rows = all.len().div_ceil(COLUMNS);
    let (width, height) = (PANEL.0 * COLUMNS as f64, PANEL.1 * rows as f64 + LEGEND_HEIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (at, (name, color, dash)) in COLORS.iter().enumerate() {
        let x = MARGIN.0 + 220.0 * at as f64;
        line(&mut svg, &[(x, 20.0), (x + 30.0, 20.0)], color, dash);
        text(&mut svg, (x + 38.0, 24.0), "start", name);
    }
    for (at, curves) in all.iter().enumerate() {
        let corner =
            (PANEL.0 * (at % COLUMNS) as f64, PANEL.1 * (at / COLUMNS) as f64 + LEGEND_HEIGHT);
        panel(&mut svg, corner, curves, sizes);
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, corner: (f64, f64), curves: &Curves, sizes: &[f64]) {
    let (left, top, right, bottom) = MARGIN;
    let (width, height) = (PANEL.0 - left - right, PANEL.1 - top - bottom);
    let (first, last) = (sizes[0].ln(), sizes[sizes.len() - 1].ln());
    let x = |size: f64| corner.0 + left + (size.ln() - first) / (last - first) * width;
    let y = |rate: f64| corner.1 + top + (1.0 - rate / 100.0) * height;
    text(svg, (corner.0 + left, corner.1 + top - 10.0), "start", &curves.name);
    for rate in [0.0, 25.0, 50.0, 75.0, 100.0] {
        line(svg, &[(x(sizes[0]), y(rate)), (x(sizes[sizes.len() - 1]), y(rate))], "#dddddd", "");
        text(svg, (corner.0 + left - 6.0, y(rate) + 4.0), "end", &format!("{rate}%"));
    }
    for size in sizes {
        text(svg, (x(*size), y(0.0) + 16.0), "middle", &format!("{size}"));
    }
    let middle = corner.0 + left + width / 2.0;
    text(svg, (middle, y(0.0) + 32.0), "middle", "cache size, % of the keys that are read");
    for (rates, (_, color, dash)) in [&curves.best, &curves.ours, &curves.lru].iter().zip(COLORS) {
        let points: Vec<_> =
            sizes.iter().zip(*rates).map(|(size, rate)| (x(*size), y(*rate))).collect();
        line(svg, &points, color, dash);
    }
}

fn line(svg: &mut String, points: &[(f64, f64)], color: &str, dash: &str) {
    let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let points = points.join(" ");
    let dash =
        if dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dash}\"") };
    writeln!(
        svg,
        "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"{dash}/>"
    )
    .unwrap();
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>")
        .unwrap();
}
