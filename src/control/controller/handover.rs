//! State that is handed over between processes at a takeover.

use std::time::{Instant, SystemTime};

use super::{
    Controller, Dropped, fencing::told, leavers, reload::what_a_file_ends, served::without_versions,
};
use crate::{
    config::{Config, actor},
    control::{
        carried::Replacement,
        events::{EventDetails, EventKind},
        state::{Change, ControlState, ManualEjection, ManualEjections},
    },
};

/// The reason recorded when the previous process has reinstated something that it had reported as ejected.
const BEFORE_THIS_ONE: &str = "reinstated by an earlier process";

impl Controller {
    /// Whether this process took over from another one, and whether a takeover from it failed.
    pub fn replacement(&self) -> &Replacement {
        &self.replacement
    }

    /// Notes that the process before keeps idle connections until `until`: a request that comes on one is served by its
    /// split.
    pub fn serves_beside(&mut self, until: Instant) {
        self.replacement.beside_until = Some(until);
    }

    /// Whether the process before may still serve a request that begins now.
    pub(in crate::control) fn is_beside(&self) -> bool {
        let until = self.replacement.beside_until.filter(|until| *until > Instant::now());
        until.is_some() && !self.earlier_processes().is_empty()
    }

    /// As [`Controller::replacement`], to be changed.
    pub fn replacement_mut(&mut self) -> &mut Replacement {
        &mut self.replacement
    }

    /// The state that another process needs to continue from here.
    pub fn carried(&self) -> ControlState {
        // Rollouts with their progress since their last transition.
        let lives = self.rollouts.values().map(|live| Box::new((*live.rollout).clone()));
        let mut state = self.state.clone();
        lives.for_each(|rollout| state.apply(Change::RolloutMoved(rollout)));
        state
    }

    /// As [`Controller::carried`]; from now on another process decides the weights, judges and sends alerts.
    pub fn hand_over(&mut self) -> ControlState {
        self.undo_fences("another process takes over");
        self.dismiss_held(true);
        self.handed_over = true;
        self.carried()
    }

    /// Whether another process decides.
    pub fn is_handed_over(&self) -> bool {
        self.handed_over
    }

    /// Decides again, after the other process failed or has released control.
    pub fn take_back(&mut self) {
        self.handed_over = false;
        self.dismiss_held(false);
        self.take_back_journal();
        self.rollout_news.notify_one();
        // The evaluator and the sender of alerts wait for this.
        self.published.send_modify(|_| ());
        self.events.stir();
    }

    /// Continues from the state of another process. Weights that were set there are kept by the rules of a
    /// reload, and generations are higher than its own.
    pub fn inherit(&mut self, carried: ControlState) -> Dropped {
        self.inherit_as(carried, actor::TAKEOVER)
    }

    /// As [`Controller::inherit`]; `by` says how the state came here.
    pub(super) fn inherit_as(&mut self, carried: ControlState, by: &str) -> Dropped {
        let now = SystemTime::now();
        let carried = carried.dated(now);
        // This process has read the file itself.
        let ended = what_a_file_ends(&carried, &self.config, now);
        self.ended = replaced_weights(&carried, &ended, &self.config);
        self.ended.extend(self.mode_warnings(&carried, now.into()));
        for more in &self.ended {
            tracing::warn!("{more}");
        }
        let mut next = carried.after(ended.clone());
        let last = take_back_the_last(&mut next, &self.config);
        let (before, snapshot) = (self.state.clone(), self.snapshot());
        self.record_carried_versions(&next, (&last, by), &carried);
        // Health is not part of the state: it changes first, and the snapshot is compiled with it.
        self.endpoints.inherit(&snapshot, next.kept_out(), self.started.0.elapsed());
        let prepared = self.lead(Change::Resumed(Box::new(next)), self.inputs(&snapshot));
        // The other process sends its state twice, mostly without a difference.
        match prepared.state().decides_as(&before) && before.generation() > carried.generation() {
            true => drop(self.publish_endpoints(&snapshot)),
            false => {
                self.decided = self.commit(prepared, None);
                self.resume_rollouts();
            }
        }
        self.record_stand_ins(before.stand_ins());
        self.record_carried_endpoints(before.endpoints());
        match ended {
            Change::FileTaken { weights, gone, .. } => Dropped { weights, gone, reinstated: last },
            _ => Dropped { reinstated: last, ..Dropped::default() },
        }
    }

    /// Records that the process serves, with which configuration, and which changes made at runtime in the
    /// process before are gone.
    pub fn record_started(&mut self) {
        let file = self.file.as_ref().map(|file| format!("{}, ", file.display()));
        let configuration = format!("configuration {}hash {}", file.unwrap_or_default(), self.hash);
        let before = match self.replacement.from_pid {
            Some(pid) if self.ended.is_empty() => {
                format!("took over from process {pid}, with what was changed at runtime")
            }
            Some(pid) => format!("took over from process {pid}; {}", self.ended.join("; ")),
            None if self.journal().is_some() => match self.ended.is_empty() {
                true => "with what the journal says".to_owned(),
                false => format!("with what the journal says; {}", self.ended.join("; ")),
            },
            None => "no process handed over to it, so weights set at runtime and ejections of a process \
                     before it, if there was one, are gone"
                .to_owned(),
        };
        let reason = format!("{configuration}; {before}");
        self.record(EventKind::Started, EventDetails { reason, ..EventDetails::default() });
    }

    /// Records events for versions of this file that are ejected in `carried`, the state of another process,
    /// and were not before, and for versions that no longer are. This process has not served yet, so all its
    /// ejections came from the other process, which may have reinstated some since it first sent its state.
    /// `next` is the state to continue with; the versions in `last` are reinstated by this process.
    fn record_carried_versions(
        &mut self,
        next: &ControlState,
        (last, by): (&[(String, String)], &str),
        carried: &ControlState,
    ) {
        let (before, now) = (self.state.ejections(), carried.ejections());
        // Versions that are not in this file stay ejected, and nothing shows them.
        let is_ours =
            |(service, version): &(String, String)| self.config.has_version(service, version);
        let is_known = |place: &(String, String)| {
            is_ours(place) && (next.ejections().contains_key(place) || last.contains(place))
        };
        let out = now.iter().filter(|(place, _)| !before.contains_key(*place) && is_known(place));
        let out = out.map(|((service, version), ejection)| {
            let place =
                EventDetails::of_place(service.clone(), version.clone(), ejection.reason.clone());
            let (route, verdict) = ejection.verdict.clone().unzip();
            let (by, route) = (Some(ejection.by.clone()), route.flatten());
            let matter = EventDetails { by, route, verdict, carried_over: true, ..place };
            (EventKind::Ejected, matter, ejection.since)
        });
        let back = before.keys().filter(|place| !now.contains_key(*place) && is_ours(place));
        let back = back.map(|(service, version)| {
            let (by, reason) = (Some("another process".to_owned()), BEFORE_THIS_ONE.to_owned());
            let place = EventDetails::of_place(service.clone(), version.clone(), reason);
            let matter = EventDetails { by, carried_over: true, ..place };
            (EventKind::Reinstated, matter, SystemTime::now())
        });
        let all: Vec<_> = out.chain(back).collect();
        for (kind, matter, at) in all {
            self.record_at(kind, matter, at);
        }
        for (service, version) in last.iter().cloned() {
            let reason = "all versions in the file are ejected, and one must serve".to_owned();
            tracing::error!(service, version, reason, "version reinstated");
            let matter = EventDetails::of_version(service, version, by.to_owned(), reason);
            self.record(EventKind::Reinstated, matter);
        }
    }

    /// Records events for endpoints that were manually ejected in another process, except those in `known`, and
    /// for those in `known` that have been reinstated since.
    fn record_carried_endpoints(&mut self, known: &ManualEjections) {
        let matter =
            |(service, version, endpoint): &(String, String, String), by, reason| EventDetails {
                endpoint: Some(endpoint.clone()),
                carried_over: true,
                ..EventDetails::of_version(service.clone(), version.clone(), by, reason)
            };
        let manual = self.state.endpoints();
        // Of versions that the file does not have nothing is shown, until they are back.
        let has = |key: &(String, String, String)| self.config.has_version(&key.0, &key.1);
        let out = manual.iter().filter(|(key, _)| !known.contains_key(*key) && has(key));
        let out = out.map(|(key, why)| {
            let ManualEjection { since, by, reason } = why.clone();
            (EventKind::EndpointEjected, matter(key, by, reason), since)
        });
        let back = known.keys().filter(|key| !manual.contains_key(*key)).map(|key| {
            let (by, reason) = ("another process".to_owned(), BEFORE_THIS_ONE.to_owned());
            (EventKind::EndpointServing, matter(key, by, reason), SystemTime::now())
        });
        let all: Vec<_> = out.chain(back).collect();
        for (kind, matter, at) in all {
            self.record_at(kind, matter, at);
        }
    }
}

/// A sentence on each service whose weights in `state`, the state of another process, end by `change` or are changed by
/// it, under the file `new`.
fn replaced_weights(state: &ControlState, change: &Change, new: &Config) -> Vec<String> {
    let Change::FileTaken { weights, held, moved, .. } = change else { return Vec::new() };
    let ended = weights.iter().filter(|service| !held.contains_key(*service));
    let each = ended.filter_map(|service| {
        let set = state.weights().get(service)?.told();
        Some(format!("{service}: the weights of the file replace {set}"))
    });
    each.chain(leavers::told(state, moved, new)).chain(told(held)).collect()
}

/// Reinstates the baseline of each service all of whose versions are ejected, and returns these baselines. It
/// happens when the file has changed since: this process has no older file to continue with.
fn take_back_the_last(state: &mut ControlState, config: &Config) -> Vec<(String, String)> {
    let services = without_versions(state, config);
    let baselines: Vec<_> = services.map(|(n, s)| (n.clone(), s.baseline.clone())).collect();
    for (service, version) in baselines.iter().cloned() {
        state.apply(Change::VersionReinstated { service, version, by_itself: false });
    }
    baselines
}
