//! The metric families: names, labels and help.

use std::time::UNIX_EPOCH;

use super::{
    Endpoint, Scrape, Service, State, Version,
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
    for (service, (waiting, _)) in fenced() {
        held.value([("service", service)], *waiting as f64);
    }
    let mut holds =
        page.histogram("tidegate_fence_hold_seconds", "How long writes were held by cutovers.");
    for (service, (_, durations)) in fenced() {
        holds.durations([("service", service)], durations);
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

/// State of the endpoints.
pub(super) fn endpoints(scrape: &Scrape, page: &mut Page) {
    let mut latency = page.summary(
        "tidegate_upstream_latency_seconds",
        "Time from the choice of an endpoint to the head of its response: quantiles over the \
         last minute, sum and count since the start.",
    );
    for (labels, endpoint) in each_endpoint(scrape) {
        latency.quantiles(labels, &endpoint.minute, &endpoint.total);
    }
    let mut connecting = page.summary(
        "tidegate_upstream_connect_seconds",
        "Time taken to make connections to an endpoint, TLS included, and the number of \
         connections.",
    );
    for (labels, endpoint) in each_endpoint(scrape) {
        connecting.sum(labels, endpoint.connections, endpoint.connecting.as_secs_f64());
    }
    let mut errors = page.counter(
        "tidegate_upstream_errors_total",
        "Errors of an endpoint by kind: connect (no connection), timeout (no response in time), \
         reset (closed before the response ended), protocol (invalid HTTP), status (500 or \
         above).",
    );
    for ([service, name, address], endpoint) in each_endpoint(scrape) {
        for (kind, count) in [
            ("connect", endpoint.errors.connect),
            ("timeout", endpoint.errors.timeout),
            ("reset", endpoint.errors.reset),
            ("protocol", endpoint.errors.protocol),
            ("status", endpoint.errors.status),
        ] {
            let labels = [service, name, address, ("kind", kind)];
            errors.count(labels, count);
        }
    }
    let mut up = page.gauge(
        "tidegate_endpoint_up",
        "Whether an endpoint serves: 0 while it is ejected, probed or down, or is its version's \
         only endpoint and cannot be connected.",
    );
    for (labels, endpoint) in each_endpoint(scrape) {
        up.value(labels, f64::from(u8::from(endpoint.serves)));
    }
    let mut panic = page.gauge(
        "tidegate_health_panic",
        "Whether so few endpoints of a version serve that those ejected for connect faults or \
         failed checks get requests, too: 1 while they do.",
    );
    for (labels, version) in each(scrape) {
        panic.value(labels, f64::from(u8::from(version.health_panic)));
    }
    let mut names = page.gauge(
        "tidegate_name_resolved",
        "Whether the last DNS query for a name of endpoints was answered: 0 while it was not \
         and the last known addresses are used.",
    );
    for (name, is_resolved) in &scrape.names {
        names.value([("name", &**name)], f64::from(u8::from(*is_resolved)));
    }
    let mut checks = page.counter(
        "tidegate_health_checks_total",
        "Health checks of an endpoint, and probes after an ejection, by result: good or bad.",
    );
    for ([service, name, address], endpoint) in each_endpoint(scrape) {
        for (result, count) in ["good", "bad"].into_iter().zip(endpoint.checks) {
            checks.count([service, name, address, ("result", result)], count);
        }
    }
    let mut ejections = page.counter(
        "tidegate_ejections_total",
        "Ejections of a version or of one of its endpoints, by reason; the label endpoint is \
         empty for a whole version.",
    );
    for ([service, name], version) in each(scrape) {
        for (reason, count) in &version.ejections {
            ejections.count([service, name, ("endpoint", ""), ("reason", reason)], *count);
        }
        for endpoint in &version.endpoints {
            for (reason, count) in &endpoint.ejections {
                let endpoint = ("endpoint", &*endpoint.address);
                ejections.count([service, name, endpoint, ("reason", reason)], *count);
            }
        }
    }
    let mut events = page.counter(
        "tidegate_comparison_events_total",
        "Events of a version's comparison that have no effect by themselves, by kind: \
         few_players, refusals_rise, ejection_mistaken.",
    );
    for ([service, name], version) in each(scrape) {
        for (kind, count) in &version.events {
            events.count([service, name, ("kind", kind)], *count);
        }
    }
}

/// Every version with the labels that name it.
fn each(scrape: &Scrape) -> impl Iterator<Item = (Labels<'_, 2>, &Version)> {
    scrape.services.iter().flat_map(|Service { name: service, versions, .. }| {
        versions.iter().map(|version| {
            ([("service", service.as_str()), ("version", version.name.as_str())], version)
        })
    })
}

/// All endpoints, with the labels of their samples.
fn each_endpoint(scrape: &Scrape) -> impl Iterator<Item = (Labels<'_, 3>, &Endpoint)> {
    each(scrape).flat_map(|([service, name], version)| {
        version.endpoints.iter().map(move |endpoint| {
            ([service, name, ("endpoint", endpoint.address.as_str())], endpoint)
        })
    })
}

/// Tidegate itself.
pub(super) fn proxy(scrape: &Scrape, page: &mut Page) {
    let mut open = page.gauge("tidegate_connections", "Open client connections, by listener.");
    for listener in &scrape.listeners {
        open.value([("listener", &listener.name)], listener.open as f64);
    }
    let mut accepted = page.counter(
        "tidegate_connections_accepted_total",
        "Client connections accepted, by listener.",
    );
    for listener in &scrape.listeners {
        accepted.count([("listener", &listener.name)], listener.accepted);
    }
    let mut shed = page.counter(
        "tidegate_connections_shed_total",
        "Client connections closed after they were accepted, at the limit of open connections: \
         of all clients (total) or of one address (per_client).",
    );
    for listener in &scrape.listeners {
        let name = ("listener", listener.name.as_str());
        shed.count([name, ("limit", "total")], listener.shed);
        shed.count([name, ("limit", "per_client")], listener.shed_per_client);
    }
    page.gauge(
        "tidegate_connections_limit",
        "Limit of open client connections: limits.connections, or fewer if the process's limit \
         of open files is too low.",
    )
    .value([], f64::from(scrape.connections_limit));
    page.gauge(
        "tidegate_requests_limit",
        "Limit of requests in flight: limits.requests, whose default follows from the memory \
         granted to the process.",
    )
    .value([], f64::from(scrape.requests_limit));
    let mut exhausted = page.counter(
        "tidegate_connections_wanting_total",
        "Connections that could not be made, since the process had no descriptor, memory or \
         port left: of a client, or to an endpoint, which is not blamed.",
    );
    for (side, count) in ["client", "endpoint"].into_iter().zip(scrape.exhausted) {
        exhausted.count([("side", side)], count);
    }
    let mut heads = page.counter(
        "tidegate_proxy_protocol_errors_total",
        "Connections of listed balancers that were closed, since their PROXY protocol header \
         was missing, malformed or late.",
    );
    for listener in &scrape.listeners {
        heads.count([("listener", &listener.name)], listener.proxy_protocol_errors);
    }
    let mut handshakes = page.counter(
        "tidegate_tls_handshakes_failed_total",
        "Client connections closed, since the TLS handshake failed.",
    );
    for listener in &scrape.listeners {
        handshakes.count([("listener", &listener.name)], listener.tls_handshakes_failed);
    }
    page.counter(
        "tidegate_http2_floods_total",
        "HTTP/2 connections closed, since their client sent too many frames that request \
         nothing, or did not read its responses.",
    )
    .count([], scrape.http2_floods);
    let mut reloads = page.counter(
        "tidegate_config_reloads_total",
        "Reloads of the configuration by result: applied, or rejected. A rejected reload \
         changed nothing, or all but the weights of a service by which no version would serve.",
    );
    reloads.count([("result", "applied")], scrape.reloads_applied);
    reloads.count([("result", "rejected")], scrape.reloads_rejected);
    page.gauge(
        "tidegate_config_generation",
        "Number of the snapshot in force; it increases with every change.",
    )
    .value([], scrape.generation as f64);
    let mut dropped = page.counter(
        "tidegate_access_log_dropped_total",
        "Lines of the access log that were lost, by reason: queue_full (the writer was too \
         slow), write_error.",
    );
    dropped.count([("reason", "queue_full")], scrape.access_log.queue_full);
    dropped.count([("reason", "write_error")], scrape.access_log.write_error);
    let mut dropped = page.counter(
        "tidegate_log_dropped_total",
        "Lines of the process's own log that were lost, by reason: queue_full (standard error \
         was not read fast enough), write_error.",
    );
    dropped.count([("reason", "queue_full")], scrape.log.queue_full);
    dropped.count([("reason", "write_error")], scrape.log.write_error);
    if let Some(journal) = scrape.journal {
        page.counter(
            "tidegate_journal_entries_total",
            "Entries written to the journal since it was opened.",
        )
        .count([], journal.entries);
        page.gauge(
            "tidegate_journal_failing",
            "Whether the journal cannot be written: 1 while changes on request are refused.",
        )
        .value([], f64::from(u8::from(journal.failing)));
        page.gauge("tidegate_journal_waiting", "Changes that wait to be written to the journal.")
            .value([], journal.waiting as f64);
    }
    if !scrape.checkpoints_sent.is_empty() {
        let mut sent = page.counter(
            "tidegate_journal_checkpoints_total",
            "Attempts to keep a checkpoint of the journal elsewhere, by kind of place and result: kept or failed.",
        );
        for (to, counts) in &scrape.checkpoints_sent {
            for (result, count) in ["kept", "failed"].into_iter().zip(counts) {
                sent.count([("to", *to), ("result", result)], *count);
            }
        }
    }
    let mut posts = page.counter(
        "tidegate_alert_posts_total",
        "Messages to receivers of alerts, by result: taken or failed.",
    );
    for (receiver, counts) in &scrape.alert_posts {
        for (result, count) in ["taken", "failed"].into_iter().zip(counts) {
            posts.count([("receiver", &**receiver), ("result", result)], *count);
        }
    }
    page.counter(
        "tidegate_worker_panics_total",
        "Panics of workers. Each is a bug of Tidegate, and ended one connection or request.",
    )
    .count([], scrape.worker_panics);
    let mut panics = page.counter(
        "tidegate_control_panics_total",
        "Panics of tasks of the control plane, each of which was restarted. Each is a bug of \
         Tidegate.",
    );
    for (task, count) in &scrape.control_panics {
        panics.count([("task", *task)], *count);
    }
    page.counter(
        "tidegate_latency_samples_lost_total",
        "Requests missing in the histograms of latency and duration, since the collector was \
         too slow; the counters include them.",
    )
    .count([], scrape.samples_lost);
    page.counter(
        "tidegate_outcomes_lost_total",
        "Requests missing in the comparison of versions, since it was too slow; rates are not \
         distorted.",
    )
    .count([], scrape.outcomes_lost);
    page.gauge("tidegate_build_info", "Version of Tidegate; the value is always 1.")
        .value([("version", scrape.build)], 1.0);
}

/// Certificates of the listeners.
pub(super) fn certificates(scrape: &Scrape, page: &mut Page) {
    let mut expiry = page.gauge(
        "tidegate_tls_certificate_expiry_timestamp_seconds",
        "When a certificate in force expires, in seconds since 1970, by listener and file.",
    );
    for certificate in &scrape.certificates {
        let labels =
            [("listener", certificate.listener.as_str()), ("certificate", &certificate.file)];
        let seconds = certificate.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
        expiry.value(labels, seconds.as_secs_f64());
    }
}

/// The process, under the names every Prometheus client uses.
pub(super) fn process(scrape: &Scrape, page: &mut Page) {
    let started = scrape.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    page.gauge("process_start_time_seconds", "When the process started, in seconds since 1970.")
        .value([], started.as_secs_f64());
    let Some(process) = scrape.process else { return };
    page.counter("process_cpu_seconds_total", "Processor time in user and kernel mode.")
        .total([], process.cpu.as_secs_f64());
    page.gauge("process_resident_memory_bytes", "Resident memory.")
        .value([], process.resident_bytes as f64);
    page.gauge("process_open_fds", "Open file descriptors.").value([], process.open_fds as f64);
    if let Some(max_fds) = process.max_fds {
        page.gauge("process_max_fds", "Limit of open file descriptors.").value([], max_fds as f64);
    }
    page.gauge("process_threads", "Threads of the process.").value([], process.threads as f64);
}
