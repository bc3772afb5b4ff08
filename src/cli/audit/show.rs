//! `tidegate audit show`: entries as a table for people, or as they are stored for programs.

use std::time::SystemTime;

use super::change::in_lines;
use crate::{
    cli::{
        columns,
        failure::{Exit, Failure},
        journal::{JournalArguments, moment},
        say::{complain, say, say_as_is},
        wrapped::{COLUMNS, wrapped},
    },
    config::problem::escaped,
    store::{Entry, Filter, Impact, MOST_SHOWN},
    telemetry::rfc3339,
};

/// Entries that are shown if nobody says how many.
const LIMIT: u32 = 100;

const HEADINGS: [&str; 5] = ["SEQ", "TIME", "WHO", "KIND", "SERVICE"];

/// Number and time, which have the same width in all rows.
const TIMED: usize = 2;

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
    let table = table(entries, service.as_deref());
    say(table.trim_end());
    if shown.iter().any(|stored| is_cut(&stored.entry, service.as_deref())) {
        complain("what ends with … is cut: --json has all of it");
    }
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

/// A line per entry with who made it, and below it, indented, what it changed and why. No line is longer than
/// [`COLUMNS`], except for a word that is.
fn table<'a>(entries: impl Iterator<Item = &'a Entry> + Clone, service: Option<&str>) -> String {
    let heads = HEADINGS.map(str::to_owned);
    let rows = entries.clone().map(|entry| row(entry).map(|cell| escaped(&cell)));
    let rows: Vec<_> = std::iter::once(heads).chain(rows).collect();
    let mut text = aligned(&rows, HEADINGS.len());
    if text.lines().any(|line| line.trim_end().chars().count() > COLUMNS) {
        // One long name would make the table too wide: behind the time each line has its own columns.
        text = aligned(&rows, TIMED);
    }
    let indent = text.find("TIME").unwrap_or_default();
    let mut rows = text.lines();
    let mut lines: Vec<_> =
        rows.next().map(|heads| heads.trim_end().to_owned()).into_iter().collect();
    for (row, entry) in rows.zip(entries) {
        lines.push(wrapped(row.trim_end(), indent));
        let below = below(entry, service);
        let below = below.iter().map(|line| " ".repeat(indent) + &escaped(line));
        lines.extend(below.map(|line| wrapped(&line, indent + 2)));
    }
    lines.join("\n")
}

/// `rows` as a table, in which only so many columns stand under each other.
fn aligned(rows: &[[String; HEADINGS.len()]], columns: usize) -> String {
    let mut table = columns::table();
    table.add_rows(rows.iter().map(|row| {
        let (apart, rest) = row.split_at(columns.min(row.len()));
        let rest = (!rest.is_empty()).then(|| rest.join("  "));
        apart.iter().cloned().chain(rest)
    }));
    columns::aligned(table, |column| column == 0)
}

fn row(entry: &Entry) -> [String; HEADINGS.len()] {
    let actor = &entry.actor;
    let role = if actor.role == "system" { String::new() } else { format!(" ({})", actor.role) };
    let second = entry.second.as_ref().map(|second| format!(", approved by {second}"));
    [
        entry.seq.to_string(),
        rfc3339::millis(entry.at).to_string(),
        format!("{}{role}{}", actor.name, second.unwrap_or_default()),
        entry.kind.clone(),
        entry.service.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

/// Whether not all of what an entry changed is shown.
fn is_cut(entry: &Entry, service: Option<&str>) -> bool {
    let lines = in_lines(&entry.kind, (&entry.before, &entry.after), service);
    lines.iter().any(|line| line.contains('…'))
}

/// What an entry changed, and why.
fn below(entry: &Entry, service: Option<&str>) -> Vec<String> {
    let mut lines = in_lines(&entry.kind, (&entry.before, &entry.after), service);
    let reason = Some(entry.reason.clone()).filter(|reason| !reason.is_empty());
    let ticket = entry.ticket.as_ref().map(|ticket| format!("ticket {ticket}"));
    let impact = entry.impact.map(|impact| match impact {
        Impact::High => "high impact".to_owned(),
        Impact::Low => "low impact".to_owned(),
    });
    let late = entry.written_late_ms.map(|late| format!("written {late} ms after the change"));
    // In entries of earlier releases it is another number.
    let epoch = entry.split.and(entry.epoch).map(|epoch| format!("epoch {epoch}"));
    let why: Vec<_> = [reason, ticket, impact, epoch, late].into_iter().flatten().collect();
    if !why.is_empty() {
        lines.push(format!("reason: {}", why.join("; ")));
    }
    lines
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
SEQ  TIME                      WHO                              KIND     SERVICE
  9  2026-01-31T12:00:00.000Z  ann (operator), approved by bob  weights  game-api
     v41 95 -> 90
     reason: more players
 10  2026-01-31T12:00:00.000Z  verdict                          ejected  -
     reason: a\\u{1b}[2J\\nb; ticket CHG-1; high impact; written 12 ms after the change"
        );
    }

    /// Regression: lines of 300 columns.
    #[test]
    fn no_line_is_longer_than_a_terminal() {
        let long = json!({
            "reason": "far more of its requests failed than ".repeat(12), "second": "b".repeat(40),
            "actor": { "name": "a".repeat(40), "role": "operator" },
            "after": (0..40).map(|n| (format!("version-{n}"), json!(n))).collect::<serde_json::Map<_, _>>(),
        });
        let text = table([entry(9, long)].iter(), None);
        let most = text.lines().map(|line| line.chars().count()).max();
        assert!(most <= Some(100), "{most:?}: {text}");
        let words = text.split_whitespace().filter(|word| *word == "failed").count();
        assert_eq!(words, 12, "{text}");
        assert!(text.starts_with("SEQ  TIME                      WHO  KIND  SERVICE\n"), "{text}");
        assert!(text.contains("approved by") && text.contains('…'), "{text}");
    }
}
