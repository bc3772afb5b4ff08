//! Blocks of one canary and the baseline over the requests of one stratum.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    super::blocks::Collected,
    account::{Account, requests},
    amounts::{Scale, Seen},
    slots::{Scope, Slots},
    speed::{Closed, trials},
};
use crate::{
    analysis::{
        Arms, Attempts, Block, Counter, Entry, Gauge, Latencies, Latest, Ledger, Pace, Players,
        Span,
    },
    registry::EndpointState,
    snapshot::Stratum,
};

/// The open blocks, and those that closed since the last call of `take`.
#[derive(Debug)]
pub(super) struct StratumCollector {
    arms: Arms<u16>,
    closed: Vec<Collected>,
    slots: Slots,
    /// Slots of the named routes, in the order of the limits.
    routes: Vec<Slots>,
    refusals: Block,
    /// The canary's latencies when the open block began, by gauge; `None` until the first complete block.
    latencies: [Option<Box<Latest>>; 4],
    /// Sums of amounts, in the order of the limits.
    amounts: Vec<Seen>,
    /// When blocks of amounts close.
    pace: Pace,
    /// Requests of all versions when the open blocks began.
    requests: u64,
    /// Whether the evidence that one block of errors adds is capped.
    capped: bool,
}

/// What the judge was told about how the blocks of a stratum are made, on its way to another process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CarriedStratum {
    capped: bool,
    /// In the order of the limits.
    scales: Vec<Option<Scale>>,
}

/// From this many endpoints of a canary, the spread between them shows how failures cluster.
const ENDPOINTS_THAT_SPREAD: usize = 3;

impl StratumCollector {
    /// Opens blocks of the versions with the numbers `arms` at `now`.
    pub(super) fn new(
        stratum: &Stratum,
        account: &Account,
        arms: Arms<u16>,
        now: Duration,
    ) -> Self {
        let slots = || Slots::new(arms.canary, now);
        Self {
            arms,
            closed: Vec::new(),
            slots: slots(),
            routes: stratum.named.iter().map(|_| slots()).collect(),
            refusals: Block::open(refusals(&account.all, arms), now),
            latencies: Default::default(),
            amounts: (0..stratum.limits.amounts.len())
                .map(|number| Seen::new(stratum, arms, number))
                .collect(),
            pace: Pace::new(now),
            requests: requests(&account.all),
            capped: false,
        }
    }

    /// What another process needs to continue with blocks of the same kind.
    pub(super) fn carried(&self) -> CarriedStratum {
        let scales = self.amounts.iter().map(Seen::scale).collect();
        CarriedStratum { capped: self.capped, scales }
    }

    /// Continues with blocks of the same kind as another process.
    pub(super) fn resume(&mut self, carried: &CarriedStratum) {
        self.capped = carried.capped;
        let scales = self.amounts.iter_mut().zip(&carried.scales);
        scales.for_each(|(seen, scale)| seen.resume(*scale));
    }

    /// Takes what began and ended. `patience`: how long a baseline request usually takes at most; `endpoints`:
    /// number of the canary's endpoints that serve.
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
            self.close(Entry::CapBursts(capped));
        }
        let horizon = Account::horizon(stratum);
        let alone = match endpoints {
            [alone] => Some(alone.group),
            _ => None,
        };
        let scope = Scope { patience, horizon, alone, now };
        close(&mut self.closed, None, &mut self.slots, (&account.all, &scope));
        for (number, (slots, ledger)) in self.routes.iter_mut().zip(&account.named).enumerate() {
            close(&mut self.closed, Some(number), slots, (ledger, &scope));
        }
        if let Some(block) = self.refusals.poll(refusals(&account.all, self.arms), now) {
            self.close(Entry::Refusals { at: now, block });
        }
        self.poll_amounts(stratum, &account.all, now);
    }

    fn poll_amounts(&mut self, stratum: &Stratum, ledger: &Ledger, now: Duration) {
        if self.amounts.is_empty() {
            return;
        }
        let so_far = requests(ledger);
        if self.pace.due(so_far.wrapping_sub(self.requests), now).is_none() {
            return;
        }
        self.requests = so_far;
        for (number, seen) in self.amounts.iter_mut().enumerate() {
            if let Some(block) = seen.close(stratum, self.arms) {
                let entry = Entry::Amounts { at: now, number, block: Box::new(block) };
                self.closed.push(Collected::Final(entry));
            }
        }
    }

    /// Closes the block of latencies together with that of the `baseline`.
    pub(super) fn close_latency(
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
                let entry = Entry::Latency { at: now, span, quantile: *quantile, block, slow };
                self.closed.push(Collected::Final(entry));
            }
            *before = Some(after);
        }
    }

    /// Whether the canary has failures that are not yet finally judged.
    pub(super) fn is_suspect(&self) -> bool {
        self.slots.is_suspect() || self.routes.iter().any(Slots::is_suspect)
    }

    /// The blocks that closed since the last call.
    pub(super) fn take(&mut self) -> Vec<Collected> {
        std::mem::take(&mut self.closed)
    }

    fn close(&mut self, entry: Entry) {
        self.closed.push(Collected::Final(entry));
    }

    /// Until when requests were judged, by their start: in total, and for each named route.
    pub(super) fn read_until(&self) -> (Duration, impl Iterator<Item = Duration>) {
        (self.slots.read_until(), self.routes.iter().map(Slots::read_until))
    }

    /// Notes that shares changed after the look at `before`, at the latest at `now`. A canary that `warms` up
    /// again has got more players.
    pub(super) fn weight_step(
        &mut self,
        stratum: &Stratum,
        account: &Account,
        warms: bool,
        now: Duration,
    ) {
        self.close(Entry::WeightStep { at: now, warms });
        self.slots.weight_step(now);
        self.routes.iter_mut().for_each(|slots| slots.weight_step(now));
        // Blocks of requests by their end would mix two splits.
        self.latencies = Default::default();
        self.refusals = Block::open(refusals(&account.all, self.arms), now);
        for seen in &mut self.amounts {
            seen.skip(stratum, self.arms);
        }
    }

    /// Discards the blocks of requests that began before `now` and are not final.
    pub(super) fn skip_to(&mut self, now: Duration) {
        self.slots.skip_to(now);
        self.routes.iter_mut().for_each(|slots| slots.skip_to(now));
    }

    /// Takes the results of tested players of a canary; `share` is its share of all players.
    pub(super) fn asked(&mut self, players: Arms<Players>, share: f64, now: Duration) {
        self.close(Entry::Asked { at: now, players, share });
    }
}

/// Closes blocks that are final, and adds blocks that are not if the canary may fail with them.
fn close(
    closed: &mut Vec<Collected>,
    route: Option<usize>,
    slots: &mut Slots,
    (ledger, scope): (&Ledger, &Scope),
) {
    let [last, so_far] = slots.poll(ledger, scope);
    let tries = slots.tries(&so_far, !last.is_empty());
    let entry = |block: Attempts| Entry::Errors { at: scope.now, block: Box::new(block), route };
    closed.extend(last.into_iter().map(entry).map(Collected::Final));
    if tries {
        closed.push(Collected::SoFar(so_far.into_iter().map(entry).collect()));
    }
}

fn refusals(ledger: &Ledger, arms: Arms<u16>) -> Arms<Counter> {
    let of = |version: u16| ledger.arms[usize::from(version)].refusals;
    Arms::new(of(arms.canary), of(arms.baseline))
}
