//! Versions that serve without a baseline beside them: straight after a cutover, or a canary at 100 %.
//!
//! Each is judged by the limits that the file has (`slo`) and by what the baseline before it did. Nobody
//! is ejected for it: there is nowhere for players to go.

use std::time::Duration;

use super::{CanaryFinding, Found, account::Account};
use crate::{
    analysis::{
        Alone, Answer, Bound, Counter, Entry, Latencies, Latest, Quantile, Record, Recorder,
        Reference, Source, Span, Tally, Usual, Verdict,
    },
    config::{schema::Mode, units::Weight},
    snapshot::{ComparisonPlan, Service, Stratum},
};

/// How long a version is judged once it serves alone, and how long a baseline is remembered: the hours
/// of a day differ by themselves.
const LENGTH: Duration = Duration::from_secs(3600);

/// Between two looks: nothing is done about what is found, so nothing waits for it.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Least multiple of a baseline's past that is tolerated, since the past is another hour.
const LEAST_RATIO: f64 = 1.5;

/// What the baseline does, and what the one before it did.
#[derive(Debug, Default)]
pub(super) struct BaselineHistory {
    present: Option<PastBaseline>,
    before: Option<PastBaseline>,
}

/// What a baseline did, until then.
#[derive(Debug, Clone)]
struct PastBaseline {
    version: Box<str>,
    /// When it last had a share.
    until: Duration,
    /// By the label of the stratum's route.
    strata: Vec<(Option<Box<str>>, PastStratum)>,
}

#[derive(Debug, Clone, Default)]
struct PastStratum {
    counter: Counter,
    usual: Usual,
    most_failures: Option<f64>,
    p95: Option<Duration>,
    p99: Option<Duration>,
}

impl BaselineHistory {
    /// Learns from the baseline, whose latency is in `references`, that failures come in clusters of
    /// `phi`, if it has a share.
    pub(super) fn learn<'r>(
        &mut self,
        service: &Service,
        compared: &ComparisonPlan,
        accounts: &[Account],
        references: impl Iterator<Item = Option<&'r Reference>>,
        phi: f64,
        now: Duration,
    ) {
        let number = service.baseline;
        let baseline = &service.versions[usize::from(number)];
        if baseline.share_weight() == Weight::ZERO {
            return;
        }
        let mut last = match self.present.take() {
            Some(present) if present.version == baseline.name => Some(present),
            other => {
                self.before = other.or(self.before.take());
                None
            }
        };
        let passed = last.as_ref().map_or(Duration::ZERO, |last| now.saturating_sub(last.until));
        let strata = compared.strata.iter().zip(accounts).zip(references);
        let strata = strata.map(|((stratum, account), reference)| {
            let counter = counter(account, number);
            let known = last.as_mut().and_then(|last| {
                let at = last.strata.iter().position(|(route, _)| *route == stratum.route)?;
                Some(last.strata.swap_remove(at).1)
            });
            let mut past = known.unwrap_or(PastStratum { counter, ..PastStratum::default() });
            // A comparison that asks something else counts from the beginning.
            let is_anew = counter.trials < past.counter.trials;
            let before = if is_anew { Counter::default() } else { past.counter };
            past.usual.absorb(counter.since(before), passed);
            past.counter = counter;
            past.most_failures = past.usual.most(phi);
            if let Some(reference) = reference {
                past.p95 = reference.latency_of(Quantile::P95);
                past.p99 = reference.latency_of(Quantile::P99);
            }
            (stratum.route.clone(), past)
        });
        let strata = strata.collect();
        self.present = Some(PastBaseline { version: baseline.name.clone(), until: now, strata });
    }

    /// What the baseline before `version` did on the requests of `stratum`, if that is not long ago.
    fn before(&self, version: &str, stratum: &Stratum, now: Duration) -> Option<&PastStratum> {
        let pasts = self.present.iter().chain(&self.before);
        let past = pasts.filter(|past| *past.version != *version).max_by_key(|past| past.until)?;
        let is_fresh = now.saturating_sub(past.until) < LENGTH;
        let mut strata =
            past.strata.iter().filter(|(route, _)| is_fresh && *route == stratum.route);
        strata.next().map(|(_, past)| past)
    }

    fn bounds(&self, version: &str, stratum: &Stratum, now: Duration) -> Vec<Bound> {
        let slo = &stratum.slo;
        let mut bounds = Vec::new();
        bounds.extend(slo.errors.map(|share| Bound::errors(Source::Slo, share.0)));
        let mut latency = |quantile, longest: Option<Duration>, source| {
            bounds.extend(longest.map(|longest| Bound::latency(source, quantile, longest)));
        };
        latency(Quantile::P95, slo.p95, Source::Slo);
        latency(Quantile::P99, slo.p99, Source::Slo);
        let Some(past) = self.before(version, stratum, now) else { return bounds };
        let limits = &stratum.limits;
        let longest = |past: Option<Duration>, tolerance: Option<f64>| {
            Some(past?.mul_f64((1.0 + tolerance?).max(LEAST_RATIO)) + limits.latency_absolute)
        };
        latency(Quantile::P95, longest(past.p95, limits.p95), Source::Before);
        latency(Quantile::P99, longest(past.p99, limits.p99), Source::Before);
        if let Some((most, tolerance)) = past.most_failures.zip(limits.errors) {
            let share = most * tolerance.ratio().max(LEAST_RATIO) + tolerance.excess();
            bounds.push(Bound::errors(Source::Before, share));
        }
        bounds
    }
}

/// A version that serves alone.
#[derive(Debug)]
pub(super) struct StandaloneVersion {
    pub(super) version: Box<str>,
    pub(super) number: u16,
    /// By stratum.
    lines: Vec<StandaloneTest>,
    /// It was said that it is worse.
    told: bool,
    looked: Duration,
}

#[derive(Debug)]
struct StandaloneTest {
    recorder: Recorder<Alone>,
    counter: Counter,
    latencies: Box<Latest>,
}

impl StandaloneVersion {
    /// Begins `now` to judge version `number`.
    pub(super) fn new(
        service: &Service,
        compared: &ComparisonPlan,
        accounts: &[Account],
        number: u16,
        memory: &BaselineHistory,
        now: Duration,
    ) -> Self {
        let version = service.versions[usize::from(number)].name.clone();
        let lines = compared.strata.iter().zip(accounts).map(|(stratum, account)| {
            let bounds = memory.bounds(&version, stratum, now);
            let limits = &stratum.limits;
            StandaloneTest {
                recorder: Recorder::new(Alone::new(
                    &bounds,
                    limits.alpha,
                    limits.least_failures,
                    now,
                )),
                counter: counter(account, number),
                latencies: latencies(account, number),
            }
        });
        let lines = lines.collect();
        Self { version, number, lines, told: false, looked: now }
    }

    /// Whether something is to be found out still.
    pub(super) fn is_open(&self, now: Duration) -> bool {
        let is_fresh = |line: &StandaloneTest| now.saturating_sub(line.judged().began()) < LENGTH;
        self.lines.iter().any(|line| !line.judged().is_empty() && is_fresh(line))
    }

    /// Looks at what it did; answers if it has just turned out to be worse.
    pub(super) fn poll(
        &mut self,
        service: &Service,
        compared: &ComparisonPlan,
        accounts: &[Account],
        now: Duration,
    ) -> Option<Found> {
        if now.saturating_sub(self.looked) < LOOK || !self.is_open(now) {
            return None;
        }
        self.looked = now;
        let mut found = None;
        let strata = compared.strata.iter().zip(accounts);
        for (line, (stratum, account)) in self.lines.iter_mut().zip(strata) {
            if line.judged().is_empty() {
                continue;
            }
            let counter = counter(account, self.number);
            let block = counter.since(std::mem::replace(&mut line.counter, counter));
            line.observe(block, latencies(account, self.number), now);
            if !self.told && line.judged().answer() == Answer::Fail {
                self.told = true;
                found = Some(Found::Worse(Box::new(CanaryFinding {
                    service: service.name.clone(),
                    version: self.version.clone(),
                    route: stratum.route.clone(),
                    mode: Mode::Advise,
                    verdict: line.judged().verdict(now),
                })));
            }
        }
        found
    }

    /// What is to be said when it ends.
    pub(super) fn end(self, service: &Service) -> Option<Found> {
        self.told.then(|| Found::NoLongerCompared {
            service: service.name.clone(),
            version: self.version,
        })
    }

    /// That it can be judged again, on the requests of `route`; nothing if it is not judged there.
    pub(super) fn record(&self, compared: &ComparisonPlan, route: Option<&str>) -> Option<Record> {
        let mut lines = self.lines.iter().zip(&compared.strata);
        let (line, _) = lines.find(|(_, stratum)| stratum.route.as_deref() == route)?;
        (!line.judged().is_empty()).then(|| line.recorder.record())
    }

    /// The verdicts as they stand, by stratum.
    pub(super) fn verdicts(&self, now: Duration) -> impl Iterator<Item = Option<Verdict>> {
        let is_open = self.is_open(now);
        self.lines.iter().map(move |line| {
            (is_open && !line.judged().is_empty()).then(|| line.judged().verdict(now))
        })
    }
}

impl StandaloneTest {
    fn judged(&self) -> &Alone {
        self.recorder.judge()
    }

    fn observe(&mut self, block: Tally, after: Box<Latest>, now: Duration) {
        let latencies = Latencies::between(&self.latencies, &after);
        self.latencies = after;
        let latencies = (&latencies).into();
        self.recorder.tell(Entry::Alone { at: now, errors: block, latencies });
    }
}

/// Latencies so far of all attempts at version number `version`.
fn latencies(account: &Account, version: u16) -> Box<Latest> {
    account.all.arms[usize::from(version)].latencies(Span::Head)
}

/// First attempts at version number `version` with an outcome, and those of them that failed.
fn counter(account: &Account, version: u16) -> Counter {
    account.all.arms[usize::from(version)].requests
}
