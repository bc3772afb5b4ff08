//! A change that moves all players of a version is refused if none of those who get traffic can be reached.

use std::{net::SocketAddr, time::SystemTime};

use super::{
    Applied, Controller, Cutover, Rejected, WeightsChange, cutover::left, served::Coverage,
};
use crate::{
    control::reach::{self, Reach},
    snapshot::Snapshot,
};

impl Controller {
    /// Endpoints to ask before `asked` is decided, by number; none if it is refused anyway.
    pub(in crate::control) fn targets_of_cutover(&self, asked: &Cutover) -> Vec<(u32, SocketAddr)> {
        let planned = self.weigh_cutover(asked, SystemTime::now());
        planned.map_or_else(|_| Vec::new(), |(_, w)| self.targets(&asked.service, &w.planned))
    }

    /// As [`Self::targets_of_cutover`], for weights.
    pub(in crate::control) fn targets_of_weights(
        &self,
        asked: &WeightsChange,
    ) -> Vec<(u32, SocketAddr)> {
        let planned = self.weigh_by_hand(asked, SystemTime::now());
        planned.map_or_else(|_| Vec::new(), |w| self.targets(&asked.service, &w.planned))
    }

    fn targets(&self, service: &str, planned: &Applied) -> Vec<(u32, SocketAddr)> {
        let snapshot = self.snapshot();
        match left(planned).is_empty() {
            true => Vec::new(),
            false => {
                let gaining = gaining(&snapshot, service, planned);
                let serving = gaining.filter(|state| state.standing.serves());
                serving.map(|state| (state.id, state.address)).collect()
            }
        }
    }

    /// Refuses weights that take all players of a version if no version would be left whose endpoints can be
    /// reached. If no version serves now, any weights are good.
    pub(super) fn refuse_unreached_weights(
        &self,
        service: &str,
        planned: &Applied,
        reach: &Reach,
    ) -> Result<(), Rejected> {
        match self.coverage(service, self.state()) {
            Coverage::Available => self.refuse_unreached(service, planned, reach),
            Coverage::Nobody | Coverage::Unavailable => Ok(()),
        }
    }

    /// As [`Self::refuse_unreached_weights`], whatever serves now.
    pub(super) fn refuse_unreached(
        &self,
        service: &str,
        planned: &Applied,
        reach: &Reach,
    ) -> Result<(), Rejected> {
        if left(planned).is_empty() {
            return Ok(());
        }
        let snapshot = self.snapshot();
        let endpoints = gaining(&snapshot, service, planned).map(|state| reach::Asked {
            id: state.id,
            label: &state.label,
            state: state.standing.state(),
        });
        let Some(why) = reach::why_unreached(endpoints, reach) else { return Ok(()) };
        let named = has_share(planned).map(|version| format!("`{version}`"));
        let versions = named.collect::<Vec<_>>().join(", ");
        let version = has_share(planned).next().cloned().unwrap_or_default();
        Err(Rejected::Unreached { service: service.to_owned(), version, versions, why })
    }
}

/// Versions with a share after the change.
fn has_share(planned: &Applied) -> impl Iterator<Item = &String> {
    planned.shares_after.iter().filter(|(_, share)| **share > 0.0).map(|(version, _)| version)
}

/// The endpoints of versions with a share after the change, whether they serve or not.
fn gaining<'a>(
    snapshot: &'a Snapshot,
    service: &'a str,
    planned: &'a Applied,
) -> impl Iterator<Item = &'a crate::registry::EndpointState> {
    let versions = has_share(planned);
    let versions = versions.filter_map(move |v| snapshot.service(service)?.version(v));
    versions.flat_map(|version| version.known.iter().map(|known| &*known.state))
}
