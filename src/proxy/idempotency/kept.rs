//! What is kept of a response.

use super::super::{field_kind::FieldKind, head::ResponseHead};

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
