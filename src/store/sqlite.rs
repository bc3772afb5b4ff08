//! The database: its schema, how it is opened, and one commit.
//!
//! `entry` only grows: triggers refuse any other change, also by a tool in a maintenance hour. That keeps
//! honest hands from mistakes; against others there is the chain. The columns beside `line` are copies of
//! parts of it, for queries. The log is synced at each commit (`synchronous=FULL`), so an answered change
//! survives the loss of power.

use std::{os::unix::ffi::OsStrExt, path::Path, time::Duration};

use rusqlite::{
    Connection, OpenFlags, OptionalExtension, TransactionBehavior, config::DbConfig, params,
};

use super::{
    chain::{Head, Sealed},
    entry::StateChange,
    error::StoreError,
    files::LOG_LIMIT,
    folder::create,
    hash::Hash,
};

/// Marks the file as a journal of Tidegate: `TGJ1`.
const APPLICATION: i64 = 0x5447_4a31;

/// Earlier ones can corrupt a database with a write-ahead log (<https://sqlite.org/wal.html#walresetbug>).
const OLDEST_SQLITE: i32 = 3_051_003;

/// Each leads from one schema to the next; their number is the schema that this program writes.
const MIGRATIONS: &[&str] = &[include_str!("schema/1.sql"), include_str!("schema/2.sql")];

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Reads and writes; the database is made unless it is there.
    Create,
    /// Reads and writes a journal that was begun.
    Write,
    /// Reads beside another connection that writes.
    Read,
    /// Reads what nobody writes, and makes no file, so the folder need not be writable.
    Still,
}

/// Opens the database at `path`, and brings it to the present schema if it may write.
pub(super) fn open(path: &Path, access: Access) -> Result<Connection, StoreError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(StoreError::OldSqlite(rusqlite::version()));
    }
    let flags = match access {
        Access::Create => {
            // SQLite would make it with the permissions that the process leaves to others.
            match create(path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(StoreError::file(path)(error));
                }
                _ => OpenFlags::SQLITE_OPEN_READ_WRITE,
            }
        }
        Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Access::Read | Access::Still => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = match access {
        Access::Still => open_still(path, flags)?,
        _ => Connection::open_with_flags(path, flags)?,
    };
    connection.busy_timeout(Duration::from_secs(5))?;
    let found = schema(&connection, path)?;
    match access {
        Access::Write if found == 0 => return Err(StoreError::Emptied(path.to_owned())),
        Access::Create | Access::Write => {
            settings(&connection)?;
            migrate(&mut connection, found, MIGRATIONS)?;
        }
        Access::Read | Access::Still => {
            connection.pragma_update(None, "query_only", "ON")?;
            connection.pragma_update(None, "trusted_schema", "OFF")?;
            if found == 0 {
                return Err(StoreError::NotAJournal(path.to_owned()));
            }
        }
    }
    Ok(connection)
}

/// Opens what nobody writes. What a crash left in the log is read, too, with its index in memory.
fn open_still(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let log = Path::new(path).with_file_name({
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push("-wal");
        name
    });
    let has_log = std::fs::metadata(log).is_ok_and(|log| log.len() > 0);
    let how = if has_log { "vfs=unix-none" } else { "immutable=1" };
    let flags = flags | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri(path, how), flags)?;
    if has_log {
        // Without it the index would be a file; and the end would move the log into the database.
        connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    }
    Ok(connection)
}

/// `path` as SQLite reads it with parameters.
fn uri(path: &Path, parameters: &str) -> String {
    let mut text = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => text.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => text.push(char::from(*byte)),
            byte => text += &format!("%{byte:02X}"),
        }
    }
    text + "?" + parameters
}

/// The schema of the database, 0 of an empty one; one that is no journal, or a newer one, is refused.
fn schema(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let known = i64::try_from(MIGRATIONS.len()).expect("few migrations");
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let read = number("application_id").and_then(|id| Ok((id, number("user_version")?)));
    let (application, found) = match read {
        Ok(read) => read,
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {
            return Err(StoreError::NotAJournal(path.to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    let tables = "SELECT count(*) FROM sqlite_schema";
    let is_empty = found == 0 && connection.query_row(tables, [], |row| row.get::<_, i64>(0))? == 0;
    match (application, found) {
        (_, 0) if is_empty => Ok(0),
        (APPLICATION, 1..) if found <= known => Ok(found),
        (APPLICATION, 1..) => Err(StoreError::NewerSchema { path: path.to_owned(), found, known }),
        _ => Err(StoreError::NotAJournal(path.to_owned())),
    }
}

pub(super) fn settings(connection: &Connection) -> Result<(), StoreError> {
    let set = |name, value: &str| {
        connection.pragma_update_and_check(None, name, value, |_| Ok(())).or_else(|error| {
            // Not every setting returns its value.
            if error == rusqlite::Error::QueryReturnedNoRows { Ok(()) } else { Err(error) }
        })
    };
    set("journal_mode", "WAL")?;
    set("synchronous", "FULL")?;
    set("foreign_keys", "ON")?;
    set("trusted_schema", "OFF")?;
    set("cell_size_check", "ON")?;
    set("secure_delete", "OFF")?;
    set("wal_autocheckpoint", "1000")?;
    set("journal_size_limit", &LOG_LIMIT.to_string())?;
    if cfg!(target_os = "macos") {
        set("fullfsync", "ON")?;
    }
    Ok(())
}

/// Makes the steps behind schema `found`, each in a commit of its own.
fn migrate(connection: &mut Connection, found: i64, steps: &[&str]) -> Result<(), StoreError> {
    let done = usize::try_from(found).unwrap_or_default();
    for (step, sql) in steps.iter().enumerate().skip(done) {
        let change = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        change.execute_batch(sql)?;
        change.pragma_update(None, "application_id", APPLICATION)?;
        change.pragma_update(None, "user_version", step as i64 + 1)?;
        change.commit()?;
    }
    Ok(())
}

/// Looks for damage in all pages.
pub(super) fn check_integrity(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let damaged = |why| StoreError::Damaged { path: path.to_owned(), why };
    let found = connection
        .pragma_query_value(None, "integrity_check", |row| row.get::<_, String>(0))
        .map_err(|error| damaged(error.to_string()))?;
    if found == "ok" { Ok(()) } else { Err(damaged(found)) }
}

/// The last entry, whose hash must be the one of its line.
pub(super) fn head(connection: &Connection, path: &Path) -> Result<Head, StoreError> {
    let last = "SELECT seq, line, hash FROM entry ORDER BY seq DESC LIMIT 1";
    let row = connection.query_row(last, [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
    });
    let Some((seq, line, stored)) = row.optional()? else { return Ok(Head::START) };
    let hash = Hash::of(line.as_bytes());
    if stored != hash.as_bytes() {
        let why = format!("entry {seq} was changed");
        return Err(StoreError::Damaged { path: path.to_owned(), why });
    }
    Ok(Head { seq: seq.unsigned_abs(), hash })
}

/// The line of an entry; `None` if there is none.
pub(super) fn line(connection: &Connection, seq: u64) -> rusqlite::Result<Option<String>> {
    let one = "SELECT line FROM entry WHERE seq = ?1";
    connection.query_row(one, [number(seq)], |row| row.get(0)).optional()
}

/// The line of the last entry of either kind.
pub(super) fn last_line_of(
    connection: &Connection,
    kinds: [&str; 2],
) -> rusqlite::Result<Option<String>> {
    let last = "SELECT line FROM entry WHERE kind IN (?1, ?2) ORDER BY seq DESC LIMIT 1";
    connection.query_row(last, kinds, |row| row.get(0)).optional()
}

/// An entry with the changes of the state that it brings.
pub(super) type Part<'a> = (&'a Sealed, &'a [StateChange]);

/// A value of the state before a change.
pub(super) type Undo = (String, Option<(i64, String)>);

/// Begins a commit, when no other connection has one. An error closes it together with the connection.
pub(super) fn begin(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")
}

/// Gives up a commit that was begun.
pub(super) fn roll_back(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("ROLLBACK")
}

/// Writes `parts` and ends the commit that was begun. `undo` gets the values of the state before those from
/// `undo_from` on.
pub(super) fn commit(
    connection: &Connection,
    parts: &[Part<'_>],
    undo_from: usize,
    undo: &mut Vec<Undo>,
) -> rusqlite::Result<()> {
    for (at, (sealed, state)) in parts.iter().enumerate() {
        insert(connection, sealed)?;
        for StateChange { key, value } in *state {
            if at >= undo_from {
                undo.push((key.clone(), value_of(connection, key)?));
            }
            let value = value.as_ref().map(|value| String::from(&**value));
            set(connection, key, value.map(|value| (number(sealed.head.seq), value)))?;
        }
    }
    connection.execute_batch("COMMIT")
}

/// Writes an entry and brings back the values in `undo`, in one commit.
pub(super) fn annul(
    connection: &Connection,
    sealed: &Sealed,
    undo: &[Undo],
) -> rusqlite::Result<()> {
    begin(connection)?;
    insert(connection, sealed)?;
    for (key, before) in undo.iter().rev() {
        set(connection, key, before.clone())?;
    }
    connection.execute_batch("COMMIT")
}

/// Keeps a signed checkpoint, and ends the commit that was begun.
pub(super) fn keep_note(connection: &Connection, seq: u64, note: &str) -> rusqlite::Result<()> {
    let insert = "INSERT INTO checkpoint (seq, note) VALUES (?1, ?2)";
    connection.execute(insert, params![number(seq), note])?;
    connection.execute_batch("COMMIT")
}

/// Moves the log into the database, so that both are on the disk and the log takes no space.
pub(super) fn move_log(connection: &Connection) -> Result<(), StoreError> {
    let busy =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))?;
    if busy == 0 { Ok(()) } else { Err(StoreError::Refused("its log is being read".to_owned())) }
}

/// Whether the log is left as it is when the connection is closed.
pub(super) fn keep_log(connection: &Connection, is_kept: bool) -> rusqlite::Result<bool> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, is_kept)
}

/// Writes something without changing anything.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "user_version", MIGRATIONS.len() as i64)
}

/// Makes the disk full, as far as the database is concerned, at `pages` of it.
#[cfg(test)]
pub(super) fn limit(connection: &Connection, pages: &std::sync::atomic::AtomicU32) {
    let pages = match pages.load(std::sync::atomic::Ordering::SeqCst) {
        0 => u32::MAX - 1,
        pages => pages,
    };
    let set = connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()));
    set.expect("a limit of pages");
}

fn insert(change: &Connection, sealed: &Sealed) -> rusqlite::Result<()> {
    let mut insert = change.prepare_cached(
        "INSERT INTO entry (seq, at, kind, service, actor, line, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let Sealed { head, line, at, kind, actor, service } = sealed;
    let hash = head.hash.as_bytes();
    insert.execute(params![number(head.seq), at, kind, service, actor, line, hash]).map(drop)
}

fn value_of(change: &Connection, key: &str) -> rusqlite::Result<Option<(i64, String)>> {
    let mut select = change.prepare_cached("SELECT seq, value FROM state WHERE key = ?1")?;
    select.query_row([key], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

fn set(change: &Connection, key: &str, value: Option<(i64, String)>) -> rusqlite::Result<()> {
    let Some((seq, value)) = value else {
        return change.prepare_cached("DELETE FROM state WHERE key = ?1")?.execute([key]).map(drop);
    };
    let upsert = "INSERT INTO state (key, seq, value) VALUES (?1, ?2, ?3)
        ON CONFLICT (key) DO UPDATE SET seq = excluded.seq, value = excluded.value";
    change.prepare_cached(upsert)?.execute(params![key, seq, value]).map(drop)
}

/// `seq` as SQLite has numbers; there are never as many entries as it has no number for.
pub(super) fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_schema_is_brought_forward_with_what_it_holds() {
        let mut connection = Connection::open_in_memory().unwrap();
        let steps = ["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y DEFAULT 7"];
        migrate(&mut connection, 0, &steps[..1]).unwrap();
        connection.execute("INSERT INTO a (x) VALUES (1)", []).unwrap();
        migrate(&mut connection, 1, &steps).unwrap();
        let read = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!((read("SELECT x FROM a"), read("SELECT y FROM a")), (1, 7));
        assert_eq!((read("PRAGMA user_version"), read("PRAGMA application_id")), (2, APPLICATION));
    }

    #[test]
    fn a_connection_that_writes_syncs_each_commit() {
        let folder = tempfile::tempdir().unwrap();
        let connection = open(&folder.path().join("journal.db"), Access::Create).unwrap();
        let read = |name| {
            connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
        };
        assert_eq!(read("journal_mode").unwrap(), "wal".to_owned().into());
        for (name, value) in [
            ("synchronous", 2),
            ("foreign_keys", 1),
            ("trusted_schema", 0),
            ("cell_size_check", 1),
            ("secure_delete", 0),
            ("wal_autocheckpoint", 1000),
            ("journal_size_limit", 1024 * 1024),
            ("busy_timeout", 5000),
            ("user_version", 2),
        ] {
            assert_eq!(read(name).unwrap(), value.into(), "{name}");
        }
    }

    #[test]
    fn a_step_that_fails_leaves_the_schema_before_it() {
        let mut connection = Connection::open_in_memory().unwrap();
        let steps = ["CREATE TABLE a (x)", "CREATE TABLE b (x); INSERT INTO nowhere VALUES (1)"];
        assert!(migrate(&mut connection, 0, &steps).is_err());
        let read = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(read("PRAGMA user_version"), 1);
        assert_eq!(read("SELECT count(*) FROM sqlite_schema WHERE name = 'b'"), 0);
    }
}
