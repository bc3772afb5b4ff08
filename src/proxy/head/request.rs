//! The head of a request.

use std::{borrow::Cow, mem::MaybeUninit};

use httparse::Header;

use super::fields::{
    FramingFields, HeadError, Options, READ_IN_REQUESTS, bad, drop_named, strip_prefix_ignore_case,
    tokens,
};
use crate::{
    proxy::{
        body::Framing,
        field_kind::{FieldKind, known_of_client},
    },
    routing::path,
};

/// A request's head, borrowed from the received bytes.
#[derive(Debug)]
pub(in crate::proxy) struct RequestHead<'h, 'b> {
    pub(in crate::proxy) method: &'b str,
    /// The normalised path of the target, or `*`.
    pub(in crate::proxy) path: Cow<'b, str>,
    /// The query without its `?`.
    pub(in crate::proxy) query: Option<&'b str>,
    /// The requested host and port; empty for an HTTP/1.0 request without a host.
    pub(in crate::proxy) authority: &'b str,
    pub(in crate::proxy) http10: bool,
    pub(in crate::proxy) headers: &'h mut [Header<'b>],
    kinds: &'h mut [FieldKind],
    pub(in crate::proxy) framing: Framing,
    /// The client waits for `100 Continue` before it sends the body.
    pub(in crate::proxy) expects_continue: bool,
    /// The client keeps the connection.
    pub(in crate::proxy) keep_alive: bool,
    /// The client accepts trailers (RFC 9110 section 10.1.4).
    pub(in crate::proxy) trailers: bool,
    /// The value of `Upgrade`, where the client may send it (RFC 9110 section 7.8).
    pub(in crate::proxy) upgrade: Option<&'b [u8]>,
    /// The value of `Max-Forwards` to send, once it was counted down.
    pub(in crate::proxy) max_forwards: Option<u32>,
    /// Some fields are those that only trusted peers may use.
    pub(in crate::proxy) has_claims: bool,
    /// Some fields are those that nobody may use.
    pub(in crate::proxy) has_disguised: bool,
}

impl<'b> RequestHead<'_, 'b> {
    /// Header fields, each with its kind.
    pub(in crate::proxy) fn fields(&self) -> impl Iterator<Item = (&Header<'b>, FieldKind)> {
        self.headers.iter().zip(self.kinds.iter().copied())
    }

    /// Drops the fields that nobody may use, and those that only trusted peers may use unless this one `is_trusted`, as
    /// if the client had not sent them.
    #[cold]
    pub(in crate::proxy) fn drop_claims(&mut self, is_trusted: bool) {
        let mut kept = 0;
        for at in 0..self.headers.len() {
            let kind = self.kinds[at];
            if kind != FieldKind::Disguised && (is_trusted || !kind.is_claim()) {
                self.headers.swap(kept, at);
                self.kinds.swap(kept, at);
                kept += 1;
            }
        }
        self.headers = &mut std::mem::take(&mut self.headers)[..kept];
    }

    /// Whether the field at that position is sent on.
    pub(in crate::proxy) fn is_passed_on(&self, at: usize) -> bool {
        self.kinds[at].is_end_to_end()
    }

    /// Does not send on the field at that position.
    pub(in crate::proxy) fn leave_out(&mut self, at: usize) {
        self.kinds[at] = FieldKind::HopByHop;
    }

    /// The host without its port and without a trailing dot.
    pub(in crate::proxy) fn host(&self) -> &'b str {
        if self.authority.starts_with('[') {
            return self.authority.split_inclusive(']').next().unwrap_or("");
        }
        let host = split_at_byte(self.authority, b':').0;
        host.strip_suffix('.').unwrap_or(host)
    }

    /// Counts `Max-Forwards` down; true if it is 0, so that the request ends here (RFC 9110 section
    /// 7.6.2). A value that is no number is passed on like any other field.
    pub(in crate::proxy) fn count_forwards(&mut self) -> bool {
        let is_it = |h: &Header<'_>| h.name.eq_ignore_ascii_case("max-forwards");
        let Some(at) = self.headers.iter().position(is_it) else { return false };
        let text = std::str::from_utf8(self.headers[at].value).unwrap_or("");
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return false;
        }
        let left = text.parse().unwrap_or(u32::MAX).checked_sub(1);
        self.kinds[at] = FieldKind::HopByHop;
        self.max_forwards = left;
        left.is_none()
    }
}

/// Parses the request head at the start of `bytes`. Returns the head and its length, or `None` if
/// more bytes are needed. There must be at least as many `kinds` as `fields`.
pub(in crate::proxy) fn parse_request<'h, 'b>(
    bytes: &'b [u8],
    fields: &'h mut [MaybeUninit<Header<'b>>],
    kinds: &'h mut [FieldKind],
) -> Result<Option<(RequestHead<'h, 'b>, usize)>, HeadError> {
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(refuse(error)),
    };
    let (method, target) = (request.method.unwrap_or(""), request.path.unwrap_or(""));
    let http10 = request.version == Some(0);
    let headers: &'h mut [Header<'b>] = request.headers;
    let count = headers.len();
    let mut head = RequestHead {
        method,
        path: Cow::Borrowed(target),
        query: None,
        authority: "",
        http10,
        headers,
        kinds: &mut kinds[..count],
        framing: Framing::Length(0),
        expects_continue: false,
        keep_alive: false,
        trailers: false,
        upgrade: None,
        max_forwards: None,
        has_claims: false,
        has_disguised: false,
    };
    let mut framing = FramingFields::default();
    let (mut host, mut options) = (None, Options::default());
    for (field, kind) in head.headers.iter().zip(&mut *head.kinds) {
        *kind = known_of_client(field.name);
        match *kind {
            FieldKind::Host if host.is_some() => return Err(bad("more than one Host field")),
            FieldKind::Host => host = Some(parse_authority(field.value)?),
            FieldKind::ContentLength => framing.length(field.value)?,
            FieldKind::TransferEncoding => framing.coding(field.value)?,
            FieldKind::Connection => options.read(field.value)?,
            // Several fields form one list, but only a list in a single field is accepted: the last
            // one counts.
            FieldKind::Upgrade => head.upgrade = Some(field.value),
            FieldKind::Te => {
                let mut wanted = tokens(field.value);
                head.trailers |=
                    !http10 && wanted.any(|token| token.eq_ignore_ascii_case(b"trailers"));
            }
            FieldKind::Expect => {
                if !field.value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(HeadError {
                        status: 417,
                        detail: "only 100-continue can be expected",
                    });
                }
                head.expects_continue = !http10;
            }
            FieldKind::Disguised => head.has_disguised = true,
            kind if kind.is_claim() => head.has_claims = true,
            _ => {}
        }
    }
    if http10 && framing.chunked {
        return Err(bad("Transfer-Encoding in an HTTP/1.0 request"));
    }
    head.framing = framing.resolve()?.unwrap_or(Framing::Length(0));
    // `close` wins over `keep-alive`.
    head.keep_alive = !options.close && (!http10 || options.keep_alive);
    if !options.upgrade || http10 {
        head.upgrade = None;
    }
    if options.names_fields {
        drop_named(head.headers, head.kinds, &READ_IN_REQUESTS);
    }
    if host.is_none() && !http10 {
        return Err(bad("no Host field"));
    }
    head.authority = host.unwrap_or("");
    head.split_target(target)?;
    Ok(Some((head, length)))
}

impl<'b> RequestHead<'_, 'b> {
    /// Splits the target (RFC 9112 section 3.2).
    fn split_target(&mut self, target: &'b str) -> Result<(), HeadError> {
        if self.method == "CONNECT" {
            return Err(HeadError { status: 501, detail: "CONNECT is not offered" });
        }
        // Nearly every target is a normalised path without a query.
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
    fn absolute(&mut self, target: &'b str) -> Result<&'b str, HeadError> {
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

/// Bytes without a special meaning in a target.
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

/// `text` before and after the first `byte`, which is ASCII. `str::split_once` searches a `char`,
/// at several times the cost for texts as short as these.
fn split_at_byte(text: &str, byte: u8) -> (&str, Option<&str>) {
    match text.bytes().position(|b| b == byte) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// Bytes that a name or an IPv4 address may have here: fewer than RFC 3986 section 3.2.2 allows.
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

/// Parses a host with an optional port (RFC 9110 section 7.2); an empty value is allowed.
pub(in crate::proxy) fn parse_authority(value: &[u8]) -> Result<&str, HeadError> {
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

fn refuse(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => {
            HeadError { status: 431, detail: "too many header fields" }
        }
        httparse::Error::Version => {
            HeadError { status: 505, detail: "only HTTP/1.0 and HTTP/1.1 are spoken" }
        }
        httparse::Error::HeaderName => bad("a header field's name is malformed"),
        httparse::Error::HeaderValue => bad("a header field's value is malformed"),
        httparse::Error::NewLine => bad("a line does not end as it should"),
        httparse::Error::Token => bad("the request line is malformed"),
        httparse::Error::Status => bad("the status line is malformed"),
    }
}
