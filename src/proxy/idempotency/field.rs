//! The field with the key.

use super::super::{field_kind::is_same, head::RequestHead};
use crate::policy::idempotency::{Spelling, parse_key};

/// Its name.
pub(in crate::proxy) const FIELD: &str = "idempotency-key";

/// Whether an application may read the field `name` as an idempotency key.
pub(in crate::proxy) fn is_key(name: &str) -> bool {
    name.len() == FIELD.len() && is_same(name.as_bytes(), FIELD.as_bytes())
}

/// The line with the key of a request whose first one wrote it as `first`, if that is another line than the client's, or if
/// `Connection` names the field: a version that honours keys must not take both for two. The client's field is dropped.
#[cold]
pub(in crate::proxy) fn line(
    head: &mut RequestHead<'_, '_>,
    first: Option<Spelling>,
) -> Option<Box<[u8]>> {
    let at = head.headers.iter().position(|field| is_key(field.name))?;
    let value = head.headers[at].value;
    let (key, own) = (parse_key(value).ok()?, Spelling::of(value));
    let spelling = first.unwrap_or(own);
    if spelling == own && head.is_passed_on(at) {
        return None;
    }
    head.leave_out(at);
    Some([b"Idempotency-Key: ", &*spelling.write(&key), b"\r\n"].concat().into())
}
