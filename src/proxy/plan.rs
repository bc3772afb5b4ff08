//! What is decided of a request once its head is complete, for the stages that follow.

use std::{mem::MaybeUninit, net::IpAddr, rc::Rc, time::Duration};

use tokio::time::Instant;

use super::{
    admit::admit,
    assign::assign,
    body::Framing,
    buffer::Buffer,
    client::Client,
    grpc,
    head::{Fields, MAX_FIELDS, NO_KINDS, parse_request},
    in_flight::InFlight,
    rejected::{LogText, Rejected},
    render::render,
    response_mode::ResponseMode,
    rewrite::RequestId,
    worker::{Worker, WorkerSnapshot},
};
use crate::{
    policy::class::{Class, is_idempotent},
    registry::Player,
    snapshot::{AssignedBy, Decision, Route, Service, Version},
};

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
    pub(super) mode: ResponseMode,
    pub(super) class: Class,
    /// Sending it twice does what sending it once does.
    pub(super) idempotent: bool,
    pub(super) log: Option<Box<LogText>>,
    /// The client's network, if the comparison asks for it.
    pub(super) network: Option<Player>,
    /// Counts the request until it has ended.
    _in_flight: InFlight,
}

/// Options that few requests have, boxed so that they cost the others nothing.
struct RareOptions {
    /// When the whole call is due, if the client set a deadline.
    ends_by: Option<Instant>,
    /// The protocol that the client would go on in, and may.
    upgrade: Option<Box<str>>,
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

    /// When the whole call is due, if the client set a deadline.
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

    /// The version that the request was assigned to.
    pub(super) fn version(&self) -> &Version {
        &self.service().versions[usize::from(self.decision.version)]
    }
}

/// Plans the request whose head stands in the client's inbox: *admit*, *route*, *assign*, *render*; its head
/// as it goes on is then in `request`. Nothing is planned if more of the head must be read. The head stays in
/// the inbox, so that a request can be planned again. Plans are large: each is made where it stays.
pub(super) fn plan(
    client: &Client,
    worker: &Worker,
    request: &mut Buffer,
    planned: &mut Option<Plan>,
) -> Result<(), Box<Rejected>> {
    let snapshot = worker.snapshot();
    let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let count = usize::from(snapshot.limits.header_count).min(MAX_FIELDS);
    let mut kinds = NO_KINDS;
    let parsed = parse_request(client.inbox.data(), &mut fields[..count], &mut kinds);
    let parsed = parsed.map_err(|refusal| Box::new(Rejected::unread(refusal)))?;
    let Some((mut head, head_bytes)) = parsed else { return Ok(()) };
    let admitted = admit(client, &snapshot, &mut head, head_bytes)?;

    let view = admitted.view(&client.connected);
    let decision = match assign(worker, &snapshot, &view) {
        Ok(decision) => decision,
        Err(problem) => return Err(admitted.reject(problem, client.inbox.len())),
    };

    let route = &snapshot.routes[decision.route as usize];
    let upgrade = render(request, &admitted, &client.connected, &snapshot, route);

    let began = Instant::now();
    let timeout = match admitted.mode.grpc {
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
    let networks = route.evidence.as_ref().filter(|evidence| evidence.networks);
    *planned = Some(Plan {
        decision,
        began,
        special,
        head_bytes: admitted.head_bytes,
        framing: match admitted.head.framing {
            // On a stream there are no chunks: the body ends with it.
            Framing::Chunked if client.stream.is_stream() => Framing::UntilClose,
            framing => framing,
        },
        expects_continue: admitted.head.expects_continue,
        id: admitted.id,
        mode: admitted.mode,
        class: Class::of(admitted.head.method),
        idempotent: is_idempotent(admitted.head.method),
        log: admitted.log,
        network: networks.map(|_| network(admitted.address)),
        _in_flight: admitted.in_flight,
        snapshot: Rc::clone(&snapshot),
    });
    Ok(())
}

/// The network of a client, as the comparison tells networks apart: IPv4 /24, IPv6 /48.
fn network(client: IpAddr) -> Player {
    match client {
        IpAddr::V4(client) => Player::of(&client.octets()[..3]),
        IpAddr::V6(client) => Player::of(&client.octets()[..6]),
    }
}
