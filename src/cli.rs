//! The command line: what was typed, and the command that it becomes.
//!
//! Exit codes follow `sysexits.h`, so that a script can tell a bad file from a refusal; wrong arguments
//! end with 2, as of most programs.

mod check;
mod client;
mod eject;
mod events;
mod failure;
mod file;
mod judge;
mod printable;
mod replace;
mod run;
mod say;
mod status;
mod table;
mod weights;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use self::{
    failure::Exit,
    say::{complain, say_as_is},
};
use crate::demo;

const AFTER_HELP: &str = "\
Exit codes:
  0    done; of `run`: ended, and every answer was finished
  2    wrong arguments
  64   a bad file: the configuration, a certificate, a record, a token; of `check --strict`: warnings
  65   the server refused: unknown name, bad weight, outdated generation, nobody would serve
  69   cannot listen or take over, or the admin endpoint cannot be reached
  70   a fault of Tidegate itself
  75   of `run`: ended, but the deadline cut answers short
  77   the admin endpoint wants a token, or another one
  130  of `run`: a second SIGINT ended the drain; 143: a second SIGTERM

Signals of `run`:
  SIGHUP            read the configuration file again, open the access log anew
  SIGUSR2           start the program again and hand the listening sockets over to it
  SIGTERM, SIGINT   no new connections, finish what is in flight, end; twice: end now

Environment:
  TIDEGATE_ADMIN        default of --admin
  TIDEGATE_TOKEN_FILE   default of --token-file";

/// A Layer-7 traffic-splitting reverse proxy.
#[derive(Debug, Parser)]
#[command(version, about, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve. The file is watched, and read again when it changes or at SIGHUP.
    Run {
        #[command(flatten)]
        file: file::FileArguments,
        /// Take the listening sockets over from the process that listens at this Unix socket
        /// (`takeover.socket` of its configuration), if there is one.
        #[arg(long, value_name = "PATH")]
        takeover: Option<PathBuf>,
    },
    /// Tell everything that is wrong with a configuration file; start nothing.
    Check(check::CheckArguments),
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Watch a version of a small game API grow, fail and be ejected, all embedded.
    Demo(demo::DemoArguments),
    /// Show a running instance: its services, versions and weights.
    Status(status::StatusArguments),
    /// Show the weights of a service, or change them.
    Weights(weights::WeightsArguments),
    /// Show what happened on a running instance: changes, ejections, near-misses, outages.
    Events(events::EventsArguments),
    /// Print what a comparison was told, so that it can be judged again.
    Record(judge::RecordArguments),
    /// Judge a record again, by the same limits or by others.
    Judge(judge::JudgeArguments),
    /// Take a version out of the split, or one of its endpoints, until it is reinstated.
    Eject(eject::SubjectArguments),
    /// Take a version back into the split, or one of its endpoints, whatever ejected it.
    Reinstate(eject::SubjectArguments),
}

/// Runs the program with the arguments it was given.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too.
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
        Command::Events(arguments) => events::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Record(arguments) => judge::record(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Judge(arguments) => judge::judge(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Weights(arguments) => weights::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Eject(arguments) => {
            eject::run(eject::Action::Eject, &arguments).map(|()| ExitCode::SUCCESS)
        }
        Command::Reinstate(arguments) => {
            eject::run(eject::Action::Reinstate, &arguments).map(|()| ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|failure| {
        complain(&failure.message);
        failure.exit.into()
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn help_tells_every_exit_code() {
        let all = [
            Exit::Arguments,
            Exit::File,
            Exit::Refused,
            Exit::Unavailable,
            Exit::Fault,
            Exit::Cut,
            Exit::Unauthorized,
        ];
        for exit in all {
            assert!(AFTER_HELP.contains(&format!("\n  {}   ", exit as u8)), "{exit:?}");
        }
    }
}
