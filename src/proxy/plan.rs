//! What is decided about a request once its head is complete: admit, route, assign.

use std::{mem::MaybeUninit, net::IpAddr, rc::Rc, time::Duration};

use tokio::time::Instant;

use super::{
    body::Framing,
    breaker,
    buffer::Buffer,
    client::Client,
    forwarded, grpc,
    head::{Fields, MAX_FIELDS, NO_KINDS, RequestHead, parse_request, tokens},
    in_flight::InFlight,
    problem::{Problem, ProxyError},
    rewrite::{ForwardingInfo, Persistence, RequestId, write_request},
    worker::{Worker, WorkerSnapshot},
};
use crate::{
    registry::Player,
    routing::RequestView,
    snapshot::{AssignedBy, Decision, NoDecision, Route, Service, Snapshot, Version},
    telemetry::access_log::sampled,
};

/// Most protocols of an `Upgrade` that are looked at, the first ones.
const MAX_PROTOCOLS: usize = 16;

/// All that later stages need of a request; the head itself is no longer needed.
pub(super) struct Plan {
    pub(super) snapshot: Rc<WorkerSnapshot>,
    pub(super) decision: Decision,
    /// When the head was complete.
    pub(super) began: Instant,
    /// Bytes of the head in the client's inbox.
    pub(super) head_bytes: usize,
    pub(super) framing: Framing,
    pub(super) expects_continue: bool,
    /// Options that few requests have.
    special: Option<Box<RareOptions>>,
    pub(super) id: RequestId,
    pub(super) manner: ResponseMode,
    /// Sending it twice does what sending it once does (RFC 9110 section 9.2.2).
    pub(super) idempotent: bool,
    pub(super) log: Option<Box<LogText>>,
    /// The client's network, if the comparison asks for it.
    pub(super) network: Option<Player>,
    /// Counts the request until it has ended.
    _in_flight: InFlight,
}

/// Options that few requests have, boxed so that they cost the others nothing.
struct RareOptions {
    /// When the whole call is due, if the client said so.
    ends_by: Option<Instant>,
    /// The protocol that the client would go on in, and may.
    upgrade: Option<Box<str>>,
}

/// How the client wants its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResponseMode {
    pub(super) protocol: Protocol,
    /// It is a call of gRPC, which fails in a way of its own.
    pub(super) grpc: bool,
    pub(super) keep_alive: bool,
    /// HEAD: an answer without its body.
    pub(super) head_only: bool,
    /// Fields that follow the answer's body reach the client.
    pub(super) trailers: bool,
}

/// What the client speaks; in the order of [`crate::snapshot::Forwarding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http10,
    Http11,
    Http2,
}

impl Protocol {
    /// As the access log writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

impl ResponseMode {
    pub(super) fn is_http10(self) -> bool {
        self.protocol == Protocol::Http10
    }

    /// What the answer says of the connection, if it stays (`keep`) or not.
    pub(super) fn persistence(self, keep: bool) -> Persistence {
        match (keep, self.is_http10()) {
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
pub(super) struct Rejected {
    pub(super) problem: Problem,
    pub(super) id: Option<RequestId>,
    pub(super) manner: ResponseMode,
    /// Bytes of the request, if it was read to its end and the connection can stay.
    pub(super) whole: Option<usize>,
    pub(super) log: Option<Box<LogText>>,
}

impl Rejected {
    /// A request whose head is not understood, so that nothing after it can be.
    pub(super) fn unread(problem: impl Into<Problem>) -> Self {
        let protocol = Protocol::Http11;
        Self {
            problem: problem.into(),
            id: None,
            manner: ResponseMode {
                protocol,
                grpc: false,
                keep_alive: false,
                head_only: false,
                trailers: false,
            },
            whole: None,
            log: None,
        }
    }
}

impl Plan {
    /// `patience` from `now` on, or until the whole call is due.
    pub(super) fn until(&self, now: Instant, patience: Duration) -> Instant {
        let until = now + patience;
        match self.ends_by() {
            Some(end) => end.min(until),
            None => until,
        }
    }

    /// When the whole call is due, if the client said so.
    pub(super) fn ends_by(&self) -> Option<Instant> {
        self.special.as_ref()?.ends_by
    }

    /// The protocol that the client asked to go on in, and may.
    pub(super) fn upgrade(&self) -> Option<&str> {
        self.special.as_ref()?.upgrade.as_deref()
    }

    /// Whether the client asked to go on in `protocol`.
    pub(super) fn asked_for(&self, protocol: Option<&[u8]>) -> bool {
        match (self.upgrade(), protocol) {
            (Some(asked), Some(protocol)) => asked.as_bytes().eq_ignore_ascii_case(protocol),
            _ => false,
        }
    }

    /// Whether chance decided its version, so that it may be compared. Rules and routes that name a
    /// version choose players, so that versions would differ by who asks.
    pub(super) fn is_by_chance(&self) -> bool {
        matches!(self.decision.by, AssignedBy::Cohort(_) | AssignedBy::Only)
    }

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
/// Nothing is planned if more of the head must be read. Plans are large: each is made where it stays.
pub(super) fn plan(
    client: &Client,
    worker: &Worker,
    out: &mut Buffer,
    planned: &mut Option<Plan>,
) -> Result<(), Box<Rejected>> {
    let snapshot = worker.snapshot();
    let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let count = usize::from(snapshot.limits.header_count).min(MAX_FIELDS);

    // admit
    let mut kinds = NO_KINDS;
    let parsed = parse_request(client.inbox.data(), &mut fields[..count], &mut kinds);
    let Some((mut head, head_bytes)) =
        parsed.map_err(|refusal| Box::new(Rejected::unread(refusal)))?
    else {
        return Ok(());
    };
    if head_bytes as u64 > snapshot.limits.header_bytes.0 {
        return Err(Box::new(too_large(client.inbox.data(), snapshot.limits.header_bytes.0)));
    }
    let counts = matches!(head.method, "OPTIONS" | "TRACE") && snapshot.forwarding.max_forwards;
    let ends_here = counts && head.count_forwards();
    // Behind a trusted proxy each request has a client of its own.
    let forwarded = match &*snapshot.trusted_proxies {
        [] => None,
        trusted => forwarded::read(head.headers, client.connected.address, trusted),
    };
    let (address, address_text) = match &forwarded {
        Some(forwarded) => (forwarded.client, &forwarded.client_text),
        None => (client.connected.address, &client.connected.address_text),
    };
    let view = RequestView {
        method: head.method,
        host: head.host(),
        path: &head.path,
        query: head.query.unwrap_or(""),
        headers: head.headers,
        client: address,
        client_text: address_text.as_bytes(),
    };
    let id = view.header("x-request-id").and_then(RequestId::from_client);
    let id = id.unwrap_or_else(|| RequestId::from_random(fastrand::u128(..)));
    let is_stream = client.stream.is_stream();
    let manner = ResponseMode {
        protocol: match (is_stream, head.http10) {
            (true, _) => Protocol::Http2,
            (false, true) => Protocol::Http10,
            (false, false) => Protocol::Http11,
        },
        grpc: is_stream && view.header("content-type").is_some_and(grpc::is_content_type),
        keep_alive: head.keep_alive,
        head_only: head.method == "HEAD",
        trailers: is_stream || head.trailers,
    };
    let log = log_text(&head, address, &snapshot);
    let named = forwarded.as_ref().map(|forwarded| forwarded.client);
    let in_flight = match InFlight::begin(&client.connected, named, &snapshot) {
        Ok(in_flight) => in_flight,
        Err(problem) => {
            let whole = whole(&head, head_bytes, client.inbox.len());
            return Err(Box::new(Rejected { problem, id: Some(id), manner, whole, log }));
        }
    };

    if ends_here {
        let whole = whole(&head, head_bytes, client.inbox.len());
        let problem = Problem::of_last(head.method);
        return Err(Box::new(Rejected { problem, id: Some(id), manner, whole, log }));
    }

    // route, assign
    let decision = match snapshot.decide(&view) {
        Ok(decision) => decision,
        Err(undecided) => {
            let fault = match undecided {
                NoDecision::NoRoute => ProxyError::NoRoute,
                NoDecision::NoVersion(_) => ProxyError::NoVersion,
            };
            let whole = whole(&head, head_bytes, client.inbox.len());
            let problem = fault.problem();
            return Err(Box::new(Rejected { problem, id: Some(id), manner, whole, log }));
        }
    };

    let service = &snapshot.services[decision.service as usize];
    let version = &service.versions[usize::from(decision.version)];
    if let Err(problem) = breaker::admit(worker, service, version) {
        let whole = whole(&head, head_bytes, client.inbox.len());
        return Err(Box::new(Rejected { problem, id: Some(id), manner, whole, log }));
    }

    // An HTTP/1.0 client may leave the host out; the endpoint needs one.
    let connected = &*client.connected;
    let authority = if head.authority.is_empty() { connected.listener() } else { head.authority };
    let route = &snapshot.routes[decision.route as usize];
    let has_body = head.framing != Framing::Length(0);
    let upgrade = head.upgrade.and_then(|asked| allowed(asked, &route.upgrades, has_body));
    let origin = ForwardingInfo {
        peer: connected.address_text.as_bytes(),
        forwarded: forwarded.as_ref(),
        encrypted: connected.encrypted,
        subject: connected.subject.as_deref(),
        authority,
        id: &id,
        upgrade,
        via: snapshot.forwarding.request_via(manner.protocol as usize),
    };
    write_request(out, &head, &origin);
    let began = Instant::now();
    let timeout = match manner.grpc {
        true => view.header("grpc-timeout").and_then(grpc::timeout),
        false => None,
    };
    let special = match (timeout, upgrade) {
        (None, None) => None,
        _ => Some(Box::new(RareOptions {
            ends_by: timeout.and_then(|timeout| began.checked_add(timeout)),
            upgrade: upgrade.map(Into::into),
        })),
    };
    *planned = Some(Plan {
        decision,
        began,
        special,
        head_bytes,
        framing: match head.framing {
            // On a stream there are no chunks: the body ends with it.
            Framing::Chunked if is_stream => Framing::UntilClose,
            framing => framing,
        },
        expects_continue: head.expects_continue,
        id,
        manner,
        idempotent: is_idempotent(head.method),
        log,
        network: route.evidence.as_ref().filter(|e| e.networks).map(|_| network(address)),
        _in_flight: in_flight,
        snapshot: Rc::clone(&snapshot),
    });
    Ok(())
}

/// The first of the protocols `asked` for that is among those that `may` be gone on in. A WebSocket is opened
/// by a request without a body (RFC 6455 section 4.1).
fn allowed<'b>(asked: &'b [u8], may: &[Box<str>], has_body: bool) -> Option<&'b str> {
    tokens(asked)
        .take(MAX_PROTOCOLS)
        .filter_map(|token| std::str::from_utf8(token).ok())
        .filter(|asked| !has_body || !asked.eq_ignore_ascii_case("websocket"))
        .find(|asked| may.iter().any(|allowed| allowed.eq_ignore_ascii_case(asked)))
}

/// The answer to a head above the limit: the target may be what is too long.
pub(super) fn too_large(bytes: &[u8], limit: u64) -> Rejected {
    let line = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len()) as u64;
    let refusal = if line >= limit {
        super::head::HeadError { status: 414, detail: "the request line is longer than the limit" }
    } else {
        super::head::HeadError { status: 431, detail: "the header is larger than the limit" }
    };
    Rejected::unread(refusal)
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

/// The network of a client, as the comparison tells networks apart: IPv4 /24, IPv6 /48.
fn network(client: IpAddr) -> Player {
    match client {
        IpAddr::V4(client) => Player::of(&client.octets()[..3]),
        IpAddr::V6(client) => Player::of(&client.octets()[..6]),
    }
}

/// Bytes of the request, if all of it is among the `read` ones, so that the next one can follow.
fn whole(head: &RequestHead<'_, '_>, head_bytes: usize, read: usize) -> Option<usize> {
    let Framing::Length(body) = head.framing else { return None };
    let bytes = head_bytes.checked_add(usize::try_from(body).ok()?)?;
    (bytes <= read).then_some(bytes)
}

fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}
