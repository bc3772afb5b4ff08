//! Keys of a database whose file was removed or replaced while it was in use.
//!
//! The file can still be read, since this process has it open. Its keys are written to the one that is at its place now, or
//! to a new one, so none is forgotten.

use rusqlite::{params, types::ValueRef};

use super::{super::error::StoreError, rows::Rows};

/// Most rows of a commit.
const MOST_ROWS: u32 = 5_000;

impl Rows {
    /// Writes the keys of `former` that are not forgotten. `by_s` is what its time is behind this one's, in seconds. A key
    /// that is there stays as it is, unless it is the former one's response that is missing. Returns how many there were.
    pub(super) fn carry_over(&mut self, former: &Self, by_s: i64) -> Result<u64, StoreError> {
        let mut select = former.connection.prepare(
            "SELECT id, route, print, owner, state, until + ?1, answer, form, quoted FROM idempotency WHERE until + ?1 > ?2",
        )?;
        let now = self.time.now();
        let mut rows = select.query(params![by_s, now])?;
        let (mut carried, mut of_commit) = (0, 0);
        self.begin()?;
        while let Some(row) = rows.next()? {
            let values: [ValueRef<'_>; 9] = [
                row.get_ref(0)?,
                row.get_ref(1)?,
                row.get_ref(2)?,
                row.get_ref(3)?,
                row.get_ref(4)?,
                row.get_ref(5)?,
                row.get_ref(6)?,
                row.get_ref(7)?,
                row.get_ref(8)?,
            ];
            let mut insert = self.connection.prepare_cached(
                "INSERT INTO idempotency (id, route, print, owner, state, until, answer, form, quoted)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (id) DO UPDATE SET (route, print, owner, state, until, answer, form, quoted)
                     = (excluded.route, excluded.print, excluded.owner, excluded.state, excluded.until,
                        excluded.answer, excluded.form, excluded.quoted)
                 WHERE until <= ?10 OR (print = excluded.print AND state <> 1 AND excluded.state = 1)",
            )?;
            let [id, route, print, owner, state, until, answer, form, quoted] =
                values.map(ToSqlRef);
            insert.execute(params![
                id, route, print, owner, state, until, answer, form, quoted, now
            ])?;
            drop(insert);
            (carried, of_commit) = (carried + 1, of_commit + 1);
            if of_commit == MOST_ROWS {
                of_commit = 0;
                self.commit()?;
                self.begin()?;
            }
        }
        self.commit()?;
        self.count_as(&former.counts)?;
        Ok(carried)
    }
}

/// A value of one database, as it is written to another.
struct ToSqlRef<'a>(ValueRef<'a>);

impl rusqlite::ToSql for ToSqlRef<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok(rusqlite::types::ToSqlOutput::Borrowed(self.0))
    }
}
