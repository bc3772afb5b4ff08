//! Small languages of smoke checks: texts with kept values, request lines, sources of kept values.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json_path::JsonPath;

use crate::config::{pattern::is_token_byte, units};

/// A text in which `${name}` stands for a kept value; `$${` stands for `${`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Template {
    /// Its parts, in order.
    pub pieces: Vec<Piece>,
}

/// A part of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Piece {
    /// As it is.
    Text(String),
    /// The kept value of this name.
    Kept(String),
}

impl Template {
    /// The names of the kept values in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Kept(name) => Some(&**name),
            Piece::Text(_) => None,
        })
    }

    /// Its text with `value` in the place of each kept value.
    pub fn filled(&self, mut value: impl FnMut(&str) -> String) -> String {
        let each = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Kept(name) => value(name),
        });
        each.collect()
    }
}

/// Whether `name` can be the name of a kept value.
pub fn is_variable(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=64).contains(&name.len()) && name.bytes().all(known)
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                plain.push_str(&rest[..at - 1]);
                plain.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            let inner = rest[at + 2..].split_once('}');
            let Some((name, after)) = inner.filter(|(name, _)| is_variable(name)) else {
                return Err(format!(
                    "`{text}` has a `${{` without a name of letters, digits and . _ - and a `}}` after it; write ${{NAME}}, or $${{ for the characters themselves"
                ));
            };
            plain.push_str(&rest[..at]);
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Kept(name.to_owned()));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self { pieces })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(&text.replace("${", "$${")),
            Piece::Kept(name) => write!(f, "${{{name}}}"),
        })
    }
}

/// Method, path and query of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLine {
    /// The method, in upper case.
    pub method: String,
    /// Path and query.
    pub target: Template,
}

impl FromStr for RequestLine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = |why: &str| {
            format!("`{text}` is not a request: {why}; write one such as POST /v1/login")
        };
        let (method, target) =
            text.split_once(' ').ok_or_else(|| fault("method and path are two words"))?;
        if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
            return Err(fault("its first word is not a method in upper case"));
        }
        if method == "CONNECT" {
            return Err(fault("CONNECT asks for a tunnel, which is not offered"));
        }
        let target: Template = target.parse()?;
        let sample = target.filled(|_| "x".to_owned());
        if !matches!(target.pieces.first(), Some(Piece::Text(text)) if text.starts_with('/')) {
            return Err(fault("its path does not begin with /"));
        }
        let is_plain =
            sample.bytes().all(|b| b.is_ascii_graphic() && !b"#\"<>\\^`{}|".contains(&b));
        if !is_plain || sample.parse::<http::uri::PathAndQuery>().is_err() {
            return Err(fault("its path has characters that must be written as %XX"));
        }
        Ok(Self { method: method.to_owned(), target })
    }
}

impl fmt::Display for RequestLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}

/// Where in an answer a value to keep is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// `json:PATH`: the only value in the body to which the path leads; a text, a number, or true or false.
    Json(JsonPath),
    /// `header:NAME`, in lower case.
    Header(String),
    /// `cookie:NAME`, which the answer sets.
    Cookie(String),
}

impl FromStr for Kept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_token = |name: &str| !name.is_empty() && name.bytes().all(is_token_byte);
        match text.split_once(':') {
            Some(("json", path)) => json_path(path).map(Self::Json),
            Some(("header", name)) if is_token(name) => Ok(Self::Header(name.to_ascii_lowercase())),
            Some(("cookie", name)) if is_token(name) => Ok(Self::Cookie(name.to_owned())),
            _ => Err(format!(
                "`{text}` names no part of an answer; write json:$.token, header:x-token or cookie:sid"
            )),
        }
    }
}

/// Parses a JSON path.
pub fn json_path(text: &str) -> Result<JsonPath, String> {
    JsonPath::parse(text).map_err(|error| {
        let at = error.position() + 1;
        format!("`{text}` is not a JSON path from character {at} on; write one such as $.token")
    })
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(path) => write!(f, "json:{path}"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

/// Reads and writes a type of this file as its text; its schema is a pattern.
macro_rules! as_text {
    ($type:ident, $expecting:literal, $description:literal, $pattern:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                units::text(d, $expecting)?.parse().map_err(de::Error::custom)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                concat!("Smoke", stringify!($type)).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "description": $description,
                    "pattern": $pattern
                })
            }
        }
    };
}

as_text!(
    Template,
    "a text",
    "A text; ${name} stands for a value that an earlier step kept.",
    "^([^$]|\\$[^{]|\\$\\$\\{|\\$\\{[A-Za-z0-9._-]{1,64}\\}|\\$$)*$"
);
as_text!(
    RequestLine,
    "a request such as POST /v1/login",
    "Method, path and query: POST /v1/login, GET /v1/rounds/${round}.",
    "^[A-Z-]+ /[!-~]*$"
);
as_text!(
    Kept,
    "json:$.token, header:x-token or cookie:sid",
    "A part of an answer: json:$.token, header:x-token, cookie:sid.",
    "^(json:\\$.*|header:[!-~]+|cookie:[!-~]+)$"
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_have_kept_values() {
        let read = |text: &str| text.parse::<Template>();
        let text = |text: &str| Piece::Text(text.to_owned());
        let kept = |name: &str| Piece::Kept(name.to_owned());
        for (written, pieces) in [
            ("", vec![]),
            ("a $ {b} $", vec![text("a $ {b} $")]),
            ("Bearer ${token}", vec![text("Bearer "), kept("token")]),
            ("${a}${b-1}.", vec![kept("a"), kept("b-1"), text(".")]),
            ("$${a} ${a}", vec![text("${a} "), kept("a")]),
        ] {
            let template = read(written).expect(written);
            assert_eq!(template.pieces, pieces, "{written}");
            assert_eq!(template.to_string(), written);
        }
        for bad in ["${", "${}", "a ${b", "${a b}", "${a${b}}"] {
            assert!(read(bad).expect_err(bad).contains("; write ${NAME}"), "{bad}");
        }
    }

    #[test]
    fn a_request_is_a_method_and_a_path() {
        let read = |text: &str| text.parse::<RequestLine>();
        for good in ["GET /", "POST /v1/rounds/${round}/settle?force=1", "M-SEARCH /*"] {
            assert_eq!(read(good).expect(good).to_string(), good);
        }
        for (bad, why) in [
            ("GET", "method and path are two words"),
            ("get /", "its first word is not a method in upper case"),
            (" /", "its first word is not a method in upper case"),
            ("CONNECT /", "CONNECT asks for a tunnel"),
            ("GET v1", "its path does not begin with /"),
            ("GET ${path}", "its path does not begin with /"),
            ("GET http://a/", "its path does not begin with /"),
            ("GET /a b", "must be written as %XX"),
            ("GET /a#b", "must be written as %XX"),
            ("GET /ä", "must be written as %XX"),
        ] {
            assert!(read(bad).expect_err(bad).contains(why), "{bad}");
        }
        assert!(read("GET /${").expect_err("open").contains("write ${NAME}"));
    }

    #[test]
    fn values_are_kept_from_three_places() {
        let read = |text: &str| text.parse::<Kept>();
        for good in ["json:$.a[0]['b']", "header:x-token", "cookie:sid"] {
            assert!(read(good).is_ok(), "{good}");
        }
        assert_eq!(read("header:X-Token"), Ok(Kept::Header("x-token".to_owned())));
        for bad in ["token", "json", "header:", "header:a b", "cookie:", "body:x"] {
            assert!(read(bad).expect_err(bad).contains("names no part of an answer"), "{bad}");
        }
        assert!(
            read("json:token").expect_err("no $").contains("is not a JSON path from character 1")
        );
    }

    proptest! {
        #[test]
        fn what_was_read_is_written_again(text in "(\\$|\\{|\\}|a|b){0,12}") {
            if let Ok(template) = text.parse::<Template>() {
                prop_assert_eq!(&template.to_string().parse::<Template>(), &Ok(template));
            }
        }
    }
}
