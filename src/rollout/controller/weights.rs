//! Weights that are set while it runs.

use indexmap::IndexMap;

use super::Controller;
use crate::{
    config::{Config, schema, units::Weight},
    rollout::events::{Kind, Matter},
    snapshot::{Overrides, weights_in_force},
};

/// A change of weights as asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The service.
    pub service: String,
    /// Weights by version; a version not named gets 0.
    pub weights: IndexMap<String, Weight>,
    /// The generation that the caller saw; another one in force refuses the change.
    pub if_generation: Option<u64>,
    /// Who asks, for the log.
    pub by: String,
    /// Why, for the log.
    pub reason: Option<String>,
    /// Only tell what would change.
    pub dry_run: bool,
}

/// Why a change was refused; nothing changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejected {
    /// The service does not exist.
    #[error("there is no service `{service}`; there are: {known}")]
    NoService {
        /// As asked for.
        service: String,
        /// Names of services.
        known: String,
    },
    /// A version does not exist.
    #[error("service `{service}` has no version `{version}`; it has: {known}")]
    NoVersion {
        /// As asked for.
        service: String,
        /// As asked for.
        version: String,
        /// Names of versions.
        known: String,
    },
    /// A version that weights name does not exist.
    #[error("service `{service}` has no version `{version}`; it has: {known}")]
    NoVersionToWeigh {
        /// As asked for.
        service: String,
        /// As asked for.
        version: String,
        /// Names of versions.
        known: String,
    },
    /// All weights are 0.
    #[error("all weights are 0, so nobody could be served; give at least one version a weight")]
    NoWeight,
    /// Nobody would be served.
    #[error(
        "`{version}` is the last version of `{service}` that serves; give another one weight first"
    )]
    LastVersion {
        /// The service.
        service: String,
        /// Its version.
        version: String,
    },
    /// There is nothing to take back.
    #[error("version `{version}` of `{service}` is not ejected")]
    NotEjected {
        /// The service.
        service: String,
        /// Its version.
        version: String,
    },
    /// A version has no such endpoint.
    #[error("version `{version}` of `{service}` has no endpoint `{endpoint}`; it has: {known}")]
    NoEndpoint {
        /// The service.
        service: String,
        /// Its version.
        version: String,
        /// As asked for.
        endpoint: String,
        /// Addresses of endpoints.
        known: String,
    },
    /// No other endpoint of the version serves.
    #[error(
        "no endpoint of version `{version}` of `{service}` serves beside `{endpoint}`; eject the version instead"
    )]
    LastEndpoint {
        /// The service.
        service: String,
        /// Its version.
        version: String,
        /// The endpoint.
        endpoint: String,
    },
    /// There is no endpoint to take back.
    #[error(
        "endpoint `{endpoint}` of version `{version}` of `{service}` is not ejected; it is {state}"
    )]
    EndpointNotEjected {
        /// The service.
        service: String,
        /// Its version.
        version: String,
        /// The endpoint.
        endpoint: String,
        /// Its state.
        state: &'static str,
    },
    /// Another process has taken over.
    #[error("another process has taken over; ask again on a new connection")]
    HandedOver,
    /// Somebody else made a change first.
    #[error("the generation is {actual}, not {expected}: somebody else made a change; look again")]
    Outdated {
        /// As the caller saw it.
        expected: u64,
        /// In force.
        actual: u64,
    },
}

/// What a change did, or would do.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// Generation in force afterwards; of a dry run the one that is in force now.
    pub generation: u64,
    /// Weights before, by version.
    pub before: IndexMap<String, Weight>,
    /// Weights after, by version.
    pub after: IndexMap<String, Weight>,
}

impl Controller {
    /// Whether a change may be made now, by a caller who saw the generation `expected`; answers the one
    /// in force.
    pub(super) fn admit_change(&self, expected: Option<u64>) -> Result<u64, Rejected> {
        if self.handed_over {
            return Err(Rejected::HandedOver);
        }
        let actual = self.snapshot().generation;
        match expected.filter(|expected| *expected != actual) {
            Some(expected) => Err(Rejected::Outdated { expected, actual }),
            None => Ok(actual),
        }
    }

    pub(super) fn known_service(&self, service: &str) -> Result<&schema::Service, Rejected> {
        self.config.services.get(service).ok_or_else(|| {
            let known = list(self.config.services.keys());
            Rejected::NoService { service: service.to_owned(), known }
        })
    }

    /// Changes the weights of a service. When this returns, they are in force on every worker.
    pub fn set_weights(&mut self, change: Change) -> Result<Applied, Rejected> {
        let generation = self.admit_change(change.if_generation)?;
        let service = self.known_service(&change.service)?;
        if let Some(version) = change.weights.keys().find(|v| !service.versions.contains_key(*v)) {
            return Err(Rejected::NoVersionToWeigh {
                service: change.service.clone(),
                version: version.clone(),
                known: list(service.versions.keys()),
            });
        }
        if change.weights.values().all(|w| *w == Weight::ZERO) {
            return Err(Rejected::NoWeight);
        }
        let in_force = |overrides: &Overrides| -> IndexMap<String, Weight> {
            let weights = weights_in_force(&change.service, service, overrides);
            weights.into_iter().map(|(version, weight)| (version.clone(), weight)).collect()
        };
        let before = in_force(&self.overrides);
        let asked = Overrides::from([(change.service.clone(), change.weights.clone())]);
        let after = in_force(&asked);
        if change.dry_run {
            return Ok(Applied { generation, before, after });
        }
        self.overrides.extend(asked);
        let generation = self.publish(true);
        let (from, to) = (show(&before), show(&after));
        let reason = change.reason.as_deref().unwrap_or("");
        tracing::info!(
            service = change.service,
            from,
            to,
            generation,
            by = change.by,
            reason,
            "weights changed"
        );
        let reason = if reason.is_empty() {
            format!("{from} -> {to}")
        } else {
            format!("{from} -> {to}: {reason}")
        };
        let (service, by) = (Some(change.service), Some(change.by));
        self.record(Kind::Weights, Matter { service, by, reason, ..Matter::default() });
        Ok(Applied { generation, before, after })
    }
}

/// Whether weights set while running outlive a reload: only while the file's own weights for the
/// service are as before and somebody would still be served.
pub(super) fn keeps_override(
    name: &str,
    weights: &IndexMap<String, Weight>,
    file_as_before: bool,
    new: &Config,
) -> bool {
    let Some(service) = new.services.get(name) else { return false };
    let serves = weights.iter().any(|(v, w)| service.versions.contains_key(v) && *w > Weight::ZERO);
    if !serves {
        tracing::warn!(
            service = name,
            "the weights set while running name no version of the file; the file's apply"
        );
    }
    serves && file_as_before
}

pub(super) fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn show(weights: &IndexMap<String, Weight>) -> String {
    let each = weights.iter().map(|(version, weight)| format!("{version}={}", weight.value()));
    each.collect::<Vec<_>>().join(" ")
}
