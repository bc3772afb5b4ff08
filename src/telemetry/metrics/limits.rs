//! The metric families of limits on the requests of routes.

use super::{Scrape, text::Page};

/// A limit of the rate of requests of a route.
#[derive(Debug, Clone, Default)]
pub struct RateUse {
    /// The route.
    pub route: String,
    /// The name of the limit.
    pub limit: String,
    /// Requests over the limit that got 429.
    pub refused: u64,
    /// Requests over the limit that went on, since it only advises.
    pub advised: u64,
    /// Keys forgotten before their time, since more came than the limit remembers.
    pub lost: u64,
}

/// Requests of a route that were refused before a version got them.
#[derive(Debug, Clone)]
pub struct RefusedUse {
    /// Its service.
    pub service: String,
    /// The route.
    pub route: String,
    /// How many, by what refused them.
    pub counts: Vec<(&'static str, u64)>,
}

/// Refused requests.
pub(super) fn refused(scrape: &Scrape, page: &mut Page) {
    let mut refused = page.counter(
        "tidegate_refused_total",
        "Requests that were refused before a version got them, by route and what refused them.",
    );
    for route in &scrape.refused {
        let labels = [("service", &*route.service), ("route", &*route.route)];
        for (reason, count) in &route.counts {
            refused.count([labels[0], labels[1], ("reason", reason)], *count);
        }
    }
}

/// Limits of rates.
pub(super) fn limits(scrape: &Scrape, page: &mut Page) {
    let each = || {
        scrape.rates.iter().map(|rate| ([("route", &*rate.route), ("limit", &*rate.limit)], rate))
    };
    let mut refused =
        page.counter("tidegate_rate_limited_total", "Requests that got 429, by route and limit.");
    for (labels, rate) in each() {
        refused.count(labels, rate.refused);
    }
    let mut advised = page.counter(
        "tidegate_rate_advised_total",
        "Requests over a limit that only advises, which went on, by route and limit.",
    );
    for (labels, rate) in each() {
        advised.count(labels, rate.advised);
    }
    let mut lost = page.counter(
        "tidegate_rate_keys_lost_total",
        "Keys of a limit that were forgotten before they were within it again, since more keys came than it \
         remembers (`keys`).",
    );
    for (labels, rate) in each() {
        lost.count(labels, rate.lost);
    }
}
