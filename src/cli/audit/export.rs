//! `tidegate audit export`: the journal as JSON lines.

use std::{
    fs::{self, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::{
    cli::{
        failure::{Exit, Failure},
        journal::{JournalArguments, entries, failure, is_reader_gone, refuse_inside},
        say::say,
    },
    config::problem::escaped,
    store::{Head, Reader, StoreError},
};

/// Arguments of `tidegate audit export`.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArguments {
    #[command(flatten)]
    journal: JournalArguments,
    /// Only the entries behind this one.
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true)]
    after: u64,
    /// A new file; `-` is standard output.
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
}

/// Exports the journal.
pub(super) fn run(arguments: &ExportArguments) -> Result<(), Failure> {
    let ExportArguments { journal, after, file } = arguments;
    let journal = journal.place()?;
    let reader = journal.reader()?;
    let last = reader.head().map_err(|error| journal.failure(error))?.seq;
    if *after > last {
        let why = format!("--after {after}: the last entry of this journal is {last}");
        return Err(Failure::new(Exit::Arguments, why));
    }
    if file.as_os_str() == "-" {
        let mut out = BufWriter::new(io::stdout().lock());
        return match reader.export(*after, &mut out) {
            Err(error) if !is_reader_gone(&error) => Err(journal.failure(error)),
            _ => Ok(()),
        };
    }
    refuse_inside(file, journal.path())?;
    let head = to_file(&reader, *after, file)?;
    let (shown, count) = (escaped(&file.display().to_string()), entries(head.seq - *after));
    say(&format!("{shown}: {count}, the last is {} ({})", head.seq, head.hash));
    Ok(())
}

/// Exports to a new file, of which nothing is left if that fails.
fn to_file(reader: &Reader, after: u64, path: &Path) -> Result<Head, Failure> {
    let of_file = |source| failure(StoreError::File { path: path.to_owned(), source });
    let mut options = OpenOptions::new();
    let file = match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(failure(StoreError::Exists(path.to_owned())));
        }
        Err(error) => return Err(of_file(error)),
    };
    let mut out = BufWriter::new(file);
    let exported = reader.export(after, &mut out).map_err(|error| match error {
        // The store does not know the name.
        StoreError::File { source, .. } => of_file(source),
        error => failure(error),
    });
    let kept = exported.and_then(|head| {
        out.flush().and_then(|()| out.get_ref().sync_all()).map_err(of_file)?;
        Ok(head)
    });
    if kept.is_err() {
        let _ = fs::remove_file(path);
    }
    kept
}
