//! What is kept of a response.

use super::super::head::ResponseHead;

/// The end-to-end header fields of a response except its length, each a line with its end.
pub(super) fn fields(head: &ResponseHead<'_, '_>, date: &str) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut put = |name: &[u8], value: &[u8]| {
        for part in [name, b": ", value, b"\r\n"] {
            lines.extend_from_slice(part);
        }
    };
    for (field, kind) in head.fields() {
        if kind.is_end_to_end() {
            put(field.name.as_bytes(), field.value);
        }
    }
    if !head.has_date {
        put(b"Date", date.as_bytes());
    }
    lines
}
