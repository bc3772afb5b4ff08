//! Writes heads as they are forwarded: in canonical form, without hop-by-hop fields, with
//! forwarding fields.
//!
//! Heads are written from the parsed form, never copied as bytes, so a form that two servers could
//! read in two ways does not survive the proxy. Fields that belong to one connection, and those
//! that `Connection` names, are dropped both ways (RFC 9110 section 7.6.1). Fields that identify a
//! client are dropped or replaced (`field_kind.rs`) unless a trusted proxy sent them.

use super::{
    body::Framing,
    buffer::Buffer,
    field_kind::{FieldKind, is_one_of},
    forwarded::{Forwarded, chain},
    head::{RequestHead, ResponseHead},
};

/// Most bytes of a client's request id; longer ids are replaced.
const REQUEST_ID_BYTES: usize = 64;

/// The id of a request, from the client or made here.
#[derive(Clone, Copy)]
pub(super) struct RequestId {
    text: [u8; REQUEST_ID_BYTES],
    length: u8,
}

impl RequestId {
    /// The client's id, if it has a form that is safe in logs and headers.
    pub(super) fn from_client(value: &[u8]) -> Option<Self> {
        let safe = |b: &u8| b.is_ascii_alphanumeric() || b"-._:+/=@".contains(b);
        if value.is_empty() || value.len() > REQUEST_ID_BYTES || !value.iter().all(safe) {
            return None;
        }
        let mut text = [0; REQUEST_ID_BYTES];
        text[..value.len()].copy_from_slice(value);
        Some(Self { text, length: value.len() as u8 })
    }

    /// An id of 128 random bits, in hexadecimal.
    pub(super) fn from_random(bits: u128) -> Self {
        let mut text = [0; REQUEST_ID_BYTES];
        for (place, shift) in [96, 64, 32, 0].into_iter().enumerate() {
            text[place * 8..][..8].copy_from_slice(&hexadecimal((bits >> shift) as u32));
        }
        Self { text, length: 32 }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or("")
    }
}

/// The 8 hexadecimal digits of `bits`, in lower case. Written so that each step works on all digits at once.
fn hexadecimal(bits: u32) -> [u8; 8] {
    let bits = u64::from(bits);
    let bits = (bits | bits << 16) & 0x0000_ffff_0000_ffff;
    let bits = (bits | bits << 8) & 0x00ff_00ff_00ff_00ff;
    let digits = (bits | bits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // A byte is 1 where the digit is a letter.
    let letters = ((digits + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    let above_digits = u64::from(b'a' - b'9' - 1);
    (digits + 0x3030_3030_3030_3030 + letters * above_digits).to_be_bytes()
}

/// What an endpoint learns about the client's side.
pub(super) struct ForwardingInfo<'a> {
    /// Address of the request's sender: the client, or a trusted proxy.
    pub(super) peer: &'a [u8],
    /// The client as reported by a trusted peer.
    pub(super) forwarded: Option<&'a Forwarded<'a>>,
    /// The peer speaks TLS.
    pub(super) encrypted: bool,
    /// Subject of the peer's verified certificate.
    pub(super) subject: Option<&'a str>,
    /// The requested host and port.
    pub(super) authority: &'a str,
    /// The request's id.
    pub(super) id: &'a RequestId,
    /// The protocol to which the connection is to switch.
    pub(super) upgrade: Option<&'a str>,
    /// The line with the epoch of the service's fence, if it has one.
    pub(super) epoch: Option<&'a [u8]>,
    /// Fields that the route's policies add, each a line with its end.
    pub(super) added: &'a [u8],
    /// Fields that no client can send, since policies write them.
    pub(super) reserved: &'a [Box<str>],
    /// The proxy's `Via` line; empty if it adds none.
    pub(super) via: &'a [u8],
}

/// Writes `request` as it is sent to an endpoint.
#[inline]
pub(super) fn write_request(
    out: &mut Buffer,
    request: &RequestHead<'_, '_>,
    origin: &ForwardingInfo<'_>,
) {
    out.put_all([request.method.as_bytes(), b" ", request.path.as_bytes()]);
    if let Some(query) = request.query {
        out.put_all([b"?", query.as_bytes()]);
    }
    out.put_all([b" HTTP/1.1\r\nHost: ", origin.authority.as_bytes(), b"\r\n"]);
    for (field, kind) in request.fields() {
        match kind {
            FieldKind::Claim if origin.forwarded.is_none() => continue,
            FieldKind::Other | FieldKind::Date | FieldKind::Claim | FieldKind::ContentLength => {}
            // From a trusted proxy in front, where this one has no fence of its own.
            FieldKind::Epoch if origin.forwarded.is_some() && origin.epoch.is_none() => {}
            FieldKind::Expect
                if request.expects_continue && request.framing != Framing::Length(0) => {}
            _ => continue,
        }
        if !origin.reserved.is_empty() && is_one_of(field.name, origin.reserved) {
            continue;
        }
        put_field(out, field.name, field.value);
    }
    if request.framing.is_open() {
        out.put(b"Transfer-Encoding: chunked\r\n");
    }
    if let Some(protocol) = origin.upgrade {
        out.put(b"Connection: Upgrade\r\n");
        put_field(out, "Upgrade", protocol.as_bytes());
    }
    if let Some(left) = request.max_forwards {
        put_field(out, "Max-Forwards", itoa::Buffer::new().format(left).as_bytes());
    }
    if let Some(epoch) = origin.epoch {
        out.put(epoch);
    }
    if !origin.added.is_empty() {
        out.put(origin.added);
    }
    // After the `Via` fields of earlier proxies.
    out.put(origin.via);
    out.put(b"X-Forwarded-For: ");
    let forwarded = origin.forwarded;
    if forwarded.is_some() {
        for value in chain(request.headers) {
            out.put_all([value, b", "]);
        }
    }
    let scheme = if origin.encrypted { "https" } else { "http" };
    let scheme = forwarded.and_then(|f| f.proto).unwrap_or(scheme).as_bytes();
    let host = forwarded.and_then(|f| f.host).unwrap_or(origin.authority).as_bytes();
    out.put_all([origin.peer, b"\r\nX-Forwarded-Proto: ", scheme, b"\r\nX-Forwarded-Host: ", host]);
    if let Some(subject) = origin.subject {
        out.put_all([b"\r\nX-Client-Cert-Subject: ", subject.as_bytes()]);
    }
    out.put_all([b"\r\nX-Request-Id: ", origin.id.as_bytes(), b"\r\n\r\n"]);
}

/// The `Connection` field of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    /// An HTTP/1.1 client whose connection stays open: no field.
    Implied,
    /// An HTTP/1.0 client whose connection stays open.
    KeepAlive,
    /// The connection is closed after the response.
    Close,
    /// The connection switches to another protocol.
    Upgrade,
}

/// The field that has to be added to mark the end of a response body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delimiter {
    /// None: the length is among the response's fields, or the end of the stream or the connection
    /// ends the body.
    None,
    /// The body is sent in chunks.
    Chunks,
    /// A length of 0.
    Empty,
}

impl Persistence {
    pub(super) fn line(self) -> &'static [u8] {
        match self {
            Self::Implied => b"",
            Self::KeepAlive => b"Connection: keep-alive\r\n",
            Self::Close => b"Connection: close\r\n",
            Self::Upgrade => b"Connection: Upgrade\r\n",
        }
    }
}

/// Writes `response` as it is sent to the client. `date` is given if the response has none: the
/// proxy must add it then (RFC 9110 section 6.6.1). `via` is as in requests.
pub(super) fn write_response(
    out: &mut Buffer,
    response: &ResponseHead<'_, '_>,
    delimiter: Delimiter,
    persistence: Persistence,
    date: Option<&str>,
    via: &[u8],
) {
    put_status(out, response.status, response.reason);
    for (field, kind) in response.fields() {
        match kind {
            kind if kind.is_end_to_end() => {}
            FieldKind::Upgrade if persistence == Persistence::Upgrade => {}
            // 1xx and 204 must not have a length (RFC 9110 section 8.6).
            FieldKind::ContentLength if response.status >= 200 && response.status != 204 => {}
            _ => continue,
        }
        put_field(out, field.name, field.value);
    }
    if let Some(date) = date {
        put_field(out, "Date", date.as_bytes());
    }
    if !via.is_empty() {
        out.put(via);
    }
    match delimiter {
        Delimiter::None => {}
        Delimiter::Chunks => out.put(b"Transfer-Encoding: chunked\r\n"),
        Delimiter::Empty => out.put(b"Content-Length: 0\r\n"),
    }
    out.put(persistence.line());
    out.put(b"\r\n");
}

pub(super) fn put_status(out: &mut Buffer, status: u16, reason: &str) {
    let (mut digits, reason) = (itoa::Buffer::new(), reason.as_bytes());
    out.put_all([b"HTTP/1.1 ", digits.format(status).as_bytes(), b" ", reason, b"\r\n"]);
}

#[inline(always)]
pub(super) fn put_field(out: &mut Buffer, name: &str, value: &[u8]) {
    out.put_all([name.as_bytes(), b": ", value, b"\r\n"]);
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use proptest::prelude::*;

    use super::{
        super::{
            buffer::Blocks,
            forwarded::read,
            head::{Fields, MAX_FIELDS, NO_KINDS, parse_request, parse_response},
        },
        *,
    };

    #[test]
    fn a_request_goes_on_without_what_belonged_to_its_connection() {
        let text = b"POST /v1/bets?x=1 HTTP/1.1\r\nHost: api:80\r\nX-Forwarded-For: 6.6.6.6\r\n\
            Forwarded: for=6.6.6.6\r\nX-Forwarded-Host: evil\r\n\
            Connection: keep-alive, X-Secret\r\nX-Secret: 1\r\nTE: trailers\r\nUpgrade: h2c\r\nKeep-Alive: 5\r\n\
            Proxy-Authorization: x\r\ntraceparent: 00-1-2-01\r\nTransfer-Encoding: chunked\r\nX-Request-Id: bad id\r\n\
            x-forwarded-PROTO: gopher\r\nx-client-cert-SUBJECT: CN=admin\r\nCookie: uid=7\r\n\r\n";
        let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut kinds = NO_KINDS;
        let parsed = parse_request(text, &mut fields, &mut kinds).expect("well formed");
        let (head, _) = parsed.expect("complete");
        let mut out = Blocks::default().take();
        let origin = ForwardingInfo {
            peer: b"10.0.0.9",
            forwarded: None,
            encrypted: true,
            subject: Some("CN=partner-7"),
            authority: head.authority,
            id: &RequestId::from_random(0xabc),
            upgrade: None,
            epoch: None,
            added: b"",
            reserved: &[],
            via: b"Via: 1.1 tidegate\r\n",
        };
        write_request(&mut out, &head, &origin);
        assert_eq!(
            std::str::from_utf8(out.data()).expect("text"),
            "POST /v1/bets?x=1 HTTP/1.1\r\nHost: api:80\r\ntraceparent: 00-1-2-01\r\nCookie: uid=7\r\n\
             Transfer-Encoding: chunked\r\nVia: 1.1 tidegate\r\nX-Forwarded-For: 10.0.0.9\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: api:80\r\nX-Client-Cert-Subject: CN=partner-7\r\nX-Request-Id: 00000000000000000000000000000abc\r\n\r\n"
        );
    }

    #[test]
    fn what_a_trusted_proxy_says_goes_on_with_the_proxy_appended() {
        let text = b"GET / HTTP/1.1\r\nHost: inner\r\nX-Forwarded-For: 6.6.6.6, 192.0.2.7\r\n\
            x-forwarded-for: 10.0.0.8\r\nForwarded: for=192.0.2.7\r\nX-Forwarded-Proto: HTTPS\r\n\
            X-Forwarded-Host: api.example.com\r\n\r\n";
        let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut kinds = NO_KINDS;
        let parsed = parse_request(text, &mut fields, &mut kinds).expect("well formed");
        let (head, _) = parsed.expect("complete");
        let trusted = ["10.0.0.0/8".parse().expect("a network")];
        let forwarded = read(head.headers, [10, 0, 0, 9].into(), &trusted).expect("trusted");
        let mut out = Blocks::default().take();
        let origin = ForwardingInfo {
            peer: b"10.0.0.9",
            forwarded: Some(&forwarded),
            encrypted: false,
            subject: None,
            authority: head.authority,
            id: &RequestId::from_random(0xabc),
            upgrade: None,
            epoch: None,
            added: b"",
            reserved: &[],
            via: b"Via: 1.1 tidegate\r\n",
        };
        write_request(&mut out, &head, &origin);
        assert_eq!(
            std::str::from_utf8(out.data()).expect("text"),
            "GET / HTTP/1.1\r\nHost: inner\r\nForwarded: for=192.0.2.7\r\nVia: 1.1 tidegate\r\n\
             X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.0.0.8, 10.0.0.9\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: api.example.com\r\nX-Request-Id: 00000000000000000000000000000abc\r\n\r\n"
        );
    }

    #[test]
    fn an_answer_goes_on_in_the_clients_framing() {
        let text = b"HTTP/1.1 200 Fine\r\nServer: x\r\nConnection: X-Inner\r\nX-Inner: 1\r\nKeep-Alive: timeout=5\r\n\
            Transfer-Encoding: chunked\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\r\n";
        let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut kinds = NO_KINDS;
        let parsed = parse_response(text, &mut fields, &mut kinds, false).expect("well formed");
        let (head, _) = parsed.expect("complete");
        let mut out = Blocks::default().take();
        write_response(
            &mut out,
            &head,
            Delimiter::Chunks,
            Persistence::Close,
            Some("Thu, 01 Jan 1970 00:00:00 GMT"),
            b"Via: 1.0 edge\r\n",
        );
        assert_eq!(
            std::str::from_utf8(out.data()).expect("text"),
            "HTTP/1.1 200 Fine\r\nServer: x\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\
             Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nVia: 1.0 edge\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        );
    }

    proptest! {
        #[test]
        fn a_random_id_is_its_bits_in_hexadecimal(bits: u128) {
            let id = RequestId::from_random(bits);
            prop_assert_eq!(id.as_str(), format!("{bits:032x}"));
        }
    }

    #[test]
    fn ids_that_could_forge_a_line_are_replaced() {
        assert_eq!(
            RequestId::from_client(b"a-1.b:c").map(|id| id.as_str().to_owned()),
            Some("a-1.b:c".into())
        );
        for unsafe_id in [&b""[..], b"a b", b"a\"b", &[b'x'; 65], b"\xff"] {
            assert!(RequestId::from_client(unsafe_id).is_none());
        }
    }
}
