//! The collector of one service: decides which of its requests count, and when blocks close.

mod canary;
mod pace;

use std::{sync::Arc, time::Duration};

pub(in crate::control::evaluator) use self::canary::CarriedCollector;
use self::canary::{CanaryCollector, lines};
use super::{
    super::{
        IDLE_LOOK,
        blocks::{BaselineBlock, BaselineStratum, Collected, ServiceBlocks, VersionBlocks},
        exposure::Exposure,
    },
    account::{Account, requests},
    alone::AloneCollector,
    asked::Questions,
    line::StratumCollector,
    outage::OutageWindows,
    places::Place,
    speed::BaselineLatencies,
    spread::EndpointWindows,
    traffic::Traffic,
};
use crate::{
    analysis::{Arms, Counter, Ending, Quantile, Tolerance, What},
    config::units::Weight,
    registry::Player,
    snapshot::{ComparisonPlan, Service},
};

/// A canary whose part of the weights grew by this factor warms up again.
const GROWN: f64 = 1.1;

/// For this long, further amounts of a player do not count after the first one.
const PAID_AGAIN: Duration = Duration::from_secs(10);

/// The collector of one service.
#[derive(Debug)]
pub(in crate::control::evaluator) struct ServiceCollector {
    plan: Arc<ComparisonPlan>,
    baseline: u16,
    epoch: u64,
    /// Whether a step of a rollout began since.
    step_begins: bool,
    endpoints: EndpointWindows,
    outage: OutageWindows,
    traffic: Traffic,
    /// The baseline's latencies, by stratum.
    speeds: Vec<BaselineLatencies>,
    /// By stratum.
    accounts: Vec<Account>,
    /// When the amounts of all players last began to count again.
    paid: Duration,
    questions: Questions,
    /// The players of each version, while a rollout asks for them.
    exposure: Option<Exposure>,
    canaries: Vec<CanaryCollector>,
    /// Versions that serve without a baseline.
    alone: Vec<AloneCollector>,
    /// Whether outcomes that may count against a canary arrived since the last collection.
    has_news: bool,
    /// Time of the last collection.
    collected: Duration,
    /// When a block of the baseline's data last closed, and the counts at that time, by stratum.
    learnt: Duration,
    counted: Vec<Counter>,
}

impl ServiceCollector {
    pub(in crate::control::evaluator) fn new(
        service: &Service,
        plan: &Arc<ComparisonPlan>,
        now: Duration,
    ) -> Self {
        let baseline = service.baseline;
        let strata = plan.strata.iter();
        let new = |stratum| Account::new(stratum, baseline, &plan.outcomes, now);
        let accounts: Vec<Account> = strata.clone().map(new).collect();
        let both = strata.clone().zip(&accounts);
        Self {
            plan: Arc::clone(plan),
            baseline,
            epoch: service.epoch,
            step_begins: false,
            endpoints: EndpointWindows::new(now),
            outage: OutageWindows::new(&accounts, baseline, now),
            traffic: Traffic::new(accounts.iter().map(|a| requests(&a.all)), now),
            speeds: both
                .map(|(s, account)| BaselineLatencies::new(s, account, baseline, now))
                .collect(),
            counted: vec![Counter::default(); accounts.len()],
            accounts,
            paid: now,
            questions: Questions::new(now),
            canaries: Vec::new(),
            alone: Vec::new(),
            exposure: None,
            has_news: false,
            collected: now,
            learnt: now,
        }
    }

    /// The plan of the comparison.
    pub(in crate::control::evaluator) fn plan(&self) -> &Arc<ComparisonPlan> {
        &self.plan
    }

    /// Number of the baseline.
    pub(in crate::control::evaluator) fn baseline(&self) -> u16 {
        self.baseline
    }

    /// Restarts for `plan`, which has other limits or other versions. The open window over the endpoints
    /// continues.
    pub(in crate::control::evaluator) fn ask_anew(
        &mut self,
        service: &Service,
        plan: &Arc<ComparisonPlan>,
        now: Duration,
    ) {
        let before = std::mem::replace(self, Self::new(service, plan, now));
        self.endpoints = before.endpoints;
    }

    /// Continues with `plan`, which has the same limits, and restarts for the canaries in `anew`: all players
    /// count again.
    pub(in crate::control::evaluator) fn go_on(
        &mut self,
        plan: &Arc<ComparisonPlan>,
        anew: &[Arc<str>],
        now: Duration,
    ) {
        for canary in self.canaries.iter_mut().filter(|canary| anew.contains(&canary.version)) {
            self.accounts.iter_mut().for_each(|account| account.begin_cycles(now));
            let arms = Arms::new(canary.number, self.baseline);
            canary.lines = lines(plan, &self.accounts, arms, now);
            canary.decided = false;
        }
        self.plan = Arc::clone(plan);
    }

    /// Notes that a step of a rollout begins: with the next snapshot it goes on as after a change of the split.
    pub(in crate::control::evaluator) fn begin_step(&mut self) {
        self.step_begins = true;
    }

    /// Takes over the split of `service`. If it has changed, or a step began, returns the blocks of requests that began before
    /// the change, each with the change as its last entry.
    pub(in crate::control::evaluator) fn follow_split(
        &mut self,
        service: &Service,
        now: Duration,
    ) -> Option<ServiceBlocks> {
        let step_begins = std::mem::take(&mut self.step_begins);
        if self.epoch == service.epoch && !step_begins {
            self.canaries.iter_mut().for_each(|canary| canary.follow_share(service));
            return None;
        }
        self.epoch = service.epoch;
        let was_split = self.is_split();
        self.exposure.iter_mut().for_each(|exposure| exposure.follow_split(was_split));
        self.poll_lines(service, now);
        // Some requests since the last evaluation began under the old split.
        let look = self.plan.outcomes.look().wrapping_add(1);
        let strata = self.plan.strata.iter().zip(&mut self.accounts);
        for (number, (stratum, account)) in strata.enumerate() {
            account.weight_step(look);
            for canary in &mut self.canaries {
                let warms = service.weight_share(canary.number) > canary.share * GROWN;
                canary.lines[number].weight_step(stratum, account, warms, now);
            }
            let speeds = self.speeds[number].by_span();
            speeds.for_each(|(_, speed)| speed.skip(stratum, account, now));
        }
        self.canaries.iter_mut().for_each(|canary| canary.follow_share(service));
        Some(ServiceBlocks { canaries: self.take_canaries(), ..ServiceBlocks::default() })
    }

    /// Drops all versions except the given canaries and versions alone.
    pub(in crate::control::evaluator) fn retain(&mut self, canaries: &[u16], alone: &[u16]) {
        self.canaries.retain(|canary| canaries.contains(&canary.number));
        self.alone.retain(|version| alone.contains(&version.number));
    }

    /// Adds the canary with this `number` at `now`.
    pub(in crate::control::evaluator) fn begin_canary(
        &mut self,
        service: &Service,
        number: u16,
        version: Arc<str>,
        now: Duration,
    ) {
        if self.canaries.is_empty() {
            // All players count in a new comparison, and may be tested. With several canaries, players would
            // count several times in the comparison of another one.
            self.questions.begin(service, now);
            self.accounts.iter_mut().for_each(|account| account.begin_cycles(now));
        }
        let arms = Arms::new(number, self.baseline);
        let lines = lines(&self.plan, &self.accounts, arms, now);
        let share = service.weight_share(number);
        self.canaries.push(CanaryCollector { number, version, share, decided: false, lines });
    }

    /// Whether it collects blocks of the canary with this `number`.
    pub(in crate::control::evaluator) fn has_canary(&self, number: u16) -> bool {
        self.canaries.iter().any(|canary| canary.number == number)
    }

    /// Whether it collects blocks of the version with this `number`, which serves alone.
    pub(in crate::control::evaluator) fn has_alone(&self, number: u16) -> bool {
        self.alone.iter().any(|alone| alone.number == number)
    }

    /// Adds a version alone at `now`, on the strata on which it is `judged`.
    pub(in crate::control::evaluator) fn begin_alone(
        &mut self,
        version: (u16, Arc<str>),
        judged: &[bool],
        now: Duration,
    ) {
        self.alone.push(AloneCollector::new(version, &self.accounts, judged, now));
    }

    /// Notes which canaries were found to be worse.
    pub(in crate::control::evaluator) fn decide(&mut self, is_worse: impl Fn(&str) -> bool) {
        for canary in self.canaries.iter_mut().filter(|canary| !canary.decided) {
            canary.decided = is_worse(&canary.version);
        }
    }

    /// Follows the players who failed on version number `number` on the requests of a stratum. Returns their
    /// number.
    pub(in crate::control::evaluator) fn follow_players(
        &mut self,
        number: u16,
        stratum: usize,
    ) -> u64 {
        let look = self.plan.outcomes.look();
        let failed = &self.accounts[stratum].all.arms[usize::from(number)].failed;
        self.questions.follow(failed, number, look)
    }

    /// Counts of first attempts at version number `number` on the requests of a stratum.
    #[cfg(test)]
    pub(in crate::control::evaluator) fn requests(&self, stratum: usize, number: usize) -> Counter {
        self.accounts[stratum].all.arms[number].requests
    }

    /// Begins or ends to note the players of each version.
    pub(in crate::control::evaluator) fn watch_players(&mut self, watch: bool) {
        match watch {
            true if self.exposure.is_none() => {
                self.exposure = Some(Exposure::begun(self.is_split()));
            }
            true => {}
            false => self.exposure = None,
        }
    }

    /// Whether several versions have players.
    fn is_split(&self) -> bool {
        !self.canaries.is_empty() || self.alone.len() > 1
    }

    /// The players of each version since the split changed last, if they are noted.
    pub(in crate::control::evaluator) fn exposure(&self) -> Option<&Exposure> {
        self.exposure.as_ref()
    }

    /// Begins the evaluation number `look`.
    pub(super) fn look(&mut self, look: u32, now: Duration) {
        let strata = self.plan.strata.iter().zip(&mut self.accounts);
        strata.for_each(|(stratum, account)| account.look(stratum, look, now));
        if let Some(exposure) = &mut self.exposure {
            let waits = self.plan.strata.iter().map(Account::horizon);
            exposure.look(look, waits.max().unwrap_or_default(), now);
        }
    }

    /// Discards open requests and continues with those that begin from `now` on, under the same split.
    pub(super) fn skip_to(&mut self, now: Duration) {
        let lines = self.canaries.iter_mut().flat_map(|canary| &mut canary.lines);
        lines.for_each(|line| line.skip_to(now));
    }

    /// Excludes all requests that began before the evaluation number `look`, which begins at `now`.
    pub(super) fn forget_before(&mut self, look: u32, now: Duration) {
        self.accounts.iter_mut().for_each(|account| account.forget_before(look));
        self.skip_to(now);
    }

    /// The marks of `player` on the requests of a stratum.
    pub(super) fn marks_of(&self, stratum: usize, player: u16) -> Option<u16> {
        Some(self.accounts.get(stratum)?.all.marks_of(player))
    }

    /// Takes the outcome of an attempt at `place` at the evaluation number `look`. Returns the trials and failures of
    /// players that it adds.
    pub(super) fn add(
        &mut self,
        service: &Service,
        place: &Place,
        ending: &Ending,
        look: u32,
        now: Duration,
    ) -> Counter {
        let Some(account) = self.accounts.get_mut(place.stratum) else { return Counter::default() };
        let counted = account.add(place.version, place.named, ending, now);
        // A request that was sent to another version has no evaluation number of its own.
        let began = if ending.look == 0 { look.wrapping_sub(1) } else { ending.look };
        if !account.all.forgets(began) {
            let serves = || account.all.baseline_serves(began, ending.player);
            let networks = self.plan.strata[place.stratum].networks;
            self.questions.add(service, place.version, ending, look, networks, serves);
            self.note_outcome(place.version, ending.what);
            self.expose(place.version, ending);
        }
        counted
    }

    /// Notes on which version a player was seen, if the split in force sent the player there: neither the one before,
    /// whose requests end for a while yet, nor a test of the player on another version.
    fn expose(&mut self, version: u16, ending: &Ending) {
        let Some(exposure) = self.exposure.as_mut().filter(|_| ending.look != 0) else { return };
        let player = Player(ending.player);
        match ending.split == self.epoch as u8 {
            true => exposure.add(player, version, ending.look),
            false => exposure.knows(player),
        }
    }

    /// Notes that a request to version number `version` ended as `what`.
    fn note_outcome(&mut self, version: u16, what: What) {
        self.has_news |= match what {
            What::Served | What::Refused | What::Whole | What::Void => false,
            What::AskedServed | What::AskedFailed => true,
            What::Failed | What::TimedOut | What::Broke | What::Left | What::LeftLater => {
                version != self.baseline || !self.alone.is_empty()
            }
        };
    }

    /// Canaries that were not found to be worse.
    fn open(&self) -> impl Iterator<Item = &CanaryCollector> {
        self.canaries.iter().filter(|canary| !canary.decided)
    }

    /// Counts of requests and the tolerance that decide whether players are tested. `None` if there are several
    /// canaries or errors are not compared.
    fn doubted(&self) -> Option<(Arms<Counter>, Tolerance)> {
        let canary = self.open().next().filter(|_| self.canaries.len() == 1)?;
        let tolerated = self.plan.strata.first()?.limits.errors?;
        let of = |version: u16| self.accounts[0].all.arms[usize::from(version)].requests;
        Some((Arms::new(of(canary.number), of(self.baseline)), tolerated))
    }

    /// The blocks that close at `now`.
    pub(in crate::control::evaluator) fn collect(
        &mut self,
        service: &Service,
        now: Duration,
    ) -> ServiceBlocks {
        (self.has_news, self.collected) = (false, now);
        let baseline = &service.versions[usize::from(self.baseline)];
        let groups = &self.accounts[0].all.arms[usize::from(self.baseline)].groups;
        let endpoints = self.endpoints.poll(&baseline.endpoints, groups, now);
        let outage = self.outage.poll(&self.accounts, self.baseline, now);
        self.traffic.look(self.accounts.iter().map(|a| requests(&a.all)), now);
        self.poll_speeds(now);
        let doubted = self.doubted();
        self.questions.doubt(service, doubted, now);
        // With two canaries it is unknown which one a player left.
        if let (Some(players), [canary]) =
            (self.questions.poll(service, now), &mut self.canaries[..])
        {
            let share = service.share(canary.number);
            canary.lines.iter_mut().take(1).for_each(|line| line.asked(players, share, now));
        }
        self.poll_lines(service, now);
        // An amount counts once in this time, however often the player plays.
        if now.saturating_sub(self.paid) >= PAID_AGAIN {
            self.paid = now;
            self.plan.strata.iter().for_each(|stratum| stratum.state.paid.clear());
        }
        let alone = self.alone.iter_mut().filter_map(|alone| alone.poll(&self.accounts, now));
        ServiceBlocks {
            endpoints,
            outage,
            alone: alone.collect(),
            canaries: self.take_canaries(),
            followed: self.questions.asking.known,
            baseline: self.poll_baseline(service, now),
        }
    }

    fn poll_speeds(&mut self, now: Duration) {
        let strata = self.plan.strata.iter();
        let each = self.speeds.iter_mut().zip(strata).zip(&mut self.accounts);
        for (number, ((speeds, stratum), account)) in each.enumerate() {
            for (span, speed) in speeds.by_span() {
                let Some(block) = speed.poll(&account.all, now) else { continue };
                for canary in &mut self.canaries {
                    canary.lines[number].close_latency(&account.all, span, &block, now);
                }
                speed.absorb(&block, stratum, account);
            }
        }
    }

    /// Updates the blocks of canaries with what began and ended.
    fn poll_lines(&mut self, service: &Service, now: Duration) {
        for canary in &mut self.canaries {
            let version = service.versions.get(usize::from(canary.number));
            let endpoints = version.map_or(&[][..], |version| &version.endpoints);
            let strata = self.plan.strata.iter().zip(&self.speeds).zip(&self.accounts);
            for (line, ((stratum, speeds), account)) in canary.lines.iter_mut().zip(strata) {
                line.poll(stratum, account, speeds.patience(), endpoints, now);
            }
        }
        for canary in &self.canaries {
            let lines = canary.lines.iter().zip(&mut self.accounts);
            lines.for_each(|(line, account)| account.read_until(line.read_until()));
        }
    }

    fn take_canaries(&mut self) -> Vec<VersionBlocks<Collected>> {
        let each = self.canaries.iter_mut().map(|canary| VersionBlocks {
            version: Arc::clone(&canary.version),
            strata: canary.lines.iter_mut().map(StratumCollector::take).collect(),
        });
        each.collect()
    }

    /// The baseline's data since the last time, if it has a share and the data is due.
    fn poll_baseline(&mut self, service: &Service, now: Duration) -> Option<BaselineBlock> {
        if now.saturating_sub(self.learnt) < IDLE_LOOK {
            return None;
        }
        self.learnt = now;
        let baseline = &service.versions[usize::from(self.baseline)];
        if baseline.share_weight() == Weight::ZERO {
            return None;
        }
        let each = self.counted.iter_mut().zip(&self.accounts).zip(&self.speeds);
        let strata = each.map(|((counted, account), speeds)| {
            let after = account.all.arms[usize::from(self.baseline)].requests;
            let reference = speeds.head.reference();
            BaselineStratum {
                requests: after.since(std::mem::replace(counted, after)),
                p95: reference.latency_of(Quantile::P95),
                p99: reference.latency_of(Quantile::P99),
            }
        });
        Some(BaselineBlock { version: Arc::from(&*baseline.name), strata: strata.collect() })
    }
}
