//! Reads the PROXY protocol's header of a new connection before anything else.
//!
//! A peer that the listener knows as a balancer must begin with a PROXY protocol header. The
//! address in it is the client's from then on, and the connection gets its slot by that address.
//! The header is peeked at in the kernel's buffer and only its own bytes are taken out, so TLS or
//! HTTP begins with the next read. Its time is limited by `limits.header_timeout`, as that of any
//! head.

use std::{
    future::poll_fn,
    io,
    net::IpAddr,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll, ready},
};

use tokio::{io::ReadBuf, net::TcpStream};

use super::{
    deadline::Deadline,
    limit::LimitKind,
    proxy_protocol::{MAX_HEAD_BYTES, Malformed, Source, parse},
    shed::shed,
    worker::{ConnectionGuard, Worker},
};

/// Returns the address of the client of a new connection of `peer`; `None` if the connection is not
/// served.
pub(super) async fn read_proxy_header(
    worker: &Worker,
    open: &mut ConnectionGuard,
    stream: &mut TcpStream,
    peer: IpAddr,
    deadline: &mut Deadline,
) -> Option<IpAddr> {
    if !open.listener().is_introduced_by(peer) {
        return Some(peer);
    }
    let client = match await_head(worker, stream, deadline).await {
        Ok(Source::Address(client)) => client,
        // The balancer's own connection counts as the balancer's.
        Ok(Source::Unknown) => return Some(peer),
        Err(None) => return None,
        Err(Some(Malformed(why))) => {
            open.listener().proxy_protocol_errors.fetch_add(1, Relaxed);
            tracing::debug!(%peer, why, "a connection without a good PROXY head was closed");
            return None;
        }
    };
    match worker.shared.slot(client) {
        Ok(slot) => {
            open.set_slot(slot);
            Some(client)
        }
        Err(limit) => {
            open.listener().count_shed(limit);
            // Under TLS it is closed without a response, as in the acceptor.
            if open.listener().tls.is_none() {
                // Boxed, since it is rare and would enlarge the task of every connection.
                Box::pin(shed(&worker.shared, stream, LimitKind::OfClient)).await;
            }
            None
        }
    }
}

/// Reads the header at the start of the connection. The error is `None` if the peer left without a
/// byte (as a probe of the port does) or the worker drains.
async fn await_head(
    worker: &Worker,
    stream: &TcpStream,
    deadline: &mut Deadline,
) -> Result<Source, Option<Malformed>> {
    let mut held = Vec::new();
    poll_fn(|cx| {
        while let Poll::Ready(taken) = poll_take(cx, stream, &mut held) {
            match taken {
                Ok(Some(Ok(source))) => return Poll::Ready(Ok(source)),
                Ok(Some(Err(malformed))) => return Poll::Ready(Err(Some(malformed))),
                Ok(None) => {}
                Err(_) if held.is_empty() => return Poll::Ready(Err(None)),
                Err(_) => return Poll::Ready(Err(Some(Malformed("the head is cut short")))),
            }
        }
        if let Some(until) = worker.idle_until.get() {
            deadline.sooner(until);
        }
        ready!(deadline.poll_passed(cx));
        let drained = worker.idle_until.get().is_some() && held.is_empty();
        let late = Malformed("the head did not arrive in time");
        Poll::Ready(Err((!drained).then_some(late)))
    })
    .await
}

/// Takes the header's bytes off the connection and appends them to `held`; returns the header once
/// it is complete.
fn poll_take(
    cx: &mut Context<'_>,
    stream: &TcpStream,
    held: &mut Vec<u8>,
) -> Poll<io::Result<Option<Result<Source, Malformed>>>> {
    let mut bytes = [0; MAX_HEAD_BYTES];
    bytes[..held.len()].copy_from_slice(held);
    let mut ahead = ReadBuf::new(&mut bytes[held.len()..]);
    if ready!(stream.poll_peek(cx, &mut ahead))? == 0 {
        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
    }
    let seen = held.len() + ahead.filled().len();
    let (end, source) = match parse(&bytes[..seen]) {
        Ok(Some((source, length))) => (length, Some(source)),
        // All bytes belong to the incomplete header.
        Ok(None) => (seen, None),
        Err(malformed) => return Poll::Ready(Ok(Some(Err(malformed)))),
    };
    let taken = stream.try_read(&mut bytes[held.len()..end])?;
    let from = held.len();
    held.extend_from_slice(&bytes[from..from + taken]);
    Poll::Ready(Ok(source.filter(|_| held.len() == end).map(Ok)))
}
