//! A journal compared with what is beside its entries: its own checkpoints, and the state.
//!
//! Whoever cuts off the end of a journal has to think of these, too.

use rusqlite::{Connection, OptionalExtension};

use super::{
    chain::{key_of, origin_of},
    entry::{GENESIS, KEY_MADE},
    error::StoreError,
    fault::{Fault, MAX_FAULTS},
    hash::Hash,
    note::{Checkpoint, PublicKey},
    sqlite,
};

/// What is wrong with the newest checkpoints, at most `most`, and with the state.
pub(super) fn faults(connection: &Connection, most: u32) -> Result<Vec<Fault>, StoreError> {
    // All of it as it was at one moment: entries that are written meanwhile bring state and checkpoints, which would
    // seem to be of entries that are missing.
    let view = connection.unchecked_transaction()?;
    let faults = faults_seen(&view, most)?;
    view.finish()?;
    Ok(faults)
}

fn faults_seen(connection: &Connection, most: u32) -> Result<Vec<Fault>, StoreError> {
    let last: i64 =
        connection.query_row("SELECT coalesce(max(seq), 0) FROM entry", [], |row| row.get(0))?;
    let last = last.unsigned_abs();
    let mut faults: Vec<Fault> = state_ahead(connection, last)?.into_iter().collect();
    let (keys, origin) = (keys(connection)?, origin(connection)?);
    let newest = "SELECT seq, note FROM checkpoint ORDER BY id DESC LIMIT ?1";
    let mut select = connection.prepare_cached(newest)?;
    let mut rows = select.query([most])?;
    while let Some(row) = rows.next()?
        && faults.len() < MAX_FAULTS
    {
        let (seq, note): (i64, String) = (row.get(0)?, row.get(1)?);
        let seq = seq.unsigned_abs();
        let wrong = match Checkpoint::read(&note) {
            Err(error) => Some(format!("cannot be read: {error}")),
            Ok(noted) if noted.head.seq != seq => {
                Some(format!("was changed: it is of entry {}", noted.head.seq))
            }
            Ok(noted) if origin.as_ref().is_some_and(|origin| *origin != noted.origin) => {
                Some(format!("is one of another journal, `{}`", noted.origin))
            }
            Ok(_) if seq > last => Some(format!(
                "is of an entry that is missing: the end was cut off behind entry {last}"
            )),
            Ok(noted) => {
                let line = sqlite::line(connection, seq)?;
                let is_noted =
                    line.is_some_and(|line| Hash::of(line.as_bytes()) == noted.head.hash);
                let is_signed = keys.iter().any(|key| Checkpoint::verify(&note, key).is_ok());
                match (is_noted, is_signed) {
                    (false, _) => Some(
                        "is not of that entry as it is: it was changed, or the journal up to it was written anew"
                            .to_owned(),
                    ),
                    (true, false) => Some("has the signature of no key that an entry names".to_owned()),
                    (true, true) => None,
                }
            }
        };
        faults.extend(wrong.map(|why| Fault::OwnCheckpoint { seq, why }));
    }
    Ok(faults)
}

/// The fault if the state was brought by an entry behind the `last` one.
fn state_ahead(connection: &Connection, last: u64) -> Result<Option<Fault>, StoreError> {
    let newest = "SELECT max(seq) FROM state";
    let newest: Option<i64> =
        connection.query_row(newest, [], |row| row.get(0)).optional()?.flatten();
    let newest = newest.unwrap_or_default().unsigned_abs();
    Ok((newest > last).then_some(Fault::StateAhead { last, newest }))
}

/// The keys that entries name.
fn keys(connection: &Connection) -> Result<Vec<PublicKey>, StoreError> {
    let naming = "SELECT line FROM entry WHERE kind IN (?1, ?2) ORDER BY seq DESC";
    let mut select = connection.prepare_cached(naming)?;
    let mut rows = select.query([GENESIS, KEY_MADE])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let line: String = row.get(0)?;
        keys.extend(key_of(line.as_bytes()).and_then(|key| key.parse().ok()));
    }
    Ok(keys)
}

/// The name of the journal, if its first entry says it.
fn origin(connection: &Connection) -> Result<Option<String>, StoreError> {
    Ok(sqlite::line(connection, 1)?.and_then(|line| origin_of(line.as_bytes())))
}
