//! `tidegate audit`: the release journal for operators and auditors.

mod change;
mod checkpoint;
mod export;
mod progress;
mod report;
mod rollout;
mod show;
mod split;
mod verify;

use std::process::ExitCode;

use super::failure::Failure;

/// Arguments of `tidegate audit`.
#[derive(Debug, clap::Args)]
pub(super) struct AuditArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List entries: who changed what, when and why.
    Show(show::ShowArguments),
    /// Write the journal as JSON lines, the form for the years.
    Export(export::ExportArguments),
    /// Check that no entry was changed, taken out or, with a checkpoint, cut off.
    Verify(verify::VerifyArguments),
    /// Write the changes of a period as CSV.
    Report(report::ReportArguments),
    /// Print a signed checkpoint of the journal, to be kept elsewhere.
    Checkpoint(checkpoint::CheckpointArguments),
}

/// Runs a command.
pub(super) fn run(arguments: &AuditArguments) -> Result<ExitCode, Failure> {
    let done = |()| ExitCode::SUCCESS;
    match &arguments.command {
        Command::Show(arguments) => show::run(arguments).map(done),
        Command::Export(arguments) => export::run(arguments).map(done),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Report(arguments) => report::run(arguments).map(done),
        Command::Checkpoint(arguments) => checkpoint::run(arguments).map(done),
    }
}
