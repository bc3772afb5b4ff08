//! What handlers take from a request, and the fields that their answers have in common. A rejection becomes a
//! problem.

use axum::{
    extract::{
        Path, Query,
        rejection::{PathRejection, QueryRejection},
    },
    http::{
        HeaderName, HeaderValue,
        header::{CACHE_CONTROL, ETAG},
    },
};
use serde::Deserialize;

use crate::store::Actor;

/// The query.
pub(super) type Parameters<T> = Result<Query<T>, QueryRejection>;

/// The name of a service in the path.
pub(super) type Name = Result<Path<String>, PathRejection>;

/// Who sent a request.
#[derive(Debug, Clone)]
pub(super) struct By(pub(super) Actor);

/// Query of a path without parameters. Unknown parameters are rejected, since they may be a
/// mistyped one that would change the meaning.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParameters {}

/// Header fields of a response that is not cached and names the generation for a later `If-Match`.
pub(super) fn fresh(generation: u64) -> [(HeaderName, HeaderValue); 2] {
    // Digits in quotes are always a valid value.
    let tag = HeaderValue::try_from(format!("\"{generation}\""));
    let tag = tag.unwrap_or_else(|_| HeaderValue::from_static("\"\""));
    [(ETAG, tag), (CACHE_CONTROL, HeaderValue::from_static("no-store"))]
}
