//! The old process's side: starts its successor, or accepts one that connects, and hands over.
//!
//! All of this blocks, so it runs on a thread of its own, and calls back for what the process has
//! to do meanwhile.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    net::{SocketAddr, TcpListener},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream},
    },
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use super::{
    Error, READY_WITHIN, SOCKET_VARIABLE, STEP_WITHIN,
    message::{Channel, FromNew, FromOld, LONGEST, PROTOCOL},
    pins::PinMessage,
};
use crate::{
    control::{earlier::Earlier, state::ControlState},
    store::KeptPins,
};

/// Interval of checks whether a new process has connected, or ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Time in which pieces of the past are sent.
const PAST_WITHIN: Duration = Duration::from_millis(100);

/// Time that a failed new process has to exit, so that its exit code can be reported.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// The program and its arguments. It is started by its path, so that a replaced file, or a changed
/// link, takes effect.
#[derive(Debug, Clone)]
pub struct Program {
    path: OsString,
    arguments: Vec<OsString>,
}

/// Sockets and state to hand over.
#[derive(Debug)]
pub struct Offer {
    /// Listening sockets, with their configured addresses.
    pub sockets: Vec<(SocketAddr, TcpListener)>,
    /// The current state.
    pub carried: ControlState,
    /// Services of which several versions have writes, each with why.
    pub split: BTreeMap<String, String>,
    /// What a release that does not know of it would forget, to harm; `None` if there is nothing.
    pub to_know: Option<String>,
}

/// What a process gives up when it lets go.
#[derive(Debug)]
pub struct LetGo {
    /// The final state.
    pub carried: ControlState,
    /// All pins.
    pub pins: KeptPins,
    /// Pieces of what it has measured, in the order of their importance.
    pub past: Vec<Vec<u8>>,
    /// The processes that may have requests in flight, this one at the end.
    pub earlier: Vec<Earlier>,
}

/// The process that is to take over.
#[derive(Debug)]
pub struct Successor {
    channel: Channel,
    /// The child process, if it was started here.
    child: Option<Running>,
    /// When it must be ready.
    until: Instant,
}

/// The process that has taken over, and waits for its release.
#[derive(Debug)]
pub struct Handed {
    /// Its number.
    pub pid: u32,
    /// Whether this process started it.
    pub is_child: bool,
    channel: Channel,
}

/// A started process, ended when dropped.
#[derive(Debug)]
struct Running(Option<Child>);

impl Program {
    /// The program of this process.
    pub fn of_this_process() -> Self {
        let mut arguments = env::args_os();
        let path = arguments.next().filter(|path| !path.is_empty());
        let path = path.or_else(|| env::current_exe().ok().map(OsString::from));
        Self { path: path.unwrap_or_else(|| "tidegate".into()), arguments: arguments.collect() }
    }
}

impl Successor {
    /// Starts `program` and waits until it asks for the sockets.
    pub fn start(program: &Program) -> Result<Self, Error> {
        let name = format!("tidegate-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let listener = UnixListener::bind_addr(&UnixAddress::from_abstract_name(&name)?)?;
        listener.set_nonblocking(true)?;
        let child = Command::new(&program.path)
            .args(&program.arguments)
            .env(SOCKET_VARIABLE, format!("@{name}"))
            // They refer to sockets that systemd passed to this process.
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDNAMES")
            .spawn();
        let child = child.map_err(|source| Error::Spawn {
            program: program.path.to_string_lossy().into_owned(),
            source,
        })?;
        let pid = child.id();
        let mut child = Running(Some(child));
        let until = Instant::now() + READY_WITHIN;
        while Instant::now() < until {
            if let Ok((stream, _)) = listener.accept() {
                match Channel::new(stream) {
                    Ok(channel) if channel.pid.unsigned_abs() == pid => {
                        return Ok(Self { channel, child: Some(child), until });
                    }
                    Ok(Channel { pid, .. }) | Err(Error::Stranger(pid)) => {
                        tracing::warn!(pid, "a stranger asked for the sockets and got nothing");
                    }
                    Err(error) => return Err(error),
                }
            }
            if let Some(status) = child.ended() {
                return Err(Error::Ended(status));
            }
            thread::sleep(LOOK_EVERY);
        }
        Err(Error::Late(READY_WITHIN))
    }

    /// Accepts a process that connected by itself.
    pub fn asked(stream: UnixStream) -> Result<Self, Error> {
        let until = Instant::now() + READY_WITHIN;
        Ok(Self { channel: Channel::new(stream)?, child: None, until })
    }

    /// Hands over. `let_go` is called once the new process is ready: it makes this process stop to
    /// accept, and returns the final state, all pins and the past, or `None` if this process ends in another way. After an
    /// error this process must continue.
    pub fn take(
        mut self,
        offer: Offer,
        let_go: impl FnOnce() -> Option<LetGo>,
    ) -> Result<Handed, Error> {
        match self.converse(offer, let_go) {
            Ok(()) => {
                let is_child = self.child.is_some();
                self.child.into_iter().for_each(Running::release);
                let pid = self.channel.pid.unsigned_abs();
                Ok(Handed { pid, is_child, channel: self.channel })
            }
            Err(error @ (Error::Broken(_) | Error::Failed(_))) => {
                // The new process exits once it sees the end of the connection.
                drop(self.channel);
                let status = self.child.and_then(Running::last_words);
                match (error, status) {
                    (Error::Broken(_), Some(status)) => Err(Error::Ended(status)),
                    (error, _) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn converse(
        &mut self,
        offer: Offer,
        let_go: impl FnOnce() -> Option<LetGo>,
    ) -> Result<(), Error> {
        let (takes_pins, takes_past);
        match self.channel.receive(STEP_WITHIN)? {
            FromNew::Hello { protocol: PROTOCOL, version, continues: false, .. }
                if offer.to_know.is_some() =>
            {
                let would = offer.to_know.unwrap_or_default();
                let reason = format!("release {version} is too old: it would forget {would}");
                self.channel.send(&FromOld::Refused { reason: reason.clone() })?;
                return Err(Error::Refused(reason));
            }
            FromNew::Hello { protocol: PROTOCOL, version, pins, past, .. } => {
                (takes_pins, takes_past) = (pins, past);
                tracing::info!(pid = self.channel.pid, version, "a process asks for the sockets");
            }
            FromNew::Hello { protocol, version, .. } => {
                let reason = format!(
                    "it speaks protocol {PROTOCOL}, and release {version} protocol {protocol}"
                );
                self.channel.send(&FromOld::Refused { reason: reason.clone() })?;
                return Err(Error::Refused(reason));
            }
            other => return Err(unexpected(other)),
        }
        let Offer { sockets, carried, split, to_know: _ } = offer;
        let addresses = sockets.iter().map(|(asked, _)| *asked).collect();
        self.channel.send(&FromOld::Offer { sockets: addresses, carried, split })?;
        for (_, socket) in &sockets {
            self.channel.send_socket(socket)?;
        }
        drop(sockets);
        let left = self.until.saturating_duration_since(Instant::now());
        let ready = self.channel.receive(left).map_err(|error| match error {
            Error::Late(_) => Error::Late(READY_WITHIN),
            error => error,
        });
        match ready? {
            FromNew::Ready => {}
            other => return Err(unexpected(other)),
        }
        let Some(LetGo { carried, pins, past, earlier }) = let_go() else {
            let reason = Error::Ending.to_string();
            self.channel.send(&FromOld::Refused { reason })?;
            return Err(Error::Ending);
        };
        if takes_pins {
            for pins in PinMessage::all(&pins) {
                self.channel.send(&FromOld::Pins(pins))?;
            }
        }
        if takes_past {
            self.send_past(&past)?;
        }
        self.channel.send(&FromOld::Yours { carried, earlier })?;
        let serving = match self.channel.receive(STEP_WITHIN) {
            // The message may arrive at this moment, and then this process must not continue.
            Err(Error::Late(within)) => {
                self.channel.receive_last().map_err(|_| Error::Late(within))
            }
            said => said,
        };
        match serving? {
            FromNew::Serving => Ok(()),
            other => Err(unexpected(other)),
        }
    }
}

impl Successor {
    /// Sends what was measured, as far as there is time for it: clients wait meanwhile.
    fn send_past(&mut self, past: &[Vec<u8>]) -> Result<(), Error> {
        let until = Instant::now() + PAST_WITHIN;
        let mut left_out = 0;
        for piece in past {
            if piece.len() > LONGEST as usize || Instant::now() >= until {
                left_out += 1;
                continue;
            }
            self.channel.send(&FromOld::Past)?;
            self.channel.send_bytes(piece)?;
        }
        if left_out > 0 {
            tracing::warn!(left_out, "a part of the evidence and the histograms begins anew");
        }
        Ok(())
    }
}

fn unexpected(message: FromNew) -> Error {
    match message {
        FromNew::Failed { reason } => Error::Failed(reason),
        other => std::io::Error::other(format!("{other:?} out of turn")).into(),
    }
}

impl Handed {
    /// Releases the process, and waits until it has taken this one's place.
    pub fn release(mut self) {
        self.channel.end();
        self.channel.await_end();
    }
}

impl Running {
    /// Its exit status, if it has ended.
    fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let status = self.0.as_mut()?.try_wait().ok().flatten();
        if status.is_some() {
            self.0 = None;
        }
        status
    }

    /// Its exit status, if it ends soon.
    fn last_words(mut self) -> Option<std::process::ExitStatus> {
        let until = Instant::now() + LAST_BREATH;
        while Instant::now() < until {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            thread::sleep(LOOK_EVERY);
        }
        None
    }

    /// Lets it continue without this guard.
    fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // Fails if it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
