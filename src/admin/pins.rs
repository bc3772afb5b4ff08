//! `/v1/pins`: pins, counted and moved.

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header::CACHE_CONTROL},
    response::IntoResponse,
    routing::{get, post},
};
use serde::Deserialize;

use super::{
    Problem,
    api::wrong_method,
    change::Change,
    extract::{Parameters, fresh},
    model::{PinList, PinMoveAnswer, PinMoveRequest, ServicePins},
};
use crate::{
    control::{controller::MovePins, tasks::ControlPlane},
    snapshot::Snapshot,
    telemetry::rfc3339,
};

/// Paths of pins, which need authentication.
pub(super) fn routes(plane: ControlPlane) -> Router {
    Router::new()
        .route("/v1/pins", get(pins))
        .route("/v1/pins/move", post(move_pins))
        .method_not_allowed_fallback(wrong_method)
        .with_state(plane)
}

/// Query of the pins.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinParameters {
    service: Option<String>,
}

/// The pins of all services, or of one.
async fn pins(
    State(plane): State<ControlPlane>,
    parameters: Parameters<PinParameters>,
) -> Result<impl IntoResponse, Problem> {
    let Query(PinParameters { service: wanted }) = parameters?;
    let snapshot = plane.controller().snapshot();
    let services = snapshot.services.iter();
    let services = services.filter(|s| wanted.as_deref().is_none_or(|wanted| *s.name == *wanted));
    let services: Vec<ServicePins> = services.filter_map(ServicePins::of).collect();
    match wanted.filter(|_| services.is_empty()) {
        Some(wanted) => Err(no_pins(&snapshot, &wanted)),
        None => Ok(([(CACHE_CONTROL, "no-store")], Json(PinList { services }))),
    }
}

/// Moves the pins of a version to another one.
async fn move_pins(
    State(plane): State<ControlPlane>,
    Change { head, asked, .. }: Change<PinMoveRequest>,
) -> Result<impl IntoResponse, Problem> {
    let PinMoveRequest { service, from, to } = asked;
    let dry_run = head.dry_run;
    let asked = MovePins { service, from, to, head };
    let moved = match dry_run {
        true => plane.controller().try_move_pins(&asked)?,
        false => plane.change(asked.clone()).await?,
    };
    if !dry_run {
        plane.in_force(moved.generation).await;
    }
    let MovePins { service, from, to, .. } = asked;
    let answer = PinMoveAnswer {
        generation: moved.generation,
        service,
        from,
        to,
        moved: moved.pins,
        until: moved.until.map(|until| rfc3339::seconds(until).to_string()),
        dry_run,
    };
    Ok((fresh(answer.generation), Json(answer)))
}

/// The problem if `service` does not exist or has no pins.
fn no_pins(snapshot: &Snapshot, service: &str) -> Problem {
    let has_pins = snapshot.services.iter().filter(|service| service.pins.is_some());
    let names: Vec<_> = has_pins.map(|service| format!("`{}`", service.name)).collect();
    let have = match names.is_empty() {
        true => "no service has; `pin` in the file gives it some".to_owned(),
        false => format!("these have: {}", names.join(", ")),
    };
    let what = match snapshot.service(service) {
        Some(_) => format!("`{service}` has no pins"),
        None => format!("there is no service `{service}`"),
    };
    Problem::new(StatusCode::NOT_FOUND, format!("{what}; {have}")).at("service")
}
