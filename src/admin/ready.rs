//! `GET /readyz`: whether this process should get requests, and if not, why.

use std::fmt::Write;

use axum::{extract::State, http::StatusCode};

use crate::{
    config::units::Weight,
    control::{Controller, controller::Coverage, scrape, tasks::ControlPlane},
    snapshot::Service,
};

/// Most services for which the response explains why they have no address; nobody would read more.
const EXPLAINED: usize = 10;

/// The process is not ready if no service has an address: no request could be served. A service
/// without a serving endpoint is only named: other services may be served, and its health checks
/// may be wrong, so it must not take this process out of use.
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
    let mut text = match without.is_empty() {
        true => String::new(),
        false => format!("nobody serves: {}\n", without.join(", ")),
    };
    // Other routes need no tokens.
    let issuers = controller.issuers_without_keys();
    if !issuers.is_empty() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "no keys of issuers: {}", issuers.join(", "));
    }
    if snapshot.services.iter().any(scrape::has_somebody_to_ask) {
        return (StatusCode::OK, format!("ready\n{text}"));
    }
    for service in snapshot.services.iter().take(EXPLAINED) {
        explain(service, &controller, &mut text);
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: no service has an address\n{text}"))
}

/// Explains why `service` has no address: a line for each version with a share and each name.
fn explain(service: &Service, controller: &Controller, text: &mut String) {
    let unresolved = controller.unresolved(&service.name);
    let mut line = |version: &str, why: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} {version}: {why}", service.name);
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
