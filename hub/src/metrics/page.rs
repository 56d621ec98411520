//! The page that Prometheus reads, in the making: samples under their families, written out by the prometheus crate.

use std::collections::BTreeMap;

use prometheus::{
    TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use super::{
    count::{ByName, Distribution},
    families::{Family, Kind},
};

/// Samples, by the names of their families.
#[derive(Debug, Default)]
pub(super) struct Page(BTreeMap<&'static str, MetricFamily>);

impl Page {
    /// A counter's value, with a value for each of the family's labels.
    pub(super) fn count(&mut self, family: &'static Family, labels: &[&str], value: u64) {
        self.grown(family, labels, value as f64);
    }

    /// A counter that is no whole number.
    pub(super) fn grown(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        let mut counter = Counter::default();
        counter.set_value(value);
        self.sample(family, Kind::Counter, labels).set_counter(counter);
    }

    /// A counter for each name.
    pub(super) fn counts(&mut self, family: &'static Family, counts: &ByName) {
        for (name, count) in counts.all() {
            self.count(family, &[name], count);
        }
    }

    pub(super) fn gauge(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        self.sample(family, Kind::Gauge, labels).set_gauge(gauge);
    }

    pub(super) fn distribution(&mut self, family: &'static Family, labels: &[&str], read: &Distribution) {
        let mut sum = 0;
        let mut buckets = Vec::with_capacity(read.bounds.len());
        for (bound, count) in read.bounds.iter().zip(&read.counts) {
            sum += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(sum);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(read.total());
        histogram.set_sample_sum(read.sum);
        self.sample(family, Kind::Histogram, labels).set_histogram(histogram);
    }

    fn sample(&mut self, family: &'static Family, kind: Kind, values: &[&str]) -> &mut Metric {
        debug_assert_eq!((family.kind, family.labels.len()), (kind, values.len()), "{}", family.name);
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        let metric = Metric::from_label(family.labels.iter().zip(values).map(pair).collect());
        let samples = self.0.entry(family.name).or_insert_with(|| head(family)).mut_metric();
        samples.push(metric);
        samples.last_mut().expect("one was pushed")
    }

    /// The text.
    ///
    /// # Errors
    /// A family without a name or a sample: a mistake in this module.
    pub(super) fn text(self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.0.into_values().collect::<Vec<_>>())
    }
}

fn head(family: &Family) -> MetricFamily {
    let mut head = MetricFamily::default();
    head.set_name(family.name.to_owned());
    head.set_help(family.help.to_owned());
    head.set_field_type(match family.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    head
}
