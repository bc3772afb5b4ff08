//! A histogram on its way to another process: the total since start and the slices of the last minute, packed.

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::{Counter, Histogram};
use serde::{Deserialize, Serialize};

use super::{LatencyHistogram, MAX_US, SLICE, SLICES, Slice, count};

/// A histogram as another process continues it. Quantiles of earlier slices are not part of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct CarriedHistogram {
    /// Time since the start of the first slice.
    age: Duration,
    total: CarriedSlice,
    /// Slices of the last minute, the oldest first.
    slices: Vec<CarriedSlice>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CarriedSlice {
    slot: u32,
    sum_us: u64,
    /// As [`Slice`] packs them, in base64.
    values: String,
}

impl CarriedSlice {
    fn of(slice: &Slice) -> Self {
        let Slice { slot, sum_us, .. } = *slice;
        Self { slot, sum_us, values: STANDARD.encode(slice.bytes()) }
    }

    /// `None` if the values are malformed.
    fn read(&self) -> Option<Slice> {
        let bytes = STANDARD.decode(&self.values).ok()?;
        Slice::from_bytes(self.slot, self.sum_us, bytes.into(), MAX_US.into())
    }
}

impl LatencyHistogram {
    /// Everything that another process needs to continue, as of `now`.
    pub fn carried(&mut self, now: Instant) -> CarriedHistogram {
        if now >= self.slot_ends {
            self.turn(now);
        }
        self.fold();
        // A count that is larger than a slice can hold is split.
        let total = self.total.iter_recorded().flat_map(|step| {
            let (value_us, mut left) = (step.value_iterated_to(), step.count_at_value());
            std::iter::from_fn(move || {
                let part = u32::try_from(left).unwrap_or(u32::MAX);
                left -= u64::from(part);
                (part > 0).then_some((value_us, part))
            })
        });
        let total = Slice::pack(0, self.total_sum_us, total);
        CarriedHistogram {
            age: now.saturating_duration_since(self.origin),
            total: CarriedSlice::of(&total),
            slices: self.slices.iter().map(CarriedSlice::of).collect(),
        }
    }

    /// Continues with the values of another process at `now`, as if the time since then had not passed. Must be
    /// called before the first value. Has no effect, and returns false, if `carried` is malformed.
    pub fn resume(&mut self, carried: &CarriedHistogram, now: Instant) -> bool {
        let Some(origin) = now.checked_sub(carried.age) else { return false };
        let slot = carried.age.as_secs() / SLICE.as_secs();
        let slices = carried.slices.iter().map(CarriedSlice::read).collect::<Option<Vec<_>>>();
        let (Some(slices), Some(total), Ok(slot)) =
            (slices, carried.total.read(), u32::try_from(slot))
        else {
            return false;
        };
        let is_in_order = slices.is_sorted_by(|a, b| a.slot < b.slot);
        if !is_in_order || !slices.iter().all(|s| s.slot <= slot && s.slot + SLICES > slot) {
            return false;
        }
        let past = self.past.take();
        *self =
            Self { origin, slot, slot_ends: origin + SLICE * (slot + 1), past, ..Self::new(now) };
        slices.iter().for_each(|slice| add(&mut self.minute, slice));
        self.minute_sum_us = slices.iter().map(|slice| slice.sum_us).sum();
        add(&mut self.total, &total);
        self.total_sum_us = total.sum_us;
        self.slices = slices.into();
        true
    }
}

fn add<T: Counter>(histogram: &mut Histogram<T>, slice: &Slice) {
    slice.values().for_each(|(value_us, n)| {
        let n = T::from_u64(n.into()).expect("every counter has 32 bits");
        count(histogram, value_us, n);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_go_on_where_they_were() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut old = LatencyHistogram::new(start);
        let mut rng = fastrand::Rng::with_seed(7);
        for n in 0..50_000 {
            let bits = rng.u32(1..27);
            old.record(rng.u32(1..1 << bits), at(2 * n));
        }
        let text = serde_json::to_vec(&old.carried(at(100_000))).expect("JSON");
        assert!(text.len() < 100_000, "{} bytes", text.len());
        let carried = serde_json::from_slice(&text).expect("the same");
        let mut new = LatencyHistogram::remembering(at(100_100));
        assert!(new.resume(&carried, at(100_100)));
        assert_eq!(new.last_minute(at(100_100)), old.last_minute(at(100_000)));
        assert_eq!(new.since_start(), old.since_start());
        // Old slices expire there, too, and new values are added.
        for ms in [103_000, 121_000, 162_000] {
            old.record(500, at(ms));
            new.record(500, at(ms + 100));
            assert_eq!(new.last_minute(at(ms + 100)), old.last_minute(at(ms)));
            assert_eq!(new.since_start(), old.since_start());
        }
        assert_eq!(new.past(at(162_100)).len(), 3, "slices of this process");
    }

    #[test]
    fn a_count_beyond_a_slice_and_malformed_ones() {
        let start = Instant::now();
        let mut old = LatencyHistogram::new(start);
        count(&mut old.total, 900, u64::from(u32::MAX) + 5);
        let mut carried = old.carried(start);
        let mut new = LatencyHistogram::new(start);
        assert!(new.resume(&carried, start));
        assert_eq!(new.since_start().count, u64::from(u32::MAX) + 5);
        for bad in ["?", "/////w8=", "////////////", "Ag=="] {
            carried.total.values = bad.to_owned();
            assert!(!new.resume(&carried, start), "{bad}");
        }
        assert_eq!(new.since_start().count, u64::from(u32::MAX) + 5);
    }
}
