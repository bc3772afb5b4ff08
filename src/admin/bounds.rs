//! The problem of a request that the bounds of the endpoint reject.

use std::time::Duration;

use axum::{BoxError, http::StatusCode};
use tower::timeout::error::Elapsed;

use super::Problem;

/// Turns the `error` of a layer that allows `most` requests at once, each of which takes `longest` at most,
/// into a problem.
pub(super) async fn problem(error: BoxError, most: usize, longest: Duration) -> Problem {
    let detail = if error.is::<Elapsed>() {
        format!(
            "the request took more than {} s; a change that it asked for may still be made, so read the state again",
            longest.as_secs()
        )
    } else {
        format!("more than {most} requests at once; try again")
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}
