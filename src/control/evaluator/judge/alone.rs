//! Versions that serve without a baseline beside them: straight after a cutover, or a canary at 100 %.
//!
//! Each is judged by the limits that the file has (`slo`) and by what the baseline before it did. Nobody
//! is ejected for it: there is nowhere for players to go.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        blocks::{ALONE_FOR, VersionBlocks},
        found::{CanaryFinding, Found},
    },
    Terms,
    history::BaselineHistory,
};
use crate::{
    analysis::{Alone, Answer, Entry, Record, Recorder, Verdict},
    config::schema::Mode,
};

/// A version that serves alone.
#[derive(Debug, Clone)]
pub(super) struct StandaloneVersion {
    pub(super) version: Arc<str>,
    /// By stratum.
    lines: Vec<Recorder<Alone>>,
    /// It was said that it is worse.
    told: bool,
}

impl StandaloneVersion {
    /// Begins `now` to judge `version`.
    pub(super) fn new(
        version: Arc<str>,
        terms: &Terms,
        history: &BaselineHistory,
        now: Duration,
    ) -> Self {
        let lines = terms.strata.iter().map(|stratum| {
            let bounds = history.bounds(&version, stratum, now);
            let limits = &stratum.limits;
            Recorder::new(Alone::new(&bounds, limits.alpha, limits.least_failures, now))
        });
        let lines = lines.collect();
        Self { version, lines, told: false }
    }

    /// Whether there is anything to judge it by, by stratum.
    pub(super) fn judged(&self) -> impl Iterator<Item = bool> {
        self.lines.iter().map(|line| !line.judge().is_empty())
    }

    /// Whether something is to be found out still.
    fn is_open(&self, now: Duration) -> bool {
        let is_fresh = |alone: &Alone| now.saturating_sub(alone.began()) < ALONE_FOR;
        let mut lines = self.lines.iter().map(Recorder::judge);
        lines.any(|alone| !alone.is_empty() && is_fresh(alone))
    }

    /// Takes in what it did; returns if it has just turned out to be worse.
    pub(super) fn judge(
        &mut self,
        terms: &Terms,
        blocks: VersionBlocks<Entry>,
        now: Duration,
    ) -> Option<Found> {
        let mut found = None;
        let each = self.lines.iter_mut().zip(&terms.strata).zip(blocks.strata);
        for ((line, stratum), entries) in each {
            entries.into_iter().for_each(|entry| line.tell(entry));
            if !self.told && line.judge().answer() == Answer::Fail {
                self.told = true;
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

    /// What is to be said when it ends.
    pub(super) fn end(self, terms: &Terms) -> Option<Found> {
        self.told.then(|| Found::NoLongerCompared {
            service: terms.service.clone(),
            version: (&*self.version).into(),
        })
    }

    /// That it can be judged again, on the requests of the stratum of that number; nothing if it is not
    /// judged there.
    pub(super) fn record(&self, stratum: usize) -> Option<Record> {
        let line = self.lines.get(stratum)?;
        (!line.judge().is_empty()).then(|| line.record())
    }

    /// The verdicts as they stand, by stratum.
    pub(super) fn verdicts(&self, now: Duration) -> impl Iterator<Item = Option<Verdict>> {
        let is_open = self.is_open(now);
        self.lines.iter().map(move |line| {
            (is_open && !line.judge().is_empty()).then(|| line.judge().verdict(now))
        })
    }
}
