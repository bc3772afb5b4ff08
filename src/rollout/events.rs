//! What happened, for people and for whoever is to be woken: the last events, and what is wrong now.
//!
//! Events are kept in memory, the newest so many. Their numbers grow over restarts too, so that a reader
//! that comes back with the last number it saw misses nothing that is still kept.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::alerts::Alerts;
use crate::analysis::Verdict;

/// Events that are kept.
const KEPT: usize = 1_000;

/// What kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The weights of a service were changed by word.
    Weights,
    /// The file was taken over.
    Configuration,
    /// A bad file changed nothing.
    ConfigurationRejected,
    /// A version was taken out.
    Ejected,
    /// A version would have been, if the comparison acted.
    WouldEject,
    /// A version that has no baseline beside it is worse than it may be; it stays.
    WorseAlone,
    /// A few players have nearly all failures of a version; the players of it do not fail more often.
    FewPlayers,
    /// A version refuses more requests (4xx) than the baseline.
    RefusalsRise,
    /// The players who failed on an ejected version go on failing elsewhere.
    EjectionMistaken,
    /// A version was taken back in.
    Reinstated,
    /// Evidence against a version is above half of its threshold.
    NearMiss,
    /// It is far from it again.
    NearMissOver,
    /// A version that was near its threshold, or worse, is compared no more.
    ComparisonEnded,
    /// Baseline and canaries both fail.
    SharedOutage,
    /// The baseline serves again.
    SharedOutageOver,
    /// An endpoint was taken out.
    EndpointEjected,
    /// An endpoint would have been, if the comparison acted.
    EndpointWouldEject,
    /// An endpoint's checks fail.
    EndpointDown,
    /// An endpoint is asked whether it could serve again.
    EndpointProbing,
    /// An endpoint serves again.
    EndpointServing,
    /// The only endpoint of a version cannot be connected.
    EndpointUnreachable,
    /// It can be again.
    EndpointReached,
    /// Too few endpoints of a version serve, so that others are used, too.
    HealthPanic,
    /// Enough serve again.
    HealthPanicOver,
}

impl Kind {
    /// Kinds that change nothing by themselves, so that no other metric shows them.
    pub const COUNTED: [Self; 3] = [Self::FewPlayers, Self::RefusalsRise, Self::EjectionMistaken];

    /// As the API writes it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Configuration => "configuration",
            Self::ConfigurationRejected => "configuration_rejected",
            Self::Ejected => "ejected",
            Self::WouldEject => "would_eject",
            Self::WorseAlone => "worse_alone",
            Self::FewPlayers => "few_players",
            Self::RefusalsRise => "refusals_rise",
            Self::EjectionMistaken => "ejection_mistaken",
            Self::Reinstated => "reinstated",
            Self::NearMiss => "near_miss",
            Self::NearMissOver => "near_miss_over",
            Self::ComparisonEnded => "comparison_ended",
            Self::SharedOutage => "shared_outage",
            Self::SharedOutageOver => "shared_outage_over",
            Self::EndpointEjected => "endpoint_ejected",
            Self::EndpointWouldEject => "endpoint_would_eject",
            Self::EndpointDown => "endpoint_down",
            Self::EndpointProbing => "endpoint_probing",
            Self::EndpointServing => "endpoint_serving",
            Self::EndpointUnreachable => "endpoint_unreachable",
            Self::EndpointReached => "endpoint_reached",
            Self::HealthPanic => "health_panic",
            Self::HealthPanicOver => "health_panic_over",
        }
    }
}

/// What an event is about and why; what is not known or does not apply is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Matter {
    /// The service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Address of one of its endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The route with limits of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The share of players, 0 to 1, that a reinstated version gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Who did it: a token's name, `verdict`, or the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, or what it shows on.
    #[serde(default)]
    pub reason: String,
    /// The numbers of the comparison behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Whether it happened in the process before this one, which told it then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub carried_over: bool,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number, larger than those of all events before it.
    pub id: u64,
    /// When, in UTC, RFC 3339 with milliseconds.
    pub at: String,
    /// What kind.
    pub kind: Kind,
    /// Generation of the snapshot in force behind it.
    pub generation: u64,
    /// What it is about and why.
    #[serde(flatten)]
    pub matter: Matter,
}

/// The command that takes `version` of `service` back in.
pub fn way_back(service: &str, version: &str) -> String {
    format!("tidegate reinstate {service} {version}")
}

/// The last events, and what is wrong now.
#[derive(Debug)]
pub struct Events {
    kept: VecDeque<Arc<Event>>,
    newest: watch::Sender<u64>,
    alerts: Alerts,
    /// Events of [`Kind::COUNTED`] since start, by service and version.
    counted: HashMap<(String, String), [u64; Kind::COUNTED.len()]>,
}

impl Events {
    /// None yet, of a process that started then. Their numbers begin at the microseconds of that moment, and
    /// events are rarer: so those of a process that follows are larger, however soon it does.
    pub fn new(started: SystemTime) -> Self {
        let since = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let first = u64::try_from(since.as_micros()).unwrap_or_default();
        let (kept, alerts, counted) = Default::default();
        Self { kept, newest: watch::Sender::new(first), alerts, counted }
    }

    /// Notes what happened at `now`.
    pub fn record(&mut self, kind: Kind, generation: u64, matter: Matter, now: SystemTime) {
        self.alerts.follow(kind, &matter, now);
        self.count(kind, &matter);
        let id = *self.newest.borrow() + 1;
        let at = humantime::format_rfc3339_millis(now).to_string();
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::new(Event { id, at, kind, generation, matter }));
        self.newest.send_replace(id);
    }

    fn count(&mut self, kind: Kind, matter: &Matter) {
        let Some(place) = Kind::COUNTED.iter().position(|counted| *counted == kind) else { return };
        if let (Some(service), Some(version)) = (&matter.service, &matter.version) {
            self.counted.entry((service.clone(), version.clone())).or_default()[place] += 1;
        }
    }

    /// Events of [`Kind::COUNTED`] of `version` of `service` since start, by the kind's label.
    pub fn counted(&self, service: &str, version: &str) -> Vec<(&'static str, u64)> {
        let counts = self.counted.get(&(service.to_owned(), version.to_owned()));
        let counts = counts.copied().unwrap_or_default();
        Kind::COUNTED.iter().zip(counts).map(|(kind, count)| (kind.label(), count)).collect()
    }

    /// Has those who wait for news look again.
    pub fn stir(&self) {
        self.newest.send_modify(|_| ());
    }

    /// Those that are kept and newer than number `id`, the oldest first.
    pub fn since(&self, id: u64) -> impl Iterator<Item = &Arc<Event>> {
        self.kept.iter().skip(self.kept.partition_point(|event| event.id <= id))
    }

    /// Number of the newest event; before the first one, a number below its own.
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// Word of each event.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// What is wrong now.
    pub fn alerts(&self) -> &Alerts {
        &self.alerts
    }

    /// The same, to forget what is no longer there.
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
            let matter = Matter { reason: nth.to_string(), ..Matter::default() };
            events.record(Kind::Weights, nth, matter, at(101));
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
        let matter = |version: &str| Matter {
            service: Some("game-api".to_owned()),
            version: Some(version.to_owned()),
            ..Matter::default()
        };
        for (kind, version) in [
            (Kind::EjectionMistaken, "v42"),
            (Kind::FewPlayers, "v43"),
            (Kind::EjectionMistaken, "v42"),
            (Kind::Ejected, "v42"),
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
        let matter = Matter {
            service: Some("game-api".to_owned()),
            by: Some("ci".to_owned()),
            reason: "v41 90 -> 80".to_owned(),
            ..Matter::default()
        };
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        events.record(Kind::Weights, 7, matter, at);
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
        for kind in [Kind::Weights, Kind::ConfigurationRejected, Kind::EndpointWouldEject] {
            assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.label());
        }
    }
}
