//! Checks the fence of a service: where it is required, only one version has writes.

use std::time::Duration;

use super::Finding;
use crate::config::{
    problem::FieldPath,
    schema::{Class, Config, Fence, Service},
};

/// Callers of the admin endpoint and clients wait for so long.
const LONGEST_DEADLINE: Duration = Duration::from_secs(30);

/// Each write that waits holds its connection and its head.
const LONGEST_QUEUE: u32 = 100_000;

/// Checks the `fence` at `path` of the service `name`.
pub(super) fn fence(
    fence: &Fence,
    (name, service): (&str, &Service),
    config: &Config,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    if fence.deadline > LONGEST_DEADLINE {
        let message = "too long, since clients wait for it; write at most 30s";
        found.push(Finding::new(path.key("deadline"), message));
    }
    if !(1..=LONGEST_QUEUE).contains(&fence.queue) {
        let message = format!("out of range; write 1 to {LONGEST_QUEUE}");
        found.push(Finding::new(path.key("queue"), message));
    }
    if !fence.required {
        return;
    }
    let (services, required) =
        (FieldPath::default().key("services").key(name), path.key("required"));
    let weights = service.weights.iter().flat_map(|weights| weights.values());
    if weights.filter(|weight| weight.value() > 0.0).count() > 1 {
        let message = format!(
            "several versions would work on writes at the same time, which `{required}` rules out; give one \
             version weight"
        );
        found.push(Finding::new(services.key("weights"), message).and(required.clone()));
    }
    if !service.rules.is_empty() {
        let message = format!(
            "rules would send writes to a version whatever a cutover says, which `{required}` rules out; \
             remove them"
        );
        found.push(Finding::new(services.key("rules"), message).and(required.clone()));
    }
    for (index, route) in config.routes.iter().enumerate() {
        if route.service == name && route.version.is_some() && route.class != Some(Class::Read) {
            let at = FieldPath::default().key("routes").index(index).key("version");
            let message = format!(
                "the route would send writes to a version whatever a cutover says, which `{required}` rules \
                 out; remove it, or write `class: read`"
            );
            found.push(Finding::new(at, message).and(required.clone()));
        }
    }
}
