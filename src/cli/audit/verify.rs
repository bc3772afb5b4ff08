//! `tidegate audit verify`: what is wrong with a journal, and what that means.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::progress::{Progress, Watched};
use crate::{
    cli::{
        failure::{Exit, Failure},
        journal::{NoteArguments, entries, folder_of, open},
        say::{say, say_json},
    },
    config::problem::escaped,
    store::{
        Checkpoint, Fault, Hash, Head, MAX_LINE_BYTES, NoteError, PublicKey, Reader, StoreError,
        Verification, Verifier, verify_export,
    },
    telemetry::rfc3339,
};

/// How a database of SQLite begins.
const DATABASE: &[u8] = b"SQLite format 3\0";

/// Arguments of `tidegate audit verify`.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArguments {
    /// An export, a backup, or the folder of a journal; `-` is an export on standard input.
    #[arg(value_name = "FILE", required_unless_present_any = ["state", "config"],
          conflicts_with_all = ["state", "config"])]
    file: Option<PathBuf>,
    /// The folder of the journal.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    state: Option<PathBuf>,
    /// The configuration file whose `state` names the folder.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    note: NoteArguments,
    /// The export begins behind this entry, as `audit export --after SEQ` wrote it.
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What is verified.
enum Input {
    /// The database of a folder, or a backup.
    Database(Reader),
    /// JSON lines, and their length if it is known.
    Export(Box<dyn BufRead>, Option<u64>),
}

/// The checkpoint that was compared with.
struct Noted {
    text: String,
    checkpoint: Checkpoint,
    is_key_given: bool,
}

/// Verifies a journal.
pub(super) fn run(arguments: &VerifyArguments) -> Result<ExitCode, Failure> {
    let VerifyArguments { file, state, config, note, after, json } = arguments;
    let found = match config {
        Some(config) => Some(folder_of(config)?),
        None => file.clone().or_else(|| state.clone()),
    };
    let path = found.as_deref().expect("one of the three is required");
    let shown = escaped(&path.display().to_string());
    let unreadable = |why: String| Failure::new(Exit::File, format!("{shown}: {why}"));
    let key = note.key()?;
    let noted = match note.note()? {
        None => None,
        Some(text) => {
            // A malformed note says nothing of the journal; a wrong signature may.
            let signed = key.as_ref().map(|key| Checkpoint::verify(&text, key));
            let checkpoint = match signed {
                Some(Err(malformed @ NoteError::Malformed(_))) => Err(malformed),
                _ => Checkpoint::read(&text),
            };
            let checkpoint = checkpoint
                .map_err(|error| Failure::new(Exit::File, format!("--against: {error}")))?;
            Some(Noted { text, checkpoint, is_key_given: key.is_some() })
        }
    };
    let text = noted.as_ref().map(|noted| &*noted.text);
    let verification = match input(path)? {
        Input::Database(_) if after.is_some() => {
            let why = "--after is for a part of an export; this is a whole journal";
            return Err(Failure::new(Exit::Arguments, format!("{shown}: {why}")));
        }
        Input::Database(reader) => {
            let verification = of_database(&reader, text, key.as_ref());
            match !verification.is_intact() && reader.is_disturbed() {
                // A process that has begun to write meanwhile is no fault.
                true => of_database(&open(path)?, text, key.as_ref()),
                false => verification,
            }
        }
        Input::Export(lines, length) => {
            let (start, lines) = match after {
                None => (Head::START, lines),
                Some(after) => start(*after, noted.as_ref(), lines).map_err(&unreadable)?,
            };
            let mut verifier = Verifier::after(start);
            if let Some(text) = text {
                verifier = verifier.against(text, key.as_ref());
            }
            let read = verify_export(verifier, Watched::new(lines, length));
            let verification = read.map_err(|error| unreadable(error.to_string()))?;
            if is_something_else(&verification) {
                let why = "no line of this file is an entry: it is neither an export nor a backup";
                return Err(unreadable(why.to_owned()));
            }
            verification
        }
    };
    let first = after.unwrap_or(0);
    match json {
        true => say_json(&as_json(path, &verification, first, noted.as_ref()))?,
        false => say(&report(&shown, &verification, first, noted.as_ref())),
    }
    let is_intact = verification.is_intact();
    Ok(if is_intact { ExitCode::SUCCESS } else { Exit::Refused.into() })
}

fn of_database(reader: &Reader, note: Option<&str>, key: Option<&PublicKey>) -> Verification {
    // Without it the progress has no end, and the verification finds out why.
    let total = reader.head().ok().map(|head| head.seq);
    let mut progress = Progress::of("entries", total);
    let mut verification = reader.verify_counted(note, key, &mut || progress.add(1));
    if verification.is_intact()
        && let Err(error) = reader.check_integrity()
    {
        let why = match error {
            StoreError::Damaged { why, .. } => why,
            error => error.to_string(),
        };
        verification.faults.push(Fault::Pages { why });
    }
    verification
}

fn input(path: &Path) -> Result<Input, Failure> {
    if path == Path::new("-") {
        return Ok(Input::Export(Box::new(BufReader::new(io::stdin())), None));
    }
    // A pipe is an export, such as one that another program decompresses.
    if path.is_dir() || !path.exists() {
        return open(path).map(Input::Database);
    }
    let of_file = |error: io::Error| {
        let shown = escaped(&path.display().to_string());
        Failure::new(Exit::File, format!("{shown}: {error}"))
    };
    let file = File::open(path).map_err(of_file)?;
    let length = file.metadata().ok().map(|data| data.len());
    let mut lines = BufReader::new(file);
    if lines.fill_buf().map_err(of_file)?.starts_with(DATABASE) {
        return open(path).map(Input::Database);
    }
    Ok(Input::Export(Box::new(lines), length))
}

/// The entry before a part of an export, and the part. Only the first line of the part names its hash, unless
/// the checkpoint does.
fn start(
    after: u64,
    noted: Option<&Noted>,
    mut lines: Box<dyn BufRead>,
) -> Result<(Head, Box<dyn BufRead>), String> {
    #[derive(Deserialize)]
    struct First {
        prev: Hash,
    }
    let mut line = Vec::new();
    let read = (&mut lines).take(MAX_LINE_BYTES as u64 + 2).read_until(b'\n', &mut line);
    read.map_err(|error| error.to_string())?;
    let noted = noted.map(|noted| noted.checkpoint.head).filter(|head| head.seq == after);
    let head = match (noted, serde_json::from_slice::<First>(&line)) {
        (Some(head), _) => head,
        (None, Ok(First { prev })) => Head { seq: after, hash: prev },
        (None, Err(_)) => return Err("its first line does not name the entry before it".to_owned()),
    };
    Ok((head, Box::new(Cursor::new(line).chain(lines))))
}

/// Whether the lines are not those of a journal at all.
fn is_something_else(verification: &Verification) -> bool {
    let is_malformed = |fault: &Fault| matches!(fault, Fault::Malformed { .. });
    verification.entries == 0 && verification.faults.iter().any(is_malformed)
}

/// The result for people.
fn report(shown: &str, verification: &Verification, after: u64, noted: Option<&Noted>) -> String {
    let Verification { head, origin, faults, more_faults, .. } = verification;
    let mut lines = Vec::new();
    let count = entries(verification.entries);
    let of = origin.as_ref().map(|origin| format!(" of `{}`", escaped(origin))).unwrap_or_default();
    if faults.is_empty() {
        lines.push(format!(
            "{shown}: intact: {count}{of}, the last is {} ({})",
            head.seq, head.hash
        ));
    } else {
        let more = faults.len() as u64 + more_faults;
        let number = if more == 1 { "1 fault".to_owned() } else { format!("{more} faults") };
        lines.push(format!("{shown}: NOT INTACT: {number} in {count}{of}"));
        for fault in faults {
            lines.push(format!("  {}; {}", escaped(&fault.to_string()), meaning(fault, after)));
        }
        if *more_faults > 0 {
            lines.push(format!("  and {more_faults} more faults"));
        }
    }
    if after > 0 {
        lines.push(format!("entries up to {after} are not in this file, and were not verified"));
    }
    match noted {
        None => lines.push(
            "not compared with a checkpoint: entries that were cut off the end, or a journal that was \
             written anew, do not show; `--against NOTE-FILE` finds them"
                .to_owned(),
        ),
        Some(noted) => compared(noted, verification, &mut lines),
    }
    if !faults.is_empty() {
        lines.push(
            "Keep this as it is, as evidence, and verify a backup or an export from before: \
             docs/journal.md#what-to-do-with-faults"
                .to_owned(),
        );
    }
    lines.join("\n")
}

fn compared(noted: &Noted, verification: &Verification, lines: &mut Vec<String>) {
    let Checkpoint { head, at, .. } = &noted.checkpoint;
    let at = rfc3339::seconds(*at);
    // A checkpoint with another signature was not compared with, which is among the faults.
    let is_refused = verification.faults.iter().any(|fault| matches!(fault, Fault::Note { .. }));
    if is_refused {
        return;
    }
    let signed = if noted.is_key_given {
        "signed by the given key"
    } else {
        "its signature was not checked: `--key KEY` does that"
    };
    lines.push(format!(
        "compared with the checkpoint of entry {}, made at {at}; {signed}",
        head.seq
    ));
    let later = verification.head.seq.saturating_sub(head.seq);
    if later > 0 && verification.is_intact() {
        lines.push(format!(
            "{} later than the checkpoint: that none is missing behind them is not proven",
            if later == 1 { "1 entry is".to_owned() } else { format!("{later} entries are") }
        ));
    }
}

/// What a fault means for those who rely on the journal.
fn meaning(fault: &Fault, after: u64) -> String {
    match fault {
        Fault::Changed { .. } => {
            "its content is not what was written; the entries before and behind it are".to_owned()
        }
        Fault::StoredHash { .. } => {
            "its content is as it was written, but somebody, or a broken disk, changed the database".to_owned()
        }
        Fault::Columns { .. } => {
            "its content is as it was written, but `audit show` and `audit report` may list it wrongly or not \
             at all: use an export"
                .to_owned()
        }
        Fault::Unlinked { .. } => "do not rely on either, unless a backup or an export has them, too".to_owned(),
        Fault::Malformed { .. } => "it was changed, or the file is damaged there".to_owned(),
        Fault::Missing { from: 1, to } if after == 0 => format!(
            "{} from the beginning; if this is a part, made with `export --after {to}`, verify it with \
             `--after {to}`",
            were(*to, "taken out")
        ),
        Fault::Missing { from, to } => were(to.saturating_sub(*from).saturating_add(1), "taken out"),
        Fault::OutOfOrder { .. } => "somebody moved it".to_owned(),
        Fault::Repeated { .. } => "one was put in later; the chain holds without this one".to_owned(),
        Fault::CutTail { last, noted } => match noted.saturating_sub(*last) {
            1 => "1 entry is missing: it existed when the checkpoint was made".to_owned(),
            missing => {
                format!("{missing} entries are missing: they existed when the checkpoint was made")
            }
        },
        Fault::NotAsNoted { .. } => "rely on no entry up to it".to_owned(),
        Fault::OtherJournal { .. } => {
            "compare with a checkpoint of this journal; if there should be the other one here, it was replaced"
                .to_owned()
        }
        Fault::EndDiffers { .. } => "the last entry is not certain, those before it are".to_owned(),
        Fault::NoEnd { .. } => {
            "entries may be missing behind it; export again, or compare with a checkpoint".to_owned()
        }
        Fault::BehindEnd { .. } => "it was added after the export was made; it is no part of the journal".to_owned(),
        Fault::Note { .. } => {
            "so nothing was compared with it: use the key that the journal named when it was made".to_owned()
        }
        Fault::Unreadable { .. } => {
            "what is behind it was not verified; restore a backup into an empty folder".to_owned()
        }
        Fault::OwnCheckpoint { .. } => {
            "compare with a checkpoint that was kept elsewhere: who changed the entries could not sign this one anew, \
             or forgot it"
                .to_owned()
        }
        Fault::StateAhead { last, newest } => {
            were(newest.saturating_sub(*last), "taken out, at least")
        }
        Fault::Pages { .. } => {
            "its entries are as they were written, but queries may miss some: export them, and restore a backup \
             into an empty folder"
                .to_owned()
        }
        Fault::Empty => "everything was taken out, or nothing was ever written".to_owned(),
    }
}

fn were(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 entry was {what}"),
        count => format!("{count} entries were {what}"),
    }
}

/// The result for programs.
fn as_json(path: &Path, verification: &Verification, after: u64, noted: Option<&Noted>) -> Value {
    let Verification { entries, head, origin, faults, more_faults } = verification;
    let faults: Vec<Value> = faults
        .iter()
        .map(|fault| {
            json!({ "seq": fault.seq(), "fault": fault.to_string(), "meaning": meaning(fault, after) })
        })
        .collect();
    let checkpoint = noted.map(|Noted { checkpoint, is_key_given, .. }| {
        json!({
            "seq": checkpoint.head.seq,
            "hash": checkpoint.head.hash,
            "at": rfc3339::millis(checkpoint.at).to_string(),
            "signature_checked": is_key_given,
        })
    });
    json!({
        "path": path.to_string_lossy(),
        "intact": verification.is_intact(),
        "entries": entries,
        "after": after,
        "seq": head.seq,
        "hash": head.hash,
        "origin": origin,
        "checkpoint": checkpoint,
        "faults": faults,
        "more_faults": more_faults,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verification(faults: Vec<Fault>) -> Verification {
        let head = Head { seq: 7, hash: Hash::ZERO };
        let origin = Some("tidegate/edge-1/00".to_owned());
        Verification { entries: 7, head, origin, faults, more_faults: 0 }
    }

    #[test]
    fn a_fault_is_named_with_its_entry_and_what_it_means() {
        let cut = Fault::CutTail { last: 7, noted: 10 };
        let missing = Fault::Missing { from: 3, to: 3 };
        let text = report("x", &verification(vec![missing, cut]), 0, None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "x: NOT INTACT: 2 faults in 7 entries of `tidegate/edge-1/00`");
        assert_eq!(lines[1], "  entry 3 is missing; 1 entry was taken out");
        assert_eq!(
            lines[2],
            "  the end was cut off: the last entry is 7, and the checkpoint names entry 10; 3 entries are \
             missing: they existed when the checkpoint was made"
        );
        assert!(lines[4].starts_with("Keep this as it is"), "{text}");
    }

    #[test]
    fn what_is_not_proven_is_said() {
        let text = report("x", &verification(Vec::new()), 0, None);
        assert!(
            text.starts_with("x: intact: 7 entries of `tidegate/edge-1/00`, the last is 7 (0"),
            "{text}"
        );
        assert!(text.contains("\nnot compared with a checkpoint: "), "{text}");
        let checkpoint = Checkpoint {
            origin: "tidegate/edge-1/00".to_owned(),
            head: Head { seq: 5, hash: Hash::ZERO },
            at: std::time::SystemTime::UNIX_EPOCH,
        };
        let noted = Noted { text: String::new(), checkpoint, is_key_given: false };
        let text = report("x", &verification(Vec::new()), 0, Some(&noted));
        assert!(text.contains("\ncompared with the checkpoint of entry 5, made at 1970"), "{text}");
        assert!(text.contains("its signature was not checked"), "{text}");
        assert!(text.contains("\n2 entries are later than the checkpoint"), "{text}");
    }
}
