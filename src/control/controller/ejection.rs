//! Ejects versions, by a verdict or for an operator, and reinstates them for an operator.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Controller, Coverage, Rejected,
    ejections::{Ejection, Ejections, ManualEjections, Moved, Target},
    split::list,
};
use crate::{
    analysis::{Advised, Arms, OutageChange, Record, Tally, Title, Verdict},
    config::schema::{Mode, OnMistake},
    control::{
        evaluator::{Advice, CanaryFinding, Found},
        events::{EventDetails, EventKind, way_back},
    },
};

/// How often a version comes back by itself: one that is ejected again and again is left to people.
const MOST_MISTAKES: u32 = 3;

impl Controller {
    /// Looks at all comparisons and acts on what they found; answers when to look again, or nothing if
    /// nothing is compared.
    ///
    /// An ejection is published before anything else is done about it: safety waits for no disk. While
    /// another process decides, nothing is judged.
    pub fn evaluate(&mut self) -> Option<Duration> {
        if self.handed_over {
            return None;
        }
        let (snapshot, now) = (self.snapshot(), self.started.0.elapsed());
        for found in self.evaluator.poll(&snapshot, now) {
            self.act(found, now);
        }
        let next = self.evaluator.next_look();
        self.evaluator.expect_after(next, now);
        next
    }

    pub(super) fn act(&mut self, found: Found, now: Duration) {
        match found {
            Found::Worse(suspect) if suspect.mode == Mode::Act => self.eject_suspect(*suspect, now),
            Found::Worse(suspect) => {
                let CanaryFinding { service, version, verdict, .. } = &*suspect;
                let reason = &verdict.reason;
                let kind =
                    if verdict.alone { EventKind::WorseAlone } else { EventKind::WouldEject };
                match kind {
                    EventKind::WorseAlone => {
                        tracing::error!(
                            service,
                            version,
                            reason,
                            "the only version is worse, and stays"
                        );
                    }
                    _ => tracing::warn!(service, version, reason, "a version would be ejected"),
                }
                self.record(kind, EventDetails::of_suspect(*suspect));
            }
            Found::NearMiss(suspect) => {
                let CanaryFinding { service, version, verdict, .. } = &*suspect;
                let reason = verdict.nearness();
                tracing::warn!(service, version, reason, "a version is near its ejection");
                self.record(
                    EventKind::NearMiss,
                    EventDetails { reason, ..EventDetails::of_suspect(*suspect) },
                );
            }
            Found::NearMissOver(suspect) => {
                let CanaryFinding { service, version, .. } = &*suspect;
                tracing::info!(service, version, "a version is no longer near its ejection");
                self.record(EventKind::NearMissOver, EventDetails::of_suspect(*suspect));
            }
            Found::Advice(advice) => self.advise(*advice),
            Found::Mistake { service, version, failed, of } => {
                self.note_mistake(service.into(), version.into(), failed, of);
            }
            Found::NoLongerCompared { service, version } => {
                let matter = EventDetails {
                    service: Some(service.into()),
                    version: Some(version.into()),
                    reason: "it has no share, or is compared anew".to_owned(),
                    ..EventDetails::default()
                };
                self.record(EventKind::ComparisonEnded, matter);
            }
            Found::SharedOutage { service, change } => {
                let (kind, reason) = match change {
                    OutageChange::Begins(counts) => {
                        (EventKind::SharedOutage, shared("fail", counts))
                    }
                    OutageChange::Ends(counts) => {
                        (EventKind::SharedOutageOver, shared("failed", counts))
                    }
                };
                match kind {
                    EventKind::SharedOutage => tracing::error!(service, reason, "shared outage"),
                    _ => tracing::info!(service, reason, "the shared outage is over"),
                }
                let service = Some(service.into());
                self.record(kind, EventDetails { service, reason, ..EventDetails::default() });
            }
        }
    }

    /// Notes that an ejection by a verdict helped nobody, and takes it back if the file says so.
    fn note_mistake(&mut self, service: String, version: String, failed: u64, of: u64) {
        let key = (service, version);
        let Some(ejection) = self.ejections.get_mut(&key) else { return };
        let Some((_, verdict)) = &mut ejection.verdict else { return };
        let helped_nobody = format!(
            "the ejection helped nobody: {failed} of {of} players who failed on it go on failing elsewhere"
        );
        let reason = format!("{} Afterwards: {helped_nobody}.", verdict.reason);
        verdict.reason.clone_from(&reason);
        ejection.reason = reason;
        let (service, version) = key.clone();
        tracing::error!(service, version, reason = helped_nobody, "an ejection helped nobody");
        let by = "verdict".to_owned();
        let matter = EventDetails::of_version(service, version, by.clone(), helped_nobody.clone());
        self.record(EventKind::EjectionMistaken, matter);
        let snapshot = self.snapshot();
        let compared = snapshot.service(&key.0).and_then(|service| service.compared.as_ref());
        let reinstates = compared.is_some_and(|c| c.on_mistake == OnMistake::Reinstate);
        let times = self.mistakes.entry(key.clone()).or_default();
        if reinstates && *times >= MOST_MISTAKES {
            tracing::warn!(
                service = key.0,
                version = key.1,
                "it was reinstated {MOST_MISTAKES} times by itself, and stays out now"
            );
        }
        if !reinstates || *times >= MOST_MISTAKES {
            return;
        }
        *times += 1;
        let (service, version) = key;
        let subject = Target {
            service: service.clone(),
            version: version.clone(),
            endpoint: None,
            if_generation: None,
            by,
            reason: Some(helped_nobody),
            dry_run: false,
        };
        if let Err(why) = self.reinstate(subject) {
            tracing::warn!(service, version, %why, "the version is not reinstated");
        }
    }

    fn advise(&mut self, advice: Advice) {
        let Advice { service, version, route, advised, finding, players } = advice;
        let (kind, reason) = match advised {
            Advised::FewPlayers => {
                let who = match players {
                    0 | 1 => "one of its players has".to_owned(),
                    _ => format!("{players} of its players have"),
                };
                let text = format!("{who} nearly all failures: {finding}");
                (EventKind::FewPlayers, text)
            }
            Advised::Refusals => (EventKind::RefusalsRise, finding.to_string()),
        };
        tracing::warn!(service, version, reason, "{}", kind.label());
        let matter = EventDetails {
            service: Some(service.into()),
            version: Some(version.into()),
            route: route.map(Into::into),
            reason,
            ..EventDetails::default()
        };
        self.record(kind, matter);
    }

    fn eject_suspect(&mut self, suspect: CanaryFinding, now: Duration) {
        let key = (suspect.service.to_string(), suspect.version.to_string());
        // A comparison has a baseline with a share of players, but nothing may depend on that.
        let ahead = self.weights_ahead();
        if self.coverage_with(&key.0, &ahead, Some(&key.1)) == Coverage::Nobody {
            let (service, version) = key;
            tracing::error!(service, version, "the last version is worse, and stays");
            self.record(EventKind::WorseAlone, EventDetails::of_suspect(suspect));
            return;
        }
        let ejection = Ejection {
            at: now,
            since: SystemTime::now(),
            by: "verdict".to_owned(),
            reason: suspect.verdict.reason.clone(),
            verdict: Some((suspect.route.clone(), suspect.verdict.clone())),
            record: None,
        };
        if let Some(service) = self.snapshot().service(&suspect.service) {
            let route = suspect.route.as_deref();
            self.evaluator.follow_players(service, &suspect.version, route, now);
        }
        self.ejections.insert(key.clone(), ejection);
        let generation = self.publish();
        let CanaryFinding { service, version, route, verdict, .. } = &suspect;
        // Nobody waits for it any more.
        let record = self.evaluator.record(service, version, route.as_deref());
        if let Some(ejection) = self.ejections.get_mut(&key) {
            ejection.record = record.map(Arc::new);
        }
        let reason = &verdict.reason;
        let reinstate = way_back(service, version);
        tracing::error!(service, version, generation, reason, reinstate, "version ejected");
        *self.ejected_by_verdict.entry(key).or_default() += 1;
        let by = Some("verdict".to_owned());
        self.record(EventKind::Ejected, EventDetails { by, ..EventDetails::of_suspect(suspect) });
    }

    /// Ejects a version, or one of its endpoints, for an operator. When this returns, nobody new gets it.
    pub fn eject(&mut self, subject: Target) -> Result<Moved, Rejected> {
        if let Some(endpoint) = subject.endpoint.clone() {
            return self.eject_endpoint(subject, &endpoint);
        }
        let generation = self.admit(&subject)?;
        let Target { service, version, by, reason, .. } = subject;
        if let Some(ejection) = self.ejection(&service, &version) {
            return Ok(Moved { generation, already: Some(ejection.into()), share: None });
        }
        let ahead = self.weights_ahead();
        let now = self.coverage_with(&service, &ahead, None);
        let then = self.coverage_with(&service, &ahead, Some(&version));
        if then == Coverage::Nobody || then < now {
            return Err(Rejected::LastVersion { service, version });
        }
        let key = (service, version);
        if subject.dry_run {
            return Ok(Moved::to(generation));
        }
        let ejection = Ejection {
            at: self.started.0.elapsed(),
            since: SystemTime::now(),
            by: by.clone(),
            reason: reason.clone().unwrap_or_default(),
            verdict: None,
            record: None,
        };
        self.ejections.insert(key.clone(), ejection);
        let generation = self.publish();
        let ((service, version), reason) = (key, reason.unwrap_or_default());
        let reinstate = way_back(&service, &version);
        tracing::warn!(service, version, generation, by, reason, reinstate, "version ejected");
        self.record(EventKind::Ejected, EventDetails::of_version(service, version, by, reason));
        Ok(Moved::to(generation))
    }

    /// Takes a version back in: it gets players by its weight again, as a new rollout. Or one of its
    /// endpoints.
    pub fn reinstate(&mut self, subject: Target) -> Result<Moved, Rejected> {
        if let Some(endpoint) = subject.endpoint.clone() {
            return self.reinstate_endpoint(subject, &endpoint);
        }
        let generation = self.admit(&subject)?;
        let Target { service, version, by, reason, .. } = subject;
        let key = (service, version);
        if !self.ejections.contains_key(&key) {
            let (service, version) = key;
            return Err(Rejected::NotEjected { service, version });
        }
        let (service, version) = key;
        let share = self.shares_when_reinstated(&service).get(&version).copied();
        if subject.dry_run {
            return Ok(Moved { share, ..Moved::to(generation) });
        }
        self.ejections.remove(&(service.clone(), version.clone()));
        self.reinstate_compared_endpoints(&service, &version);
        let generation = self.publish();
        let reason = reason.unwrap_or_default();
        tracing::info!(service, version, generation, share, by, reason, "version reinstated");
        let matter =
            EventDetails { share, ..EventDetails::of_version(service, version, by, reason) };
        self.record(EventKind::Reinstated, matter);
        Ok(Moved { share, ..Moved::to(generation) })
    }

    pub(super) fn admit(&self, subject: &Target) -> Result<u64, Rejected> {
        let Target { service, version, if_generation, .. } = subject;
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

    /// Endpoints that operators keep out.
    pub fn manual_ejections(&self) -> &ManualEjections {
        &self.manual
    }

    /// How often a verdict ejected `version` of `service`.
    pub fn ejected_by_verdict(&self, service: &str, version: &str) -> u64 {
        let key = (service.to_owned(), version.to_owned());
        self.ejected_by_verdict.get(&key).copied().unwrap_or_default()
    }

    /// Whether baseline and canaries of `service` fail alike; nothing if they are not compared.
    pub fn has_shared_outage(&self, service: &str) -> Option<bool> {
        self.evaluator.has_shared_outage(service)
    }

    /// What the comparison of `version` of `service` was told on the requests of `route`, or of all routes
    /// without limits of their own: the one that ejected it, else the one that runs. Nothing if there is
    /// none. To judge what runs takes a while: that is left to the caller, who does not hold the controller
    /// meanwhile.
    pub fn record_of(
        &self,
        service: &str,
        version: &str,
        route: Option<&str>,
    ) -> Option<impl FnOnce() -> (Title, Arc<Record>) + use<>> {
        let snapshot = self.snapshot();
        let ejection = self.ejections.get(&(service.to_owned(), version.to_owned()));
        let (verdict, at, record) = match ejection.and_then(|e| Some((e, e.verdict.as_ref()?))) {
            Some((ejection, (of, verdict))) if of.as_deref() == route => {
                let record = Arc::clone(ejection.record.as_ref()?);
                (Some(verdict.clone()), ejection.at, record)
            }
            _ => {
                let now = self.started.0.elapsed();
                let record = self.evaluator.record(service, version, route)?;
                (None, now, Arc::new(record))
            }
        };
        let baseline = snapshot.service(service)?;
        let baseline = &baseline.versions[usize::from(baseline.baseline)];
        let (service, version) = (service.to_owned(), version.to_owned());
        let (baseline, route) = (baseline.name.to_string(), route.map(str::to_owned));
        Some(move || {
            let verdict = verdict.unwrap_or_else(|| record.judge(at));
            (Title { service, version, baseline, route, verdict, at }, record)
        })
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
        self.manual.retain(|(service, version, _), _| has(service, version));
    }
}

/// That both arms `fail` or `failed`, with their counts.
fn shared(verb: &str, counts: Arms<Tally>) -> String {
    let Arms { canary, baseline } = counts;
    format!(
        "both {verb}: {} of {} requests of canaries and {} of {} of the baseline",
        canary.failures(),
        canary.trials(),
        baseline.failures(),
        baseline.trials(),
    )
}
