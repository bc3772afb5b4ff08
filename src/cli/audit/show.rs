//! `tidegate audit show`: entries as a table for people, or as they are stored for programs.

use std::time::SystemTime;

use super::change::in_words;
use crate::{
    cli::{
        columns,
        failure::{Exit, Failure},
        journal::{JournalArguments, moment},
        say::{complain, say, say_as_is},
    },
    config::problem::escaped,
    store::{Entry, Filter, Impact, MOST_SHOWN},
};

/// Entries that are shown if nobody says how many.
const LIMIT: u32 = 100;

const HEADINGS: [&str; 7] = ["SEQ", "TIME", "WHO", "KIND", "SERVICE", "CHANGE", "REASON"];

/// Arguments of `tidegate audit show`.
#[derive(Debug, clap::Args)]
pub(super) struct ShowArguments {
    #[command(flatten)]
    journal: JournalArguments,
    /// Only changes of this service.
    #[arg(long)]
    service: Option<String>,
    /// Only entries of this kind, such as `weights`.
    #[arg(long)]
    kind: Option<String>,
    /// Only changes by the actor with this name.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Only changes made then or later: 2026-01-31T12:00:00Z, 2026-01-31, or 2h for two hours ago.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<SystemTime>,
    /// Only changes made before then.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<SystemTime>,
    /// The first entries behind this one, instead of the last ones.
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// Number of entries at most.
    #[arg(long, value_name = "N", default_value_t = LIMIT,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_SHOWN) - 1))]
    limit: u32,
    /// Print each entry as it is stored: a JSON object on one line.
    #[arg(long)]
    json: bool,
}

/// Shows entries, the oldest first.
pub(super) fn run(arguments: &ShowArguments) -> Result<(), Failure> {
    let ShowArguments { journal, service, kind, by, from, to, after, limit, json } = arguments;
    let journal = journal.place()?;
    if from.zip(*to).is_some_and(|(from, to)| from >= to) {
        let why = "--from is not before --to, so no entry can be between them";
        return Err(Failure::new(Exit::Arguments, why));
    }
    let filter = Filter {
        service: service.clone(),
        kind: kind.clone(),
        actor: by.clone(),
        from: *from,
        to: *to,
        after: after.unwrap_or(0),
        most_bytes: None,
        // One more shows whether there are more, so the limit is below that of the store.
        limit: Some(limit.saturating_add(1)),
        newest_first: after.is_none(),
    };
    let reader = journal.reader()?;
    let mut shown = reader.show(&filter).map_err(|error| journal.failure(error))?;
    let has_more = shown.len() > *limit as usize;
    shown.truncate(*limit as usize);
    if after.is_none() {
        shown.reverse();
    }
    if shown.is_empty() {
        let unknown = reader.unknown_names(&filter).map_err(|error| journal.failure(error))?;
        unknown.iter().for_each(|said| complain(&escaped(said)));
    }
    if *json {
        shown.iter().for_each(|stored| say_as_is(&stored.line));
        return Ok(());
    }
    if shown.is_empty() {
        say("no entries");
        return Ok(());
    }
    let entries = shown.iter().map(|stored| &stored.entry);
    say(table(entries, service.as_deref()).trim_end());
    if let (true, Some(first), Some(last)) = (has_more, shown.first(), shown.last()) {
        let (first, last) = (first.entry.seq, last.entry.seq);
        complain(&match after {
            Some(_) => format!("there are more: --after {last} continues"),
            None => format!(
                "there are more before entry {first}: --limit N shows more, --after 0 begins at the first"
            ),
        });
    }
    Ok(())
}

fn table<'a>(entries: impl Iterator<Item = &'a Entry>, service: Option<&str>) -> String {
    let mut table = columns::table();
    table.add_row(HEADINGS);
    table.add_rows(entries.map(|entry| row(entry, service).map(|cell| escaped(&cell))));
    columns::aligned(table, |column| column == 0)
}

fn row(entry: &Entry, service: Option<&str>) -> [String; HEADINGS.len()] {
    let actor = &entry.actor;
    let role = if actor.role == "system" { String::new() } else { format!(" ({})", actor.role) };
    let second = entry.second.as_ref().map(|second| format!(", approved by {second}"));
    let mut reason = entry.reason.clone();
    let mut more = |text: String| {
        reason += if reason.is_empty() { "" } else { "; " };
        reason += &text;
    };
    if let Some(ticket) = &entry.ticket {
        more(format!("ticket {ticket}"));
    }
    match entry.impact {
        Some(Impact::High) => more("high impact".to_owned()),
        Some(Impact::Low) => more("low impact".to_owned()),
        None => {}
    }
    if let Some(late) = entry.written_late_ms {
        more(format!("written {late} ms after the change"));
    }
    [
        entry.seq.to_string(),
        humantime::format_rfc3339_millis(entry.at).to_string(),
        format!("{}{role}{}", actor.name, second.unwrap_or_default()),
        entry.kind.clone(),
        entry.service.clone().unwrap_or_else(|| "-".to_owned()),
        in_words(&entry.kind, (&entry.before, &entry.after), service),
        reason,
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(seq: u64, change: serde_json::Value) -> Entry {
        let mut line = json!({
            "seq": seq, "prev": "0".repeat(64), "at": "2026-01-31T12:00:00.000Z", "mono_ms": 1,
            "node": "edge-1", "boot": "b", "actor": { "name": "ann", "role": "operator" },
            "kind": "weights", "service": "game-api", "reason": "more players",
            "before": { "v41": 95 }, "after": { "v41": 90 },
            "binary": { "version": "0.1.0", "sha256": "ab" }, "generation": 7,
        });
        line.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(line).unwrap()
    }

    #[test]
    fn entries_are_a_table() {
        let system = json!({
            "actor": { "name": "verdict", "role": "system" }, "kind": "ejected", "service": null,
            "impact": "high", "ticket": "CHG-1", "written_late_ms": 12, "before": null, "after": null,
            "reason": "a\u{1b}[2J\nb",
        });
        let entries = [entry(9, json!({ "second": "bob" })), entry(10, system)];
        assert_eq!(
            table(entries.iter(), None),
            "\
SEQ  TIME                      WHO                              KIND     SERVICE   CHANGE        REASON
  9  2026-01-31T12:00:00.000Z  ann (operator), approved by bob  weights  game-api  v41 95 -> 90  more players
 10  2026-01-31T12:00:00.000Z  verdict                          ejected  -         -             a\\u{1b}[2J\\nb; ticket CHG-1; high impact; written 12 ms after the change"
        );
    }
}
