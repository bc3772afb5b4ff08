//! Checks issuers of tokens, what routes ask of tokens, and what reads claims.

use std::{collections::BTreeMap, time::Duration};

use http::Uri;

use super::{Finding, file_name, label, no_such};
use crate::config::{
    pattern::{KeySource, is_claim_byte},
    problem::FieldPath,
    schema::{Auth, Config, Jwt, Route, RuleMatch},
    units::OneOrMany,
};

/// Shortest and longest interval at which keys are fetched.
const REFRESH: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(24 * 3600)];

/// Most that clocks may be apart.
const MOST_LEEWAY: Duration = Duration::from_secs(600);

/// Header fields that have a meaning of their own, and prefixes of such.
const TAKEN: [&str; 14] = [
    "accept",
    "authorization",
    "connection",
    "content-",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "idempotency-key",
    "te",
    "tidegate-",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Prefixes of fields that the proxy writes or that identify a client otherwise.
const TAKEN_X: [&str; 5] = ["x-forwarded", "x-request-id", "x-client-", "x-real-", "x-original-"];

/// Checks the issuers of `config`.
pub(super) fn check(config: &Config, found: &mut Vec<Finding>) {
    let root = FieldPath::default().key("jwt");
    for (name, jwt) in &config.jwt {
        let path = root.key(name);
        if let Err(message) = label(name, "") {
            found.push(Finding::of_name(path.clone(), message));
        }
        issuer(jwt, &path, found);
        headers(jwt, &path.key("headers"), found);
    }
    one_for_routing(config, found);
    readers(config, found);
}

fn issuer(jwt: &Jwt, path: &FieldPath, found: &mut Vec<Finding>) {
    let jwks = path.key("jwks");
    if jwt.is_fetched() {
        let url: Option<Uri> = jwt.jwks.parse().ok();
        let is_good = url.as_ref().and_then(Uri::authority).is_some_and(|authority| {
            !authority.host().is_empty() && !authority.as_str().contains('@')
        });
        if !is_good {
            let message =
                "not a URL; write one such as https://id.example.com/.well-known/jwks.json";
            found.push(Finding::new(jwks, message));
        } else if jwt.ca.is_some() && jwt.jwks.starts_with("http://") {
            let message = "not used by http://; write https:// or leave it out";
            found.push(Finding::new(path.key("ca"), message).and(jwks));
        }
    } else {
        file_name(&jwt.jwks, jwks.clone(), found);
        if jwt.ca.is_some() {
            let message = "not used for a file; leave it out, or write a URL";
            found.push(Finding::new(path.key("ca"), message).and(jwks));
        }
    }
    if jwt.algorithms.is_empty() {
        let message = "no algorithm, so every token would be refused; write that of the issuer, such as RS256";
        found.push(Finding::new(path.key("algorithms"), message));
    }
    for (index, algorithm) in jwt.algorithms.iter().enumerate() {
        if jwt.algorithms[..index].contains(algorithm) {
            let message = format!("`{algorithm:?}` twice; write it once");
            found.push(Finding::new(path.key("algorithms").index(index), message));
        }
    }
    texts(&jwt.issuer, &path.key("issuer"), found);
    if let Some(audience) = &jwt.audience {
        texts(audience, &path.key("audience"), found);
    }
    if !(REFRESH[0]..=REFRESH[1]).contains(&jwt.refresh) {
        found.push(Finding::new(path.key("refresh"), "out of range; write 10s to 24h"));
    }
    if jwt.leeway > MOST_LEEWAY {
        found.push(Finding::new(path.key("leeway"), "longer than 10 minutes; write at most 10m"));
    }
    let from = jwt.from.as_slice();
    if from.is_empty() {
        let message =
            "no source, so no token would be found; write one such as header:authorization";
        found.push(Finding::new(path.key("from"), message));
    }
    for (index, source) in from.iter().enumerate() {
        let here = if from.len() == 1 { path.key("from") } else { path.key("from").index(index) };
        if !matches!(source, KeySource::Header(_) | KeySource::Cookie(_)) {
            let message = format!(
                "a token cannot be in `{source}`, which logs show; write header:NAME or cookie:NAME"
            );
            found.push(Finding::new(here, message));
        } else if from[..index].contains(source) {
            found.push(Finding::new(here, format!("`{source}` twice; write it once")));
        }
    }
}

fn texts(texts: &OneOrMany<String>, path: &FieldPath, found: &mut Vec<Finding>) {
    if texts.as_slice().is_empty() || texts.as_slice().iter().any(String::is_empty) {
        let message = "empty; write the text that tokens have";
        found.push(Finding::new(path.clone(), message));
    }
}

fn headers(jwt: &Jwt, path: &FieldPath, found: &mut Vec<Finding>) {
    let mut seen: Vec<String> = Vec::new();
    for (name, claim) in &jwt.headers {
        let lower = name.to_ascii_lowercase();
        if let Some(message) = header_fault(name) {
            found.push(Finding::of_name(path.key(name), message));
        } else if seen.contains(&lower) {
            let message = format!("`{name}` twice, since case does not count; write it once");
            found.push(Finding::of_name(path.key(name), message));
        }
        seen.push(lower);
        if let Err(message) = claim_name(claim) {
            found.push(Finding::new(path.key(name), message));
        }
    }
}

/// Why `name` cannot be a header field that policies write for the versions, if so.
pub(super) fn header_fault(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let is_taken = TAKEN.iter().any(|taken| match taken.ends_with('-') {
        true => lower.starts_with(taken),
        false => lower == *taken,
    }) || TAKEN_X.iter().any(|taken| lower.starts_with(taken));
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Some(format!("`{name}` is not a header's name; write letters, digits and -"));
    }
    is_taken.then(|| {
        format!("`{name}` has another meaning; write a name of its own, such as x-player-id")
    })
}

fn claim_name(name: &str) -> Result<(), String> {
    match !name.is_empty() && name.bytes().all(is_claim_byte) {
        true => Ok(()),
        false => {
            Err(format!("`{name}` is not a claim's name; write one such as sub, or /realm/roles"))
        }
    }
}

/// Checks what the route at `path` asks of its clients.
pub(super) fn auth(auth: &Auth, config: &Config, path: &FieldPath, found: &mut Vec<Finding>) {
    if let Some(name) = &auth.jwt {
        if config.jwt.is_empty() {
            let message = format!("no issuer `{name}`; write it at the top: jwt: {{ {name}: … }}");
            found.push(Finding::new(path.key("jwt"), message));
        } else if let Some(message) = no_such("issuer", name, &config.jwt) {
            found.push(Finding::new(path.key("jwt"), message));
        }
        claims(&auth.require, &path.key("require"), found);
    } else if auth.external.is_none() {
        let message = "asks for nothing; write `jwt`, the name of an issuer, or leave `auth` out";
        found.push(Finding::new(path.clone(), message));
    } else if auth.required.is_some() || !auth.require.is_empty() {
        let message =
            "the route asks for no token; write `jwt`, or leave `require` and `required` out";
        found.push(Finding::new(path.clone(), message));
    }
    let Some(name) = &auth.external else { return };
    let authorizer = config.authorizers.get(name);
    if config.authorizers.is_empty() {
        let message =
            format!("no authorizer `{name}`; write it at the top: authorizers: {{ {name}: … }}");
        found.push(Finding::new(path.key("external"), message));
    } else if let Some(message) = no_such("authorizer", name, &config.authorizers) {
        found.push(Finding::new(path.key("external"), message));
    }
    let by = authorizer.and_then(|authorizer| Some(&authorizer.cache.as_ref()?.by));
    if let (Some(KeySource::Claim(claim)), None) = (by, &auth.jwt) {
        let message = format!(
            "the route asks for no token, but the answers of `{name}` are remembered by claim:{claim}; write `jwt`"
        );
        found.push(Finding::new(path.clone(), message));
    }
}

/// Checks conditions on claims.
pub(super) fn claims(
    conditions: &BTreeMap<String, OneOrMany<String>>,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    for (name, values) in conditions {
        let path = path.key(name);
        if let Err(message) = claim_name(name) {
            found.push(Finding::of_name(path.clone(), message));
        }
        if values.as_slice().is_empty() {
            found.push(Finding::new(path, "an empty list; write the values that match"));
        }
    }
}

fn issuer_of(route: &Route) -> Option<&str> {
    route.auth.as_ref()?.jwt.as_deref()
}

/// Checks that the routes with conditions on claims ask for tokens, and all for those of one issuer: before a route is chosen it
/// must be known whose token is looked at.
fn one_for_routing(config: &Config, found: &mut Vec<Finding>) {
    let routes = FieldPath::default().key("routes");
    let mut first: Option<(usize, &str)> = None;
    for (index, route) in config.routes.iter().enumerate() {
        if route.matches.claims.is_empty() {
            continue;
        }
        let path = routes.index(index);
        let here = path.key("match").key("claims");
        match (issuer_of(route), first) {
            (None, _) => {
                let message =
                    "the route asks for no token; write `auth: { jwt: NAME }` beside `match`";
                found.push(Finding::new(here.clone(), message));
            }
            (Some(issuer), None) => first = Some((index, issuer)),
            (Some(issuer), Some((other, known))) if issuer != known => {
                let message = format!(
                    "another route with conditions on claims asks for tokens of `{known}`; all name one issuer"
                );
                let other = routes.index(other).key("match").key("claims");
                found.push(Finding::new(here.clone(), message).and(other));
            }
            _ => {}
        }
        claims(&route.matches.claims, &here, found);
    }
}

/// Checks that claims are read only where a token is asked for, and that nobody reads as a client's field what is written from a
/// claim.
fn readers(config: &Config, found: &mut Vec<Finding>) {
    let headers = config.jwt.values().flat_map(|jwt| &jwt.headers);
    let written: BTreeMap<String, &String> =
        headers.map(|(name, claim)| (name.to_ascii_lowercase(), claim)).collect();
    let asks = |service: &str| {
        config.routes.iter().any(|route| route.service == service && issuer_of(route).is_some())
    };
    let mut source = |source: &KeySource, asked: bool, path: FieldPath| match source {
        KeySource::Claim(name) if !asked => {
            let message = format!(
                "`claim:{name}` is never there, since no token is asked for; write `auth: {{ jwt: NAME }}` in the route"
            );
            found.push(Finding::new(path, message));
        }
        KeySource::Header(name) => {
            if let Some(claim) = written.get(name) {
                let message = format!(
                    "no client can send `{name}`, which is written from a claim; write claim:{claim}"
                );
                found.push(Finding::new(path, message));
            }
        }
        _ => {}
    };
    let services = FieldPath::default().key("services");
    for (name, service) in &config.services {
        let path = services.key(name);
        for (index, key) in service.cohort.key.iter().enumerate() {
            source(key, asks(name), path.key("cohort").key("key").index(index));
        }
        for (index, key) in service.pin.iter().flat_map(|pin| pin.sources().iter().enumerate()) {
            let key_path = path.key("pin").key("key");
            let is_one = service.pin.as_ref().is_some_and(|pin| pin.sources().len() == 1);
            source(key, asks(name), if is_one { key_path } else { key_path.index(index) });
        }
    }
    for (at, route) in config.routes.iter().enumerate() {
        let path = FieldPath::default().key("routes").index(at).key("limit").key("rates");
        for (index, rate) in route.limit.iter().flat_map(|limit| limit.rates.iter().enumerate()) {
            let by = rate.by.iter().flat_map(|by| by.as_slice().iter());
            for key in by {
                source(key, issuer_of(route).is_some(), path.index(index).key("by"));
            }
        }
        let path = FieldPath::default().key("routes").index(at).key("idempotency").key("by");
        let by = route.idempotency.iter().flat_map(|keys| keys.by.iter());
        for key in by.flat_map(|by| by.as_slice()) {
            source(key, issuer_of(route).is_some(), path.clone());
        }
    }
    rules(config, &asks, &written, found);
}

fn rules(
    config: &Config,
    asks: &dyn Fn(&str) -> bool,
    written: &BTreeMap<String, &String>,
    found: &mut Vec<Finding>,
) {
    let services = FieldPath::default().key("services");
    for (name, service) in &config.services {
        for (index, rule) in service.rules.iter().enumerate() {
            let path = services.key(name).key("rules").index(index).key("match");
            let RuleMatch { headers, claims: asked, .. } = &rule.when;
            let here = path.key("claims");
            claims(asked, &here, found);
            if !asked.is_empty() && !asks(name) {
                let message = format!(
                    "no route to `{name}` asks for a token; write `auth: {{ jwt: NAME }}` in one"
                );
                found.push(Finding::new(here, message));
            }
            read(headers.keys(), written, &path.key("headers"), found);
        }
    }
    for (index, route) in config.routes.iter().enumerate() {
        let path = FieldPath::default().key("routes").index(index).key("match").key("headers");
        read(route.matches.headers.keys(), written, &path, found);
    }
}

fn read<'a>(
    names: impl Iterator<Item = &'a String>,
    written: &BTreeMap<String, &String>,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    for name in names {
        if let Some(claim) = written.get(&name.to_ascii_lowercase()) {
            let message = format!(
                "no client can send `{name}`, which is written from a claim; write a condition on the claim `{claim}`"
            );
            found.push(Finding::of_name(path.key(name), message));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    /// Paths and messages of the problems of a configuration with these parts.
    fn problems(jwt: &str, service: &str, route: &str) -> String {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nservices: {{ a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 ] }} }}{service} }} }}\n\
             jwt: {{ {jwt} }}\nroutes:\n- {{ service: a{route} }}\n"
        );
        parse(&text).map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    const GOOD: &str =
        "jwks: 'https://id.example/jwks', algorithms: [ RS256 ], issuer: 'https://id.example'";

    #[test]
    fn what_is_good_is_no_problem() {
        let jwt = format!(
            "players: {{ {GOOD}, audience: [ a, b ], leeway: 1m, refresh: 5m, from: [ header:authorization, cookie:session ], headers: {{ X-Player-Id: sub }} }}"
        );
        let (service, route) = (
            ", cohort: { key: [ claim:sub ] }, rules: [ { match: { claims: { role: tester } }, version: v1 } ]",
            ", match: { claims: { tenant: [ acme ] } }, auth: { jwt: players, require: { role: [ player, tester ] } }, \
             limit: { rates: [ { requests: 5, by: claim:sub } ] }",
        );
        assert_eq!(problems(&jwt, service, route), "");
    }

    #[test]
    fn issuers_are_whole_and_routes_name_them() {
        let with = |more: &str| format!("players: {{ {GOOD}, {more} }}");
        let auth = ", auth: { jwt: players }";
        for (jwt, service, route, place, says) in [
            (
                "players: { jwks: k, algorithms: [], issuer: a }".into(),
                "",
                auth,
                "algorithms",
                "RS256",
            ),
            (
                "players: { jwks: k, algorithms: [ HS256 ], issuer: a }".into(),
                "",
                auth,
                "algorithms[0]",
                "RS256",
            ),
            (
                "players: { jwks: k, algorithms: [ none ], issuer: a }".into(),
                "",
                auth,
                "algorithms[0]",
                "RS256",
            ),
            ("players: { jwks: k, algorithms: [ RS256 ] }".into(), "", auth, "issuer", "missing"),
            (
                "players: { jwks: '', algorithms: [ RS256 ], issuer: a }".into(),
                "",
                auth,
                "jwks",
                "no file",
            ),
            (
                "players: { jwks: 'https://u:p@h/', algorithms: [ RS256 ], issuer: a }".into(),
                "",
                auth,
                "jwks",
                "not a URL",
            ),
            (with("audience: []"), "", auth, "audience", "empty"),
            (with("refresh: 1s"), "", auth, "refresh", "10s"),
            (with("leeway: 1h"), "", auth, "leeway", "10m"),
            (with("from: query:token"), "", auth, "from", "logs"),
            (with("headers: { Authorization: sub }"), "", auth, "headers.Authorization", "meaning"),
            (
                with("headers: { X-Forwarded-User: sub }"),
                "",
                auth,
                "headers.X-Forwarded-User",
                "meaning",
            ),
            (with("headers: { x_player: sub }"), "", auth, "headers.x_player", "letters"),
            (with("headers: { x-player: '' }"), "", auth, "headers.x-player", "claim's name"),
            (
                with("leeway: 1s"),
                "",
                ", auth: { jwt: player }",
                "auth.jwt",
                "did you mean `players`",
            ),
            (with("leeway: 1s"), "", ", auth: {}", "auth", "asks for nothing"),
            (
                with("leeway: 1s"),
                ", cohort: { key: [ claim:sub ] }",
                "",
                "cohort.key[0]",
                "no token",
            ),
            (with("leeway: 1s"), "", ", match: { claims: { a: b } }", "match.claims", "no token"),
            (
                with("leeway: 1s"),
                "",
                ", limit: { rates: [ { requests: 1, by: claim:sub } ] }",
                "by",
                "no token",
            ),
            (
                with("headers: { x-player: sub }"),
                ", cohort: { key: [ header:x-player ] }",
                auth,
                "cohort.key[0]",
                "claim:sub",
            ),
            (
                with("headers: { x-player: sub }"),
                "",
                ", auth: { jwt: players }, match: { headers: { X-Player: a } }",
                "headers.X-Player",
                "`sub`",
            ),
        ] {
            let found = problems(&jwt, service, route);
            assert!(found.contains(place) && found.contains(says), "{jwt} {route}: {found}");
            assert_eq!(found.trim_end().lines().count(), 1, "{jwt} {route}: {found}");
        }
    }
}
