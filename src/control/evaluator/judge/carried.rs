//! The state of a judge on its way to another process.
//!
//! What was found is not handed over, only the evidence: the first judgement in the other process finds it again,
//! so that its events and alerts know it, too. Players who are followed after an ejection stay behind, since
//! they are known by the collector.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    ServiceJudge, Terms,
    alone::{CarriedAlone, StandaloneVersion},
    canary::{CanaryComparison, CarriedCanary},
    history::BaselineHistory,
};
use crate::analysis::{Dispersion, Outage};

/// The state of the judge of one service.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::control::evaluator) struct CarriedJudge {
    clusters: Dispersion,
    outage: Outage,
    canaries: Vec<CarriedCanary>,
    alone: Vec<CarriedAlone>,
    history: BaselineHistory,
}

impl CarriedJudge {
    /// Versions with evidence: canaries, and versions that serve alone.
    pub(in crate::control::evaluator) fn versions(&self) -> impl Iterator<Item = &Arc<str>> {
        let canaries = self.canaries.iter().map(|canary| &canary.version);
        canaries.chain(self.alone.iter().map(|alone| &alone.version))
    }

    /// Drops the evidence on all versions. What was learnt about the baseline stays, as at a reload with other
    /// limits.
    pub(in crate::control::evaluator) fn forget_versions(&mut self) {
        self.canaries.clear();
        self.alone.clear();
    }
}

impl ServiceJudge {
    /// Everything that another process needs to continue. `budget` is the memory that records may have, in bytes;
    /// it decreases by theirs.
    pub(in crate::control::evaluator) fn carried(&self, budget: &mut usize) -> CarriedJudge {
        CarriedJudge {
            clusters: self.clusters,
            outage: self.outage.afresh(),
            canaries: self.canaries.iter().map(|canary| canary.carried(budget)).collect(),
            alone: self.alone.iter().map(|alone| alone.carried(budget)).collect(),
            history: self.history.clone(),
        }
    }

    /// Continues by the same `terms`. A version whose evidence does not fit them is not judged.
    pub(in crate::control::evaluator) fn resume(terms: Terms, carried: CarriedJudge) -> Self {
        let CarriedJudge { clusters, outage, canaries, alone, history } = carried;
        let canaries = canaries.into_iter();
        let canaries = canaries.filter_map(|canary| CanaryComparison::resume(canary, &terms));
        let alone = alone.into_iter();
        let alone = alone.filter_map(|version| StandaloneVersion::resume(version, &terms));
        Self {
            canaries: canaries.collect(),
            alone: alone.collect(),
            clusters,
            outage,
            history,
            ..Self::new(terms)
        }
    }
}
