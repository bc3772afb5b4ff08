//! Reports when the content of a file, or of one of several files, may have changed.
//!
//! The folders on the way to the file are watched, not the file itself: an editor renames a new
//! file over the old one, and Kubernetes swaps a symbolic link (`..data`) in the folder of a
//! mounted ConfigMap, so a watched inode would be obsolete. Every folder with a link on the way to
//! the file is watched, and the way is resolved again after every event.
//!
//! Events come in bursts (truncate, write, rename), so they are collected until there are none for
//! a moment. Then the content is hashed: only a different content counts, so that our own reading,
//! other files in the folder and a mere `touch` cause no reload.
//!
//! The system has a limited number of watches for all programs of a user. Without events the
//! content is read at an interval, which is logged.

mod content;
#[cfg(test)]
mod tests;
mod unseen;
mod way;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};

use self::{
    content::File,
    unseen::Unseen,
    way::{MAX_LINKS, walk},
};

/// An editor's save is over after this time without an event.
const QUIET: Duration = Duration::from_millis(100);
/// A file that changes all the time is read after this time nevertheless.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Interval of checks for a removed folder, which cannot be watched, and of reading files that give
/// no events.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long the end of a watch waits for a read in progress: a file system may not respond.
const LAST_LOOK: Duration = Duration::from_millis(200);

/// Why a file cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The way to the file cannot be resolved.
    #[error("{}: cannot be watched: {source}", path.display())]
    Path {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No thread for it.
    #[error("no thread to watch files: {0}")]
    Thread(io::Error),
}

/// Keeps a watch alive. After it is dropped no more calls are made; the drop waits for a moment for
/// a call in progress.
#[derive(Debug)]
pub struct WatchGuard {
    stop: Arc<AtomicBool>,
    wake: SyncSender<()>,
    /// Disconnected when the thread ends.
    ended: Mutex<Receiver<()>>,
    thread: ThreadId,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Fails if a wake-up is in the channel already, which is sufficient.
        let _ = self.wake.try_send(());
        if self.thread != thread::current().id() {
            let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
            let _ = ended.recv_timeout(LAST_LOOK);
        }
    }
}

/// Calls `changed` from a thread of its own whenever the content of `path` may have changed since
/// it had the hash `seen` (see [`Loaded::hash`](super::Loaded)): at the latest about a second after
/// the change, once for a burst of writes. A file that is gone for a second counts as a change, and
/// once more when it is back.
pub fn watch(
    path: &Path,
    seen: &str,
    changed: impl Fn() + Send + 'static,
) -> Result<WatchGuard, WatchError> {
    let seen = u64::from_str_radix(seen, 16).ok();
    watch_all(vec![File { path: path.to_owned(), content: seen, gone: None }], changed)
}

/// Like [`watch`], calls `changed` whenever the content of one of `paths` may have changed, and
/// once at the beginning, so that a change before the watch is not missed.
pub fn watch_files(
    paths: impl IntoIterator<Item = PathBuf>,
    changed: impl Fn() + Send + 'static,
) -> Result<WatchGuard, WatchError> {
    let paths: BTreeSet<PathBuf> = paths.into_iter().collect();
    watch_all(
        paths.into_iter().map(|path| File { path, content: None, gone: None }).collect(),
        changed,
    )
}

fn watch_all(
    mut files: Vec<File>,
    changed: impl Fn() + Send + 'static,
) -> Result<WatchGuard, WatchError> {
    for File { path, .. } in &mut files {
        *path = std::path::absolute(&*path)
            .map_err(|source| WatchError::Path { path: path.clone(), source })?;
    }
    let (wake, woken) = sync_channel(1);
    let way = Arc::new(Mutex::new(BTreeSet::new()));
    let events = notify::recommended_watcher(forward(Arc::clone(&way), wake.clone()));
    start(files, way, events, (wake, woken), changed)
}

fn start(
    files: Vec<File>,
    way: Arc<Mutex<BTreeSet<PathBuf>>>,
    events: notify::Result<RecommendedWatcher>,
    (wake, woken): (SyncSender<()>, Receiver<()>),
    changed: impl Fn() + Send + 'static,
) -> Result<WatchGuard, WatchError> {
    let stop = Arc::new(AtomicBool::new(false));
    let (folders, without_events) = (BTreeSet::new(), false);
    let mut watched =
        Watched { files, way, events, folders, without_events, stop: Arc::clone(&stop) };
    // Before this returns, so that no later change is missed.
    watched.attend();
    let (ending, ended) = sync_channel(0);
    let run = move || {
        watched.run(&woken, changed);
        drop(ending);
    };
    let thread = thread::Builder::new().name("config-watch".to_owned());
    let thread = thread.spawn(run).map_err(WatchError::Thread)?.thread().id();
    Ok(WatchGuard { stop, wake, ended: Mutex::new(ended), thread })
}

/// Forwards events that concern the way to the file. The channel holds one wake-up, which is
/// sufficient.
fn forward(
    way: Arc<Mutex<BTreeSet<PathBuf>>>,
    wake: SyncSender<()>,
) -> impl Fn(notify::Result<notify::Event>) {
    move |event| {
        let concerns = match event {
            Ok(event) => {
                let way = way.lock().unwrap_or_else(PoisonError::into_inner);
                let is_reading = matches!(event.kind, EventKind::Access(access)
                    if !matches!(access, AccessKind::Close(AccessMode::Write)));
                let on_the_way = |path: &PathBuf| way.iter().any(|step| step.starts_with(path));
                !is_reading
                    && (event.paths.is_empty()
                        || event.need_rescan()
                        || event.paths.iter().any(on_the_way))
            }
            // Events were lost.
            Err(_) => true,
        };
        if concerns {
            // Fails if a wake-up is in the channel already, or if the watch has ended.
            let _ = wake.try_send(());
        }
    }
}

struct Watched {
    files: Vec<File>,
    /// Links on the way to the files, and the files.
    way: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// The watcher, or why there are no events.
    events: notify::Result<RecommendedWatcher>,
    /// Folders watched now.
    folders: BTreeSet<PathBuf>,
    /// Whether the content is read at an interval, which was logged.
    without_events: bool,
    stop: Arc<AtomicBool>,
}

impl Watched {
    fn run(mut self, woken: &Receiver<()>, changed: impl Fn()) {
        loop {
            let complete = self.files.iter().all(|file| file.path.exists()) && self.attend();
            // The content may have changed since it was read and before its folder was watched.
            self.tell(&changed);
            let wake = match complete {
                true => woken.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => woken.recv_timeout(LOOK_AGAIN),
            };
            if wake.is_ok() && !self.stopped() {
                settle(woken);
            }
            if self.stopped() || wake == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn tell(&mut self, changed: &impl Fn()) {
        let mut is_new = false;
        for file in &mut self.files {
            is_new |= file.look(Instant::now());
        }
        if is_new && !self.stopped() {
            changed();
        }
    }

    /// Watches the folders; returns whether all changes from now on give events, and logs when that
    /// changes. A missing folder is not logged: its files are missing, too, and are reported.
    fn attend(&mut self) -> bool {
        let followed = self.follow();
        let why = match &followed {
            Err(Unseen::NoEvents(why)) => Some(why),
            Ok(()) | Err(Unseen::Gone) => None,
        };
        let (file, files) = (self.files.first().map(|f| f.path.display()), self.files.len());
        match (why, self.without_events) {
            (Some(why), false) => tracing::warn!(
                file = file.map(tracing::field::display),
                files,
                why,
                "the system reports no changes of files; their content is read every second instead"
            ),
            (None, true) => tracing::info!(
                file = file.map(tracing::field::display),
                files,
                "the system reports changes of files again"
            ),
            _ => {}
        }
        self.without_events = why.is_some();
        followed.is_ok()
    }

    /// Watches the folders on the current way to the files. All of them each time, since a folder
    /// that was deleted and created again has the old name but no watch. A link that changes
    /// between the walk and the watch would be missed, so this is repeated until the way stays the
    /// same.
    fn follow(&mut self) -> Result<(), Unseen> {
        for _ in 0..MAX_LINKS {
            let way = self.walk();
            let folders: BTreeSet<_> =
                way.iter().filter_map(|step| step.parent().map(Path::to_owned)).collect();
            *self.way.lock().unwrap_or_else(PoisonError::into_inner) = way.clone();
            let events = self.events.as_mut().map_err(|error| Unseen::from(&*error))?;
            for old in self.folders.difference(&folders) {
                // Fails if the folder is removed, and its watch with it.
                let _ = events.unwatch(old);
            }
            self.folders.clear();
            for folder in folders {
                let watched = events.watch(&folder, RecursiveMode::NonRecursive);
                watched.map_err(|error| Unseen::from(&error))?;
                self.folders.insert(folder);
            }
            if self.walk() == way {
                break;
            }
        }
        Ok(())
    }

    fn walk(&self) -> BTreeSet<PathBuf> {
        self.files.iter().flat_map(|file| walk(&file.path)).collect()
    }
}

/// Waits until the burst of events is over.
fn settle(woken: &Receiver<()>) {
    let begun = Instant::now();
    loop {
        let left = LONGEST_WAIT.saturating_sub(begun.elapsed());
        if left.is_zero() || woken.recv_timeout(QUIET.min(left)).is_err() {
            return;
        }
    }
}
