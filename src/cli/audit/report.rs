//! `tidegate audit report`: the changes of a period, as auditors ask for them.

use std::{
    io::{self, BufWriter},
    time::SystemTime,
};

use crate::{
    cli::{
        failure::{Exit, Failure},
        journal::{JournalArguments, is_reader_gone, moment},
        say::complain,
    },
    store::StoreError,
};

/// Arguments of `tidegate audit report`.
#[derive(Debug, clap::Args)]
pub(super) struct ReportArguments {
    #[command(flatten)]
    journal: JournalArguments,
    /// Changes made then or later: 2026-01-31T12:00:00Z, 2026-01-31, or 2h for two hours ago.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: SystemTime,
    /// Changes made before then. Default: now.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<SystemTime>,
    /// The form of the report.
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
}

/// Forms of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// RFC 4180, with the names of the columns in the first row.
    Csv,
}

/// Prints the report.
pub(super) fn run(arguments: &ReportArguments) -> Result<(), Failure> {
    let ReportArguments { journal, from, to, format: Format::Csv } = arguments;
    let journal = journal.place()?;
    let to = to.unwrap_or_else(SystemTime::now);
    if *from >= to {
        let why = "--from is not before --to, so no entry can be between them";
        return Err(Failure::new(Exit::Arguments, why));
    }
    let reader = journal.reader()?;
    let mut out = BufWriter::new(io::stdout().lock());
    match reader.report(*from, to, &mut out) {
        Ok(0) => complain("no entries in this time"),
        Ok(_) => {}
        Err(error) if is_reader_gone(&error) => {}
        Err(StoreError::File { source, .. }) => {
            return Err(Failure::new(Exit::File, format!("standard output: {source}")));
        }
        Err(error) => return Err(journal.failure(error)),
    }
    Ok(())
}
