//! The admin endpoint: what people and scripts see and change while the process runs.
//!
//! It shares a thread with the rest of the control plane, so its callers are bounded: requests at
//! once, time per request, connections at once, time for a head, life of a connection. Strangers must
//! not use these bounds to keep probes and operators out (`connections`). Nothing here is on the path of a
//! request to a service.

mod api;
pub mod auth;
mod body;
mod connections;
mod events;
pub mod model;
pub mod problem;
mod ready;
mod server;

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use axum::{
    BoxError, Router,
    error_handling::HandleErrorLayer,
    extract::{ConnectInfo, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::Response,
};
use tower::{ServiceBuilder, limit::GlobalConcurrencyLimitLayer, timeout::error::Elapsed};

pub use problem::Problem;

use crate::control::tasks::ControlPlane;

/// Requests at once; one more is answered 503. A scrape, a console and a few scripts need a handful.
const REQUESTS: usize = 64;

/// Longest time from a request's head to the head of its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Binds the admin endpoint's socket.
pub fn bind(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    adopt(TcpListener::bind(address)?)
}

/// Takes over a socket that listens already.
pub fn adopt(socket: TcpListener) -> std::io::Result<(TcpListener, SocketAddr)> {
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

/// Serves the admin endpoint for as long as the runtime lives and while it `is_open`.
pub async fn serve(
    socket: TcpListener,
    observatory: ControlPlane,
    is_open: tokio::sync::watch::Receiver<bool>,
) {
    match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => {
            let shared = Arc::clone(observatory.controller().shared());
            server::accept(socket, router(observatory), is_open, shared).await;
        }
        Err(error) => tracing::error!(%error, "the admin endpoint's socket is unusable"),
    }
}

fn router(observatory: ControlPlane) -> Router {
    let bounds = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(out_of_bounds))
        .load_shed()
        .layer(GlobalConcurrencyLimitLayer::new(REQUESTS))
        .timeout(REQUEST_TIMEOUT);
    // Who is not let in takes none of the places of requests.
    api::guarded(observatory.clone())
        .layer(bounds)
        .layer(middleware::from_fn_with_state(observatory.clone(), guard))
        .merge(api::probes(observatory))
}

/// Lets in who may call, and notes the name.
async fn guard(
    State(observatory): State<ControlPlane>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = auth::Caller {
        peer,
        method: request.method(),
        uri: request.uri(),
        headers: request.headers(),
    };
    let (by, is_known) = {
        let controller = observatory.controller();
        let tokens = controller.tokens();
        (auth::admit(&caller, tokens)?, !tokens.is_empty())
    };
    request.extensions_mut().insert(api::By(by));
    let mut response = next.run(request).await;
    if is_known {
        response.extensions_mut().insert(server::Known);
    }
    Ok(response)
}

async fn out_of_bounds(error: BoxError) -> Problem {
    let detail = if error.is::<Elapsed>() {
        format!("the request took more than {} s", REQUEST_TIMEOUT.as_secs())
    } else {
        format!("more than {REQUESTS} requests at once; try again")
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}
