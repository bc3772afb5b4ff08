//! The metric families of services and versions: names, labels and help.

use super::{
    Scrape, Service, State, Version,
    text::{Labels, Page},
};

/// Requests of clients.
pub(super) fn traffic(scrape: &Scrape, page: &mut Page) {
    let mut requests = page.counter(
        "tidegate_requests_total",
        "Responses to clients, by service, version, route and class of the status.",
    );
    for series in &scrape.series {
        for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(series.by_class) {
            let [service, version, route] = labels(series);
            requests.count([service, version, route, ("code_class", class)], count);
        }
    }
    let mut durations = page.histogram(
        "tidegate_request_duration_seconds",
        "Time from the complete head of a request to the last byte of its response.",
    );
    for series in &scrape.series {
        durations.durations(labels(series), &series.durations);
    }
    let mut unrouted = page.counter(
        "tidegate_requests_unrouted_total",
        "Responses of Tidegate itself before a version was chosen, by status: no route, a \
         malformed or oversized request, or a limit.",
    );
    for (code, count) in &scrape.unrouted {
        unrouted.count([("code", &code.to_string())], *count);
    }
    let mut shed = page.counter(
        "tidegate_requests_shed_total",
        "Requests that got 503 at the limit of requests in flight: of all clients (total) or of \
         one client (per_client).",
    );
    shed.count([("limit", "total")], scrape.requests_shed);
    shed.count([("limit", "per_client")], scrape.requests_shed_per_client);
}

fn labels(series: &super::Series) -> Labels<'_, 3> {
    [("service", &series.service), ("version", &series.version), ("route", &series.route)]
}

/// State of the services.
pub(super) fn services(scrape: &Scrape, page: &mut Page) {
    let mut up = page.gauge(
        "tidegate_service_up",
        "Whether a version with a share of players has a serving endpoint: 1, or 0 if no \
         version serves.",
    );
    for service in &scrape.services {
        up.value([("service", &*service.name)], f64::from(u8::from(service.available)));
    }
    let mut refused = page.gauge(
        "tidegate_weights_refused",
        "Whether the weights as written are not in force, since no version would serve by them: \
         1 while one version serves all players instead.",
    );
    for service in &scrape.services {
        refused.value([("service", &*service.name)], f64::from(u8::from(service.weights_refused)));
    }
    let mut incidents = page.counter(
        "tidegate_incidents_total",
        "Incidents with a report, by service and kind: ejections, rollbacks and rollouts that have \
         ended.",
    );
    for service in &scrape.services {
        for (kind, count) in &service.incidents {
            incidents.count([("service", &*service.name), ("kind", kind)], *count);
        }
    }
}

/// Rollouts.
pub(super) fn rollouts(scrape: &Scrape, page: &mut Page) {
    let each = || {
        scrape.services.iter().filter_map(|service| {
            let rollout = service.rollout.as_ref()?;
            let labels = [("service", &*service.name), ("version", &*rollout.version)];
            Some((labels, rollout))
        })
    };
    let mut phase = page.gauge(
        "tidegate_rollout_phase",
        "Phase of the rollout in progress, or of the last one: 1 for the phase it is in.",
    );
    for ([service, version], rollout) in each() {
        for (name, is_in) in &rollout.phases {
            phase.value([service, version, ("phase", name)], f64::from(u8::from(*is_in)));
        }
    }
    let mut step = page.gauge(
        "tidegate_rollout_step",
        "Step of that rollout, counted from 1: the one in force, or the one that begins next.",
    );
    for (labels, rollout) in each() {
        step.value(labels, rollout.step as f64);
    }
    let mut steps = page.gauge("tidegate_rollout_steps", "Number of steps of that rollout.");
    for (labels, rollout) in each() {
        steps.value(labels, rollout.steps as f64);
    }
    let mut wants = page.gauge(
        "tidegate_rollout_wants_approval",
        "Whether the step of that rollout waits for a person to approve it, its least time and requests being over: 1 or 0.",
    );
    for (labels, rollout) in each() {
        wants.value(labels, f64::from(u8::from(rollout.wants_approval)));
    }
    let mut due = page.gauge(
        "tidegate_rollout_due_seconds",
        "Time left until the version of an urgent rollout must have all players; below 0 once it is over.",
    );
    for (labels, rollout) in each() {
        if let Some(due_s) = rollout.due_s {
            due.value(labels, due_s);
        }
    }
    let mut ended = page.counter(
        "tidegate_rollouts_total",
        "Rollouts that ended since start, by outcome: done, rolled_back, aborted.",
    );
    for service in &scrape.services {
        for (outcome, count) in &service.rollouts_ended {
            ended.count([("outcome", *outcome), ("service", &*service.name)], *count);
        }
    }
}

/// Cutovers, and the writes that they hold.
pub(super) fn cutovers(scrape: &Scrape, page: &mut Page) {
    let mut cutovers = page.counter(
        "tidegate_cutovers_total",
        "Cutovers and ways back, by result: made, or undone because the deadline of the fence passed or players \
         had to be moved at once.",
    );
    for service in &scrape.services {
        for (result, count) in &service.cutovers {
            cutovers.count([("service", &*service.name), ("result", result)], *count);
        }
    }
    let fenced = || scrape.services.iter().filter_map(|s| Some((&*s.name, s.fence.as_ref()?)));
    let mut held = page.gauge("tidegate_fence_held", "Writes that a cutover holds now.");
    for (service, fence) in fenced() {
        held.value([("service", service)], fence.waiting as f64);
    }
    let mut holds =
        page.histogram("tidegate_fence_hold_seconds", "How long writes were held by cutovers.");
    for (service, fence) in fenced() {
        holds.durations([("service", service)], &fence.holds);
    }
    let mut cut = page.counter(
        "tidegate_fence_uploads_cut_total",
        "Writes that got 408 because a cutover waited for them and their bodies did not arrive in time.",
    );
    for (service, fence) in fenced() {
        cut.count([("service", service)], fence.uploads_cut);
    }
}

/// State of the versions.
pub(super) fn versions(scrape: &Scrape, page: &mut Page) {
    let mut in_flight =
        page.gauge("tidegate_requests_in_flight", "Requests in flight on a version.");
    for (labels, version) in each(scrape) {
        in_flight.value(labels, version.in_flight as f64);
    }
    let mut weight = page.gauge(
        "tidegate_version_weight",
        "Relative share of new players of a version; 0 means none.",
    );
    for (labels, version) in each(scrape) {
        weight.value(labels, version.weight);
    }
    let mut state = page.gauge(
        "tidegate_version_state",
        "State of a version: 1 for the current one of serving, idle, draining and ejected, 0 \
         for the others.",
    );
    for ([service, name], version) in each(scrape) {
        for (value, text) in [
            (State::Serving, "serving"),
            (State::Idle, "idle"),
            (State::Draining, "draining"),
            (State::Ejected, "ejected"),
        ] {
            let current = f64::from(u8::from(version.state == value));
            state.value([service, name, ("state", text)], current);
        }
    }
    let mut info = page.gauge(
        "tidegate_version_info",
        "Labels of a version's release; the value is always 1. Join on service and version.",
    );
    for ([service, name], version) in each(scrape) {
        let labels = [
            service,
            name,
            ("semver", &version.semver),
            ("build", &version.build),
            ("contract", &version.contract),
            ("calc", &version.calc),
        ];
        info.value(labels, 1.0);
    }
    let mut retries = page.counter(
        "tidegate_retries_total",
        "Attempts after the first, by the version whose failure caused them and by reason.",
    );
    for ([service, name], version) in each(scrape) {
        for (reason, count) in &version.retries {
            retries.count([service, name, ("reason", reason)], *count);
        }
    }
    let mut withheld = page.counter(
        "tidegate_retries_withheld_total",
        "Failed requests of routes with `retry` that were not repeated, by the version that failed \
         them and by reason.",
    );
    for ([service, name], version) in each(scrape) {
        for (reason, count) in &version.withheld {
            withheld.count([service, name, ("reason", reason)], *count);
        }
    }
    let mut rescued = page.counter(
        "tidegate_rescued_total",
        "Requests that a canary failed and the baseline answered, by the canary.",
    );
    for ([service, name], version) in each(scrape) {
        rescued.count([service, name], version.rescued);
    }
}

/// Requests rejected by circuit breakers.
pub(super) fn breakers(scrape: &Scrape, page: &mut Page) {
    let mut shed = page.counter(
        "tidegate_breaker_shed_total",
        "Requests that got 503 from a version's circuit breaker, by limit: requests (too many \
         in flight), pending (too many wait for a connection).",
    );
    for ([service, name], version) in each(scrape) {
        for (limit, count) in &version.shed {
            shed.count([service, name, ("limit", limit)], *count);
        }
    }
}

/// Results of smoke checks.
pub(super) fn smoke_checks(scrape: &Scrape, page: &mut Page) {
    let mut checks = page.counter(
        "tidegate_smoke_checks_total",
        "Smoke checks of a version, by check and result: passed, failed. Checks that never ran are \
         absent.",
    );
    for ([service, version, check], counts) in &scrape.smoke_checks {
        for (result, count) in ["passed", "failed"].into_iter().zip(counts) {
            let of = [("service", &**service), ("version", version), ("check", check)];
            let [service, version, check] = of;
            checks.count([service, version, check, ("result", result)], *count);
        }
    }
}

/// How canaries compare with their baseline.
pub(super) fn evidence(scrape: &Scrape, page: &mut Page) {
    let mut evidence = page.gauge(
        "tidegate_evidence_log",
        "Log evidence against a canary, in nats, for each gate and for all together.",
    );
    for ([service, name], version) in each(scrape) {
        for (gate, log) in &version.evidence_log {
            evidence.value([service, name, ("gate", gate)], *log);
        }
    }
    let mut threshold = page.gauge(
        "tidegate_evidence_threshold_log",
        "Log evidence of all gates together at which a canary is ejected, in nats.",
    );
    for ([service, name], version) in each(scrape) {
        for (gate, log) in &version.evidence_threshold {
            threshold.value([service, name, ("gate", gate)], *log);
        }
    }
    let mut outage = page.gauge(
        "tidegate_shared_outage",
        "Whether the baseline and the canaries of a service fail alike: 1 while they do.",
    );
    for service in &scrape.services {
        if let Some(is_on) = service.shared_outage {
            outage.value([("service", &*service.name)], f64::from(u8::from(is_on)));
        }
    }
}

/// Business amounts.
pub(super) fn amounts(scrape: &Scrape, page: &mut Page) {
    let each = || {
        each(scrape).flat_map(|([service, name], version)| {
            let labels = move |amount| [service, name, ("amount", amount)];
            version.amounts.iter().map(move |amount| (labels(amount.name.as_str()), amount))
        })
    };
    let mut carried = page.summary(
        "tidegate_amount",
        "Business amounts in the responses of a version: their sum, and the number of responses \
         that carried one.",
    );
    for (labels, amount) in each() {
        carried.sum(labels, amount.count, amount.sum);
    }
    let mut malformed = page.counter(
        "tidegate_amounts_malformed_total",
        "Responses of a version whose amount was not one decimal number; it counts as 0.",
    );
    for (labels, amount) in each() {
        malformed.count(labels, amount.malformed);
    }
}

/// Every version with the labels that name it.
pub(super) fn each(scrape: &Scrape) -> impl Iterator<Item = (Labels<'_, 2>, &Version)> {
    scrape.services.iter().flat_map(|Service { name: service, versions, .. }| {
        versions.iter().map(|version| {
            ([("service", service.as_str()), ("version", version.name.as_str())], version)
        })
    })
}
