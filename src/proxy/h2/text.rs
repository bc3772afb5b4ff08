//! Translates heads between HTTP/2 and the text of HTTP/1.1.
//!
//! The translation only changes the form; `head.rs` interprets the head, as any other. It cannot
//! forge a line: the `h2` crate accepts no field name that is not a lower-case token and no value
//! with CR, LF or NUL, and rejects unknown, repeated or misplaced pseudo-fields, and fields that
//! belong to one connection (RFC 9113 sections 8.2 and 8.3).

use std::mem::MaybeUninit;

use bytes::Bytes;
use h2::ext::Protocol;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header, request, response,
};

/// Whether the field has no place on a stream: HTTP/2 has its own form for it, or none.
fn stays_behind(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::CONNECTION
            | header::TRANSFER_ENCODING
            | header::UPGRADE
            | header::TE
            | header::PROXY_AUTHENTICATE
            | header::PROXY_AUTHORIZATION
    ) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// The head of a request as text. `ended`: no body follows. `key` is for the opening handshake of a
/// WebSocket, which a stream does not have (RFC 8441 section 5).
pub(super) fn from_request(head: &request::Parts, ended: bool, key: Option<&str>) -> Vec<u8> {
    let mut text = Vec::with_capacity(512);
    let method = if key.is_some() { "GET" } else { head.method.as_str() };
    text.extend_from_slice(method.as_bytes());
    text.push(b' ');
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    match head.uri.path_and_query() {
        Some(path) => text.extend_from_slice(path.as_str().as_bytes()),
        // CONNECT without a protocol.
        None => text.extend_from_slice(authority.unwrap_or("*").as_bytes()),
    }
    text.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = authority {
        put(&mut text, b"host", authority.as_bytes());
    }
    let same_host = |value: &HeaderValue| {
        authority.is_some_and(|a| a.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
    };
    let mut cookies = false;
    for (name, value) in &head.headers {
        match *name {
            // An equal host is dropped; a different one is rejected later as a second host.
            header::HOST if same_host(value) => {}
            header::COOKIE => cookies = true,
            _ if stays_behind(name) => {}
            _ => put(&mut text, name.as_str().as_bytes(), value.as_bytes()),
        }
    }
    if cookies {
        // Clients may send each cookie in a field of its own (RFC 9113 section 8.2.3).
        text.extend_from_slice(b"cookie: ");
        for (n, value) in head.headers.get_all(header::COOKIE).iter().enumerate() {
            if n > 0 {
                text.extend_from_slice(b"; ");
            }
            text.extend_from_slice(value.as_bytes());
        }
        text.extend_from_slice(b"\r\n");
    }
    if let Some(key) = key {
        text.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
        put(&mut text, b"sec-websocket-key", key.as_bytes());
    } else if !head.headers.contains_key(header::CONTENT_LENGTH) {
        if !ended {
            text.extend_from_slice(b"transfer-encoding: chunked\r\n");
        } else if matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
            // RFC 9110 section 8.6: a request without a body has a length if its method usually has
            // one.
            text.extend_from_slice(b"content-length: 0\r\n");
        }
    }
    text.extend_from_slice(b"\r\n");
    text
}

/// The head of a response as text. `accept` completes the opening handshake of a WebSocket.
pub(super) fn from_response(head: &response::Parts, accept: Option<&str>) -> Vec<u8> {
    let mut text = Vec::with_capacity(512);
    text.extend_from_slice(b"HTTP/1.1 ");
    match accept {
        Some(_) => text.extend_from_slice(b"101 Switching Protocols"),
        None => {
            text.extend_from_slice(head.status.as_str().as_bytes());
            text.push(b' ');
            let reason = head.status.canonical_reason().unwrap_or("");
            text.extend_from_slice(reason.as_bytes());
        }
    }
    text.extend_from_slice(b"\r\n");
    for (name, value) in &head.headers {
        if !stays_behind(name) {
            put(&mut text, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if let Some(accept) = accept {
        text.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
        put(&mut text, b"sec-websocket-accept", accept.as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    text
}

fn put(text: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    text.extend_from_slice(name);
    text.extend_from_slice(b": ");
    text.extend_from_slice(value);
    text.extend_from_slice(b"\r\n");
}

/// Most fields of a head that is parsed here. The proxy wrote it, from a head with at most
/// `MAX_FIELDS`.
const FIELDS: usize = super::super::head::MAX_FIELDS + 16;

/// Most fields of the few responses that have more.
const MANY_FIELDS: usize = super::super::head::MANY_FIELDS;

/// A text is no head: it is incomplete, or HTTP/2 has no form for it.
#[derive(Debug)]
pub(super) struct Unsendable;

/// A request for a stream.
pub(super) struct Outbound {
    pub(super) request: Request<()>,
    /// The key of a WebSocket's opening handshake, from which the response to the client is made.
    pub(super) key: Option<HeaderValue>,
}

/// Parses the request head at the start of `text`; returns the request and the head's length.
/// `scheme` is that of the connection; with `trailers`, `TE: trailers` is added (RFC 9110 section
/// 10.1.4).
pub(super) fn to_request(
    text: &[u8],
    scheme: &'static str,
    trailers: bool,
) -> Result<(Outbound, usize), Unsendable> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut head = httparse::Request::new(&mut []);
    let parsed = head.parse_with_uninit_headers(text, &mut fields);
    let Ok(httparse::Status::Complete(length)) = parsed else { return Err(Unsendable) };
    let mut headers = HeaderMap::with_capacity(head.headers.len() + 1);
    let (mut authority, mut protocol) = ("", None);
    for field in &*head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Unsendable)?;
        if name == header::HOST {
            authority = std::str::from_utf8(field.value).map_err(|_| Unsendable)?;
        } else if name == header::UPGRADE {
            // WebSocket is the only protocol to which a stream can switch.
            let websocket = field.value.eq_ignore_ascii_case(b"websocket");
            protocol = Some(if websocket { "websocket" } else { return Err(Unsendable) });
        } else if !stays_behind(&name) {
            let value = HeaderValue::from_bytes(field.value).map_err(|_| Unsendable)?;
            headers.append(name, value);
        }
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let uri = match head.path.unwrap_or("/") {
        // `*` has no form with scheme and authority.
        "*" => {
            let host = HeaderValue::from_str(authority).map_err(|_| Unsendable)?;
            headers.insert(header::HOST, host);
            Uri::from_static("*")
        }
        target => Uri::builder()
            .scheme(scheme)
            .authority(authority)
            .path_and_query(target)
            .build()
            .map_err(|_| Unsendable)?,
    };
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    *request.method_mut() =
        Method::from_bytes(head.method.unwrap_or("").as_bytes()).map_err(|_| Unsendable)?;
    let mut key = None;
    if let Some(protocol) = protocol {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from(protocol));
        key = headers.remove("sec-websocket-key");
    }
    *request.headers_mut() = headers;
    Ok((Outbound { request, key }, length))
}

/// Parses the response head at the start of `text`; returns the response and the head's length, or
/// `None` if the head is incomplete.
pub(super) fn to_response(text: &[u8]) -> Result<Option<(Response<()>, usize)>, Unsendable> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut more_fields: Vec<MaybeUninit<httparse::Header<'_>>>;
    let mut head = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let mut parsed = config.parse_response_with_uninit_headers(&mut head, text, &mut fields);
    if let Err(httparse::Error::TooManyHeaders) = parsed {
        let space = std::iter::repeat_with(MaybeUninit::uninit);
        more_fields = space.take(MANY_FIELDS + 16).collect();
        head = httparse::Response::new(&mut []);
        parsed = config.parse_response_with_uninit_headers(&mut head, text, &mut more_fields);
    }
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Unsendable),
    };
    let mut response = Response::new(());
    *response.status_mut() =
        http::StatusCode::from_u16(head.code.unwrap_or(0)).map_err(|_| Unsendable)?;
    // All values share one allocation.
    let shared = Bytes::copy_from_slice(&text[..length]);
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for field in &*head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Unsendable)?;
        if !stays_behind(&name) {
            let start = field.value.as_ptr().addr() - text.as_ptr().addr();
            let value = shared.slice(start..start + field.value.len());
            let value = HeaderValue::from_maybe_shared(value).map_err(|_| Unsendable)?;
            headers.append(name, value);
        }
    }
    *response.headers_mut() = headers;
    Ok(Some((response, length)))
}
