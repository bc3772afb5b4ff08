//! The command line.

pub mod demo;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// A Layer-7 traffic-splitting reverse proxy.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Watch two versions of a small game API being split, all embedded.
    Demo(demo::DemoArguments),
}

/// Runs the program with the arguments it was given.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config } => run(config),
        Command::Demo(arguments) => demo::run(&arguments),
    }
}

fn run(file: PathBuf) -> ExitCode {
    let loaded = match crate::config::read(&file) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(64);
        }
    };
    match crate::app::App::start(loaded, Some(file), None) {
        Ok(_app) => loop {
            std::thread::park();
        },
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(69)
        }
    }
}
