//! A connection that may be encrypted.
//!
//! One type for both, rather than a generic path compiled twice: the difference is one branch per
//! read or write, and everything above it is the same code.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{client, server};

use super::session::Session;

/// A TCP connection, in clear or under TLS.
#[derive(Debug)]
pub enum Transport {
    /// In clear.
    Plain(TcpStream),
    /// Under TLS; boxed, since a session is much larger than a socket.
    Tls(Box<Session>),
}

impl Transport {
    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(session) => session.socket(),
        }
    }

    /// The protocol negotiated by ALPN; `None` in clear.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(session) => session.alpn(),
        }
    }

    /// Makes the connection end without `close_notify`, since the message was truncated.
    pub fn tear(&mut self) {
        if let Self::Tls(session) = self {
            session.tear();
        }
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether nothing has arrived on an idle connection: neither its end nor unexpected bytes.
    ///
    /// Without `thorough` this uses the runtime's readiness; with it the kernel is asked, too, at
    /// the cost of a system call.
    pub fn is_quiet(&mut self, thorough: bool) -> bool {
        let quiet = match self {
            Self::Plain(stream) => {
                matches!(stream.try_read(&mut [0u8; 1]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
            }
            // Processes records of the session itself (tickets), and shows whether other bytes are
            // left.
            Self::Tls(stream) => {
                let (mut byte, mut cx) = ([0u8; 1], Context::from_waker(Waker::noop()));
                Pin::new(stream.stream())
                    .poll_read(&mut cx, &mut ReadBuf::new(&mut byte))
                    .is_pending()
            }
        };
        if !quiet || !thorough {
            return quiet;
        }
        use rustix::net::{RecvFlags, recv};
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(recv(self.socket(), &mut [0u8; 1], flags), Err(rustix::io::Errno::AGAIN))
    }
}

impl From<TcpStream> for Transport {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

impl From<server::TlsStream<TcpStream>> for Transport {
    fn from(stream: server::TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(Session::new(stream.into())))
    }
}

impl From<client::TlsStream<TcpStream>> for Transport {
    fn from(stream: client::TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(Session::new(stream.into())))
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(session) => Pin::new(session.stream()).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Tls(session) => Pin::new(session.stream()).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // Nothing is buffered here.
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(session) => Pin::new(session.stream()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(session) => Pin::new(session.stream()).poll_shutdown(cx),
        }
    }
}
