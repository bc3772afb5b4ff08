//! The rows of keys: one commit, and what each change does.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::{
    super::{error::StoreError, folder::create, sqlite::settings},
    owner,
};
use crate::registry::{Fingerprint, KeptAnswer, KeyEnd, KeyId, KeyRow, RowState, Stored};

/// Marks the file as one of idempotency keys of Tidegate: `TGK1`.
const APPLICATION: i64 = 0x5447_4b31;

/// Most rows that are forgotten in one commit.
const MOST_PURGED: u32 = 5_000;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS idempotency (
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    route TEXT NOT NULL,
    print BLOB NOT NULL CHECK (length(print) = 16),
    owner TEXT NOT NULL,
    state INTEGER NOT NULL,
    until INTEGER NOT NULL,
    answer BLOB
) STRICT;
CREATE INDEX IF NOT EXISTS idempotency_until ON idempotency (until, route);
PRAGMA application_id = 1413958449;
PRAGMA user_version = 1;
";

/// States of a row.
const BEGUN: i64 = 0;
const ANSWERED: i64 = 1;
const UNSURE: i64 = 2;

/// The rows of all keys.
pub(super) struct Rows {
    connection: Connection,
    /// The name of this process.
    own: String,
    /// Keys by table, and where the table has the number.
    counts: HashMap<Arc<str>, (u64, Option<Arc<AtomicU64>>)>,
}

impl Rows {
    /// Opens the database at `path`, which is made unless it is there.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        match create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StoreError::file(path)(error));
            }
            _ => {}
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        settings(&connection)?;
        let found = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        match (found("application_id")?, found("user_version")?) {
            (APPLICATION, 1) => {}
            (0, 0) => connection.execute_batch(&format!("BEGIN IMMEDIATE;{SCHEMA}COMMIT;"))?,
            _ => return Err(StoreError::NotAJournal(path.to_owned())),
        }
        let mut counts = HashMap::new();
        let mut select =
            connection.prepare("SELECT route, count(*) FROM idempotency GROUP BY route")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let (route, count): (String, i64) = (row.get(0)?, row.get(1)?);
            counts.insert(Arc::from(route), (count.unsigned_abs(), None));
        }
        drop(rows);
        drop(select);
        Ok(Self { connection, own: owner::own(), counts })
    }

    /// Begins a commit, when no other process has one.
    pub(super) fn begin(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch("BEGIN IMMEDIATE")
    }

    /// Ends the commit that was begun, and syncs it.
    pub(super) fn commit(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch("COMMIT")?;
        for (count, shown) in self.counts.values() {
            if let Some(shown) = shown {
                shown.store(*count, Relaxed);
            }
        }
        Ok(())
    }

    /// Begins a key, or says what is known of it.
    pub(super) fn insert(&mut self, row: &KeyRow) -> rusqlite::Result<Stored> {
        let KeyRow { id, route, print, until, most, count } = row;
        let place = self.counts.entry(Arc::clone(route)).or_default();
        place.1.get_or_insert_with(|| Arc::clone(count));
        let known = known(&self.connection, *id, &self.own)?;
        let is_replaced = match known {
            Some(stored @ Stored::Known { until, .. }) if until > now() => return Ok(stored),
            Some(_) => true,
            None => false,
        };
        if !is_replaced {
            if place.0 >= u64::from(*most) {
                return Ok(Stored::Full);
            }
            place.0 += 1;
        }
        let mut insert = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO idempotency (id, route, print, owner, state, until) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        insert.execute(params![id.bytes(), &**route, print.bytes(), self.own, BEGUN, until])?;
        Ok(Stored::New)
    }

    /// Notes how a key ended.
    pub(super) fn end(&mut self, id: KeyId, end: &KeyEnd) -> rusqlite::Result<()> {
        match end {
            KeyEnd::Answered(answer) => {
                let mut update = self.connection.prepare_cached(
                    "UPDATE idempotency SET state = ?2, answer = ?3 WHERE id = ?1",
                )?;
                let answer = answer.as_ref().map(|answer| answer.encode());
                update.execute(params![id.bytes(), ANSWERED, answer])?;
            }
            KeyEnd::Unsure => {
                let mut update = self.connection.prepare_cached(
                    "UPDATE idempotency SET state = ?2 WHERE id = ?1 AND state = ?3",
                )?;
                update.execute(params![id.bytes(), UNSURE, BEGUN])?;
            }
            KeyEnd::Freed => {
                let mut delete = self.connection.prepare_cached(
                    "DELETE FROM idempotency WHERE id = ?1 AND state = ?2 AND owner = ?3 RETURNING route",
                )?;
                let values = params![id.bytes(), BEGUN, self.own];
                let route = delete.query_row(values, |row| row.get::<_, String>(0)).optional()?;
                if let Some(route) = route {
                    forget(&mut self.counts, &route);
                }
            }
        }
        Ok(())
    }

    /// Forgets some of the keys whose time has passed.
    pub(super) fn purge(&mut self) -> Result<(), StoreError> {
        let mut delete = self.connection.prepare_cached(
            "DELETE FROM idempotency WHERE rowid IN (SELECT rowid FROM idempotency WHERE until <= ?1 LIMIT ?2) RETURNING route",
        )?;
        let mut gone = delete.query(params![now(), MOST_PURGED])?;
        while let Some(row) = gone.next()? {
            forget(&mut self.counts, &row.get::<_, String>(0)?);
        }
        for (count, shown) in self.counts.values() {
            if let Some(shown) = shown {
                shown.store(*count, Relaxed);
            }
        }
        Ok(())
    }
}

fn forget(counts: &mut HashMap<Arc<str>, (u64, Option<Arc<AtomicU64>>)>, route: &str) {
    if let Some((count, _)) = counts.get_mut(route) {
        // Another process may have begun some since they were counted.
        *count = count.saturating_sub(1);
    }
}

/// What is known of a key. One that a process that runs no more has begun is unsure, and so is one of this
/// process: while it knows that a key is under way, it does not ask.
fn known(connection: &Connection, id: KeyId, own: &str) -> rusqlite::Result<Option<Stored>> {
    let mut select = connection.prepare_cached(
        "SELECT print, owner, state, until, answer FROM idempotency WHERE id = ?1",
    )?;
    let found = select.query_row([id.bytes()], |row| {
        let (print, owner): ([u8; 16], String) = (row.get(0)?, row.get(1)?);
        let (state, until): (i64, i64) = (row.get(2)?, row.get(3)?);
        let answer: Option<Vec<u8>> = row.get(4)?;
        Ok((print, owner, state, until, answer))
    });
    let Some((print, owner, state, until, answer)) = found.optional()? else { return Ok(None) };
    let state = match state {
        ANSWERED => RowState::Answered(answer.and_then(|answer| KeptAnswer::decode(&answer))),
        BEGUN if owner != own && owner::runs(&owner) => RowState::Elsewhere,
        BEGUN => {
            let mut update =
                connection.prepare_cached("UPDATE idempotency SET state = ?2 WHERE id = ?1")?;
            update.execute(params![id.bytes(), UNSURE])?;
            RowState::Unsure
        }
        _ => RowState::Unsure,
    };
    let print = Fingerprint::from_bytes(print);
    let until = u32::try_from(until).unwrap_or(u32::MAX);
    Ok(Some(Stored::Known { print, until, state }))
}

fn now() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    u32::try_from(now).unwrap_or(u32::MAX)
}
