//! Properties of the parsers that must hold for any input; used by `fuzz/`, and by the tests with
//! the seeds of its corpus.
//!
//! Each function takes bytes and panics if its property does not hold. The form of a forwarded head
//! is implemented here a second time, simply and slowly, as a list of fields: the writer must agree
//! with it, and the parser must find exactly that list in the output. Chunks likewise: a decoder
//! that has all bytes at once is compared with the one that gets them in pieces.

use std::{mem::MaybeUninit, net::IpAddr};

use httparse::Header;

use super::{
    body::{Decoder, Framing, Malformed},
    buffer::Buffer,
    forwarded::{self, Forwarded},
    head::{
        Fields, MAX_FIELDS, NO_KINDS, RequestHead, ResponseHead, parse_request, parse_response,
    },
    proxy_protocol::{self, MAX_HEAD_BYTES},
    rewrite::{Delimiter, ForwardingInfo, Persistence, RequestId, write_request, write_response},
};

/// Fields that belong to one connection (RFC 9110 section 7.6.1), and the framing, which the proxy
/// writes.
const OF_CONNECTION: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields of a request that the proxy writes itself.
const OF_PROXY: &[&str] = &[
    "host",
    "x-client-cert-subject",
    "tidegate-smoke",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Fields of a request that only trusted peers may send, as `docs/http.md` lists them.
const OF_TRUSTED: &[&str] = &[
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "client-cert*",
    "client-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded",
    "ssl-client-*",
    "tidegate-*",
    "true-client-ip",
    "x-amzn-mtls-*",
    "x-appengine-user-ip",
    "x-arr-clientcert",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-client-cert*",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-forwarded",
    "x-forwarded-*",
    "x-original-for",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-proto",
    "x-originating-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-ssl-*",
    "x-tls-client-*",
];

const PEER: [u8; 4] = [10, 0, 0, 9];
const PEER_TEXT: &str = "10.0.0.9";
const NEXT: [u8; 4] = [10, 0, 0, 10];
const DATE: &str = "Thu, 01 Jan 1970 00:00:00 GMT";

/// A field's name and value.
type Field = (String, Vec<u8>);

/// A request's head is rejected, or written with exactly the fields that were parsed; the next
/// proxy finds the same client.
pub fn request_head(input: &[u8]) {
    let (mut fields, mut kinds) = (fields(), NO_KINDS);
    let (head, length) = match parse_request(input, &mut fields, &mut kinds) {
        Ok(Some(found)) => found,
        Ok(None) => return,
        Err(refusal) => return assert!((400..600).contains(&refusal.status)),
    };
    assert!(head.path.starts_with('/') || (head.path == "*" && head.method == "OPTIONS"));
    assert!(head.authority.starts_with(head.host()));
    assert_every_beginning_needs_more(input, length, |bytes| {
        matches!(parse_request(bytes, &mut self::fields(), &mut { NO_KINDS }), Ok(None))
    });
    let trusted = [PEER, NEXT].map(|octets| IpAddr::from(octets).into());
    let read = forwarded::read(head.headers, PEER.into(), &trusted);
    let read = read.expect("the peer is trusted");
    for forwarded in [None, Some(&read)] {
        let authority = if head.authority.is_empty() { "127.0.0.1:80" } else { head.authority };
        let written = written_request(&head, authority, forwarded);
        let (mut again, mut kinds) = (self::fields(), NO_KINDS);
        let (again, length) = parse_request(written.data(), &mut again, &mut kinds)
            .expect("well formed once written")
            .expect("complete once written");
        assert_eq!(length, written.len());
        assert_eq!(
            (again.method, &again.path, again.query, again.authority, again.framing),
            (head.method, &head.path, head.query, authority, head.framing)
        );
        assert!(again.keep_alive && !again.http10);
        assert_eq!(again.expects_continue, sends_expect(&head));
        assert_eq!(owned(again.headers), sent_with_request(&head, authority, forwarded));
        if forwarded.is_some() {
            let next = forwarded::read(again.headers, NEXT.into(), &trusted).expect("trusted");
            assert_eq!(next.client, read.client);
            assert_eq!(next.proto, Some(read.proto.unwrap_or("http")));
            assert_eq!(next.host, Some(read.host.unwrap_or(authority)));
        }
    }
}

fn written_request(
    head: &RequestHead<'_, '_>,
    authority: &str,
    forwarded: Option<&Forwarded<'_>>,
) -> Buffer {
    let mut out = Buffer::hollow();
    let origin = ForwardingInfo {
        peer: PEER_TEXT.as_bytes(),
        forwarded,
        encrypted: false,
        subject: Some("CN=partner-7"),
        authority,
        id: &RequestId::from_random(7),
        upgrade: None,
        epoch: None,
        added: b"",
        reserved: &[],
        via: b"",
    };
    write_request(&mut out, head, &origin);
    out
}

/// `Expect` is forwarded only with a request that has a body.
fn sends_expect(head: &RequestHead<'_, '_>) -> bool {
    head.expects_continue && head.framing != Framing::Length(0)
}

/// The fields that are forwarded with a request, in their order.
fn sent_with_request(
    head: &RequestHead<'_, '_>,
    authority: &str,
    forwarded: Option<&Forwarded<'_>>,
) -> Vec<Field> {
    let mut sent = vec![field("Host", authority)];
    sent.extend(owned(head.headers).into_iter().filter(|(name, _)| {
        match name.to_ascii_lowercase().as_str() {
            "content-length" => true,
            "expect" => sends_expect(head),
            name => {
                let dropped = OF_CONNECTION.contains(&name) || OF_PROXY.contains(&name);
                let read = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
                let is_own = [OF_CONNECTION, OF_PROXY].concat().contains(&&*read);
                let is_claim = OF_TRUSTED.iter().any(|claim| match claim.strip_suffix('*') {
                    Some(prefix) => read.starts_with(prefix),
                    None => read == *claim,
                });
                let is_disguised = read != name && (is_own || is_claim || read == "content-length");
                let is_forged = is_claim && forwarded.is_none();
                !dropped && !is_disguised && !is_forged && !is_named(head.headers, name)
            }
        }
    }));
    if head.framing == Framing::Chunked {
        sent.push(field("Transfer-Encoding", "chunked"));
    }
    let mut chain: Vec<&[u8]> = Vec::new();
    if forwarded.is_some() {
        let values = head.headers.iter().filter(|h| is(h.name, "x-forwarded-for"));
        chain.extend(values.map(|h| h.value).filter(|value| !value.is_empty()));
    }
    chain.push(PEER_TEXT.as_bytes());
    sent.push(("X-Forwarded-For".to_owned(), chain.join(&b", "[..])));
    sent.push(field("X-Forwarded-Proto", forwarded.and_then(|f| f.proto).unwrap_or("http")));
    sent.push(field("X-Forwarded-Host", forwarded.and_then(|f| f.host).unwrap_or(authority)));
    sent.push(field("X-Client-Cert-Subject", "CN=partner-7"));
    sent.push(field("X-Request-Id", &format!("{:032x}", 7)));
    sent
}

/// A response's head is rejected, or written with the fields that were parsed, in a framing that
/// the client understands.
pub fn response_head(input: &[u8]) {
    for head_only in [false, true] {
        let (mut fields, mut kinds) = (fields(), NO_KINDS);
        let (head, length) = match parse_response(input, &mut fields, &mut kinds, head_only) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(_) => continue,
        };
        assert_every_beginning_needs_more(input, length, |bytes| {
            matches!(
                parse_response(bytes, &mut self::fields(), &mut { NO_KINDS }, head_only),
                Ok(None)
            )
        });
        assert!(head.framing != Framing::UntilClose || !head.keep_alive);
        let interim = head.status < 200;
        let endless = matches!(head.framing, Framing::Chunked | Framing::UntilClose);
        for (chunked, persistence) in [
            (endless, Persistence::Implied),
            (endless, Persistence::Close),
            (false, Persistence::KeepAlive),
        ] {
            let date = (!interim && !head.has_date).then_some(DATE);
            let mut out = Buffer::hollow();
            let delimiter = if chunked { Delimiter::Chunks } else { Delimiter::None };
            write_response(&mut out, &head, delimiter, persistence, date, b"");
            let (mut again, mut kinds) = (self::fields(), NO_KINDS);
            let (again, length) = parse_response(out.data(), &mut again, &mut kinds, head_only)
                .expect("well formed once written")
                .expect("complete once written");
            assert_eq!(length, out.len());
            assert_eq!((again.status, again.reason), (head.status, head.reason));
            let framing = match (endless, chunked) {
                (true, true) => Framing::Chunked,
                (true, false) => Framing::UntilClose,
                (false, _) => head.framing,
            };
            assert_eq!(again.framing, framing);
            assert_eq!(owned(again.headers), sent_with_response(&head, chunked, persistence));
        }
    }
}

/// The fields that are forwarded with a response, in their order.
fn sent_with_response(
    head: &ResponseHead<'_, '_>,
    chunked: bool,
    persistence: Persistence,
) -> Vec<Field> {
    let mut sent = owned(head.headers);
    sent.retain(|(name, _)| match name.to_ascii_lowercase().as_str() {
        "content-length" => head.status >= 200 && head.status != 204,
        name => !OF_CONNECTION.contains(&name) && !is_named(head.headers, name),
    });
    if head.status >= 200 && !sent.iter().any(|(name, _)| is(name, "date")) {
        sent.push(field("Date", DATE));
    }
    if chunked {
        sent.push(field("Transfer-Encoding", "chunked"));
    }
    match persistence {
        Persistence::Implied => {}
        Persistence::KeepAlive => sent.push(field("Connection", "keep-alive")),
        Persistence::Close => sent.push(field("Connection", "close")),
        Persistence::Upgrade => sent.push(field("Connection", "Upgrade")),
    }
    sent
}

/// A decoded body does not depend on the pieces in which it arrives, and ends where a decoder that
/// has all of it finds its end.
pub fn chunked_body(input: &[u8]) {
    let whole = decode(Framing::Chunked, input, input.len().max(1));
    for step in [1, 2, 3, 7, 64] {
        assert_eq!(decode(Framing::Chunked, input, step), whole, "in pieces of {step}");
    }
    if let (body, Ok((used, true))) = whole {
        assert_eq!(Some((body, used)), read_chunks(input));
    }
    let half = input.len() / 2;
    for (framing, length, done) in [
        (Framing::Length(half as u64), half, true),
        (Framing::Length(input.len() as u64 + 1), input.len(), false),
        (Framing::UntilClose, input.len(), false),
    ] {
        let (body, end) = decode(framing, input, 5);
        assert_eq!((&body[..], end), (&input[..length], Ok((length, done))));
    }
}

/// Decodes `input` in pieces of `step` bytes. Returns the body, the number of bytes used, and
/// whether the body has ended.
fn decode(
    framing: Framing,
    input: &[u8],
    step: usize,
) -> (Vec<u8>, Result<(usize, bool), Malformed>) {
    let (mut decoder, mut body, mut at, mut end) = (Decoder::new(framing), Vec::new(), 0, 0);
    while !decoder.is_done() {
        let found = match decoder.decode(&input[at..end]) {
            Ok(found) => found,
            Err(malformed) => return (body, Err(malformed)),
        };
        let used = found.skip + found.data;
        assert!(used <= end - at, "more found than given");
        body.extend_from_slice(&input[at + found.skip..at + used]);
        at += used;
        if found.data == 0 && !decoder.is_done() {
            assert_eq!(at, end, "bytes are left undecoded");
            if end == input.len() {
                break;
            }
            end = input.len().min(end + step);
        }
    }
    (body, Ok((at, decoder.is_done())))
}

/// The body of the chunks at the start of `bytes` (RFC 9112 section 7.1) and their length; `None`
/// if they are malformed or incomplete.
fn read_chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let line = |from: usize| {
        let length = bytes[from..].windows(2).position(|w| w == b"\r\n")?;
        Some((std::str::from_utf8(&bytes[from..from + length]).ok(), from + length + 2))
    };
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let end = at + bytes[at..].iter().position(|b| !b.is_ascii_hexdigit())?;
        let digits = std::str::from_utf8(&bytes[at..end]).ok()?;
        let size = usize::from_str_radix(digits, 16).ok()?;
        at = match bytes[end] {
            b';' | b'\r' => line(end)?.1,
            _ => return None,
        };
        if size == 0 {
            break;
        }
        body.extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
        at += size;
        at = bytes[at..].starts_with(b"\r\n").then_some(at + 2)?;
    }
    loop {
        let (text, next) = line(at)?;
        at = next;
        if text == Some("") {
            return Some((body, at));
        }
    }
}

/// The result for a PROXY protocol header does not depend on how many bytes have arrived: until it
/// is known more bytes are needed, and then it does not change.
pub fn proxy_protocol(input: &[u8]) {
    let answer = proxy_protocol::parse(input);
    let decided = match answer {
        Ok(Some((_, length))) => {
            assert!(length <= input.len().min(MAX_HEAD_BYTES));
            assert_eq!(proxy_protocol::parse(&input[..length]), answer);
            length
        }
        Ok(None) => {
            assert!(input.len() < MAX_HEAD_BYTES);
            input.len() + 1
        }
        Err(_) => {
            let refused = |end: &usize| proxy_protocol::parse(&input[..*end]).is_err();
            (0..=input.len()).find(refused).unwrap_or(input.len())
        }
    };
    for end in 0..=input.len() {
        let beginning = proxy_protocol::parse(&input[..end]);
        match answer {
            _ if end < decided => assert_eq!(beginning, Ok(None), "{end} bytes"),
            Ok(_) => assert_eq!(beginning, answer, "{end} bytes"),
            Err(_) => assert!(beginning.is_err(), "{end} bytes"),
        }
    }
}

fn fields<'b>() -> Fields<'b> {
    [const { MaybeUninit::uninit() }; MAX_FIELDS]
}

/// A head of `length` bytes is not taken for a shorter one while it arrives. Checks a sample of its
/// beginnings, including the longest one.
fn assert_every_beginning_needs_more(
    input: &[u8],
    length: usize,
    needs_more: impl Fn(&[u8]) -> bool,
) {
    assert!(length <= input.len());
    for end in (0..length).rev().step_by(1 + length / 16) {
        assert!(needs_more(&input[..end]), "{end} of {length} bytes are enough");
    }
}

/// Whether a `Connection` field of `headers` names the field `name`.
fn is_named(headers: &[Header<'_>], name: &str) -> bool {
    let lists = headers.iter().filter(|h| is(h.name, "connection"));
    lists
        .flat_map(|h| h.value.split(|b| *b == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
}

fn is(name: &str, other: &str) -> bool {
    name.eq_ignore_ascii_case(other)
}

fn field(name: &str, value: &str) -> Field {
    (name.to_owned(), value.as_bytes().to_vec())
}

fn owned(headers: &[Header<'_>]) -> Vec<Field> {
    headers.iter().map(|h| (h.name.to_owned(), h.value.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fuzzing::replay;

    #[test]
    fn seeds_of_heads_and_bodies_keep_what_is_promised() {
        replay("request_head", request_head);
        replay("response_head", response_head);
        replay("chunked_body", chunked_body);
        replay("proxy_protocol", proxy_protocol);
    }
}
