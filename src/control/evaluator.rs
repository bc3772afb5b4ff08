//! Compares every canary with its baseline, by the workers' counts.
//!
//! The inputs are the snapshot in force, the time and the workers' counters; the output is a list of findings.
//! A comparison begins when a version beside the baseline gets a share of players, and ends when it has none: a
//! version that returns is a new rollout with an alpha of its own.
//!
//! | part | task |
//! | --- | --- |
//! | `collect` | reads the workers' rings and cells, and decides what counts and when a block closes |
//! | `blocks` | what was collected, as plain data |
//! | `judge` | from blocks to verdicts; knows neither cells nor clock, so blocks may come from elsewhere |
//! | `carried` | hands evidence over to another process |
//! | `exposure` | which players were seen on which version |
//! | `follow` | takes a new snapshot over to both |

mod blocks;
mod carried;
mod collect;
mod exposure;
mod follow;
mod found;
mod judge;

use std::{collections::HashMap, time::Duration};

use indexmap::IndexMap;

pub use self::{
    carried::CarriedEvidence,
    exposure::Exposure,
    found::{Advice, CanaryFinding, Found},
};
use self::{
    carried::question,
    collect::{Collector, ServiceCollector},
    follow::{follow, terms},
    judge::ServiceJudge,
};
use crate::{
    analysis::{Answer, GateAnswer, Record, Standing, Verdict},
    snapshot::{Service, Snapshot},
};

/// Polling interval while no comparison needs fast action. The baseline's latency and the clustering of its
/// failures are learnt meanwhile.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// All comparisons of the process.
#[derive(Debug, Default)]
pub struct Evaluator {
    collector: Collector,
    /// By service, in the order of the collectors.
    judges: IndexMap<Box<str>, ServiceJudge>,
    /// The generation of the comparisons.
    generation: Option<u64>,
    /// Evidence of another process that is to be continued, and what it must be about.
    carried: HashMap<Box<str>, (String, CarriedEvidence)>,
    /// The next evaluation panics.
    #[cfg(test)]
    pub(super) has_bug: bool,
}

impl Evaluator {
    /// Polls all comparisons of `snapshot` at the time `now` since any fixed moment, and returns new findings.
    /// A finding is returned once for as long as its version keeps its share.
    pub fn poll(&mut self, snapshot: &Snapshot, now: Duration) -> Vec<Found> {
        let mut found = Vec::new();
        if self.generation.replace(snapshot.generation) != Some(snapshot.generation) {
            self.follow(snapshot, now, &mut found);
        }
        self.collector.collect_outcomes(snapshot, now);
        #[cfg(test)]
        assert!(!self.has_bug, "a bug");
        for service in &snapshot.services {
            let collector = self.collector.services.get_full_mut(&service.name);
            let Some((number, _, collector)) = collector else { continue };
            let Some((_, judge)) = self.judges.get_index_mut(number) else { continue };
            if collector.is_due(now) || judge.follows_players() {
                let blocks = collector.collect(service, now);
                let news = judge.judge([blocks], now);
                // A canary fails only together with a finding.
                if !news.is_empty() {
                    let answer =
                        |version: &str| judge.answer(version, now).map(|answer| answer.answer);
                    collector.decide(|version| answer(version) == Some(Answer::Fail));
                }
                found.extend(news);
            }
        }
        found
    }

    /// Whether it has been polled.
    pub fn has_begun(&self) -> bool {
        self.generation.is_some()
    }

    /// Takes over a new snapshot's comparisons.
    fn follow(&mut self, snapshot: &Snapshot, now: Duration, found: &mut Vec<Found>) {
        let is_compared = |name: &str| snapshot.service(name).is_some_and(|s| s.compared.is_some());
        self.collector.services.retain(|name, _| is_compared(name));
        self.judges.retain(|name, _| is_compared(name));
        for service in &snapshot.services {
            let Some(plan) = &service.compared else { continue };
            let collectors = self.collector.services.entry(service.name.clone());
            let collector = collectors.or_insert_with(|| ServiceCollector::new(service, plan, now));
            let judges = self.judges.entry(service.name.clone());
            let mut kinds = Vec::new();
            let judge = judges.or_insert_with(|| match self.carried.remove(&service.name) {
                None => ServiceJudge::new(terms(service, plan)),
                Some((more, carried)) => {
                    let judge;
                    let question = question(service, plan, &more);
                    (judge, kinds) = carried.resume(&question, terms(service, plan));
                    judge
                }
            });
            follow(collector, judge, (service, plan), now, found);
            collector.resume(&kinds);
        }
        // Only the first snapshot continues with it.
        self.carried.clear();
        self.collector.place(snapshot);
    }

    /// Ends all comparisons of services of `snapshot`. Returns the findings that this causes.
    pub fn end(self, snapshot: &Snapshot) -> Vec<Found> {
        let each = self.judges.into_iter().filter(|(name, _)| snapshot.service(name).is_some());
        each.flat_map(|(_, judge)| judge.end()).collect()
    }

    /// Follows the players who failed on `version` of `service` on the requests of `route`; the version was
    /// ejected at `now`.
    pub fn follow_players(
        &mut self,
        service: &Service,
        version: &str,
        route: Option<&str>,
        now: Duration,
    ) {
        let Some(collector) = self.collector.services.get_mut(&service.name) else { return };
        let Some(judge) = self.judges.get_mut(&service.name) else { return };
        let number = service.versions.iter().position(|known| *known.name == *version);
        let mut strata = collector.plan().strata.iter();
        let stratum = strata.position(|stratum| stratum.route.as_deref() == route);
        let Some((number, stratum)) = number.zip(stratum) else { return };
        let players = collector.follow_players(number as u16, stratum);
        judge.follow_players(version, players, now);
    }

    /// Time until the next evaluation; `None` if no service is compared.
    pub fn next_look(&self) -> Option<Duration> {
        let judges = self.judges.values();
        let each = self.collector.services.values().zip(judges);
        each.map(|(collector, judge)| collector.next_look(judge.follows_players())).min()
    }

    /// Notes that the next evaluation is due `pause` after `now`, the time of the last one. If it comes far later,
    /// the process was stopped meanwhile.
    pub fn expect_after(&mut self, pause: Option<Duration>, now: Duration) {
        self.collector.expect_after(pause, now);
    }

    /// Whether the baseline and the canaries of `service` fail alike; `None` if they are not compared.
    pub fn has_shared_outage(&self, service: &str) -> Option<bool> {
        self.judges.get(service).map(ServiceJudge::has_shared_outage)
    }

    /// Begins to note which players of `service` are seen on which version, or ends it. While it goes on, nothing
    /// changes.
    pub fn watch_players(&mut self, service: &str, watch: bool) {
        if let Some(collector) = self.collector.services.get_mut(service) {
            collector.watch_players(watch);
        }
    }

    /// Notes that a step of a rollout of `service` begins with the next snapshot: from then on health is certified by
    /// later requests only, also if the step leaves the split as it is.
    pub fn begin_step(&mut self, service: &str) {
        if let Some(collector) = self.collector.services.get_mut(service) {
            collector.begin_step();
        }
    }

    /// The players of each version of `service` since its split changed last; `None` if they are not noted.
    pub fn exposure(&self, service: &str) -> Option<&Exposure> {
        self.collector.services.get(service)?.exposure()
    }

    /// The current result of the comparison of `version` of `service` at `now`; `None` if it is not compared.
    pub fn answer(&self, service: &str, version: &str, now: Duration) -> Option<GateAnswer> {
        self.judges.get(service)?.answer(version, now)
    }

    /// Whether `version` of `service` is judged, and was found to be worse.
    pub fn has_failed(&self, service: &str, version: &str) -> bool {
        self.judges.get(service).is_some_and(|judge| judge.has_failed(version))
    }

    /// How `version` of `service` stands at `now`, which serves without a baseline; `None` if there is one, or if it is
    /// not judged.
    pub fn standing(&self, service: &str, version: &str, now: Duration) -> Option<Standing> {
        self.judges.get(service)?.standing(version, now)
    }

    /// When the comparison of `version` of `service` on the requests of `route` began; `None` if there is no
    /// such comparison.
    pub fn began(&self, service: &str, version: &str, route: Option<&str>) -> Option<Duration> {
        self.judges.get(service)?.began(version, route)
    }

    /// The recorded inputs of the comparison of `version` of `service` on the requests of `route`; `None` if
    /// there is no such comparison.
    pub fn record(&self, service: &str, version: &str, route: Option<&str>) -> Option<Record> {
        self.judges.get(service)?.record(version, route)
    }

    /// Current verdicts of the service `name`: version, route with limits of its own, verdict.
    pub fn verdicts<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        name: &str,
        now: Duration,
    ) -> impl Iterator<Item = (&'a str, Option<&'a str>, Verdict)> {
        let judge = self.judges.get(name).filter(|_| snapshot.service(name).is_some());
        judge.into_iter().flat_map(move |judge| judge.verdicts(now))
    }
}

#[cfg(test)]
mod bakes;
#[cfg(test)]
mod continued;
#[cfg(test)]
mod members;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod players;
#[cfg(test)]
mod ratios;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tests;
