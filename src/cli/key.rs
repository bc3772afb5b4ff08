//! `tidegate key`: what is known of an idempotency key, such as when a player asks whether a bet was placed twice.

use std::{path::PathBuf, time::Duration};

use super::{
    client::{Call, ShowArguments},
    failure::{Exit, Failure},
    printable::printable,
    say::{say, say_json},
};
use crate::{
    admin::model::{KeyAnswer, KeyKnown},
    policy::idempotency::Spelling,
    registry::{Fingerprint, KnownPrint},
};

/// Arguments of `tidegate key`.
#[derive(Debug, clap::Args)]
pub(super) struct KeyArguments {
    /// The key, as in the field `Idempotency-Key`.
    #[arg(value_name = "KEY")]
    idempotency_key: String,
    /// The route that remembers it.
    #[arg(long)]
    route: String,
    /// The player, as the source has it by which the route tells players apart, such as a header field.
    #[arg(long)]
    player: Option<String>,
    /// That source, such as `header:x-player-id`. Default: all of the route are tried, in their order.
    #[arg(long, requires = "player")]
    source: Option<String>,
    /// A request, such as `POST /v1/bets`, to compare with the first one that had the key.
    #[arg(long, value_name = "METHOD TARGET", requires = "host", value_parser = request)]
    request: Option<Asked>,
    /// The host of that request, without its port.
    #[arg(long, requires = "request")]
    host: Option<String>,
    /// A file with the body of that request, byte for byte. Default: no body.
    #[arg(long, value_name = "FILE", requires = "request")]
    body: Option<PathBuf>,
    #[command(flatten)]
    show: ShowArguments,
}

/// A request to compare.
#[derive(Debug, Clone)]
struct Asked {
    method: String,
    path: String,
    query: String,
}

fn request(text: &str) -> Result<Asked, String> {
    let parts = text.split_once(' ').filter(|(_, target)| target.starts_with('/'));
    let (method, target) = parts.ok_or("write a method and a path, such as `POST /v1/bets`")?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let [method, path, query] = [method, path, query].map(str::to_owned);
    Ok(Asked { method, path, query })
}

/// Shows what is known of a key.
pub(super) fn run(arguments: &KeyArguments) -> Result<(), Failure> {
    let KeyArguments { idempotency_key, route, player, source, .. } = arguments;
    let mut query = vec![("route", route), ("key", idempotency_key)];
    query.extend(player.iter().map(|player| ("player", player)));
    query.extend(source.iter().map(|source| ("source", source)));
    let target = reqwest::Url::parse_with_params("http://admin/v1/key", query);
    let target = target.map_err(|error| Failure::new(Exit::Arguments, error.to_string()))?;
    let target = format!("{}?{}", target.path(), target.query().unwrap_or_default());
    let answer: KeyAnswer = arguments.show.client.call(Call::get(target))?;
    let is_same = match (&arguments.request, &arguments.host) {
        (Some(asked), Some(host)) => Some(is_same(&answer, asked, host, arguments)?),
        _ => None,
    };
    match arguments.show.json {
        true => say_json(&answer)?,
        false => say(&report(&printable(&answer)?, is_same.flatten())),
    }
    Ok(())
}

/// Whether the request is the one that had the key first; `None` if no request is known.
fn is_same(
    answer: &KeyAnswer,
    asked: &Asked,
    host: &str,
    arguments: &KeyArguments,
) -> Result<Option<bool>, Failure> {
    let body = match &arguments.body {
        Some(file) => std::fs::read(file)
            .map_err(|error| Failure::new(Exit::File, format!("{}: {error}", file.display())))?,
        None => Vec::new(),
    };
    let Asked { method, path, query } = asked;
    let print = Fingerprint::of(host, (method, path, query), &body, Spelling::Bare);
    let own = match answer.fingerprint_has_host {
        Some(true) => print.known(),
        Some(false) => KnownPrint { hash: print.without_host(), ..print.known() },
        None => return Ok(None),
    };
    Ok(Some(answer.fingerprint.as_deref() == Some(&*own.text().0)))
}

/// One line about a key.
fn report(answer: &KeyAnswer, is_same: Option<bool>) -> String {
    let KeyAnswer { route, source, key, state, status, age_seconds, left_seconds, .. } = answer;
    let seconds = |seconds: &Option<u32>| {
        let seconds = Duration::from_secs(seconds.unwrap_or_default().into());
        humantime::format_duration(seconds).to_string()
    };
    let what = match (state, status) {
        (KeyKnown::Unknown, _) => {
            return format!(
                "{route}: key {key} (player by {source}) is not known: no request with it is remembered"
            );
        }
        (KeyKnown::InFlight, _) => "its request is under way".to_owned(),
        (KeyKnown::Answered, Some(status)) => format!("answered with {status}, which is replayed"),
        (KeyKnown::Answered, None) => "answered, and the response is not kept".to_owned(),
        (KeyKnown::Unsure, _) => {
            "unsure: its request was sent, and nobody knows whether it was processed".to_owned()
        }
    };
    let compared = match is_same {
        None => "",
        Some(true) => "; the given request is the one that had it first",
        Some(false) => "; another request than the given one had it first",
    };
    format!(
        "{route}: key {key} (player by {source}): {what}; it began {} ago and is forgotten in {}{compared}",
        seconds(age_seconds),
        seconds(left_seconds)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(state: KeyKnown, status: Option<u16>) -> KeyAnswer {
        KeyAnswer {
            service: "game-api".to_owned(),
            route: "bet.place".to_owned(),
            source: "header:x-player-id".to_owned(),
            key: "00ab".to_owned(),
            state,
            status,
            age_seconds: Some(61),
            left_seconds: Some(3600),
            fingerprint: None,
            fingerprint_has_host: None,
        }
    }

    #[test]
    fn a_line_says_what_became_of_the_request_and_when() {
        assert_eq!(
            report(&answer(KeyKnown::Answered, Some(201)), Some(true)),
            "bet.place: key 00ab (player by header:x-player-id): answered with 201, which is replayed; it began 1m 1s ago \
             and is forgotten in 1h; the given request is the one that had it first"
        );
        let unsure = report(&answer(KeyKnown::Unsure, None), Some(false));
        assert!(unsure.contains("nobody knows") && unsure.contains("another request"), "{unsure}");
        let unknown = report(&answer(KeyKnown::Unknown, None), None);
        assert!(unknown.ends_with("no request with it is remembered"), "{unknown}");
        assert!(request("POST /v1/bets?x=1").is_ok_and(|asked| asked.query == "x=1"));
        assert!(request("POST").is_err() && request("POST v1").is_err());
    }
}
