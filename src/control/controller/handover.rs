//! State that is handed over between processes at a takeover.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use super::{
    Controller, Ejection,
    ejections::{Ejections, ManualEjection, ManualEjections, by_service},
    weights::keeps_override,
};
use crate::{
    config::schema,
    control::{
        carried::{HandoverState, Replacement, SetWeights, WhyEjected, WhyEndpoint},
        events::{EventDetails, EventKind},
    },
    snapshot::Overrides,
};

/// Why something is back that the process before had ejected when it was asked first.
const BEFORE_THIS_ONE: &str = "reinstated before this one";

/// What was ejected `before` and is not `now`, by service and version.
fn gone(before: &BTreeMap<String, BTreeSet<String>>, now: &Ejections) -> Vec<(String, String)> {
    let all = before.iter().flat_map(|(service, versions)| {
        versions.iter().map(move |version| (service.clone(), version.clone()))
    });
    all.filter(|place| !now.contains_key(place)).collect()
}

impl Controller {
    /// How this process came from another one, and what came of those that were to follow it.
    pub fn replacement(&self) -> &Replacement {
        &self.replacement
    }

    /// Notes how the process came from another one, or why none follows it.
    pub fn replacement_mut(&mut self) -> &mut Replacement {
        &mut self.replacement
    }

    /// What another process needs, to go on where this one is.
    pub fn carried(&self) -> HandoverState {
        let weights = self.overrides.iter().map(|(service, set)| {
            let file = self.config.services.get(service).and_then(|s| s.weights.clone());
            (service.clone(), SetWeights { set: set.clone(), file })
        });
        HandoverState {
            generation: self.snapshot().generation,
            weights: weights.collect(),
            ejected: by_service(&self.ejections),
            reasons: self.ejections.iter().map(WhyEjected::of).collect(),
            endpoints: self.endpoints.by_word(&self.snapshot()),
            endpoint_reasons: self.manual.iter().map(WhyEndpoint::of).collect(),
        }
    }

    /// As [`Controller::carried`]; from now on another process decides the weights, judges and alerts.
    pub fn hand_over(&mut self) -> HandoverState {
        self.handed_over = true;
        self.carried()
    }

    /// Whether another process decides.
    pub fn is_handed_over(&self) -> bool {
        self.handed_over
    }

    /// Decides again, since the other process failed, or at last, since it has let go.
    pub fn take_back(&mut self) {
        self.handed_over = false;
        // Those who judge and alert have waited for it.
        self.published.send_modify(|_| ());
        self.events.stir();
    }

    /// Goes on where another process was: weights that were set on it stay under the rule of a
    /// reload, and generations go on above its own.
    pub fn inherit(&mut self, carried: HandoverState) {
        let kept = carried.weights.into_iter().filter_map(|(name, weights)| {
            let service = self.config.services.get(&name);
            let as_before = service.is_some_and(|s| weights.is_of_file(s.weights.as_ref()));
            let kept = keeps_override(&name, &weights.set, as_before, &self.config);
            kept.then_some((name, weights.set))
        });
        let kept: Overrides = kept.collect();
        self.floor = carried.generation;
        let at = self.started.0.elapsed();
        let pairs = carried.ejected.into_iter().flat_map(|(service, versions)| {
            versions.into_iter().map(move |version| (service.clone(), version))
        });
        // It has served nobody yet, so all that it has ejected comes from that process, which may have
        // reinstated some of it since it was asked first.
        let before = by_service(&std::mem::take(&mut self.ejections));
        for (service, version) in pairs {
            let is_it = |why: &&WhyEjected| why.service == service && why.version == version;
            let why = carried.reasons.iter().find(is_it).cloned().unwrap_or_else(|| WhyEjected {
                service: service.clone(),
                version: version.clone(),
                by: "another process".to_owned(),
                reason: "ejected before this one".to_owned(),
                route: None,
                verdict: None,
                at_unix_ms: None,
            });
            let WhyEjected { by, reason, route, verdict, at_unix_ms, .. } = why;
            // The process is asked twice, and it is told once.
            if !before.get(&service).is_some_and(|versions| versions.contains(&version)) {
                let place =
                    EventDetails::of_place(service.clone(), version.clone(), reason.clone());
                let (by, route, verdict) = (Some(by.clone()), route.clone(), verdict.clone());
                let matter = EventDetails { by, route, verdict, carried_over: true, ..place };
                self.record_at(EventKind::Ejected, matter, time_of(at_unix_ms));
            }
            let verdict = verdict.map(|verdict| (route.map(Into::into), verdict));
            let since = time_of(at_unix_ms);
            let ejection = Ejection { at, since, by, reason, verdict, record: None };
            self.ejections.insert((service, version), ejection);
        }
        for (service, version) in gone(&before, &self.ejections) {
            let (by, reason) = (Some("another process".to_owned()), BEFORE_THIS_ONE.to_owned());
            let place = EventDetails::of_place(service, version, reason);
            self.record(EventKind::Reinstated, EventDetails { by, carried_over: true, ..place });
        }
        self.forget_ejections();
        self.take_back_the_last();
        let stood_in = self.stand_ins.clone();
        let is_new = kept != self.overrides;
        self.overrides = kept;
        self.find_stand_ins();
        if is_new
            || by_service(&self.ejections) != before
            || self.stand_ins != stood_in
            || self.snapshot().generation <= self.floor
        {
            self.publish();
        }
        self.tell_stand_ins(&stood_in);
        let manual = carried.endpoint_reasons.into_iter().map(WhyEndpoint::into_manual).collect();
        let told = std::mem::replace(&mut self.manual, manual);
        self.tell_carried_endpoints(&told);
        let snapshot = self.snapshot();
        self.endpoints.inherit(&snapshot, carried.endpoints, at);
        self.publish_endpoints(&snapshot);
    }

    /// Tells which endpoints operators of another process keep out, but for those of `told`, and which of
    /// these have come back since.
    fn tell_carried_endpoints(&mut self, told: &ManualEjections) {
        let matter =
            |(service, version, endpoint): &(String, String, String), by, reason| EventDetails {
                endpoint: Some(endpoint.clone()),
                carried_over: true,
                ..EventDetails::of_version(service.clone(), version.clone(), by, reason)
            };
        let out =
            self.manual.iter().filter(|(key, _)| !told.contains_key(*key)).map(|(key, why)| {
                let ManualEjection { since, by, reason } = why.clone();
                (EventKind::EndpointEjected, matter(key, by, reason), since)
            });
        let back = told.keys().filter(|key| !self.manual.contains_key(*key)).map(|key| {
            let (by, reason) = ("another process".to_owned(), BEFORE_THIS_ONE.to_owned());
            (EventKind::EndpointServing, matter(key, by, reason), SystemTime::now())
        });
        let all: Vec<_> = out.chain(back).collect();
        for (kind, matter, at) in all {
            self.record_at(kind, matter, at);
        }
    }

    /// Takes back the baseline of a service all of whose versions are ejected: the file has changed since,
    /// and this process has no older one to go on with.
    fn take_back_the_last(&mut self) {
        let all = |(name, service): &(&String, &schema::Service)| {
            service.versions.keys().all(|version| self.ejection(name, version).is_some())
        };
        let services = self.config.services.iter().filter(all);
        let baselines: Vec<_> = services.map(|(n, s)| (n.clone(), s.baseline.clone())).collect();
        for key in baselines {
            self.ejections.remove(&key);
            let (service, version) = key;
            let reason =
                "every version that the file has is ejected, and one must serve".to_owned();
            tracing::error!(service, version, reason, "version reinstated");
            let by = "takeover".to_owned();
            self.record(
                EventKind::Reinstated,
                EventDetails::of_version(service, version, by, reason),
            );
        }
    }
}

fn time_of(at_unix_ms: Option<u64>) -> SystemTime {
    let since = at_unix_ms.map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
    since.unwrap_or_else(SystemTime::now)
}

fn unix_ms(at: SystemTime) -> Option<u64> {
    at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis().try_into().ok()
}

impl WhyEjected {
    fn of(((service, version), ejection): (&(String, String), &Ejection)) -> Self {
        let (route, verdict) = ejection.verdict.clone().unzip();
        Self {
            service: service.clone(),
            version: version.clone(),
            by: ejection.by.clone(),
            reason: ejection.reason.clone(),
            route: route.flatten().map(String::from),
            verdict,
            at_unix_ms: unix_ms(ejection.since),
        }
    }
}

impl WhyEndpoint {
    fn of(
        ((service, version, endpoint), ejection): (&(String, String, String), &ManualEjection),
    ) -> Self {
        Self {
            service: service.clone(),
            version: version.clone(),
            endpoint: endpoint.clone(),
            by: ejection.by.clone(),
            reason: ejection.reason.clone(),
            at_unix_ms: unix_ms(ejection.since),
        }
    }

    fn into_manual(self) -> ((String, String, String), ManualEjection) {
        let Self { service, version, endpoint, by, reason, at_unix_ms } = self;
        let ejection = ManualEjection { since: time_of(at_unix_ms), by, reason };
        ((service, version, endpoint), ejection)
    }
}
