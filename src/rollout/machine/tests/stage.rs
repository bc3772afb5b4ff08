//! A rollout with its surroundings, for tests.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use super::super::{apply, start};
use crate::{
    config::{problem::FieldPath, schema::Step, units::Weight},
    rollout::{
        event::{Action, Event, Observed, Refused, Start},
        gate::Reply,
        phase::Phase,
        plan::Plan,
        split::Weights,
        state::Rollout,
    },
};

/// Steps of 1 %, 50 % and 100 %.
pub(super) const PLAN: &str = r#"[
    { "weight": "1%", "for": "2m", "gates": [ "evidence" ] },
    { "weight": "50%", "for": "10m", "gates": [ "evidence", "approval" ] },
    { "weight": "100%", "bake": "1h" }
]"#;

pub(super) fn weights(of: &[(&str, f64)]) -> Weights {
    of.iter().map(|(name, w)| ((*name).to_owned(), Weight::new(*w).expect("a weight"))).collect()
}

fn plan(text: &str) -> Plan {
    let steps: Vec<Step> = serde_json::from_str(text).expect(text);
    Plan::new(Some("careful"), &steps, &FieldPath::default()).expect(text)
}

/// A start by `bo`, from all players on `v41` to `v42`.
pub(super) fn request(text: &str) -> Start {
    Start {
        urgent: false,
        service: "wallet".to_owned(),
        to: "v42".to_owned(),
        plan: plan(text),
        by: "bo".to_owned(),
        reason: "4.2".to_owned(),
        second_person: false,
        weights: weights(&[("v41", 100.0)]),
        ejected: BTreeSet::new(),
    }
}

/// A rollout, and what the next tick is told.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) rollout: Rollout,
    /// The wall time; the other clock is in `seen`.
    pub(super) now: SystemTime,
    pub(super) seen: Observed,
    in_force: Weights,
}

impl Stage {
    pub(super) fn new(text: &str) -> Self {
        Self::with(text, |_| {})
    }

    pub(super) fn with(text: &str, change: impl Fn(&mut Start)) -> Self {
        let mut request = request(text);
        change(&mut request);
        let in_force = request.weights.clone();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        let (rollout, _) = start(request, None, now).expect("it starts");
        Self { rollout, now, seen: Observed::default(), in_force }
    }

    /// The next rollout of the same service.
    pub(super) fn from(stage: Self, rollout: Rollout) -> Self {
        Self { in_force: rollout.weights.clone(), rollout, ..stage }
    }

    pub(super) fn phase(&self) -> Phase {
        self.rollout.phase
    }

    /// The weights that were set last.
    pub(super) fn weights(&self) -> Weights {
        assert_eq!(self.in_force, self.rollout.weights);
        self.in_force.clone()
    }

    pub(super) fn try_send(&mut self, event: Event) -> Result<Vec<Action>, Refused> {
        let (rollout, actions) = apply(&self.rollout, event, self.now)?;
        self.rollout = rollout;
        for action in &actions {
            if let Action::SetWeights(weights) = action {
                self.in_force.clone_from(weights);
            }
        }
        Ok(actions)
    }

    pub(super) fn send(&mut self, event: Event) -> Vec<Action> {
        self.try_send(event).expect("it is not refused")
    }

    /// Somebody sets these weights.
    pub(super) fn set_by_hand(&mut self, of: &[(&str, f64)]) -> Vec<Action> {
        self.in_force = weights(of);
        self.send(Event::WeightsByHand { weights: weights(of), by: "ana".to_owned() })
    }

    /// A tick each second for `seconds`; one at once if that is 0.
    pub(super) fn tick(&mut self, seconds: u64) -> Vec<Action> {
        if seconds == 0 {
            return self.tick_after(Duration::ZERO);
        }
        (0..seconds).flat_map(|_| self.tick_after(Duration::from_secs(1))).collect()
    }

    /// A tick after `pause`, in which there is none.
    pub(super) fn tick_after(&mut self, pause: Duration) -> Vec<Action> {
        self.now += pause;
        self.seen.moment += pause;
        let actions = self.send(Event::Tick(self.seen.clone()));
        self.seen.replies.clear();
        actions
    }

    /// Ticks each second for `seconds`, or until it has ended.
    pub(super) fn wait(&mut self, seconds: u64) -> &mut Self {
        for _ in 0..seconds {
            if !self.phase().is_end() {
                self.tick(1);
            }
        }
        self
    }

    /// From now on all that measures passes.
    pub(super) fn pass(&mut self) -> &mut Self {
        let pass = Some(Reply::Pass.because("good"));
        self.seen.evidence.clone_from(&pass);
        self.seen.slo.clone_from(&pass);
        self.seen.amounts = pass;
        self
    }

    /// The next tick brings an answer.
    pub(super) fn reply(&mut self, ask: u64, reply: Reply) {
        self.seen.replies.push((ask, reply.because("said")));
    }
}
