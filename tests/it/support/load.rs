//! Requests at a fixed rate, however their answers fare, and backends that take their time.
//!
//! Both are single-threaded runtimes on a thread of their own, so that thousands of requests a second
//! leave room on a small machine for what is tested.

use std::{
    cell::RefCell,
    future::Future,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, MissedTickBehavior},
};

/// Players that ask in turn, by chance.
const PLAYERS: u32 = 100_000;
/// Connections at most; what is due while all are busy is not asked.
const MOST_CONNECTIONS: usize = 512;
/// Between two moments at which what is due is asked.
const TICK: Duration = Duration::from_millis(1);
/// An answer that takes longer is a failed one.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came of the requests so far.
#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
    /// Of those answered, by a backend that said `v2`.
    canary: AtomicU64,
    unasked: AtomicU64,
}

/// Running clients; dropped, they end.
pub(crate) struct Load {
    counts: Arc<Counts>,
    task: Task,
}

/// What clients have seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Answers, failed ones included.
    pub(crate) answered: u64,
    /// Answers of 500 and above, and those that did not come.
    pub(crate) failed: u64,
    /// Answers of the canary.
    pub(crate) canary: u64,
    /// Requests that were due while all connections were busy.
    pub(crate) unasked: u64,
}

impl Load {
    /// Asks `target` so often a second, over keep-alive connections.
    pub(crate) fn start(target: SocketAddr, per_s: u32) -> Self {
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let task = Task::start(move |ended| ask_all(target, per_s, shared, ended));
        Self { counts, task }
    }

    pub(crate) fn seen(&self) -> Seen {
        assert!(!self.task.thread.as_ref().is_some_and(JoinHandle::is_finished), "clients ended");
        let [answered, failed, canary, unasked] =
            [&self.counts.answered, &self.counts.failed, &self.counts.canary, &self.counts.unasked]
                .map(|count| count.load(SeqCst));
        Seen { answered, failed, canary, unasked }
    }
}

/// A thread with a runtime; dropped, it ends.
struct Task {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Task {
    fn start<F: Future<Output = ()>>(
        run: impl FnOnce(Arc<AtomicBool>) -> F + Send + 'static,
    ) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime.expect("a runtime"), run(shared));
        });
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn ask_all(target: SocketAddr, per_s: u32, counts: Arc<Counts>, ended: Arc<AtomicBool>) {
    let idle: Rc<RefCell<Vec<TcpStream>>> = Rc::default();
    let busy = Rc::new(());
    let (begun, mut due) = (Instant::now(), 0);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !ended.load(SeqCst) {
        ticks.tick().await;
        let until = (begun.elapsed().as_secs_f64() * f64::from(per_s)) as u64;
        for _ in due..until {
            if Rc::strong_count(&busy) > MOST_CONNECTIONS {
                counts.unasked.fetch_add(1, SeqCst);
                continue;
            }
            let kept = idle.borrow_mut().pop();
            let (idle, busy, counts) = (Rc::clone(&idle), Rc::clone(&busy), Arc::clone(&counts));
            tokio::task::spawn_local(async move {
                let answer = tokio::time::timeout(PATIENCE, ask(target, kept)).await;
                let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                let failed = match answer {
                    Ok((stream, status, body)) => {
                        idle.borrow_mut().push(stream);
                        counts.canary.fetch_add(u64::from(body == b"v2"), SeqCst);
                        status >= 500
                    }
                    Err(_) => true,
                };
                counts.failed.fetch_add(u64::from(failed), SeqCst);
                counts.answered.fetch_add(1, SeqCst);
                drop(busy);
            });
        }
        due = until;
    }
}

/// Asks as some player; the connection, the status and the body.
async fn ask(target: SocketAddr, kept: Option<TcpStream>) -> io::Result<(TcpStream, u16, Vec<u8>)> {
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect(target).await?,
    };
    let player = fastrand::u32(..PLAYERS);
    let request = format!("GET / HTTP/1.1\r\nHost: game\r\nx-player-id: {player}\r\n\r\n");
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

/// The next head, and what came behind it; nothing at the end of the connection.
async fn read_head(stream: &mut TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
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

/// Two backends whose answers take lognormal times; dropped, they end. They share a thread, so that
/// neither is slower for want of a processor.
pub(crate) struct SlowBackends {
    /// Of `v1` and of `v2`.
    pub(crate) addresses: [SocketAddr; 2],
    /// Set, every answer of `v2` takes twice as long.
    pub(crate) doubled: Arc<AtomicBool>,
    _task: Task,
}

impl SlowBackends {
    /// Answers after 5 ms in the median and 32 ms at the 99th percentile (sigma 0.8).
    pub(crate) fn start() -> Self {
        let bind = |_| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            // When the machine stands still for a moment, more connections wait than the 128 of `bind`,
            // and the others wait a second.
            rustix::net::listen(&listener, 4096).expect("a socket that listens");
            listener
        };
        let listeners = [(), ()].map(bind);
        let addresses = [0, 1].map(|n: usize| listeners[n].local_addr().expect("bound"));
        let doubled = Arc::new(AtomicBool::new(false));
        let never = Arc::new(AtomicBool::new(false));
        let flags = [never, Arc::clone(&doubled)];
        let task = Task::start(move |ended| async move {
            for ((listener, doubled), name) in listeners.into_iter().zip(flags).zip(["v1", "v2"]) {
                tokio::task::spawn_local(serve_slowly(listener, name, doubled));
            }
            while !ended.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Self { addresses, doubled, _task: task }
    }
}

async fn serve_slowly(
    listener: std::net::TcpListener,
    name: &'static str,
    doubled: Arc<AtomicBool>,
) {
    listener.set_nonblocking(true).expect("a socket");
    let listener = TcpListener::from_std(listener).expect("a socket");
    while let Ok((stream, _)) = listener.accept().await {
        tokio::task::spawn_local(answer_slowly(stream, name, Arc::clone(&doubled)));
    }
}

async fn answer_slowly(mut stream: TcpStream, name: &str, doubled: Arc<AtomicBool>) {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
    while let Ok(Some(_)) = read_head(&mut stream).await {
        let uniform = || 1.0 - fastrand::f64();
        let normal = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        let times = if doubled.load(SeqCst) { 2.0 } else { 1.0 };
        tokio::time::sleep(Duration::from_secs_f64(0.005 * times * (0.8 * normal).exp())).await;
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
