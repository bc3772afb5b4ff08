//! Reading a journal, also while a process writes it. All of it blocks.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rusqlite::{Connection, named_params, types::ValueRef};
use serde_json::Value;

use super::{
    backup::copy,
    chain::Head,
    entry::{Entry, written},
    error::StoreError,
    export::end_line,
    fault::{Fault, Verification},
    filter::{Filter, MOST_SHOWN},
    folder::{Folder, is_written},
    hash::Hash,
    names::{self, OF_SERVICE},
    note::PublicKey,
    own,
    pins::{self, KeptPins},
    report::ReportWriter,
    sqlite::{self, Access, number},
    verify::{Row, Verifier},
};

/// Entries that are read at once where all of them are.
const CHUNK: u32 = 1000;

/// An entry as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The entry.
    pub entry: Entry,
    /// Its line, without a line break.
    pub line: String,
    /// The hash of its line, as it is stored.
    pub hash: Hash,
}

/// A value of the state, and the entry that brought it.
#[derive(Debug, Clone, PartialEq)]
pub struct StateValue {
    /// The entry.
    pub seq: u64,
    /// The value.
    pub value: Value,
}

/// A connection that only reads.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
    /// Whether nobody wrote it when it was opened, so that it was opened without leaving a trace.
    is_still: bool,
}

impl Reader {
    /// Opens the journal in `folder`, whoever writes it.
    ///
    /// # Errors
    ///
    /// If there is none, a later release wrote it, or it cannot be read.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::of_file(&Folder::at(folder).journal())
    }

    /// Opens the database at `path`, as a backup is one.
    ///
    /// # Errors
    ///
    /// As of [`Reader::open`].
    pub fn of_file(path: &Path) -> Result<Self, StoreError> {
        let is_still = !is_written(path);
        let connection = sqlite::open(path, if is_still { Access::Still } else { Access::Read })?;
        Ok(Self { connection, path: path.to_owned(), is_still })
    }

    /// The last entry.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or was changed.
    pub fn head(&self) -> Result<Head, StoreError> {
        sqlite::head(&self.connection, &self.path)
    }

    /// The entries that `filter` asks for, in their order or the opposite one.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub fn show(&self, filter: &Filter) -> Result<Vec<Stored>, StoreError> {
        let order = if filter.newest_first { "DESC" } else { "ASC" };
        let sql = format!(
            "SELECT seq, line, hash FROM entry WHERE seq > :after
             AND (:service IS NULL OR {OF_SERVICE}) AND (:kind IS NULL OR kind = :kind)
             AND (:actor IS NULL OR actor = :actor)
             AND (:from IS NULL OR at >= :from) AND (:to IS NULL OR at < :to)
             ORDER BY seq {order} LIMIT :limit"
        );
        let mut select = self.connection.prepare_cached(&sql)?;
        let mut rows = select.query(named_params! {
            ":after": number(filter.after),
            ":service": filter.service,
            ":kind": filter.kind,
            ":actor": filter.actor,
            ":from": filter.from.map(written),
            ":to": filter.to.map(written),
            ":limit": filter.limit.unwrap_or(100).min(MOST_SHOWN),
        })?;
        let (mut shown, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let stored = self.stored(row)?;
            bytes += stored.line.len();
            shown.push(stored);
            if filter.most_bytes.is_some_and(|most| bytes >= most) {
                break;
            }
        }
        Ok(shown)
    }

    /// A sentence for each name in `filter` that no entry has, and so probably is a mistake.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub fn unknown_names(&self, filter: &Filter) -> Result<Vec<String>, StoreError> {
        names::unknown(&self.connection, filter)
    }

    /// Writes all entries behind `after` to `to` as JSON lines, and a last line with the head; returns that.
    ///
    /// # Errors
    ///
    /// If they cannot be read or written.
    pub fn export(&self, after: u64, to: &mut dyn io::Write) -> Result<Head, StoreError> {
        let head = self.head()?;
        let written = self.each("seq > ?1 AND seq <= ?2", (after, head.seq), |row| {
            let line = row.get_ref(1)?.as_bytes().unwrap_or_default().to_vec();
            Ok(to.write_all(&line).and_then(|()| to.write_all(b"\n")))
        });
        written?;
        let end = writeln!(to, "{}", end_line(head)).and_then(|()| to.flush());
        end.map_err(StoreError::file("the export"))?;
        Ok(head)
    }

    /// Writes the entries made at `from` or later and before `to` as CSV to `out`; returns their number.
    ///
    /// # Errors
    ///
    /// If they cannot be read or written.
    pub fn report(
        &self,
        from: SystemTime,
        to: SystemTime,
        out: &mut dyn io::Write,
    ) -> Result<u64, StoreError> {
        let no_report = |error| StoreError::file("the report")(error);
        let mut report = ReportWriter::new(out).map_err(no_report)?;
        let (mut filter, mut count) = (Filter::default(), 0);
        (filter.from, filter.to, filter.limit) = (Some(from), Some(to), Some(CHUNK));
        loop {
            let entries = self.show(&filter)?;
            for Stored { entry, hash, .. } in &entries {
                report.row(entry, *hash).map_err(no_report)?;
            }
            count += entries.len() as u64;
            match entries.last() {
                Some(last) => filter.after = last.entry.seq,
                None => break,
            }
        }
        report.finish().map_err(no_report)?;
        Ok(count)
    }

    /// Verifies the whole journal, and compares it with a checkpoint if there is one: see [`Verifier`].
    pub fn verify(&self, note: Option<&str>, key: Option<&PublicKey>) -> Verification {
        self.verify_counted(note, key, &mut || ())
    }

    /// The same; calls `count` after each entry.
    pub fn verify_counted(
        &self,
        note: Option<&str>,
        key: Option<&PublicKey>,
        count: &mut dyn FnMut(),
    ) -> Verification {
        let mut verifier = Verifier::new();
        if let Some(note) = note {
            verifier = verifier.against(note, key);
        }
        let read = self.each("seq >= ?1 AND seq <= ?2", (0, u64::MAX), |row| {
            let bytes = |value: ValueRef<'_>| match value {
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
                _ => Vec::new(),
            };
            let (line, hash) = (bytes(row.get_ref(1)?), bytes(row.get_ref(2)?));
            let key = Some(row.get::<_, i64>(0)?.unsigned_abs());
            verifier.row(Row { key, line: &line, hash: Some(&hash) });
            count();
            Ok(Ok(()))
        });
        if let Err(error) = read {
            verifier.unreadable(error.to_string());
        } else if let Err(error) = self.each_with_other_columns(|seq| verifier.columns(seq)) {
            verifier.unreadable(error.to_string());
        }
        let mut verification = verifier.finish();
        match own::faults(&self.connection, u32::MAX) {
            Ok(faults) => verification.add(faults),
            Err(error) => verification.add(vec![Fault::Pages { why: error.to_string() }]),
        }
        verification
    }

    /// Compares the newest checkpoints in the journal, at most `most`, with the entries that they are of, and
    /// the state with the entries that brought it. That shows an end that was cut off by somebody who forgot
    /// those; it is no verification.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub fn own_faults(&self, most: u32) -> Result<Vec<Fault>, StoreError> {
        own::faults(&self.connection, most)
    }

    /// The last weights of each service that entries tell of, by service and version, as far as the newest
    /// `most` entries have them.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub fn last_weights(&self, most: u32) -> Result<BTreeMap<String, Value>, StoreError> {
        names::last_weights(&self.connection, most)
    }

    /// Whether a process has begun to write the journal since it was opened as one that nobody writes, so that
    /// what was read may be of two moments.
    pub fn is_disturbed(&self) -> bool {
        self.is_still && is_written(&self.path)
    }

    /// The signed checkpoints, the last ones first, at most `limit`, each with the entry that it signs.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub fn checkpoints(&self, limit: u32) -> Result<Vec<(u64, String)>, StoreError> {
        let sql = "SELECT seq, note FROM checkpoint ORDER BY id DESC LIMIT ?1";
        let mut select = self.connection.prepare_cached(sql)?;
        let rows = select.query_map([limit], |row| {
            Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, String>(1)?))
        })?;
        rows.collect::<Result<_, _>>().map_err(Into::into)
    }

    /// The state that the entries lead to, by key.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or a value is no JSON.
    pub fn state(&self) -> Result<BTreeMap<String, StateValue>, StoreError> {
        let mut select = self.connection.prepare_cached("SELECT key, seq, value FROM state")?;
        let mut rows = select.query([])?;
        let mut state = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let (key, seq, text): (String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let value = serde_json::from_str(&text)
                .map_err(|error| self.damaged(format!("the state `{key}`: {error}")))?;
            state.insert(key, StateValue { seq: seq.unsigned_abs(), value });
        }
        Ok(state)
    }

    /// Copies the journal as it is to a new file, while it may be written; returns the last entry in the
    /// copy. The key of checkpoints is not part of it.
    ///
    /// # Errors
    ///
    /// If the file exists, or cannot be written.
    pub fn backup(&self, to: &Path) -> Result<Head, StoreError> {
        copy(&self.connection, to)
    }

    /// Checks all pages of the file, which takes about a second per GiB.
    ///
    /// # Errors
    ///
    /// If they are damaged, or cannot be read.
    pub fn check_integrity(&self) -> Result<(), StoreError> {
        sqlite::check_integrity(&self.connection, &self.path)
    }

    /// All pins, by service.
    ///
    /// # Errors
    ///
    /// If they cannot be read, or one is malformed.
    pub fn pins(&self) -> Result<KeptPins, StoreError> {
        pins::read(&self.connection, &self.path)
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Calls `take` with each entry whose columns are not those of its line.
    fn each_with_other_columns(&self, mut take: impl FnMut(u64)) -> Result<(), StoreError> {
        let of_line = |name| format!("json_extract(line, '$.{name}')");
        let sql = format!(
            "SELECT seq FROM entry WHERE CASE WHEN json_valid(line) THEN
             at IS NOT {} OR kind IS NOT {} OR service IS NOT {} OR actor IS NOT {} END ORDER BY seq",
            of_line("at"),
            of_line("kind"),
            of_line("service"),
            of_line("actor.name"),
        );
        let mut select = self.connection.prepare_cached(&sql)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            take(row.get::<_, i64>(0)?.unsigned_abs());
        }
        Ok(())
    }

    /// Calls `take` with each entry for which `what` holds of `bounds`, in their order.
    fn each(
        &self,
        what: &str,
        bounds: (u64, u64),
        mut take: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<io::Result<()>>,
    ) -> Result<(), StoreError> {
        let sql = format!("SELECT seq, line, hash FROM entry WHERE {what} ORDER BY seq");
        let mut select = self.connection.prepare_cached(&sql)?;
        let mut rows = select.query([number(bounds.0), number(bounds.1)])?;
        while let Some(row) = rows.next()? {
            take(row)?.map_err(StoreError::file("the export"))?;
        }
        Ok(())
    }

    fn stored(&self, row: &rusqlite::Row<'_>) -> Result<Stored, StoreError> {
        let (seq, line, hash): (i64, String, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let entry = serde_json::from_str(&line)
            .map_err(|error| self.damaged(format!("entry {seq} is malformed: {error}")))?;
        let hash = Hash::from_bytes(&hash);
        let hash = hash.ok_or_else(|| self.damaged(format!("entry {seq} has no hash")))?;
        Ok(Stored { entry, line, hash })
    }

    fn damaged(&self, why: String) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), why }
    }
}
