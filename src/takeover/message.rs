//! Messages and sockets on their way between two processes.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::{Shutdown, SocketAddr, TcpListener},
    os::{fd::AsFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Error;
use crate::rollout::carried::Carried;

/// Grows when a process of the protocol before could not go on with one of this.
pub(super) const PROTOCOL: u32 = 1;

/// Longest message: weights of more services than a file of 8 MiB can have.
const LONGEST: u32 = 16 << 20;

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(super) enum FromNew {
    /// It wants to take over.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Its release.
        version: String,
    },
    /// It could serve at once.
    Ready,
    /// It serves from now on.
    Serving,
    /// It cannot start.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What the old process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(super) enum FromOld {
    /// What there is; the sockets follow in this order.
    Offer {
        /// Of each socket, the address as the file writes it: port 0 stays port 0.
        sockets: Vec<SocketAddr>,
        /// As of now; it may change until [`FromOld::Yours`].
        carried: Carried,
    },
    /// The old process accepts nothing and changes nothing any more.
    Yours {
        /// For good.
        carried: Carried,
    },
    /// It does not hand over.
    Refused {
        /// Why.
        reason: String,
    },
}

/// A connection to the other process.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    /// Number of the other process.
    pub(super) pid: i32,
}

impl Channel {
    /// A connection to a process of the same user, or of root.
    pub(super) fn new(stream: UnixStream) -> Result<Self, Error> {
        stream.set_nonblocking(false)?;
        let peer = sockopt::socket_peercred(&stream).map_err(io::Error::from)?;
        let pid = peer.pid.as_raw_nonzero().get();
        if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
            return Err(Error::Stranger(pid));
        }
        Ok(Self { stream, pid })
    }

    pub(super) fn send(&mut self, message: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_vec(message).map_err(io::Error::from)?;
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        self.stream.set_write_timeout(Some(super::STEP_WITHIN))?;
        self.stream.write_all(&length.to_be_bytes())?;
        Ok(self.stream.write_all(&text)?)
    }

    /// The next message, if it comes `within` this time.
    pub(super) fn receive<T: DeserializeOwned>(&mut self, within: Duration) -> Result<T, Error> {
        let late = |error: io::Error| match Error::from(error) {
            Error::Late(_) => Error::Late(within),
            error => error,
        };
        let until = Instant::now() + within;
        let mut length = [0; 4];
        self.patience(until)?;
        self.stream.read_exact(&mut length).map_err(late)?;
        let length = u32::from_be_bytes(length);
        if length > LONGEST {
            return Err(io::Error::other(format!("a message of {length} bytes")).into());
        }
        let mut text = vec![0; length as usize];
        self.patience(until)?;
        self.stream.read_exact(&mut text).map_err(late)?;
        Ok(serde_json::from_slice(&text).map_err(io::Error::from)?)
    }

    pub(super) fn send_socket(&mut self, socket: &TcpListener) -> Result<(), Error> {
        let descriptors = [socket.as_fd()];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        // The space is for exactly one.
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let sent = sendmsg(&self.stream, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL);
        sent.map(drop).map_err(|error| io::Error::from(error).into())
    }

    pub(super) fn receive_socket(&mut self) -> Result<TcpListener, Error> {
        self.patience(Instant::now() + super::STEP_WITHIN)?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let (mut byte, flags) = ([0], RecvFlags::CMSG_CLOEXEC);
        recvmsg(&self.stream, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)
            .map_err(io::Error::from)?;
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let missing = || io::Error::other("a socket was announced and did not come");
        let descriptor = descriptor.ok_or_else(missing)?;
        if !sockopt::socket_acceptconn(&descriptor).map_err(io::Error::from)? {
            return Err(io::Error::other("a descriptor that is no listening socket").into());
        }
        Ok(descriptor.into())
    }

    /// Says nothing more.
    pub(super) fn end(&mut self) {
        // Whatever happens to the connection, it has ended.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Waits until the other process ends the connection; drops what it still says.
    pub(super) fn await_end(&mut self) {
        let until = Instant::now() + super::STEP_WITHIN;
        let mut sink = [0; 1024];
        // Whatever else happens to the connection, it has ended.
        while Instant::now() < until && self.patience(until).is_ok() {
            if !self.stream.read(&mut sink).is_ok_and(|length| length > 0) {
                return;
            }
        }
    }

    fn patience(&self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))
    }
}
