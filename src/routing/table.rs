//! The route table: from a request's head to a route, in time that grows with the path's length.
//!
//! Hosts and path segments form one tree: a host pattern leads to a root, a segment from a node to
//! a child. All nodes are in one flat array and all edges in one open-addressed hash table, so a
//! step is one probe whatever the number of routes, and a table of 10,000 routes is a handful of
//! allocations. A node has the routes that end there, the most specific first; only routes of the
//! same host and path are tried one by one.
//!
//! Precedence (Kubernetes Gateway API): host (exact, then longest suffix, then any); exact path,
//! then longest prefix; then a named method; then the number of header and query conditions; then
//! the order of the file. A route whose method or conditions fail leaves the request to the next
//! best.
//!
//! `matchit` was considered: it returns only the best path, and not the next best, which is needed
//! if a condition of the best route fails.

mod build;
mod candidate;
mod edges;
mod node;
#[cfg(test)]
mod tests;

use self::{
    build::Builder,
    candidate::Candidate,
    edges::{Edges, Way},
    node::{ANY_HOST, EXACT_HOSTS, HOST_SUFFIXES, NONE, Node, Place},
};
use super::matcher::RequestView;
use crate::config::schema::RouteMatch;

/// Most prefix routes remembered during the descent; deeper ones win, so the shallowest are dropped
/// first.
const PREFIXES: usize = 24;

/// Longest host name, in bytes (RFC 1035 section 2.3.4).
const LONGEST_HOST: usize = 253;

/// Index of routes. Built once per snapshot, read by all workers.
#[derive(Debug, Default)]
pub struct Table {
    nodes: Vec<Node>,
    edges: Edges,
    text: Vec<u8>,
    candidates: Vec<Candidate>,
    /// The root for requests of any host.
    any_host: Option<u32>,
    /// Whether any route has an exact host, or a host suffix.
    has_exact_hosts: bool,
    has_host_suffixes: bool,
}

impl Table {
    /// A table of `routes`; [`Table::find`] returns the index of a route.
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
            // Patterns are in lower case, so a host with a capital letter cannot have matched.
            None if request.host.bytes().any(|b| b.is_ascii_uppercase()) => {
                self.find_in_lower_case(request)
            }
            None => self.find_for_host(None, request.host, request),
        }
    }

    /// Separate, since the usual path does not need this buffer.
    #[cold]
    fn find_in_lower_case(&self, request: &RequestView<'_>) -> Option<u32> {
        let mut space = [0u8; 256];
        let host = request.host.as_bytes();
        // A longer text than any host name matches no host.
        let lower = space.get_mut(..host.len()).and_then(|lower| {
            lower.copy_from_slice(host);
            lower.make_ascii_lowercase();
            std::str::from_utf8(lower).ok()
        });
        let host = lower.unwrap_or(request.host);
        self.find_for_host(self.root(EXACT_HOSTS, host), host, request)
    }

    /// Tries the roots for `host`, which is in lower case, the most specific first.
    fn find_for_host(
        &self,
        exact: Option<Place>,
        host: &str,
        request: &RequestView<'_>,
    ) -> Option<u32> {
        // No pattern is longer, and every suffix of the name is hashed.
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
        // A text with a slash is no host, and its beginning must not match one.
        if length < host.len() { None } else { self.child(kind.node, way, host.as_bytes()) }
    }

    fn find_below(&self, root: Place, request: &RequestView<'_>) -> Option<u32> {
        let mut prefixes = Prefixes { met: [(0, 0); PREFIXES], len: 0 };
        // Only `/*` matches a target without a leading slash (`*` of OPTIONS).
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

    /// Follows the rest of `path` below `at`, literals before parameters, and returns an exact
    /// match; records the prefix routes on the way.
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
                    // Only here are there two ways to try.
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

/// Nodes with prefix routes found during the descent.
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
        // Sorted by depth; of equal depth the node found first, by a literal, stays last.
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
