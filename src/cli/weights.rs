//! `tidegate weights`: the split of a service, shown or changed.

use http::Method;
use indexmap::IndexMap;

use super::{
    change::RemarkArguments,
    client::{Call, ClientArguments, service_name},
    eject::still_ejected,
    failure::{Exit, Failure},
    printable::printable,
    say::{say, say_json},
    table,
};
use crate::{
    admin::model::{
        ChangeBody, NewWeight, RolloutStopped, Service, Unserved, WeightsAnswer, WeightsRequest,
    },
    config::units::Weight,
    control::controller::{moves, percent},
};

/// Arguments of `tidegate weights`.
#[derive(Debug, clap::Args)]
pub(super) struct WeightsArguments {
    /// The service.
    #[arg(value_parser = service_name)]
    service: String,
    /// A share of all players, such as v42=10%; the versions that are not named divide the rest as
    /// before. Or numbers on any scale for every version with weight, such as v41=90 v42=10.
    /// Without any, the weights are shown.
    #[arg(value_name = "VERSION=WEIGHT", value_parser = assignment)]
    weights: Vec<(String, NewWeight)>,
    /// Versions that are not named get no players. Without this, numbers, and shares that add up to
    /// 100%, must name every version with weight.
    #[arg(long, requires = "weights")]
    only: bool,
    /// Change even if no version with players would be left whose endpoints can be reached.
    #[arg(long, requires = "weights")]
    force: bool,
    /// The reason, for the event and the log of the instance.
    #[arg(long, value_name = "TEXT", requires = "weights")]
    reason: Option<String>,
    #[command(flatten)]
    remarks: RemarkArguments,
    /// Show what would change, and change nothing.
    #[arg(long, requires = "weights")]
    dry_run: bool,
    /// Change nothing and exit with 65 if a version that would get a share is ejected, or has no
    /// endpoint that serves.
    #[arg(long, requires = "weights")]
    strict: bool,
    /// Change only if nobody made a change since this generation, as shown by `status`. Endpoints that
    /// leave or return do not count.
    #[arg(long, value_name = "N", requires = "weights")]
    if_generation: Option<u64>,
    /// Print the response of the admin endpoint as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArguments,
}

/// Shows the weights, or changes them.
pub(super) fn run(arguments: &WeightsArguments) -> Result<(), Failure> {
    let target = format!("/v1/services/{}", arguments.service);
    if arguments.weights.is_empty() {
        if arguments.remarks.is_given() {
            let why =
                "--ticket and --impact are said of a change; name the new weights, such as v42=10%";
            return Err(Failure::new(Exit::Arguments, why));
        }
        let service: Service = arguments.client.call(Call::get(target))?;
        match arguments.json {
            true => say_json(&service)?,
            false => {
                let table = table::render([&printable(&service)?]);
                say(&format!("{table}generation {}", service.generation));
            }
        }
        return Ok(());
    }
    let weights = each_once(&arguments.weights)?;
    let asked = WeightsRequest { weights, only: arguments.only, force: arguments.force };
    let request = ChangeBody { asked, said: arguments.remarks.said(arguments.reason.clone()) };
    let put = |dry_run: bool, if_generation| -> Result<WeightsAnswer, Failure> {
        let query = if dry_run { "?dry_run=true" } else { "" };
        let call = Call::post(format!("{target}/weights{query}"), &request)?;
        let second = arguments.remarks.second_token_file.clone();
        arguments.client.call(Call { method: Method::PUT, if_generation, second, ..call })
    };
    let mut if_generation = arguments.if_generation;
    if arguments.strict {
        let answer = put(true, if_generation)?;
        refuse_without_players(&printable(&answer)?)?;
        // An ejection between the two calls raises the generation, so the change is rejected.
        if_generation = Some(answer.generation);
    }
    let answer = put(arguments.dry_run, if_generation)?;
    match arguments.json {
        true => say_json(&answer)?,
        false => say(&report(&printable(&answer)?)),
    }
    Ok(())
}

/// Fails if a version would have a share, but is ejected or has no endpoint that serves.
fn refuse_without_players(answer: &WeightsAnswer) -> Result<(), Failure> {
    let ejected = answer.ejected.iter().filter(|ejected| ejected.share_when_reinstated > 0.0);
    let ejected: Vec<_> = ejected.cloned().collect();
    let unserved = answer.unserved.iter().filter(|unserved| unserved.share_when_served > 0.0);
    let unserved: Vec<_> = unserved.cloned().collect();
    let why = still_ejected(&answer.service, &ejected) + &without_endpoint(&unserved);
    match why.is_empty() {
        true => Ok(()),
        false => {
            let message = format!("{}: nothing was changed{why}", answer.service);
            Err(Failure::new(Exit::Refused, message))
        }
    }
}

/// A line for each version without an endpoint that serves, each with a newline before it.
fn without_endpoint(unserved: &[Unserved]) -> String {
    let each = unserved.iter().map(|Unserved { version, reason, share_when_served }| {
        let share = percent(*share_when_served);
        format!(
            "\n{version} gets no players: {reason}; it gets {share} of the players once one does"
        )
    });
    each.collect()
}

fn report(answer: &WeightsAnswer) -> String {
    let changes = moves(&answer.shares.before, &answer.shares.after);
    let WeightsAnswer { service, generation, .. } = answer;
    let line = match answer.dry_run {
        true => format!("{service}: would change {changes} (generation {generation} in force)"),
        false => format!("{service}: {changes} (generation {generation})"),
    };
    line + &still_ejected(service, &answer.ejected)
        + &without_endpoint(&answer.unserved)
        + &stopped(answer)
}

/// What the change does to a rollout, with a newline before it.
fn stopped(WeightsAnswer { service, dry_run, rollout, .. }: &WeightsAnswer) -> String {
    let Some(RolloutStopped { to, phase }) = rollout else { return String::new() };
    let is = if *dry_run { "would be" } else { "is" };
    let next = match &**phase {
        "paused" => format!(
            "; `tidegate rollout resume {service}` sets the weight of its step again, and \
             `tidegate rollout abort {service}` keeps these"
        ),
        _ => String::new(),
    };
    format!("\nthe rollout to {to} {is} {phase}{next}")
}

/// `v41=90` or `v41=90%`.
fn assignment(text: &str) -> Result<(String, NewWeight), String> {
    let (version, number) = text.split_once('=').ok_or("write VERSION=WEIGHT, such as v42=10%")?;
    let weight = match number.ends_with('%') {
        true => serde_json::from_value(number.into()).map(NewWeight::Share).ok(),
        false => {
            let written = number.parse().ok().and_then(|number| Weight::written(number).ok());
            written.map(NewWeight::Relative)
        }
    };
    match weight {
        Some(weight) if !version.is_empty() => Ok((version.to_owned(), weight)),
        Some(_) => Err("the version before `=` is missing".to_owned()),
        None => {
            let weight = "a weight: 0, or a number from 1e-12 to 1e12";
            Err(format!("`{number}` is neither a share, such as 10%, nor {weight}"))
        }
    }
}

fn each_once(weights: &[(String, NewWeight)]) -> Result<IndexMap<String, NewWeight>, Failure> {
    let mut all = IndexMap::new();
    for (version, weight) in weights {
        if all.insert(version.clone(), *weight).is_some() {
            let message = format!("`{version}` is given twice");
            return Err(Failure::new(Exit::Arguments, message));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::model::{Ejected, Ejection, Shares},
        config::units::Share,
    };

    fn number(value: f64) -> NewWeight {
        NewWeight::Relative(Weight::new(value).unwrap())
    }

    #[test]
    fn an_assignment_is_a_version_and_a_weight_or_a_share() {
        assert_eq!(assignment("v41=90"), Ok(("v41".to_owned(), number(90.0))));
        assert_eq!(assignment("v42=0.5"), Ok(("v42".to_owned(), number(0.5))));
        assert_eq!(assignment("v42=0.5%"), Ok(("v42".to_owned(), NewWeight::Share(Share(0.005)))));
        for wrong in [
            "v41",
            "=5",
            "v41=",
            "v41=x",
            "v41=-1",
            "v41=NaN",
            "v41=inf",
            "v41=1e13",
            "v41=1e-13",
            "v41=%",
            "v41=101%",
            "v41=-1%",
            "=5%",
        ] {
            assert!(assignment(wrong).is_err(), "{wrong}");
        }
        let twice = [("v41".to_owned(), number(1.0)), ("v41".to_owned(), number(2.0))];
        assert_eq!(each_once(&twice).unwrap_err().exit, Exit::Arguments);
    }

    #[test]
    fn a_name_stands_in_a_path_as_it_is() {
        assert!(service_name("game-api_2.x").is_ok());
        for wrong in ["", "a/b", "a b", "a?b", "ä"] {
            assert!(service_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_change_is_shown_in_shares_with_the_ejected_versions() {
        let shares = |v41, v42| IndexMap::from([("v41".to_owned(), v41), ("v42".to_owned(), v42)]);
        let mut answer = WeightsAnswer {
            generation: 2,
            service: "game-api".to_owned(),
            before: IndexMap::new(),
            after: IndexMap::new(),
            shares: Shares::new(shares(0.95, 0.05), shares(0.9, 0.1)),
            dry_run: false,
            ejected: Vec::new(),
            unserved: Vec::new(),
            rollout: None,
        };
        assert_eq!(report(&answer), "game-api: v41 95% -> 90%, v42 5% -> 10% (generation 2)");
        let rollout = |phase: &str| Some(RolloutStopped { to: "v42".into(), phase: phase.into() });
        answer.rollout = rollout("paused");
        assert!(report(&answer).ends_with(
            "\nthe rollout to v42 is paused; `tidegate rollout resume game-api` sets the weight of its step again, \
             and `tidegate rollout abort game-api` keeps these"
        ));
        answer.dry_run = true;
        answer.rollout = rollout("aborted");
        assert!(report(&answer).ends_with("\nthe rollout to v42 would be aborted"));
        answer.rollout = None;
        answer.ejected = vec![Ejected {
            version: "v42".to_owned(),
            ejection: Ejection {
                at: "2026-11-26T18:00:00Z".to_owned(),
                by: "ops".to_owned(),
                reason: "pays twice".to_owned(),
            },
            share_when_reinstated: 0.1,
        }];
        assert_eq!(
            report(&answer),
            "game-api: would change v41 95% -> 90%, v42 5% -> 10% (generation 2 in force)\n\
             v42 is ejected since 2026-11-26T18:00:00Z by ops (pays twice); `tidegate reinstate \
             game-api v42` reinstates it, with 10% of the players"
        );
        // Regression: each change repeated the verdicts of all ejected versions.
        answer.ejected[0].ejection.by = "verdict".to_owned();
        assert!(
            report(&answer).contains("v42 is ejected since 2026-11-26T18:00:00Z by verdict; `")
        );
    }
}
