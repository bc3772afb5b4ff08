//! `tidegate audit checkpoint`: the signed head of the journal, to be kept elsewhere.

use std::{
    io::{self, Write},
    path::Path,
};

use crate::{
    cli::{
        columns,
        failure::{Exit, Failure},
        journal::{JournalArguments, entries, failure},
        say::{complain, say},
    },
    config::problem::escaped,
    store::{
        Checkpoint, Filter, GENESIS, Identity, Journal, MOST_SHOWN, PublicKey, Reader, Settings,
        StoreError,
    },
    telemetry::rfc3339,
};

/// Most checkpoints that are listed.
const MOST_LISTED: u32 = 10_000;

/// How a process that has the journal makes checkpoints.
const BY_THE_PROCESS: &str = "only the process that writes a journal makes its checkpoints, one a day while \
                              it grows; while that process is stopped, this command makes one";

/// Arguments of `tidegate audit checkpoint`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckpointArguments {
    #[command(flatten)]
    journal: JournalArguments,
    /// List the checkpoints that are in the journal, the last one first, and make none.
    #[arg(long)]
    list: bool,
}

/// Prints the checkpoint on standard output as it is, so that it can be redirected to a file.
pub(super) fn run(arguments: &CheckpointArguments) -> Result<(), Failure> {
    let CheckpointArguments { journal, list } = arguments;
    let journal = journal.place()?;
    let reader = journal.reader()?;
    if *list {
        let notes = reader.checkpoints(MOST_LISTED).map_err(failure)?;
        say(&if notes.is_empty() { "no checkpoints".to_owned() } else { table(&notes) });
        return Ok(());
    }
    if !journal.path().is_dir() {
        let shown = escaped(&journal.path().display().to_string());
        let why = "a backup gets no new checkpoints; --list lists those that it has";
        return Err(Failure::new(Exit::Arguments, format!("{shown}: {why}")));
    }
    let found = reader.verify(None, None);
    if let Some(fault) = found.faults.first() {
        let shown = escaped(&format!("{}: {fault}", journal.path().display()));
        let why = "no checkpoint is made of a journal that is not as it was written; `tidegate audit verify` \
                   lists all that is wrong";
        return Err(Failure::new(Exit::Refused, format!("{shown}; {why}")));
    }
    let (note, remark) = match make(journal.path(), &reader) {
        Ok((note, key)) => (note, format!("made now, signed with the key {key}")),
        Err(error) => stored(&reader, error)?,
    };
    let written = io::stdout().write_all(note.as_bytes());
    if let Err(error) = written.or_else(gone) {
        return Err(Failure::new(
            Exit::File,
            format!("the checkpoint is in the journal, but: {error}"),
        ));
    }
    complain(&escaped(&remark));
    Ok(())
}

/// A reader of the output that has gone is no error.
fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

/// Makes a checkpoint, unless another process has the journal; returns it with the key that verifies it.
fn make(folder: &Path, reader: &Reader) -> Result<(String, String), StoreError> {
    let first = reader.show(&Filter { limit: Some(1), ..Filter::default() })?;
    let node = first.first().map(|first| first.entry.node.clone()).unwrap_or_default();
    let identity = Identity::of_this_process(&node);
    let journal = Journal::open(&Settings { folder: folder.to_owned(), identity, replaces: None })?;
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| StoreError::Refused(error.to_string()))?;
    let note = runtime.block_on(journal.checkpoint())?;
    Ok((note, journal.public_key().to_string()))
}

/// The last checkpoint in the journal, since none can be made because of `error`.
fn stored(reader: &Reader, error: StoreError) -> Result<(String, String), Failure> {
    let is_locked = matches!(error, StoreError::Locked { .. });
    let mut failure_of = failure(error);
    let why = failure_of.message.clone();
    let why = if is_locked { format!("{why}; {BY_THE_PROCESS}") } else { why };
    let last = reader.checkpoints(1).map_err(failure)?.pop();
    let Some((seq, note)) = last else {
        failure_of.message = format!("{why}. There is no checkpoint in the journal yet");
        return Err(failure_of);
    };
    let head = reader.head().map_err(failure)?.seq;
    let at = Checkpoint::read(&note).map(|read| rfc3339::seconds(read.at).to_string());
    let at = at.map(|at| format!(", made at {at}")).unwrap_or_default();
    let later = match head.saturating_sub(seq) {
        0 => "it is of the last entry".to_owned(),
        later => format!("{} came later", entries(later)),
    };
    let by = match signer(reader, &note)? {
        Some(key) => format!(", signed with the key {key}"),
        None => ", signed with a key that no entry names".to_owned(),
    };
    Ok((note, format!("this is the last checkpoint, of entry {seq}{at}{by}; {later}. {why}")))
}

/// The key that signed the checkpoint, among those that the journal names in entries.
fn signer(reader: &Reader, note: &str) -> Result<Option<PublicKey>, Failure> {
    for kind in ["checkpoint_key", GENESIS] {
        let filter = Filter {
            kind: Some(kind.to_owned()),
            limit: Some(MOST_SHOWN),
            newest_first: true,
            ..Filter::default()
        };
        for stored in reader.show(&filter).map_err(failure)? {
            let key = stored.entry.after["key"].as_str().and_then(|key| key.parse().ok());
            if let Some(key) = key.filter(|key| Checkpoint::verify(note, key).is_ok()) {
                return Ok(Some(key));
            }
        }
    }
    Ok(None)
}

fn table(notes: &[(u64, String)]) -> String {
    let mut table = columns::table();
    table.add_row(["SEQ", "MADE AT", "HASH"]);
    for (seq, note) in notes {
        let [at, hash] = match Checkpoint::read(note) {
            Ok(read) => [rfc3339::millis(read.at).to_string(), read.head.hash.to_string()],
            Err(error) => ["-".to_owned(), error.to_string()],
        };
        table.add_row([seq.to_string(), at, hash]);
    }
    columns::aligned(table, |column| column == 0)
}
