//! Ejects versions, by a verdict or for an operator, and reinstates them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use indexmap::IndexMap;
use serde_json::json;

use super::{
    ChangeHead, Controller, Judged, Moment, Rejected,
    ejections::{Effect, Moved, Target, ejected},
    split::list,
};
use crate::{
    analysis::{Advised, Arms, OutageChange, Record, Tally, Title, Verdict},
    config::{
        actor,
        schema::{Mode, OnMistake},
    },
    control::{
        evaluator::{Advice, CanaryFinding, Found},
        events::{EventDetails, EventKind, way_back},
        state::{Change, ControlState, Ejection, ManualEjections},
    },
    store::{Actor, Draft},
};

/// How often a version is reinstated automatically. After that an operator must do it.
const MOST_MISTAKES: u32 = 3;

impl Controller {
    /// Polls all comparisons and acts on their findings. Returns when to poll next; `None` if no version is
    /// compared.
    ///
    /// An ejection is published before anything else is done about it: safety does not wait for a disk. While
    /// another process decides, nothing is judged.
    pub fn evaluate(&mut self) -> Option<Duration> {
        if self.handed_over {
            return None;
        }
        let (snapshot, now) = (self.snapshot(), self.judging_time());
        self.feel(&snapshot, now);
        for found in self.evaluator.poll(&snapshot, now) {
            self.act(found, now);
        }
        let again = self.review_kept(now);
        let next = self.evaluator.next_look();
        let next = next.map(|next| again.map_or(next, |again| again.min(next)));
        self.evaluator.expect_after(next, now);
        next
    }

    pub(super) fn act(&mut self, found: Found, now: Duration) {
        match found {
            Found::Worse(suspect) if suspect.mode == Mode::Act || self.has_way_back(&suspect) => {
                self.eject_or_keep(*suspect, now);
            }
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
                            "the only version is worse; it is not ejected"
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
                    reason: "it has no share, or its comparison restarted".to_owned(),
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

    /// Records that an ejection by a verdict did not reduce failures. Undoes it if the configuration says so.
    fn note_mistake(&mut self, service: String, version: String, failed: u64, of: u64) {
        let key = (service, version);
        let ejection = self.state.ejection(&key.0, &key.1);
        let Some((_, verdict)) = ejection.and_then(|e| e.verdict.as_ref()) else { return };
        let did_not_help = format!(
            "the ejection did not help: {failed} of {of} players who failed on it still fail elsewhere"
        );
        let reason = format!("{} Afterwards: {did_not_help}.", verdict.reason);
        let (service, version) = key.clone();
        self.note(Change::EjectionMistaken {
            service: service.clone(),
            version: version.clone(),
            reason,
        });
        tracing::error!(service, version, reason = did_not_help, "an ejection did not help");
        let draft = self.verdict_entry("ejection_mistaken", &key, &did_not_help);
        self.write_late(draft);
        let by = by_verdict();
        let matter =
            EventDetails::of_version(service, version, by.name.clone(), did_not_help.clone());
        self.record(EventKind::EjectionMistaken, matter);
        let snapshot = self.snapshot();
        let compared = snapshot.service(&key.0).and_then(|service| service.compared.as_ref());
        let reinstates = compared.is_some_and(|c| c.on_mistake == OnMistake::Reinstate);
        let times = self.state.mistakes(&key.0, &key.1);
        if reinstates && times >= MOST_MISTAKES {
            tracing::warn!(
                service = key.0,
                version = key.1,
                "it was reinstated automatically {MOST_MISTAKES} times, and now stays ejected"
            );
        }
        if !reinstates || times >= MOST_MISTAKES {
            return;
        }
        let (service, version) = key;
        let subject = Target {
            service: service.clone(),
            version: version.clone(),
            endpoint: None,
            head: ChangeHead { reason: did_not_help, ..ChangeHead::of(by) },
        };
        if let Err(why) = self.reinstate_version(subject, true, Moment::now()) {
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

    /// Ejects the version of `suspect` at `now`. Its verdict was reached at `since`, on the same clock, if it was kept for
    /// a while.
    pub(super) fn eject_suspect(
        &mut self,
        suspect: CanaryFinding,
        since: Option<Duration>,
        now: Duration,
    ) {
        let key = (suspect.service.to_string(), suspect.version.to_string());
        let ejection = Ejection {
            since: SystemTime::now(),
            by: actor::VERDICT.to_owned(),
            reason: suspect.verdict.reason.clone(),
            verdict: Some((suspect.route.clone().map(String::from), suspect.verdict.clone())),
        };
        let (service, version) = key.clone();
        let prepared = self.prepare(Change::VersionEjected { service, version, ejection });
        // A comparison always has a baseline with a share of players, but nothing may depend on that.
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(why) => {
                let ((service, version), mut matter) = (key, EventDetails::of_suspect(suspect));
                if let Rejected::FenceRequired { .. } = why {
                    matter.reason = format!("{}; {why}", matter.reason);
                }
                tracing::error!(service, version, %why, "a version is worse; it is not ejected");
                self.record(EventKind::WorseAlone, matter);
                return;
            }
        };
        if let Some(service) = self.snapshot().service(&suspect.service) {
            let route = suspect.route.as_deref();
            self.evaluator.follow_players(service, &suspect.version, route, now);
        }
        let by = Some(actor::VERDICT.to_owned());
        let matter = EventDetails { by, ..EventDetails::of_suspect(suspect.clone()) };
        let generation = self.commit(prepared, Some((EventKind::Ejected, matter)));
        let CanaryFinding { service, version, route, verdict, .. } = &suspect;
        // The ejection is already in force, so nothing waits for this.
        let record = self.evaluator.record(service, version, route.as_deref());
        let at = since.unwrap_or(now);
        self.judged.insert(key.clone(), Judged { at, record: record.map(Arc::new) });
        let reason = &verdict.reason;
        let reinstate = way_back(service, version);
        let (incident, report) = self.logged_incident();
        tracing::error!(
            service,
            version,
            generation,
            reason,
            reinstate,
            incident,
            report,
            "version ejected"
        );
        let mut draft = self.verdict_entry("ejected", &key, reason);
        draft.verdict = serde_json::to_value(verdict).ok();
        if let Some(route) = route {
            draft.after["route"] = json!(route);
        }
        self.write_late(draft);
        *self.ejected_by_verdict.entry(key).or_default() += 1;
    }

    /// The entry of a change of a version that nobody asked for, and that is in force.
    fn verdict_entry(&self, kind: &str, place: &(String, String), reason: &str) -> Draft {
        let (service, version) = place;
        let mut draft = self.draft_of(kind, by_verdict(), reason, (service, &self.state));
        let is_ejected = self.state.ejection(service, version).is_some();
        draft.before = json!({ "version": version, "ejected": kind != "ejected" });
        draft.after = json!({ "version": version, "ejected": is_ejected });
        draft
    }

    /// Ejects a version, or one of its endpoints, for an operator, without a journal. When this returns, no new
    /// request is sent to it.
    pub fn eject(&mut self, subject: Target) -> Result<Moved, Rejected> {
        self.eject_at(subject, Moment::now())
    }

    pub(super) fn eject_at(&mut self, subject: Target, moment: Moment) -> Result<Moved, Rejected> {
        if let Some(endpoint) = subject.endpoint.clone() {
            return self.eject_endpoint(subject, &endpoint, moment);
        }
        let generation = self.admit(&subject)?;
        if let Some(ejection) = self.state.ejection(&subject.service, &subject.version) {
            return Ok(Moved { already: Some(ejection.into()), ..Moved::to(generation) });
        }
        let prepared = self.prepare(ejected(&subject, moment.at))?;
        let effect = Some(self.effect(&subject.service, prepared.state()));
        if subject.head.dry_run {
            return Ok(Moved { effect, ..Moved::to(generation) });
        }
        let Target { service, version, head, .. } = subject;
        let ChangeHead { by: Actor { name: by, .. }, second, reason, .. } = head;
        let matter =
            EventDetails::of_version(service.clone(), version.clone(), by.clone(), reason.clone());
        let matter = EventDetails { second, journal: moment.entry, ..matter };
        let generation = self.commit(prepared, Some((EventKind::Ejected, matter)));
        let reinstate = way_back(&service, &version);
        let (journal_seq, journal_hash) = moment.logged();
        let (incident, report) = self.logged_incident();
        tracing::warn!(
            service,
            version,
            generation,
            by,
            reason,
            reinstate,
            incident,
            report,
            journal.seq = journal_seq,
            journal.hash = journal_hash,
            "version ejected"
        );
        Ok(Moved { effect, ..Moved::to(generation) })
    }

    /// The effect on the shares of `service` of an ejection that leads to the state `then`.
    fn effect(&self, service: &str, then: &ControlState) -> Effect {
        let before = self.shares_with(service, &self.state, None);
        let after = self.shares_with(service, then, None);
        let snapshot = self.snapshot();
        let compared = snapshot.service(service).filter(|service| service.compared.is_some());
        let baseline =
            compared.map(|service| &*service.versions[usize::from(service.baseline)].name);
        let has = |shares: &IndexMap<String, f64>, version: &str| {
            shares.get(version).is_some_and(|share| *share > 0.0)
        };
        let is_left = baseline.is_some_and(|name| has(&before, name) && !has(&after, name));
        let others = after.keys().filter(|version| is_left && has(&after, version));
        let uncompared = others.cloned().collect();
        Effect { before, after, uncompared }
    }

    /// Reinstates a version or one of its endpoints, without a journal. A version gets players by its weight
    /// again, as a new rollout.
    pub fn reinstate(&mut self, subject: Target) -> Result<Moved, Rejected> {
        self.reinstate_at(subject, Moment::now())
    }

    pub(super) fn reinstate_at(
        &mut self,
        subject: Target,
        moment: Moment,
    ) -> Result<Moved, Rejected> {
        if let Some(endpoint) = subject.endpoint.clone() {
            return self.reinstate_endpoint(subject, &endpoint, moment);
        }
        self.reinstate_version(subject, false, moment)
    }

    /// The change that reinstates the version of `subject`, if it is ejected. Also returns the generation in
    /// force.
    pub(super) fn reinstated(
        &self,
        subject: &Target,
        by_itself: bool,
    ) -> Result<(u64, Change), Rejected> {
        let generation = self.admit(subject)?;
        let (service, version) = (subject.service.clone(), subject.version.clone());
        if self.state.ejection(&service, &version).is_none() {
            return Err(Rejected::NotEjected { service, version });
        }
        Ok((generation, Change::VersionReinstated { service, version, by_itself }))
    }

    /// Reinstates a whole version, for an operator or automatically (`by_itself`).
    fn reinstate_version(
        &mut self,
        subject: Target,
        by_itself: bool,
        moment: Moment,
    ) -> Result<Moved, Rejected> {
        let (generation, change) = self.reinstated(&subject, by_itself)?;
        let Target { service, version, head, .. } = subject;
        let share = self.shares_when_reinstated(&service).get(&version).copied();
        if head.dry_run {
            let then = self.check(&change, &self.config)?;
            self.refuse_reinstating_alone((&service, &then), &head)?;
            return Ok(Moved { share, ..Moved::to(generation) });
        }
        if !by_itself {
            let then = self.check(&change, &self.config)?;
            self.refuse_reinstating_alone((&service, &then), &head)?;
        }
        let ChangeHead { by: Actor { name: by, .. }, second, reason, .. } = head;
        // Health is not part of the state: it changes first, and the snapshot is compiled with it.
        self.reinstate_compared_endpoints(&service, &version);
        let prepared = self.prepare(change)?;
        let (of, name) = (service.clone(), version.clone());
        let matter = EventDetails::of_version(of, name, by.clone(), reason.clone());
        let matter = EventDetails { share, second, journal: moment.entry, ..matter };
        let generation = self.commit(prepared, Some((EventKind::Reinstated, matter)));
        let (journal_seq, journal_hash) = moment.logged();
        tracing::info!(
            service,
            version,
            generation,
            share,
            by,
            reason,
            journal.seq = journal_seq,
            journal.hash = journal_hash,
            "version reinstated"
        );
        if by_itself {
            let place = (service, version);
            let draft = self.verdict_entry("reinstated", &place, &reason);
            self.write_late(draft);
        }
        Ok(Moved { share, ..Moved::to(generation) })
    }

    pub(super) fn admit(&self, subject: &Target) -> Result<u64, Rejected> {
        let Target { service, version, head, .. } = subject;
        let generation = self.admit_change(head.if_generation)?;
        let known = self.known_service(service)?;
        if !known.versions.contains_key(version) {
            let known = list(known.versions.keys());
            let (service, version) = (service.clone(), version.clone());
            return Err(Rejected::NoVersion { service, version, known });
        }
        Ok(generation)
    }

    /// Manually ejected endpoints.
    pub fn manual_ejections(&self) -> &ManualEjections {
        self.state.endpoints()
    }

    /// When this process judged `version` of `service` to be ejected, since its start; `None` if it did not.
    pub fn judged_at(&self, service: &str, version: &str) -> Option<Duration> {
        let judged = self.judged.get(&(service.to_owned(), version.to_owned()))?;
        Some(judged.at.saturating_sub(self.judged_before))
    }

    /// How often a verdict has ejected `version` of `service`.
    pub fn ejected_by_verdict(&self, service: &str, version: &str) -> u64 {
        let key = (service.to_owned(), version.to_owned());
        self.ejected_by_verdict.get(&key).copied().unwrap_or_default()
    }

    /// Whether the baseline and the canaries of `service` fail alike; `None` if they are not compared.
    pub fn has_shared_outage(&self, service: &str) -> Option<bool> {
        self.evaluator.has_shared_outage(service)
    }

    /// The recorded inputs of the comparison of `version` of `service` on the requests of `route`, or on all
    /// routes without limits of their own: of the comparison that ejected the version, else of the running one;
    /// `None` if there is neither. Judging a running comparison takes time, so the caller does that after it
    /// has released the controller.
    pub fn record_of(
        &self,
        service: &str,
        version: &str,
        route: Option<&str>,
    ) -> Option<impl FnOnce() -> (Title, Arc<Record>) + use<>> {
        let snapshot = self.snapshot();
        let ejection = self.state.ejection(service, version);
        let (verdict, at, record) = match ejection.and_then(|e| e.verdict.as_ref()) {
            Some((of, verdict)) if of.as_deref() == route => {
                let judged = self.judged.get(&(service.to_owned(), version.to_owned()))?;
                let record = Arc::clone(judged.record.as_ref()?);
                (Some(verdict.clone()), judged.at, record)
            }
            _ => {
                let now = self.judging_time();
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

    /// Whether the verdict that ejected `version` of `service`, on the requests of `route`, is one of a process whose record
    /// of it is not here.
    pub fn has_lost_record(&self, service: &str, version: &str, route: Option<&str>) -> bool {
        let ejection = self.state.ejection(service, version);
        let verdict = ejection.and_then(|ejection| ejection.verdict.as_ref());
        let judged = self.judged.get(&(service.to_owned(), version.to_owned()));
        verdict.is_some_and(|(of, _)| of.as_deref() == route)
            && judged.is_none_or(|judged| judged.record.is_none())
    }

    /// When the comparison that led to `verdict` on `version` of `service` began; `None` if it has ended without
    /// an ejection.
    pub fn compared_since(
        &self,
        service: &str,
        (version, route, verdict): (&str, Option<&str>, &Verdict),
    ) -> Option<SystemTime> {
        if let Some(ejection) = self.state.ejection(service, version)
            && ejection.verdict.as_ref().is_some_and(|(of, _)| of.as_deref() == route)
        {
            let compared = Duration::try_from_secs_f64(verdict.compared_s).ok()?;
            return ejection.since.checked_sub(compared + verdict.kept());
        }
        Some(self.when_judged(self.evaluator.began(service, version, route)?))
    }

    /// Current verdicts of `service`, those that ejected a version first: version, route with limits of its
    /// own, verdict.
    pub fn verdicts(&self, service: &str) -> Vec<(String, Option<String>, Verdict)> {
        let now = self.judging_time();
        let past = self.ejections().into_iter().filter(|((of, _), _)| of == service);
        let past = past.filter_map(|((_, version), ejection)| {
            let (route, verdict) = ejection.verdict.clone()?;
            Some((version.clone(), route, verdict))
        });
        let snapshot = self.snapshot();
        let open = self.evaluator.verdicts(&snapshot, service, now);
        let open = open.map(|(version, route, verdict)| {
            let verdict = self.said(service, (version, route), verdict);
            (version.to_owned(), route.map(str::to_owned), verdict)
        });
        past.chain(open).collect()
    }
}

/// Who made a change that a verdict caused.
fn by_verdict() -> Actor {
    Actor { name: actor::VERDICT.to_owned(), ..Actor::system() }
}

/// A sentence that both arms `fail` or `failed`, with their counts.
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
