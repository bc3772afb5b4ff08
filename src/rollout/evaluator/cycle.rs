//! When players who were bad count anew.
//!
//! A player fails once per cycle, so a cycle must end while enough are left who can fail: when a quarter of
//! those who asked in it were bad, and ten seconds have passed. That is a function of what both versions
//! did before, so it favors neither. A lasting minority is counted once per cycle, in which a quarter of all
//! players is: the excess that it makes is its share of the canary's players over a quarter.

use std::time::Duration;

use crate::{registry::Spent, snapshot::Stratum};

/// Least length of a cycle.
const LEAST: Duration = Duration::from_secs(10);
/// Part of the players who asked that ends it, once they were bad.
const FULL: f64 = 0.25;
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// The cycles of a stratum, each kind of badness in one of its own.
#[derive(Debug)]
pub(super) struct Cycles {
    /// When each began: failed, unserved, refused, the four of latency, for each stratum and named route.
    began: Vec<Duration>,
    paid: Duration,
    looked: Duration,
}

impl Cycles {
    pub(super) fn new(now: Duration) -> Self {
        Self { began: Vec::new(), paid: now, looked: now }
    }

    /// Begins all of them, as with a new comparison.
    pub(super) fn begin(&mut self, stratum: &Stratum, now: Duration) {
        sets(stratum).for_each(|(spent, _)| spent.clear());
        stratum.arms.iter().for_each(|arm| arm.attempts.failed.clear());
        stratum.state.paid.clear();
        *self = Self::new(now);
    }

    /// Begins those that are over.
    pub(super) fn poll(&mut self, stratum: &Stratum, now: Duration) {
        if now.saturating_sub(self.looked) < LOOK {
            return;
        }
        self.looked = now;
        for (number, (spent, of)) in sets(stratum).enumerate() {
            if self.began.len() <= number {
                self.began.push(now);
            }
            if now.saturating_sub(self.began[number]) < LEAST {
                continue;
            }
            let (bad, _) = spent.players();
            let (_, active) = of.players();
            if f64::from(bad) > FULL * f64::from(active) {
                spent.clear();
                self.began[number] = now;
                if number == 0 {
                    stratum.arms.iter().for_each(|arm| arm.attempts.failed.clear());
                }
            }
        }
        // An amount counts once in so long, whoever plays how often.
        if now.saturating_sub(self.paid) >= LEAST {
            self.paid = now;
            stratum.state.paid.clear();
        }
    }
}

/// Each set, and the one that tells who asked.
fn sets(stratum: &Stratum) -> impl Iterator<Item = (&Spent, &Spent)> {
    let named = stratum.named.iter().map(|named| &*named.state);
    std::iter::once(&*stratum.state).chain(named).flat_map(|state| {
        let errors = [&state.failed, &state.unserved, &state.refused];
        let slow = state.slow().each_ref().map(|slow| (slow, slow));
        errors.map(|spent| (spent, &state.failed)).into_iter().chain(slow)
    })
}
