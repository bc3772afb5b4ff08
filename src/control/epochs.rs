//! When an epoch of a service begins.

use crate::{
    config::{Config, units::Weight},
    snapshot::{Overrides, RuntimeState, Snapshot, weights_in_force},
};

impl RuntimeState {
    /// Begins an epoch of each service whose versions get other shares than in `current`.
    pub(super) fn begin_epochs(
        &mut self,
        current: &Snapshot,
        config: &Config,
        overrides: &Overrides,
    ) {
        for (name, service) in &config.services {
            let Some(before) = current.service(name) else { continue };
            let weights = weights_in_force(name, service, overrides);
            let after = weights.iter().map(|(version, weight)| {
                let nobody = self.is_ejected(name, version) || self.is_unserved(name, version);
                (version.as_str(), if nobody { Weight::ZERO } else { *weight })
            });
            let before = before.versions.iter().map(|v| (&*v.name, v.share_weight()));
            if !before.eq(after) {
                *self.epochs.entry(name.clone()).or_default() += 1;
            }
        }
    }
}
