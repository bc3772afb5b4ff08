//! The stage *admit*: determines the client of a request, and checks the limits.

use std::{cell::OnceCell, net::IpAddr};

use tokio::time::Instant;

use super::{
    body::Framing,
    client::{Client, Connected},
    forwarded::{self, Forwarded},
    grpc,
    head::RequestHead,
    in_flight::InFlight,
    log_text::LogText,
    problem::{Problem, RETRY_AFTER},
    rejected::{Rejected, Routed, Stop},
    response_mode::{Protocol, ResponseMode},
    rewrite::RequestId,
    waiting::Waiting,
    worker::WorkerSnapshot,
};
use crate::{
    routing::{RequestView, header},
    snapshot::Snapshot,
    telemetry::access_log::sampled,
};

/// The response to a request that waits, until it is known how the wait ends.
const GONE: Problem = Problem {
    status: 503,
    kind: "waiting",
    detail: "the request waited and was not sent",
    retry_after: RETRY_AFTER,
};

/// An admitted request. Borrows the client's inbox.
pub(super) struct Admitted<'a, 'b> {
    pub(super) head: &'a RequestHead<'a, 'b>,
    /// Bytes of the head in the client's inbox.
    pub(super) head_bytes: usize,
    /// When the head was complete.
    pub(super) head_at: Instant,
    /// The client, as a trusted proxy reports it.
    pub(super) forwarded: Option<Forwarded<'b>>,
    /// The client's address; behind a trusted proxy it differs from the connection's.
    pub(super) address: IpAddr,
    pub(super) id: RequestId,
    pub(super) mode: ResponseMode,
    pub(super) log: Option<Box<LogText>>,
    /// Counts the request until it has ended.
    pub(super) in_flight: InFlight,
}

impl Admitted<'_, '_> {
    /// The request in the form for routes, rules and cohort keys.
    #[inline(always)]
    pub(super) fn view<'a>(&'a self, connected: &'a Connected) -> RequestView<'a> {
        let head = self.head;
        let client_text = match &self.forwarded {
            Some(forwarded) => &forwarded.client_text,
            None => &connected.address_text,
        };
        RequestView {
            method: head.method,
            host: head.host(),
            path: &head.path,
            query: head.query.unwrap_or(""),
            headers: head.headers,
            client: self.address,
            client_text: client_text.as_bytes(),
            claims: None,
        }
    }

    /// Stops an admitted request that was `routed` there; `read` bytes of it have arrived.
    #[cold]
    pub(super) fn stop(self, stop: Stop, read: usize, routed: Option<Routed>) -> Box<Rejected> {
        let whole = whole(self.head, self.head_bytes, read);
        let bytes_in = arrived(self.head, self.head_bytes, read);
        let head_at = self.head_at;
        let (id, mode, log) = (Some(self.id), self.mode, self.log);
        let (problem, extra, waiting) = match stop {
            Stop::Answer(problem, extra) => (problem, extra, None),
            Stop::Wait(wait) => (GONE, None, Some(Box::new(Waiting::new(wait, self.in_flight)))),
        };
        Box::new(Rejected {
            problem,
            extra,
            id,
            mode,
            whole,
            head_at,
            bytes_in,
            log,
            routed,
            waiting,
        })
    }
}

/// Admits the request of `client` with this `head`, which is the first `head_bytes` of the client's inbox and was complete at
/// `head_at`.
#[inline(always)]
pub(super) fn admit<'a, 'b>(
    client: &Client,
    snapshot: &WorkerSnapshot,
    head: &'a mut RequestHead<'_, 'b>,
    (head_bytes, head_at): (usize, Instant),
) -> Result<Admitted<'a, 'b>, Box<Rejected>> {
    let (read, limit) = (client.inbox.data(), snapshot.limits.header_bytes.0);
    if head_bytes as u64 > limit {
        return Err(Box::new(Rejected::too_large(read, limit)));
    }
    let counts = matches!(head.method, "OPTIONS" | "TRACE") && snapshot.forwarding.max_forwards;
    let ends_here = counts && head.count_forwards();
    let connected = &*client.connected;
    // Behind a trusted proxy each request may have another client.
    let forwarded = match &*snapshot.trusted_proxies {
        [] => None,
        trusted => forwarded::read(head.headers, connected.address, trusted),
    };
    if head.has_disguised || head.has_claims && forwarded.is_none() {
        // What the version does not get must not choose it either.
        head.drop_claims(forwarded.is_some());
    }
    let head = &*head;
    let named = forwarded.as_ref().map(|forwarded| forwarded.client);
    let address = named.unwrap_or(connected.address);
    let header = |name| header(head.headers, name);
    let id = header("x-request-id").and_then(RequestId::from_client);
    let id = id.unwrap_or_else(|| RequestId::from_random(fastrand::u128(..)));
    let is_stream = client.stream.is_stream();
    let mode = ResponseMode {
        protocol: match (is_stream, head.http10) {
            (true, _) => Protocol::Http2,
            (false, true) => Protocol::Http10,
            (false, false) => Protocol::Http11,
        },
        grpc: is_stream && header("content-type").is_some_and(grpc::is_content_type),
        keep_alive: head.keep_alive,
        head_only: head.method == "HEAD",
        trailers: is_stream || head.trailers,
    };
    let log = log_text(head, address, connected, snapshot);
    let in_flight = match InFlight::begin(&client.connected, named, snapshot) {
        Ok(in_flight) => in_flight,
        Err(problem) => {
            let whole = whole(head, head_bytes, read.len());
            let bytes_in = arrived(head, head_bytes, read.len());
            return Err(Box::new(Rejected {
                problem,
                extra: None,
                id: Some(id),
                mode,
                whole,
                head_at,
                bytes_in,
                log,
                routed: None,
                waiting: None,
            }));
        }
    };
    let method = head.method;
    let admitted =
        Admitted { head, head_bytes, head_at, forwarded, address, id, mode, log, in_flight };
    match ends_here {
        true => Err(admitted.stop(Problem::of_last(method).into(), read.len(), None)),
        false => Ok(admitted),
    }
}

fn log_text(
    head: &RequestHead<'_, '_>,
    client: IpAddr,
    connected: &Connected,
    snapshot: &Snapshot,
) -> Option<Box<LogText>> {
    let log = snapshot.access_log.as_ref()?;
    sampled(log.sample, fastrand::u64(..)).then(|| {
        Box::new(LogText {
            client,
            method: head.method.into(),
            host: head.authority.into(),
            // The path of a smoke request may have secrets.
            path: connected.smoke.as_ref().map_or(&*head.path, |smoke| &smoke.path).into(),
            who: Default::default(),
            advised: OnceCell::new(),
            unasked: OnceCell::new(),
        })
    })
}

/// Bytes of the request's body among the `read` ones.
fn arrived(head: &RequestHead<'_, '_>, head_bytes: usize, read: usize) -> u64 {
    let here = read.saturating_sub(head_bytes) as u64;
    match head.framing {
        Framing::Length(body) => body.min(here),
        Framing::Chunked | Framing::UntilClose => here,
    }
}

/// Length of the request in bytes, if all of it is among the `read` ones, so that another request can follow.
fn whole(head: &RequestHead<'_, '_>, head_bytes: usize, read: usize) -> Option<usize> {
    let Framing::Length(body) = head.framing else { return None };
    let bytes = head_bytes.checked_add(usize::try_from(body).ok()?)?;
    (bytes <= read).then_some(bytes)
}
