//! The account of a stratum: the results of its requests, in total and by named route.

use std::time::Duration;

use crate::{
    analysis::{
        Counter, Ending, Gauge, Latencies, Ledger, Quantile, Reference, Slower, latency_bucket,
    },
    registry::{EvidenceState, Outcomes},
    snapshot::Stratum,
};

/// Bounds of the deadline after which a request without an answer has failed, unless the file sets it. The
/// deadline is ten times the baseline's p99, and the upper bound while that is unknown: a version whose
/// requests take a second must not fail in its first second.
const LEAST_DEADLINE: Duration = Duration::from_secs(1);
const LARGEST_DEADLINE: Duration = Duration::from_secs(30);
const OF_P99: u32 = 10;

/// Per this many trials of the baseline one player who exceeds the deadline is an exception. If more players
/// do, some requests are slow by nature, and the learnt deadline is doubled. If [`OUTAGE`] or more do, it is an
/// outage, from which nothing is learnt. When no more requests take half of the deadline, it is halved again.
/// Players are counted, not requests: otherwise one player could decide how soon a version that hangs is found.
const EXCEPTION: u64 = 1_000;
const OUTAGE: u64 = 10;
/// How often the deadline is doubled at most.
const DOUBLED: u32 = 5;

/// The ledgers of a stratum.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) all: Ledger,
    /// Ledgers of the named routes, in the order of the limits.
    pub(super) named: Vec<Ledger>,
    baseline: usize,
    /// Trials of the baseline when the deadline was last adjusted.
    trials: u64,
    /// Requests of the baseline since then that took at least half of the deadline.
    long: u64,
    doubled: u32,
}

impl Account {
    pub(super) fn new(
        stratum: &Stratum,
        baseline: u16,
        outcomes: &Outcomes,
        now: Duration,
    ) -> Self {
        let (versions, look) = (stratum.arms.len(), outcomes.look());
        let new = || Ledger::new(versions, baseline.into(), stratum.networks, look, now);
        let mut account = Self {
            all: new(),
            named: stratum.named.iter().map(|_| new().untimed()).collect(),
            baseline: baseline.into(),
            trials: 0,
            long: 0,
            doubled: 0,
        };
        account.set_deadline(stratum, None);
        account
    }

    /// Begins the evaluation number `look`.
    pub(super) fn look(&mut self, stratum: &Stratum, look: u32, now: Duration) {
        let started = |state: &EvidenceState| state.cells.sum(|cells| cells.started.read());
        self.all.look(look, stratum.arms.iter().map(|arm| started(&arm.attempts)), now);
        for (ledger, named) in self.named.iter_mut().zip(&stratum.named) {
            ledger.look(look, named.arms.iter().map(|arm| started(arm)), now);
        }
    }

    /// Takes the outcome of an attempt at `version`, on the named route with the number `named` if there is
    /// one. Returns the trials and failures of players that it adds.
    pub(super) fn add(
        &mut self,
        version: u16,
        named: Option<usize>,
        ending: &Ending,
        now: Duration,
    ) -> Counter {
        let counted = self.all.add(version.into(), ending, now);
        if let Some(ledger) = named.and_then(|named| self.named.get_mut(named)) {
            ledger.add(version.into(), ending, now);
        }
        counted
    }

    /// Notes until when requests were judged, by their start: in total, and for each named route.
    pub(super) fn read_until(&mut self, (all, named): (Duration, impl Iterator<Item = Duration>)) {
        // With several canaries, the one judged farthest decides: a later outcome counts once for all of them.
        self.all.read_until(all);
        self.named.iter_mut().zip(named).for_each(|(ledger, until)| ledger.read_until(until));
    }

    /// Notes that the split changed before the evaluation number `look`.
    pub(super) fn weight_step(&mut self, look: u32) {
        self.ledgers().for_each(|ledger| ledger.weight_step(look));
    }

    /// Notes that the process was stopped before the evaluation number `look`; see [`Ledger::forget_before`].
    pub(super) fn forget_before(&mut self, look: u32) {
        self.ledgers().for_each(|ledger| ledger.forget_before(look));
    }

    /// Makes all players count again, as in a new comparison.
    pub(super) fn begin_cycles(&mut self, now: Duration) {
        self.ledgers().for_each(|ledger| ledger.begin_cycles(now));
    }

    /// Sets the latency from which on a request is slow, derived from the baseline's latency in `reference`.
    pub(super) fn learn(&mut self, stratum: &Stratum, gauge: Gauge, reference: &Reference) {
        let tolerance = match gauge.1 {
            Quantile::P95 => stratum.limits.p95,
            Quantile::P99 => stratum.limits.p99,
        };
        let first = gauge.1.threshold(reference).zip(tolerance).map(|(first, tolerance)| {
            let slower = Slower::by(tolerance, stratum.limits.latency_absolute);
            crate::analysis::Arms::new(slower.slow_in_canary(first), first)
        });
        self.all.set_slow_from(gauge, first);
    }

    /// Sets the deadline of requests, derived from the baseline's `p99` and its latencies in the closed
    /// `block`.
    pub(super) fn wait_for(&mut self, stratum: &Stratum, p99: Option<Duration>, block: &Latencies) {
        let half = stratum.state.deadline().unwrap_or(LARGEST_DEADLINE) / 2;
        self.long += block.at_or_above(latency_bucket(half.as_micros() as u64));
        self.be_patient();
        self.set_deadline(stratum, p99);
    }

    fn set_deadline(&mut self, stratum: &Stratum, p99: Option<Duration>) {
        let learnt = p99.map_or(LARGEST_DEADLINE, |p99| p99 * OF_P99).max(LEAST_DEADLINE);
        let learnt = (learnt * 2_u32.pow(self.doubled)).min(LARGEST_DEADLINE);
        let deadline = stratum.deadline.unwrap_or(learnt);
        stratum.state.set_deadline(deadline);
        self.ledgers().for_each(|ledger| ledger.wait_for(horizon(deadline)));
    }

    /// Doubles the deadline if requests of some of the baseline's players are slow by nature; halves it if none
    /// is any more.
    fn be_patient(&mut self) {
        let arm = &mut self.all.arms[self.baseline];
        let so_far = arm.groups.iter().map(|group| group.trials).fold(0, u64::wrapping_add);
        let trials = so_far.wrapping_sub(self.trials);
        if trials < EXCEPTION {
            return;
        }
        let late = u64::from(arm.timed_out.len());
        arm.timed_out.clear();
        let long = std::mem::take(&mut self.long);
        self.trials = so_far;
        if late * EXCEPTION > trials {
            let is_outage = late * OUTAGE >= trials;
            self.doubled += u32::from(!is_outage && self.doubled < DOUBLED);
        } else if long * EXCEPTION <= trials {
            self.doubled = self.doubled.saturating_sub(1);
        }
    }

    /// The age at which a slot is final: by then each of its requests has ended or failed.
    pub(super) fn horizon(stratum: &Stratum) -> Duration {
        horizon(stratum.state.deadline().unwrap_or(LARGEST_DEADLINE))
    }

    fn ledgers(&mut self) -> impl Iterator<Item = &mut Ledger> {
        std::iter::once(&mut self.all).chain(&mut self.named)
    }
}

/// Requests of all versions so far.
pub(super) fn requests(ledger: &Ledger) -> u64 {
    ledger.arms.iter().map(|arm| arm.requests.trials).fold(0, u64::wrapping_add)
}

/// A little more than the deadline, because a busy worker notices a timeout late.
fn horizon(deadline: Duration) -> Duration {
    deadline + deadline / 50
}
