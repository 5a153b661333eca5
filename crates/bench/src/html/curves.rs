//! Curves: percentiles, and figures that depend on a size. Both scales are logarithmic.

use std::fmt::Write as _;

use anyhow::Result;

use super::{class, escape};
use crate::report::{PERCENTILE, Role, Row, figure};

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 38.0;
/// Number of colours of peers in the style sheet.
const COLOURS: usize = 6;

/// Number of colours of sprag there.
const OURS: usize = 4;

/// Draws the rows of `chart`, one curve a subject.
pub(super) fn chart(out: &mut String, chart: &str, rows: &[Row]) -> Result<()> {
    let points = rows.iter().filter_map(|row| {
        row.point.as_ref().filter(|point| point.chart == chart).map(|point| (row, point.x))
    });
    let points: Vec<(&Row, f64)> = points.collect();
    let Some((first, _)) = points.first() else { return Ok(()) };
    let axis = first.point.as_ref().map_or("", |point| &*point.axis);
    let mut subjects: Vec<&Row> = Vec::new();
    for (row, _) in &points {
        if !subjects.iter().any(|known| known.subject == row.subject) {
            subjects.push(row);
        }
    }
    let scale = Scale::new(&points, axis);
    write!(
        out,
        "<figure><figcaption>{} <small>{}, lower is better</small></figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\">",
        escape(chart),
        first.unit.name(),
    )?;
    scale.grid(out, axis, first.unit.name())?;
    let mut legend = String::new();
    let (mut ours, mut peers) = (0, 0);
    for subject in subjects {
        let mut class = class(subject.role).to_owned();
        match subject.role {
            Role::Limit => {}
            Role::Sprag => {
                write!(class, " s{}", ours % OURS)?;
                ours += 1;
            }
            Role::Peer => {
                write!(class, " p{}", peers % COLOURS)?;
                peers += 1;
            }
        }
        let curve = points.iter().filter(|(row, _)| row.subject == subject.subject);
        let places: Vec<_> =
            curve.map(|(row, x)| (scale.x(*x), scale.y(row.median), row)).collect();
        let line: Vec<_> = places.iter().map(|(x, y, _)| format!("{x:.1},{y:.1}")).collect();
        write!(out, "<g class=\"curve {class}\"><polyline points=\"{}\"/>", line.join(" "))?;
        for (x, y, row) in places {
            write!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{}, {}: {} {}</title></circle>",
                escape(&row.subject),
                escape(&row.case),
                figure(row.median),
                row.unit.name(),
            )?;
        }
        out.push_str("</g>");
        write!(legend, "<li class=\"{class}\"><i></i>{}</li>", escape(&subject.subject))?;
    }
    write!(out, "</svg><ul class=\"legend\">{legend}</ul></figure>")?;
    Ok(())
}

/// Places of values in the picture.
struct Scale {
    /// All `x`, sorted. Those of percentiles are evenly apart.
    stops: Vec<f64>,
    is_even: bool,
    y_min: f64,
    y_max: f64,
}

impl Scale {
    fn new(points: &[(&Row, f64)], axis: &str) -> Self {
        let mut stops: Vec<f64> = points.iter().map(|(_, x)| *x).collect();
        stops.sort_by(f64::total_cmp);
        stops.dedup();
        let values = || points.iter().map(|(row, _)| row.median);
        // Whole halves of a decade, so that the curves do not touch the border.
        let y_min = values().fold(f64::INFINITY, f64::min).max(1e-3);
        let y_max = values().fold(0.0, f64::max).max(y_min * 2.0);
        Self { stops, is_even: axis == PERCENTILE, y_min: y_min / 1.3, y_max: y_max * 1.3 }
    }

    #[allow(clippy::cast_precision_loss, reason = "a number of stops is small")]
    fn x(&self, x: f64) -> f64 {
        let (first, last) = (self.stops[0], self.stops[self.stops.len() - 1]);
        let share = if self.is_even {
            let at = self.stops.iter().position(|stop| *stop >= x).unwrap_or(0);
            at as f64 / (self.stops.len() - 1).max(1) as f64
        } else if last > first {
            (x / first).ln() / (last / first).ln()
        } else {
            0.5
        };
        LEFT + 10.0 + share * (WIDTH - LEFT - RIGHT - 20.0)
    }

    fn y(&self, y: f64) -> f64 {
        let share = (y.max(self.y_min) / self.y_min).ln() / (self.y_max / self.y_min).ln();
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }

    /// Lines and labels of both axes.
    fn grid(&self, out: &mut String, axis: &str, unit: &str) -> Result<()> {
        let right = WIDTH - RIGHT;
        for tick in ticks(self.y_min, self.y_max) {
            let y = self.y(tick);
            write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                short(tick),
            )?;
        }
        for stop in &self.stops {
            let label = match (self.is_even, *stop) {
                (true, quantile) if quantile >= 1.0 => "longest".to_owned(),
                // Not rounded: 99.99 has all of its digits.
                (true, quantile) => format!("p{}", (quantile * 1e4).round() / 1e2),
                (false, count) => short(count),
            };
            write!(
                out,
                "<text class=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
                self.x(*stop),
                HEIGHT - BOTTOM + 17.0,
            )?;
        }
        write!(
            out,
            "<text class=\"soft\" x=\"4\" y=\"13\">{unit}</text>\
             <text class=\"soft middle\" x=\"{:.1}\" y=\"{:.1}\">{axis}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 5.0,
        )?;
        Ok(())
    }
}

/// Round numbers between the ends of a logarithmic scale: the decades, and parts of them if there
/// are few.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let parts: &[f64] = match high / low {
        wide if wide > 2e3 => &[1.0],
        middle if middle > 30.0 => &[1.0, 3.0],
        _ => &[1.0, 2.0, 5.0],
    };
    let mut ticks = Vec::new();
    let mut decade = 10_f64.powf(low.log10().floor());
    while decade <= high {
        ticks.extend(parts.iter().map(|part| part * decade));
        decade *= 10.0;
    }
    ticks.retain(|tick| (low..=high).contains(tick));
    ticks
}

/// A round number in few letters: 20k, 3M, 0.5.
fn short(number: f64) -> String {
    let (number, letter) = match number {
        many if many >= 999_500.0 => (many / 1e6, "M"),
        many if many >= 9_950.0 => (many / 1e3, "k"),
        few => (few, ""),
    };
    format!("{}{letter}", (number * 1e3).round() / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_within_the_scale() {
        assert_eq!(ticks(80.0, 1_500.0), [100.0, 200.0, 500.0, 1_000.0]);
        assert_eq!(ticks(0.5, 50.0), [1.0, 3.0, 10.0, 30.0]);
        assert_eq!(ticks(50.0, 2e6), [100.0, 1e3, 1e4, 1e5, 1e6]);
    }

    #[test]
    fn a_number_is_short_and_keeps_its_size() {
        let shown = [0.5, 20.0, 1_024.0, 300_000.0, 1e6, 35e6].map(short);
        assert_eq!(shown, ["0.5", "20", "1024", "300k", "1M", "35M"]);
    }
}
