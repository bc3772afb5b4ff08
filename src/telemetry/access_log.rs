//! One JSON line per request, or per sampled request.
//!
//! A worker formats into its own [`Lines`] and hands them over whole, on the tick that also hands
//! over its samples. One thread writes them. A disk or a pipe that does not keep up costs lines,
//! never a request: a full queue drops the batch and counts its lines.
//!
//! Paths are logged without their query, which may carry what nobody should keep; the caller sees
//! to it.

mod json;
mod line;
mod writer;

pub use line::{Entry, Lines};
pub use writer::{AccessLog, Lost, Sender};

use crate::config::units::Share;

/// Whether a request is logged, by a random number of its own.
pub fn sampled(share: Share, random: u64) -> bool {
    // 53 bits are what a fraction holds exactly, so 100 % takes all and 0 % none.
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
