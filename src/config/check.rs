//! Checks that the values of a configuration agree with each other.
//!
//! Pure: it uses only the [`Config`], and returns all findings. A setting that certainly does not
//! do what was intended is an error; one that is rarely intended is allowed, and a warning of the
//! command `check` (`warn`).

mod admin;
mod alerts;
mod amounts;
mod authorizer;
mod comparison;
mod concurrency;
mod fence;
mod health;
mod idempotency;
mod identity_warnings;
mod jwt;
mod limit;
mod matching;
mod pin;
mod plan_warnings;
mod plans;
mod read_only;
mod retry;
mod route;
mod service;
mod smoke;
mod state;
mod tls;
mod warn;
mod windows;

use std::net::{IpAddr, SocketAddr};

pub use plans::{check_steps, least_requests, unanswered};
pub use smoke::check_smoke_gates;
pub(super) use warn::warnings;

use indexmap::IndexMap;
use ipnet::IpNet;

use super::{
    holder::is_same_holder,
    problem::{FieldPath, closest},
    schema::{Admin, Config, Limits},
    units::ByteSize,
};

/// A contradiction in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The value to change.
    pub path: FieldPath,
    /// Whether the name of the field is wrong, not its value.
    pub of_name: bool,
    /// Other values that contradict it.
    pub also: Vec<FieldPath>,
    /// What is wrong, a semicolon, what would be right.
    pub message: String,
}

impl Finding {
    /// A finding about a value.
    pub(super) fn new(path: FieldPath, message: impl Into<String>) -> Self {
        Self { path, of_name: false, also: Vec::new(), message: message.into() }
    }

    /// A finding about the name of a field.
    fn of_name(path: FieldPath, message: impl Into<String>) -> Self {
        Self { of_name: true, ..Self::new(path, message) }
    }

    /// Adds another value that contradicts it.
    fn and(mut self, other: FieldPath) -> Self {
        self.also.push(other);
        self
    }
}

/// Longest path of a Unix socket, minus the suffix of its temporary name.
const SOCKET_PATH_BYTES: usize = 90;

/// Everything in `config` that contradicts something else in it.
pub fn check(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    let root = FieldPath::default();
    if config.workers.is_some_and(|n| !(1..=1024).contains(&n)) {
        found.push(Finding::new(root.key("workers"), "out of range; write 1 to 1024"));
    }
    listen(config, &mut found);
    trusted_proxies(config, &mut found);
    if let Some(value) = &config.admin {
        admin(value, config, &root.key("admin"), &mut found);
    }
    limits(&config.limits, &root.key("limits"), &mut found);
    if !config.forwarding.via.is_empty()
        && let Err(message) = label(&config.forwarding.via, "")
    {
        found.push(Finding::new(root.key("forwarding").key("via"), message));
    }
    if let Some(log) = &config.access_log {
        file_name(&log.path, root.key("access_log").key("path"), &mut found);
    }
    if let Some(value) = &config.alerts {
        alerts::check(value, &root.key("alerts"), &mut found);
    }
    if let Some(takeover) = &config.takeover {
        let path = root.key("takeover").key("socket");
        let socket = takeover.socket.to_string_lossy();
        if socket.len() > SOCKET_PATH_BYTES {
            let message = format!("longer than the {SOCKET_PATH_BYTES} bytes of a socket's path");
            found.push(Finding::new(path, message));
        } else {
            file_name(&socket, path, &mut found);
        }
    }
    if let Some(state) = &config.state {
        state::check(state, &root.key("state"), &mut found);
    }
    for (index, server) in config.resolver.servers.iter().enumerate() {
        let path = root.key("resolver").key("servers").index(index);
        if server.port() == 0 {
            found.push(Finding::new(path.clone(), "port 0; a DNS server listens at port 53"));
        }
        if config.resolver.servers[..index].contains(server) {
            found.push(Finding::new(path, format!("`{server}` twice; write it once")));
        }
    }
    if config.services.is_empty() {
        found.push(Finding::new(root.key("services"), "no service; write at least one"));
    }
    for (name, value) in &config.services {
        service::check(name, value, config, &mut found);
    }
    jwt::check(config, &mut found);
    authorizer::check(config, &mut found);
    plans::check(config, &mut found);
    smoke::check(config, &mut found);
    windows::check(config, &mut found);
    read_only::check(config, &mut found);
    route::check(config, &mut found);
    idempotency::shared(config, &mut found);
    found
}

fn listen(config: &Config, found: &mut Vec<Finding>) {
    let path = FieldPath::default().key("listen");
    if config.listen.is_empty() {
        found.push(Finding::new(path.clone(), "no address to listen at; write at least one"));
    }
    for (index, here) in config.listen.iter().enumerate() {
        let earlier = config.listen[..index].iter().position(|l| clash(l.address, here.address));
        if let Some(earlier) = earlier {
            let other = path.index(earlier).key("address");
            let message = format!("taken by `{other}` already; write another port");
            let finding = Finding::new(path.index(index).key("address"), message).and(other);
            found.push(finding);
        }
        if let Some(value) = &here.tls {
            tls::listen(value, &path.index(index).key("tls"), found);
        }
        if let Some(protocol) = &here.proxy_protocol {
            let from = path.index(index).key("proxy_protocol").key("from");
            if protocol.from.is_empty() {
                let message = "no balancer; write the addresses that send the heads";
                found.push(Finding::new(from.clone(), message));
            }
            twice(&protocol.from, &from, found);
        }
    }
}

/// If all addresses are trusted, the client is the leftmost entry, which anybody can write.
fn trusted_proxies(config: &Config, found: &mut Vec<Finding>) {
    let path = FieldPath::default().key("trusted_proxies");
    for (index, network) in config.trusted_proxies.iter().enumerate() {
        if network.prefix_len() == 0 {
            let message = format!(
                "`{network}` is everybody, so a client could claim any address; write the addresses of the proxies"
            );
            found.push(Finding::new(path.index(index), message));
        }
    }
    twice(&config.trusted_proxies, &path, found);
}

fn twice(networks: &[IpNet], path: &FieldPath, found: &mut Vec<Finding>) {
    for (index, network) in networks.iter().enumerate() {
        if networks[..index].contains(network) {
            let message = format!("`{network}` twice; write it once");
            found.push(Finding::new(path.index(index), message));
        }
    }
}

fn admin(admin: &Admin, config: &Config, path: &FieldPath, found: &mut Vec<Finding>) {
    let address = path.key("address");
    if let Some(index) = config.listen.iter().position(|l| clash(l.address, admin.address)) {
        let other = FieldPath::default().key("listen").index(index).key("address");
        let message = format!("taken by `{other}` already; write another port");
        found.push(Finding::new(address.clone(), message).and(other));
    }
    let has_holders = !admin.tokens.is_empty() || !admin.certificates.is_empty();
    if !admin.address.ip().to_canonical().is_loopback() && !has_holders {
        let message = "reachable from other hosts without a token; write admin.tokens, or an \
                       address of this host only, such as 127.0.0.1:9090";
        found.push(Finding::new(address, message).and(path.key("tokens")));
    }
    admin::encryption(admin, path, found);
    for (index, token) in admin.tokens.iter().enumerate() {
        let path = path.key("tokens").index(index);
        if let Err(message) = label(&token.name, "") {
            found.push(Finding::new(path.key("name"), message));
        }
        admin::token(token, &path, found);
        let mut before = admin.tokens[..index].iter();
        if let Some(other) = before.find(|other| is_same_holder(&other.name, &token.name)) {
            let message = match other.name == token.name {
                true => {
                    format!("`{}` names another token already; give each its own name", token.name)
                }
                false => format!(
                    "`{}` and `{}` differ only by case, so nobody could tell whether they are two people; give each its \
                     own name",
                    token.name, other.name
                ),
            };
            found.push(Finding::new(path.key("name"), message));
        }
    }
}

fn limits(limits: &Limits, path: &FieldPath, found: &mut Vec<Finding>) {
    for (field, limit) in [
        ("connections", limits.connections),
        ("connections_per_client", limits.connections_per_client),
        ("requests", limits.requests),
        ("requests_per_client", limits.requests_per_client),
    ] {
        if limit == Some(0) {
            found.push(Finding::new(path.key(field), "out of range; write 1 or more"));
        }
    }
    if !(ByteSize(1 << 10)..=ByteSize(1 << 20)).contains(&limits.header_bytes) {
        let message = format!("`{}` is out of range; write 1KiB to 1MiB", limits.header_bytes);
        found.push(Finding::new(path.key("header_bytes"), message));
    }
    if !(1..=1000).contains(&limits.streams) {
        found.push(Finding::new(path.key("streams"), "out of range; write 1 to 1000"));
    }
    if !(1..=256).contains(&limits.header_count) {
        found.push(Finding::new(path.key("header_count"), "out of range; write 1 to 256"));
    }
}

/// Whether the two cannot be bound together: the same port at the same address, or at one address
/// and at all addresses of the family. Port 0 is any free port and never clashes.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() != 0
        && a.port() == b.port()
        && (a.ip() == b.ip()
            || a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified()))
}

/// Whether a connection to `endpoint` would arrive at `listen`, judged by the addresses.
fn reaches(endpoint: SocketAddr, listen: SocketAddr) -> bool {
    let family = |ip: IpAddr| ip.is_ipv4();
    endpoint.port() == listen.port()
        && (endpoint.ip() == listen.ip()
            || endpoint.ip().is_loopback()
                && listen.ip().is_unspecified()
                && (family(endpoint.ip()) == family(listen.ip()) || listen.is_ipv6()))
}

/// Checks a name, which becomes a label of metrics and a part of the admin API's paths.
fn label(name: &str, more: &str) -> Result<(), String> {
    let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c) || more.contains(c);
    if (1..=64).contains(&name.len()) && name.chars().all(known) {
        return Ok(());
    }
    let more: String = more.chars().map(|c| format!(" {c}")).collect();
    Err(format!(
        "`{name}` cannot be a name; write 1 to 64 of the letters a-z A-Z, the digits 0-9 and . _ -{more}"
    ))
}

fn file_name(name: &str, path: FieldPath, found: &mut Vec<Finding>) {
    if name.is_empty() || name.contains('\0') {
        found.push(Finding::new(path, "names no file; write its path"));
    }
}

/// The message if `name` is none of `known`. An empty map has a finding of its own, which is the
/// cause.
fn no_such<V>(kind: &str, name: &str, known: &IndexMap<String, V>) -> Option<String> {
    if known.is_empty() || known.contains_key(name) {
        return None;
    }
    let names = known.keys().map(String::as_str);
    let right = match closest(name, names.clone()) {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("known: {}", names.take(20).collect::<Vec<_>>().join(", ")),
    };
    Some(format!("no {kind} `{name}`; {right}"))
}

#[cfg(test)]
mod tests;
