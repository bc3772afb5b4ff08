//! What a client's token says, in the form in which routes, rules and keys read it.
//!
//! Texts, numbers and truth values are texts here, and a list of them is a list of texts. A member `b` of a claim `a` that is an
//! object is the claim `/a/b` (as in RFC 6901, without its escapes).
//!
//! Two players never have the same text here, nor in a header field. So a number is kept as it is written, since those beyond 64 bits
//! are rounded when they are read; and a text counts only if it arrives in a field as it is: not empty, without white space at its
//! ends, which HTTP removes, and without control characters. A claim with another text counts as absent, also a list with one.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The claim whose text is a list, divided by spaces (RFC 8693 section 4.2).
const SCOPE: &str = "scope";

/// Deepest object whose members are claims.
const DEEPEST: usize = 4;

/// The claims of a verified token.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Claims(Box<[Claim]>);

/// The members of an object, each as it is written.
type Members<'a> = BTreeMap<String, &'a RawValue>;

#[derive(Debug, PartialEq, Eq)]
struct Claim {
    name: Box<str>,
    values: Box<[Box<str>]>,
}

impl Claims {
    /// The claims of the payload of a token; `None` if it is no object in JSON.
    pub fn new(payload: &[u8]) -> Option<Self> {
        let members: Members<'_> = serde_json::from_slice(payload).ok()?;
        let mut all = Vec::with_capacity(members.len());
        for (name, value) in members {
            match (&*name, string(value)) {
                (SCOPE, Some(list)) => {
                    let values = list.split_ascii_whitespace().map(exact).collect();
                    all.extend(claim(SCOPE, values));
                }
                _ => put(&name, value, DEEPEST, &mut all),
            }
        }
        Some(Self(all.into()))
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

fn put(name: &str, value: &RawValue, depth: usize, all: &mut Vec<Claim>) {
    match kind(value) {
        b'{' if depth > 0 => {
            let slash = if name.starts_with('/') { "" } else { "/" };
            let members: Members<'_> = serde_json::from_str(value.get()).unwrap_or_default();
            for (member, value) in members {
                put(&format!("{slash}{name}/{member}"), value, depth - 1, all);
            }
        }
        b'[' => {
            let values: Vec<&RawValue> = serde_json::from_str(value.get()).unwrap_or_default();
            let values = values.into_iter().filter(|value| has_text(value));
            all.extend(claim(name, values.map(text).collect()));
        }
        _ if has_text(value) => all.extend(claim(name, text(value).map(|text| [text].into()))),
        _ => {}
    }
}

fn claim(name: &str, values: Option<Box<[Box<str>]>>) -> Option<Claim> {
    values.map(|values| Claim { name: name.into(), values })
}

/// The first byte of a `value`, which tells what it is.
fn kind(value: &RawValue) -> u8 {
    value.get().bytes().next().unwrap_or_default()
}

fn has_text(value: &RawValue) -> bool {
    !matches!(kind(value), b'{' | b'[' | b'n')
}

/// The text of a string, a number or a truth value, if it counts.
fn text(value: &RawValue) -> Option<Box<str>> {
    match kind(value) {
        b'"' => exact(&string(value)?),
        _ => Some(value.get().into()),
    }
}

fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// `text`, if it arrives in a header field as it is.
fn exact(text: &str) -> Option<Box<str>> {
    let is_exact = !text.is_empty() && text.trim() == text && !text.contains(char::is_control);
    is_exact.then(|| text.into())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn read(payload: &str) -> Claims {
        Claims::new(payload.as_bytes()).expect("an object")
    }

    #[test]
    fn a_scope_is_a_list_however_it_is_written() {
        let texts = |scope: Value| {
            let payload = serde_json::json!({ "scope": scope, "other": "play  read" });
            let claims = read(&payload.to_string());
            assert_eq!(claims.one("other"), Some("play  read"));
            claims.all("scope").iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for scope in [serde_json::json!("play read"), serde_json::json!(["play", "read"])] {
            assert_eq!(texts(scope), ["play", "read"]);
        }
        assert_eq!(texts(serde_json::json!(" play  ")), ["play"]);
        assert!(texts(serde_json::json!("")).is_empty());
    }

    /// Regression: the number of one player became that of another, since both were rounded to the same one.
    #[test]
    fn a_number_stays_as_it_is_written() {
        for number in [
            "0",
            "-0",
            "-9223372036854775809",
            "18446744073709551615",
            "18446744073709551616",
            "18446744073709551617",
            "9007199254740993.0",
            "1.0",
            "1e2",
        ] {
            let claims = read(&format!(r#"{{ "sub": {number} , "list": [ "ada", {number} ] }}"#));
            assert_eq!(claims.one("sub"), Some(number));
            assert_eq!(claims.all("list"), ["ada".into(), number.into()]);
        }
        assert_eq!(Claims::new(b"[]"), None);
    }

    /// Regression: a version took " ada" for "ada", since HTTP removes spaces at the ends of a field.
    #[test]
    fn a_text_that_a_field_would_change_names_nobody() {
        for text in
            ["", " ", " ada", "ada ", "ada\\t", "a\\nda", "\\u007f", "\\u00a0ada", "ada\\u0000"]
        {
            let claims = read(&format!(
                r#"{{ "sub": "{text}", "list": [ "{text}", "bob" ], "o": {{ "p": "{text}" }} }}"#
            ));
            // Otherwise a list with a second player would name the first one alone.
            for name in ["sub", "list", "/o/p"] {
                assert!(claims.all(name).is_empty(), "{text:?} in {name}");
            }
        }
        assert_eq!(read(r#"{ "sub": "Ada  Lovelace" }"#).one("sub"), Some("Ada  Lovelace"));
        assert!(read(r#"{ "scope": "play \u00a0read" }"#).all("scope").is_empty());
    }

    #[test]
    fn values_are_texts_and_members_have_a_path() {
        let payload = serde_json::json!({
            "sub": "ada", "level": 7, "vip": true, "none": null, "roles": [ "player", 2, { "x": 1 } ],
            "https://example.com/tenant": "acme", "realm": { "roles": [ "admin" ], "a": { "b": "c" } },
        });
        let claims = read(&payload.to_string());
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
