//! The tolerances of a comparison, with defaults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{bet::Tolerance, certificate::Health, engine::LEAST_FAILURES};
use crate::config::schema::Eject;

/// Tolerated relative excess of requests that are not served; clients also leave for reasons of
/// their own, and failures have a separate test.
const UNSERVED_RELATIVE: f64 = 0.20;
const UNSERVED_ABSOLUTE: f64 = 0.01;
/// How long latency and amounts of a new canary are ignored while its caches and pools fill. Errors
/// count from the first request, since a version that never works must not get half a minute.
const WARM_UP: Duration = Duration::from_secs(30);
const LATENCY_ABSOLUTE: Duration = Duration::from_millis(1);

/// The compared metrics and their tolerances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Tolerated excess of errors; `None` if not compared.
    pub errors: Option<Tolerance>,
    /// Tolerated excess of requests that are not served: failed, or left. `None` if not compared.
    pub unserved: Option<Tolerance>,
    /// Named routes whose errors are also judged separately, by the same tolerance.
    pub routes: Vec<String>,
    /// Tolerated excess of latency at p95, a fraction of the baseline's; `None` if not compared.
    pub p95: Option<f64>,
    /// Likewise, at p99.
    pub p99: Option<f64>,
    /// Additional absolute tolerance of latency, for both quantiles.
    pub latency_absolute: Duration,
    /// Amounts that are compared.
    pub amounts: Vec<AmountLimit>,
    /// Probability of ever ejecting a canary within all tolerances.
    pub alpha: f64,
    /// Least failures of a canary to be ejected for them.
    pub least_failures: u64,
    /// How long latency and amounts of a new canary are not judged.
    pub warm_up: Duration,
    /// Largest gain of a bet in a block, in nats, such as [`super::BURST_CAP`]; `None` for no
    /// limit.
    pub burst_cap: Option<f64>,
    /// The health with which a canary may grow; `None` if it never is certain.
    pub health: Option<Health>,
}

/// Tolerance of an amount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmountLimit {
    /// Its name.
    pub name: String,
    /// Tolerated difference of its mean in both directions, as a fraction of the baseline's, below
    /// 1; for a derived amount, of the mean absolute value of the baseline's amounts.
    pub tolerance: f64,
    /// Whether it is derived from others, and may be negative.
    #[serde(default)]
    pub derived: bool,
}

impl Limits {
    /// Whether latency is compared at any quantile.
    pub fn compares_latency(&self) -> bool {
        self.p95.is_some() || self.p99.is_some()
    }

    /// Whether `other` differs at most in alpha, the least failures, and the error of the
    /// certificate. Evidence for the one is then evidence for the other.
    pub fn same_but_demands(&self, other: &Self) -> bool {
        let health = match (self.health, other.health) {
            (Some(own), Some(others)) => Some(others.with_beta_of(own)),
            (_, others) => others,
        };
        // Written so that fields added later are compared.
        let Self { alpha, least_failures, .. } = *self;
        *self == Self { alpha, least_failures, health, ..other.clone() }
    }

    /// The limits of the service's `eject`, overridden by a route's `own`, with defaults, at the
    /// probability `alpha`. The caller sets which amounts are derived.
    pub fn of(eject: &Eject, own: &Eject, alpha: f64) -> Self {
        let errors = own.errors.as_ref().or(eject.errors.as_ref()).map(|errors| Tolerance {
            ratio: 1.0 + errors.relative_or_default().0,
            excess: errors.absolute_or_default().0,
        });
        let written = own.unserved.as_ref().or(eject.unserved.as_ref());
        let default = Tolerance { ratio: 1.0 + UNSERVED_RELATIVE, excess: UNSERVED_ABSOLUTE };
        let unserved = errors.map(|errors| {
            // A request that fails is not served, so what `errors` tolerates is tolerated here, too.
            let default = default.at_least(errors);
            let relative = written.and_then(|unserved| unserved.relative);
            let absolute = written.and_then(|unserved| unserved.absolute);
            Tolerance {
                ratio: relative.map_or(default.ratio, |share| 1.0 + share.0),
                excess: absolute.map_or(default.excess, |share| share.0),
            }
        });
        let latency = own.latency.as_ref().or(eject.latency.as_ref());
        let amounts = own.amounts.as_ref().or(eject.amounts.as_ref()).into_iter().flatten();
        let least_failures = own.minimum_failures.or(eject.minimum_failures);
        Self {
            errors,
            unserved,
            routes: Vec::new(),
            p95: latency.and_then(|latency| latency.p95).map(|share| share.0),
            p99: latency.and_then(|latency| latency.p99).map(|share| share.0),
            latency_absolute: latency.and_then(|l| l.absolute).unwrap_or(LATENCY_ABSOLUTE),
            amounts: amounts
                .map(|(name, share)| AmountLimit {
                    name: name.clone(),
                    tolerance: share.0,
                    derived: false,
                })
                .collect(),
            alpha,
            least_failures: least_failures.map_or(LEAST_FAILURES, u64::from),
            warm_up: own.warm_up.or(eject.warm_up).unwrap_or(WARM_UP),
            burst_cap: None,
            health: errors.and_then(Health::within_twice),
        }
    }
}

/// Divides `whole`, the probability of ejecting a canary within all tolerances: routes with a
/// configured alpha get it; routes without one, and the rest of the service, share the remainder
/// equally. The rest of the service is first.
pub fn parts_of_alpha(whole: f64, asked: &[Option<f64>]) -> Vec<f64> {
    let taken: f64 = asked.iter().flatten().sum();
    let sharing = 1 + asked.iter().filter(|part| part.is_none()).count();
    let equal = (whole - taken).max(0.0) / sharing as f64;
    std::iter::once(equal).chain(asked.iter().map(|part| part.unwrap_or(equal))).collect()
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;

    use super::*;
    use crate::config::{
        schema::{EjectErrors, EjectLatency},
        units::Share,
    };

    #[test]
    fn the_file_becomes_limits() {
        let latency = Some(EjectLatency { p99: Some(Share(0.2)), ..EjectLatency::default() });
        let amounts = Some(IndexMap::from([("payout".to_owned(), Share(0.05))]));
        let errors = Some(EjectErrors::default());
        let service = Eject { errors, latency, amounts, ..Eject::default() };
        let all = Limits::of(&service, &Eject::default(), 1e-3);
        assert_eq!(all.errors, Tolerance::new(1.1, 1e-4));
        assert_eq!((all.p95, all.p99, all.alpha), (None, Some(0.2), 1e-3));
        assert_eq!(all.latency_absolute, Duration::from_millis(1));
        assert_eq!((all.least_failures, all.warm_up), (3, Duration::from_secs(30)));
        let payout = AmountLimit { name: "payout".to_owned(), tolerance: 0.05, derived: false };
        assert_eq!(all.amounts, std::slice::from_ref(&payout));
        let errors = EjectErrors { relative: Some(Share(0.5)), absolute: Some(Share(0.0)) };
        let warm_up = Some(Duration::ZERO);
        let own = Eject { errors: Some(errors), warm_up, ..Eject::default() };
        let both = Limits::of(&service, &own, 1e-4);
        assert_eq!((both.errors, both.p99), (Tolerance::new(1.5, 0.0), Some(0.2)));
        assert_eq!(both.amounts, [payout]);
        assert_eq!((both.warm_up, both.alpha), (Duration::ZERO, 1e-4));
        assert_eq!(Limits::of(&Eject::default(), &Eject::default(), 1e-3).errors, None);
    }

    #[test]
    fn errors_tolerated_above_the_default_of_unserved_are_not_ejected_as_unserved() {
        let tolerated = |relative, absolute| {
            let share = |share: Option<f64>| share.map(Share);
            Some(EjectErrors { relative: share(relative), absolute: share(absolute) })
        };
        let unserved = |errors, unserved| {
            let own = Eject { unserved, ..Eject::default() };
            Limits::of(&Eject { errors, ..Eject::default() }, &own, 1e-3).unserved
        };
        let (small, large) = (tolerated(None, None), tolerated(Some(0.5), Some(0.10)));
        assert_eq!(unserved(None, None), None);
        assert_eq!(unserved(small, None), Tolerance::new(1.2, 0.01));
        assert_eq!(unserved(large.clone(), None), Tolerance::new(1.5, 0.10));
        let absolute = tolerated(None, Some(0.02));
        assert_eq!(unserved(large, absolute), Tolerance::new(1.5, 0.02), "as written");
    }

    #[test]
    fn another_certainty_is_no_other_question() {
        let errors = Some(EjectErrors::default());
        let limits = Limits::of(&Eject { errors, ..Eject::default() }, &Eject::default(), 1e-3);
        let health = |ratio, beta| Health::new(ratio, beta);
        let limits = Limits { health: health(2.0, 0.05), ..limits };
        let same = [
            Limits { alpha: 0.01, ..limits.clone() },
            Limits { least_failures: 10, ..limits.clone() },
            Limits { health: health(2.0, 0.01), ..limits.clone() },
        ];
        assert!(same.iter().all(|other| limits.same_but_demands(other)));
        let others = [
            Limits { errors: Tolerance::new(1.2, 1e-4), ..limits.clone() },
            Limits { p99: Some(0.2), ..limits.clone() },
            Limits { warm_up: Duration::ZERO, ..limits.clone() },
            Limits { health: health(3.0, 0.05), ..limits.clone() },
            Limits { health: None, ..limits.clone() },
        ];
        assert!(others.iter().all(|other| !limits.same_but_demands(other)));
        assert!(others.iter().all(|other| !other.same_but_demands(&limits)));
    }

    #[test]
    fn alpha_is_divided_and_never_more_than_the_whole() {
        assert_eq!(parts_of_alpha(0.001, &[]), [0.001]);
        assert_eq!(parts_of_alpha(0.004, &[Some(0.001), None, None]), [0.001, 0.001, 0.001, 0.001]);
        assert_eq!(parts_of_alpha(0.001, &[Some(0.002)]), [0.0, 0.002]);
    }
}
