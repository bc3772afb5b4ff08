//! The findings of the tests of each kind.

use std::time::Duration;

use super::{
    super::{
        amount::{AmountTest, Clip, Tolerated, Total},
        bet::Tolerance,
        counts::{Arms, Counted, Tally},
        engine::Engine,
        grid::Component,
        latency::{LatencyTest, Quantile, Span},
        recovery::{Players, Recovery},
    },
    Counts, Finding, Mean, Metric, Numbers, Rate, known,
};

impl Finding {
    /// The finding of a test of a rate, of the named `route` if there is one; `began` is the
    /// beginning of the comparison, in the caller's time. Also for an endpoint, whose baseline are
    /// its peers.
    pub fn of_rate(metric: Metric, route: Option<String>, test: &Engine, began: Duration) -> Self {
        let Tolerance { ratio, excess } = test.settings().tolerance;
        let of = Self::of(metric, test, began, |counts| Numbers::Errors {
            counts,
            tolerated_ratio: ratio,
            tolerated_excess: excess,
        });
        Self { route, ..of }
    }

    /// The finding of the recovery of players.
    pub fn of_recovery(test: &Recovery) -> Self {
        let rate = |players: Players| Tally::new(players.asked, players.recovered).into();
        let Arms { canary, baseline } = test.players();
        Self {
            metric: Metric::Recovery,
            amount: None,
            route: None,
            log_evidence: known(test.evidence_so_far()),
            component: None,
            onset_s: None,
            numbers: Numbers::Recovery { canary: rate(canary), baseline: rate(baseline) },
        }
    }

    /// The finding of a test of latency.
    pub fn of_latency(test: &LatencyTest, began: Duration) -> Self {
        let metric = match test.span() {
            Span::Head => test.quantile().into(),
            Span::Whole => match test.quantile() {
                Quantile::P95 => Metric::WholeP95,
                Quantile::P99 => Metric::WholeP99,
            },
        };
        let slow_ms = test.thresholds().map(|t| (ms(t.canary), ms(t.baseline)));
        Self::of(metric, test.engine(), began, |counts| Numbers::Latency {
            counts,
            canary_slow_ms: slow_ms.map(|(canary, _)| canary),
            baseline_slow_ms: slow_ms.map(|(_, baseline)| baseline),
            tolerated_factor: test.tolerated().factor(),
            tolerated_ms: ms(test.tolerated().absolute()),
        })
    }

    /// The finding of a test of the amount `name`.
    pub fn of_amount(name: &str, test: &AmountTest, began: Duration) -> Self {
        let Arms { canary, baseline } = test.total_since_onset();
        let means = canary.mean().zip(baseline.mean());
        let clipped_at = test.clip().map(Clip::amount);
        let numbers = match test.tolerated() {
            Tolerated::Ratio(tolerated_ratio) => Numbers::Amount {
                canary: canary.into(),
                baseline: baseline.into(),
                ratio: means.filter(|(_, b)| *b > 0.0).map(|(canary, baseline)| canary / baseline),
                clipped_at,
                tolerated_ratio,
            },
            Tolerated::Difference(tolerated_difference) => Numbers::DerivedAmount {
                canary: canary.into(),
                baseline: baseline.into(),
                difference: means.map(|(canary, baseline)| canary - baseline),
                clipped_at,
                tolerated_difference,
            },
        };
        Self {
            metric: test.side().metric(),
            amount: Some(name.to_owned()),
            route: None,
            log_evidence: known(test.log_evidence()),
            component: test.strongest().and_then(|(factor, _)| factor).map(Component::Ratio),
            onset_s: test.strongest().map(|(_, at)| at.saturating_sub(began).as_secs_f64()),
            numbers,
        }
    }

    fn of(
        metric: Metric,
        test: &Engine,
        began: Duration,
        numbers: impl FnOnce(Counts) -> Numbers,
    ) -> Self {
        Self {
            metric,
            amount: None,
            route: None,
            log_evidence: known(test.log_evidence()),
            component: test.component(),
            onset_s: test.onset().map(|(at, _)| at.saturating_sub(began).as_secs_f64()),
            numbers: numbers(Counts::of(test)),
        }
    }
}

impl Counts {
    fn of(test: &Engine) -> Self {
        let Arms { canary, baseline } = test.estimate().total();
        let recent = test.onset().map_or(Counted::default(), |(_, counts)| counts);
        Self {
            canary: canary.into(),
            baseline: baseline.into(),
            ratio: test.estimate().ratio(),
            ratio_interval: test.estimate().ratio_interval(test.dispersion()),
            canary_since_onset: recent.trials.canary.into(),
            baseline_since_onset: recent.trials.baseline.into(),
            canary_requests: recent.requests.canary.into(),
            baseline_requests: recent.requests.baseline.into(),
        }
    }
}

impl From<Quantile> for Metric {
    fn from(quantile: Quantile) -> Self {
        match quantile {
            Quantile::P95 => Self::LatencyP95,
            Quantile::P99 => Self::LatencyP99,
        }
    }
}

impl From<Tally> for Rate {
    fn from(tally: Tally) -> Self {
        Self { requests: tally.trials(), failures: tally.failures(), rate: tally.rate() }
    }
}

impl From<Total> for Mean {
    fn from(total: Total) -> Self {
        Self { requests: total.requests, mean: total.mean() }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
