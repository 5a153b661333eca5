//! Waits of single calls or entries, as percentiles.

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::measure::{Figure, Measured};
use crate::report::{PERCENTILE, Point, Unit};

/// Quantiles of a chart, and their names; 1 is the longest.
const QUANTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
    ("longest", 1.0),
];

/// A histogram of nanoseconds with three digits that count.
pub(crate) struct Waits(Histogram<u64>);

impl Waits {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(Histogram::new(3)?))
    }

    pub(crate) fn record(&mut self, wait: Duration) -> Result<()> {
        self.record_many(wait, 1)
    }

    pub(crate) fn record_many(&mut self, wait: Duration, count: u64) -> Result<()> {
        Ok(self.0.record_n(u64::try_from(wait.as_nanos())?.max(1), count)?)
    }

    /// The values of [`figures`], in this unit.
    #[allow(clippy::cast_precision_loss, reason = "nanoseconds of a wait are far below 2^53")]
    pub(crate) fn values(&self, unit: Unit) -> Vec<f64> {
        let ns_of_unit = match unit {
            Unit::Microseconds => 1e3,
            Unit::Milliseconds => 1e6,
            _ => 1.0,
        };
        let at = |(_, quantile)| self.0.value_at_quantile(quantile) as f64 / ns_of_unit;
        QUANTILES.map(at).to_vec()
    }

    pub(crate) fn measured(&self, unit: Unit) -> Measured {
        self.values(unit).into()
    }
}

impl From<Vec<f64>> for Measured {
    fn from(values: Vec<f64>) -> Self {
        Self { values, own_syncs: 0 }
    }
}

/// The figures of a case of waits, which are the points of one chart.
pub(crate) fn figures(unit: Unit, chart: &str) -> Vec<Figure> {
    let figure = |(name, x): (&str, f64)| {
        let point = Point { chart: chart.to_owned(), axis: PERCENTILE.to_owned(), x };
        Figure { name: name.to_owned(), unit, point: Some(point) }
    };
    QUANTILES.map(figure).to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn percentiles_are_those_of_the_waits_in_the_unit_asked_for() {
        let mut waits = Waits::new().unwrap();
        (1..=1_000).for_each(|us| waits.record(Duration::from_micros(us)).unwrap());
        waits.record_many(Duration::from_millis(5), 1).unwrap();
        let values = waits.values(Unit::Microseconds);
        let near =
            |value: f64, wanted: f64| assert!((value / wanted - 1.0).abs() < 0.002, "{value}");
        near(values[0], 501.0);
        near(values[2], 991.0);
        near(values[5], 5_000.0);
        assert_eq!(values.len(), figures(Unit::Microseconds, "c").len());
    }
}
