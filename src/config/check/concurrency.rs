//! Checks limits on requests in flight, and priorities.

use std::time::Duration;

use super::Finding;
use crate::config::{
    problem::FieldPath,
    schema::{Adaptive, Concurrency, Config},
};

/// Most requests of a limit.
const MOST: u32 = 1_000_000;

/// Most requests that wait for a limit: each holds its client's connection.
const MOST_WAITING: u32 = 100_000;

/// Longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Largest part that is kept for a more important priority: twice of it leave something for the third.
const MOST_RESERVE: f64 = 0.4;

/// Checks the limit of a route.
pub(super) fn of_route(limit: &Concurrency, path: &FieldPath, found: &mut Vec<Finding>) {
    check(limit, path, found);
    if limit.reserve.is_some() {
        let message = "all requests of a route have the same priority; write it in the `concurrency` of the service";
        found.push(Finding::of_name(path.key("reserve"), message));
    }
}

/// Checks the limit of a service.
pub(super) fn of_service(limit: &Concurrency, path: &FieldPath, found: &mut Vec<Finding>) {
    check(limit, path, found);
    if let Some(reserve) = limit.reserve.filter(|reserve| reserve.0 > MOST_RESERVE) {
        let message = format!("`{reserve}` is too much; write at most 40%");
        found.push(Finding::new(path.key("reserve"), message));
    }
}

fn check(limit: &Concurrency, path: &FieldPath, found: &mut Vec<Finding>) {
    if !(1..=MOST).contains(&limit.max) {
        let message = format!("out of range; write 1 to {MOST}");
        found.push(Finding::new(path.key("max"), message));
    }
    if limit.queue > MOST_WAITING {
        let message = format!("out of range; write 0 to {MOST_WAITING}");
        found.push(Finding::new(path.key("queue"), message));
    }
    if limit.queue_timeout > LONGEST_WAIT {
        let message = "too long: clients would not wait for it; write at most 1m";
        found.push(Finding::new(path.key("queue_timeout"), message));
    }
    if let Some(written) = &limit.adaptive {
        adaptive(written, limit.max, path, found);
    }
}

fn adaptive(written: &Adaptive, max: u32, above: &FieldPath, found: &mut Vec<Finding>) {
    let path = above.key("adaptive");
    for (key, value) in [("min", written.min), ("initial", written.initial)] {
        if value == Some(0) {
            found.push(Finding::new(
                path.key(key),
                "0 would refuse every request; write at least 1",
            ));
        } else if max > 0 && value.is_some_and(|value| value > max) {
            let message = format!("more than `max`; write at most {max}");
            found.push(Finding::new(path.key(key), message).and(above.key("max")));
        }
    }
    if let (Some(min), Some(initial)) = (written.min, written.initial)
        && initial < min
    {
        let message = format!("less than `min`; write at least {min}");
        found.push(Finding::new(path.key("initial"), message).and(path.key("min")));
    }
    if !(0.01..=1.0).contains(&written.tolerance.0) {
        let message = format!("`{}` is out of range; write 1% to 100%", written.tolerance);
        found.push(Finding::new(path.key("tolerance"), message));
    }
    let range = Duration::from_secs(1)..=Duration::from_secs(3600);
    if !range.contains(&written.measure_every) {
        found.push(Finding::new(path.key("measure_every"), "out of range; write 1s to 1h"));
    }
}

/// Warns of priorities without effect.
pub(super) fn warn(config: &Config, found: &mut Vec<Finding>) {
    let routes = FieldPath::default().key("routes");
    for (index, route) in config.routes.iter().enumerate() {
        let limit = config.services.get(&route.service).map(|service| &service.concurrency);
        if route.priority.is_some() && limit.is_some_and(Option::is_none) {
            let message = format!(
                "it has no effect, since `{}` has no limit for which routes compete; write `concurrency` there",
                route.service
            );
            found.push(Finding::of_name(routes.index(index).key("priority"), message));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    fn text(service: &str, route: &str) -> String {
        format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nroutes: [ {{ service: a, {route} }} ]\nservices:\n  a:\n    \
             baseline: v1\n    versions: {{ v1: {{ endpoints: [ 10.0.0.1:1 ] }} }}\n    {service}\n"
        )
    }

    fn problems(service: &str, route: &str) -> String {
        parse(&text(service, route)).map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn a_limit_admits_something_and_ends_every_wait() {
        let full = "concurrency: { max: 200, queue: 50, queue_timeout: 1m, reserve: 40%, \
                    adaptive: { min: 5, initial: 5, tolerance: 100%, measure_every: 1h } }";
        for good in
            ["", "concurrency: { max: 1, queue: 0 }", full, "concurrency: { max: 3, adaptive: {} }"]
        {
            assert_eq!(problems(good, "priority: high"), "", "{good}");
        }
        for (limit, place, says) in [
            ("", "concurrency", "max"),
            ("max: 0", "concurrency.max", "1000000"),
            ("max: 0, adaptive: { initial: 5 }", "concurrency.max", "1000000"),
            ("max: 1, queue: 100001", "concurrency.queue", "100000"),
            ("max: 1, queue_timeout: 61s", "queue_timeout", "1m"),
            ("max: 1, reserve: 41%", "reserve", "40%"),
            ("max: 9, adaptive: { min: 0 }", "adaptive.min", "every request"),
            ("max: 9, adaptive: { min: 10 }", "adaptive.min", "at most 9"),
            ("max: 9, adaptive: { min: 5, initial: 4 }", "adaptive.initial", "at least 5"),
            ("max: 9, adaptive: { tolerance: 0% }", "adaptive.tolerance", "1%"),
            ("max: 9, adaptive: { measure_every: 500ms }", "adaptive.measure_every", "1s"),
        ] {
            let found = problems(&format!("concurrency: {{ {limit} }}"), "");
            assert!(found.contains(place) && found.contains(says), "{limit}: {found}");
            assert_eq!(found.trim_end().lines().count(), 1, "{limit}: {found}");
        }
    }

    #[test]
    fn what_only_concerns_several_routes_is_not_written_at_one() {
        let found = problems("", "limit: { concurrency: { max: 9, reserve: 1% } }");
        assert!(
            found.contains("limit.concurrency.reserve") && found.contains("service"),
            "{found}"
        );
        let warned = |service: &str| {
            let config =
                parse(&text(service, "priority: low")).unwrap_or_else(|found| panic!("{found}"));
            let mut found = Vec::new();
            super::warn(&config, &mut found);
            found.len()
        };
        assert_eq!((warned(""), warned("concurrency: { max: 9 }")), (1, 0));
    }
}
