//! Checks how requests of a route are repeated.

use std::time::Duration;

use super::Finding;
use crate::config::{
    problem::FieldPath,
    schema::{
        Config, KeyTrust, MAX_ATTEMPTS, MAX_BODY_WAIT, MAX_KEPT_BODY, Rescue, Retry, RetryOn, Route,
    },
};

/// Checks the `retry` of `route`.
pub(super) fn check(
    retry: &Retry,
    route: &Route,
    config: &Config,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    let mut wrong = |key: &str, message: String| found.push(Finding::new(path.key(key), message));
    if !(2..=MAX_ATTEMPTS).contains(&retry.attempts) {
        wrong(
            "attempts",
            format!(
                "`{}` is out of range; attempts count the first one, so write 2 to {MAX_ATTEMPTS}",
                retry.attempts
            ),
        );
    }
    if retry.on.is_empty() {
        let message = "an empty list, so nothing is repeated; write failures, or leave `retry` out";
        wrong("on", message.to_owned());
    }
    if retry.budget.0 == 0.0 && retry.min_per_second == 0 {
        let message = "`0%` beside `min_per_second: 0` allows no attempt; raise one of them";
        wrong("budget", message.to_owned());
    }
    if retry.body > MAX_KEPT_BODY {
        let message = format!("`{}` is more than {MAX_KEPT_BODY}; write less", retry.body);
        wrong("body", message);
    }
    for (key, time, most) in [
        ("body_wait", retry.body_wait, MAX_BODY_WAIT),
        ("backoff", retry.backoff, retry.max_backoff),
    ] {
        if time > most {
            let limit = if key == "backoff" { "`max_backoff`, " } else { "" };
            let (time, most) = (text(time), text(most));
            wrong(key, format!("`{time}` is more than {limit}{most}; write at most that"));
        }
    }
    if retry.attempt_timeout.is_some_and(|of_one| of_one >= route.timeout) {
        let all = text(route.timeout);
        let message =
            format!("not below the route's `timeout` of {all}; write less, or leave it out");
        wrong("attempt_timeout", message);
    }
    on(&retry.on, &path.key("on"), found);
    rescue(retry, route, config, &path.key("rescue"), found);
}

fn on(on: &[RetryOn], path: &FieldPath, found: &mut Vec<Finding>) {
    for (index, failure) in on.iter().enumerate() {
        if on[..index].contains(failure) {
            found.push(Finding::new(path.index(index), "written twice; write it once"));
        }
    }
}

fn rescue(
    retry: &Retry,
    route: &Route,
    config: &Config,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    if retry.rescue == Rescue::Off {
        return;
    }
    if let Some(version) = &route.version {
        let message = format!(
            "the route names `{version}`, so no other version answers; leave `rescue` or `version` out"
        );
        found.push(Finding::new(path.clone(), message));
    }
    if retry.rescue == Rescue::SharedStore && retry.idempotency_key == KeyTrust::Ignored {
        let message = "a shared store of keys, and `idempotency_key: ignored`; write `honoured`, or \
                       `rescue: true`";
        found.push(Finding::new(path.clone(), message));
    }
    if config.services.get(&route.service).is_some_and(|service| service.versions.len() == 1) {
        let message = format!(
            "`{}` has one version, so there is no other to answer; leave it out",
            route.service
        );
        found.push(Finding::new(path.clone(), message));
    }
}

fn text(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(time)
}

#[cfg(test)]
mod tests {
    use crate::config::{parse, schema::Rescue};

    fn file(retry: &str, rest: &str) -> String {
        format!(
            "listen: [ {{ address: 127.0.0.1:8080 }} ]\nservices:\n  api:\n    baseline: a\n    versions:\n      \
             a: {{ endpoints: [ 127.0.0.1:1 ] }}\n      b: {{ endpoints: [ 127.0.0.1:2 ] }}\nroutes:\n  - service: api\n    \
             {rest}\n    retry: {retry}\n"
        )
    }

    fn problems(retry: &str, rest: &str) -> String {
        match parse(&file(retry, rest)) {
            Ok(_) => String::new(),
            Err(problems) => problems.to_string(),
        }
    }

    #[test]
    fn every_key_has_a_default_and_the_contract_s_line_is_read() {
        let read =
            |text: &str| parse(&file(text, "timeout: 2s")).expect("valid").routes[0].retry.clone();
        let usual = read("{ }").expect("a policy");
        assert_eq!((usual.attempts, usual.on.len(), usual.rescue), (2, 3, Rescue::Off));
        for (text, rescue) in
            [("true", Rescue::Reads), ("false", Rescue::Off), ("shared_store", Rescue::SharedStore)]
        {
            let text = format!(
                "{{ attempts: 2, on: [ connect, reset, 5xx ], idempotency_key: honoured, rescue: {text} }}"
            );
            let read = read(&text).expect("a policy");
            assert_eq!(read.rescue, rescue);
            let written = serde_json::to_value(&read).expect("it serializes");
            assert_eq!(serde_json::from_value::<super::Retry>(written).expect("and back"), read);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_would() {
        for (retry, rest, expected) in [
            (
                "{ attempts: 1 }",
                "",
                "`1` is out of range; attempts count the first one, so write 2 to 5",
            ),
            ("{ attempts: 6 }", "", "`6` is out of range"),
            ("{ on: [] }", "", "an empty list, so nothing is repeated"),
            ("{ on: [ reset, reset ] }", "", "on[1]: written twice"),
            ("{ on: [ 4xx ] }", "", "4xx"),
            ("{ budget: 0%, min_per_second: 0 }", "", "allows no attempt"),
            ("{ body: 2MiB }", "", "`2MiB` is more than 1MiB"),
            ("{ body_wait: 2s }", "", "`2s` is more than 1s"),
            ("{ backoff: 1s }", "", "`1s` is more than `max_backoff`, 250ms"),
            ("{ attempt_timeout: 2s }", "timeout: 2s", "not below the route's `timeout` of 2s"),
            ("{ rescue: maybe }", "", "`maybe` is no way to rescue"),
            ("{ rescue: true }", "version: b", "the route names `b`"),
            ("{ rescue: shared_store }", "", "a shared store of keys"),
        ] {
            let found = problems(retry, rest);
            assert!(found.contains(expected), "{retry}: {found}");
        }
        assert_eq!(problems("{ backoff: 1s, max_backoff: 1s, body: 0B, body_wait: 0s }", ""), "");
    }
}
