//! Applies a new snapshot to the collector and the judge of a service: which versions are compared, with which
//! limits, and how players are split between them.

use std::{sync::Arc, time::Duration};

use super::{
    collect::ServiceCollector,
    found::Found,
    judge::{ServiceJudge, StratumTerms, Terms},
};
use crate::{
    config::units::Weight,
    snapshot::{ComparisonPlan, Service},
};

/// Applies the comparison plan of `service`.
pub(super) fn follow(
    collector: &mut ServiceCollector,
    judge: &mut ServiceJudge,
    (service, plan): (&Service, &Arc<ComparisonPlan>),
    now: Duration,
    found: &mut Vec<Found>,
) {
    let is_other_plan = !Arc::ptr_eq(collector.plan(), plan);
    let has_same_baseline = collector.baseline() == service.baseline;
    if is_other_plan && has_same_baseline && asks_the_same(collector.plan(), plan) {
        let anew = judge.demand(terms(service, plan), now);
        collector.go_on(plan, &anew, now);
    }
    if (is_other_plan && collector.plan() != plan) || !has_same_baseline {
        // Other limits or other arms: the evidence so far does not apply to them.
        collector.ask_anew(service, plan, now);
        found.extend(judge.ask_anew(terms(service, plan)));
    }
    if let Some(blocks) = collector.follow_split(service, now) {
        judge.take_in(blocks);
    }
    let Roles { canaries, alone } = Roles::of(service);
    let name = |number: &u16| &*service.versions[usize::from(*number)].name;
    let names = |numbers: &[u16]| numbers.iter().map(name).collect::<Vec<_>>();
    found.extend(judge.retain(&names(&canaries), &names(&alone)));
    collector.retain(&canaries, &alone);
    for number in alone {
        let version: Arc<str> = Arc::from(name(&number));
        if !judge.judges_alone(&version) {
            judge.begin_alone(Arc::clone(&version), now);
        }
        // The judge may have come from another process, and the collector has not.
        if !collector.has_alone(number) {
            let judged = judge.judged_alone(&version);
            collector.begin_alone((number, version), &judged, now);
        }
    }
    for number in canaries {
        let version: Arc<str> = Arc::from(name(&number));
        if !judge.compares(&version) {
            judge.begin_canary(Arc::clone(&version), now);
        }
        if !collector.has_canary(number) {
            collector.begin_canary(service, number, version, now);
        }
    }
}

/// Versions that have a share, by how they are judged.
struct Roles {
    /// With a baseline.
    canaries: Vec<u16>,
    /// Without a baseline, or a baseline without a canary.
    alone: Vec<u16>,
}

impl Roles {
    fn of(service: &Service) -> Self {
        // A version that gets no players until one of its endpoints serves is still in its rollout.
        let has_share = |version: &u16| {
            let version = &service.versions[usize::from(*version)];
            version.weight > Weight::ZERO && !version.ejected
        };
        let with_share = (0..service.versions.len() as u16).filter(has_share);
        let (baseline, canaries): (Vec<_>, Vec<_>) =
            with_share.partition(|version| *version == service.baseline);
        match (baseline.is_empty(), canaries.is_empty()) {
            (true, _) => Self { canaries: Vec::new(), alone: canaries },
            (false, true) => Self { canaries, alone: baseline },
            (false, false) => Self { canaries, alone: Vec::new() },
        }
    }
}

/// The limits by which the versions of `service` are judged.
pub(super) fn terms(service: &Service, plan: &ComparisonPlan) -> Terms {
    let strata = plan.strata.iter().map(|stratum| StratumTerms {
        route: stratum.route.clone(),
        limits: stratum.limits.clone(),
        slo: stratum.slo,
    });
    Terms { service: service.name.clone(), mode: plan.mode, strata: strata.collect() }
}

/// Whether `after` differs from `before` only in the certainty that is required or in the action on a verdict.
fn asks_the_same(before: &ComparisonPlan, after: &ComparisonPlan) -> bool {
    let mut both = before.strata.iter().zip(&after.strata);
    before.strata.len() == after.strata.len()
        && both.all(|(a, b)| a.asks_as(b) && a.limits.same_but_demands(&b.limits))
}
