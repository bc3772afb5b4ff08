//! What is kept of a response.

use super::super::head::ResponseHead;

/// The end-to-end header fields of a response except its length, each a line with its end.
pub(super) fn fields(head: &ResponseHead<'_, '_>, date: &str) -> Box<[u8]> {
    let kept = || {
        let own = head.fields().filter(|(_, kind)| kind.is_end_to_end());
        let own = own.map(|(field, _)| (field.name.as_bytes(), field.value));
        own.chain((!head.has_date).then_some((&b"Date"[..], date.as_bytes())))
    };
    let line = |(name, value): (&[u8], &[u8])| name.len() + value.len() + b": \r\n".len();
    // Its memory is held for as long as the key: it has no byte too many.
    let mut lines = Vec::with_capacity(kept().map(line).sum());
    for (name, value) in kept() {
        for part in [name, b": ", value, b"\r\n"] {
            lines.extend_from_slice(part);
        }
    }
    lines.into()
}
