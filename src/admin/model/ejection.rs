//! Who took a version or an endpoint out, when and why.

use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use super::VersionVerdict;
use crate::rollout::{
    Controller,
    controller::{self, ManualEjection},
};

/// Why and since when a version, or an endpoint, is ejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejection {
    /// When, as RFC 3339 in UTC.
    pub at: String,
    /// Who ejected it: the name of a token, `anonymous` without tokens, or `verdict`.
    pub by: String,
    /// Why; empty if nobody said.
    pub reason: String,
}

impl Ejection {
    fn new(since: SystemTime, by: &str, reason: &str) -> Self {
        let at = humantime::format_rfc3339_seconds(since).to_string();
        Self { at, by: by.to_owned(), reason: reason.to_owned() }
    }
}

impl From<&controller::Ejection> for Ejection {
    fn from(ejection: &controller::Ejection) -> Self {
        Self::new(ejection.since, &ejection.by, &ejection.reason)
    }
}

impl From<&ManualEjection> for Ejection {
    fn from(ejection: &ManualEjection) -> Self {
        Self::new(ejection.since, &ejection.by, &ejection.reason)
    }
}

/// A version that is ejected, in the answer to a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejected {
    /// The version.
    pub version: String,
    /// Why and since when.
    #[serde(flatten)]
    pub ejection: Ejection,
}

impl Ejected {
    /// The versions of `service` that are ejected.
    pub fn of(controller: &Controller, service: &str) -> Vec<Self> {
        let ejections = controller.ejections().iter();
        let own = ejections.filter(|((of, _), _)| of == service);
        let each = own.map(|((_, version), ejection)| Self {
            version: version.clone(),
            ejection: ejection.into(),
        });
        each.collect()
    }
}

/// What the controller knows of a service that its snapshot does not have.
#[derive(Debug, Default)]
pub struct Decisions {
    pub(super) verdicts: Vec<VersionVerdict>,
    /// By version.
    pub(super) ejections: HashMap<String, Ejection>,
    /// By version and address of the endpoint.
    pub(super) endpoints: HashMap<(String, String), Ejection>,
    pub(super) weights_refused: Option<String>,
    /// Names that are not resolved, and why, by version.
    pub(super) unresolved: HashMap<String, BTreeMap<String, String>>,
}

impl Decisions {
    /// Those of `controller` on `service`.
    pub fn of(controller: &Controller, service: &str) -> Self {
        let ejected = Ejected::of(controller, service).into_iter();
        let endpoints = controller.manual_ejections().iter();
        let endpoints = endpoints.filter(|((of, _, _), _)| of == service);
        Self {
            verdicts: controller.verdicts(service).into_iter().map(Into::into).collect(),
            ejections: ejected.map(|e| (e.version, e.ejection)).collect(),
            endpoints: endpoints
                .map(|((_, version, address), ejection)| {
                    ((version.clone(), address.clone()), ejection.into())
                })
                .collect(),
            unresolved: controller.unresolved(service),
            weights_refused: controller.stand_ins().get(service).map(|s| s.why.clone()),
        }
    }
}
