//! The commands of the journal: what they print, what they refuse, and the exit codes that scripts go by.

mod copies;
mod untouched;
mod verify;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::SystemTime,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::store::{
    Actor, COLUMNS, Draft, Head, Identity, Impact, Journal, Settings, StateChange,
};

use crate::support::process::program;

/// A journal in a folder, and a place for files beside it.
struct Fixture {
    above: TempDir,
    folder: PathBuf,
}

impl Fixture {
    /// A journal with `count` changes behind its first entry, written by nobody now.
    fn with(count: u64) -> Self {
        let fixture = Self::empty();
        let journal = fixture.open();
        for n in 1..=count {
            write(&journal, change(n));
        }
        journal.close();
        fixture
    }

    fn empty() -> Self {
        let above = tempfile::tempdir().expect("a folder");
        let folder = above.path().join("state");
        Self { above, folder }
    }

    fn open(&self) -> Journal {
        let identity = Identity::of_this_process("edge-1");
        let settings = Settings { folder: self.folder.clone(), identity, replaces: None };
        Journal::open(&settings).expect("a journal")
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.above.path().join(name)
    }

    /// Runs the program with `arguments` and `--state` of this journal.
    fn run(&self, arguments: &[&str]) -> Output {
        run(&[arguments, &["--state", text(&self.folder)]].concat())
    }
}

/// What the program did.
#[derive(Debug)]
struct Output {
    code: Option<i32>,
    out: String,
    error: String,
}

impl Output {
    /// The output of a command that succeeds.
    #[track_caller]
    fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Standard error of a command that ends with `code`.
    #[track_caller]
    fn fails(self, code: i32) -> String {
        assert_eq!((self.code, &*self.out), (Some(code), ""), "{self:?}");
        self.error
    }
}

fn run(arguments: &[&str]) -> Output {
    let output = program().args(arguments).output().expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Output { code: output.status.code(), out: text(output.stdout), error: text(output.stderr) }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// The change number `n`; of every third one the service is `wallet`, and of every fourth one the actor `bob`.
fn change(n: u64) -> Draft {
    let name = if n.is_multiple_of(4) { "bob" } else { "ann" };
    let actor = Actor { name: name.to_owned(), role: "operator".to_owned(), address: None };
    let mut draft = Draft::new("weights", actor, format!("step {n}"));
    draft.service = Some(if n.is_multiple_of(3) { "wallet" } else { "game-api" }.to_owned());
    (draft.before, draft.after) = (json!({ "v42": n - 1 }), json!({ "v42": n }));
    draft
}

fn write(journal: &Journal, draft: Draft) -> Head {
    let state =
        StateChange { key: "weights".to_owned(), value: Some(draft.after.to_string().into()) };
    journal.submit(draft, vec![state]).expect("room").wait().expect("written")
}

/// The numbers of the entries in JSON lines.
fn numbers(lines: &str) -> Vec<u64> {
    let number = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["seq"].as_u64();
    lines.lines().map(|line| number(line).expect("a number")).collect()
}

/// Nothing but one line that names what is wrong.
#[track_caller]
fn assert_says(error: &str, expected: &[&str]) {
    assert_eq!(error.lines().count(), 1, "{error}");
    for expected in expected {
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn entries_are_shown_by_what_they_say() {
    let fixture = Fixture::with(9);
    let show = |arguments: &[&str]| {
        numbers(&fixture.run(&[&["audit", "show", "--json"], arguments].concat()).done())
    };
    assert_eq!(show(&[]), (1..=10).collect::<Vec<_>>());
    assert_eq!(show(&["--service", "wallet"]), [4, 7, 10]);
    assert_eq!(show(&["--by", "bob"]), [5, 9]);
    assert_eq!(show(&["--by", "bob", "--service", "wallet"]), [0; 0]);
    assert_eq!(show(&["--kind", "genesis"]), [1]);
    assert_eq!(show(&["--limit", "2"]), [9, 10], "the last ones");
    assert_eq!(show(&["--after", "3", "--limit", "2"]), [4, 5], "the next ones");
    assert_eq!(show(&["--from", "1h"]).len(), 10);
    assert_eq!(show(&["--to", "1h"]), [0; 0]);
    assert_eq!(show(&["--from", "2020-01-01", "--to", "2020-01-02T00:00:00+02:00"]), [0; 0]);
}

#[test]
fn entries_are_a_table_for_people() {
    let fixture = Fixture::empty();
    let journal = fixture.open();
    write(&journal, change(1));
    let mut draft = Draft::new("ejected", Actor::system(), "pays twice\n\u{1b}[2J");
    draft.service = Some("game-api".to_owned());
    draft.impact = Some(Impact::High);
    draft.ticket = Some("CHG-7".to_owned());
    draft.before = json!({ "version": "v42", "ejected": false });
    draft.after = json!({ "version": "v42", "ejected": true });
    write(&journal, draft);
    // A process writes meanwhile.
    let table = fixture.run(&["audit", "show"]).done();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.iter().all(|line| line.chars().count() <= 100), "{table}");
    assert!(lines[0].starts_with("SEQ  TIME "), "{table}");
    assert!(lines[1].ends_with("Z  tidegate        genesis  -"), "{table}");
    let at = lines.iter().position(|line| line.ends_with("Z  ann (operator)  weights  game-api"));
    let below = |at: usize| [lines[at + 1], lines[at + 2]];
    let at = at.expect("an entry");
    assert_eq!(below(at), ["     v42 0 -> 1", "     reason: step 1"], "{table}");
    let why = r"     reason: pays twice\n\u{1b}[2J; ticket CHG-7; high impact";
    assert_eq!(below(at + 3), ["     version v42: not ejected -> ejected", why], "{table}");
    let one = fixture.run(&["audit", "show", "--limit", "1"]);
    assert!(one.error.contains("there are more before entry 3"), "{one:?}");
    let none = fixture.run(&["audit", "show", "--service", "other"]).done();
    assert_eq!(none, "no entries\n");
}

#[test]
fn a_report_has_the_changes_of_a_period() {
    let fixture = Fixture::with(3);
    let report = |from: &str, to: &str| {
        fixture.run(&["audit", "report", "--from", from, "--to", to, "--format", "csv"])
    };
    let csv = report("1h", "0s").done();
    let rows: Vec<&str> = csv.split_terminator("\r\n").collect();
    assert_eq!(rows.len(), 5, "{csv}");
    assert_eq!(rows[0], COLUMNS.join(","));
    assert!(rows[2].starts_with("2,20") && rows[2].contains(",weights,game-api,,,ann,"), "{csv}");
    assert!(rows[2].contains("\"{\"\"v42\"\":0}\""), "{csv}");
    let earlier = report("2020-01-01", "2020-04-01");
    assert_eq!(earlier.error, "no entries in this time\n");
    assert_eq!(earlier.done(), format!("{}\r\n", COLUMNS.join(",")));
    assert_says(&report("1h", "2h").fails(2), &["--from is not before --to"]);
    let day = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    assert_says(&report(&day, &day[..10]).fails(2), &["--from is not before --to"]);
}

#[test]
fn a_mistake_is_named_with_what_would_be_right() {
    let fixture = Fixture::with(1);
    let other = fixture.beside("other");
    fs::create_dir(&other).expect("a folder");
    fs::write(fixture.beside("text"), "no journal, and longer than a header of one".repeat(9))
        .expect("a file");
    let (nowhere, file) = (fixture.beside("nowhere"), fixture.beside("text"));
    let show = |at: &Path| run(&["audit", "show", "--state", text(at)]);
    assert_says(&show(&nowhere).fails(64), &["nowhere: there is nothing at this path"]);
    assert_says(&show(&other).fails(64), &["other: there is no journal in this folder"]);
    assert_says(&show(&file).fails(64), &["text: this file is no journal", "`tidegate backup`"]);
    let wrong = |arguments: &[&str]| fixture.run(&[&["audit"], arguments].concat()).fails(2);
    assert!(wrong(&["show", "--from", "soon"]).contains("write 2026-01-31T12:00:00Z"));
    assert!(wrong(&["show", "--limit", "0"]).contains("1..=9999"));
    assert!(wrong(&["show", "--from", "1h", "--to", "2h"]).contains("--from is not before --to"));
    assert!(wrong(&["export", "--after", "3"]).contains("the last entry of this journal is 2"));
    assert!(run(&["audit", "show"]).fails(2).contains("--state <DIR>"));
    assert!(fs::read_dir(&other).expect("a folder").next().is_none(), "nothing was made there");
}

/// `audit report | head` said that a pipe is broken.
#[test]
fn a_reader_that_has_gone_is_no_error_and_a_full_disk_is_one() {
    let fixture = Fixture::with(3);
    let commands =
        [&["export"][..], &["report", "--from", "1h"], &["show", "--json"], &["checkpoint"]];
    for command in commands {
        let to = |out: Stdio| {
            let mut program = program();
            let program = program.args(["audit"]).args(command);
            let output = program.args(["--state", text(&fixture.folder)]).stdout(out).output();
            output.expect("the program runs")
        };
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = to(writer.into());
        assert_eq!(output.status.code(), Some(0), "{command:?}: {output:?}");
        if command[0] != "show" {
            let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
            let output = to(full.into());
            assert_eq!(output.status.code(), Some(64), "{command:?}: {output:?}");
            let error = String::from_utf8(output.stderr).expect("text");
            assert!(error.contains("No space left on device"), "{command:?}: {error}");
        }
    }
}
