//! Routes of one host and path, which are tried one by one.

use crate::{
    config::schema::RouteMatch,
    routing::matcher::{Condition, RequestView, hold_in},
};

/// A route that ends at a node.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) route: u32,
    /// Bits of standard methods; if this is 0 and `other_methods` empty, all methods are accepted.
    pub(super) methods: u16,
    pub(super) other_methods: Box<[Box<str>]>,
    pub(super) headers: Box<[Condition]>,
    pub(super) query: Box<[Condition]>,
    pub(super) claims: Box<[Condition]>,
}

impl Candidate {
    pub(super) fn new(route: u32, matches: &RouteMatch) -> Self {
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
            claims: matches.claims.iter().map(|(n, v)| Condition::new(n, v.as_slice())).collect(),
        }
    }

    pub(super) fn names_method(&self) -> bool {
        self.methods != 0 || !self.other_methods.is_empty()
    }

    pub(super) fn accepts(&self, request: &RequestView<'_>) -> bool {
        (!self.names_method()
            || self.methods & method_bit(request.method) != 0
            || self.other_methods.iter().any(|m| **m == *request.method))
            && self.headers.iter().all(|c| c.holds_in_header(request))
            && self.query.iter().all(|c| c.holds_in_query(request))
            && hold_in(&self.claims, request)
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
