//! One JSON line per request, or per sampled request.
//!
//! A worker formats into its own [`Lines`] and hands them over as a whole, on the tick that also
//! hands over its samples. One thread writes them. A disk or a pipe that does not keep up costs
//! lines, but never delays a request: if the queue is full, the batch is dropped and its lines are
//! counted.
//!
//! Paths are logged without their query, which may contain secrets; the caller removes it.

mod json;
mod line;
mod writer;

pub use line::{Entry, Lines};
pub use writer::{AccessLog, Lost, Sender};

use crate::config::units::Share;

/// Whether a request with the random number `random` is logged.
pub fn sampled(share: Share, random: u64) -> bool {
    // A fraction holds 53 bits exactly, so 100 % selects all and 0 % none.
    ((random >> 11) as f64) < share.0 * (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_taken() {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            assert!(sampled(Share(1.0), random));
            assert!(!sampled(Share(0.0), random));
        }
        let mut random = fastrand::Rng::with_seed(7);
        let taken = (0..100_000).filter(|_| sampled(Share(0.1), random.u64(..))).count();
        assert!((9_500..10_500).contains(&taken), "{taken}");
    }
}
