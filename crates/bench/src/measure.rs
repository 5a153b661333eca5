//! Rounds: every subject once a round, in rotating order; the first round is dropped.

use anyhow::{Context, Result};

use crate::report::{Point, Role, Row, Unit};
use crate::syncs;

/// Outcome of one subject in one round: a value for each figure of its case.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    /// One value for each figure of the case.
    pub(crate) values: Vec<f64>,
    /// Syncs that sprag counted itself: its system calls bypass the counters of `syncs`.
    pub(crate) own_syncs: u64,
}

impl From<f64> for Measured {
    fn from(value: f64) -> Self {
        Self { values: vec![value], own_syncs: 0 }
    }
}

/// One figure of a case: the end of its name, its unit, and its place in a chart.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    /// End of the case's name; empty if the case has one figure.
    pub(crate) name: String,
    pub(crate) unit: Unit,
    /// Place in a chart of curves.
    pub(crate) point: Option<Point>,
}

impl Figure {
    /// The only figure of a case.
    pub(crate) fn only(unit: Unit) -> Vec<Self> {
        vec![Self { name: String::new(), unit, point: None }]
    }

    /// The only figure of a case that is a point of a chart of several cases.
    pub(crate) fn at(unit: Unit, chart: &str, axis: &str, x: f64) -> Vec<Self> {
        let point = Point { chart: chart.to_owned(), axis: axis.to_owned(), x };
        vec![Self { name: String::new(), unit, point: Some(point) }]
    }
}

/// One way to do the work of a case.
pub(crate) struct Subject<'a> {
    name: String,
    role: Role,
    why: Option<&'static str>,
    round: Box<dyn FnMut() -> Result<Measured> + 'a>,
}

impl<'a> Subject<'a> {
    pub(crate) fn new(
        name: impl Into<String>,
        role: Role,
        round: impl FnMut() -> Result<Measured> + 'a,
    ) -> Self {
        Self { name: name.into(), role, why: None, round: Box::new(round) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Marks a subject that does another kind of work. Its rows get no ratio, and say why.
    pub(crate) fn differs(mut self, why: Option<&'static str>) -> Self {
        self.why = why;
        self
    }
}

/// One question, and the subjects that answer it.
pub(crate) struct Case<'a> {
    pub(crate) group: &'static str,
    pub(crate) name: String,
    pub(crate) figures: Vec<Figure>,
    pub(crate) subjects: Vec<Subject<'a>>,
}

impl Case<'_> {
    /// Runs one round that does not count, and `rounds` that do.
    pub(crate) fn run(mut self, rounds: usize) -> Result<Vec<Row>> {
        let count = self.subjects.len();
        let mut values = vec![vec![Vec::with_capacity(rounds); self.figures.len()]; count];
        let mut counted_syncs = vec![0_u64; count];
        for round in 0..=rounds {
            for turn in 0..count {
                let at = (turn + round) % count;
                let subject = &mut self.subjects[at];
                let before = syncs::count();
                let measured = (subject.round)()
                    .with_context(|| format!("{}, {}: {}", self.group, self.name, subject.name))?;
                let seen = syncs::count() - before + measured.own_syncs;
                if round > 0 {
                    counted_syncs[at] += seen;
                    for (list, value) in values[at].iter_mut().zip(measured.values) {
                        list.push(value);
                    }
                }
            }
        }
        let mut rows = Vec::new();
        for (place, figure) in self.figures.iter().enumerate() {
            let case = match &*figure.name {
                "" => self.name.clone(),
                name => format!("{}, {name}", self.name),
            };
            let row = |(at, subject): (usize, &Subject<'_>)| {
                let mut row = Row::new(
                    (self.group, &case, &subject.name),
                    subject.role,
                    figure.unit,
                    &mut values[at][place],
                );
                row.syncs = counted_syncs[at] as f64 / rounds as f64;
                row.why = subject.why.map(str::to_owned);
                row.point = figure.point.clone();
                row
            };
            let mut figure_rows: Vec<Row> = self.subjects.iter().enumerate().map(row).collect();
            Row::compare(&mut figure_rows);
            rows.extend(figure_rows);
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::cell::RefCell;

    use super::*;

    #[test]
    fn each_round_runs_every_subject_in_another_order_and_the_first_one_does_not_count() {
        let order = RefCell::new(Vec::new());
        let subject = |name: &'static str, role| {
            let (order, mut round) = (&order, 0.0);
            Subject::new(name, role, move || {
                order.borrow_mut().push(name);
                round += 1.0;
                Ok(Measured { values: vec![if round == 1.0 { 1e9 } else { round }], own_syncs: 3 })
            })
        };
        let case = Case {
            group: "g",
            name: "c".to_owned(),
            figures: Figure::only(Unit::Nanoseconds),
            subjects: vec![subject("limit", Role::Limit), subject("ours", Role::Sprag)],
        };
        let rows = case.run(3).unwrap();
        let order = order.into_inner();
        assert_eq!(order[..4], ["limit", "ours", "ours", "limit"]);
        assert_eq!(order.len(), 8);
        assert_eq!((rows[1].low, rows[1].median, rows[1].high, rows[1].rounds), (2.0, 3.0, 4.0, 3));
        assert_eq!(rows[1].syncs, 3.0);
        assert_eq!(rows[1].ratio_to_limit, Some(1.0));
    }
}
