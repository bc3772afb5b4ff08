//! A client's connection: waits for requests, passes each to [`handle`], and closes gracefully.

use std::{
    future::poll_fn, net::IpAddr, rc::Rc, sync::atomic::Ordering::Relaxed, task::Poll,
    time::Duration,
};

use tokio::{net::TcpStream, time::Instant};

use super::{
    address::AddressText,
    channel::Channel,
    client::{Client, Connected, NextState},
    deadline::Deadline,
    h2,
    handle::handle,
    preamble::read_proxy_header,
    shared::ListenerState,
    smoke_target::SmokeTarget,
    worker::{ConnectionGuard, Worker},
};
use crate::tls::{self, Transport};

/// Serves a client until its connection ends; `smoke`: its requests go there.
pub(super) async fn serve(
    worker: Rc<Worker>,
    mut stream: TcpStream,
    peer: IpAddr,
    mut open: ConnectionGuard,
    smoke: Option<Box<SmokeTarget>>,
) {
    // Fails only if the connection is already gone, which the first read will show.
    let _ = stream.set_nodelay(true);
    let _panics = worker.count_panic();
    poll_fn(|cx| {
        open.wake_by(cx.waker());
        Poll::Ready(())
    })
    .await;
    let patience = worker.snapshot().limits.header_timeout;
    let mut deadline = Deadline::new(Instant::now() + patience);
    let introduced = read_proxy_header(&worker, &mut open, &mut stream, peer, &mut deadline).await;
    let Some(address) = introduced else { return };
    let spoken = speak(&worker, stream, open.listener(), patience, &mut deadline).await;
    let Some((stream, subject)) = spoken else { return };
    let chose_h2 = stream.alpn() == Some(tls::H2);
    let connected = Rc::new(Connected {
        address,
        address_text: AddressText::new(address),
        subject,
        encrypted: smoke.as_ref().map_or(stream.is_encrypted(), |smoke| smoke.encrypted),
        smoke,
        open,
    });
    let mut client = Client::new(Channel::Wire(stream), deadline, connected);
    if chose_h2 {
        return Box::pin(h2::serve(worker, client)).await;
    }
    while client.next_request(&worker).await {
        match handle(&mut client, &worker).await {
            // Also while the worker drains: this response was sent before it could announce the close.
            NextState::Keep => client.first = false,
            NextState::Close => break,
            NextState::Linger => {
                client.linger(&worker).await;
                break;
            }
            NextState::Http2 => return Box::pin(h2::serve(worker, client)).await,
        }
    }
    client.leave(&worker);
}

/// Performs the TLS handshake if the listener has TLS. Returns the connection and the subject of the client's
/// certificate; `None` if the handshake failed, which is the client's fault.
async fn speak(
    worker: &Worker,
    stream: TcpStream,
    listener: &ListenerState,
    patience: Duration,
    deadline: &mut Deadline,
) -> Option<(Transport, Option<Box<str>>)> {
    let Some(tls) = &listener.tls else { return Some((stream.into(), None)) };
    // Boxed, so that a connection does not hold the handshake's memory for its whole life.
    let mut handshake = Box::pin(tls::server::accept(tls.config(), stream, patience));
    let began = Instant::now();
    let spoken = poll_fn(|cx| {
        if let Poll::Ready(spoken) = handshake.as_mut().poll(cx) {
            return Poll::Ready(Some(spoken));
        }
        // A client in the middle of a handshake is treated as idle.
        let Some(until) = worker.idle_until.get() else { return Poll::Pending };
        deadline.set(until);
        deadline.poll_passed(cx).map(|()| None)
    });
    let spoken = spoken.await;
    deadline.set(began + patience);
    match spoken? {
        Ok(stream) => {
            let subject = tls::server::client_subject(stream.get_ref().1).map(Into::into);
            Some((stream.into(), subject))
        }
        Err(error) => {
            listener.handshakes_failed.fetch_add(1, Relaxed);
            tracing::debug!(listener = listener.name, %error, "a TLS handshake failed");
            None
        }
    }
}
