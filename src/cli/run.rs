//! `tidegate run`: load, start, take over, announce, wait for a signal or a successor, drain.
//!
//! The main thread only waits for signals. Reloads and drains run on threads of their own, so that
//! a slow one, or one that waits for a file system, never delays a signal.

use std::{
    fmt, io,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::{
    runtime::Runtime,
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use super::{
    check::unusable_files,
    failure::{Exit, Failure},
    file::FileArguments,
    replace::{Origin, Replacing},
};
use crate::{
    app::{App, Ended, IDLE_GRACE, StartError},
    config::blame,
    takeover::{self, Handed, InheritedSockets, LetGo, Offered, Predecessor, TakeoverSocket},
    telemetry::log,
};

/// A repeated signal within this time counts as one: a service manager and the shell that it runs
/// may both send it.
const SAME: Duration = Duration::from_secs(1);

/// How long the process before this one may answer requests on connections that were idle at the takeover.
const BESIDE: Duration = IDLE_GRACE.saturating_add(Duration::from_millis(250));

/// Serves with the `file` until a signal, or until another process takes over. Takes over from the
/// process that started it, or from the one that listens at `takeover`.
pub(super) fn run(file: &FileArguments, takeover: Option<&Path>) -> Result<ExitCode, Failure> {
    let found = InheritedSockets::from_systemd().map_err(|error| {
        let message = format!("a socket from the service manager is unusable: {error}");
        Failure::new(Exit::Unavailable, message)
    })?;
    let unavailable = |error| Failure::new(Exit::Unavailable, error);
    let mut predecessor = Predecessor::find(takeover).map_err(unavailable)?;
    let mut process = match Process::start(file, found, &mut predecessor) {
        Ok(process) => process,
        Err(failure) => {
            if let Some(predecessor) = predecessor {
                predecessor.fail(&failure.message);
            }
            return Err(failure);
        }
    };
    match predecessor {
        Some(predecessor) => process.follow(predecessor).map_err(unavailable)?,
        None => {
            process.app.observatory().controller().record_started();
            process.open();
        }
    }
    process.serve()
}

/// The process, ready to serve or serving.
struct Process {
    app: App,
    runtime: Runtime,
    signals: Signals,
    door: Option<TakeoverSocket>,
    begun: Instant,
    open_files: Option<u64>,
    /// Dropped last, so that the last log lines are written.
    _writing: Option<log::Writing>,
}

impl Process {
    /// Does everything that can fail, before clients are accepted. Sockets come from `predecessor`,
    /// otherwise from `found`, otherwise they are bound. A silent predecessor is ignored.
    fn start(
        file: &FileArguments,
        mut found: InheritedSockets,
        predecessor: &mut Option<Predecessor>,
    ) -> Result<Self, Failure> {
        let (loaded, _) = file.read().map_err(|error| Failure::new(Exit::File, error))?;
        // Fails only if the process logs already.
        let (log, writing) = log::init(&loaded.config.log).ok().unzip();
        let open_files = raise_open_files();
        let fault = |error: io::Error| Failure::new(Exit::Fault, error);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_io().enable_time().build().map_err(fault)?;
        // Registered before the start, so that a signal during it is not lost.
        let signals = runtime.block_on(async { Signals::listen() }).map_err(fault)?;
        let begun = Instant::now();
        let unavailable = |error: &dyn fmt::Display| Failure::new(Exit::Unavailable, error);
        let mut carried = None;
        if let Some(asked) = predecessor {
            let pid = asked.pid();
            match asked.offer().map_err(|error| unavailable(&error))? {
                Some(mut offered) => {
                    found = std::mem::take(&mut offered.sockets);
                    carried = Some((pid, offered));
                }
                None => {
                    tracing::warn!(
                        pid,
                        "the process at the takeover socket is silent; starting alone"
                    );
                    *predecessor = None;
                }
            }
        }
        let door = loaded.config.takeover.as_ref().map(|takeover| {
            let path = takeover.socket.display();
            TakeoverSocket::make(&takeover.socket)
                .map_err(|error| unavailable(&format!("cannot listen at {path}: {error}")))
        });
        let door = door.transpose()?;
        let named = loaded.clone();
        let app = App::prepare(loaded, file.path().map(Path::to_owned), log, &mut found);
        let app = app.map_err(|error| match &error {
            // The start ends at the first unusable file, but the operator needs to know all of
            // them.
            StartError::Tls(first) => {
                let all = unusable_files(&named, file.name());
                let all = all.unwrap_or_else(|| blame(&named.files, file.name(), [first.place()]));
                Failure::new(Exit::File, all)
            }
            _ => unavailable(&error),
        })?;
        if let Some((pid, Offered { carried, split, .. })) = carried {
            let mut controller = app.observatory().controller();
            let may = controller.refuses_to_inherit(&carried, &split);
            may.map_err(|error| unavailable(&error))?;
            controller.replacement_mut().from_pid = Some(pid);
            controller.inherit(carried);
            // The other process evaluates and alerts until it hands over, and has the journal.
            controller.hand_over();
        } else {
            app.open_journal().map_err(|error| unavailable(&error))?;
        }
        found.unclaimed().for_each(|address| {
            tracing::warn!(%address, "no listener uses this inherited socket; closed");
        });
        Ok(Self { app, runtime, signals, door, begun, open_files, _writing: writing })
    }

    /// Takes over from `predecessor`. After an error nothing was accepted.
    fn follow(&mut self, mut predecessor: Predecessor) -> Result<(), takeover::Error> {
        let (let_go, pid) = (predecessor.ready()?, predecessor.pid());
        let LetGo { carried, pins, past, earlier } = let_go;
        let dropped = {
            let mut controller = self.app.observatory().controller();
            controller.follows(pid, earlier);
            controller.inherit(carried)
        };
        self.app.observatory().inherit_pins(pins);
        self.app.observatory().inherit_past(&past);
        if let Err(error) = self.app.take_over_journal(pid, &dropped) {
            let reason = error.to_string();
            predecessor.fail(&reason);
            return Err(takeover::Error::Failed(reason));
        }
        predecessor.serving()?;
        {
            let mut controller = self.app.observatory().controller();
            controller.serves_beside(Instant::now() + BESIDE);
            controller.take_back();
            controller.record_started();
        }
        self.open();
        predecessor.await_release();
        self.app.observatory().controller().serves_beside(Instant::now() + BESIDE);
        Ok(())
    }

    fn open(&mut self) {
        self.app.open();
        if let Some(Err(error)) = self.door.as_mut().map(TakeoverSocket::open) {
            tracing::error!(%error, "no process can connect for a takeover");
        }
    }

    /// Serves, then drains.
    fn serve(mut self) -> Result<ExitCode, Failure> {
        let fault = |error: io::Error| Failure::new(Exit::Fault, error);
        announce(&self.app, self.open_files);
        let replacing = self.runtime.block_on(async { Replacing::new(self.door.as_ref()) });
        let attended = attend(&self.app, replacing.map_err(fault)?, &mut self.signals);
        let leave = self.runtime.block_on(attended);
        let app = self.app;
        let first = match &leave {
            Leave::Signal(end) => Some((*end, Instant::now())),
            Leave::HandedOver(_) => None,
        };
        let drain: fn(App) -> Ended = match leave {
            Leave::Signal(first) => {
                tracing::info!(signal = first.name(), "draining; another signal ends at once");
                notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
                App::shutdown
            }
            Leave::HandedOver(handed) => {
                tracing::info!(pid = handed.pid, "another process has taken over; draining");
                notify(&[match handed.is_child {
                    true => NotifyState::MainPid(handed.pid),
                    false => NotifyState::Stopping,
                }]);
                handed.release();
                self.door.take().into_iter().for_each(TakeoverSocket::leave);
                App::drain
            }
        };
        let (done, ended) = oneshot::channel();
        let drain = move || {
            // Fails after a second signal.
            let _ = done.send(drain(app));
        };
        thread::Builder::new().name("drain".to_owned()).spawn(drain).map_err(fault)?;
        let code = self.runtime.block_on(async {
            select! {
                ended = ended => match ended {
                    Ok(Ended::Drained) => 0,
                    Ok(Ended::Cut) => Exit::Cut as u8,
                    Err(_) => Exit::Fault as u8,
                },
                second = self.signals.end_after(first) => second.exit_code(),
            }
        });
        let uptime_seconds = self.begun.elapsed().as_secs();
        tracing::info!(uptime_seconds, exit_code = code, "ended");
        Ok(code.into())
    }
}

/// Why the process stops serving.
enum Leave {
    Signal(End),
    HandedOver(Handed),
}

/// Reloads at SIGHUP and lets other processes take over, until one has taken over or a signal ends
/// this process.
async fn attend(app: &App, mut replacing: Replacing, signals: &mut Signals) -> Leave {
    let mut reloading = Reloading::default();
    loop {
        let wanted = async {
            select! {
                wanted = signals.next() => wanted,
                () = reloading.ended() => Wanted::Reloaded,
            }
        };
        match replacing.attend(app, wanted).await {
            Ok(handed) => return Leave::HandedOver(handed),
            Err(Wanted::End(end)) => return Leave::Signal(end),
            Err(Wanted::Upgrade) => replacing.begin(app, Origin::Start),
            Err(Wanted::Reload) => reloading.begin(app),
            Err(Wanted::Reloaded) => reloading.end(app),
        }
    }
}

/// Reloads requested by SIGHUP, on a thread of their own.
#[derive(Default)]
struct Reloading {
    /// Resolves when the current reload has ended.
    under_way: Option<oneshot::Receiver<()>>,
    /// Whether another reload was requested meanwhile.
    again: bool,
}

impl Reloading {
    fn begin(&mut self, app: &App) {
        if self.under_way.is_some() {
            self.again = true;
            return;
        }
        let mut states = vec![NotifyState::Reloading];
        // systemd identifies the requested reload by this time.
        states.extend(NotifyState::monotonic_usec_now());
        notify(&states);
        let (done, ended) = oneshot::channel();
        let reload = app.reloading();
        let run = move || {
            reload();
            // Also dropped if the reload panics.
            drop(done);
        };
        match thread::Builder::new().name("reload".to_owned()).spawn(run) {
            Ok(_) => self.under_way = Some(ended),
            Err(error) => tracing::error!(%error, "no thread for the reload"),
        }
    }

    /// Waits until the current reload has ended; forever if there is none.
    async fn ended(&mut self) {
        match &mut self.under_way {
            Some(ended) => drop(ended.await),
            None => std::future::pending().await,
        }
    }

    fn end(&mut self, app: &App) {
        self.under_way = None;
        notify(&[NotifyState::Ready, NotifyState::Status(&summary(app))]);
        if std::mem::take(&mut self.again) {
            self.begin(app);
        }
    }
}

/// Logs one line that identifies this process, and notifies systemd.
fn announce(app: &App, open_files: Option<u64>) {
    let controller = app.observatory().controller();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        listen = addresses(app),
        admin = app.admin.map(|address| address.to_string()),
        workers = controller.workers().len(),
        services = controller.config().services.len(),
        routes = controller.config().routes.len(),
        generation = controller.snapshot().generation,
        config = controller.file().map(|file| file.display().to_string()),
        config_hash = controller.config_hash(),
        open_files,
        "serving"
    );
    drop(controller);
    notify(&[NotifyState::Ready, NotifyState::Status(&summary(app))]);
}

fn addresses(app: &App) -> String {
    app.listeners.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn summary(app: &App) -> String {
    let controller = app.observatory().controller();
    let last = match (&controller.reloads().error, controller.state().stand_ins().is_empty()) {
        (Some(_), _) => "; the last reload was refused, see the log",
        (None, false) => "; weights of the file are not in force, see the log",
        (None, true) => "",
    };
    format!("serving on {}{last}", addresses(app))
}

/// Notifies systemd; does nothing if systemd did not start the process.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be notified");
    }
}

/// Raises the limit of open files as far as permitted: each client needs one or two. Returns the
/// limit in force.
fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, limit = current, "the limit of open files cannot be raised");
            current
        }
    }
}

/// Signals that the process listens to.
struct Signals {
    hangup: Signal,
    upgrade: Signal,
    terminate: Signal,
    interrupt: Signal,
}

/// What a signal requests.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Reload,
    Reloaded,
    Upgrade,
    End(End),
}

/// A signal that ends the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Terminate,
    Interrupt,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Wanted {
        select! {
            _ = self.hangup.recv() => Wanted::Reload,
            _ = self.upgrade.recv() => Wanted::Upgrade,
            _ = self.terminate.recv() => Wanted::End(End::Terminate),
            _ = self.interrupt.recv() => Wanted::End(End::Interrupt),
        }
    }

    /// Another signal that ends the process, after the `first`.
    async fn end_after(&mut self, first: Option<(End, Instant)>) -> End {
        loop {
            let Wanted::End(end) = self.next().await else { continue };
            if !first.is_some_and(|(first, at)| is_repeat(first, end, at.elapsed())) {
                return end;
            }
        }
    }
}

/// Whether the signal `second`, which came `after` the `first`, is a repetition of it.
fn is_repeat(first: End, second: End, after: Duration) -> bool {
    first == second && after < SAME
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }

    /// 128 plus the signal's number, as in a shell.
    fn exit_code(self) -> u8 {
        match self {
            Self::Terminate => 143,
            Self::Interrupt => 130,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_signal_within_a_second_is_one() {
        for (second, after_ms, same) in [
            (End::Terminate, 0, true),
            (End::Terminate, 999, true),
            (End::Terminate, 1000, false),
            (End::Interrupt, 0, false),
        ] {
            let after = Duration::from_millis(after_ms);
            assert_eq!(is_repeat(End::Terminate, second, after), same, "{second:?} {after_ms}");
        }
    }
}
