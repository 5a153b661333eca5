//! The samples of one metric, written as they are read, without a collection in between.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use sprag::{SizeHistogram, TimeHistogram};

use crate::families::Family;

/// More than the number of buckets of a histogram, so that a scrape needs no memory for them.
const BUCKETS_MAX: usize = 64;

/// Name and value of a label.
pub(crate) type Label<'l> = (&'static str, &'l str);

/// A writer of one family's samples.
pub(crate) struct Samples<'e> {
    /// Encoder of the samples; `None` to count them only.
    encoder: Option<(MetricEncoder<'e>, &'static Family)>,
    engine: &'e str,
    count: usize,
}

impl<'e> Samples<'e> {
    pub(crate) fn counting() -> Self {
        Self { encoder: None, engine: "", count: 0 }
    }

    pub(crate) fn encoding(encoder: MetricEncoder<'e>, family: &'static Family) -> Self {
        Self { encoder: Some((encoder, family)), engine: "", count: 0 }
    }

    /// Sets the engine of all samples from here on.
    pub(crate) fn of_engine(&mut self, name: &'e str) {
        self.engine = name;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Writes a whole number, of a counter or of a gauge.
    pub(crate) fn whole(&mut self, labels: &[Label<'_>], value: u64) -> fmt::Result {
        self.put(labels, |encoder, kind| match (kind, i64::try_from(value)) {
            (MetricType::Counter, _) => ConstCounter::new(value).encode(encoder),
            (_, Ok(value)) => ConstGauge::new(value).encode(encoder),
            // The format has floats only, so a server would lose the same digits.
            #[allow(clippy::cast_precision_loss, reason = "as the format has it")]
            (_, Err(_)) => ConstGauge::new(value as f64).encode(encoder),
        })
    }

    /// Writes a fractional number, of a gauge.
    pub(crate) fn real(&mut self, labels: &[Label<'_>], value: f64) -> fmt::Result {
        self.put(labels, |encoder, _| ConstGauge::new(value).encode(encoder))
    }

    /// Writes a condition as 1 or 0.
    pub(crate) fn flag(&mut self, labels: &[Label<'_>], value: bool) -> fmt::Result {
        self.whole(labels, u64::from(value))
    }

    /// Writes a histogram of times, in seconds.
    pub(crate) fn times(&mut self, times: &TimeHistogram) -> fmt::Result {
        let bound = |bound: Option<Duration>| bound.map_or(f64::INFINITY, |at| at.as_secs_f64());
        let buckets = times.buckets().map(|(at, count)| (bound(at), count));
        self.histogram(times.sum().as_secs_f64(), times.count(), buckets)
    }

    /// Writes a histogram of sizes.
    #[allow(clippy::cast_precision_loss, reason = "as the format has it")]
    pub(crate) fn sizes(&mut self, sizes: &SizeHistogram) -> fmt::Result {
        let bound = |bound: Option<u64>| bound.map_or(f64::INFINITY, |at| at as f64);
        let buckets = sizes.buckets().map(|(at, count)| (bound(at), count));
        self.histogram(sizes.sum() as f64, sizes.count(), buckets)
    }

    fn histogram(
        &mut self,
        sum: f64,
        count: u64,
        buckets: impl Iterator<Item = (f64, u64)>,
    ) -> fmt::Result {
        self.put(&[], |mut encoder, _| {
            let mut room = [(f64::INFINITY, 0); BUCKETS_MAX];
            let mut used = 0;
            for (place, bucket) in room.iter_mut().zip(buckets) {
                *place = bucket;
                used += 1;
            }
            encoder.encode_histogram::<NoLabelSet>(sum, count, &room[..used], None)
        })
    }

    fn put(
        &mut self,
        labels: &[Label<'_>],
        encode: impl FnOnce(MetricEncoder<'_>, MetricType) -> fmt::Result,
    ) -> fmt::Result {
        self.count += 1;
        let Some((encoder, family)) = &mut self.encoder else { return Ok(()) };
        debug_assert!(labels.iter().map(|(name, _)| name).eq(family.labels), "{}", family.name);
        let labels = ([("engine", self.engine)], labels);
        encode(encoder.encode_family(&labels)?, family.kind)
    }

    /// Writes constants of a process, as labels of a sample whose value is 1.
    pub(crate) fn info(&mut self, labels: &[Label<'_>]) -> fmt::Result {
        self.count += 1;
        let Some((encoder, family)) = &mut self.encoder else { return Ok(()) };
        debug_assert!(labels.iter().map(|(name, _)| name).eq(family.labels), "{}", family.name);
        encoder.encode_info(&([("engine", self.engine)], labels))
    }
}
