//! Versions that serve without a baseline: after a cutover, or a canary at 100 %.
//!
//! Each is judged by the limits in the file (`slo`) and by the baseline before it. It is never ejected: no
//! other version could serve its players.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    super::{
        blocks::{ALONE_FOR, VersionBlocks},
        found::{CanaryFinding, Found},
    },
    Terms,
    history::BaselineHistory,
};
use crate::{
    analysis::{Alone, Answer, CarriedRecorder, Entry, Record, Recorder, Standing, Verdict},
    config::schema::Mode,
};

/// A version that serves alone.
#[derive(Debug, Clone)]
pub(super) struct StandaloneVersion {
    pub(super) version: Arc<str>,
    /// By stratum.
    lines: Vec<Recorder<Alone>>,
    /// Whether it was reported as worse.
    reported: bool,
}

/// A version that serves alone, on its way to another process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CarriedAlone {
    pub(super) version: Arc<str>,
    /// By stratum.
    lines: Vec<CarriedRecorder<Alone>>,
}

impl StandaloneVersion {
    /// Begins at `now` to judge `version`.
    pub(super) fn new(
        version: Arc<str>,
        terms: &Terms,
        history: &BaselineHistory,
        now: Duration,
    ) -> Self {
        let lines = terms.strata.iter().map(|stratum| {
            let bounds = history.bounds(&version, stratum, now);
            let limits = &stratum.limits;
            let (alpha, least) = (limits.alpha, limits.least_failures);
            Recorder::new(Alone::new(&bounds, alpha, least, limits.warm_up, now))
        });
        let lines = lines.collect();
        Self { version, lines, reported: false }
    }

    /// Everything that another process needs to continue, apart from what was reported.
    pub(super) fn carried(&self, budget: &mut usize) -> CarriedAlone {
        let lines = self.lines.iter().map(|line| line.carried(budget)).collect();
        CarriedAlone { version: Arc::clone(&self.version), lines }
    }

    /// Continues by the same `terms`; `None` if it was judged by others.
    pub(super) fn resume(carried: CarriedAlone, terms: &Terms) -> Option<Self> {
        let CarriedAlone { version, lines } = carried;
        let is_whole = lines.len() == terms.strata.len();
        let lines: Option<_> = lines.into_iter().map(CarriedRecorder::resume).collect();
        Some(Self { version, lines: lines.filter(|_| is_whole)?, reported: false })
    }

    /// Whether there are limits for it, by stratum.
    pub(super) fn judged(&self) -> impl Iterator<Item = bool> {
        self.lines.iter().map(|line| !line.judge().is_empty())
    }

    /// Whether it was found to be worse.
    pub(super) fn has_failed(&self) -> bool {
        self.reported
    }

    /// Whether further findings are possible.
    fn is_open(&self, now: Duration) -> bool {
        let is_fresh = |alone: &Alone| now.saturating_sub(alone.began()) < ALONE_FOR;
        let mut lines = self.lines.iter().map(Recorder::judge);
        lines.any(|alone| !alone.is_empty() && is_fresh(alone))
    }

    /// Takes its blocks; returns a finding if it has just proved to be worse.
    pub(super) fn judge(
        &mut self,
        terms: &Terms,
        blocks: VersionBlocks<Entry>,
        now: Duration,
    ) -> Option<Found> {
        let mut found = None;
        let each = self.lines.iter_mut().zip(&terms.strata).zip(blocks.strata);
        for ((line, stratum), entries) in each {
            entries.into_iter().for_each(|entry| line.add(entry));
            if !self.reported && line.judge().answer() == Answer::Fail {
                self.reported = true;
                found = Some(Found::Worse(Box::new(CanaryFinding {
                    service: terms.service.clone(),
                    version: (&*self.version).into(),
                    route: stratum.route.clone(),
                    mode: Mode::Advise,
                    verdict: line.judge().verdict(now),
                })));
            }
        }
        found
    }

    /// How it stands over all strata on which it is judged: that of the stratum which is worst off.
    pub(super) fn standing(&self, now: Duration) -> Option<Standing> {
        let judged = self.lines.iter().map(Recorder::judge).filter(|alone| !alone.is_empty());
        let rank = |standing: &Standing| match standing.answer {
            Answer::Fail => 0,
            Answer::Undecided => 1,
            Answer::Healthy => 2,
        };
        let any = self.lines.first().map(Recorder::judge);
        let worst = judged.map(|alone| alone.standing(now)).min_by_key(rank);
        worst.or_else(|| Some(any?.standing(now)))
    }

    /// The finding when it ends.
    pub(super) fn end(self, terms: &Terms) -> Option<Found> {
        self.reported.then(|| Found::NoLongerCompared {
            service: terms.service.clone(),
            version: (&*self.version).into(),
        })
    }

    /// Its recorded inputs on the requests of this stratum, which can be judged again; `None` if it is not
    /// judged there.
    pub(super) fn record(&self, stratum: usize) -> Option<Record> {
        let line = self.lines.get(stratum)?;
        (!line.judge().is_empty()).then(|| line.record())
    }

    /// When the judgement on the requests of this stratum began.
    pub(super) fn began(&self, stratum: usize) -> Option<Duration> {
        Some(self.lines.get(stratum)?.judge().began())
    }

    /// Current verdicts, by stratum.
    pub(super) fn verdicts(&self, now: Duration) -> impl Iterator<Item = Option<Verdict>> {
        let is_open = self.is_open(now);
        self.lines.iter().map(move |line| {
            (is_open && !line.judge().is_empty()).then(|| line.judge().verdict(now))
        })
    }
}
