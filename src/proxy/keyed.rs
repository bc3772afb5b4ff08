//! Which requests of a route with `idempotency` have a key, and what they wait for before they are sent.
//!
//! The body is read, and the key begins, before a write waits at a fence: neither a slow client nor a slow disk holds up
//! those behind it in the queue, and what is replayed does not wait there at all.

use std::{borrow::Cow, rc::Rc};

use super::{
    admit::Admitted,
    body::Framing,
    client::Client,
    idempotency::{Beginning, FIELD, Key, Reading, TOO_LARGE, explained, is_key},
    log_text::KeyUse,
    problem::{Problem, RETRY_AFTER},
    rejected::Stop,
    waiting::{Passed, Wait},
};
use crate::{
    policy::{
        class::Class,
        idempotency::{Spelling, parse_key},
    },
    registry::{Fingerprint, KeyEvent, KeyId},
    routing::RequestView,
    snapshot::{Idempotency, Route, Service},
};

const MISSING: Problem = Problem {
    status: 400,
    kind: "idempotency_missing",
    detail: "requests to this resource need an Idempotency-Key",
    retry_after: RETRY_AFTER,
};

/// The response to a call of gRPC, whose messages may never end and whose status is in trailers.
const CALL: Problem = Problem {
    status: 501,
    kind: "idempotency_grpc",
    detail: "idempotency keys of gRPC calls are not supported",
    retry_after: RETRY_AFTER,
};

/// The key of the request, if it has one: its body is here and its key has begun, or the request waits for that.
#[inline(never)]
pub(super) fn begin(
    policy: &Idempotency,
    (route, service): (&Route, &Service),
    (admitted, view): (&Admitted<'_, '_>, &RequestView<'_>),
    client: &Client,
    passed: &Passed,
) -> Result<Option<Rc<Key>>, Stop> {
    if let Some(key) = &passed.key {
        return Ok(Some(Rc::clone(key)));
    }
    let Some((key, spelling)) = key(policy, admitted)? else { return Ok(None) };
    let length = gather(policy, route, admitted, (client, passed.body.is_some()))?;
    let body = &client.inbox.data()[admitted.head_bytes..][..length];
    let id = id(policy, (route, service), view, &key);
    let asked = (view.method, view.path, view.query);
    let print = Fingerprint::of(view.host, asked, body, spelling);
    let beginning = Beginning::new(policy, id, print);
    match beginning.at_once() {
        Some(key) => Ok(Some(key)),
        None => Err(Stop::Wait(Wait::Key(Box::new(beginning)))),
    }
}

/// The key `key` of the player who sent the request.
fn id(
    policy: &Idempotency,
    (route, service): (&Route, &Service),
    view: &RequestView<'_>,
    key: &[u8],
) -> KeyId {
    let players = policy.by.as_ref().unwrap_or(&service.cohort);
    let player = players.key(view, &route.params);
    policy.table.id((players.label(player.source), player.value), key)
}

/// What names the key of a request in the access log that was refused or waits, if it has one.
#[cold]
pub(super) fn logged(
    (route, service): (&Route, &Service),
    (admitted, view): (&Admitted<'_, '_>, &RequestView<'_>),
) -> Option<(u64, KeyUse)> {
    let policy = route.policies.as_ref()?.idempotency.as_ref()?;
    let is_write = route.class.unwrap_or_else(|| Class::of(view.method)) == Class::Write;
    let field = admitted.head.headers.iter().find(|field| is_key(field.name))?;
    let key = parse_key(field.value).ok().filter(|_| is_write)?;
    Some((id(policy, (route, service), view, &key).short(), KeyUse::Refused))
}

/// Whether the head of the request that was `admitted` is another one because `key` has begun, so that it must be planned
/// again.
pub(super) fn changes_head(key: &Key, admitted: &Admitted<'_, '_>) -> bool {
    let head = admitted.head;
    let at = head.headers.iter().position(|field| is_key(field.name));
    let is_other = |at: usize| {
        let own = Spelling::of(head.headers[at].value);
        !head.is_passed_on(at) || key.spelling().is_some_and(|first| first != own)
    };
    head.expects_continue || head.upgrade.is_some() || at.is_some_and(is_other)
}

/// A key, and how it is written.
type SpelledKey<'a> = (Cow<'a, [u8]>, Spelling);

/// The key that the request names, if it does.
fn key<'a>(
    policy: &Idempotency,
    admitted: &'a Admitted<'_, '_>,
) -> Result<Option<SpelledKey<'a>>, Stop> {
    let headers = admitted.head.headers.iter();
    let mut values = headers.filter(|field| is_key(field.name));
    let Some(field) = values.next() else {
        return match policy.required {
            true => refuse(policy, KeyEvent::Missing, MISSING),
            false => Ok(None),
        };
    };
    let is_disguised = !field.name.eq_ignore_ascii_case(FIELD);
    let detail = match (parse_key(field.value), values.next()) {
        (_, None) if is_disguised => {
            "the field of the idempotency key is to be spelled Idempotency-Key"
        }
        (Ok(_), None) if admitted.mode.grpc => return refuse(policy, KeyEvent::RefusedBody, CALL),
        (Ok(key), None) => return Ok(Some((key, Spelling::of(field.value)))),
        (Ok(_), Some(_)) => "the request has several idempotency keys",
        (Err(bad), _) => bad.0,
    };
    let kind = "idempotency_malformed";
    let problem = Problem { status: 400, kind, detail, retry_after: RETRY_AFTER };
    refuse(policy, KeyEvent::Malformed, problem)
}

/// Bytes of the request's body, once all of it is in the client's inbox; `is_here` if that was awaited.
fn gather(
    policy: &Idempotency,
    route: &Route,
    admitted: &Admitted<'_, '_>,
    (client, is_here): (&Client, bool),
) -> Result<usize, Stop> {
    let framing = client.stream.framing(admitted.head.framing);
    if let Framing::Length(length) = framing {
        if length > policy.body as u64 {
            return refuse(policy, KeyEvent::RefusedBody, TOO_LARGE);
        }
        let length = length as usize;
        let has_come = admitted.head_bytes + length <= client.inbox.len();
        if has_come && (is_here || client.stream.has_ended()) {
            return Ok(length);
        }
    }
    Err(Stop::Wait(Wait::Body(Reading {
        head_bytes: admitted.head_bytes,
        framing,
        expects_continue: admitted.head.expects_continue,
        limit: policy.body,
        limits: route.body,
    })))
}

fn refuse<T>(policy: &Idempotency, event: KeyEvent, problem: Problem) -> Result<T, Stop> {
    policy.table.note(event);
    Err(Stop::Answer(problem, explained(problem)))
}
