//! What the commands of the journal share: where it is, moments on the command line, and errors.
//!
//! All of them but `audit checkpoint` and `restore` only read, so they work while a process writes.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::failure::{Exit, Failure};
use crate::{
    config::{
        file::{MOST_BYTES, read_text},
        parse,
        problem::escaped,
    },
    store::{PublicKey, Reader, StoreError},
};

/// Most that is read of a file with a checkpoint or a key: more than either may have.
const MAX_TEXT_BYTES: u64 = 128 * 1024;

/// The file of a journal in its folder.
const DATABASE: &str = "journal.db";

/// Where the journal is.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct JournalArguments {
    /// The folder of the journal. Commands that only read accept a backup, too.
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    state: Option<PathBuf>,
    /// The configuration file whose `state` names the folder.
    #[arg(long, value_name = "FILE", conflicts_with = "state")]
    config: Option<PathBuf>,
}

impl JournalArguments {
    /// The journal that they name.
    pub(super) fn place(&self) -> Result<JournalPlace, Failure> {
        match (&self.state, &self.config) {
            (Some(state), _) => Ok(JournalPlace(state.clone())),
            (None, Some(file)) => folder_of(file).map(JournalPlace),
            (None, None) => {
                Err(Failure::new(Exit::Arguments, "name the journal by --state or --config"))
            }
        }
    }
}

/// The folder of the journal in the configuration `file`. The files that it names are not read: who reads the
/// journal may not be permitted to.
pub(super) fn folder_of(file: &Path) -> Result<PathBuf, Failure> {
    let shown = escaped(&file.display().to_string());
    let no = |why: &str| Failure::new(Exit::File, format!("{shown}: {why}"));
    let text = read_text(file, MOST_BYTES).map_err(|error| no(&error.to_string()))?;
    let config =
        parse(&text).map_err(|problems| Failure::new(Exit::File, problems.in_file(file)))?;
    let folder = config.state.map(|state| state.folder().to_owned());
    folder.ok_or_else(|| no("it has no `state`, so the process that uses it has no journal"))
}

/// The folder of a journal, or a backup.
#[derive(Debug, Clone)]
pub(super) struct JournalPlace(PathBuf);

impl JournalPlace {
    /// The folder, or the backup.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The failure of a command on this journal.
    pub(super) fn failure(&self, error: StoreError) -> Failure {
        failure_at(self.path(), error)
    }

    /// Opens the journal for reading.
    pub(super) fn reader(&self) -> Result<Reader, Failure> {
        open(self.path())
    }
}

/// A checkpoint to compare with.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct NoteArguments {
    /// The file of a checkpoint that was kept elsewhere: entries that are missing since then are found.
    #[arg(long, value_name = "NOTE-FILE")]
    against: Option<PathBuf>,
    /// The public key that must have signed the checkpoint, or a file with it.
    #[arg(long, value_name = "KEY", requires = "against")]
    key: Option<String>,
}

impl NoteArguments {
    /// Whether there is a checkpoint to compare with.
    pub(super) fn is_given(&self) -> bool {
        self.against.is_some()
    }

    /// Reads the checkpoint, if one is given.
    pub(super) fn note(&self) -> Result<Option<String>, Failure> {
        self.against.as_deref().map(|path| read_small(path, "a checkpoint")).transpose()
    }

    /// Reads the key, if one is given.
    pub(super) fn key(&self) -> Result<Option<PublicKey>, Failure> {
        let Some(text) = &self.key else { return Ok(None) };
        if let Ok(key) = text.parse() {
            return Ok(Some(key));
        }
        let what = "neither a public key (NAME+ID+BASE64, as `tidegate audit checkpoint` names it) nor a \
                    file with one";
        let key = read_small(Path::new(text), "a public key").ok().and_then(|text| key_in(&text));
        let shown = escaped(text);
        key.map(Some).ok_or_else(|| Failure::new(Exit::File, format!("--key {shown}: {what}")))
    }
}

/// Opens the journal in the folder, or the backup, at `path` for reading.
pub(super) fn open(path: &Path) -> Result<Reader, Failure> {
    let shown = escaped(&path.display().to_string());
    let no = |why: &str| Failure::new(Exit::File, format!("{shown}: {why}"));
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(no(
                "there is nothing at this path; name the folder of a journal, or a backup",
            ));
        }
        Err(error) => return Err(no(&error.to_string())),
    };
    if !found.is_dir() {
        return Reader::of_file(path).map_err(|error| failure_at(path, error));
    }
    match std::fs::symlink_metadata(path.join(DATABASE)) {
        Ok(_) => Reader::open(path).map_err(|error| failure_at(path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(no("there is no journal in this folder: it has no file `journal.db`"))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(no(&format!("{error}; run this as the user to whom the folder belongs")))
        }
        Err(error) => Err(no(&error.to_string())),
    }
}

/// The failure of a command for an error of the journal, or the backup, at `path`.
pub(super) fn failure_at(path: &Path, error: StoreError) -> Failure {
    let StoreError::Database(source) = &error else { return failure(error) };
    let is_damaged = source.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt);
    let hint = if is_damaged { "; it is damaged, or was cut off: use a backup" } else { "" };
    let text = format!("{}: the database cannot be read: {source}{hint}", path.display());
    Failure::new(Exit::File, escaped(&text))
}

/// The same for an error that names its file itself.
pub(super) fn failure(error: StoreError) -> Failure {
    use StoreError as E;
    let (exit, hint) = match &error {
        E::Exists(_) => (Exit::Refused, "; name a new file"),
        E::NotEmpty(_) => (Exit::Refused, "; name an empty folder, or a new one"),
        E::Unverified { .. } => {
            (Exit::Refused, "; `tidegate audit verify` lists all that is wrong")
        }
        E::Damaged { .. } => (Exit::Refused, "; `tidegate audit verify` shows what is wrong"),
        E::NotAJournal(_) => (
            Exit::File,
            "; it takes the folder of a journal, or a file that `tidegate backup` made",
        ),
        E::Locked { .. } | E::Full(_) | E::Unknown(_) | E::Refused(_) | E::Busy | E::Closed => {
            (Exit::Unavailable, "")
        }
        E::OldSqlite(_) | E::Unfit(_) => (Exit::Fault, ""),
        _ => (Exit::File, ""),
    };
    Failure::new(exit, format!("{}{hint}", escaped(&error.to_string())))
}

/// Whether the reader of the output has gone, as `head` does.
pub(super) fn is_reader_gone(error: &StoreError) -> bool {
    matches!(error, StoreError::File { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
}

/// Refuses a new file inside of the folder of the journal, where SQLite and the next start would take it for
/// theirs.
pub(super) fn refuse_inside(file: &Path, folder: &Path) -> Result<(), Failure> {
    let above = match file.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    let (Ok(above), Ok(folder)) = (above.canonicalize(), folder.canonicalize()) else {
        return Ok(());
    };
    if folder.is_dir() && above.starts_with(&folder) {
        let shown = escaped(&file.display().to_string());
        let why = "this is in the journal's own folder, with which it would be lost; name a file elsewhere";
        return Err(Failure::new(Exit::Refused, format!("{shown}: {why}")));
    }
    Ok(())
}

/// A moment on the command line: RFC 3339, a day, or a time before now.
pub(super) fn moment(text: &str) -> Result<SystemTime, String> {
    moment_at(text, SystemTime::now())
}

fn moment_at(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let wrong = || {
        "no time; write 2026-01-31T12:00:00Z, 2026-01-31 for its beginning in UTC, or 2h for two hours ago"
            .to_owned()
    };
    let text = text.trim();
    let ago = text.strip_suffix(" ago").unwrap_or(text);
    if let Ok(ago) = humantime::parse_duration(ago) {
        return now.checked_sub(ago).filter(|at| *at >= SystemTime::UNIX_EPOCH).ok_or_else(wrong);
    }
    if text.len() == 10 {
        return humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).map_err(|_| wrong());
    }
    let (local, east, minutes) = offset(text).ok_or_else(wrong)?;
    let at = humantime::parse_rfc3339(&format!("{local}Z")).map_err(|_| wrong())?;
    let offset = Duration::from_secs(minutes * 60);
    let at = if east { at.checked_sub(offset) } else { at.checked_add(offset) };
    at.ok_or_else(wrong)
}

/// Local time, whether its zone is east of UTC, and by how many minutes.
fn offset(text: &str) -> Option<(&str, bool, u64)> {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Some((local, true, 0));
    }
    let (local, zone) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let east = match zone.get(..1)? {
        "+" => true,
        "-" => false,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some((local, east, hours * 60 + minutes))
}

/// Text for people: `1 entry`, `2 entries`.
pub(super) fn entries(count: u64) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}

/// The public key in a text, which may be the sentence with which `audit checkpoint` names it.
fn key_in(text: &str) -> Option<PublicKey> {
    let words = text.split_whitespace().map(|word| word.trim_matches([',', ';', '.', '`']));
    words.filter_map(|word| word.parse().ok()).next()
}

/// Reads a small file of text.
fn read_small(path: &Path, what: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(MAX_TEXT_BYTES).read_to_string(&mut text));
    read.map(|_| text).map_err(|error| {
        let shown = escaped(&path.display().to_string());
        Failure::new(Exit::File, format!("{shown}: no file with {what} can be read: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_the_sentence_that_names_it() {
        let key = "tidegate/edge-1/6b1f0c52a7f24be1a6c0d2c3b1a9e8f7";
        let key = crate::store::SigningKey::from_seed(key, [1; 32]).unwrap().public().clone();
        for text in [
            format!("{key}\n"),
            format!("made now, signed with the key {key}\n"),
            format!(
                "this is the last checkpoint, signed with the key {key}; 2 entries came later."
            ),
        ] {
            assert_eq!(key_in(&text), Some(key.clone()), "{text}");
        }
        assert_eq!(key_in("no key, edge+1+x"), None);
    }

    #[test]
    fn a_moment_is_written_in_several_ways() {
        let at = |seconds| Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for (text, seconds) in [
            ("2h", 1_699_992_800),
            ("2h ago", 1_699_992_800),
            ("1day 1s", 1_699_913_599),
            ("2023-11-14T22:13:20Z", 1_700_000_000),
            ("2023-11-14T22:13:20z", 1_700_000_000),
            ("2023-11-15T00:13:20+02:00", 1_700_000_000),
            ("2023-11-14T16:43:20-05:30", 1_700_000_000),
            ("2023-11-14", 1_699_920_000),
        ] {
            assert_eq!(moment_at(text, now), at(seconds), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2023-11-14T22:13:20",
            "2023-13-14",
            "100y",
            "2023-11-14T22:13:20+2:00",
            "é+éé:00",
        ] {
            assert!(moment_at(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn a_new_file_is_not_in_the_folder_of_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("sub");
        std::fs::create_dir(&inside).unwrap();
        for file in [folder.path().join("a"), inside.join("a"), inside.join("../a")] {
            let failure = refuse_inside(&file, folder.path()).unwrap_err();
            assert_eq!(failure.exit, Exit::Refused, "{}", file.display());
        }
        assert_eq!(refuse_inside(&folder.path().with_extension("db"), folder.path()), Ok(()));
    }
}
