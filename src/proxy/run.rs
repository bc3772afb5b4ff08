//! The loop of a worker, which takes commands, and its periodic task.
//!
//! Every connection is a task, and so is every request of HTTP/2. The runtime catches a panic of a task and
//! drops what the task held: only that connection or request ends, and its counts of open connections and
//! requests in flight are released. A [`PanicCounter`](super::worker::PanicCounter) in the task counts the
//! panic. A panic of the worker itself ends all its connections; it is counted, too, and the worker is
//! restarted.

use std::{panic, rc::Rc, sync::Arc, task::Waker, thread, time::Duration};

use tokio::{
    net::TcpStream,
    runtime::Runtime,
    sync::mpsc,
    task::LocalSet,
    time::{Instant, sleep, timeout},
};

use super::{
    command::{Accepted, Command, Drain},
    connection,
    shared::Shared,
    worker::{ConnectionGuard, Worker},
};

/// How long samples and log lines wait for others before they are handed over.
const TICK: Duration = Duration::from_millis(250);

/// The same for the first samples and lines after an idle period.
const SOON: Duration = Duration::from_millis(10);

/// Interval at which idle upstream connections are checked.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A running worker.
#[derive(Debug)]
pub struct WorkerHandle {
    /// Sends commands to the worker.
    pub commands: mpsc::UnboundedSender<Command>,
    thread: thread::JoinHandle<()>,
}

impl WorkerHandle {
    /// Ends the worker at once, with the requests that it still serves, and waits for its thread.
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

/// Runs worker number `id` until it ends (true) or panics (false). Everything that it held is then dropped,
/// which releases its counts of open connections and requests in flight.
fn survive(
    runtime: &Runtime,
    id: usize,
    shared: &Arc<Shared>,
    inbox: &mut mpsc::UnboundedReceiver<Command>,
) -> bool {
    let (worker, local) = (Rc::new(Worker::new(id, Arc::clone(shared))), LocalSet::new());
    let run = || local.block_on(runtime, Rc::clone(&worker).run(inbox));
    // The shared data are counters and a channel, which a panic cannot leave inconsistent.
    let ended = panic::catch_unwind(panic::AssertUnwindSafe(run)).is_ok();
    drop(local);
    match ended {
        // Lines of the requests that were cut.
        true => worker.hand_over(),
        false => shared.cells.of(id).panics.add(1),
    }
    ended
}

impl Worker {
    async fn run(self: Rc<Self>, inbox: &mut mpsc::UnboundedReceiver<Command>) {
        tokio::task::spawn_local(Rc::clone(&self).keep_on());
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Connection(accepted) => self.serve(accepted),
                Command::Refresh => {
                    let generation = self.snapshot().generation;
                    self.shared.barrier.acknowledge(self.id, generation);
                    self.refreshed.notify_waiters();
                }
                Command::Pass(done) => {
                    // The receiver may have stopped waiting.
                    let _ = done.send(());
                }
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
        let Accepted { stream, peer, listener, slot, smoke } = accepted;
        let open = ConnectionGuard::new(self, listener, slot);
        match TcpStream::from_std(stream) {
            Ok(stream) => {
                let serving = connection::serve(Rc::clone(self), stream, peer, open, smoke);
                tokio::task::spawn_local(serving);
            }
            Err(error) => self.shared.exhaustion.count_client(&open.listener().name, &error),
        }
    }

    /// Runs the periodic task, and restarts it after a panic.
    async fn keep_on(self: Rc<Self>) {
        while tokio::task::spawn_local(Rc::clone(&self).tick()).await.is_err() {
            sleep(TICK).await;
        }
    }

    /// Hands data over and checks idle connections while there is work, then sleeps until there is again.
    async fn tick(self: Rc<Self>) {
        let _panics = self.count_panic();
        let (mut swept, mut generation) = (Instant::now(), 0);
        let (mut served, mut idle) = (false, true);
        loop {
            // After an idle period, hand over soon: the control plane polls counts only while there is traffic.
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
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use tokio::sync::oneshot;

    use super::{
        super::{
            address::AddressText, client::Connected, in_flight::InFlight, shared::ListenerState,
        },
        *,
    };
    use crate::{
        config::parse,
        registry::Registry,
        snapshot::{Overrides, Resolved, RuntimeState, Snapshot, SnapshotInputs},
        tls::TlsClients,
    };

    fn worker(limits: &str) -> Rc<Worker> {
        let (samples, granted) = (mpsc::channel(1).0, super::super::Granted::read(1));
        let shared = Arc::new(Shared::new(1, snapshot(limits, 1), samples, granted));
        Rc::new(Worker::new(0, shared))
    }

    fn snapshot(limits: &str, generation: u64) -> Snapshot {
        let config = parse(&format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nlimits: {{ {limits} }}\nroutes: [ {{ service: a }} ]\n\
             services: {{ a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 ] }} }} }} }}\n"
        ));
        let sources = SnapshotInputs {
            config: &config.expect("a good file"),
            overrides: &Overrides::new(),
            decided: &RuntimeState::default(),
            resolved: &Resolved::new(),
            tls: &TlsClients::new(),
            access_log: None,
        };
        Snapshot::compile(generation, sources, None, &Registry::new(1))
    }

    /// A connection as the acceptor hands it over.
    fn connected(worker: &Rc<Worker>, listener: &Arc<ListenerState>) -> Rc<Connected> {
        let address = [192, 0, 2, 7].into();
        let slot = worker.shared.slot(address).expect("a seat");
        worker.shared.loads.of(worker.id).fetch_add(1, Relaxed);
        listener.open.fetch_add(1, Relaxed);
        Rc::new(Connected {
            address,
            address_text: AddressText::new(address),
            subject: None,
            encrypted: false,
            smoke: None,
            open: ConnectionGuard::new(worker, Arc::clone(listener), slot),
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
            let (go_on, go_on_received) = oneshot::channel::<()>();
            let bystander = (worker.count_panic(), connected(&worker, &listener));
            let bystander = tokio::task::spawn_local(async move {
                let _held = bystander;
                go_on_received.await
            });
            let held = (worker.count_panic(), connected(&worker, &listener));
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
            // The same client is still served.
            let next = connected(&worker, &listener);
            drop(begin(&next).expect("a place"));
            go_on.send(()).expect("the bystander waits");
            bystander.await.expect("no panic").expect("the signal");
        });
        assert_eq!((panics(), open()), (1, (0, 0)));
    }

    #[test]
    fn a_snapshot_is_in_force_once_each_worker_has_acknowledged_it() {
        let shared = Arc::clone(&worker("").shared);
        let old = shared.snapshot.load_full();
        assert_eq!(shared.barrier.acknowledged(), old.generation, "the one that it began with");
        let handle = spawn(0, Arc::clone(&shared)).expect("a thread");
        // It has begun, by the old snapshot.
        let (flushed, done) = oneshot::channel();
        handle.commands.send(Command::Flush(flushed)).expect("it lives");
        done.blocking_recv().expect("it lives");
        let newer = snapshot("", old.generation + 1);
        shared.snapshot.store(Arc::new(newer));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let passed = || shared.barrier.passed(old.generation + 1);
            assert!(timeout(Duration::from_millis(20), passed()).await.is_err(), "not notified");
            handle.commands.send(Command::Refresh).expect("it lives");
            timeout(Duration::from_secs(30), passed()).await.expect("acknowledged");
        });
        assert_eq!(Arc::strong_count(&old), 1, "the worker lets go of the old one");
        // A restarted worker uses the snapshot in force.
        shared.snapshot.store(Arc::new(snapshot("", old.generation + 2)));
        handle.commands.send(Command::Panic).expect("it lives");
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while shared.barrier.acknowledged() < old.generation + 2 {
            assert!(std::time::Instant::now() < deadline, "it does not acknowledge");
            thread::yield_now();
        }
        handle.stop();
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
            let (peer, listener) = (peer.ip(), Arc::clone(&listener));
            let accepted = Accepted { stream, peer, listener, slot: None, smoke: None };
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
}
