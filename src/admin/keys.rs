//! `/v1/key`: what is known of an idempotency key, for somebody who has to tell a player what became of a bet.

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::IntoResponse,
    routing::get,
};
use serde::Deserialize;

use super::{
    Problem,
    api::wrong_method,
    extract::{Parameters, fresh},
    model::{KeyAnswer, KeyKnown},
};
use crate::{
    control::tasks::ControlPlane,
    policy::idempotency::parse_key,
    registry::{KeyFacts, KeyState},
    routing::Cohort,
    snapshot::{Idempotency, Route, Snapshot},
};

/// Paths of keys, which need authentication.
pub(super) fn routes(plane: ControlPlane) -> Router {
    Router::new()
        .route("/v1/key", get(key))
        .method_not_allowed_fallback(wrong_method)
        .with_state(plane)
}

/// Query of a key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyParameters {
    /// Name of the route.
    route: String,
    /// As in `Idempotency-Key`.
    key: String,
    /// As the player's source has it.
    player: Option<String>,
    /// That source, such as `header:x-player-id`; all are tried without it.
    source: Option<String>,
}

/// What is known of one key.
async fn key(
    State(plane): State<ControlPlane>,
    parameters: Parameters<KeyParameters>,
) -> Result<impl IntoResponse, Problem> {
    let Query(asked) = parameters?;
    let snapshot = plane.controller().snapshot();
    let (route, policy) = with_keys(&snapshot, &asked.route)?;
    let service = &snapshot.services[route.service as usize];
    let key = parse_key(asked.key.as_bytes())
        .map_err(|bad| Problem::new(StatusCode::BAD_REQUEST, bad.0).at("key"))?;
    let players = policy.by.as_ref().unwrap_or(&service.cohort);
    let sources = sources(players, asked.source.as_deref())?;
    let Some(player) = asked.player.filter(|player| !player.is_empty()) else {
        let detail = format!(
            "a key belongs to its player; write `player` as the first of these has it that the request had: {}",
            sources.join(", ")
        );
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail).at("player"));
    };
    let mut found = None;
    for source in &sources {
        let id = policy.table.id((source, player.as_bytes()), &key);
        let facts = policy.table.look(id).await.map_err(|_| {
            let detail =
                "the keys on the disk cannot be read; see `idempotency_failing` of the events";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        })?;
        if found.is_none() || facts.is_some() {
            found = Some((*source, id, facts));
        }
        if facts.is_some() {
            break;
        }
    }
    // There is always a source.
    let Some((source, id, facts)) = found else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "the route knows no player"));
    };
    let (state, status) = match facts.map(|facts| facts.state) {
        None => (KeyKnown::Unknown, None),
        Some(KeyState::InFlight) => (KeyKnown::InFlight, None),
        Some(KeyState::Answered(status)) => (KeyKnown::Answered, status),
        Some(KeyState::Unsure) => (KeyKnown::Unsure, None),
    };
    let age = |facts: KeyFacts| policy.rules.window.saturating_sub(facts.left);
    let print = facts.map(|facts| facts.print.text());
    let answer = KeyAnswer {
        service: service.name.to_string(),
        route: route.label.to_string(),
        source: source.to_owned(),
        key: id.name(),
        state,
        status,
        age_seconds: facts.map(age),
        left_seconds: facts.map(|facts| facts.left),
        fingerprint_has_host: print.as_ref().map(|(_, has_host)| *has_host),
        fingerprint: print.map(|(hash, _)| hash),
    };
    Ok((fresh(snapshot.generation), Json(answer)))
}

/// The route with this name, and its policy.
fn with_keys<'s>(
    snapshot: &'s Snapshot,
    name: &str,
) -> Result<(&'s Route, &'s Idempotency), Problem> {
    let policy = |route: &'s Route| route.policies.as_ref()?.idempotency.as_ref();
    let routes = || snapshot.routes.iter().filter_map(|route| Some((route, policy(route)?)));
    if let Some(found) = routes().find(|(route, _)| *route.label == *name) {
        return Ok(found);
    }
    let names: Vec<_> = routes().take(20).map(|(route, _)| format!("`{}`", route.label)).collect();
    let have = match names.is_empty() {
        true => "no route has; `idempotency` in the file gives it some".to_owned(),
        false => format!("these have: {}", names.join(", ")),
    };
    let what = match snapshot.routes.iter().any(|route| *route.label == *name) {
        true => format!("the route `{name}` remembers no keys"),
        false => format!("there is no route `{name}`"),
    };
    Err(Problem::new(StatusCode::NOT_FOUND, format!("{what}; {have}")).at("route"))
}

/// The sources of players to try: all, or the one that was asked for.
fn sources<'c>(players: &'c Cohort, asked: Option<&str>) -> Result<Vec<&'c str>, Problem> {
    let all: Vec<&str> = players.labels().collect();
    let Some(asked) = asked else { return Ok(all) };
    match all.iter().find(|source| **source == asked) {
        Some(source) => Ok(vec![*source]),
        None => {
            let detail = format!(
                "players of the route are not known by `{asked}`, but by: {}",
                all.join(", ")
            );
            Err(Problem::new(StatusCode::BAD_REQUEST, detail).at("source"))
        }
    }
}
