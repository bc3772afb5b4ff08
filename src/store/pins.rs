//! Pins beside the journal: rows of their own, without entries, since no operator changed anything.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use super::error::StoreError;
use crate::registry::{KeptPin, PinChanges, PinKey};

/// Pins by service.
pub type KeptPins = BTreeMap<String, Vec<KeptPin>>;

/// Changes of the pins of services, to be written in one commit.
#[derive(Debug)]
pub(super) struct PinJob {
    pub(super) changes: Vec<(String, PinChanges)>,
    pub(super) answer: oneshot::Sender<Result<(), Unkept>>,
}

/// Changes of pins that could not be written, and why.
#[derive(Debug)]
pub struct Unkept {
    /// Why.
    pub why: StoreError,
    /// The changes, by service.
    pub changes: Vec<(String, PinChanges)>,
}

/// All pins in the database at `path`.
pub(super) fn read(connection: &Connection, path: &Path) -> Result<KeptPins, StoreError> {
    let has_pins = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'pin'";
    // An earlier release has none.
    if connection.query_row(has_pins, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(KeptPins::new());
    }
    let mut select = connection.prepare("SELECT service, key, version, began FROM pin")?;
    let mut rows = select.query([])?;
    let mut names: BTreeMap<String, Arc<str>> = BTreeMap::new();
    let mut pins = KeptPins::new();
    while let Some(row) = rows.next()? {
        let (service, version): (String, String) = (row.get(0)?, row.get(2)?);
        let (key, began): ([u8; 16], i64) = (row.get(1)?, row.get(3)?);
        let name = names.entry(version).or_insert_with_key(|name| Arc::from(name.as_str()));
        let began = u32::try_from(began).map_err(|_| StoreError::Damaged {
            path: path.to_owned(),
            why: format!("a pin of `{service}` began at {began}"),
        })?;
        let pin = KeptPin { key: PinKey::from_bytes(key), version: Arc::clone(name), began };
        pins.entry(service).or_default().push(pin);
    }
    Ok(pins)
}

/// Writes changes of pins and ends the commit that was begun.
pub(super) fn commit(
    connection: &Connection,
    changes: &[(String, PinChanges)],
) -> rusqlite::Result<()> {
    let mut delete =
        connection.prepare_cached("DELETE FROM pin WHERE service = ?1 AND key = ?2")?;
    let mut set = connection.prepare_cached(
        "INSERT INTO pin (service, key, version, began) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (service, key) DO UPDATE SET version = excluded.version, began = excluded.began",
    )?;
    for (service, PinChanges { set: pins, gone }) in changes {
        for key in gone {
            delete.execute(params![service, key.bytes()])?;
        }
        for KeptPin { key, version, began } in pins {
            set.execute(params![service, key.bytes(), &**version, began])?;
        }
    }
    connection.execute_batch("COMMIT")
}
