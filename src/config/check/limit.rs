//! Checks limits on the requests of a route.

use std::time::Duration;

use super::{Finding, concurrency, jwt, matching::has_param};
use crate::config::{
    pattern::KeySource,
    problem::FieldPath,
    schema::{Exempt, Limit, RateLimit, Route},
};

/// Most limits of rates of a route: each is asked of every request.
const MOST_RATES: usize = 8;

/// Most keys of a limit: 160 MB.
const MOST_KEYS: u32 = 10_000_000;

/// Longest span of time of a rate.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Checks the `limit` of `route`.
pub(super) fn check(limit: &Limit, route: &Route, path: &FieldPath, found: &mut Vec<Finding>) {
    if let Some(written) = &limit.concurrency {
        concurrency::of_route(written, &path.key("concurrency"), found);
    }
    let path = path.key("rates");
    if limit.rates.is_empty() && limit.concurrency.is_none() {
        let message = "no limit; write one, such as { requests: 100, per: 1m, by: client-ip }";
        found.push(Finding::new(path.clone(), message));
    } else if limit.rates.len() > MOST_RATES {
        found.push(Finding::new(
            path.clone(),
            format!("more than {MOST_RATES} limits; write fewer"),
        ));
    }
    for (index, rate) in limit.rates.iter().enumerate() {
        let here = path.index(index);
        if let Some(other) = limit.rates[..index].iter().position(|r| r.label() == rate.label()) {
            let message = format!("`{}` is the name of another limit; write `name`", rate.label());
            found.push(Finding::new(here.key("name"), message).and(path.index(other)));
        }
        terms(rate, &here, found);
        exempt(rate, route, &here.key("exempt"), found);
        if let Some(by) = &rate.by {
            sources(by.as_slice(), route, &here.key("by"), found);
        }
    }
}

fn exempt(rate: &RateLimit, route: &Route, path: &FieldPath, found: &mut Vec<Finding>) {
    let Exempt { addresses, claims } = &rate.exempt;
    if let Some(all) = addresses.iter().position(|network| network.prefix_len() == 0) {
        let message = "everybody, so the limit would be asked about nobody; write the addresses of those who are exempt";
        found.push(Finding::new(path.key("addresses").index(all), message));
    }
    if claims.is_empty() {
        return;
    }
    let path = path.key("claims");
    if route.auth.as_ref().is_none_or(|auth| auth.jwt.is_none()) {
        let message =
            "the route asks for no token, so no request has claims; write `auth: { jwt: NAME }`";
        found.push(Finding::new(path.clone(), message));
    }
    jwt::claims(claims, &path, found);
}

fn terms(rate: &RateLimit, path: &FieldPath, found: &mut Vec<Finding>) {
    let is_name = |c: u8| c.is_ascii_alphanumeric() || b"._:-".contains(&c);
    if let Some(name) = &rate.name
        && !((1..=64).contains(&name.len()) && name.bytes().all(is_name))
    {
        let message =
            format!("`{name}` is no name; write 1 to 64 letters, digits, `.`, `_`, `:`, `-`");
        found.push(Finding::new(path.key("name"), message));
    }
    if rate.requests == 0 {
        let message =
            "0 would refuse every request; write at least 1, or `access` to refuse clients";
        found.push(Finding::new(path.key("requests"), message));
    }
    if rate.per > LONGEST {
        found.push(Finding::new(path.key("per"), "longer than a day; write at most 24h"));
    } else if rate.per.as_nanos() < u128::from(rate.requests) {
        let message = "more than one request per nanosecond; write a longer time";
        found.push(Finding::new(path.key("per"), message).and(path.key("requests")));
    }
    if rate.burst == Some(0) {
        found.push(Finding::new(
            path.key("burst"),
            "0 would refuse every request; write at least 1",
        ));
    }
    if !(1..=MOST_KEYS).contains(&rate.keys) {
        let message = format!("out of range; write 1 to {MOST_KEYS}");
        found.push(Finding::new(path.key("keys"), message));
    }
}

/// Checks what tells apart those who each have a limit, or keys, on `route`.
pub(super) fn sources(by: &[KeySource], route: &Route, path: &FieldPath, found: &mut Vec<Finding>) {
    if by.is_empty() {
        let message = "no source; write one, such as client-ip, or leave `by` out";
        found.push(Finding::new(path.clone(), message));
    }
    for (index, source) in by.iter().enumerate() {
        let here = if by.len() == 1 { path.clone() } else { path.index(index) };
        if by[..index].contains(source) {
            found.push(Finding::new(here, format!("`{source}` twice; write it once")));
        } else if by[..index].contains(&KeySource::ClientIp) {
            let message = format!(
                "`{source}` is never asked, since client-ip is always there; write client-ip last"
            );
            found.push(Finding::new(here, message));
        } else if let KeySource::Path(name) = source
            && !has_param(route, name)
        {
            let message = format!(
                "the path of the route has no `{{{name}}}`; write it there, such as /rounds/{{{name}}}"
            );
            found.push(Finding::new(here, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    /// Path and message of each problem of a route with this `limit`.
    fn problems(limit: &str) -> String {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nservices: {{ a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 ] }} }} }} }}\n\
             routes:\n- {{ service: a, match: {{ path: '/r/{{id}}' }}, limit: {{ {limit} }} }}\n"
        );
        parse(&text).map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn a_limit_admits_something_and_tells_keys_apart() {
        assert_eq!(problems("rates: [ { requests: 1 } ]"), "");
        assert_eq!(
            problems(
                "rates: [ { requests: 1000, per: 24h, by: [ path:id, client-ip ], burst: 5, keys: 7, name: a } ]"
            ),
            ""
        );
        assert_eq!(problems("concurrency: { max: 1 }"), "");
        for (limit, place, says) in [
            ("", "limit.rates", "no limit"),
            ("rates: [ { requests: 0 } ]", "rates[0].requests", "every request"),
            ("rates: [ { requests: 1, burst: 0 } ]", "rates[0].burst", "every request"),
            ("rates: [ { requests: 1, per: 25h } ]", "rates[0].per", "a day"),
            ("rates: [ { requests: 1, keys: 0 } ]", "rates[0].keys", "10000000"),
            ("rates: [ { requests: 1, name: 'a b' } ]", "rates[0].name", "no name"),
            ("rates: [ { requests: 1, by: [] } ]", "rates[0].by", "no source"),
            ("rates: [ { requests: 1, by: path:round } ]", "rates[0].by", "{round}"),
            (
                "rates: [ { requests: 1, by: [ client-ip, 'header:x' ] } ]",
                "rates[0].by[1]",
                "write client-ip last",
            ),
            ("rates: [ { requests: 1 }, { requests: 2 } ]", "rates[1].name", "`route`"),
            (
                "rates: [ { requests: 1, exempt: { addresses: [ 0.0.0.0/0 ] } } ]",
                "rates[0].exempt.addresses[0]",
                "everybody",
            ),
            (
                "rates: [ { requests: 1, exempt: { claims: { role: bot } } } ]",
                "rates[0].exempt.claims",
                "no token",
            ),
        ] {
            let found = problems(limit);
            assert!(found.contains(place) && found.contains(says), "{limit}: {found}");
            assert_eq!(found.trim_end().lines().count(), 1, "{limit}: {found}");
        }
    }
}
