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
    short_bake(service, config, path, found);
    blind_bake(service, config, path, found);
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

/// How long latency is judged after the warm-up until a version that is slow in each request fails: three blocks of ten
/// seconds.
const JUDGED: Duration = Duration::from_secs(30);

/// Warm-up where none is written.
const WARM_UP: Duration = Duration::from_secs(30);

/// The bakes of the plan that `service` names, each with the plan and the path.
fn bakes<'a>(service: &'a Service, config: &'a Config) -> Vec<(Duration, &'a str, FieldPath)> {
    let plan = service.rollout.as_ref().and_then(|name| Some((name, config.plans.get(name)?)));
    let steps =
        plan.into_iter().flat_map(|(name, steps)| steps.iter().enumerate().map(move |s| (name, s)));
    let bakes = steps.filter_map(|(name, (nth, step))| {
        let at = FieldPath::default().key("plans").key(name).index(nth).key("bake");
        Some((step.bake?, &**name, at))
    });
    bakes.collect()
}

/// Warns if a bake ends before latency, which has limits, can have been judged: it then goes on beyond its time.
fn short_bake(service: &Service, config: &Config, path: &FieldPath, found: &mut Vec<Finding>) {
    let eject = service.eject.as_ref();
    let by_slo = service.slo.is_some_and(|slo| slo.p95.is_some() || slo.p99.is_some());
    let latency = eject.and_then(|eject| eject.latency.as_ref());
    let by_past = latency.is_some_and(|latency| latency.p95.is_some() || latency.p99.is_some());
    let warm_up = eject.and_then(|eject| eject.warm_up).unwrap_or(WARM_UP);
    let least = warm_up.saturating_add(JUDGED);
    for (bake, name, at) in bakes(service, config) {
        if (by_slo || by_past) && bake < least {
            let of = path.key(if by_slo { "slo" } else { "eject" });
            let message = format!(
                "the bake of `{name}` takes {}, and latency is judged only after {}: `warm_up` of {} and half a minute; \
                 the bake goes on until it is, for five minutes at most, or ten times `warm_up`; write `bake: {}` or more",
                humantime::format_duration(bake),
                humantime::format_duration(least),
                humantime::format_duration(warm_up),
                humantime::format_duration(least),
            );
            found.push(Finding::new(at, message).and(of));
        }
    }
}

/// Warns if nothing checks the baseline in a bake, in which it has no players: only a connection is tried then.
fn blind_bake(service: &Service, config: &Config, path: &FieldPath, found: &mut Vec<Finding>) {
    if service.health.as_ref().is_some_and(|health| health.checks()) {
        return;
    }
    for (_, name, at) in bakes(service, config) {
        let message = format!(
            "while `{name}` bakes, `{}` has no players and no health checks: that it accepts connections is all that is \
             known of the way back; write `health`, such as `health: {{ http: {{ path: /healthz }} }}`",
            service.baseline
        );
        found.push(Finding::new(at, message).and(path.key("baseline")));
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

#[cfg(test)]
mod tests {
    use crate::config::{parse, warnings};

    /// Regression: nothing told that a bake ended before its latency was judged, or that nobody looked at the way back.
    #[test]
    fn a_bake_too_short_for_latency_or_without_health_checks_is_doubtful() {
        let of = |bake: &str, fields: &str| -> Vec<String> {
            let text = format!(
                "listen: [ {{ address: 127.0.0.1:0 }} ]\nroutes: [ {{ service: a }} ]\nservices:\n  a:\n    \
                 baseline: v1\n    versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 ] }}, v2: {{ endpoints: [ 127.0.0.1:2 ] }} }}\n    \
                 cohort: {{ key: [ 'cookie:uid' ] }}\n    rollout: p\n    {fields}\n\
                 plans: {{ p: [ {{ weight: 20%, for: 2s }}, {{ weight: 100%, bake: {bake} }} ] }}\n"
            );
            assert!(parse(&text).is_ok(), "{:?}", parse(&text));
            let all = warnings(&text).into_iter().map(|warning| warning.to_string());
            all.filter(|warning| warning.contains(".bake")).collect()
        };
        let checked = "health: { tcp: {} }\n    ";
        let slow = |eject: &str| {
            format!("{checked}slo: {{ p95: 250ms }}\n    eject: {{ errors: {{}}{eject} }}")
        };
        let [short] = &*of("20s", &slow("")) else { panic!("one") };
        assert!(short.contains("only after 1m: `warm_up` of 30s"), "{short}");
        assert!(short.contains("write `bake: 1m` or more"), "{short}");
        assert_eq!(of("1m", &slow("")), [""; 0]);
        assert_eq!(of("33s", &slow(", warm_up: 3s")), [""; 0]);
        assert_eq!(of("32s", &slow(", warm_up: 3s")).len(), 1);
        let past = format!("{checked}eject: {{ errors: {{}}, latency: {{ p99: 20% }} }}");
        assert_eq!(of("20s", &past).len(), 1);
        assert_eq!(of("1s", &format!("{checked}eject: {{ errors: {{}} }}")), [""; 0]);
        let [blind] = &*of("1h", "eject: { errors: {} }") else { panic!("one") };
        assert!(blind.contains("`v1` has no players and no health checks"), "{blind}");
    }
}
