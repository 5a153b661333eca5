//! Rows: one subject's figure in one case, held against the limit and the best peer.

use serde::{Deserialize, Deserializer, Serialize};

use crate::machine::Machine;
use crate::targets::Outcome;

/// Part that a subject has in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// The same work, bare.
    Limit,
    /// This project.
    Sprag,
    /// Something that a user could pick instead.
    Peer,
}

/// The unit of a figure; less is better in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    /// Nanoseconds an entry: the inverse of a throughput.
    #[serde(rename = "ns/entry")]
    NanosecondsEach,
    /// Microseconds an entry: the inverse of a throughput.
    #[serde(rename = "us/entry")]
    MicrosecondsEach,
    /// Nanoseconds of a call or a wait.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Microseconds of a call or a wait.
    #[serde(rename = "us")]
    Microseconds,
    /// Milliseconds for the whole.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Bytes a key.
    #[serde(rename = "B/key")]
    Bytes,
    /// Mebibytes of the whole.
    #[serde(rename = "MiB")]
    Mebibytes,
    /// Bytes an entry.
    #[serde(rename = "B/entry")]
    BytesEach,
    /// A number of something.
    #[serde(rename = "a round")]
    Count,
    /// A number of something for each entry.
    #[serde(rename = "/entry")]
    CountEach,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NanosecondsEach => "ns/entry",
            Self::MicrosecondsEach => "us/entry",
            Self::Nanoseconds => "ns",
            Self::Microseconds => "us",
            Self::Milliseconds => "ms",
            Self::Bytes => "B/key",
            Self::Mebibytes => "MiB",
            Self::BytesEach => "B/entry",
            Self::Count => "a round",
            Self::CountEach => "/entry",
        }
    }

    /// Entries a second at this figure; `None` for what is not a throughput.
    pub(crate) fn per_second(self, figure: f64) -> Option<f64> {
        match self {
            Self::NanosecondsEach => Some(1e9 / figure),
            Self::MicrosecondsEach => Some(1e6 / figure),
            _ => None,
        }
    }
}

/// Place of a row in a chart of curves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Name of the chart; the rows of a group with the same name share it.
    pub(crate) chart: String,
    /// Meaning of `x`: [`PERCENTILE`], or what is counted.
    pub(crate) axis: String,
    pub(crate) x: f64,
}

/// Axis of a chart whose `x` are quantiles; 1 is the longest.
pub(crate) const PERCENTILE: &str = "percentile";

/// One line of the comparison.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) group: String,
    pub(crate) case: String,
    pub(crate) subject: String,
    pub(crate) role: Role,
    #[serde(deserialize_with = "number")]
    pub(crate) median: f64,
    pub(crate) unit: Unit,
    #[serde(deserialize_with = "number")]
    pub(crate) low: f64,
    #[serde(deserialize_with = "number")]
    pub(crate) high: f64,
    pub(crate) rounds: usize,
    /// Syncs a round that the process made for this subject.
    #[serde(deserialize_with = "number")]
    pub(crate) syncs: f64,
    /// Limit's median by this median: 1 is the limit, less is slower.
    pub(crate) ratio_to_limit: Option<f64>,
    /// Best peer's median by this median: above 1 is faster than each peer.
    pub(crate) ratio_to_best_peer: Option<f64>,
    /// Reason for a ratio that is missing.
    pub(crate) why: Option<String>,
    /// Place in a chart of curves.
    pub(crate) point: Option<Point>,
}

impl Row {
    pub(crate) fn new(
        (group, case, subject): (&str, &str, &str),
        role: Role,
        unit: Unit,
        values: &mut [f64],
    ) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(at(middle.saturating_sub(1)), at(middle)),
            _ => at(middle),
        };
        Self {
            group: group.to_owned(),
            case: case.to_owned(),
            subject: subject.to_owned(),
            role,
            median,
            unit,
            low: at(0),
            high: at(values.len().saturating_sub(1)),
            rounds: values.len(),
            syncs: 0.0,
            ratio_to_limit: None,
            ratio_to_best_peer: None,
            why: None,
            point: None,
        }
    }

    /// Fills in the ratios of rows whose subjects were run apart, and sorts the rows by case.
    pub(crate) fn compare_anew(mut rows: Vec<Self>) -> Vec<Self> {
        rows.sort_by(|a, b| a.case.cmp(&b.case));
        for case in rows.chunk_by_mut(|a, b| a.case == b.case) {
            case.iter_mut().for_each(|row| row.why = None);
            Self::compare(case);
        }
        rows
    }

    /// Fills in the ratios of the rows of one case.
    pub(crate) fn compare(rows: &mut [Self]) {
        let best = |role: Role| {
            let same = rows.iter().filter(|row| row.role == role && row.why.is_none());
            same.map(|row| row.median).min_by(f64::total_cmp)
        };
        let (limit, peer) = (best(Role::Limit), best(Role::Peer));
        let no_peer = match rows.iter().any(|row| row.role == Role::Peer) {
            true => "each peer does another thing",
            false => "no peer does this",
        };
        for row in rows.iter_mut().filter(|row| row.why.is_none()) {
            row.ratio_to_limit = limit.map(|limit| limit / row.median);
            if row.role == Role::Limit {
                row.why = Some("the bare limit".to_owned());
                continue;
            }
            row.ratio_to_best_peer = peer.map(|peer| peer / row.median);
            row.why = match (limit, peer) {
                (Some(_), Some(_)) => None,
                (None, Some(_)) => Some("there is no bare limit".to_owned()),
                (Some(_), None) => Some(no_peer.to_owned()),
                (None, None) => Some(format!("{no_peer}, and there is no bare limit")),
            };
        }
    }
}

/// Reads a number; JSON has nothing for what is none, which it writes as `null`.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// All of one run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) quick: bool,
    /// Targets of the groups that ran.
    pub(crate) targets: Vec<Outcome>,
    pub(crate) rows: Vec<Row>,
}

/// Prints the targets to standard output, those that were missed first.
pub(crate) fn print_targets(targets: &[Outcome]) {
    let mut sorted: Vec<&Outcome> = targets.iter().collect();
    sorted.sort_by_key(|outcome| outcome.verdict);
    println!("\ntargets");
    for outcome in sorted {
        println!(
            "  {:<13} {:>2} {:<34} {:>12}  wanted {:<26} {}",
            outcome.verdict.to_string(),
            outcome.target_row,
            outcome.name,
            outcome.text(outcome.measured),
            outcome.wanted(),
            outcome.says,
        );
    }
}

/// Prints rows to standard output, one case after the other.
pub(crate) fn print_table(rows: &[Row]) {
    let mut case = "";
    for row in rows {
        if row.case != case {
            case = &row.case;
            println!("\n{}: {case} ({}, less is better)", row.group, row.unit.name());
        }
        let ratio =
            |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        println!(
            "  {:<34} {:>12} {:>24}  limit {:>6}  peer {:>6}  syncs {:>8.1}  {}",
            row.subject,
            figure(row.median),
            format!("({} to {})", figure(row.low), figure(row.high)),
            ratio(row.ratio_to_limit),
            ratio(row.ratio_to_best_peer),
            row.syncs,
            row.why.as_deref().unwrap_or(""),
        );
    }
    println!();
}

/// A number of entries a second, such as 1.2 M.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        many if many >= 1e6 => format!("{} M/s", figure(many / 1e6)),
        many if many >= 1e3 => format!("{} k/s", figure(many / 1e3)),
        few => format!("{}/s", figure(few)),
    }
}

/// A number with about three digits that count.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(role: Role, values: &mut [f64], why: Option<&str>) -> Row {
        let mut row = Row::new(("g", "c", "s"), role, Unit::Nanoseconds, values);
        row.why = why.map(str::to_owned);
        row
    }

    #[test]
    fn a_row_has_the_median_and_the_range_of_its_rounds() {
        let odd = row(Role::Peer, &mut [9.0, 1.0, 5.0], None);
        assert_eq!((odd.low, odd.median, odd.high, odd.rounds), (1.0, 5.0, 9.0, 3));
        let even = row(Role::Peer, &mut [9.0, 1.0, 5.0, 4.0], None);
        assert_eq!(even.median, 4.5);
    }

    #[test]
    fn ratios_are_against_the_limit_and_the_best_peer_that_does_the_same() {
        let mut rows = [
            row(Role::Limit, &mut [10.0], None),
            row(Role::Sprag, &mut [20.0], None),
            row(Role::Peer, &mut [50.0], None),
            row(Role::Peer, &mut [30.0], None),
            row(Role::Peer, &mut [1.0], Some("another thing")),
        ];
        Row::compare(&mut rows);
        assert_eq!(rows[1].ratio_to_limit, Some(0.5));
        assert_eq!(rows[1].ratio_to_best_peer, Some(1.5));
        assert_eq!(rows[0].ratio_to_best_peer, None);
        assert_eq!(rows[2].ratio_to_best_peer, Some(0.6));
        assert_eq!(rows[4].ratio_to_limit, None);
        assert_eq!(rows[4].why.as_deref(), Some("another thing"));
    }

    #[test]
    fn a_row_without_a_ratio_says_why() {
        let roles = [Role::Limit, Role::Sprag, Role::Peer];
        for present in 1..8_usize {
            let with = roles.iter().enumerate().filter(|(at, _)| present >> at & 1 == 1);
            let mut rows: Vec<_> = with.map(|(_, role)| row(*role, &mut [20.0], None)).collect();
            Row::compare(&mut rows);
            for row in rows {
                let whole = row.ratio_to_limit.is_some() && row.ratio_to_best_peer.is_some();
                assert_eq!(whole, row.why.is_none(), "{row:?}");
            }
        }
    }

    #[test]
    fn a_time_an_entry_is_a_throughput_and_a_time_of_a_call_is_none() {
        assert_eq!(Unit::NanosecondsEach.per_second(200.0), Some(5e6));
        assert_eq!(Unit::MicrosecondsEach.per_second(200.0), Some(5e3));
        assert_eq!(Unit::Microseconds.per_second(200.0), None);
    }
}
