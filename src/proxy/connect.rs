//! How an endpoint is reached: over a connection that is kept or shared, or a new one.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    breaker::Pending,
    h2::{Asking, share},
    link::Link,
    problem::Fault,
    worker::Worker,
};
use crate::{
    config::schema::Protocol,
    snapshot::{Service, Version},
    tls::{H2, HandshakeError, Transport},
};

/// A stream of a shared connection to endpoint number `endpoint`, or a connection that was kept.
pub(super) fn kept(
    worker: &Worker,
    endpoint: u32,
    encrypted: bool,
    thorough: bool,
    now: Instant,
) -> Option<Link> {
    shared(worker, endpoint, encrypted).or_else(|| {
        worker.pools.borrow_mut().take(endpoint, encrypted, thorough, now).map(Link::Wire)
    })
}

fn shared(worker: &Worker, endpoint: u32, encrypted: bool) -> Option<Link> {
    let lease = worker.streams.borrow_mut().take(endpoint, encrypted)?;
    Some(Link::Asking(Box::new(Asking::new(lease, encrypted))))
}

/// A link to endpoint number `chosen` of `version`, made before `due`, and whether its connection
/// had served before. With `fresh`, it has not.
///
/// On the heap: what it needs is not to be part of every connection's task.
pub(super) fn link(
    worker: &Worker,
    service: &Service,
    version: &Version,
    chosen: usize,
    fresh: bool,
    due: Instant,
) -> impl Future<Output = Result<(Link, bool), Fault>> {
    let mut linking = Box::pin(async move {
        let _pending = Pending::begin(worker, service, version)?;
        let patience = due.saturating_duration_since(Instant::now()).min(service.connect_timeout);
        let made = make(worker, service, version, chosen, fresh, patience).await?;
        if let (_, false) = made {
            version.endpoints[chosen].cells.of(worker.id).connected.add(1);
        }
        Ok(made)
    });
    poll_fn(move |cx| poll_apart(linking.as_mut(), cx))
}

/// Polls `future`, and never as a part of the function that asks: with what a connection takes, which is
/// seldom made, what each request takes would be too large to become part of its caller.
#[inline(never)]
fn poll_apart<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    future.poll(cx)
}

async fn make(
    worker: &Worker,
    service: &Service,
    version: &Version,
    chosen: usize,
    fresh: bool,
    patience: Duration,
) -> Result<(Link, bool), Fault> {
    if version.protocol == Protocol::H1 {
        return Ok((Link::Wire(connect(version, chosen, patience).await?), false));
    }
    let (endpoint, encrypted) = (version.endpoints[chosen].id, version.tls.is_some());
    let until = Instant::now() + patience;
    // Whoever comes while a connection is being opened waits for that one.
    let opening = worker.streams.borrow_mut().opening(endpoint);
    let _turn = timeout_at(until, opening.lock()).await.map_err(|_| Fault::ConnectTimeout)?;
    if !fresh && let Some(link) = shared(worker, endpoint, encrypted) {
        return Ok((link, true));
    }
    let transport = connect(version, chosen, until - Instant::now()).await?;
    let speaks_h2 = match &transport {
        Transport::Plain(_) => version.protocol == Protocol::H2,
        Transport::Tls(_) => transport.alpn() == Some(H2),
    };
    if !speaks_h2 {
        return match version.protocol {
            Protocol::H2 => Err(Fault::Protocol),
            _ => Ok((Link::Wire(transport), false)),
        };
    }
    let sharing = share(&worker.streams, endpoint, transport, service.pool.idle_timeout);
    match timeout_at(until, sharing).await {
        Ok(Ok(lease)) => {
            worker.keep_ticking();
            Ok((Link::Asking(Box::new(Asking::new(lease, encrypted))), false))
        }
        Ok(Err(_)) => Err(Fault::Connect),
        Err(_) => Err(Fault::ConnectTimeout),
    }
}

/// A new connection to endpoint number `endpoint` of `version`, under TLS if the version is spoken to so.
async fn connect(
    version: &Version,
    endpoint: usize,
    patience: Duration,
) -> Result<Transport, Fault> {
    let (address, began) = (version.endpoints[endpoint].address, Instant::now());
    let stream = connect_in_clear(address, patience).await?;
    let Some((client, hosts)) = &version.tls else { return Ok(stream.into()) };
    let patience = patience.saturating_sub(began.elapsed());
    match client.connect(&hosts[endpoint], stream, patience).await {
        Ok(stream) => Ok(stream.into()),
        Err(error) => {
            tracing::warn!(%address, %error, "an endpoint does not speak TLS as it should");
            Err(match error {
                HandshakeError::TimedOut(_) => Fault::ConnectTimeout,
                _ => Fault::Tls,
            })
        }
    }
}

async fn connect_in_clear(address: SocketAddr, patience: Duration) -> Result<TcpStream, Fault> {
    match timeout(patience, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // Fails only on a connection that is already gone, which the first write will tell.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "an endpoint could not be connected");
            Err(Fault::Connect)
        }
        Err(_) => {
            tracing::debug!(%address, ?patience, "an endpoint could not be connected in time");
            Err(Fault::ConnectTimeout)
        }
    }
}
