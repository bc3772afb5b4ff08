//! Blocks of one amount, of a canary and its baseline.

use serde::{Deserialize, Serialize};

use crate::{
    analysis::{AMOUNT_BUCKETS, Amounts, Arms, Clip},
    registry::AmountEvidenceState,
    snapshot::Stratum,
};

/// Sums of the amounts of one version so far, over all workers: amounts of zero and more, and negative ones, by
/// absolute value, if they are possible.
#[derive(Debug)]
struct Sums {
    above: Box<[u32; AMOUNT_BUCKETS]>,
    below: Option<Box<[u32; AMOUNT_BUCKETS]>>,
}

/// The scale of an amount.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Scale {
    clip: Clip,
    /// Mean absolute value in the baseline, needed for amounts that may be negative.
    size: f64,
}

/// The sums at the start of the open block.
#[derive(Debug)]
pub(super) struct Seen {
    /// Number of the amount in the limits.
    number: usize,
    sums: Arms<Sums>,
    /// From the baseline's amounts before the canary began, or, if these are too few, before the first block
    /// that is compared. The scale is then fixed: means with different clips are not comparable.
    scale: Option<Scale>,
}

impl Seen {
    pub(super) fn new(stratum: &Stratum, arms: Arms<u16>, number: usize) -> Self {
        let sums = read(stratum, arms, number);
        Self { number, scale: scale(&sums), sums }
    }

    /// The scale of the amounts, if it is known.
    pub(super) fn scale(&self) -> Option<Scale> {
        self.scale
    }

    /// Continues in the `scale` of another process.
    pub(super) fn resume(&mut self, scale: Option<Scale>) {
        self.scale = scale;
    }

    /// Closes the open block and begins the next one; `None` while the clip is unknown.
    pub(super) fn close(&mut self, stratum: &Stratum, arms: Arms<u16>) -> Option<Arms<Amounts>> {
        let after = read(stratum, arms, self.number);
        let before = std::mem::replace(&mut self.sums, after);
        let of = |before: &Sums, after: &Sums, scale| between(before, after, scale);
        let block = self.scale.map(|scale| {
            Arms::new(
                of(&before.canary, &self.sums.canary, scale),
                of(&before.baseline, &self.sums.baseline, scale),
            )
        });
        self.scale = self.scale.or_else(|| scale(&self.sums));
        block
    }

    /// Discards the open block, because the weights changed during it.
    pub(super) fn skip(&mut self, stratum: &Stratum, arms: Arms<u16>) {
        self.sums = read(stratum, arms, self.number);
    }
}

fn between(before: &Sums, after: &Sums, Scale { clip, size }: Scale) -> Amounts {
    match (&before.below, &after.below) {
        (Some(b), Some(a)) => {
            Amounts::between_signed([&before.above, &after.above], [b, a], clip, size)
        }
        _ => Amounts::between(&before.above, &after.above, clip),
    }
}

fn scale(Arms { baseline, .. }: &Arms<Sums>) -> Option<Scale> {
    let mut counts = [0; AMOUNT_BUCKETS];
    for sums in std::iter::once(&baseline.above).chain(&baseline.below) {
        for (count, sum) in counts.iter_mut().zip(sums.iter()) {
            *count += u64::from(*sum);
        }
    }
    Clip::of_baseline(&counts).map(|clip| Scale { clip, size: clip.mean(&counts) })
}

fn read(stratum: &Stratum, arms: Arms<u16>, number: usize) -> Arms<Sums> {
    let of = |version: u16| {
        let arm = &stratum.arms[usize::from(version)].amounts[number];
        let sums = |evidence: &AmountEvidenceState| {
            let mut sums = Box::new([0; AMOUNT_BUCKETS]);
            evidence.cells.iter().for_each(|cells| cells.add_to(&mut sums));
            sums
        };
        Sums { above: sums(&arm.evidence), below: arm.below.as_deref().map(sums) }
    };
    Arms::new(of(arms.canary), of(arms.baseline))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        analysis::{Answer, Comparison, Limits},
        config::{schema::Eject, units::Share},
        registry::Registry,
        snapshot::{AmountArm, Arm},
    };

    const ARMS: Arms<u16> = Arms { canary: 1, baseline: 0 };

    fn stratum(derived: bool) -> Stratum {
        let registry = Registry::new(2);
        let amounts = Some([("payout".to_owned(), Share(0.05))].into_iter().collect());
        let eject = Eject { amounts, warm_up: Some(Duration::ZERO), ..Eject::default() };
        let arms = [0, 1].map(|version| Arm {
            attempts: registry.evidence(version, None),
            amounts: Box::new([AmountArm {
                number: 0,
                evidence: registry.amount_evidence(version, None, "x-payout"),
                below: derived.then(|| registry.amount_evidence(version, None, "below")),
            }]),
        });
        let mut limits = Limits::of(&eject, &Eject::default(), 1e-3);
        limits.amounts[0].derived = derived;
        Stratum {
            route: None,
            limits,
            slo: Default::default(),
            deadline: None,
            state: registry.stratum("game-api", None),
            networks: false,
            arms: arms.into(),
            named: Box::default(),
        }
    }

    /// Lets `version` answer `requests` requests, half of which pay `factor` times 10 on average.
    fn serve(stratum: &Stratum, version: u16, requests: u32, factor: f64, rng: &mut fastrand::Rng) {
        let amount = &stratum.arms[usize::from(version)].amounts[0];
        for _ in 0..requests {
            let paid = if rng.bool() { -10.0 * factor * (1.0 - rng.f64()).ln() } else { 0.0 };
            // For a derived amount, 8 is kept of each request.
            let carried = if amount.below.is_some() { 8.0 - paid } else { paid };
            amount.record(rng.usize(..2), carried, || rng.f64());
        }
    }

    /// Runs a canary that pays `factor` times as much. Returns the seconds until it failed, and its comparison.
    fn run(
        derived: bool,
        factor: f64,
        seconds: u64,
        rng: &mut fastrand::Rng,
    ) -> (Option<u64>, Comparison) {
        let stratum = stratum(derived);
        let mut comparison = Comparison::new(stratum.limits.clone(), 1.0, Duration::ZERO);
        let mut seen = Seen::new(&stratum, ARMS, 0);
        for second in 1..=seconds {
            serve(&stratum, 0, 900, 1.0, rng);
            serve(&stratum, 1, 100, factor, rng);
            if let Some(Arms { canary, baseline }) = seen.close(&stratum, ARMS) {
                let now = Duration::from_secs(second);
                comparison.observe_amounts(0, Arms::new(&canary, &baseline), now);
            }
            if comparison.answer() == Answer::Fail {
                return (Some(second), comparison);
            }
        }
        (None, comparison)
    }

    #[test]
    fn a_canary_that_pays_too_much_or_nothing_is_found_by_what_the_cells_hold() {
        let mut rng = fastrand::Rng::with_seed(3);
        for (derived, factor, gate) in [
            (false, 1.5, "amount_high.payout"),
            (false, 0.0, "amount_low.payout"),
            (true, 2.0, "amount_low.payout"),
            (true, 0.0, "amount_high.payout"),
        ] {
            let (second, comparison) = run(derived, factor, 60, &mut rng);
            assert!(second.is_some_and(|second| second <= 30), "{factor}: {second:?}");
            let verdict = comparison.verdict(Duration::from_secs(60));
            assert_eq!(verdict.findings[0].gate(), gate, "{}", verdict.reason);
        }
    }

    #[test]
    fn equal_canaries_are_not_ejected() {
        let mut rng = fastrand::Rng::with_seed(4);
        for derived in [false, true].repeat(5) {
            let (second, comparison) = run(derived, 1.0, 120, &mut rng);
            assert_eq!(second, None, "{}", comparison.verdict(Duration::from_secs(120)).reason);
            assert!(comparison.log_evidence().is_finite(), "it was compared");
        }
    }

    #[test]
    fn the_first_block_only_sets_the_clip() {
        let (stratum, mut rng) = (stratum(false), fastrand::Rng::with_seed(5));
        let mut seen = Seen::new(&stratum, ARMS, 0);
        serve(&stratum, 0, 100, 1.0, &mut rng);
        assert!(seen.close(&stratum, ARMS).is_none(), "too few to tell");
        serve(&stratum, 0, 2_000, 1.0, &mut rng);
        assert!(seen.close(&stratum, ARMS).is_none(), "learnt from this block");
        serve(&stratum, 1, 7, 1.0, &mut rng);
        let block = seen.close(&stratum, ARMS).expect("it is known where to clip");
        assert_eq!(block.canary.requests(), 7);
        assert_eq!(block.baseline.requests(), 0);
        // A canary that begins later has its clip at once.
        let mut later = Seen::new(&stratum, ARMS, 0);
        assert!(later.close(&stratum, ARMS).is_some());
    }
}
