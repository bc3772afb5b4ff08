//! Incidents as the controller opens them: their names, their number, and those that wait for their report.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::Notify;

use crate::incident::{Earlier, Happened, Id, Kind, Opened, Sums};

/// Incidents that may wait for the service thread. It takes them at once unless it is stuck.
const MOST_WAITING: usize = 100;

/// Names that are remembered, so that a second incident of the same second gets a number.
const REMEMBERED: usize = 200;

/// An endpoint may leave and return many times: a version gets one report on its endpoints in this time.
const ENDPOINT_PACE: Duration = Duration::from_secs(600);

/// The incidents of this process.
#[derive(Debug, Default)]
pub struct Ledger {
    waiting: VecDeque<Opened>,
    names: VecDeque<Id>,
    counts: HashMap<(String, Kind), u64>,
    /// The last incident of each version, the latest at the end.
    last: VecDeque<((String, String), Earlier)>,
    /// When a report on endpoints of a version was opened last.
    endpoints: HashMap<(String, String), SystemTime>,
    news: Arc<Notify>,
}

/// What is known when an incident happens, besides what happened.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The version that others are compared with, if the configuration has the service.
    pub baseline: Option<String>,
    /// The generation after it.
    pub generation: u64,
    /// The hash of the configuration.
    pub config_hash: String,
    /// What the versions of the service have counted.
    pub counted: Sums,
    /// What they had counted when the first step of its rollout was set, if this process set it.
    pub begun: Option<Sums>,
}

impl Ledger {
    /// Opens an incident of a service at `at`. Returns its name; `None` if it gets no report, since another one on endpoints of the
    /// version is younger than ten minutes, or too many wait.
    pub fn open(&mut self, happened: Happened, at: SystemTime, facts: Facts) -> Option<Id> {
        if self.is_too_soon(&happened, at) || self.waiting.len() == MOST_WAITING {
            return None;
        }
        let Happened { kind, service, version, .. } = &happened;
        let id = Id::new(at, service, version, *kind);
        let id = id.after(self.names.iter());
        if self.names.len() == REMEMBERED {
            self.names.pop_front();
        }
        self.names.push_back(id.clone());
        *self.counts.entry((service.clone(), *kind)).or_default() += 1;
        let Facts { baseline, generation, config_hash, counted, begun } = facts;
        let this = Earlier { id: id.clone(), at, counted: counted.clone() };
        let earlier = self.succeed((service.clone(), version.clone()), this);
        self.waiting.push_back(Opened {
            id: id.clone(),
            at,
            happened,
            baseline,
            generation,
            config_hash,
            earlier,
            counted,
            begun,
        });
        self.news.notify_one();
        Some(id)
    }

    /// Notes the last incident of a version, and returns the one before it.
    fn succeed(&mut self, of: (String, String), this: Earlier) -> Option<Earlier> {
        let at = this.at;
        let place = self.last.iter().position(|(known, _)| *known == of);
        let before = place.and_then(|place| self.last.remove(place));
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back((of, this));
        // If the clock was set back, the one before is not known to be earlier.
        before.map(|(_, earlier)| earlier).filter(|earlier| earlier.at <= at)
    }

    fn is_too_soon(&mut self, happened: &Happened, at: SystemTime) -> bool {
        if happened.kind != Kind::EndpointEjected {
            return false;
        }
        self.endpoints
            .retain(|_, last| at.duration_since(*last).is_ok_and(|ago| ago < ENDPOINT_PACE));
        let place = (happened.service.clone(), happened.version.clone());
        if self.endpoints.contains_key(&place) {
            return true;
        }
        self.endpoints.insert(place, at);
        false
    }

    /// Takes those that wait for their report.
    pub fn take(&mut self) -> Vec<Opened> {
        self.waiting.drain(..).collect()
    }

    /// The name of the newest one.
    pub fn newest(&self) -> Option<&Id> {
        self.names.back()
    }

    /// Wakes whoever writes reports.
    pub fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.news)
    }

    /// Incidents of `service` since the start, by the label of their kind.
    pub fn counted(&self, service: &str) -> Vec<(&'static str, u64)> {
        let of = |kind| self.counts.get(&(service.to_owned(), kind)).copied().unwrap_or_default();
        Kind::ALL.into_iter().map(|kind| (kind.label(), of(kind))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(kind: Kind, version: &str) -> Happened {
        Happened {
            kind,
            service: "game-api".to_owned(),
            version: version.to_owned(),
            endpoint: None,
            route: None,
            by: "ops".to_owned(),
            reason: String::new(),
            verdict: None,
            ejected_at: None,
            rollout: None,
        }
    }

    fn at(s: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(s)
    }

    fn open(ledger: &mut Ledger, kind: Kind, version: &str, s: u64) -> Option<String> {
        let id = ledger.open(
            happened(kind, version),
            at(s),
            Facts { generation: 1, ..Facts::default() },
        );
        id.map(|id| id.to_string())
    }

    #[test]
    fn each_incident_has_a_name_of_its_own_and_is_counted() {
        let mut ledger = Ledger::default();
        let first = "1970-01-01T000005Z-game-api-v42-ejected";
        assert_eq!(open(&mut ledger, Kind::Ejected, "v42", 5).as_deref(), Some(first));
        let second = open(&mut ledger, Kind::Ejected, "v42", 5);
        assert_eq!(second, Some(format!("{first}-2")));
        assert_eq!(ledger.newest().map(Id::as_str), second.as_deref());
        let opened = ledger.take();
        assert_eq!((opened.len(), opened[0].generation), (2, 1));
        let earlier = |nth: usize| opened[nth].earlier.as_ref().map(|earlier| earlier.id.as_str());
        assert_eq!((earlier(0), earlier(1)), (None, Some(first)));
        assert!(ledger.take().is_empty());
        let counted = ledger.counted("game-api");
        assert_eq!(
            (counted[0], counted[1], counted.len()),
            (("ejected", 2), ("endpoint_ejected", 0), 6)
        );
        assert_eq!(ledger.counted("other")[0].1, 0);
    }

    /// Regression: incidents of two services within a second were ordered by the names of the services.
    #[test]
    fn incidents_of_a_second_are_named_in_the_order_in_which_they_happened() {
        let mut ledger = Ledger::default();
        let places = [("wallet", "v2"), ("game-api", "v3"), ("wallet", "v2"), ("bets", "v1-9")];
        let mut ids: Vec<Id> = Vec::new();
        for second in [5, 6] {
            for (service, version) in places {
                let happened =
                    Happened { service: service.to_owned(), ..happened(Kind::Ejected, version) };
                ids.extend(ledger.open(happened, at(second), Facts::default()));
            }
        }
        let mut sorted = ids.clone();
        sorted.sort();
        assert_eq!((ids.len(), sorted), (8, ids.clone()));
        assert_eq!(ids[1].as_str(), "1970-01-01T000005Z-game-api-v3-ejected-2");
        assert_eq!(ids[4].as_str(), "1970-01-01T000006Z-wallet-v2-ejected");
    }

    #[test]
    fn endpoints_that_come_and_go_fill_no_folder() {
        let mut ledger = Ledger::default();
        let mut opens = |version, s| open(&mut ledger, Kind::EndpointEjected, version, s).is_some();
        assert!(opens("v42", 0) && opens("v41", 1));
        assert!(!opens("v42", 599) && opens("v42", 600) && !opens("v42", 601));
        // The clock was set back.
        assert!(opens("v42", 100));
    }

    #[test]
    fn no_more_wait_than_are_bounded() {
        let mut ledger = Ledger::default();
        let opened = (0..500).filter_map(|s| open(&mut ledger, Kind::Ejected, "v42", s));
        assert_eq!(opened.count(), MOST_WAITING);
        for nth in 0..500 {
            let version = format!("v{nth}");
            let (id, counted) = (Id::new(at(0), "s", "v", Kind::Ejected), Sums::default());
            ledger.succeed(("game-api".to_owned(), version), Earlier { id, at: at(0), counted });
        }
        assert_eq!(ledger.last.len(), REMEMBERED);
        assert_eq!(ledger.take().len(), MOST_WAITING);
        assert!(open(&mut ledger, Kind::Ejected, "v42", 501).is_some());
    }
}
