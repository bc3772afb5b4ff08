//! What handlers take from the target of a request. A rejection becomes a problem.

use axum::extract::{
    Path, Query,
    rejection::{PathRejection, QueryRejection},
};

use crate::store::Actor;

/// Who sent a request.
#[derive(Debug, Clone)]
pub(super) struct By(pub(super) Actor);

/// The query.
pub(super) type Parameters<T> = Result<Query<T>, QueryRejection>;

/// The name of a service in the path.
pub(super) type Name = Result<Path<String>, PathRejection>;
