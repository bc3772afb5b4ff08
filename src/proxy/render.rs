//! The stage *render*: writes a request's head in the form for the endpoint. Called again, it replaces the
//! head.

use super::{
    admit::Admitted,
    body::Framing,
    buffer::Buffer,
    client::Connected,
    head::tokens,
    rare::Additions,
    rewrite::{ForwardingInfo, write_request},
};
use crate::snapshot::{Route, Snapshot};

/// Number of protocols of an `Upgrade` that are considered.
const MAX_PROTOCOLS: usize = 16;

/// Writes the head of an `admitted` request on `route` into `request`. Returns the protocol to which the
/// connection may switch, if the client asks for one that the route allows. `epoch` is the line with the epoch
/// of the service's fence, if it has one; `additions` are those of the route's policies.
#[inline(always)]
pub(super) fn render<'b>(
    request: &mut Buffer,
    admitted: &Admitted<'_, 'b>,
    connected: &Connected,
    snapshot: &Snapshot,
    route: &Route,
    (epoch, additions): (Option<&[u8]>, Option<&Additions>),
) -> Option<&'b str> {
    let head = admitted.head;
    // An HTTP/1.0 client may omit the host; the endpoint needs one.
    let authority = if head.authority.is_empty() { connected.listener() } else { head.authority };
    let has_body = head.framing != Framing::Length(0);
    let upgrade = head.upgrade.and_then(|asked| allowed(asked, &route.upgrades, has_body));
    let info = ForwardingInfo {
        peer: connected.address_text.as_bytes(),
        forwarded: admitted.forwarded.as_ref(),
        encrypted: connected.encrypted,
        subject: connected.subject.as_deref(),
        authority,
        id: &admitted.id,
        upgrade,
        epoch,
        added: additions.map_or(&[], |additions| &additions.request),
        reserved: &snapshot.reserved,
        via: match connected.smoke {
            None => snapshot.forwarding.request_via(admitted.mode.protocol as usize),
            Some(_) => snapshot.forwarding.smoke_lines(),
        },
    };
    request.clear();
    write_request(request, head, &info);
    upgrade
}

/// The first of the protocols `asked` for that the route allows (`may`). The handshake of a WebSocket is a
/// request without a body (RFC 6455 section 4.1).
fn allowed<'b>(asked: &'b [u8], may: &[Box<str>], has_body: bool) -> Option<&'b str> {
    tokens(asked)
        .take(MAX_PROTOCOLS)
        .filter_map(|token| std::str::from_utf8(token).ok())
        .filter(|asked| !has_body || !asked.eq_ignore_ascii_case("websocket"))
        .find(|asked| may.iter().any(|allowed| allowed.eq_ignore_ascii_case(asked)))
}
