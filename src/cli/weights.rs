//! `tidegate weights`: the split of a service, shown or changed.

use indexmap::IndexMap;

use super::{
    Exit, Failure,
    client::{Call, ClientArguments},
    say, table,
};
use crate::{
    admin::model::{Service, WeightsAnswer, WeightsRequest},
    config::units::Weight,
};

/// Arguments of `tidegate weights`.
#[derive(Debug, clap::Args)]
pub(super) struct WeightsArguments {
    /// The service.
    #[arg(value_parser = service_name)]
    service: String,
    /// New weights, on any scale; a version that is not named gets 0. None: only show.
    #[arg(value_name = "VERSION=WEIGHT", value_parser = assignment)]
    weights: Vec<(String, Weight)>,
    /// Why, for the log of the instance.
    #[arg(long, value_name = "TEXT", requires = "weights")]
    reason: Option<String>,
    /// Tell what would change; change nothing.
    #[arg(long, requires = "weights")]
    dry_run: bool,
    /// Change only if this generation is in force still, as `status` showed it.
    #[arg(long, value_name = "N", requires = "weights")]
    if_generation: Option<u64>,
    #[command(flatten)]
    client: ClientArguments,
}

/// Shows the weights, or changes them.
pub(super) fn run(arguments: &WeightsArguments) -> Result<(), Failure> {
    let target = format!("/v1/services/{}", arguments.service);
    if arguments.weights.is_empty() {
        let service: Service = arguments.client.call(Call::get(target))?;
        say(&format!("{}generation {}", table::render([&service]), service.generation));
        return Ok(());
    }
    let request = WeightsRequest {
        weights: each_once(&arguments.weights)?,
        reason: arguments.reason.clone(),
    };
    let body = serde_json::to_string(&request).map_err(|error| Failure::new(Exit::Fault, error))?;
    let query = if arguments.dry_run { "?dry_run=true" } else { "" };
    let answer: WeightsAnswer = arguments.client.call(Call {
        method: hyper::Method::PUT,
        target: format!("{target}/weights{query}"),
        body: Some(body),
        if_generation: arguments.if_generation,
    })?;
    say(&told(&answer));
    Ok(())
}

fn told(answer: &WeightsAnswer) -> String {
    let change = |(version, after): (&String, &Weight)| {
        let before = answer.before.get(version).map_or(0.0, |weight| weight.value());
        format!("{version} {before} -> {}", after.value())
    };
    let changes: Vec<_> = answer.after.iter().map(change).collect();
    let WeightsAnswer { service, generation, .. } = answer;
    let changes = changes.join(", ");
    if answer.dry_run {
        format!("{service}: would change {changes} (generation {generation} in force)")
    } else {
        format!("{service}: {changes} (generation {generation})")
    }
}

/// A name as the configuration allows it, so that it can stand in a path as it is.
pub(super) fn service_name(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err("a service's name has letters, digits, `.`, `_` and `-`".to_owned());
    }
    Ok(text.to_owned())
}

/// `v41=90`.
fn assignment(text: &str) -> Result<(String, Weight), String> {
    let (version, number) = text.split_once('=').ok_or("write VERSION=WEIGHT, such as v42=10")?;
    let weight = number.parse().ok().and_then(Weight::new);
    match weight {
        Some(weight) if !version.is_empty() => Ok((version.to_owned(), weight)),
        Some(_) => Err("no version stands before `=`".to_owned()),
        None => Err(format!("`{number}` is not a weight; write a number from 0 to 1e12")),
    }
}

fn each_once(weights: &[(String, Weight)]) -> Result<IndexMap<String, Weight>, Failure> {
    let mut all = IndexMap::new();
    for (version, weight) in weights {
        if all.insert(version.clone(), *weight).is_some() {
            let message = format!("`{version}` stands twice; name it once");
            return Err(Failure::new(Exit::Usage, message));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_a_version_and_a_weight() {
        let weight = |value| Weight::new(value).unwrap();
        assert_eq!(assignment("v41=90"), Ok(("v41".to_owned(), weight(90.0))));
        assert_eq!(assignment("v42=0.5"), Ok(("v42".to_owned(), weight(0.5))));
        for wrong in ["v41", "=5", "v41=", "v41=x", "v41=-1", "v41=NaN", "v41=inf", "v41=1e13"] {
            assert!(assignment(wrong).is_err(), "{wrong}");
        }
        let twice = [("v41".to_owned(), weight(1.0)), ("v41".to_owned(), weight(2.0))];
        assert_eq!(each_once(&twice).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_name_stands_in_a_path_as_it_is() {
        assert!(service_name("game-api_2.x").is_ok());
        for wrong in ["", "a/b", "a b", "a?b", "ä"] {
            assert!(service_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_is_told_in_one_line() {
        let weights = |v41, v42| {
            let of = |value| Weight::new(value).unwrap();
            IndexMap::from([("v41".to_owned(), of(v41)), ("v42".to_owned(), of(v42))])
        };
        let mut answer = WeightsAnswer {
            generation: 2,
            service: "game-api".to_owned(),
            before: weights(95.0, 5.0),
            after: weights(90.0, 10.0),
            dry_run: false,
        };
        assert_eq!(told(&answer), "game-api: v41 95 -> 90, v42 5 -> 10 (generation 2)");
        answer.dry_run = true;
        assert_eq!(
            told(&answer),
            "game-api: would change v41 95 -> 90, v42 5 -> 10 (generation 2 in force)"
        );
    }
}
