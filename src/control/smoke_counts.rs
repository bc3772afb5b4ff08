//! How many smoke checks have passed and failed.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::{config::Config, rollout::SmokeReport};

/// Results of smoke checks since the process started: passed ones and failed ones, by service, version and check.
#[derive(Debug, Default)]
pub(super) struct SmokeCounts(Mutex<BTreeMap<[String; 3], [u64; 2]>>);

impl SmokeCounts {
    /// Counts `report`, and forgets what `config` no longer has.
    pub(super) fn count(&self, report: &SmokeReport, config: &Config) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = [report.service.clone(), report.version.clone(), report.check.clone()];
        counts.entry(of).or_default()[usize::from(!report.passed)] += 1;
        counts.retain(|[service, version, check], _| {
            config.has_version(service, version) && config.smoke.contains_key(check)
        });
    }

    /// All results in the order of their names.
    pub(super) fn all(&self) -> Vec<([String; 3], [u64; 2])> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(of, counts)| (of.clone(), *counts)).collect()
    }
}
