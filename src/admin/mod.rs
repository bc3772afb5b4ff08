//! The admin endpoint: what people and scripts see and change while the process runs.

use std::net::{SocketAddr, TcpListener};

use axum::{
    Router, extract::State, http::header::CONTENT_TYPE, response::IntoResponse, routing::get,
};

use crate::{rollout::view::Observatory, telemetry::metrics};

/// Binds the admin endpoint's socket.
pub fn bind(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let socket = TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

/// Serves the admin endpoint for as long as the runtime lives.
pub async fn serve(socket: TcpListener, observatory: Observatory) {
    let router = Router::new().route("/metrics", get(scrape)).with_state(observatory);
    match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => {
            if let Err(error) = axum::serve(socket, router).await {
                tracing::error!(%error, "the admin endpoint ended");
            }
        }
        Err(error) => tracing::error!(%error, "the admin endpoint's socket is unusable"),
    }
}

async fn scrape(State(observatory): State<Observatory>) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&observatory.scrape().await))
}
