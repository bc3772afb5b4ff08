//! Warnings about issuers of tokens, authorizers, and claims that are not always there.

use http::Uri;

use super::Finding;
use crate::config::{
    pattern::KeySource,
    problem::FieldPath,
    schema::{Config, Route, Service},
};

/// Most routes that a warning names.
const NAMED: usize = 3;

/// Adds the warnings about `config` to `found`.
pub(super) fn warn(config: &Config, found: &mut Vec<Finding>) {
    for (name, jwt) in &config.jwt {
        let path = FieldPath::default().key("jwt").key(name);
        if jwt.audience.is_none() {
            let message =
                "tokens that the issuer made for other applications pass; write `audience`";
            found.push(Finding::of_name(path.clone(), message));
        }
        if !jwt.is_fetched() && jwt.has_own_refresh() {
            let message =
                "it has no effect on a file, which is read again when it changes; leave it out";
            found.push(Finding::of_name(path.key("refresh"), message));
        }
        if is_readable(&jwt.jwks) {
            let message = "whoever is between here and there can put keys of their own in, and then sign tokens; write \
                           https://";
            found.push(Finding::new(path.key("jwks"), message));
        }
    }
    for (name, authorizer) in &config.authorizers {
        if is_readable(&authorizer.url) {
            let message = "whoever is between here and there can read what clients send and allow any request; write \
                           https://";
            let path = FieldPath::default().key("authorizers").key(name).key("url");
            found.push(Finding::new(path, message));
        }
    }
    for (name, service) in &config.services {
        let path = FieldPath::default().key("services").key(name);
        claims_of_service(name, service, config, &path, found);
    }
    for (index, route) in config.routes.iter().enumerate() {
        claims_of_rates(route, &FieldPath::default().key("routes").index(index), found);
    }
}

/// Whether calls of this URL can be read and changed on their way: it is not encrypted, and leaves the machine.
fn is_readable(url: &str) -> bool {
    let Some(url) = url.strip_prefix("http://").and_then(|_| url.parse::<Uri>().ok()) else {
        return false;
    };
    let host = url.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host != "localhost" && !address.is_ok_and(|address| address.is_loopback())
}

/// Whether the requests of `route` may have no token.
fn may_lack(route: &Route) -> bool {
    let auth = route.auth.as_ref().filter(|auth| auth.jwt.is_some());
    auth.is_none_or(|auth| auth.required == Some(false))
}

/// Where the versions of a service are chosen by claims, and some of its routes need no token.
fn claims_of_service(
    name: &str,
    service: &Service,
    config: &Config,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    let without = config.routes.iter().filter(|route| route.service == name && may_lack(route));
    let labels: Vec<String> = without.map(|route| format!("`{}`", route.label())).collect();
    // With a single version no player moves between versions.
    if labels.is_empty() || service.versions.len() < 2 {
        return;
    }
    let more = match labels.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let routes = format!("{}{more}", labels[..labels.len().min(NAMED)].join(", "));
    for (index, key) in service.cohort.key.iter().enumerate() {
        if matches!(key, KeySource::Claim(_)) {
            let message = format!(
                "not there without a token, which these routes do not require: {routes}; a player is told apart by \
                 something else there and may get another version; write `auth: {{ jwt: NAME }}` in each"
            );
            found.push(Finding::new(path.key("cohort").key("key").index(index), message));
        }
    }
    for (index, rule) in service.rules.iter().enumerate() {
        if !rule.when.claims.is_empty() {
            let message = format!(
                "does not match without a token, which these routes do not require: {routes}; write `auth: {{ jwt: \
                 NAME }}` in each if the rule is for them, too"
            );
            found.push(Finding::new(
                path.key("rules").index(index).key("match").key("claims"),
                message,
            ));
        }
    }
}

/// Where requests without a token escape the rate of a claim.
fn claims_of_rates(route: &Route, path: &FieldPath, found: &mut Vec<Finding>) {
    if !may_lack(route) {
        return;
    }
    let rates = route.limit.iter().flat_map(|limit| limit.rates.iter().enumerate());
    for (index, rate) in rates {
        let by = rate.by.iter().flat_map(|by| by.as_slice());
        if by.clone().any(|key| matches!(key, KeySource::Claim(_))) {
            let message = "not there without a token, which the route does not require: such requests are counted by \
                           the next source or the client's address; leave `required: false` out if each needs one";
            let path = path.key("limit").key("rates").index(index).key("by");
            found.push(Finding::new(path, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::warnings;

    /// Warnings about a file with these parts, beside those about comparison.
    fn warned(jwks: &str, more: &str, service: &str, routes: &str) -> Vec<String> {
        let version = "{ endpoints: [ 127.0.0.1:1 ] }";
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\n\
             jwt: {{ p: {{ jwks: '{jwks}', algorithms: [ ES256 ], issuer: a, audience: b }} }}\n{more}\n\
             services: {{ a: {{ baseline: v1, versions: {{ v1: {version}, v2: {{ endpoints: [ 127.0.0.1:2 ] }} }}, \
             eject: {{ errors: {{}} }}, {service} }} }}\nroutes: [ {routes} ]\n"
        );
        crate::config::parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
        let all = warnings(&text).into_iter().map(|warning| warning.to_string());
        all.filter(|text| ["token", "https"].iter().any(|word| text.contains(word))).collect()
    }

    const ASKS: &str = "{ match: { path: /bets }, service: a, auth: { jwt: p } }";

    #[test]
    fn keys_and_answers_that_others_can_change_on_their_way_are_warned_of() {
        let authorizers = |url: &str| format!("authorizers: {{ e: {{ url: '{url}' }} }}");
        let route = "{ service: a, auth: { jwt: p, external: e } }";
        let of = |jwks: &str, url: &str| warned(jwks, &authorizers(url), "cohort: {}", route).len();
        for safe in ["https://a/x", "http://127.0.0.1:1/x", "http://[::1]/x", "http://localhost/x"]
        {
            assert_eq!(of(safe, safe), 0, "{safe}");
        }
        for open in ["http://a.example/x", "http://10.0.0.1/x", "http://localhost.a/x"] {
            assert_eq!((of(open, "https://a/x"), of("https://a/x", open)), (1, 1), "{open}");
        }
    }

    #[test]
    fn claims_that_are_not_always_there_are_warned_of() {
        let url = "https://a/x";
        let by_claim = "cohort: { key: [ 'claim:sub' ] }";
        let rule = "rules: [ { match: { claims: { role: tester } }, version: v2 } ]";
        let optional = "{ name: games, service: a, auth: { jwt: p, required: false } }";
        assert_eq!(
            warned(url, "", by_claim, &ASKS.replace("match: { path: /bets }, ", "")),
            [""; 0]
        );
        for (service, routes, place) in [
            (by_claim, format!("{ASKS}, {{ name: games, service: a }}"), "cohort.key[0]"),
            (by_claim, format!("{ASKS}, {optional}"), "cohort.key[0]"),
            (rule, format!("{ASKS}, {optional}"), "rules[0].match.claims"),
        ] {
            let [only] = &*warned(url, "", service, &routes) else { panic!("one: {service}") };
            assert!(only.contains(place) && only.contains("`games`"), "{only}");
        }
        let limited = "{ service: a, auth: { jwt: p, required: false }, \
                       limit: { rates: [ { requests: 5, by: claim:sub } ] } }";
        let [only] = &*warned(url, "", "cohort: {}", limited) else { panic!("one") };
        assert!(only.contains("rates[0].by"), "{only}");
    }
}
