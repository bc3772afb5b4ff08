//! The latest events, and the alerts that fire.
//!
//! A fixed number of events is kept in memory. Event numbers increase across restarts too, so a reader that
//! reconnects with the last number it saw misses no event that is still kept.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use super::alerts::Alerts;
pub use super::event::{Event, EventDetails, EventKind, way_back};
use crate::telemetry::rfc3339;

/// Number of events that are kept.
const KEPT: usize = 1_000;

/// The latest events, and the alerts that fire.
#[derive(Debug)]
pub struct Events {
    kept: VecDeque<Arc<Event>>,
    newest: watch::Sender<u64>,
    alerts: Alerts,
    /// Number of events of [`EventKind::COUNTED`] since the start, by service and version.
    counted: HashMap<(String, String), [u64; EventKind::COUNTED.len()]>,
}

impl Events {
    /// No events yet; the process began at `started`. Numbers begin at the microseconds of that time. Events
    /// are rarer than one per microsecond, so the numbers of a later process are larger.
    pub fn new(started: SystemTime) -> Self {
        let since = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let first = u64::try_from(since.as_micros()).unwrap_or_default();
        let (kept, alerts, counted) = Default::default();
        Self { kept, newest: watch::Sender::new(first), alerts, counted }
    }

    /// Records an event at `now`.
    pub fn record(
        &mut self,
        kind: EventKind,
        generation: u64,
        matter: EventDetails,
        now: SystemTime,
    ) {
        self.alerts.follow(kind, &matter, now);
        self.count(kind, &matter);
        let id = *self.newest.borrow() + 1;
        let at = rfc3339::millis(now).to_string();
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::new(Event { id, at, kind, generation, matter }));
        self.newest.send_replace(id);
    }

    fn count(&mut self, kind: EventKind, matter: &EventDetails) {
        let Some(place) = EventKind::COUNTED.iter().position(|counted| *counted == kind) else {
            return;
        };
        if let (Some(service), Some(version)) = (&matter.service, &matter.version) {
            self.counted.entry((service.clone(), version.clone())).or_default()[place] += 1;
        }
    }

    /// Number of events of [`EventKind::COUNTED`] of `version` of `service` since the start, by the kind's
    /// label.
    pub fn counted(&self, service: &str, version: &str) -> Vec<(&'static str, u64)> {
        let counts = self.counted.get(&(service.to_owned(), version.to_owned()));
        let counts = counts.copied().unwrap_or_default();
        EventKind::COUNTED.iter().zip(counts).map(|(kind, count)| (kind.label(), count)).collect()
    }

    /// Wakes the tasks that wait for events.
    pub fn stir(&self) {
        self.newest.send_modify(|_| ());
    }

    /// The kept events with numbers above `id`, oldest first.
    pub fn since(&self, id: u64) -> impl Iterator<Item = &Arc<Event>> {
        self.kept.iter().skip(self.kept.partition_point(|event| event.id <= id))
    }

    /// Number of the newest event; before the first event, a lower number.
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// Notifies of each event.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The alerts that fire.
    pub fn alerts(&self) -> &Alerts {
        &self.alerts
    }

    /// The alerts, to remove those whose subject is gone.
    pub(super) fn alerts_mut(&mut self) -> &mut Alerts {
        &mut self.alerts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_a_reader_goes_on_where_it_was() {
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        let mut events = Events::new(at(100));
        let first = events.newest();
        assert_eq!((first, events.since(0).count()), (100_000_000, 0));
        for nth in 0..1_010 {
            let matter = EventDetails { reason: nth.to_string(), ..EventDetails::default() };
            events.record(EventKind::Weights, nth, matter, at(101));
        }
        let all: Vec<_> = events.since(0).map(|event| event.generation).collect();
        assert_eq!((all.len(), all[0], all[999]), (1_000, 10, 1_009));
        let rest: Vec<_> = events.since(first + 1_008).map(|event| event.id - first).collect();
        assert_eq!(rest, [1_009, 1_010]);
        assert_eq!(events.since(events.newest()).count(), 0);
        let soon = at(100) + Duration::from_millis(2);
        assert!(
            Events::new(soon).newest() > events.newest(),
            "over a restart in the same second too"
        );
    }

    #[test]
    fn what_no_other_metric_shows_is_counted_by_version_from_0() {
        let mut events = Events::new(SystemTime::UNIX_EPOCH);
        let matter = |version: &str| EventDetails {
            service: Some("game-api".to_owned()),
            version: Some(version.to_owned()),
            ..EventDetails::default()
        };
        for (kind, version) in [
            (EventKind::EjectionMistaken, "v42"),
            (EventKind::FewPlayers, "v43"),
            (EventKind::EjectionMistaken, "v42"),
            (EventKind::Ejected, "v42"),
        ] {
            events.record(kind, 1, matter(version), SystemTime::UNIX_EPOCH);
        }
        let counted = |version| events.counted("game-api", version);
        let none = [("few_players", 0), ("refusals_rise", 0), ("ejection_mistaken", 0)];
        assert_eq!(counted("v41"), none);
        assert_eq!(counted("v42"), [none[0], none[1], ("ejection_mistaken", 2)]);
        assert_eq!(counted("v43"), [("few_players", 1), none[1], none[2]]);
    }

    #[test]
    fn an_event_is_written_without_what_does_not_apply_and_read_again() {
        let mut events = Events::new(SystemTime::UNIX_EPOCH);
        let matter = EventDetails {
            service: Some("game-api".to_owned()),
            by: Some("ci".to_owned()),
            reason: "v41 90 -> 80".to_owned(),
            ..EventDetails::default()
        };
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        events.record(EventKind::Weights, 7, matter, at);
        let event = events.since(0).next().expect("one");
        let text = serde_json::to_string(event).expect("JSON");
        assert_eq!(
            text,
            r#"{"id":1,"at":"1970-01-01T00:00:01.500Z","kind":"weights","generation":7,"service":"game-api","by":"ci","reason":"v41 90 -> 80"}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&text).expect("an event"), **event);
    }

    #[test]
    fn a_kind_has_one_name() {
        for kind in
            [EventKind::Weights, EventKind::ConfigurationRejected, EventKind::EndpointWouldEject]
        {
            assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.label());
        }
    }
}
