//! The metric families of read-only modes.

use super::{Scrape, text::Page};
use crate::telemetry::collector::Durations;

/// The mode of a service.
#[derive(Debug, Clone)]
pub struct ReadOnly {
    /// The service.
    pub service: String,
    /// Whether the writes of all its routes are refused.
    pub all: bool,
    /// Number of its routes with a mode of their own.
    pub routes: usize,
    /// Writes that were refused.
    pub refused: u64,
}

/// The writes of a route that wait for the end of a mode.
#[derive(Debug, Clone)]
pub struct HoldUse {
    /// Its service.
    pub service: String,
    /// Its label.
    pub route: String,
    /// Writes that wait now.
    pub waiting: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What happened to writes, by kind.
    pub events: Vec<(&'static str, u64)>,
    /// How long writes waited that then began.
    pub holds: Durations,
}

/// Modes of services, and writes that wait.
pub(super) fn read_only(scrape: &Scrape, page: &mut Page) {
    let services = || scrape.read_only.iter().map(|s| ([("service", &*s.service)], s));
    let mut family = page
        .gauge("tidegate_read_only", "1 if the writes of all routes of the service are refused.");
    for (labels, service) in services() {
        family.value(labels, f64::from(u8::from(service.all)));
    }
    let mut family = page.gauge(
        "tidegate_read_only_routes",
        "Routes of the service with a read-only mode of their own.",
    );
    for (labels, service) in services() {
        family.value(labels, service.routes as f64);
    }
    let mut family = page.counter(
        "tidegate_read_only_refused_total",
        "Writes that got 503 because the service, the route or the process is read-only.",
    );
    for (labels, service) in services() {
        family.count(labels, service.refused);
    }
    let routes = || {
        let holds = scrape.holds.iter();
        holds.map(|hold| ([("service", &*hold.service), ("route", &*hold.route)], hold))
    };
    let mut family = page.gauge(
        "tidegate_read_only_held",
        "Writes that wait until the route is no longer read-only (`read_only: hold`).",
    );
    for (labels, hold) in routes() {
        family.value(labels, hold.waiting as f64);
    }
    let mut family = page.gauge("tidegate_read_only_held_bytes", "Memory of these writes.");
    for (labels, hold) in routes() {
        family.value(labels, hold.bytes as f64);
    }
    let mut family = page.counter(
        "tidegate_read_only_held_total",
        "What became of writes that were to wait: released; or not sent: full, late, left (the client), dismissed (the \
         process ends).",
    );
    for ([service, route], hold) in routes() {
        for (event, count) in &hold.events {
            family.count([service, route, ("event", *event)], *count);
        }
    }
    let mut family = page.histogram(
        "tidegate_read_only_hold_seconds",
        "How long writes waited until the route was no longer read-only.",
    );
    for (labels, hold) in routes() {
        family.durations(labels, &hold.holds);
    }
}
