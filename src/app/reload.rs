//! Reloads: when the file or a certificate changes, and when somebody asks.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use crate::{
    config::{WatchGuard, read, watch, watch_files},
    control::tasks::ControlPlane,
    health::resolve::ResolverHandle,
};

/// Niceness of the thread that reads a changed file: a tenth of a worker's share where cores are short.
const LOW_PRIORITY: i32 = 10;

/// Reads the file again, on request.
#[derive(Debug, Clone)]
pub(super) struct Reloader {
    turns: Turns,
    names: ResolverHandle,
    certificates: Arc<Mutex<Watched>>,
}

/// Reads what the file names, one at a time.
#[derive(Debug, Clone)]
struct Turns {
    observatory: ControlPlane,
    /// Held while a file is read and taken over, with all that it names: of two read at once, the older
    /// must not come into force last.
    turn: Arc<Mutex<()>>,
    /// The process ends: nothing is taken over any more.
    stopped: Arc<AtomicBool>,
}

/// Certificates and keys that are watched.
#[derive(Debug, Default)]
struct Watched {
    files: Vec<PathBuf>,
    guard: Option<WatchGuard>,
}

impl Reloader {
    pub(super) fn new(observatory: ControlPlane, names: ResolverHandle) -> Self {
        let (turn, stopped) = Default::default();
        let turns = Turns { observatory, turn, stopped };
        Self { turns, names, certificates: Arc::default() }
    }

    /// Takes over the file.
    ///
    /// It is read and understood without holding the controller, and at low priority: with ten
    /// thousand routes that is most of the work, and the workers are not to wait for it. Nor does the
    /// controller wait for files that it names. Its names are asked for before it is in force, so that a
    /// version whose endpoints got another name is never without any.
    pub(super) fn reload(&self) {
        let turn = self.turns.take();
        let observatory = &self.turns.observatory;
        let (file, preparing) = {
            let controller = observatory.controller();
            (controller.file().map(Path::to_owned), controller.preparing())
        };
        let Some(file) = file else { return };
        let reading = move || {
            // Without the right to it the priority stays, and the file is read all the same.
            let thread = Some(rustix::thread::gettid());
            let _ = rustix::process::setpriority_process(thread, LOW_PRIORITY);
            let read = read(&file);
            if let Ok(loaded) = &read {
                self.names.prepare(&loaded.config);
            }
            preparing.prepare(read)
        };
        let Ok(prepared) = thread::scope(|scope| scope.spawn(reading).join()) else {
            tracing::error!("reading the file panicked; the old configuration stays");
            return;
        };
        if self.turns.stopped.load(Relaxed) {
            return;
        }
        // A bad file was logged and counted, and is shown in the status.
        if observatory.controller().reload(prepared).is_ok() {
            let certificates = observatory.controller().certificates();
            let faults = certificates.refresh_listeners();
            observatory.controller().note_certificates(&faults);
        }
        drop(turn);
        self.watch_certificates();
    }

    /// Reloads when `file` changes, or a certificate or key that it names.
    pub(super) fn follow(&self, file: &Path) -> Option<WatchGuard> {
        let hash = self.turns.observatory.controller().config_hash().to_owned();
        self.watch_certificates();
        let reloader = self.clone();
        watch(file, &hash, move || reloader.reload())
            .inspect_err(|error| {
                let file = file.display();
                tracing::warn!(%file, %error, "the file is not watched; send SIGHUP after a change");
            })
            .ok()
    }

    /// Takes nothing over any more. Waits for no file that is being read: its file system may not answer.
    pub(super) fn stop(&self) {
        self.turns.stopped.store(true, Relaxed);
        let guard = self.certificates.try_lock().ok().and_then(|mut watched| watched.guard.take());
        drop(guard);
    }

    /// Watches the files that are in use now.
    fn watch_certificates(&self) {
        let mut watched = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        let files = self.turns.observatory.controller().tls_files();
        if files == watched.files {
            return;
        }
        let turns = self.turns.clone();
        let changed = move || turns.refresh();
        let guard = watch_files(files.iter().cloned(), changed);
        watched.guard = guard
            .inspect_err(|error| {
                tracing::warn!(%error, "certificates are not watched; send SIGHUP after a change");
            })
            .ok();
        watched.files = files;
    }
}

impl Turns {
    fn take(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at certificates and keys again, whatever the file says.
    fn refresh(&self) {
        let _turn = self.take();
        let certificates = self.observatory.controller().certificates();
        let faults = certificates.refresh_listeners();
        let opened = certificates.open_clients();
        if !self.stopped.load(Relaxed) {
            let mut controller = self.observatory.controller();
            controller.note_certificates(&faults);
            controller.renew_clients(opened);
        }
    }
}
