//! A worker: one thread, one single-threaded runtime, its own connections and upstream pools.
//!
//! Every connection is a task, and so is every request of HTTP/2. The runtime catches a panic of a task
//! and drops what the task held: it ends that connection or request alone, and all that it counted as
//! open or in flight is taken back. A [`Witness`] in the task counts it. A panic of the worker itself ends all
//! its connections; it is counted too, and the worker begins anew.

use std::{
    cell::{Cell, Ref, RefCell},
    net::IpAddr,
    panic,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Waker,
    thread,
    time::{Duration, SystemTime},
};

use arc_swap::{ArcSwap, Cache};
use tokio::{
    net::TcpStream,
    runtime::Runtime,
    sync::{Notify, mpsc, oneshot, watch},
    task::LocalSet,
    time::{Instant, sleep, timeout},
};

use super::{
    buffer::Blocks,
    connection,
    crowd::Seat,
    h2::{Crews, Streams},
    shared::{ListenerState, Shared},
};
use crate::{
    snapshot::Snapshot,
    telemetry::{
        access_log::Lines,
        collector::{BATCH, Sample},
    },
    upstream::pool::Pools,
};

/// How long samples and log lines wait for more of their kind before they are handed over.
const TICK: Duration = Duration::from_millis(250);

/// The same of the first ones after a pause.
const SOON: Duration = Duration::from_millis(10);

/// How often idle upstream connections are looked over.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Serve this client.
    Connection(Accepted),
    /// Let go of the old snapshot; a new one was published.
    Refresh,
    /// Hand over samples and log lines now, then answer.
    Flush(oneshot::Sender<()>),
    /// From now on, end every connection with its next answer.
    Part,
    /// End every connection in order, and answer when all are closed.
    Drain(Drain),
    /// Have a bug.
    #[cfg(test)]
    Panic,
}

/// How connections end: each with its next answer.
#[derive(Debug)]
pub struct Drain {
    /// Those that stay idle for this time are closed.
    pub idle: Duration,
    /// Those that went on in another protocol may do so for this time, and are then closed in order.
    pub upgraded: Duration,
    /// Is told when all are closed.
    pub done: std::sync::mpsc::Sender<()>,
}

/// A connection as the acceptor hands it to a worker.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: std::net::TcpStream,
    /// The address at its other end, an IPv4 address as such.
    pub peer: IpAddr,
    /// Where it was accepted.
    pub listener: Arc<ListenerState>,
    /// Its seat among those of its address; none yet if a balancer has still to say whose it is.
    pub seat: Option<Seat>,
}

/// A running worker.
#[derive(Debug)]
pub struct WorkerHandle {
    /// Takes commands.
    pub commands: mpsc::UnboundedSender<Command>,
    thread: thread::JoinHandle<()>,
}

impl WorkerHandle {
    /// Ends the worker at once, with whatever it still serves, and waits for its thread.
    pub fn stop(self) {
        drop(self.commands);
        if self.thread.join().is_err() {
            tracing::error!("a worker panicked");
        }
    }
}

/// Starts worker number `id`.
pub fn spawn(id: usize, shared: Arc<Shared>) -> std::io::Result<WorkerHandle> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let (commands, mut inbox) = mpsc::unbounded_channel();
    let thread = thread::Builder::new().name(format!("worker-{id}")).spawn(move || {
        while !survive(&runtime, id, &shared, &mut inbox) {
            thread::sleep(TICK);
        }
    })?;
    Ok(WorkerHandle { commands, thread })
}

/// Runs worker number `id` until it ends, or panics, which is false. All that it held is dropped then, and with it
/// all that it counted as open or in flight.
fn survive(
    runtime: &Runtime,
    id: usize,
    shared: &Arc<Shared>,
    inbox: &mut mpsc::UnboundedReceiver<Command>,
) -> bool {
    let (worker, local) = (Rc::new(Worker::new(id, Arc::clone(shared))), LocalSet::new());
    let run = || local.block_on(runtime, worker.run(inbox));
    // What is shared is counters and a channel, which no panic leaves half changed.
    let ended = panic::catch_unwind(panic::AssertUnwindSafe(run)).is_ok();
    drop(local);
    if !ended {
        shared.cells.of(id).panics.add(1);
    }
    ended
}

/// A snapshot as a worker holds it: requests count their use of it by an `Rc` around this, so that the
/// count of the `Arc`, which all workers share, is written once per snapshot and not once per request.
pub(super) struct Held {
    snapshot: Arc<Snapshot>,
    /// This worker's part of `limits.requests`.
    pub(super) requests: u32,
    /// Requests in flight of one client.
    pub(super) requests_per_client: u32,
}

impl Held {
    fn new(snapshot: &Arc<Snapshot>, shared: &Shared) -> Self {
        let bounds = shared.granted.bound(&snapshot.limits);
        Self {
            snapshot: Arc::clone(snapshot),
            requests: part(bounds.requests, shared.workers()),
            requests_per_client: bounds.requests_per_client,
        }
    }
}

impl std::ops::Deref for Held {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// One worker's part of a limit, rounded up so that nobody's is 0.
fn part(limit: u32, workers: usize) -> u32 {
    limit.div_ceil(u32::try_from(workers).unwrap_or(u32::MAX).max(1))
}

/// State of a worker; only its own thread sees it.
pub(super) struct Worker {
    pub(super) id: usize,
    pub(super) shared: Arc<Shared>,
    snapshot: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    /// The same snapshot behind a count that no other core touches.
    current: RefCell<Rc<Held>>,
    pub(super) blocks: Blocks,
    pub(super) pools: RefCell<Pools>,
    pub(super) streams: RefCell<Streams>,
    /// Clients' connections of HTTP/2.
    pub(super) crews: Crews,
    samples: RefCell<Vec<Sample>>,
    pub(super) lines: RefCell<Lines>,
    /// Wakes the tick when there is something to hand over or to look after.
    busy: Notify,
    date: RefCell<Date>,
    /// Answers end their connections.
    pub(super) parting: Cell<bool>,
    /// When idle connections are closed, once the worker drains.
    pub(super) idle_until: Cell<Option<Instant>>,
    /// When connections that went on in another protocol are, once the worker drains.
    pub(super) upgraded_until: watch::Sender<Option<Instant>>,
    /// Requests in flight.
    pub(super) requests: Cell<u32>,
    clients: RefCell<Clients>,
    drained: RefCell<Vec<std::sync::mpsc::Sender<()>>>,
}

impl Worker {
    fn new(id: usize, shared: Arc<Shared>) -> Self {
        let mut snapshot = Cache::new(Arc::clone(&shared.snapshot));
        let current = Rc::new(Held::new(snapshot.load(), &shared));
        Self {
            id,
            shared,
            snapshot: RefCell::new(snapshot),
            current: RefCell::new(current),
            blocks: Blocks::default(),
            pools: RefCell::default(),
            streams: RefCell::default(),
            crews: Crews::default(),
            samples: RefCell::default(),
            lines: RefCell::default(),
            busy: Notify::new(),
            date: RefCell::new(Date::new()),
            parting: Cell::new(false),
            idle_until: Cell::new(None),
            upgraded_until: watch::Sender::new(None),
            requests: Cell::new(0),
            clients: RefCell::default(),
            drained: RefCell::default(),
        }
    }

    async fn run(self: Rc<Self>, inbox: &mut mpsc::UnboundedReceiver<Command>) {
        tokio::task::spawn_local(Rc::clone(&self).keep_on());
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Connection(accepted) => self.serve(accepted),
                Command::Refresh => drop(self.snapshot()),
                Command::Flush(done) => {
                    self.hand_over();
                    // The receiver may have stopped waiting.
                    let _ = done.send(());
                }
                Command::Part => self.parting.set(true),
                #[cfg(test)]
                Command::Panic => panic!("a bug"),
                Command::Drain(Drain { idle, upgraded, done }) => {
                    let now = Instant::now();
                    self.parting.set(true);
                    self.idle_until.set(Some(now + idle));
                    self.upgraded_until.send_replace(Some(now + upgraded));
                    self.drained.borrow_mut().push(done);
                    self.clients.borrow().wakers.iter().flatten().for_each(Waker::wake_by_ref);
                    self.answer_drained();
                }
            }
        }
        self.hand_over();
    }

    fn serve(self: &Rc<Self>, accepted: Accepted) {
        let Accepted { stream, peer, listener, seat } = accepted;
        let open = Open::new(self, listener, seat);
        match TcpStream::from_std(stream) {
            Ok(stream) => {
                let serving = connection::serve(Rc::clone(self), stream, peer, open);
                tokio::task::spawn_local(serving);
            }
            Err(error) => self.shared.wants.of_client(&open.listener().name, &error),
        }
    }

    /// Time since the process started.
    pub(super) fn since_start(&self, now: Instant) -> Duration {
        now.into_std().saturating_duration_since(self.shared.started)
    }

    /// Counts it if the task that holds this panics.
    pub(super) fn witness(self: &Rc<Self>) -> Witness {
        Witness(Rc::clone(self))
    }

    /// The snapshot in force. Looked at once per request, when its head is complete.
    pub(super) fn snapshot(&self) -> Rc<Held> {
        let mut cache = self.snapshot.borrow_mut();
        let latest = cache.load();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(latest, &current.snapshot) {
            *current = Rc::new(Held::new(latest, &self.shared));
        }
        Rc::clone(&current)
    }

    /// Notes a finished request.
    pub(super) fn record(&self, sample: Sample) {
        let mut samples = self.samples.borrow_mut();
        if samples.is_empty() {
            self.busy.notify_one();
        }
        samples.push(sample);
        if samples.len() >= BATCH {
            drop(samples);
            self.hand_over_samples();
        }
    }

    /// Asks for a tick: something waits to be handed over or looked after.
    pub(super) fn keep_ticking(&self) {
        self.busy.notify_one();
    }

    fn hand_over_samples(&self) {
        let batch = std::mem::take(&mut *self.samples.borrow_mut());
        if batch.is_empty() {
            return;
        }
        let lost = batch.len() as u64;
        if self.shared.samples.try_send(batch).is_err() {
            self.shared.cells.of(self.id).samples_lost.add(lost);
        }
    }

    fn hand_over(&self) {
        self.hand_over_samples();
        if let Some(log) = &self.snapshot().access_log {
            log.sender.try_send(&mut self.lines.borrow_mut());
        }
    }

    /// Ticks, and goes on after a panic.
    async fn keep_on(self: Rc<Self>) {
        while tokio::task::spawn_local(Rc::clone(&self).tick()).await.is_err() {
            sleep(TICK).await;
        }
    }

    /// Hands over and sweeps while there is something to do, then sleeps until there is again.
    async fn tick(self: Rc<Self>) {
        let _witness = self.witness();
        let (mut swept, mut generation) = (Instant::now(), 0);
        let (mut served, mut idle) = (false, true);
        loop {
            // After a pause, word of traffic goes out soon: others look at counts only while there is some.
            match (served, idle) {
                (true, _) => sleep(TICK).await,
                (false, true) => {
                    self.busy.notified().await;
                    sleep(SOON).await;
                }
                (false, false) => {
                    if timeout(TICK, self.busy.notified()).await.is_ok() {
                        sleep(SOON).await;
                    }
                }
            }
            served = !self.samples.borrow().is_empty();
            self.hand_over();
            let now = Instant::now();
            if now - swept >= SWEEP_EVERY {
                swept = now;
                self.sweep(now, &mut generation);
            }
            idle = self.pools.borrow().is_empty() && self.streams.borrow().is_empty();
        }
    }

    fn sweep(&self, now: Instant, generation: &mut u64) {
        let snapshot = self.snapshot();
        if *generation == snapshot.generation {
            self.streams.borrow_mut().sweep(now, |_| true);
            return self.pools.borrow_mut().sweep(now, |_| true);
        }
        *generation = snapshot.generation;
        let versions = snapshot.services.iter().flat_map(|s| &s.versions);
        let serving: std::collections::HashSet<u32> =
            versions.flat_map(|v| v.endpoints.iter().map(|e| e.id)).collect();
        self.streams.borrow_mut().sweep(now, |endpoint| serving.contains(&endpoint));
        self.pools.borrow_mut().sweep(now, |endpoint| serving.contains(&endpoint));
    }

    /// The current date as HTTP writes it (RFC 9110 section 5.6.7), made once a second.
    pub(super) fn date(&self, now: Instant) -> Ref<'_, str> {
        self.date.borrow_mut().renew(now);
        Ref::map(self.date.borrow(), |date| date.text.as_str())
    }

    fn answer_drained(&self) {
        let clients = self.clients.borrow();
        if clients.free.len() == clients.wakers.len() {
            for done in self.drained.borrow_mut().drain(..) {
                let _ = done.send(());
            }
        }
    }
}

/// Open client connections: a place each, with the waker of its task once that was polled, so that idle
/// connections notice a drain.
#[derive(Default)]
struct Clients {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// Counts an open client connection for as long as it lives.
pub(super) struct Open {
    worker: Rc<Worker>,
    listener: Arc<ListenerState>,
    place: usize,
    seat: Option<Seat>,
}

impl Open {
    fn new(worker: &Rc<Worker>, listener: Arc<ListenerState>, seat: Option<Seat>) -> Self {
        let mut clients = worker.clients.borrow_mut();
        let place = clients.free.pop().unwrap_or_else(|| {
            clients.wakers.push(None);
            clients.wakers.len() - 1
        });
        Self { worker: Rc::clone(worker), listener, place, seat }
    }

    /// Who serves it.
    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Its seat; none if it stands for many clients.
    pub(super) fn seat(&self) -> Option<&Seat> {
        self.seat.as_ref()
    }

    /// The listening socket.
    pub(super) fn listener(&self) -> &ListenerState {
        &self.listener
    }

    /// Holds the seat that the client got once it was known.
    pub(super) fn take_seat(&mut self, seat: Option<Seat>) {
        self.seat = seat;
    }

    /// Lets a drain wake the connection's task.
    pub(super) fn wake_by(&self, waker: &Waker) {
        self.worker.clients.borrow_mut().wakers[self.place] = Some(waker.clone());
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut clients = self.worker.clients.borrow_mut();
        clients.wakers[self.place] = None;
        clients.free.push(self.place);
        drop(clients);
        self.worker.shared.loads.of(self.worker.id).fetch_sub(1, Relaxed);
        self.listener.open.fetch_sub(1, Relaxed);
        if self.worker.idle_until.get().is_some() {
            self.worker.answer_drained();
        }
    }
}

/// Counts a panic of the task that holds it.
pub(super) struct Witness(Rc<Worker>);

impl Drop for Witness {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.shared.cells.of(self.0.id).panics.add(1);
        }
    }
}

/// The HTTP date, formatted at most once a second.
struct Date {
    text: String,
    until: Instant,
}

impl Date {
    fn new() -> Self {
        Self { text: String::new(), until: Instant::now() }
    }

    fn renew(&mut self, now: Instant) {
        if now >= self.until {
            let date = SystemTime::now();
            let into = date.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.text = httpdate::fmt_http_date(date);
            self.until =
                now + Duration::from_secs(1) - Duration::from_nanos(into.subsec_nanos().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            connection::{AddressText, Connected},
            in_flight::InFlight,
        },
        *,
    };
    use crate::{
        config::parse,
        registry::Registry,
        snapshot::{Decided, Overrides, Resolved, Sources},
        tls::TlsClients,
    };

    fn worker(limits: &str) -> Rc<Worker> {
        let config = parse(&format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nlimits: {{ {limits} }}\nroutes: [ {{ service: a }} ]\n\
             services: {{ a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 ] }} }} }} }}\n"
        ));
        let sources = Sources {
            config: &config.expect("a good file"),
            overrides: &Overrides::new(),
            decided: &Decided::default(),
            resolved: &Resolved::new(),
            tls: &TlsClients::new(),
            access_log: None,
        };
        let snapshot = Snapshot::compile(1, sources, None, &Registry::new(1));
        let shared =
            Arc::new(Shared::new(1, snapshot, mpsc::channel(1).0, super::super::Granted::read(1)));
        Rc::new(Worker::new(0, shared))
    }

    /// A connection as the acceptor hands it over.
    fn connected(worker: &Rc<Worker>, listener: &Arc<ListenerState>) -> Rc<Connected> {
        let address = [192, 0, 2, 7].into();
        let seat = worker.shared.seat(address).expect("a seat");
        worker.shared.loads.of(worker.id).fetch_add(1, Relaxed);
        listener.open.fetch_add(1, Relaxed);
        Rc::new(Connected {
            address,
            address_text: AddressText::new(address),
            subject: None,
            encrypted: false,
            open: Open::new(worker, Arc::clone(listener), seat),
        })
    }

    #[test]
    fn a_panic_ends_its_task_alone_and_is_counted() {
        let worker = worker("requests_per_client: 1");
        let listener = Arc::new(ListenerState::default());
        let panics = || worker.shared.cells.of(0).panics.read();
        let open = || (worker.shared.connections(), listener.open.load(Relaxed));
        let begin =
            |connected: &Rc<Connected>| InFlight::begin(connected, None, &worker.snapshot());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async {
            let (go_on, told) = oneshot::channel::<()>();
            let bystander = (worker.witness(), connected(&worker, &listener));
            let bystander = tokio::task::spawn_local(async move {
                let _held = bystander;
                told.await
            });
            let held = (worker.witness(), connected(&worker, &listener));
            let in_flight = begin(&held.1).expect("the first");
            assert_eq!(
                begin(&held.1).map(drop).expect_err("the second").kind,
                "requests_per_client"
            );
            assert_eq!((panics(), open(), worker.requests.get()), (0, (2, 2), 1));
            let panicking = tokio::task::spawn_local(async move {
                let _held = (held, in_flight);
                tokio::task::yield_now().await;
                panic!("a bug");
            });
            assert!(panicking.await.is_err_and(|error| error.is_panic()));
            assert_eq!((panics(), open(), worker.requests.get()), (1, (1, 1), 0));
            // The same client is served on.
            let next = connected(&worker, &listener);
            drop(begin(&next).expect("a place"));
            go_on.send(()).expect("the bystander waits");
            bystander.await.expect("no panic").expect("told");
        });
        assert_eq!((panics(), open()), (1, (0, 0)));
    }

    #[test]
    fn a_worker_that_panics_counts_nothing_as_open_and_serves_on() {
        let shared = Arc::clone(&worker("").shared);
        let handle = spawn(0, Arc::clone(&shared)).expect("a thread");
        let listener = Arc::new(ListenerState::default());
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut clients = Vec::new();
        let mut serve = || {
            let client = std::net::TcpStream::connect(socket.local_addr().expect("bound"));
            clients.push(client.expect("it listens"));
            let (stream, peer) = socket.accept().expect("a client");
            stream.set_nonblocking(true).expect("a socket");
            shared.loads.of(0).fetch_add(1, Relaxed);
            listener.open.fetch_add(1, Relaxed);
            let accepted =
                Accepted { stream, peer: peer.ip(), listener: Arc::clone(&listener), seat: None };
            handle.commands.send(Command::Connection(accepted)).expect("it lives");
            use std::io::{Read, Write};
            let client = clients.last_mut().expect("one");
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("open");
            let mut answer = [0; 12];
            client.read_exact(&mut answer).expect("an answer");
            assert_eq!(&answer, b"HTTP/1.1 400");
        };
        serve();
        handle.commands.send(Command::Panic).expect("it lives");
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while shared.cells.of(0).panics.read() == 0 {
            assert!(std::time::Instant::now() < deadline, "it is not counted");
            thread::yield_now();
        }
        assert_eq!((shared.connections(), listener.open.load(Relaxed)), (0, 0));
        serve();
        handle.stop();
        assert_eq!((shared.connections(), listener.open.load(Relaxed)), (0, 0));
    }

    #[test]
    fn the_parts_of_a_limit_make_up_at_least_the_limit() {
        for (limit, workers, expected) in
            [(65_536, 1, 65_536), (65_536, 3, 21_846), (1, 64, 1), (u32::MAX, 2, 1 << 31)]
        {
            assert_eq!(part(limit, workers), expected, "{limit} among {workers}");
        }
    }
}
