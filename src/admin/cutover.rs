//! Cutovers and the way back, and the wait for the version that is left.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    error_handling::HandleErrorLayer,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
    routing::post,
};
use indexmap::IndexMap;
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};
use tower::{ServiceBuilder, limit::GlobalConcurrencyLimitLayer};

use super::{
    Problem, bounds,
    change::{Change, IsDryRun},
    extract::{Name, fresh},
    model::{CutoverAnswer, CutoverRequest, RollbackRequest, Shares},
};
use crate::{
    control::{
        controller::{Cutover, Destination, Moving},
        pins,
        reach::Reach,
        tasks::ControlPlane,
    },
    policy::class::Class,
    registry::{Tally, VersionState},
    snapshot::Snapshot,
};

/// Concurrent requests to each path; further ones get 503. Changes pass one after the other anyway.
const REQUESTS: usize = 16;

/// How many of these may wait for a drain; further ones get 503, and move nothing.
const WAITING: usize = 8;

/// How long `wait=drained` waits if the caller does not say so.
const PATIENCE: Duration = Duration::from_secs(30);

/// The most that it may be told to wait: a connection to the endpoint lasts five minutes.
pub const MOST_PATIENCE: Duration = Duration::from_secs(240);

/// Longest time from the end of a request's head to the head of its response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(270);

/// Pause between two looks at the requests in flight.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Query of a cutover.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CutoverParameters {
    #[serde(default)]
    dry_run: bool,
    wait: Option<Wait>,
    #[serde(default, with = "crate::config::units::optional_duration")]
    timeout: Option<Duration>,
}

/// What a caller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wait {
    /// The versions that lost their players have nothing in flight.
    Drained,
}

impl IsDryRun for CutoverParameters {
    fn is_dry_run(&self) -> bool {
        self.dry_run
    }
}

impl CutoverParameters {
    /// How long to wait for the versions that lost their players; `None`: not at all.
    fn patience(&self) -> Result<Option<Duration>, Problem> {
        let bad = |why: String| Err(Problem::new(StatusCode::BAD_REQUEST, why).at("timeout"));
        match (self.wait, self.timeout) {
            (None, None) => Ok(None),
            (None, Some(_)) => bad("`timeout` bounds a wait; write wait=drained, too".to_owned()),
            (Some(Wait::Drained), None) => Ok(Some(PATIENCE)),
            (Some(Wait::Drained), Some(patience)) if patience <= MOST_PATIENCE => {
                Ok(Some(patience))
            }
            (Some(Wait::Drained), Some(patience)) => bad(format!(
                "{} is longer than a connection lasts; at most {}",
                humantime::format_duration(patience),
                humantime::format_duration(MOST_PATIENCE),
            )),
        }
    }
}

/// The paths. They need authentication, and take longer than others.
pub(super) fn routes(plane: ControlPlane) -> Router {
    // The way back has places of its own, whoever waits for what.
    let cutover = Router::new().route("/v1/services/{service}/cutover", post(cut_over));
    let rollback = Router::new().route("/v1/services/{service}/rollback", post(roll_back));
    bounded(cutover).merge(bounded(rollback)).with_state(plane)
}

/// The same with places of its own.
fn bounded(router: Router<ControlPlane>) -> Router<ControlPlane> {
    let bounds = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|error| bounds::problem(error, REQUESTS, REQUEST_TIMEOUT)))
        .load_shed()
        .layer(GlobalConcurrencyLimitLayer::new(REQUESTS))
        .timeout(REQUEST_TIMEOUT);
    router.layer(bounds).layer(Extension(Waiting(Arc::new(Semaphore::new(WAITING)))))
}

/// Places of those who wait for a drain.
#[derive(Debug, Clone)]
struct Waiting(Arc<Semaphore>);

impl Waiting {
    fn enter(self) -> Result<OwnedSemaphorePermit, Problem> {
        self.0.try_acquire_owned().map_err(|_| {
            let detail = format!(
                "{WAITING} others wait for a drain already, and nothing was moved; ask without wait=drained"
            );
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).at("wait")
        })
    }
}

async fn cut_over(
    State(plane): State<ControlPlane>,
    Extension(waiting): Extension<Waiting>,
    name: Name,
    Change { head, asked, parameters }: Change<CutoverRequest, CutoverParameters>,
) -> Result<impl IntoResponse, Problem> {
    let Path(service) = name?;
    let CutoverRequest { to, fence, force } = asked;
    let to = Destination::Version(to);
    let asked = Cutover { service, to, fence, reach: insisted(force), head };
    make(&plane, asked, &parameters, waiting).await.map_err(of_destination)
}

async fn roll_back(
    State(plane): State<ControlPlane>,
    Extension(waiting): Extension<Waiting>,
    name: Name,
    Change { head, asked, parameters }: Change<RollbackRequest, CutoverParameters>,
) -> Result<impl IntoResponse, Problem> {
    let Path(service) = name?;
    let RollbackRequest { fence, force } = asked;
    let to = Destination::Before;
    let asked = Cutover { service, to, fence, reach: insisted(force), head };
    make(&plane, asked, &parameters, waiting).await.map_err(of_way_back)
}

/// Names no field for a problem with weights: the body names no version.
pub(super) fn of_way_back(problem: Problem) -> Problem {
    match problem.field.as_deref() {
        Some(field) if field.starts_with("weights") => Problem { field: None, ..problem },
        _ => problem,
    }
}

/// What is known of the endpoints before they are asked.
pub(super) fn insisted(force: bool) -> Reach {
    if force { Reach::Insisted } else { Reach::Unasked }
}

/// Names the field of the body that holds the version.
fn of_destination(problem: Problem) -> Problem {
    match problem.field.as_deref() {
        Some(field) if field == "version" || field.starts_with("weights.") => problem.at("to"),
        _ => problem,
    }
}

async fn make(
    plane: &ControlPlane,
    asked: Cutover,
    parameters: &CutoverParameters,
    waiting: Waiting,
) -> Result<impl IntoResponse + use<>, Problem> {
    let patience = parameters.patience()?;
    let _place = patience.map(|_| waiting.enter()).transpose()?;
    let asked = plane.with_reach(asked).await;
    let (service, dry_run) = (asked.service.clone(), asked.head.dry_run);
    let (moving, held, fenced) = match dry_run {
        true => {
            let mut controller = plane.controller();
            let fenced = controller.fence_for(&asked)?.is_some();
            (controller.cut_over(&asked)?, Tally::default(), fenced)
        }
        false => {
            let (moving, held) = plane.cut_over(asked).await?;
            (moving, held.unwrap_or_default(), held.is_some())
        }
    };
    let left = Left::of(plane, &service, &moving);
    if !dry_run {
        plane.in_force(moving.applied.generation).await;
        if let Some(patience) = patience {
            left.drained(plane, patience, moving.applied.generation).await?;
        }
    }
    let Moving { applied, named, unwritten } = moving;
    let answer = CutoverAnswer {
        generation: applied.generation,
        service,
        before: applied.before,
        after: applied.after,
        shares: Shares::new(applied.shares_before, applied.shares_after),
        dry_run,
        epoch: plane.controller().fence_epoch(&left.service),
        fenced,
        writes_held: held.held,
        writes_refused: held.refused,
        uploads_cut: held.cut,
        longest_hold_ms: held.longest.as_micros() as f64 / 1e3,
        left_in_flight: left.in_flight(),
        named,
        unwritten,
    };
    Ok((fresh(answer.generation), Json(answer)))
}

/// The versions that lost their players.
struct Left {
    service: String,
    versions: Vec<(String, Arc<VersionState>)>,
}

impl Left {
    fn of(plane: &ControlPlane, service: &str, moving: &Moving) -> Self {
        let snapshot = plane.controller().snapshot();
        let state = |version: String| {
            let known = snapshot.service(service)?.version(&version)?;
            Some((version, Arc::clone(&known.state)))
        };
        let versions = moving.left().into_iter().filter_map(state).collect();
        Self { service: service.to_owned(), versions }
    }

    fn in_flight(&self) -> IndexMap<String, u64> {
        self.versions.iter().map(|(version, state)| (version.clone(), state.in_flight())).collect()
    }

    /// Waits until they have nothing in flight and no pins; the error names what is left after `patience`.
    async fn drained(
        &self,
        plane: &ControlPlane,
        patience: Duration,
        generation: u64,
    ) -> Result<(), Problem> {
        let until = Instant::now() + patience;
        let busy = loop {
            let busy = self.busy(&plane.controller().snapshot());
            if busy.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                break busy.join("; ");
            }
            sleep(LOOK_EVERY).await;
        };
        let detail = format!(
            "the change is in force as generation {generation}, but after {} {busy}",
            humantime::format_duration(patience)
        );
        Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, detail).at("wait"))
    }

    /// A sentence part for each that still has something.
    fn busy(&self, snapshot: &Snapshot) -> Vec<String> {
        let service = snapshot.service(&self.service);
        // Behind a fence pins move with the writes.
        let pinned = service.filter(|service| service.fence.is_none());
        let each = self.versions.iter().filter_map(|(version, state)| {
            let mut left = Vec::new();
            let (all, writes) = (state.in_flight(), state.in_flight_of(Class::Write));
            if all > 0 {
                left.push(format!("{all} in flight, {writes} of them writes"));
            }
            let pins = pinned.and_then(|service| service.version(version)).map(pins::Left::on);
            match pins.map_or(0, |left| left.pins) {
                0 => {}
                1 => left.push("1 pin".to_owned()),
                count => left.push(format!("{count} pins")),
            }
            if let Some(end) = pins.and_then(|left| left.cookies_end_in) {
                let end = humantime::format_duration(end);
                left.push(format!("cookies of pins that end within {end}"));
            }
            (!left.is_empty()).then(|| format!("{version} still has {}", left.join(" and ")))
        });
        each.collect()
    }
}
