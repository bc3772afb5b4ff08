//! Idempotency keys on disk: a database beside the journal's, written by a thread of its own.
//!
//! A request is sent only after the row of its key was synced, so this is on the path of requests. All keys that
//! arrive while one commit is being synced are written by the next one, so concurrent requests share a sync. How
//! keys ended is written with the next commit, or after [`LATEST_END`]: if that is lost, the key is unsure, which
//! is true.
//!
//! Unlike the journal, the database is shared by the processes of a takeover. Its primary key decides which of
//! them begins a key. A row that was begun by a process that runs no more, or by an earlier one with this
//! process's number, is unsure.

mod owner;
mod rows;

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use self::rows::Rows;
use super::error::StoreError;
use crate::{
    registry::{KeyEnd, KeyId, KeyJob, KeyLog, KeyRow, Stored, Unstored},
    telemetry::seldom::Seldom,
};

/// Name of the database in the folder of `state`.
const DATABASE: &str = "idempotency.db";

/// Most jobs of a commit.
const MOST_JOBS: usize = 4096;

/// How long the end of a key may wait for a commit.
const LATEST_END: Duration = Duration::from_millis(20);

/// Pause between two looks for keys whose time has passed.
const PURGE_EVERY: Duration = Duration::from_secs(1);

/// Longest sleep before the first key.
const IDLE: Duration = Duration::from_secs(3600);

/// Most ends that wait for a disk that does not accept them; of older ones the key is unsure.
const MOST_ENDS: usize = 10_000;

/// Pause before a disk that failed is tried again for ends alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is to be written of a key.
#[derive(Debug)]
enum Change {
    Begin(KeyRow, oneshot::Sender<Result<Stored, Unstored>>),
    End(KeyId, KeyEnd),
}

/// Starts the thread that keeps keys in `folder`. It opens the database with the first key, and ends with the
/// last [`KeyLog`].
pub fn keep_keys(folder: &Path) -> io::Result<KeyLog> {
    let (sender, jobs) = channel();
    let path = folder.join(DATABASE);
    thread::Builder::new()
        .name("idempotency".to_owned())
        .spawn(move || Keeper::new(path).run(&jobs))?;
    Ok(KeyLog::new(sender))
}

struct Keeper {
    path: PathBuf,
    /// `None` before the first key, and after an error.
    rows: Option<Rows>,
    /// In their order.
    changes: VecDeque<Change>,
    flushes: Vec<SyncSender<()>>,
    begins: usize,
    /// Since when the first end waits.
    ends_since: Option<Instant>,
    purged: Instant,
    complaint: Seldom,
}

impl Keeper {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            rows: None,
            changes: VecDeque::new(),
            flushes: Vec::new(),
            begins: 0,
            ends_since: None,
            purged: Instant::now(),
            complaint: Seldom::default(),
        }
    }

    fn run(mut self, jobs: &Receiver<KeyJob>) {
        loop {
            let patience = match (self.ends_since, &self.rows) {
                (Some(since), _) => (since + LATEST_END).saturating_duration_since(Instant::now()),
                (None, Some(_)) => PURGE_EVERY,
                (None, None) => IDLE,
            };
            let first = match jobs.recv_timeout(patience) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.write(),
            };
            first.into_iter().chain(jobs.try_iter()).take(MOST_JOBS).for_each(|job| self.take(job));
            let now = Instant::now();
            let is_due = self.ends_since.is_some_and(|since| since + LATEST_END <= now);
            if self.begins > 0 || !self.flushes.is_empty() || is_due {
                self.write();
            }
            if self.purged.elapsed() >= PURGE_EVERY {
                self.purged = Instant::now();
                self.purge();
            }
        }
    }

    fn take(&mut self, job: KeyJob) {
        match job {
            KeyJob::Begin(row, reply) => {
                self.begins += 1;
                self.changes.push_back(Change::Begin(row, reply));
            }
            KeyJob::End(id, end) => {
                self.ends_since.get_or_insert_with(Instant::now);
                self.changes.push_back(Change::End(id, end));
            }
            KeyJob::Flush(reply) => self.flushes.push(reply),
        }
    }

    /// Writes all changes in one commit.
    fn write(&mut self) {
        let written = self.try_write();
        match written {
            Ok(replies) => {
                self.changes.clear();
                self.ends_since = None;
                for (reply, stored) in replies {
                    // The request may have been given up.
                    let _ = reply.send(Ok(stored));
                }
            }
            Err(why) => self.failed(&why),
        }
        self.begins = 0;
        for reply in self.flushes.drain(..) {
            let _ = reply.send(());
        }
    }

    fn try_write(&mut self) -> Result<Vec<Reply>, StoreError> {
        if self.changes.is_empty() {
            return Ok(Vec::new());
        }
        let rows = match &mut self.rows {
            Some(rows) => rows,
            closed => closed.insert(Rows::open(&self.path)?),
        };
        let mut stored = Vec::with_capacity(self.begins);
        rows.begin()?;
        for change in &self.changes {
            match change {
                Change::Begin(row, _) => stored.push(rows.insert(row)?),
                Change::End(id, end) => rows.end(*id, end)?,
            }
        }
        rows.commit()?;
        let begun = self.changes.drain(..).filter_map(|change| match change {
            Change::Begin(_, reply) => Some(reply),
            Change::End(..) => None,
        });
        Ok(begun.zip(stored).collect())
    }

    /// Nothing was written: requests are refused, and ends wait for a disk that accepts them.
    fn failed(&mut self, why: &StoreError) {
        // What was begun is rolled back with the connection.
        self.rows = None;
        if let Some(suppressed) = self.complaint.due(Instant::now()) {
            let path = self.path.display();
            tracing::error!(%why, %path, suppressed, "idempotency keys cannot be written, so their requests are refused");
        }
        let changes = std::mem::take(&mut self.changes);
        for change in changes {
            match change {
                Change::Begin(_, reply) => drop(reply.send(Err(Unstored))),
                end @ Change::End(..) => self.changes.push_back(end),
            }
        }
        let surplus = self.changes.len().saturating_sub(MOST_ENDS);
        self.changes.drain(..surplus);
        self.ends_since = (!self.changes.is_empty()).then(|| Instant::now() + RETRY_AFTER);
    }

    /// Forgets keys whose time has passed.
    fn purge(&mut self) {
        let Some(rows) = &mut self.rows else { return };
        if let Err(why) = rows.purge() {
            self.failed(&why);
        }
    }
}

/// A request that waits for its key, and what was stored.
type Reply = (oneshot::Sender<Result<Stored, Unstored>>, Stored);

#[cfg(test)]
mod tests;
