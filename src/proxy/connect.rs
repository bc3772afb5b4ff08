//! Gets a channel to an endpoint: a pooled connection, a stream of a shared one, or a new
//! connection.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout, timeout_at},
};

use super::{
    breaker::Pending,
    channel::Channel,
    elapsed::micros,
    h2::{ClientStream, open_shared},
    problem::ProxyError,
    target::Target,
    worker::Worker,
};
use crate::{
    config::schema::Protocol,
    snapshot::{Service, Version},
    tls::{H2, HTTP_1_1, HandshakeError, Transport},
    upstream::socket::{self, bound_received, bound_unsent, is_want},
};

/// Takes a stream of a shared connection to endpoint id `endpoint`, or a pooled connection.
pub(super) fn take_pooled(
    worker: &Worker,
    endpoint: u32,
    encrypted: bool,
    thorough: bool,
    now: Instant,
    switches: Option<&str>,
) -> Option<Channel> {
    shared(worker, endpoint, encrypted, 0, now).filter(|link| carries(link, switches)).or_else(
        || worker.pools.borrow_mut().take(endpoint, encrypted, thorough, now).map(Channel::Wire),
    )
}

/// Whether `link` can switch to the protocol `switches`, if one is requested.
fn carries(link: &Channel, switches: Option<&str>) -> bool {
    match (link, switches) {
        (Channel::ClientStream(stream), Some(protocol)) => stream.carries(protocol),
        _ => true,
    }
}

fn shared(
    worker: &Worker,
    endpoint: u32,
    encrypted: bool,
    newer_than: u64,
    now: Instant,
) -> Option<Channel> {
    let permit = worker.streams.borrow_mut().take(endpoint, encrypted, newer_than, now)?;
    Some(Channel::ClientStream(Box::new(ClientStream::new(permit, encrypted))))
}

/// Returns a channel to endpoint number `chosen` of the plan's version, made before `due`, and
/// whether its connection was used before. `failed` is the number of the shared connection on which
/// the request failed: only a newer connection is used, which another request may have opened. The
/// channel can switch to the protocol `switches`.
///
/// The future is boxed, so that it does not enlarge the task of every connection.
pub(super) fn connect_or_join(
    worker: &Worker,
    service: &Service,
    target: Target<'_>,
    failed: Option<u64>,
    switches: Option<&str>,
    due: Instant,
) -> impl Future<Output = Result<(Channel, bool), ProxyError>> {
    let version = target.version;
    let mut linking = Box::pin(async move {
        let _pending = Pending::begin(worker, service, version)?;
        let began = Instant::now();
        let patience = due.saturating_duration_since(began).min(service.connect_timeout);
        let made = make(worker, service, target, failed, switches, patience).await?;
        if let (_, false) = made {
            let cells = target.endpoint().cells.of(worker.id);
            cells.connected.add(1);
            cells.connecting_us.add(micros(began, Instant::now()).into());
        }
        Ok(made)
    });
    poll_fn(move |cx| poll_apart(linking.as_mut(), cx))
}

/// Polls `future`. Kept out of line: inlining the rarely used future that connects would enlarge
/// the future of every request.
#[inline(never)]
fn poll_apart<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    future.poll(cx)
}

async fn make(
    worker: &Worker,
    service: &Service,
    target: Target<'_>,
    failed: Option<u64>,
    switches: Option<&str>,
    patience: Duration,
) -> Result<(Channel, bool), ProxyError> {
    let Target { version, number } = target;
    if version.protocol == Protocol::H1 {
        let wire = connect(worker, version, number, patience, None).await?;
        return Ok((Channel::Wire(wire), false));
    }
    let (endpoint, encrypted) = (version.endpoints[number].id, version.tls.is_some());
    let until = Instant::now() + patience;
    // Requests that come while a connection is being opened wait for that one.
    let opening = worker.streams.borrow_mut().opening(endpoint);
    let turn = timeout_at(until, opening.lock()).await.map_err(|_| ProxyError::ConnectTimeout)?;
    let newer_than = failed.unwrap_or(0);
    let speaking = match shared(worker, endpoint, encrypted, newer_than, Instant::now()) {
        Some(link) if carries(&link, switches) => return Ok((link, true)),
        Some(_) => {
            // The shared connection cannot switch, so this request gets a connection of its own.
            drop(turn);
            Some(HTTP_1_1)
        }
        None => None,
    };
    let transport = connect(worker, version, number, until - Instant::now(), speaking).await?;
    let speaks_h2 = match &transport {
        Transport::Plain(_) => version.protocol == Protocol::H2,
        Transport::Tls(_) => transport.alpn() == Some(H2),
    };
    if !speaks_h2 {
        return match version.protocol {
            Protocol::H2 => Err(ProxyError::Protocol),
            _ => Ok((Channel::Wire(transport), false)),
        };
    }
    let sharing = open_shared(&worker.streams, endpoint, transport, service.pool.idle_timeout);
    match timeout_at(until, sharing).await {
        Ok(Ok(permit)) => {
            worker.keep_ticking();
            let link = Channel::ClientStream(Box::new(ClientStream::new(permit, encrypted)));
            if carries(&link, switches) {
                return Ok((link, false));
            }
            let left = until - Instant::now();
            let wire = connect(worker, version, number, left, Some(HTTP_1_1)).await?;
            Ok((Channel::Wire(wire), false))
        }
        Ok(Err(_)) => Err(ProxyError::Connect),
        Err(_) => Err(ProxyError::ConnectTimeout),
    }
}

/// Opens a connection to endpoint number `endpoint` of `version`, with TLS if the version has it,
/// and then with the protocol `speaking` if one is given.
async fn connect(
    worker: &Worker,
    version: &Version,
    endpoint: usize,
    patience: Duration,
    speaking: Option<&[u8]>,
) -> Result<Transport, ProxyError> {
    let (address, began) = (version.endpoints[endpoint].address, Instant::now());
    let stream = connect_in_clear(worker, address, patience).await?;
    let Some((client, hosts)) = &version.tls else { return Ok(stream.into()) };
    let patience = patience.saturating_sub(began.elapsed());
    match client.connect_speaking(&hosts[endpoint], stream, patience, speaking).await {
        Ok(stream) => Ok(stream.into()),
        Err(error) => {
            if let Some(more) = version.endpoints[endpoint].complaint.due(Instant::now().into_std())
            {
                tracing::warn!(%address, %error, more, "the TLS handshake with an endpoint failed");
            }
            Err(match error {
                HandshakeError::TimedOut(_) => ProxyError::ConnectTimeout,
                _ => ProxyError::Tls,
            })
        }
    }
}

async fn connect_in_clear(
    worker: &Worker,
    address: SocketAddr,
    patience: Duration,
) -> Result<TcpStream, ProxyError> {
    let socket = open(worker, address).map_err(|error| want(worker, address, &error))?;
    match timeout(patience, socket.connect(address)).await {
        Ok(Ok(stream)) => {
            // Fails only if the connection has already ended; then the first write fails, too.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) if is_want(&error, address) => Err(want(worker, address, &error)),
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "an endpoint could not be connected");
            Err(ProxyError::Connect)
        }
        Err(_) => {
            tracing::debug!(%address, ?patience, "an endpoint could not be connected in time");
            Err(ProxyError::ConnectTimeout)
        }
    }
}

/// Opens a socket for `address`. If no descriptor is free, this worker's pooled connections are
/// closed first.
fn open(worker: &Worker, address: SocketAddr) -> io::Result<TcpSocket> {
    let granted = worker.shared.granted;
    let socket = socket::open(address, granted.ceiling()).or_else(|_| {
        worker.pools.borrow_mut().clear();
        socket::open(address, granted.ceiling())
    })?;
    bound_received(&socket, granted.received());
    bound_unsent(&socket);
    Ok(socket)
}

/// Counts and logs that a connection cannot be opened, which is no fault of the endpoint.
#[cold]
fn want(worker: &Worker, address: SocketAddr, error: &io::Error) -> ProxyError {
    worker.shared.exhaustion.count_endpoint(address, error);
    ProxyError::Want
}
