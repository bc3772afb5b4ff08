//! Gates for the tools that people have: pipelines, Argo Rollouts, Flagger.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{StatusCode, header::CACHE_CONTROL},
    response::IntoResponse,
};
use serde::Deserialize;

use super::{
    Problem,
    extract::{Name, Parameters},
    model::Gate,
};
use crate::{analysis::Answer, control::tasks::ControlPlane};

/// Query of a gate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GateParameters {
    version: String,
    #[serde(default)]
    strict: bool,
}

/// Answers 200 whatever the answer is: to many tools another status is an error of the question, which they
/// repeat. With `strict` the status tells the answer to those who read no body.
pub(super) async fn gate(
    State(plane): State<ControlPlane>,
    name: Name,
    parameters: Parameters<GateParameters>,
) -> Result<impl IntoResponse, Problem> {
    let (Path(service), Query(GateParameters { version, strict })) = (name?, parameters?);
    let report = plane.controller().gate(&service, &version);
    // Neither name is in a body.
    let report =
        report.map_err(|unknown| Problem { status: StatusCode::NOT_FOUND, ..unknown.into() })?;
    let status = match report.answer {
        Answer::Fail if strict => StatusCode::CONFLICT,
        Answer::Undecided if strict => StatusCode::TOO_EARLY,
        _ => StatusCode::OK,
    };
    Ok((status, [(CACHE_CONTROL, "no-store")], Json(Gate::new(service, version, report))))
}
