//! `GET /readyz`: whether requests are to be sent to this process, and if not, why.

use std::fmt::Write;

use axum::{extract::State, http::StatusCode};

use crate::{
    config::units::Weight,
    control::{Controller, controller::Coverage, scrape, tasks::ControlPlane},
    snapshot::Service,
};

/// Services of which the answer says why they have no address; more would not be read.
const EXPLAINED: usize = 10;

/// Not ready is who has no address for any service: nothing that is sent here would be answered. A
/// service without an endpoint that serves is named, but others may be served, and its checks may be
/// wrong: it must not take this process out of use.
pub(super) async fn ready(State(observatory): State<ControlPlane>) -> (StatusCode, String) {
    let controller = observatory.controller();
    if controller.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    if let Some(task) = observatory.supervision().failing() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("the task {task} keeps panicking\n"));
    }
    let snapshot = controller.snapshot();
    let without = snapshot.services.iter().filter(|s| Coverage::of(s) < Coverage::Available);
    let without: Vec<&str> = without.map(|service| &*service.name).collect();
    let mut told = match without.is_empty() {
        true => String::new(),
        false => format!("nobody serves: {}\n", without.join(", ")),
    };
    if snapshot.services.iter().any(scrape::has_somebody_to_ask) {
        return (StatusCode::OK, format!("ready\n{told}"));
    }
    for service in snapshot.services.iter().take(EXPLAINED) {
        explain(service, &controller, &mut told);
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: no service has an address\n{told}"))
}

/// Why `service` has no address, a line for each version with a share and each name.
fn explain(service: &Service, controller: &Controller, told: &mut String) {
    let unresolved = controller.unresolved(&service.name);
    let mut line = |version: &str, why: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(told, "{} {version}: {why}", service.name);
    };
    for version in service.versions.iter().filter(|v| v.share_weight() > Weight::ZERO) {
        match unresolved.get(&*version.name) {
            Some(names) => names.iter().for_each(|(name, why)| {
                line(&version.name, &format!("{name} is not resolved: {why}"))
            }),
            None => line(&version.name, "its names stand for no address yet"),
        }
    }
}
