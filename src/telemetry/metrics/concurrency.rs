//! The metric families of limits of requests in flight.

use super::{Scrape, text::Page};
use crate::telemetry::collector::Durations;

/// A limit of requests in flight.
#[derive(Debug, Clone, Default)]
pub struct ConcurrencyUse {
    /// The service.
    pub service: String,
    /// The route; empty if all routes of the service share the limit.
    pub route: String,
    /// The limit in force.
    pub limit: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests that wait.
    pub waiting: u64,
    /// Requests that got no place, by priority and reason.
    pub shed: Vec<(&'static str, &'static str, u64)>,
    /// How long requests waited that got a place.
    pub waits: Durations,
}

/// Limits of requests in flight.
pub(super) fn concurrency(scrape: &Scrape, page: &mut Page) {
    let each = || {
        let limits = scrape.concurrency.iter();
        limits.map(|limit| ([("service", &*limit.service), ("route", &*limit.route)], limit))
    };
    let mut family = page.gauge(
        "tidegate_concurrency_limit",
        "Most requests in flight, by service and route: the limit in force. The label route is empty where all routes of the \
         service share it.",
    );
    for (labels, limit) in each() {
        family.value(labels, f64::from(limit.limit));
    }
    let mut family = page.gauge(
        "tidegate_concurrency_in_flight",
        "Requests in flight that count against such a limit.",
    );
    for (labels, limit) in each() {
        family.value(labels, f64::from(limit.in_flight));
    }
    let mut family = page.gauge(
        "tidegate_concurrency_waiting",
        "Requests that wait until one of those in flight has ended.",
    );
    for (labels, limit) in each() {
        family.value(labels, limit.waiting as f64);
    }
    let mut family = page.counter(
        "tidegate_concurrency_shed_total",
        "Requests that were not sent for want of a place, by priority and reason: full (so was the queue), displaced (by a more \
         important one), late, left (the client).",
    );
    for ([service, route], limit) in each() {
        for (priority, reason, count) in &limit.shed {
            let labels = [service, route, ("priority", *priority), ("reason", *reason)];
            family.count(labels, *count);
        }
    }
    let mut family = page.histogram(
        "tidegate_concurrency_wait_seconds",
        "How long requests waited for a place that got one; those that did not wait do not count.",
    );
    for (labels, limit) in each() {
        family.durations(labels, &limit.waits);
    }
}
