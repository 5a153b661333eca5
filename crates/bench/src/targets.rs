//! Targets: how near the figures of a run come to what they are meant to reach.
//!
//! A target picks a row, and what that row is held against. The program computes the ratio and the
//! verdict, so no target is judged by hand.

mod list;

use std::fmt::{self, Write as _};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use self::list::all;
use crate::report::{Role, Row, figure};

/// The way to one row, or to the best of several. In each text one `*` may stand for anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pick {
    group: &'static str,
    case: &'static str,
    subject: &'static str,
}

/// Measure that a row is held against.
#[derive(Debug, Clone, Copy)]
enum Held {
    /// Other's median by the row's median, at least the goal: above 1 the row is faster.
    AtLeast(Pick),
    /// The row's median by the other's, at most the goal.
    AtMost(Pick),
    /// The row's median less the other's, at most the goal in the row's unit.
    Above(Pick),
    /// The row's median, at most the goal in its unit.
    Alone,
    /// The row as a throughput: entries a second, at least the goal.
    Rate,
    /// Growth of the row from a small size by the growth of the other, at most the goal.
    Growth { small: Pick, other: Pick, other_small: Pick },
}

/// One target.
#[derive(Debug)]
pub(crate) struct Target {
    /// Number of the question that it belongs to.
    row: u8,
    /// Name that stays the same from run to run.
    name: &'static str,
    /// The target in words.
    says: &'static str,
    of: Pick,
    held: Held,
    goal: f64,
    /// Figure that must be reached at least; the goal itself if there is none.
    floor: Option<f64>,
}

/// Outcome of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Verdict {
    #[serde(rename = "missed")]
    Missed,
    #[serde(rename = "floor reached")]
    FloorReached,
    #[serde(rename = "reached")]
    Reached,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missed => "missed",
            Self::FloorReached => "floor reached",
            Self::Reached => "reached",
        })
    }
}

/// One target, and what a run has of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) target_row: u8,
    pub(crate) name: String,
    pub(crate) says: String,
    pub(crate) group: String,
    pub(crate) case: String,
    pub(crate) subject: String,
    /// Subject of the row that it is held against; `None` if it stands alone.
    pub(crate) against: Option<String>,
    /// The ratio, the difference or the figure that is compared with the goal.
    pub(crate) measured: f64,
    /// Unit of `measured`, `goal` and `floor`.
    pub(crate) unit: String,
    /// Whether `measured` must not be above the goal; else it must not be below.
    pub(crate) at_most: bool,
    pub(crate) goal: f64,
    pub(crate) floor: Option<f64>,
    pub(crate) verdict: Verdict,
}

impl Outcome {
    /// A figure of this target with its unit: `0.85 x`, `at most 3000 ns`.
    pub(crate) fn text(&self, value: f64) -> String {
        match &*self.unit {
            "/s" => format!("{} M/s", figure(value / 1e6)),
            unit => format!("{} {unit}", figure(value)),
        }
    }

    /// The goal, and the floor behind it.
    pub(crate) fn wanted(&self) -> String {
        let bound = if self.at_most { "<=" } else { ">=" };
        let mut text = format!("{bound} {}", self.text(self.goal));
        if let Some(floor) = self.floor {
            // Writing to a string does not fail.
            let _ = write!(text, " (floor {})", self.text(floor));
        }
        text
    }
}

/// Whether a text fits a pattern in which one `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, end)) => {
            text.len() >= start.len() + end.len() && text.starts_with(start) && text.ends_with(end)
        }
    }
}

impl Pick {
    const fn new(group: &'static str, case: &'static str, subject: &'static str) -> Self {
        Self { group, case, subject }
    }

    /// The row with the best median of those that fit.
    fn of(self, rows: &[Row]) -> Option<&Row> {
        let fitting = rows.iter().filter(|row| {
            row.group == self.group
                && fits(self.case, &row.case)
                && fits(self.subject, &row.subject)
        });
        fitting.min_by(|a, b| a.median.total_cmp(&b.median))
    }
}

impl Target {
    /// The outcome in a run; `None` if the run has no rows for it.
    fn of(&self, rows: &[Row]) -> Option<Outcome> {
        let row = self.of.of(rows)?;
        let times = |measured, other: &Row, at_most| {
            Some((measured, "x".to_owned(), at_most, Some(other.subject.clone())))
        };
        let (measured, unit, at_most, against) = match self.held {
            Held::AtLeast(pick) => {
                let other = pick.of(rows)?;
                times(other.median / row.median, other, false)
            }
            Held::AtMost(pick) => {
                let other = pick.of(rows)?;
                times(row.median / other.median, other, true)
            }
            Held::Growth { small, other, other_small } => {
                let other = other.of(rows)?;
                let ours = row.median / small.of(rows)?.median;
                times(ours / (other.median / other_small.of(rows)?.median), other, true)
            }
            Held::Above(pick) => {
                let other = pick.of(rows)?;
                let unit = row.unit.name().to_owned();
                Some((row.median - other.median, unit, true, Some(other.subject.clone())))
            }
            Held::Alone => Some((row.median, row.unit.name().to_owned(), true, None)),
            Held::Rate => Some((row.unit.per_second(row.median)?, "/s".to_owned(), false, None)),
        }?;
        let reaches = |bound: f64| if at_most { measured <= bound } else { measured >= bound };
        let verdict = if reaches(self.goal) {
            Verdict::Reached
        } else if self.floor.is_some_and(reaches) {
            Verdict::FloorReached
        } else {
            Verdict::Missed
        };
        Some(Outcome {
            target_row: self.row,
            name: self.name.to_owned(),
            says: self.says.to_owned(),
            group: row.group.clone(),
            case: row.case.clone(),
            subject: row.subject.clone(),
            against,
            measured,
            unit,
            at_most,
            goal: self.goal,
            floor: self.floor,
            verdict,
        })
    }
}

/// The outcome of each target whose groups ran, in the order of the list.
///
/// # Errors
///
/// Fails if a group ran and has no row for one of its targets: a case was renamed.
pub(crate) fn outcomes(rows: &[Row]) -> Result<Vec<Outcome>> {
    let ran = |group: &str| rows.iter().any(|row| row.group == group && row.role == Role::Sprag);
    let of_run = all().filter(|target| ran(target.of.group));
    let mut outcomes = Vec::new();
    for target in of_run {
        match (target.of(rows), target.held) {
            (Some(outcome), _) => outcomes.push(outcome),
            // A run can leave large sizes out.
            (None, Held::Growth { .. }) => {}
            (None, _) => bail!("target {} has no rows", target.name),
        }
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;

    use super::*;
    use crate::report::Unit;

    fn row(case: &str, subject: &str, role: Role, median: f64) -> Row {
        Row::new(("g", case, subject), role, Unit::NanosecondsEach, &mut [median])
    }

    fn target(held: Held, goal: f64, floor: Option<f64>) -> Target {
        let of = Pick::new("g", "now", "sprag*");
        Target { row: 1, name: "n", says: "s", of, held, goal, floor }
    }

    fn rows() -> Vec<Row> {
        vec![
            row("now", "limit", Role::Limit, 100.0),
            row("now", "sprag, slow", Role::Sprag, 900.0),
            row("now", "sprag, fast", Role::Sprag, 200.0),
            row("small", "limit", Role::Limit, 50.0),
            row("small", "sprag, fast", Role::Sprag, 80.0),
        ]
    }

    const LIMIT: Pick = Pick::new("g", "now", "limit");

    #[test]
    fn a_verdict_follows_from_the_goal_and_the_floor() {
        let verdict = |held, goal, floor| target(held, goal, floor).of(&rows()).unwrap().verdict;
        // The best row that fits is taken: 100 by 200.
        assert_eq!(verdict(Held::AtLeast(LIMIT), 0.5, Some(0.4)), Verdict::Reached);
        assert_eq!(verdict(Held::AtLeast(LIMIT), 0.6, Some(0.5)), Verdict::FloorReached);
        assert_eq!(verdict(Held::AtLeast(LIMIT), 0.6, Some(0.55)), Verdict::Missed);
        assert_eq!(verdict(Held::AtLeast(LIMIT), 0.6, None), Verdict::Missed);
        assert_eq!(verdict(Held::AtMost(LIMIT), 2.0, None), Verdict::Reached);
        assert_eq!(verdict(Held::AtMost(LIMIT), 1.9, Some(2.0)), Verdict::FloorReached);
        assert_eq!(verdict(Held::Above(LIMIT), 100.0, None), Verdict::Reached);
        assert_eq!(verdict(Held::Above(LIMIT), 99.0, None), Verdict::Missed);
        assert_eq!(verdict(Held::Alone, 200.0, None), Verdict::Reached);
        assert_eq!(verdict(Held::Rate, 5e6, None), Verdict::Reached);
        assert_eq!(verdict(Held::Rate, 6e6, Some(5e6)), Verdict::FloorReached);
    }

    #[test]
    fn growth_is_held_against_the_growth_of_the_other() {
        let held = Held::Growth {
            small: Pick::new("g", "small", "sprag, fast"),
            other: LIMIT,
            other_small: Pick::new("g", "small", "limit"),
        };
        // 2.5 times against twice.
        let outcome = target(held, 1.25, None).of(&rows()).unwrap();
        assert_eq!((outcome.measured, outcome.verdict), (1.25, Verdict::Reached));
    }

    #[test]
    fn a_target_without_a_row_is_an_error_and_not_a_gap() {
        let renamed = row("renamed", "sprag", Role::Sprag, 1.0);
        let memory = Row { group: "memory".to_owned(), ..renamed };
        assert!(outcomes(&[memory]).unwrap_err().to_string().contains("has no rows"));
        assert!(outcomes(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_pattern_has_one_star() {
        assert!(fits("update, * keys", "update, 1000 keys"));
        assert!(fits("*", "") && fits("a*", "a") && !fits("a*a", "a") && !fits("a", "ab"));
    }

    #[test]
    fn names_are_unique_and_the_floor_is_the_easier_bound() {
        let names: BTreeSet<_> = all().map(|target| target.name).collect();
        assert_eq!(names.len(), all().count());
        for target in all() {
            let at_least = matches!(target.held, Held::AtLeast(_) | Held::Rate);
            if let Some(floor) = target.floor {
                assert_eq!(at_least, floor < target.goal, "{}", target.name);
            }
        }
    }
}
