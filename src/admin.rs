//! The admin endpoint: shows and changes the state of the running process, for people and scripts.
//!
//! It shares a thread with the rest of the control plane, so its use is bounded: concurrent requests, time per
//! request, concurrent connections, time for a head, lifetime of a connection. Strangers must not be able to
//! use up these limits and so lock out probes and operators (`connections`). No request to a service passes
//! through here.

mod api;
mod audit;
pub mod auth;
mod body;
mod bounds;
mod change;
mod connections;
pub mod cutover;
mod events;
mod extract;
mod flagger;
mod gate;
mod in_force;
mod incidents;
mod keys;
mod mode;
pub mod model;
mod pins;
pub mod problem;
mod ready;
mod rollout;
mod server;
mod smoke;

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Instant,
};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    middleware::{self, Next},
    response::Response,
};
pub use problem::Problem;

use crate::control::tasks::ControlPlane;

/// Binds the admin endpoint's socket.
pub fn bind(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    adopt(TcpListener::bind(address)?)
}

/// Takes over a listening socket.
pub fn adopt(socket: TcpListener) -> std::io::Result<(TcpListener, SocketAddr)> {
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

/// Serves the admin endpoint for the lifetime of the runtime, while it `is_open`.
pub async fn serve(
    socket: TcpListener,
    observatory: ControlPlane,
    is_open: tokio::sync::watch::Receiver<bool>,
) {
    match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => {
            let (shared, tls) = {
                let controller = observatory.controller();
                (Arc::clone(controller.shared()), controller.admin_tls().cloned())
            };
            let router = router(observatory);
            server::accept(socket, (router, tls), is_open, shared).await;
        }
        Err(error) => tracing::error!(%error, "the admin endpoint's socket is unusable"),
    }
}

fn router(observatory: ControlPlane) -> Router {
    let bounds = middleware::from_fn_with_state(bounds::Places::default(), bounds::bound);
    // Outside the limit: an unauthorized caller does not occupy a place.
    api::guarded(observatory.clone())
        .merge(keys::routes(observatory.clone()))
        .merge(pins::routes(observatory.clone()))
        .merge(mode::routes(observatory.clone()))
        .layer(bounds)
        .merge(cutover::routes(observatory.clone()))
        .merge(smoke::router(observatory.clone()))
        .layer(middleware::from_fn_with_state(observatory.clone(), guard))
        .merge(flagger::hooks(observatory.clone()))
        .merge(api::probes(observatory))
}

/// Admits authorized callers, and records who calls.
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
        subject: request.extensions().get::<server::Subject>().map(|server::Subject(s)| &**s),
    };
    let (by, is_known) = {
        let controller = observatory.controller();
        let known = auth::Known { tokens: controller.tokens(), certificates: controller.holders() };
        let by = auth::admit(&caller, known, observatory.callers(), Instant::now())?;
        (by, !known.is_empty())
    };
    request.extensions_mut().insert(extract::By(by));
    let mut response = next.run(request).await;
    if is_known {
        response.extensions_mut().insert(server::Known);
    }
    Ok(response)
}
