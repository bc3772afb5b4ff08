//! The journal of a process that writes it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::Connection;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    ballast::Ballast,
    chain::{self, Head},
    entry::{Actor, Draft, GENESIS, Identity, KEY_MADE, Replaced, Stamp, StateChange},
    error::StoreError,
    files::Files,
    folder::Folder,
    hash::hex,
    health::{Health, MOST_WAITING, Shared},
    key,
    late::Late,
    note::{NoteError, PublicKey, SigningKey},
    pins::{PinJob, Unkept},
    reader::Reader,
    sqlite::{self, Access},
    writer::{Command, Job, Writer},
};
use crate::registry::PinChanges;

/// Settings of a journal.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its folder, which is made unless it is there. One process has it at a time.
    pub folder: PathBuf,
    /// Identity of the process that writes.
    pub identity: Identity,
    /// The last entry of the journal that this one goes on from, if there is one. Only the first entry of a
    /// new journal names it. A checkpoint in the file `replaces` of the folder says the same.
    pub replaces: Option<Replaced>,
}

/// A journal that is written. Dropping it writes what waits, and then gives up the folder.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    commands: SyncSender<Command>,
    folder: Folder,
    public: PublicKey,
    origin: String,
    writer: Option<JoinHandle<()>>,
}

/// The answer to a change that is being written.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<Head, StoreError>>);

impl Receipt {
    /// Waits until the change is on the disk; returns its entry.
    ///
    /// # Errors
    ///
    /// If the change counts as not made; see [`StoreError`].
    pub async fn kept(self) -> Result<Head, StoreError> {
        self.0.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The same for a thread without a runtime.
    ///
    /// # Errors
    ///
    /// As of [`Receipt::kept`].
    pub fn wait(self) -> Result<Head, StoreError> {
        self.0.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }
}

impl Journal {
    /// Opens the journal in a folder, or begins one, and starts the thread that writes. Blocks.
    ///
    /// After an unclean end all pages of the file are checked first, which takes about a second per GiB.
    ///
    /// # Errors
    ///
    /// If another process has the folder, a later release wrote the journal, it is damaged, or the disk
    /// refuses.
    pub fn open(settings: &Settings) -> Result<Self, StoreError> {
        let folder = Folder::at(&settings.folder);
        folder.make()?;
        let lock = folder.lock()?;
        let path = folder.journal();
        if std::fs::metadata(&path).map_or(0, |journal| journal.len()) == 0 {
            refuse_begun(&folder)?;
        }
        // A clean end removes it.
        let was_unclean = std::fs::metadata(folder.log()).is_ok_and(|log| log.len() > 0);
        // A key is made once the first entry is there; what lacks it stays as it is.
        let is_begun = key::read(&folder.key())?.is_some();
        let access = if is_begun { Access::Write } else { Access::Create };
        let connection = sqlite::open(&path, access)?;
        if was_unclean {
            sqlite::check_integrity(&connection, &path)?;
        }
        let (head, origin, key) = begin_or_go_on(&folder, &connection, settings)?;
        folder.sync()?;
        let shared = Arc::new(Shared::new(head));
        let mut ballast = Ballast::at(folder.ballast());
        if let Err(error) = ballast.make() {
            shared.fails(StoreError::file(folder.ballast())(error).to_string());
        }
        shared.set_reserve(ballast.is_there());
        let (commands, receiver) = sync_channel(MOST_WAITING + 16);
        let public = key.public().clone();
        let writer = Writer {
            folder: folder.clone(),
            identity: settings.identity.clone(),
            key,
            origin: origin.clone(),
            connection: Some(connection),
            files: Files::of(&folder),
            is_suspect: false,
            head,
            ballast,
            shared: shared.clone(),
            commands: receiver,
            doubt: None,
            pause: Duration::ZERO,
            lock,
        };
        let thread = thread::Builder::new().name("journal".to_owned());
        let thread = thread.spawn(|| writer.run()).map_err(StoreError::file(folder.path()))?;
        Ok(Self { shared, commands, folder, public, origin, writer: Some(thread) })
    }

    /// Writes a change and the state that it leads to, and waits until both are on the disk; returns the
    /// entry. At most [`MOST_WAITING`] changes wait to be written, the others for their turn.
    ///
    /// A caller that is gone before the answer does not undo the change.
    ///
    /// # Errors
    ///
    /// If the change counts as not made; see [`StoreError`].
    pub async fn write(&self, draft: Draft, state: Vec<StateChange>) -> Result<Head, StoreError> {
        let permit = self.shared.permits.clone().acquire_owned().await;
        self.send(draft, state, permit.map_err(|_| StoreError::Closed)?)?.kept().await
    }

    /// Sends a change to the writer without waiting; the receipt returns the result.
    ///
    /// # Errors
    ///
    /// If too many changes wait, or the journal is closed.
    pub fn submit(&self, draft: Draft, state: Vec<StateChange>) -> Result<Receipt, StoreError> {
        let permit = self.shared.permits.clone().try_acquire_owned();
        self.send(draft, state, permit.map_err(|_| StoreError::Busy)?)
    }

    /// Writes a change that is in force already, such as an ejection, as soon as the disk accepts it. Its
    /// entry has the delay. Neither waits nor fails: see [`Health::late`] and [`Health::lost`].
    pub fn write_late(&self, draft: Draft, state: Vec<StateChange>) {
        self.shared.late().push(Late { draft, state, stamp: Stamp::now(), merged: 0 });
        // If there is no room for it, the writer is awake.
        let _ = self.commands.try_send(Command::Wake);
    }

    /// Signs the head as it is when all that waits is written, and keeps the checkpoint; returns it as text.
    ///
    /// # Errors
    ///
    /// If it cannot be kept.
    pub async fn checkpoint(&self) -> Result<String, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.try_send(Command::Checkpoint(answer))?;
        answered.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Writes changes of pins, by service, in one commit, and waits until they are on the disk. Pins that end
    /// come before those that begin.
    ///
    /// # Errors
    ///
    /// If they are not written; they are in the error.
    pub async fn keep_pins(&self, changes: Vec<(String, PinChanges)>) -> Result<(), Box<Unkept>> {
        let (answer, answered) = oneshot::channel();
        let job = Command::Pins(Box::new(PinJob { changes, answer }));
        let (why, given_back) = match self.commands.try_send(job) {
            Ok(()) => match answered.await {
                Ok(kept) => return kept.map_err(Box::new),
                Err(_) => {
                    return Err(Box::new(Unkept { why: StoreError::Closed, changes: vec![] }));
                }
            },
            Err(TrySendError::Full(command)) => (StoreError::Busy, command),
            Err(TrySendError::Disconnected(command)) => (StoreError::Closed, command),
        };
        let changes = match given_back {
            Command::Pins(job) => job.changes,
            _ => Vec::new(),
        };
        Err(Box::new(Unkept { why, changes }))
    }

    /// The health of the journal. Never waits for the disk.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Another connection that only reads. It blocks, and so belongs on a thread that may.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        Reader::open(self.folder.path())
    }

    /// The key that verifies the checkpoints made from now on.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// The journal's name in its checkpoints.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Writes what waits and gives up the folder; returns the last state. Blocks.
    pub fn close(mut self) -> Health {
        self.end();
        self.shared.health()
    }

    fn send(
        &self,
        draft: Draft,
        state: Vec<StateChange>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Receipt, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job = Job { draft, state, stamp: Stamp::now(), answer, permit };
        self.try_send(Command::Write(Box::new(job)))?;
        Ok(Receipt(answered))
    }

    fn try_send(&self, command: Command) -> Result<(), StoreError> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => StoreError::Closed,
        })
    }

    fn end(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        // An error means that the thread has ended.
        let _ = self.commands.send(Command::Close);
        let _ = writer.join();
    }

    /// Makes the disk full, as far as the database is concerned, at this number of pages; 0 ends that.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) {
        self.shared.max_pages.store(pages, std::sync::atomic::Ordering::SeqCst);
    }

    #[cfg(test)]
    pub(super) fn let_commits_end(&self, ending: super::health::Ending) {
        *self.shared.ending.lock().unwrap() = ending;
    }
}

/// Refuses to begin a journal where there was one, whose key is made after its first entry, and where one was to be put
/// back.
fn refuse_begun(folder: &Folder) -> Result<(), StoreError> {
    if folder.restored().symlink_metadata().is_ok() {
        return Err(StoreError::HalfRestored(folder.path().to_owned()));
    }
    let Some(key) = key::read(&folder.key())? else { return Ok(()) };
    let name = key.public().name().to_owned();
    Err(StoreError::Gone { folder: folder.path().to_owned(), name })
}

/// Writes the first entry unless there is one, and an entry that names the key of checkpoints unless one
/// does; returns the head, the name of the journal and the key.
fn begin_or_go_on(
    folder: &Folder,
    connection: &Connection,
    settings: &Settings,
) -> Result<(Head, String, SigningKey), StoreError> {
    let Settings { identity, replaces, .. } = settings;
    let path = folder.journal();
    let damaged = |why: &str| StoreError::Damaged { path: path.clone(), why: why.to_owned() };
    let append = |head: Head, draft: Draft| {
        let sealed = chain::seal(head, draft, Stamp::now(), identity, None)?;
        sqlite::begin(connection)?;
        sqlite::commit(connection, &[(&sealed, &[])], 0, &mut Vec::new())?;
        Ok::<_, StoreError>(sealed.head)
    };
    let Some(first) = sqlite::line(connection, 1)? else {
        // A part of the log is there.
        if key::read(&folder.key())?.is_some() {
            return Err(StoreError::Emptied(path));
        }
        refuse_begun(folder)?;
        let random: [u8; 16] = key::random().ok_or_else(|| damaged("there is no randomness"))?;
        let origin = chain::origin(&identity.node, &hex(&random));
        let key = key::new(&origin, &folder.key())?;
        let public = key.public().to_string();
        let replaced = key::replaced(&folder.replaces())?.or_else(|| replaces.clone());
        let first = chain::genesis(&identity.node, random, &public, replaced.as_ref());
        let head = append(Head::START, first)?;
        key::keep(&key, &folder.key())?;
        // It is in the entry now.
        let _ = std::fs::remove_file(folder.replaces());
        return Ok((head, origin, key));
    };
    let origin = chain::origin_of(first.as_bytes());
    let origin = origin.ok_or_else(|| damaged("its first entry does not say what it is"))?;
    // A restored journal has none.
    let key = match key::read(&folder.key())? {
        Some(key) => key,
        None => {
            let key = key::new(&origin, &folder.key())?;
            key::keep(&key, &folder.key())?;
            key
        }
    };
    if key.public().name() != origin {
        let source = NoteError::KeyOfOther;
        return Err(StoreError::Key { path: folder.key(), source });
    }
    let head = sqlite::head(connection, &path)?;
    let public = key.public().to_string();
    let named = sqlite::last_line_of(connection, [GENESIS, KEY_MADE])?;
    if named.is_some_and(|line| chain::key_of(line.as_bytes()).as_ref() == Some(&public)) {
        return Ok((head, origin, key));
    }
    let reason = "checkpoints are signed with this key from now on";
    let mut draft = Draft::new(KEY_MADE, Actor::system(), reason);
    draft.after = json!({ "key": public });
    Ok((append(head, draft)?, origin, key))
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.end();
    }
}
