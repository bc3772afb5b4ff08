//! Which services and kinds of changes entries are about.
//!
//! An entry is about one service, or, as that of a new configuration, about all those whose weights or shares it
//! has before and after it: `before.services` and `after.services`.

use std::collections::{BTreeMap, btree_map::Entry};

use rusqlite::Connection;
use serde_json::Value;

use super::{error::StoreError, filter::Filter, kind::EntryKind};
use crate::config::problem::closest;

/// Whether an entry is about the service `:service`.
pub(super) const OF_SERVICE: &str = "CASE WHEN service IS NOT NULL THEN service = :service
    WHEN json_valid(line) THEN
        EXISTS (SELECT 1 FROM json_each(line, '$.after.services') WHERE key = :service)
        OR EXISTS (SELECT 1 FROM json_each(line, '$.before.services') WHERE key = :service)
    ELSE 0 END";

const SERVICES: &str = "SELECT DISTINCT service FROM entry WHERE service IS NOT NULL UNION
    SELECT each.key FROM entry,
        json_each(CASE WHEN json_valid(line) THEN line ELSE '{}' END, '$.after.services') AS each
    WHERE entry.service IS NULL UNION
    SELECT each.key FROM entry,
        json_each(CASE WHEN json_valid(line) THEN line ELSE '{}' END, '$.before.services') AS each
    WHERE entry.service IS NULL ORDER BY 1";

const KINDS: &str = "SELECT DISTINCT kind FROM entry ORDER BY 1";

const ACTORS: &str = "SELECT DISTINCT actor FROM entry ORDER BY 1";

/// Most names that a sentence lists.
const MOST_LISTED: usize = 20;

/// A sentence for each name in `filter` that no entry has.
pub(super) fn unknown(connection: &Connection, filter: &Filter) -> Result<Vec<String>, StoreError> {
    let mut all = Vec::new();
    for (what, asked, sql) in [
        ("is about the service", &filter.service, SERVICES),
        ("is of the kind", &filter.kind, KINDS),
        ("is by", &filter.actor, ACTORS),
    ] {
        let Some(asked) = asked else { continue };
        let mut select = connection.prepare_cached(sql)?;
        let names: Result<Vec<String>, _> = select.query_map([], |row| row.get(0))?.collect();
        let names = names?;
        if !names.contains(asked) {
            all.push(format!(
                "no entry of this journal {what} `{asked}`; {}",
                known(asked, &names)
            ));
        }
    }
    Ok(all)
}

/// What was meant by `asked`, probably, and what there is.
fn known(asked: &str, names: &[String]) -> String {
    let near = closest(asked, names.iter().map(String::as_str));
    let meant = near.map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
    let listed: Vec<String> =
        names.iter().take(MOST_LISTED).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(MOST_LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    match listed.is_empty() {
        true => format!("{meant}there is none"),
        false => format!("{meant}there are: {}{more}", listed.join(", ")),
    }
}

/// The last weights of each service, as far as the newest `most` entries have them.
pub(super) fn last_weights(
    connection: &Connection,
    most: u32,
) -> Result<BTreeMap<String, Value>, StoreError> {
    let mut select =
        connection.prepare_cached("SELECT line FROM entry ORDER BY seq DESC LIMIT ?1")?;
    let mut rows = select.query([most])?;
    let mut last: BTreeMap<String, Value> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        // What cannot be read tells nothing.
        let entry: Value = serde_json::from_str(&row.get::<_, String>(0)?).unwrap_or_default();
        let mut note = |service: &str, weights: &Value| {
            if let (Entry::Vacant(place), true) =
                (last.entry(service.to_owned()), weights.is_object())
            {
                place.insert(weights.clone());
            }
        };
        if let Some(service) = entry["service"].as_str() {
            match entry["kind"].as_str().and_then(EntryKind::named) {
                Some(EntryKind::Weights | EntryKind::Cutover | EntryKind::Rollback) => {
                    note(service, &entry["after"]);
                }
                Some(EntryKind::RolloutStarted | EntryKind::Rollout) => {
                    note(service, &entry["after"]["weights"]);
                }
                _ => {}
            }
        }
        for (service, split) in entry["after"]["services"].as_object().into_iter().flatten() {
            note(service, &split["weights"]);
        }
        // It has all services.
        if entry["kind"] == "resumed" && entry["after"]["services"].is_object() {
            break;
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_probably_meant_is_named() {
        let names = ["ejected", "resumed", "weights"].map(str::to_owned);
        let said = known("weigths", &names);
        assert_eq!(said, "did you mean `weights`? there are: `ejected`, `resumed`, `weights`");
        assert_eq!(known("x", &names), "there are: `ejected`, `resumed`, `weights`");
        assert_eq!(known("x", &[]), "there is none");
        let many: Vec<String> = (0..25).map(|n| format!("service-{n:02}")).collect();
        assert!(known("x", &many).ends_with("`service-19` and 5 more"));
    }
}
