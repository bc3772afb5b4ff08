//! Latency over the last minute and since start, to three significant digits.
//!
//! An exact quantile needs every value; a handful of fixed buckets is off by half a bucket just
//! where it matters. An HDR histogram (Gil Tene's) is never off by more than 1/1024 of the value,
//! but needs memory: 17,408 bins for 1 µs to 60 s. Three things keep it small:
//!
//! - bins grow with the largest value seen, so a service of 10 ms pays for 16 ms, not for 60 s;
//! - only three dense histograms exist: the open slice, the minute, and the total since start;
//! - the closed slices of the minute are packed lists of bins with values, and are subtracted from
//!   the minute when they expire.
//!
//! The last minute is the open slice and the eleven before it, 5 s each: 55 to 60 s, never more.
//! A decaying reservoir was rejected: its quantiles cannot be recomputed from a log.
//!
//! A value is recorded once, into the open slice; it is added to minute and total when the slice
//! closes or quantiles are read. Values below 1 µs count as 1 µs, above 60 s as 60 s. Time is an
//! argument and is not expected to go back; a value with an earlier time counts as of now.
//!
//! Heap of one histogram, measured by a counting allocator after two minutes of 2,000 log-normal
//! values a second: 34 KB if all are 1 ms, 167 KB for a median of 3 ms (sigma 0.3), 296 KB for 10
//! ms (0.5), 564 KB for 500 ms (1.5), which fills the range; a single 60 s adds about 200 KB until
//! the next idle minute. Recording costs 200 instructions a value, including the closing of slices
//! (callgrind, 2 M values at 2,000 a second); reading quantiles takes 5 to 100 µs, so read them
//! when they are needed rather than on every tick.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use hdrhistogram::{Counter, Histogram};

use self::slice::Slice;
pub use self::{carried::CarriedHistogram, slice::SliceQuantiles};

mod carried;
mod slice;

/// Length of a slice.
const SLICE: Duration = Duration::from_secs(5);
/// Slices in a minute, the open one included.
const SLICES: u32 = 12;
/// Slices whose quantiles are remembered where that is asked for: ten minutes and a half, of 20 bytes each.
const REMEMBERED: usize = 126;
/// Largest latency that is distinguished, in microseconds.
const MAX_US: u32 = 60_000_000;

/// Latencies of one endpoint or version.
#[derive(Debug)]
pub struct LatencyHistogram {
    /// Start of the first slice.
    origin: Instant,
    /// Number of the open slice.
    slot: u32,
    slot_ends: Instant,
    /// Values that are not in minute and total yet.
    open: Histogram<u32>,
    open_sum_us: u64,
    /// The slices in the minute, the oldest first; the last one may be part of the open slice.
    slices: VecDeque<Slice>,
    minute: Histogram<u32>,
    minute_sum_us: u64,
    total: Histogram<u64>,
    total_sum_us: u64,
    /// Quantiles of closed slices, the oldest first; `None` if they are not remembered.
    past: Option<VecDeque<SliceQuantiles>>,
}

/// Quantiles of a histogram. All zero if nothing was recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// Half of the values were at most this.
    pub p50: Duration,
    /// 95 % of the values were at most this.
    pub p95: Duration,
    /// 99 % of the values were at most this.
    pub p99: Duration,
    /// 99.9 % of the values were at most this.
    pub p999: Duration,
    /// The largest value.
    pub max: Duration,
    /// Exact sum of the values, each between 1 µs and 60 s.
    pub sum: Duration,
    /// Number of values.
    pub count: u64,
}

impl Quantiles {
    /// Mean, in whole microseconds; zero if nothing was recorded.
    pub fn mean(&self) -> Duration {
        let mean_us = self.sum.as_micros().checked_div(u128::from(self.count)).unwrap_or_default();
        Duration::from_micros(mean_us as u64)
    }
}

impl LatencyHistogram {
    /// An empty histogram whose first slice begins `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            origin: now,
            slot: 0,
            slot_ends: now + SLICE,
            open: small(),
            open_sum_us: 0,
            slices: VecDeque::new(),
            minute: small(),
            minute_sum_us: 0,
            total: small(),
            total_sum_us: 0,
            past: None,
        }
    }

    /// As [`Self::new`], and remembers the quantiles of each slice of the last ten minutes.
    pub fn remembering(now: Instant) -> Self {
        Self { past: Some(VecDeque::new()), ..Self::new(now) }
    }

    /// Quantiles of each slice of five seconds in the last ten minutes that has values, the oldest first, with
    /// the start of the slice. The last one may still be open. Empty unless they are remembered.
    pub fn past(&mut self, now: Instant) -> Vec<(Instant, SliceQuantiles)> {
        if now >= self.slot_ends {
            self.turn(now);
        }
        self.fold();
        let Some(past) = &self.past else { return Vec::new() };
        let open = self.slices.back().filter(|last| last.slot == self.slot).map(Slice::quantiles);
        let all = past.iter().copied().chain(open);
        all.map(|slice| (self.origin + SLICE * slice.slot, slice)).collect()
    }

    /// Counts a latency in microseconds.
    #[inline]
    pub fn record(&mut self, value_us: u32, now: Instant) {
        if now >= self.slot_ends {
            self.turn(now);
        }
        let value_us = u64::from(value_us.clamp(1, MAX_US));
        self.open += value_us;
        self.open_sum_us += value_us;
    }

    /// Quantiles of the last 55 to 60 seconds.
    pub fn last_minute(&mut self, now: Instant) -> Quantiles {
        if now >= self.slot_ends {
            self.turn(now);
        }
        self.fold();
        quantiles(&self.minute, self.minute_sum_us)
    }

    /// Quantiles of all values.
    pub fn since_start(&mut self) -> Quantiles {
        self.fold();
        quantiles(&self.total, self.total_sum_us)
    }

    /// All values so far, and those above each of `limits` to the precision of a bin.
    pub fn slower(&mut self, limits: [Duration; 2], now: Instant) -> [u64; 3] {
        if now >= self.slot_ends {
            self.turn(now);
        }
        self.fold();
        let all = self.total.len();
        let [one, other] = limits.map(|limit| {
            let limit_us = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
            // Values above the largest one that is distinguished count as that one.
            match limit_us < u64::from(MAX_US) {
                true => all - self.total.count_between(0, limit_us),
                false => 0,
            }
        });
        [all, one, other]
    }

    /// Closes the open slice, opens the one of `now`, and lets old ones expire.
    fn turn(&mut self, now: Instant) {
        self.fold();
        self.remember();
        let slot = now.saturating_duration_since(self.origin).as_secs() / SLICE.as_secs();
        self.slot = u32::try_from(slot).unwrap_or(u32::MAX - 1);
        self.slot_ends = self.origin + SLICE * (self.slot + 1);
        while self.slices.front().is_some_and(|oldest| oldest.slot + SLICES <= self.slot) {
            let slice = self.slices.pop_front().expect("the front was just seen");
            // The open histogram is empty after the fold, so it can hold the slice to subtract.
            slice.values().for_each(|(value_us, n)| count(&mut self.open, value_us, n));
            if self.minute.subtract(&self.open).is_err() {
                // Only possible after a count has saturated; start with an empty minute.
                self.slices.clear();
            }
            self.open.reset();
            self.minute_sum_us -= slice.sum_us;
        }
        if self.slices.is_empty() {
            // Frees the memory that one slow response needed.
            (self.minute, self.open) = (small(), small());
            self.minute_sum_us = 0;
        }
    }

    /// Notes the quantiles of the slice that closes.
    fn remember(&mut self) {
        let Some(past) = &mut self.past else { return };
        if let Some(closed) = self.slices.back().filter(|last| last.slot == self.slot) {
            if past.len() == REMEMBERED {
                past.pop_front();
            }
            past.push_back(closed.quantiles());
        }
    }

    /// Moves the values of the open slice to the minute, the total and the list of slices.
    fn fold(&mut self) {
        if self.open.is_empty() {
            return;
        }
        self.minute_sum_us += self.open_sum_us;
        self.total_sum_us += self.open_sum_us;
        let mut add = |&(value_us, n): &(u64, u32)| {
            count(&mut self.minute, value_us, n);
            count(&mut self.total, value_us, n.into());
        };
        let slice = if self.slices.back().is_some_and(|last| last.slot == self.slot) {
            // Folded before, when quantiles were read: pack it again with the new values.
            let begun = self.slices.pop_back().expect("the back was just seen");
            recorded(&self.open).for_each(|step| add(&step));
            begun.values().for_each(|(value_us, n)| count(&mut self.open, value_us, n));
            self.open_sum_us += begun.sum_us;
            Slice::pack(self.slot, self.open_sum_us, recorded(&self.open))
        } else {
            Slice::pack(self.slot, self.open_sum_us, recorded(&self.open).inspect(add))
        };
        self.slices.push_back(slice);
        self.open_sum_us = 0;
        self.open.reset();
    }
}

fn small<T: Counter>() -> Histogram<T> {
    let mut histogram = Histogram::new(3).expect("three digits are within 0 to 5");
    histogram.auto(true);
    histogram
}

fn count<T: Counter>(histogram: &mut Histogram<T>, value_us: u64, n: T) {
    histogram.record_n(value_us, n).expect("a growing histogram takes every value");
}

/// The values of a slice, each as the greatest of its bin, with their counts.
fn recorded(open: &Histogram<u32>) -> impl Iterator<Item = (u64, u32)> {
    open.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()))
}

fn quantiles<T: Counter>(histogram: &Histogram<T>, sum_us: u64) -> Quantiles {
    // The bin of 60 s ends a little above it.
    let limited = |us: u64| Duration::from_micros(us.min(u64::from(MAX_US)));
    let [p50, p95, p99, p999] =
        [0.5, 0.95, 0.99, 0.999].map(|q| limited(histogram.value_at_quantile(q)));
    let sum = Duration::from_micros(sum_us);
    Quantiles { p50, p95, p99, p999, max: limited(histogram.max()), sum, count: histogram.len() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The quantile of a sorted list, nearest rank.
    fn exact(sorted_us: &[u32], q: f64) -> u64 {
        let rank = (q * sorted_us.len() as f64).ceil() as usize;
        u64::from(sorted_us[rank.max(1) - 1])
    }

    #[test]
    fn each_slice_is_remembered_with_quantiles_of_its_own() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut histogram = LatencyHistogram::remembering(start);
        (1..=100).for_each(|n| histogram.record(n * 1_000, at(1)));
        histogram.record(7, at(12));
        // Read while the slice is open, and then recorded into again.
        assert_eq!(histogram.past(at(12)).len(), 2);
        histogram.record(7, at(13));
        let past = histogram.past(at(400));
        let slots: Vec<_> = past.iter().map(|(from, slice)| (*from, slice.count)).collect();
        assert_eq!(slots, [(start, 100), (at(10), 2)]);
        let first = past[0].1;
        for (told, exact) in
            [(first.p50_us, 50_000), (first.p95_us, 95_000), (first.p99_us, 99_000)]
        {
            assert_close(Duration::from_micros(told.into()), exact);
        }
        assert_eq!((past[1].1.p50_us, past[1].1.p99_us), (7, 7));
        (0..200).for_each(|n| histogram.record(9, at(405 + 5 * n)));
        let past = histogram.past(at(405 + 5 * 200));
        assert_eq!(past.len(), REMEMBERED);
        assert_eq!(past.last().map(|(from, _)| *from), Some(at(405 + 5 * 199)));
        let mut forgetful = LatencyHistogram::new(start);
        forgetful.record(9, start);
        assert_eq!(forgetful.past(at(9)), []);
    }

    fn assert_close(told: Duration, exact_us: u64) {
        let off = told.as_micros() as f64 / exact_us as f64 - 1.0;
        assert!((0.0..=0.001).contains(&off), "{told:?} for {exact_us} µs");
    }

    /// Latencies of every magnitude, including values beyond both ends.
    fn latency_us() -> impl Strategy<Value = u32> {
        (0u32..27, any::<u32>()).prop_map(|(bits, noise)| (1 << bits) | (noise & ((1 << bits) - 1)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn quantiles_are_within_a_thousandth(
            values in prop::collection::vec((latency_us(), 0u64..900), 1..400),
            ask_every in 5usize..50,
        ) {
            let start = Instant::now();
            let mut histogram = LatencyHistogram::new(start);
            let mut now_ms = 0;
            let mut kept: Vec<(u64, u32)> = Vec::new();
            for (index, (value_us, gap_ms)) in values.into_iter().enumerate() {
                now_ms += gap_ms;
                let now = start + Duration::from_millis(now_ms);
                histogram.record(value_us, now);
                kept.push((now_ms / 5000, value_us.clamp(1, MAX_US)));
                if index % ask_every == 0 {
                    histogram.last_minute(now);
                }
            }
            let open = now_ms / 5000;
            let mut all: Vec<u32> = kept.iter().map(|(_, v)| *v).collect();
            let mut minute: Vec<u32> =
                kept.iter().filter(|(slot, _)| slot + 12 > open).map(|(_, v)| *v).collect();
            all.sort();
            minute.sort();
            let last = histogram.last_minute(start + Duration::from_millis(now_ms));
            for (told, values) in [(last, &minute), (histogram.since_start(), &all)] {
                prop_assert_eq!(told.count, values.len() as u64);
                let sum = values.iter().map(|v| u64::from(*v)).sum();
                prop_assert_eq!(told.sum, Duration::from_micros(sum));
                assert_close(told.p50, exact(values, 0.5));
                assert_close(told.p95, exact(values, 0.95));
                assert_close(told.p99, exact(values, 0.99));
                assert_close(told.p999, exact(values, 0.999));
                assert_close(told.max, exact(values, 1.0));
            }
        }
    }

    #[test]
    fn values_leave_the_minute_but_not_the_total() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut histogram = LatencyHistogram::new(start);
        histogram.record(10, at(0));
        histogram.record(2_000_000, at(4));
        histogram.record(30, at(7));
        assert_eq!(histogram.last_minute(at(59)).count, 3);
        let left = histogram.last_minute(at(60));
        assert_eq!(
            (left.count, left.max, left.sum.as_micros()),
            (1, Duration::from_micros(30), 30)
        );
        assert_eq!(histogram.last_minute(at(65)), Quantiles::default());
        assert_eq!(histogram.since_start().count, 3);
    }

    #[test]
    fn an_idle_gap_empties_the_minute_and_shrinks_it() {
        let start = Instant::now();
        let mut histogram = LatencyHistogram::new(start);
        histogram.record(u32::MAX, start);
        let large = histogram.open.distinct_values();
        let later = start + Duration::from_secs(86_400);
        histogram.record(500, later);
        assert!(histogram.open.distinct_values() < large);
        let told = histogram.last_minute(later);
        assert_eq!((told.count, told.mean()), (1, Duration::from_micros(500)));
        assert_eq!(histogram.since_start().max, Duration::from_secs(60));
    }

    #[test]
    fn an_earlier_time_counts_as_now() {
        let start = Instant::now();
        let later = start + Duration::from_secs(100);
        let mut histogram = LatencyHistogram::new(start);
        histogram.record(1, later);
        histogram.record(2, start);
        assert_eq!(histogram.last_minute(start).count, 2);
        assert_eq!(histogram.last_minute(later + Duration::from_secs(54)).count, 2);
        assert_eq!(histogram.last_minute(later + Duration::from_secs(60)).count, 0);
    }
}
