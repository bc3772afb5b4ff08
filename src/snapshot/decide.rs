//! Decides the route, service and version of a request.

use super::{Snapshot, route::Route, service::Service};
use crate::{config::units::Weight, policy::class::Class, registry::Player, routing::RequestView};

/// The target of a request: indices into the snapshot, and what decided.
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
    /// The player, if versions are compared; otherwise the default.
    pub player: Player,
    /// The split assigns a canary, but the player is sent to the baseline to find out whether it is
    /// the canary that fails.
    pub diverted: bool,
}

/// What decided a request's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssignedBy {
    /// The route names a version.
    Route,
    /// A rule of the service.
    Rule,
    /// The split, by the cohort key's source of this number.
    Cohort(u16),
    /// No other version has weight.
    Only,
    /// A smoke check.
    Smoke,
    /// The pin of the player or the round.
    Pin,
}

/// Why a request of a smoke check does not reach the version that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSmoke {
    /// No route matches.
    NoRoute,
    /// The route leads to another service.
    OtherService,
    /// The route names another version.
    OtherVersion,
    /// The service or its version is gone.
    NoVersion,
    /// It is a write of a service of which only one version may have writes, and this is another one.
    OtherWriter,
}

impl Snapshot {
    /// Index of the route of `request` in [`Snapshot::routes`]; `None` if no route matches.
    pub fn route_of(&self, request: &RequestView<'_>) -> Option<u32> {
        self.table.find(request)
    }

    /// Decides service and version of `request` on the route `number`, by the weights of this snapshot. `None` if
    /// no version of the service has weight.
    pub fn decide(&self, number: u32, request: &RequestView<'_>) -> Option<Decision> {
        let route = &self.routes[number as usize];
        let service = &self.services[route.service as usize];
        let assigned = service.assign(request, route)?;
        let Assigned { version, by, player, diverted } = assigned;
        Some(Decision { route: number, service: route.service, version, by, player, diverted })
    }

    /// As [`decide`](Self::decide), for a request of a smoke check of `version` of `service`: weights, rules and
    /// ejections do not count, but the route must be one on which players can reach the version.
    pub fn decide_smoke(
        &self,
        request: &RequestView<'_>,
        service: &str,
        version: &str,
    ) -> Result<Decision, NoSmoke> {
        let number = self.route_of(request).ok_or(NoSmoke::NoRoute)?;
        let route = &self.routes[number as usize];
        let found = &self.services[route.service as usize];
        if *found.name != *service {
            return Err(NoSmoke::OtherService);
        }
        let version = found.versions.iter().position(|v| *v.name == *version);
        let version = version.and_then(|at| u16::try_from(at).ok()).ok_or(NoSmoke::NoVersion)?;
        if route.version.is_some_and(|named| named != version) {
            return Err(NoSmoke::OtherVersion);
        }
        let is_write = || {
            let class = route.class.unwrap_or_else(|| Class::of(request.method));
            class == Class::Write
        };
        let required = found.fence.as_ref().is_some_and(|fence| fence.required);
        if required && !found.has_share(version) && is_write() {
            return Err(NoSmoke::OtherWriter);
        }
        let Assigned { version, by, player, diverted } = Assigned::to(version, AssignedBy::Smoke);
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
    /// For a request that is not compared.
    fn to(version: u16, by: AssignedBy) -> Self {
        Self { version, by, player: Player::default(), diverted: false }
    }
}

impl Service {
    /// The version for `request`: that of the route, or of the first rule that holds, or of the
    /// split. An ejected version is not chosen by route or rule unless the file keeps it. `None` if
    /// no version has weight.
    fn assign(&self, request: &RequestView<'_>, route: &Route) -> Option<Assigned> {
        // Snapshots share routes, so ejections are not compiled into them.
        if let Some(version) = route.version
            && (route.keeps_ejected || !self.versions[usize::from(version)].ejected)
        {
            return Some(Assigned::to(version, AssignedBy::Route));
        }
        // Players must be identified even before a canary begins.
        let is_counted = route.evidence.is_some();
        if self.rules.is_empty() && !self.split.needs_key() && !is_counted {
            return self.split.assign(&[]).map(|version| Assigned::to(version, AssignedBy::Only));
        }
        let key = self.cohort.key(request, &route.params);
        let rule = self.rules.iter().find(|r| r.holds(request, &route.params, key.value));
        if let Some(rule) = rule {
            return Some(Assigned::to(rule.version, AssignedBy::Rule));
        }
        let (version, bucket) = self.split.assign_with_bucket(key.value)?;
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
