//! The head of a response.

use std::mem::MaybeUninit;

use httparse::Header;

use super::fields::{
    FramingFields, HeadError, MAX_OPTIONS, Options, READ_IN_ANSWERS, drop_named,
    strip_prefix_ignore_case, tokens,
};
use crate::proxy::{
    body::Framing,
    field_kind::{FieldKind, known},
};

/// A response's head, borrowed from the received bytes.
#[derive(Debug)]
pub(in crate::proxy) struct ResponseHead<'h, 'b> {
    pub(in crate::proxy) status: u16,
    pub(in crate::proxy) reason: &'b str,
    pub(in crate::proxy) headers: &'h [Header<'b>],
    kinds: &'h mut [FieldKind],
    pub(in crate::proxy) framing: Framing,
    /// There is no body, whatever the fields say, and so nothing that follows one.
    pub(in crate::proxy) bodiless: bool,
    pub(in crate::proxy) http10: bool,
    /// The endpoint keeps the connection.
    pub(in crate::proxy) keep_alive: bool,
    /// Seconds for which the endpoint keeps it, from the `Keep-Alive` field.
    pub(in crate::proxy) keep_alive_seconds: Option<u32>,
    /// There is a `Date` that is passed on: `Connection` does not name it.
    pub(in crate::proxy) has_date: bool,
    /// The protocol to which a 101 switches.
    pub(in crate::proxy) upgrade: Option<&'b [u8]>,
}

impl<'b> ResponseHead<'_, 'b> {
    /// Header fields, each with its kind.
    pub(in crate::proxy) fn fields(&self) -> impl Iterator<Item = (&Header<'b>, FieldKind)> {
        self.headers.iter().zip(self.kinds.iter().copied())
    }

    /// Whether the body is a stream of server-sent events. A body with a length is none, since it
    /// ends.
    pub(in crate::proxy) fn is_event_stream(&self) -> bool {
        let types = self.headers.iter().filter(|f| f.name.eq_ignore_ascii_case("content-type"));
        !matches!(self.framing, Framing::Length(_))
            && types.into_iter().any(|f| is_event_stream(f.value))
    }

    /// The fields that the proxy only passes on, with their kinds, so that some can be marked to be
    /// dropped.
    pub(in crate::proxy) fn others(
        &mut self,
    ) -> impl Iterator<Item = (&Header<'b>, &mut FieldKind)> {
        let all = self.headers.iter().zip(&mut *self.kinds);
        all.filter(|(_, kind)| **kind == FieldKind::Other)
    }
}

/// Why the head of a response is rejected; always the endpoint's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum BadAnswer {
    /// There are more fields than space.
    ManyFields,
    /// Malformed, for the given reason.
    Malformed(&'static str),
}

impl From<HeadError> for BadAnswer {
    fn from(refusal: HeadError) -> Self {
        Self::Malformed(refusal.detail)
    }
}

/// Parses the response head at the start of `bytes`, like [`parse_request`](super::parse_request);
/// `head_only` is set if the request was HEAD.
pub(in crate::proxy) fn parse_response<'h, 'b>(
    bytes: &'b [u8],
    fields: &'h mut [MaybeUninit<Header<'b>>],
    kinds: &'h mut [FieldKind],
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
        // RFC 9112 section 6.3.
        bodiless: head_only || status < 200 || status == 204 || status == 304,
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
            FieldKind::ContentLength => framing.length(field.value)?,
            FieldKind::TransferEncoding => framing.coding(field.value)?,
            FieldKind::Connection => options.read(field.value)?,
            FieldKind::KeepAlive => head.keep_alive_seconds = keep_alive_seconds(field.value),
            FieldKind::Date => head.has_date = true,
            FieldKind::Upgrade => head.upgrade = Some(field.value),
            _ => {}
        }
    }
    if options.names_fields {
        drop_named(headers, head.kinds, &READ_IN_ANSWERS);
        head.has_date = head.kinds.contains(&FieldKind::Date);
    }
    let framing = framing.resolve()?;
    head.framing =
        if head.bodiless { Framing::Length(0) } else { framing.unwrap_or(Framing::UntilClose) };
    head.keep_alive = !head.http10 && !options.close && head.framing != Framing::UntilClose;
    Ok(Some((head, length)))
}

/// Whether a media type is that of server-sent events.
fn is_event_stream(value: &[u8]) -> bool {
    const NAME: &[u8] = b"text/event-stream";
    value.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME))
}

/// `timeout=5, max=100` (RFC 2068 section 19.7.1.1, still sent by common servers).
pub(super) fn keep_alive_seconds(value: &[u8]) -> Option<u32> {
    tokens(value).take(MAX_OPTIONS).find_map(|parameter| {
        let text = std::str::from_utf8(parameter).ok()?;
        let seconds = strip_prefix_ignore_case(text, "timeout=")?;
        seconds.trim().parse().ok()
    })
}
