//! `tidegate backup` and `tidegate restore`: the journal as one file, and back.

use std::path::{Path, PathBuf};

use super::{
    failure::{Exit, Failure},
    journal::{JournalArguments, NoteArguments, entries, failure_at, refuse_inside},
    say::say,
};
use crate::{
    config::problem::escaped,
    store::{StoreError, restore},
};

/// Arguments of `tidegate backup`.
#[derive(Debug, clap::Args)]
pub(super) struct BackupArguments {
    #[command(flatten)]
    journal: JournalArguments,
    /// A new file.
    file: PathBuf,
}

/// Backs the journal up.
pub(super) fn run(arguments: &BackupArguments) -> Result<(), Failure> {
    let BackupArguments { journal, file } = arguments;
    let journal = journal.place()?;
    let reader = journal.reader()?;
    refuse_inside(file, journal.path())?;
    let head = reader.backup(file).map_err(|error| journal.failure(error))?;
    let shown = shown(file);
    let count = entries(head.seq);
    say(&format!(
        "{shown}: {count}, the last is {} ({})\n`tidegate audit verify {shown}` verifies it. The key of \
         checkpoints is not part of it.",
        head.seq, head.hash
    ));
    Ok(())
}

/// Arguments of `tidegate restore`.
#[derive(Debug, clap::Args)]
pub(super) struct RestoreArguments {
    /// A backup, as `tidegate backup` made it.
    file: PathBuf,
    /// The folder of the journal: a new one, or an empty one.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    #[command(flatten)]
    note: NoteArguments,
}

/// Verifies a backup, and puts it into the folder.
pub(super) fn put_back(arguments: &RestoreArguments) -> Result<(), Failure> {
    let RestoreArguments { file, state, note } = arguments;
    let (text, key) = (note.note()?, note.key()?);
    if !file.exists() {
        let why = "there is no such file; name a backup that `tidegate backup` made";
        return Err(Failure::new(Exit::File, format!("{}: {why}", shown(file))));
    }
    let verified = restore(file, state, text.as_deref(), key.as_ref()).map_err(|error| {
        let is_no_backup = matches!(error, StoreError::NotAJournal(_));
        let mut failure = failure_at(file, error);
        if is_no_backup {
            failure.message += "; an export (JSON lines) can be verified, but not restored";
        }
        failure
    })?;
    let into = shown(state);
    let head = verified.head;
    let mut text = format!(
        "{into}: restored {}, the last is {} ({})",
        entries(verified.entries),
        head.seq,
        head.hash
    );
    text += match note.is_given() {
        true => "\nIt has all entries up to the checkpoint.",
        false => {
            "\nIt was not compared with a checkpoint, so entries that are missing at its end do not show; \
             `tidegate audit verify --against NOTE-FILE` finds them."
        }
    };
    text += &format!(
        "\nNext: start the process with this folder. It continues from entry {}: what was changed after the \
         backup was made is not in force and must be made again. A rollout in progress is paused until \
         somebody resumes or aborts it. It makes a new key of checkpoints, and an \
         entry `checkpoint_key` names it; keep both keys.",
        head.seq
    );
    say(&text);
    Ok(())
}

fn shown(path: &Path) -> String {
    escaped(&path.display().to_string())
}
