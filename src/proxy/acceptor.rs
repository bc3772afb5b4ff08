//! Accepts clients and hands each to the least loaded worker.
//!
//! One thread accepts for all workers, rather than each worker from a socket of its own
//! (`SO_REUSEPORT`): connections live long and differ in load, and the kernel's hash would give one
//! worker twice the clients of another.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::LocalSet,
};

use super::{
    shared::{ListenerState, Shared},
    shed::{Surplus, shed},
    worker::{Accepted, Command},
};
use crate::{
    config::schema::{Listen, ListenTls},
    tls::{TlsError, TlsListener},
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Protocols offered to clients that speak TLS.
const ALPN: &[&[u8]] = &[b"http/1.1"];

/// Pause after an accept that failed for want of a resource (file descriptors, memory).
const BACK_OFF: Duration = Duration::from_millis(50);

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
    /// Binds the address of `listen`.
    pub fn bind(listen: &Listen) -> io::Result<Self> {
        use socket2::{Domain, Socket, Type};
        let address = listen.address;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // A restart must not wait for the connections of the last process to fade.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = StdListener::from(socket);
        let address = socket.local_addr()?;
        let state = ListenerState {
            name: address.to_string(),
            proxy_protocol_from: listen.proxy_protocol.as_ref().map_or(vec![], |p| p.from.clone()),
            ..Default::default()
        };
        Ok(Self { socket, state: Arc::new(state), address })
    }

    /// The same socket, whose clients speak TLS. Called before the socket is handed out.
    pub fn encrypt(mut self, tls: &ListenTls) -> Result<Self, TlsError> {
        let tls = TlsListener::open(&self.state.name, tls, ALPN)?;
        let state = Arc::get_mut(&mut self.state).expect("nobody else has the socket yet");
        state.tls = Some(tls);
        Ok(self)
    }
}

/// The running acceptor.
#[derive(Debug)]
pub struct Acceptor {
    stop: watch::Sender<bool>,
    thread: thread::JoinHandle<()>,
}

impl Acceptor {
    /// Accepts from `listeners` for the workers behind `workers`.
    pub fn spawn(
        listeners: Vec<Listener>,
        shared: Arc<Shared>,
        workers: Vec<mpsc::UnboundedSender<Command>>,
    ) -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopped) = watch::channel(false);
        let thread = thread::Builder::new().name("acceptor".to_owned()).spawn(move || {
            let hand_out = Rc::new(HandOut { shared, workers });
            let local = LocalSet::new();
            for listener in listeners {
                local.spawn_local(accept(listener, Rc::clone(&hand_out), stopped.clone()));
            }
            // Ends when every listener has stopped; clients still being told to go are cut off.
            let mut stopped = stopped;
            local.block_on(&runtime, async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            });
        })?;
        Ok(Self { stop, thread })
    }

    /// Closes the listening sockets and waits until they are closed.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the acceptor panicked");
        }
    }
}

struct HandOut {
    shared: Arc<Shared>,
    workers: Vec<mpsc::UnboundedSender<Command>>,
}

async fn accept(listener: Listener, hand_out: Rc<HandOut>, mut stopped: watch::Receiver<bool>) {
    let state = listener.state;
    let socket = match TcpListener::from_std(listener.socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(listener = state.name, %error, "a listening socket is unusable");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => hand_out.give(stream, peer, &state),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(listener = state.name, %error, "clients cannot be accepted");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// Whether an accept failed because its client had already left, rather than for want of a resource.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

impl HandOut {
    fn give(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, state: &Arc<ListenerState>) {
        state.accepted.fetch_add(1, Relaxed);
        let limit = self.shared.snapshot.load().limits.connections as usize;
        if self.shared.connections() >= limit {
            return self.shed(stream, Surplus::OfAll, state);
        }
        // An IPv4 client of an IPv6 socket is still an IPv4 client.
        let peer = peer.ip().to_canonical();
        // Whose connection it is that a balancer passes on, the worker will read.
        let seat = match state.is_introduced_by(peer) {
            true => Ok(None),
            false => self.shared.seat(peer),
        };
        let seat = match seat {
            Ok(seat) => seat,
            Err(surplus) => return self.shed(stream, surplus, state),
        };
        let loads = self.shared.loads.iter().enumerate();
        let least = loads.min_by_key(|(_, load)| load.load(Relaxed)).map_or(0, |(n, _)| n);
        let Ok(stream) = stream.into_std() else { return };
        self.shared.loads.of(least).fetch_add(1, Relaxed);
        state.open.fetch_add(1, Relaxed);
        let accepted = Accepted { stream, peer, listener: Arc::clone(state), seat };
        // Fails only when the worker has ended, and then so does the connection.
        let _ = self.workers[least].send(Command::Connection(accepted));
    }

    fn shed(self: &Rc<Self>, mut stream: TcpStream, surplus: Surplus, state: &ListenerState) {
        state.count_shed(surplus);
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move { shed(&this.shared, &mut stream, surplus).await });
    }
}
