//! The metric families of idempotency keys.

use super::{Scrape, text::Page};

/// The idempotency keys of a route.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// Its service.
    pub service: String,
    /// Its label.
    pub route: String,
    /// Keys that are remembered.
    pub keys: u64,
    /// Those of them of which nobody knows whether their requests were processed.
    pub unsure: u64,
    /// Most keys.
    pub limit: u64,
    /// Requests that wait for the response to another one.
    pub waiting: u64,
    /// Memory of what is kept of keys that have ended, in bytes.
    pub bytes: u64,
    /// What happened, by kind.
    pub events: Vec<(&'static str, u64)>,
}

/// What keeps idempotency keys on disk.
#[derive(Debug, Clone, Copy)]
pub struct KeysKept {
    /// Whether keys cannot be written.
    pub failing: bool,
    /// How often the file was found removed or replaced, and its keys were written to the one there.
    pub moved: u64,
}

/// Idempotency keys of the routes that have some.
pub(super) fn idempotency(scrape: &Scrape, page: &mut Page) {
    if let Some(kept) = scrape.keys_kept {
        page.gauge(
            "tidegate_idempotency_failing",
            "Whether idempotency keys cannot be written: 1 while requests with a key are refused.",
        )
        .value([], f64::from(u8::from(kept.failing)));
        page.counter(
            "tidegate_idempotency_moved_total",
            "How often the file of idempotency keys was found removed or replaced while in use; its keys were not lost.",
        )
        .count([], kept.moved);
    }
    let each = || {
        let routes = scrape.idempotency.iter();
        routes.map(|keys| ([("service", &*keys.service), ("route", &*keys.route)], keys))
    };
    let mut gauge = |name, help, value: fn(&Idempotency) -> u64| {
        let mut family = page.gauge(name, help);
        for (route, keys) in each() {
            family.value(route, value(keys) as f64);
        }
    };
    gauge("tidegate_idempotency_keys", "Idempotency keys that are remembered.", |keys| keys.keys);
    gauge(
        "tidegate_idempotency_keys_unsure",
        "Idempotency keys of which nobody knows whether their requests were processed, also after a crash.",
        |keys| keys.unsure,
    );
    gauge(
        "tidegate_idempotency_keys_limit",
        "Most idempotency keys; requests with further ones are refused.",
        |keys| keys.limit,
    );
    gauge(
        "tidegate_idempotency_waiting",
        "Requests that wait for the response to another one with the same idempotency key.",
        |keys| keys.waiting,
    );
    gauge(
        "tidegate_idempotency_memory_bytes",
        "Memory of responses and idempotency keys that are kept.",
        |keys| keys.bytes,
    );
    let mut events = page.counter(
        "tidegate_idempotency_total",
        "What happened to idempotency keys (begun, answered, freed, unsure) and to their requests: held, replayed, \
         asked, or refused: missing, malformed, mismatch, refused_unsure, refused_not_kept, refused_busy, refused_full, \
         refused_unstored, refused_body.",
    );
    for ([service, route], keys) in each() {
        for (event, count) in &keys.events {
            events.count([service, route, ("event", *event)], *count);
        }
    }
}
