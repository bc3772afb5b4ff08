//! `tidegate token`: makes a token of the admin endpoint, and prints the hash of one.

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    failure::{Exit, Failure},
    say::say,
};
use crate::config::{TokenHash, file::read_text};

/// Random bytes of a token.
const RANDOM_BYTES: usize = 32;

/// Largest input that is read for a token.
const MOST_BYTES: u64 = 64 << 10;

#[derive(Debug, clap::Args)]
pub(super) struct TokenArguments {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TokenCommand {
    /// Write a new random token to a file that only you can read, and print its hash for `admin.tokens`.
    New {
        /// The file, which must not exist: for `--token-file` of its holder.
        file: PathBuf,
    },
    /// Print the hash of a token, for `admin.tokens`.
    Hash {
        /// The file that holds the token. Default: standard input.
        file: Option<PathBuf>,
    },
}

pub(super) fn run(arguments: &TokenArguments) -> Result<(), Failure> {
    let token = match &arguments.command {
        TokenCommand::New { file } => new(file)?,
        TokenCommand::Hash { file: Some(file) } => read_text(file, MOST_BYTES)
            .map_err(|error| Failure::new(Exit::File, format!("{}: {error}", file.display())))?,
        TokenCommand::Hash { file: None } => {
            let mut text = String::new();
            let read = io::stdin().take(MOST_BYTES).read_to_string(&mut text);
            read.map_err(|error| Failure::new(Exit::File, format!("standard input: {error}")))?;
            text
        }
    };
    let hash = TokenHash::of(token.trim()).map_err(|why| Failure::new(Exit::File, why))?;
    say(&hash.to_string());
    Ok(())
}

fn new(file: &Path) -> Result<String, Failure> {
    let mut bytes = [0; RANDOM_BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Failure::new(Exit::Fault, "no random numbers"))?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    let failed = |error: io::Error| {
        let exit = match error.kind() {
            io::ErrorKind::AlreadyExists => Exit::Refused,
            _ => Exit::File,
        };
        Failure::new(exit, format!("{}: {error}", file.display()))
    };
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut opened = opened.map_err(failed)?;
    opened.write_all(format!("{token}\n").as_bytes()).map_err(failed)?;
    Ok(token)
}
