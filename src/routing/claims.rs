//! What a client's token says, in the form in which routes, rules and keys read it.
//!
//! Texts, numbers and truth values are texts here, and a list of them is a list of texts. A member `b` of a claim `a` that is an
//! object is the claim `/a/b` (as in RFC 6901, without its escapes).

use serde_json::{Map, Value};

/// The claim whose text is a list, divided by spaces (RFC 8693 section 4.2).
const SCOPE: &str = "scope";

/// Deepest object whose members are claims.
const DEEPEST: usize = 4;

/// The claims of a verified token.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Claims(Box<[Claim]>);

#[derive(Debug, PartialEq, Eq)]
struct Claim {
    name: Box<str>,
    values: Box<[Box<str>]>,
}

impl Claims {
    /// The claims of the payload of a token.
    pub fn new(payload: &Map<String, Value>) -> Self {
        let mut all = Vec::with_capacity(payload.len());
        for (name, value) in payload {
            match (name.as_str(), value) {
                (SCOPE, Value::String(list)) => {
                    let values = list.split_ascii_whitespace().map(Box::from).collect();
                    all.push(Claim { name: SCOPE.into(), values });
                }
                _ => put(name, value, DEEPEST, &mut all),
            }
        }
        Self(all.into())
    }

    /// The values of the claim `name`; none if it is absent.
    pub fn all(&self, name: &str) -> &[Box<str>] {
        self.0.iter().find(|claim| *claim.name == *name).map_or(&[], |claim| &claim.values)
    }

    /// The value of the claim `name`, if it is one.
    pub fn one(&self, name: &str) -> Option<&str> {
        match self.all(name) {
            [value] => Some(value),
            _ => None,
        }
    }

    /// Bytes that they take, about.
    pub fn bytes(&self) -> usize {
        let of = |values: &[Box<str>]| values.iter().map(|value| value.len() + 16).sum::<usize>();
        self.0.iter().map(|claim| claim.name.len() + 32 + of(&claim.values)).sum()
    }
}

fn put(name: &str, value: &Value, depth: usize, all: &mut Vec<Claim>) {
    match value {
        Value::Object(members) if depth > 0 => {
            let slash = if name.starts_with('/') { "" } else { "/" };
            for (member, value) in members {
                put(&format!("{slash}{name}/{member}"), value, depth - 1, all);
            }
        }
        Value::Array(values) => {
            let values = values.iter().filter_map(text).collect();
            all.push(Claim { name: name.into(), values });
        }
        value => {
            let values = text(value).map(|text| Box::from([text]));
            all.extend(values.map(|values| Claim { name: name.into(), values }));
        }
    }
}

fn text(value: &Value) -> Option<Box<str>> {
    match value {
        Value::String(text) => Some(text.as_str().into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Bool(truth) => Some(if *truth { "true" } else { "false" }.into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_a_list_however_it_is_written() {
        let texts = |scope: Value| {
            let payload = serde_json::json!({ "scope": scope, "other": "play  read" });
            let claims = Claims::new(payload.as_object().expect("an object"));
            assert_eq!(claims.one("other"), Some("play  read"));
            claims.all("scope").iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for scope in [serde_json::json!("play read"), serde_json::json!(["play", "read"])] {
            assert_eq!(texts(scope), ["play", "read"]);
        }
        assert_eq!(texts(serde_json::json!(" play  ")), ["play"]);
        assert!(texts(serde_json::json!("")).is_empty());
    }

    #[test]
    fn values_are_texts_and_members_have_a_path() {
        let payload = serde_json::json!({
            "sub": "ada", "level": 7, "vip": true, "none": null, "roles": [ "player", 2, { "x": 1 } ],
            "https://example.com/tenant": "acme", "realm": { "roles": [ "admin" ], "a": { "b": "c" } },
        });
        let claims = Claims::new(payload.as_object().expect("an object"));
        for (name, value) in [
            ("sub", Some("ada")),
            ("level", Some("7")),
            ("vip", Some("true")),
            ("none", None),
            ("roles", None),
            ("https://example.com/tenant", Some("acme")),
            ("/realm/roles", Some("admin")),
            ("/realm/a/b", Some("c")),
            ("realm", None),
            ("/sub", None),
        ] {
            assert_eq!(claims.one(name), value, "{name}");
        }
        assert_eq!(claims.all("roles"), ["player".into(), "2".into()]);
    }
}
