//! Takes versions out, by a verdict or by word, and back in, by word.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Controller, Rejected, weights::list};
use crate::{
    analysis::Verdict,
    config::{schema::Mode, units::Weight},
    rollout::evaluator::Found,
};

/// Why and since when a version is ejected.
#[derive(Debug, Clone, PartialEq)]
pub struct Ejection {
    /// When, since the process started.
    pub at: Duration,
    /// Who ejected it: a token's name, or `verdict`.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The verdict that ejected it, if one did, and the route with limits of its own it is about.
    pub verdict: Option<(Option<Box<str>>, Verdict)>,
}

/// Ejections in force, by service and version.
pub type Ejections = BTreeMap<(String, String), Ejection>;

/// The versions of `ejections`, by service.
pub(super) fn by_service(ejections: &Ejections) -> BTreeMap<String, BTreeSet<String>> {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (service, version) in ejections.keys() {
        versions.entry(service.clone()).or_default().insert(version.clone());
    }
    versions
}

/// A version, or one of its endpoints, to take out or back in.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// The service.
    pub service: String,
    /// Its version.
    pub version: String,
    /// The endpoint's address; nothing for the whole version.
    pub endpoint: Option<String>,
    /// The generation that the caller saw; another one in force refuses the change.
    pub if_generation: Option<u64>,
    /// Who asks.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// Only tell what would change.
    pub dry_run: bool,
}

impl Controller {
    /// Looks at all comparisons and acts on what they found; answers when to look again, or nothing if
    /// nothing is compared.
    ///
    /// An ejection is published before anything else is done about it: safety waits for no disk.
    pub fn evaluate(&mut self) -> Option<Duration> {
        let (snapshot, now) = (self.snapshot(), self.started.0.elapsed());
        for found in self.evaluator.poll(&snapshot, now) {
            self.act(found, now);
        }
        self.evaluator.next_look()
    }

    fn act(&mut self, found: Found, now: Duration) {
        let Found { service, version, route, mode, verdict } = found;
        let reason = verdict.reason.clone();
        if mode != Mode::Act {
            let (service, version) = (&*service, &*version);
            tracing::warn!(service, version, reason, "a version would be ejected");
            return;
        }
        // Not the last one: a comparison needs a baseline with a share of players.
        let key = (service.to_string(), version.to_string());
        let (by, verdict) = ("verdict".to_owned(), Some((route, verdict)));
        let ejection = Ejection { at: now, by, reason, verdict };
        let reason = ejection.reason.clone();
        self.ejections.insert(key.clone(), ejection);
        let generation = self.publish(true);
        let (service, version) = (&*service, &*version);
        tracing::error!(service, version, generation, reason, "version ejected");
        *self.ejected_by_verdict.entry(key).or_default() += 1;
    }

    /// Takes a version, or one of its endpoints, out by word. When this returns, nobody new gets it.
    pub fn eject(&mut self, subject: Subject) -> Result<u64, Rejected> {
        if let Some(endpoint) = subject.endpoint.clone() {
            return self.eject_endpoint(subject, &endpoint);
        }
        let generation = self.admit(&subject)?;
        let Subject { service, version, by, reason, .. } = subject;
        let snapshot = self.snapshot();
        let others = snapshot.service(&service).into_iter().flat_map(|s| &s.versions);
        let mut others = others.filter(|v| *v.name != *version);
        if !others.any(|v| v.share_weight() > Weight::ZERO) {
            return Err(Rejected::LastVersion { service, version });
        }
        let key = (service, version);
        if subject.dry_run || self.ejections.contains_key(&key) {
            return Ok(generation);
        }
        let (at, reason) = (self.started.0.elapsed(), reason.unwrap_or_default());
        let ejection = Ejection { at, by: by.clone(), reason: reason.clone(), verdict: None };
        self.ejections.insert(key.clone(), ejection);
        let generation = self.publish(true);
        let (service, version) = key;
        tracing::warn!(service, version, generation, by, reason, "version ejected");
        Ok(generation)
    }

    /// Takes a version back in: it gets players by its weight again, as a new rollout. Or one of its
    /// endpoints.
    pub fn reinstate(&mut self, subject: Subject) -> Result<u64, Rejected> {
        if let Some(endpoint) = subject.endpoint.clone() {
            return self.reinstate_endpoint(subject, &endpoint);
        }
        let generation = self.admit(&subject)?;
        let Subject { service, version, by, reason, .. } = subject;
        let key = (service, version);
        if !self.ejections.contains_key(&key) {
            let (service, version) = key;
            return Err(Rejected::NotEjected { service, version });
        }
        if subject.dry_run {
            return Ok(generation);
        }
        self.ejections.remove(&key);
        let (service, version) = key;
        let generation = self.publish(true);
        let reason = reason.unwrap_or_default();
        tracing::info!(service, version, generation, by, reason, "version reinstated");
        Ok(generation)
    }

    pub(super) fn admit(&self, subject: &Subject) -> Result<u64, Rejected> {
        let Subject { service, version, if_generation, .. } = subject;
        let generation = self.admit_change(*if_generation)?;
        let known = self.known_service(service)?;
        if !known.versions.contains_key(version) {
            let known = list(known.versions.keys());
            let (service, version) = (service.clone(), version.clone());
            return Err(Rejected::NoVersion { service, version, known });
        }
        Ok(generation)
    }

    /// Ejections in force.
    pub fn ejections(&self) -> &Ejections {
        &self.ejections
    }

    /// How often a verdict ejected `version` of `service`.
    pub fn ejected_by_verdict(&self, service: &str, version: &str) -> u64 {
        let key = (service.to_owned(), version.to_owned());
        self.ejected_by_verdict.get(&key).copied().unwrap_or_default()
    }

    /// Verdicts of `service` as they stand, the ones that ejected first: version, route with limits of
    /// its own, verdict.
    pub fn verdicts(&self, service: &str) -> Vec<(String, Option<String>, Verdict)> {
        let now = self.started.0.elapsed();
        let past = self.ejections.iter().filter(|((of, _), _)| of == service);
        let past = past.filter_map(|((_, version), ejection)| {
            let (route, verdict) = ejection.verdict.clone()?;
            Some((version.clone(), route.map(String::from), verdict))
        });
        let snapshot = self.snapshot();
        let open = self.evaluator.verdicts(&snapshot, service, now);
        let open = open.map(|(v, r, verdict)| (v.to_owned(), r.map(str::to_owned), verdict));
        past.chain(open).collect()
    }

    /// Drops ejections of what `config` no longer has, so that a version that comes again is a new one.
    pub(super) fn forget_ejections(&mut self) {
        let config = &self.config;
        let has = |service: &str, version: &str| {
            config.services.get(service).is_some_and(|s| s.versions.contains_key(version))
        };
        self.ejections.retain(|(service, version), _| has(service, version));
    }
}
