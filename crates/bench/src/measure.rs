//! Rounds: every subject once a round, in rotating order; the first round is dropped.

use anyhow::{Context, Result};

use crate::report::{Role, Row, Unit};
use crate::syncs;

/// Outcome of one subject in one round: a figure for each of its case's names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    /// One value for each figure of the case.
    pub(crate) figures: Vec<f64>,
    /// Syncs that sprag counted itself: its system calls go past the counters of `syncs`.
    pub(crate) own_syncs: u64,
}

impl From<f64> for Measured {
    fn from(figure: f64) -> Self {
        Self { figures: vec![figure], own_syncs: 0 }
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

    /// The subject does another kind of work: it gets no ratio, and the row says why.
    pub(crate) fn differs(mut self, why: &'static str) -> Self {
        self.why = Some(why);
        self
    }
}

/// One question, and the subjects that answer it.
pub(crate) struct Case<'a> {
    pub(crate) group: &'static str,
    pub(crate) name: String,
    /// Name and unit of each figure; an empty name is the case's own.
    pub(crate) figures: Vec<(&'static str, Unit)>,
    pub(crate) subjects: Vec<Subject<'a>>,
}

impl Case<'_> {
    /// Runs `rounds` rounds and one before them, which does not count.
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
                    for (list, value) in values[at].iter_mut().zip(measured.figures) {
                        list.push(value);
                    }
                }
            }
        }
        let mut rows = Vec::new();
        for (figure, (name, unit)) in self.figures.iter().enumerate() {
            let case = match *name {
                "" => self.name.clone(),
                name => format!("{}, {name}", self.name),
            };
            let mut group: Vec<Row> = (0..count)
                .map(|at| {
                    let subject = &self.subjects[at];
                    let syncs = counted_syncs[at] as f64 / rounds as f64;
                    Row::new(
                        (self.group, &case, &subject.name),
                        subject.role,
                        *unit,
                        &mut values[at][figure],
                        syncs,
                        subject.why,
                    )
                })
                .collect();
            Row::compare(&mut group);
            rows.extend(group);
        }
        Ok(rows)
    }
}
