//! Compares every canary with its baseline on what the workers count.
//!
//! It is told the snapshot in force and the time, reads the workers' cells and answers what it found; it
//! changes nothing. A comparison begins when a version beside the baseline gets a share of players and
//! ends when it has none: a version that comes back is a new rollout with an alpha of its own.

mod amounts;
mod arms;
mod spread;

use std::{collections::HashMap, sync::Arc, time::Duration};

use self::{arms::Line, spread::Spread};
use crate::{
    analysis::{Answer, Verdict},
    config::{schema::Mode, units::Weight},
    snapshot::{Compared, Service, Snapshot},
};

/// Between two looks while a canary is compared: what fails meanwhile is what waiting costs.
const LOOK: Duration = Duration::from_millis(10);

/// Between two looks while nothing is compared that needs to be acted on soon: the baseline's latency
/// and its clusters of failures are learnt meanwhile.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// All comparisons of the process.
#[derive(Debug, Default)]
pub struct Evaluator {
    services: HashMap<Box<str>, Watch>,
}

/// What a look found out.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The service.
    pub service: Box<str>,
    /// The version that is worse than the baseline.
    pub version: Box<str>,
    /// The route with limits of its own that it was found on; nothing for all others together.
    pub route: Option<Box<str>>,
    /// What is to be done about it.
    pub mode: Mode,
    /// The numbers.
    pub verdict: Verdict,
}

/// The comparisons of one service.
#[derive(Debug)]
struct Watch {
    compared: Arc<Compared>,
    baseline: u16,
    parity: u8,
    spread: Spread,
    /// By number of the version.
    cases: HashMap<u16, Case>,
}

/// One canary.
#[derive(Debug)]
struct Case {
    /// By stratum.
    lines: Vec<Line>,
    told: bool,
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
            watch.follow(service, compared, now);
            watch.poll(service, now, &mut found);
        }
        found
    }

    /// When to look next; nothing if no service is compared.
    pub fn next_look(&self) -> Option<Duration> {
        let open = self.services.values().any(|watch| watch.cases.values().any(|case| !case.told));
        match (open, self.services.is_empty()) {
            (true, _) => Some(LOOK),
            (false, false) => Some(IDLE_LOOK),
            (false, true) => None,
        }
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
        watch.into_iter().flat_map(move |(watch, service)| {
            watch.cases.iter().flat_map(move |(version, case)| {
                let version = service.versions.get(usize::from(*version));
                version.into_iter().flat_map(move |version| {
                    let strata = case.lines.iter().zip(&watch.compared.strata);
                    strata.map(move |(line, stratum)| {
                        (&*version.name, stratum.route.as_deref(), line.comparison().verdict(now))
                    })
                })
            })
        })
    }
}

impl Watch {
    fn new(service: &Service, compared: &Arc<Compared>, now: Duration) -> Self {
        Self {
            compared: Arc::clone(compared),
            baseline: service.baseline,
            parity: service.parity,
            spread: Spread::new(now),
            cases: HashMap::new(),
        }
    }

    /// Takes over what a new snapshot asks.
    fn follow(&mut self, service: &Service, compared: &Arc<Compared>, now: Duration) {
        if self.compared != *compared || self.baseline != service.baseline {
            // Other questions, or other arms: what was found so far answers none of them.
            self.cases.clear();
            self.compared = Arc::clone(compared);
            self.baseline = service.baseline;
        }
        if self.parity != service.parity {
            self.parity = service.parity;
            let lines = self.cases.values_mut().flat_map(|case| &mut case.lines);
            lines.for_each(Line::weight_step);
        }
        // A version that nobody gets until one of its endpoints serves is still in its rollout.
        let has_share = |version: u16| {
            let version = service.versions.get(usize::from(version));
            version.is_some_and(|version| version.weight > Weight::ZERO && !version.ejected)
        };
        if !has_share(self.baseline) {
            return self.cases.clear();
        }
        self.cases.retain(|version, _| has_share(*version));
        let canaries = (0..service.versions.len() as u16).filter(|v| *v != self.baseline);
        for version in canaries.filter(|v| has_share(*v)) {
            self.cases.entry(version).or_insert_with(|| Case {
                lines: (compared.strata.iter())
                    .map(|s| Line::new(s, version, self.baseline, self.spread.phi(), now))
                    .collect(),
                told: false,
            });
        }
    }

    fn poll(&mut self, service: &Service, now: Duration, found: &mut Vec<Found>) {
        let baseline = &service.versions[usize::from(self.baseline)];
        if self.spread.poll(&baseline.endpoints, now) {
            let phi = self.spread.phi();
            let lines = self.cases.values_mut().flat_map(|case| &mut case.lines);
            lines.for_each(|line| line.set_dispersion(phi));
        }
        for (version, case) in &mut self.cases {
            for (line, stratum) in case.lines.iter_mut().zip(&self.compared.strata) {
                line.poll(stratum, now);
                if case.told || line.comparison().answer() != Answer::Fail {
                    continue;
                }
                case.told = true;
                found.push(Found {
                    service: service.name.clone(),
                    version: service.versions[usize::from(*version)].name.clone(),
                    route: stratum.route.clone(),
                    mode: self.compared.mode,
                    verdict: line.comparison().verdict(now),
                });
            }
        }
    }
}
