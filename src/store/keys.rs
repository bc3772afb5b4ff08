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
//!
//! When a key is forgotten is counted in a time that nobody sets (`time.rs`). A file that is removed or replaced while it
//! is in use loses no key (`moved.rs`).

mod moved;
mod owner;
mod rows;
mod time;

use std::{
    collections::{HashMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::oneshot;

use self::rows::Rows;
use super::error::StoreError;
use crate::{
    registry::{
        KeyEnd, KeyHealth, KeyId, KeyJob, KeyLog, KeyRow, KeyWatch, ServedTime, Stored, Unstored,
    },
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

/// Pause between two counts of the keys that are unsure.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Pause before a disk that failed is tried again for ends alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is to be written of a key.
#[derive(Debug)]
enum Change {
    Begin(KeyRow, oneshot::Sender<Result<Stored, Unstored>>),
    End(KeyId, KeyEnd),
}

impl Change {
    /// The route of a key that begins, and its window.
    fn window(&self) -> Option<(Arc<str>, u32)> {
        match self {
            Self::Begin(row, _) => Some((Arc::clone(&row.route), row.window)),
            Self::End(..) => None,
        }
    }
}

/// Starts the thread that keeps keys in `folder`. It opens the database with the first key, and ends with the
/// last [`KeyLog`].
pub fn keep_keys(folder: &Path) -> io::Result<KeyLog> {
    let (sender, jobs) = channel();
    let path = folder.join(DATABASE);
    let keeper = Keeper::new(path);
    let log = KeyLog::new(sender, Arc::clone(&keeper.time), Arc::clone(&keeper.health));
    thread::Builder::new().name("idempotency".to_owned()).spawn(move || keeper.run(&jobs))?;
    Ok(log)
}

struct Keeper {
    path: PathBuf,
    /// `None` before the first key, and after an error.
    rows: Option<Rows>,
    /// Those of a file that is no more at its place, until they are in another one.
    former: Option<Rows>,
    /// When that is tried again.
    carry_at: Option<Instant>,
    time: Arc<ServedTime>,
    health: Arc<KeyHealth>,
    /// In their order.
    changes: VecDeque<Change>,
    flushes: Vec<SyncSender<()>>,
    begins: usize,
    /// Since when the first end waits.
    ends_since: Option<Instant>,
    purged: Instant,
    /// Tables that are counted, by name.
    watched: HashMap<Arc<str>, KeyWatch>,
    /// When the unsure keys are counted next; `None`: soon, in the file that is there.
    count_at: Option<Instant>,
    complaint: Seldom,
}

impl Keeper {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            rows: None,
            former: None,
            carry_at: None,
            time: Arc::default(),
            health: Arc::default(),
            changes: VecDeque::new(),
            flushes: Vec::new(),
            begins: 0,
            ends_since: None,
            purged: Instant::now(),
            watched: HashMap::new(),
            count_at: Some(Instant::now()),
            complaint: Seldom::default(),
        }
    }

    fn run(mut self, jobs: &Receiver<KeyJob>) {
        loop {
            let is_used = self.rows.is_some() || self.health.trouble().is_some();
            let patience = match self.ends_since {
                Some(since) => (since + LATEST_END).saturating_duration_since(Instant::now()),
                None if is_used => PURGE_EVERY,
                None => IDLE,
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
            if self.count_at.is_none_or(|at| at <= now) {
                self.count();
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
            KeyJob::Watch(watch) => {
                self.watched.insert(Arc::clone(&watch.route), watch);
                self.count_at = None;
            }
            KeyJob::Look(id, reply) => {
                let looked = self.in_place().and_then(|rows| Ok(rows.look(id)?));
                // Whoever asked may have left.
                let _ = reply.send(looked.map_err(|_| Unstored));
            }
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
        self.in_place()?;
        let Some(rows) = &mut self.rows else { return Ok(Vec::new()) };
        let mut stored = Vec::with_capacity(self.begins);
        rows.begin()?;
        for change in &self.changes {
            match change {
                Change::Begin(row, _) => stored.push(rows.insert(row)?),
                Change::End(id, end) => rows.end(*id, end)?,
            }
        }
        rows.commit()?;
        self.health.works();
        let begun = self.changes.drain(..).filter_map(|change| match change {
            Change::Begin(_, reply) => Some(reply),
            Change::End(..) => None,
        });
        Ok(begun.zip(stored).collect())
    }

    /// The rows of the file at the path.
    fn in_place(&mut self) -> Result<&mut Rows, StoreError> {
        if let Some(moved) = self.rows.take_if(|rows| !rows.is_in_place()) {
            self.former = Some(moved);
        }
        let rows = match self.rows.take() {
            Some(rows) => rows,
            None => self.open()?,
        };
        Ok(self.rows.insert(rows))
    }

    /// Opens the file at the path. The keys of a former one, which it replaces, are written to it.
    fn open(&mut self) -> Result<Rows, StoreError> {
        let watched = self.watched.values().map(|watch| (Arc::clone(&watch.route), watch.window));
        let windows = self.changes.iter().filter_map(Change::window);
        let windows: Vec<_> = windows.chain(watched).collect();
        let open = || Rows::open(&self.path, Arc::clone(&self.time), &windows);
        let Some(former) = &self.former else { return open() };
        if former.is_in_place() {
            let rows = open()?;
            self.former = None;
            return Ok(rows);
        }
        if let Some(left) = self.carry_at.and_then(|at| at.checked_duration_since(Instant::now())) {
            let left = left.as_secs() + 1;
            let why = format!("the file was removed or replaced; it is tried again in {left} s");
            return Err(StoreError::Refused(why));
        }
        self.carry_at = Some(Instant::now() + RETRY_AFTER);
        former.step_aside();
        let before = former.left()?;
        let mut rows = open()?;
        let now = self.time.now_ms();
        let by_ms = i128::from(now) - i128::from(before.unwrap_or(now));
        // Rounded up: no key is forgotten early.
        let by_s = i64::try_from(by_ms.div_euclid(1000) + 1).unwrap_or(0);
        let keys = rows.carry_over(former, by_s)?;
        let path = self.path.display();
        tracing::error!(keys, %path, "the file of idempotency keys was removed or replaced while it was in use; its keys are in the one there now");
        self.health.note_carried_over();
        (self.former, self.carry_at) = (None, None);
        Ok(rows)
    }

    /// Nothing was written: requests are refused, and ends wait for a disk that accepts them.
    fn failed(&mut self, why: &StoreError) {
        // The file is opened again, and may be another one then.
        if let Some(rows) = self.rows.take() {
            rows.roll_back();
            self.former = Some(rows);
        }
        if let Some(suppressed) = self.complaint.due(Instant::now()) {
            let path = self.path.display();
            tracing::error!(%why, %path, suppressed, "idempotency keys cannot be written, so their requests are refused");
        }
        self.health.failed(why.to_string(), SystemTime::now());
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

    /// Counts the keys that are unsure, also those of processes that were killed. A file that is not there is not made for
    /// that.
    fn count(&mut self) {
        self.count_at = Some(Instant::now() + COUNT_EVERY);
        if self.watched.is_empty() || self.rows.is_none() && !self.path.exists() {
            return;
        }
        let counted = self.in_place().and_then(|rows| Ok(rows.unsure()?));
        match (counted, &mut self.rows) {
            (Ok(unsure), Some(rows)) => {
                for (route, watch) in &self.watched {
                    rows.count_at(route, &watch.count);
                    watch.unsure.store(unsure.get(route).copied().unwrap_or(0), Relaxed);
                }
            }
            (Err(why), _) => self.failed(&why),
            (Ok(_), None) => {}
        }
    }

    /// Forgets keys whose time has passed. After a failure it finds out whether the disk accepts keys again.
    fn purge(&mut self) {
        let was_failing = self.health.trouble().is_some();
        if self.rows.is_none() && !was_failing {
            return;
        }
        let purged = self.in_place().and_then(|rows| match was_failing {
            true => rows.try_disk().and_then(|()| rows.purge()),
            false => rows.purge(),
        });
        match purged {
            Ok(()) if was_failing => self.health.works(),
            Ok(()) => {}
            Err(why) => self.failed(&why),
        }
    }
}

/// A request that waits for its key, and what was stored.
type Reply = (oneshot::Sender<Result<Stored, Unstored>>, Stored);

#[cfg(test)]
mod tests;
