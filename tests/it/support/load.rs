//! Requests at a fixed rate, however their answers fare.
//!
//! The clients share one thread with a runtime of its own, so that thousands of requests a second leave
//! room on a small machine for what is tested.

mod clients;

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, MissedTickBehavior},
};

use super::task::{Task, wait_for};

pub(crate) use clients::Clients;

/// Between two moments at which what is due is asked.
const TICK: Duration = Duration::from_millis(1);

/// What came of the requests so far.
#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
    canary: AtomicU64,
    canary_failed: AtomicU64,
    left: AtomicU64,
    unasked: AtomicU64,
}

/// Running clients; dropped, they end.
pub(crate) struct Load {
    /// Of each kind of clients.
    counts: Vec<Arc<Counts>>,
    task: Task,
}

/// What clients have seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Answers, failed ones included.
    pub(crate) answered: u64,
    /// Answers of 500 and above, and those that did not come.
    pub(crate) failed: u64,
    /// Answers of the canary: of a backend that says `v2`.
    pub(crate) canary: u64,
    /// Of those, answers of 500 and above.
    pub(crate) canary_failed: u64,
    /// Clients that left before they had an answer.
    pub(crate) left: u64,
    /// Requests that were due while all connections were busy.
    pub(crate) unasked: u64,
}

impl Seen {
    /// What was seen after `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            answered: self.answered - before.answered,
            failed: self.failed - before.failed,
            canary: self.canary - before.canary,
            canary_failed: self.canary_failed - before.canary_failed,
            left: self.left - before.left,
            unasked: self.unasked - before.unasked,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            answered: self.answered + other.answered,
            failed: self.failed + other.failed,
            canary: self.canary + other.canary,
            canary_failed: self.canary_failed + other.canary_failed,
            left: self.left + other.left,
            unasked: self.unasked + other.unasked,
        }
    }
}

impl Load {
    /// Asks `target` so often a second, over at most 512 keep-alive connections.
    pub(crate) fn start(target: SocketAddr, per_s: u32) -> Self {
        Self::of(target, vec![Clients { most_connections: 512, ..Clients::new(per_s) }])
    }

    /// Asks `target` as all of these clients do, over keep-alive connections.
    pub(crate) fn of(target: SocketAddr, clients: Vec<Clients>) -> Self {
        let counts: Vec<Arc<Counts>> = clients.iter().map(|_| Arc::default()).collect();
        let shared = counts.clone();
        let task = Task::start(move |ended| async move {
            for (clients, counts) in clients.into_iter().zip(shared) {
                tokio::task::spawn_local(ask_all(target, clients, counts, Arc::clone(&ended)));
            }
            wait_for(&ended).await;
        });
        Self { counts, task }
    }

    /// What all clients have seen.
    pub(crate) fn seen(&self) -> Seen {
        (0..self.counts.len()).map(|kind| self.seen_by(kind)).fold(Seen::default(), Seen::and)
    }

    /// What the clients of one kind have seen, by its place in the list.
    pub(crate) fn seen_by(&self, kind: usize) -> Seen {
        assert!(!self.task.has_ended(), "clients ended");
        let counts = &self.counts[kind];
        let read = |count: &AtomicU64| count.load(SeqCst);
        Seen {
            answered: read(&counts.answered),
            failed: read(&counts.failed),
            canary: read(&counts.canary),
            canary_failed: read(&counts.canary_failed),
            left: read(&counts.left),
            unasked: read(&counts.unasked),
        }
    }
}

async fn ask_all(
    target: SocketAddr,
    clients: Clients,
    counts: Arc<Counts>,
    ended: Arc<AtomicBool>,
) {
    let clients = Rc::new(clients);
    let idle: Rc<RefCell<Vec<TcpStream>>> = Rc::default();
    let busy = Rc::new(());
    let (begun, mut due) = (Instant::now(), 0);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !ended.load(SeqCst) {
        ticks.tick().await;
        let until = (begun.elapsed().as_secs_f64() * clients.per_s) as u64;
        for _ in due..until {
            if Rc::strong_count(&busy) > clients.most_connections {
                counts.unasked.fetch_add(1, SeqCst);
                continue;
            }
            let (clients, idle) = (Rc::clone(&clients), Rc::clone(&idle));
            let (busy, counts) = (Rc::clone(&busy), Arc::clone(&counts));
            tokio::task::spawn_local(async move {
                ask_once(target, &clients, &idle, &counts).await;
                drop(busy);
            });
        }
        due = until;
    }
}

/// Asks as some player, and counts what came of it.
async fn ask_once(
    target: SocketAddr,
    clients: &Clients,
    idle: &RefCell<Vec<TcpStream>>,
    counts: &Counts,
) {
    let is_open = |stream: &TcpStream| {
        let read = stream.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    };
    let kept = idle.borrow_mut().pop().filter(is_open);
    let answer = tokio::time::timeout(clients.patience, ask(target, clients, kept)).await;
    let count = |count: &AtomicU64, holds: bool| count.fetch_add(u64::from(holds), SeqCst);
    match answer {
        Err(_) if clients.leaves => {
            count(&counts.left, true);
            return;
        }
        Ok(Ok((stream, status, body))) => {
            idle.borrow_mut().push(stream);
            let (canary, failed) = (body.starts_with(b"v2"), status >= 500);
            count(&counts.canary, canary);
            count(&counts.canary_failed, canary && failed);
            count(&counts.failed, failed);
        }
        Ok(Err(_)) | Err(_) => drop(count(&counts.failed, true)),
    }
    count(&counts.answered, true);
}

/// The connection, the status and the body.
async fn ask(
    target: SocketAddr,
    clients: &Clients,
    kept: Option<TcpStream>,
) -> io::Result<(TcpStream, u16, Vec<u8>)> {
    let mut stream = match kept {
        Some(stream) => stream,
        None => connect(target, clients.from).await?,
    };
    let (path, player) = (clients.path, clients.player());
    let request = format!("GET {path} HTTP/1.1\r\nHost: game\r\nx-player-id: {player}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (head, mut body) = read_head(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let bad = || io::Error::other(format!("an answer with the head {head:?}"));
    let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(bad)?;
    let field =
        |line: &str| Some(line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse());
    let length = head.lines().find_map(field).ok_or_else(bad)?.map_err(|_| bad())?;
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((stream, status, body))
}

async fn connect(target: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    socket.connect(target).await
}

/// The next head, and what came behind it; nothing at the end of the connection.
pub(super) async fn read_head(stream: &mut TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let body = bytes.split_off(at + 4);
            return Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), body)));
        }
    }
}
