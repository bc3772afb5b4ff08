//! The new process's side: gets the sockets of the running process.

use std::{
    collections::BTreeMap,
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
    path::Path,
};

use super::{
    Error, InheritedSockets, LetGo, READY_WITHIN, SOCKET_VARIABLE, STEP_WITHIN,
    message::{Channel, FromNew, FromOld, PROTOCOL},
};
use crate::{control::state::ControlState, store::KeptPins};

/// The process that serves until this one takes over.
#[derive(Debug)]
pub struct Predecessor {
    channel: Channel,
    /// Whether it started this process.
    is_parent: bool,
}

/// What the process offers before this one is ready.
#[derive(Debug)]
pub struct Offered {
    /// Its listening sockets.
    pub sockets: InheritedSockets,
    /// Its current state.
    pub carried: ControlState,
    /// Services of which several versions have writes there, each with why.
    pub split: BTreeMap<String, String>,
}

impl Predecessor {
    /// Connects to the process that started this one to take over, otherwise to the one that
    /// listens at `path`. `None` if there is neither, as in the first process that a service
    /// manager starts.
    pub fn find(path: Option<&Path>) -> Result<Option<Self>, Error> {
        let parent = env::var_os(SOCKET_VARIABLE);
        let is_parent = parent.is_some();
        let stream = if let Some(name) = parent {
            let name = name.to_string_lossy();
            let address = SocketAddr::from_abstract_name(name.trim_start_matches('@'))?;
            UnixStream::connect_addr(&address)?
        } else if let Some(path) = path {
            match UnixStream::connect(path) {
                Ok(stream) => stream,
                Err(error) if is_nobody(&error) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        } else {
            return Ok(None);
        };
        let mut channel = Channel::new(stream)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        channel.send(&FromNew::Hello {
            protocol: PROTOCOL,
            version,
            pins: true,
            past: true,
            continues: true,
        })?;
        Ok(Some(Self { channel, is_parent }))
    }

    /// Pid of the process.
    pub fn pid(&self) -> u32 {
        self.channel.pid.unsigned_abs()
    }

    /// Receives its sockets and its current state. `None` if it is silent and did not start this
    /// process: then this process starts as if there were no other.
    pub fn offer(&mut self) -> Result<Option<Offered>, Error> {
        let offer = match self.channel.receive(STEP_WITHIN) {
            Err(Error::Late(_)) if !self.is_parent => return Ok(None),
            offer => offer?,
        };
        match offer {
            FromOld::Offer { sockets, carried, split } => {
                let mut found = InheritedSockets::default();
                for asked in sockets {
                    found.add(asked, self.channel.receive_socket()?);
                }
                Ok(Some(Offered { sockets: found, carried, split }))
            }
            FromOld::Refused { reason } => Err(Error::Refused(reason)),
            FromOld::Yours { .. } | FromOld::Pins(_) | FromOld::Past => Err(out_of_turn()),
        }
    }

    /// Reports that this process is ready; returns the final state, all pins and the past once the other
    /// process has stopped to accept.
    pub fn ready(&mut self) -> Result<LetGo, Error> {
        self.channel.send(&FromNew::Ready)?;
        let (mut pins, mut past) = (KeptPins::new(), Vec::new());
        loop {
            match self.channel.receive(READY_WITHIN)? {
                FromOld::Yours { carried, earlier } => {
                    return Ok(LetGo { carried, pins, past, earlier });
                }
                FromOld::Pins(more) => more.add_to(&mut pins)?,
                FromOld::Past => past.push(self.channel.receive_bytes(STEP_WITHIN)?),
                FromOld::Refused { reason } => return Err(Error::Refused(reason)),
                FromOld::Offer { .. } => return Err(out_of_turn()),
            }
        }
    }

    /// Reports that this process serves. After an error it must not serve, since the other process
    /// continues.
    pub fn serving(&mut self) -> Result<(), Error> {
        self.channel.send(&FromNew::Serving)
    }

    /// Waits until the other process has told the service manager the new main process, then
    /// reports that this one has taken its place.
    pub fn await_release(mut self) {
        self.channel.await_end();
    }

    /// Reports why this process cannot start.
    pub fn fail(mut self, reason: &str) {
        // If sending fails, the other process sees this one exit. Exiting with its offer unread
        // would break the connection before it has read the reason.
        if self.channel.send(&FromNew::Failed { reason: reason.to_owned() }).is_ok() {
            self.channel.await_end();
        }
    }
}

/// Whether `error` means that no process listens.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn out_of_turn() -> Error {
    io::Error::other("a message out of turn").into()
}
