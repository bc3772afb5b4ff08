//! The command line: parses the arguments and runs a command.
//!
//! Exit codes follow `sysexits.h`, so that a script can distinguish a bad file from a refusal. Wrong
//! arguments exit with 2, as in most programs.

mod audit;
mod backup;
mod change;
mod check;
mod client;
mod columns;
mod cutover;
mod eject;
mod events;
mod failure;
mod file;
mod incidents;
mod journal;
mod judge;
mod key;
mod manual;
mod mode;
mod notices;
mod pins;
mod printable;
mod replace;
mod rollout;
mod run;
mod say;
mod smoke;
mod status;
mod table;
mod token;
mod weights;
mod wrapped;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

use self::{
    failure::Exit,
    say::{complain, say_as_is},
};
use crate::demo;

const AFTER_HELP: &str = "\
Exit codes:
  0    success; of `run`: ended, and every response was finished
  1    of `smoke`: the version does not pass the check
  2    wrong arguments
  3    of `rollout --wait`: the rollout was rolled back or given up
  4    of `rollout --wait`: the time to wait is over, and the rollout goes on; of `cutover`, `rollback` and
       `mode read-only` with `--wait`: it is over, and the change is in force
  64   a bad file: the configuration, a certificate, a record, a token, a journal that cannot be read, a
       checkpoint; of `check --strict`: warnings
  65   the server refused: unknown name, bad weight, outdated generation, no version would serve; a journal
       is not as it was written; a file or folder exists, and is not overwritten
  69   cannot listen or take over, or the admin endpoint cannot be reached; another process has the journal
  70   an internal error of Tidegate
  74   the output cannot be written
  75   of `run`: ended, but responses were cut off at the deadline
  77   the admin endpoint requires a token, or another one, or refuses this caller
  130  of `run`: a second SIGINT ended the drain; 143: a second SIGTERM

Signals of `run`:
  SIGHUP            read the configuration file again, reopen the access log
  SIGUSR2           start the program again and hand the listening sockets over to it
  SIGTERM, SIGINT   accept no connections, finish requests in flight, exit; twice: exit now

Environment:
  TIDEGATE_ADMIN        default of --admin
  TIDEGATE_TOKEN_FILE   default of --token-file
  TIDEGATE_CA, TIDEGATE_CERT, TIDEGATE_KEY   defaults of --ca, --cert and --key";

/// A Layer-7 traffic-splitting reverse proxy.
#[derive(Debug, Parser)]
#[command(version, about, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy. The file is read again when it changes, and at SIGHUP.
    Run {
        #[command(flatten)]
        file: file::FileArguments,
        /// Take the listening sockets over from the process that listens at this Unix socket
        /// (`takeover.socket` of its configuration), if there is such a process.
        #[arg(long, value_name = "PATH")]
        takeover: Option<PathBuf>,
    },
    /// Report all problems of a configuration file, without starting the proxy.
    Check(check::CheckArguments),
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Run a demonstration in one process: a version of a small game API grows, fails and is ejected.
    Demo(demo::DemoArguments),
    /// Show the state of a running instance: its services, versions and weights.
    Status(status::StatusArguments),
    /// Show the weights of a service, or change them.
    Weights(weights::WeightsArguments),
    /// Let a version grow by a plan: start a rollout, show it, wait for it, command it.
    Rollout(rollout::RolloutArguments),
    /// Move all traffic of a service to one version, in one swap.
    Cutover(cutover::CutoverArguments),
    /// Go back to the split before the last cutover or change of weights.
    Rollback(cutover::RollbackArguments),
    /// Show what is read-only, or refuse writes for a while.
    Mode(mode::ModeArguments),
    /// Show planned work that players and clients are told of, or plan some.
    Notices(notices::NoticesArguments),
    /// Show the pins of a running instance: how many players and rounds each version holds.
    Pins(pins::PinsArguments),
    /// Show what is known of an idempotency key: whether its request was processed, and how it was answered.
    Key(key::KeyArguments),
    /// Show events of a running instance: changes, ejections, near-misses, outages.
    Events(events::EventsArguments),
    /// Run a smoke check against a version, whatever its weight.
    Smoke(smoke::SmokeArguments),
    /// List reports of incidents: ejections, rollbacks, and rollouts that have ended; or show one.
    Incidents(incidents::IncidentsArguments),
    /// Print the recorded inputs of a comparison, for `tidegate judge`.
    Record(judge::RecordArguments),
    /// Judge a recorded comparison again, with the same limits or with others.
    Judge(judge::JudgeArguments),
    /// The release journal: who changed what, when and why; and whether that is as it was written.
    Audit(audit::AuditArguments),
    /// Make a token of the admin endpoint, or print the hash of one.
    Token(token::TokenArguments),
    /// Copy the journal to a new file, also while a process writes it.
    Backup(backup::BackupArguments),
    /// Verify a backup of the journal, and put it into an empty folder.
    Restore(backup::RestoreArguments),
    /// Print completions for a shell.
    Completions(manual::CompletionsArguments),
    /// Print the manual page, or write those of all commands into a folder.
    Man(manual::ManArguments),
    /// Eject a version or one of its endpoints: it gets no requests until it is reinstated.
    Eject(eject::SubjectArguments),
    /// Reinstate an ejected version or endpoint, whatever ejected it.
    Reinstate(eject::SubjectArguments),
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // `--help` and `--version` are errors, too.
            let _ = error.print();
            return if error.use_stderr() { Exit::Arguments.into() } else { ExitCode::SUCCESS };
        }
    };
    let result = match arguments.command {
        Command::Run { file, takeover } => run::run(&file, takeover.as_deref()),
        Command::Check(arguments) => check::run(&arguments),
        Command::Schema => {
            say_as_is(&format!("{:#}", crate::config::json_schema()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo(arguments) => return demo::run(&arguments),
        Command::Status(arguments) => status::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Rollout(arguments) => rollout::run(&arguments),
        Command::Events(arguments) => events::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Smoke(arguments) => smoke::run(&arguments),
        Command::Incidents(arguments) => incidents::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Pins(arguments) => pins::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Key(arguments) => key::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Notices(arguments) => notices::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Mode(arguments) => mode::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Record(arguments) => judge::record(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Judge(arguments) => judge::judge(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Token(arguments) => token::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Backup(arguments) => backup::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Restore(arguments) => backup::put_back(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Completions(arguments) => {
            manual::completions(&arguments, Arguments::command());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man(arguments) => {
            manual::man(&arguments, Arguments::command()).map(|()| ExitCode::SUCCESS)
        }
        Command::Weights(arguments) => weights::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Cutover(arguments) => cutover::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Rollback(arguments) => cutover::roll_back(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Eject(arguments) => {
            eject::run(eject::Action::Eject, &arguments).map(|()| ExitCode::SUCCESS)
        }
        Command::Reinstate(arguments) => {
            eject::run(eject::Action::Reinstate, &arguments).map(|()| ExitCode::SUCCESS)
        }
    };
    match result {
        Ok(_) if say::has_lost_output() => Exit::Output.into(),
        Ok(code) => code,
        Err(failure) => {
            complain(&failure.message);
            failure.exit.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn help_tells_every_exit_code() {
        let all = [
            Exit::Failed,
            Exit::Arguments,
            Exit::RolledBack,
            Exit::Waiting,
            Exit::File,
            Exit::Refused,
            Exit::Unavailable,
            Exit::Fault,
            Exit::Output,
            Exit::Cut,
            Exit::Unauthorized,
        ];
        for exit in all {
            assert!(AFTER_HELP.contains(&format!("\n  {}   ", exit as u8)), "{exit:?}");
        }
    }
}
