//! The thread that writes: it takes all changes that wait, writes them in one commit, and then answers all.
//!
//! Late changes come first, in their order, so the state beside the entries is never older than what is in
//! force. After a failed commit the connection is opened anew, since a page that the kernel failed to write
//! counts as written afterwards; whether the last commit is there is found out by its number and hash. As long
//! as that cannot be found out, nothing is written. If the commit turns out to be there although its changes
//! were answered as not made, an entry `annulled` names them, and the state is what it was.

mod harm;
mod pins;
mod recovery;

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use self::recovery::Doubt;
#[cfg(test)]
use super::health::Ending;
use super::{
    ballast::Ballast,
    chain::{self, Head, Sealed},
    entry::{Draft, Identity, Stamp, StateChange},
    error::StoreError,
    files::Files,
    folder::{Folder, Lock},
    health::{MOST_WAITING, Shared},
    late::Late,
    note::{Checkpoint, SigningKey},
    pins::PinJob,
    sqlite,
};

/// The pauses between attempts while the disk fails: each is twice the one before.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How often the files are looked at while there is nothing to write.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Why there is no space although there is some.
const FOR_EJECTIONS: &str = "what is left of it is kept for ejections";

/// A command for the writer.
#[derive(Debug)]
pub(super) enum Command {
    Write(Box<Job>),
    Checkpoint(oneshot::Sender<Result<String, StoreError>>),
    Pins(Box<PinJob>),
    /// There are late changes.
    Wake,
    Close,
}

/// A change whose caller waits.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) draft: Draft,
    pub(super) state: Vec<StateChange>,
    pub(super) stamp: Stamp,
    pub(super) answer: oneshot::Sender<Result<Head, StoreError>>,
    pub(super) permit: OwnedSemaphorePermit,
}

/// What the writer owns.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) folder: Folder,
    pub(super) identity: Identity,
    pub(super) key: SigningKey,
    pub(super) origin: String,
    pub(super) connection: Option<Connection>,
    /// The files that it writes, as they were after the last time.
    pub(super) files: Files,
    /// Whether somebody else has written to them, and nobody has looked for damage since.
    pub(super) is_suspect: bool,
    pub(super) head: Head,
    pub(super) ballast: Ballast,
    pub(super) shared: Arc<Shared>,
    pub(super) commands: Receiver<Command>,
    /// The last commit, while it is not known whether it was made.
    pub(super) doubt: Option<Doubt>,
    pub(super) pause: Duration,
    /// Given up last.
    pub(super) lock: Lock,
}

/// What is done at once.
#[derive(Default)]
struct Work {
    jobs: Vec<Job>,
    notes: Vec<oneshot::Sender<Result<String, StoreError>>>,
    pins: Vec<PinJob>,
    is_last: bool,
}

/// A change with its line, whose caller waits.
type Waiting = (oneshot::Sender<Result<Head, StoreError>>, OwnedSemaphorePermit);

/// Changes to be written in one commit: late ones, then those whose callers wait.
#[derive(Default)]
struct Batch {
    sealed: Vec<Sealed>,
    state: Vec<Vec<StateChange>>,
    late: usize,
    /// The version that each late one is about, if it is about one.
    versions: Vec<Option<String>>,
    waiting: Vec<Waiting>,
}

impl Writer {
    /// Writes until the command to close.
    pub(super) fn run(mut self) {
        let _ended = Ended(self.shared.clone());
        loop {
            let Work { jobs, notes, pins, is_last } = self.work();
            self.write(jobs);
            pins.into_iter().for_each(|job| self.keep_pins(job));
            for answer in notes {
                // Whoever asked may have gone.
                let _ = answer.send(self.checkpoint());
            }
            if is_last {
                return self.close();
            }
            self.set_pause();
        }
    }

    /// Waits for something to do, and takes all that is there.
    fn work(&self) -> Work {
        let mut work = Work::default();
        let mut next = self.wait();
        while let Some(command) = next {
            match command {
                Command::Write(job) => work.jobs.push(*job),
                Command::Checkpoint(answer) => work.notes.push(answer),
                Command::Pins(job) => work.pins.push(*job),
                Command::Wake => {}
                Command::Close => work.is_last = true,
            }
            let has_room = work.jobs.len() < MOST_WAITING;
            next = has_room.then(|| self.commands.try_recv().ok()).flatten();
        }
        work
    }

    /// The next command; `None` if it is time for another attempt, or to look at the files.
    fn wait(&self) -> Option<Command> {
        let has_more = self.shared.late().len() > 0;
        let is_failing = self.shared.is_failing() || !self.ballast.is_there();
        if has_more && !is_failing {
            return self.commands.try_recv().ok();
        }
        let pause = if is_failing { self.pause } else { LOOK_EVERY };
        match self.commands.recv_timeout(pause) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Command::Close),
        }
    }

    fn set_pause(&mut self) {
        let is_failing = self.shared.is_failing() || !self.ballast.is_there();
        let longer = self.pause.saturating_mul(2).clamp(PAUSE.0, PAUSE.1);
        self.pause = if is_failing { longer } else { PAUSE.0 };
        self.shared.set_reserve(self.ballast.is_there());
    }

    /// Writes late changes, then `jobs`, as far as the disk accepts them; answers all jobs.
    fn write(&mut self, jobs: Vec<Job>) {
        // A new connection needs some space, too.
        let opened = self.open().or_else(|error| self.make_space(error)?.open());
        if let Err(error) = opened {
            return self.refuse(jobs, &error);
        }
        if !self.ballast.is_there()
            && let Err(error) = self.write_late()
        {
            return self.refuse(jobs, &error);
        }
        if let Err(error) = self.ballast.make() {
            let error = StoreError::file(self.folder.ballast())(error);
            self.shared.fails(error.to_string());
            let is_full = error.is_full();
            let error = if is_full { StoreError::Full(FOR_EJECTIONS.to_owned()) } else { error };
            return self.refuse(jobs, &error);
        }
        let late = self.shared.late().take(MOST_WAITING);
        if late.is_empty() && jobs.is_empty() {
            match self.shared.is_failing() {
                true => self.probe(),
                // What it finds it reports.
                false => drop(self.look(false)),
            }
            return;
        }
        if let Err(error) = self.begin() {
            self.shared.late().put_back();
            self.refuse(jobs, &error);
            let _ = self.make_space(error).and_then(Self::write_late);
            return;
        }
        let batch = self.seal(late, jobs);
        if let Some(error) = self.commit(batch) {
            // What is left waits for the next attempt.
            let _ = self.make_space(error).and_then(Self::write_late);
        }
    }

    /// Gives up the reserve after `error`, if there is one and late changes need it; returns `error` if not.
    /// A disk that is full fails in more ways than one.
    fn make_space(&mut self, error: StoreError) -> Result<&mut Self, StoreError> {
        let is_needed = self.ballast.is_there() && self.shared.late().len() > 0;
        if is_needed && self.ballast.drop_it() { Ok(self) } else { Err(error) }
    }

    /// Writes all late changes.
    fn write_late(&mut self) -> Result<(), StoreError> {
        loop {
            self.open()?;
            let late = self.shared.late().take(MOST_WAITING);
            if late.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.begin() {
                self.shared.late().put_back();
                return Err(error);
            }
            let batch = self.seal(late, Vec::new());
            if let Some(error) = self.commit(batch) {
                return Err(error);
            }
        }
    }

    /// Finds out whether the disk takes something again.
    fn probe(&mut self) {
        let looked = self.look(false).and_then(|()| self.open());
        let (Ok(()), Some(connection)) = (looked, &self.connection) else { return };
        match sqlite::probe(connection) {
            Ok(()) if self.look(true).is_ok() => self.shared.works(),
            Ok(()) => {}
            Err(error) => {
                self.connection = None;
                self.shared.fails(error.to_string());
            }
        }
    }

    fn seal(&self, late: Vec<Late>, jobs: Vec<Job>) -> Batch {
        let mut batch = Batch { late: late.len(), ..Batch::default() };
        let (mut head, now) = (self.head, Stamp::now());
        for late in late {
            let late_ms = Some(now.mono_ms.saturating_sub(late.stamp.mono_ms));
            let seal = |draft| chain::seal(head, draft, late.stamp, &self.identity, late_ms);
            let version = late.draft.after["version"].as_str();
            batch.versions.push(version.map(str::to_owned));
            let sealed = seal(late.said()).or_else(|_| seal(late.shortened()));
            // What is short has no deep values, either.
            let sealed = sealed.expect("a shortened entry fits");
            head = sealed.head;
            batch.sealed.push(sealed);
            batch.state.push(late.state);
        }
        for Job { draft, state, stamp, answer, permit } in jobs {
            match chain::seal(head, draft, stamp, &self.identity, None) {
                Ok(sealed) => {
                    head = sealed.head;
                    batch.sealed.push(sealed);
                    batch.state.push(state);
                    batch.waiting.push((answer, permit));
                }
                Err(unfit) => send(answer, Err(unfit.into())),
            }
        }
        batch
    }

    /// Writes `batch`, whose commit is begun, and answers; returns why it could not be written, if so.
    fn commit(&mut self, batch: Batch) -> Option<StoreError> {
        let (Some(first), Some(last)) = (batch.sealed.first(), batch.sealed.last()) else {
            let begun = self.connection.as_ref().map(sqlite::roll_back);
            if !matches!(begun, Some(Ok(()))) {
                self.connection = None;
            }
            return None;
        };
        let (first, last) = (first.head, last.head);
        let mut undo = Vec::new();
        let written = self.connection.as_ref().map(|connection| {
            #[cfg(test)]
            sqlite::limit(connection, &self.shared.max_pages);
            #[cfg(test)]
            if self.shared.ending() == Ending::Gone {
                return Err(rusqlite::Error::InvalidQuery);
            }
            let state = batch.state.iter().map(Vec::as_slice);
            let parts: Vec<sqlite::Part<'_>> = batch.sealed.iter().zip(state).collect();
            sqlite::commit(connection, &parts, batch.late, &mut undo)
        });
        #[cfg(test)]
        let written = match self.shared.ending() {
            Ending::SeemsFailed | Ending::Unknown => Some(Err(rusqlite::Error::InvalidQuery)),
            Ending::Real | Ending::Gone => written,
        };
        let written = match written {
            Some(Ok(())) => self.look(true),
            Some(Err(error)) => Err(error.into()),
            None => Err(StoreError::Closed),
        };
        let Err(error) = written else {
            self.made(batch);
            return None;
        };
        self.shared.fails(error.to_string());
        let answer = match self.is_made(last) {
            Ok(true) => {
                self.made(batch);
                return None;
            }
            Ok(false) => {
                self.shared.late().put_back();
                again(&error)
            }
            Err(unknown) => {
                let why = format!("{error}; then {unknown}");
                self.shared.fails(why.clone());
                self.doubt = Some(Doubt { first, last, late: batch.late, undo });
                StoreError::Unknown(why)
            }
        };
        for (waiting, _) in batch.waiting {
            send(waiting, Err(again(&answer)));
        }
        Some(error)
    }

    /// Records that `batch` is on the disk, and answers.
    fn made(&mut self, batch: Batch) {
        let Batch { sealed, late, versions, waiting, .. } = batch;
        sealed
            .iter()
            .zip(&versions)
            .for_each(|(sealed, version)| log_late(sealed, version.as_deref()));
        self.head = sealed.last().map_or(self.head, |last| last.head);
        self.shared.late().done(late);
        self.shared.reached(self.head);
        if self.ballast.is_there() {
            self.shared.works();
        }
        for ((answer, permit), sealed) in waiting.into_iter().zip(&sealed[late..]) {
            drop(permit);
            send(answer, Ok(sealed.head));
        }
    }

    fn refuse(&self, jobs: Vec<Job>, error: &StoreError) {
        self.shared.fails(error.to_string());
        for job in jobs {
            send(job.answer, Err(again(error)));
        }
    }

    fn checkpoint(&mut self) -> Result<String, StoreError> {
        if !self.ballast.is_there() {
            return Err(StoreError::Full(FOR_EJECTIONS.to_owned()));
        }
        self.begin()?;
        let Some(connection) = &self.connection else { return Err(StoreError::Closed) };
        let at = Stamp::now().at;
        let note = self.key.sign(&Checkpoint { origin: self.origin.clone(), head: self.head, at });
        match sqlite::keep_note(connection, self.head.seq, &note) {
            Ok(()) => self.look(true).map(|()| note),
            Err(error) => {
                self.connection = None;
                self.shared.fails(error.to_string());
                Err(error.into())
            }
        }
    }

    /// Writes what is left, moves the log into the database and gives up the lock.
    fn close(mut self) {
        if let Err(error) = self.write_late() {
            let left = self.shared.late().len();
            tracing::error!(left, %error, "changes in force could not be written to the journal");
        }
        if let Some(connection) = self.connection.take() {
            // Else the next start does it.
            let _ = connection.close();
        }
        drop(self.lock);
    }
}

/// Names the entry of a change that was told before it was written.
fn log_late(sealed: &Sealed, version: Option<&str>) {
    let Sealed { head, kind, service, .. } = sealed;
    tracing::info!(
        kind,
        service,
        version,
        journal.seq = head.seq,
        journal.hash = %head.hash,
        "a change in force is in the journal"
    );
}

/// Answers whoever waits, who may have gone.
fn send(answer: oneshot::Sender<Result<Head, StoreError>>, result: Result<Head, StoreError>) {
    let _ = answer.send(result);
}

/// The same error for one more caller.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full(why) => StoreError::Full(why.clone()),
        StoreError::Unknown(why) => StoreError::Unknown(why.clone()),
        error if error.is_full() => StoreError::Full(error.to_string()),
        error => StoreError::Refused(error.to_string()),
    }
}

/// Tells when the thread ends by a panic.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fails("the thread that writes the journal has panicked".to_owned());
        }
    }
}
