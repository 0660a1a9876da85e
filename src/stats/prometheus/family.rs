//! The crate's types: families, their samples and labels.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::{counters::Distribution, stats::source::FigureKind};

pub(super) fn family(
    name: &str,
    kind: FigureKind,
    help: &str,
    samples: Vec<Metric>,
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(match kind {
        FigureKind::Counter => MetricType::COUNTER,
        FigureKind::Gauge => MetricType::GAUGE,
    });
    family.set_metric(samples);
    family
}

pub(super) fn sample(labels: Vec<(&str, &str)>, kind: FigureKind, value: f64) -> Metric {
    let mut sample = Metric::from_label(labels.into_iter().map(label).collect());
    match kind {
        FigureKind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(value);
            sample.set_counter(counter);
        }
        FigureKind::Gauge => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            sample.set_gauge(gauge);
        }
    }
    sample
}

pub(super) fn histograms(name: &str, help: &str, histograms: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(MetricType::HISTOGRAM);
    family.set_metric(histograms);
    family
}

/// The bucket without a bound comes from the encoder, which takes the count
/// for it.
pub(super) fn histogram(labels: Vec<(&str, &str)>, of: &Distribution) -> Metric {
    let buckets = of.cumulative().map(|(bound, entries)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(entries);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(of.count());
    histogram.set_sample_sum(of.sum.as_secs_f64());
    let mut sample = Metric::from_label(labels.into_iter().map(label).collect());
    sample.set_histogram(histogram);
    sample
}

fn label((name, value): (&str, &str)) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.into());
    label.set_value(value.into());
    label
}
