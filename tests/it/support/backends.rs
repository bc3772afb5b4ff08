//! Backends whose behavior a test changes while they serve.
//!
//! All backends of a test share one thread with a runtime of its own, so that none is slower for want of
//! a processor. A request that is under way keeps the behavior with which it began.

use std::{
    future::{self, Future},
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    load::read_head,
    task::{Task, wait_for},
};

/// Between two bytes of a body that drips.
const DRIP: Duration = Duration::from_secs(1);

/// How a backend answers.
#[derive(Debug, Clone)]
pub(crate) struct Behavior {
    /// Median time of an answer.
    pub(crate) latency: Duration,
    /// Standard deviation of the logarithm of that time; 0 makes it constant.
    pub(crate) sigma: f64,
    /// Added to the first answer of each connection.
    pub(crate) connecting: Duration,
    /// A connection that was idle for so long is closed.
    pub(crate) idle: Duration,
    /// A cold start: when it is over, and the median time of an answer until then.
    pub(crate) cold: Option<(Instant, Duration)>,
    /// Players all of whose requests fail, by the beginning of their identifiers.
    pub(crate) cursed: &'static str,
    pub(crate) fault: Fault,
}

/// What is wrong with a backend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    None,
    /// This share of the requests is answered with this status.
    Share(f64, u16),
    /// This share of the requests is answered 500 at once, however long the others take.
    AtOnce(f64),
    /// All requests of the players whose number is a multiple of this one fail.
    OneOf(u32),
    /// All requests for this path fail.
    Path(&'static str),
    /// This share of the requests is never answered.
    Hang(f64),
    /// Each request is answered 503 after this time.
    Outage(Duration),
    /// Each request waits until the behavior is changed, and is answered 503 then.
    Stall,
    /// Bodies of this share of the requests arrive at one byte a second, for this time.
    Drip(f64, Duration),
    /// Each answer begins well, and its connection is closed this time after its head.
    Break(Duration),
}

impl Default for Behavior {
    /// Good answers after 5 ms.
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(5),
            sigma: 0.0,
            connecting: Duration::ZERO,
            idle: Duration::from_secs(300),
            cold: None,
            cursed: "cursed",
            fault: Fault::None,
        }
    }
}

impl Behavior {
    /// The time until this answer.
    fn time(&self) -> Duration {
        let warm = self.cold.filter(|(until, _)| Instant::now() < *until);
        let median = warm.map_or(self.latency, |(_, latency)| latency);
        let uniform = || 1.0 - fastrand::f64();
        let normal = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        median.mul_f64((self.sigma * normal).exp())
    }

    /// The status of the answer to a request with this head.
    fn status(&self, head: &str) -> u16 {
        let player = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("x-player-id").then_some(value)
        });
        let player = player.unwrap_or_default();
        let number = || player.parse().unwrap_or(1_u32);
        match self.fault {
            _ if player.starts_with(self.cursed) => 500,
            Fault::Share(share, status) if fastrand::f64() < share => status,
            Fault::OneOf(count) if number().is_multiple_of(count) => 500,
            Fault::Path(path) if head.split(' ').nth(1) == Some(path) => 500,
            Fault::Outage(_) | Fault::Stall => 503,
            _ => 200,
        }
    }
}

/// A running backend.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    behavior: watch::Sender<Behavior>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    connections: AtomicU64,
}

impl Backend {
    /// Changes the behavior for the requests that come from now on.
    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behavior)) {
        self.behavior.send_modify(change);
    }

    /// Replaces the fault, if there was one.
    pub(crate) fn fault(&self, fault: Fault) {
        self.behave(|behavior| behavior.fault = fault);
    }

    /// Requests whose head came in.
    pub(crate) fn requests(&self) -> u64 {
        self.counts.requests.load(SeqCst)
    }

    /// Connections accepted.
    pub(crate) fn connections(&self) -> u64 {
        self.counts.connections.load(SeqCst)
    }
}

/// Running backends; dropped, they end.
pub(crate) struct Backends {
    pub(crate) all: Vec<Backend>,
    _task: Task,
}

impl Backends {
    /// A backend for each name, which is the body of its answers.
    pub(crate) fn start(names: &[&'static str], behavior: &Behavior) -> Self {
        let (mut all, mut serving) = (Vec::new(), Vec::new());
        for name in names {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            // When the machine stands still for a moment, more connections wait than the 128 of `bind`,
            // and the others wait a second.
            rustix::net::listen(&listener, 4096).expect("a socket that listens");
            listener.set_nonblocking(true).expect("a socket");
            let address = listener.local_addr().expect("bound");
            let (sender, receiver) = watch::channel(behavior.clone());
            let counts = Arc::new(Counts::default());
            serving.push((listener, Server { name, behavior: receiver, counts: counts.clone() }));
            all.push(Backend { address, behavior: sender, counts });
        }
        let task = Task::start(move |ended| async move {
            for (listener, server) in serving {
                tokio::task::spawn_local(accept(listener, Rc::new(server)));
            }
            wait_for(&ended).await;
        });
        Self { all, _task: task }
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.all.iter().map(|backend| backend.address).collect()
    }
}

/// What the connections of a backend share.
struct Server {
    name: &'static str,
    behavior: watch::Receiver<Behavior>,
    counts: Arc<Counts>,
}

async fn accept(listener: std::net::TcpListener, server: Rc<Server>) {
    let listener = TcpListener::from_std(listener).expect("a socket");
    while let Ok((stream, _)) = listener.accept().await {
        server.counts.connections.fetch_add(1, SeqCst);
        tokio::task::spawn_local(converse(stream, Rc::clone(&server)));
    }
}

async fn converse(mut stream: TcpStream, server: Rc<Server>) {
    let mut is_new = true;
    loop {
        let idle = server.behavior.borrow().idle;
        let Ok(Ok(Some((head, _)))) = timeout(idle, read_head(&mut stream)).await else { return };
        server.counts.requests.fetch_add(1, SeqCst);
        let behavior = server.behavior.borrow().clone();
        let connecting = if is_new { behavior.connecting } else { Duration::ZERO };
        is_new = false;
        if answer(&mut stream, &server, &behavior, &head, connecting).await.is_none() {
            return;
        }
    }
}

/// Answers a request. Returns `None` if the connection ended before that.
async fn answer(
    stream: &mut TcpStream,
    server: &Server,
    behavior: &Behavior,
    head: &str,
    connecting: Duration,
) -> Option<()> {
    let drips = match behavior.fault {
        Fault::Drip(share, time) if fastrand::f64() < share => Some(time),
        _ => None,
    };
    let at_once = matches!(behavior.fault, Fault::AtOnce(share) if fastrand::f64() < share);
    match behavior.fault {
        _ if at_once => {}
        Fault::Hang(share) if fastrand::f64() < share => {
            wait(stream, future::pending()).await?;
        }
        Fault::Outage(time) => wait(stream, sleep(time)).await?,
        Fault::Stall => wait(stream, end_of_stall(server.behavior.clone())).await?,
        _ => wait(stream, sleep(connecting + behavior.time())).await?,
    }
    let rest = drips.map_or(0, |time| (time.as_secs_f64() / DRIP.as_secs_f64()) as usize);
    let status = if at_once { 500 } else { behavior.status(head) };
    let breaks = match behavior.fault {
        Fault::Break(after) => Some(after),
        _ => None,
    };
    let (length, name) = (server.name.len() + rest + usize::from(breaks.is_some()), server.name);
    let text = format!("HTTP/1.1 {status} Told\r\nContent-Length: {length}\r\n\r\n{name}");
    stream.write_all(text.as_bytes()).await.ok()?;
    if let Some(after) = breaks {
        wait(stream, sleep(after)).await?;
        return None;
    }
    for _ in 0..rest {
        wait(stream, sleep(DRIP)).await?;
        stream.write_all(b".").await.ok()?;
    }
    Some(())
}

async fn end_of_stall(mut behavior: watch::Receiver<Behavior>) {
    // An error is the end of the test.
    let _ = behavior.wait_for(|behavior| behavior.fault != Fault::Stall).await;
}

/// Waits for `event`. Returns `None` if the proxy ends the connection meanwhile.
async fn wait(stream: &TcpStream, event: impl Future<Output = ()>) -> Option<()> {
    let mut byte = [0];
    tokio::select! {
        () = event => Some(()),
        // No request has a body, so that this is the end.
        _ = stream.peek(&mut byte) => None,
    }
}
