//! `/v1/mode` and `/v1/notices`: what is read-only, and what is planned.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
    routing::{get, put},
};

use super::{
    Problem,
    api::wrong_method,
    change::{Change, check_text},
    extract::{Name, NoParameters, Parameters, fresh},
    in_force::modes_of,
    model::{
        ModeAnswer, ModeName, ModeRequest, ModeService, Modes, Notice, NoticeAnswer, NoticeList,
    },
};
use crate::{
    config::schema,
    control::{
        Controller,
        controller::{ModeChange, NoticeChange, ReadOnlyAsked},
        tasks::ControlPlane,
    },
    policy::read_only::{Scope, claimed},
    snapshot,
};

/// Longest message for clients, in characters.
const MESSAGE_CHARS: usize = 500;

/// Longest name of a notice.
const NAME_BYTES: usize = 64;

/// Paths of modes and notices, which need authentication.
pub(super) fn routes(plane: ControlPlane) -> Router {
    Router::new()
        .route("/v1/mode", get(modes).put(set_mode))
        .route("/v1/notices", get(notices))
        .route("/v1/notices/{name}", put(set_notice).delete(take_back))
        .method_not_allowed_fallback(wrong_method)
        .with_state(plane)
}

async fn modes(
    State(plane): State<ControlPlane>,
    parameters: Parameters<NoParameters>,
) -> Result<impl IntoResponse, Problem> {
    parameters?;
    let controller = plane.controller();
    let snapshot = controller.snapshot();
    let services = snapshot.services.iter();
    let services = services.map(|service| of_service(&controller, &snapshot, service)).collect();
    let modes = Modes {
        generation: snapshot.generation,
        read_only: modes_of(&controller),
        services,
        earlier_processes: controller.earlier_processes(),
    };
    Ok((fresh(modes.generation), Json(modes)))
}

fn of_service(
    controller: &Controller,
    snapshot: &snapshot::Snapshot,
    service: &snapshot::Service,
) -> ModeService {
    let standing = service.standing.as_deref();
    let number = snapshot.services.iter().position(|other| std::ptr::eq(other, service));
    let own = snapshot.routes.iter().filter(|route| Some(route.service as usize) == number);
    let holds = own.filter_map(|route| route.policies.as_ref()?.hold());
    ModeService {
        service: service.name.to_string(),
        read_only: standing.is_some_and(snapshot::Standing::refuses_all),
        writes_in_flight: controller.writes_in_flight(&service.name),
        refused: service.state.read_only_refused.load(std::sync::atomic::Ordering::Relaxed),
        held: holds.map(|hold| hold.state.waiting() as u64).sum(),
    }
}

async fn set_mode(
    State(plane): State<ControlPlane>,
    Change { head, asked, .. }: Change<ModeRequest>,
) -> Result<impl IntoResponse, Problem> {
    let refuse = |field, why| Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why).at(field));
    let ModeRequest { mode, service, route, until, message } = asked;
    let scope = match (service, route) {
        (Some(_), Some(_)) => {
            let why = "a mode is about a service or about a route, not both; leave one of them out";
            return refuse("route", why.to_owned());
        }
        (Some(service), None) => Scope::Service(service),
        (None, Some(route)) => Scope::Route(route),
        (None, None) => Scope::Process,
    };
    if message.as_ref().is_some_and(|text| text.chars().count() > MESSAGE_CHARS) {
        return refuse("message", format!("longer than {MESSAGE_CHARS} characters"));
    }
    check_text("message", "the message", message.as_deref())?;
    let asked = match mode {
        ModeName::ReadOnly => Some(ReadOnlyAsked { until, message }),
        ModeName::Normal if until.is_some() => {
            let why = "only a read-only mode has an end; leave it out";
            return refuse("until", why.to_owned());
        }
        ModeName::Normal => None,
    };
    let dry_run = head.dry_run;
    let change = ModeChange { scope: scope.clone(), asked, head };
    let made = match dry_run {
        true => plane.controller().try_mode(&change)?,
        false => plane.change(change).await?,
    };
    if !dry_run {
        // From now on every write that went on is counted as in flight.
        plane.in_force(made.generation).await;
    }
    let controller = plane.controller();
    let (service, route) = scope.names();
    let of = match &scope {
        Scope::Process => controller.config().services.keys().cloned().collect(),
        _ => controller.service_of(&scope).into_iter().collect::<Vec<_>>(),
    };
    let answer = ModeAnswer {
        generation: made.generation,
        mode: if made.after.is_some() { ModeName::ReadOnly } else { ModeName::Normal },
        service: service.map(str::to_owned),
        route: route.map(str::to_owned),
        until: made.after.as_ref().and_then(|mode| mode.until),
        changed: made.before != made.after,
        writes_in_flight: of.iter().map(|service| controller.writes_in_flight(service)).sum(),
        notices: match &made.after {
            Some(_) => Vec::new(),
            None => made.settled.into_iter().map(|(name, _)| name).collect(),
        },
        followed_by: made.followed_by,
        warning: made.after.as_ref().and_then(|mode| controller.mode_warning(&scope, mode)),
        dry_run,
    };
    Ok((fresh(answer.generation), Json(answer)))
}

async fn notices(
    State(plane): State<ControlPlane>,
    parameters: Parameters<NoParameters>,
) -> Result<impl IntoResponse, Problem> {
    parameters?;
    let controller = plane.controller();
    let generation = controller.snapshot().generation;
    let planned = controller.state().read_only();
    let marks = &planned.marks;
    let each = controller.notices().into_iter().map(|(name, notice)| Notice {
        in_file: controller.config().notices.contains_key(&name),
        told: marks
            .get(&name)
            .filter(|mark| mark.from == notice.from)
            .map(|mark| mark.sent.clone())
            .unwrap_or_default(),
        ended_early: notice.read_only && claimed(notice, marks.get(&name)).is_empty(),
        notice: notice.clone(),
        name,
    });
    let list = NoticeList { generation, notices: each.collect() };
    Ok((fresh(generation), Json(list)))
}

async fn set_notice(
    State(plane): State<ControlPlane>,
    name: Name,
    Change { head, asked, .. }: Change<schema::Notice>,
) -> Result<impl IntoResponse, Problem> {
    let Path(name) = name?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(allowed) {
        let why = format!(
            "a name has 1 to {NAME_BYTES} of the letters a-z A-Z, the digits 0-9 and . _ -"
        );
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why).at("name"));
    }
    change_notice(plane, NoticeChange { name, notice: Some(asked), head }).await
}

/// Nothing is asked besides the head of the change.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn take_back(
    State(plane): State<ControlPlane>,
    name: Name,
    Change { head, .. }: Change<Nothing>,
) -> Result<impl IntoResponse, Problem> {
    let Path(name) = name?;
    change_notice(plane, NoticeChange { name, notice: None, head }).await
}

async fn change_notice(
    plane: ControlPlane,
    change: NoticeChange,
) -> Result<impl IntoResponse, Problem> {
    let (name, dry_run) = (change.name.clone(), change.head.dry_run);
    let generation = match dry_run {
        true => plane.controller().try_notice(&change)?,
        false => plane.change(change).await?,
    };
    if !dry_run {
        plane.in_force(generation).await;
        // It may have begun already.
        plane.controller().follow_plans();
    }
    Ok((fresh(generation), Json(NoticeAnswer { generation, name, dry_run })))
}
