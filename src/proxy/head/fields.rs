//! Fields that requests and responses have in common.

use std::mem::MaybeUninit;

use httparse::Header;

use crate::proxy::{body::Framing, field_kind::FieldKind};

/// Most header fields that a head may have, whatever is configured.
pub(in crate::proxy) const MAX_FIELDS: usize = 256;

/// Most fields of a response. Few responses have more than [`MAX_FIELDS`]; the larger space is
/// allocated when it is needed.
pub(in crate::proxy) const MANY_FIELDS: usize = 4096;

/// Space for the fields of one head; costs nothing until it is filled.
pub(in crate::proxy) type Fields<'b> = [MaybeUninit<Header<'b>>; MAX_FIELDS];

/// Kinds of the fields of one head, found by the parser and used when the head is written. The
/// initial values do not matter.
pub(in crate::proxy) type Kinds = [FieldKind; MAX_FIELDS];

/// Initial space for the kinds of one head.
pub(in crate::proxy) const NO_KINDS: Kinds = [FieldKind::Other; MAX_FIELDS];

/// Most options of all `Connection` fields of a head. Heads usually have one or two; each one that
/// names a field is compared with all fields.
pub(super) const MAX_OPTIONS: usize = 64;

/// Why a head is rejected: the status and the text that the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct HeadError {
    pub(in crate::proxy) status: u16,
    pub(in crate::proxy) detail: &'static str,
}

pub(super) const fn bad(detail: &'static str) -> HeadError {
    HeadError { status: 400, detail }
}

/// The options of a head's `Connection` fields.
#[derive(Default)]
pub(super) struct Options {
    count: usize,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// Some options name fields, which are not passed on.
    pub(super) names_fields: bool,
}

impl Options {
    pub(super) fn read(&mut self, value: &[u8]) -> Result<(), HeadError> {
        // Most servers send this; it costs a tenth of the loop.
        if value == b"keep-alive" {
            self.keep_alive = true;
            return Ok(());
        }
        for option in tokens(value) {
            self.count += 1;
            if self.count > MAX_OPTIONS {
                return Err(HeadError {
                    status: 431,
                    detail: "Connection has more than 64 options",
                });
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

/// Fields that the proxy reads in responses, and in requests: naming them in `Connection` has no
/// effect.
pub(super) const READ_IN_ANSWERS: [FieldKind; 4] = [
    FieldKind::ContentLength,
    FieldKind::TransferEncoding,
    FieldKind::Connection,
    FieldKind::Upgrade,
];
pub(super) const READ_IN_REQUESTS: [FieldKind; 6] = [
    FieldKind::ContentLength,
    FieldKind::TransferEncoding,
    FieldKind::Connection,
    FieldKind::Upgrade,
    FieldKind::Host,
    FieldKind::Expect,
];

/// Marks the fields that `Connection` names as hop-by-hop, except for those of the kinds `but`.
#[cold]
pub(super) fn drop_named(headers: &[Header<'_>], kinds: &mut [FieldKind], but: &[FieldKind]) {
    for (n, list) in headers.iter().enumerate() {
        if kinds[n] != FieldKind::Connection {
            continue;
        }
        for option in tokens(list.value) {
            for (field, kind) in headers.iter().zip(&mut *kinds) {
                if field.name.as_bytes().eq_ignore_ascii_case(option) && !but.contains(kind) {
                    *kind = FieldKind::HopByHop;
                }
            }
        }
    }
}

/// The non-empty parts of a comma-separated list, trimmed.
pub(in crate::proxy) fn tokens(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|t| !t.is_empty())
}

pub(super) fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The fields that determine the end of a body.
#[derive(Default)]
pub(super) struct FramingFields {
    length: Option<u64>,
    pub(super) chunked: bool,
}

impl FramingFields {
    pub(super) fn length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        // Digits only: servers differ in how they read a sign, a list or white space inside.
        if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
            return Err(bad("Content-Length is not a number of bytes"));
        }
        let length = value.iter().fold(0u64, |n, d| n * 10 + u64::from(d - b'0'));
        if self.length.replace(length).is_some() {
            return Err(bad("more than one Content-Length field"));
        }
        Ok(())
    }

    pub(super) fn coding(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(HeadError {
                status: 501,
                detail: "the only transfer coding understood is a single chunked",
            });
        }
        self.chunked = true;
        Ok(())
    }

    pub(super) fn resolve(self) -> Result<Option<Framing>, HeadError> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(bad("both Content-Length and Transfer-Encoding")),
            (Some(length), false) => Ok(Some(Framing::Length(length))),
            (None, true) => Ok(Some(Framing::Chunked)),
            (None, false) => Ok(None),
        }
    }
}
