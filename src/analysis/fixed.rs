//! Bets on a share of bad requests against a fixed bound, by all requests so far.
//!
//! Against "the share is `m`" stand bets that it is `q`; the wealth of one after `n` requests with `k` bad ones is
//!
//! ```text
//! (q / m)^k * ((1 - q) / (1 - m))^(n - k)
//! ```
//!
//! and the mean over the bets exceeds `1 / alpha` with probability at most `alpha`, however often one looks (Ville
//! 1939): with `q > m` if the share is at most `m`, and with `q < m` if it is at least `m`.

/// Bets on a smaller share, as multiples of the bound.
const SMALLER: [f64; 4] = [0.0, 0.25, 0.5, 0.75];

/// Probability that a version beyond a bound is ever said to be within it.
const BETA: f64 = 0.05;

/// The logarithm of the mean wealth of `bets` on other shares than `bound`, all of them more than 0, or 0, and below
/// 1; `bound` is more than 0. `bad` is at most `requests`.
pub fn log_wealth(bound: f64, bets: &[f64], bad: u64, requests: u64) -> f64 {
    let bad = bad.min(requests);
    let (k, good) = (bad as f64, (requests - bad) as f64);
    let one = |q: &f64| {
        // No bad request has the logarithm of 0 as its factor, and no power of it either.
        let of_bad = if bad > 0 { k * (q / bound).ln() } else { 0.0 };
        of_bad + good * ((1.0 - q) / (1.0 - bound)).ln()
    };
    let logs: Vec<f64> = bets.iter().map(one).collect();
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logs.iter().map(|log| (log - most).exp()).sum();
    most + (sum / bets.len() as f64).ln()
}

/// Whether the share of bad requests is certainly below `bound`, more than 0 and below 1.
pub fn is_within(bound: f64, bad: u64, requests: u64) -> bool {
    log_wealth(bound, &SMALLER.map(|factor| factor * bound), bad, requests) >= -BETA.ln()
}

/// Requests after which [`is_within`] is certain if none of them is bad.
pub(super) fn least_requests(bound: f64) -> u64 {
    let (mut low, mut high) = (0, 1);
    while !is_within(bound, 0, high) && high < u64::MAX / 2 {
        (low, high) = (high, 2 * high);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if is_within(bound, 0, middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_requests_are_the_first_that_are_enough() {
        for bound in [1e-6, 0.0001, 0.003, 0.1, 0.9] {
            let least = least_requests(bound);
            assert!(is_within(bound, 0, least) && !is_within(bound, 0, least - 1), "{bound}");
            assert!(!is_within(bound, 1, least), "{bound}: with a bad one it takes more");
        }
        assert!((1_000..1_500).contains(&least_requests(0.003)));
    }
}
