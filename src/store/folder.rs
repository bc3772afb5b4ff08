//! The folder of a journal: its files, their permissions, and the lock that keeps a second process out.
//!
//! The lock is one of the kernel (`flock`), so it ends with its process, however that ends. Readers do not
//! take it: SQLite lets them read beside the one process that writes.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::error::StoreError;

/// What may be in a folder before the database is: what is left of an attempt to begin one, and what a new
/// disk has.
const OWN: [&str; 9] = [
    "lost+found",
    "lock",
    "ballast",
    "checkpoint.key",
    "checkpoint.part",
    "replaces",
    "restored",
    "incidents",
    "jwks",
];

/// Attempts to take the lock that a reader may have for a moment, and the pause between them.
const LOOKS: u32 = 5;
const LOOK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Paths of the files in a folder.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// That of an existing folder, or of one that is still to be made.
    pub(super) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The database.
    pub(super) fn journal(&self) -> PathBuf {
        self.0.join("journal.db")
    }

    /// What SQLite has not yet moved into the database.
    pub(super) fn log(&self) -> PathBuf {
        self.0.join("journal.db-wal")
    }

    /// SQLite's index of that.
    pub(super) fn index(&self) -> PathBuf {
        self.0.join("journal.db-shm")
    }

    /// The key of checkpoints.
    pub(super) fn key(&self) -> PathBuf {
        self.0.join("checkpoint.key")
    }

    /// Space on the disk that is kept for ejections.
    pub(super) fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// A checkpoint of the journal that a new one here goes on from.
    pub(super) fn replaces(&self) -> PathBuf {
        self.0.join("replaces")
    }

    /// A mark that the journal was restored from a backup and not opened since.
    pub(super) fn restored(&self) -> PathBuf {
        self.0.join("restored")
    }

    fn lock_file(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Makes the folder unless it is there, for its owner alone.
    pub(super) fn make(&self) -> Result<(), StoreError> {
        let path = &self.0;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(StoreError::file(path))?;
        self.refuse_foreign()?;
        let mode = fs::metadata(path).map_err(StoreError::file(path))?.permissions().mode() & 0o777;
        if mode == 0o700 {
            return Ok(());
        }
        match fs::set_permissions(path, Permissions::from_mode(0o700)) {
            // A group may share what an orchestrator mounted.
            Err(_) if mode & 0o007 == 0 => Ok(()),
            Err(_) => Err(StoreError::Open { folder: path.clone(), mode }),
            Ok(()) => Ok(()),
        }
    }

    /// Refuses a folder that something else uses: its permissions are not to be changed.
    fn refuse_foreign(&self) -> Result<(), StoreError> {
        if fs::symlink_metadata(self.journal()).is_ok() {
            return Ok(());
        }
        let failed = || StoreError::file(&self.0);
        for file in fs::read_dir(&self.0).map_err(failed())? {
            let name = file.map_err(failed())?.file_name().to_string_lossy().into_owned();
            let is_own = OWN.contains(&&*name)
                || ["journal.db", "idempotency.db"].iter().any(|own| name.starts_with(own));
            if !is_own {
                return Err(StoreError::Foreign { folder: self.0.clone(), name });
            }
        }
        Ok(())
    }

    /// Takes the lock, or reports which process has it.
    pub(super) fn lock(&self) -> Result<Lock, StoreError> {
        let path = self.lock_file();
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = opened.open(&path).map_err(StoreError::file(&path))?;
        let mut locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
        for _ in 0..LOOKS {
            if locked != Err(rustix::io::Errno::WOULDBLOCK) {
                break;
            }
            // A reader finds out whether somebody has it, which takes a moment.
            std::thread::sleep(LOOK_PAUSE);
            locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
        }
        match locked {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // It only makes the message better.
                let _ = file.take(20).read_to_string(&mut holder);
                let process = holder.trim().parse().ok();
                return Err(StoreError::Locked { folder: self.0.clone(), process });
            }
            Err(error) => return Err(StoreError::file(path)(error.into())),
        }
        // The same: on a full disk the lock is as good without it.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Lock { file })
    }

    /// Makes the names of new files last.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        sync_folder(&self.0)
    }
}

/// Whether some process has the folder of the database at `path`, or may have it. A database with another name,
/// as a backup, is written by nobody.
pub(super) fn is_written(path: &Path) -> bool {
    let Some(folder) = path.parent().map(Folder::at).filter(|folder| folder.journal() == path)
    else {
        return false;
    };
    let file = match File::open(folder.lock_file()) {
        Ok(file) => file,
        Err(error) => return error.kind() != io::ErrorKind::NotFound,
    };
    // Where it cannot be taken because nobody can, somebody may have it.
    let is_free = flock(&file, FlockOperation::NonBlockingLockShared).is_ok();
    if is_free {
        let _ = flock(&file, FlockOperation::Unlock);
    }
    !is_free
}

/// Tells a file from another one that gets its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// That of the file at `path`; `None` if there is none.
    pub(super) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|data| Self::from(&data))
    }
}

impl From<&fs::Metadata> for FileId {
    fn from(data: &fs::Metadata) -> Self {
        Self { device: data.dev(), inode: data.ino() }
    }
}

/// The lock of a folder, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A process that is being started has a copy of the descriptor for a moment; closing would not do.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Creates a file for its owner alone; one that is there is an error.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Makes the names of new files in `folder` last.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(StoreError::file(folder))
}
