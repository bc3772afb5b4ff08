//! The route table: from a request's head to a route, in time that grows with the path's length.
//!
//! Hosts and path segments form one tree: a host pattern leads to a root, a segment from a node to a
//! child. All nodes stand in one flat array and all edges in one open-addressed hash, so a
//! step is one probe whatever the number of routes, and a table of 10,000 routes is a handful of
//! allocations. At a node stand the routes that end there, the most specific first; only routes of the
//! same host and path are ever compared one by one.
//!
//! Precedence (Kubernetes Gateway API): host (exact, then longest suffix, then any); exact path, then
//! longest prefix; then a named method; then the number of header and query conditions; then the order
//! of the file. A route whose method or conditions fail leaves the request to the next best.
//!
//! `matchit` was considered: it answers the single best path, without the next best that a route with
//! a failed condition must fall back to.

mod edges;

use std::collections::HashMap;

use self::edges::{Edges, Way};
use super::matcher::{Condition, RequestView};
use crate::config::{
    pattern::{HostPattern, PathPattern, Segment},
    schema::RouteMatch,
};

const NONE: u32 = u32::MAX;

/// Most prefix routes remembered on the way down; deeper ones win, so the shallowest are lost first.
const PREFIXES: usize = 24;

/// Bytes of the longest host name (RFC 1035 section 2.3.4).
const LONGEST_HOST: usize = 253;

/// Parents of the roots that exact host names and suffixes of host names lead to. No nodes.
const EXACT_HOSTS: Place = Place { node: u32::MAX - 1, way: Way::root(1) };
const HOST_SUFFIXES: Place = Place { node: u32::MAX - 2, way: Way::root(2) };

/// The way to the root for requests of any host.
const ANY_HOST: Way = Way::root(3);

/// Routes, ready to be found. Built once per snapshot, read by all workers.
#[derive(Debug, Default)]
pub struct Table {
    nodes: Vec<Node>,
    edges: Edges,
    text: Vec<u8>,
    candidates: Vec<Candidate>,
    /// The root for requests of any host.
    any_host: Option<u32>,
    /// Whether hosts need to be looked at.
    has_exact_hosts: bool,
    has_host_suffixes: bool,
}

/// A place in the tree.
#[derive(Debug)]
struct Node {
    parent: u32,
    /// Where in `text` the host or the literal segment stands that leads here.
    segment: (u32, u32),
    param_child: u32,
    /// Ranges in `candidates`.
    exact: (u32, u32),
    prefix: (u32, u32),
}

/// A node and the way that led to it.
#[derive(Debug, Clone, Copy)]
struct Place {
    node: u32,
    way: Way,
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
        let exact = self.has_exact_hosts.then(|| self.root(EXACT_HOSTS, request.host)).flatten();
        match exact {
            Some(root) => self
                .find_below(root, request)
                .or_else(|| self.find_for_host(None, request.host, request)),
            // Patterns are in lower case, so a name with a capital has not met one yet.
            None if request.host.bytes().any(|b| b.is_ascii_uppercase()) => {
                self.find_in_lower_case(request)
            }
            None => self.find_for_host(None, request.host, request),
        }
    }

    /// Apart from the usual path, which has no need of the space.
    #[cold]
    fn find_in_lower_case(&self, request: &RequestView<'_>) -> Option<u32> {
        let mut space = [0u8; 256];
        let host = request.host.as_bytes();
        // What is longer than any host name matches none.
        let lower = space.get_mut(..host.len()).and_then(|lower| {
            lower.copy_from_slice(host);
            lower.make_ascii_lowercase();
            std::str::from_utf8(lower).ok()
        });
        let host = lower.unwrap_or(request.host);
        self.find_for_host(self.root(EXACT_HOSTS, host), host, request)
    }

    /// Tries the roots that `host`, in lower case, leads to, the most specific first.
    fn find_for_host(
        &self,
        exact: Option<Place>,
        host: &str,
        request: &RequestView<'_>,
    ) -> Option<u32> {
        // No pattern is longer, and each end of the name is hashed.
        let may_match = self.has_host_suffixes && host.len() <= LONGEST_HOST;
        let mut rest = if may_match { host } else { "" };
        let suffixes = std::iter::from_fn(|| {
            while let Some((_, tail)) = rest.split_once('.') {
                rest = tail;
                if let Some(root) = self.root(HOST_SUFFIXES, tail) {
                    return Some(root);
                }
            }
            None
        });
        let any = self.any_host.map(|node| Place { node, way: ANY_HOST });
        exact.into_iter().chain(suffixes).chain(any).find_map(|root| self.find_below(root, request))
    }

    fn root(&self, kind: Place, host: &str) -> Option<Place> {
        let (way, length) = kind.way.through(host.as_bytes());
        // A host with a slash in it is none; its beginning must not pass for one.
        if length < host.len() { None } else { self.child(kind.node, way, host.as_bytes()) }
    }

    fn find_below(&self, root: Place, request: &RequestView<'_>) -> Option<u32> {
        let mut prefixes = Prefixes { met: [(0, 0); PREFIXES], len: 0 };
        // A target without a leading slash (`*` of OPTIONS) is met by `/*` alone.
        let found = match request.path.as_bytes().strip_prefix(b"/") {
            Some(path) => self.descend(root, Some(path), 0, request, &mut prefixes),
            None => {
                prefixes.push(0, root.node);
                None
            }
        };
        found.or_else(|| {
            prefixes
                .deepest_first()
                .find_map(|node| self.accept(self.nodes[node as usize].prefix, request))
        })
    }

    /// Walks `path` (what is left of it) below `at`, literals before parameters, and answers an exact
    /// match; prefixes met on the way are noted.
    fn descend(
        &self,
        mut at: Place,
        mut path: Option<&[u8]>,
        mut depth: u16,
        request: &RequestView<'_>,
        prefixes: &mut Prefixes,
    ) -> Option<u32> {
        loop {
            let here = &self.nodes[at.node as usize];
            if here.prefix.1 > here.prefix.0 {
                prefixes.push(depth, at.node);
            }
            let Some(left) = path else {
                return self.accept(here.exact, request);
            };
            let (way, length) = at.way.through(left);
            let segment = &left[..length];
            let literal = self.child(at.node, way, segment);
            let parameter = (here.param_child != NONE && length > 0)
                .then(|| Place { node: here.param_child, way: at.way.through_parameter() });
            path = left.get(length + 1..);
            depth += 1;
            at = match (literal, parameter) {
                (Some(literal), Some(parameter)) => {
                    // Only here is there a second way to try.
                    let found = self.descend(literal, path, depth, request, prefixes);
                    if found.is_some() {
                        return found;
                    }
                    parameter
                }
                (Some(only), None) | (None, Some(only)) => only,
                (None, None) => return None,
            };
        }
    }

    #[inline]
    fn child(&self, parent: u32, way: Way, segment: &[u8]) -> Option<Place> {
        let leads_here = |node: u32| {
            let node = &self.nodes[node as usize];
            let (from, to) = node.segment;
            node.parent == parent && &self.text[from as usize..to as usize] == segment
        };
        self.edges.find(way, leads_here).map(|node| Place { node, way })
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
    /// The way to each node.
    ways: Vec<Way>,
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
                let end = path.segments.iter().fold(root, |at, segment| match segment {
                    Segment::Literal(text) => self.step(self.place(at), Some(text)),
                    Segment::Param(_) => self.step(self.place(at), None),
                });
                let (exact, prefix) = &mut self.ends[end as usize];
                (if path.prefix { prefix } else { exact }).push(Candidate::new(number, matches));
            }
        }
        self.finish()
    }

    fn root(&mut self, host: Option<&HostPattern>) -> u32 {
        match host {
            Some(HostPattern::Exact(name)) => {
                self.table.has_exact_hosts = true;
                self.step(EXACT_HOSTS, Some(name))
            }
            Some(HostPattern::Suffix(name)) => {
                self.table.has_host_suffixes = true;
                self.step(HOST_SUFFIXES, Some(name))
            }
            None => self.table.any_host.unwrap_or_else(|| {
                let root = self.node(NONE, "", ANY_HOST);
                self.table.any_host = Some(root);
                root
            }),
        }
    }

    fn place(&self, node: u32) -> Place {
        Place { node, way: self.ways[node as usize] }
    }

    /// The child that `segment` leads to; nothing is the parameter.
    fn step(&mut self, parent: Place, segment: Option<&str>) -> u32 {
        let key = (parent.node, segment.map(str::to_owned));
        if let Some(child) = self.children.get(&key) {
            return *child;
        }
        let child = match segment {
            Some(text) => self.node(parent.node, text, parent.way.through(text.as_bytes()).0),
            None => self.node(parent.node, "", parent.way.through_parameter()),
        };
        if segment.is_none() {
            self.table.nodes[parent.node as usize].param_child = child;
        }
        self.children.insert(key, child);
        child
    }

    fn node(&mut self, parent: u32, segment: &str, way: Way) -> u32 {
        let from = self.table.text.len() as u32;
        self.table.text.extend_from_slice(segment.as_bytes());
        self.table.nodes.push(Node {
            parent,
            segment: (from, self.table.text.len() as u32),
            param_child: NONE,
            exact: (0, 0),
            prefix: (0, 0),
        });
        self.ways.push(way);
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
        let literal = self.children.iter().filter(|((_, segment), _)| segment.is_some());
        table.edges = Edges::new(literal.map(|(_, child)| (self.ways[*child as usize], *child)));
        self.table
    }
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
            client_text: b"127.0.0.1",
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

    /// Each end of a name was hashed, however long the name: 32 KiB of labels took 50 ms.
    #[test]
    fn a_host_longer_than_any_name_costs_no_look_at_its_ends() {
        let any = [serde_json::json!({"host": "*.example.com"}), serde_json::json!({})];
        let routes = any.map(route);
        let table = Table::new(&routes);
        let host = "a.".repeat(120) + "example.com";
        assert_eq!(table.find(&view("GET", &host, "/", &[])), Some(0));
        let host = "a.".repeat(8 << 20) + "example.com";
        let began = std::time::Instant::now();
        assert_eq!(table.find(&view("GET", &host, "/", &[])), Some(1));
        // 16 MiB are looked at once here; 8 million ends of them would take hours.
        assert!(began.elapsed() < std::time::Duration::from_secs(20));
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
