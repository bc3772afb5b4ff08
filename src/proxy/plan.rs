//! What is decided about a request once its head is complete: admit, route, assign.

use std::{mem::MaybeUninit, net::IpAddr, rc::Rc};

use tokio::time::Instant;

use super::{
    body::Framing,
    buffer::Buffer,
    connection::Client,
    forwarded,
    head::{Fields, MAX_FIELDS, RequestHead, parse_request},
    problem::{Fault, Problem},
    rewrite::{Origin, Persistence, RequestId, write_request},
    worker::{Held, Worker},
};
use crate::{
    routing::RequestView,
    snapshot::{Decision, Route, Service, Snapshot, Undecided, Version},
    telemetry::access_log::sampled,
};

/// All that later stages need of a request; the head itself is no longer needed.
pub(super) struct Plan {
    pub(super) snapshot: Rc<Held>,
    pub(super) decision: Decision,
    /// When the head was complete.
    pub(super) began: Instant,
    /// Bytes of the head in the client's inbox.
    pub(super) head_bytes: usize,
    pub(super) framing: Framing,
    pub(super) expects_continue: bool,
    pub(super) id: RequestId,
    pub(super) manner: Manner,
    /// Sending it twice does what sending it once does (RFC 9110 section 9.2.2).
    pub(super) idempotent: bool,
    pub(super) log: Option<Box<LogText>>,
}

/// How the client wants its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    pub(super) http10: bool,
    pub(super) keep_alive: bool,
    /// HEAD: an answer without its body.
    pub(super) head_only: bool,
}

impl Manner {
    /// What the answer says of the connection, if it stays (`keep`) or not.
    pub(super) fn persistence(self, keep: bool) -> Persistence {
        match (keep, self.http10) {
            (false, _) => Persistence::Close,
            (true, true) => Persistence::KeepAlive,
            (true, false) => Persistence::Implied,
        }
    }
}

/// What the access log says of a head.
#[derive(Debug)]
pub(super) struct LogText {
    /// The client's address, which behind a trusted proxy is not the connection's.
    pub(super) client: IpAddr,
    pub(super) method: Box<str>,
    pub(super) host: Box<str>,
    pub(super) path: Box<str>,
}

/// A request that is answered without asking a version.
pub(super) struct Refused {
    pub(super) problem: Problem,
    pub(super) id: Option<RequestId>,
    pub(super) manner: Manner,
    /// Bytes of the request, if it was read to its end and the connection can stay.
    pub(super) whole: Option<usize>,
    pub(super) log: Option<Box<LogText>>,
}

impl Refused {
    /// A request whose head is not understood, so that nothing after it can be.
    pub(super) fn unread(problem: impl Into<Problem>) -> Self {
        Self {
            problem: problem.into(),
            id: None,
            manner: Manner { http10: false, keep_alive: false, head_only: false },
            whole: None,
            log: None,
        }
    }
}

impl Plan {
    pub(super) fn route(&self) -> &Route {
        &self.snapshot.routes[self.decision.route as usize]
    }

    pub(super) fn service(&self) -> &Service {
        &self.snapshot.services[self.decision.service as usize]
    }

    pub(super) fn version(&self) -> &Version {
        &self.service().versions[usize::from(self.decision.version)]
    }
}

/// Plans the request whose head stands in the client's inbox, and writes it as it goes on into `out`.
/// Nothing if more of the head must be read.
pub(super) fn plan(
    client: &Client,
    worker: &Worker,
    out: &mut Buffer,
) -> Result<Option<Plan>, Box<Refused>> {
    let snapshot = worker.snapshot();
    let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let count = usize::from(snapshot.limits.header_count).min(MAX_FIELDS);

    // admit
    let parsed = parse_request(client.inbox.data(), &mut fields[..count]);
    let Some((head, head_bytes)) = parsed.map_err(|refusal| Box::new(Refused::unread(refusal)))?
    else {
        return Ok(None);
    };
    if head_bytes as u64 > snapshot.limits.header_bytes.0 {
        return Err(Box::new(too_large(client.inbox.data(), snapshot.limits.header_bytes.0)));
    }
    // Behind a trusted proxy each request has a client of its own.
    let forwarded = match &*snapshot.trusted_proxies {
        [] => None,
        trusted => forwarded::read(head.headers, client.address, trusted),
    };
    let (address, address_text) = match &forwarded {
        Some(forwarded) => (forwarded.client, &forwarded.client_text),
        None => (client.address, &client.address_text),
    };
    let view = RequestView {
        method: head.method,
        host: head.host(),
        path: &head.path,
        query: head.query.unwrap_or(""),
        headers: head.headers,
        client: address,
        client_text: address_text.as_str(),
    };
    let id = view.header("x-request-id").and_then(RequestId::from_client);
    let id = id.unwrap_or_else(|| RequestId::from_random(fastrand::u128(..)));
    let manner = Manner {
        http10: head.http10,
        keep_alive: head.keep_alive,
        head_only: head.method == "HEAD",
    };
    let log = log_text(&head, address, &snapshot);

    // route, assign
    let decision = match snapshot.decide(&view) {
        Ok(decision) => decision,
        Err(undecided) => {
            let fault = match undecided {
                Undecided::NoRoute => Fault::NoRoute,
                Undecided::NoVersion(_) => Fault::NoVersion,
            };
            let whole = (head.framing == Framing::Length(0)).then_some(head_bytes);
            let problem = fault.problem();
            return Err(Box::new(Refused { problem, id: Some(id), manner, whole, log }));
        }
    };

    // An HTTP/1.0 client may leave the host out; the endpoint needs one.
    let authority = if head.authority.is_empty() { client.listener() } else { head.authority };
    let origin = Origin {
        peer: client.address_text.as_str(),
        forwarded: forwarded.as_ref(),
        encrypted: client.stream.is_encrypted(),
        subject: client.subject.as_deref(),
        authority,
        id: &id,
    };
    write_request(out, &head, &origin);
    let plan = Plan {
        decision,
        began: Instant::now(),
        head_bytes,
        framing: head.framing,
        expects_continue: head.expects_continue,
        id,
        manner,
        idempotent: is_idempotent(head.method),
        log,
        snapshot: Rc::clone(&snapshot),
    };
    Ok(Some(plan))
}

/// The answer to a head above the limit: the target may be what is too long.
pub(super) fn too_large(bytes: &[u8], limit: u64) -> Refused {
    let line = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len()) as u64;
    let refusal = if line >= limit {
        super::head::Refusal { status: 414, detail: "the request line is longer than the limit" }
    } else {
        super::head::Refusal { status: 431, detail: "the header is larger than the limit" }
    };
    Refused::unread(refusal)
}

fn log_text(
    head: &RequestHead<'_, '_>,
    client: IpAddr,
    snapshot: &Snapshot,
) -> Option<Box<LogText>> {
    let log = snapshot.access_log.as_ref()?;
    sampled(log.sample, fastrand::u64(..)).then(|| {
        Box::new(LogText {
            client,
            method: head.method.into(),
            host: head.authority.into(),
            path: (&*head.path).into(),
        })
    })
}

fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}
