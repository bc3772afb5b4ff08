//! The client's token on the path: found, verified once, and remembered by the worker.

use std::{
    rc::Rc,
    time::{Instant, SystemTime},
};

use super::{
    problem::{Extra, Problem, RETRY_AFTER},
    rejected::Stop,
    waiting::{Passed, Wait},
    worker::Worker,
};
use crate::{
    config::pattern::KeySource,
    policy::token::TokenFault,
    registry::MissingKey,
    routing::{Claims, RequestView},
    snapshot::{Identity, Issuer},
};

/// What the client's token says, if the route asks for one; `None` if there is none and none is needed.
pub(super) fn check(
    identity: &Identity,
    worker: &Worker,
    request: &RequestView<'_>,
    passed: &mut Passed,
) -> Result<Option<Rc<Claims>>, Stop> {
    let issuer = &*identity.issuer;
    let claims = match verified(issuer, worker, request) {
        Ok(claims) => claims,
        Err(TokenFault::Missing) if !identity.required => return Ok(None),
        Err(fault) => return Err(refuse(issuer, fault, request, passed)),
    };
    match identity.require.iter().all(|condition| condition.holds_in_claims(&claims)) {
        true => Ok(Some(claims)),
        false => Err(refuse(issuer, TokenFault::Claim, request, passed)),
    }
}

/// What the client's token says, for the choice of the route; `None` if it has none that counts, which the route answers.
#[cold]
pub(super) fn early(
    issuer: &Issuer,
    worker: &Worker,
    request: &RequestView<'_>,
) -> Option<Rc<Claims>> {
    verified(issuer, worker, request).ok()
}

/// Writes the header fields that `issuer` makes of `claims` as lines.
pub(super) fn put_headers(issuer: &Issuer, claims: &Claims, lines: &mut Vec<u8>) {
    for (name, claim) in &issuer.headers {
        let values = claims.all(claim);
        if values.is_empty() {
            continue;
        }
        lines.extend_from_slice(name.as_bytes());
        lines.extend_from_slice(b": ");
        for (at, value) in values.iter().enumerate() {
            lines.extend_from_slice(if at > 0 { b"," } else { b"" });
            lines.extend_from_slice(value.as_bytes());
        }
        lines.extend_from_slice(b"\r\n");
    }
}

fn verified(
    issuer: &Issuer,
    worker: &Worker,
    request: &RequestView<'_>,
) -> Result<Rc<Claims>, TokenFault> {
    let token = sent(&issuer.from, request)?;
    let keys = issuer.keys.keys();
    let keys = keys.as_deref().ok_or(TokenFault::NoKeys)?;
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_s = since_epoch.map_or(0, |since| since.as_secs());
    let mut known = worker.tokens.borrow_mut();
    let by = (issuer.number, keys.number);
    if let Some(claims) = known.find(token, by, now_s) {
        return Ok(claims);
    }
    let verified = issuer.terms.verify(token, keys, now_s)?;
    issuer.keys.note_verified();
    Ok(known.put(token, by, verified))
}

/// The token in the first of the places `from` that has one.
fn sent<'a>(from: &[KeySource], request: &RequestView<'a>) -> Result<&'a [u8], TokenFault> {
    for source in from {
        // The version might read the other one.
        if request.is_doubled(source) {
            return Err(TokenFault::Doubled);
        }
        let found = match source {
            KeySource::Header(name) => in_header(name, request),
            KeySource::Cookie(name) => request.cookie(name),
            // Refused by the check of the configuration.
            _ => None,
        };
        if let Some(token) = found.filter(|token| !token.is_empty()) {
            return Ok(token);
        }
    }
    Err(TokenFault::Missing)
}

/// The token in the header field `name`.
fn in_header<'a>(name: &str, request: &RequestView<'a>) -> Option<&'a [u8]> {
    let value = request.header(name)?;
    match value.split_first_chunk::<7>() {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
            Some(token.trim_ascii())
        }
        // Of another scheme, which is not ours to judge.
        _ if name == "authorization" => None,
        _ => Some(value),
    }
}

/// The response to a request without a token that counts (RFC 6750 section 3), or a wait for the issuer's keys.
#[cold]
fn refuse(
    issuer: &Issuer,
    mut fault: TokenFault,
    request: &RequestView<'_>,
    passed: &mut Passed,
) -> Stop {
    let mut retry_after = RETRY_AFTER;
    if matches!(fault, TokenFault::NoKeys | TokenFault::UnknownKey) && issuer.is_fetched {
        let token = sent(&issuer.from, request).ok().filter(|_| fault == TokenFault::UnknownKey);
        match issuer.keys.miss(token, Instant::now()) {
            MissingKey::Waits(ended) if !std::mem::replace(&mut passed.keys, true) => {
                return Stop::Wait(Wait::Keys(ended));
            }
            MissingKey::Refused => {}
            MissingKey::Waits(_) => fault = TokenFault::NoKeys,
            MissingKey::Later(after) => {
                fault = TokenFault::NoKeys;
                // A second more: by then the fetch has ended.
                retry_after = after.as_secs() as u32 + 1;
            }
        }
    }
    issuer.keys.note_fault(fault);
    let (status, kind, detail, error) = match fault {
        TokenFault::Missing => (401, "token_missing", "the request needs a token", ""),
        TokenFault::Malformed => {
            (401, "token", "the token is no JWT: three parts in base64url, of JSON", INVALID)
        }
        TokenFault::Doubled => {
            (401, "token", "the request has several tokens; one is expected", INVALID)
        }
        TokenFault::Large => (401, "token", "the token is larger than 8 KiB", INVALID),
        TokenFault::Extended => {
            (401, "token", "the token has `crit` or `b64`, and no extension is supported", INVALID)
        }
        TokenFault::Algorithm => (401, "token", "the token's algorithm is not accepted", INVALID),
        TokenFault::UnnamedKey => (401, "token", "the token names no key", INVALID),
        TokenFault::UnknownKey => (401, "token", "the token's key is not known", INVALID),
        TokenFault::Signature => (401, "token", "the token's signature is wrong", INVALID),
        TokenFault::Expired => (401, "token", "the token has expired", INVALID),
        TokenFault::Endless => {
            (401, "token", "the token has no `exp` that is a number of seconds", INVALID)
        }
        TokenFault::Early => (401, "token", "the token is not valid yet", INVALID),
        TokenFault::Issuer => (401, "token", "the token is of another issuer", INVALID),
        TokenFault::Audience => (401, "token", "the token is for another audience", INVALID),
        TokenFault::Claim => {
            let error = " error=\"insufficient_scope\"";
            (403, "token_claim", "the token lacks a claim that is required here", error)
        }
        TokenFault::NoKeys => (503, "token_keys", "tokens cannot be verified at the moment", ""),
    };
    let problem = Problem { status, kind, detail, retry_after };
    let fields = match status {
        503 => Vec::new(),
        _ => format!("WWW-Authenticate: Bearer{error}\r\n").into_bytes(),
    };
    let by = Some((&*issuer.name).into());
    Stop::Answer(problem, Some(Box::new(Extra { fields, by, ..Extra::default() })))
}

const INVALID: &str = " error=\"invalid_token\"";
