//! Do the players per version agree with the weights? If not, something other than the split decides who
//! gets which version, and the versions' players cannot be compared.
//!
//! The test is sequential: the players seen so far are the draws of a multinomial distribution with the
//! weights as probabilities `w`. Against it stands the mixture of all others, with a Dirichlet prior around
//! `w`: parameters `a_i = 1000 w_i`, a deviation of about 0.7 percentage points at 5 %. The wealth after
//! `x_i` players is the Bayes factor
//!
//! ```text
//! B(a + x) / B(a) / product of w_i^x_i,     B(a) = product of Gamma(a_i) / Gamma(sum of a_i)
//! ```
//!
//! which exceeds `1 / alpha` with probability at most `alpha` over any number of looks (Lindon and Malek,
//! *Anytime-valid inference for multinomial count data*, NeurIPS 2022, section on sample ratio mismatch).
//! A chi-square test would have to be done once, at a number of players fixed before.
//!
//! Rejected: requests instead of players. Requests of one player are not independent.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Probability that a split which follows its weights is ever reported, per split: per step of a rollout.
pub const RATIO_ALPHA: f64 = 0.0005;

/// How close to the weights the alternatives are: the sum of the parameters of the prior.
const CONCENTRATION: f64 = 1000.0;

/// Share of players seen on two versions without cause that is tolerated: keys that are shared or change.
const MOVED: f64 = 0.001;

/// A version of a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// The version.
    pub version: String,
    /// Its weight, on any scale. Versions of weight 0 are left out of the test: only rules and pins lead there.
    pub weight: f64,
    /// Distinct players whom the split sent there since the weights were set; those of rules and pins are not
    /// counted.
    pub players: u64,
}

/// A warning: players do not go where the weights send them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mismatch {
    /// The numbers of players do not agree with the weights.
    Ratio {
        /// The versions with weight.
        arms: Vec<Arm>,
        /// Evidence against the weights, in nats.
        log_evidence: f64,
        /// Evidence that suffices.
        log_threshold: f64,
    },
    /// Players were seen on two versions without cause: no change of weights, ejection, pin or rule.
    Moved {
        /// Those players.
        moved: u64,
        /// All players.
        players: u64,
    },
}

/// Compares players per version with the weights, since these were set.
pub fn sample_ratio(arms: &[Arm]) -> Option<Mismatch> {
    let arms: Vec<Arm> = arms.iter().filter(|arm| arm.weight > 0.0).cloned().collect();
    let sum: f64 = arms.iter().map(|arm| arm.weight).sum();
    let players: u64 = arms.iter().map(|arm| arm.players).sum();
    if arms.len() < 2 || players == 0 || !sum.is_finite() {
        return None;
    }
    let mut log_evidence = ln_gamma(CONCENTRATION) - ln_gamma(CONCENTRATION + players as f64);
    for arm in &arms {
        let (w, x) = (arm.weight / sum, arm.players as f64);
        let a = CONCENTRATION * w;
        log_evidence += ln_gamma(a + x) - ln_gamma(a) - x * w.ln();
    }
    let log_threshold = -RATIO_ALPHA.ln();
    (log_evidence >= log_threshold).then_some(Mismatch::Ratio { arms, log_evidence, log_threshold })
}

/// Judges `moved` players, of `players`, who were seen on two versions although neither weights, ejections, pins
/// nor rules changed. A split never moves a player by itself, so more than one in a thousand has a cause that
/// makes the comparison wrong: a cohort key that changes, or is shared.
pub fn players_moved(moved: u64, players: u64) -> Option<Mismatch> {
    (moved as f64 > MOVED * players as f64).then_some(Mismatch::Moved { moved, players })
}

impl Mismatch {
    #[cfg(test)]
    pub(super) fn of_moved(moved: u64, players: u64) -> Self {
        Self::Moved { moved, players }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ratio { arms, log_evidence, log_threshold } => {
                let (players, sum) = arms.iter().fold((0, 0.0), |(players, sum), arm| {
                    (players + arm.players, sum + arm.weight)
                });
                f.write_str("players do not follow the weights: ")?;
                for (nth, arm) in arms.iter().enumerate() {
                    let share = 100.0 * arm.players as f64 / players.max(1) as f64;
                    let expected = 100.0 * arm.weight / sum;
                    let comma = if nth > 0 { ", " } else { "" };
                    let (version, seen) = (&arm.version, arm.players);
                    write!(
                        f,
                        "{comma}{version} has {seen} ({share:.2} %, expected {expected:.2} %)"
                    )?;
                }
                write!(
                    f,
                    "; evidence of {log_evidence:.1} nats, where {log_threshold:.1} suffice; {KEY}, or something in \
                     front of the proxy chooses the version"
                )?;
            }
            Self::Moved { moved, players } => write!(
                f,
                "{moved} of {players} players were seen on two versions without cause; `cohort` or `rules` have \
                 changed since the step began, or {KEY}"
            )?,
        }
        write!(f, "; {GO_ON}")
    }
}

/// What is wrong with the key, most likely, and how to see it.
const KEY: &str = "the key of `cohort` is missing in many requests, is shared by players, or is set by the versions \
                   themselves (the field `cohort` of the access log says which key each request had)";

/// What to do.
const GO_ON: &str = "put it right, or `promote` with a reason goes on without this evidence";

/// The logarithm of the gamma function of `x > 0`, by Stirling's series from 10 on (Abramowitz and Stegun
/// 6.1.41), with an error below 1e-10.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut product) = (x, 1.0);
    while x < 10.0 {
        product *= x;
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series =
        inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - f64::ln(product)
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    fn arms(of: &[(&str, f64, u64)]) -> Vec<Arm> {
        of.iter()
            .map(|(v, weight, players)| Arm {
                version: (*v).to_owned(),
                weight: *weight,
                players: *players,
            })
            .collect()
    }

    #[test]
    fn the_gamma_function_is_that_of_the_tables() {
        for (x, expected) in [
            (1.0, 0.0),
            (0.5, 0.572_364_942_924_700_1),
            (5.0, 24.0_f64.ln()),
            (10.0, 362_880.0_f64.ln()),
            (1000.0, 5_905.220_423_209_181),
        ] {
            assert!((ln_gamma(x) - expected).abs() < 1e-9, "{x}: {}", ln_gamma(x));
        }
    }

    #[test]
    fn a_ratio_that_is_off_is_told_with_its_numbers() {
        assert_eq!(sample_ratio(&arms(&[("v41", 95.0, 9_500), ("v42", 5.0, 500)])), None);
        assert_eq!(sample_ratio(&arms(&[("v41", 95.0, 0), ("v42", 0.0, 500)])), None);
        assert_eq!(sample_ratio(&[]), None);
        let off =
            sample_ratio(&arms(&[("v41", 95.0, 9_300), ("v42", 5.0, 700)])).expect("a warning");
        assert_eq!(
            off.to_string(),
            "players do not follow the weights: v41 has 9300 (93.00 %, expected 95.00 %), v42 has 700 \
             (7.00 %, expected 5.00 %); evidence of 33.2 nats, where 7.6 suffice; the key of `cohort` is missing \
             in many requests, is shared by players, or is set by the versions themselves (the field `cohort` of \
             the access log says which key each request had), or something in front of the proxy chooses the \
             version; put it right, or `promote` with a reason goes on without this evidence"
        );
        assert_eq!(players_moved(10, 10_000), None);
        assert_eq!(players_moved(0, 0), None);
        let moved = players_moved(11, 10_000).expect("a warning").to_string();
        assert!(
            moved.starts_with(
                "11 of 10000 players were seen on two versions without cause; `cohort` or"
            ) && moved.ends_with(
                "; put it right, or `promote` with a reason goes on without this evidence"
            ),
            "{moved}"
        );
    }

    /// Of `runs` splits that give the second of two versions `share` where its weight says `weight`, those
    /// that are ever reported, with a look after each hundred of 20,000 players.
    fn reported(weight: f64, share: f64, runs: u32) -> u32 {
        let mut rng = Rng::with_seed(11);
        let mut is_reported = || {
            let (mut one, mut two) = (0, 0);
            (0..200).any(|_| {
                let of_two = (0..100).filter(|_| rng.f64() < share).count() as u64;
                (one, two) = (one + 100 - of_two, two + of_two);
                sample_ratio(&arms(&[("a", 1.0 - weight, one), ("b", weight, two)])).is_some()
            })
        };
        (0..runs).filter(|_| is_reported()).count() as u32
    }

    #[test]
    fn a_split_that_follows_its_weights_is_rarely_reported_and_another_one_is() {
        assert!(reported(0.05, 0.05, 400) <= 2);
        assert!(reported(0.5, 0.5, 200) <= 1);
        assert!(reported(0.05, 0.06, 50) >= 45);
        assert!(reported(0.5, 0.53, 50) >= 45);
    }
}
