//! The endpoints of a version compared with each other, and with those of the baseline.

use std::time::Duration;

use super::{EndpointMonitor, found::Transition};
use crate::{
    analysis::{self, Change, Counter},
    config::{schema::Mode, units::Weight},
    health::{Cause, State},
    registry::EndpointState,
    snapshot::{Endpoint, Service, Version},
};

/// The comparisons of a version's endpoints.
#[derive(Debug, Default)]
pub(super) struct PeerTests {
    /// With each other, by requests.
    among: analysis::Endpoints,
    /// With each other and with the endpoints of the baseline, by players.
    beside: analysis::Endpoints,
}

impl EndpointMonitor {
    /// Compares the endpoints of a version with each other.
    pub(super) fn compare(&mut self, service: &Service, version: &Version, now: Duration) {
        // Counts from before a change of shares belong to another rollout.
        if !is_compared(service, version) || version.weight == Weight::ZERO {
            self.crowds.remove(&version.state.id);
            return;
        }
        let label = |e: &Endpoint| e.state.label.clone();
        let labels: Vec<Box<str>> = version.known.iter().map(label).collect();
        let of = |count: fn(&EndpointState) -> Counter| -> Vec<(&str, Counter)> {
            labels.iter().zip(&version.known).map(|(of, e)| (&**of, count(&e.state))).collect()
        };
        let beside: Vec<_> = (beside(service, version).iter())
            .flat_map(|baseline| &baseline.known)
            .map(|e| (&*e.state.label, e.state.judged.read()))
            .collect();
        let crowd = self.crowds.entry(version.state.id).or_default();
        let mut changes = crowd.among.poll(&of(EndpointState::attempts), &[], now);
        changes.iter().for_each(|change| change.apply_to(&mut crowd.beside));
        if beside.is_empty() {
            crowd.beside = analysis::Endpoints::default();
        } else {
            let more = crowd.beside.poll(&of(|e| e.judged.read()), &beside, now);
            more.iter().for_each(|change| change.apply_to(&mut crowd.among));
            changes.extend(more);
        }
        for change in changes {
            // An endpoint ejected by comparison returns after a successful probe: its state machine handles
            // that.
            let Change::Eject { endpoint, until, test } = change else { continue };
            let known = version.known.iter().find(|e| e.state.label == endpoint);
            let Some(state) = known.map(|known| &*known.state) else { continue };
            let Some(watched) = self.endpoints.get_mut(&state.id) else { continue };
            let onset = test.onset().map(|(_, counted)| counted.trials);
            let counts = onset.unwrap_or_else(|| test.estimate().total());
            let reason = || {
                let (own, peers) = (counts.canary, counts.baseline);
                let (failed, of) = (own.failures(), own.trials());
                let (others, of_others) = (peers.failures(), peers.trials());
                format!("{failed} of {of} failed, of its peers' {others} of {of_others}")
            };
            if service.compared.as_ref().is_some_and(|compared| compared.mode == Mode::Act) {
                let before = watched.health.state();
                watched.health.eject(Cause::Peers, Some(until), now);
                self.moves.extend(watched.moved(before, service, version, state, now, reason));
            } else {
                self.moves.push(Transition {
                    service: service.name.clone(),
                    version: version.name.clone(),
                    endpoint,
                    to: State::Ejected,
                    cause: Some(Cause::Peers),
                    pause: Some(until.saturating_sub(now)),
                    advice: true,
                    reason: reason(),
                });
            }
        }
    }
}

/// Whether the endpoints of `version` are compared with each other and with those of the baseline.
pub(super) fn is_compared(service: &Service, version: &Version) -> bool {
    let is_beside = beside(service, version).is_some();
    service.compared.is_some() && analysis::Endpoints::is_enough(version.known.len(), is_beside)
}

/// The baseline, if `version` is a canary and the baseline has a share.
fn beside<'s>(service: &'s Service, version: &Version) -> Option<&'s Version> {
    let baseline = service.versions.get(usize::from(service.baseline))?;
    let has_share = baseline.weight > Weight::ZERO && !baseline.ejected && !baseline.unserved;
    (has_share && baseline.state.id != version.state.id).then_some(baseline)
}
