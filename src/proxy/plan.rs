//! The decisions about a request, made when its head is complete, for the stages that follow.

use std::{cell::RefCell, mem::MaybeUninit, net::IpAddr, rc::Rc, time::Duration};

use tokio::time::Instant;

use super::{
    admit::{Admitted, admit},
    assign::{Unassigned, assign},
    begin::{Begin, Place, begin},
    body::Framing,
    buffer::Buffer,
    client::Client,
    grpc,
    head::{Fields, MAX_FIELDS, NO_KINDS, parse_request},
    idempotency::Key,
    in_flight::InFlight,
    keyed,
    log_text::LogText,
    pin::{self, PinTurn},
    places::Places,
    rare::RareOptions,
    rejected::{Rejected, Routed, Stop},
    render::render,
    response_mode::ResponseMode,
    rewrite::RequestId,
    smoke,
    waiting::Passed,
    worker::{Worker, WorkerSnapshot},
};
use crate::{
    policy::class::{Class, is_idempotent, is_repeatable},
    registry::{Origin, Player},
    routing::RequestView,
    snapshot::{AssignedBy, Decision, Route, Service, Version},
};

/// Everything that later stages need; they do not need the head itself.
pub(super) struct Plan {
    pub(super) snapshot: Rc<WorkerSnapshot>,
    pub(super) decision: Decision,
    /// When the head was complete.
    pub(super) head_at: Instant,
    /// When it had waited for all that comes before a version gets it. What a version is judged by begins here.
    pub(super) began: Instant,
    /// Bytes of the head in the client's inbox.
    pub(super) head_bytes: usize,
    pub(super) framing: Framing,
    pub(super) expects_continue: bool,
    rare: Option<Box<RareOptions>>,
    pub(super) id: RequestId,
    pub(super) mode: ResponseMode,
    pub(super) class: Class,
    /// Sending the request twice has the same effect as sending it once.
    pub(super) idempotent: bool,
    pub(super) log: Option<Box<LogText>>,
    /// The client's network, if the comparison needs it.
    pub(super) network: Option<Player>,
    /// Counts the request until it has ended.
    _in_flight: InFlight,
}

impl Plan {
    /// `patience` after `now`, or the deadline of the whole call if that is earlier.
    pub(super) fn until(&self, now: Instant, patience: Duration) -> Instant {
        let until = now + patience;
        match self.ends_by() {
            Some(end) => end.min(until),
            None => until,
        }
    }

    /// The deadline of the whole call, if the client set one.
    pub(super) fn ends_by(&self) -> Option<Instant> {
        self.rare.as_ref()?.ends_by
    }

    /// The protocol to which the client asks to switch, if that is allowed.
    pub(super) fn upgrade(&self) -> Option<&str> {
        self.rare.as_ref()?.upgrade.as_deref()
    }

    /// What the response may do to pins, if anything.
    pub(super) fn pin(&self) -> Option<&PinTurn> {
        self.rare.as_ref()?.pin.as_deref()
    }

    /// Header fields for the client that the route's policies add, each a line with its end.
    pub(super) fn added(&self) -> Option<&[u8]> {
        let lines = &self.rare.as_ref()?.additions.answer;
        (!lines.is_empty()).then_some(lines)
    }

    /// Its idempotency key, which ends with the request; `None` for most requests.
    #[inline]
    pub(super) fn key(&self) -> Option<&Key> {
        self.rare.as_ref()?.key.as_deref()
    }

    /// Its places among the requests in flight, if they are limited.
    #[inline]
    pub(super) fn places(&self) -> Option<&RefCell<Box<Places>>> {
        self.rare.as_ref()?.places.as_ref()
    }

    /// Whether the client asked to switch to `protocol`.
    pub(super) fn asked_for(&self, protocol: Option<&[u8]>) -> bool {
        match (self.upgrade(), protocol) {
            (Some(asked), Some(protocol)) => asked.as_bytes().eq_ignore_ascii_case(protocol),
            _ => false,
        }
    }

    /// Whether the version was assigned at random, so that the request may be compared. Rules and routes that
    /// name a version select players, so versions would differ because of their players.
    pub(super) fn is_by_chance(&self) -> bool {
        matches!(self.decision.by, AssignedBy::Cohort(_) | AssignedBy::Only)
    }

    /// Why the version got the request.
    pub(super) fn origin(&self) -> Origin {
        match self.decision.by {
            AssignedBy::Route | AssignedBy::Rule => Origin::Named,
            _ => Origin::Player,
        }
    }

    /// Whether the request is awaited to its end even if its client leaves: the writes of the service move only
    /// when the version has done with those that it got, and the response to an idempotency key is kept.
    #[cold]
    pub(super) fn is_awaited(&self) -> bool {
        (self.class == Class::Write && self.service().fence.is_some()) || self.key().is_some()
    }

    pub(super) fn route(&self) -> &Route {
        &self.snapshot.routes[self.decision.route as usize]
    }

    pub(super) fn service(&self) -> &Service {
        &self.snapshot.services[self.decision.service as usize]
    }

    /// The index of the counter of its version that counts it in flight.
    #[inline]
    pub(super) fn counter(&self) -> usize {
        self.service().reads.counter(self.class)
    }

    /// The version that the request was assigned to.
    pub(super) fn version(&self) -> &Version {
        &self.service().versions[usize::from(self.decision.version)]
    }
}

/// Plans the request whose head is in the client's inbox: *admit*, *route*, *assign*, *render*. Writes its head
/// for the endpoint into `request`. Leaves `planned` empty if more of the head must be read. The head stays in the
/// inbox, so that the request can be planned again. The plan is built in place, because moving it would be
/// expensive. `passed` is what the request has got before it was planned
/// again.
pub(super) fn plan(
    client: &Client,
    worker: &Worker,
    request: &mut Buffer,
    planned: &mut Option<Plan>,
    passed: &mut Passed,
) -> Result<(), Box<Rejected>> {
    let snapshot = worker.snapshot();
    let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let count = usize::from(snapshot.limits.header_count).min(MAX_FIELDS);
    let mut kinds = NO_KINDS;
    let parsed = parse_request(client.inbox.data(), &mut fields[..count], &mut kinds);
    let parsed = parsed.map_err(|refusal| Box::new(Rejected::unread(refusal)))?;
    let Some((mut head, head_bytes)) = parsed else { return Ok(()) };
    let waits_since = passed.waits_since();
    let head_at = waits_since.unwrap_or_else(Instant::now);
    if passed.changes_head() {
        passed.change(&mut head);
    }
    let admitted = admit(client, &snapshot, &mut head, (head_bytes, head_at))?;

    let view = admitted.view(&client.connected);
    // Two matches rather than one of both results, so that the usual decision stays in registers.
    let (decision, mut rare) = match client.connected.smoke.as_deref() {
        None => match assign(worker, &snapshot, &admitted, &view, passed) {
            Ok(assigned) => assigned,
            Err(Unassigned { route, stop }) => {
                return Err(stopped(admitted, client, (&snapshot, route), stop, passed));
            }
        },
        Some(target) => match smoke::assign(worker, &snapshot, &view, target) {
            Ok(decision) => (decision, None),
            Err(problem) => return Err(admitted.stop(problem.into(), client.inbox.len(), None)),
        },
    };

    let route = &snapshot.routes[decision.route as usize];
    let class = route.class.unwrap_or_else(|| Class::of(admitted.head.method));
    let service = &snapshot.services[decision.service as usize];
    let place = Place { snapshot: &snapshot, route, service, class };
    if place.asks() {
        match begin(worker, place, (&admitted, &view), client, passed, &mut rare) {
            Ok(Begin::Now) => {}
            Ok(Begin::Again) => {
                drop(admitted);
                return plan(client, worker, request, planned, passed);
            }
            Err(stop) => {
                let route = Some(decision.route);
                return Err(stopped(admitted, client, (&snapshot, route), stop, passed));
            }
        }
    }
    if let Some(lines) = passed.lines() {
        let additions = &mut rare.get_or_insert_default().additions;
        additions.request.extend_from_slice(&lines);
    }
    // A smoke check must not show the epoch of the writer to a version that is not the writer.
    let knows = |_: &&crate::snapshot::Fence| {
        client.connected.smoke.is_none() || service.has_share(decision.version)
    };
    let epoch = service.fence.as_deref().filter(knows).map(|fence| &*fence.line);
    let additions = rare.as_ref().map(|rare| &rare.additions);
    let connected = &client.connected;
    let upgrade =
        render(request, &admitted, connected, &snapshot, route, (epoch, additions)).map(Into::into);
    if upgrade.is_some() {
        rare.get_or_insert_default().upgrade = upgrade;
    }
    let method = admitted.head.method;
    let mut idempotent = is_idempotent(method) && is_repeatable(method, class);
    if let Some(rare) = &mut rare {
        if rare.key.is_some() {
            idempotent = false;
            if let Framing::Length(length) = admitted.head.framing {
                // The policy bounds it.
                request.reserve(length as usize);
            }
        }
        if let Some(turn) = &mut rare.pin {
            turn.of_client(connected.encrypted);
        }
    }
    if service.pins.is_some() {
        pin::hide(service, request);
    }

    // What is asked takes time, which is none of the version's.
    let is_late = place.asks() || snapshot.routing_issuer.is_some() || waits_since.is_some();
    let began = if is_late { Instant::now() } else { head_at };
    if admitted.mode.grpc
        && let Some(timeout) = view.header("grpc-timeout").and_then(grpc::timeout)
    {
        rare.get_or_insert_default().ends_by = began.checked_add(timeout);
    }
    if let Some(log) = &admitted.log {
        let view = RequestView { claims: passed.claims.as_deref(), ..view };
        let key = rare.as_ref().and_then(|rare| rare.key.as_deref());
        log.note(service.cohort.key(&view, &route.params), key.map(Key::logged));
    }
    let networks = route.evidence.as_ref().filter(|evidence| evidence.networks);
    *planned = Some(Plan {
        decision,
        head_at,
        began,
        rare,
        head_bytes: admitted.head_bytes,
        framing: client.stream.framing(admitted.head.framing),
        expects_continue: admitted.head.expects_continue,
        id: admitted.id,
        mode: admitted.mode,
        class,
        idempotent,
        log: admitted.log,
        network: networks.map(|_| network(admitted.address)),
        _in_flight: admitted.in_flight,
        snapshot: Rc::clone(&snapshot),
    });
    Ok(())
}

/// Stops the request that was `admitted`, and routed by the snapshot if it has a route.
#[cold]
fn stopped(
    admitted: Admitted<'_, '_>,
    client: &Client,
    (snapshot, route): (&Rc<WorkerSnapshot>, Option<u32>),
    stop: Stop,
    passed: &Passed,
) -> Box<Rejected> {
    let routed = route.map(|route| Routed { snapshot: Rc::clone(snapshot), route });
    if let (Some(routed), Some(log), None) = (&routed, &admitted.log, &client.connected.smoke) {
        let view = admitted.view(&client.connected);
        let view = RequestView { claims: passed.claims.as_deref(), ..view };
        let (route, service) = (routed.route(), routed.service());
        let key = keyed::logged((route, service), (&admitted, &view));
        log.note(service.cohort.key(&view, &route.params), key);
    }
    admitted.stop(stop, client.inbox.len(), routed)
}

/// The network of a client, as the comparison distinguishes networks: IPv4 /24, IPv6 /48.
fn network(client: IpAddr) -> Player {
    match client {
        IpAddr::V4(client) => Player::of(&client.octets()[..3]),
        IpAddr::V6(client) => Player::of(&client.octets()[..6]),
    }
}
