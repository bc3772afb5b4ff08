//! Who ejected a version or an endpoint, when and why.

use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{VersionVerdict, digits::six_digits, rollout::RolloutSummary};
use crate::control::{
    Controller,
    carried::SetWeights,
    controller::{self, ManualEjection},
};
use crate::telemetry::rfc3339;

/// Why and since when a version, or an endpoint, is ejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejection {
    /// When, as RFC 3339 in UTC.
    pub at: String,
    /// Who ejected it: the name of a token, `anonymous` without tokens, or `verdict`.
    pub by: String,
    /// Why; empty if no reason was given.
    pub reason: String,
}

impl Ejection {
    fn new(since: SystemTime, by: &str, reason: &str) -> Self {
        let at = rfc3339::seconds(since).to_string();
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

/// Who set the weights of a service at run time, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsSet {
    /// When, as RFC 3339 in UTC; null if an earlier process that does not say so set them.
    pub at: Option<String>,
    /// Who set them: the name of a token, `anonymous` without tokens, or `another process`.
    pub by: String,
    /// Why; empty if no reason was given.
    pub reason: String,
}

impl From<&SetWeights> for WeightsSet {
    fn from(weights: &SetWeights) -> Self {
        let Some(why) = &weights.why else {
            let (by, reason) = ("another process".to_owned(), String::new());
            return Self { at: None, by, reason };
        };
        let at = Some(rfc3339::seconds(why.at()).to_string());
        Self { at, by: why.by.clone(), reason: why.reason.clone() }
    }
}

/// An ejected version, in the response to a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ejected {
    /// The version.
    pub version: String,
    /// Why and since when.
    #[serde(flatten)]
    pub ejection: Ejection,
    /// Its share of players, 0 to 1 and to six digits, once it is reinstated.
    #[serde(default)]
    pub share_when_reinstated: f64,
}

impl Ejected {
    /// The ejected versions of `service`, with shares by the weights in force.
    pub fn in_force(controller: &Controller, service: &str) -> Vec<Self> {
        Self::of(controller, service, &controller.shares_when_reinstated(service))
    }

    /// The ejected versions of `service`, with their shares once they are reinstated.
    pub fn of(
        controller: &Controller,
        service: &str,
        returning: &IndexMap<String, f64>,
    ) -> Vec<Self> {
        let ejections = controller.ejections().into_iter();
        let own = ejections.filter(|((of, _), _)| of == service);
        let each = own.map(|((_, version), ejection)| Self {
            version: version.clone(),
            ejection: ejection.into(),
            share_when_reinstated: six_digits(returning.get(version).copied().unwrap_or(0.0)),
        });
        each.collect()
    }
}

/// State of a service that the controller has and the snapshot does not.
#[derive(Debug, Default)]
pub struct Decisions {
    pub(super) verdicts: Vec<VersionVerdict>,
    /// By version.
    pub(super) ejections: HashMap<String, Ejection>,
    /// By version and address of the endpoint.
    pub(super) endpoints: HashMap<(String, String), Ejection>,
    pub(super) weights_refused: Option<String>,
    pub(super) weights_set: Option<WeightsSet>,
    pub(super) rollout: Option<RolloutSummary>,
    /// Names that are not resolved, and why, by version.
    pub(super) unresolved: HashMap<String, BTreeMap<String, String>>,
}

impl Decisions {
    /// Collects the state of `service` from `controller`.
    pub fn of(controller: &Controller, service: &str) -> Self {
        let ejected = controller.ejections().into_iter().filter(|((of, _), _)| of == service);
        let endpoints = controller.manual_ejections().iter();
        let endpoints = endpoints.filter(|((of, _, _), _)| of == service);
        let verdicts = controller.verdicts(service).into_iter().map(|(version, route, verdict)| {
            let subject = (&*version, route.as_deref(), &verdict);
            let began = controller.compared_since(service, subject);
            VersionVerdict::new(version, route, verdict, began)
        });
        Self {
            verdicts: verdicts.collect(),
            ejections: ejected.map(|((_, v), ejection)| (v.clone(), ejection.into())).collect(),
            endpoints: endpoints
                .map(|((_, version, address), ejection)| {
                    ((version.clone(), address.clone()), ejection.into())
                })
                .collect(),
            unresolved: controller.unresolved(service),
            weights_set: controller.state().weights().get(service).map(Into::into),
            rollout: controller.rollout(service).and_then(RolloutSummary::of),
            weights_refused: controller.state().stand_ins().get(service).map(|s| s.why.clone()),
        }
    }
}
