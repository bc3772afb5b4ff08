//! Reloads of the file and of certificates, when they change or on request.

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

/// Niceness of the thread that reads a changed file: a tenth of a worker's share if cores are scarce.
const LOW_PRIORITY: i32 = 10;

/// Reloads the configuration file.
#[derive(Debug, Clone)]
pub(super) struct Reloader {
    turns: Turns,
    names: ResolverHandle,
    certificates: Arc<Mutex<Watched>>,
}

/// Serializes reloads.
#[derive(Debug, Clone)]
struct Turns {
    observatory: ControlPlane,
    /// Held while a file is read and applied, with all files that it names. Otherwise, with two concurrent
    /// reloads, the older content could come into force last.
    turn: Arc<Mutex<()>>,
    /// Set when the process ends: nothing is applied any more.
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

    /// Reads the file and applies it.
    ///
    /// The file is read and parsed without holding the controller, and at low priority: with ten thousand
    /// routes that is most of the work, and workers must not wait for it. Nor does the controller wait for
    /// files that the configuration names. New names are resolved before the configuration is in force, so that
    /// a version whose endpoints got other names always has addresses.
    pub(super) fn reload(&self) {
        let turn = self.turns.take();
        let observatory = &self.turns.observatory;
        let (file, preparing) = {
            let controller = observatory.controller();
            (controller.file().map(Path::to_owned), controller.preparing())
        };
        let Some(file) = file else { return };
        let reading = move || {
            // Without the permission the priority stays, and the file is read all the same.
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
        // An invalid file was logged and counted, and `status` shows its error.
        if observatory.reload(prepared) {
            let certificates = observatory.controller().certificates();
            let faults = certificates.refresh_listeners();
            observatory.controller().note_certificates(faults);
        }
        drop(turn);
        self.watch_certificates();
    }

    /// Reloads when `file` or a certificate or key that it names changes.
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

    /// Stops applying changes. Does not wait for a file that is being read: its file system may not respond.
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

    /// Reads certificates and keys again, even if the configuration is unchanged.
    fn refresh(&self) {
        let _turn = self.take();
        let certificates = self.observatory.controller().certificates();
        let faults = certificates.refresh_listeners();
        let key_faults = certificates.refresh_keys();
        let opened = certificates.open_clients();
        if !self.stopped.load(Relaxed) {
            let mut controller = self.observatory.controller();
            controller.note_certificates(faults);
            controller.note_certificates(key_faults);
            controller.renew_clients(opened);
        }
    }
}
