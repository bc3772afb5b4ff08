//! The metric families of endpoints, and of ejections.

use super::{
    Endpoint, Scrape,
    services::each,
    text::{Labels, Page},
};

/// State of the endpoints, and ejections of them and of versions.
pub(super) fn endpoints(scrape: &Scrape, page: &mut Page) {
    attempts(scrape, page);
    health(scrape, page);
    ejections(scrape, page);
}

/// What workers measure at the endpoints.
fn attempts(scrape: &Scrape, page: &mut Page) {
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
}

/// Which endpoints serve, and what their checks say.
fn health(scrape: &Scrape, page: &mut Page) {
    let mut up = page.gauge(
        "tidegate_endpoint_up",
        "Whether an endpoint serves: 0 while it is ejected, probed or down, or is its version's \
         only endpoint and cannot be connected.",
    );
    for (labels, endpoint) in each_endpoint(scrape) {
        up.value(labels, f64::from(u8::from(endpoint.serves)));
    }
    let mut share = page.gauge(
        "tidegate_endpoint_share",
        "How many requests an endpoint gets relative to a peer with a whole share, 0 to 1: less during a slow start, and \
         while it says that it has too much to do.",
    );
    for (labels, endpoint) in each_endpoint(scrape) {
        share.value(labels, endpoint.share);
    }
    let mut overloaded = page.counter(
        "tidegate_endpoint_overloaded_total",
        "Responses by which an endpoint says that it has too much to do: 429, or 503 with Retry-After.",
    );
    for (labels, endpoint) in each_endpoint(scrape) {
        overloaded.count(labels, endpoint.overloaded);
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
}

/// Ejections of endpoints and versions, and what comparisons report beside them.
fn ejections(scrape: &Scrape, page: &mut Page) {
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

/// All endpoints, with the labels of their samples.
fn each_endpoint(scrape: &Scrape) -> impl Iterator<Item = (Labels<'_, 3>, &Endpoint)> {
    each(scrape).flat_map(|([service, name], version)| {
        version.endpoints.iter().map(move |endpoint| {
            ([service, name, ("endpoint", endpoint.address.as_str())], endpoint)
        })
    })
}
