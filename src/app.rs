//! The whole process: creates workers, acceptor and control plane, and shuts them down in order.

mod control;
mod incidents;
mod journal;
mod reload;

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    path::PathBuf,
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{mpsc, watch};

use control::Control;
pub use journal::Unusable as UnusableJournal;
use journal::{Keeping, Opening};
use reload::Reloader;

use crate::{
    admin,
    config::{Loaded, WatchGuard, schema::Limits},
    control::{
        Controller,
        controller::{Dropped, Start},
        fences, read_kept_keys,
        tasks::ControlPlane,
    },
    health::resolve::resolving,
    proxy::{Acceptor, Command, Drain, Granted, LAST_WORDS, Listener, Shared, WorkerHandle, spawn},
    registry::{KeyLog, Registry},
    snapshot::{AccessLog, Overrides, Resolved, RuntimeState, Snapshot, SnapshotInputs},
    store,
    takeover::{InheritedSockets, LetGo, Offer},
    telemetry::{access_log, log},
    tls::{Clients, HTTP_1_1, TlsError, TlsListener, open_clients},
};

/// Batches of samples that may wait for the collector: a second of them at 256,000 requests a second.
const SAMPLE_BATCHES: usize = 256;

/// How long a drain keeps an idle connection open for a request that may be on its way; at most half of the
/// deadline. A busy client then gets its close notice with a response, and a restart is not delayed noticeably.
pub const IDLE_GRACE: Duration = Duration::from_secs(1);

/// How long callers of the admin endpoint may take to read their last responses.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// Receivers of whether the admin endpoint is open that belong to no connection: its task's, and the one for
/// the task that is started after a panic.
const ADMIN_TASKS: usize = 2;

/// How long the last ends of idempotency keys may take.
const LAST_KEYS: Duration = Duration::from_secs(2);

/// How long the access log may take to write its last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listening socket cannot be bound.
    #[error("cannot listen on {address}: {source}{}", hint(source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// The access log cannot be opened.
    #[error("cannot write the access log to {path}: {source}")]
    AccessLog {
        /// The path.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Certificates or keys cannot be used.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The journal cannot be used.
    #[error("cannot use the journal of `state`: {0}")]
    Journal(#[from] UnusableJournal),
    /// A thread or a runtime cannot be created.
    #[error("cannot start: {0}")]
    Threads(#[from] std::io::Error),
}

/// What would help, where the system's error does not say it.
fn hint(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::AddrInUse => "; another process listens there",
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        std::io::ErrorKind::AddrNotAvailable => "; no interface of this machine has the address",
        _ => "",
    }
}

/// A running process.
#[derive(Debug)]
pub struct App {
    /// Addresses of the listeners, in the order of the file.
    pub listeners: Vec<SocketAddr>,
    /// Address of the admin endpoint, if there is one.
    pub admin: Option<SocketAddr>,
    /// The listening sockets to hand over at a takeover, with their addresses as written in the file.
    sockets: Vec<(SocketAddr, StdListener)>,
    observatory: ControlPlane,
    journal: Option<Keeping>,
    /// Keeps idempotency keys on disk.
    keys: Option<KeyLog>,
    reloader: Reloader,
    acceptor: Acceptor,
    admin_is_open: watch::Sender<bool>,
    /// Whether it has served, and so knows what its predecessor did.
    has_begun: watch::Sender<bool>,
    workers: Vec<WorkerHandle>,
    control: Control,
    _watch: Option<WatchGuard>,
}

/// How the shutdown ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All responses were finished.
    Drained,
    /// The deadline passed, and the remaining connections were closed.
    Cut,
}

impl App {
    /// Starts to serve `loaded`. `file` is read again when it changes and at [`App::reload`].
    pub fn start(
        loaded: Loaded,
        file: Option<PathBuf>,
        log: Option<log::Handle>,
    ) -> Result<Self, StartError> {
        let app = Self::prepare(loaded, file, log, &mut InheritedSockets::default())?;
        app.open_journal()?;
        app.open();
        Ok(app)
    }

    /// As [`App::start`], but uses the sockets in `found` that have the right address, and accepts no
    /// connection before [`App::open`].
    pub fn prepare(
        loaded: Loaded,
        file: Option<PathBuf>,
        log: Option<log::Handle>,
        found: &mut InheritedSockets,
    ) -> Result<Self, StartError> {
        let config = loaded.config.clone();
        let workers = worker_count(&config);
        let (mut listeners, mut sockets) = (Vec::new(), Vec::new());
        for listen in &config.listen {
            let address = listen.address;
            let listener = match found.claim(address) {
                Some(socket) => Listener::adopt(socket, listen),
                None => Listener::bind(listen),
            };
            let listener = listener.map_err(|source| StartError::Bind { address, source })?;
            sockets.push((address, listener.socket()?));
            listeners.push(match &listen.tls {
                Some(tls) => listener.encrypt(tls)?,
                None => listener,
            });
        }
        let mut clients = Clients::default();
        let tls = open_clients(&config, &mut clients)?;
        let admin_tls = config.admin.as_ref().and_then(|admin| admin.tls.as_ref());
        let admin_tls = admin_tls.map(|tls| TlsListener::open("admin", tls, &[HTTP_1_1]));
        let admin_tls = admin_tls.transpose()?.map(Arc::new);
        let admin = config.admin.as_ref().map(|a| a.address).map(|address| {
            let socket = match found.claim(address) {
                Some(socket) => admin::adopt(socket),
                None => admin::bind(address),
            };
            let socket = socket.map_err(|source| StartError::Bind { address, source })?;
            sockets.push((address, socket.0.try_clone()?));
            Ok::<_, StartError>(socket)
        });
        let admin = admin.transpose()?;
        let access_log = config.access_log.as_ref().map(|log| {
            let fault = |source| StartError::AccessLog { path: log.path.clone(), source };
            access_log::AccessLog::start(&log.path).map_err(fault)
        });
        let access_log = access_log.transpose()?;

        let registry = Registry::new(workers);
        let keys = match &config.state {
            Some(state) => Some(store::keep_keys(state.folder())?),
            None => None,
        };
        keys.iter().for_each(|keys| registry.keep_keys(keys.clone()));
        let state = config.state.as_ref().map(|state| state.folder());
        let kept = state.map(|state| read_kept_keys(state, &config)).unwrap_or_default();
        kept.into_iter().for_each(|(url, document)| registry.adopt_keys(&url, document));
        let target = config.access_log.as_ref().zip(access_log.as_ref());
        let target = target.map(|(c, log)| AccessLog { sample: c.sample, sender: log.sender() });
        let fences = fences::first(&config, SystemTime::now());
        let fence_epochs = fences::epochs(&fences);
        let decided = RuntimeState { fence_epochs, ..RuntimeState::default() };
        let sources = SnapshotInputs {
            config: &config,
            overrides: &Overrides::new(),
            decided: &decided,
            resolved: &Resolved::new(),
            tls: &tls,
            access_log: target.as_ref(),
        };
        let snapshot = Snapshot::compile(1, sources, None, &registry);
        drop(target);
        let (samples, collected) = mpsc::channel(SAMPLE_BATCHES);
        let shared = Arc::new(Shared::new(workers, snapshot, samples, Granted::read(workers)));
        warn_of_cut_limits(&shared, &config.limits);
        let workers: Vec<WorkerHandle> =
            (0..workers).map(|id| spawn(id, Arc::clone(&shared))).collect::<Result<_, _>>()?;
        let commands: Vec<_> = workers.iter().map(|w| w.commands.clone()).collect();
        let addresses = listeners.iter().map(|l| l.address).collect();
        let states = listeners.iter().map(|l| Arc::clone(&l.state)).collect();
        let controller = Controller::new(Start {
            loaded,
            file: file.clone(),
            log,
            access_log,
            clients,
            tls,
            registry,
            fences,
            admin_tls,
            shared: Arc::clone(&shared),
            workers: commands.clone(),
            listeners: states,
        });
        let observatory = ControlPlane::new(controller, collected);
        let admin_address = admin.as_ref().map(|(_, address)| *address);
        let (names, resolving) = resolving(&config.resolver);
        let socket = admin.map(|(socket, _)| socket);
        let admin_is_open = watch::Sender::new(false);
        let socket = socket.map(|socket| (socket, admin_is_open.subscribe()));
        let has_begun = watch::Sender::new(false);
        let control = Control::spawn(&observatory, resolving, socket, has_begun.subscribe())?;
        names.prepare(&config);
        let reloader = Reloader::new(observatory.clone(), names);
        let watch = file.and_then(|file| reloader.follow(&file));
        let acceptor = Acceptor::spawn(listeners, shared, commands)?;
        Ok(Self {
            listeners: addresses,
            admin: admin_address,
            sockets,
            observatory,
            keys,
            journal: Keeping::of(config.state.as_ref().map(|state| state.folder())),
            reloader,
            acceptor,
            admin_is_open,
            has_begun,
            workers,
            control,
            _watch: watch,
        })
    }

    /// The control plane.
    pub fn observatory(&self) -> &ControlPlane {
        &self.observatory
    }

    /// Reads the file again, and reopens the logs.
    pub fn reload(&self) {
        self.reloading()();
    }

    /// As [`App::reload`], to be run on another thread: reading files may block if their file system does not
    /// respond.
    pub fn reloading(&self) -> impl FnOnce() + Send + use<> {
        let (observatory, reloader) = (self.observatory.clone(), self.reloader.clone());
        move || {
            observatory.controller().reopen_logs();
            reloader.reload();
        }
    }

    /// Opens the journal, if the configuration has one, and continues from its state. Comes before
    /// [`App::open`], unless another process hands over.
    pub fn open_journal(&self) -> Result<(), StartError> {
        Ok(journal::open(&self.observatory, self.journal.as_ref(), &Opening::Start)?)
    }

    /// As [`App::open_journal`], after process `pid` has handed over its state, of which `dropped` does not
    /// apply.
    pub fn take_over_journal(&self, pid: u32, dropped: &Dropped) -> Result<(), StartError> {
        let opening = Opening::TakenOver(pid, dropped);
        Ok(journal::open(&self.observatory, self.journal.as_ref(), &opening)?)
    }

    /// Begins to accept clients and callers of the admin endpoint.
    pub fn open(&self) {
        // A notice may have begun while no process ran.
        self.observatory.controller().follow_plans();
        self.acceptor.set_open(true);
        self.admin_is_open.send_replace(true);
        self.has_begun.send_replace(true);
    }

    /// The state that another process needs to take over. It changes until [`App::hand_over`].
    pub fn offer(&self) -> io::Result<Offer> {
        let sockets = self.sockets.iter().map(|(asked, socket)| Ok((*asked, socket.try_clone()?)));
        let sockets = sockets.collect::<io::Result<_>>()?;
        let controller = self.observatory.controller();
        Ok(Offer {
            sockets,
            carried: controller.carried(),
            split: controller.all_split_writes(),
            to_know: controller.to_know(),
        })
    }

    /// Lets the changes under way end, refuses others, and closes the journal, so that another process can open
    /// it. It returns whether that is done, and blocks, so it is to be run on another thread. Comes before
    /// [`App::hand_over`].
    pub fn releasing(&self) -> impl FnOnce() -> bool + Send + use<> {
        let observatory = self.observatory.clone();
        move || journal::release(&observatory)
    }

    /// Stops accepting connections and changing weights, so that another process can do so; both have stopped
    /// when this returns. New connections wait in the queues of the sockets.
    pub fn hand_over(&self) -> LetGo {
        self.acceptor.set_open(false);
        self.admin_is_open.send_replace(false);
        let (carried, earlier) = {
            let mut controller = self.observatory.controller();
            (controller.hand_over(), controller.earlier())
        };
        let past = self.observatory.carried_past();
        LetGo { carried, pins: self.observatory.carried_pins(), past, earlier }
    }

    /// Continues after the other process failed.
    pub fn take_back(&self) {
        self.observatory.controller().take_back();
        journal::take_back(&self.observatory, self.journal.as_ref());
        self.open();
    }

    /// Shuts down gracefully. After the configured delay no new connections are accepted, responses are
    /// finished and idle connections are closed. The connections left at the configured deadline are closed,
    /// too.
    pub fn shutdown(self) -> Ended {
        let delay = {
            let mut controller = self.observatory.controller();
            controller.drain();
            controller.config().shutdown.delay
        };
        if !delay.is_zero() {
            for worker in &self.workers {
                let _ = worker.commands.send(Command::Part);
            }
            thread::sleep(delay);
        }
        self.drain()
    }

    /// As [`App::shutdown`], without the delay.
    pub fn drain(self) -> Ended {
        let (deadline, idle, upgraded) = {
            let mut controller = self.observatory.controller();
            controller.drain();
            let deadline = controller.config().shutdown.deadline;
            let last_words = LAST_WORDS.min(deadline / 2);
            (Instant::now() + deadline, IDLE_GRACE.min(deadline / 2), deadline - last_words)
        };
        self.reloader.stop();
        // A process that has taken over answers at the admin endpoint, and must be able to listen there again if it is
        // started once more, so the socket is not kept for the whole drain.
        let is_handed_over = !*self.admin_is_open.borrow();
        let (mut admin, mut ending) = (Some(self.admin_is_open), None);
        if is_handed_over {
            ending = admin.take().map(|admin| thread::spawn(move || end_admin(admin)));
        }
        // The acceptor then holds the last descriptors, so no connection can be queued after its last look.
        drop(self.sockets);
        self.acceptor.stop();
        let (drained, all) = std_mpsc::channel();
        for worker in &self.workers {
            // A worker that has ended has no connections.
            let drain = Drain { idle, upgraded, done: drained.clone() };
            let _ = worker.commands.send(Command::Drain(drain));
        }
        drop(drained);
        let mut ended = Ended::Drained;
        for _ in &self.workers {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Err(std_mpsc::RecvTimeoutError::Timeout) = all.recv_timeout(left) {
                ended = Ended::Cut;
                break;
            }
        }
        // The controller has senders of the workers' channels, too.
        self.observatory.controller().forget_workers();
        self.workers.into_iter().for_each(WorkerHandle::stop);
        self.keys.iter().for_each(|keys| keys.flush(LAST_KEYS));
        let shared = Arc::clone(self.observatory.controller().shared());
        let cut = shared.cells.sum(|cells| cells.requests_cut.read());
        if cut > 0 {
            tracing::warn!(
                requests = cut,
                "requests were cut short; their lines in the access log have the fault `cut`"
            );
        }
        let access_log = self.observatory.controller().take_access_log();
        if !access_log.is_none_or(|log| log.shutdown(LAST_LINES)) {
            tracing::warn!("the last lines of the access log were not written in time");
        }
        if let Some(admin) = admin {
            end_admin(admin);
        }
        // A panic there would have been told.
        let _ = ending.map(thread::JoinHandle::join);
        incidents::end(&self.observatory);
        self.control.stop();
        journal::end(&self.observatory);
        ended
    }
}

/// Lets callers of the admin endpoint get their responses, and closes its socket.
fn end_admin(is_open: watch::Sender<bool>) {
    is_open.send_replace(false);
    let until = Instant::now() + LAST_CALLS;
    while is_open.receiver_count() > ADMIN_TASKS && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Warns if the process is allowed fewer open files than `limits` need.
fn warn_of_cut_limits(shared: &Shared, limits: &Limits) {
    if let Some(connections) = shared.granted.cuts(limits) {
        tracing::warn!(
            configured = limits.connections,
            connections,
            "the limit of open files allows fewer client connections than `limits.connections`; raise the limit \
             of open files: `ulimit -n`, or LimitNOFILE= of the systemd unit"
        );
    }
}

/// Number of worker threads by `config`: by default one for each core that affinity and cgroup grant.
fn worker_count(config: &crate::config::Config) -> usize {
    let granted = || thread::available_parallelism().map_or(1, usize::from);
    config.workers.map_or_else(granted, usize::from)
}
