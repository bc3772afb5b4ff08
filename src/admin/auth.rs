//! Who may call the admin API.
//!
//! With tokens, a caller must send one of them; with certificates, connect with one. Without either, callers must be on this host, by
//! the address of the connection; but a browser on this host runs pages from everywhere, so two
//! attacks are prevented. A page may point a name of its own at 127.0.0.1 (DNS rebinding) and then
//! read responses as its own: so the host of a request must be a loopback name or an address. And a
//! page may send a request without reading the response (cross-site request forgery): so a change
//! must not come from another origin. A page cannot know a token, so neither matters with tokens.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use axum::http::{
    HeaderMap, HeaderName, Method, StatusCode, Uri,
    header::{AUTHORIZATION, HOST, ORIGIN},
    uri::Authority,
};
use subtle::Choice;

use super::Problem;
use crate::{
    config::{
        AdminToken, actor,
        schema::{Holder, Role},
    },
    control::callers::{Callers, Origin, Refused},
    store::Actor,
};

/// Name of the caller in the log where there are no tokens.
const ANONYMOUS: &str = actor::ANONYMOUS;

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
    /// The subject of the certificate that the connection has.
    pub subject: Option<&'a str>,
}

impl Caller<'_> {
    /// The caller as the journal names it.
    fn named(&self, name: &str, role: Role) -> Actor {
        let address = Some(self.peer.ip().to_canonical().to_string());
        Actor { name: name.to_owned(), role: role.label().to_owned(), address }
    }
}

/// Who may call.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Holders of tokens.
    pub tokens: &'a [AdminToken],
    /// Holders of certificates.
    pub certificates: &'a [Holder],
}

impl<'a> Known<'a> {
    /// Whether nobody is known, so that all callers on this host may call.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.certificates.is_empty()
    }

    /// The holder of the certificate that the caller's connection has.
    fn of_certificate(&self, caller: &Caller<'_>) -> Option<&'a Holder> {
        self.certificates.iter().find(|holder| Some(&*holder.subject) == caller.subject)
    }
}

/// Why a call is refused: what is counted, and what the caller is told.
#[derive(Debug)]
pub struct Refusal {
    /// The reason.
    pub refused: Refused,
    /// The response.
    pub problem: Problem,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        refusal.problem
    }
}

fn refuse(refused: Refused, status: StatusCode, detail: impl Into<String>) -> Refusal {
    Refusal { refused, problem: Problem::new(status, detail) }
}

/// Returns who calls at `now`, or why the call is refused, which is noted among the `callers`.
pub fn admit(
    caller: &Caller<'_>,
    known: Known<'_>,
    callers: &Callers,
    now: Instant,
) -> Result<Actor, Refusal> {
    decide(caller, known, callers, now).inspect_err(|Refusal { refused, problem }| {
        callers.note(*refused, caller.peer.ip(), &problem.detail);
    })
}

fn decide(
    caller: &Caller<'_>,
    known: Known<'_>,
    callers: &Callers,
    now: Instant,
) -> Result<Actor, Refusal> {
    if !known.is_empty() {
        let (name, role) = holder(caller, known, callers, now)?;
        may(caller, name, role)?;
        return Ok(caller.named(name, role));
    }
    // A reload may take the tokens away while the socket stays bound beyond loopback.
    if !caller.peer.ip().to_canonical().is_loopback() {
        let detail = "there are no tokens, so only callers on this host are let in";
        return Err(refuse(Refused::Remote, StatusCode::FORBIDDEN, detail));
    }
    if !names_this_host(caller) {
        let detail = "the request names a host that is neither an address nor localhost; a page of \
                      another site may have sent it";
        let problem = Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).at("Host");
        return Err(Refusal { refused: Refused::Page, problem });
    }
    if !caller.method.is_safe() && !of_same_origin(caller.headers) {
        let detail = "a page of another origin sent this change; without tokens that is refused";
        let problem = Problem::new(StatusCode::FORBIDDEN, detail).at("Origin");
        return Err(Refusal { refused: Refused::Page, problem });
    }
    Ok(caller.named(ANONYMOUS, Role::Operator))
}

/// The holder of the token that the caller sends, otherwise of the certificate that the connection has.
fn holder<'a>(
    caller: &Caller<'_>,
    known: Known<'a>,
    callers: &Callers,
    now: Instant,
) -> Result<(&'a str, Role), Refusal> {
    if caller.headers.contains_key(AUTHORIZATION) {
        let token = tried(caller, &AUTHORIZATION, known, callers, now)?.ok_or_else(|| {
            let detail =
                "the token is unknown; send one of admin.tokens: `Authorization: Bearer TOKEN`";
            refuse(Refused::WrongToken, StatusCode::UNAUTHORIZED, detail)
        })?;
        return Ok((&token.name, token.role));
    }
    match known.of_certificate(caller) {
        Some(holder) => Ok((&holder.name, holder.role)),
        None => {
            let detail = match (caller.subject, known.tokens) {
                (Some(subject), _) if !known.certificates.is_empty() => format!(
                    "the certificate is not among admin.certificates, which have no `subject: {}`",
                    serde_json::json!(subject)
                ),
                (_, []) => "no certificate of admin.certificates; connect with one".to_owned(),
                _ => "send a token of admin.tokens: `Authorization: Bearer TOKEN`".to_owned(),
            };
            Err(refuse(Refused::Unknown, StatusCode::UNAUTHORIZED, detail))
        }
    }
}

/// Whether a holder with `role` may make the call.
fn may(caller: &Caller<'_>, name: &str, role: Role) -> Result<(), Refusal> {
    let agrees = role == Role::Approver && caller.uri.path().ends_with("/rollout/approve");
    if role == Role::Operator || caller.method.is_safe() || agrees {
        return Ok(());
    }
    let only = if role == Role::Approver { "read and approve" } else { "only read" };
    let detail = format!("`{name}` may {only}: the role is `{}`", role.label());
    Err(refuse(Refused::Role, StatusCode::FORBIDDEN, detail))
}

/// The second person of a change, who sends a token beside the caller's; `None` if nobody does.
///
/// # Errors
///
/// If the token is unknown, or does not allow to agree. That is noted among the `callers`.
pub fn second(
    caller: &Caller<'_>,
    known: Known<'_>,
    callers: &Callers,
    now: Instant,
) -> Result<Option<String>, Problem> {
    if !caller.headers.contains_key(&SECOND) {
        return Ok(None);
    }
    let refused = |detail: String| {
        let problem = Problem::new(StatusCode::FORBIDDEN, detail).at(SECOND.as_str());
        Refusal { refused: Refused::Second, problem }
    };
    let found = tried(caller, &SECOND, known, callers, now);
    let agreed = found.and_then(|token| match token {
        Some(token) if token.role >= Role::Approver => Ok(Some(token.name.clone())),
        Some(token) => Err(refused(format!("the second token `{}` may only read", token.name))),
        None => {
            let detail = "the second person's token is unknown; send a token of admin.tokens: `Bearer TOKEN`";
            Err(refused(detail.to_owned()))
        }
    });
    agreed.map_err(|Refusal { refused, problem }| {
        callers.note(refused, caller.peer.ip(), &problem.detail);
        problem
    })
}

/// The token that the field `name` of the request contains, if the caller may try one.
fn tried<'a>(
    caller: &Caller<'_>,
    name: &HeaderName,
    known: Known<'a>,
    callers: &Callers,
    now: Instant,
) -> Result<Option<&'a AdminToken>, Refusal> {
    let holder = known.of_certificate(caller);
    let address = Origin::Address(caller.peer.ip());
    let origin = holder.map_or(address, |holder| Origin::Certificate(&holder.subject));
    let Err(wait) = callers.may_try(origin, now) else {
        let found = sent(caller.headers, name, known.tokens.iter());
        if let Some(token) = found {
            callers.was_right(origin, &token.hash, now);
        }
        return Ok(found);
    };
    // Others are not compared, so the time of the response does not show whether a guess was right.
    let lately = |token: &&AdminToken| callers.was_right_lately(origin, &token.hash, now);
    if let Some(token) = sent(caller.headers, name, known.tokens.iter().filter(lately)) {
        callers.renew(origin, &token.hash, now);
        return Ok(Some(token));
    }
    let seconds = wait.as_secs() + 1;
    let from = if holder.is_some() { "with this certificate" } else { "from this address" };
    let detail = format!(
        "too many wrong tokens came {from}; a token that was not right there within the last hour is looked at again in {seconds} s"
    );
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail);
    Err(Refusal { refused: Refused::Slowed, problem })
}

/// The one of `tokens` that the field `name` of `headers` contains. Every token is compared, in a time that depends at
/// most on the length of what was sent.
fn sent<'a>(
    headers: &HeaderMap,
    name: &HeaderName,
    tokens: impl Iterator<Item = &'a AdminToken>,
) -> Option<&'a AdminToken> {
    let mut fields = headers.get_all(name).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let (scheme, sent) = field.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let sent = sent.trim().as_bytes();
    let all: Vec<(&AdminToken, Choice)> =
        tokens.map(|token| (token, token.hash.is_of(sent))).collect();
    all.into_iter().find(|(_, is_equal)| bool::from(*is_equal)).map(|(token, _)| token)
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
    let own = |scheme: &str| format!("{scheme}://{host}");
    let own = [own("http"), own("https")];
    matches!(site, None | Some(b"same-origin" | b"none"))
        && headers.get_all(ORIGIN).iter().all(|origin| {
            own.iter().any(|own| origin.as_bytes().eq_ignore_ascii_case(own.as_bytes()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TokenHash;

    fn call(method: Method, fields: &[(&'static str, &str)], tokens: &[AdminToken]) -> Answer {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let peer = ([127, 0, 0, 1], 40_000).into();
        let uri = Uri::from_static("/v1/status");
        let caller = Caller { peer, method: &method, uri: &uri, headers: &headers, subject: None };
        asked(&caller, Known { tokens, certificates: &[] })
    }

    fn asked(caller: &Caller<'_>, known: Known<'_>) -> Answer {
        let admitted = admit(caller, known, &Callers::default(), Instant::now());
        admitted.map(|actor| actor.name).map_err(|refusal| refusal.problem.status.as_u16())
    }

    type Answer = Result<String, u16>;

    fn tokens() -> Vec<AdminToken> {
        let token = |name: &str, secret: &str| AdminToken {
            name: name.to_owned(),
            hash: TokenHash::of(secret).unwrap(),
            role: match name {
                "eyes" => Role::Viewer,
                "boss" => Role::Approver,
                _ => Role::Operator,
            },
        };
        let (ci, ops) = (token("ci", "0123456789abcdef"), token("ops", "fedcba9876543210"));
        vec![ci, ops, token("eyes", "eyes-eyes-eyes-eyes"), token("boss", "boss-boss-boss-boss")]
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
    fn an_approver_agrees_and_begins_nothing() {
        let tokens = tokens();
        let known = Known { tokens: &tokens, certificates: &[] };
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "Bearer boss-boss-boss-boss".parse().unwrap());
        headers.insert(SECOND, "Bearer boss-boss-boss-boss".parse().unwrap());
        for (method, path, allowed) in [
            (Method::GET, "/v1/status", true),
            (Method::POST, "/v1/services/a/rollout/approve", true),
            (Method::POST, "/v1/services/a/rollout/promote", false),
            (Method::POST, "/v1/services/a/rollout", false),
            (Method::PUT, "/v1/services/a/weights", false),
            (Method::POST, "/v1/services/approve/eject", false),
        ] {
            let (peer, uri) = (([127, 0, 0, 1], 1).into(), Uri::from_static(path));
            let caller =
                Caller { peer, method: &method, uri: &uri, headers: &headers, subject: None };
            assert_eq!(asked(&caller, known).is_ok(), allowed, "{method} {path}");
            let agreed = second(&caller, known, &Callers::default(), Instant::now());
            assert_eq!(agreed.unwrap().as_deref(), Some("boss"));
        }
    }

    #[test]
    fn a_certificate_names_its_holder_unless_a_token_is_sent() {
        let tokens = tokens();
        let holder = Holder {
            name: "ci-cert".to_owned(),
            subject: "CN=ci,O=Example".to_owned(),
            role: Role::Viewer,
        };
        let known = Known { tokens: &tokens, certificates: &[holder] };
        let call = |subject, token: Option<&str>, method: Method| {
            let mut headers = HeaderMap::new();
            token.map(|token| headers.insert(AUTHORIZATION, token.parse().unwrap()));
            let (peer, uri) = (([192, 0, 2, 1], 1).into(), Uri::from_static("/v1/status"));
            asked(&Caller { peer, method: &method, uri: &uri, headers: &headers, subject }, known)
        };
        let own = Some("CN=ci,O=Example");
        assert_eq!(call(own, None, Method::GET).unwrap(), "ci-cert");
        assert_eq!(call(own, None, Method::PUT), Err(403));
        assert_eq!(call(own, Some("Bearer fedcba9876543210"), Method::PUT).unwrap(), "ops");
        assert_eq!(call(own, Some("Bearer wrong-wrong-wrong"), Method::GET), Err(401));
        for other in
            [None, Some(""), Some("CN=ci"), Some("CN=ci,O=Example,C=DE"), Some("cn=ci,o=example")]
        {
            assert_eq!(call(other, None, Method::GET), Err(401), "{other:?}");
        }
    }

    /// Nobody learnt how the subject of the certificate that came is to be written.
    #[test]
    fn an_unlisted_certificate_is_refused_with_its_subject_as_it_must_be_written() {
        let (name, subject) = ("ci-cert".to_owned(), "CN=ci,O=Example".to_owned());
        let holder = Holder { name, subject, role: Role::Viewer };
        let known = Known { tokens: &[], certificates: &[holder] };
        let (method, headers) = (Method::GET, HeaderMap::new());
        let (peer, uri) = (([192, 0, 2, 1], 1).into(), Uri::from_static("/v1/status"));
        let subject = Some("CN=a \\\"b\\\",O=Example");
        let caller = Caller { peer, method: &method, uri: &uri, headers: &headers, subject };
        let refused = admit(&caller, known, &Callers::default(), Instant::now());
        let detail = refused.expect_err("it is not listed").problem.detail;
        let (_, written) = detail.split_once("`subject: ").expect("the subject");
        let written = written.strip_suffix('`').expect("its end");
        assert_eq!(serde_json::from_str::<String>(written).ok().as_deref(), subject);
    }

    #[test]
    fn wrong_tokens_are_slowed_and_a_right_one_from_elsewhere_is_not() {
        let (tokens, callers, now) = (tokens(), Callers::default(), Instant::now());
        let known = Known { tokens: &tokens, certificates: &[] };
        let call = |peer: [u8; 4], token: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
            let (method, uri) = (Method::GET, Uri::from_static("/v1/status"));
            let peer = (peer, 1).into();
            let caller =
                Caller { peer, method: &method, uri: &uri, headers: &headers, subject: None };
            let admitted = admit(&caller, known, &callers, now);
            admitted.map(|_| 200).unwrap_or_else(|refusal| refusal.problem.status.as_u16())
        };
        let statuses: Vec<u16> =
            (0..100).map(|n| call([192, 0, 2, 1], &format!("guess-{n:016}"))).collect();
        assert!(
            statuses[..10].iter().all(|s| *s == 401) && statuses[10..].iter().all(|s| *s == 429)
        );
        assert_eq!(call([192, 0, 2, 1], "fedcba9876543210"), 429, "not looked at");
        assert_eq!(call([192, 0, 2, 2], "fedcba9876543210"), 200);
        assert_eq!(call([192, 0, 2, 1], "fedcba9876543210"), 429, "it was right elsewhere");
        let counts = callers.counts();
        assert!(
            counts.contains(&("wrong_token", 10)) && counts.contains(&("slowed", 92)),
            "{counts:?}"
        );
    }

    /// A scraper with an old token locked out an operator at the same address.
    #[test]
    fn a_right_token_used_lately_and_a_certificate_pass_where_others_send_wrong_ones() {
        let (tokens, callers, now) = (tokens(), Callers::default(), Instant::now());
        let subject = "CN=ci,O=Example";
        let (name, role) = ("ci-cert".to_owned(), Role::Operator);
        let holder = Holder { name, subject: subject.to_owned(), role };
        let known = Known { tokens: &tokens, certificates: &[holder] };
        let call = |subject: Option<&str>, token: Option<&str>, now| {
            let mut headers = HeaderMap::new();
            token.map(|token| {
                headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())
            });
            let (method, uri) = (Method::POST, Uri::from_static("/v1/services/a/eject"));
            let peer = ([192, 0, 2, 1], 1).into();
            let caller = Caller { peer, method: &method, uri: &uri, headers: &headers, subject };
            let admitted = admit(&caller, known, &callers, now);
            admitted.map(|_| 200).unwrap_or_else(|refusal| refusal.problem.status.as_u16())
        };
        let (ops, ci) = (Some("fedcba9876543210"), Some("0123456789abcdef"));
        let old = Some("old-old-old-old-old");
        let at = |seconds| now + std::time::Duration::from_secs(seconds);
        assert_eq!(call(None, ops, now), 200);
        let empty = |now| while call(None, old, now) != 429 {};
        for minute in 0..180 {
            let now = at(minute * 60);
            empty(now);
            assert_eq!(call(None, ops, now), 200, "the bucket is empty at minute {minute}");
            assert_eq!(call(None, ci, now), 429, "not used from here");
            assert_eq!(call(Some(subject), None, now), 200);
            assert_eq!(call(Some(subject), ci, now), 200);
        }
        for _ in 0..10 {
            assert_eq!(
                call(Some(subject), old, at(180 * 60)),
                401,
                "it comes before the certificate"
            );
        }
        assert_eq!(call(Some(subject), old, at(180 * 60)), 429, "a certificate has its own bucket");
        assert_eq!(call(Some(subject), None, at(180 * 60)), 200);
        let later = at(179 * 60 + 3601);
        empty(later);
        assert_eq!(call(None, ops, later), 429, "more than an hour ago");
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
            let (method, subject) = (&Method::GET, None);
            let caller = Caller { peer, method, uri: &uri, headers: &headers, subject };
            asked(&caller, Known { tokens: &[], certificates: &[] })
        };
        assert_eq!(status("10.0.0.7:40000"), Err(403));
        assert!(status("[::1]:40000").is_ok() && status("[::ffff:127.0.0.1]:40000").is_ok());
    }
}
