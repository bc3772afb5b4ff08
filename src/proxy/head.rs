//! Heads of HTTP/1 messages: one reading of each, or none.
//!
//! `httparse` finds the lines (it refuses obs-fold, white space before a colon, control bytes and bare
//! CR). What a head *means* is decided here, once, for every later stage: where the body ends, which
//! host was asked, whether the connection stays. What two readers could understand in two ways is
//! refused, never repaired by guessing (RFC 9112 sections 3.2, 6.1 and 6.3; RFC 9110 section 5.3).

use std::{borrow::Cow, mem::MaybeUninit};

use httparse::Header;

use super::{
    body::Framing,
    known::{Known, known, known_of_client},
};
use crate::routing::path;

/// Most header fields that a head may have, whatever is configured.
pub(super) const MAX_FIELDS: usize = 256;

/// Most fields of an answer. Few have more than [`MAX_FIELDS`]; space for them is made when it is needed.
pub(super) const MANY_FIELDS: usize = 4096;

/// Space for the fields of one head; costs nothing until it is filled.
pub(super) type Fields<'b> = [MaybeUninit<Header<'b>>; MAX_FIELDS];

/// What the fields of one head are, found once and used when the head is written anew. Any value is a good
/// start.
pub(super) type Kinds = [Known; MAX_FIELDS];

/// Space for the kinds of one head.
pub(super) const NO_KINDS: Kinds = [Known::Other; MAX_FIELDS];

/// Most options of all `Connection` fields of a head. What is usual has one or two; each further one is
/// looked for among all fields.
const MAX_OPTIONS: usize = 64;

/// A request's head, borrowed from the bytes that came in.
#[derive(Debug)]
pub(super) struct RequestHead<'h, 'b> {
    pub(super) method: &'b str,
    /// The path of the target in its one form, or `*`.
    pub(super) path: Cow<'b, str>,
    /// The query without its `?`.
    pub(super) query: Option<&'b str>,
    /// Host and port as asked; empty for an HTTP/1.0 request without one.
    pub(super) authority: &'b str,
    pub(super) http10: bool,
    pub(super) headers: &'h [Header<'b>],
    kinds: &'h mut [Known],
    pub(super) framing: Framing,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    /// The client keeps the connection.
    pub(super) keep_alive: bool,
    /// The client takes fields that follow a body (RFC 9110 section 10.1.4).
    pub(super) trailers: bool,
    /// The protocols that the client would go on in, where it may ask so (RFC 9110 section 7.8).
    pub(super) upgrade: Option<&'b [u8]>,
    /// What is left of `Max-Forwards`, once it was counted down.
    pub(super) max_forwards: Option<u32>,
}

impl<'b> RequestHead<'_, 'b> {
    /// The fields, each with which it is.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&Header<'b>, Known)> {
        self.headers.iter().zip(self.kinds.iter().copied())
    }

    /// The host without its port, and without the dot of the root behind it.
    pub(super) fn host(&self) -> &'b str {
        if self.authority.starts_with('[') {
            return self.authority.split_inclusive(']').next().unwrap_or("");
        }
        let host = split_at_byte(self.authority, b':').0;
        host.strip_suffix('.').unwrap_or(host)
    }

    /// Counts `Max-Forwards` down; true if it is 0, so that the request ends here (RFC 9110 section 7.6.2).
    /// What is no number is passed on as any other field.
    pub(super) fn count_forwards(&mut self) -> bool {
        let is_it = |h: &Header<'_>| h.name.eq_ignore_ascii_case("max-forwards");
        let Some(at) = self.headers.iter().position(is_it) else { return false };
        let text = std::str::from_utf8(self.headers[at].value).unwrap_or("");
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return false;
        }
        let left = text.parse().unwrap_or(u32::MAX).checked_sub(1);
        self.kinds[at] = Known::HopByHop;
        self.max_forwards = left;
        left.is_none()
    }
}

/// Why a head is refused, with what the client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) detail: &'static str,
}

const fn bad(detail: &'static str) -> Refusal {
    Refusal { status: 400, detail }
}

/// Reads the request head at the start of `bytes`: the head and its length, nothing if more bytes are
/// needed, or why it is refused. There are as many `kinds` as `fields`, or more.
pub(super) fn parse_request<'h, 'b>(
    bytes: &'b [u8],
    fields: &'h mut [MaybeUninit<Header<'b>>],
    kinds: &'h mut [Known],
) -> Result<Option<(RequestHead<'h, 'b>, usize)>, Refusal> {
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(refuse(error)),
    };
    let (method, target) = (request.method.unwrap_or(""), request.path.unwrap_or(""));
    let http10 = request.version == Some(0);
    let headers: &'h [Header<'b>] = request.headers;
    let mut head = RequestHead {
        method,
        path: Cow::Borrowed(target),
        query: None,
        authority: "",
        http10,
        headers,
        kinds: &mut kinds[..headers.len()],
        framing: Framing::Length(0),
        expects_continue: false,
        keep_alive: false,
        trailers: false,
        upgrade: None,
        max_forwards: None,
    };
    let mut framing = FramingFields::default();
    let (mut host, mut options) = (None, Options::default());
    for (field, kind) in headers.iter().zip(&mut *head.kinds) {
        *kind = known_of_client(field.name);
        match *kind {
            Known::Host if host.is_some() => return Err(bad("more than one Host field")),
            Known::Host => host = Some(parse_authority(field.value)?),
            Known::ContentLength => framing.length(field.value)?,
            Known::TransferEncoding => framing.coding(field.value)?,
            Known::Connection => options.read(field.value)?,
            // Several fields are one list; the protocols that pass are those of a single one.
            Known::Upgrade => head.upgrade = Some(field.value),
            Known::Te => {
                let mut wanted = tokens(field.value);
                head.trailers |=
                    !http10 && wanted.any(|token| token.eq_ignore_ascii_case(b"trailers"));
            }
            Known::Expect => {
                if !field.value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal {
                        status: 417,
                        detail: "only 100-continue can be expected",
                    });
                }
                head.expects_continue = !http10;
            }
            _ => {}
        }
    }
    if http10 && framing.chunked {
        return Err(bad("Transfer-Encoding in an HTTP/1.0 request"));
    }
    head.framing = framing.resolve()?.unwrap_or(Framing::Length(0));
    // Close wins where both are named.
    head.keep_alive = !options.close && (!http10 || options.keep_alive);
    if !options.upgrade || http10 {
        head.upgrade = None;
    }
    if options.names_fields {
        drop_named(headers, head.kinds, &READ_IN_REQUESTS);
    }
    if host.is_none() && !http10 {
        return Err(bad("no Host field"));
    }
    head.authority = host.unwrap_or("");
    head.split_target(target)?;
    Ok(Some((head, length)))
}

/// What the `Connection` fields of a head say.
#[derive(Default)]
struct Options {
    count: usize,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    /// Fields are named beside the usual options; they are not passed on.
    names_fields: bool,
}

impl Options {
    fn read(&mut self, value: &[u8]) -> Result<(), Refusal> {
        // What most servers say, at a tenth of the cost.
        if value == b"keep-alive" {
            self.keep_alive = true;
            return Ok(());
        }
        for option in tokens(value) {
            self.count += 1;
            if self.count > MAX_OPTIONS {
                return Err(Refusal { status: 431, detail: "Connection has more than 64 options" });
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                self.names_fields = true;
            }
        }
        Ok(())
    }
}

/// Fields that the proxy reads in answers, or in requests: who names them in `Connection` changes nothing.
const READ_IN_ANSWERS: [Known; 4] =
    [Known::ContentLength, Known::TransferEncoding, Known::Connection, Known::Upgrade];
const READ_IN_REQUESTS: [Known; 6] = [
    Known::ContentLength,
    Known::TransferEncoding,
    Known::Connection,
    Known::Upgrade,
    Known::Host,
    Known::Expect,
];

/// Has the fields that `Connection` names not passed on, except for those of the kinds `but`.
#[cold]
fn drop_named(headers: &[Header<'_>], kinds: &mut [Known], but: &[Known]) {
    for (n, list) in headers.iter().enumerate() {
        if kinds[n] != Known::Connection {
            continue;
        }
        for option in tokens(list.value) {
            for (field, kind) in headers.iter().zip(&mut *kinds) {
                if field.name.as_bytes().eq_ignore_ascii_case(option) && !but.contains(kind) {
                    *kind = Known::HopByHop;
                }
            }
        }
    }
}

impl<'b> RequestHead<'_, 'b> {
    /// Takes the target apart (RFC 9112 section 3.2).
    fn split_target(&mut self, target: &'b str) -> Result<(), Refusal> {
        if self.method == "CONNECT" {
            return Err(Refusal { status: 501, detail: "CONNECT is not offered" });
        }
        // Nearly every target is a path in its one form.
        if target.starts_with('/') && target.bytes().all(|b| PLAIN_BYTE[usize::from(b)]) {
            self.path = Cow::Borrowed(target);
            return Ok(());
        }
        if target.bytes().any(|b| !b.is_ascii_graphic() || b == b'#') {
            return Err(bad("the target has a fragment or bytes that are not visible ASCII"));
        }
        let path = match target.strip_prefix('/') {
            Some(_) => target,
            None if target == "*" && self.method == "OPTIONS" => target,
            None => self.absolute(target)?,
        };
        let (path, query) = split_at_byte(path, b'?');
        self.query = query;
        self.path = match path {
            "*" => Cow::Borrowed(path),
            path => path::normalize(path).map_err(|why| bad(why.detail()))?,
        };
        Ok(())
    }

    /// The path of an absolute-form target, whose authority must be the Host field's.
    fn absolute(&mut self, target: &'b str) -> Result<&'b str, Refusal> {
        let rest = strip_prefix_ignore_case(target, "http://")
            .or_else(|| strip_prefix_ignore_case(target, "https://"))
            .ok_or(bad("the target is neither a path nor an http address"))?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let authority = parse_authority(authority.as_bytes())?;
        if authority.is_empty() {
            return Err(bad("the target names no host"));
        }
        if !self.authority.is_empty() && !authority.eq_ignore_ascii_case(self.authority) {
            return Err(bad("the target's host is not the Host field's"));
        }
        self.authority = authority;
        match path {
            // RFC 9112 section 3.2.4.
            "" if self.method == "OPTIONS" => Ok("*"),
            "" => Ok("/"),
            path if path.starts_with('/') => Ok(path),
            _ => Err(bad("the target has a query without a path")),
        }
    }
}

/// Bytes that mean nothing in a target but themselves.
const PLAIN_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] =
            byte.is_ascii_graphic() && !matches!(byte, b'#' | b'?' | b'%' | b'\\' | b'.');
        byte += 1;
    }
    table
};

/// `text` before and after the first `byte`, which is ASCII. `str::split_once` searches a `char`, at
/// several times the cost for texts as short as these.
fn split_at_byte(text: &str, byte: u8) -> (&str, Option<&str>) {
    match text.bytes().position(|b| b == byte) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Bytes that a name or an address of version 4 may have here: fewer than RFC 3986 section 3.2.2 allows.
const HOST_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$');
        byte += 1;
    }
    table
};

/// A host with an optional port (RFC 9110 section 7.2), or nothing.
pub(super) fn parse_authority(value: &[u8]) -> Result<&str, Refusal> {
    let is_port = |port: &[u8]| port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    let is_end = |rest: &[u8]| match rest {
        [b':', port @ ..] => is_port(port),
        rest => rest.is_empty(),
    };
    let well_formed = match value {
        [b'[', rest @ ..] => {
            let inside = |b: &u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
            let length = rest.iter().take_while(|b| inside(b)).count();
            length > 0 && rest[length..].strip_prefix(b"]").is_some_and(is_end)
        }
        name => {
            let other = name.iter().position(|b| !HOST_BYTE[usize::from(*b)]);
            let length = other.unwrap_or(name.len());
            (length > 0 || name.is_empty()) && is_end(&name[length..])
        }
    };
    let text = std::str::from_utf8(value).ok().filter(|_| well_formed);
    text.ok_or(bad("the host is not a name or an address with an optional port"))
}

fn refuse(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => {
            Refusal { status: 431, detail: "too many header fields" }
        }
        httparse::Error::Version => {
            Refusal { status: 505, detail: "only HTTP/1.0 and HTTP/1.1 are spoken" }
        }
        httparse::Error::HeaderName => bad("a header field's name is malformed"),
        httparse::Error::HeaderValue => bad("a header field's value is malformed"),
        httparse::Error::NewLine => bad("a line does not end as it should"),
        httparse::Error::Token => bad("the request line is malformed"),
        httparse::Error::Status => bad("the status line is malformed"),
    }
}

/// An answer's head, borrowed from the bytes that came in.
#[derive(Debug)]
pub(super) struct ResponseHead<'h, 'b> {
    pub(super) status: u16,
    pub(super) reason: &'b str,
    pub(super) headers: &'h [Header<'b>],
    kinds: &'h mut [Known],
    pub(super) framing: Framing,
    pub(super) http10: bool,
    /// The endpoint keeps the connection.
    pub(super) keep_alive: bool,
    /// Seconds that it keeps it, by its `Keep-Alive` field.
    pub(super) keep_alive_seconds: Option<u32>,
    /// There is a `Date`, and `Connection` does not name it: it goes on.
    pub(super) has_date: bool,
    /// The protocol that a 101 goes on in.
    pub(super) upgrade: Option<&'b [u8]>,
}

impl<'b> ResponseHead<'_, 'b> {
    /// The fields, each with which it is.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&Header<'b>, Known)> {
        self.headers.iter().zip(self.kinds.iter().copied())
    }

    /// Whether its body is server-sent events. Asked only of what has no length: one that has ends.
    pub(super) fn is_event_stream(&self) -> bool {
        let types = self.headers.iter().filter(|f| f.name.eq_ignore_ascii_case("content-type"));
        !matches!(self.framing, Framing::Length(_))
            && types.into_iter().any(|f| is_event_stream(f.value))
    }

    /// The fields that the proxy only passes on, to be read, and made such that are not
    /// passed on.
    pub(super) fn others(&mut self) -> impl Iterator<Item = (&Header<'b>, &mut Known)> {
        let all = self.headers.iter().zip(&mut *self.kinds);
        all.filter(|(_, kind)| **kind == Known::Other)
    }
}

/// Why the head of an answer is not understood; always the endpoint's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadAnswer {
    /// There are more fields than there is space for.
    ManyFields,
    /// The text says why.
    Malformed(&'static str),
}

impl From<Refusal> for BadAnswer {
    fn from(refusal: Refusal) -> Self {
        Self::Malformed(refusal.detail)
    }
}

/// Reads the answer head at the start of `bytes`, as [`parse_request`] does; `head_only` tells that the
/// request was HEAD.
pub(super) fn parse_response<'h, 'b>(
    bytes: &'b [u8],
    fields: &'h mut [MaybeUninit<Header<'b>>],
    kinds: &'h mut [Known],
    head_only: bool,
) -> Result<Option<(ResponseHead<'h, 'b>, usize)>, BadAnswer> {
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut response, bytes, fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(BadAnswer::ManyFields),
        Err(_) => return Err(BadAnswer::Malformed("the head of the answer is malformed")),
    };
    let status = response.code.unwrap_or(0);
    if !(100..=999).contains(&status) {
        return Err(BadAnswer::Malformed("the status of the answer is out of range"));
    }
    let headers: &'h [Header<'b>] = response.headers;
    let mut head = ResponseHead {
        status,
        reason: response.reason.unwrap_or(""),
        headers,
        kinds: &mut kinds[..headers.len()],
        framing: Framing::UntilClose,
        http10: response.version == Some(0),
        keep_alive: false,
        keep_alive_seconds: None,
        has_date: false,
        upgrade: None,
    };
    let (mut framing, mut options) = (FramingFields::default(), Options::default());
    for (field, kind) in headers.iter().zip(&mut *head.kinds) {
        *kind = known(field.name);
        match *kind {
            Known::ContentLength => framing.length(field.value)?,
            Known::TransferEncoding => framing.coding(field.value)?,
            Known::Connection => options.read(field.value)?,
            Known::KeepAlive => head.keep_alive_seconds = keep_alive_seconds(field.value),
            Known::Date => head.has_date = true,
            Known::Upgrade => head.upgrade = Some(field.value),
            _ => {}
        }
    }
    if options.names_fields {
        drop_named(headers, head.kinds, &READ_IN_ANSWERS);
        head.has_date = head.kinds.contains(&Known::Date);
    }
    let framing = framing.resolve()?;
    // RFC 9112 section 6.3: these have no body, whatever their fields say.
    let bodiless = head_only || status < 200 || status == 204 || status == 304;
    head.framing =
        if bodiless { Framing::Length(0) } else { framing.unwrap_or(Framing::UntilClose) };
    head.keep_alive = !head.http10 && !options.close && head.framing != Framing::UntilClose;
    Ok(Some((head, length)))
}

/// Whether a media type is that of server-sent events.
fn is_event_stream(value: &[u8]) -> bool {
    const NAME: &[u8] = b"text/event-stream";
    value.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME))
}

/// `timeout=5, max=100` (RFC 2068 section 19.7.1.1, still sent by common servers).
fn keep_alive_seconds(value: &[u8]) -> Option<u32> {
    tokens(value).take(MAX_OPTIONS).find_map(|parameter| {
        let text = std::str::from_utf8(parameter).ok()?;
        let seconds = strip_prefix_ignore_case(text, "timeout=")?;
        seconds.trim().parse().ok()
    })
}

/// The parts of a comma-separated list, trimmed, none empty.
pub(super) fn tokens(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|t| !t.is_empty())
}

/// What the fields say of a body's end, while they are read.
#[derive(Default)]
struct FramingFields {
    length: Option<u64>,
    chunked: bool,
}

impl FramingFields {
    fn length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        // Digits only: a sign, a list or white space inside is read differently by different servers.
        if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
            return Err(bad("Content-Length is not a number of bytes"));
        }
        let length = value.iter().fold(0u64, |n, d| n * 10 + u64::from(d - b'0'));
        if self.length.replace(length).is_some() {
            return Err(bad("more than one Content-Length field"));
        }
        Ok(())
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal {
                status: 501,
                detail: "the only transfer coding understood is a single chunked",
            });
        }
        self.chunked = true;
        Ok(())
    }

    fn resolve(self) -> Result<Option<Framing>, Refusal> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(bad("both Content-Length and Transfer-Encoding")),
            (Some(length), false) => Ok(Some(Framing::Length(length))),
            (None, true) => Ok(Some(Framing::Chunked)),
            (None, false) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<'b>() -> Fields<'b> {
        [const { MaybeUninit::uninit() }; MAX_FIELDS]
    }

    fn refused(text: &str) -> u16 {
        match parse_request(text.as_bytes(), &mut fields(), &mut { NO_KINDS }) {
            Err(refusal) => refusal.status,
            Ok(head) => panic!("{text:?} gave {head:?}"),
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let get = |rest: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{rest}\r\n\r\n");
        for (status, text) in [
            (400, "GET / HTTP/1.1\r\n\r\n".into()),
            (400, get("Host: b")),
            (400, get("Host: a")),
            (400, get("Content-Length: 1\r\nContent-Length: 1")),
            (400, get("Content-Length: 1\r\nContent-Length: 2")),
            (400, get("Content-Length: 1, 1")),
            (400, get("Content-Length: +1")),
            (400, get("Content-Length: 0x1")),
            (400, get("Content-Length:")),
            (400, get("Content-Length: 99999999999999999999")),
            (400, get("Content-Length: 1\r\nTransfer-Encoding: chunked")),
            (501, get("Transfer-Encoding: gzip, chunked")),
            (501, get("Transfer-Encoding: chunked, chunked")),
            (501, get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked")),
            (501, get("Transfer-Encoding: xchunked")),
            (400, get("X : y")),
            (400, get("X: y\r\n z")),
            (400, get("X: a\rb")),
            (400, get("X: a\0b")),
            (400, get("X\0: a")),
            (417, get("Expect: more")),
            (400, "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into()),
            (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n".into()),
            (400, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".into()),
            (400, "GET /é HTTP/1.1\r\nHost: a\r\n\r\n".into()),
            (400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n".into()),
            (400, "GET /a/..%2fb HTTP/1.1\r\nHost: a\r\n\r\n".into()),
            (400, "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n".into()),
            (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n".into()),
            (400, "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".into()),
            (400, "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n".into()),
            (400, "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n".into()),
            (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into()),
            (400, "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n".into()),
            (400, "GET / HTTP/1.1\r\nHost: :80\r\n\r\n".into()),
            (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into()),
            (501, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".into()),
            (400, "\x16\x03\x01\x02\0".into()),
        ] {
            assert_eq!(refused(&text), status, "{text:?}");
        }
    }

    #[test]
    fn a_request_is_read_once_for_all() {
        let text = b"POST http://API.example.com:8080/v1/bets?x=1 HTTP/1.1\r\nHost: api.example.com:8080\r\n\
            Content-Length: 12\r\nConnection: close, X-Secret\r\nExpect: 100-Continue\r\n\r\nrest";
        let (mut fields, mut kinds) = (fields(), NO_KINDS);
        let parsed = parse_request(text, &mut fields, &mut kinds).expect("well formed");
        let (head, length) = parsed.expect("complete");
        assert_eq!((&*head.path, head.query), ("/v1/bets", Some("x=1")));
        assert_eq!((head.authority, head.host()), ("API.example.com:8080", "API.example.com"));
        assert_eq!(head.framing, Framing::Length(12));
        assert!(head.expects_continue && !head.keep_alive && !head.http10);
        assert_eq!(&text[length..], b"rest");
    }

    #[test]
    fn a_host_with_the_dot_of_the_root_is_that_host() {
        for (host, expected) in [
            ("api.example.", "api.example"),
            ("api.example.:8080", "api.example"),
            ("api.example:8080", "api.example"),
            ("[::1]:80", "[::1]"),
            (".", ""),
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let (mut fields, mut kinds) = (fields(), NO_KINDS);
            let head = parse_request(text.as_bytes(), &mut fields, &mut kinds);
            let (head, _) = head.expect("well formed").expect("complete");
            assert_eq!((head.host(), head.authority), (expected, host));
        }
    }

    #[test]
    fn forwards_are_counted_down_to_the_last() {
        for (value, ends, left) in [
            ("0", true, None),
            ("00", true, None),
            ("1", false, Some(0)),
            ("10", false, Some(9)),
            ("99999999999", false, Some(u32::MAX - 1)),
            ("-1", false, None),
            ("", false, None),
            ("1, 2", false, None),
        ] {
            let text = format!("TRACE / HTTP/1.1\r\nHost: a\r\nMAX-Forwards: {value}\r\n\r\n");
            let (mut fields, mut kinds) = (fields(), NO_KINDS);
            let head = parse_request(text.as_bytes(), &mut fields, &mut kinds);
            let (mut head, _) = head.expect("well formed").expect("complete");
            assert_eq!((head.count_forwards(), head.max_forwards), (ends, left), "{value:?}");
            let passes =
                head.fields().any(|(f, kind)| f.name == "MAX-Forwards" && kind == Known::Other);
            assert_eq!(passes, !ends && left.is_none(), "{value:?}");
        }
    }

    #[test]
    fn older_clients_keep_the_connection_only_if_they_say_so() {
        let keeps = |text: &str| {
            let (mut fields, mut kinds) = (fields(), NO_KINDS);
            let head = parse_request(text.as_bytes(), &mut fields, &mut kinds);
            let head = head.expect("well formed");
            head.expect("complete").0.keep_alive
        };
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.1\r\nHost: a\r\nConnection: CLOSE\r\n\r\n"));
    }

    #[test]
    fn an_answer_ends_where_the_standard_says() {
        let framing = |text: &str, head_only| {
            let (mut fields, mut kinds) = (fields(), NO_KINDS);
            parse_response(text.as_bytes(), &mut fields, &mut kinds, head_only)
                .map(|head| head.map(|(h, _)| (h.status, h.framing, h.keep_alive)))
        };
        let ok = |status, framing, keep| Ok(Some((status, framing, keep)));
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ok(200, Framing::Length(5), true)),
            (
                "HTTP/1.1 200\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
                ok(200, Framing::Length(5), false),
            ),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", ok(200, Framing::Length(5), false)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n",
                ok(200, Framing::Chunked, true),
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", ok(200, Framing::UntilClose, false)),
            (
                "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                ok(204, Framing::Length(0), true),
            ),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                ok(304, Framing::Length(0), true),
            ),
            ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", ok(103, Framing::Length(0), true)),
            ("HTTP/1.1 200 OK\r\nContent-Le", Ok(None)),
        ] {
            assert_eq!(framing(text, false), expected, "{text:?}");
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(framing(head, true), ok(200, Framing::Length(0), true));
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 020 No\r\n\r\n",
        ] {
            assert!(framing(text, false).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_date_that_is_dropped_with_its_connection_does_not_count() {
        for (fields, expected) in [
            ("Date: x\r\n", true),
            ("Date: x\r\nConnection: X-Inner\r\n", true),
            ("Connection: close, date\r\nDate: x\r\n", false),
            ("", false),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            let (mut space, mut kinds) = (self::fields(), NO_KINDS);
            let head = parse_response(text.as_bytes(), &mut space, &mut kinds, false);
            let head = head.expect("well formed");
            assert_eq!(head.expect("complete").0.has_date, expected, "{fields:?}");
        }
    }

    #[test]
    fn an_endpoint_says_how_long_it_keeps_a_connection() {
        for (value, expected) in [
            ("timeout=5", Some(5)),
            ("max=100, Timeout=5", Some(5)),
            ("timeout=x", None),
            ("max=100", None),
        ] {
            assert_eq!(keep_alive_seconds(value.as_bytes()), expected, "{value}");
        }
    }
}
