//! The script: the weights of v42 over time, when it fails, and the titles of the steps. Pure; time
//! is an argument.
//!
//! It begins at weight 0, so that the first growth is visible: players move, rather than begin on
//! v42. The last step is the longest: v42 is ejected in less than a second, and the rest is time to
//! look around.

use std::time::Duration;

use crate::config::{schema::Step, units::Share};

/// Weight of v42 at each step; v41 has the rest of 100.
pub(super) const WEIGHTS: [u8; 4] = [0, 1, 5, 25];

/// Steps: one for each weight, and one in which v42 fails.
pub(super) const STEPS: usize = WEIGHTS.len() + 1;

/// The step in which v42 fails, at the weight of the one before.
pub(super) const FAULT: usize = WEIGHTS.len();

/// Share of requests that v42 fails then, 0 to 1.
pub(super) const FAULT_SHARE: f64 = 0.3;

/// Length of that step, in lengths of the others.
const FAULT_LENGTH: u32 = 3;

/// Least expected faults in that step if v42 is not ejected. About ten decide, and which requests
/// fail is random.
const LEAST_FAULTS: f64 = 40.0;

/// How much longer than a step of the script one of the plan is.
const LATER: Duration = Duration::from_millis(100);

/// Length of each step but the last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Script {
    step_length: Duration,
}

/// A moment of the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Its number, below [`STEPS`].
    pub(super) step: usize,
    /// Time until the next step, or the end.
    pub(super) left: Duration,
    /// Progress of this step, 0 to 1,000.
    pub(super) permille: u16,
}

impl Script {
    /// A script whose steps are `step_length` long, which must not be zero.
    pub(super) fn new(step_length: Duration) -> Self {
        Self { step_length }
    }

    /// Length of each step but the last.
    pub(super) fn step_length(self) -> Duration {
        self.step_length
    }

    /// Length of the script.
    pub(super) fn length(self) -> Duration {
        self.step_length * (WEIGHTS.len() as u32 + FAULT_LENGTH)
    }

    /// The moment after `elapsed`; `None` once the script is over.
    pub(super) fn at(self, elapsed: Duration) -> Option<Moment> {
        let end = self.length();
        let left = end.checked_sub(elapsed).filter(|left| !left.is_zero())?;
        let fault = self.step_length * FAULT_LENGTH;
        let (step, left, length) = if left <= fault {
            (FAULT, left, fault)
        } else {
            let step = elapsed.as_micros() / self.step_length.as_micros();
            let next = self.step_length * (step as u32 + 1);
            (step as usize, next - elapsed, self.step_length)
        };
        let gone = (length - left).as_micros() * 1000 / length.as_micros();
        Some(Moment { step, left, permille: gone as u16 })
    }

    /// Whether v42 gets enough requests to be judged, at a total `rate` per second.
    pub(super) fn lets_judge(self, rate: u32) -> bool {
        let seconds = (self.step_length * FAULT_LENGTH).as_secs_f64();
        let share = f64::from(weight(FAULT)) / 100.0;
        f64::from(rate) * share * FAULT_SHARE * seconds >= LEAST_FAULTS
    }
}

/// The plan of the rollout: the weights above 0, each for a little longer than a step of the script, so that
/// it never runs ahead of it; the last of them until v42 has failed.
pub(super) fn plan(step_length: Duration) -> Vec<Step> {
    let step = |(index, weight): (usize, u8)| Step {
        weight: Share(f64::from(weight) / 100.0),
        least: Some(match index + 1 == FAULT {
            true => step_length * (FAULT_LENGTH + 2),
            false => step_length + LATER,
        }),
        within: None,
        gates: Vec::new(),
        bake: None,
        requests: None,
    };
    let all = WEIGHTS.into_iter().enumerate().skip(1).map(step);
    let last = Step { bake: Some(step_length), least: None, ..step((FAULT, 100)) };
    all.chain([last]).collect()
}

/// Weight of v42 in a step.
pub(super) fn weight(step: usize) -> u8 {
    WEIGHTS[step.min(WEIGHTS.len() - 1)]
}

/// The title of a step.
pub(super) fn title(step: usize) -> String {
    match weight(step) {
        0 => "v42 is there; everybody plays on v41".to_owned(),
        _ if step == FAULT => format!("v42 fails {:.0} % of its requests", FAULT_SHARE * 100.0),
        weight if step + 1 == FAULT => format!("v42 takes {weight} % of the players"),
        weight => format!("v42 grows to {weight} % of the players"),
    }
}

/// Damage of a version that fails [`FAULT_SHARE`] of its requests until it has failed five checks,
/// one a minute, after which a delivery controller that queries a metrics store rolls back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Checks {
    /// Failed responses.
    pub(super) faults: f64,
    /// Players who get one or more of them.
    pub(super) players: f64,
}

/// Five checks of one minute.
pub(super) const CHECKS: Duration = Duration::from_secs(5 * 60);

/// The damage during [`CHECKS`] of a version with `players` and `rate` requests per second in
/// total.
pub(super) fn checks(rate: f64, players: usize) -> Checks {
    let (requests, players) = (rate * CHECKS.as_secs_f64(), players as f64);
    let each = if players > 0.0 { requests / players } else { 0.0 };
    Checks {
        faults: requests * FAULT_SHARE,
        players: players * (1.0 - (1.0 - FAULT_SHARE).powf(each)),
    }
}

/// Expected players of v42 at `weight`, of `players`, and two standard deviations of a random draw:
/// 19 of 20 draws are within.
pub(super) fn expected(weight: u8, players: usize) -> (f64, f64) {
    let (share, players) = (f64::from(weight) / 100.0, players as f64);
    (share * players, 2.0 * (share * (1.0 - share) * players).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_one_another_and_end() {
        let script = Script::new(Duration::from_secs(7));
        let at = |millis| script.at(Duration::from_millis(millis));
        let left = Duration::from_secs(7);
        assert_eq!(at(0), Some(Moment { step: 0, left, permille: 0 }));
        let left = Duration::from_millis(1);
        assert_eq!(at(6_999), Some(Moment { step: 0, left, permille: 999 }));
        assert_eq!(at(7_000).map(|m| m.step), Some(1));
        assert_eq!(at(24_500).map(|m| (m.step, m.permille)), Some((3, 500)));
        let left = Duration::from_secs(21);
        assert_eq!(at(28_000), Some(Moment { step: FAULT, left, permille: 0 }));
        assert_eq!(at(38_500).map(|m| (m.step, m.permille)), Some((FAULT, 500)));
        assert_eq!(at(48_999).map(|m| m.left), Some(Duration::from_millis(1)));
        assert_eq!((at(49_000), script.length()), (None, Duration::from_secs(49)));
    }

    #[test]
    fn v42_is_judged_only_where_it_gets_requests_enough() {
        let script = Script::new(Duration::from_secs(1));
        assert!(script.lets_judge(300) && !script.lets_judge(100));
        assert!(Script::new(Duration::from_secs(2)).lets_judge(100));
    }

    #[test]
    fn five_checks_let_through_what_fails_in_five_minutes() {
        let checks = checks(250.0, 100);
        assert_eq!(checks.faults, 22_500.0);
        assert!((checks.players - 100.0).abs() < 1e-9, "750 requests each, and none without harm");
        // One request each, of which 30 of 100 fail.
        assert!((super::checks(1.0, 300).players - 90.0).abs() < 1e-9);
        assert_eq!(super::checks(0.0, 0), Checks { faults: 0.0, players: 0.0 });
    }

    #[test]
    fn the_plan_has_the_weights_of_the_script_and_is_valid() {
        let steps = plan(Duration::from_secs(1));
        let path = crate::config::problem::FieldPath::default();
        let plan = crate::rollout::Plan::new(None, &steps, &path).expect("a plan");
        let shares: Vec<f64> = plan.steps().iter().map(|step| step.weight.0).collect();
        assert_eq!(shares, [0.01, 0.05, 0.25, 1.0]);
        assert!(plan.step(2).least > Some(Duration::from_secs(3)));
    }

    #[test]
    fn weights_only_grow_and_every_step_has_a_title() {
        assert!(WEIGHTS.is_sorted_by(|a, b| a < b));
        for (step, weight) in WEIGHTS.iter().enumerate().skip(1) {
            assert!(title(step).contains(&format!("{weight} %")), "{}", title(step));
        }
        assert_eq!(title(FAULT), "v42 fails 30 % of its requests");
        assert_eq!((weight(FAULT), FAULT + 1), (25, STEPS));
    }

    #[test]
    fn expectation_is_that_of_a_binomial_draw() {
        assert_eq!(expected(0, 400), (0.0, 0.0));
        let (mean, spread) = expected(25, 400);
        assert!((mean - 100.0).abs() < 1e-9 && (spread - 17.32).abs() < 0.01);
    }
}
