//! A version that is worse is kept while nothing else would serve its players.
//!
//! [`living`] decides. What was decided is looked at again several times a second: once another version works, the
//! version is ejected; and also if it no longer serves most of its requests itself. Another process that takes over
//! finds the verdict anew, and decides again.

use std::time::{Duration, SystemTime};

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
    registry::{EndpointState, Origin},
    rollout::{KEPT, Rollout},
    snapshot::{Endpoint, Snapshot, Version},
};

/// Pause between two looks at versions that are kept.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A version that is worse, and stays since nothing else serves.
#[derive(Debug)]
pub(super) struct Kept {
    suspect: CanaryFinding,
    /// Why none of those who would get its players serves, as of the last look.
    why: String,
    /// When the verdict was reached, on the evaluator's clock.
    since: Duration,
    /// When it was looked at last.
    looked: Duration,
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
        let reason = format!("{}: {why}. {}", KEPT, suspect.verdict.reason);
        tracing::error!(service, version, reason, "a version is worse; it is not ejected");
        let matter = EventDetails { reason, ..EventDetails::of_suspect(suspect.clone()) };
        self.record(EventKind::WorseKept, matter);
        let kept = Kept { suspect, why, since: now, looked: now };
        self.kept.insert((service, version), kept);
    }

    /// Looks again at versions that are kept. Returns how long until the next look, if there are any.
    pub(super) fn review_kept(&mut self, now: Duration) -> Option<Duration> {
        let due: Vec<_> = self
            .kept
            .iter()
            .filter(|(_, kept)| now.saturating_sub(kept.looked) >= LOOK_AGAIN)
            .map(|(place, _)| place.clone())
            .collect();
        due.into_iter().for_each(|place| self.review(&place, now));
        (!self.kept.is_empty()).then_some(LOOK_AGAIN)
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
        match self.why_kept(&kept.suspect, None) {
            _ if !acts => self.act(Found::Worse(Box::new(kept.suspect)), now),
            Some(why) => {
                (kept.why, kept.looked) = (why, now);
                self.kept.insert(place.clone(), kept);
            }
            None => {
                let Kept { mut suspect, since, .. } = kept;
                let held = held(now.saturating_sub(since));
                suspect.verdict.reason.push_str(&format!(" {held}."));
                suspect.verdict.held = Some(held);
                self.eject_suspect(suspect, Some(since), now);
            }
        }
    }

    /// Why `version` of `service` is kept although it is worse; `None` if it is not.
    pub(super) fn kept(&self, service: &str, version: &str) -> Option<String> {
        if self.kept.is_empty() {
            return None;
        }
        let kept = self.kept.get(&(service.to_owned(), version.to_owned()))?;
        Some(format!("{}: {}", KEPT, kept.why))
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
        let reason = format!("{}: {}. {}", KEPT, kept.why, verdict.reason);
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
        if heirs().any(works) {
            return None;
        }
        let own = known.version(&rollout.to)?;
        let heirs: Vec<Vitals<'_>> = heirs().map(|heir| vitals(heir, None)).collect();
        living::kept(&vitals(own, self.pulse.failing(own.state.id)), &heirs)
    }

    /// The versions that would get the players of the version of `suspect` if it were ejected; none if it cannot be, or
    /// if all others work anyway.
    fn heirs(&self, suspect: &CanaryFinding) -> Vec<String> {
        let snapshot = self.snapshot();
        let others = snapshot.service(&suspect.service).map_or(&[][..], |s| &s.versions);
        let mut others = others.iter().filter(|other| *other.name != *suspect.version);
        // The usual case takes no time.
        if others.all(works) {
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
    /// better than the counters.
    fn why_kept(&self, suspect: &CanaryFinding, failing: Option<f64>) -> Option<String> {
        let heirs = self.heirs(suspect);
        let snapshot = self.snapshot();
        let known = snapshot.service(&suspect.service)?;
        let own = known.version(&suspect.version)?;
        let lately = self.pulse.failing(own.state.id);
        let failing = failing.map_or(lately, |share| Some(lately.map_or(share, |l| l.max(share))));
        let heirs = heirs.iter().filter_map(|heir| known.version(heir.as_str()));
        let heirs: Vec<Vitals<'_>> = heirs.map(|heir| vitals(heir, None)).collect();
        living::kept(&vitals(own, failing), &heirs)
    }
}

fn held(kept: Duration) -> HeldBack {
    let kept_ms = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
    HeldBack::NothingElseServes { kept_ms }
}

/// Whether an endpoint of `version` works, as far as is known.
fn works(version: &Version) -> bool {
    version.known.iter().map(known).any(|known| known.works())
}

fn known(endpoint: &Endpoint) -> Known<'_> {
    let EndpointState { label, standing, .. } = &*endpoint.state;
    Known { label, state: standing.state(), unreachable: standing.is_unreachable() }
}

fn vitals(version: &Version, failing: Option<f64>) -> Vitals<'_> {
    let endpoints = version.known.iter().map(known);
    Vitals { version: &version.name, endpoints: endpoints.collect(), failing }
}
