//! Rollouts: started, shown, and commanded.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header::CACHE_CONTROL},
    response::IntoResponse,
    routing::{get, post},
};

use super::{
    Problem,
    change::Change,
    cutover::{insisted, of_way_back},
    extract::{Name, NoParameters, Parameters, fresh},
    model::{Rollout, RolloutAnswer, RolloutCommand, RolloutRequest},
};
use crate::{
    control::{
        controller::{PlanAsked, RolloutAsked, RolloutChange, RolloutChanged, RolloutRetreat},
        reach::Reach,
        tasks::ControlPlane,
    },
    rollout::Event,
};

/// The command that a path stands for.
#[derive(Debug, Clone, Copy)]
enum Command {
    Pause,
    Resume,
    Promote,
    Approve,
    BreakIn,
    Abort,
    Rollback,
}

pub(super) fn paths() -> Router<ControlPlane> {
    let paths = [
        ("pause", Command::Pause),
        ("resume", Command::Resume),
        ("promote", Command::Promote),
        ("approve", Command::Approve),
        ("break-in", Command::BreakIn),
        ("abort", Command::Abort),
        ("rollback", Command::Rollback),
    ];
    let router = Router::new().route("/v1/services/{service}/rollout", get(show).post(start));
    paths.into_iter().fold(router, |router, (name, command)| {
        let path = format!("/v1/services/{{service}}/rollout/{name}");
        router.route(&path, post(move |a, b, c| order(a, b, c, command)))
    })
}

async fn show(
    State(plane): State<ControlPlane>,
    name: Name,
    parameters: Parameters<NoParameters>,
) -> Result<impl IntoResponse, Problem> {
    let Path(service) = name?;
    parameters?;
    let controller = plane.controller();
    controller.known_service(&service)?;
    match controller.rollout(&service) {
        Some(live) => Ok(([(CACHE_CONTROL, "no-store")], Json(Rollout::from(live)))),
        None => {
            let detail = format!(
                "no rollout of `{service}` is known; what ended before the service left the file and came back is in the \
                 journal only, see `tidegate audit show --service {service}`"
            );
            Err(Problem::new(StatusCode::NOT_FOUND, detail))
        }
    }
}

async fn start(
    State(plane): State<ControlPlane>,
    name: Name,
    Change { head, asked, .. }: Change<RolloutRequest>,
) -> Result<impl IntoResponse, Problem> {
    let Path(service) = name?;
    let RolloutRequest { to, plan, steps, priority } = asked;
    let plan = match (plan, steps) {
        (None, None) => PlanAsked::OfService,
        (Some(plan), None) => PlanAsked::Named(plan),
        (None, Some(steps)) => PlanAsked::Steps(steps),
        (Some(_), Some(_)) => {
            let detail =
                "a plan of the file and steps of its own do not go together; write one of the two";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at("steps"));
        }
    };
    let asked = RolloutAsked::Start { to, plan, urgent: priority.is_some() };
    let reach = Reach::Unasked;
    make(&plane, RolloutChange { service, asked, reach, head }, false).await
}

async fn order(
    State(plane): State<ControlPlane>,
    name: Name,
    Change { head, asked, .. }: Change<RolloutCommand>,
    command: Command,
) -> Result<impl IntoResponse, Problem> {
    let Path(service) = name?;
    belongs(command, &asked)?;
    let (by, reason) = (head.by.name.clone(), head.reason.clone());
    let event = match command {
        Command::Pause => Event::Pause { by, reason },
        Command::Resume => Event::Resume { by, reason },
        Command::Promote => Event::Promote { by, reason },
        Command::Approve => Event::Approve { by, approves: asked.approves.unwrap_or(true), reason },
        Command::BreakIn => Event::BreakIn { by, second: head.second.clone(), reason },
        Command::Abort => Event::Abort { by, reason },
        Command::Rollback => {
            Event::Rollback { by, reason, at_once: asked.at_once.unwrap_or(false) }
        }
    };
    let retreats = matches!(command, Command::Abort | Command::Rollback);
    let (reach, asked) =
        (insisted(asked.force.unwrap_or(false)), RolloutAsked::Event(Box::new(event)));
    let mut change = RolloutChange { service, asked, reach, head };
    if retreats {
        change = plane.with_reach_of_rollout(change).await;
    }
    make(&plane, change, retreats).await.map_err(of_way_back)
}

/// Rejects fields that mean nothing to `command`.
fn belongs(command: Command, asked: &RolloutCommand) -> Result<(), Problem> {
    let at_once = asked.at_once.filter(|_| !matches!(command, Command::Rollback));
    let approves = asked.approves.filter(|_| !matches!(command, Command::Approve));
    let force = asked.force.filter(|_| !matches!(command, Command::Rollback | Command::Abort));
    let wrong = [(at_once, "at_once"), (approves, "approves"), (force, "force")];
    match wrong.into_iter().find_map(|(is_there, field)| is_there.map(|_| field)) {
        None => Ok(()),
        Some(field) => {
            let detail = format!("`{field}` means nothing to this command; leave it out");
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at(field))
        }
    }
}

async fn make(
    plane: &ControlPlane,
    change: RolloutChange,
    retreats: bool,
) -> Result<impl IntoResponse + use<>, Problem> {
    let (service, dry_run) = (change.service.clone(), change.head.dry_run);
    let changed = match (dry_run, retreats) {
        (true, _) => plane.controller().change_rollout(change)?,
        (false, true) => plane.change(RolloutRetreat(change)).await?,
        (false, false) => plane.change(change).await?,
    };
    let RolloutChanged { generation, rollout, warnings, unwritten } = changed;
    if !dry_run {
        plane.in_force(generation).await;
    }
    let mut rollout = Rollout::new(&rollout);
    if let Some(live) = plane.controller().rollout(&service).filter(|_| !dry_run) {
        rollout.entries = Rollout::from(live).entries;
    }
    Ok((
        fresh(generation),
        Json(RolloutAnswer { generation, dry_run, warnings, unwritten, rollout }),
    ))
}
