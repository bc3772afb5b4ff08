//! Warnings about plans of rollouts: gates that hardly ever pass, or that reasons do not tell apart.

use std::time::Duration;

use super::{
    Finding,
    plans::{alike, least_evidence, least_requests},
};
use crate::config::{
    problem::FieldPath,
    schema::{Config, GateQuestion, Service},
};

/// Warns of what the plan that `service` at `path` names asks of it.
pub(super) fn of_service(
    service: &Service,
    config: &Config,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    slo_in_no_time(service, config, path, found);
    hopeless_evidence(service, config, path, found);
}

/// Requests a second of a whole service that are taken for much.
const MUCH: f64 = 1_000.0;

/// Warns if a step ends before the gate `slo` can have seen enough requests: it passes only when it is certain.
fn slo_in_no_time(service: &Service, config: &Config, path: &FieldPath, found: &mut Vec<Finding>) {
    let plan = service.rollout.as_ref().and_then(|name| Some((name, config.plans.get(name)?)));
    let (Some(slo), Some((name, steps))) = (service.slo, plan) else { return };
    let quantiles = [slo.p95.map(|_| 0.05), slo.p99.map(|_| 0.01)].into_iter().flatten();
    let limits = slo.errors.map(|share| share.0).into_iter().chain(quantiles);
    let Some(least) = limits.map(least_requests).max_by(f64::total_cmp) else { return };
    for (nth, step) in steps.iter().enumerate() {
        let Some(within) = step.within else { continue };
        let asks = step.gates.iter().any(|gate| gate.question == GateQuestion::Slo);
        let rate = least / within.as_secs_f64().max(1.0) / step.weight.0.max(1e-9);
        if asks && rate > MUCH {
            let message = format!(
                "step {} of `{name}` has {} for the gate slo, which passes after {least:.0} requests of the version \
                 without a bad one, at the soonest: with {}% of the players that takes {rate:.0} requests a \
                 second of the service; write a longer `within`, more players, or a looser limit",
                nth + 1,
                humantime::format_duration(within),
                step.weight.0 * 100.0
            );
            let at = FieldPath::default().key("plans").key(name).index(nth).key("within");
            found.push(Finding::new(at, message).and(path.key("slo")));
        }
    }
}

/// Longest time for the evidence of a step at [`MUCH`] that nobody wonders about.
const LONG: Duration = Duration::from_secs(3600);

/// Warns if the gate `evidence` of a step needs so many requests that it hardly ever passes, or time passes it instead.
fn hopeless_evidence(
    service: &Service,
    config: &Config,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    let plan = service.rollout.as_ref().and_then(|name| Some((name, config.plans.get(name)?)));
    let errors = service.eject.as_ref().and_then(|eject| eject.errors.as_ref());
    let (Some(errors), Some((name, steps))) = (errors, plan) else { return };
    let absolute = errors.absolute_or_default().0;
    let least = least_evidence(absolute);
    for (nth, step) in steps.iter().enumerate() {
        let asks = step.gates.iter().any(|gate| gate.question == GateQuestion::Evidence);
        let seconds = least / (MUCH * step.weight.0.max(1e-9));
        let takes = Duration::from_secs(seconds.min(1e9) as u64);
        // With all players the version is judged by other limits.
        if !asks || step.weight.0 >= 1.0 || takes <= step.within.unwrap_or(LONG) {
            continue;
        }
        let (waits, then) = match step.within {
            Some(within) => (
                format!("has {} for", humantime::format_duration(within)),
                ", so `within` passes it without an answer",
            ),
            None => ("waits for".to_owned(), ""),
        };
        let message = format!(
            "step {} of `{name}` {waits} the gate evidence, which passes after {least:.0} requests of the version at the \
             soonest, since {}% more errors than the baseline's are tolerated: with {}% of the players that takes {} at \
             {MUCH:.0} requests a second of the service{then}; write a larger `absolute`, or more players",
            nth + 1,
            six(100.0 * absolute),
            six(100.0 * step.weight.0),
            roughly(takes),
        );
        let at = FieldPath::default().key("plans").key(name).index(nth);
        found.push(Finding::new(at, message).and(path.key("eject")));
    }
}

/// Without rounding errors.
fn six(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// A time in whole hours or minutes.
fn roughly(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 3600.. => format!("{}h", seconds / 3600),
        seconds => format!("{}m", seconds.div_ceil(60)),
    }
}

/// Warns if two webhooks of a step are called by the same host: reasons do not say which one is meant.
pub(super) fn called_alike(config: &Config, found: &mut Vec<Finding>) {
    let plans = FieldPath::default().key("plans");
    for (name, steps) in &config.plans {
        for (nth, step) in steps.iter().enumerate() {
            let Some((gate, shown)) = alike(&step.gates) else { continue };
            let message = format!(
                "another webhook of the step is called `{shown}`, too, so reasons do not say which one is meant; \
                 give each a `name`"
            );
            let at = plans.key(name).index(nth).key("gates").index(gate).key("webhook");
            found.push(Finding::new(at, message));
        }
    }
}
