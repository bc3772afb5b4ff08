//! The metric families of Tidegate itself and of its process.

use std::time::UNIX_EPOCH;

use super::{Scrape, text::Page};

/// Tidegate itself.
pub(super) fn itself(scrape: &Scrape, page: &mut Page) {
    connections(scrape, page);
    refused_connections(scrape, page);
    configuration(scrape, page);
    logs(scrape, page);
    journal(scrape, page);
    faults(scrape, page);
    page.gauge("tidegate_build_info", "Version of Tidegate; the value is always 1.")
        .value([("version", scrape.build)], 1.0);
}

/// Connections of clients, and the limits of load.
fn connections(scrape: &Scrape, page: &mut Page) {
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
}

/// Connections that could not be made, or that Tidegate closed.
fn refused_connections(scrape: &Scrape, page: &mut Page) {
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
}

/// The configuration in force, and its reloads.
fn configuration(scrape: &Scrape, page: &mut Page) {
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
}

/// Lines of logs that were lost.
fn logs(scrape: &Scrape, page: &mut Page) {
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
}

/// The journal and its checkpoints.
fn journal(scrape: &Scrape, page: &mut Page) {
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
}

/// Messages of alerts, panics, and what was lost.
fn faults(scrape: &Scrape, page: &mut Page) {
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
