//! Sends messages and sockets between two processes.

use std::{
    collections::BTreeMap,
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

use super::{Error, pins::PinMessage};
use crate::control::{earlier::Earlier, state::ControlState};

/// Version of the protocol; grows with every incompatible change.
pub(super) const PROTOCOL: u32 = 1;

/// Longest message: weights of more services than a file of 8 MiB can have.
pub(super) const LONGEST: u32 = 16 << 20;

/// Bytes of a message that are read at once.
const PART: usize = 16 << 10;

/// Messages of the new process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(super) enum FromNew {
    /// It wants to take over.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Its release.
        version: String,
        /// Whether it takes pins over; an earlier release does not say so.
        #[serde(default)]
        pins: bool,
        /// Whether it continues what the old process has measured; an earlier release does not say so.
        #[serde(default)]
        past: bool,
        /// Whether it continues rollouts and keeps fences; an earlier release does not say so.
        #[serde(default)]
        continues: bool,
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

/// Messages of the old process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(super) enum FromOld {
    /// The sockets, which follow in this order, and the state.
    Offer {
        /// Configured address of each socket: port 0 stays port 0.
        sockets: Vec<SocketAddr>,
        /// The current state; it may change until [`FromOld::Yours`].
        carried: ControlState,
        /// Services of which several versions have writes, each with why; an earlier release does not say so.
        #[serde(default)]
        split: BTreeMap<String, String>,
    },
    /// Pins of a service, before [`FromOld::Yours`].
    Pins(PinMessage),
    /// A piece of what the old process has measured follows, before [`FromOld::Yours`].
    Past,
    /// The old process does not accept or change anything any more.
    Yours {
        /// The final state.
        carried: ControlState,
        /// The processes that may have requests in flight, the old one at the end; an earlier release does not
        /// say so.
        #[serde(default)]
        earlier: Vec<Earlier>,
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
    /// The received part of the next message.
    held: Vec<u8>,
    /// Number of the other process.
    pub(super) pid: i32,
}

impl Channel {
    /// Creates a channel; the other process must be of the same user, or of root.
    pub(super) fn new(stream: UnixStream) -> Result<Self, Error> {
        stream.set_nonblocking(false)?;
        let peer = sockopt::socket_peercred(&stream).map_err(io::Error::from)?;
        let pid = peer.pid.as_raw_nonzero().get();
        if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
            return Err(Error::Stranger(pid));
        }
        Ok(Self { stream, held: Vec::new(), pid })
    }

    pub(super) fn send(&mut self, message: &impl Serialize) -> Result<(), Error> {
        self.send_bytes(&serde_json::to_vec(message).map_err(io::Error::from)?)
    }

    /// Sends bytes that are no message, with their length.
    pub(super) fn send_bytes(&mut self, text: &[u8]) -> Result<(), Error> {
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        self.stream.set_write_timeout(Some(super::STEP_WITHIN))?;
        Ok(self.stream.write_all(&[&length.to_be_bytes(), text].concat())?)
    }

    /// Receives the next message, if it arrives `within` this time. A part that has arrived is kept
    /// for the next call.
    pub(super) fn receive<T: DeserializeOwned>(&mut self, within: Duration) -> Result<T, Error> {
        let message = self.receive_bytes(within)?;
        Ok(serde_json::from_slice(&message).map_err(io::Error::from)?)
    }

    /// Receives the bytes of the next [`Channel::send_bytes`], like [`Channel::receive`].
    pub(super) fn receive_bytes(&mut self, within: Duration) -> Result<Vec<u8>, Error> {
        let late = |error: io::Error| match Error::from(error) {
            Error::Late(_) => Error::Late(within),
            error => error,
        };
        let until = Instant::now() + within;
        self.hold(4, until).map_err(late)?;
        let mut length = [0; 4];
        length.copy_from_slice(&self.held[..4]);
        let length = u32::from_be_bytes(length);
        if length > LONGEST {
            return Err(io::Error::other(format!("a message of {length} bytes")).into());
        }
        self.hold(4 + length as usize, until).map_err(late)?;
        let mut message = std::mem::take(&mut self.held);
        message.drain(..4);
        Ok(message)
    }

    /// Receives the last message if it has arrived already. From here on the kernel rejects what
    /// the other process sends, so both sides know whether the message was received.
    pub(super) fn receive_last<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        self.stream.shutdown(Shutdown::Read)?;
        self.receive(Duration::ZERO)
    }

    /// Reads until `length` bytes are held, and not more: sockets come with bytes of their own.
    fn hold(&mut self, length: usize, until: Instant) -> io::Result<()> {
        while self.held.len() < length {
            self.patience(until)?;
            let mut part = [0; PART];
            let missing = (length - self.held.len()).min(PART);
            match self.stream.read(&mut part[..missing]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.held.extend_from_slice(&part[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn send_socket(&mut self, socket: &TcpListener) -> Result<(), Error> {
        let descriptors = [socket.as_fd()];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        // Cannot fail: the space is for exactly one.
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

    /// Shuts the writing side down.
    pub(super) fn end(&mut self) {
        // A failure means that the connection has ended.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Waits until the other process ends the connection; drops further messages.
    pub(super) fn await_end(&mut self) {
        let until = Instant::now() + super::STEP_WITHIN;
        let mut sink = [0; 1024];
        // An error also means that the connection has ended.
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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().expect("sockets");
        (Channel::new(one).expect("ours"), Channel::new(other).expect("ours"))
    }

    #[test]
    fn a_message_in_pieces_is_read_over_several_calls() {
        let (mut old, mut new) = pair();
        let text = br#"{"message":"serving"}"#;
        let message = [&(text.len() as u32).to_be_bytes(), &text[..]].concat();
        let (last, first) = message.split_last().expect("bytes");
        new.stream.write_all(first).expect("read");
        let early: Result<FromNew, _> = old.receive(Duration::from_millis(10));
        assert!(matches!(early, Err(Error::Late(_))), "{early:?}");
        new.stream.write_all(&[*last]).expect("read");
        let whole = old.receive(Duration::from_secs(10));
        assert!(matches!(whole, Ok(FromNew::Serving)), "{whole:?}");
    }

    #[test]
    fn the_last_message_is_heard_or_its_sender_is_refused() {
        let (mut old, mut new) = pair();
        new.send(&FromNew::Serving).expect("read");
        assert!(matches!(old.receive_last(), Ok(FromNew::Serving)));
        let (mut old, mut new) = pair();
        assert!(old.receive_last::<FromNew>().is_err());
        assert!(new.send(&FromNew::Serving).is_err(), "nobody reads it");
    }

    /// Once a message was sent just before the other side gave up, and both processes served.
    #[test]
    fn both_sides_agree_whether_a_late_message_was_heard() {
        for pause in 0..200 {
            let (mut old, mut new) = pair();
            let sender = thread::spawn(move || {
                // The other side waits for at least a millisecond.
                let until = Instant::now() + Duration::from_micros(900 + pause);
                while Instant::now() < until {}
                (new.send(&FromNew::Serving).is_ok(), new)
            });
            let heard = old.receive::<FromNew>(Duration::from_nanos(1));
            let heard = heard.or_else(|_| old.receive_last()).is_ok();
            let (sent, _new) = sender.join().expect("no panic");
            assert_eq!(heard, sent, "round {pause}");
        }
    }
}
