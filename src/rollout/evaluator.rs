//! Compares every canary with its baseline on what the workers count.
//!
//! It is told the snapshot in force and the time, reads the workers' cells and answers what it found; it
//! changes nothing. A comparison begins when a version beside the baseline gets a share of players and
//! ends when it has none: a version that comes back is a new rollout with an alpha of its own.

mod account;
mod alone;
mod amounts;
mod arms;
mod asked;
mod begun;
mod followed;
mod shared;
mod speed;
mod spread;
mod traffic;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use self::{
    account::Account,
    alone::{Memory, Solo},
    arms::Line,
    asked::Questions,
    followed::Followed,
    shared::SharedOutage,
    speed::Speed,
    spread::Spread,
    traffic::Traffic,
};
use crate::{
    analysis::{Advised, Answer, Finding, OutageChange, Record, Span, Verdict, poll_interval},
    config::{schema::Mode, units::Weight},
    registry::EvidenceCells,
    snapshot::{Compared, Service, Snapshot, Stratum},
};

/// Between two looks while nothing is compared that needs to be acted on soon: the baseline's latency
/// and its clusters of failures are learnt meanwhile.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// All comparisons of the process.
#[derive(Debug, Default)]
pub struct Evaluator {
    services: HashMap<Box<str>, Watch>,
    /// The generation that `places` are of.
    generation: Option<u64>,
    /// Where attempts count, by the number of their evidence.
    places: HashMap<u32, Place>,
}

/// Where attempts count.
#[derive(Debug, Clone, Copy)]
struct Place {
    service: usize,
    stratum: usize,
    /// Number of the named route, if they are of one.
    named: Option<usize>,
    version: u16,
}

/// The places of all that `snapshot` compares, by number of the evidence.
fn places(snapshot: &Snapshot) -> HashMap<u32, Place> {
    let mut places = HashMap::new();
    for (service, of) in snapshot.services.iter().enumerate() {
        let strata = of.compared.iter().flat_map(|compared| compared.strata.iter().enumerate());
        for (stratum, of) in strata {
            for (version, arm) in (0..).zip(&of.arms) {
                let place = Place { service, stratum, named: None, version };
                places.insert(arm.attempts.id, place);
            }
            for (number, named) in of.named.iter().enumerate() {
                for (version, arm) in (0..).zip(&named.arms) {
                    let place = Place { service, stratum, named: Some(number), version };
                    places.insert(arm.id, place);
                }
            }
        }
    }
    places
}

/// Requests between two looks while nothing is compared, and the shortest pause between these.
const HEARD_AT_ONCE: f64 = 8_000.0;
const SHORTEST_IDLE_LOOK: Duration = Duration::from_millis(50);

/// How long an amount of a player counts no more once it did.
const PAID_AGAIN: Duration = Duration::from_secs(10);

/// Part of the threshold from which on evidence is a near-miss, and under which it no longer is.
const NEAR: f64 = 0.5;
const NO_LONGER_NEAR: f64 = 0.25;

/// What a look found out about a service.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// A version is worse than the baseline.
    Worse(Box<Suspect>),
    /// Evidence against a version is above half of its threshold.
    NearMiss(Box<Suspect>),
    /// It is far from it again.
    NearMissOver(Box<Suspect>),
    /// The players who failed on an ejected version go on failing elsewhere.
    Mistake {
        /// The service.
        service: Box<str>,
        /// The version.
        version: Box<str>,
        /// Players who failed again.
        failed: u64,
        /// Of so many of whom it is known.
        of: u64,
    },
    /// Something that decides nothing, and that people should know of a version.
    Advice(Box<Advice>),
    /// A version that was near or worse has no share any more, or is asked other questions.
    NoLongerCompared {
        /// The service.
        service: Box<str>,
        /// Its version.
        version: Box<str>,
    },
    /// Baseline and canaries both fail, or do no longer.
    SharedOutage {
        /// The service.
        service: Box<str>,
        /// Which of the two, with counts of all canaries together and the baseline.
        change: OutageChange,
    },
}

/// A version that does not look good.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspect {
    /// The service.
    pub service: Box<str>,
    /// The version.
    pub version: Box<str>,
    /// The route with limits of its own that it shows on; nothing for all others together.
    pub route: Option<Box<str>>,
    /// What is to be done about a bad verdict.
    pub mode: Mode,
    /// The numbers.
    pub verdict: Verdict,
}

/// What people are told of a version beside its verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    /// The service.
    pub service: Box<str>,
    /// The version.
    pub version: Box<str>,
    /// The route with limits of its own that it shows on; nothing for all others together.
    pub route: Option<Box<str>>,
    /// What it is.
    pub advised: Advised,
    /// Its numbers.
    pub finding: Finding,
    /// Players of the version that failed.
    pub players: u64,
}

/// The comparisons of one service.
#[derive(Debug)]
struct Watch {
    compared: Arc<Compared>,
    baseline: u16,
    epoch: u64,
    spread: Spread,
    outage: SharedOutage,
    traffic: Traffic,
    /// The baseline's latency by stratum.
    speeds: Vec<Speeds>,
    /// By stratum.
    accounts: Vec<Account>,
    /// When amounts of all players counted anew.
    paid: Duration,
    questions: Questions,
    /// Players of the version that was ejected last.
    followed: Option<Followed>,
    memory: Memory,
    /// By number of the version.
    cases: HashMap<u16, Case>,
    /// Versions that serve without a baseline beside them.
    solos: Vec<Solo>,
    /// When it was looked last.
    looked: Duration,
}

/// The baseline's latency over the requests of a stratum.
#[derive(Debug)]
struct Speeds {
    head: Speed,
    /// Nothing where no latency is compared.
    whole: Option<Speed>,
}

impl Speeds {
    fn new(stratum: &Stratum, account: &Account, baseline: u16, now: Duration) -> Self {
        let whole = stratum.limits.compares_latency();
        let new = |span| Speed::new(stratum, &account.all, span, baseline, now);
        Self { head: new(Span::Head), whole: whole.then(|| new(Span::Whole)) }
    }

    fn by_span(&mut self) -> impl Iterator<Item = (Span, &mut Speed)> {
        let whole = self.whole.as_mut().map(|speed| (Span::Whole, speed));
        [(Span::Head, &mut self.head)].into_iter().chain(whole)
    }

    /// How long a baseline request usually takes at most.
    fn patience(&self) -> Duration {
        let known = self.head.p99().map(|p99| p99 * 2);
        known.map_or(UNKNOWN_PATIENCE, |patience| patience.max(LEAST_PATIENCE))
    }
}

/// How long a baseline request is waited for before it counts as failed until it ends: twice the p99, this
/// at least, and this while too little is known.
const LEAST_PATIENCE: Duration = Duration::from_millis(20);
const UNKNOWN_PATIENCE: Duration = Duration::from_millis(100);

/// One canary.
#[derive(Debug)]
struct Case {
    version: Box<str>,
    mode: Mode,
    /// By stratum.
    lines: Vec<Line>,
    /// It was said that it is near its threshold.
    near: bool,
    /// It was said that it is worse.
    told: bool,
    /// What was advised of it, by number of the stratum.
    advised: HashSet<(usize, Advised)>,
}

impl Evaluator {
    /// Looks at everything that `snapshot` has compared, at the time `now` since any fixed moment, and
    /// answers what is new. A version that was told is not told again while it keeps its share.
    pub fn poll(&mut self, snapshot: &Snapshot, now: Duration) -> Vec<Found> {
        self.services
            .retain(|name, _| snapshot.service(name).is_some_and(|s| s.compared.is_some()));
        let mut found = Vec::new();
        for service in &snapshot.services {
            let Some(compared) = &service.compared else { continue };
            let watch = self.services.entry(service.name.clone());
            let watch = watch.or_insert_with(|| Watch::new(service, compared, now));
            watch.follow(service, compared, now, &mut found);
        }
        self.hear(snapshot, now);
        for service in &snapshot.services {
            if let Some(watch) = self.services.get_mut(&service.name) {
                watch.poll(service, now, &mut found);
            }
        }
        found
    }

    /// Begins the next look, and hears what the workers said since the last one.
    fn hear(&mut self, snapshot: &Snapshot, now: Duration) {
        let compared = snapshot.services.iter().filter_map(|service| service.compared.as_ref());
        let Some(outcomes) = compared.map(|compared| &compared.outcomes).next() else { return };
        if self.generation != Some(snapshot.generation) {
            self.generation = Some(snapshot.generation);
            self.places = places(snapshot);
        }
        let look = outcomes.next_look();
        for watch in self.services.values_mut() {
            let strata = watch.compared.strata.iter().zip(&mut watch.accounts);
            strata.for_each(|(stratum, account)| account.look(stratum, look, now));
        }
        outcomes.hear(|ending| {
            // One that the snapshot does not know is of a version that is gone.
            let Some(place) = self.places.get(&ending.arm) else { return };
            let Some(service) = snapshot.services.get(place.service) else { return };
            let Some(watch) = self.services.get_mut(&service.name) else { return };
            let Some(account) = watch.accounts.get_mut(place.stratum) else { return };
            account.tell(place.version, place.named, &ending, now);
            // One that was asked elsewhere has no look of its own.
            let began = if ending.look == 0 { look - 1 } else { ending.look };
            let serves = || account.all.baseline_serves(began);
            watch.questions.tell(service, place.version, &ending, serves);
        });
    }

    /// Follows the players who failed on `version` of `service`, which was ejected `now`, on the requests
    /// of `route`.
    pub fn follow_players(
        &mut self,
        service: &Service,
        version: &str,
        route: Option<&str>,
        now: Duration,
    ) {
        let Some(watch) = self.services.get_mut(&service.name) else { return };
        let number = service.versions.iter().position(|known| *known.name == *version);
        let mut strata = watch.compared.strata.iter();
        let route = strata.position(|stratum| stratum.route.as_deref() == route);
        let Some((number, route)) = number.zip(route) else { return };
        let players = watch.questions.follow(&watch.accounts[route].all.arms[number].failed);
        watch.followed = Some(Followed::new(version, players, now));
    }

    /// When to look next; nothing if no service is compared.
    pub fn next_look(&self) -> Option<Duration> {
        self.services.values().map(Watch::next_look).min()
    }

    /// Whether baseline and canaries of `service` fail alike; nothing if they are not compared.
    pub fn has_shared_outage(&self, service: &str) -> Option<bool> {
        self.services.get(service).map(|watch| watch.outage.is_on())
    }

    /// What the comparison of `version` of `service` was told on the requests of `route`; nothing if none
    /// runs.
    pub fn record(&self, service: &str, version: &str, route: Option<&str>) -> Option<Record> {
        let watch = self.services.get(service)?;
        if let Some(solo) = watch.solos.iter().find(|solo| *solo.version == *version) {
            return solo.record(&watch.compared, route);
        }
        let case = watch.cases.values().find(|case| *case.version == *version)?;
        let mut lines = case.lines.iter().zip(&watch.compared.strata);
        let (line, _) = lines.find(|(_, stratum)| stratum.route.as_deref() == route)?;
        Some(line.record())
    }

    /// The verdicts as they stand, of the service called `name`: version, route with limits of its own,
    /// verdict.
    pub fn verdicts<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        name: &str,
        now: Duration,
    ) -> impl Iterator<Item = (&'a str, Option<&'a str>, Verdict)> {
        let watch = self.services.get(name).zip(snapshot.service(name));
        let compared = watch.into_iter().flat_map(move |(watch, service)| {
            watch.cases.iter().flat_map(move |(version, case)| {
                let version = service.versions.get(usize::from(*version));
                version.into_iter().flat_map(move |version| {
                    let strata = case.lines.iter().zip(&watch.compared.strata);
                    strata.map(move |(line, stratum)| {
                        (&*version.name, stratum.route.as_deref(), line.comparison().verdict(now))
                    })
                })
            })
        });
        let alone = watch.into_iter().flat_map(move |(watch, _)| {
            watch.solos.iter().flat_map(move |solo| {
                let strata = solo.verdicts(now).zip(&watch.compared.strata);
                strata.filter_map(move |(verdict, stratum)| {
                    Some((&*solo.version, stratum.route.as_deref(), verdict?))
                })
            })
        });
        compared.chain(alone)
    }
}

impl Watch {
    fn new(service: &Service, compared: &Arc<Compared>, now: Duration) -> Self {
        Self::asking(service, compared, Spread::new(now), now)
    }

    fn asking(service: &Service, compared: &Arc<Compared>, spread: Spread, now: Duration) -> Self {
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
            outage: SharedOutage::new(compared, baseline, now),
            traffic: Traffic::new(strata.clone().map(requests), now),
            speeds: both.map(|(s, account)| Speeds::new(s, account, baseline, now)).collect(),
            accounts,
            paid: now,
            questions: Questions::new(now),
            followed: None,
            memory: Memory::default(),
            cases: HashMap::new(),
            solos: Vec::new(),
            looked: now,
        }
    }

    /// Takes over what a new snapshot asks.
    fn follow(
        &mut self,
        service: &Service,
        compared: &Arc<Compared>,
        now: Duration,
        found: &mut Vec<Found>,
    ) {
        if self.baseline == service.baseline && asks_the_same(&self.compared, compared) {
            self.demand(compared);
        }
        if self.compared != *compared || self.baseline != service.baseline {
            // Other questions, or other arms: what was found so far answers none of them.
            let spread = std::mem::replace(&mut self.spread, Spread::new(now));
            let before = std::mem::replace(self, Self::asking(service, compared, spread, now));
            self.memory = before.memory;
            self.followed = before.followed;
            found.extend(before.cases.into_values().filter_map(|case| case.end(service)));
            found.extend(before.solos.into_iter().filter_map(|solo| solo.end(service)));
        }
        if self.epoch != service.epoch {
            self.epoch = service.epoch;
            // What began since the last look began partly under the split before.
            let look = self.compared.outcomes.look().wrapping_add(1);
            let strata = self.compared.strata.iter().zip(&mut self.accounts);
            for (number, (stratum, account)) in strata.enumerate() {
                account.weight_step(look);
                for case in self.cases.values_mut() {
                    case.lines[number].weight_step(stratum, account, now);
                }
                let speeds = self.speeds[number].by_span();
                speeds.for_each(|(_, speed)| speed.skip(stratum, account, now));
            }
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
                self.solos.push(Solo::new(
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
            if !self.cases.contains_key(&version) {
                // Everybody counts in a new comparison.
                self.accounts.iter_mut().for_each(|account| account.begin_cycles(now));
            }
            self.cases.entry(version).or_insert_with(|| Case {
                version: service.versions[usize::from(version)].name.clone(),
                mode: compared.mode,
                lines: (compared.strata.iter().zip(&self.accounts))
                    .map(|(stratum, account)| {
                        let phi = self.spread.phi();
                        Line::new(stratum, account, version, self.baseline, phi, now)
                    })
                    .collect(),
                near: false,
                told: false,
                advised: HashSet::new(),
            });
        }
    }

    /// Goes on with the evidence so far, of which another certainty is demanded, or something else is
    /// done with it.
    fn demand(&mut self, compared: &Arc<Compared>) {
        if Arc::ptr_eq(&self.compared, compared) {
            return;
        }
        for case in self.cases.values_mut() {
            case.mode = compared.mode;
            for (line, stratum) in case.lines.iter_mut().zip(&compared.strata) {
                if line.comparison().limits() != &stratum.limits {
                    line.demand(&stratum.limits);
                }
            }
            // What was only told may be done now.
            case.told &= case.mode != Mode::Act;
        }
        self.compared = Arc::clone(compared);
    }

    fn next_look(&self) -> Duration {
        match self.cases.values().any(|case| !case.told) {
            // What fails meanwhile is what waiting costs.
            true => poll_interval(self.traffic.per_s()),
            false if self.followed.is_some() => SHORTEST_IDLE_LOOK,
            // Soon enough that the workers' rings do not run over.
            false => Duration::from_secs_f64(HEARD_AT_ONCE / self.traffic.per_s().max(1.0))
                .clamp(SHORTEST_IDLE_LOOK, IDLE_LOOK),
        }
    }

    fn poll(&mut self, service: &Service, now: Duration, found: &mut Vec<Found>) {
        let baseline = &service.versions[usize::from(self.baseline)];
        let groups = &self.accounts[0].all.arms[usize::from(self.baseline)].groups;
        if self.spread.poll(&baseline.endpoints, groups, now) {
            let phi = self.spread.phi();
            let lines = self.cases.values_mut().flat_map(|case| &mut case.lines);
            lines.for_each(|line| line.set_dispersion(phi));
        }
        if let Some(change) = self.outage.poll(&self.compared, self.baseline, now) {
            found.push(Found::SharedOutage { service: service.name.clone(), change });
        }
        let strata = &self.compared.strata;
        self.traffic.look(strata.iter().map(requests), now);
        let each = self.speeds.iter_mut().zip(strata).zip(&mut self.accounts);
        for (number, ((speeds, stratum), account)) in each.enumerate() {
            for (span, speed) in speeds.by_span() {
                let Some(block) = speed.poll(stratum, &account.all, now) else { continue };
                for case in self.cases.values_mut() {
                    case.lines[number].compare_latency(&account.all, span, &block, now);
                }
                speed.absorb(&block, stratum, account);
            }
        }
        // Of two canaries nobody knows which one a player left.
        if let (Some(players), 1) = (self.questions.poll(service, now), self.cases.len()) {
            for (version, case) in &mut self.cases {
                let share = service.share(*version);
                case.lines.iter_mut().take(1).for_each(|line| line.asked(players, share, now));
            }
        }
        for (version, case) in &mut self.cases {
            let endpoints = service.versions[usize::from(*version)].endpoints.len();
            let strata = strata.iter().zip(&self.speeds).zip(&self.accounts);
            for (line, ((stratum, speeds), account)) in case.lines.iter_mut().zip(strata) {
                line.poll(stratum, account, speeds.patience(), endpoints, now);
            }
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
            strata.iter().for_each(|stratum| stratum.state.paid.clear());
        }
        for solo in &mut self.solos {
            found.extend(solo.poll(service, &self.compared, &self.accounts, now));
        }
        if now.saturating_sub(self.looked) >= IDLE_LOOK {
            self.looked = now;
            let references = self.speeds.iter().map(|speeds| Some(speeds.head.reference()));
            self.memory.learn(service, &self.compared, references, self.spread.phi(), now);
        }
    }
}

impl Case {
    /// What is new about it.
    fn judge(&mut self, service: &Service, compared: &Compared, now: Duration) -> Option<Found> {
        if self.told {
            return None;
        }
        let part = |line: &Line| line.comparison().part_of_threshold();
        let lines = self.lines.iter().zip(&compared.strata);
        // One that failed stays so though its evidence sinks.
        let failed = |line: &Line| line.comparison().answer() == Answer::Fail;
        let key = |line: &Line| (failed(line), part(line));
        let (line, stratum) = lines.max_by(|(a, _), (b, _)| {
            let ((a_failed, a), (b_failed, b)) = (key(a), key(b));
            a_failed.cmp(&b_failed).then(a.total_cmp(&b))
        })?;
        let suspect = || {
            Box::new(Suspect {
                service: service.name.clone(),
                version: self.version.clone(),
                route: stratum.route.clone(),
                mode: compared.mode,
                verdict: line.comparison().verdict(now),
            })
        };
        if failed(line) {
            let found = Found::Worse(suspect());
            self.told = true;
            return Some(found);
        }
        let (near, part) = (self.near, part(line));
        if !near && part >= NEAR {
            let found = Found::NearMiss(suspect());
            self.near = true;
            return Some(found);
        }
        if near && part < NO_LONGER_NEAR {
            let found = Found::NearMissOver(suspect());
            self.near = false;
            return Some(found);
        }
        None
    }

    /// What is new beside the verdict.
    fn advise(&mut self, service: &Service, compared: &Compared) -> Vec<Found> {
        let mut found = Vec::new();
        for (number, (line, stratum)) in self.lines.iter().zip(&compared.strata).enumerate() {
            let comparison = line.comparison();
            for advised in comparison.advised() {
                if self.told || !self.advised.insert((number, advised)) {
                    continue;
                }
                let Some(finding) = comparison.advice(advised) else { continue };
                found.push(Found::Advice(Box::new(Advice {
                    service: service.name.clone(),
                    version: self.version.clone(),
                    route: stratum.route.clone(),
                    advised,
                    finding,
                    players: comparison.failed_players(),
                })));
            }
        }
        found
    }

    /// What is to be said when it ends; of a version that was to be ejected, that says it all.
    fn end(self, service: &Service) -> Option<Found> {
        let says = if self.told { self.mode != Mode::Act } else { self.near };
        says.then(|| Found::NoLongerCompared {
            service: service.name.clone(),
            version: self.version,
        })
    }
}

/// Whether `after` asks the same of the same versions as `before`, and only the certainty that is demanded,
/// or what is done about it, is another.
fn asks_the_same(before: &Compared, after: &Compared) -> bool {
    let mut both = before.strata.iter().zip(&after.strata);
    before.strata.len() == after.strata.len()
        && both.all(|(a, b)| a.asks_as(b) && a.limits.same_but_demands(&b.limits))
}

/// Requests so far of all versions.
fn requests(stratum: &Stratum) -> u64 {
    let of = |cells: &EvidenceCells| cells.counter().trials;
    stratum.arms.iter().map(|arm| arm.attempts.cells.sum(of)).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod players;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
