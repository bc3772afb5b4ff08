//! Conditions on a request's head, and the view of the head that they read.

use std::net::IpAddr;

use httparse::Header;
use ipnet::IpNet;

use super::claims::Claims;
use crate::config::{pattern::KeySource, schema::RuleMatch};

/// The parts of a request that routing reads. Borrowed from the connection's buffer; nothing is
/// copied.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// The method as sent; methods are case-sensitive (RFC 9110 section 9.1).
    pub method: &'a str,
    /// The host without its port, as sent; compared case-insensitively.
    pub host: &'a str,
    /// The path of the target, beginning with `/`, without the query.
    pub path: &'a str,
    /// The query without its `?`; empty if there is none.
    pub query: &'a str,
    /// Header fields in the order sent.
    pub headers: &'a [Header<'a>],
    /// The client's address.
    pub client: IpAddr,
    /// The client's address as text.
    pub client_text: &'a [u8],
    /// What the client's token says, if the route asks for one.
    pub claims: Option<&'a Claims>,
}

/// A byte of a field name as programs read it that turn all bytes which are neither letters nor digits into one, as CGI
/// does.
pub fn as_read(byte: u8) -> u8 {
    match byte.is_ascii_alphanumeric() {
        true => byte.to_ascii_lowercase(),
        false => b'-',
    }
}

/// The value of the first of `headers` called `name` (lower case).
pub fn header<'b>(headers: &[Header<'b>], name: &str) -> Option<&'b [u8]> {
    let is_it = |h: &&Header<'_>| h.name.len() == name.len() && h.name.eq_ignore_ascii_case(name);
    headers.iter().find(is_it).map(|h| h.value)
}

impl<'a> RequestView<'a> {
    /// The value of the first field called `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        header(self.headers, name)
    }

    /// The value of the cookie `name` (RFC 6265 section 4.2), without quotes around it: some
    /// clients add them, and some remove them.
    pub fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        self.headers
            .iter()
            .filter(|h| h.name.len() == 6 && h.name.eq_ignore_ascii_case("cookie"))
            .find_map(|h| cookie_in(h.value, name.as_bytes()))
    }

    /// The value of the query parameter `name`, as sent (percent-encoding kept).
    pub fn query_param(&self, name: &str) -> Option<&'a str> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    }

    /// Whether there is more than one value at `source`, so that somebody else may read another one than the first. Names
    /// of header fields are compared as programs compare them that cannot tell bytes which are neither letters nor digits;
    /// those of cookies as programs do that trim them, or end a cookie at a comma.
    pub fn is_doubled(&self, source: &KeySource) -> bool {
        let is_called =
            |field: &str, name: &str| field.bytes().map(as_read).eq(name.bytes().map(as_read));
        let times = match source {
            KeySource::Header(name) => {
                self.headers.iter().filter(|field| is_called(field.name, name)).count()
            }
            KeySource::Cookie(name) => {
                let cookies = self.headers.iter().filter(|field| is_called(field.name, "cookie"));
                let ends = |byte: &u8| matches!(byte, b';' | b',');
                let pairs = cookies.flat_map(|field| field.value.split(ends));
                let is_it = |pair: &&[u8]| {
                    let end = memchr::memchr(b'=', pair);
                    end.is_some_and(|end| pair[..end].trim_ascii() == name.as_bytes())
                };
                pairs.filter(is_it).count()
            }
            KeySource::Query(name) => {
                let names = self.query.split('&').map(|pair| pair.split('=').next());
                names.filter(|found| *found == Some(&**name)).count()
            }
            KeySource::Path(_) | KeySource::Claim(_) | KeySource::ClientIp => 1,
        };
        times > 1
    }

    /// The value of the claim `name`, if it is there and is one value.
    pub fn claim(&self, name: &str) -> Option<&'a [u8]> {
        self.claims?.one(name).map(str::as_bytes)
    }

    /// The path's segment `index`, counted from 0.
    pub fn segment(&self, index: usize) -> Option<&'a str> {
        self.path.strip_prefix('/')?.split('/').nth(index)
    }
}

fn cookie_in<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = field;
    loop {
        while let [b' ' | b'\t' | b';', tail @ ..] = rest {
            rest = tail;
        }
        let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
        let pair = &rest[..end];
        if pair.len() > name.len() && pair[name.len()] == b'=' && pair.starts_with(name) {
            return Some(unquoted(pair[name.len() + 1..].trim_ascii_end()));
        }
        if end == rest.len() {
            return None;
        }
        rest = &rest[end + 1..];
    }
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inside @ .., b'"'] => inside,
        value => value,
    }
}

/// A named value that must equal one of a list.
#[derive(Debug, Clone)]
pub struct Condition {
    /// In lower case for header fields, otherwise as written.
    name: Box<str>,
    values: Box<[Box<str>]>,
}

impl Condition {
    /// A condition on a header field, a query parameter, a cookie or a path parameter.
    pub fn new(name: &str, values: &[String]) -> Self {
        Self { name: name.into(), values: values.iter().map(|v| v.as_str().into()).collect() }
    }

    /// A condition on a cookie; the configured values may be in quotes.
    pub fn on_cookie(name: &str, values: &[String]) -> Self {
        let inside = |v: &String| v.strip_prefix('"')?.strip_suffix('"').map(str::to_owned);
        let values: Vec<String> = values.iter().map(|v| inside(v).unwrap_or(v.clone())).collect();
        Self::new(name, &values)
    }

    /// A condition on a header field.
    pub fn on_header(name: &str, values: &[String]) -> Self {
        Self::new(&name.to_ascii_lowercase(), values)
    }

    /// Whether a field of that name has one of the values.
    pub fn holds_in_header(&self, request: &RequestView<'_>) -> bool {
        self.accepts(request.header(&self.name))
    }

    /// Whether the query has a parameter of that name with one of the values.
    pub fn holds_in_query(&self, request: &RequestView<'_>) -> bool {
        self.accepts(request.query_param(&self.name).map(str::as_bytes))
    }

    /// Whether the client's token has a claim of that name with one of the values, or a list with one of them.
    pub fn holds_in_claims(&self, claims: &Claims) -> bool {
        claims.all(&self.name).iter().any(|found| self.values.contains(found))
    }

    fn accepts(&self, found: Option<&[u8]>) -> bool {
        found.is_some_and(|found| self.values.iter().any(|v| v.as_bytes() == found))
    }
}

/// Whether the client's token has the claims of all `conditions`.
pub(super) fn hold_in(conditions: &[Condition], request: &RequestView<'_>) -> bool {
    conditions.is_empty()
        || request.claims.is_some_and(|claims| conditions.iter().all(|c| c.holds_in_claims(claims)))
}

/// Parameters of a route's path: name and segment number.
pub type Params = [(Box<str>, u16)];

/// Sends the requests that match to one version, ahead of the split.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Index of the version in its service.
    pub version: u16,
    headers: Box<[Condition]>,
    cookies: Box<[Condition]>,
    query: Box<[Condition]>,
    params: Box<[Condition]>,
    claims: Box<[Condition]>,
    clients: Box<[IpNet]>,
    players: std::collections::HashSet<Box<[u8]>>,
}

impl Rule {
    /// Compiles the conditions of the file.
    pub fn new(when: &RuleMatch, version: u16) -> Self {
        let conditions = |map: &std::collections::BTreeMap<String, _>| -> Box<[Condition]> {
            map.iter()
                .map(|(name, values): (_, &crate::config::units::OneOrMany<String>)| {
                    Condition::new(name, values.as_slice())
                })
                .collect()
        };
        Self {
            version,
            headers: when
                .headers
                .iter()
                .map(|(name, values)| Condition::on_header(name, values.as_slice()))
                .collect(),
            cookies: (when.cookies.iter())
                .map(|(name, values)| Condition::on_cookie(name, values.as_slice()))
                .collect(),
            query: conditions(&when.query),
            params: conditions(&when.params),
            claims: conditions(&when.claims),
            clients: when.clients.clone().into(),
            players: when.players.iter().map(|p| p.as_bytes().into()).collect(),
        }
    }

    /// Whether all conditions hold for a request of a route with `params` and a player with `key`.
    pub fn holds(&self, request: &RequestView<'_>, params: &Params, key: &[u8]) -> bool {
        let param = |c: &Condition| {
            let found = params.iter().find(|(name, _)| *name == c.name);
            c.accepts(
                found.and_then(|(_, at)| request.segment(usize::from(*at))).map(str::as_bytes),
            )
        };
        self.headers.iter().all(|c| c.holds_in_header(request))
            && self.cookies.iter().all(|c| c.accepts(request.cookie(&c.name)))
            && self.query.iter().all(|c| c.holds_in_query(request))
            && self.params.iter().all(param)
            && hold_in(&self.claims, request)
            && (self.clients.is_empty() || self.clients.iter().any(|n| n.contains(&request.client)))
            && (self.players.is_empty() || self.players.contains(key))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use httparse::Header;

    use super::*;

    fn cookie<'a>(field: &'a str, name: &str) -> Option<&'a str> {
        cookie_in(field.as_bytes(), name.as_bytes()).and_then(|v| std::str::from_utf8(v).ok())
    }

    #[test]
    fn finds_a_cookie_among_others() {
        assert_eq!(cookie("uid=7", "uid"), Some("7"));
        assert_eq!(cookie("a=1; uid=7; b=2", "uid"), Some("7"));
        assert_eq!(cookie("xuid=1;uid=7", "uid"), Some("7"));
        assert_eq!(cookie("uid=", "uid"), Some(""));
        assert_eq!(cookie("uid=a=b ; x=1", "uid"), Some("a=b"));
        assert_eq!(cookie("uidx=1; a=uid=7", "uid"), None);
        assert_eq!(cookie("uid", "uid"), None);
        assert_eq!(cookie("", "uid"), None);
        assert_eq!(cookie("uid=\"7\"; b=2", "uid"), Some("7"));
        assert_eq!(cookie("uid=\"7\" ;b=2", "uid"), Some("7"));
        assert_eq!(cookie("uid=\"\"", "uid"), Some(""));
        assert_eq!(cookie("uid=\"", "uid"), Some("\""));
        assert_eq!(cookie("uid=\"7", "uid"), Some("\"7"));
    }

    /// Regression: programs read the second value, which nobody had verified.
    #[test]
    fn a_second_value_is_seen_in_every_spelling_that_somebody_reads_as_the_first() {
        let field =
            |name: &'static str, value: &'static str| Header { name, value: value.as_bytes() };
        let doubled = |source: KeySource, headers: &[Header<'_>]| {
            let view = RequestView { headers, ..VIEW };
            view.is_doubled(&source)
        };
        let cookie = |value| doubled(KeySource::Cookie("token".into()), &[field("Cookie", value)]);
        for value in
            ["token=a; token=b", "token=a; token =b", "token=a;token\t=b", "token=a; x=1, token=b"]
        {
            assert!(cookie(value), "{value}");
        }
        for value in [
            "token=a",
            "token=a; tokens=b",
            "token=a; xtoken=b",
            "token=a; x=token",
            "x; token=a; token",
        ] {
            assert!(!cookie(value), "{value}");
        }
        let header = |other| {
            let source = KeySource::Header("x-token".into());
            doubled(source, &[field("X-Token", "a"), field(other, "b")])
        };
        for other in ["x-token", "X_Token", "X.Token", "X~TOKEN"] {
            assert!(header(other), "{other}");
        }
        for other in ["x-tokens", "xtoken", "x--token"] {
            assert!(!header(other), "{other}");
        }
    }

    const VIEW: RequestView<'static> = RequestView {
        method: "GET",
        host: "h",
        path: "/",
        query: "",
        headers: &[],
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        client_text: b"127.0.0.1",
        claims: None,
    };

    #[test]
    fn finds_a_query_parameter() {
        let view = RequestView {
            method: "GET",
            host: "h",
            path: "/a/b/",
            query: "x=1&game=slots&y",
            headers: &[],
            client: [127, 0, 0, 1].into(),
            client_text: b"127.0.0.1",
            claims: None,
        };
        assert_eq!(view.query_param("game"), Some("slots"));
        assert_eq!(view.query_param("y"), Some(""));
        assert_eq!(view.query_param("z"), None);
        assert_eq!(
            (view.segment(1), view.segment(2), view.segment(3)),
            (Some("b"), Some(""), None)
        );
    }
}
