//! Accepts connections of the admin endpoint, and ends each.
//!
//! `axum::serve` bounds neither the time for a head nor the number of connections, and a handful of
//! slow clients must not keep an operator from taking a version out.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    sync::{Semaphore, watch},
    time::timeout,
};
use tower::Service;

use crate::proxy::next_client;

/// Connections at once; further ones wait to be accepted.
const CONNECTIONS: usize = 256;

/// Longest time to a whole head, and thereby the longest rest between two requests. Scrapers come
/// every 15 s or more rarely and connect anew.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection takes no further requests after this time: a client that reads its answers slower
/// than they are written would hold it for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);

/// Time for the last answer of a connection.
const LAST_ANSWER: Duration = Duration::from_secs(15);

/// Accepts for as long as the runtime lives, while it `is_open`; when it closes, connections end after
/// their answer, so that their clients come to the process that has taken over.
pub(super) async fn accept(
    socket: TcpListener,
    router: Router,
    mut is_open: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Some((stream, peer)) = next_client(&socket, &mut is_open, "admin").await else {
            return;
        };
        let (router, is_open) = (router.clone(), is_open.clone());
        tokio::spawn(async move {
            converse(stream, peer, router, is_open).await;
            drop(place);
        });
    }
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut is_open: watch::Receiver<bool>,
) {
    // Answers are written whole, so delaying their last segment gains nothing.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        // A router is always ready.
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // What goes wrong here concerns one client, and the client knows.
    let ended = select! {
        ended = timeout(CONNECTION_LIFE, connection.as_mut()) => ended.is_ok(),
        _ = is_open.wait_for(|open| !open) => false,
    };
    if !ended {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWER, connection).await;
    }
}
