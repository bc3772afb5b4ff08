//! Which route, service and version a request goes to.

use super::{Snapshot, route::Route, service::Service};
use crate::{config::units::Weight, registry::Player, routing::RequestView};

/// Where a request goes: indices into the snapshot, and what decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Into [`Snapshot::routes`].
    pub route: u32,
    /// Into [`Snapshot::services`].
    pub service: u32,
    /// Into [`Service::versions`].
    pub version: u16,
    /// What decided the version.
    pub by: AssignedBy,
    /// Whose request it is, if versions are compared; else anybody's.
    pub player: Player,
    /// The split has a canary for the player, who was sent to the baseline to see whether it is the
    /// canary that fails.
    pub diverted: bool,
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoDecision {
    /// No route matches.
    NoRoute,
    /// The route's service (its index in [`Snapshot::routes`] is told) has no version of weight.
    NoVersion(u32),
}

/// What decided a request's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssignedBy {
    /// The route names a version.
    Route,
    /// A rule of the service.
    Rule,
    /// The split, by the source of that number in the service's cohort key.
    Cohort(u16),
    /// No other version has weight.
    Only,
}

impl Snapshot {
    /// Which route, service and version `request` goes to, at `self`'s weights.
    pub fn decide(&self, request: &RequestView<'_>) -> Result<Decision, NoDecision> {
        let number = self.table.find(request).ok_or(NoDecision::NoRoute)?;
        let route = &self.routes[number as usize];
        let service = &self.services[route.service as usize];
        let assigned = service.assign(request, route).ok_or(NoDecision::NoVersion(number))?;
        let Assigned { version, by, player, diverted } = assigned;
        Ok(Decision { route: number, service: route.service, version, by, player, diverted })
    }
}

/// The version that a request gets.
struct Assigned {
    version: u16,
    by: AssignedBy,
    player: Player,
    diverted: bool,
}

impl Assigned {
    /// Of a request that is not compared.
    fn to(version: u16, by: AssignedBy) -> Self {
        Self { version, by, player: Player::default(), diverted: false }
    }
}

impl Service {
    /// The version that serves `request`: the route's own, else the first rule's that holds, else the
    /// split's. Neither of the first two if it is ejected, unless the file says so. Nothing if no version
    /// has weight.
    fn assign(&self, request: &RequestView<'_>, route: &Route) -> Option<Assigned> {
        // Routes are shared by snapshots, so an ejection is not compiled into them.
        if let Some(version) = route.version
            && (route.keeps_ejected || !self.versions[usize::from(version)].ejected)
        {
            return Some(Assigned::to(version, AssignedBy::Route));
        }
        // Who counts must be known before a canary begins, too.
        let is_counted = route.evidence.is_some();
        if self.rules.is_empty() && !self.split.needs_key() && !is_counted {
            return self.split.assign(&[]).map(|version| Assigned::to(version, AssignedBy::Only));
        }
        let key = self.cohort.key(request, &route.params);
        let rule = self.rules.iter().find(|r| r.holds(request, &route.params, key.value));
        if let Some(rule) = rule {
            return Some(Assigned::to(rule.version, AssignedBy::Rule));
        }
        let (version, bucket) = self.split.assign_and_tell(key.value)?;
        let by = match self.split.needs_key() {
            true => AssignedBy::Cohort(key.source),
            false => AssignedBy::Only,
        };
        if !is_counted {
            return Some(Assigned::to(version, by));
        }
        let player = Player(bucket);
        let diverted = version != self.baseline
            && self.state.diverted.has(player)
            && self.compared.as_ref().is_some_and(|compared| compared.asks_players())
            && self.versions[usize::from(self.baseline)].share_weight() > Weight::ZERO;
        let version = if diverted { self.baseline } else { version };
        Some(Assigned { version, by, player, diverted })
    }
}
