//! The comparisons of one service.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    Found, IDLE_LOOK,
    account::Account,
    alone::{BaselineHistory, StandaloneVersion},
    arms::StratumComparison,
    asked::Questions,
    case::CanaryComparison,
    followed::{self, Followed},
    requests,
    shared::SharedOutage,
    speed::BaselineLatencies,
    spread::ClusterEstimate,
    traffic::Traffic,
};
use crate::{
    analysis::{Arms, Counter, Tolerance, What},
    config::{schema::Mode, units::Weight},
    snapshot::{ComparisonPlan, Service},
};

/// Requests between two looks while nothing is compared, and the shortest pause between these.
const HEARD_AT_ONCE: f64 = 8_000.0;
const SHORTEST_IDLE_LOOK: Duration = Duration::from_millis(50);

/// Between two looks at a canary, and while it does badly. A look costs the safety thread about as much as a
/// hundred requests: mostly what it has to fetch into its caches again.
const LOOK: Duration = Duration::from_millis(10);
const SUSPECT_LOOK: Duration = Duration::from_millis(2);
/// How long the comparisons wait for what was heard, if none of it speaks against a canary: their blocks are
/// the same whenever they are judged, and no other evidence grows. Half of what a look costs is saved.
const JUDGED_AT_LAST: Duration = Duration::from_millis(50);

/// A canary whose part of the weights grew by that much warms up again.
const GROWN: f64 = 1.1;

/// How long an amount of a player counts no more once it did.
const PAID_AGAIN: Duration = Duration::from_secs(10);

/// The comparisons of one service.
#[derive(Debug)]
pub(super) struct ServiceEvaluator {
    pub(super) compared: Arc<ComparisonPlan>,
    baseline: u16,
    epoch: u64,
    pub(super) spread: ClusterEstimate,
    pub(super) outage: SharedOutage,
    traffic: Traffic,
    /// The baseline's latency by stratum.
    speeds: Vec<BaselineLatencies>,
    /// By stratum.
    pub(super) accounts: Vec<Account>,
    /// When amounts of all players counted anew.
    paid: Duration,
    pub(super) questions: Questions,
    /// Players of the version that was ejected last.
    pub(super) followed: Option<Followed>,
    memory: BaselineHistory,
    /// By number of the version.
    pub(super) cases: HashMap<u16, CanaryComparison>,
    /// Versions that serve without a baseline beside them.
    pub(super) solos: Vec<StandaloneVersion>,
    /// Whether anything was heard that may speak against a canary since the comparisons were judged.
    has_news: bool,
    /// When they were judged last.
    judged: Duration,
    /// When it was learnt last what is usual.
    learnt: Duration,
}

impl ServiceEvaluator {
    pub(super) fn new(service: &Service, compared: &Arc<ComparisonPlan>, now: Duration) -> Self {
        Self::asking(service, compared, ClusterEstimate::new(now), now)
    }

    fn asking(
        service: &Service,
        compared: &Arc<ComparisonPlan>,
        spread: ClusterEstimate,
        now: Duration,
    ) -> Self {
        let baseline = service.baseline;
        let strata = compared.strata.iter();
        let new = |stratum| Account::new(stratum, baseline, &compared.outcomes, now);
        let accounts: Vec<Account> = strata.clone().map(new).collect();
        let both = strata.clone().zip(&accounts);
        Self {
            compared: Arc::clone(compared),
            baseline,
            epoch: service.epoch,
            spread,
            outage: SharedOutage::new(&accounts, baseline, now),
            traffic: Traffic::new(accounts.iter().map(|a| requests(&a.all)), now),
            speeds: both
                .map(|(s, account)| BaselineLatencies::new(s, account, baseline, now))
                .collect(),
            accounts,
            paid: now,
            questions: Questions::new(now),
            followed: None,
            memory: BaselineHistory::default(),
            cases: HashMap::new(),
            solos: Vec::new(),
            has_news: false,
            judged: now,
            learnt: now,
        }
    }

    /// Takes over what a new snapshot asks.
    pub(super) fn follow(
        &mut self,
        service: &Service,
        compared: &Arc<ComparisonPlan>,
        now: Duration,
        found: &mut Vec<Found>,
    ) {
        let asks_anew = !Arc::ptr_eq(&self.compared, compared);
        if asks_anew && self.baseline == service.baseline && asks_the_same(&self.compared, compared)
        {
            self.demand(compared, now);
        }
        if (asks_anew && self.compared != *compared) || self.baseline != service.baseline {
            // Other questions, or other arms: what was found so far answers none of them.
            let spread = std::mem::replace(&mut self.spread, ClusterEstimate::new(now));
            let mut before = std::mem::replace(self, Self::asking(service, compared, spread, now));
            self.memory = std::mem::take(&mut before.memory);
            self.followed = before.followed.take();
            found.extend(before.end(service));
        }
        if self.epoch != service.epoch {
            self.epoch = service.epoch;
            self.take_in(service, now);
            // What began since the last look began partly under the split before.
            let look = self.compared.outcomes.look().wrapping_add(1);
            let strata = self.compared.strata.iter().zip(&mut self.accounts);
            for (number, (stratum, account)) in strata.enumerate() {
                account.weight_step(look);
                for (version, case) in &mut self.cases {
                    let warms = service.weight_share(*version) > case.share * GROWN;
                    case.lines[number].weight_step(stratum, account, warms, now);
                }
                let speeds = self.speeds[number].by_span();
                speeds.for_each(|(_, speed)| speed.skip(stratum, account, now));
            }
        }
        for (version, case) in &mut self.cases {
            case.share = service.weight_share(*version);
        }
        // A version that nobody gets until one of its endpoints serves is still in its rollout.
        let has_share = |version: u16| {
            let version = service.versions.get(usize::from(version));
            version.is_some_and(|version| version.weight > Weight::ZERO && !version.ejected)
        };
        let stays = |version: u16| has_share(version) && has_share(self.baseline);
        let gone = self.cases.extract_if(|version, _| !stays(*version));
        found.extend(gone.filter_map(|(_, case)| case.end(service)));
        let with_share = (0..service.versions.len() as u16).filter(|v| has_share(*v));
        let (baseline, canaries): (Vec<_>, Vec<_>) = with_share.partition(|v| *v == self.baseline);
        let alone = match (baseline.is_empty(), canaries.is_empty()) {
            (true, _) => &canaries,
            (false, true) => &baseline,
            (false, false) => &Vec::new(),
        };
        let gone = self.solos.extract_if(.., |solo| !alone.contains(&solo.number));
        found.extend(gone.filter_map(|solo| solo.end(service)));
        for version in alone {
            if !self.solos.iter().any(|solo| solo.number == *version) {
                self.solos.push(StandaloneVersion::new(
                    service,
                    compared,
                    &self.accounts,
                    *version,
                    &self.memory,
                    now,
                ));
            }
        }
        if baseline.is_empty() {
            return;
        }
        for version in canaries {
            if self.cases.is_empty() {
                // Everybody counts in a new comparison, and is asked. Beside another one that would be several
                // times in that one.
                self.questions.begin(service, now);
                self.accounts.iter_mut().for_each(|account| account.begin_cycles(now));
            }
            self.cases.entry(version).or_insert_with(|| {
                let arms = Arms::new(version, self.baseline);
                let lines = lines(compared, &self.accounts, arms, self.spread.phi(), now);
                let name = &service.versions[usize::from(version)].name;
                let share = service.weight_share(version);
                CanaryComparison::new(name, share, compared.mode, lines)
            });
        }
    }

    /// What is to be told when all comparisons of `service` end.
    pub(super) fn end(self, service: &Service) -> Vec<Found> {
        let cases = self.cases.into_values().filter_map(|case| case.end(service));
        cases.chain(self.solos.into_iter().filter_map(|solo| solo.end(service))).collect()
    }

    /// Goes on with the evidence so far, of which another certainty is demanded, or something else is
    /// done with it.
    fn demand(&mut self, compared: &Arc<ComparisonPlan>, now: Duration) {
        for (version, case) in &mut self.cases {
            for (line, stratum) in case.lines.iter_mut().zip(&compared.strata) {
                if line.comparison().limits() != &stratum.limits {
                    line.demand(&stratum.limits);
                }
            }
            if case.told && compared.mode == Mode::Act {
                // It may have been told hours ago. What is done now needs what happens now.
                self.accounts.iter_mut().for_each(|account| account.begin_cycles(now));
                let arms = Arms::new(*version, self.baseline);
                let lines = lines(compared, &self.accounts, arms, self.spread.phi(), now);
                *case = CanaryComparison::new(&case.version, case.share, compared.mode, lines);
            }
            case.mode = compared.mode;
        }
        self.compared = Arc::clone(compared);
    }

    /// Goes on with what begins from `now` on, where the split is the same.
    pub(super) fn skip_to(&mut self, now: Duration) {
        let lines = self.cases.values_mut().flat_map(|case| &mut case.lines);
        lines.for_each(|line| line.skip_to(now));
    }

    /// Has what began before the look number `look`, which begins `now`, count for nobody.
    pub(super) fn forget_before(&mut self, look: u32, now: Duration) {
        self.accounts.iter_mut().for_each(|account| account.forget_before(look));
        self.skip_to(now);
    }

    /// Notes that a request to version number `version` ended as `what`.
    pub(super) fn hear(&mut self, version: u16, what: What) {
        self.has_news |= match what {
            What::Served | What::Refused | What::Whole | What::Void => false,
            What::AskedServed | What::AskedFailed => true,
            What::Failed | What::TimedOut | What::Broke | What::Left | What::LeftLater => {
                version != self.baseline || !self.solos.is_empty()
            }
        };
    }

    /// Whether the comparisons are to be judged `now`.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.has_news
            || self.followed.is_some()
            || now.saturating_sub(self.judged) >= JUDGED_AT_LAST
            || self.lines().any(StratumComparison::is_suspect)
    }

    fn lines(&self) -> impl Iterator<Item = &StratumComparison> {
        self.cases.values().filter(|case| !case.told).flat_map(|case| &case.lines)
    }

    /// What players are asked by: counts of requests, and what is tolerated. Nothing where several are compared,
    /// or errors are not.
    fn doubted(&self) -> Option<(Arms<Counter>, Tolerance)> {
        let mut cases = self.cases.iter().filter(|(_, case)| !case.told);
        let (version, case) = cases.next().filter(|_| self.cases.len() == 1)?;
        let tolerated = case.lines.first()?.comparison().limits().errors?;
        let of = |version: u16| self.accounts[0].all.arms[usize::from(version)].requests;
        Some((Arms::new(of(*version), of(self.baseline)), tolerated))
    }

    /// Has the comparisons of canaries take in what began and ended.
    fn take_in(&mut self, service: &Service, now: Duration) {
        for (version, case) in &mut self.cases {
            let version = service.versions.get(usize::from(*version));
            let endpoints = version.map_or(&[][..], |version| &version.endpoints);
            let strata = self.compared.strata.iter().zip(&self.speeds).zip(&self.accounts);
            for (line, ((stratum, speeds), account)) in case.lines.iter_mut().zip(strata) {
                line.poll(stratum, account, speeds.patience(), endpoints, now);
            }
        }
        for case in self.cases.values() {
            let lines = case.lines.iter().zip(&mut self.accounts);
            lines.for_each(|(line, account)| account.read_until(line.read_until()));
        }
    }

    pub(super) fn next_look(&self) -> Duration {
        // What fails meanwhile is what waiting costs.
        match self.cases.values().any(|case| !case.told) {
            true if self.lines().any(StratumComparison::is_suspect) => SUSPECT_LOOK,
            true => LOOK,
            false if self.followed.is_some() => SHORTEST_IDLE_LOOK,
            // Soon enough that the workers' rings do not run over.
            false => Duration::from_secs_f64(HEARD_AT_ONCE / self.traffic.per_s().max(1.0))
                .clamp(SHORTEST_IDLE_LOOK, IDLE_LOOK),
        }
    }

    pub(super) fn poll(&mut self, service: &Service, now: Duration, found: &mut Vec<Found>) {
        (self.has_news, self.judged) = (false, now);
        let baseline = &service.versions[usize::from(self.baseline)];
        let groups = &self.accounts[0].all.arms[usize::from(self.baseline)].groups;
        if self.spread.poll(&baseline.endpoints, groups, now) {
            let phi = self.spread.phi();
            let lines = self.cases.values_mut().flat_map(|case| &mut case.lines);
            lines.for_each(|line| line.set_dispersion(phi));
        }
        if let Some(change) = self.outage.poll(&self.accounts, self.baseline, now) {
            found.push(Found::SharedOutage { service: service.name.clone(), change });
        }
        let strata = &self.compared.strata;
        self.traffic.look(self.accounts.iter().map(|a| requests(&a.all)), now);
        let each = self.speeds.iter_mut().zip(strata).zip(&mut self.accounts);
        for (number, ((speeds, stratum), account)) in each.enumerate() {
            for (span, speed) in speeds.by_span() {
                let Some(block) = speed.poll(&account.all, now) else { continue };
                for case in self.cases.values_mut() {
                    case.lines[number].compare_latency(&account.all, span, &block, now);
                }
                speed.absorb(&block, stratum, account);
            }
        }
        let doubted = self.doubted();
        self.questions.doubt(service, doubted, now);
        // Of two canaries nobody knows which one a player left.
        if let (Some(players), 1) = (self.questions.poll(service, now), self.cases.len()) {
            for (version, case) in &mut self.cases {
                let share = service.share(*version);
                case.lines.iter_mut().take(1).for_each(|line| line.asked(players, share, now));
            }
        }
        self.take_in(service, now);
        for case in self.cases.values_mut() {
            found.extend(case.judge(service, &self.compared, now));
            found.extend(case.advise(service, &self.compared));
        }
        if let Some(followed) = &self.followed {
            let version = followed.version.clone();
            match followed.poll(self.questions.asking.known, now) {
                followed::Outcome::Open => {}
                followed::Outcome::Helped => self.followed = None,
                followed::Outcome::HelpedNobody([failed, of]) => {
                    self.followed = None;
                    let service = service.name.clone();
                    found.push(Found::Mistake { service, version, failed, of });
                }
            }
        }
        // An amount counts once in so long, whoever plays how often.
        if now.saturating_sub(self.paid) >= PAID_AGAIN {
            self.paid = now;
            self.compared.strata.iter().for_each(|stratum| stratum.state.paid.clear());
        }
        for solo in &mut self.solos {
            found.extend(solo.poll(service, &self.compared, &self.accounts, now));
        }
        if now.saturating_sub(self.learnt) >= IDLE_LOOK {
            self.learnt = now;
            let references = self.speeds.iter().map(|speeds| Some(speeds.head.reference()));
            self.memory.learn(
                service,
                &self.compared,
                &self.accounts,
                references,
                self.spread.phi(),
                now,
            );
        }
    }
}

/// Comparisons of both versions, by stratum, from `now` on.
fn lines(
    compared: &ComparisonPlan,
    accounts: &[Account],
    arms: Arms<u16>,
    phi: f64,
    now: Duration,
) -> Vec<StratumComparison> {
    let strata = compared.strata.iter().zip(accounts);
    strata
        .map(|(stratum, account)| StratumComparison::new(stratum, account, arms, phi, now))
        .collect()
}

/// Whether `after` asks the same of the same versions as `before`, and only the certainty that is demanded,
/// or what is done about it, is another.
fn asks_the_same(before: &ComparisonPlan, after: &ComparisonPlan) -> bool {
    let mut both = before.strata.iter().zip(&after.strata);
    before.strata.len() == after.strata.len()
        && both.all(|(a, b)| a.asks_as(b) && a.limits.same_but_demands(&b.limits))
}
