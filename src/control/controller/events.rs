//! The events that the controller records, and the alerts that end when their subject is gone.

use std::{collections::BTreeMap, time::SystemTime};

use super::Controller;
use crate::control::{
    alerts::AlertName,
    evaluator::CanaryFinding,
    events::{EventDetails, EventKind, Events},
};

/// Messages to each receiver of alerts since the start, by receiver: accepted, and failed.
pub type Webhooks = BTreeMap<String, [u64; 2]>;

impl Controller {
    /// The last events, and the alerts that fire.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// The name of this instance in alerts: the host and the port of the admin endpoint, or of the first
    /// listener.
    pub fn instance(&self) -> String {
        let name = rustix::system::uname();
        let host = name.nodename().to_string_lossy();
        let admin = self.at_start.admin.as_ref().map(|admin| admin.address.port());
        // Port 0 is any free one, and only the listeners know which.
        let port = admin.filter(|port| *port != 0).map(|port| port.to_string());
        let port = port.or_else(|| {
            let (_, port) = self.listeners.first()?.name.rsplit_once(':')?;
            Some(port.to_owned())
        });
        format!("{host}:{}", port.unwrap_or_default())
    }

    /// Records an event.
    pub(super) fn record(&mut self, kind: EventKind, matter: EventDetails) {
        self.record_at(kind, matter, SystemTime::now());
    }

    /// Records an event that happened at `at`, possibly in another process.
    pub(super) fn record_at(&mut self, kind: EventKind, mut matter: EventDetails, at: SystemTime) {
        self.open_incident_of(kind, &mut matter, at);
        let generation = self.snapshot().generation;
        self.events.record(kind, generation, matter, at);
    }

    /// Ends alerts about versions and endpoints that no longer exist or are no longer compared.
    pub(super) fn forget_alerts(&mut self) {
        let (snapshot, ejections) = (self.snapshot(), self.state.ejections());
        self.events.alerts_mut().retain(SystemTime::now(), |subject| {
            let Some(name) = &subject.service else { return true };
            let Some(service) = snapshot.service(name) else { return false };
            let version = subject.version.as_deref();
            match subject.name {
                AlertName::SharedOutage => service.compared.is_some(),
                AlertName::VersionWorse | AlertName::NearMiss => {
                    service.compared.is_some()
                        && version.is_some_and(|v| service.version(v).is_some())
                }
                AlertName::RolloutWantsApproval => {
                    let live = self.rollouts.get(name).map(|live| &live.rollout);
                    live.is_some_and(|live| live.wants_approval() && version == Some(&*live.to))
                }
                // These alerts end after a fixed time.
                AlertName::EjectionMistaken
                | AlertName::FewPlayers
                | AlertName::RolloutRolledBack
                | AlertName::RolloutWaits => true,
                AlertName::JournalFailing
                | AlertName::JournalNotIntact
                | AlertName::IdempotencyFailing => true,
                AlertName::VersionEjected => version.is_some_and(|version| {
                    service.version(version).is_some()
                        && ejections.contains_key(&(name.clone(), version.to_owned()))
                }),
                AlertName::EndpointOut => {
                    let known = version.and_then(|version| service.version(version));
                    let mut known = known.into_iter().flat_map(|version| &version.known);
                    known.any(|known| Some(&*known.state.label) == subject.endpoint.as_deref())
                }
            }
        });
    }

    /// Messages to receivers of alerts since the start, including receivers that were sent none.
    pub fn webhooks(&self) -> Webhooks {
        let receivers = self.config.alerts.iter().flat_map(|alerts| &alerts.webhooks);
        let mut all: Webhooks = receivers.map(|webhook| (webhook.label(), [0, 0])).collect();
        all.extend(self.webhooks.clone());
        all
    }

    /// Notes whether `receiver` accepted a message.
    pub fn note_webhook(&mut self, receiver: &str, taken: bool) {
        self.webhooks.entry(receiver.to_owned()).or_default()[usize::from(!taken)] += 1;
    }
}

impl EventDetails {
    pub(super) fn of_suspect(suspect: CanaryFinding) -> Self {
        Self {
            service: Some(suspect.service.into()),
            version: Some(suspect.version.into()),
            route: suspect.route.map(String::from),
            reason: suspect.verdict.reason.clone(),
            verdict: Some(suspect.verdict),
            ..Self::default()
        }
    }

    pub(super) fn of_place(service: String, version: String, reason: String) -> Self {
        Self { service: Some(service), version: Some(version), reason, ..Self::default() }
    }

    pub(super) fn of_version(service: String, version: String, by: String, reason: String) -> Self {
        Self { by: Some(by), ..Self::of_place(service, version, reason) }
    }
}
