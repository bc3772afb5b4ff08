//! `tidegate demo`.

use std::process::ExitCode;

/// Arguments of `tidegate demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArguments {}

/// Runs the demonstration.
pub fn run(_arguments: &DemoArguments) -> ExitCode {
    ExitCode::SUCCESS
}
