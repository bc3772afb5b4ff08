//! Entries as a table for change reports, in CSV (RFC 4180).
//!
//! The columns stay: a later release adds new ones behind them. Spreadsheets run a cell that begins with `=`
//! and the like as a formula; operators choose reasons and names, so such a cell gets an apostrophe before it.
//! What a program obeys instead of showing it, as line breaks and overrides of the direction, is escaped.

use std::{borrow::Cow, io};

use super::{
    entry::{Entry, Impact, written},
    hash::Hash,
};
use crate::config::problem::escaped;

/// The names of the columns, in their order.
pub const COLUMNS: [&str; 24] = [
    "seq",
    "time",
    "node",
    "kind",
    "service",
    "impact",
    "ticket",
    "actor",
    "role",
    "address",
    "second",
    "reason",
    "before",
    "after",
    "verdict",
    "generation",
    "epoch",
    "config_hash",
    "binary_version",
    "binary_sha256",
    "written_late_ms",
    "boot",
    "hash",
    "split",
];

/// Writes a report, row by row.
pub struct ReportWriter<W: io::Write>(csv::Writer<W>);

impl<W: io::Write> ReportWriter<W> {
    /// Writes the names of the columns to `to`.
    pub fn new(to: W) -> io::Result<Self> {
        let mut writer =
            csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(to);
        writer.write_record(COLUMNS).map_err(as_io)?;
        Ok(Self(writer))
    }

    /// Writes the row of an entry.
    pub fn row(&mut self, entry: &Entry, hash: Hash) -> io::Result<()> {
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let json = |value: &serde_json::Value| match value {
            serde_json::Value::Null => String::new(),
            value => value.to_string(),
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let cells: [String; 24] = [
            entry.seq.to_string(),
            written(entry.at),
            entry.node.clone(),
            entry.kind.clone(),
            text(&entry.service),
            match entry.impact {
                Some(Impact::High) => "high".to_owned(),
                Some(Impact::Low) => "low".to_owned(),
                None => String::new(),
            },
            text(&entry.ticket),
            entry.actor.name.clone(),
            entry.actor.role.clone(),
            text(&entry.actor.address),
            text(&entry.second),
            entry.reason.clone(),
            json(&entry.before),
            json(&entry.after),
            entry.verdict.as_ref().map(json).unwrap_or_default(),
            entry.generation.to_string(),
            number(entry.epoch),
            text(&entry.config_hash),
            entry.binary.version.clone(),
            entry.binary.sha256.clone(),
            number(entry.written_late_ms),
            entry.boot.clone(),
            hash.to_string(),
            number(entry.split),
        ];
        let cells = cells.iter().map(|cell| harmless(&escaped(cell)).into_owned());
        self.0.write_record(cells).map_err(as_io)
    }

    /// Writes out what is buffered.
    pub fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The error of the file itself, so that its kind shows, such as that of a full disk.
fn as_io(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// `cell` such that no spreadsheet takes it for a formula.
fn harmless(cell: &str) -> Cow<'_, str> {
    // The second four are their full-width forms, which some programs read as the same.
    let begins_formula = |c: char| "=+-@\u{ff1d}\u{ff0b}\u{ff0d}\u{ff20}".contains(c);
    let is_risky = cell.starts_with(['\t', '\r', '\n'])
        || cell.trim_start().starts_with(begins_formula)
        || cell.starts_with('\'');
    if is_risky { Cow::Owned(format!("'{cell}")) } else { Cow::Borrowed(cell) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::json;

    use super::*;
    use crate::store::{
        chain::{Head, seal},
        entry::{Actor, Binary, Draft, Identity, Stamp},
    };

    fn entry(change: impl FnOnce(&mut Draft)) -> Entry {
        let actor = Actor {
            name: "ann".to_owned(),
            role: "operator".to_owned(),
            address: Some("10.0.0.1".to_owned()),
        };
        let mut draft = Draft::new("weights", actor, "more players");
        draft.service = Some("game-api".to_owned());
        (draft.before, draft.after) = (json!({ "v41": 95 }), json!({ "v41": 90 }));
        (draft.generation, draft.epoch, draft.split) = (7, Some(1_795_877_074_038), Some(3));
        change(&mut draft);
        let identity = Identity {
            node: "edge-1".to_owned(),
            boot: "b".to_owned(),
            binary: Binary { version: "0.1.0".to_owned(), sha256: "ab".to_owned() },
        };
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let sealed = seal(Head::START, draft, Stamp { at, mono_ms: 5 }, &identity, Some(12));
        serde_json::from_str(&sealed.unwrap().line).unwrap()
    }

    fn rows(entries: &[Entry]) -> String {
        let mut csv = Vec::new();
        let mut report = ReportWriter::new(&mut csv).unwrap();
        entries.iter().for_each(|entry| report.row(entry, Hash::ZERO).unwrap());
        report.finish().unwrap();
        String::from_utf8(csv).unwrap()
    }

    #[test]
    fn a_row_has_all_that_an_entry_says() {
        let csv = rows(&[entry(|_| {})]);
        let (names, row) = csv.split_once("\r\n").unwrap();
        assert_eq!(names, COLUMNS.join(","));
        let hash = Hash::ZERO;
        assert_eq!(
            row,
            format!(
                "1,2023-11-14T22:13:20.123Z,edge-1,weights,game-api,,,ann,operator,10.0.0.1,,\
                 more players,\"{{\"\"v41\"\":95}}\",\"{{\"\"v41\"\":90}}\",,7,1795877074038,,0.1.0,ab,12,b,{hash},3\r\n"
            )
        );
    }

    #[test]
    fn no_cell_is_a_formula_and_each_is_read_again() {
        let reasons = [
            "=1+1",
            "+1",
            "-1",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            "\n=1",
            " =1",
            "＝1",
            "'=1",
            "a,b",
            "a\"b",
            "a\nb",
            "a\u{202e}b",
            "plain",
        ];
        let entries = reasons.map(|reason| entry(|draft| draft.reason = reason.to_owned()));
        let csv = rows(&entries);
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let at = COLUMNS.iter().position(|name| *name == "reason").unwrap();
        let read: Vec<String> = reader.records().map(|row| row.unwrap()[at].to_owned()).collect();
        let expected = reasons.map(|reason| match reason {
            "a,b" | "a\"b" | "plain" => reason.to_owned(),
            obeyed if obeyed.contains(['\t', '\r', '\n', '\u{202e}']) => escaped(obeyed),
            risky => format!("'{risky}"),
        });
        assert_eq!(read, expected);
        let formula = entry(|draft| draft.after = json!(-5));
        assert!(rows(&[formula]).contains(",'-5,"));
    }
}
