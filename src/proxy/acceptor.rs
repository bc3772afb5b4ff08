//! Accepts clients and hands each to the least loaded worker.
//!
//! One thread accepts for all workers, rather than each worker from a socket of its own
//! (`SO_REUSEPORT`): connections live long and differ in load, and the kernel's hash would give one
//! worker twice the clients of another.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    os::fd::AsRawFd,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc as std_mpsc},
    thread,
};

use rustix::io::Errno;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::LocalSet,
};

use super::{
    accept::{accept_next, is_of_one_client},
    command::{Accepted, Command},
    limit::LimitKind,
    shared::{ListenerState, Shared},
    shed::shed,
};
use crate::{
    config::schema::{Listen, ListenTls},
    tls::{H2, HTTP_1_0, HTTP_1_1, TlsError, TlsListener},
    upstream::socket::{bound_received, bound_unsent},
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Protocols offered to clients that speak TLS.
const ALPN: &[&[u8]] = &[H2, HTTP_1_1, HTTP_1_0];

/// A bound listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: StdListener,
    /// Its counts.
    pub state: Arc<ListenerState>,
    /// Bound address; its port is the real one even if port 0 was configured.
    pub address: SocketAddr,
}

impl Listener {
    /// Takes over a socket that listens already, with the settings of `listen`.
    pub fn adopt(socket: StdListener, listen: &Listen) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        bound_unsent(&socket);
        let address = socket.local_addr()?;
        let state = ListenerState {
            name: address.to_string(),
            proxy_protocol_from: listen.proxy_protocol.as_ref().map_or(vec![], |p| p.from.clone()),
            ..Default::default()
        };
        Ok(Self { socket, state: Arc::new(state), address })
    }

    /// Another handle of the same socket.
    pub fn socket(&self) -> io::Result<StdListener> {
        self.socket.try_clone()
    }

    /// Makes the clients of the socket speak TLS. Must be called before the socket is shared.
    pub fn encrypt(mut self, tls: &ListenTls) -> Result<Self, TlsError> {
        let tls = TlsListener::open(&self.state.name, tls, ALPN)?;
        let state = Arc::get_mut(&mut self.state).expect("the socket is not shared yet");
        state.tls = Some(tls);
        Ok(self)
    }

    /// Binds the address of `listen`.
    pub fn bind(listen: &Listen) -> io::Result<Self> {
        use socket2::{Domain, Socket, Type};
        let address = listen.address;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // A restart must not wait until the last process's connections leave TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Self::adopt(socket.into(), listen)
    }
}

/// The running acceptor.
#[derive(Debug)]
pub struct Acceptor {
    /// Commands to accept or not, each with the channel that confirms it.
    gate: mpsc::UnboundedSender<(bool, std_mpsc::Sender<()>)>,
    thread: thread::JoinHandle<()>,
}

impl Acceptor {
    /// Starts the thread. It accepts from `listeners` for `workers` once [`Acceptor::set_open`] is
    /// called.
    pub fn spawn(
        listeners: Vec<Listener>,
        shared: Arc<Shared>,
        workers: Vec<mpsc::UnboundedSender<Command>>,
    ) -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        for listener in &listeners {
            bound_received(&listener.socket, shared.granted.received());
        }
        let (gate, mut moves) = mpsc::unbounded_channel::<(bool, std_mpsc::Sender<()>)>();
        let thread = thread::Builder::new().name("acceptor".to_owned()).spawn(move || {
            let hand_out = Rc::new(HandOut { shared, workers });
            let local = LocalSet::new();
            let is_open = watch::Sender::new(false);
            let accept = |listener| accept(listener, Rc::clone(&hand_out), is_open.subscribe());
            let listening: Vec<_> =
                listeners.into_iter().map(|listener| local.spawn_local(accept(listener))).collect();
            // Ends when `gate` is dropped; clients to which a 503 is still being sent are cut off.
            local.block_on(&runtime, async move {
                while let Some((open, done)) = moves.recv().await {
                    // The listeners check this before they accept, and run on this thread: after
                    // this line nothing is accepted.
                    is_open.send_replace(open);
                    // The caller may have stopped waiting.
                    let _ = done.send(());
                }
                drop(is_open);
                for listener in listening {
                    // A panic was logged where it happened.
                    let _ = listener.await;
                }
            });
        })?;
        Ok(Self { gate, thread })
    }

    /// Starts or stops to accept; meanwhile clients wait in the sockets' queues. Takes effect
    /// before it returns.
    pub fn set_open(&self, open: bool) {
        let (done, is_done) = std_mpsc::channel();
        // An acceptor that has ended accepts nothing.
        if self.gate.send((open, done)).is_ok() {
            let _ = is_done.recv();
        }
    }

    /// Accepts the clients that wait in the sockets' queues, unless the acceptor is set closed, and
    /// closes the sockets. Takes effect before it returns.
    pub fn stop(self) {
        drop(self.gate);
        if self.thread.join().is_err() {
            tracing::error!("the acceptor panicked");
        }
    }
}

struct HandOut {
    shared: Arc<Shared>,
    workers: Vec<mpsc::UnboundedSender<Command>>,
}

async fn accept(listener: Listener, hand_out: Rc<HandOut>, mut is_open: watch::Receiver<bool>) {
    let state = listener.state;
    let socket = match TcpListener::from_std(listener.socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(listener = state.name, %error, "a listening socket is unusable");
            return;
        }
    };
    let (name, exhaustion) = (&state.name, &hand_out.shared.exhaustion);
    while let Some((stream, peer)) = accept_next(&socket, &mut is_open, name, exhaustion).await {
        hand_out.give(stream, peer, &state);
    }
    // Clients in the queue have connected; closing the socket would reset them.
    if *is_open.borrow() {
        hand_out.accept_queued(socket, &state);
    }
}

impl HandOut {
    /// Accepts the clients that wait in the queue of `socket`, and closes it.
    fn accept_queued(self: &Rc<Self>, socket: TcpListener, state: &Arc<ListenerState>) {
        // Asks the system, since the runtime may not know the latest clients yet.
        let Ok(socket) = socket.into_std() else { return };
        for _ in 0..BACKLOG {
            let (stream, peer) = match socket.accept() {
                Ok(client) => client,
                Err(error) if is_of_one_client(&error) => continue,
                Err(_) => return,
            };
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                self.give(stream, peer, state);
            }
        }
    }

    fn give(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, state: &Arc<ListenerState>) {
        state.accepted.fetch_add(1, Relaxed);
        if stream.as_raw_fd() >= self.shared.granted.ceiling() {
            state.count_shed(LimitKind::OfAll);
            return self.shared.exhaustion.count_client(&state.name, &Errno::MFILE.into());
        }
        if self.shared.connections() >= self.shared.bounds().connections as usize {
            return self.shed(stream, LimitKind::OfAll, state);
        }
        // An IPv4 client of an IPv6 socket is still an IPv4 client.
        let peer = peer.ip().to_canonical();
        // The worker reads the client's address of a connection that a balancer passes on.
        let slot = match state.is_introduced_by(peer) {
            true => Ok(None),
            false => self.shared.slot(peer),
        };
        let slot = match slot {
            Ok(slot) => slot,
            Err(limit) => return self.shed(stream, limit, state),
        };
        let loads = self.shared.loads.iter().enumerate();
        let least = loads.min_by_key(|(_, load)| load.load(Relaxed)).map_or(0, |(n, _)| n);
        let Ok(stream) = stream.into_std() else { return };
        self.shared.loads.of(least).fetch_add(1, Relaxed);
        state.open.fetch_add(1, Relaxed);
        let listener = Arc::clone(state);
        let accepted = Accepted { stream, peer, listener, slot, smoke: None };
        if self.workers[least].send(Command::Connection(accepted)).is_err() {
            // The worker has ended, so the process ends too; the connection is dropped with the
            // command.
            self.shared.loads.of(least).fetch_sub(1, Relaxed);
            state.open.fetch_sub(1, Relaxed);
        }
    }

    /// Sends 503 to a client above a limit. Clients of a TLS listener are closed without a
    /// response, since the handshake would cost most of all; so are clients for whom no descriptor
    /// can be spared.
    fn shed(self: &Rc<Self>, mut stream: TcpStream, limit: LimitKind, state: &ListenerState) {
        state.count_shed(limit);
        if state.tls.is_some() || stream.as_raw_fd() >= self.shared.granted.telling() {
            return;
        }
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move { shed(&this.shared, &mut stream, limit).await });
    }
}
