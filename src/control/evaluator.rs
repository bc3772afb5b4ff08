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
mod case;
mod followed;
mod shared;
mod speed;
mod spread;
mod traffic;
mod watch;

use std::{sync::Arc, time::Duration};

use indexmap::IndexMap;

use self::{followed::Followed, watch::ServiceEvaluator};
use crate::{
    analysis::{Advised, Ending, Finding, Ledger, OutageChange, Record, Verdict},
    config::schema::Mode,
    registry::{ENDPOINTS, EndpointState},
    snapshot::{Service, Snapshot},
};

/// Between two looks while nothing is compared that needs to be acted on soon: the baseline's latency
/// and its clusters of failures are learnt meanwhile.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// A look that comes so much later than it was due means that the process did not run: it was stopped, or
/// the machine was. Deadlines pass then although the answers are there. A busy machine is late by less.
const STOPPED: Duration = Duration::from_millis(250);

/// Least time between two such looks, else the later one excuses nothing: on a machine that is always late a
/// version that hangs is to be found, too.
const STEADY: Duration = Duration::from_secs(3);

/// All comparisons of the process.
#[derive(Debug, Default)]
pub struct Evaluator {
    services: IndexMap<Box<str>, ServiceEvaluator>,
    /// The generation that `services` and `places` are of.
    generation: Option<u64>,
    places: Places,
    /// Endings that were lost so far.
    lost: u64,
    /// When the next look is due.
    due: Option<Duration>,
    /// When the process went on after a stop, the last time.
    went_on: Option<Duration>,
    /// The next look panics.
    #[cfg(test)]
    pub(super) has_bug: bool,
}

/// Where attempts count.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// In the snapshot.
    service: usize,
    /// Of the service.
    watch: usize,
    stratum: usize,
    /// Number of the named route, if they are of one.
    named: Option<usize>,
    version: u16,
}

/// Places, in the order of the numbers of their evidence, and endpoints, in that of theirs.
#[derive(Debug, Default)]
struct Places {
    places: Vec<(u32, Place)>,
    endpoints: Vec<(u32, Arc<EndpointState>)>,
}

impl Places {
    /// Of all that `snapshot` compares, which `services` watch.
    fn new(snapshot: &Snapshot, services: &IndexMap<Box<str>, ServiceEvaluator>) -> Self {
        let mut places = Vec::new();
        for (service, of) in snapshot.services.iter().enumerate() {
            let Some(watch) = services.get_index_of(&of.name) else { continue };
            let strata = of.compared.iter().flat_map(|compared| compared.strata.iter().enumerate());
            for (stratum, of) in strata {
                let place = |named, version| Place { service, watch, stratum, named, version };
                let all = (0..).zip(&of.arms);
                places.extend(all.map(|(version, arm)| (arm.attempts.id, place(None, version))));
                for (number, named) in of.named.iter().enumerate() {
                    let arms = (0..).zip(&named.arms);
                    places
                        .extend(arms.map(|(version, arm)| (arm.id, place(Some(number), version))));
                }
            }
        }
        places.sort_unstable_by_key(|(evidence, _)| *evidence);
        let compared = snapshot.services.iter().filter(|service| service.compared.is_some());
        let known = compared.flat_map(|service| &service.versions).flat_map(|of| &of.known);
        let mut endpoints: Vec<_> =
            known.map(|known| (known.state.id % ENDPOINTS, Arc::clone(&known.state))).collect();
        endpoints.sort_unstable_by_key(|(number, _)| *number);
        Self { places, endpoints }
    }

    fn of(&self, evidence: u32) -> Option<&Place> {
        let at = self.places.binary_search_by_key(&evidence, |(evidence, _)| *evidence).ok()?;
        Some(&self.places[at].1)
    }

    fn endpoint(&self, number: u32) -> Option<&EndpointState> {
        let at = self.endpoints.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(&self.endpoints[at].1)
    }
}

/// What a look found out about a service.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// A version is worse than the baseline.
    Worse(Box<CanaryFinding>),
    /// Evidence against a version is above half of its threshold.
    NearMiss(Box<CanaryFinding>),
    /// It is far from it again.
    NearMissOver(Box<CanaryFinding>),
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
pub struct CanaryFinding {
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

impl Evaluator {
    /// Looks at everything that `snapshot` has compared, at the time `now` since any fixed moment, and
    /// answers what is new. A version that was told is not told again while it keeps its share.
    pub fn poll(&mut self, snapshot: &Snapshot, now: Duration) -> Vec<Found> {
        let mut found = Vec::new();
        if self.generation.replace(snapshot.generation) != Some(snapshot.generation) {
            self.follow(snapshot, now, &mut found);
        }
        self.hear(snapshot, now);
        #[cfg(test)]
        assert!(!self.has_bug, "a bug");
        for service in &snapshot.services {
            let watch = self.services.get_mut(&service.name);
            if let Some(watch) = watch.filter(|watch| watch.is_due(now)) {
                watch.poll(service, now, &mut found);
            }
        }
        found
    }

    /// Takes over what a new snapshot compares.
    fn follow(&mut self, snapshot: &Snapshot, now: Duration, found: &mut Vec<Found>) {
        self.services
            .retain(|name, _| snapshot.service(name).is_some_and(|s| s.compared.is_some()));
        for service in &snapshot.services {
            let Some(compared) = &service.compared else { continue };
            let new = || ServiceEvaluator::new(service, compared, now);
            let watch = self.services.entry(service.name.clone()).or_insert_with(new);
            watch.follow(service, compared, now, found);
        }
        self.places = Places::new(snapshot, &self.services);
    }

    /// Ends all comparisons of services of `snapshot`; returns what is to be told of it.
    pub fn end(self, snapshot: &Snapshot) -> Vec<Found> {
        let each = self.services.into_iter();
        let each = each.filter_map(|(name, watch)| Some(watch.end(snapshot.service(&name)?)));
        each.flatten().collect()
    }

    /// Begins the next look, and hears what the workers said since the last one.
    fn hear(&mut self, snapshot: &Snapshot, now: Duration) {
        let compared = snapshot.services.iter().filter_map(|service| service.compared.as_ref());
        let Some(outcomes) = compared.map(|compared| &compared.outcomes).next() else { return };
        let look = outcomes.next_look();
        for watch in self.services.values_mut() {
            let strata = watch.compared.strata.iter().zip(&mut watch.accounts);
            strata.for_each(|(stratum, account)| account.look(stratum, look, now));
        }
        // After the counts: one that is counted never has the number of a look to come.
        outcomes.begin_look(look);
        if self.was_stopped(now) {
            tracing::debug!(
                "a look came far too late, as after a stop of the process; \
                what began before it is not judged"
            );
            self.services.values_mut().for_each(|watch| watch.forget_before(look, now));
        }
        let lost = outcomes.lost();
        if std::mem::replace(&mut self.lost, lost) != lost {
            // What is not heard of any more would wait for ever, and so speak against the baseline.
            self.services.values_mut().for_each(|watch| watch.skip_to(now));
        }
        outcomes.hear(|endings| {
            self.fetch(endings);
            endings.iter().for_each(|ending| self.take_in(snapshot, ending, look, now));
        });
    }

    /// Whether the process did not run for a part of the time before the look that begins `now`.
    fn was_stopped(&mut self, now: Duration) -> bool {
        let Some(due) = self.due.take() else { return false };
        let is_steady = self.went_on.is_none_or(|went_on| now.saturating_sub(went_on) >= STEADY);
        let was_stopped = is_steady && now.saturating_sub(due) >= STOPPED;
        if was_stopped {
            self.went_on = Some(now);
        }
        was_stopped
    }

    /// Reads what is known of the players of `endings`. They are drawn at random, so each is a line of memory
    /// that is in no near cache: all at once they cost little more than one, and one after the other most of
    /// what an ending costs.
    fn fetch(&self, endings: &[Ending]) {
        let marks = endings.iter().map(|ending| {
            let place = self.places.of(ending.arm)?;
            let (_, watch) = self.services.get_index(place.watch)?;
            Some(watch.accounts.get(place.stratum)?.all.marks_of(ending.player))
        });
        std::hint::black_box(marks.flatten().fold(0, |all, marks| all ^ marks));
    }

    /// Takes in an ending at the look number `look`.
    fn take_in(&mut self, snapshot: &Snapshot, ending: &Ending, look: u32, now: Duration) {
        // One that the snapshot does not know is of a version that is gone.
        let Some(place) = self.places.of(ending.arm) else { return };
        let Some(service) = snapshot.services.get(place.service) else { return };
        let Some((_, watch)) = self.services.get_index_mut(place.watch) else { return };
        let Some(account) = watch.accounts.get_mut(place.stratum) else { return };
        let counted = account.tell(place.version, place.named, ending, now);
        if let Some(endpoint) = self.places.endpoint(ending.endpoint) {
            endpoint.judged.add(counted);
        }
        // One that was asked elsewhere has no look of its own.
        let began = if ending.look == 0 { look.wrapping_sub(1) } else { ending.look };
        if account.all.forgets(began) {
            return;
        }
        let serves = || account.all.baseline_serves(began, ending.player);
        let networks = watch.compared.strata[place.stratum].networks;
        watch.questions.tell(service, place.version, ending, look, networks, serves);
        watch.hear(place.version, ending.what);
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
        let look = watch.compared.outcomes.look();
        let failed = &watch.accounts[route].all.arms[number].failed;
        let players = watch.questions.follow(failed, number as u16, look);
        watch.followed = Some(Followed::new(version, players, now));
    }

    /// When to look next; nothing if no service is compared.
    pub fn next_look(&self) -> Option<Duration> {
        self.services.values().map(ServiceEvaluator::next_look).min()
    }

    /// Notes that the next look is due so long after `now`, the time of the last one: one that is far later
    /// says that the process did not run meanwhile.
    pub fn expect_after(&mut self, pause: Option<Duration>, now: Duration) {
        self.due = pause.map(|pause| now + pause);
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

/// Requests so far of all versions.
fn requests(ledger: &Ledger) -> u64 {
    ledger.arms.iter().map(|arm| arm.requests.trials).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod outages;
#[cfg(test)]
mod players;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tests;
