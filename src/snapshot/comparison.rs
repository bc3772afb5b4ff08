//! What of a service is compared, and what counts as a failure.

use std::{sync::Arc, time::Duration};

use super::{Version, amounts::identity};
use crate::{
    analysis::{Limits, amount_bucket, parts_of_alpha, rounded_bucket},
    config::{
        Config,
        schema::{self, Mode, Slo},
    },
    registry::{AmountEvidenceState, EvidenceState, Registry},
};

/// How the versions of a service are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// What a bad verdict does.
    pub mode: Mode,
    /// Probability of ever ejecting a canary within all tolerances, over all strata.
    pub alpha: f64,
    /// Requests that are compared among themselves: first those of all routes without limits of their
    /// own, then those of each route that has some, in the order of the file.
    pub strata: Box<[Stratum]>,
}

/// Requests that are compared among themselves.
#[derive(Debug, Clone)]
pub struct Stratum {
    /// The route with limits of its own; nothing for all others together.
    pub route: Option<Box<str>>,
    /// What is tolerated.
    pub limits: Limits,
    /// What a version without a baseline beside it is judged by.
    pub slo: Slo,
    /// When a request without an answer counts as failed; nothing: when it times out.
    pub deadline: Option<Duration>,
    /// Evidence by version of the service.
    pub arms: Box<[Arm]>,
}

/// Where first attempts of a version count.
#[derive(Debug, Clone)]
pub struct Arm {
    /// All of them.
    pub attempts: Arc<EvidenceState>,
    /// What they carry of the amounts that are compared, in the order of [`Limits::amounts`].
    pub amounts: Box<[AmountArm]>,
}

/// Where an amount of a version counts.
#[derive(Debug, Clone)]
pub struct AmountArm {
    /// Number of the amount among those of the service.
    pub number: u8,
    /// Its evidence.
    pub evidence: Arc<AmountEvidenceState>,
    /// Where it counts below 0, by its size; nothing if it is measured, so that it is never.
    pub below: Option<Arc<AmountEvidenceState>>,
}

impl AmountArm {
    /// Counts what a request of an epoch of `parity` carried, in the cells of `worker`, who alone calls
    /// it. What is derived is rounded by a `draw` from 0 to below 1.
    pub fn record(&self, worker: usize, parity: u8, carried: f64, draw: impl FnOnce() -> f64) {
        let (evidence, bucket) = match &self.below {
            None => (&self.evidence, amount_bucket(carried)),
            Some(below) => {
                let evidence = if carried < 0.0 { below } else { &self.evidence };
                (evidence, rounded_bucket(carried, draw()))
            }
        };
        evidence.cells.of(worker).record(parity, bucket as u16);
    }
}

impl PartialEq for Arm {
    /// Whether the same is counted in the same cells.
    fn eq(&self, other: &Self) -> bool {
        let amounts = || self.amounts.iter().zip(&other.amounts);
        Arc::ptr_eq(&self.attempts, &other.attempts)
            && self.amounts.len() == other.amounts.len()
            && amounts().all(|(a, b)| Arc::ptr_eq(&a.evidence, &b.evidence))
    }
}

impl PartialEq for Stratum {
    /// Whether the same is asked of the same versions.
    fn eq(&self, other: &Self) -> bool {
        let same_limits = self.limits == other.limits && self.slo == other.slo;
        self.route == other.route && same_limits && self.arms == other.arms
    }
}

impl Compared {
    pub(super) fn compile(
        name: &str,
        service: &schema::Service,
        config: &Config,
        versions: &[Version],
        registry: &mut Registry,
    ) -> Option<Arc<Self>> {
        let eject = service.eject.as_ref()?;
        let mode = eject.mode.unwrap_or_default();
        if mode == Mode::Off {
            return None;
        }
        let own = config.routes.iter().filter(|route| route.service == name);
        let own = own.filter(|route| has_limits(route));
        let nothing = schema::Eject::default();
        let own = own.map(|route| {
            let eject = route.eject.as_ref().unwrap_or(&nothing);
            (Some(route.label()), eject, route.slo.or(service.slo))
        });
        let own = own.filter(|(_, eject, _)| eject.mode != Some(Mode::Off));
        let own: Vec<_> = own.collect();
        let asked: Vec<Option<f64>> = own.iter().map(|(_, e, _)| e.alpha.map(|a| a.0)).collect();
        let alpha = eject.alpha_or_default();
        let all = [(None, eject, service.slo)].into_iter().chain(own);
        let parts = all.zip(parts_of_alpha(alpha, &asked));
        let strata = parts.map(|((route, own, slo), part)| {
            let mut limits = Limits::of(eject, own, part);
            for limit in &mut limits.amounts {
                let amount = service.amounts.get(&limit.name);
                limit.derived = amount.is_some_and(|amount| amount.is.is_some());
            }
            let mut arm = |version: &Version| Arm {
                attempts: registry.evidence(version.state.id, route.as_deref()),
                amounts: (limits.amounts.iter())
                    .filter_map(|limit| {
                        let (number, _, amount) = service.amounts.get_full(&limit.name)?;
                        let (id, route) = (version.state.id, route.as_deref());
                        let what = identity(amount, service);
                        let evidence = registry.amount_evidence(id, route, &what);
                        let below = (limit.derived).then(|| format!("{what} below 0"));
                        let below = below.map(|what| registry.amount_evidence(id, route, &what));
                        Some(AmountArm { number: number as u8, evidence, below })
                    })
                    .collect(),
            };
            Stratum {
                arms: versions.iter().map(&mut arm).collect(),
                slo: slo.unwrap_or_default(),
                deadline: own.deadline.or(eject.deadline),
                route: route.as_deref().map(Into::into),
                limits,
            }
        });
        Some(Arc::new(Self { mode, alpha, strata: strata.collect() }))
    }

    /// Where the requests of `route` with its `label` count; nothing if they are not compared.
    pub(super) fn stratum_of(&self, route: &schema::Route, label: &str) -> Option<&Stratum> {
        match has_limits(route) {
            false => self.strata.first(),
            true => self.strata.iter().find(|stratum| stratum.route.as_deref() == Some(label)),
        }
    }
}

/// Whether `route` has limits of its own.
fn has_limits(route: &schema::Route) -> bool {
    route.eject.is_some() || route.slo.is_some()
}

/// Statuses that are failures of a version, of 600.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureSet([u64; 10]);

impl FailureSet {
    /// What the file says, on top of 500 and above.
    pub fn new(failures: Option<&schema::Failures>) -> Self {
        let mut set = Self([0; 10]);
        let also = failures.into_iter().flat_map(|f| &f.also);
        for status in (500..600).chain(also.flat_map(|s| s.first..=s.last)) {
            set.0[usize::from(status / 64)] |= 1 << (status % 64);
        }
        let except = failures.into_iter().flat_map(|f| &f.except);
        for status in except.flat_map(|s| s.first..=s.last) {
            set.0[usize::from(status / 64)] &= !(1 << (status % 64));
        }
        set
    }

    /// Whether an answer with `status` is a failure. What is no status of HTTP is.
    pub fn contains(&self, status: u16) -> bool {
        self.0.get(usize::from(status / 64)).is_none_or(|word| word >> (status % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::{Failures, Statuses};

    #[test]
    fn failures_are_what_the_file_says() {
        let default = FailureSet::new(None);
        let failing = |set: &FailureSet| (100..=700).filter(|s| set.contains(*s)).count();
        assert!(default.contains(500) && default.contains(599) && !default.contains(499));
        let one = |status| Statuses { first: status, last: status };
        let also = vec![one(429), Statuses { first: 300, last: 399 }];
        let set = FailureSet::new(Some(&Failures { also, except: vec![one(501), one(304)] }));
        assert!(set.contains(429) && set.contains(302) && set.contains(500));
        assert!(!set.contains(501) && !set.contains(304) && !set.contains(404));
        assert_eq!(failing(&set), failing(&default) + 1 + 100 - 2);
    }
}
