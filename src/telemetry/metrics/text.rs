//! Metric families, built by hand from the `prometheus` crate's data types and encoded by it.

use prometheus::{
    TextEncoder,
    proto::{
        Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType, Quantile,
        Summary,
    },
};

use crate::telemetry::{
    collector::{DURATION_BOUNDS_US, Durations},
    histogram::Quantiles,
};

/// Labels of a sample: name and value.
pub(super) type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

/// The page, family by family.
#[derive(Default)]
pub(super) struct Page(Vec<MetricFamily>);

/// One family of the page: samples are appended to it.
pub(super) struct Family<'p>(&'p mut MetricFamily);

impl Page {
    pub(super) fn counter(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(MetricType::COUNTER, name, help)
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(MetricType::GAUGE, name, help)
    }

    pub(super) fn histogram(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(MetricType::HISTOGRAM, name, help)
    }

    pub(super) fn summary(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(MetricType::SUMMARY, name, help)
    }

    fn family(&mut self, kind: MetricType, name: &'static str, help: &'static str) -> Family<'_> {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        self.0.push(family);
        Family(self.0.last_mut().expect("a family was just pushed"))
    }

    /// Encodes the page. Families without a sample are left out, since the encoder rejects them.
    pub(super) fn into_text(mut self) -> String {
        self.0.retain(|family| !family.get_metric().is_empty());
        TextEncoder::new()
            .encode_to_string(&self.0)
            .expect("every family has a name and a sample, and a string takes all")
    }
}

impl Family<'_> {
    /// Appends a count to a counter.
    pub(super) fn count<const N: usize>(&mut self, labels: Labels<'_, N>, value: u64) {
        self.total(labels, value as f64);
    }

    /// Appends a fractional sum to a counter.
    pub(super) fn total<const N: usize>(&mut self, labels: Labels<'_, N>, value: f64) {
        let mut counter = Counter::default();
        counter.set_value(value);
        self.sample(labels).set_counter(counter);
    }

    /// Appends a value to a gauge.
    pub(super) fn value<const N: usize>(&mut self, labels: Labels<'_, N>, value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        self.sample(labels).set_gauge(gauge);
    }

    /// Appends the buckets of a histogram.
    pub(super) fn durations<const N: usize>(&mut self, labels: Labels<'_, N>, values: &Durations) {
        let mut below = 0;
        let buckets = DURATION_BOUNDS_US.iter().zip(values.counts).map(|(bound_us, count)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(f64::from(*bound_us) / 1e6);
            bucket.set_cumulative_count(below);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(values.count());
        histogram.set_sample_sum(values.sum().as_secs_f64());
        self.sample(labels).set_histogram(histogram);
    }

    /// Appends the quantiles of `minute` with the sum and count of `total`. Without samples the
    /// quantiles are NaN, as in every client library.
    pub(super) fn quantiles<const N: usize>(
        &mut self,
        labels: Labels<'_, N>,
        minute: &Quantiles,
        total: &Quantiles,
    ) {
        let values =
            [(0.5, minute.p50), (0.95, minute.p95), (0.99, minute.p99), (0.999, minute.p999)];
        let quantiles = values.map(|(at, value)| {
            let mut quantile = Quantile::default();
            quantile.set_quantile(at);
            quantile.set_value(if minute.count == 0 { f64::NAN } else { value.as_secs_f64() });
            quantile
        });
        let mut summary = Summary::default();
        summary.set_quantile(quantiles.into());
        summary.set_sample_count(total.count);
        summary.set_sample_sum(total.sum.as_secs_f64());
        self.sample(labels).set_summary(summary);
    }

    /// Appends a sum and a count without quantiles to a summary.
    pub(super) fn sum<const N: usize>(&mut self, labels: Labels<'_, N>, count: u64, sum: f64) {
        let mut summary = Summary::default();
        summary.set_sample_count(count);
        summary.set_sample_sum(sum);
        self.sample(labels).set_summary(summary);
    }

    fn sample<const N: usize>(&mut self, labels: Labels<'_, N>) -> &mut Metric {
        let pairs = labels.map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        });
        let samples = self.0.mut_metric();
        samples.push(Metric::from_label(pairs.into()));
        samples.last_mut().expect("a sample was just pushed")
    }
}
