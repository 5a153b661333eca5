//! A parsed scrape.

use std::collections::{BTreeMap, BTreeSet};

use prometheus_client::registry::Registry;

use crate::text;

/// One sample of a scrape.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// All samples of a scrape, and the type of each metric.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scrape {
    pub(crate) samples: Vec<Sample>,
    pub(crate) types: BTreeMap<String, String>,
    pub(crate) helps: BTreeMap<String, String>,
}

impl Scrape {
    pub(crate) fn of(registry: &Registry) -> Self {
        Self::parse(&text(registry))
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                let before = scrape.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} is there twice");
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                scrape.helps.insert(name.to_owned(), help.to_owned());
            } else if !line.starts_with('#') {
                scrape.samples.push(Sample::parse(line));
            }
        }
        let mut series = BTreeSet::new();
        for sample in &scrape.samples {
            assert!(series.insert((&sample.name, &sample.labels)), "twice: {sample:?}");
        }
        scrape
    }

    /// The sum of the samples of a metric that have at least these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |sample: &&Sample| {
            let labeled =
                |(key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|is| is == value);
            sample.name == name && labels.iter().all(labeled)
        };
        let found: Vec<f64> = self.samples.iter().filter(has).map(|sample| sample.value).collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }
}

impl Sample {
    /// Parses a line; label values of these tests contain no quotes.
    fn parse(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let mut parsed = BTreeMap::new();
        let mut rest = labels.trim_end_matches('}');
        while let Some((key, after)) = rest.split_once("=\"") {
            let (value, after) = after.split_once('"').unwrap();
            parsed.insert(key.to_owned(), value.to_owned());
            rest = after.trim_start_matches(',');
        }
        Self { name: name.to_owned(), labels: parsed, value: value.parse().unwrap() }
    }
}
