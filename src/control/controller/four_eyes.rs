//! Growth that needs a second person: of a service with `second_person`, every way besides its own plan.
//!
//! The plan of a service says where a person must approve. Whoever gives a version players by other steps, or by hand,
//! would pass these approvals, so a second person must agree with the command itself. What takes players back never
//! waits for anybody: to the baseline, or to the split before.

use indexmap::IndexMap;

use super::{Applied, ChangeHead, Controller, Destination, PlanAsked, Rejected};
use crate::config::schema;

/// Above rounding errors of shares.
const ROUNDING: f64 = 1e-9;

impl Controller {
    /// Refuses the start of a rollout of `service` by a plan that is not its own, if nobody agrees.
    pub(super) fn refuse_plan_alone(
        &self,
        (name, service): (&str, &schema::Service),
        plan: &PlanAsked,
        head: &ChangeHead,
    ) -> Result<(), Rejected> {
        let what = match (plan, &service.rollout) {
            (PlanAsked::Steps(_), _) => "a rollout by steps that are not in the file",
            (PlanAsked::Named(plan), Some(own)) if plan != own => {
                "a rollout by another plan than its own"
            }
            _ => return Ok(()),
        };
        refuse_alone((name, service), what, head)
    }

    /// Refuses to give a version of `service` other than its baseline more players by hand, if nobody agrees.
    pub(super) fn refuse_growth_alone(
        &self,
        name: &str,
        planned: &Applied,
        head: &ChangeHead,
    ) -> Result<(), Rejected> {
        let service = self.known_service(name)?;
        match grown(service, &planned.shares_before, &planned.shares_after) {
            false => Ok(()),
            true => refuse_alone((name, service), "growth by hand", head),
        }
    }

    /// As [`Controller::refuse_growth_alone`], for a cutover: the way back is open to everybody.
    pub(super) fn refuse_cutover_alone(
        &self,
        (name, to): (&str, &Destination),
        planned: &Applied,
        head: &ChangeHead,
    ) -> Result<(), Rejected> {
        match to {
            Destination::Before => Ok(()),
            Destination::Version(_) => self.refuse_growth_alone(name, planned, head),
        }
    }
}

/// Whether a version other than the baseline has a larger share after than before.
fn grown(
    service: &schema::Service,
    before: &IndexMap<String, f64>,
    after: &IndexMap<String, f64>,
) -> bool {
    let share = |of: &IndexMap<String, f64>, version| of.get(version).copied().unwrap_or(0.0);
    let mut canaries = after.keys().filter(|version| **version != service.baseline);
    canaries.any(|version| share(after, version) > share(before, version) + ROUNDING)
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
        let service = service("");
        let shares = |v1: f64, v2: f64, v3: f64| -> IndexMap<String, f64> {
            [("v1", v1), ("v2", v2), ("v3", v3)].map(|(v, s)| (v.to_owned(), s)).into()
        };
        let before = shares(0.8, 0.2, 0.0);
        for (after, grows) in [
            (shares(0.8, 0.2, 0.0), false),
            (shares(1.0, 0.0, 0.0), false),
            (shares(0.79, 0.21, 0.0), true),
            (shares(0.9, 0.05, 0.05), true),
        ] {
            assert_eq!(grown(&service, &before, &after), grows, "{after:?}");
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
