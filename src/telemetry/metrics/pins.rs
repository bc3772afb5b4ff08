//! The metric families of pins.

use super::{Scrape, text::Page};

/// The pins of a service.
#[derive(Debug, Clone, Default)]
pub struct Pins {
    /// By version: pins, and the age of the oldest in seconds, 0 without pins.
    pub versions: Vec<(String, u64, u32)>,
    /// What happened, by kind.
    pub events: Vec<(&'static str, u64)>,
}

/// Pins of the services that have some.
pub(super) fn pins(scrape: &Scrape, page: &mut Page) {
    let each = || {
        let services = scrape.services.iter();
        services.filter_map(|s| Some((("service", &*s.name), s.pins.as_ref()?)))
    };
    let versions =
        || each().flat_map(|(service, pins)| pins.versions.iter().map(move |v| (service, v)));
    let mut held =
        page.gauge("tidegate_pins", "Players and rounds held on a version, whatever its weight.");
    for (service, (version, pins, _)) in versions() {
        held.value([service, ("version", version)], *pins as f64);
    }
    let mut oldest = page.gauge(
        "tidegate_pins_oldest_seconds",
        "Age of the oldest pin of a version; 0 without pins.",
    );
    for (service, (version, _, age)) in versions() {
        oldest.value([service, ("version", version)], f64::from(*age));
    }
    let mut events = page.counter(
        "tidegate_pins_total",
        "What happened to pins: begun; ended by a response, by idle or by limit; moved since their version was \
         ejected or lost; forced to another version by an operator; refused_full at the limit of pins; cookie_rejected.",
    );
    for (service, pins) in each() {
        for (event, count) in &pins.events {
            events.count([service, ("event", event)], *count);
        }
    }
}
