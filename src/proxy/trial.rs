//! The outcome of a request in the comparison of versions: that of its first attempt, counted once.
//!
//! The head of the response decides between success and failure; a success that breaks later
//! becomes a failure. The time to the last byte and the amounts are known at the end. Of a response
//! that arrives at once, everything is recorded in one outcome.

use std::time::Duration;

use tokio::time::Instant;

use super::{amounts, elapsed::micros, plan::Plan, worker::Worker};
use crate::{
    analysis::{Ending, NO_TIME, What},
    registry::EndpointState,
    snapshot::Evidence,
};

/// The request's worker, plan and endpoint.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) worker: &'a Worker,
    pub(super) plan: &'a Plan,
    /// The endpoint of the latest attempt.
    pub(super) endpoint: Option<&'a EndpointState>,
}

/// The part of a request's outcome that is not recorded yet.
pub(super) struct Trial<'a> {
    /// `None` if the request is not compared.
    evidence: Option<&'a Evidence>,
    stage: Stage,
    /// Number of the evaluation in which the request began; 0 before that.
    look: u32,
    /// When the endpoint had the request; `None` while the request is being sent.
    asked: Option<Instant>,
    /// Since when the endpoint has not read more of the request; `None` if it reads.
    stalls: Option<Instant>,
    /// Whether `asked` is the moment at which the attempt began.
    at_once: bool,
    /// Whether a connection was made for the attempt.
    fresh: bool,
    /// Whether the response is a stream of unlimited length.
    is_stream: bool,
    /// Whether the endpoint said that it has too much to do.
    spares_endpoint: bool,
}

/// How much of the outcome is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is left to record.
    Done,
    /// No response yet.
    Waiting,
    /// The response has begun, and nothing is recorded.
    Answered { what: What, head_us: u32 },
    /// It is recorded that the response has begun.
    Said,
}

impl<'a> Trial<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        let evidence = plan.route().evidence.as_ref().filter(|_| plan.is_by_chance());
        let stage = if evidence.is_some() { Stage::Waiting } else { Stage::Done };
        Self {
            evidence,
            stage,
            look: 0,
            asked: None,
            stalls: None,
            at_once: false,
            fresh: false,
            is_stream: false,
            spares_endpoint: false,
        }
    }

    /// The request is about to be sent completely. `at_once`: as the attempt begins.
    pub(super) fn asked(&mut self, of: Subject<'_>, now: Instant, at_once: bool) {
        if self.stage == Stage::Waiting {
            (self.asked, self.at_once) = (Some(now), at_once);
            self.begin(of);
        }
    }

    /// A connection was made for the attempt.
    pub(super) fn connected(&mut self) {
        self.fresh = true;
    }

    /// The endpoint has not read more of the request `since` then; `None`: it reads again.
    pub(super) fn stalls(&mut self, since: Option<Instant>) {
        self.stalls = since;
    }

    fn begin(&mut self, of: Subject<'_>) {
        let decision = &of.plan.decision;
        if let Some(evidence) = self.evidence
            && self.look == 0
            && !decision.diverted
        {
            self.look = evidence.begin(usize::from(decision.version), of.worker.id);
        }
    }

    /// The time after which a request without a response counts as failed.
    pub(super) fn patience(&self) -> Option<Duration> {
        match self.stage {
            Stage::Done => None,
            _ => self.evidence?.state.deadline(),
        }
    }

    /// Whether something is still to be recorded.
    pub(super) fn is_open(&self) -> bool {
        self.stage != Stage::Done
    }

    /// The head of a response arrived, `attempt_us` microseconds after the attempt began.
    pub(super) fn answered(&mut self, of: Subject<'_>, status: u16, now: Instant, attempt_us: u32) {
        if self.stage != Stage::Waiting {
            return;
        }
        if of.plan.route().failures.contains(status) {
            return self.failed(of, false);
        }
        let what = if (400..500).contains(&status) { What::Refused } else { What::Served };
        let is_known = self.at_once && !of.endpoint.is_some_and(EndpointState::warms_up);
        let head_us = if is_known { attempt_us } else { self.since_asked(of, now) };
        self.stage = Stage::Answered { what, head_us };
    }

    /// The response does not arrive at once.
    pub(super) fn goes_on(&mut self, of: Subject<'_>) {
        if let Stage::Answered { what, head_us } = self.stage {
            self.settle(of, what, head_us, NO_TIME);
            self.stage = Stage::Said;
        }
    }

    /// The response is a stream.
    pub(super) fn streams(&mut self) {
        self.is_stream = true;
    }

    /// The endpoint said that it has too much to do. That counts for the version, since players see it, and not against the
    /// endpoint beside its peers: it gets a smaller share instead.
    #[cold]
    pub(super) fn spare_endpoint(&mut self) {
        self.spares_endpoint = true;
    }

    /// The version failed. `timed_out`: it did not respond in time.
    pub(super) fn failed(&mut self, of: Subject<'_>, timed_out: bool) {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Done => {}
            Stage::Waiting if timed_out => self.settle(of, What::TimedOut, NO_TIME, NO_TIME),
            Stage::Waiting | Stage::Answered { .. } => {
                self.settle(of, What::Failed, NO_TIME, NO_TIME);
            }
            Stage::Said => self.say(of, What::Broke, NO_TIME, NO_TIME),
        }
    }

    /// The client left.
    pub(super) fn left(&mut self, of: Subject<'_>, now: Instant) {
        self.goes_on(of);
        self.asked = self.asked.or(self.stalls);
        match std::mem::replace(&mut self.stage, Stage::Done) {
            // The version is not the reason if a client leaves while it still sends the request,
            // unless the endpoint does not read.
            Stage::Waiting if self.asked.is_none() => self.void(of),
            Stage::Waiting => self.settle(of, What::Left, self.since_asked(of, now), NO_TIME),
            Stage::Said if !self.is_stream => {
                self.say(of, What::LeftLater, NO_TIME, self.since_asked(of, now));
            }
            Stage::Done | Stage::Said | Stage::Answered { .. } => {}
        }
    }

    /// The client's own deadline passed, so it has left. Unlike a client that ends a stream, it
    /// wanted more.
    pub(super) fn given_up(&mut self, of: Subject<'_>, now: Instant) {
        self.goes_on(of);
        if self.is_stream && self.stage == Stage::Said {
            self.stage = Stage::Done;
            return self.say(of, What::LeftLater, NO_TIME, NO_TIME);
        }
        self.left(of, now);
    }

    /// What happens from here on is no evidence about the version.
    pub(super) fn acquit(&mut self, of: Subject<'_>) {
        self.goes_on(of);
        if std::mem::replace(&mut self.stage, Stage::Done) == Stage::Waiting {
            self.void(of);
        }
    }

    /// The attempt has failed, and another one follows, perhaps at another version: its outcome is the one that
    /// counts. A response that is given up counts as what it is; if there was none, the version had no endpoint.
    #[cold]
    pub(super) fn repeated(&mut self, of: Subject<'_>) {
        self.goes_on(of);
        if std::mem::replace(&mut self.stage, Stage::Done) == Stage::Waiting {
            self.settle(of, What::Failed, NO_TIME, NO_TIME);
        }
    }

    /// The response, from the version or made in its place, is complete.
    pub(super) fn ended(&mut self, of: Subject<'_>, now: Instant, carried: &amounts::AmountValues) {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Done => return,
            Stage::Waiting => return self.settle(of, What::Failed, NO_TIME, NO_TIME),
            // A response in one piece took no time beyond its head.
            Stage::Answered { what, head_us } if !self.is_stream => {
                self.settle(of, what, head_us, head_us);
            }
            Stage::Answered { what, head_us } => self.settle(of, what, head_us, NO_TIME),
            Stage::Said if !self.is_stream => {
                self.say(of, What::Whole, NO_TIME, self.since_asked(of, now));
            }
            Stage::Said => {}
        }
        if let Some(evidence) = self.evidence {
            pay(evidence, of, carried);
        }
    }

    fn void(&mut self, of: Subject<'_>) {
        if self.look != 0 {
            self.say(of, What::Void, NO_TIME, NO_TIME);
        }
    }

    /// Counts the outcome for the endpoint, and records it.
    fn settle(&mut self, of: Subject<'_>, what: What, head_us: u32, whole_us: u32) {
        let Subject { worker, plan, endpoint } = of;
        let failed = matches!(what, What::Failed | What::TimedOut);
        if plan.decision.diverted {
            if what != What::Left {
                let what = if failed { What::AskedFailed } else { What::AskedServed };
                self.say(of, what, NO_TIME, NO_TIME);
            }
            return;
        }
        self.begin(of);
        self.say(of, what, head_us, whole_us);
        if what == What::Left {
            return;
        }
        if let Some(endpoint) = endpoint.filter(|_| !self.spares_endpoint) {
            let cells = endpoint.cells.of(worker.id);
            cells.trials.add(1);
            if failed {
                cells.failures.add(1);
            }
        }
    }

    #[inline(always)]
    fn say(&self, of: Subject<'_>, what: What, head_us: u32, whole_us: u32) {
        let Subject { worker, plan, endpoint } = of;
        let Some(evidence) = self.evidence else { return };
        let version = usize::from(plan.decision.version);
        let counted = endpoint.filter(|_| !self.spares_endpoint);
        if let (What::Broke, Some(endpoint)) = (what, counted) {
            endpoint.cells.of(worker.id).failures.add(1);
        }
        let ending = Ending {
            look: self.look,
            split: plan.service().epoch as u8,
            arm: evidence.number(version),
            player: plan.decision.player.0,
            network: plan.network.map_or(0, |network| network.0),
            endpoint: counted.map_or(u32::MAX, |endpoint| endpoint.id),
            group: endpoint.map_or(0, |endpoint| endpoint.group),
            fresh: self.fresh,
            what,
            head_us,
            whole_us,
        };
        evidence.outcomes.push(worker.id, ending);
    }

    /// Microseconds since the endpoint had the request; [`NO_TIME`] for an endpoint that warms up,
    /// since its times do not count.
    fn since_asked(&self, of: Subject<'_>, now: Instant) -> u32 {
        let is_cold = of.endpoint.is_some_and(|endpoint| {
            endpoint.warms_up() && !endpoint.is_warm(of.worker.since_start(now))
        });
        self.asked.filter(|_| !is_cold).map_or(NO_TIME, |asked| micros(asked, now))
    }
}

/// Records the amounts of a response for a player of whom none were recorded lately. A missing
/// amount is 0; otherwise a version that stops sending amounts would look like one without players.
fn pay(evidence: &Evidence, of: Subject<'_>, carried: &amounts::AmountValues) {
    let Subject { worker, plan, .. } = of;
    let Evidence { arms, state, .. } = evidence;
    let amounts = &arms[usize::from(plan.decision.version)].amounts;
    let player = plan.decision.player;
    if amounts.is_empty() || plan.decision.diverted || state.paid.has(player) {
        return;
    }
    state.paid.add(player);
    for amount in amounts {
        amount.record(worker.id, carried[usize::from(amount.number)], fastrand::f64);
    }
}
