//! Who may call the admin API.
//!
//! With tokens, a caller must send one of them. Without tokens, callers must be on this host, by
//! the address of the connection; but a browser on this host runs pages from everywhere, so two
//! attacks are prevented. A page may point a name of its own at 127.0.0.1 (DNS rebinding) and then
//! read responses as its own: so the host of a request must be a loopback name or an address. And a
//! page may send a request without reading the response (cross-site request forgery): so a change
//! must not come from another origin. A page cannot know a token, so neither matters with tokens.

use std::net::{IpAddr, SocketAddr};

use axum::http::{
    HeaderMap, HeaderName, Method, StatusCode, Uri,
    header::{AUTHORIZATION, HOST, ORIGIN},
    uri::Authority,
};
use subtle::{Choice, ConstantTimeEq};

use super::Problem;
use crate::{
    config::{AdminToken, schema::Role},
    store::Actor,
};

/// Name of the caller in the log where there are no tokens.
const ANONYMOUS: &str = "anonymous";

/// The field with the token of a second person.
pub const SECOND: HeaderName = HeaderName::from_static("tidegate-second-authorization");

/// The parts of a request that identify the caller.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// The request's method.
    pub method: &'a Method,
    /// The request's target.
    pub uri: &'a Uri,
    /// The request's header fields.
    pub headers: &'a HeaderMap,
}

impl Caller<'_> {
    /// The caller as the journal names it.
    fn named(&self, name: &str, role: Role) -> Actor {
        let address = Some(self.peer.ip().to_canonical().to_string());
        Actor { name: name.to_owned(), role: role.label().to_owned(), address }
    }
}

/// Returns who calls, or the problem if the call is rejected.
pub fn admit(caller: &Caller<'_>, tokens: &[AdminToken]) -> Result<Actor, Problem> {
    if !tokens.is_empty() {
        let token = holder(caller.headers, &AUTHORIZATION, tokens).ok_or_else(|| {
            let detail = "send a token of admin.tokens: `Authorization: Bearer TOKEN`";
            Problem::new(StatusCode::UNAUTHORIZED, detail)
        })?;
        if token.role < Role::Operate && !caller.method.is_safe() {
            let AdminToken { name, role, .. } = token;
            let detail =
                format!("the token `{name}` may only read: its role is `{}`", role.label());
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        return Ok(caller.named(&token.name, token.role));
    }
    // A reload may take the tokens away while the socket stays bound beyond loopback.
    if !caller.peer.ip().to_canonical().is_loopback() {
        let detail = "there are no tokens, so only callers on this host are let in";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    if !names_this_host(caller) {
        let detail = "the request names a host that is neither an address nor localhost; a page of \
                      another site may have sent it";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).at("Host"));
    }
    if !caller.method.is_safe() && !of_same_origin(caller.headers) {
        let detail = "a page of another origin sent this change; without tokens that is refused";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail).at("Origin"));
    }
    Ok(caller.named(ANONYMOUS, Role::Operate))
}

/// The second person of a change, who sends a token beside the caller's; `None` if nobody does.
///
/// # Errors
///
/// If the token is unknown, or may not change anything.
pub fn second(headers: &HeaderMap, tokens: &[AdminToken]) -> Result<Option<String>, Problem> {
    if !headers.contains_key(&SECOND) {
        return Ok(None);
    }
    match holder(headers, &SECOND, tokens) {
        Some(token) if token.role == Role::Operate => Ok(Some(token.name.clone())),
        Some(token) => {
            let detail = format!("the second token `{}` may only read", token.name);
            Err(Problem::new(StatusCode::FORBIDDEN, detail).at(SECOND.as_str()))
        }
        None => {
            let detail = "the second person's token is unknown; send a token of admin.tokens: `Bearer TOKEN`";
            Err(Problem::new(StatusCode::FORBIDDEN, detail).at(SECOND.as_str()))
        }
    }
}

/// The token that the field `name` of `headers` contains. Every token is compared, in a time that depends at most on the
/// length of the secrets.
fn holder<'a>(
    headers: &HeaderMap,
    name: &HeaderName,
    tokens: &'a [AdminToken],
) -> Option<&'a AdminToken> {
    let mut fields = headers.get_all(name).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let (scheme, sent) = field.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let sent = sent.trim().as_bytes();
    let matches = |token: &AdminToken| -> Choice { token.secret.as_bytes().ct_eq(sent) };
    let all: Vec<Choice> = tokens.iter().map(matches).collect();
    let found = all.into_iter().position(bool::from)?;
    Some(&tokens[found])
}

fn names_this_host(caller: &Caller<'_>) -> bool {
    let in_target = caller.uri.authority().is_none_or(|a| is_this_host(a.host()));
    let in_fields = caller.headers.get_all(HOST).iter().all(|field| {
        let authority = field.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
        authority.is_some_and(|a| is_this_host(a.host()))
    });
    in_target && in_fields
}

/// An address cannot be rebound, and `localhost` is loopback by RFC 6761.
fn is_this_host(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost") || address.parse::<IpAddr>().is_ok()
}

/// Whether a change comes from no page, or from a page of this endpoint itself. `same-site` is not
/// enough: all ports of localhost are one site.
fn of_same_origin(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let own = format!("http://{host}");
    matches!(site, None | Some(b"same-origin" | b"none"))
        && headers.get_all(ORIGIN).iter().all(|o| o.as_bytes().eq_ignore_ascii_case(own.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: Method, fields: &[(&'static str, &str)], tokens: &[AdminToken]) -> Answer {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let peer = ([127, 0, 0, 1], 40_000).into();
        let uri = Uri::from_static("/v1/status");
        let caller = Caller { peer, method: &method, uri: &uri, headers: &headers };
        let admitted = admit(&caller, tokens).map(|actor| actor.name);
        admitted.map_err(|problem| problem.status.as_u16())
    }

    type Answer = Result<String, u16>;

    fn tokens() -> Vec<AdminToken> {
        let token = |name: &str, secret: &str| AdminToken {
            name: name.to_owned(),
            secret: secret.to_owned(),
            role: if name == "eyes" { Role::Read } else { Role::Operate },
        };
        let (ci, ops) = (token("ci", "0123456789abcdef"), token("ops", "fedcba9876543210"));
        vec![ci, ops, token("eyes", "eyes-eyes-eyes-eyes")]
    }

    #[test]
    fn a_token_names_its_holder() {
        let with = |value: &str| call(Method::PUT, &[("authorization", value)], &tokens());
        assert_eq!(with("Bearer fedcba9876543210").unwrap(), "ops");
        assert_eq!(with("bearer  0123456789abcdef").unwrap(), "ci");
        for wrong in ["Bearer fedcba987654321", "Bearer ", "Bearer", "Basic fedcba9876543210", ""] {
            assert_eq!(with(wrong), Err(401), "{wrong}");
        }
        assert_eq!(call(Method::GET, &[], &tokens()), Err(401));
        let token = ("authorization", "Bearer fedcba9876543210");
        assert_eq!(call(Method::GET, &[token, token], &tokens()), Err(401));
    }

    #[test]
    fn a_token_that_may_only_read_changes_nothing() {
        let eyes = [("authorization", "Bearer eyes-eyes-eyes-eyes")];
        for (method, expected) in [
            (Method::GET, Ok("eyes".to_owned())),
            (Method::HEAD, Ok("eyes".to_owned())),
            (Method::PUT, Err(403)),
            (Method::POST, Err(403)),
            (Method::DELETE, Err(403)),
        ] {
            assert_eq!(call(method.clone(), &eyes, &tokens()), expected, "{method}");
        }
    }

    #[test]
    fn a_rebound_name_is_refused_without_tokens_only() {
        let host = |host: &str| call(Method::GET, &[("host", host)], &[]);
        for own in [
            "127.0.0.1:9090",
            "[::1]:9090",
            "localhost",
            "LOCALHOST:9090",
            "a.localhost",
            "10.0.0.1",
        ] {
            assert_eq!(host(own).as_deref(), Ok(ANONYMOUS), "{own}");
        }
        for other in ["evil.example:9090", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert_eq!(host(other), Err(421), "{other}");
        }
        assert_eq!(
            call(Method::GET, &[("host", "localhost"), ("host", "evil.example")], &[]),
            Err(421)
        );
        let fields =
            [("host", "edge-1.internal:9090"), ("authorization", "Bearer fedcba9876543210")];
        assert_eq!(call(Method::GET, &fields, &tokens()).unwrap(), "ops");
    }

    #[test]
    fn a_page_of_another_origin_changes_nothing() {
        let put = |more: &[(&'static str, &str)]| {
            let fields = [&[("host", "localhost:9090")], more].concat();
            call(Method::PUT, &fields, &[])
        };
        assert!(put(&[]).is_ok());
        assert!(put(&[("origin", "http://localhost:9090")]).is_ok());
        assert!(put(&[("sec-fetch-site", "none")]).is_ok());
        for origin in ["http://evil.example", "http://localhost:3000", "null"] {
            assert_eq!(put(&[("origin", origin)]), Err(403), "{origin}");
        }
        for site in ["cross-site", "same-site"] {
            assert_eq!(put(&[("sec-fetch-site", site)]), Err(403), "{site}");
        }
        let read = [("host", "localhost:9090"), ("sec-fetch-site", "cross-site")];
        assert!(call(Method::GET, &read, &[]).is_ok());
    }

    #[test]
    fn without_tokens_only_this_host_is_let_in() {
        let headers = HeaderMap::new();
        let uri = Uri::from_static("/v1/status");
        let status = |peer: &str| {
            let peer = peer.parse().unwrap();
            let caller = Caller { peer, method: &Method::GET, uri: &uri, headers: &headers };
            admit(&caller, &[]).map_err(|problem| problem.status.as_u16())
        };
        assert_eq!(status("10.0.0.7:40000"), Err(403));
        assert!(status("[::1]:40000").is_ok() && status("[::ffff:127.0.0.1]:40000").is_ok());
    }
}
