//! What the fields of a head say, whichever head it is.

use std::mem::MaybeUninit;

use httparse::Header;

use crate::proxy::{body::Framing, field_kind::FieldKind};

/// Most header fields that a head may have, whatever is configured.
pub(in crate::proxy) const MAX_FIELDS: usize = 256;

/// Most fields of an answer. Few have more than [`MAX_FIELDS`]; space for them is made when it is needed.
pub(in crate::proxy) const MANY_FIELDS: usize = 4096;

/// Space for the fields of one head; costs nothing until it is filled.
pub(in crate::proxy) type Fields<'b> = [MaybeUninit<Header<'b>>; MAX_FIELDS];

/// What the fields of one head are, found once and used when the head is written anew. Any value is a good
/// start.
pub(in crate::proxy) type Kinds = [FieldKind; MAX_FIELDS];

/// Space for the kinds of one head.
pub(in crate::proxy) const NO_KINDS: Kinds = [FieldKind::Other; MAX_FIELDS];

/// Most options of all `Connection` fields of a head. What is usual has one or two; each further one is
/// looked for among all fields.
pub(super) const MAX_OPTIONS: usize = 64;

/// Why a head is refused, with what the client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct HeadError {
    pub(in crate::proxy) status: u16,
    pub(in crate::proxy) detail: &'static str,
}

pub(super) const fn bad(detail: &'static str) -> HeadError {
    HeadError { status: 400, detail }
}

/// What the `Connection` fields of a head say.
#[derive(Default)]
pub(super) struct Options {
    count: usize,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// Fields are named beside the usual options; they are not passed on.
    pub(super) names_fields: bool,
}

impl Options {
    pub(super) fn read(&mut self, value: &[u8]) -> Result<(), HeadError> {
        // What most servers say, at a tenth of the cost.
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

/// Fields that the proxy reads in answers, or in requests: who names them in `Connection` changes nothing.
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

/// Has the fields that `Connection` names not passed on, except for those of the kinds `but`.
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

/// The parts of a comma-separated list, trimmed, none empty.
pub(in crate::proxy) fn tokens(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|t| !t.is_empty())
}

pub(super) fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// What the fields say of a body's end, while they are read.
#[derive(Default)]
pub(super) struct FramingFields {
    length: Option<u64>,
    pub(super) chunked: bool,
}

impl FramingFields {
    pub(super) fn length(&mut self, value: &[u8]) -> Result<(), HeadError> {
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
