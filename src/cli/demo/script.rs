//! The plan: which weight v42 has when, and what is said about it. Pure; time is an argument.
//!
//! It begins at weight 0, so that the first growth is seen as one: players move, rather than begin.

use std::time::Duration;

/// Weight of v42 at each step; v41 has the rest of 100.
pub(super) const WEIGHTS: [u8; 4] = [0, 1, 5, 25];

/// The steps and their length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Script {
    step_length: Duration,
}

/// A moment of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Index into [`WEIGHTS`].
    pub(super) step: usize,
    /// Until the next step, or the end.
    pub(super) left: Duration,
    /// How far this step is, 0 to 1,000.
    pub(super) permille: u16,
}

impl Script {
    /// A plan whose steps are `step_length` long, which must not be zero.
    pub(super) fn new(step_length: Duration) -> Self {
        Self { step_length }
    }

    /// Where the plan is after `elapsed`; nothing once it is over.
    pub(super) fn at(self, elapsed: Duration) -> Option<Moment> {
        let length = self.step_length.as_micros();
        let step = elapsed.as_micros() / length;
        let gone = elapsed.as_micros() % length;
        let step = usize::try_from(step).ok().filter(|step| *step < WEIGHTS.len())?;
        let left = Duration::from_micros((length - gone) as u64);
        Some(Moment { step, left, permille: (gone * 1000 / length) as u16 })
    }
}

/// What happens in a step, for the title.
pub(super) fn title(step: usize) -> String {
    match WEIGHTS[step] {
        0 => "v42 is there; everybody plays on v41".to_owned(),
        weight if step + 1 == WEIGHTS.len() => format!("v42 takes {weight} % of the players"),
        weight => format!("v42 grows to {weight} % of the players"),
    }
}

/// Players that v42 is expected to have at `weight`, of `players`, and two standard deviations of a
/// random draw: 19 of 20 draws lie within.
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
        assert_eq!(at(28_000), None);
    }

    #[test]
    fn weights_only_grow_and_every_step_has_a_title() {
        assert!(WEIGHTS.is_sorted_by(|a, b| a < b));
        for (step, weight) in WEIGHTS.iter().enumerate().skip(1) {
            assert!(title(step).contains(&format!("{weight} %")), "{}", title(step));
        }
    }

    #[test]
    fn expectation_is_that_of_a_binomial_draw() {
        assert_eq!(expected(0, 400), (0.0, 0.0));
        let (mean, spread) = expected(25, 400);
        assert!((mean - 100.0).abs() < 1e-9 && (spread - 17.32).abs() < 0.01);
    }
}
