//! Pins on the path of a request: its version is that of its pin, and its response may begin or end one.
//!
//! Only requests of services with pins come here. What a pin's fate is, and what begins and ends it, is decided
//! by `routing/pin.rs`; the pins are in `registry/pins.rs`, or in a cookie of each client. A pin is begun before
//! the client has the response that names its key, so the client's next request finds it, on any worker.

mod cookie;
mod keyed;

use super::{buffer::Buffer, head::ResponseHead};
use crate::{
    registry::PinKey,
    routing::RequestView,
    snapshot::{AssignedBy, Decision, PinPlan, Service, Snapshot, Version},
};

/// What the response to a request does to pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PinTurn {
    /// It may begin a pin: it names the key, or carries a cookie.
    begins: bool,
    /// It may end the request's pin.
    ends: Option<Ends>,
    /// It carries a new cookie of the request's pin: number of its version in the table, and when it began.
    renews: Option<(u16, u32)>,
    /// The client's connection is encrypted.
    is_secure: bool,
}

impl PinTurn {
    /// Notes whether the client's connection is encrypted.
    pub(super) fn of_client(&mut self, is_secure: bool) {
        self.is_secure = is_secure;
    }
}

/// The pin that a response may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// That of the table with this key.
    Key(PinKey),
    /// That of the client's cookie.
    Cookie,
}

/// What a request of a service with pins gets.
struct Assigned {
    /// Index of the version in the service; `None`: rules and weights decide.
    version: Option<u16>,
    turn: PinTurn,
}

/// The decision for `request`, on the route of this number, with the pins of its service, and what its response may do to them. `decided` is
/// the decision without pins: a route that names a version comes before them, rules and weights come after them.
#[inline(never)]
pub(super) fn assign(
    snapshot: &Snapshot,
    pins: &PinPlan,
    (route, request): (u32, &RequestView<'_>),
    decided: Option<Decision>,
) -> (Option<Decision>, Option<Box<PinTurn>>) {
    if let Some(Decision { by: AssignedBy::Route, .. }) = &decided {
        return (decided, None);
    }
    let compiled = &snapshot.routes[route as usize];
    let service = &snapshot.services[compiled.service as usize];
    let to = decided.map(|decided| decided.version);
    let Assigned { version, turn } = match &pins.cookie {
        Some(cookie) => cookie::assign((pins, cookie), service, request, to),
        None => keyed::assign(pins, service, (request, &compiled.params), to),
    };
    let decision = match version {
        Some(version) => {
            let (by, player) = (AssignedBy::Pin, Default::default());
            let service = compiled.service;
            Some(Decision { route, service, version, by, player, diverted: false })
        }
        None => decided,
    };
    let has_effect = turn.begins || turn.ends.is_some() || turn.renews.is_some();
    (decision, has_effect.then(|| Box::new(turn)))
}

/// Removes the cookie of pins from the head of a request to a version of `service`.
pub(super) fn hide(service: &Service, request: &mut Buffer) {
    let cookie = service.pins.as_ref().and_then(|pins| pins.cookie.as_ref());
    if let Some(without) = cookie.and_then(|cookie| cookie.removed_from(request.data())) {
        request.clear();
        request.put(&without);
    }
}

/// The response of `version` to a request with this `turn` has come: begins or ends pins. Returns the lines that
/// the client is to get beside the response's fields: a cookie.
#[cold]
pub(super) fn answered(
    service: &Service,
    turn: PinTurn,
    version: &Version,
    head: &ResponseHead<'_, '_>,
) -> Vec<u8> {
    let cookie = service.pins.as_deref().and_then(|pins| match &pins.cookie {
        Some(cookie) => cookie::answered((pins, cookie), turn, version, head),
        None => {
            keyed::answered(pins, service, turn, version, head);
            None
        }
    });
    cookie.unwrap_or_default().into_bytes()
}

/// The version with this index in `service`, if an endpoint of it works: pins may move there.
fn destination(service: &Service, index: Option<u16>) -> Option<&Version> {
    let version = index.and_then(|index| service.versions.get(usize::from(index)));
    version.filter(|version| version.works())
}

/// The number of `version` among those that pins name.
fn number(version: &Version) -> Option<u16> {
    version.pinned.as_ref().map(|pinned| pinned.number)
}
