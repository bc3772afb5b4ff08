//! Checks services: versions, weights, cohorts and rules.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::Hash,
    net::SocketAddr,
};

use super::{
    Finding, amounts, comparison, concurrency, fence, health, label,
    matching::{self, Kind, canonical, has_param},
    no_such, pin, plans, reaches, tls,
};
use crate::config::{
    pattern::{EndpointHost, KeySource},
    problem::FieldPath,
    schema::{Cohort, Config, Rule, Service, Version},
    units::Weight,
};

/// Longest salt, in bytes: it is hashed with every key.
const MAX_SALT_BYTES: usize = 256;

/// Checks the service `name` of `config`.
pub(super) fn check(name: &str, service: &Service, config: &Config, found: &mut Vec<Finding>) {
    let path = FieldPath::default().key("services").key(name);
    if let Err(message) = label(name, "") {
        found.push(Finding::of_name(path.clone(), message));
    }
    if service.versions.is_empty() {
        found.push(Finding::new(path.key("versions"), "no version; write at least the baseline"));
    }
    if let Some(message) = no_such("version", &service.baseline, &service.versions) {
        found.push(Finding::new(path.key("baseline"), message));
    }
    for (name, version) in &service.versions {
        let path = path.key("versions").key(name);
        if let Err(message) = label(name, "") {
            found.push(Finding::of_name(path.clone(), message));
        }
        endpoints(version, config, &path.key("endpoints"), found);
        if let Some(value) = &version.tls {
            tls::version(value, &path.key("tls"), found);
        }
    }
    weights(service, &path, found);
    cohort(name, &service.cohort, config, &path.key("cohort"), found);
    if let Some(value) = &service.pin {
        pin::check(name, value, config, &path.key("pin"), found);
    }
    amounts::amounts(service, &path.key("amounts"), found);
    if let Some(eject) = &service.eject {
        comparison::service(eject, name, config, &path.key("eject"), found);
    }
    if let Some(slo) = &service.slo {
        let is_asked = service.rollout.is_some();
        comparison::slo(slo, service.eject.as_ref(), is_asked, &path.key("slo"), found);
    }
    if let Some(plan) = &service.rollout {
        plans::chosen(plan, service, config, &path.key("rollout"), found);
    }
    comparison::failures(service.failures.as_ref(), &path.key("failures"), found);
    if let Some(value) = &service.health {
        health::health(value, service, &path.key("health"), found);
    }
    if let Some(value) = &service.breaker {
        health::breaker(value, &path.key("breaker"), found);
    }
    if let Some(value) = &service.concurrency {
        concurrency::of_service(value, &path.key("concurrency"), found);
    }
    if let Some(value) = &service.fence {
        fence::fence(value, (name, service), config, &path.key("fence"), found);
    }
    let mut matches = HashMap::new();
    for (index, value) in service.rules.iter().enumerate() {
        let here = path.key("rules").index(index);
        rule(name, value, service, config, &here, found);
        let first = *matches.entry(form(value)).or_insert(index);
        if first != index && !is_empty(value) {
            let other = path.key("rules").index(first).key("match");
            let message = format!("the same as `{other}`, which comes first; write it once");
            found.push(Finding::new(here.key("match"), message).and(other));
        }
    }
}

fn endpoints(version: &Version, config: &Config, path: &FieldPath, found: &mut Vec<Finding>) {
    if version.endpoints.is_empty() {
        found.push(Finding::new(path.clone(), "no endpoint; write at least one"));
    }
    for (index, endpoint) in version.endpoints.iter().enumerate() {
        let here = path.index(index);
        if version.endpoints[..index].contains(endpoint) {
            found.push(Finding::new(here.clone(), format!("`{endpoint}` twice; write it once")));
        }
        let EndpointHost::Address(ip) = endpoint.host else { continue };
        if ip.is_unspecified() {
            let message = format!("`{ip}` is every address and no endpoint; write 127.0.0.1");
            found.push(Finding::new(here.clone(), message));
        }
        let address = SocketAddr::new(ip, endpoint.port);
        for (index, listen) in config.listen.iter().enumerate() {
            if reaches(address, listen.address) {
                let other = FieldPath::default().key("listen").index(index).key("address");
                let message = format!(
                    "`{other}` listens there, so requests would run in a circle; write the version's own port"
                );
                found.push(Finding::new(here.clone(), message).and(other));
            }
        }
        if config.admin.as_ref().is_some_and(|admin| reaches(address, admin.address)) {
            let other = FieldPath::default().key("admin").key("address");
            let message = format!(
                "`{other}` is there, so clients would reach the admin API; write the version's own port"
            );
            found.push(Finding::new(here, message).and(other));
        }
    }
}

fn weights(service: &Service, path: &FieldPath, found: &mut Vec<Finding>) {
    let Some(weights) = &service.weights else { return };
    for (name, weight) in weights {
        let place = path.key("weights").key(name);
        if let Err(message) = Weight::written(weight.value()) {
            found.push(Finding::new(place.clone(), message));
        }
        if let Some(message) = no_such("version", name, &service.versions) {
            found.push(Finding::of_name(place, message));
        }
    }
    if weights.values().all(|weight| weight.value() == 0.0) {
        let message = "the sum is zero, so no version gets players; write a weight above zero";
        found.push(Finding::new(path.key("weights"), message));
    }
}

fn cohort(
    service: &str,
    cohort: &Cohort,
    config: &Config,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    let keys = path.key("key");
    if cohort.key.is_empty() {
        let message = "no source; write one, such as header:x-player-id, or leave the field out";
        found.push(Finding::new(keys.clone(), message));
    }
    for (index, source) in cohort.key.iter().enumerate() {
        let here = keys.index(index);
        let earlier = &cohort.key[..index];
        if earlier.contains(source) {
            found.push(Finding::new(here.clone(), format!("`{source}` twice; write it once")));
        } else if earlier.contains(&KeySource::ClientIp) {
            let message = format!(
                "`{source}` is never asked, since client-ip is always there; write client-ip last"
            );
            found.push(Finding::new(here.clone(), message));
        }
        if let KeySource::Path(name) = source {
            param(service, name, config, Finding::new(here, ""), found);
        }
    }
    if cohort.salt.len() > MAX_SALT_BYTES || cohort.salt.chars().any(char::is_control) {
        let message = "not a salt; write at most 256 bytes without control characters";
        found.push(Finding::new(path.key("salt"), message));
    }
}

fn rule(
    service_name: &str,
    rule: &Rule,
    service: &Service,
    config: &Config,
    here: &FieldPath,
    found: &mut Vec<Finding>,
) {
    if let Some(message) = no_such("version", &rule.version, &service.versions) {
        found.push(Finding::new(here.key("version"), message));
    }
    let when = &rule.when;
    let path = here.key("match");
    matching::check(Kind::Headers, &when.headers, &path.key("headers"), found);
    matching::check(Kind::Cookies, &when.cookies, &path.key("cookies"), found);
    matching::check(Kind::Query, &when.query, &path.key("query"), found);
    matching::check(Kind::Params, &when.params, &path.key("params"), found);
    for name in when.params.keys() {
        let at = path.key("params").key(name);
        param(service_name, name, config, Finding::of_name(at, ""), found);
    }
    let mut players = HashSet::new();
    for (index, player) in when.players.iter().enumerate() {
        let path = path.key("players").index(index);
        if player.is_empty() {
            found.push(Finding::new(path, "empty; write the player's cohort key"));
        } else if !players.insert(player) {
            found.push(Finding::new(path, format!("`{player}` twice; write it once")));
        }
    }
    if is_empty(rule) {
        let message =
            "no condition, so every request would match; write at least one, or use weights";
        found.push(Finding::new(path, message));
    }
}

/// Checks that a route of the service has the path parameter `name`.
fn param(service: &str, name: &str, config: &Config, at: Finding, found: &mut Vec<Finding>) {
    let mut routes = config.routes.iter().filter(|route| route.service == service).peekable();
    if routes.peek().is_some() && !routes.any(|route| has_param(route, name)) {
        let message = format!(
            "no route to `{service}` has `{{{name}}}` in its path; write it there, such as /rounds/{{{name}}}"
        );
        found.push(Finding { message, ..at.and(FieldPath::default().key("routes")) });
    }
}

fn is_empty(rule: &Rule) -> bool {
    let when = &rule.when;
    when.headers.is_empty()
        && when.cookies.is_empty()
        && when.query.is_empty()
        && when.params.is_empty()
        && when.claims.is_empty()
        && when.clients.is_empty()
        && when.players.is_empty()
}

/// A rule's conditions in a form that is equal for rules that match the same requests.
fn form(rule: &Rule) -> impl Eq + Hash {
    let when = &rule.when;
    (
        canonical(Kind::Headers, &when.headers),
        canonical(Kind::Cookies, &when.cookies),
        canonical(Kind::Query, &when.query),
        canonical(Kind::Params, &when.params),
        canonical(Kind::Query, &when.claims),
        when.clients.iter().copied().collect::<BTreeSet<_>>(),
        when.players.iter().cloned().collect::<BTreeSet<_>>(),
    )
}

#[cfg(test)]
mod tests {
    /// Regression: the share of a tiny weight beside a large one was 0.
    #[test]
    fn a_weight_is_0_or_large_enough_to_count() {
        let problems = |weight: &str| {
            let file = format!(
                "listen: [ {{ address: 127.0.0.1:0 }} ]\nroutes: [ {{ service: a }} ]\n\
                 services: {{ a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ a:1 ] }} }}, \
                 weights: {{ v1: {weight} }} }} }}"
            );
            crate::config::parse(&file).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(problems("1e-12"), "");
        let said = "services.a.weights.v1: `5e-324` is not a weight; write 0, or a number from 1e-12 to 1e12, such as 95 or 0.5";
        assert!(problems("5e-324").ends_with(said), "{}", problems("5e-324"));
    }
}
