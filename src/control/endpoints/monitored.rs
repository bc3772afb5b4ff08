//! One endpoint: its place in the snapshot, the counts that were read, and what its state machine changes outside.

use std::time::Duration;

use super::found::{Notice, NoticeKind, Transition};
use crate::{
    config::schema,
    health::{Answers, Health, Overload, State, WHOLE},
    registry::EndpointState,
    snapshot::{Service, Version},
};

/// One endpoint.
#[derive(Debug)]
pub(super) struct Monitored {
    pub(super) place: Place,
    pub(super) health: Health,
    /// What it says of its load.
    pub(super) overload: Overload,
    pub(super) counts: Counts,
    /// A probe is in progress.
    pub(super) asked: bool,
    /// When it was last known by a probe, or by a connection that was tried, whether it can be connected.
    pub(super) answered: Option<Duration>,
    /// When it last got requests although it was ejected, because too few others served.
    pub(super) used: Option<Duration>,
}

/// The place of an endpoint in the snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) service: usize,
    pub(super) version: usize,
    pub(super) endpoint: usize,
}

/// Sums of the workers' counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) started: u64,
    pub(super) faults: u64,
    pub(super) connected: u64,
    pub(super) ended: u64,
    pub(super) overloaded: u64,
}

impl Monitored {
    /// Lets its share follow what it says of its load, by the `new` counts. An endpoint that is `alone` keeps the whole
    /// share: nobody else could take what it is not given.
    pub(super) fn follow_load(
        &mut self,
        new: Counts,
        is_alone: bool,
        state: &EndpointState,
        now: Duration,
    ) {
        if is_alone {
            self.overload = Overload::default();
            return;
        }
        let rest_until = match new.overloaded {
            0 => Duration::ZERO,
            _ => state.rests_until(),
        };
        let answers = Answers { all: new.ended, overloaded: new.overloaded, rest_until };
        self.overload.look(answers, now);
    }

    /// The transition to report if the state is no longer `before`; counts an ejection.
    pub(super) fn moved(
        &self,
        before: State,
        service: &Service,
        version: &Version,
        state: &EndpointState,
        now: Duration,
        reason: impl FnOnce() -> String,
    ) -> Option<Transition> {
        let to = self.health.state();
        if to == before {
            return None;
        }
        let cause = self.health.cause().filter(|_| to == State::Ejected);
        if to == State::Serving {
            warm_up(service, state, now);
        }
        if let Some(cause) = cause {
            state.standing.ejections[cause as usize].add(1);
        }
        Some(Transition {
            service: service.name.clone(),
            version: version.name.clone(),
            endpoint: state.label.clone(),
            to,
            cause,
            pause: self.health.until().map(|until| until.saturating_sub(now)),
            advice: false,
            reason: reason(),
        })
    }

    /// The notice to report if it became reachable or unreachable.
    pub(super) fn reached(
        &self,
        before: bool,
        service: &Service,
        version: &Version,
        state: &EndpointState,
    ) -> Option<Notice> {
        let begins = self.health.is_unreachable();
        let what = NoticeKind::Unreachable { endpoint: state.label.clone() };
        (begins != before).then(|| Notice::of(service, version, what, begins))
    }

    /// Writes the endpoint's status.
    pub(super) fn write_status(
        &self,
        state: &EndpointState,
        settings: &schema::Health,
        now: Duration,
    ) {
        state.standing.set(self.health.state(), self.health.cause());
        state.standing.set_unreachable(self.health.is_unreachable());
        // If no endpoint serves, all get the same share.
        let share = match self.health.share(settings, now) {
            0 => WHOLE,
            share => share,
        };
        let share = f64::from(share) * self.overload.share();
        state.standing.set_share((share.round() as u32).max(1));
    }
}

/// Notes that an endpoint was added or has returned, so that it warms up.
pub(super) fn warm_up(service: &Service, state: &EndpointState, now: Duration) {
    let strata = service.compared.iter().flat_map(|compared| &compared.strata);
    if let Some(longest) = strata.map(|stratum| stratum.limits.warm_up).max() {
        state.warm_up_until(now + longest);
    }
}

impl Counts {
    pub(super) fn read(state: &EndpointState) -> Self {
        Self {
            started: state.cells.sum(|c| c.started.read()),
            faults: state.cells.sum(|c| c.connect_faults()),
            connected: state.cells.sum(|c| c.connected.read()),
            overloaded: state.overloaded(),
            ended: state.cells.sum(|c| c.finished.read()),
        }
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            started: self.started.wrapping_sub(earlier.started),
            faults: self.faults.wrapping_sub(earlier.faults),
            connected: self.connected.wrapping_sub(earlier.connected),
            ended: self.ended.wrapping_sub(earlier.ended),
            overloaded: self.overloaded.wrapping_sub(earlier.overloaded),
        }
    }
}
