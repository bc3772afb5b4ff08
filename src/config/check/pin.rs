//! Checks pins.

use std::{collections::HashSet, time::Duration};

use super::{
    Finding, label,
    matching::{self, Kind, has_param},
    route::methods,
};
use crate::config::{
    pattern::{KeySource, is_token_byte},
    problem::FieldPath,
    schema::{Config, Pin, PinBegin, PinCookie, PinEnd, PinEndAnswer, PinKeyAnswer},
};

/// Most pins of a service: a gigabyte.
const MOST: u32 = 10_000_000;

/// Longest life of a pin: a version that cannot be drained for a month is no longer maintained.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 3600);

/// Checks the pins of `service`.
pub(super) fn check(
    service: &str,
    pin: &Pin,
    config: &Config,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    match (&pin.key, &pin.cookie) {
        (None, None) => {
            let message = "neither key nor cookie; write one, such as key: path:round";
            found.push(Finding::new(path.clone(), message));
        }
        (Some(_), Some(_)) => {
            let message = "pins are kept by key or in a cookie; write one of both";
            found.push(Finding::new(path.key("key"), message).and(path.key("cookie")));
        }
        (Some(_), None) => keys(service, pin, config, &path.key("key"), found),
        (None, Some(value)) => cookie(service, value, config, &path.key("cookie"), found),
    }
    if pin.cookie.is_some() {
        if pin.most.is_some() {
            let message = "clients keep their cookies themselves, without a bound; leave it out";
            found.push(Finding::of_name(path.key("most"), message).and(path.key("cookie")));
        }
        if pin.begin.as_ref().is_some_and(|begin| begin.answer.is_some()) {
            let message = "a cookie has no key that a response could name; leave it out";
            let answer = path.key("begin").key("answer");
            found.push(Finding::of_name(answer, message).and(path.key("cookie")));
        }
    }
    if !(1..=MOST).contains(&pin.most.unwrap_or(Pin::MOST)) {
        found.push(Finding::new(path.key("most"), "out of range; write 1 to 10000000"));
    }
    let second = Duration::from_secs(1);
    for (name, time) in [("idle", pin.idle), ("limit", pin.limit)] {
        if !(second..=LONGEST).contains(&time) {
            let message = "out of range; write 1s to 744h, since pins are counted in seconds";
            found.push(Finding::new(path.key(name), message));
        }
    }
    if pin.idle > pin.limit {
        let message = "longer than `limit`, so it would never pass; write a shorter time";
        found.push(Finding::new(path.key("idle"), message).and(path.key("limit")));
    }
    if let Some(begin) = &pin.begin {
        self::begin(begin, &path.key("begin"), found);
    }
    if let Some(end) = &pin.end {
        self::end(end, &path.key("end"), found);
    }
}

fn keys(service: &str, pin: &Pin, config: &Config, path: &FieldPath, found: &mut Vec<Finding>) {
    let keys = pin.sources();
    if keys.is_empty() {
        let message = "no source; write one, such as path:round or header:x-player-id";
        found.push(Finding::new(path.clone(), message));
    }
    for (index, source) in keys.iter().enumerate() {
        let here = if keys.len() == 1 { path.clone() } else { path.index(index) };
        if keys[..index].contains(source) {
            found.push(Finding::new(here.clone(), format!("`{source}` twice; write it once")));
        } else if keys[..index].contains(&KeySource::ClientIp) {
            let message = format!(
                "`{source}` is never asked, since client-ip is always there; write client-ip last"
            );
            found.push(Finding::new(here.clone(), message));
        }
        if let KeySource::Path(name) = source {
            let mut routes = config.routes.iter().filter(|r| r.service == service).peekable();
            if routes.peek().is_some() && !routes.any(|route| has_param(route, name)) {
                let message = format!(
                    "no route to `{service}` has `{{{name}}}` in its path; write it there, such as /rounds/{{{name}}}"
                );
                let routes = FieldPath::default().key("routes");
                found.push(Finding::new(here, message).and(routes));
            }
        }
    }
}

fn cookie(
    service: &str,
    cookie: &PinCookie,
    config: &Config,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    let name = &cookie.name;
    if name.is_empty() || !name.bytes().all(is_token_byte) {
        let message = format!("`{name}` is not a cookie's name; write letters, digits, - and _");
        found.push(Finding::new(path.key("name"), message));
    }
    let others = config.services.iter().take_while(|(other, _)| *other != service);
    let mut others =
        others.filter_map(|(other, s)| Some((other, s.pin.as_ref()?.cookie.as_ref()?)));
    if let Some((other, _)) = others.find(|(_, cookie)| cookie.name == *name) {
        let first = FieldPath::default().key("services").key(other).key("pin").key("cookie");
        let message = format!("`{name}` is the cookie of `{other}` already; write another name");
        found.push(Finding::new(path.key("name"), message).and(first.key("name")));
    }
    let keys = path.key("keys");
    if cookie.keys.is_empty() {
        let message = "no key; write one, such as { id: k1, file: pin-k1.key }";
        found.push(Finding::new(keys.clone(), message));
    }
    for (index, key) in cookie.keys.iter().enumerate() {
        let here = keys.index(index).key("id");
        if let Err(message) = label(&key.id, "") {
            found.push(Finding::new(here.clone(), message));
        }
        if cookie.keys[..index].iter().any(|earlier| earlier.id == key.id) {
            let message = format!("`{}` twice; cookies name their key by it", key.id);
            found.push(Finding::new(here, message));
        }
        if let Err(message) = file_fault(&key.file.to_string_lossy()) {
            found.push(Finding::new(keys.index(index).key("file"), message));
        }
    }
}

fn file_fault(file: &str) -> Result<(), &'static str> {
    if file.is_empty() { Err("an empty path; name the file of the key") } else { Ok(()) }
}

fn begin(begin: &PinBegin, path: &FieldPath, found: &mut Vec<Finding>) {
    methods(&begin.methods, &path.key("methods"), found);
    if begin.path.is_none() && begin.methods.is_empty() && begin.answer.is_none() {
        let message = "no condition; write path, methods or answer, or leave `begin` out";
        found.push(Finding::new(path.clone(), message));
    }
    if let Some(PinKeyAnswer { header }) = &begin.answer
        && let Some(message) = header_fault(header)
    {
        found.push(Finding::new(path.key("answer").key("header"), message));
    }
}

fn end(end: &PinEnd, path: &FieldPath, found: &mut Vec<Finding>) {
    methods(&end.methods, &path.key("methods"), found);
    if end.path.is_none() && end.methods.is_empty() && end.answer.is_none() {
        let message =
            "no condition, so every response would end the pin; write path, methods or answer";
        found.push(Finding::new(path.clone(), message));
    }
    let Some(PinEndAnswer { header, is }) = &end.answer else { return };
    let path = path.key("answer");
    if let Some(message) = header_fault(header) {
        found.push(Finding::new(path.key("header"), message));
    }
    let mut seen = HashSet::new();
    if is.as_slice().is_empty() {
        let message = "an empty list; write the values that end a pin";
        found.push(Finding::new(path.key("is"), message));
    }
    for (index, value) in is.as_slice().iter().enumerate() {
        let here = match is.as_slice() {
            [_] => path.key("is"),
            _ => path.key("is").index(index),
        };
        if let Some(message) = matching::value_fault(Kind::Headers, value) {
            let message = format!("`{value}` never matches; {message}");
            found.push(Finding::new(here.clone(), message));
        }
        if !seen.insert(value) {
            found.push(Finding::new(here, format!("`{value}` twice; write it once")));
        }
    }
}

fn header_fault(header: &str) -> Option<String> {
    let is_token = !header.is_empty() && header.bytes().all(is_token_byte);
    (!is_token).then(|| format!("`{header}` is not a header's name; write letters, digits and -"))
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    /// Problems of a file whose service `a` has these pins, in line 5 from column 13; service `b` has a cookie.
    #[track_caller]
    fn assert_problems(pin: &str, expected: &str) {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:8080 }} ]
services:
  b: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 10.0.0.1:1 ] }} }}, pin: {{ cookie: {{ keys: [ {{ id: k, file: f }} ] }} }} }}
  a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 10.0.0.1:1 ] }} }},
     pin: {{ {pin} }} }}
routes: [ {{ service: a, match: {{ path: '/rounds/{{round}}' }} }}, {{ service: b }} ]
"
        );
        let problems = parse(&text).map_or_else(|p| p.to_string(), |_| String::new());
        assert_eq!(problems, expected, "\n{problems}\n");
    }

    #[test]
    fn the_examples_of_the_documentation_are_good() {
        for good in [
            "key: 'path:round', begin: { path: /v1/rounds, methods: [ POST ] }, end: { answer: { header: x-round-state, is: settled } }, idle: 10m, limit: 2h, on_eject: move",
            "key: [ 'header:x-player', client-ip ], on_eject: hold, most: 1",
            "key: 'path:round', begin: { answer: { header: x-round-id } }, end: { path: '/rounds/{id}/end' }",
            "cookie: { name: pin-a, keys: [ { id: k2, file: k2 }, { id: k1, file: k1 } ] }, begin: { path: /login }, idle: 1s, limit: 1s",
        ] {
            assert_problems(good, "");
        }
    }

    #[test]
    fn pins_are_kept_by_key_or_in_a_cookie() {
        assert_problems(
            "idle: 1m",
            "\
5:11: services.a.pin: neither key nor cookie; write one, such as key: path:round",
        );
        assert_problems(
            "key: client-ip, cookie: { name: other, keys: [ { id: k, file: f } ] }",
            "\
5:18: services.a.pin.key: pins are kept by key or in a cookie; write one of both",
        );
        assert_problems(
            "cookie: { keys: [ { id: k, file: f }, { id: k, file: '' }, { id: 'a b', file: g } ] }, most: 5, begin: { answer: { header: x } }",
            "\
5:21: services.a.pin.cookie.name: `tg-pin` is the cookie of `b` already; write another name
5:57: services.a.pin.cookie.keys[1].id: `k` twice; cookies name their key by it
5:66: services.a.pin.cookie.keys[1].file: an empty path; name the file of the key
5:78: services.a.pin.cookie.keys[2].id: `a b` cannot be a name; write 1 to 64 of the letters a-z A-Z, the digits 0-9 and . _ -
5:100: services.a.pin.most: clients keep their cookies themselves, without a bound; leave it out
5:118: services.a.pin.begin.answer: a cookie has no key that a response could name; leave it out",
        );
        assert_problems(
            "cookie: { name: 'a b', keys: [] }",
            "\
5:29: services.a.pin.cookie.name: `a b` is not a cookie's name; write letters, digits, - and _
5:42: services.a.pin.cookie.keys: no key; write one, such as { id: k1, file: pin-k1.key }",
        );
    }

    #[test]
    fn keys_and_conditions_make_sense() {
        assert_problems(
            "key: [ 'path:rond', client-ip, 'header:x', client-ip ]",
            "\
5:20: services.a.pin.key[0]: no route to `a` has `{rond}` in its path; write it there, such as /rounds/{rond}
5:44: services.a.pin.key[2]: `header:x` is never asked, since client-ip is always there; write client-ip last
5:56: services.a.pin.key[3]: `client-ip` twice; write it once",
        );
        assert_problems(
            "key: []",
            "\
5:18: services.a.pin.key: no source; write one, such as path:round or header:x-player-id",
        );
        assert_problems(
            "key: 'claims:sub'",
            "\
5:18: services.a.pin.key: `claims:sub` names no part of a request; write header:NAME, cookie:NAME, query:NAME, path:NAME, claim:NAME or client-ip",
        );
        assert_problems(
            "key: client-ip, begin: { methods: [ post ], answer: { header: 'x y' } }, end: {}, idle: 3h, limit: 500ms, most: 0",
            "\
5:49: services.a.pin.begin.methods[0]: `post` is not a method in upper case; write POST
5:75: services.a.pin.begin.answer.header: `x y` is not a header's name; write letters, digits and -
5:91: services.a.pin.end: no condition, so every response would end the pin; write path, methods or answer
5:101: services.a.pin.idle: longer than `limit`, so it would never pass; write a shorter time
5:112: services.a.pin.limit: out of range; write 1s to 744h, since pins are counted in seconds
5:125: services.a.pin.most: out of range; write 1 to 10000000",
        );
        assert_problems(
            "key: client-ip, begin: {}, end: { methods: [ GET, GET ], answer: { header: '', is: [ a, a, ' b' ] } }, limit: 800h, on_eject: keep",
            "\
5:36: services.a.pin.begin: no condition; write path, methods or answer, or leave `begin` out
5:63: services.a.pin.end.methods[1]: `GET` twice; write it once
5:88: services.a.pin.end.answer.header: `` is not a header's name; write letters, digits and -
5:101: services.a.pin.end.answer.is[1]: `a` twice; write it once
5:104: services.a.pin.end.answer.is[2]: ` b` never matches; a header's value has no white space around it; leave it out
5:123: services.a.pin.limit: out of range; write 1s to 744h, since pins are counted in seconds
5:139: services.a.pin.on_eject: `keep` is not known; write one of move, hold",
        );
        assert_problems(
            "key: client-ip, end: { answer: { header: x, is: [] } }, idel: 1m",
            "\
5:61: services.a.pin.end.answer.is: an empty list; write the values that end a pin
5:69: services.a.pin.idel: unknown field `idel`; did you mean `idle`? known fields: key, cookie, begin, end, idle, limit, on_eject, most",
        );
    }
}
