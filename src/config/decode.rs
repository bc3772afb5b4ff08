//! Decodes the tree into types: serde reads a [`Node`], and its errors are translated into messages
//! for people who write configuration files.

use std::fmt;

use serde::{
    Deserializer,
    de::{
        self, Expected, IntoDeserializer, Unexpected,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::Value;

use super::{
    node::{Node, Tree},
    problem::{FieldPath, Step, closest},
    units::as_written,
};

/// Why a value was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// An unknown field; holds the known ones.
    UnknownField(&'static [&'static str]),
    /// A required field is missing.
    MissingField(&'static str),
    /// Another kind of value is expected.
    Kind(String),
    /// The right kind, but too large or too small.
    Range(String),
    /// A text that is not one of these.
    Choice(&'static [&'static str]),
    /// The message of the value's type.
    Other(String),
}

impl Fault {
    /// The message for `node`, a field called `name`: what is wrong; what would be right.
    pub(super) fn message(&self, name: &str, node: Option<&Node>) -> String {
        let written = match node.map(|n| &n.tree) {
            Some(Tree::Scalar { written, .. }) => short(written),
            _ => String::new(),
        };
        match self {
            Self::UnknownField(known) => {
                let close = closest(name, known.iter().copied())
                    .map(|name| format!("did you mean `{name}`? "))
                    .unwrap_or_default();
                format!(
                    "unknown field `{}`; {close}known fields: {}",
                    short(name),
                    known.join(", ")
                )
            }
            Self::MissingField(name) => format!("missing; add `{}`", example(name)),
            Self::Range(wanted) => {
                format!("`{written}` is out of range; write {}", plain(wanted, name))
            }
            Self::Choice(known) => {
                let close = closest(&written, known.iter().copied())
                    .map(|name| format!("did you mean `{name}`? "))
                    .unwrap_or_default();
                format!("`{written}` is not known; {close}write one of {}", known.join(", "))
            }
            Self::Other(message) => message.clone(),
            Self::Kind(wanted) => {
                let wanted = plain(wanted, name);
                let found = match node.map(|n| &n.tree) {
                    Some(Tree::List(_)) => "a list".to_owned(),
                    Some(Tree::Map(_)) => "a map".to_owned(),
                    Some(Tree::Scalar { value: Value::Null, .. }) | None => {
                        return format!("empty; write {wanted}, or leave the field out");
                    }
                    Some(Tree::Scalar { value: Value::String(_), .. }) => {
                        format!("the text `{written}`")
                    }
                    Some(Tree::Scalar { value, .. }) => {
                        let kind = if value.is_boolean() { "truth value" } else { "number" };
                        if wanted.starts_with("a text") {
                            return format!(
                                "`{written}` is a {kind}, not a text; put it in quotes: \"{written}\""
                            );
                        }
                        format!("the {kind} `{written}`")
                    }
                };
                format!("{found} stands here; write {wanted}")
            }
        }
    }
}

/// What serde expects for the field `name`, in plain words.
fn plain<'a>(wanted: &'a str, name: &str) -> &'a str {
    match wanted {
        "u16" if name == "workers" => "a whole number from 1 to 1024",
        "u16" if name == "header_count" => "a whole number from 1 to 256",
        "a string" | "string" | "path string" | "a formatted path string" => "a text",
        "a sequence" => "a list",
        "u32" if name == "minimum_failures" => "a whole number from 1 to 4294967295",
        "u32" => "a whole number from 0 to 4294967295",
        "a boolean" => "true or false",
        "f64" => "a number",
        "u64" => "a whole number of 1 or more",
        _ => wanted,
    }
}

/// An example of a required field.
fn example(name: &str) -> String {
    let value = match name {
        "listen" => "[ { address: 127.0.0.1:8080 } ]",
        "services" => "{ NAME: { baseline: …, versions: … } }",
        "routes" => "[ { service: NAME } ]",
        "versions" => "{ NAME: { endpoints: [ 127.0.0.1:9001 ] } }",
        "endpoints" => "[ 127.0.0.1:9001 ]",
        "address" => "127.0.0.1:8080",
        "from" => "[ 10.0.0.0/8 ]",
        "match" => "{ headers: { x-tester: yes } }",
        "file" | "path" | "cert" | "key" | "ca" => "FILE",
        "certificates" => "[ { cert: edge.pem, key: edge.key } ]",
        "weight" => "5%",
        "max" | "requests" => "100",
        "per" => "1s",
        "url" => "http://HOST:PORT/PATH",
        "zone" => "Europe/Malta",
        "until" => "2026-12-01T03:10:00Z",
        "request" => "POST /v1/login",
        "steps" => "[ { request: GET /healthz } ]",
        "matches" => "^application/json",
        "socket" => "/run/tidegate/takeover.sock",
        _ => "NAME",
    };
    format!("{name}: {value}")
}

/// The beginning of `text`, long enough to recognise it. The part after the host of a URL may be a
/// secret, and messages go to the log.
fn short(text: &str) -> String {
    if let Some((scheme, rest)) = text.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        return format!("{scheme}://{host}/…");
    }
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message("", None))
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Other(message.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::Kind(wanted.to_string())
    }

    fn invalid_value(_: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::Range(wanted.to_string())
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::Choice(known)
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self::UnknownField(known)
    }

    fn missing_field(name: &'static str) -> Self {
        Self::MissingField(name)
    }
}

/// Decodes a `T`; the error is the first rejected value and the reason. Indices in the path are
/// those of `node`.
pub(super) fn decode<'de, T: de::Deserialize<'de>>(
    node: &'de Node,
) -> Result<T, (FieldPath, Fault)> {
    serde_path_to_error::deserialize(node).map_err(|e| {
        use serde_path_to_error::Segment;
        let steps = e.path().iter().filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        });
        (FieldPath { steps: steps.collect() }, e.into_inner())
    })
}

impl<'de> IntoDeserializer<'de, Fault> for &'de Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.tree {
            Tree::Scalar { value: Value::String(text), .. } => visitor.visit_borrowed_str(text),
            Tree::Scalar { value: Value::Bool(value), .. } => visitor.visit_bool(*value),
            Tree::Scalar { value: Value::Number(number), .. } => {
                if let Some(number) = number.as_u64() {
                    visitor.visit_u64(number)
                } else if let Some(number) = number.as_i64() {
                    visitor.visit_i64(number)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            Tree::Scalar { .. } => visitor.visit_unit(),
            Tree::List(items) => {
                let mut items = SeqDeserializer::new(items.iter().map(|(_, node)| node));
                let value = visitor.visit_seq(&mut items)?;
                items.end().map(|()| value)
            }
            Tree::Map(fields) => {
                let mut fields =
                    MapDeserializer::new(fields.iter().map(|(name, f)| (name.as_str(), &f.node)));
                let value = visitor.visit_map(&mut fields)?;
                fields.end().map(|()| value)
            }
        }
    }

    fn deserialize_option<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.tree {
            Tree::Scalar { value: Value::Null, .. } => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_enum<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.tree {
            Tree::Scalar { value: Value::String(text), .. } => {
                visitor.visit_enum(text.as_str().into_deserializer())
            }
            // In quotes it would be none of them either.
            Tree::Scalar { value: Value::Number(_), .. } => Err(Fault::Choice(known)),
            _ => Err(Fault::Kind("a text".to_owned())),
        }
    }

    /// Unlike serde, does not accept a list of values in the place of a map of fields.
    fn deserialize_struct<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.tree {
            Tree::Map(_) => self.deserialize_any(visitor),
            _ => Err(Fault::Kind("a map of fields".to_owned())),
        }
    }

    fn deserialize_newtype_struct<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.tree {
            Tree::Scalar { written, .. } if name == as_written::NAME => {
                visitor.visit_newtype_struct(written.as_str().into_deserializer())
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::{super::schema::Labels, *};
    use crate::config::yaml::parse;

    /// The number was to be put in quotes, and was no better there.
    #[test]
    fn a_number_in_the_place_of_a_choice_is_told_the_choices() {
        let node = parse("[ connect, 503 ]", &mut Vec::new()).unwrap();
        let (path, fault) = decode::<Vec<super::super::schema::RetryOn>>(&node).unwrap_err();
        let message = fault.message("on", node.child(&path));
        assert_eq!(message, "`503` is not known; write one of connect, reset, timeout, 5xx");
    }

    #[test]
    fn a_missing_number_has_a_number_as_example() {
        assert_eq!(Fault::MissingField("max").message("max", None), "missing; add `max: 100`");
    }

    #[test]
    fn labels_keep_what_was_written() {
        let text = "{ semver: 4.10, build: 0123, contract: true, calc: ~ }";
        let node = parse(text, &mut Vec::new()).unwrap();
        let labels: Labels = decode(&node).unwrap();
        assert_eq!(labels.semver.as_deref(), Some("4.10"));
        assert_eq!(labels.build.as_deref(), Some("0123"));
        assert_eq!(labels.contract.as_deref(), Some("true"));
        assert_eq!(labels.calc, None);
    }
}
