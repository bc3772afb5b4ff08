//! Checks health checks and circuit breakers.

use std::time::Duration;

use super::Finding;
use crate::config::{
    problem::FieldPath,
    schema::{Breaker, Health, HttpCheck, Protocol, Service},
};

/// Shortest interval: a shorter one would overload the endpoints.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// Longest `retry_after`: with a longer one clients would not come back.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Checks the health settings of a service.
pub(super) fn health(
    health: &Health,
    service: &Service,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    if *health == Health::default() {
        let message = "says nothing; write http, grpc or tcp, or leave the field out";
        found.push(Finding::new(path.clone(), message));
    }
    let asks = [("http", health.http.is_some()), ("grpc", health.grpc.is_some())];
    if let Some((key, _)) = asks.into_iter().find(|(_, asks)| *asks && health.tcp.is_some()) {
        let message = format!("a check by {key} connects anyway; leave it out");
        found.push(Finding::new(path.key("tcp"), message).and(path.key(key)));
    }
    if health.http.is_some() && health.grpc.is_some() {
        let message = "endpoints are asked one thing; write http or grpc";
        found.push(Finding::new(path.key("grpc"), message).and(path.key("http")));
    }
    if let Some(check) = &health.grpc {
        host(check.host.as_deref(), &path.key("grpc"), found);
        grpc(service, &path.key("grpc"), found);
    }
    if let Some(check) = &health.http {
        http(check, &path.key("http"), found);
    }
    if health.interval < LEAST_INTERVAL {
        found.push(Finding::new(path.key("interval"), "too short; write 10ms or more"));
    }
    for (key, count) in [("healthy", health.healthy), ("unhealthy", health.unhealthy)] {
        if count == 0 {
            found.push(Finding::new(path.key(key), "no check decides nothing; write 1 or more"));
        }
    }
}

fn http(check: &HttpCheck, path: &FieldPath, found: &mut Vec<Finding>) {
    let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !check.path.starts_with('/') || !visible(&check.path) || check.path.contains('#') {
        let message = format!("`{}` is not a path; write one such as /healthz", check.path);
        found.push(Finding::new(path.key("path"), message));
    }
    host(check.host.as_deref(), path, found);
    if check.expect.is_empty() {
        let message = "no answer would be good; write statuses, such as 2xx";
        found.push(Finding::new(path.key("expect"), message));
    }
    for (index, statuses) in check.expect.iter().enumerate() {
        if check.expect[..index].contains(statuses) {
            let message = format!("`{statuses}` twice; write it once");
            found.push(Finding::new(path.key("expect").index(index), message));
        }
    }
}

fn host(host: Option<&str>, path: &FieldPath, found: &mut Vec<Finding>) {
    if let Some(host) = host
        && (host.is_empty() || host.parse::<http::uri::Authority>().is_err())
    {
        let message = format!("`{host}` is not a host; write one such as game.internal");
        found.push(Finding::new(path.key("host"), message));
    }
}

/// gRPC needs HTTP/2, which not all versions use.
fn grpc(service: &Service, path: &FieldPath, found: &mut Vec<Finding>) {
    for (name, version) in &service.versions {
        let speaks = match version.protocol {
            Protocol::H2 => true,
            Protocol::Auto => version.tls.is_some(),
            Protocol::H1 => false,
        };
        if !speaks {
            let message = format!(
                "gRPC takes HTTP/2, which `{name}` is not spoken to in; write protocol: h2 there"
            );
            found.push(Finding::new(path.clone(), message));
        }
    }
}

/// Checks the circuit breaker.
pub(super) fn breaker(breaker: &Breaker, path: &FieldPath, found: &mut Vec<Finding>) {
    for (key, limit) in [("requests", breaker.requests), ("pending", breaker.pending)] {
        if limit == 0 {
            let message = "nobody would be served; write 1 or more, or leave the field out";
            found.push(Finding::new(path.key(key), message));
        }
    }
    if breaker.retry_after > MOST_RETRY_AFTER {
        found.push(Finding::new(path.key("retry_after"), "too long; write at most 1h"));
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    /// The problems of a service with these fields.
    fn problems(fields: &str) -> String {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nroutes: [ {{ service: a }} ]\nservices:\n  a:\n    \
             baseline: v1\n    versions: {{ v1: {{ endpoints: [ 10.0.0.1:1 ] }} }}\n    {fields}\n"
        );
        parse(&text).map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn checks_check_something_and_decide_something() {
        for good in [
            "health: { http: {} }",
            "health: { tcp: {}, slow_start: 0s, connect_faults: 0 }",
            "health: { connect_faults: 5 }",
            "health: { panic_threshold: 0% }",
            "health: { http: { expect: [ 200-299, 404 ] } }",
            "health: { http: { path: /ready?full=1, host: 'a.b:80', expect: [ 204, 2xx ] } }",
            "breaker: {}",
            "breaker: { requests: 1, pending: 1, retry_after: 1500ms }",
        ] {
            assert_eq!(problems(good), "", "{good}");
        }
        for (bad, expected) in [
            (
                "health: {}",
                "7:13: services.a.health: says nothing; write http, grpc or tcp, or leave the field out",
            ),
            (
                "health: { http: {}, tcp: {} }",
                "7:30: services.a.health.tcp: a check by http connects anyway; leave it out",
            ),
            (
                "health: { grpc: {} }",
                "7:21: services.a.health.grpc: gRPC takes HTTP/2, which `v1` is not spoken to in; write protocol: h2 there",
            ),
            (
                "health: { http: { expect: [ 300-299 ] } }",
                "7:33: services.a.health.http.expect[0]: `300-299` is not the status of an answer; write one from 200 to 599, such as 429, a class such as 4xx, or a range such as 500-503",
            ),
            (
                "health: { tcp: {}, interval: 1ms }",
                "7:34: services.a.health.interval: too short; write 10ms or more",
            ),
            (
                "health: { tcp: {}, healthy: 0 }",
                "7:33: services.a.health.healthy: no check decides nothing; write 1 or more",
            ),
            (
                "health: { http: { path: x } }",
                "7:29: services.a.health.http.path: `x` is not a path; write one such as /healthz",
            ),
            (
                "health: { http: { host: 'a b' } }",
                "7:29: services.a.health.http.host: `a b` is not a host; write one such as game.internal",
            ),
            (
                "health: { http: { expect: [] } }",
                "7:31: services.a.health.http.expect: no answer would be good; write statuses, such as 2xx",
            ),
            (
                "health: { http: { expect: [ 200, 200 ] } }",
                "7:38: services.a.health.http.expect[1]: `200` twice; write it once",
            ),
            (
                "breaker: { requests: 0 }",
                "7:26: services.a.breaker.requests: nobody would be served; write 1 or more, or leave the field out",
            ),
            (
                "breaker: { retry_after: 2h }",
                "7:29: services.a.breaker.retry_after: too long; write at most 1h",
            ),
        ] {
            assert_eq!(problems(bad), expected, "{bad}");
        }
    }
}
