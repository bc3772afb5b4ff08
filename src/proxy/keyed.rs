//! Which requests of a route with `idempotency` have a key, and what they wait for before they are sent.
//!
//! The body is read before a write waits at a fence, and its key begins after that: a write that is held has not
//! begun, and a slow client holds nobody up.

use std::rc::Rc;

use super::{
    admit::Admitted,
    body::Framing,
    client::Client,
    idempotency::{Beginning, Gathered, Key, Reading, TOO_LARGE, explained},
    problem::{Problem, RETRY_AFTER},
    rejected::Stop,
    waiting::{Passed, Wait},
};
use crate::{
    policy::idempotency::parse_key,
    registry::{Fingerprint, KeyEvent},
    routing::RequestView,
    snapshot::{Idempotency, Route, Service},
};

/// Name of the field.
const FIELD: &str = "idempotency-key";

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

/// The body of the request, if it has a key: it is here, or the request waits for it.
#[inline(never)]
pub(super) fn gather(
    policy: &Idempotency,
    route: &Route,
    admitted: &Admitted<'_, '_>,
    client: &Client,
    passed: Option<&Passed>,
) -> Result<Option<Gathered>, Stop> {
    let refuse = |event, problem| {
        policy.table.note(event);
        Err(Stop::Answer(problem, explained(problem)))
    };
    let mut values = values(admitted);
    let Some(value) = values.next() else {
        return match policy.required {
            true => refuse(KeyEvent::Missing, MISSING),
            false => Ok(None),
        };
    };
    let malformed = match (parse_key(value), values.next()) {
        (Ok(_), None) => None,
        (Ok(_), Some(_)) => Some("the request has several idempotency keys"),
        (Err(bad), _) => Some(bad.0),
    };
    if let Some(detail) = malformed {
        let kind = "idempotency_malformed";
        let problem = Problem { status: 400, kind, detail, retry_after: RETRY_AFTER };
        return refuse(KeyEvent::Malformed, problem);
    }
    if admitted.mode.grpc {
        return refuse(KeyEvent::RefusedBody, CALL);
    }
    if let Some(gathered) = passed.and_then(|passed| passed.body) {
        return Ok(Some(gathered));
    }
    let framing = match admitted.head.framing {
        // On a stream there are no chunks: the body ends with the stream.
        Framing::Chunked if client.stream.is_stream() => Framing::UntilClose,
        framing => framing,
    };
    if let Framing::Length(length) = framing {
        if length > policy.body as u64 {
            return refuse(KeyEvent::RefusedBody, TOO_LARGE);
        }
        let length = length as usize;
        if admitted.head_bytes + length <= client.inbox.len() {
            return Ok(Some(Gathered { length, was_open: false }));
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

/// The key of the request, whose body is in the client's inbox: it has begun, or the request waits for that.
#[inline(never)]
pub(super) fn begin(
    policy: &Idempotency,
    (route, service): (&Route, &Service),
    (admitted, view): (&Admitted<'_, '_>, &RequestView<'_>),
    body: &[u8],
    passed: Option<&Passed>,
) -> Result<Rc<Key>, Stop> {
    if let Some(key) = passed.and_then(|passed| passed.key.as_ref()) {
        return Ok(Rc::clone(key));
    }
    let value = values(admitted).next().unwrap_or_default();
    // It was parsed before.
    let key = parse_key(value).unwrap_or_default();
    let player = service.cohort.key(view, &route.params);
    let id = policy.table.id(player.value, &key);
    let print = Fingerprint::of(view.method, view.path, view.query, body);
    Err(Stop::Wait(Wait::Key(Box::new(Beginning::new(policy, id, print)))))
}

fn values<'a>(admitted: &'a Admitted<'_, '_>) -> impl Iterator<Item = &'a [u8]> {
    let headers = admitted.head.headers.iter();
    headers.filter(|field| field.name.eq_ignore_ascii_case(FIELD)).map(|field| field.value)
}
