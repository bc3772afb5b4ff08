//! The baseline's usual rate of failures over the last minutes, for the version that replaces it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::counts::Tally;

/// Half-life of a request's weight.
const HALF_LIFE: Duration = Duration::from_secs(600);

/// Least requests for an estimate.
const LEAST: f64 = 500.0;

/// One-sided confidence of 99.9 %, in standard deviations.
const DEVIATIONS: f64 = 3.09;

/// Requests and failures with exponential decay.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Usual {
    requests: f64,
    failures: f64,
}

impl Usual {
    /// Adds a block that was `length` long.
    pub fn absorb(&mut self, block: Tally, length: Duration) {
        let kept = (-length.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        self.requests = self.requests * kept + block.trials() as f64;
        self.failures = self.failures * kept + block.failures() as f64;
    }

    /// Upper confidence bound of the rate of failures, 0 to 1, for failures in clusters of `phi`
    /// (Wilson 1927); `None` if there are too few requests.
    pub fn most(&self, phi: f64) -> Option<f64> {
        let n = self.requests / phi.max(1.0);
        if n < LEAST {
            return None;
        }
        let (p, z2) = (self.failures / self.requests, DEVIATIONS * DEVIATIONS);
        let spread = DEVIATIONS * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        Some(((p + z2 / (2.0 * n) + spread) / (1.0 + z2 / n)).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_requests_leave_little_room_and_few_leave_all() {
        let mut usual = Usual::default();
        usual.absorb(Tally::new(400, 4), Duration::from_secs(1));
        assert_eq!(usual.most(1.0), None);
        usual.absorb(Tally::new(99_600, 996), Duration::from_secs(1));
        let most = usual.most(1.0).expect("enough");
        assert!((0.0109..0.0111).contains(&most), "{most}");
        assert!(usual.most(10.0).expect("enough") > 0.0130);
        usual.absorb(Tally::default(), Duration::from_secs(6_000));
        assert_eq!(usual.most(1.0), None, "it has faded");
        let mut clean = Usual::default();
        clean.absorb(Tally::new(10_000, 0), Duration::from_secs(1));
        let most = clean.most(1.0).expect("enough");
        assert!((0.0009..0.0010).contains(&most), "{most}");
    }
}
