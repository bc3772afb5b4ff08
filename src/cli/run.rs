//! `tidegate run`: load, start, announce, wait for a signal, drain.
//!
//! The main thread only waits for signals. So a reload or a drain that takes its time never keeps a
//! second signal from being heard: the drain runs on a thread of its own.

use std::{io, path::PathBuf, process::ExitCode, thread, time::Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use super::{Exit, Failure};
use crate::{
    app::{App, Ended},
    config::read,
    telemetry::log,
};

/// Serves by `file` until a signal.
pub(super) fn run(file: PathBuf) -> Result<ExitCode, Failure> {
    let loaded = read(&file).map_err(|error| Failure::new(Exit::Usage, error))?;
    // It fails only if the process logs already.
    let log = log::init(&loaded.config.log).ok();
    let open_files = raise_open_files();
    let fault = |error: io::Error| Failure::new(Exit::Fault, error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(fault)?;
    // Before the start, so that a signal during it is not lost.
    let (mut hangup, mut ends) = runtime.block_on(async { listen() }).map_err(fault)?;
    let begun = Instant::now();
    let app = App::start(loaded, Some(file), log)
        .map_err(|error| Failure::new(Exit::Unavailable, error))?;
    announce(&app, open_files);

    let first = runtime.block_on(reload_until_end(&app, &mut hangup, &mut ends));
    tracing::info!(signal = first.name(), "draining; another signal ends at once");
    notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    let (done, ended) = oneshot::channel();
    let drain = move || {
        // Nobody waits any more after a second signal.
        let _ = done.send(app.shutdown());
    };
    thread::Builder::new().name("drain".to_owned()).spawn(drain).map_err(fault)?;
    let code = runtime.block_on(async {
        select! {
            ended = ended => match ended {
                Ok(Ended::Drained) => 0,
                Ok(Ended::Cut) => Exit::Cut as u8,
                Err(_) => Exit::Fault as u8,
            },
            second = ends.next() => second.exit_code(),
        }
    });
    tracing::info!(uptime_seconds = begun.elapsed().as_secs(), exit_code = code, "ended");
    Ok(code.into())
}

/// Reloads at each SIGHUP; answers the signal that ends the process.
async fn reload_until_end(app: &App, hangup: &mut Signal, ends: &mut Ends) -> End {
    loop {
        select! {
            end = ends.next() => return end,
            _ = hangup.recv() => {
                let mut reloading = vec![NotifyState::Reloading];
                // systemd matches the reload that it asked for by this time.
                reloading.extend(NotifyState::monotonic_usec_now());
                notify(&reloading);
                app.reload();
                notify(&[NotifyState::Ready, NotifyState::Status(&summary(app))]);
            }
        }
    }
}

/// One line in the log with all that tells this process from another, and word to systemd.
fn announce(app: &App, open_files: Option<u64>) {
    let controller = app.observatory().controller();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
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
    let bad = app.observatory().controller().reloads().error.is_some();
    let last = if bad { "; the last reload was refused, see the log" } else { "" };
    format!("serving on {}{last}", addresses(app))
}

/// Tells systemd; does nothing if it did not start the process.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Raises the limit of open files as far as it may be: each client costs one or two. Answers the
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

/// Signals that end the process.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

/// A signal that ends the process.
#[derive(Debug, Clone, Copy)]
enum End {
    Terminate,
    Interrupt,
}

fn listen() -> io::Result<(Signal, Ends)> {
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    Ok((signal(SignalKind::hangup())?, Ends { terminate, interrupt }))
}

impl Ends {
    async fn next(&mut self) -> End {
        select! {
            _ = self.terminate.recv() => End::Terminate,
            _ = self.interrupt.recv() => End::Interrupt,
        }
    }
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }

    /// 128 and the signal's number, as a shell tells it.
    fn exit_code(self) -> u8 {
        match self {
            Self::Terminate => 143,
            Self::Interrupt => 130,
        }
    }
}
