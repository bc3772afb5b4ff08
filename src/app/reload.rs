//! Reloads: when the file or a certificate changes, and when somebody asks.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use crate::{
    config::{WatchGuard, read, watch, watch_files},
    rollout::view::Observatory,
    upstream::resolve::Names,
};

/// Niceness of the thread that reads a changed file: a tenth of a worker's share where cores are short.
const LOW_PRIORITY: i32 = 10;

/// Reads the file again, for whoever asks.
#[derive(Debug, Clone)]
pub(super) struct Reloader {
    observatory: Observatory,
    names: Names,
    /// Held while a file is read: of two read at once, the older must not come into force last.
    certificates: Arc<Mutex<Watched>>,
}

/// Certificates and keys that are watched.
#[derive(Debug, Default)]
struct Watched {
    files: Vec<PathBuf>,
    guard: Option<WatchGuard>,
}

impl Reloader {
    pub(super) fn new(observatory: Observatory, names: Names) -> Self {
        Self { observatory, names, certificates: Arc::default() }
    }

    /// Takes over the file.
    ///
    /// It is read and understood without holding the controller, and at low priority: with ten
    /// thousand routes that is most of the work, and the workers are not to wait for it. Its names are
    /// asked for before it is in force, so that a version whose endpoints got another name is never
    /// without any.
    pub(super) fn reload(&self) {
        let mut watched = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        let file = self.observatory.controller().file().map(Path::to_owned);
        let Some(file) = file else { return };
        let reading = || {
            // Without the right to it the priority stays, and the file is read all the same.
            let thread = Some(rustix::thread::gettid());
            let _ = rustix::process::setpriority_process(thread, LOW_PRIORITY);
            let read = read(&file);
            if let Ok(loaded) = &read {
                self.names.prepare(&loaded.config);
            }
            read
        };
        let Ok(read) = thread::scope(|scope| scope.spawn(reading).join()) else {
            tracing::error!("reading the file panicked; the old configuration stays");
            return;
        };
        // A bad file was logged and counted, and is shown in the status.
        let _ = self.observatory.controller().reload(read);
        self.watch_certificates(&mut watched);
    }

    /// Reloads when `file` changes, or a certificate or key that it names.
    pub(super) fn follow(&self, file: &Path) -> Option<WatchGuard> {
        let hash = self.observatory.controller().config_hash().to_owned();
        let mut watched = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        self.watch_certificates(&mut watched);
        let reloader = self.clone();
        watch(file, &hash, move || reloader.reload())
            .inspect_err(|error| {
                let file = file.display();
                tracing::warn!(%file, %error, "the file is not watched; send SIGHUP after a change");
            })
            .ok()
    }

    /// Ends the watching of certificates.
    pub(super) fn stop(&self) {
        let mut watched = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        let guard = watched.guard.take();
        drop(watched);
        drop(guard);
    }

    /// Watches the files that are in use now.
    fn watch_certificates(&self, watched: &mut Watched) {
        let files = self.observatory.controller().tls_files();
        if files == watched.files {
            return;
        }
        let observatory = self.observatory.clone();
        let changed = move || observatory.controller().refresh_tls();
        let guard = watch_files(files.iter().cloned(), changed);
        watched.guard = guard
            .inspect_err(|error| {
                tracing::warn!(%error, "certificates are not watched; send SIGHUP after a change");
            })
            .ok();
        watched.files = files;
    }
}
