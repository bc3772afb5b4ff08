//! Heads of HTTP/1 messages: one reading of each, or none.
//!
//! `httparse` finds the lines (it refuses obs-fold, white space before a colon, control bytes and bare
//! CR). What a head *means* is decided here, once, for every later stage: where the body ends, which
//! host was asked, whether the connection stays. What two readers could understand in two ways is
//! refused, never repaired by guessing (RFC 9112 sections 3.2, 6.1 and 6.3; RFC 9110 section 5.3).

mod fields;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub(super) use fields::{Fields, HeadError, MANY_FIELDS, MAX_FIELDS, NO_KINDS, tokens};
pub(super) use request::{RequestHead, parse_authority, parse_request};
pub(super) use response::{BadAnswer, ResponseHead, parse_response};
