//! Growth that needs a second person: of a service with `second_person`, every way besides its own plan.
//!
//! The plan of a service says where a person must approve. Whoever gives a version players in another way would pass
//! these approvals, so a second person must agree with the command itself. One rule decides, whatever the command is:
//! nobody alone gives a version other than the baseline more players. Each split that the service has, or can come to
//! without another command that asks for a second person, is compared before and after the change: as it is written; as
//! if no version was ejected, since an ejection may be taken back; and the split before the rollout, while that can come
//! back. Health is no part of them: a version that cannot serve at present would get its players later, when nobody asks.
//!
//! What ends the harm of a bad version waits for nobody: its ejection, and the way back from its rollout to the split
//! before, which others had agreed to.

use indexmap::IndexMap;

use super::{
    ChangeHead, Controller, Destination, MovePins, PlanAsked, Rejected,
    written::{ROUNDING, before_rollout, shares, weighed, written},
};
use crate::{
    config::schema,
    control::state::ControlState,
    rollout::{Event, Plan, Rollout, Weights},
};

/// What leads back, and gives a canary more players by it.
const FORWARD: &str = "a way back that gives a version other than the baseline more players";

impl Controller {
    /// Refuses the start of a rollout of `service` by a plan that is not its own, if nobody agrees.
    pub(super) fn refuse_plan_alone(
        &self,
        (name, service): (&str, &schema::Service),
        plan: &PlanAsked,
        head: &ChangeHead,
    ) -> Result<(), Rejected> {
        match foreign(plan, service.rollout.as_deref()) {
            Some(what) => refuse_alone((name, service), what, head),
            None => Ok(()),
        }
    }

    /// Refuses the start of a rollout that skips an approval of `plan` because its version has the share `has`
    /// already, if nobody agrees.
    pub(super) fn refuse_skipping_alone(
        &self,
        place: (&str, &schema::Service),
        plan: &Plan,
        has: f64,
        head: &ChangeHead,
    ) -> Result<(), Rejected> {
        match plan.skips_approval(has) {
            true => {
                refuse_alone(place, "a rollout that begins after a step with an approval", head)
            }
            false => Ok(()),
        }
    }

    /// Refuses a change to the state `then` that gives a version of the service other than its baseline more players,
    /// if nobody agrees.
    pub(super) fn refuse_growth_alone(
        &self,
        (name, then): (&str, &ControlState),
        what: &'static str,
        head: &ChangeHead,
    ) -> Result<(), Rejected> {
        let service = self.known_service(name)?;
        if !service.second_person {
            return Ok(());
        }
        let grows = [written, weighed, before_rollout].into_iter().any(|split| {
            let (before, after) = (split(name, service, &self.state), split(name, service, then));
            grown(&service.baseline, &before, &after)
        });
        match grows {
            true => refuse_alone((name, service), what, head),
            false => Ok(()),
        }
    }

    /// As [`Controller::refuse_growth_alone`], for a command to `rollout` that leads to the split `then`, at once or later.
    /// Without one it leads nowhere.
    fn refuse_split_alone(
        &self,
        (rollout, then): (&Rollout, Option<Weights>),
        what: &'static str,
        head: &ChangeHead,
    ) -> Result<(), Rejected> {
        let name = &*rollout.service;
        let service = self.known_service(name)?;
        let then = then.unwrap_or_default();
        let grown = |before, after: &Weights| grown(&service.baseline, &before, &shares(after));
        let grows = grown(written(name, service, &self.state), &rollout.serving(&then))
            || grown(weighed(name, service, &self.state), &then);
        match grows {
            true => refuse_alone((name, service), what, head),
            false => Ok(()),
        }
    }

    /// As [`Controller::refuse_growth_alone`], for a cutover. The way back from a rollout is open to everybody.
    pub(super) fn refuse_cutover_alone(
        &self,
        (name, to, then): (&str, &Destination, &ControlState),
        head: &ChangeHead,
    ) -> Result<(), Rejected> {
        let what = match to {
            Destination::Version(_) => "growth by hand",
            Destination::Before => {
                let service = self.known_service(name)?;
                let live = self.rollouts.get(name).map(|live| &live.rollout);
                let weights = then.weights().get(name);
                let is_way_back = live.zip(weights).is_some_and(|(rollout, weights)| {
                    is_safe(rollout, &service.baseline) && self.way_back(name, weights).is_some()
                });
                if is_way_back {
                    return Ok(());
                }
                FORWARD
            }
        };
        self.refuse_growth_alone((name, then), what, head)
    }

    /// As [`Controller::refuse_growth_alone`], for going on with a rollout after somebody set the weights: its step sets the
    /// split of all versions again.
    pub(super) fn refuse_resuming_alone(
        &self,
        rollout: &Rollout,
        event: &Event,
        head: &ChangeHead,
    ) -> Result<(), Rejected> {
        if !rollout.by_hand || !matches!(event, Event::Resume { .. }) {
            return Ok(());
        }
        let split = rollout.split_of(rollout.plan.step(rollout.step));
        self.refuse_split_alone((rollout, split), "going on after weights were set by hand", head)
    }

    /// As [`Controller::refuse_growth_alone`], for the commands that end a rollout.
    pub(super) fn refuse_way_back_alone(
        &self,
        rollout: &Rollout,
        event: &Event,
        head: &ChangeHead,
    ) -> Result<(), Rejected> {
        let keeps = rollout.by_hand && matches!(event, Event::Abort { .. });
        let is_end = matches!(event, Event::Rollback { .. } | Event::Abort { .. });
        let service = self.known_service(&rollout.service)?;
        if !is_end || keeps || is_safe(rollout, &service.baseline) {
            return Ok(());
        }
        self.refuse_split_alone((rollout, rollout.way()), FORWARD, head)
    }

    /// As [`Controller::refuse_growth_alone`], for the reinstatement of a version.
    pub(super) fn refuse_reinstating_alone(
        &self,
        place: (&str, &ControlState),
        head: &ChangeHead,
    ) -> Result<(), Rejected> {
        let what =
            "the reinstatement of a version that has players in the split or in the way back";
        self.refuse_growth_alone(place, what, head)
    }

    /// Refuses to move pins to a version other than the baseline, if nobody agrees.
    pub(super) fn refuse_pins_alone(&self, asked: &MovePins) -> Result<(), Rejected> {
        let service = self.known_service(&asked.service)?;
        match asked.to == service.baseline {
            true => Ok(()),
            false => refuse_alone((&asked.service, service), "pins moved by hand", &asked.head),
        }
    }
}

/// Why `plan` is not that of the service, which names the plan `own`; `None` if it is.
fn foreign(plan: &PlanAsked, own: Option<&str>) -> Option<&'static str> {
    match plan {
        PlanAsked::OfService => None,
        PlanAsked::Steps(_) => Some("a rollout by steps that are not in the file"),
        PlanAsked::Named(plan) if own == Some(plan) => None,
        PlanAsked::Named(_) => Some("a rollout by a plan that the service does not name"),
    }
}

/// Whether the way back from `rollout` is that from a version that a bad release made: its weights are still its own,
/// and it is not one that leads to the baseline.
fn is_safe(rollout: &Rollout, baseline: &str) -> bool {
    !rollout.by_hand && rollout.to != baseline
}

/// Whether a version other than the `baseline` has a larger share after than before.
fn grown(baseline: &str, before: &IndexMap<String, f64>, after: &IndexMap<String, f64>) -> bool {
    let share = |of: &IndexMap<String, f64>, version| of.get(version).copied().unwrap_or(0.0);
    let mut canaries = after.keys().filter(|version| *version != baseline);
    canaries.any(|version| share(after, version) > share(before, version) * (1.0 + ROUNDING))
}

fn refuse_alone(
    (name, service): (&str, &schema::Service),
    what: &'static str,
    head: &ChangeHead,
) -> Result<(), Rejected> {
    let agrees = head.second.as_ref().is_some_and(|second| *second != head.by.name);
    match !service.second_person || agrees {
        true => Ok(()),
        false => {
            let (service, by) = (name.to_owned(), head.by.name.clone());
            Err(Rejected::Alone { service, what, by })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Actor;

    fn service(more: &str) -> schema::Service {
        let text = format!(
            "{{ baseline: v1, {more} versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 ] }}, \
             v2: {{ endpoints: [ 127.0.0.1:2 ] }}, v3: {{ endpoints: [ 127.0.0.1:3 ] }} }} }}"
        );
        let file = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nservices: {{ s: {text} }}\nroutes: [ {{ service: s }} ]"
        );
        crate::config::parse(&file).expect("a good file").services["s"].clone()
    }

    #[test]
    fn only_what_gives_a_canary_more_players_is_growth() {
        let shares = |v1: f64, v2: f64, v3: f64| -> IndexMap<String, f64> {
            [("v1", v1), ("v2", v2), ("v3", v3)].map(|(v, s)| (v.to_owned(), s)).into()
        };
        let before = shares(0.8, 0.2, 0.0);
        for (after, grows) in [
            (shares(0.8, 0.2, 0.0), false),
            (shares(1.0, 0.0, 0.0), false),
            (shares(0.79, 0.21, 0.0), true),
            (shares(0.9, 0.05, 0.05), true),
            // However little it is: many changes are a lot.
            (shares(0.8 - 1e-9, 0.2 + 1e-9, 0.0), true),
            (shares(0.8, 0.2, 1e-12), true),
            // The same share from other weights.
            (shares(2.4 / 3.0, 0.6 / 3.0 + f64::EPSILON / 8.0, 0.0), false),
        ] {
            assert_eq!(grown("v1", &before, &after), grows, "{after:?}");
        }
    }

    /// Regression: a service that named no plan let everybody choose one.
    #[test]
    fn only_the_plan_that_the_service_names_is_its_own() {
        let named = |name: &str| PlanAsked::Named(name.to_owned());
        for (plan, own, is_own) in [
            (PlanAsked::OfService, Some("p"), true),
            (named("p"), Some("p"), true),
            (named("fast"), Some("p"), false),
            (named("fast"), None, false),
            (PlanAsked::Steps(Vec::new()), Some("p"), false),
            (PlanAsked::Steps(Vec::new()), None, false),
        ] {
            assert_eq!(foreign(&plan, own).is_none(), is_own, "{plan:?} {own:?}");
        }
    }

    #[test]
    fn a_second_person_is_another_one_and_only_asked_for_where_the_file_says_so() {
        let by = |second: Option<&str>| {
            let actor = Actor { name: "ana".to_owned(), ..Actor::system() };
            ChangeHead { second: second.map(str::to_owned), ..ChangeHead::of(actor) }
        };
        let (strict, other) = (service("second_person: true,"), service(""));
        for (second, is_enough) in [(None, false), (Some("ana"), false), (Some("ben"), true)] {
            let head = by(second);
            assert_eq!(refuse_alone(("s", &strict), "growth", &head).is_ok(), is_enough);
            assert!(refuse_alone(("s", &other), "growth", &head).is_ok());
        }
        let refused = refuse_alone(("s", &strict), "growth by hand", &by(None)).unwrap_err();
        let text = refused.to_string();
        assert!(text.starts_with("`s` asks for a second person: growth by hand needs"), "{text}");
    }
}
