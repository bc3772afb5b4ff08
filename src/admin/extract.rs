//! What handlers take from the target of a request. A rejection becomes a problem.

use axum::extract::{
    Path, Query,
    rejection::{PathRejection, QueryRejection},
};

/// The query.
pub(super) type Parameters<T> = Result<Query<T>, QueryRejection>;

/// The name of a service in the path.
pub(super) type Name = Result<Path<String>, PathRejection>;
