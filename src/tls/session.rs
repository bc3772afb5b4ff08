//! A TLS session that ends cleanly.
//!
//! A connection ends in many places: after its last response, when it was idle for too long, when
//! its worker drains. In each of them the peer must learn by `close_notify` that the end is the
//! sender's and not an attacker's (RFC 8446 section 6.1), so the session sends it when it is
//! dropped. Only a truncated message ends without it: a peer that reads to the end of the
//! connection must not take a part for the whole.

use std::{io, ops::DerefMut};

use rustls::{ConnectionCommon, SideData};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A session over a socket.
#[derive(Debug)]
pub struct Session {
    stream: TlsStream<TcpStream>,
    torn: bool,
}

impl Session {
    pub(super) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self { stream, torn: false }
    }

    pub(super) fn stream(&mut self) -> &mut TlsStream<TcpStream> {
        &mut self.stream
    }

    pub(super) fn socket(&self) -> &TcpStream {
        self.stream.get_ref().0
    }

    pub(super) fn alpn(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.alpn_protocol()
    }

    /// Makes the session end without `close_notify`.
    pub(super) fn tear(&mut self) {
        self.torn = true;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.torn {
            return;
        }
        match &mut self.stream {
            TlsStream::Client(stream) => {
                let (socket, session) = stream.get_mut();
                close(socket, session);
            }
            TlsStream::Server(stream) => {
                let (socket, session) = stream.get_mut();
                close(socket, session);
            }
        }
    }
}

/// Writes the buffered data and `close_notify`, as far as the socket accepts them at once. If the
/// socket is full, the peer does not read, or is gone.
fn close<D: SideData>(
    socket: &TcpStream,
    session: &mut impl DerefMut<Target = ConnectionCommon<D>>,
) {
    session.send_close_notify();
    while session.wants_write() {
        match session.write_tls(&mut AtOnce(socket)) {
            Ok(written) if written > 0 => {}
            _ => break,
        }
    }
}

/// Writes to a socket without waiting for it.
struct AtOnce<'a>(&'a TcpStream);

impl io::Write for AtOnce<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.try_write(data)
    }

    fn write_vectored(&mut self, data: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
