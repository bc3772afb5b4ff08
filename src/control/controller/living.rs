//! A version that is worse is kept while nothing else would serve its players.
//!
//! [`living`] decides. What was decided is looked at again several times a second: once another version works, the
//! version is ejected; and also if it no longer serves most of its requests itself. Another process that takes over
//! finds the verdict anew, and decides again.
//!
//! An endpoint that nobody has asked since the process started may be dead, and so may one to which nobody has connected
//! for a while. It is probed then, and what depends on it waits for the answer.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use indexmap::IndexMap;

use super::Controller;
use crate::{
    analysis::{HeldBack, Verdict},
    config::{actor, schema::Mode},
    control::{
        evaluator::{CanaryFinding, Found},
        events::{EventDetails, EventKind},
        living::{self, Known, Vitals},
        state::{Change, Ejection},
    },
    registry::Origin,
    rollout::{KEPT, Rollout},
    snapshot::{Endpoint, Service, Snapshot, Version},
};

/// Pause between two looks at versions that are kept.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Pause between two looks at versions that are kept until an endpoint has answered.
const ANSWER_PAUSE: Duration = Duration::from_millis(10);

/// How long a verdict waits at least for the answers of endpoints that nobody has asked.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How much longer than a probe may take it waits.
const ANSWER_LATE: Duration = Duration::from_secs(1);

/// A version that is worse, and stays since nothing else serves.
#[derive(Debug)]
pub(super) struct Kept {
    suspect: CanaryFinding,
    /// Why none of those who would get its players serves, as of the last look.
    why: Why,
    /// Whether it was reported.
    told: bool,
    /// When the verdict was reached, on the evaluator's clock.
    since: Duration,
    /// When it was looked at last.
    looked: Duration,
}

/// Why a version is kept.
#[derive(Debug)]
struct Why {
    text: String,
    /// Nothing else is known to serve, but something may: whether it does is being asked.
    is_unsure: bool,
}

impl Controller {
    /// Reads what all versions have answered, once a second.
    pub(super) fn feel(&mut self, snapshot: &Snapshot, now: Duration) {
        if self.pulse.is_due(now) {
            let versions = snapshot.services.iter().flat_map(|service| &service.versions);
            let counted = versions.map(|v| (v.state.id, v.state.ended(&Origin::ALL)));
            self.pulse.note(counted, now);
        }
    }

    /// Ejects a version by its verdict, or keeps it if nothing else would serve its players.
    pub(super) fn eject_or_keep(&mut self, suspect: CanaryFinding, now: Duration) {
        let (service, version) = (suspect.service.to_string(), suspect.version.to_string());
        let why = self.why_kept(&suspect, suspect.verdict.failing());
        let Some(why) = why else { return self.eject_suspect(suspect, None, now) };
        let mut kept = Kept { suspect, why, told: false, since: now, looked: now };
        self.tell_kept(&mut kept);
        self.kept.insert((service, version), kept);
    }

    /// Reports once that a version is kept, as soon as it is known that nothing else serves.
    fn tell_kept(&mut self, kept: &mut Kept) {
        let Kept { suspect, why, told, .. } = kept;
        if why.is_unsure || std::mem::replace(told, true) {
            return;
        }
        let CanaryFinding { service, version, verdict, .. } = &*suspect;
        let reason = format!("{}: {}. {}", KEPT, why.text, verdict.reason);
        tracing::error!(%service, %version, reason, "a version is worse; it is not ejected");
        let matter = EventDetails { reason, ..EventDetails::of_suspect(suspect.clone()) };
        self.record(EventKind::WorseKept, matter);
    }

    /// Looks again at versions that are kept. Returns how long until the next look, if there are any.
    pub(super) fn review_kept(&mut self, now: Duration) -> Option<Duration> {
        let due: Vec<_> = self
            .kept
            .iter()
            .filter(|(_, kept)| now.saturating_sub(kept.looked) >= kept.pause())
            .map(|(place, _)| place.clone())
            .collect();
        due.into_iter().for_each(|place| self.review(&place, now));
        self.kept.values().map(Kept::pause).min()
    }

    fn review(&mut self, place: &(String, String), now: Duration) {
        let Some(mut kept) = self.kept.remove(place) else { return };
        let (service, version) = (&*place.0, &*place.1);
        let is_ejected = self.state.ejection(service, version).is_some();
        if is_ejected || !self.evaluator.has_failed(service, version) {
            // A version that was judged alone says so itself.
            if !is_ejected && !kept.suspect.verdict.alone {
                let (service, version) = (service.into(), version.into());
                self.act(Found::NoLongerCompared { service, version }, now);
            }
            return;
        }
        let acts = kept.suspect.mode == Mode::Act || self.has_way_back(&kept.suspect);
        let has_waited = now.saturating_sub(kept.since) >= self.answers_within(service);
        let why = self.why_kept(&kept.suspect, None);
        match why.filter(|why| kept.told || !why.is_unsure || !has_waited) {
            _ if !acts => self.act(Found::Worse(Box::new(kept.suspect)), now),
            Some(why) => {
                (kept.why, kept.looked) = (why, now);
                self.tell_kept(&mut kept);
                self.kept.insert(place.clone(), kept);
            }
            None => {
                let Kept { mut suspect, since, told, .. } = kept;
                if told {
                    let held = held(now.saturating_sub(since));
                    suspect.verdict.reason.push_str(&format!(" {held}."));
                    suspect.verdict.held = Some(held);
                }
                self.eject_suspect(suspect, told.then_some(since), now);
            }
        }
    }

    /// Why `version` of `service` is kept although it is worse; `None` if it is not.
    pub(super) fn kept(&self, service: &str, version: &str) -> Option<String> {
        if self.kept.is_empty() {
            return None;
        }
        let kept = self.kept.get(&(service.to_owned(), version.to_owned()))?;
        Some(format!("{}: {}", KEPT, kept.why.text))
    }

    /// `verdict` on `version` of `service` on the requests of `route`, with what is to be said if the version is kept.
    pub(super) fn said(
        &self,
        service: &str,
        (version, route): (&str, Option<&str>),
        verdict: Verdict,
    ) -> Verdict {
        if self.kept.is_empty() {
            return verdict;
        }
        let kept = self.kept.get(&(service.to_owned(), version.to_owned()));
        let Some(kept) = kept.filter(|kept| kept.suspect.route.as_deref() == route) else {
            return verdict;
        };
        let reason = format!("{}: {}. {}", KEPT, kept.why.text, verdict.reason);
        let held = Some(held(self.judging_time().saturating_sub(kept.since)));
        Verdict { held, reason, ..verdict }
    }

    /// Why the split before `rollout` cannot serve the players of its version, which serves most of them itself; `None`
    /// if it may.
    pub(super) fn stranded(&self, rollout: &Rollout) -> Option<String> {
        let snapshot = self.snapshot();
        let known = snapshot.service(&rollout.service)?;
        let heirs = || rollout.heirs().filter_map(|heir| known.version(heir));
        // Most ticks.
        if heirs().any(|heir| self.vitals(known, heir).works()) {
            return None;
        }
        let own = self.own_vitals(known, &rollout.to, None)?;
        let heirs: Vec<Vitals<'_>> = heirs().map(|heir| self.vitals(known, heir)).collect();
        living::kept(&own, &heirs)
    }

    /// Has the endpoints of the split before the rollout of `service` asked, as far as it is not known whether they work.
    pub(super) fn ask_way_back(&mut self, service: &str) {
        let Some(live) = self.rollouts.get(service).map(|live| Arc::clone(&live.rollout)) else {
            return;
        };
        self.ask(service, live.heirs().map(String::as_str));
    }

    /// Has the endpoints of `versions` of `service` asked, as far as it is not known whether they work.
    fn ask<'a>(&mut self, service: &str, versions: impl Iterator<Item = &'a str>) {
        let (snapshot, now) = (self.snapshot(), self.started.0.elapsed());
        let Some(of) = snapshot.service(service) else { return };
        let mut is_any = false;
        for version in versions.filter_map(|version| of.version(version)) {
            let vitals = self.vitals(of, version);
            let unknown = version.known.iter().zip(&vitals.endpoints);
            for (endpoint, _) in unknown.filter(|(_, known)| !known.asked) {
                is_any = true;
                self.endpoints.want(&snapshot, endpoint.state.id, now);
            }
        }
        if is_any {
            self.stirred.notify_one();
        }
    }

    /// The versions that would get the players of the version of `suspect` if it were ejected; none if it cannot be, or
    /// if all others work anyway.
    fn heirs(&self, suspect: &CanaryFinding) -> Vec<String> {
        let snapshot = self.snapshot();
        let of = snapshot.service(&suspect.service).into_iter();
        let others = of.flat_map(|of| of.versions.iter().map(move |other| (of, other)));
        let mut others = others.filter(|(_, other)| *other.name != *suspect.version);
        // The usual case takes no time.
        if others.all(|(of, other)| self.vitals(of, other).works()) {
            return Vec::new();
        }
        let ejection = Ejection {
            since: SystemTime::now(),
            by: actor::VERDICT.to_owned(),
            reason: String::new(),
            verdict: Some((suspect.route.clone().map(String::from), suspect.verdict.clone())),
        };
        let (service, version) = (suspect.service.to_string(), suspect.version.to_string());
        let change = Change::VersionEjected { service, version, ejection };
        let Ok(then) = self.check(&change, &self.config) else { return Vec::new() };
        let shares: IndexMap<String, f64> = self.shares_with(&suspect.service, &then, None);
        let gets =
            shares.into_iter().filter(|(of, share)| *share > 0.0 && **of != *suspect.version);
        gets.map(|(version, _)| version).collect()
    }

    /// Why the version of `suspect` is kept; `failing` is the share of its requests that failed, if the caller knows it
    /// better than the counters. What is not known is asked.
    fn why_kept(&mut self, suspect: &CanaryFinding, failing: Option<f64>) -> Option<Why> {
        let heirs = self.heirs(suspect);
        self.ask(&suspect.service, heirs.iter().map(String::as_str));
        let snapshot = self.snapshot();
        let known = snapshot.service(&suspect.service)?;
        let own = self.own_vitals(known, &suspect.version, failing)?;
        let heirs = heirs.iter().filter_map(|heir| known.version(heir.as_str()));
        let heirs: Vec<Vitals<'_>> = heirs.map(|heir| self.vitals(known, heir)).collect();
        let is_unsure = heirs.iter().any(Vitals::may_work);
        living::kept(&own, &heirs).map(|text| Why { text, is_unsure })
    }

    /// How long a verdict on a version of `service` waits for answers: a probe takes as long as its time-out.
    fn answers_within(&self, service: &str) -> Duration {
        let timeout = self.snapshot().service(service).map(|of| of.health.timeout);
        ANSWER_WITHIN.max(timeout.unwrap_or_default() + ANSWER_LATE)
    }

    /// What is known of `version`, whose requests fail at least as often as `failing` says. It has players, who ask it.
    fn own_vitals<'a>(
        &self,
        of: &'a Service,
        version: &str,
        failing: Option<f64>,
    ) -> Option<Vitals<'a>> {
        let version = of.version(version)?;
        let lately = self.pulse.failing(version.state.id);
        let failing = failing.map_or(lately, |share| Some(lately.map_or(share, |l| l.max(share))));
        Some(Vitals { failing, ..self.vitals(of, version) })
    }

    /// What is known of a `version` that others' players may be given to.
    fn vitals<'a>(&self, of: &Service, version: &'a Version) -> Vitals<'a> {
        let is_idle = version.share_weight().value() <= 0.0 && !of.health.checks();
        let now = self.started.0.elapsed();
        let endpoints = version.known.iter().map(|Endpoint { state, .. }| Known {
            label: &state.label,
            state: state.standing.state(),
            unreachable: state.standing.is_unreachable(),
            asked: self.endpoints.is_known(state, is_idle, now),
        });
        Vitals { version: &version.name, endpoints: endpoints.collect(), failing: None }
    }
}

impl Kept {
    /// Until the next look.
    fn pause(&self) -> Duration {
        if self.why.is_unsure { ANSWER_PAUSE } else { LOOK_AGAIN }
    }
}

fn held(kept: Duration) -> HeldBack {
    let kept_ms = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
    HeldBack::NothingElseServes { kept_ms }
}
