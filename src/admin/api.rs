//! Handlers of the admin API's paths.

use std::{collections::BTreeMap, time::SystemTime};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::{get, post, put},
};
use serde::Deserialize;

use super::{
    Problem, audit,
    change::Change,
    cutover::insisted,
    events,
    extract::{Name, NoParameters, Parameters, fresh},
    gate,
    in_force::modes_of,
    incidents,
    model::{
        Decisions, Ejected, Issuer, Listener, Reload, Service, Services, Shares, Status,
        SubjectAnswer, SubjectRequest, VersionFault, WeightsAnswer, WeightsRequest,
    },
    ready, rollout,
};
use crate::{
    control::{
        Controller, Rejected,
        controller::{Eject, Moved, Operation, Reinstate, Target, WeightsChange},
        tasks::ControlPlane,
    },
    snapshot::Snapshot,
    telemetry::metrics,
};

/// Query of a record.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordParameters {
    version: String,
    route: Option<String>,
}

/// What a change of a version would do.
type DryRun = fn(&mut Controller, Target) -> Result<Moved, Rejected>;

/// Paths that need authentication.
pub(super) fn guarded(observatory: ControlPlane) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/services/{service}", get(service))
        .route("/v1/services/{service}/record", get(record))
        .route("/v1/services/{service}/gate", get(gate::gate))
        .route("/v1/services/{service}/weights", put(set_weights))
        .route(
            "/v1/services/{service}/eject",
            post(|a, b, c| move_version(a, b, c, (Controller::eject, Eject))),
        )
        .route(
            "/v1/services/{service}/reinstate",
            post(|a, b, c| move_version(a, b, c, (Controller::reinstate, Reinstate))),
        )
        .merge(rollout::paths())
        .route("/v1/incidents", get(incidents::list))
        .route("/v1/incidents/{id}", get(incidents::report))
        .route("/v1/audit", get(audit::audit))
        .route("/metrics", get(scrape))
        .merge(
            Router::new()
                .route("/v1/events", get(events::events))
                .with_state((observatory.clone(), events::Places::default())),
        )
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(observatory)
}

/// Paths for health checks, which have no token and must not wait in a queue.
pub(super) fn probes(observatory: ControlPlane) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready::ready))
        .method_not_allowed_fallback(wrong_method)
        .with_state(observatory)
}

async fn status(
    State(observatory): State<ControlPlane>,
    parameters: Parameters<NoParameters>,
) -> Result<impl IntoResponse, Problem> {
    parameters?;
    let controller = observatory.controller();
    let snapshot = controller.snapshot();
    let in_force: BTreeMap<_, _> = controller.state().overrides().into_iter().collect();
    let set = controller.state().weights().iter();
    let now = SystemTime::now();
    let listeners = controller.listeners().iter().map(|listener| Listener::new(listener, now));
    let tls_faults = controller.tls_faults().map(|(service, version, fault)| VersionFault {
        service: service.to_owned(),
        version: version.to_owned(),
        message: fault.to_string(),
    });
    let issuers = snapshot.issuers.all().iter();
    let issuers =
        issuers.map(|issuer| Issuer::new(issuer, controller.config().jwt.get(&*issuer.name)));
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        generation: snapshot.generation,
        config_hash: controller.config_hash().to_owned(),
        config_file: controller.file().map(|file| file.display().to_string()),
        uptime_seconds: controller.started().0.elapsed().as_millis() as f64 / 1e3,
        workers: controller.workers().len(),
        draining: controller.is_draining(),
        connections: controller.shared().connections(),
        listeners: listeners.collect(),
        overrides: in_force,
        weights_set: set.map(|(service, set)| (service.clone(), set.into())).collect(),
        read_only: modes_of(&controller),
        reload: Reload::new(controller.reloads(), controller.state().stand_ins()),
        tls_faults: tls_faults.collect(),
        issuers: issuers.collect(),
        journal: controller.journal().map(Into::into),
        idempotency_failing: controller
            .registry()
            .key_log()
            .and_then(|log| log.health().trouble())
            .map(Into::into),
        takeover: controller.replacement().into(),
    };
    Ok((fresh(snapshot.generation), Json(status)))
}

async fn services(
    State(observatory): State<ControlPlane>,
    parameters: Parameters<NoParameters>,
) -> Result<impl IntoResponse, Problem> {
    parameters?;
    let (snapshot, latencies) = observatory.latencies_by_version().await;
    let generation = snapshot.generation;
    // The controller is locked for one service at a time, since an ejection may wait for the lock.
    let decisions = snapshot.services.iter();
    let decisions = decisions.map(|s| Decisions::of(&observatory.controller(), &s.name));
    let decisions: Vec<Decisions> = decisions.collect();
    let each = snapshot.services.iter().zip(&latencies).zip(decisions);
    let services = each
        .map(|((s, latencies), decisions)| Service::new(s, generation, latencies, decisions))
        .map(|service| service.with_limits(&snapshot))
        .collect();
    Ok((fresh(generation), Json(Services { generation, services })))
}

async fn service(
    State(observatory): State<ControlPlane>,
    name: Name,
    parameters: Parameters<NoParameters>,
) -> Result<impl IntoResponse, Problem> {
    let Path(name) = name?;
    parameters?;
    let (snapshot, latencies) = observatory.latencies_by_version().await;
    let mut each = snapshot.services.iter().zip(&latencies);
    let Some((service, latencies)) = each.find(|(service, _)| *service.name == *name) else {
        let known: Vec<_> = snapshot.services.iter().map(|s| &*s.name).collect();
        let detail = format!("there is no service `{name}`; there are: {}", known.join(", "));
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    let generation = snapshot.generation;
    let decisions = Decisions::of(&observatory.controller(), &name);
    let service = Service::new(service, generation, latencies, decisions).with_limits(&snapshot);
    Ok((fresh(generation), Json(service)))
}

async fn record(
    State(observatory): State<ControlPlane>,
    name: Name,
    parameters: Parameters<RecordParameters>,
) -> Result<impl IntoResponse, Problem> {
    let (Path(name), Query(RecordParameters { version, route })) = (name?, parameters?);
    let (found, snapshot) = {
        let controller = observatory.controller();
        let record = controller.record_of(&name, &version, route.as_deref());
        let is_lost = controller.has_lost_record(&name, &version, route.as_deref());
        (record.ok_or(is_lost), controller.snapshot())
    };
    let judge = match found {
        Ok(judge) => judge,
        Err(true) => {
            let detail = format!(
                "the verdict that ejected `{version}` of `{name}` is one of an earlier process, and what it had counted \
                 ended with that; `tidegate status` shows the verdict, and `tidegate incidents` its report"
            );
            return Err(Problem::new(StatusCode::NOT_FOUND, detail));
        }
        Err(false) => return Err(no_record(&snapshot, &name, &version, route.as_deref())),
    };
    // This may take long, so the controller is not locked.
    let (title, record) = judge();
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], record.write(title)))
}

/// The problem if there is no record: the service, the version or the route is unknown, or nothing
/// was compared.
fn no_record(snapshot: &Snapshot, name: &str, version: &str, route: Option<&str>) -> Problem {
    let not_found = |detail| Problem::new(StatusCode::NOT_FOUND, detail);
    let Some(service) = snapshot.service(name) else {
        return not_found(format!("there is no service `{name}`"));
    };
    if service.version(version).is_none() {
        let known: Vec<_> = service.versions.iter().map(|v| format!("`{}`", v.name)).collect();
        let known = known.join(", ");
        return not_found(format!("`{name}` has no version `{version}`; it has: {known}"))
            .at("version");
    }
    let strata = service.compared.iter().flat_map(|compared| &compared.strata);
    let routes: Vec<&str> = strata.filter_map(|stratum| stratum.route.as_deref()).collect();
    match route {
        Some(route) if !routes.contains(&route) => {
            let known = match routes.is_empty() {
                true => "no route of it has; leave the route out".to_owned(),
                false => format!("these have: `{}`", routes.join("`, `")),
            };
            let detail = format!("`{name}` has no route `{route}` with limits of its own; {known}");
            not_found(detail).at("route")
        }
        _ => {
            let on = route.map_or(String::new(), |route| format!(" on `{route}`"));
            not_found(format!(
                "`{version}` of `{name}` is not compared{on}, and no verdict ejected it"
            ))
        }
    }
}

async fn set_weights(
    State(observatory): State<ControlPlane>,
    name: Name,
    Change { head, asked: request, .. }: Change<WeightsRequest>,
) -> Result<impl IntoResponse, Problem> {
    let Path(service) = name?;
    let dry_run = head.dry_run;
    let reach = insisted(request.force);
    let asked = request
        .asked()
        .map_err(|(field, why)| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why).at(field))?;
    let change = WeightsChange { service: service.clone(), asked, reach, head };
    let change = observatory.with_reach_of_weights(change).await;
    let applied = match dry_run {
        true => observatory.controller().set_weights(change)?,
        false => observatory.change(change).await?,
    };
    let ejected = Ejected::of(&observatory.controller(), &service, &applied.returning);
    if !dry_run {
        observatory.in_force(applied.generation).await;
    }
    let answer = WeightsAnswer {
        generation: applied.generation,
        service,
        before: applied.before,
        after: applied.after,
        shares: Shares::new(applied.shares_before, applied.shares_after),
        dry_run,
        ejected,
        unserved: applied.unserved.into_iter().map(Into::into).collect(),
        rollout: applied.rollout.map(Into::into),
    };
    Ok((fresh(applied.generation), Json(answer)))
}

/// Ejects or reinstates a version or an endpoint; `how` are the controller's function for a dry run, and what
/// makes the change of its subject.
async fn move_version<O>(
    State(observatory): State<ControlPlane>,
    name: Name,
    Change { head, asked: request, .. }: Change<SubjectRequest>,
    (try_out, change): (DryRun, fn(Target) -> O),
) -> Result<impl IntoResponse, Problem>
where
    O: Operation<Outcome = Moved, Error = Rejected> + Send + 'static,
{
    let Path(service) = name?;
    let dry_run = head.dry_run;
    let SubjectRequest { version, endpoint } = request;
    let subject = Target {
        service: service.clone(),
        version: version.clone(),
        endpoint: endpoint.clone(),
        head,
    };
    let moved = match dry_run {
        true => try_out(&mut observatory.controller(), subject)?,
        false => observatory.change(change(subject)).await?,
    };
    let ejected = Ejected::in_force(&observatory.controller(), &service);
    if !dry_run {
        observatory.in_force(moved.generation).await;
    }
    let answer = SubjectAnswer::new((service, version, endpoint), dry_run, moved, ejected);
    Ok((fresh(answer.generation), Json(answer)))
}

async fn scrape(State(observatory): State<ControlPlane>) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&observatory.scrape().await))
}

async fn unknown_path() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no such path; see docs/admin-api.md")
}

pub(super) async fn wrong_method() -> Problem {
    let detail = "the path exists, but not with this method; `Allow` tells which it has";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}
