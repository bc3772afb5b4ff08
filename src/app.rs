//! The whole process, wired: workers, acceptor, control plane; started, and ended in order.

mod reload;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use reload::Reloader;

use crate::{
    admin,
    config::{Loaded, WatchGuard, schema::Listen},
    proxy::{Acceptor, Command, Listener, Shared, WorkerHandle, spawn},
    registry::Registry,
    rollout::{Controller, controller::Start, view::Observatory},
    snapshot::{AccessLog, Overrides, Resolved, Snapshot, Sources, open_clients},
    telemetry::{access_log, log},
    tls::{Clients, TlsError},
    upstream::resolve::{Resolving, resolving},
};

/// Batches of samples that may wait for the collector: a second of them at 256,000 requests a second.
const SAMPLE_BATCHES: usize = 256;

/// How long the access log may take to write its last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listening socket cannot be bound.
    #[error("cannot listen on {address}: {source}{}", hint(source))]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The access log cannot be opened.
    #[error("cannot write the access log to {path}: {source}")]
    AccessLog {
        /// Where.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Certificates or keys cannot be used.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// A thread or a runtime cannot be had.
    #[error("cannot start: {0}")]
    Threads(#[from] std::io::Error),
}

/// What would be right, where the system's own words do not say.
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
    /// Where clients are accepted, in the order of the file.
    pub listeners: Vec<SocketAddr>,
    /// Where the admin endpoint is, if there is one.
    pub admin: Option<SocketAddr>,
    observatory: Observatory,
    reloader: Reloader,
    acceptor: Acceptor,
    workers: Vec<WorkerHandle>,
    control: Control,
    _watch: Option<WatchGuard>,
}

#[derive(Debug)]
struct Control {
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All answers were finished.
    Drained,
    /// The deadline passed; what was left was cut.
    Cut,
}

impl App {
    /// Starts to serve `loaded`. `file` is read again when it changes and at [`App::reload`].
    pub fn start(
        loaded: Loaded,
        file: Option<PathBuf>,
        log: Option<log::Handle>,
    ) -> Result<Self, StartError> {
        let config = loaded.config.clone();
        let workers = worker_count(&config);
        let bind = |listen: &Listen| {
            let address = listen.address;
            Listener::bind(listen).map_err(|source| StartError::Bind { address, source })
        };
        let listeners: Vec<Listener> = config.listen.iter().map(bind).collect::<Result<_, _>>()?;
        let encrypt = |(listener, listen): (Listener, &Listen)| match &listen.tls {
            Some(tls) => listener.encrypt(tls),
            None => Ok(listener),
        };
        let listeners: Vec<Listener> =
            listeners.into_iter().zip(&config.listen).map(encrypt).collect::<Result<_, _>>()?;
        let mut clients = Clients::new(&[b"http/1.1"]);
        let tls = open_clients(&config, &mut clients)?;
        let bind =
            |address| admin::bind(address).map_err(|source| StartError::Bind { address, source });
        let admin = config.admin.as_ref().map(|a| bind(a.address)).transpose()?;
        let access_log = config.access_log.as_ref().map(|log| {
            let fault = |source| StartError::AccessLog { path: log.path.clone(), source };
            access_log::AccessLog::start(&log.path).map_err(fault)
        });
        let access_log = access_log.transpose()?;

        let mut registry = Registry::new(workers);
        let target = config.access_log.as_ref().zip(access_log.as_ref());
        let target = target.map(|(c, log)| AccessLog { sample: c.sample, sender: log.sender() });
        let sources = Sources {
            config: &config,
            overrides: &Overrides::new(),
            resolved: &Resolved::new(),
            tls: &tls,
            access_log: target.as_ref(),
        };
        let snapshot = Snapshot::compile(1, sources, None, &mut registry);
        drop(target);
        let (samples, collected) = mpsc::channel(SAMPLE_BATCHES);
        let shared = Arc::new(Shared::new(workers, snapshot, samples));
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
            shared: Arc::clone(&shared),
            workers: commands.clone(),
            listeners: states,
        });
        let observatory = Observatory::new(controller, collected);
        let admin_address = admin.as_ref().map(|(_, address)| *address);
        let (names, resolving) = resolving(&config.resolver);
        let socket = admin.map(|(socket, _)| socket);
        let control = Control::spawn(observatory.clone(), resolving, socket)?;
        names.prepare(&config);
        let reloader = Reloader::new(observatory.clone(), names);
        let watch = file.and_then(|file| reloader.follow(&file));
        let acceptor = Acceptor::spawn(listeners, shared, commands)?;
        Ok(Self {
            listeners: addresses,
            admin: admin_address,
            observatory,
            reloader,
            acceptor,
            workers,
            control,
            _watch: watch,
        })
    }

    /// The control plane, for those who look and those who change.
    pub fn observatory(&self) -> &Observatory {
        &self.observatory
    }

    /// Reads the file again, and opens logs anew.
    pub fn reload(&self) {
        self.observatory.controller().reopen_logs();
        self.reloader.reload();
    }

    /// Ends in order: no new connections, answers finished, idle connections closed; what is left at
    /// the configured deadline is cut.
    pub fn shutdown(self) -> Ended {
        let deadline = {
            let mut controller = self.observatory.controller();
            controller.drain();
            Instant::now() + controller.config().shutdown.deadline
        };
        self.reloader.stop();
        self.acceptor.stop();
        let (drained, all) = std_mpsc::channel();
        for worker in &self.workers {
            // A worker that has ended holds nothing.
            let _ = worker.commands.send(Command::Drain(drained.clone()));
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
        // The controller holds ends of the workers' channels too.
        self.observatory.controller().forget_workers();
        self.workers.into_iter().for_each(WorkerHandle::stop);
        let access_log = self.observatory.controller().take_access_log();
        if !access_log.is_none_or(|log| log.shutdown(LAST_LINES)) {
            tracing::warn!("the access log did not take its last lines in time");
        }
        let _ = self.control.stop.send(());
        if self.control.thread.join().is_err() {
            tracing::error!("the control plane panicked");
        }
        ended
    }
}

/// The worker threads that `config` asks for: by default one for each core that affinity and cgroup
/// grant this process.
fn worker_count(config: &crate::config::Config) -> usize {
    let granted = || thread::available_parallelism().map_or(1, usize::from);
    config.workers.map_or_else(granted, usize::from)
}

impl Control {
    fn spawn(
        observatory: Observatory,
        resolving: Resolving,
        admin: Option<std::net::TcpListener>,
    ) -> Result<Self, StartError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("control".to_owned()).spawn(move || {
            runtime.block_on(async move {
                tokio::spawn(observatory.clone().absorb());
                tokio::spawn(observatory.clone().tidy());
                let in_force = observatory.controller().in_force();
                let controller = observatory.clone();
                let tell = move |resolved| controller.controller().set_resolved(resolved);
                tokio::spawn(resolving.run(in_force, tell));
                if let Some(socket) = admin {
                    tracing::warn!(
                        "no `state`: weights set through the admin endpoint live as long as this \
                         process"
                    );
                    tokio::spawn(admin::serve(socket, observatory));
                }
                let _ = stopped.await;
            });
        })?;
        Ok(Self { stop, thread })
    }
}
