//! Checks the conditions on requests that routes and rules share.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::Finding;
use crate::config::{
    pattern::{Segment, is_token_byte},
    problem::FieldPath,
    schema::Route,
    units::OneOrMany,
};

/// Conditions by name; one of the values must match.
pub(super) type Conditions = BTreeMap<String, OneOrMany<String>>;

/// The kind of condition, since each has its own names and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Headers,
    Cookies,
    Query,
    Params,
}

impl Kind {
    fn name_fault(self, name: &str) -> Option<String> {
        let is_token = !name.is_empty() && name.bytes().all(is_token_byte);
        match self {
            Self::Headers if !is_token => {
                Some(format!("`{name}` is not a header's name; write letters, digits and -"))
            }
            Self::Cookies if !is_token => {
                Some(format!("`{name}` is not a cookie's name; write letters, digits, - and _"))
            }
            Self::Query if name.is_empty() => {
                Some("an empty name; write the parameter's name".to_owned())
            }
            _ => None,
        }
    }

    /// Why no request can have `value`, if so.
    fn value_fault(self, value: &str) -> Option<&'static str> {
        let ends = |c: &[char]| value.starts_with(c) || value.ends_with(c);
        match self {
            Self::Headers if value.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) => {
                Some("a header has no control characters; leave them out")
            }
            Self::Headers if ends(&[' ', '\t']) => {
                Some("a header's value has no white space around it; leave it out")
            }
            Self::Cookies if value.contains([';', ' ', ',']) || !value.is_ascii() => {
                Some("a cookie's value has no white space, comma or semicolon; leave it out")
            }
            Self::Params if value.is_empty() || value.contains('/') => {
                Some("a path parameter is one segment; write a text without /")
            }
            _ => None,
        }
    }
}

/// Why nothing of this kind can have `value`, if so.
pub(super) fn value_fault(kind: Kind, value: &str) -> Option<&'static str> {
    kind.value_fault(value)
}

/// Checks the names and values of `conditions`.
pub(super) fn check(
    kind: Kind,
    conditions: &Conditions,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    let mut seen = BTreeSet::new();
    for (name, values) in conditions {
        let path = path.key(name);
        if let Some(message) = kind.name_fault(name) {
            found.push(Finding::of_name(path.clone(), message));
        }
        if kind == Kind::Headers && !seen.insert(name.to_ascii_lowercase()) {
            let message = format!("`{name}` twice, since case does not count; write one list");
            found.push(Finding::of_name(path.clone(), message));
        }
        if values.as_slice().is_empty() {
            found.push(Finding::new(path.clone(), "an empty list; write the values that match"));
        }
        let mut seen = HashSet::new();
        for (index, value) in values.as_slice().iter().enumerate() {
            let path = match values {
                OneOrMany::One(_) => path.clone(),
                OneOrMany::Many(_) => path.index(index),
            };
            if let Some(message) = kind.value_fault(value) {
                found.push(Finding::new(
                    path.clone(),
                    format!("`{value}` never matches; {message}"),
                ));
            }
            if !seen.insert(value) {
                found.push(Finding::new(path, format!("`{value}` twice; write it once")));
            }
        }
    }
}

/// A form that is the same for equal conditions: names of headers in lower case, values sorted.
pub(super) fn canonical(kind: Kind, conditions: &Conditions) -> BTreeMap<String, BTreeSet<String>> {
    let name = |name: &String| match kind {
        Kind::Headers => name.to_ascii_lowercase(),
        _ => name.clone(),
    };
    let values = |values: &OneOrMany<String>| values.as_slice().iter().cloned().collect();
    conditions.iter().map(|(n, v)| (name(n), values(v))).collect()
}

/// Whether the path of `route` has the parameter `name`.
pub(super) fn has_param(route: &Route, name: &str) -> bool {
    let segments = route.matches.path.iter().flat_map(|path| &path.segments);
    segments.into_iter().any(|segment| matches!(segment, Segment::Param(param) if param == name))
}
