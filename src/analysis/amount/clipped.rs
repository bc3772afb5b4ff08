//! Amounts in buckets, and the clipped amounts of a block.
//!
//! Edges are powers of 1.1, always the same for all amounts, so that workers can count before a
//! clip is known; the clip is one of the edges.

use serde::{Deserialize, Serialize};

/// Number of buckets. The first one holds 0 and amounts below `1.1^-200`, which is 5e-9; the last
/// one begins at 7e12.
pub const AMOUNT_BUCKETS: usize = 512;
/// Ratio of the edges of a bucket: a lower edge is at most 9 % off, in both arms alike.
const GROWTH: f64 = 1.1;
/// Power of [`GROWTH`] at the lower edge of the second bucket.
const FIRST_POWER: i32 = -200;
/// Buckets that are bet on: from `1.1^-80` of the clip, a two-thousandth, up to the clip. Smaller
/// amounts count as 0.
pub(super) const BUCKETS: usize = 82;
/// Least amounts above 0 of a baseline to know its 99th percentile.
const LEAST_KNOWN: u64 = 500;
/// The percentile above which amounts are clipped.
const CLIPPED_AT: f64 = 0.99;
/// Number of buckets between the percentile and the clip, which is a factor of 2.1. If all amounts
/// have one size, the percentile is that size, and a canary that pays more would look the same
/// without it. The price is that differences of varying amounts are found later: for log-normal
/// ones of sigma 1.5, a total loss after 400 requests of the canary instead of 200, a loss of half
/// after 700 instead of 500, and amounts half as high again after 1,000 either way.
const HEADROOM: usize = 8;

/// The bucket of an amount in the caller's money. NaN and negative amounts count as 0.
pub fn amount_bucket(amount: f64) -> usize {
    let power = (amount.ln() / GROWTH.ln()).floor();
    (power - f64::from(FIRST_POWER - 1)).clamp(0.0, (AMOUNT_BUCKETS - 1) as f64) as usize
}

/// The bucket of an amount's absolute value, rounded at random by `draw`, from 0 to below 1, to the
/// edge below or above, so that the lower edge is unbiased. A margin is the small difference of
/// large amounts, and an error of a few percent of each could exceed it.
pub fn rounded_bucket(amount: f64, draw: f64) -> usize {
    let amount = amount.abs();
    let bucket = amount_bucket(amount);
    let (below, above) = (lower(bucket), lower(bucket + 1));
    let up = bucket < AMOUNT_BUCKETS - 1 && draw * (above - below) < amount - below;
    bucket + usize::from(up)
}

/// The least amount of a bucket.
fn lower(bucket: usize) -> f64 {
    if bucket == 0 { 0.0 } else { GROWTH.powi(bucket as i32 - 1 + FIRST_POWER) }
}

/// The amount at which others are clipped: the lower edge of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clip(usize);

impl Clip {
    /// A clip at the edge below `amount`; `None` if that is not above 0. It must be known before
    /// the block, and only changes between blocks.
    pub fn new(amount: f64) -> Option<Self> {
        Some(amount_bucket(amount)).filter(|bucket| *bucket > 0).map(Self)
    }

    /// A clip at 2.1 times the 99th percentile of a baseline's amounts above 0, given the counts of
    /// the buckets; `None` before 500 such amounts.
    pub fn of_baseline(counts: &[u64; AMOUNT_BUCKETS]) -> Option<Self> {
        let total: u64 = counts[1..].iter().sum();
        if total < LEAST_KNOWN {
            return None;
        }
        let mut below = 0;
        let reached = counts[1..].iter().position(|count| {
            below += count;
            below as f64 >= CLIPPED_AT * total as f64
        });
        reached.map(|bucket| Self((bucket + 1 + HEADROOM).min(AMOUNT_BUCKETS - 1)))
    }

    /// The amount.
    pub fn amount(self) -> f64 {
        lower(self.0)
    }

    /// Mean of clipped amounts, given the counts of rounded buckets; 0 without amounts.
    pub fn mean(self, counts: &[u64; AMOUNT_BUCKETS]) -> f64 {
        let clipped = |bucket| lower(bucket).min(self.amount());
        let all = counts.iter().enumerate();
        let sum: f64 = all.map(|(bucket, count)| *count as f64 * clipped(bucket)).sum();
        sum / (counts.iter().sum::<u64>().max(1) as f64)
    }

    /// The bucket that is bet on for an amount's bucket.
    pub(super) fn relative(self, bucket: usize) -> usize {
        match bucket {
            0 => 0,
            _ => (bucket + BUCKETS - 1).saturating_sub(self.0).min(BUCKETS - 1),
        }
    }
}

/// The lower edge of a bucket that is bet on, as a share of the clip.
pub(super) fn value(bucket: usize) -> f64 {
    if bucket == 0 { 0.0 } else { GROWTH.powi(bucket as i32 - (BUCKETS as i32 - 1)) }
}

/// Amounts of one arm in one block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Sparse", into = "Sparse")]
pub struct Amounts {
    pub(super) clip: Clip,
    counts: [u64; BUCKETS],
    pub(super) requests: u64,
    /// Sum of the clipped amounts.
    pub(super) sum: f64,
    signed: Option<Box<Signed>>,
}

/// The additional data of amounts that may be negative.
#[derive(Debug, Clone, PartialEq)]
struct Signed {
    /// Mean absolute value of the baseline's amounts, known before the first block.
    size: f64,
    /// Negative amounts, by absolute value.
    below: [u64; BUCKETS],
}

/// The same without empty buckets.
#[derive(Serialize, Deserialize)]
struct Sparse {
    clip: Clip,
    counts: Vec<(u8, u64)>,
    sum: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signed: Option<SparseSigned>,
}

#[derive(Serialize, Deserialize)]
struct SparseSigned {
    size: f64,
    below: Vec<(u8, u64)>,
}

impl From<Amounts> for Sparse {
    fn from(amounts: Amounts) -> Self {
        let met = |counts: [u64; BUCKETS]| (0..).zip(counts).filter(|(_, count)| *count > 0);
        let signed = (amounts.signed)
            .map(|signed| SparseSigned { size: signed.size, below: met(signed.below).collect() });
        let counts = met(amounts.counts).collect();
        Self { clip: amounts.clip, counts, sum: amounts.sum, signed }
    }
}

impl TryFrom<Sparse> for Amounts {
    type Error = &'static str;

    fn try_from(sparse: Sparse) -> Result<Self, Self::Error> {
        let mut amounts = Self { sum: sparse.sum, ..Self::new(sparse.clip) };
        let mut hold = |counts: &mut [u64; BUCKETS], met: Vec<(u8, u64)>| {
            for (bucket, count) in met {
                let held = counts.get_mut(usize::from(bucket));
                // A file may contain larger counts than any block.
                let count = count.min(u32::MAX.into());
                *held.ok_or("there is no such bucket of amounts")? += count;
                amounts.requests += count;
            }
            Ok::<_, Self::Error>(())
        };
        hold(&mut amounts.counts, sparse.counts)?;
        if let Some(SparseSigned { size, below: met }) = sparse.signed {
            let mut below = [0; BUCKETS];
            hold(&mut below, met)?;
            amounts.signed = Some(Box::new(Signed { size, below }));
        }
        Ok(amounts)
    }
}

impl Amounts {
    /// No amounts yet.
    pub fn new(clip: Clip) -> Self {
        Self { clip, counts: [0; BUCKETS], requests: 0, sum: 0.0, signed: None }
    }

    /// The amounts between two readings of counters, which only grow, and wrap. The sum is that of
    /// the buckets' middles.
    pub fn between(
        before: &[u32; AMOUNT_BUCKETS],
        after: &[u32; AMOUNT_BUCKETS],
        clip: Clip,
    ) -> Self {
        let mut between = Self::new(clip);
        for (bucket, count) in growth(before, after) {
            between.counts[clip.relative(bucket)] += count;
            between.requests += count;
            let middle = lower(bucket) * GROWTH.sqrt();
            between.sum += count as f64 * middle.min(clip.amount());
        }
        between
    }

    /// Likewise for amounts in rounded buckets, with readings of those from 0 on and of those
    /// `below` 0. `size` is the mean absolute value of the baseline's, which must be known like the
    /// clip.
    pub fn between_signed(
        above: [&[u32; AMOUNT_BUCKETS]; 2],
        below: [&[u32; AMOUNT_BUCKETS]; 2],
        clip: Clip,
        size: f64,
    ) -> Self {
        let mut between = Self::of_derived(clip, size);
        let signs = [(above, false), (below, true)];
        for ([before, after], negative) in signs {
            for (bucket, count) in growth(before, after) {
                between.add(bucket, negative, count);
            }
        }
        between
    }

    /// No amounts yet; they may be negative, and the baseline's have the mean absolute value
    /// `size`.
    pub fn of_derived(clip: Clip, size: f64) -> Self {
        let signed = Some(Box::new(Signed { size, below: [0; BUCKETS] }));
        Self { signed, ..Self::new(clip) }
    }

    /// Counts a request and its amount, which may be negative, in its [`rounded_bucket`].
    #[cfg(test)]
    pub(in super::super) fn record_rounded(&mut self, amount: f64, draw: f64) {
        self.add(rounded_bucket(amount, draw), amount < 0.0, 1);
    }

    /// Counts requests with an amount of this rounded bucket.
    fn add(&mut self, bucket: usize, negative: bool, count: u64) {
        let counts = match &mut self.signed {
            Some(signed) if negative => &mut signed.below,
            _ => &mut self.counts,
        };
        counts[self.clip.relative(bucket)] += count;
        self.requests += count;
        let sum = count as f64 * lower(bucket).min(self.clip.amount());
        self.sum += if negative { -sum } else { sum };
    }

    /// Mean absolute value of the baseline's amounts, if they may be negative.
    pub(super) fn size(&self) -> Option<f64> {
        self.signed.as_ref().map(|signed| signed.size)
    }

    /// Counts a request and its amount, 0 if it had none.
    pub fn record(&mut self, amount: f64) {
        self.counts[self.clip.relative(amount_bucket(amount))] += 1;
        self.requests += 1;
        if amount > 0.0 {
            self.sum += amount.min(self.clip.amount());
        }
    }

    /// Empties it for the next block.
    pub fn clear(&mut self) {
        *self = Self::new(self.clip);
    }

    /// Where they are clipped.
    pub fn clip(&self) -> Clip {
        self.clip
    }

    /// Whether both have the same clip and size, so that they can be compared.
    pub fn is_measured_as(&self, other: &Self) -> bool {
        self.clip == other.clip && self.size() == other.size()
    }

    /// Requests counted.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Approximate memory, in bytes.
    pub(in super::super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.signed.as_deref().map_or(0, size_of_val)
    }

    /// Amounts as shares of the clip, with their counts.
    pub(super) fn values(&self) -> impl Iterator<Item = (f64, u64)> {
        let above = self.counts.iter().enumerate().map(|(bucket, count)| (value(bucket), *count));
        let below = self.signed.iter().flat_map(|signed| signed.below.iter().enumerate());
        let below = below.map(|(bucket, count)| (-value(bucket), *count));
        above.chain(below).filter(|(_, count)| *count > 0)
    }
}

/// The counts between two readings, of buckets that are not empty.
fn growth<'r>(
    before: &'r [u32; AMOUNT_BUCKETS],
    after: &'r [u32; AMOUNT_BUCKETS],
) -> impl Iterator<Item = (usize, u64)> + use<'r> {
    let counts = before.iter().zip(after).map(|(b, a)| u64::from(a.wrapping_sub(*b)));
    counts.enumerate().filter(|(_, count)| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_they_should() {
        assert_eq!([0.0, -5.0, f64::NAN, f64::NEG_INFINITY, 1e-9].map(amount_bucket), [0; 5]);
        assert_eq!([1e13, f64::MAX, f64::INFINITY].map(amount_bucket), [AMOUNT_BUCKETS - 1; 3]);
        for bucket in 1..AMOUNT_BUCKETS {
            // In the middle of the bucket, where rounding decides nothing.
            assert_eq!(amount_bucket(lower(bucket) * 1.05), bucket);
        }
    }

    #[test]
    fn a_clip_cuts_them_into_those_that_are_bet_on() {
        let clip = Clip::new(100.0).expect("a clip");
        assert!((90.0..=100.0).contains(&clip.amount()), "{}", clip.amount());
        let relative = |amount| clip.relative(amount_bucket(amount));
        assert_eq!([0.0, -5.0, f64::NAN, 0.04].map(relative), [0; 4]);
        assert_eq!([100.0, 1e9, f64::INFINITY].map(relative), [81; 3]);
        assert_eq!((value(0), value(81)), (0.0, 1.0));
        for bucket in 1..BUCKETS {
            assert_eq!(relative(clip.amount() * value(bucket) * 1.05), bucket);
        }
        assert!(Clip::new(0.0).is_none() && Clip::new(f64::NAN).is_none());
    }

    #[test]
    fn a_clip_stands_above_the_99th_percentile_of_what_was_paid() {
        let above = |amount| Some(Clip(amount_bucket(amount) + HEADROOM));
        let mut counts = [0; AMOUNT_BUCKETS];
        // Most requests pay nothing; they do not affect the percentile.
        counts[0] = 1_000_000;
        counts[amount_bucket(2.0)] = 499;
        assert_eq!(Clip::of_baseline(&counts), None);
        counts[amount_bucket(50.0)] = 1;
        assert_eq!(Clip::of_baseline(&counts), above(2.0));
        counts[amount_bucket(50.0)] = 10;
        assert_eq!(Clip::of_baseline(&counts), above(50.0));
        counts[AMOUNT_BUCKETS - 1] = 1_000;
        assert_eq!(Clip::of_baseline(&counts), Some(Clip(AMOUNT_BUCKETS - 1)));
    }

    #[test]
    fn rounded_buckets_are_right_in_the_mean() {
        let mut rng = fastrand::Rng::with_seed(8);
        for amount in [0.0, 1e-9, 0.07, 1.0, -9.99, 10.0, -1234.5, 6e12] {
            let draws = 20_000;
            let sum: f64 = (0..draws).map(|_| lower(rounded_bucket(amount, rng.f64()))).sum();
            let mean = sum / f64::from(draws);
            // A bucket is 10 % wide: half of it, over the root of the draws, and four times that.
            assert!(
                (mean - amount.abs()).abs() <= amount.abs() * 1.5e-3 + 1e-9,
                "{amount}: {mean}"
            );
        }
        assert_eq!([f64::NAN, f64::INFINITY].map(|a| rounded_bucket(a, 0.0)), [0, 511]);
    }

    #[test]
    fn signed_readings_and_single_amounts_say_the_same() {
        let clip = Clip::new(100.0).expect("a clip");
        let mut single = Amounts::of_derived(clip, 40.0);
        let (before, mut rng) = ([[u32::MAX; AMOUNT_BUCKETS]; 2], fastrand::Rng::with_seed(9));
        let (mut after, mut sum) = (before, 0.0);
        for _ in 0..10_000 {
            let (amount, draw) = (rng.f64() * 180.0 - 90.0, rng.f64());
            single.record_rounded(amount, draw);
            sum += amount.clamp(-clip.amount(), clip.amount());
            let count = &mut after[usize::from(amount < 0.0)][rounded_bucket(amount, draw)];
            *count = count.wrapping_add(1);
        }
        let [above, below] = [0, 1].map(|sign| [&before[sign], &after[sign]]);
        let between = Amounts::between_signed(above, below, clip, 40.0);
        assert_eq!((between.counts, &between.signed), (single.counts, &single.signed));
        assert_eq!((between.requests, between.size()), (10_000, Some(40.0)));
        assert!((between.sum - single.sum).abs() < 1e-6, "{} {}", between.sum, single.sum);
        // Half a bucket of 45, times the root of the 10,000 roundings, and four times that.
        assert!((between.sum - sum).abs() < 4.0 * 2.3 * 100.0, "{} {sum}", between.sum);
        let read = |text: &str| serde_json::from_str::<Amounts>(text);
        let text = serde_json::to_string(&between).expect("JSON");
        assert_eq!(read(&text).expect("amounts"), between);
        let bad = r#"{"clip":3,"counts":[],"sum":0.0,"signed":{"size":1.0,"below":[[82,1]]}}"#;
        assert!(read(bad).expect_err("82").to_string().contains("no such bucket"));
    }

    #[test]
    fn readings_and_single_amounts_say_the_same() {
        let clip = Clip::new(100.0).expect("a clip");
        let (before, mut after) = ([u32::MAX; AMOUNT_BUCKETS], [u32::MAX; AMOUNT_BUCKETS]);
        let mut single = Amounts::new(clip);
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            let amount = if rng.bool() { 0.0 } else { rng.f64() * 200.0 };
            single.record(amount);
            let count = &mut after[amount_bucket(amount)];
            *count = count.wrapping_add(1);
        }
        let between = Amounts::between(&before, &after, clip);
        assert_eq!((between.counts, between.requests), (single.counts, 10_000));
        assert!((between.sum / single.sum - 1.0).abs() < 0.01, "{} {}", between.sum, single.sum);
    }
}
