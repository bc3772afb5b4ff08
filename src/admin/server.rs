//! Accepts connections of the admin endpoint, and limits their life.
//!
//! `axum::serve` limits neither the time for a head nor the number of connections, and a few slow
//! clients must not keep an operator from ejecting a version.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo, http::header::CONNECTION};
use hyper::{
    Request, Response,
    body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint},
    header::HeaderValue,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    select,
    sync::{oneshot, watch},
    task::yield_now,
    time::timeout,
};
use tower::Service;

use super::connections::{Busy, Connections, Place};
use crate::{
    proxy::{Shared, accept_next},
    tls::{self, TlsListener},
};

/// Longest time until a head is complete, and so the longest pause between two requests. Scrapers
/// come every 15 s or more rarely and open new connections.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection takes no further requests after this time: otherwise a client that reads slower
/// than responses are written would hold it for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);

/// Time for the last response of a connection.
const LAST_ANSWER: Duration = Duration::from_secs(15);

/// When the endpoint closes, a connection serves on for this long: a request may be on its way.
const GRACE: Duration = Duration::from_millis(100);

/// Marks the response to a caller who sent a valid token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known;

/// The subject of the verified certificate that the connection of a request has.
#[derive(Debug, Clone)]
pub(super) struct Subject(pub(super) Arc<str>);

/// Accepts connections while `is_open`. When that becomes false, connections end after their
/// response, so that their clients connect to the process that has taken over.
pub(super) async fn accept(
    socket: TcpListener,
    (router, tls): (Router, Option<Arc<TlsListener>>),
    mut is_open: watch::Receiver<bool>,
    shared: Arc<Shared>,
) {
    let connections = Connections::default();
    loop {
        let next = accept_next(&socket, &mut is_open, "admin", &shared.exhaustion).await;
        let Some((stream, peer)) = next else { return };
        // A connection without a place is closed at once; in the queue it would delay others.
        let Some((place, leaves)) = connections.enter(peer.ip()) else { continue };
        let (router, is_open) = (router.clone(), is_open.clone());
        let tls = tls.as_ref().map(|tls| tls.config());
        tokio::spawn(serve((stream, peer), tls, router, is_open, place, leaves));
        // Reads a request that arrived with its connection before others can push the connection
        // out.
        yield_now().await;
    }
}

async fn serve(
    (stream, peer): (TcpStream, SocketAddr),
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    is_open: watch::Receiver<bool>,
    place: Arc<Place>,
    mut leaves: oneshot::Receiver<()>,
) {
    // Responses are written as a whole, so delaying their last segment gains nothing.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return converse(stream, (peer, None), router, is_open, place, leaves).await;
    };
    let encrypted = select! {
        encrypted = tls::server::accept(tls, stream, HEAD_TIMEOUT) => encrypted,
        _ = &mut leaves => return,
    };
    // Whoever fails here sees it.
    let Ok(encrypted) = encrypted else { return };
    let subject = tls::server::client_subject(encrypted.get_ref().1);
    converse(encrypted, (peer, subject), router, is_open, place, leaves).await;
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    (peer, subject): (SocketAddr, Option<String>),
    router: Router,
    mut is_open: watch::Receiver<bool>,
    place: Arc<Place>,
    leaves: oneshot::Receiver<()>,
) {
    let subject = subject.map(|subject| Subject(subject.into()));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let busy = place.begin();
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(Arc::clone(&place));
        if let Some(subject) = &subject {
            request.extensions_mut().insert(subject.clone());
        }
        // A router is always ready.
        let answer = router.clone().call(request);
        let place = Arc::clone(&place);
        async move { answer.await.map(|answer| held(answer, &place, busy)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // An error here concerns one client, and the client sees it.
    let ended = select! {
        ended = timeout(CONNECTION_LIFE, connection.as_mut()) => ended.is_ok(),
        _ = leaves => true,
        _ = is_open.wait_for(|open| !open) => false,
    };
    if !ended {
        if !*is_open.borrow() && timeout(GRACE, connection.as_mut()).await.is_ok() {
            return;
        }
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWER, connection).await;
    }
}

/// Wraps a response so that its connection is busy until the body was sent.
fn held(mut answer: Response<Body>, place: &Place, busy: Busy) -> Response<Held> {
    if answer.extensions().get::<Known>().is_some() {
        place.know();
    } else if place.is_short() {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer.map(|body| Held { body, _busy: busy })
}

/// A body that keeps its connection busy.
struct Held {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
