//! Rows: one subject's figure in one case, held against the limit and the best peer.

use serde::Serialize;

use crate::machine::Machine;

/// Part that a subject has in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Unit {
    /// Nanoseconds an entry or a call.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Microseconds an entry or a call.
    #[serde(rename = "us")]
    Microseconds,
    /// Milliseconds for the whole.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Bytes an entry.
    #[serde(rename = "B")]
    Bytes,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Microseconds => "us",
            Self::Milliseconds => "ms",
            Self::Bytes => "B",
        }
    }
}

/// One line of the comparison.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) group: String,
    pub(crate) case: String,
    pub(crate) subject: String,
    pub(crate) role: Role,
    pub(crate) median: f64,
    pub(crate) unit: Unit,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) rounds: usize,
    /// Syncs a round that the process made for this subject.
    pub(crate) syncs: f64,
    /// Limit's median by this median: 1 is the limit, less is slower.
    pub(crate) ratio_to_limit: Option<f64>,
    /// Best peer's median by this median: above 1 is faster than each peer.
    pub(crate) ratio_to_best_peer: Option<f64>,
    /// Reason for a ratio that is missing.
    pub(crate) why: Option<String>,
}

impl Row {
    pub(crate) fn new(
        (group, case, subject): (&str, &str, &str),
        role: Role,
        unit: Unit,
        values: &mut [f64],
        syncs: f64,
        why: Option<&str>,
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
            syncs,
            ratio_to_limit: None,
            ratio_to_best_peer: None,
            why: why.map(str::to_owned),
        }
    }

    /// Fills in the ratios of the rows of one case.
    pub(crate) fn compare(rows: &mut [Self]) {
        let best = |role: Role| {
            let same = rows.iter().filter(|row| row.role == role && row.why.is_none());
            same.map(|row| row.median).min_by(f64::total_cmp)
        };
        let (limit, peer) = (best(Role::Limit), best(Role::Peer));
        for row in rows.iter_mut().filter(|row| row.why.is_none()) {
            row.ratio_to_limit = limit.map(|limit| limit / row.median);
            row.ratio_to_best_peer =
                peer.filter(|_| row.role == Role::Sprag).map(|peer| peer / row.median);
            if row.role == Role::Sprag && peer.is_none() {
                row.why = Some("no peer does this".to_owned());
            }
        }
    }
}

/// All of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) quick: bool,
    pub(crate) rows: Vec<Row>,
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
        Row::new(("g", "c", "s"), role, Unit::Nanoseconds, values, 0.0, why)
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
        assert_eq!(rows[2].ratio_to_best_peer, None);
        assert_eq!(rows[4].ratio_to_limit, None);
        assert_eq!(rows[4].why.as_deref(), Some("another thing"));
    }

    #[test]
    fn a_row_without_a_peer_says_so() {
        let mut rows = [row(Role::Sprag, &mut [20.0], None)];
        Row::compare(&mut rows);
        assert_eq!(rows[0].ratio_to_best_peer, None);
        assert!(rows[0].why.is_some());
    }
}
