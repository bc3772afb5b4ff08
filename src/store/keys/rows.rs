//! The rows of keys: one commit, and what each change does.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::{
    super::{
        error::StoreError,
        folder::{FileId, create},
        sqlite::settings,
    },
    owner,
    time::{Here, Left, boot, first},
};
use crate::policy::idempotency::Spelling;
use crate::registry::{
    KeptAnswer, KeyEnd, KeyId, KeyRow, KnownHash, KnownPrint, RowState, ServedTime, Stored, up_ms,
};

/// Marks the file as one of idempotency keys of Tidegate: `TGK1`.
const APPLICATION: i64 = 0x5447_4b31;

/// Most rows that are forgotten in one commit.
const MOST_PURGED: u32 = 5_000;

/// How often, in milliseconds, a commit says where the time was left, and how often a commit is made for that.
const LEFT_EVERY: u64 = 1_000;
const LEFT_AT_LEAST_EVERY: u64 = 60_000;

/// Each leads from one schema to the next; their number is the schema that this program writes.
const MIGRATIONS: [&str; 2] = [
    "
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
",
    // Neither step reads the rows, of which there may be millions. A process of the release before goes on to write beside
    // this one at a takeover: what it writes has the old form.
    "
ALTER TABLE idempotency ADD COLUMN form INTEGER NOT NULL DEFAULT 1;
ALTER TABLE idempotency ADD COLUMN quoted INTEGER;
CREATE TABLE served (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    ms INTEGER NOT NULL,
    boot TEXT NOT NULL,
    up_ms INTEGER NOT NULL
) STRICT;
PRAGMA user_version = 2;
",
];

/// The keys that are not answered: under way, or unsure.
const OPEN_KEYS: &str = "CREATE INDEX IF NOT EXISTS idempotency_open ON idempotency (route, state, owner) WHERE state <> 1";

/// Forms of a print: without the host, and with it.
const BARE: i64 = 1;
const WHOLE: i64 = 2;

/// States of a row.
const BEGUN: i64 = 0;
const ANSWERED: i64 = 1;
const UNSURE: i64 = 2;

/// Keys by table, and where the table has the number.
type Counts = HashMap<Arc<str>, (u64, Option<Arc<AtomicU64>>)>;

/// The rows of all keys.
pub(super) struct Rows {
    pub(super) connection: Connection,
    path: PathBuf,
    /// The file that was opened.
    file: Option<FileId>,
    /// The log of SQLite beside it, and its index, once there are.
    beside: Option<[Option<FileId>; 2]>,
    /// The name of this process.
    own: String,
    /// The boot of the machine.
    boot: String,
    pub(super) time: Arc<ServedTime>,
    /// For how long the machine had run when the time was left there last.
    left_up_ms: u64,
    pub(super) counts: Counts,
    /// By table the second in which a key is forgotten first, and when that was found out.
    next: HashMap<Arc<str>, (u32, u32)>,
}

impl Rows {
    /// Opens the database at `path`, which is made unless it is there, and sets `time` to its time. `windows` has routes
    /// with their windows.
    pub(super) fn open(
        path: &Path,
        time: Arc<ServedTime>,
        windows: &[(Arc<str>, u32)],
    ) -> Result<Self, StoreError> {
        match create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StoreError::file(path)(error));
            }
            _ => {}
        }
        let file = FileId::of(path);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        let found = schema(&connection, path)?;
        settings(&connection)?;
        if found < MIGRATIONS.len() {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            // Another process may have been faster.
            for step in &MIGRATIONS[schema(&connection, path)?..] {
                connection.execute_batch(step)?;
            }
            connection.execute_batch("COMMIT")?;
        }
        // Few rows are in it. An earlier release keeps it up as well, since SQLite does.
        connection.execute_batch(OPEN_KEYS)?;
        let counts = counted(&connection)?;
        let (own, boot) = (owner::own(), boot());
        let (path, beside, left_up_ms, next) = (path.to_owned(), None, 0, HashMap::new());
        let rows =
            Self { connection, path, file, beside, own, boot, time, left_up_ms, counts, next };
        let now = match rows.left()? {
            Some(now) => now,
            None => first(wall_ms(), rows.newest(windows)?.into_iter()),
        };
        rows.time.set(now);
        Ok(rows)
    }

    /// Gives up the commit that was begun, if there is one.
    pub(super) fn roll_back(&self) {
        // If even that fails, it is rolled back with the connection.
        let _ = self.connection.execute_batch("ROLLBACK");
    }

    /// Whether the file at the path is the one that was opened, as far as that can be seen.
    pub(super) fn is_in_place(&self) -> bool {
        use io::ErrorKind::{NotADirectory, NotFound};
        match std::fs::metadata(&self.path) {
            Ok(_) => self.file.is_some() && FileId::of(&self.path) == self.file,
            Err(error) => !matches!(error.kind(), NotFound | NotADirectory),
        }
    }

    /// Takes what SQLite wrote beside the file from its place, so that another file there is not read with it. All of it is
    /// in the file then, as far as it can be.
    pub(super) fn step_aside(&self) {
        let moved = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(why) = moved {
            tracing::warn!(%why, "not all idempotency keys are in the file that was moved away");
        }
        for (path, known) in beside(&self.path).iter().zip(self.beside.unwrap_or_default()) {
            if known.is_some() && FileId::of(path) == known {
                // If it cannot be removed, the next file cannot be opened, either.
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// Counts the keys of all tables again, and shows them where `shown` showed them.
    pub(super) fn count_as(&mut self, shown: &Counts) -> Result<(), StoreError> {
        self.counts = counted(&self.connection)?;
        for (route, (_, shown)) in shown {
            self.counts.entry(Arc::clone(route)).or_default().1.clone_from(shown);
        }
        self.show();
        Ok(())
    }

    /// Begins a commit, when no other process has one. The time is that of all processes.
    pub(super) fn begin(&mut self) -> Result<(), StoreError> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        if let Some(now) = self.left()? {
            self.time.reach(now);
        }
        Ok(())
    }

    /// Ends the commit that was begun, and syncs it.
    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        if up_ms().saturating_sub(self.left_up_ms) >= LEFT_EVERY {
            self.leave()?;
        }
        self.connection.execute_batch("COMMIT")?;
        if self.beside.is_none() {
            self.beside = Some(beside(&self.path).map(|path| FileId::of(&path)));
        }
        self.show();
        Ok(())
    }

    /// Makes a commit that changes nothing else.
    pub(super) fn try_disk(&mut self) -> Result<(), StoreError> {
        self.begin()?;
        self.leave()?;
        self.commit()
    }

    fn show(&self) {
        for (count, shown) in self.counts.values() {
            if let Some(shown) = shown {
                shown.store(*count, Relaxed);
            }
        }
    }

    /// The time, by where it was left; `None` before the first commit.
    pub(super) fn left(&self) -> Result<Option<u64>, StoreError> {
        let mut select =
            self.connection.prepare_cached("SELECT ms, boot, up_ms FROM served WHERE one = 1")?;
        let left = select.query_row([], |row| {
            let (ms, up_ms): (i64, i64) = (row.get(0)?, row.get(2)?);
            Ok(Left { ms: ms.unsigned_abs(), boot: row.get(1)?, up_ms: up_ms.unsigned_abs() })
        });
        let Some(left) = left.optional()? else { return Ok(None) };
        match left.reached(Here::now(&self.boot)) {
            Some(now) => Ok(Some(now)),
            None => Err(StoreError::Damaged {
                path: self.path.clone(),
                why: format!("its time is {} ms", left.ms),
            }),
        }
    }

    /// Writes where the time is left.
    fn leave(&mut self) -> rusqlite::Result<()> {
        let (up, now) = (up_ms(), self.time.now_ms());
        let number = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let mut insert = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO served (one, ms, boot, up_ms) VALUES (1, ?1, ?2, ?3)",
        )?;
        insert.execute(params![number(now), self.boot, number(up)])?;
        drop(insert);
        self.left_up_ms = up;
        Ok(())
    }

    /// The latest second at which a key of each of these routes is forgotten, with the route's window.
    fn newest(&self, windows: &[(Arc<str>, u32)]) -> rusqlite::Result<Vec<(u32, u32)>> {
        let mut select = self.connection.prepare(
            "SELECT until FROM idempotency WHERE route = ?1 ORDER BY until DESC LIMIT 1",
        )?;
        let mut newest = Vec::new();
        for (route, window) in windows {
            let until = select.query_row([&**route], |row| row.get::<_, i64>(0)).optional()?;
            newest.extend(until.map(|until| (u32::try_from(until).unwrap_or(u32::MAX), *window)));
        }
        Ok(newest)
    }

    /// Begins a key, or says what is known of it.
    pub(super) fn insert(&mut self, row: &KeyRow) -> rusqlite::Result<Stored> {
        let KeyRow { id, route, print, window, most, count } = row;
        let place = self.counts.entry(Arc::clone(route)).or_default();
        place.1.get_or_insert_with(|| Arc::clone(count));
        let known = known(&self.connection, *id, &self.own)?;
        let is_replaced = match known {
            Some(stored @ Stored::Known { until, .. }) if until > self.time.now() => {
                return Ok(stored);
            }
            Some(_) => true,
            None => false,
        };
        if !is_replaced {
            if place.0 >= u64::from(*most) {
                return Ok(Stored::Full { next: self.next_forgotten(route)? });
            }
            place.0 += 1;
        }
        let until = self.time.end_of(*window);
        let print = print.known();
        let (form, hash) = written(&print);
        let quoted = print.spelling.map(|spelling| spelling == Spelling::Quoted);
        let mut insert = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO idempotency (id, route, print, owner, state, until, form, quoted)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        let values = params![id.bytes(), &**route, hash, self.own, BEGUN, until, form, quoted];
        insert.execute(values)?;
        Ok(Stored::New { until })
    }

    /// Seconds until the first key of the table of `route` is forgotten. The index has the keys of all tables in their order,
    /// so it is asked once a second.
    fn next_forgotten(&mut self, route: &Arc<str>) -> rusqlite::Result<u32> {
        let now = self.time.now();
        if let Some((until, _)) = self.next.get(route).filter(|(_, asked)| *asked == now) {
            return Ok(until.saturating_sub(now));
        }
        let mut select = self.connection.prepare_cached(
            "SELECT until FROM idempotency WHERE route = ?1 ORDER BY until LIMIT 1",
        )?;
        let until = select.query_row([&**route], |row| row.get::<_, i64>(0)).optional()?;
        let until = until.map_or(now, |until| u32::try_from(until).unwrap_or(u32::MAX));
        self.next.insert(Arc::clone(route), (until, now));
        Ok(until.saturating_sub(now))
    }

    /// What is known of the key `id`, if it is.
    pub(super) fn look(&self, id: KeyId) -> rusqlite::Result<Option<Stored>> {
        let known = known(&self.connection, id, &self.own)?;
        let is_kept = |stored: &Stored| matches!(stored, Stored::Known { until, .. } if *until > self.time.now());
        Ok(known.filter(is_kept))
    }

    /// Keys of each table that are unsure, also those that a process has begun that runs no more.
    pub(super) fn unsure(&self) -> rusqlite::Result<HashMap<Arc<str>, u64>> {
        let mut select = self.connection.prepare_cached(
            "SELECT route, state, owner, count(*) FROM idempotency INDEXED BY idempotency_open
             WHERE state <> 1 GROUP BY route, state, owner",
        )?;
        let mut found = select.query([])?;
        let mut unsure = HashMap::new();
        while let Some(row) = found.next()? {
            let (route, state): (String, i64) = (row.get(0)?, row.get(1)?);
            let (owner, count): (String, i64) = (row.get(2)?, row.get(3)?);
            if state == UNSURE || owner != self.own && !owner::runs(&owner) {
                *unsure.entry(Arc::from(route)).or_default() += count.unsigned_abs();
            }
        }
        Ok(unsure)
    }

    /// Shows the number of keys of the table of `route` there from now on.
    pub(super) fn count_at(&mut self, route: &Arc<str>, shown: &Arc<AtomicU64>) {
        let (count, place) = self.counts.entry(Arc::clone(route)).or_default();
        shown.store(*count, Relaxed);
        *place = Some(Arc::clone(shown));
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
        let mut gone = delete.query(params![self.time.now(), MOST_PURGED])?;
        while let Some(row) = gone.next()? {
            forget(&mut self.counts, &row.get::<_, String>(0)?);
        }
        drop(gone);
        drop(delete);
        self.show();
        if up_ms().saturating_sub(self.left_up_ms) >= LEFT_AT_LEAST_EVERY {
            self.leave()?;
        }
        Ok(())
    }
}

/// The schema of the database, 0 of an empty one; another one than this program's or an earlier one is refused.
fn schema(connection: &Connection, path: &Path) -> Result<usize, StoreError> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let read = number("application_id").and_then(|id| Ok((id, number("user_version")?)));
    let known = MIGRATIONS.len();
    match read {
        Ok((0, 0)) => Ok(0),
        Ok((APPLICATION, found @ 1..)) => match usize::try_from(found) {
            Ok(schema) if schema <= known => Ok(schema),
            _ => Err(StoreError::NewerSchema { path: path.to_owned(), found, known: known as i64 }),
        },
        Err(error) if error.sqlite_error_code() != Some(rusqlite::ErrorCode::NotADatabase) => {
            Err(error.into())
        }
        _ => Err(StoreError::NotAJournal(path.to_owned())),
    }
}

/// The keys of each table.
fn counted(connection: &Connection) -> rusqlite::Result<Counts> {
    let mut select =
        connection.prepare("SELECT route, count(*) FROM idempotency GROUP BY route")?;
    let counts = select.query_map([], |row| {
        let (route, count): (String, i64) = (row.get(0)?, row.get(1)?);
        Ok((Arc::from(route), (count.unsigned_abs(), None)))
    })?;
    counts.collect()
}

/// What SQLite writes beside the database at `path`: its log, and the index of that.
fn beside(path: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        name.into()
    })
}

/// Milliseconds since 1970, by the clock.
fn wall_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(now).unwrap_or(u64::MAX)
}

/// A print as it is written: its form, and its bytes.
fn written(print: &KnownPrint) -> (i64, &[u8; 16]) {
    match &print.hash {
        KnownHash::Bare(bytes) => (BARE, bytes),
        KnownHash::Whole(bytes) => (WHOLE, bytes),
    }
}

fn forget(counts: &mut Counts, route: &str) {
    if let Some((count, _)) = counts.get_mut(route) {
        // Another process may have begun some since they were counted.
        *count = count.saturating_sub(1);
    }
}

/// What is known of a key. One that a process that runs no more has begun is unsure, and so is one of this
/// process: while it knows that a key is under way, it does not ask.
fn known(connection: &Connection, id: KeyId, own: &str) -> rusqlite::Result<Option<Stored>> {
    let mut select = connection.prepare_cached(
        "SELECT print, owner, state, until, answer, form, quoted FROM idempotency WHERE id = ?1",
    )?;
    let found = select.query_row([id.bytes()], |row| {
        let (print, owner): ([u8; 16], String) = (row.get(0)?, row.get(1)?);
        let (state, until): (i64, i64) = (row.get(2)?, row.get(3)?);
        let answer: Option<Vec<u8>> = row.get(4)?;
        let hash = match row.get::<_, i64>(5)? {
            BARE => KnownHash::Bare(print),
            _ => KnownHash::Whole(print),
        };
        let spelling = row.get::<_, Option<bool>>(6)?.map(|quoted| match quoted {
            true => Spelling::Quoted,
            false => Spelling::Bare,
        });
        let print = KnownPrint { hash, spelling };
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
    let until = u32::try_from(until).unwrap_or(u32::MAX);
    Ok(Some(Stored::Known { print, until, state }))
}
