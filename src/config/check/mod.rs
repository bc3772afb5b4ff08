//! Whether a configuration agrees with itself: what no single value can know.
//!
//! Pure: it looks at nothing but the [`Config`], and returns everything it finds. There are no
//! warnings. What would certainly not do what its writer meant is an error; the rest is allowed.

mod matching;
mod route;
mod service;

use std::net::{IpAddr, SocketAddr};

use indexmap::IndexMap;

use super::{
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
    /// A value that is wrong.
    pub(super) fn new(path: FieldPath, message: impl Into<String>) -> Self {
        Self { path, of_name: false, also: Vec::new(), message: message.into() }
    }

    /// A field whose name is wrong.
    fn of_name(path: FieldPath, message: impl Into<String>) -> Self {
        Self { of_name: true, ..Self::new(path, message) }
    }

    /// Names another value that contradicts it.
    fn and(mut self, other: FieldPath) -> Self {
        self.also.push(other);
        self
    }
}

/// Everything in `config` that contradicts something else in it.
pub fn check(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    let root = FieldPath::default();
    if config.workers.is_some_and(|n| !(1..=1024).contains(&n)) {
        found.push(Finding::new(root.key("workers"), "out of range; write 1 to 1024"));
    }
    listen(config, &mut found);
    if let Some(value) = &config.admin {
        admin(value, config, &root.key("admin"), &mut found);
    }
    limits(&config.limits, &root.key("limits"), &mut found);
    if let Some(log) = &config.access_log {
        file_name(&log.path, root.key("access_log").key("path"), &mut found);
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
    route::check(config, &mut found);
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
    }
}

fn admin(admin: &Admin, config: &Config, path: &FieldPath, found: &mut Vec<Finding>) {
    let address = path.key("address");
    for (index, listen) in config.listen.iter().enumerate() {
        if clash(listen.address, admin.address) {
            let other = FieldPath::default().key("listen").index(index).key("address");
            let message = format!("taken by `{other}` already; write another port");
            found.push(Finding::new(address.clone(), message).and(other));
        }
    }
    if !admin.address.ip().to_canonical().is_loopback() && admin.tokens.is_empty() {
        let message = "reachable from other hosts without a token; write admin.tokens, or an \
                       address of this host only, such as 127.0.0.1:9090";
        found.push(Finding::new(address, message).and(path.key("tokens")));
    }
    for (index, token) in admin.tokens.iter().enumerate() {
        let path = path.key("tokens").index(index);
        if let Err(message) = label(&token.name, "") {
            found.push(Finding::new(path.key("name"), message));
        }
        file_name(&token.file.to_string_lossy(), path.key("file"), found);
        if admin.tokens[..index].iter().any(|other| other.name == token.name) {
            let message =
                format!("`{}` names another token already; give each its own name", token.name);
            found.push(Finding::new(path.key("name"), message));
        }
    }
}

fn limits(limits: &Limits, path: &FieldPath, found: &mut Vec<Finding>) {
    if limits.connections == 0 {
        found.push(Finding::new(path.key("connections"), "out of range; write 1 or more"));
    }
    if !(ByteSize(1 << 10)..=ByteSize(1 << 20)).contains(&limits.header_bytes) {
        let message = format!("`{}` is out of range; write 1KiB to 1MiB", limits.header_bytes);
        found.push(Finding::new(path.key("header_bytes"), message));
    }
    if !(1..=256).contains(&limits.header_count) {
        found.push(Finding::new(path.key("header_count"), "out of range; write 1 to 256"));
    }
}

/// Whether both cannot be listened at: the same port at the same address, or at every address of
/// the family and one of them. Port 0 is a free port and clashes with nothing.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() != 0
        && a.port() == b.port()
        && (a.ip() == b.ip()
            || a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified()))
}

/// Whether a connection to `endpoint` would arrive at `listen`, as far as the addresses tell.
fn reaches(endpoint: SocketAddr, listen: SocketAddr) -> bool {
    let family = |ip: IpAddr| ip.is_ipv4();
    endpoint.port() == listen.port()
        && (endpoint.ip() == listen.ip()
            || endpoint.ip().is_loopback()
                && listen.ip().is_unspecified()
                && (family(endpoint.ip()) == family(listen.ip()) || listen.is_ipv6()))
}

/// Names become labels of metrics and parts of the admin API's paths.
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

/// What is wrong if `name` names none of `known`. An empty map has a finding of its own, which is
/// the cause of this one.
fn no_such<V>(kind: &str, name: &str, known: &IndexMap<String, V>) -> Option<String> {
    if known.is_empty() || known.contains_key(name) {
        return None;
    }
    let names = known.keys().map(String::as_str);
    let right = match closest(name, names.clone()) {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("there are {}", names.take(20).collect::<Vec<_>>().join(", ")),
    };
    Some(format!("no {kind} `{name}`; {right}"))
}
