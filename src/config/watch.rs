//! Tells when the content of a file, or of one of several, may have changed.
//!
//! The file itself is not watched but the folders it is found through: an editor renames a new file
//! over the old one, and Kubernetes swaps a symbolic link (`..data`) in the folder of a mounted
//! ConfigMap, so the watched inode would be a dead one. Every folder that holds a link on the way
//! to the file is watched, and the way is walked anew after every event.
//!
//! Events come in bursts (truncate, write, rename), so they are collected until it has been quiet
//! for a moment. Then the content is hashed: only another content counts, so that our own reading,
//! other files of the folder and a mere `touch` cause no reload.
//!
//! The system gives a limited number of watches to all programs of a user together. Without events the
//! content is read at an interval, and the log says so.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use notify::{
    ErrorKind, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use xxhash_rust::xxh3::xxh3_64;

use super::file::read_file;

/// An editor's save is over after this time without an event.
const QUIET: Duration = Duration::from_millis(100);
/// A file that never comes to rest is looked at nevertheless.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// A folder that is gone cannot be watched; it is looked for at this interval. Files that give no events are
/// read at it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A file that is not there for this time is gone.
const GONE_AFTER: Duration = Duration::from_secs(1);
/// Largest file whose content is looked at: certificates may be larger than configurations.
const LARGEST: u64 = 16 << 20;
/// How long the end of a watch waits for a look that is under way: a file system may not answer.
const LAST_LOOK: Duration = Duration::from_millis(200);
/// As many links as Linux follows in one path.
const MAX_LINKS: usize = 40;

/// Why a file cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The way to the file cannot be walked.
    #[error("{}: cannot be watched: {source}", path.display())]
    Path {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No thread for it.
    #[error("no thread to watch files: {0}")]
    Thread(io::Error),
}

/// Keeps a watch alive. Once it is dropped, no call is made any more; one that is under way is waited for a
/// moment.
#[derive(Debug)]
pub struct WatchGuard {
    stop: Arc<AtomicBool>,
    wake: SyncSender<()>,
    /// Ends with the thread.
    ended: Mutex<Receiver<()>>,
    thread: ThreadId,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Fails if a wake-up is in the channel already, which does as well.
        let _ = self.wake.try_send(());
        if self.thread != thread::current().id() {
            let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
            let _ = ended.recv_timeout(LAST_LOOK);
        }
    }
}

/// Calls `changed` from a thread of its own whenever the content of `path` may have changed since it
/// had the hash `seen` (see [`Loaded::hash`](super::Loaded)): at the latest about a second after the
/// change, once for a burst of writes. A file that is gone for a second counts
/// as a change, and once more when it is back.
pub fn watch(
    path: &Path,
    seen: &str,
    changed: impl Fn() + Send + 'static,
) -> Result<WatchGuard, WatchError> {
    let seen = u64::from_str_radix(seen, 16).ok();
    watch_all(vec![File { path: path.to_owned(), content: seen, gone: None }], changed)
}

/// Calls `changed` as [`watch`] does, whenever the content of one of `paths` may have changed, and once
/// at the beginning: what changed before the watch began is not missed.
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

/// Passes on what concerns the way to the file. The channel holds one wake-up: more say no more.
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

struct File {
    path: PathBuf,
    /// Hash of the content last seen.
    content: Option<u64>,
    /// Since when it is gone, while that is not told.
    gone: Option<Instant>,
}

struct Watched {
    files: Vec<File>,
    /// Links on the way to the files, and the files.
    way: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// Or why there are no events.
    events: notify::Result<RecommendedWatcher>,
    /// Folders watched now.
    folders: BTreeSet<PathBuf>,
    /// The content is read at an interval; that was said.
    without_events: bool,
    stop: Arc<AtomicBool>,
}

impl File {
    /// Whether the content is another one than before. An editor may remove a file before it writes the
    /// new one, so a file is gone only after [`GONE_AFTER`].
    fn look(&mut self, now: Instant) -> bool {
        let content = hash(&self.path);
        if content.is_none() && self.content.is_some() {
            let gone = *self.gone.get_or_insert(now);
            if now.duration_since(gone) < GONE_AFTER {
                return false;
            }
        }
        self.gone = None;
        std::mem::replace(&mut self.content, content) != content
    }
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

    /// Whether all changes from now on give events; logs when that changes. A folder that is gone is not
    /// logged: its files are gone, too, and are reported as such.
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

    /// Watches the folders on the way to the files as it is now. All of them each time: one that
    /// was deleted and made anew has the old name and no watch. A link that changes between the
    /// walk and the watch would be missed, so this is done until the way stays the same.
    fn follow(&mut self) -> Result<(), Unseen> {
        for _ in 0..MAX_LINKS {
            let way = self.walk();
            let folders: BTreeSet<_> =
                way.iter().filter_map(|step| step.parent().map(Path::to_owned)).collect();
            *self.way.lock().unwrap_or_else(PoisonError::into_inner) = way.clone();
            let events = self.events.as_mut().map_err(|error| Unseen::from(&*error))?;
            for old in self.folders.difference(&folders) {
                // Fails if the folder is gone, and its watch with it.
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

/// Why changes give no events.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unseen {
    /// A folder is gone.
    Gone,
    /// The system does not report changes, for this reason.
    NoEvents(String),
}

impl From<&notify::Error> for Unseen {
    fn from(error: &notify::Error) -> Self {
        let full = Some(rustix::io::Errno::MFILE.raw_os_error());
        Self::NoEvents(match &error.kind {
            ErrorKind::PathNotFound => return Self::Gone,
            ErrorKind::Io(error) if error.kind() == io::ErrorKind::NotFound => return Self::Gone,
            ErrorKind::MaxFilesWatch => {
                "this user has no more inotify watches; raise fs.inotify.max_user_watches".into()
            }
            ErrorKind::Io(error) if error.raw_os_error() == full => {
                "this user has no more inotify instances, or this process no more descriptors; \
                 raise fs.inotify.max_user_instances"
                    .into()
            }
            _ => error.to_string(),
        })
    }
}

/// Hash of the content; nothing if the file is not there. A file that cannot be read counts as
/// content of its own: the reload will say why.
fn hash(path: &Path) -> Option<u64> {
    match read_file(path, LARGEST) {
        Ok(bytes) => Some(xxh3_64(&bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(0),
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

/// Every symbolic link passed on the way to `path`, which is absolute, and the file in the end.
fn walk(path: &Path) -> BTreeSet<PathBuf> {
    let parts = |path: &Path| -> Vec<OsString> {
        path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
    };
    let (mut left, mut here, mut way, mut links) =
        (parts(path), PathBuf::new(), BTreeSet::new(), 0);
    while let Some(part) = left.pop() {
        match Path::new(&part).components().next() {
            Some(Component::ParentDir) => {
                here.pop();
                continue;
            }
            Some(Component::CurDir) | None => continue,
            _ => here.push(&part),
        }
        if links < MAX_LINKS
            && let Ok(target) = fs::read_link(&here)
        {
            links += 1;
            way.insert(here.clone());
            here.pop();
            // An absolute target begins with the root, which replaces `here` when it is pushed.
            left.extend(parts(&target));
        }
    }
    way.insert(here);
    way
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, sync::mpsc};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);
    /// Longer than a burst may last.
    const NOTHING: Duration = Duration::from_millis(400);

    fn start(path: &Path) -> (WatchGuard, mpsc::Receiver<String>) {
        start_after(path, &fs::read(path).unwrap())
    }

    fn start_after(path: &Path, seen: &[u8]) -> (WatchGuard, mpsc::Receiver<String>) {
        let (tell, told) = mpsc::channel();
        let read = path.to_owned();
        let guard = watch(path, &format!("{:016x}", xxh3_64(seen)), move || {
            let _ = tell.send(fs::read_to_string(&read).unwrap_or_default());
        });
        (guard.unwrap(), told)
    }

    /// Waits until the content is `text`; calls for content between are allowed.
    fn wait_for(told: &mpsc::Receiver<String>, text: &str) {
        while told.recv_timeout(DEADLINE).unwrap() != text {}
    }

    #[test]
    fn a_write_and_a_rename_over_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        fs::write(&file, "1").unwrap();
        let (_guard, told) = start(&file);
        fs::write(&file, "2").unwrap();
        wait_for(&told, "2");
        for text in ["3", "4"] {
            let new = folder.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, &file).unwrap();
            wait_for(&told, text);
        }
        fs::remove_file(&file).unwrap();
        fs::write(&file, "5").unwrap();
        wait_for(&told, "5");
    }

    #[test]
    fn a_change_between_reading_and_watching_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        fs::write(&file, "2").unwrap();
        let (_guard, told) = start_after(&file, b"1");
        wait_for(&told, "2");
    }

    #[test]
    fn what_changes_no_content_is_not_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        fs::write(&file, "1").unwrap();
        let (_guard, told) = start(&file);
        fs::write(folder.path().join("other"), "x").unwrap();
        fs::write(&file, "1").unwrap();
        fs::read(&file).unwrap();
        assert!(told.recv_timeout(NOTHING).is_err());
    }

    #[test]
    fn each_of_several_files_is_told_of() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let files = ["a", "b"].map(|name| folders[usize::from(name == "b")].path().join(name));
        fs::write(&files[0], "1").unwrap();
        let (tell, told) = mpsc::channel();
        let read = files.clone();
        let _guard = watch_files(files.clone(), move || {
            let text = read.iter().map(|file| fs::read_to_string(file).unwrap_or_default());
            let _ = tell.send(text.collect::<Vec<_>>().join(" "));
        });
        wait_for(&told, "1 ");
        fs::write(&files[1], "2").unwrap();
        wait_for(&told, "1 2");
        fs::write(&files[0], "3").unwrap();
        wait_for(&told, "3 2");
    }

    #[test]
    fn a_burst_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        fs::write(&file, "0").unwrap();
        let (_guard, told) = start(&file);
        for n in 1..=50 {
            fs::write(&file, n.to_string()).unwrap();
        }
        wait_for(&told, "50");
        assert!(told.recv_timeout(NOTHING).is_err());
    }

    #[test]
    fn swaps_of_a_mounted_config_map_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let publish = |name: &str, text: &str| {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("config.yaml"), text).unwrap();
            symlink(name, at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
        };
        publish("..1", "1");
        symlink("..data/config.yaml", at("config.yaml")).unwrap();
        let (_guard, told) = start(&at("config.yaml"));
        publish("..2", "2");
        fs::remove_dir_all(at("..1")).unwrap();
        wait_for(&told, "2");
        publish("..3", "3");
        fs::remove_dir_all(at("..2")).unwrap();
        wait_for(&told, "3");
        // The new folder is watched as well.
        fs::write(at("..3").join("config.yaml"), "3b").unwrap();
        wait_for(&told, "3b");
    }

    #[test]
    fn a_swapped_folder_and_one_made_anew_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["r1", "r2"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("config.yaml"), name).unwrap();
        }
        symlink(at("r1"), at("current")).unwrap();
        let (_guard, told) = start(&at("current/config.yaml"));
        symlink(at("r2"), at("tmp")).unwrap();
        fs::rename(at("tmp"), at("current")).unwrap();
        wait_for(&told, "r2");
        fs::remove_dir_all(at("r2")).unwrap();
        fs::create_dir(at("r2")).unwrap();
        fs::write(at("r2").join("config.yaml"), "again").unwrap();
        wait_for(&told, "again");
        fs::write(at("r2").join("config.yaml"), "and again").unwrap();
        wait_for(&told, "and again");
    }

    #[test]
    fn a_folder_that_is_gone_for_a_while_is_found_again() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("etc");
        let file = folder.join("config.yaml");
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "1").unwrap();
        let (_guard, told) = start(&file);
        fs::remove_dir_all(&folder).unwrap();
        assert!(told.recv_timeout(NOTHING).is_err());
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "2").unwrap();
        wait_for(&told, "2");
        fs::write(&file, "3").unwrap();
        wait_for(&told, "3");
    }

    #[test]
    fn a_file_that_is_gone_is_told_once_and_again_when_it_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        fs::write(&path, "1").unwrap();
        let mut file = File { path: path.clone(), content: hash(&path), gone: None };
        let begun = Instant::now();
        let mut look = |after: Duration| file.look(begun + after);
        assert!(!look(Duration::ZERO));
        fs::remove_file(&path).unwrap();
        assert!(!look(GONE_AFTER) && !look(GONE_AFTER * 3 / 2), "an editor may be at work");
        assert!(look(GONE_AFTER * 2) && !look(GONE_AFTER * 4));
        fs::write(&path, "1").unwrap();
        assert!(look(GONE_AFTER * 5) && !look(GONE_AFTER * 6));
    }

    /// A process for which the system had no inotify instance left noticed changes at SIGHUP only.
    #[test]
    fn without_events_of_the_system_the_content_is_read_at_an_interval() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        fs::write(&path, "1").unwrap();
        let (tell, told) = mpsc::channel();
        let read = path.clone();
        let changed = move || {
            let _ = tell.send(fs::read_to_string(&read).unwrap_or_default());
        };
        let file = File { path: path.clone(), content: hash(&path), gone: None };
        let full = notify::Error::io(io::Error::from_raw_os_error(24));
        let _guard =
            super::start(vec![file], Arc::default(), Err(full), sync_channel(1), changed).unwrap();
        fs::write(&path, "2").unwrap();
        wait_for(&told, "2");
        fs::write(&path, "3").unwrap();
        wait_for(&told, "3");
    }

    /// The log had the words of a library: `OS file watch limit reached. about ["/etc"]`.
    #[test]
    fn a_limit_of_the_system_is_named_with_what_to_raise() {
        let said = |error: notify::Error| match Unseen::from(&error) {
            Unseen::NoEvents(why) => why,
            Unseen::Gone => "gone".to_owned(),
        };
        let system = |number| notify::Error::io(io::Error::from_raw_os_error(number));
        let watches = said(notify::Error::new(ErrorKind::MaxFilesWatch));
        assert!(watches.ends_with("raise fs.inotify.max_user_watches"), "{watches}");
        let instances = said(system(24));
        assert!(instances.ends_with("raise fs.inotify.max_user_instances"), "{instances}");
        assert_eq!(
            (said(notify::Error::path_not_found()), said(system(2))),
            ("gone".into(), "gone".into())
        );
        assert!(said(system(13)).contains("denied"));
    }

    #[test]
    fn nothing_is_told_after_the_guard() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        fs::write(&file, "1").unwrap();
        let (guard, told) = start(&file);
        fs::write(&file, "2").unwrap();
        drop(guard);
        while told.try_recv().is_ok() {}
        fs::write(&file, "3").unwrap();
        assert!(
            told.recv_timeout(DEADLINE).is_err_and(|e| e == mpsc::RecvTimeoutError::Disconnected)
        );
    }
}
