//! The comparison of a service's versions, and what counts as a failure.

use std::{sync::Arc, time::Duration};

use super::{amounts::identity, version::Version};
use crate::{
    analysis::{Limits, amount_bucket, parts_of_alpha, rounded_bucket},
    config::{
        Config,
        schema::{self, Mode, OnMistake, Slo},
    },
    registry::{AmountEvidenceState, EvidenceState, Outcomes, Registry, StratumState},
};

/// Most named routes that are also judged separately; later ones in the file are only judged
/// together with all others.
const MOST_NAMED: usize = 64;

/// How the versions of a service are compared.
#[derive(Debug, Clone)]
pub struct ComparisonPlan {
    /// The rings in which workers record outcomes.
    pub outcomes: Arc<Outcomes>,
    /// The effect of a bad verdict.
    pub mode: Mode,
    /// Probability of ever ejecting a canary within all tolerances, over all strata.
    pub alpha: f64,
    /// Whether players of a canary who fail twice in a row are sent to the baseline for a time.
    pub ask_players: bool,
    /// What to do if players who failed on an ejected version continue to fail.
    pub on_mistake: OnMistake,
    /// Groups of requests that are compared separately: first all routes without limits of their
    /// own, then each route that has some, in the order of the file.
    pub strata: Box<[Stratum]>,
}

/// A group of requests that is compared separately.
#[derive(Debug, Clone)]
pub struct Stratum {
    /// The route with limits of its own; `None` for all other routes together.
    pub route: Option<Box<str>>,
    /// The tolerances.
    pub limits: Limits,
    /// The objectives for a version that has no baseline to be compared with.
    pub slo: Slo,
    /// When a request without a response counts as failed; `None`: it follows from the baseline's
    /// latency.
    pub deadline: Option<Duration>,
    /// State that the versions share.
    pub state: Arc<StratumState>,
    /// Whether a failure does not count if another client of the same network has failed.
    pub networks: bool,
    /// Evidence by version of the service.
    pub arms: Box<[Arm]>,
    /// The named routes among them, each of which is also judged separately.
    pub named: Box<[Arc<Named>]>,
}

/// A named route without limits of its own.
#[derive(Debug)]
pub struct Named {
    /// Its name.
    pub route: Box<str>,
    /// Evidence by version of the service.
    pub arms: Box<[Arc<EvidenceState>]>,
}

/// Where first attempts of a route are counted.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The rings for their outcomes.
    pub outcomes: Arc<Outcomes>,
    /// State that the versions share.
    pub state: Arc<StratumState>,
    /// By version of the service.
    pub arms: Box<[Arm]>,
    /// The counters of this route alone, if it is also judged separately.
    pub named: Option<Arc<Named>>,
    /// Whether networks count as well as players.
    pub networks: bool,
}

impl Evidence {
    /// Counts a first attempt at `version` that begins on `worker`; returns the number of the
    /// current evaluation.
    pub fn begin(&self, version: usize, worker: usize) -> u32 {
        let look = self.outcomes.look();
        self.arms[version].attempts.cells.of(worker).started.add(1);
        if let Some(named) = &self.named {
            named.arms[version].cells.of(worker).started.add(1);
        }
        look
    }

    /// The number under which outcomes of `version` are recorded: that of the route, if it is also
    /// judged separately.
    pub fn number(&self, version: usize) -> u32 {
        match &self.named {
            Some(named) => named.arms[version].id,
            None => self.arms[version].attempts.id,
        }
    }
}

/// Where first attempts of a version are counted.
#[derive(Debug, Clone)]
pub struct Arm {
    /// All attempts.
    pub attempts: Arc<EvidenceState>,
    /// The compared amounts, in the order of [`Limits::amounts`].
    pub amounts: Box<[AmountArm]>,
}

/// Where an amount of a version is counted.
#[derive(Debug, Clone)]
pub struct AmountArm {
    /// Number of the amount among those of the service.
    pub number: u8,
    /// Its evidence.
    pub evidence: Arc<AmountEvidenceState>,
    /// Where negative amounts are counted, by their absolute value; `None` for a measured amount,
    /// which is never negative.
    pub below: Option<Arc<AmountEvidenceState>>,
}

impl AmountArm {
    /// Counts the amount `carried` by a response in the cells of `worker`, the only caller. A
    /// derived amount is rounded at random, by a `draw` from 0 to below 1.
    pub fn record(&self, worker: usize, carried: f64, draw: impl FnOnce() -> f64) {
        let (evidence, bucket) = match &self.below {
            None => (&self.evidence, amount_bucket(carried)),
            Some(below) => {
                let evidence = if carried < 0.0 { below } else { &self.evidence };
                (evidence, rounded_bucket(carried, draw()))
            }
        };
        evidence.cells.of(worker).record(bucket as u16);
    }
}

impl PartialEq for Arm {
    /// Whether both count in the same cells.
    fn eq(&self, other: &Self) -> bool {
        let amounts = || self.amounts.iter().zip(&other.amounts);
        Arc::ptr_eq(&self.attempts, &other.attempts)
            && self.amounts.len() == other.amounts.len()
            && amounts().all(|(a, b)| Arc::ptr_eq(&a.evidence, &b.evidence))
    }
}

impl PartialEq for ComparisonPlan {
    fn eq(&self, other: &Self) -> bool {
        let of = |compared: &Self| {
            (compared.mode, compared.alpha, compared.ask_players, compared.on_mistake)
        };
        of(self) == of(other) && self.strata == other.strata
    }
}

impl PartialEq for Stratum {
    /// Whether the comparison is the same, with the same tolerances.
    fn eq(&self, other: &Self) -> bool {
        self.limits == other.limits && self.asks_as(other)
    }
}

impl Stratum {
    /// Whether the comparison is the same, apart from tolerances.
    pub fn asks_as(&self, other: &Self) -> bool {
        let names =
            |named: &[Arc<Named>]| named.iter().map(|n| n.route.clone()).collect::<Vec<_>>();
        self.route == other.route
            && self.slo == other.slo
            && self.arms == other.arms
            && self.networks == other.networks
            && names(&self.named) == names(&other.named)
    }
}

impl ComparisonPlan {
    /// Whether players are sent to the baseline to find out if they fail there, too; only if the
    /// mode allows to act.
    pub fn asks_players(&self) -> bool {
        self.ask_players && self.mode == Mode::Act
    }

    pub(super) fn compile(
        name: &str,
        service: &schema::Service,
        config: &Config,
        versions: &[Version],
        registry: &Registry,
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
            let state = registry.stratum(name, route.as_deref());
            let named: Box<[Arc<Named>]> = match (&route, limits.errors) {
                (None, Some(_)) => named(name, config, versions, registry),
                _ => Box::default(),
            };
            limits.routes = named.iter().map(|named| named.route.to_string()).collect();
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
                networks: eject.networks.unwrap_or_default(),
                state,
                named,
                route: route.as_deref().map(Into::into),
                limits,
            }
        });
        let strata = strata.collect();
        let ask_players = eject.ask_players.unwrap_or(true);
        let on_mistake = eject.on_mistake.unwrap_or_default();
        let outcomes = registry.outcomes();
        Some(Arc::new(Self { outcomes, mode, alpha, ask_players, on_mistake, strata }))
    }

    /// Where the requests of `route` are counted; `None` if they are not compared.
    pub(super) fn evidence_of(&self, route: &schema::Route, label: &str) -> Option<Evidence> {
        let stratum = self.stratum_of(route, label)?;
        Some(Evidence {
            outcomes: Arc::clone(&self.outcomes),
            state: Arc::clone(&stratum.state),
            arms: stratum.arms.clone(),
            named: stratum.named.iter().find(|named| *named.route == *label).cloned(),
            networks: stratum.networks,
        })
    }

    fn stratum_of(&self, route: &schema::Route, label: &str) -> Option<&Stratum> {
        match has_limits(route) {
            false => self.strata.first(),
            true => self.strata.iter().find(|stratum| stratum.route.as_deref() == Some(label)),
        }
    }
}

/// The named routes of service `name` without limits of their own.
fn named(
    name: &str,
    config: &Config,
    versions: &[Version],
    registry: &Registry,
) -> Box<[Arc<Named>]> {
    let routes = config.routes.iter().filter(|route| route.service == name && !has_limits(route));
    let names = routes.filter_map(|route| route.name.as_deref()).take(MOST_NAMED);
    let named = names.map(|route| {
        let arm = |version: &Version| registry.evidence(version.state.id, Some(route));
        let arms = versions.iter().map(arm).collect();
        Arc::new(Named { route: route.into(), arms })
    });
    named.collect()
}

/// Whether `route` has limits of its own.
fn has_limits(route: &schema::Route) -> bool {
    route.eject.is_some() || route.slo.is_some()
}

/// Bit set of the statuses that are failures of a version, up to 600.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureSet([u64; 10]);

impl FailureSet {
    /// The configured failures, in addition to 500 and above.
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

    /// Whether a response with `status` is a failure. An invalid status is one.
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
