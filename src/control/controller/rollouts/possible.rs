//! What a rollout needs of its surroundings before it grows: an endpoint that can be reached, and a baseline with
//! players; and before it goes back: an endpoint of the split before that can be reached.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{Controller, Live, RolloutAsked, RolloutChange};
use crate::{
    control::{
        controller::Rejected,
        reach::{self, Reach},
    },
    rollout::{Event, Missing, Rollout},
    snapshot::{Snapshot, Version},
};

impl Controller {
    /// Whether the rollout of `service` waits for an endpoint that can be reached, so that they must be tried again.
    pub(in crate::control) fn waits_for_endpoint(&self, service: &str) -> bool {
        let missing = self.rollouts.get(service).map(|live| &*live.rollout.missing);
        missing.unwrap_or_default().iter().any(|one| matches!(one, Missing::Endpoint { .. }))
    }

    /// Endpoints to try before the rollout of `service` grows, by number; `None` before its end, by which nobody gets
    /// another version.
    pub(in crate::control) fn targets_of_growth(
        &self,
        service: &str,
    ) -> Option<Vec<(u32, SocketAddr)>> {
        let rollout = &self.rollouts.get(service)?.rollout;
        if rollout.progress.begun && rollout.step + 1 >= rollout.plan.steps().len() {
            return None;
        }
        let snapshot = self.snapshot();
        let version = snapshot.service(service).and_then(|service| service.version(&rollout.to));
        Some(serving(version.into_iter()))
    }

    /// Notes why endpoints that were tried cannot be reached, by number. Returns whether one may be.
    pub(in crate::control) fn note_reach(
        &mut self,
        service: &str,
        failed: BTreeMap<u32, String>,
    ) -> bool {
        if let Some(live) = self.rollouts.get_mut(service) {
            live.failed = failed;
        }
        self.rollouts.get(service).is_none_or(|live| self.unreached(live).is_none())
    }

    /// Endpoints to try before the command of `asked` leads back to the split before its rollout, by number; none if it
    /// does not, or if the caller insists.
    pub(in crate::control) fn targets_of_rollout(
        &self,
        asked: &RolloutChange,
    ) -> Vec<(u32, SocketAddr)> {
        let live = self.rollouts.get(&asked.service);
        let (Some(live), RolloutAsked::Event(event)) = (live, &asked.asked) else {
            return Vec::new();
        };
        if !leads_back(&live.rollout, event) {
            return Vec::new();
        }
        let snapshot = self.snapshot();
        serving(heirs(&snapshot, &live.rollout))
    }

    /// Endpoints of the versions that would get the players of the rollout of `service` back, by number, if nothing else
    /// tells whether they can be reached: they have no players, and no checks.
    pub(in crate::control) fn idle_way_back(&self, service: &str) -> Vec<(u32, SocketAddr)> {
        let Some(live) = self.rollouts.get(service) else { return Vec::new() };
        let snapshot = self.snapshot();
        if snapshot.service(service).is_none_or(|of| of.health.checks()) {
            return Vec::new();
        }
        if heirs(&snapshot, &live.rollout).any(|heir| heir.share_weight().value() > 0.0) {
            return Vec::new();
        }
        serving(heirs(&snapshot, &live.rollout))
    }

    /// Refuses a command that leads back to the split before `rollout` if no endpoint of it can be reached.
    pub(super) fn refuse_dead_way(
        &self,
        rollout: &Rollout,
        event: &Event,
        reach: &Reach,
    ) -> Result<(), Rejected> {
        let versions: Vec<&String> = rollout.heirs().collect();
        if !leads_back(rollout, event) || versions.is_empty() {
            return Ok(());
        }
        let snapshot = self.snapshot();
        let endpoints = heirs(&snapshot, rollout).flat_map(asked);
        let Some(why) = reach::why_unreached(endpoints, reach) else { return Ok(()) };
        let (service, version) = (rollout.service.clone(), versions[0].clone());
        let versions = versions.iter().map(|version| format!("`{version}`"));
        let versions = versions.collect::<Vec<_>>().join(", ");
        Err(Rejected::Unreached { service, version, versions, why })
    }

    /// Why no endpoint of the version that grows can be reached; `None` if one may be.
    pub(super) fn unreached(&self, live: &Live) -> Option<String> {
        let snapshot = self.snapshot();
        let version = snapshot.service(&live.rollout.service)?.version(&live.rollout.to)?;
        why_unreached(version, &live.failed)
    }

    /// Why no endpoint of `version` of `service` is known to serve.
    pub(super) fn known_unreached(&self, service: &str, version: &str) -> Option<String> {
        let snapshot = self.snapshot();
        why_unreached(snapshot.service(service)?.version(version)?, &BTreeMap::new())
    }

    /// Why `version` of `service` cannot be compared with a baseline, although other versions have players; `None` if
    /// it can, or has all players and is judged alone.
    pub(super) fn incomparable(&self, service: &str, version: &str) -> Option<String> {
        let baseline = &self.config.services.get(service)?.baseline;
        let snapshot = self.snapshot();
        let in_force = snapshot.service(service)?;
        let shares = self.shares_with(service, &self.state, None);
        let share = |of: &str| shares.get(of).copied().unwrap_or_default();
        if share(version) >= 1.0 {
            return None;
        }
        if in_force.compared.is_none() {
            return Some(format!(
                "the file compares no versions of `{service}`: it has no `eject`"
            ));
        }
        let right = "give `baseline` in the file the name of another version that has players";
        if version == baseline {
            return Some(format!("`{version}` is the baseline itself; {right}"));
        }
        (share(baseline) <= 0.0).then(|| {
            format!(
                "the baseline `{baseline}` has no players, so `{version}` is compared with nothing; {right}"
            )
        })
    }
}

fn why_unreached(version: &Version, failed: &BTreeMap<u32, String>) -> Option<String> {
    reach::why_unreached(asked(version), &Reach::Asked(failed.clone()))
}

/// The endpoints of `version`, whether they serve or not.
fn asked(version: &Version) -> impl Iterator<Item = reach::Asked<'_>> {
    version.known.iter().map(|known| reach::Asked {
        id: known.state.id,
        label: &known.state.label,
        state: known.state.standing.state(),
    })
}

/// Whether `event` is a command by which players of the version go back to the split before `rollout`.
fn leads_back(rollout: &Rollout, event: &Event) -> bool {
    let is_back = match event {
        Event::Rollback { .. } => true,
        Event::Abort { .. } => !rollout.by_hand,
        _ => false,
    };
    is_back && rollout.takes_players_back()
}

/// The serving endpoints of `versions`: number and address.
fn serving<'a>(versions: impl Iterator<Item = &'a Version>) -> Vec<(u32, SocketAddr)> {
    let known = versions.flat_map(|version| &version.known);
    let serving = known.filter(|known| known.state.standing.serves());
    serving.map(|known| (known.state.id, known.state.address)).collect()
}

/// The versions that players go back to.
fn heirs<'a>(snapshot: &'a Snapshot, rollout: &'a Rollout) -> impl Iterator<Item = &'a Version> {
    let versions = rollout.heirs();
    versions.filter_map(|version| snapshot.service(&rollout.service)?.version(version))
}
