//! Records samples in histograms, on the service thread.
//!
//! A worker appends one [`Sample`] per finished request to a `Vec` of its own and sends the `Vec`
//! on a tick, or when it holds [`BATCH`] samples; so the request path pays for one 16-byte store,
//! and no cache line is shared. The collector owns all histograms and is owned by one thread.
//!
//! Endpoints, versions and series have dense, unique ids from the registry, so a histogram is found
//! by index. Samples may arrive after their endpoint left; they then count only for the series.

use std::time::{Duration, Instant};

use super::histogram::{CarriedHistogram, LatencyHistogram, Quantiles, SliceQuantiles};

/// Most samples that a worker gathers before it hands them over: 16 KiB.
pub const BATCH: usize = 1024;

/// One finished request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Endpoint of the last attempt; [`Sample::NONE`] if there was none.
    pub endpoint: u32,
    /// The (service, version, route); [`Sample::NONE`] if no route matched.
    pub series: u32,
    /// From the request's head to the last byte of the response, in microseconds, saturating.
    pub duration_us: u32,
    /// From the choice of the endpoint to the head of its response, in microseconds;
    /// [`Sample::NONE`] without a response.
    pub upstream_us: u32,
}

impl Sample {
    /// Stands for an absent endpoint, series or upstream latency.
    pub const NONE: u32 = u32::MAX;
}

/// Upper bounds of [`Durations`], in microseconds. Beside the usual steps they include typical
/// limits: 150 and 250 ms for a bet, 800 ms for a payout, 2 s for a settlement.
pub const DURATION_BOUNDS_US: [u32; 16] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 150_000, 250_000, 500_000, 800_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000, 30_000_000,
];

/// Durations of one series since start, in fixed buckets that can be summed over instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durations {
    /// Values up to the bound of the same index and above the previous one; the last count is above
    /// all bounds.
    pub counts: [u64; DURATION_BOUNDS_US.len() + 1],
    /// Exact sum, in microseconds.
    pub sum_us: u64,
}

impl Durations {
    /// Number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Exact sum.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us)
    }

    /// Adds a value, in microseconds.
    pub fn record(&mut self, value_us: u32) {
        self.counts[DURATION_BOUNDS_US.partition_point(|bound| *bound < value_us)] += 1;
        self.sum_us += u64::from(value_us);
    }
}

/// Upstream latency of an endpoint or a version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// The last minute.
    pub minute: Quantiles,
    /// Since start.
    pub total: Quantiles,
}

/// All histograms of the process.
#[derive(Debug, Default)]
pub struct Collector {
    /// Version by endpoint; [`Sample::NONE`] for unknown and forgotten ones.
    version_of: Vec<u32>,
    endpoints: Vec<Option<Box<LatencyHistogram>>>,
    versions: Vec<Option<Box<LatencyHistogram>>>,
    series: Vec<Option<Box<Durations>>>,
}

impl Collector {
    /// Sets the version of an endpoint; called before its first sample arrives.
    pub fn register_endpoint(&mut self, endpoint: u32, version: u32) {
        *slot(&mut self.version_of, endpoint, || Sample::NONE) = version;
        slot(&mut self.endpoints, endpoint, || None);
        slot(&mut self.versions, version, || None);
    }

    /// Drops the histogram of an endpoint that left.
    pub fn forget_endpoint(&mut self, endpoint: u32) {
        if let Some(version) = self.version_of.get_mut(endpoint as usize) {
            *version = Sample::NONE;
            self.endpoints[endpoint as usize] = None;
        }
    }

    /// Drops the histogram of a version that left; its endpoints must be forgotten first.
    pub fn forget_version(&mut self, version: u32) {
        if let Some(gone) = self.versions.get_mut(version as usize) {
            *gone = None;
        }
    }

    /// Drops the durations of a series whose route or version left.
    pub fn forget_series(&mut self, series: u32) {
        if let Some(gone) = self.series.get_mut(series as usize) {
            *gone = None;
        }
    }

    /// Records a worker's batch, as of `now`.
    pub fn absorb(&mut self, batch: &[Sample], now: Instant) {
        for sample in batch {
            if sample.series != Sample::NONE {
                slot(&mut self.series, sample.series, || None)
                    .get_or_insert_default()
                    .record(sample.duration_us);
            }
            if sample.upstream_us == Sample::NONE {
                continue;
            }
            let version = self.version_of.get(sample.endpoint as usize);
            if let Some(&version) = version.filter(|version| **version != Sample::NONE) {
                let endpoint = &mut self.endpoints[sample.endpoint as usize];
                endpoint
                    .get_or_insert_with(|| Box::new(LatencyHistogram::new(now)))
                    .record(sample.upstream_us, now);
                let version = &mut self.versions[version as usize];
                version
                    .get_or_insert_with(|| Box::new(LatencyHistogram::remembering(now)))
                    .record(sample.upstream_us, now);
            }
        }
    }

    /// Latency of an endpoint; all zero before its first response.
    pub fn endpoint(&mut self, endpoint: u32, now: Instant) -> Latency {
        latency(&mut self.endpoints, endpoint, now)
    }

    /// Latency of a version, over all current and former endpoints; all zero before its first
    /// response.
    pub fn version(&mut self, version: u32, now: Instant) -> Latency {
        latency(&mut self.versions, version, now)
    }

    /// Responses of a version since start: all, and those that took longer than each of `limits`.
    pub fn slower(&mut self, version: u32, limits: [Duration; 2], now: Instant) -> [u64; 3] {
        let known = self.versions.get_mut(version as usize).and_then(Option::as_deref_mut);
        known.map_or([0; 3], |latency| latency.slower(limits, now))
    }

    /// Quantiles of a version's upstream latency in each five seconds of the last ten minutes with responses,
    /// the oldest first.
    pub fn past(&mut self, version: u32, now: Instant) -> Vec<(Instant, SliceQuantiles)> {
        let known = self.versions.get_mut(version as usize).and_then(Option::as_deref_mut);
        known.map(|known| known.past(now)).unwrap_or_default()
    }

    /// The histogram of an endpoint for another process; `None` before its first response.
    pub fn carried_endpoint(&mut self, endpoint: u32, now: Instant) -> Option<CarriedHistogram> {
        let known = self.endpoints.get_mut(endpoint as usize)?;
        known.as_deref_mut().map(|known| known.carried(now))
    }

    /// As [`Collector::carried_endpoint`], of a version.
    pub fn carried_version(&mut self, version: u32, now: Instant) -> Option<CarriedHistogram> {
        let known = self.versions.get_mut(version as usize)?;
        known.as_deref_mut().map(|known| known.carried(now))
    }

    /// Continues the histogram of an endpoint of another process, before its first response here.
    pub fn resume_endpoint(&mut self, endpoint: u32, carried: &CarriedHistogram, now: Instant) {
        let known = slot(&mut self.endpoints, endpoint, || None);
        let known = known.get_or_insert_with(|| Box::new(LatencyHistogram::new(now)));
        known.resume(carried, now);
    }

    /// As [`Collector::resume_endpoint`], of a version.
    pub fn resume_version(&mut self, version: u32, carried: &CarriedHistogram, now: Instant) {
        let known = slot(&mut self.versions, version, || None);
        let known = known.get_or_insert_with(|| Box::new(LatencyHistogram::remembering(now)));
        known.resume(carried, now);
    }

    /// Durations of a series; all zero before its first request ended.
    pub fn series(&self, series: u32) -> Durations {
        self.series.get(series as usize).and_then(Option::as_deref).copied().unwrap_or_default()
    }
}

/// The element at `index` of a list, which grows if necessary.
fn slot<T>(list: &mut Vec<T>, index: u32, empty: impl FnMut() -> T) -> &mut T {
    let index = index as usize;
    if index >= list.len() {
        list.resize_with(index + 1, empty);
    }
    &mut list[index]
}

fn latency(list: &mut [Option<Box<LatencyHistogram>>], index: u32, now: Instant) -> Latency {
    match list.get_mut(index as usize).and_then(Option::as_deref_mut) {
        Some(known) => Latency { minute: known.last_minute(now), total: known.since_start() },
        None => Latency::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(endpoint: u32, series: u32, duration_us: u32, upstream_us: u32) -> Sample {
        Sample { endpoint, series, duration_us, upstream_us }
    }

    #[test]
    fn a_sample_is_sixteen_bytes() {
        assert_eq!(size_of::<Sample>(), 16);
    }

    #[test]
    fn samples_count_for_endpoint_version_and_series() {
        let now = Instant::now();
        let mut collector = Collector::default();
        collector.register_endpoint(0, 5);
        collector.register_endpoint(1, 5);
        let none = Sample::NONE;
        collector.absorb(
            &[
                sample(0, 2, 1_500, 1_000),
                sample(1, 2, 3_500, 3_000),
                sample(1, 2, 9_000_000, none),
                sample(none, 7, 200, none),
                sample(none, none, 10, none),
            ],
            now,
        );
        assert_eq!(collector.endpoint(0, now).minute.count, 1);
        assert_eq!(collector.endpoint(1, now).total.max, Duration::from_micros(3_001));
        let version = collector.version(5, now);
        assert_eq!((version.minute.count, version.total.sum), (2, Duration::from_millis(4)));
        let past: Vec<_> = collector.past(5, now).iter().map(|(_, slice)| slice.count).collect();
        assert_eq!((past, collector.past(99, now)), (vec![2], vec![]));
        assert_eq!(collector.series(2).count(), 3);
        assert_eq!(collector.series(7).sum(), Duration::from_micros(200));
        assert_eq!(collector.series(99), Durations::default());
        assert_eq!(collector.version(99, now), Latency::default());
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut durations = Durations::default();
        for value_us in [0, 1_000, 1_001, 30_000_000, 30_000_001, u32::MAX] {
            durations.record(value_us);
        }
        assert_eq!(durations.counts[..2], [2, 1]);
        assert_eq!(durations.counts[15..], [1, 2]);
    }

    #[test]
    fn late_samples_of_a_forgotten_endpoint_count_for_the_series_only() {
        let now = Instant::now();
        let mut collector = Collector::default();
        collector.register_endpoint(3, 0);
        collector.absorb(&[sample(3, 0, 20, 10)], now);
        collector.forget_endpoint(3);
        collector.absorb(&[sample(3, 0, 20, 10)], now);
        assert_eq!(collector.endpoint(3, now), Latency::default());
        assert_eq!(collector.version(0, now).total.count, 1);
        assert_eq!(collector.series(0).count(), 2);
        collector.forget_version(0);
        collector.forget_series(0);
        assert_eq!(collector.version(0, now), Latency::default());
        assert_eq!(collector.series(0), Durations::default());
    }
}
