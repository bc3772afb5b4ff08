//! Checks routes: each has a service, a unique label, and requests that no other route matches.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write,
};

use super::{
    Finding, comparison, idempotency, jwt, label, limit,
    matching::{self, Kind, canonical},
    no_such, read_only, retry, twice,
};
use crate::config::{
    pattern::{HostPattern, Segment, is_token_byte},
    problem::FieldPath,
    schema::{Access, Config, Eject, Mode, Route, RouteMatch},
    units::OneOrMany,
};

/// Protocols with which a client could bypass the proxy's checks: HTTP itself, and TLS.
const NEVER: [&str; 4] = ["h2c", "h2", "http", "tls"];

/// Checks that connections can switch to `protocols`.
fn upgrades(protocols: &[String], path: &FieldPath, found: &mut Vec<Finding>) {
    for (index, protocol) in protocols.iter().enumerate() {
        let path = path.index(index);
        let name = protocol.split('/').next().unwrap_or_default().to_ascii_lowercase();
        if NEVER.contains(&name.as_str()) {
            let message = format!(
                "`{protocol}` would let requests pass unread; list other protocols, such as websocket"
            );
            found.push(Finding::new(path, message));
        } else if protocol.is_empty() || !protocol.bytes().all(|b| is_token_byte(b) || b == b'/') {
            let message = format!("`{protocol}` is no protocol; write one such as websocket");
            found.push(Finding::new(path, message));
        }
    }
}

/// Checks that the lists of `access` say something, and admit somebody.
fn access(access: &Access, path: &FieldPath, found: &mut Vec<Finding>) {
    if access.allow.is_empty() && access.deny.is_empty() {
        let message = "neither `allow` nor `deny`; write the addresses, or leave `access` out";
        found.push(Finding::new(path.clone(), message));
    }
    twice(&access.allow, &path.key("allow"), found);
    twice(&access.deny, &path.key("deny"), found);
    for (index, network) in access.allow.iter().enumerate() {
        if let Some(denied) = access.deny.iter().position(|denied| denied.contains(network)) {
            let message = format!(
                "`{network}` is denied by `{}`, so it admits nobody; leave one of them out",
                access.deny[denied]
            );
            let other = path.key("deny").index(denied);
            found.push(Finding::new(path.key("allow").index(index), message).and(other));
        }
    }
}

/// Checks all routes of `config`.
pub(super) fn check(config: &Config, found: &mut Vec<Finding>) {
    let routes = FieldPath::default().key("routes");
    if config.routes.is_empty() {
        let message = "no route, so every request would be answered 404; write at least one";
        found.push(Finding::new(routes.clone(), message));
    }
    let mut labels: HashMap<_, usize> = HashMap::new();
    let mut matches: HashMap<Match, usize> = HashMap::new();
    for (index, route) in config.routes.iter().enumerate() {
        let path = routes.index(index);
        target(route, config, &path, found);
        conditions(&route.matches, &path.key("match"), found);
        upgrades(&route.upgrades, &path.key("upgrades"), found);
        if let Some(lists) = &route.access {
            access(lists, &path.key("access"), found);
        }
        if let Some(asked) = &route.auth {
            jwt::auth(asked, config, &path.key("auth"), found);
        }
        if let Some(value) = &route.limit {
            limit::check(value, route, &path.key("limit"), found);
        }
        if let Some(written) = &route.retry {
            retry::check(written, route, config, &path.key("retry"), found);
        }
        if let Some(keys) = &route.idempotency {
            idempotency::check(route, keys, &path.key("idempotency"), found);
        }
        if let Some(written) = &route.read_only {
            read_only::route(written, route, &path.key("read_only"), found);
        }
        if let Some(slo) = &route.slo {
            let service = config.services.get(&route.service).and_then(|s| s.eject.as_ref());
            // If the service is off, its routes are off whatever their settings.
            let is_off = |eject: &&Eject| eject.mode == Some(Mode::Off);
            let own = route.eject.as_ref().filter(is_off);
            let eject = own.and(service).and(own).or(service);
            comparison::slo(slo, eject, false, &path.key("slo"), found);
        }
        if let Some(eject) = &route.eject {
            comparison::route(eject, route, config, &path.key("eject"), found);
        }
        comparison::failures(route.failures.as_ref(), &path.key("failures"), found);
        let twin = Match::all(&route.matches)
            .into_iter()
            .filter_map(|m| {
                Some(*matches.entry(m).or_insert(index)).filter(|first| *first != index)
            })
            .next();
        if let Some(first) = twin {
            let other = routes.index(first);
            let message = format!(
                "`{other}` ({}) matches the same requests; write another condition, or drop one of them",
                config.routes[first].label()
            );
            found.push(Finding::new(path.key("match"), message).and(other.key("match")));
        }
        let first = *labels.entry(route.label()).or_insert(index);
        if first != index && (twin.is_none() || route.name.is_some()) {
            let other = routes.index(first);
            let (at, right) = match route.name {
                Some(_) => (path.key("name"), "write another name"),
                None => (path, "write a name, such as name: bet.place"),
            };
            let message = format!("`{}` is the label of `{other}` already; {right}", route.label());
            let (name, path) = (other.key("name"), other.key("match").key("path"));
            found.push(Finding::new(at, message).and(name).and(path));
        }
    }
}

fn target(route: &Route, config: &Config, path: &FieldPath, found: &mut Vec<Finding>) {
    if let Some(Err(message)) = route.name.as_ref().map(|name| label(name, "/{}*:")) {
        found.push(Finding::new(path.key("name"), message));
    }
    if let Some(message) = no_such("service", &route.service, &config.services) {
        found.push(Finding::new(path.key("service"), message));
    }
    if route.on_eject.is_some() && route.version.is_none() {
        let message =
            "the route has no version that may be ejected; write `version`, or leave it out";
        found.push(Finding::of_name(path.key("on_eject"), message));
    }
    let Some(service) = config.services.get(&route.service) else { return };
    if let Some(version) = &route.version
        && let Some(message) = no_such("version", version, &service.versions)
    {
        found.push(Finding::new(path.key("version"), message).and(path.key("service")));
    }
}

fn conditions(matches: &RouteMatch, path: &FieldPath, found: &mut Vec<Finding>) {
    if let Some(OneOrMany::Many(hosts)) = &matches.host {
        let path = path.key("host");
        if hosts.is_empty() {
            found.push(Finding::new(path.clone(), "an empty list; write a host, or leave it out"));
        }
        for (index, host) in hosts.iter().enumerate() {
            if hosts[..index].contains(host) {
                let message = format!("`{host}` twice, since case does not count; write it once");
                found.push(Finding::new(path.index(index), message));
            }
        }
    }
    methods(&matches.methods, &path.key("methods"), found);
    if let Some(name) = matches.headers.keys().find(|name| name.eq_ignore_ascii_case("host")) {
        let message =
            "the host is no header in HTTP/2; write `host: api.example.com` beside `path`";
        found.push(Finding::of_name(path.key("headers").key(name), message));
    }
    matching::check(Kind::Headers, &matches.headers, &path.key("headers"), found);
    matching::check(Kind::Query, &matches.query, &path.key("query"), found);
}

/// Checks `methods` of requests.
pub(super) fn methods(methods: &[String], path: &FieldPath, found: &mut Vec<Finding>) {
    for (index, method) in methods.iter().enumerate() {
        let path = path.index(index);
        if method == "CONNECT" {
            let message = "CONNECT asks for a tunnel, which is not offered; leave it out";
            found.push(Finding::new(path.clone(), message));
        } else if !is_method(method) {
            let upper = method.to_ascii_uppercase();
            let right = if is_method(&upper) { &upper } else { "GET" };
            let message = format!("`{method}` is not a method in upper case; write {right}");
            found.push(Finding::new(path.clone(), message));
        }
        if methods[..index].contains(method) {
            found.push(Finding::new(path, format!("`{method}` twice; write it once")));
        }
    }
}

fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| is_token_byte(b) && !b.is_ascii_lowercase())
}

/// One host and one method of a route's conditions in a form that is equal if and only if the
/// same requests match with the same precedence. Names of path parameters do not count.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Match {
    pub(super) host: Option<HostPattern>,
    pub(super) path: String,
    pub(super) method: Option<String>,
    pub(super) headers: BTreeMap<String, BTreeSet<String>>,
    pub(super) query: BTreeMap<String, BTreeSet<String>>,
    pub(super) claims: BTreeMap<String, BTreeSet<String>>,
}

impl Match {
    /// All hosts and methods of `matches`.
    pub(super) fn all(matches: &RouteMatch) -> Vec<Self> {
        let hosts: Vec<Option<HostPattern>> = match &matches.host {
            Some(hosts) => hosts.as_slice().iter().cloned().map(Some).collect(),
            None => vec![None],
        };
        let methods: Vec<Option<String>> = match matches.methods.as_slice() {
            [] => vec![None],
            methods => methods.iter().cloned().map(Some).collect(),
        };
        let path = shape(matches);
        let one = |host: &Option<HostPattern>, method: &Option<String>| Self {
            host: host.clone(),
            path: path.clone(),
            method: method.clone(),
            headers: canonical(Kind::Headers, &matches.headers),
            query: canonical(Kind::Query, &matches.query),
            claims: canonical(Kind::Query, &matches.claims),
        };
        hosts
            .iter()
            .flat_map(|host| methods.iter().map(move |m| (host, m)))
            .map(|(host, method)| one(host, method))
            .collect()
    }
}

/// The path without the names of its parameters; a missing path is `/*`, which matches everything,
/// too.
fn shape(matches: &RouteMatch) -> String {
    let Some(path) = &matches.path else { return "/*".to_owned() };
    let mut shape = String::new();
    for segment in &path.segments {
        // Writing to a string cannot fail.
        let _ = match segment {
            Segment::Literal(text) => write!(shape, "/{text}"),
            Segment::Param(_) => write!(shape, "/{{}}"),
        };
    }
    if path.prefix { shape + "/*" } else { shape }
}
