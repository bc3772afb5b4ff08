//! The route table: from a request's head to a route, in time that grows with the path's length.
//!
//! Each host pattern has a tree of path segments; all trees share one flat array of nodes and one
//! open-addressed hash of edges `(parent, segment) → child`, so a step is one probe whatever the
//! number of routes, and a table of 10,000 routes is a handful of allocations. At a node stand the
//! routes that end there, the most specific first; only routes of the same host and path are ever
//! compared one by one.
//!
//! Precedence (Kubernetes Gateway API): host (exact, then longest suffix, then any); exact path, then
//! longest prefix; then a named method; then the number of header and query conditions; then the order
//! of the file. A route whose method or conditions fail leaves the request to the next best.
//!
//! `matchit` was considered: it answers the single best path, without the next best that a route with
//! a failed condition must fall back to.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::matcher::{Condition, RequestView};
use crate::config::{
    pattern::{HostPattern, PathPattern, Segment},
    schema::RouteMatch,
};

const NONE: u32 = u32::MAX;

/// Most prefix routes remembered on the way down; deeper ones win, so the shallowest are lost first.
const PREFIXES: usize = 24;

/// Routes, ready to be found. Built once per snapshot, read by all workers.
#[derive(Debug, Default)]
pub struct Table {
    exact_hosts: HashMap<Box<str>, u32>,
    suffix_hosts: HashMap<Box<str>, u32>,
    any_host: Option<u32>,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    text: Vec<u8>,
    candidates: Vec<Candidate>,
}

/// A place in a path tree.
#[derive(Debug)]
struct Node {
    /// Where in `text` the literal segment stands that leads here.
    segment: (u32, u32),
    param_child: u32,
    /// Ranges in `candidates`.
    exact: (u32, u32),
    prefix: (u32, u32),
}

/// A slot of the edge hash; `child == NONE` is empty.
#[derive(Debug, Clone, Copy)]
struct Edge {
    parent: u32,
    tag: u32,
    child: u32,
}

/// A route that ends at a node.
#[derive(Debug)]
struct Candidate {
    route: u32,
    /// Bits of standard methods; 0 with `other_methods` empty accepts all.
    methods: u16,
    other_methods: Box<[Box<str>]>,
    headers: Box<[Condition]>,
    query: Box<[Condition]>,
}

impl Table {
    /// A table of `routes`; the index in the slice is what [`Table::find`] answers.
    pub fn new<'a>(routes: impl IntoIterator<Item = &'a RouteMatch>) -> Self {
        Builder::default().build(routes)
    }

    /// The most specific route that accepts `request`.
    pub fn find(&self, request: &RequestView<'_>) -> Option<u32> {
        let mut lower = [0u8; 256];
        let host = lower_case(request.host, &mut lower);
        self.roots(host).find_map(|root| self.find_below(root, request))
    }

    /// The roots of the host patterns that match, the most specific first.
    fn roots<'t>(&'t self, host: &'t str) -> impl Iterator<Item = u32> + 't {
        let exact = if self.exact_hosts.is_empty() { None } else { self.exact_hosts.get(host) };
        let mut rest = if self.suffix_hosts.is_empty() { "" } else { host };
        let suffixes = std::iter::from_fn(move || {
            while let Some((_, tail)) = rest.split_once('.') {
                rest = tail;
                if let Some(root) = self.suffix_hosts.get(tail) {
                    return Some(*root);
                }
            }
            None
        });
        exact.copied().into_iter().chain(suffixes).chain(self.any_host)
    }

    fn find_below(&self, root: u32, request: &RequestView<'_>) -> Option<u32> {
        let mut prefixes = Prefixes::default();
        // A target without a leading slash (`*` of OPTIONS) is met by `/*` alone.
        let found = match request.path.strip_prefix('/') {
            Some(path) => self.descend(root, Some(path), 0, request, &mut prefixes),
            None => {
                prefixes.push(0, root);
                None
            }
        };
        found.or_else(|| {
            prefixes
                .deepest_first()
                .find_map(|node| self.accept(self.nodes[node as usize].prefix, request))
        })
    }

    /// Walks `path` (what is left of it) below `node`, literals before parameters, and answers an exact
    /// match; prefixes met on the way are noted.
    fn descend(
        &self,
        node: u32,
        path: Option<&str>,
        depth: u16,
        request: &RequestView<'_>,
        prefixes: &mut Prefixes,
    ) -> Option<u32> {
        let here = &self.nodes[node as usize];
        if here.prefix.1 > here.prefix.0 {
            prefixes.push(depth, node);
        }
        let Some(path) = path else {
            return self.accept(here.exact, request);
        };
        let (segment, rest) = match memchr::memchr(b'/', path.as_bytes()) {
            Some(at) => (&path[..at], Some(&path[at + 1..])),
            None => (path, None),
        };
        if let Some(child) = self.child(node, segment.as_bytes())
            && let Some(route) = self.descend(child, rest, depth + 1, request, prefixes)
        {
            return Some(route);
        }
        if here.param_child != NONE && !segment.is_empty() {
            return self.descend(here.param_child, rest, depth + 1, request, prefixes);
        }
        None
    }

    fn child(&self, parent: u32, segment: &[u8]) -> Option<u32> {
        let mask = self.edges.len() - 1;
        let hash = edge_hash(parent, segment);
        let (mut at, tag) = (hash as usize & mask, (hash >> 32) as u32);
        loop {
            let edge = &self.edges[at];
            if edge.child == NONE {
                return None;
            }
            if edge.tag == tag && edge.parent == parent {
                let (from, to) = self.nodes[edge.child as usize].segment;
                if &self.text[from as usize..to as usize] == segment {
                    return Some(edge.child);
                }
            }
            at = (at + 1) & mask;
        }
    }

    fn accept(&self, range: (u32, u32), request: &RequestView<'_>) -> Option<u32> {
        self.candidates[range.0 as usize..range.1 as usize]
            .iter()
            .find(|c| c.accepts(request))
            .map(|c| c.route)
    }
}

impl Candidate {
    fn new(route: u32, matches: &RouteMatch) -> Self {
        let (mut methods, mut other_methods) = (0, Vec::new());
        for method in &matches.methods {
            match method_bit(method) {
                0 => other_methods.push(method.as_str().into()),
                bit => methods |= bit,
            }
        }
        Self {
            route,
            methods,
            other_methods: other_methods.into(),
            headers: matches
                .headers
                .iter()
                .map(|(n, v)| Condition::on_header(n, v.as_slice()))
                .collect(),
            query: matches.query.iter().map(|(n, v)| Condition::new(n, v.as_slice())).collect(),
        }
    }

    fn names_method(&self) -> bool {
        self.methods != 0 || !self.other_methods.is_empty()
    }

    fn accepts(&self, request: &RequestView<'_>) -> bool {
        (!self.names_method()
            || self.methods & method_bit(request.method) != 0
            || self.other_methods.iter().any(|m| **m == *request.method))
            && self.headers.iter().all(|c| c.holds_in_header(request))
            && self.query.iter().all(|c| c.holds_in_query(request))
    }
}

/// Nodes with prefix routes met on the way down.
#[derive(Default)]
struct Prefixes {
    met: [(u16, u32); PREFIXES],
    len: usize,
}

impl Prefixes {
    fn push(&mut self, depth: u16, node: u32) {
        if self.len == PREFIXES {
            self.met.copy_within(1.., 0);
            self.len -= 1;
        }
        // Kept in order of depth; of equal depth the one met first, by a literal, stays last.
        let mut at = self.len;
        while at > 0 && self.met[at - 1].0 >= depth {
            self.met[at] = self.met[at - 1];
            at -= 1;
        }
        self.met[at] = (depth, node);
        self.len += 1;
    }

    fn deepest_first(&self) -> impl Iterator<Item = u32> + '_ {
        self.met[..self.len].iter().rev().map(|(_, node)| *node)
    }
}

#[derive(Default)]
struct Builder {
    table: Table,
    /// Children by parent and segment while building; `None` is the parameter.
    children: HashMap<(u32, Option<String>), u32>,
    /// Routes that end at a node, exact and prefix.
    ends: Vec<(Vec<Candidate>, Vec<Candidate>)>,
}

impl Builder {
    fn build<'a>(mut self, routes: impl IntoIterator<Item = &'a RouteMatch>) -> Table {
        let everything = PathPattern { segments: Vec::new(), prefix: true };
        for (matches, number) in routes.into_iter().zip(0u32..) {
            let hosts = matches.host.as_ref().map_or(&[][..], |h| h.as_slice());
            let roots: Vec<u32> = if hosts.is_empty() {
                vec![self.root(None)]
            } else {
                hosts.iter().map(|h| self.root(Some(h))).collect()
            };
            let path = matches.path.as_ref().unwrap_or(&everything);
            for root in roots {
                let end = path.segments.iter().fold(root, |at, segment| self.step(at, segment));
                let (exact, prefix) = &mut self.ends[end as usize];
                (if path.prefix { prefix } else { exact }).push(Candidate::new(number, matches));
            }
        }
        self.finish()
    }

    fn root(&mut self, host: Option<&HostPattern>) -> u32 {
        let known = match host {
            None => self.table.any_host,
            Some(HostPattern::Exact(name)) => self.table.exact_hosts.get(name.as_str()).copied(),
            Some(HostPattern::Suffix(name)) => self.table.suffix_hosts.get(name.as_str()).copied(),
        };
        known.unwrap_or_else(|| {
            let root = self.node("");
            match host {
                None => self.table.any_host = Some(root),
                Some(HostPattern::Exact(name)) => {
                    self.table.exact_hosts.insert(name.as_str().into(), root);
                }
                Some(HostPattern::Suffix(name)) => {
                    self.table.suffix_hosts.insert(name.as_str().into(), root);
                }
            }
            root
        })
    }

    fn step(&mut self, parent: u32, segment: &Segment) -> u32 {
        let (key, text) = match segment {
            Segment::Literal(text) => (Some(text.clone()), text.as_str()),
            Segment::Param(_) => (None, ""),
        };
        if let Some(child) = self.children.get(&(parent, key.clone())) {
            return *child;
        }
        let child = self.node(text);
        if key.is_none() {
            self.table.nodes[parent as usize].param_child = child;
        }
        self.children.insert((parent, key), child);
        child
    }

    fn node(&mut self, segment: &str) -> u32 {
        let from = self.table.text.len() as u32;
        self.table.text.extend_from_slice(segment.as_bytes());
        self.table.nodes.push(Node {
            segment: (from, self.table.text.len() as u32),
            param_child: NONE,
            exact: (0, 0),
            prefix: (0, 0),
        });
        self.ends.push(Default::default());
        self.table.nodes.len() as u32 - 1
    }

    fn finish(mut self) -> Table {
        let table = &mut self.table;
        for (node, (exact, prefix)) in table.nodes.iter_mut().zip(self.ends) {
            let mut place = |mut list: Vec<Candidate>| {
                list.sort_by_key(|c| {
                    std::cmp::Reverse((c.names_method(), c.headers.len(), c.query.len()))
                });
                let from = table.candidates.len() as u32;
                table.candidates.extend(list);
                (from, table.candidates.len() as u32)
            };
            node.exact = place(exact);
            node.prefix = place(prefix);
        }
        // At most half full, so that a miss ends after a probe or two.
        let size = (self.children.len() * 2).next_power_of_two().max(2);
        table.edges = vec![Edge { parent: 0, tag: 0, child: NONE }; size];
        for ((parent, segment), child) in &self.children {
            let Some(segment) = segment else { continue };
            let hash = edge_hash(*parent, segment.as_bytes());
            let mut at = hash as usize & (size - 1);
            while table.edges[at].child != NONE {
                at = (at + 1) & (size - 1);
            }
            table.edges[at] = Edge { parent: *parent, tag: (hash >> 32) as u32, child: *child };
        }
        self.table
    }
}

fn edge_hash(parent: u32, segment: &[u8]) -> u64 {
    // Up to 240 bytes the seeded hash is as fast as the plain one; longer segments pay, and are rare.
    xxh3_64_with_seed(segment, u64::from(parent))
}

/// `host` in lower case; itself if it is too long to be a host name or has no upper case.
fn lower_case<'a>(host: &'a str, space: &'a mut [u8; 256]) -> &'a str {
    if host.len() > space.len() || !host.bytes().any(|b| b.is_ascii_uppercase()) {
        return host;
    }
    let lower = &mut space[..host.len()];
    lower.copy_from_slice(host.as_bytes());
    lower.make_ascii_lowercase();
    std::str::from_utf8(lower).unwrap_or(host)
}

/// The bit of a standard method (RFC 9110 section 9.3, RFC 5789); 0 for others.
fn method_bit(method: &str) -> u16 {
    match method {
        "GET" => 1,
        "HEAD" => 1 << 1,
        "POST" => 1 << 2,
        "PUT" => 1 << 3,
        "DELETE" => 1 << 4,
        "OPTIONS" => 1 << 5,
        "PATCH" => 1 << 6,
        "TRACE" => 1 << 7,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use httparse::Header;
    use proptest::prelude::*;

    use super::*;

    fn route(yaml: serde_json::Value) -> RouteMatch {
        serde_json::from_value(yaml).expect("a route match")
    }

    fn view<'a>(
        method: &'a str,
        host: &'a str,
        target: &'a str,
        headers: &'a [Header<'a>],
    ) -> RequestView<'a> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        RequestView {
            method,
            host,
            path,
            query,
            headers,
            client: [127, 0, 0, 1].into(),
            client_text: "127.0.0.1",
        }
    }

    #[test]
    fn the_most_specific_route_wins_in_any_order_of_the_file() {
        let routes = [
            ("catch-all", serde_json::json!({})),
            ("prefix", serde_json::json!({"path": "/v1/*"})),
            ("longer prefix", serde_json::json!({"path": "/v1/bets/*"})),
            ("exact", serde_json::json!({"path": "/v1/bets"})),
            ("exact post", serde_json::json!({"path": "/v1/bets", "methods": ["POST"]})),
            (
                "exact post eu",
                serde_json::json!({"path": "/v1/bets", "methods": ["POST"], "headers": {"X-Region": "eu"}}),
            ),
            (
                "exact beta",
                serde_json::json!({"path": "/v1/bets", "query": {"beta": ["1", "yes"]}}),
            ),
            ("settle", serde_json::json!({"path": "/v1/rounds/{id}/settle"})),
            ("round seven", serde_json::json!({"path": "/v1/rounds/7/settle"})),
            ("rounds", serde_json::json!({"path": "/v1/rounds/{id}/*"})),
            ("host", serde_json::json!({"host": "api.example.com", "path": "/v1/*"})),
            ("suffix", serde_json::json!({"host": "*.example.com", "path": "/only/*"})),
            ("purge", serde_json::json!({"path": "/v1/bets", "methods": ["PURGE"]})),
            ("root", serde_json::json!({"path": "/"})),
            ("slash", serde_json::json!({"path": "/v1/bets/"})),
        ];
        let eu = [Header { name: "x-region", value: b"eu" }];
        let us = [Header { name: "x-region", value: b"us" }];
        let cases: [(&str, RequestView<'_>); 21] = [
            ("root", view("GET", "h", "/", &[])),
            ("catch-all", view("GET", "h", "/other", &[])),
            ("catch-all", view("OPTIONS", "h", "*", &[])),
            ("exact", view("GET", "h", "/v1/bets", &[])),
            ("exact beta", view("GET", "h", "/v1/bets?beta=yes", &[])),
            ("exact post", view("POST", "h", "/v1/bets", &us)),
            ("exact post eu", view("POST", "h", "/v1/bets", &eu)),
            ("exact post", view("POST", "h", "/v1/bets?beta=1", &[])),
            ("purge", view("PURGE", "h", "/v1/bets", &[])),
            ("slash", view("GET", "h", "/v1/bets/", &[])),
            ("longer prefix", view("GET", "h", "/v1/bets/9", &[])),
            ("prefix", view("GET", "h", "/v1", &[])),
            ("prefix", view("GET", "h", "/v1/betsy", &[])),
            ("settle", view("GET", "h", "/v1/rounds/8/settle", &[])),
            ("round seven", view("GET", "h", "/v1/rounds/7/settle", &[])),
            ("rounds", view("GET", "h", "/v1/rounds/7/other", &[])),
            ("prefix", view("GET", "h", "/v1/rounds//settle", &[])),
            ("host", view("POST", "API.example.com", "/v1/bets", &eu)),
            ("suffix", view("GET", "api.example.com", "/only/x", &[])),
            ("suffix", view("GET", "a.b.example.com", "/only", &[])),
            ("catch-all", view("GET", "example.com", "/only", &[])),
        ];
        for rotation in 0..routes.len() {
            let mut order: Vec<_> = routes.iter().collect();
            order.rotate_left(rotation);
            let matches: Vec<RouteMatch> = order.iter().map(|(_, m)| route(m.clone())).collect();
            let table = Table::new(&matches);
            for (expected, request) in &cases {
                let found = table.find(request).map(|r| order[r as usize].0);
                assert_eq!(
                    found,
                    Some(*expected),
                    "{} {}{}",
                    request.method,
                    request.host,
                    request.path
                );
            }
        }
    }

    #[test]
    fn nothing_matches_nothing() {
        assert_eq!(Table::new([]).find(&view("GET", "h", "/", &[])), None);
        let only = [route(serde_json::json!({"path": "/a/{b}", "methods": ["GET"]}))];
        let table = Table::new(&only);
        assert_eq!(table.find(&view("GET", "h", "/a/x", &[])), Some(0));
        for (method, path) in [
            ("POST", "/a/x"),
            ("GET", "/a"),
            ("GET", "/a/"),
            ("GET", "/a/x/"),
            ("GET", "*"),
            ("GET", ""),
        ] {
            assert_eq!(table.find(&view(method, "h", path, &[])), None, "{method} {path}");
        }
    }

    /// The definition of precedence without an index: all routes are tried and the best is taken.
    fn by_definition(routes: &[RouteMatch], request: &RequestView<'_>) -> Option<u32> {
        let segments: Vec<&str> = request.path.strip_prefix('/').unwrap_or("").split('/').collect();
        let rank = |(number, route): (u32, &RouteMatch)| {
            let path = route.path.as_ref()?;
            let (n, m) = (path.segments.len(), segments.len());
            let fits = if path.prefix { n <= m } else { n == m };
            let equal = path.segments.iter().zip(&segments).all(|(p, s)| match p {
                Segment::Literal(text) => text == s,
                Segment::Param(_) => !s.is_empty(),
            });
            let method =
                route.methods.is_empty() || route.methods.iter().any(|m| m == request.method);
            let literals: Vec<bool> =
                path.segments.iter().map(|s| matches!(s, Segment::Literal(_))).collect();
            (fits && equal && method).then_some((
                !path.prefix,
                n,
                literals,
                !route.methods.is_empty(),
                std::cmp::Reverse(number),
            ))
        };
        (0..).zip(routes).filter_map(|r| rank(r).map(|rank| (rank, r.0))).max().map(|(_, n)| n)
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            paths in prop::collection::vec(
                (prop::collection::vec(prop::sample::select(vec!["a", "b", "{p}", "c"]), 0..4), any::<bool>(), any::<bool>()), 1..12),
            asked in prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "x", ""]), 1..5),
            post in any::<bool>(),
        ) {
            let routes: Vec<RouteMatch> = paths.iter().filter_map(|(parts, prefix, named)| {
                let parts: Vec<String> = parts.iter().enumerate().map(|(i, p)| p.replace("{p}", &format!("{{p{i}}}"))).collect();
                let path = match (parts.is_empty(), prefix) {
                    (true, true) => "/*".to_owned(),
                    (_, prefix) => format!("/{}{}", parts.join("/"), if *prefix { "/*" } else { "" }),
                };
                let mut m = RouteMatch { path: path.parse().ok(), ..RouteMatch::default() };
                m.path.as_ref()?;
                if *named { m.methods = vec!["POST".into()]; }
                Some(m)
            }).collect();
            let target = format!("/{}", asked.join("/"));
            let request = view(if post { "POST" } else { "GET" }, "h", &target, &[]);
            prop_assert_eq!(Table::new(&routes).find(&request), by_definition(&routes, &request));
        }
    }
}
