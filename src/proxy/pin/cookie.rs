//! Pins that clients keep in a signed cookie.

use super::{Assigned, Ends, PinTurn, destination, number};
use crate::{
    proxy::head::ResponseHead,
    registry::PinEvent,
    routing::{
        RequestView, header,
        pin::{Fate, Pin, PinCookie, Said, after_moves},
    },
    snapshot::{PinPlan, Service, Version},
};

/// A pin as its cookie says.
struct Found {
    pin: Pin,
    /// It was moved, or not renewed for a while.
    is_old: bool,
}

/// The version of the pin of `request`. Without a pin it gets the version with index `to`.
pub(super) fn assign(
    (pins, cookie): (&PinPlan, &PinCookie),
    service: &Service,
    request: &RequestView<'_>,
    to: Option<u16>,
) -> Assigned {
    let terms = &pins.rules.terms;
    let now = pins.table.now();
    let mut turn = PinTurn { begins: false, ends: None, renews: None, is_secure: false };
    let begins = PinTurn { begins: pins.rules.begins_cookie(request), ..turn };
    let Some(Found { mut pin, mut is_old }) = found(pins, cookie, service, request, now) else {
        return Assigned { version: None, turn: begins };
    };
    match terms.fate(pin, now, pins.host(pin.version, &service.versions)) {
        Fate::Stays => {}
        Fate::Moves => {
            let to = destination(service, to).and_then(number);
            if let Some(to) = to.filter(|to| *to != pin.version) {
                pins.table.note(PinEvent::Moved);
                (pin.version, is_old) = (to, true);
            }
        }
        ended @ (Fate::Idle | Fate::Limit) => {
            let event = if ended == Fate::Idle { PinEvent::Idle } else { PinEvent::Limit };
            pins.table.note(event);
            return Assigned { version: None, turn: begins };
        }
    }
    let place = pins.place(pin.version);
    let version = place.and_then(|place| service.versions.get(usize::from(place)));
    if let Some(pinned) = version.and_then(|version| version.pinned.as_ref()) {
        pinned.seen_until(terms.last(pin));
    }
    turn.renews = is_old.then_some((pin.version, pin.began));
    turn.ends = pins.rules.may_end(request).then_some(Ends::Cookie);
    Assigned { version: place, turn }
}

/// What the cookie of `request` says, after the moves by operators.
fn found(
    pins: &PinPlan,
    cookie: &PinCookie,
    service: &Service,
    request: &RequestView<'_>,
    now: u32,
) -> Option<Found> {
    let (named, began, renewed, known) = match cookie.read(request) {
        Said::Nothing => return None,
        Said::Forged => {
            pins.table.note(PinEvent::CookieRejected);
            return None;
        }
        Said::Pinned { version, began, renewed, known } => (version, began, renewed, known),
    };
    let after = after_moves(&pins.moves, named, began, known);
    if after != named {
        pins.table.note(PinEvent::Forced);
    }
    let Some(version) = service.version(after).and_then(number) else {
        pins.table.note(PinEvent::CookieRejected);
        return None;
    };
    let terms = &pins.rules.terms;
    let pin = Pin { version, began, used: terms.used_until(renewed) };
    Some(Found { pin, is_old: after != named || terms.renews(renewed, now) })
}

/// The line that the client gets with the response with `head` of `version`.
pub(super) fn answered(
    (pins, cookie): (&PinPlan, &PinCookie),
    turn: PinTurn,
    version: &Version,
    head: &ResponseHead<'_, '_>,
) -> Option<String> {
    if turn.ends.is_some() && pins.rules.ends(head.status, |name| header(head.headers, name)) {
        pins.table.note(PinEvent::Ended);
        return Some(cookie.end_line(turn.is_secure));
    }
    let now = pins.table.now();
    let began = match turn.renews {
        // The version that the pin names has answered, unless the request went elsewhere.
        Some((pinned, began)) if number(version) == Some(pinned) => began,
        None if turn.begins && (200..400).contains(&head.status) => now,
        _ => return None,
    };
    let pin = Pin { version: number(version)?, began, used: now };
    let left = began.saturating_add(pins.rules.terms.limit).saturating_sub(now);
    // Of the snapshot that the request was assigned by: a later move is still to come.
    let known = pins.moves.last().map_or(0, |last| last.order);
    let line = cookie.line(&version.name, pin, known, left.max(1), turn.is_secure)?;
    if turn.renews.is_none() {
        pins.table.note(PinEvent::Begun);
    }
    if let Some(pinned) = &version.pinned {
        let used = pins.rules.terms.used_until(now);
        pinned.seen_until(pins.rules.terms.last(Pin { used, ..pin }));
    }
    Some(line)
}
