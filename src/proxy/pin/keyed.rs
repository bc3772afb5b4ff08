//! Pins by key, in the table of their service.

use std::time::Instant;

use super::{Assigned, Ends, PinTurn, destination, number};
use crate::{
    proxy::head::ResponseHead,
    registry::PinKey,
    routing::{
        RequestView, header,
        matcher::Params,
        pin::{Begins, Pin},
    },
    snapshot::{PinPlan, Service, Version},
};

/// The version of the pin of `request`, to a route with `params`. Without a pin it gets the version with index
/// `to`.
pub(super) fn assign(
    pins: &PinPlan,
    service: &Service,
    (request, params): (&RequestView<'_>, &Params),
    to: Option<u16>,
) -> Assigned {
    let key = pins.rules.key(request, params).map(PinKey::of);
    let begins = pins.rules.begins(request, key.is_some());
    let now = pins.table.now();
    let held = key.and_then(|key| held(pins, service, key, now, to));
    let version = match (held, key, to) {
        (None, Some(key), Some(to)) if begins == Begins::Now => {
            // Another request may have been faster, with another version.
            begin(pins, service, key, to, now).filter(|held| *held != to)
        }
        (held, _, _) => held,
    };
    let is_held = held.is_some() || begins == Begins::Now;
    let ends = key.filter(|_| is_held && pins.rules.may_end(request)).map(Ends::Key);
    let begins = begins == Begins::WhenNamed;
    Assigned { version, turn: PinTurn { begins, ends, renews: None, is_secure: false } }
}

/// The index of the version that the pin of `key` gives, if there is one. If it moves, it goes to the version
/// with index `to`, unless no endpoint works there either.
fn held(pins: &PinPlan, service: &Service, key: PinKey, now: u32, to: Option<u16>) -> Option<u16> {
    let to = destination(service, to).and_then(number);
    let fate =
        |pin: Pin| pins.rules.terms.fate(pin, now, pins.host(pin.version, &service.versions));
    pins.place(pins.table.use_pin(key, now, fate, to)?)
}

/// Pins `key` to the version with this index; returns the index of the version that has it.
fn begin(pins: &PinPlan, service: &Service, key: PinKey, version: u16, now: u32) -> Option<u16> {
    let version = number(&service.versions[usize::from(version)])?;
    let held = pins.table.begin(key, version, now, pins.most);
    if held.is_none()
        && let Some(suppressed) = pins.table.complains(Instant::now())
    {
        tracing::warn!(
            service = &*service.name,
            most = pins.most,
            suppressed,
            "there are as many pins as `pin.most` allows; what begins now is not pinned"
        );
    }
    pins.place(held?)
}

/// Begins or ends pins, as the response with `head` of `version` says.
pub(super) fn answered(
    pins: &PinPlan,
    service: &Service,
    turn: PinTurn,
    version: &Version,
    head: &ResponseHead<'_, '_>,
) {
    let field = |name: &str| header(head.headers, name);
    if turn.begins
        && let Some(key) = pins.rules.named(head.status, field)
        && let Some(place) = service.versions.iter().position(|v| std::ptr::eq(v, version))
    {
        begin(pins, service, PinKey::of(key), place as u16, pins.table.now());
    }
    if let Some(Ends::Key(key)) = turn.ends
        && pins.rules.ends(head.status, field)
    {
        pins.table.end(key);
    }
}
