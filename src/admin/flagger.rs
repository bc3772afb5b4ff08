//! Webhooks of Flagger, so that it advances, holds and rolls back by the verdict in the data path.
//!
//! Flagger sends `POST` with `{name, namespace, phase, checksum, metadata}`; 200 to 202 pass, and of any other
//! status the body is shown in the canary's events
//! ([webhooks](https://docs.flagger.app/usage/webhooks)). It cannot send header fields, so a token may be in
//! `metadata`. Only of callers who have no other token, and no certificate, is the body read before they are known.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Path, State},
    http::{
        Extensions, HeaderMap, HeaderValue, Method, StatusCode, Uri,
        header::{AUTHORIZATION, CACHE_CONTROL},
    },
    response::IntoResponse,
    routing::post,
};
use indexmap::IndexMap;
use serde::Deserialize;
use tokio::time::timeout;

use super::{Problem, auth, body, connections::Place, model::each_once, server::Subject};
use crate::{
    analysis::Answer,
    control::{Controller, controller::GateReport, tasks::ControlPlane},
    snapshot::Service,
};

/// Longest time of a body; Flagger waits 10 s.
const BODY_WITHIN: Duration = Duration::from_secs(5);

/// Kinds of webhooks: those that let a canary go on.
const GATES: [&str; 5] =
    ["confirm-rollout", "pre-rollout", "rollout", "confirm-traffic-increase", "confirm-promotion"];

/// The kind that asks whether to roll back.
const ROLLBACK: &str = "rollback";

/// Kinds that only report.
const REPORTS: [&str; 2] = ["post-rollout", "event"];

/// What Flagger sends. It adds fields from release to release, so unknown ones are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Call {
    name: String,
    namespace: String,
    phase: String,
    #[serde(deserialize_with = "each_once")]
    metadata: IndexMap<String, String>,
}

pub(super) fn hooks(plane: ControlPlane) -> Router {
    Router::new().route("/v1/hooks/flagger/{service}/{kind}", post(hook)).with_state(plane)
}

async fn hook(
    State(plane): State<ControlPlane>,
    extensions: Extensions,
    Path((service, kind)): Path<(String, String)>,
    method: Method,
    uri: Uri,
    mut headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
    let peer = peer
        .ok_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "nobody knows who calls"))?;
    let subject = extensions.get::<Subject>().map(|Subject(subject)| &**subject);
    let admit = |headers: &HeaderMap| {
        let controller = plane.controller();
        let known = auth::Known { tokens: controller.tokens(), certificates: controller.holders() };
        // No call changes anything, so any role may make it.
        let method = if known.is_empty() { &method } else { &Method::GET };
        let caller = auth::Caller { peer, method, uri: &uri, headers, subject };
        auth::admit(&caller, known, plane.callers(), Instant::now()).map(drop)
    };
    let is_in_body = {
        let controller = plane.controller();
        let is_held = controller.holders().iter().any(|holder| Some(&*holder.subject) == subject);
        !controller.tokens().is_empty() && !headers.contains_key(AUTHORIZATION) && !is_held
    };
    if !is_in_body {
        admit(&headers)?;
    }
    // A call takes no place that others may need: it is decided at once, and until its body is here its connection can be
    // closed for another one.
    let place = extensions.get::<Arc<Place>>().filter(|_| is_in_body);
    let waits = place.map(Place::wait);
    let read = timeout(BODY_WITHIN, body::json(&headers, body)).await;
    drop(waits);
    let call: Call = read.map_err(|_| {
        let detail = format!("the body did not arrive within {} s", BODY_WITHIN.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, detail)
    })??;
    if let (true, Some(token)) = (is_in_body, call.metadata.get("token")) {
        let bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
            let detail = "the token has characters that no token has";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at("metadata.token")
        })?;
        headers.insert(AUTHORIZATION, bearer);
    }
    if is_in_body {
        let has_token = call.metadata.contains_key("token");
        admit(&headers).map_err(|refusal| how_to_be_let_in(refusal.into(), has_token))?;
    }
    let (status, text) = answer(&plane.controller(), &service, &kind, &call)?;
    Ok((status, [(CACHE_CONTROL, "no-store")], text))
}

/// A refusal for want of a token, in the words of Flagger, which sends no header fields.
fn how_to_be_let_in(problem: Problem, has_token: bool) -> Problem {
    if problem.status() != StatusCode::UNAUTHORIZED {
        return problem;
    }
    let what = match has_token {
        true => "`metadata.token` of this webhook is no token of `admin.tokens`",
        false => "this webhook has no token, and `admin.tokens` asks for one",
    };
    let detail = format!(
        "{what}; write a token of `admin.tokens`, whose role may be `viewer`, into the webhook of the Canary: \
         `metadata: {{ token: TOKEN }}`"
    );
    Problem::new(StatusCode::UNAUTHORIZED, detail).at("metadata.token")
}

/// The status and the text that Flagger gets.
fn answer(
    controller: &Controller,
    service: &str,
    kind: &str,
    call: &Call,
) -> Result<(StatusCode, String), Problem> {
    if REPORTS.contains(&kind) {
        controller.known_service(service)?;
        let Call { name, namespace, phase, metadata } = call;
        let text = metadata.get("eventMessage");
        // Not as `message`, which is that of the line.
        tracing::info!(service, kind, canary = name, namespace, phase, text, "Flagger reports");
        return Ok((StatusCode::ACCEPTED, "noted\n".to_owned()));
    }
    if kind != ROLLBACK && !GATES.contains(&kind) {
        let known = [&GATES[..], &[ROLLBACK], &REPORTS[..]].concat().join(", ");
        let detail = format!("Flagger has no webhook of the type `{kind}`; it has: {known}");
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    let waits = waits_for_health(call)?;
    controller.known_service(service)?;
    let snapshot = controller.snapshot();
    let version = match call.metadata.get("version") {
        Some(version) => version.clone(),
        None => the_canary(snapshot.service(service))?,
    };
    let report = controller
        .gate(service, &version)
        .map_err(|unknown| Problem::from(unknown).at("metadata.version"))?;
    Ok(decide(kind, waits, &version, report))
}

/// Whether a gate passes a version that is not certainly healthy.
fn waits_for_health(call: &Call) -> Result<bool, Problem> {
    match call.metadata.get("undecided").map(String::as_str) {
        None | Some("pass") => Ok(false),
        Some("halt") => Ok(true),
        Some(other) => {
            let detail = format!("`{other}` is neither `pass` nor `halt`");
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at("metadata.undecided"))
        }
    }
}

/// The only version of `service` beside its baseline.
fn the_canary(service: Option<&Service>) -> Result<String, Problem> {
    let versions = service.map_or(&[][..], |service| &service.versions);
    let baseline = service.map_or(0, |service| usize::from(service.baseline));
    let mut canaries = versions.iter().enumerate().filter(|(n, _)| *n != baseline);
    match (canaries.next(), canaries.next()) {
        (Some((_, canary)), None) => Ok(canary.name.to_string()),
        _ => {
            let known: Vec<_> = versions.iter().map(|version| &*version.name).collect();
            let detail = format!(
                "say which version is meant, since the service has not exactly one beside its \
                 baseline; it has: {}",
                known.join(", ")
            );
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at("metadata.version"))
        }
    }
}

/// The answer to a webhook about `version`.
fn decide(kind: &str, waits: bool, version: &str, report: GateReport) -> (StatusCode, String) {
    let passes = match (kind, report.answer) {
        (ROLLBACK, answer) => answer == Answer::Fail,
        (_, Answer::Fail) => false,
        (_, Answer::Healthy) => true,
        (_, Answer::Undecided) => !waits,
    };
    let status = if passes { StatusCode::OK } else { StatusCode::PRECONDITION_FAILED };
    (status, format!("{version}: {}\n", report.reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: of a name that stood twice the last value counted, also of the token.
    #[test]
    fn metadata_has_each_name_once() {
        let parse = serde_json::from_str::<Call>;
        let once = parse(r#"{"metadata": {"token": "a", "more": "b"}, "new": 1}"#);
        assert_eq!(once.expect("a call").metadata["token"], "a");
        let twice = parse(r#"{"metadata": {"token": "a", "token": "b"}}"#).expect_err("twice");
        assert!(twice.to_string().starts_with("`token` is given twice"), "{twice}");
        assert!(parse("{}").expect("a call").metadata.is_empty());
    }

    #[test]
    fn a_worse_version_never_passes_and_only_it_is_rolled_back() {
        for answer in [Answer::Fail, Answer::Healthy, Answer::Undecided] {
            for waits in [false, true] {
                let report = || GateReport {
                    answer,
                    ejected: false,
                    reason: "why".to_owned(),
                    since: None,
                    comparison: None,
                };
                let status = |kind| decide(kind, waits, "v42", report()).0.as_u16();
                let gate = match answer {
                    Answer::Fail => 412,
                    Answer::Undecided if waits => 412,
                    _ => 200,
                };
                for kind in GATES {
                    assert_eq!(status(kind), gate, "{kind} {answer:?} {waits}");
                }
                let rollback = if answer == Answer::Fail { 200 } else { 412 };
                assert_eq!(status(ROLLBACK), rollback, "{answer:?}");
            }
        }
    }
}
