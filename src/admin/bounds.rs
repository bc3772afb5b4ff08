//! The bounds of the endpoint, and the problem of a request that they reject.

use std::{sync::Arc, time::Duration};

use axum::{
    BoxError,
    extract::{Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::Response,
};
use tokio::{sync::Semaphore, time::timeout};
use tower::timeout::error::Elapsed;

use super::Problem;

/// Requests of a kind at once; further ones get 503. A scrape, a console and a few scripts need a handful.
const REQUESTS: usize = 64;

/// Longest time from the end of a request's head to the head of its response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The kinds of requests. Each has places of its own, so that changes which wait for a slow disk keep nobody from
/// looking, or from taking players off a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Change,
    /// Takes players off a version.
    Retreat,
}

impl Kind {
    fn of(method: &Method, path: &str) -> Self {
        if method.is_safe() {
            return Self::Read;
        }
        let is_retreat = ["/eject", "/rollout/abort", "/rollout/rollback"];
        match is_retreat.iter().any(|end| path.ends_with(end)) {
            true => Self::Retreat,
            false => Self::Change,
        }
    }
}

/// The places of requests, by kind.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<[Semaphore; 3]>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(std::array::from_fn(|_| Semaphore::new(REQUESTS))))
    }
}

/// Serves a request that finds a place, in time.
pub(super) async fn bound(
    State(places): State<Places>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let kind = Kind::of(request.method(), request.uri().path());
    let Ok(_place) = places.0[kind as usize].try_acquire() else { return Err(crowded(REQUESTS)) };
    timeout(REQUEST_TIMEOUT, next.run(request)).await.map_err(|_| late(REQUEST_TIMEOUT))
}

/// Turns the `error` of a layer that allows `most` requests at once, each of which takes `longest` at most,
/// into a problem.
pub(super) async fn problem(error: BoxError, most: usize, longest: Duration) -> Problem {
    if error.is::<Elapsed>() { late(longest) } else { crowded(most) }
}

fn late(longest: Duration) -> Problem {
    let detail = format!(
        "the request took more than {} s; a change that it asked for may still be made, so read the state again",
        longest.as_secs()
    );
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}

fn crowded(most: usize) -> Problem {
    let detail = format!("more than {most} requests at once; try again");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_players_off_a_version_waits_behind_nobody_who_gives_it_some() {
        for (method, path, kind) in [
            (Method::GET, "/v1/status", Kind::Read),
            (Method::HEAD, "/v1/services/w/rollout", Kind::Read),
            (Method::PUT, "/v1/services/w/weights", Kind::Change),
            (Method::POST, "/v1/services/w/reinstate", Kind::Change),
            (Method::POST, "/v1/services/w/rollout", Kind::Change),
            (Method::POST, "/v1/services/w/rollout/resume", Kind::Change),
            (Method::POST, "/v1/services/eject", Kind::Retreat),
            (Method::POST, "/v1/services/w/eject", Kind::Retreat),
            (Method::POST, "/v1/services/w/rollout/abort", Kind::Retreat),
            (Method::POST, "/v1/services/w/rollout/rollback", Kind::Retreat),
        ] {
            assert_eq!(Kind::of(&method, path), kind, "{method} {path}");
        }
    }
}
