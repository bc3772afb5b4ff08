//! What a request says of its version in the comparison: of its first attempt, once.
//!
//! A failure is known by the answer's head, and so is a success; one that breaks later was none, after
//! all. How long it took to the last byte, and what it carried, is known at its end.

use std::time::Duration;

use tokio::time::Instant;

use super::{amounts, plan::Plan, record::micros, worker::Worker};
use crate::{
    registry::{Asker, EndpointState, Outcome, Slot, Timed},
    snapshot::Evidence,
};

/// What is still to be counted of a request.
pub(super) struct Trial<'a> {
    worker: &'a Worker,
    plan: &'a Plan,
    evidence: Option<&'a Evidence>,
    stage: Stage,
    endpoint: Option<&'a EndpointState>,
    /// When the request was with the endpoint; nothing while it is on its way.
    asked: Option<Instant>,
    /// Where it counts; nothing until it begins.
    slot: Option<Slot>,
    /// Its answer lasts for as long as it likes.
    is_stream: bool,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is to be counted, or no more.
    Done,
    /// No answer yet.
    Waiting,
    /// The answer has begun. `first`: the player's first one of its second.
    Answered { first: bool },
}

impl<'a> Trial<'a> {
    pub(super) fn new(worker: &'a Worker, plan: &'a Plan) -> Self {
        let evidence = plan.route().evidence.as_ref().filter(|_| plan.is_by_chance());
        let stage = if evidence.is_some() { Stage::Waiting } else { Stage::Done };
        Self {
            worker,
            plan,
            evidence,
            stage,
            endpoint: None,
            asked: None,
            slot: None,
            is_stream: false,
        }
    }

    /// The endpoint is asked.
    pub(super) fn attempt(&mut self, endpoint: &'a EndpointState) {
        if self.stage == Stage::Waiting {
            self.endpoint = Some(endpoint);
        }
    }

    /// The request is about to be with the endpoint.
    pub(super) fn asked(&mut self, now: Instant) {
        if let (Some(evidence), Stage::Waiting) = (self.evidence, self.stage) {
            self.asked = Some(now);
            if self.slot.is_none() && !self.plan.decision.diverted {
                self.begin(evidence, now);
            }
        }
    }

    fn begin(&mut self, evidence: &Evidence, now: Instant) -> Slot {
        let slot = evidence.state.slot(self.worker.since_start(now));
        evidence.begin(usize::from(self.plan.decision.version), self.worker.id, slot);
        self.slot = Some(slot);
        slot
    }

    /// The time after which it has failed without an answer.
    pub(super) fn patience(&self) -> Option<Duration> {
        match self.stage {
            Stage::Done => None,
            _ => self.evidence?.state.deadline(),
        }
    }

    /// The head of an answer came.
    pub(super) fn answered(&mut self, status: u16, now: Instant) {
        if self.stage != Stage::Waiting {
            return;
        }
        if self.plan.route().failures.contains(status) {
            return self.failed(false, now);
        }
        let latency_us = self.asked.filter(|_| self.is_timed(now)).map(|asked| micros(asked, now));
        let refused = (400..500).contains(&status);
        let first = self.settle(Outcome::Served { latency_us, refused }, now);
        self.stage = Stage::Answered { first };
    }

    /// Its answer is a stream.
    pub(super) fn streams(&mut self) {
        self.is_stream = true;
    }

    /// Nothing more is to be counted.
    pub(super) fn end_here(&mut self) {
        self.stage = Stage::Done;
    }

    /// The version failed. `timed_out`: it did not answer in time.
    pub(super) fn failed(&mut self, timed_out: bool, now: Instant) {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Done => {}
            Stage::Waiting => {
                let outcome = if timed_out { Outcome::TimedOut } else { Outcome::Failed };
                self.settle(outcome, now);
            }
            Stage::Answered { .. } => self.regret(false, now),
        }
    }

    /// The client left.
    pub(super) fn left(&mut self, now: Instant) {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Done => {}
            Stage::Waiting => {
                // One who leaves while the request is still on its way left for reasons of its own.
                let outcome =
                    self.asked.map_or(Outcome::Void, |asked| Outcome::Left(micros(asked, now)));
                self.settle(outcome, now);
            }
            Stage::Answered { first } if !self.is_stream => {
                self.regret(true, now);
                self.time_whole(Timed::AtLeast, first, now);
            }
            Stage::Answered { .. } => {}
        }
    }

    /// What happened says nothing of the version.
    pub(super) fn acquit(&mut self) {
        if std::mem::replace(&mut self.stage, Stage::Done) == Stage::Waiting
            && let (Some(evidence), Some(_)) = (self.evidence, self.slot)
        {
            let asker = self.asker(evidence, Instant::now());
            evidence.settle(usize::from(self.plan.decision.version), &asker, Outcome::Void);
        }
    }

    /// The answer is whole, or what was answered in a version's place.
    pub(super) fn ended(&mut self, now: Instant, carried: &amounts::Carried) {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Done => {}
            Stage::Waiting => {
                self.settle(Outcome::Failed, now);
            }
            Stage::Answered { first } => {
                self.time_whole(Timed::Took, first, now);
                self.pay(carried, now);
            }
        }
    }

    fn asker(&self, evidence: &Evidence, now: Instant) -> Asker {
        let plan = self.plan;
        Asker {
            worker: self.worker.id,
            player: plan.decision.player,
            network: plan.network,
            is_baseline: plan.decision.version == evidence.baseline,
            slot: self.slot.unwrap_or_else(|| self.slot_at(evidence, now)),
            second: self.worker.since_start(now).as_secs(),
            endpoint: self.endpoint.map_or(0, |endpoint| endpoint.group),
        }
    }

    fn slot_at(&self, evidence: &Evidence, now: Instant) -> Slot {
        evidence.state.slot(self.worker.since_start(now))
    }

    /// Counts how it ended; whether it was its player's first of the second.
    fn settle(&mut self, outcome: Outcome, now: Instant) -> bool {
        let Some(evidence) = self.evidence else { return false };
        let (plan, worker) = (self.plan, self.worker.id);
        let failed = matches!(outcome, Outcome::Failed | Outcome::TimedOut);
        let counts = failed || matches!(outcome, Outcome::Served { .. });
        let asker = self.asker(evidence, now);
        if counts {
            let asked = &plan.service().state.asked;
            let is_baseline = asker.is_baseline && !plan.decision.diverted;
            asked.note(worker, asker.player, is_baseline, plan.decision.diverted, failed);
        }
        if plan.decision.diverted {
            self.stage = Stage::Done;
            return false;
        }
        if self.slot.is_none() {
            self.begin(evidence, now);
        }
        let settled = evidence.settle(usize::from(plan.decision.version), &asker, outcome);
        if let (true, Some(endpoint)) = (counts, self.endpoint) {
            let cells = endpoint.cells.of(worker);
            cells.trials.add(1);
            cells.failures.add(u64::from(failed));
            cells.player_trials.add(u64::from(settled.trial));
            cells.player_failures.add(u64::from(settled.trial && failed));
        }
        settled.first
    }

    fn regret(&mut self, left: bool, now: Instant) {
        let Some(evidence) = self.evidence.filter(|_| !self.plan.decision.diverted) else { return };
        let asker = self.asker(evidence, now);
        let version = usize::from(self.plan.decision.version);
        evidence.regret(version, &asker, left, self.slot_at(evidence, now));
        if !left && let Some(endpoint) = self.endpoint {
            endpoint.cells.of(self.worker.id).failures.add(1);
        }
    }

    fn time_whole(&self, timed: fn(u32) -> Timed, first: bool, now: Instant) {
        let (Some(evidence), Some(asked)) = (self.evidence, self.asked) else { return };
        if self.is_timed(now) && !self.is_stream {
            let asker = self.asker(evidence, now);
            let version = usize::from(self.plan.decision.version);
            evidence.time_whole(version, &asker, timed(micros(asked, now)), first);
        }
    }

    /// Counts what it carried. What carries no amount carries 0: a version that no longer says what it
    /// takes would look like one that nobody plays otherwise.
    fn pay(&self, carried: &amounts::Carried, now: Instant) {
        let (Some(evidence), plan) = (self.evidence, self.plan) else { return };
        let arm = &evidence.arms[usize::from(plan.decision.version)];
        if arm.amounts.is_empty() || !self.is_timed(now) {
            return;
        }
        let player = plan.decision.player;
        if evidence.state.paid.has(player) {
            return;
        }
        evidence.state.paid.add(player);
        for amount in &arm.amounts {
            amount.record(self.worker.id, carried[usize::from(amount.number)], fastrand::f64);
        }
    }

    /// Whether its latency and amounts count: not of an endpoint that warms up, nor of one that began under
    /// an older split, whose slow requests end among fast ones of the new.
    fn is_timed(&self, now: Instant) -> bool {
        let is_warm = self.endpoint.is_none_or(|e| e.is_warm(self.worker.since_start(now)));
        let service = self.plan.service();
        is_warm && service.epoch == service.state.epoch.load(std::sync::atomic::Ordering::Relaxed)
    }
}
