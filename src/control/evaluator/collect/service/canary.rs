//! The open blocks of one canary, and how another process continues with blocks of the same kind.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    super::{
        account::Account,
        line::{CarriedStratum, StratumCollector},
    },
    ServiceCollector,
};
use crate::{
    analysis::Arms,
    snapshot::{ComparisonPlan, Service},
};

/// The open blocks of one canary.
#[derive(Debug)]
pub(super) struct CanaryCollector {
    pub(super) number: u16,
    pub(super) version: Arc<str>,
    /// Its part of the weights.
    pub(super) share: f64,
    /// The canary was found to be worse: nothing waits for its blocks any more.
    pub(super) decided: bool,
    /// By stratum.
    pub(super) lines: Vec<StratumCollector>,
}

impl CanaryCollector {
    pub(super) fn follow_share(&mut self, service: &Service) {
        self.share = service.weight_share(self.number);
    }

    /// Whether the canary has failures that are not yet finally judged.
    pub(super) fn is_suspect(&self) -> bool {
        self.lines.iter().any(StratumCollector::is_suspect)
    }
}

/// Open blocks of both versions, by stratum, from `now` on.
pub(super) fn lines(
    plan: &ComparisonPlan,
    accounts: &[Account],
    arms: Arms<u16>,
    now: Duration,
) -> Vec<StratumCollector> {
    let strata = plan.strata.iter().zip(accounts);
    strata.map(|(stratum, account)| StratumCollector::new(stratum, account, arms, now)).collect()
}

/// How the blocks of a canary are made, on its way to another process.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::control::evaluator) struct CarriedCollector {
    version: Arc<str>,
    /// By stratum.
    strata: Vec<CarriedStratum>,
}

impl CarriedCollector {
    /// The canary.
    pub(in crate::control::evaluator) fn version(&self) -> &str {
        &self.version
    }
}

impl ServiceCollector {
    /// What another process needs to continue with blocks of the same kind.
    pub(in crate::control::evaluator) fn carried(&self) -> Vec<CarriedCollector> {
        let canaries = self.canaries.iter().map(|canary| CarriedCollector {
            version: Arc::clone(&canary.version),
            strata: canary.lines.iter().map(StratumCollector::carried).collect(),
        });
        canaries.collect()
    }

    /// Continues with blocks of the same kind as another process.
    pub(in crate::control::evaluator) fn resume(&mut self, carried: &[CarriedCollector]) {
        for CarriedCollector { version, strata } in carried {
            let mut known = self.canaries.iter_mut();
            if let Some(canary) = known.find(|known| known.version == *version) {
                let lines = canary.lines.iter_mut().zip(strata);
                lines.for_each(|(line, carried)| line.resume(carried));
            }
        }
    }
}
