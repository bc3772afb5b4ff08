//! Small languages inside the file, parsed where they are read: paths, hosts, endpoints, cohort
//! keys.

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Form of the names of services, versions and tokens.
pub(super) const NAME: &str = "^[A-Za-z0-9._-]{1,64}$";

/// A path to match: `/exact`, `/prefix/*`, `/rounds/{id}/settle`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern {
    /// The parts between slashes. `/` alone has one empty literal; a trailing slash adds an empty
    /// one.
    pub segments: Vec<Segment>,
    /// Whether it ended in `/*`: everything below matches, too, and the prefix itself without the
    /// slash.
    pub prefix: bool,
}

/// A part of a [`PathPattern`] between two slashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Equal byte for byte.
    Literal(String),
    /// `{name}`: any one non-empty segment.
    Param(String),
}

/// A host to match: `api.example.com`, or `*.example.com` for every name below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// The whole name, lower case, without a port.
    Exact(String),
    /// What follows `*.`, lower case.
    Suffix(String),
}

/// Address of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointAddress {
    /// Address or name.
    pub host: EndpointHost,
    /// TCP port.
    pub port: u16,
}

/// Host of an [`EndpointAddress`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointHost {
    /// A literal address.
    Address(IpAddr),
    /// A name to resolve, lower case; with a trailing dot if it was written with one, which keeps
    /// resolvers from trying search domains.
    Name(String),
}

/// Source of a player's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// `header:NAME`, lower case.
    Header(String),
    /// `cookie:NAME`.
    Cookie(String),
    /// `query:NAME`.
    Query(String),
    /// `path:NAME`, a parameter of the route's path.
    Path(String),
    /// `claim:NAME`, a claim of the client's token.
    Claim(String),
    /// `client-ip`.
    ClientIp,
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = |why: &str| {
            format!(
                "`{text}` is not a path: {why}; write /exact, /prefix/* or /rounds/{{id}}/settle"
            )
        };
        let rest = text.strip_prefix('/').ok_or_else(|| fault("it does not begin with /"))?;
        let (rest, prefix) = match rest.strip_suffix('*') {
            Some("") => return Ok(Self { segments: Vec::new(), prefix: true }),
            Some(head) => (
                head.strip_suffix('/').ok_or_else(|| fault("* stands alone in the last place"))?,
                true,
            ),
            None => (rest, false),
        };
        let mut segments = Vec::new();
        let mut names = Vec::new();
        for part in rest.split('/') {
            if let Some(name) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
                if name.is_empty()
                    || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
                {
                    return Err(fault("a parameter's name has letters, digits, _ and -"));
                }
                if names.contains(&name) {
                    return Err(fault("a parameter's name is used once"));
                }
                names.push(name);
                segments.push(Segment::Param(name.to_owned()));
            } else if part.contains(['*', '{', '}', '?', '#'])
                || !part.bytes().all(|b| b.is_ascii_graphic())
            {
                return Err(fault("a segment holds visible ASCII without * { } ? #"));
            } else {
                segments.push(Segment::Literal(part.to_owned()));
            }
        }
        Ok(Self { segments, prefix })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Param(name) => write!(f, "/{{{name}}}")?,
            }
        }
        if self.prefix { f.write_str("/*") } else { Ok(()) }
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, suffix) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        if !is_host_name(name) {
            return Err(format!(
                "`{text}` is not a host; write a name without a port, such as api.example.com or *.example.com"
            ));
        }
        let name = relative(name).to_ascii_lowercase();
        Ok(if suffix { Self::Suffix(name) } else { Self::Exact(name) })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(name) => write!(f, "*.{name}"),
        }
    }
}

impl FromStr for EndpointAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || {
            format!(
                "`{text}` is not an endpoint; write address and port, such as 127.0.0.1:9001, [::1]:9001 or game.internal:9001"
            )
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(fault)?;
        let port: u16 = port.parse().ok().filter(|p| *p > 0).ok_or_else(fault)?;
        let host = if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            EndpointHost::Address(IpAddr::V6(inner.parse().map_err(|_| fault())?))
        } else if host.contains(':') {
            return Err(fault());
        } else {
            host.parse().map_err(|_| fault())?
        };
        Ok(Self { host, port })
    }
}

impl FromStr for EndpointHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            Ok(Self::Address(address))
        } else if is_host_name(text) && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            Ok(Self::Name(text.to_ascii_lowercase()))
        } else {
            Err(format!(
                "`{text}` is not a host; write a name or an address, such as game.internal"
            ))
        }
    }
}

impl fmt::Display for EndpointHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            EndpointHost::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            EndpointHost::Address(address) => write!(f, "{address}:{}", self.port),
            EndpointHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl FromStr for KeySource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || {
            format!(
                "`{text}` names no part of a request; write header:NAME, cookie:NAME, query:NAME, path:NAME, claim:NAME or client-ip"
            )
        };
        if text == "client-ip" {
            return Ok(Self::ClientIp);
        }
        let (kind, name) = text.split_once(':').ok_or_else(fault)?;
        let is_claim = kind == "claim";
        if name.is_empty()
            || !name.bytes().all(|b| is_token_byte(b) || is_claim && is_claim_byte(b))
        {
            return Err(fault());
        }
        match kind {
            "claim" => Ok(Self::Claim(name.to_owned())),
            "header" => Ok(Self::Header(name.to_ascii_lowercase())),
            "cookie" => Ok(Self::Cookie(name.to_owned())),
            "query" => Ok(Self::Query(name.to_owned())),
            "path" => Ok(Self::Path(name.to_owned())),
            _ => Err(fault()),
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Path(name) => write!(f, "path:{name}"),
            Self::Claim(name) => write!(f, "claim:{name}"),
            Self::ClientIp => f.write_str("client-ip"),
        }
    }
}

/// Whether `byte` may stand in a token (RFC 9110 section 5.6.2).
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether `byte` may stand in the name of a claim, beside the bytes of a token: names may be URLs, and `/a/b` is the member `b` of the
/// claim `a`.
pub fn is_claim_byte(byte: u8) -> bool {
    byte == b'/' || byte == b':' || is_token_byte(byte)
}

/// `name` without a trailing dot, as in certificates.
pub fn relative(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether `text` has letters, digits, hyphens and underscores between dots, without empty labels;
/// a trailing dot is allowed.
fn is_host_name(text: &str) -> bool {
    let text = relative(text);
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// Text forms through serde, with the pattern's own error; their schema is a regular expression
/// that an editor can apply, a little wider than the parser.
macro_rules! as_text {
    ($($name:ident: $description:literal, $regex:literal;)*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $description, "pattern": $regex })
            }
        }
    )*};
}

as_text! {
    PathPattern: "A path: /exact, /prefix/* or /rounds/{id}/settle.",
        r#"^/(\*|([!"$-)+-.0->@-z|~]*|\{[A-Za-z0-9_-]+\})(/([!"$-)+-.0->@-z|~]*|\{[A-Za-z0-9_-]+\}))*(/\*)?)$"#;
    HostPattern: "A host name without a port, or *. and a name: api.example.com, *.example.com.",
        r"^(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?$";
    EndpointAddress: "Address or name, and port: 127.0.0.1:9001, [::1]:9001, game.internal:9001.",
        r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5}$";
    EndpointHost: "A name or an address: game.internal, 127.0.0.1, ::1.",
        r"^[0-9A-Fa-f:.]+$|^[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?$";
    KeySource: "Where a player's key is found: header:NAME, cookie:NAME, query:NAME, path:NAME, claim:NAME or client-ip.",
        r"^(client-ip|(header|cookie|query|path):[!#$%&'*+.^_`|~0-9A-Za-z-]+|claim:[!#$%&'*+./:^_`|~0-9A-Za-z-]+)$";
}
