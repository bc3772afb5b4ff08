//! The likeliest onset of a fault. Only shown to people, never used to decide.
//!
//! The likeliest onset is where the cumulative sum of a bet's log e-values was lowest (Page 1954):
//! earlier blocks are evidence against the fault, later ones for it. Counts since then show the
//! fault undiluted by the hours before.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::counts::Counted;

/// The likeliest onset of the fault of one bet.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Onset {
    /// Sum of log e-values above its lowest point, in nats.
    rise: f64,
    since: Duration,
    before: Counted,
}

impl Onset {
    /// Records a block that ended at `at` and added `growth` nats; `total` are all counts including
    /// the block. Returns whether the fault, if there is one, begins after this block.
    pub(super) fn note(&mut self, growth: f64, at: Duration, total: Counted) -> bool {
        self.rise += growth;
        let begins_anew = self.rise <= 0.0;
        if begins_anew {
            *self = Self { rise: 0.0, since: at, before: total };
        }
        begins_anew
    }

    /// The end of the last block before the fault.
    pub(super) fn since(&self) -> Duration {
        self.since
    }

    /// The part of `total` since the onset.
    pub(super) fn counts(&self, total: Counted) -> Counted {
        total.after(self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::counts::{Arms, Tally},
        *,
    };

    #[test]
    fn the_lowest_point_is_the_beginning() {
        let mut onset = Onset::default();
        let mut total = Arms::default();
        for (second, growth) in [-0.1, 0.5, -0.2, -0.9, 0.4, -0.1, 2.0].into_iter().enumerate() {
            total += Arms::new(Tally::new(10, u64::from(growth > 0.0)), Tally::new(90, 0));
            let total = Counted { trials: total, requests: total };
            onset.note(growth, Duration::from_secs(second as u64), total);
        }
        assert_eq!(onset.since(), Duration::from_secs(3));
        let counts = onset.counts(Counted { trials: total, requests: total });
        assert_eq!(counts.trials, Arms::new(Tally::new(30, 2), Tally::new(270, 0)));
        assert_eq!(counts.requests, counts.trials);
    }
}
