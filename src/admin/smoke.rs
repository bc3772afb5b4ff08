//! Runs a smoke check on request.

use std::time::Duration;

use axum::{
    Json, Router,
    body::Body,
    error_handling::HandleErrorLayer,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::CACHE_CONTROL},
    response::IntoResponse,
    routing::post,
};
use tower::{ServiceBuilder, limit::GlobalConcurrencyLimitLayer};

use super::{
    Problem,
    api::wrong_method,
    body, bounds,
    extract::{Name, NoParameters, Parameters},
    model::SmokeQuestion,
};
use crate::{
    config::schema::MAX_SMOKE_TIME,
    control::{Rejected, tasks::ControlPlane},
};

/// Smoke checks at once; further ones get 503.
const AT_ONCE: usize = 8;

/// Longest time of a request: a check, and its answer.
const LONGEST: Duration = MAX_SMOKE_TIME.saturating_add(Duration::from_secs(5));

/// The path of smoke checks. They last longer than other requests, so they have bounds of their own.
pub(super) fn router(plane: ControlPlane) -> Router {
    let bounds = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|error| bounds::problem(error, AT_ONCE, LONGEST)))
        .load_shed()
        .layer(GlobalConcurrencyLimitLayer::new(AT_ONCE))
        .timeout(LONGEST);
    Router::new()
        .route("/v1/services/{service}/smoke", post(smoke))
        .method_not_allowed_fallback(wrong_method)
        .with_state(plane)
        .layer(bounds)
}

/// Answers 200 whether the check passes or not: to many tools another status is an error of the question.
async fn smoke(
    State(plane): State<ControlPlane>,
    name: Name,
    parameters: Parameters<NoParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    let Path(service) = name?;
    parameters?;
    let SmokeQuestion { version, check } = body::json(&headers, body).await?;
    known(&plane, &service, &version, &check)?;
    let report = plane.run_smoke(&service, &version, &check).await;
    Ok(([(CACHE_CONTROL, "no-store")], Json(report)))
}

/// Refuses names that the configuration does not have.
fn known(plane: &ControlPlane, service: &str, version: &str, check: &str) -> Result<(), Problem> {
    let controller = plane.controller();
    let known = controller.known_service(service)?;
    let list = |names: Vec<&String>| {
        let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    if !known.versions.contains_key(version) {
        let known = list(known.versions.keys().collect());
        let (service, version) = (service.to_owned(), version.to_owned());
        return Err(Rejected::NoVersion { service, version, known }.into());
    }
    let checks = &controller.config().smoke;
    if checks.contains_key(check) {
        return Ok(());
    }
    let right = match checks.is_empty() {
        true => "the file has none; write it under smoke".to_owned(),
        false => format!("there are: {}", list(checks.keys().collect())),
    };
    let detail = format!("there is no smoke check `{check}`; {right}");
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at("check"))
}
