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
    /// Where it is bound; the port is known even if 0 was asked.
    pub address: SocketAddr,
}

impl Listener {
    /// Takes over a socket that listens already, as `listen` says.
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

    /// The same socket, whose clients speak TLS. Called before the socket is handed out.
    pub fn encrypt(mut self, tls: &ListenTls) -> Result<Self, TlsError> {
        let tls = TlsListener::open(&self.state.name, tls, ALPN)?;
        let state = Arc::get_mut(&mut self.state).expect("nobody else has the socket yet");
        state.tls = Some(tls);
        Ok(self)
    }

    /// Binds the address of `listen`.
    pub fn bind(listen: &Listen) -> io::Result<Self> {
        use socket2::{Domain, Socket, Type};
        let address = listen.address;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // A restart must not wait for the connections of the last process to fade.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Self::adopt(socket.into(), listen)
    }
}

/// The running acceptor.
#[derive(Debug)]
pub struct Acceptor {
    /// Whether to accept, and who waits for it to be so.
    gate: mpsc::UnboundedSender<(bool, std_mpsc::Sender<()>)>,
    thread: thread::JoinHandle<()>,
}

impl Acceptor {
    /// Will accept from `listeners` for the workers behind `workers`, once it is set open.
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
            // Ends when it is stopped; clients still being told to go are cut off.
            local.block_on(&runtime, async move {
                while let Some((open, done)) = moves.recv().await {
                    // The listeners look here before they accept, and on this thread: nothing is
                    // accepted from the next line on.
                    is_open.send_replace(open);
                    // Who asked may have stopped waiting.
                    let _ = done.send(());
                }
                drop(is_open);
                for listener in listening {
                    // A panic was told where it happened.
                    let _ = listener.await;
                }
            });
        })?;
        Ok(Self { gate, thread })
    }

    /// Accepts, or leaves clients waiting in the sockets' queues. When this returns, it is so.
    pub fn set_open(&self, open: bool) {
        let (done, is_done) = std_mpsc::channel();
        // An acceptor that has ended accepts nothing.
        if self.gate.send((open, done)).is_ok() {
            let _ = is_done.recv();
        }
    }

    /// Takes in who waits in the queues of the sockets, unless it is set closed, and closes them. When
    /// this returns, it is so.
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
    let (name, wants) = (&state.name, &hand_out.shared.wants);
    while let Some((stream, peer)) = accept_next(&socket, &mut is_open, name, wants).await {
        hand_out.give(stream, peer, &state);
    }
    // Whoever waits in the queue has connected, and would be reset.
    if *is_open.borrow() {
        hand_out.take_in(socket, &state);
    }
}

impl HandOut {
    /// Takes in who waits at `socket`, and closes it.
    fn take_in(self: &Rc<Self>, socket: TcpListener, state: &Arc<ListenerState>) {
        // The runtime may not have heard of the latest ones: the system has.
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
            return self.shared.wants.of_client(&state.name, &Errno::MFILE.into());
        }
        if self.shared.connections() >= self.shared.bounds().connections as usize {
            return self.shed(stream, LimitKind::OfAll, state);
        }
        // An IPv4 client of an IPv6 socket is still an IPv4 client.
        let peer = peer.ip().to_canonical();
        // Whose connection it is that a balancer passes on, the worker will read.
        let slot = match state.is_introduced_by(peer) {
            true => Ok(None),
            false => self.shared.slot(peer),
        };
        let slot = match slot {
            Ok(slot) => slot,
            Err(surplus) => return self.shed(stream, surplus, state),
        };
        let loads = self.shared.loads.iter().enumerate();
        let least = loads.min_by_key(|(_, load)| load.load(Relaxed)).map_or(0, |(n, _)| n);
        let Ok(stream) = stream.into_std() else { return };
        self.shared.loads.of(least).fetch_add(1, Relaxed);
        state.open.fetch_add(1, Relaxed);
        let accepted = Accepted { stream, peer, listener: Arc::clone(state), slot };
        if self.workers[least].send(Command::Connection(accepted)).is_err() {
            // The worker has ended, and with it the process; the connection ends with the command.
            self.shared.loads.of(least).fetch_sub(1, Relaxed);
            state.open.fetch_sub(1, Relaxed);
        }
    }

    /// Tells a client that there are too many. Under TLS that would take a handshake, which costs most of
    /// all: such a client is closed without a word, as are those for whom no descriptor can be spared.
    fn shed(self: &Rc<Self>, mut stream: TcpStream, surplus: LimitKind, state: &ListenerState) {
        state.count_shed(surplus);
        if state.tls.is_some() || stream.as_raw_fd() >= self.shared.granted.telling() {
            return;
        }
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move { shed(&this.shared, &mut stream, surplus).await });
    }
}
