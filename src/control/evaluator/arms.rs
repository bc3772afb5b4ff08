//! One canary against the baseline over the requests of one stratum.

use std::{sync::Arc, time::Duration};

use super::{
    account::Account,
    amounts::Seen,
    begun::{Scope, Slots},
    speed::{Closed, trials},
};
use crate::{
    analysis::{
        Answer, Arms, Attempts, Block, Comparison, Counter, Entry, Gauge, Latencies, Latest,
        Ledger, Limits, Pace, Players, Record, Recorder, Span,
    },
    registry::EndpointState,
    snapshot::Stratum,
};

/// The blocks that are open, and the comparison that takes the closed ones.
#[derive(Debug)]
pub(super) struct StratumComparison {
    arms: Arms<u16>,
    recorder: Recorder<Comparison>,
    slots: Slots,
    /// Of the named routes, in the order of the limits.
    routes: Vec<Slots>,
    refusals: Block,
    /// The canary's latencies when the open block began, by gauge; `None` until the first complete block.
    latencies: [Option<Box<Latest>>; 4],
    /// Of amounts, in the order of the limits.
    amounts: Vec<Seen>,
    /// When blocks of amounts close.
    pace: Pace,
    /// Requests of all versions when the open ones began.
    requests: u64,
    /// Whether what one block of errors adds is limited.
    capped: bool,
}

/// Endpoints of a canary from which on the spread between them shows how failures cluster.
const ENDPOINTS_THAT_SPREAD: usize = 3;

impl StratumComparison {
    /// A comparison of the versions with the numbers `arms` from `now` on.
    pub(super) fn new(
        stratum: &Stratum,
        account: &Account,
        arms: Arms<u16>,
        phi: f64,
        now: Duration,
    ) -> Self {
        let slots = || Slots::new(arms.canary, now);
        Self {
            arms,
            recorder: Recorder::new(Comparison::new(stratum.limits.clone(), phi, now)),
            slots: slots(),
            routes: stratum.named.iter().map(|_| slots()).collect(),
            refusals: Block::open(refusals(&account.all, arms), now),
            latencies: Default::default(),
            amounts: (0..stratum.limits.amounts.len())
                .map(|number| Seen::new(stratum, arms, number))
                .collect(),
            pace: Pace::new(now),
            requests: super::requests(&account.all),
            capped: false,
        }
    }

    /// Looks at what began and ended. `patience`: how long a baseline request usually takes at most;
    /// `endpoints`: of the canary that serve.
    pub(super) fn poll(
        &mut self,
        stratum: &Stratum,
        account: &Account,
        patience: Duration,
        endpoints: &[Arc<EndpointState>],
        now: Duration,
    ) {
        let capped = endpoints.len() < ENDPOINTS_THAT_SPREAD;
        if self.capped != capped {
            self.capped = capped;
            self.recorder.tell(Entry::CapBursts(capped));
        }
        let horizon = Account::horizon(stratum);
        let alone = match endpoints {
            [alone] => Some(alone.group),
            _ => None,
        };
        let scope = Scope { patience, horizon, alone, now };
        tell(&mut self.recorder, None, &mut self.slots, (&account.all, &scope));
        for (number, (slots, ledger)) in self.routes.iter_mut().zip(&account.named).enumerate() {
            tell(&mut self.recorder, Some(number), slots, (ledger, &scope));
        }
        if let Some(block) = self.refusals.poll(refusals(&account.all, self.arms), now) {
            self.recorder.tell(Entry::Refusals { at: now, block });
        }
        self.poll_amounts(stratum, &account.all, now);
    }

    fn poll_amounts(&mut self, stratum: &Stratum, ledger: &Ledger, now: Duration) {
        if self.amounts.is_empty() {
            return;
        }
        let requests = super::requests(ledger);
        if self.pace.due(requests.wrapping_sub(self.requests), now).is_none() {
            return;
        }
        self.requests = requests;
        for (number, seen) in self.amounts.iter_mut().enumerate() {
            if let Some(block) = seen.close(stratum, self.arms) {
                self.recorder.tell(Entry::Amounts { at: now, number, block: Box::new(block) });
            }
        }
    }

    /// Compares latencies with those of the `baseline` in the block that closes now.
    pub(super) fn compare_latency(
        &mut self,
        ledger: &Ledger,
        span: Span,
        baseline: &Closed,
        now: Duration,
    ) {
        for (quantile, block) in &baseline.trials {
            let gauge = Gauge(span, *quantile);
            let after = trials(ledger, self.arms.canary, gauge);
            let before = &mut self.latencies[gauge.index()];
            if let Some(before) = before {
                let canary = Latencies::between(before, &after);
                let block = Arms::new((&canary).into(), block.into());
                let slow = ledger.slow_from(gauge);
                self.recorder.tell(Entry::Latency {
                    at: now,
                    span,
                    quantile: *quantile,
                    block,
                    slow,
                });
            }
            *before = Some(after);
        }
    }

    /// Whether the canary did something badly that is not judged for good.
    pub(super) fn is_suspect(&self) -> bool {
        self.slots.is_suspect() || self.routes.iter().any(Slots::is_suspect)
    }

    /// What it has come to.
    pub(super) fn comparison(&self) -> &Comparison {
        self.recorder.judge()
    }

    /// That it can be judged again.
    pub(super) fn record(&self) -> Record {
        self.recorder.record()
    }

    /// Until when what began was judged: of all, and of the named routes.
    pub(super) fn read_until(&self) -> (Duration, impl Iterator<Item = Duration>) {
        (self.slots.read_until(), self.routes.iter().map(Slots::read_until))
    }

    /// Says that shares changed after the look at `before`, at the latest `now`; a canary that `warms` up again
    /// has got more players.
    pub(super) fn weight_step(
        &mut self,
        stratum: &Stratum,
        account: &Account,
        warms: bool,
        now: Duration,
    ) {
        self.recorder.tell(Entry::WeightStep { at: now, warms });
        self.slots.weight_step(now);
        self.routes.iter_mut().for_each(|slots| slots.weight_step(now));
        // Blocks by their end would mix two splits.
        self.latencies = Default::default();
        self.refusals = Block::open(refusals(&account.all, self.arms), now);
        for seen in &mut self.amounts {
            seen.skip(stratum, self.arms);
        }
    }

    /// Throws away what began before `now` and is not final.
    pub(super) fn skip_to(&mut self, now: Duration) {
        self.slots.skip_to(now);
        self.routes.iter_mut().for_each(|slots| slots.skip_to(now));
    }

    /// Says how players ended who were asked, of a canary with this `share` of all players.
    pub(super) fn asked(&mut self, players: Arms<Players>, share: f64, now: Duration) {
        self.recorder.tell(Entry::Asked { at: now, players, share });
    }

    /// Demands another certainty, as `limits` have it.
    pub(super) fn demand(&mut self, limits: &Limits) {
        self.recorder.tell(Entry::Demand(Box::new(limits.clone())));
        // The cap follows alpha.
        if self.capped {
            self.recorder.tell(Entry::CapBursts(true));
        }
    }

    /// Says that failures come in clusters of `phi`.
    pub(super) fn set_dispersion(&mut self, phi: f64) {
        self.recorder.tell(Entry::Dispersion(phi));
    }
}

/// Tells blocks that are final, and those that are not if with them the canary fails.
fn tell(
    recorder: &mut Recorder<Comparison>,
    route: Option<usize>,
    slots: &mut Slots,
    (ledger, scope): (&Ledger, &Scope),
) {
    let now = scope.now;
    let [last, so_far] = slots.poll(ledger, scope);
    let tries = slots.tries(&so_far, !last.is_empty());
    let entry = |block: Attempts| Entry::Errors { at: now, block: Box::new(block), route };
    last.into_iter().map(entry).for_each(|entry| recorder.tell(entry));
    if recorder.judge().answer() == Answer::Fail || !tries {
        return;
    }
    let mut tried = recorder.judge().clone();
    for block in &so_far {
        match route {
            None => tried.observe_errors(block, now),
            Some(number) => tried.observe_route(number, block, now),
        }
    }
    if tried.answer() == Answer::Fail {
        so_far.into_iter().map(entry).for_each(|entry| recorder.tell(entry));
    }
}

fn refusals(ledger: &Ledger, arms: Arms<u16>) -> Arms<Counter> {
    let of = |version: u16| ledger.arms[usize::from(version)].refusals;
    Arms::new(of(arms.canary), of(arms.baseline))
}
