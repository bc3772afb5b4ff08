//! Checks smoke checks, and whether the gates of plans name ones that exist.

use std::collections::{BTreeSet, HashSet};

use regex_lite::Regex;
use serde_json::Value;

use super::{Finding, label, no_such};
use crate::config::{
    pattern::is_token_byte,
    problem::{FieldPath, closest},
    schema::{
        Config, GateQuestion, HeaderExpectation, Kept, MAX_SMOKE_STEPS, MAX_SMOKE_TIME, SmokeCheck,
        SmokeStep, Step, Template, is_variable, json_path,
    },
};

/// Fields that Tidegate writes itself, or that belong to a connection.
const OWN_FIELDS: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// Checks the smoke checks of `config`.
pub(super) fn check(config: &Config, found: &mut Vec<Finding>) {
    let all = FieldPath::default().key("smoke");
    for (name, check) in &config.smoke {
        let path = all.key(name);
        if let Err(message) = label(name, "") {
            found.push(Finding::of_name(path.clone(), message));
        }
        whole(check, &path, found);
    }
}

/// Findings about gates of `steps`, a plan at `path`: smoke checks that `config` does not have.
pub fn check_smoke_gates(steps: &[Step], config: &Config, path: &FieldPath) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        for (nth, gate) in step.gates.iter().enumerate() {
            let GateQuestion::Smoke(name) = &gate.question else { continue };
            // A malformed name has a finding of its own.
            if label(name, "").is_err() {
                continue;
            }
            let here = path.index(at).key("gates").index(nth);
            if config.smoke.is_empty() {
                let message = format!("no smoke check `{name}`; write it under smoke");
                found.push(Finding::new(here, message).and(FieldPath::default().key("smoke")));
            } else if let Some(message) = no_such("smoke check", name, &config.smoke) {
                found.push(Finding::new(here, message));
            }
        }
    }
    found
}

fn whole(check: &SmokeCheck, path: &FieldPath, found: &mut Vec<Finding>) {
    let steps = path.key("steps");
    if check.steps.is_empty() {
        let message = "no step; write at least one, such as { request: GET /healthz }";
        found.push(Finding::new(steps.clone(), message));
    }
    if check.steps.len() > MAX_SMOKE_STEPS {
        let message = format!("{} steps; write at most {MAX_SMOKE_STEPS}", check.steps.len());
        found.push(Finding::new(steps, message));
        return;
    }
    if let Some(host) = &check.host
        && (host.contains('@') || host.parse::<http::uri::Authority>().is_err())
    {
        let message = format!("`{host}` is not a host; write one such as api.example.com");
        found.push(Finding::new(path.key("host"), message));
    }
    if check.timeout > MAX_SMOKE_TIME {
        found.push(Finding::new(path.key("timeout"), "too long; write at most 1m"));
    }
    let mut known = BTreeSet::new();
    for (index, step) in check.steps.iter().enumerate() {
        let here = steps.index(index);
        variables(step, &known, check, index, &here, found);
        headers(step, &here.key("headers"), found);
        expectation(step, &here.key("expect"), found);
        if step.expect.within.is_some_and(|within| within > check.timeout) {
            let message = format!(
                "longer than the {} of the whole check; write less, or a longer timeout",
                humantime::format_duration(check.timeout)
            );
            let finding = Finding::new(here.key("expect").key("within"), message);
            found.push(finding.and(path.key("timeout")));
        }
        keep(step, &here.key("keep"), found);
        known.extend(step.keep.keys().map(String::as_str));
    }
}

/// Checks that each `${name}` of a step was kept by an earlier one.
fn variables(
    step: &SmokeStep,
    known: &BTreeSet<&str>,
    check: &SmokeCheck,
    index: usize,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    let mut seen = HashSet::new();
    let mut uses = |name: &str, at: FieldPath, found: &mut Vec<Finding>| {
        if known.contains(name) || !seen.insert((name.to_owned(), at.clone())) {
            return;
        }
        let later = check.steps[index..].iter().position(|s| s.keep.contains_key(name));
        let right = match (later, closest(name, known.iter().copied())) {
            (Some(0), _) => {
                "it is kept from this step's own answer; use it in a later step".to_owned()
            }
            (Some(later), _) => format!("it is kept later, by step {}", index + later + 1),
            (None, Some(close)) => format!("did you mean `{close}`?"),
            (None, None) => format!("write keep: {{ {name}: \"json:$.…\" }} in an earlier step"),
        };
        let message = format!("no earlier step keeps `{name}`; {right}");
        found.push(Finding::new(at, message));
    };
    step.request.target.names().for_each(|name| uses(name, path.key("request"), found));
    for (field, value) in &step.headers {
        let at = path.key("headers").key(field);
        value.names().for_each(|name| uses(name, at.clone(), found));
    }
    if let Some(body) = &step.json {
        texts(body, &path.key("json"), found, &mut uses);
    }
    for (field, value) in &step.expect.headers {
        let at = path.key("expect").key("headers").key(field);
        if let HeaderExpectation::Is(value) = value {
            value.names().for_each(|name| uses(name, at.clone(), found));
        }
    }
    for (query, value) in &step.expect.json {
        texts(value, &path.key("expect").key("json").key(query), found, &mut uses);
    }
}

/// Checks each text in `value`, which stands at `path`.
fn texts(
    value: &Value,
    path: &FieldPath,
    found: &mut Vec<Finding>,
    uses: &mut impl FnMut(&str, FieldPath, &mut Vec<Finding>),
) {
    match value {
        Value::String(text) => match text.parse::<Template>() {
            Ok(template) => template.names().for_each(|name| uses(name, path.clone(), found)),
            Err(message) => found.push(Finding::new(path.clone(), message)),
        },
        Value::Array(items) => {
            let each = items.iter().enumerate();
            each.for_each(|(index, item)| texts(item, &path.index(index), found, uses));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| texts(field, &path.key(name), found, uses));
        }
        _ => {}
    }
}

fn headers(step: &SmokeStep, path: &FieldPath, found: &mut Vec<Finding>) {
    let mut seen = BTreeSet::new();
    for (name, value) in &step.headers {
        let here = path.key(name);
        let lower = name.to_ascii_lowercase();
        let own = lower.starts_with("tidegate-") || OWN_FIELDS.contains(&&*lower);
        if let Some(message) = header_name(name) {
            found.push(Finding::of_name(here.clone(), message));
        } else if lower == "host" {
            let message = "the host is one for all steps; write `host` beside `steps`";
            found.push(Finding::of_name(here.clone(), message));
        } else if own {
            let message = format!("`{name}` is written by Tidegate; leave it out");
            found.push(Finding::of_name(here.clone(), message));
        } else if lower == "content-type" && step.json.is_some() {
            let message = "the body is sent as application/json; leave it out";
            found.push(Finding::of_name(here.clone(), message));
        } else if !seen.insert(lower) {
            let message = format!("`{name}` twice, since case does not count; write it once");
            found.push(Finding::of_name(here.clone(), message));
        }
        header_value(value, here, found);
    }
}

fn header_name(name: &str) -> Option<String> {
    let is_token = !name.is_empty() && name.bytes().all(is_token_byte);
    (!is_token).then(|| format!("`{name}` is not a header's name; write letters, digits and -"))
}

fn header_value(value: &Template, path: FieldPath, found: &mut Vec<Finding>) {
    let sample = value.filled(|_| "x".to_owned());
    if sample.trim_matches([' ', '\t']).len() != sample.len()
        || http::HeaderValue::from_str(&sample).is_err()
    {
        let message = "not a header's value; write visible ASCII without white space around it";
        found.push(Finding::new(path, message));
    }
}

fn expectation(step: &SmokeStep, path: &FieldPath, found: &mut Vec<Finding>) {
    let expect = &step.expect;
    if expect.status.as_slice().is_empty() {
        let message = "no answer would be good; write statuses, such as 2xx";
        found.push(Finding::new(path.key("status"), message));
    }
    for (name, value) in &expect.headers {
        let here = path.key("headers").key(name);
        if let Some(message) = header_name(name) {
            found.push(Finding::of_name(here.clone(), message));
        }
        match value {
            HeaderExpectation::Is(value) => header_value(value, here, found),
            HeaderExpectation::Matches(pattern) => {
                if let Err(error) = Regex::new(&pattern.matches) {
                    let message = format!(
                        "`{}` is not a regular expression ({error}); write one such as ^application/json",
                        pattern.matches
                    );
                    found.push(Finding::new(here.key("matches"), message));
                }
            }
        }
    }
    for query in expect.json.keys() {
        if let Err(message) = json_path(query) {
            found.push(Finding::of_name(path.key("json").key(query), message));
        }
    }
    if step.request.method == "HEAD" && !expect.json.is_empty() {
        let message = "an answer to HEAD has no body; write GET";
        found.push(Finding::new(path.key("json"), message));
    }
}

fn keep(step: &SmokeStep, path: &FieldPath, found: &mut Vec<Finding>) {
    for (name, kept) in &step.keep {
        if !is_variable(name) {
            let message = format!(
                "`{name}` cannot be a name; write 1 to 64 of the letters a-z A-Z, the digits 0-9 and . _ -"
            );
            found.push(Finding::of_name(path.key(name), message));
        }
        if step.request.method == "HEAD" && matches!(kept, Kept::Json(_)) {
            let message = "an answer to HEAD has no body; write GET";
            found.push(Finding::new(path.key(name), message));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    /// The problems of a file whose line 4 and on are `more`.
    fn problems(more: &str) -> String {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nroutes: [ {{ service: a }} ]\nservices: {{ a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 10.0.0.1:1 ] }} }} }} }}\n{more}\n"
        );
        parse(&text).map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn the_check_of_the_contract_is_good() {
        let smoke = "\
smoke:
  money-path:
    host: api.example.com
    scheme: https
    timeout: 10s
    steps:
    - { request: \"POST /v1/login\", json: { user: smoke }, expect: { status: 200, within: 500ms }, keep: { token: \"json:$.token\", sid: 'cookie:sid' } }
    - request: POST /v1/rounds?player=${sid}
      headers: { authorization: 'Bearer ${token}', x-n: 7 }
      json: { stake: 1.50, at: [ '${sid}', 'costs $${ 5' ] }
      expect: { status: [ 200, 2xx, 500-503 ], headers: { content-type: { matches: ^application/json }, x-sid: '${sid}' }, json: { '$.state': open, \"$['a'][0]\": { of: '${sid}' } } }
      keep: { token: 'header:X-Token' }
    - { request: GET / }
plans: { p: [ { weight: 1%, for: 1m, gates: [ { smoke: money-path } ] }, { weight: 100% } ] }";
        assert_eq!(problems(smoke), "");
    }

    #[test]
    fn the_example_of_the_documents_is_good() {
        let page = include_str!("../../../docs/smoke.md");
        let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
        let example = example.expect("an example");
        let config = parse(example).unwrap_or_else(|problems| panic!("{problems}"));
        let check = &config.smoke["money-path"];
        assert_eq!(check.steps.len(), 3);
        // Every field that the page explains is in its example.
        for field in
            ["keep:", "expect:", "within:", "matches:", "headers:", "json:", "host:", "timeout:"]
        {
            assert!(example.contains(field), "{field}");
        }
    }

    #[test]
    fn a_gate_names_a_check_that_exists() {
        let plans = |name: &str| {
            format!(
                "plans: {{ p: [ {{ weight: 1%, gates: [ slo, {{ smoke: {name} }} ] }}, {{ weight: 100% }} ] }}"
            )
        };
        assert_eq!(
            problems(&plans("login")),
            "4:43: plans.p[0].gates[1]: no smoke check `login`; write it under smoke"
        );
        let smoke = "\nsmoke: { login: { steps: [ { request: GET / } ] }, spin: { steps: [ { request: GET / } ] } }";
        assert_eq!(problems(&(plans("login") + smoke)), "");
        assert_eq!(
            problems(&(plans("logn") + smoke)),
            "4:43: plans.p[0].gates[1]: no smoke check `logn`; did you mean `login`?"
        );
        assert_eq!(
            problems(&(plans("money") + smoke)),
            "4:43: plans.p[0].gates[1]: no smoke check `money`; known: login, spin"
        );
    }

    #[test]
    fn every_problem_of_a_check_is_found_where_it_is() {
        let smoke = "\
smoke:
  'a b': { steps: [], host: 'a b' }
  odd:
    timeout: 1s
    steps:
    - { request: GET v1 }
    - { request: 'GET /${late}/${own}', keep: { own: 'json:$.own', 'a b': 'cookie:c' } }
    - { request: 'HEAD /${onw}', expect: { status: [], within: 2s, json: { token: 1, '$.a': '${' } }, keep: { late: 'json:$.x' } }
    - request: GET /
      headers: { 'x y': a, host: b, Tidegate-Smoke: 1, content-type: a/b, X-A: a, x-a: ' b', x-c: '${nobody}' }
      json: { a: [ '${nobody}', '${' ] }
      expect: { status: 700, headers: { x-a: { matches: '(' }, x-b: { match: a } } }
      keep: { t: token }
      retries: 1
    - { request: GET /, headers: { a: '${' } }
    - { request: GET /, expect: { statuses: 200 } }
    - { request: GET /, keep: { a: 'json:$[' } }";
        assert_eq!(
            problems(smoke),
            "\
5:3: smoke.\"a b\": `a b` cannot be a name; write 1 to 64 of the letters a-z A-Z, the digits 0-9 and . _ -
5:19: smoke.\"a b\".steps: no step; write at least one, such as { request: GET /healthz }
5:29: smoke.\"a b\".host: `a b` is not a host; write one such as api.example.com
9:18: smoke.odd.steps[0].request: `GET v1` is not a request: its path does not begin with /; write one such as POST /v1/login
10:18: smoke.odd.steps[1].request: no earlier step keeps `late`; it is kept later, by step 3
10:18: smoke.odd.steps[1].request: no earlier step keeps `own`; it is kept from this step's own answer; use it in a later step
10:68: smoke.odd.steps[1].keep.\"a b\": `a b` cannot be a name; write 1 to 64 of the letters a-z A-Z, the digits 0-9 and . _ -
11:18: smoke.odd.steps[2].request: no earlier step keeps `onw`; did you mean `own`?
11:52: smoke.odd.steps[2].expect.status: no answer would be good; write statuses, such as 2xx
11:64: smoke.odd.steps[2].expect.within: longer than the 1s of the whole check; write less, or a longer timeout
11:74: smoke.odd.steps[2].expect.json: an answer to HEAD has no body; write GET
11:76: smoke.odd.steps[2].expect.json.token: `token` is not a JSON path from character 1 on; write one such as $.token
11:93: smoke.odd.steps[2].expect.json.\"$.a\": `${` has a `${` without a name of letters, digits and . _ - and a `}` after it; write ${NAME}, or $${ for the characters themselves
11:117: smoke.odd.steps[2].keep.late: an answer to HEAD has no body; write GET
13:18: smoke.odd.steps[3].headers.\"x y\": `x y` is not a header's name; write letters, digits and -
13:28: smoke.odd.steps[3].headers.host: the host is one for all steps; write `host` beside `steps`
13:37: smoke.odd.steps[3].headers.Tidegate-Smoke: `Tidegate-Smoke` is written by Tidegate; leave it out
13:56: smoke.odd.steps[3].headers.content-type: the body is sent as application/json; leave it out
13:83: smoke.odd.steps[3].headers.x-a: `x-a` twice, since case does not count; write it once
13:88: smoke.odd.steps[3].headers.x-a: not a header's value; write visible ASCII without white space around it
13:99: smoke.odd.steps[3].headers.x-c: no earlier step keeps `nobody`; write keep: { nobody: \"json:$.…\" } in an earlier step
14:20: smoke.odd.steps[3].json.a[0]: no earlier step keeps `nobody`; write keep: { nobody: \"json:$.…\" } in an earlier step
14:33: smoke.odd.steps[3].json.a[1]: `${` has a `${` without a name of letters, digits and . _ - and a `}` after it; write ${NAME}, or $${ for the characters themselves
15:25: smoke.odd.steps[3].expect.status: `700` is not the status of an answer; write one from 200 to 599, such as 429, a class such as 4xx, or a range such as 500-503
15:57: smoke.odd.steps[3].expect.headers.x-a.matches: `(` is not a regular expression (found open group without closing ')'); write one such as ^application/json
15:69: smoke.odd.steps[3].expect.headers.x-b.matches: missing; add `matches: ^application/json`
15:71: smoke.odd.steps[3].expect.headers.x-b.match: unknown field `match`; did you mean `matches`? known fields: matches
16:18: smoke.odd.steps[3].keep.t: `token` names no part of an answer; write json:$.token, header:x-token or cookie:sid
17:7: smoke.odd.steps[3].retries: unknown field `retries`; known fields: request, headers, json, expect, keep
18:39: smoke.odd.steps[4].headers.a: `${` has a `${` without a name of letters, digits and . _ - and a `}` after it; write ${NAME}, or $${ for the characters themselves
19:35: smoke.odd.steps[5].expect.statuses: unknown field `statuses`; did you mean `status`? known fields: status, within, headers, json
20:36: smoke.odd.steps[6].keep.a: `$[` is not a JSON path from character 2 on; write one such as $.token"
        );
    }
}
