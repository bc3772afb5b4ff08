//! Least in flight of two random choices (Mitzenmacher 2001).
//!
//! Two random endpoints are compared rather than all of them: the maximum load stays within a
//! constant of the best possible, no worker herds onto the one endpoint that looks idle, and the
//! cost does not grow with the number of endpoints. Counts are the worker's own: sharing them would
//! write a shared cache line per request, and each worker alone sees a fair sample of its
//! endpoints' speed.

/// Chooses one of `endpoints` endpoints and returns its number; `None` if there are none.
///
/// `in_flight` returns the load of an endpoint, `share` its relative share from 0 to 256, and
/// `random` 64 random bits.
pub fn choose(
    endpoints: usize,
    in_flight: impl Fn(usize) -> u64,
    share: impl Fn(usize) -> u32,
    random: impl FnOnce() -> u64,
) -> Option<usize> {
    match endpoints {
        0 => None,
        1 => Some(0),
        n => {
            let bits = random();
            let first = scale(bits as u32, n);
            let second = (first + 1 + scale((bits >> 32) as u32, n - 1)) % n;
            let (chosen, other) = match in_flight(second) < in_flight(first) {
                true => (second, first),
                false => (first, second),
            };
            let (own, others) = (share(chosen), share(other));
            Some(if own < others && passes_on(own, others, bits) { other } else { chosen })
        }
    }
}

/// Whether a choice of the smaller share goes to the other endpoint: with probability `1 - own /
/// others`. Uses the lowest bits, on which the numbers of the endpoints depend least.
#[cold]
fn passes_on(own: u32, others: u32, bits: u64) -> bool {
    (bits as u32 & 0xFF) * others >= own * 256
}

/// A number below `n` from 32 random bits, without division (Lemire 2019; the bias is below n /
/// 2^32).
fn scale(bits: u32, n: usize) -> usize {
    ((u64::from(bits) * n as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn none_and_one() {
        assert_eq!(choose(0, |_| 0, |_| 256, || 7), None);
        assert_eq!(choose(1, |_| 9, |_| 256, || 7), Some(0));
    }

    #[test]
    fn load_evens_out() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut load = [0u64; 10];
        for _ in 0..100_000 {
            let at = choose(10, |n| load[n], |_| 256, || rng.u64(..)).expect("an endpoint");
            load[at] += 1;
        }
        let (min, max) = (load.iter().min().expect("ten"), load.iter().max().expect("ten"));
        assert!(max - min <= 8, "two choices keep ten endpoints within a few: {load:?}");
    }

    #[test]
    fn a_smaller_share_gets_as_much_less() {
        let mut rng = fastrand::Rng::with_seed(2);
        for share in [0, 26, 64, 128, 192, 256] {
            let shares = [256, share, 256, 256];
            let mut got = [0u32; 4];
            for _ in 0..100_000 {
                got[choose(4, |_| 0, |n| shares[n], || rng.u64(..)).expect("one")] += 1;
            }
            let (part, whole) = (f64::from(got[1]), f64::from(share) / 256.0 * 25_000.0);
            assert!((part - whole).abs() < 500.0, "{share}: {got:?}");
        }
        // Endpoints with equal small shares get equal parts.
        let mut got = [0u32; 3];
        for _ in 0..30_000 {
            got[choose(3, |_| 0, |_| 26, || rng.u64(..)).expect("one")] += 1;
        }
        assert!(got.iter().all(|n| n.abs_diff(10_000) < 400), "{got:?}");
    }

    proptest! {
        #[test]
        fn the_choice_exists_and_is_no_worse_than_both(
            loads in prop::collection::vec(0u64..5, 1..20), bits: u64,
        ) {
            let at = choose(loads.len(), |n| loads[n], |_| 256, || bits).expect("an endpoint");
            prop_assert!(at < loads.len());
            // With two usable endpoints both are compared, so the busier one never wins.
            if loads.len() == 2 {
                prop_assert_eq!(loads[at], loads[0].min(loads[1]));
            }
        }
    }
}
