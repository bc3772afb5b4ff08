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
    if let Some(plan) = &service.rollout {
        let message = format!(
            "`{plan}` would split writes over two versions, which `{required}` rules out; remove it, and move the \
             service by cutover"
        );
        found.push(Finding::new(services.key("rollout"), message).and(required.clone()));
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

#[cfg(test)]
mod tests {
    use crate::config::parse;

    /// Path and message of each problem of a service with this `fence`, with these `more` fields and `routes`.
    fn problems(fence: &str, more: &str, routes: &str) -> Vec<String> {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nservices:\n  a:\n    baseline: v1\n    fence: {{ {fence} }}\n    \
             versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 ] }}, v2: {{ endpoints: [ 127.0.0.1:2 ] }} }}\n{more}\
             routes:\n  - {{ service: a }}\n{routes}"
        );
        match parse(&text) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.to_string().lines().map(str::to_owned).collect(),
        }
    }

    #[test]
    fn where_a_fence_is_required_only_one_version_has_writes() {
        let weights = "    weights: { v1: 1, v2: 1 }\n";
        let rules = "    rules: [ { match: { headers: { x-beta: \"1\" } }, version: v2 } ]\n";
        let route = "  - { match: { path: /b }, service: a, version: v2 }\n";
        let plans = "plans: { quick: [ { weight: 100%, bake: 1m } ] }\n";
        let reads = "  - { match: { path: /b }, service: a, version: v2, class: read }\n";
        assert_eq!(problems("", weights, route), [""; 0]);
        assert_eq!(problems("required: true", "    weights: { v1: 0, v2: 1 }\n", reads), [""; 0]);
        for (more, routes, place) in [
            (weights, "", "services.a.weights"),
            (rules, "", "services.a.rules"),
            ("    rollout: quick\n", plans, "services.a.rollout"),
            ("", route, "routes[1].version"),
        ] {
            let found = problems("required: true", more, routes);
            let is_one = found.len() == 1;
            assert!(is_one && found[0].contains(place), "{found:?}");
            assert!(found[0].contains("services.a.fence.required"), "{found:?}");
        }
    }

    #[test]
    fn nobody_waits_for_too_long_or_in_too_long_a_queue() {
        for (fence, place) in [("deadline: 31s", "fence.deadline"), ("queue: 0", "fence.queue")] {
            let found = problems(fence, "", "");
            assert!(found.len() == 1 && found[0].contains(place), "{found:?}");
        }
        assert_eq!(problems("deadline: 30s, queue: 100000", "", ""), [""; 0]);
    }
}
