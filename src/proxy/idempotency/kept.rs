//! What is kept of a response, and where one goes whose client has left.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::{channel::MessageIo, field_kind::FieldKind, head::ResponseHead};

/// The end-to-end header fields of a response except its length, each a line with its end.
pub(super) fn fields(head: &ResponseHead<'_, '_>, date: &str) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut put = |name: &[u8], value: &[u8]| {
        for part in [name, b": ", value, b"\r\n"] {
            lines.extend_from_slice(part);
        }
    };
    for (field, kind) in head.fields() {
        match kind {
            FieldKind::Other
            | FieldKind::Date
            | FieldKind::Expect
            | FieldKind::Host
            | FieldKind::XForwarded
            | FieldKind::Claim
            | FieldKind::Epoch
            | FieldKind::RequestId => put(field.name.as_bytes(), field.value),
            _ => {}
        }
    }
    if !head.has_date {
        put(b"Date", date.as_bytes());
    }
    lines
}

/// Takes a response whose client has left.
pub(in crate::proxy) struct Nowhere;

impl MessageIo for Nowhere {}

impl AsyncRead for Nowhere {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Nowhere {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
