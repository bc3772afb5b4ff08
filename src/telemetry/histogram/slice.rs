//! Five seconds of values, packed.
//!
//! A closed slice is read once, when it expires, so it is kept as bytes: for each bin with values
//! the distance from the previous one and, unless it is one, the count, as LEB128. Most bins of a
//! real latency distribution are close to their neighbor and hold few values: they take one or two
//! bytes each, whereas a dense slice takes four for every bin.

/// The values of one slice.
#[derive(Debug)]
pub(super) struct Slice {
    /// Number of the five seconds.
    pub(super) slot: u32,
    /// Exact sum of the values.
    pub(super) sum_us: u64,
    bytes: Box<[u8]>,
}

/// Quantiles of the values of one slice, in microseconds, to three significant digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceQuantiles {
    /// Number of the slice.
    pub(super) slot: u32,
    /// Number of values, at least 1, saturating.
    pub count: u32,
    /// Half of the values were at most this.
    pub p50_us: u32,
    /// 95 % of the values were at most this.
    pub p95_us: u32,
    /// 99 % of the values were at most this.
    pub p99_us: u32,
}

impl Slice {
    /// Quantiles by nearest rank, each the greatest value of its bin.
    pub(super) fn quantiles(&self) -> SliceQuantiles {
        let total: u64 = self.values().map(|(_, count)| u64::from(count)).sum();
        let ranks = [50, 95, 99].map(|percent| (total * percent).div_ceil(100).max(1));
        let (mut found, mut seen, mut next) = ([0; 3], 0, 0);
        for (value_us, count) in self.values() {
            seen += u64::from(count);
            while next < ranks.len() && seen >= ranks[next] {
                let greatest = self::value_us(code(value_us) + 1) - 1;
                found[next] = u32::try_from(greatest).unwrap_or(u32::MAX);
                next += 1;
            }
        }
        let [p50_us, p95_us, p99_us] = found;
        let count = u32::try_from(total).unwrap_or(u32::MAX);
        SliceQuantiles { slot: self.slot, count, p50_us, p95_us, p99_us }
    }

    /// Packs values, given in rising order with their counts.
    pub(super) fn pack(
        slot: u32,
        sum_us: u64,
        values_us: impl Iterator<Item = (u64, u32)>,
    ) -> Self {
        let mut bytes = Vec::new();
        let mut last = 0;
        for (value_us, count) in values_us {
            let code = code(value_us);
            let one = count == 1;
            push(&mut bytes, ((code - last) << 1) | u32::from(one));
            if !one {
                push(&mut bytes, count);
            }
            last = code;
        }
        Self { slot, sum_us, bytes: bytes.into() }
    }

    /// The packed values.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A slice of values up to `most_us` that were packed in another process; `None` if they are malformed.
    pub(super) fn from_bytes(
        slot: u32,
        sum_us: u64,
        bytes: Box<[u8]>,
        most_us: u64,
    ) -> Option<Self> {
        let (mut rest, mut last) = (&*bytes, 0);
        while !rest.is_empty() {
            let step = checked_pull(&mut rest)?;
            last += u64::from(step >> 1);
            if last > u64::from(code(most_us)) {
                return None;
            }
            if step & 1 == 0 {
                checked_pull(&mut rest)?;
            }
        }
        Some(Self { slot, sum_us, bytes })
    }

    /// Unpacks the values, each as the least of its bin.
    pub(super) fn values(&self) -> impl Iterator<Item = (u64, u32)> {
        let mut rest = self.bytes.iter();
        let mut code = 0;
        std::iter::from_fn(move || {
            let step = pull(&mut rest)?;
            code += step >> 1;
            let count = if step & 1 == 1 { 1 } else { pull(&mut rest)? };
            Some((value_us(code), count))
        })
    }
}

/// The bin of a value as a small floating-point number: an exponent above ten bits of mantissa.
/// This is the layout of an HDR histogram of three digits, so packing loses nothing.
fn code(value_us: u64) -> u32 {
    let shift = 53 - (value_us | 0x7ff).leading_zeros();
    (shift << 10) + (value_us >> shift) as u32
}

/// The least value of a bin.
fn value_us(code: u32) -> u64 {
    let shift = (code >> 10).saturating_sub(1);
    u64::from(code - (shift << 10)) << shift
}

/// Appends a number, seven bits a byte, the lowest first.
fn push(bytes: &mut Vec<u8>, mut number: u32) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn pull(bytes: &mut std::slice::Iter<'_, u8>) -> Option<u32> {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let byte = *bytes.next()?;
        number |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(number)
}

/// As [`pull`], of bytes that may be malformed.
fn checked_pull(rest: &mut &[u8]) -> Option<u32> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let (byte, more) = rest.split_first()?;
        *rest = more;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(number).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hdrhistogram::Histogram;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_packed_comes_back_by_bin(
            counts in prop::collection::btree_map(
                (0u32..26, any::<u64>()).prop_map(|(bits, noise)| (1 << bits) | (noise % (1 << bits))),
                prop_oneof![Just(1u32), 1u32.., 1u32..300],
                0..100,
            ),
        ) {
            let mut layout = Histogram::<u32>::new(3).expect("three digits");
            layout.auto(true);
            layout.record(60_000_000).expect("it grows");
            let mut by_bin = BTreeMap::new();
            for (value_us, count) in counts {
                by_bin.insert(layout.lowest_equivalent(value_us), count);
            }
            let highest = |value_us| layout.highest_equivalent(value_us);
            let slice = Slice::pack(0, 0, by_bin.iter().map(|(v, n)| (highest(*v), *n)));
            prop_assert_eq!(slice.values().collect::<Vec<_>>(), Vec::from_iter(by_bin));
        }
    }
}
