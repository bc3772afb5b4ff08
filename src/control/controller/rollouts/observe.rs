//! What a rollout sees on a tick, and the steps that it then takes.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Controller, Live, RolloutAsked, RolloutChange, itself};
use crate::{
    analysis::{Numbers, Verdict},
    config::schema::{GateQuestion, READ_ONLY, Slo, UtcTime},
    control::{
        controller::{ChangeHead, Rejected, modes::mode_of},
        reach::Reach,
    },
    registry::Origin,
    rollout::{
        self, Action, Event, Frozen, GateReply, Mismatch, Observed, Reply, Rollout, Seen, Slow,
        Windows,
    },
    snapshot::{Endpoint, Version},
};

/// Share of the endpoints of a version, of those known, that must serve so that it is ready for its load.
const READY: f64 = 0.5;

/// Most hindrances that are reported between two transitions.
const MOST_TOLD: usize = 16;

/// What the new version had counted at some moment, since the process started.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    finished: u64,
    errors: u64,
    /// Absent until the first tick that asks for latencies.
    latency: Option<Latencies>,
}

/// Responses of a version since the process started, against the limits of its service.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Latencies {
    /// Responses.
    pub responses: u64,
    /// Those that took longer than `p95` of the limits, and than `p99`.
    pub slower: [u64; 2],
    /// The quantiles p95 and p99 over the last minute.
    pub quantiles: [Duration; 2],
}

/// What follows from an event of a rollout.
#[derive(Debug)]
pub(in crate::control) enum Advance {
    /// It has been done.
    Done,
    /// This is to be written to the journal first.
    Write(Box<RolloutChange>),
    /// It is not possible now, and the rollout stays as it is.
    Impossible(Rejected),
}

impl Controller {
    /// The counts of the version that grows in `service`.
    pub(super) fn counted(&self, service: &str) -> Counted {
        let Some(live) = self.rollouts.get(service) else { return Counted::default() };
        let snapshot = self.snapshot();
        let version = snapshot.service(service).and_then(|s| s.version(&live.rollout.to));
        version.map_or_else(Counted::default, |version| {
            // Requests of testers, whom a rule or a route sends there, tell nothing about what players meet.
            // What the baseline has answered in its place is a failure of the version all the same. It is read first,
            // as errors are.
            let rescued = version.state.rescued();
            let (finished, errors) = version.state.ended(&[Origin::Player]);
            Counted { finished, errors: errors + rescued, latency: None }
        })
    }

    /// The version that grows in `service`, by its number, and the limits whose latencies the step asks for; `None`
    /// if it asks for none.
    pub(in crate::control) fn latencies_asked(&self, service: &str) -> Option<(u32, Slo)> {
        let rollout = &self.rollouts.get(service)?.rollout;
        let step = rollout.plan.step(rollout.step);
        step.gates.iter().find(|gate| gate.question == GateQuestion::Slo)?;
        let slo = self.config.services.get(service)?.slo?;
        let snapshot = self.snapshot();
        Some((snapshot.service(service)?.version(&rollout.to)?.state.id, slo))
    }

    /// The next event of the rollout of `service` at `now`; `latencies` are those of its version, if they were
    /// asked for.
    pub(in crate::control) fn next_event(
        &mut self,
        service: &str,
        latencies: Option<Latencies>,
        now: SystemTime,
    ) -> Option<Event> {
        // Where nothing is compared, nobody else does.
        self.feel(&self.snapshot(), self.judging_time());
        // Another process may have taken over since the caller asked what is rolling.
        let live = self.rollouts.get_mut(service).filter(|_| !self.handed_over)?;
        if live.since.latency.is_none() {
            live.since.latency = latencies;
        }
        self.ask_way_back(service);
        let live = self.rollouts.get(service)?;
        let ready = self.is_ready(&live.rollout);
        if ready != live.rollout.baseline_ready {
            return Some(Event::Baseline { ready });
        }
        let (observed, mismatch) = self.observed(live, latencies, now);
        self.evaluator.watch_players(service, !live.rollout.phase.is_end());
        if let Some(mismatch) = mismatch {
            self.say_once(service, mismatch.to_string());
        }
        Some(Event::Tick(observed))
    }

    /// Why the players of `service` may not grow at `now`: a window, or that its writes are refused, so that there is
    /// no evidence about them.
    pub(super) fn frozen(&self, service: &str, now: SystemTime) -> Option<Frozen> {
        let windows = Windows::new(&self.config.windows).growth(service, now).frozen;
        let mode = mode_of(&self.state, service).map(|mode| Frozen {
            window: READ_ONLY.to_owned(),
            also: Vec::new(),
            since_unix_ms: [(READ_ONLY.to_owned(), mode.since.unix_ms())].into(),
            until_unix_ms: mode.until.map(UtcTime::unix_ms),
            second_person: false,
        });
        match (windows, mode) {
            (Some(windows), Some(mode)) => Some(windows.and(mode)),
            (windows, mode) => windows.or(mode),
        }
    }

    /// Reports something that hinders a rollout, once until its next transition.
    fn say_once(&mut self, service: &str, message: String) {
        let Some(live) = self.rollouts.get_mut(service) else { return };
        // Numbers in it change from tick to tick.
        let what = message.chars().filter(|c| !c.is_ascii_digit()).collect();
        if live.told.len() < MOST_TOLD && live.told.insert(what) {
            let rollout = Arc::clone(&live.rollout);
            self.warn_of_rollout(&rollout, message);
        }
    }

    /// Notes that the next step of the rollout of `service` cannot be written or made at present. Of a rollout that goes on
    /// in another process that one tells.
    pub(in crate::control) fn note_stuck(&mut self, service: &str, why: &str) {
        if self.handed_over {
            return;
        }
        self.say_once(service, format!("the next step waits: {why}"));
    }

    /// Lets `event` happen to the rollout of `service`.
    pub(in crate::control) fn advance(
        &mut self,
        service: &str,
        event: Event,
        now: SystemTime,
    ) -> Advance {
        let live = self.rollouts.get(service).filter(|_| !self.handed_over);
        let Some(live) = live else { return Advance::Done };
        let checked = match self.check_event(&live.rollout, event.clone(), now) {
            Ok(checked) => checked,
            Err(rejected) => return Advance::Impossible(rejected),
        };
        if checked.grows() {
            return Advance::Write(Box::new(RolloutChange {
                service: service.to_owned(),
                asked: RolloutAsked::Event(Box::new(event)),
                reach: Reach::Unasked,
                head: ChangeHead::of(itself()),
            }));
        }
        if self.keeper.is_writing_for(service) && checked.is_passing() {
            return Advance::Done;
        }
        self.make_rollout(checked, None);
        Advance::Done
    }

    /// Removes and returns the smoke checks and webhooks that are to be asked, with what they are about.
    pub(in crate::control) fn take_asks(&mut self, service: &str) -> Vec<(Action, Arc<Rollout>)> {
        let Some(live) = self.rollouts.get_mut(service) else { return Vec::new() };
        let rollout = &live.rollout;
        std::mem::take(&mut live.asks).into_iter().map(|ask| (ask, Arc::clone(rollout))).collect()
    }

    /// Takes the reply of a smoke check or webhook that was asked for the rollout `of`; the next tick judges it. It
    /// is dropped if that rollout is no longer there: another one may have been started meanwhile.
    pub(in crate::control) fn take_reply(&mut self, of: &Rollout, ask: u64, reply: GateReply) {
        let live = self.rollouts.get_mut(&of.service);
        if let Some(live) = live.filter(|live| live.rollout.is_same(of)) {
            live.replies.push((ask, reply));
        }
    }

    /// What a rollout sees at `now`, with what cannot be measured again as it was `seen`.
    pub(super) fn seen_again(&self, live: &Live, seen: &Observed, now: SystemTime) -> Observed {
        let (slo, replies) = (seen.slo.clone(), seen.replies.clone());
        Observed { slo, replies, ..self.observed(live, None, now).0 }
    }

    fn observed(
        &self,
        live: &Live,
        latencies: Option<Latencies>,
        now: SystemTime,
    ) -> (Observed, Option<Mismatch>) {
        let rollout = &live.rollout;
        let (service, to) = (&rollout.service, &rollout.to);
        let asks = |question| {
            let step = rollout.plan.step(rollout.step);
            step.gates.iter().any(|gate| gate.question == question)
        };
        let counted = self.counted(service);
        let mismatch = rollout.progress.begun.then(|| self.mismatch(rollout)).flatten();
        let verdicts: Vec<Verdict> = self
            .verdicts(service)
            .into_iter()
            .filter_map(|(version, _, verdict)| (version == *to).then_some(verdict))
            .collect();
        let slo = self.config.services.get(service).and_then(|service| service.slo);
        let slo = slo.filter(|_| asks(GateQuestion::Slo));
        let observed = Observed {
            moment: self.started.0.elapsed(),
            frozen: self.frozen(service, now),
            unreached: self.unreached(live).map(String::into_boxed_str),
            incomparable: asks(GateQuestion::Evidence)
                .then(|| self.incomparable(service, to).or_else(|| self.too_early(service, to)))
                .flatten()
                .map(String::into_boxed_str),
            kept: self.kept(service, to).map(String::into_boxed_str),
            stranded: self.stranded(rollout).map(String::into_boxed_str),
            requests: counted.finished,
            evidence: self.evidence(rollout, mismatch.as_ref()),
            slo: slo.map(|slo| rollout::slo(&slo, &seen(&live.since, &counted, latencies))),
            amounts: asks(GateQuestion::Amounts).then(|| amounts(&verdicts)),
            replies: live.replies.clone(),
        };
        (observed, mismatch)
    }

    /// The gate `evidence`: by the comparison with the baseline; or, when no baseline has players any more, by
    /// the judgement of the version against its limits and the past.
    fn evidence(&self, rollout: &Rollout, mismatch: Option<&Mismatch>) -> Option<GateReply> {
        let Rollout { service, to, .. } = rollout;
        let now = self.judging_time();
        if let Some(answer) = self.evaluator.answer(service, to, now) {
            let mut said = rollout::evidence(&answer, mismatch);
            // The comparison goes on over steps, so its count is not that of the step.
            if rollout.progress.begun {
                said.why += &self.seen_in_step(rollout);
            }
            return Some(said);
        }
        Some(rollout::evidence_alone(&self.evaluator.standing(service, to, now)?))
    }

    /// What is not known of a version that serves alone, if an answer about its latency may come soon.
    fn too_early(&self, service: &str, to: &str) -> Option<String> {
        let now = self.judging_time();
        let is_compared = self.evaluator.answer(service, to, now).is_some();
        let standing = self.evaluator.standing(service, to, now).filter(|_| !is_compared)?;
        standing.waits.then(|| standing.to_string())
    }

    /// Requests of the version in the step, and its players as far as they are counted.
    fn seen_in_step(&self, rollout: &Rollout) -> String {
        let Rollout { service, to, progress, .. } = rollout;
        let snapshot = self.snapshot();
        let versions = snapshot.service(service).map(|service| &service.versions);
        let number = versions.and_then(|all| all.iter().position(|version| *version.name == **to));
        let players = self.evaluator.exposure(service).map(|exposure| exposure.players());
        let players = players.zip(number).and_then(|(all, number)| all.get(number).copied());
        let players = players.map_or_else(String::new, |players| format!("{players} players, "));
        format!("; in this step: {players}{} requests", progress.requests)
    }

    /// Whether the players of the versions agree with the weights.
    fn mismatch(&self, rollout: &Rollout) -> Option<Mismatch> {
        let exposure = self.evaluator.exposure(&rollout.service)?;
        let snapshot = self.snapshot();
        let service = snapshot.service(&rollout.service)?;
        let players = exposure.players();
        let has_share = |number: usize| service.has_share(number as u16);
        if (players.len()..service.versions.len()).any(has_share) {
            return None;
        }
        let arms: Vec<rollout::Arm> = (0u16..)
            .zip(&service.versions)
            .map(|(number, version)| rollout::Arm {
                version: version.name.to_string(),
                weight: service.share(number),
                players: players.get(usize::from(number)).copied().unwrap_or_default(),
            })
            .collect();
        rollout::sample_ratio(&arms)
            .or_else(|| rollout::players_moved(exposure.moved(), exposure.all()))
    }

    /// Whether the endpoints of the split before are ready for its load. If they were not, as of the last tick or of
    /// the process before, only those count that have been found to work in this process: a new one begins as
    /// serving, and a takeover would else cut the ramp of a rollback short.
    fn is_ready(&self, rollout: &Rollout) -> bool {
        let snapshot = self.snapshot();
        let Some(service) = snapshot.service(&rollout.service) else { return true };
        let gets_players = |version: &&Version| {
            let before = rollout.before.get(&*version.name);
            before.is_some_and(|weight| weight.value() > 0.0)
                && *version.name != *rollout.to
                && !version.ejected
        };
        service
            .versions
            .iter()
            .filter(gets_players)
            .all(|version| enough_work(&version.known, rollout.baseline_ready))
    }
}

/// Whether enough of the `known` endpoints of a version work; `were_enough` as of the last look.
fn enough_work(known: &[Endpoint], were_enough: bool) -> bool {
    let works = |known: &&Endpoint| {
        let standing = &known.state.standing;
        let is_found = || were_enough || known.state.was_reached();
        standing.serves() && !standing.is_unreachable() && is_found()
    };
    let working = known.iter().filter(works).count();
    !known.is_empty() && working as f64 >= READY * known.len() as f64
}

/// What was counted since the weights were set.
fn seen(since: &Counted, now: &Counted, latencies: Option<Latencies>) -> Seen {
    // A version that left the file and came back counts from 0.
    let new = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
    let slow = |index: usize| {
        let (latency, since) = latencies.zip(since.latency)?;
        Some(Slow {
            requests: new(latency.responses, since.responses),
            slower: new(latency.slower[index], since.slower[index]),
            quantile: latency.quantiles[index],
        })
    };
    Seen {
        requests: new(now.finished, since.finished),
        failed: new(now.errors, since.errors),
        p95: slow(0),
        p99: slow(1),
    }
}

/// The gate `amounts` over all verdicts of a version: the worst reply counts.
fn amounts(verdicts: &[Verdict]) -> GateReply {
    let is_amount = |numbers: &Numbers| {
        matches!(numbers, Numbers::Amount { .. } | Numbers::DerivedAmount { .. })
    };
    let compared = verdicts
        .iter()
        .filter(|verdict| verdict.findings.iter().any(|finding| is_amount(&finding.numbers)));
    let replies: Vec<GateReply> = compared.map(|verdict| rollout::amounts(Some(verdict))).collect();
    let worst = |reply: Reply| replies.iter().find(|said| said.reply == reply).cloned();
    worst(Reply::Fail)
        .or_else(|| worst(Reply::Undecided))
        .or_else(|| worst(Reply::Pass))
        .unwrap_or_else(|| rollout::amounts(None))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{config::pattern::EndpointHost, health::State, registry::Registry};

    /// Regression: a takeover cut the ramp of a rollback short, since endpoints that the process before had found down
    /// begin as serving.
    #[test]
    fn an_endpoint_that_was_not_reached_yet_ends_no_ramp() {
        let registry = Registry::new(1);
        let version = registry.version("wallet", "v41").id;
        let known: Vec<Endpoint> = (1_u16..=4)
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
            .map(|address| Endpoint {
                state: registry.endpoint(version, address),
                host: EndpointHost::Address(address.ip()),
            })
            .collect();
        assert!(enough_work(&known, true), "as they begin");
        assert!(!enough_work(&known, false), "the process before knew better");
        known[0].state.standing.checks[0].add(1);
        known[1].state.standing.checks[1].add(1);
        assert!(!enough_work(&known, false), "one of four works");
        known[1].state.cells.of(0).connected.add(1);
        assert!(enough_work(&known, false), "a check or a connection shows it");
        known[0].state.standing.set(State::Down, None);
        assert!(!enough_work(&known, false) && enough_work(&known, true));
        known[1].state.standing.set_unreachable(true);
        known[2].state.standing.set(State::Ejected, None);
        assert!(!enough_work(&known, true) && !enough_work(&[], true));
    }
}
