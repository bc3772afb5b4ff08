//! `tidegate completions` and `tidegate man`: what shells and `man` know of the command line, made from its
//! arguments.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Command;

use super::{
    failure::{Exit, Failure},
    say::{say, say_as_is},
};

/// The name of the program, as users call it.
const NAME: &str = "tidegate";

/// Arguments of `tidegate completions`.
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArguments {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Arguments of `tidegate man`.
#[derive(Debug, clap::Args)]
pub(super) struct ManArguments {
    /// Write the pages of all commands into this folder, instead of the page of the program to standard output.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints the completions of `command` for a shell.
pub(super) fn completions(arguments: &CompletionsArguments, mut command: Command) {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, NAME, &mut script);
    say_as_is(String::from_utf8_lossy(&script).trim_end());
}

/// Prints the manual page of `command`, or writes those of all its commands into a folder.
pub(super) fn man(arguments: &ManArguments, command: Command) -> Result<(), Failure> {
    let Some(folder) = &arguments.out else {
        say_as_is(page(command).trim_end());
        return Ok(());
    };
    write_all(folder, command).map_err(|error| {
        let message = format!("{}: {error}; name a folder that can be written", folder.display());
        Failure::new(Exit::File, message)
    })?;
    say(&format!("the pages are in {}", folder.display()));
    Ok(())
}

fn page(command: Command) -> String {
    let mut page = Vec::new();
    // Writing to a vector does not fail.
    let _ = clap_mangen::Man::new(command).render(&mut page);
    String::from_utf8_lossy(&page).into_owned()
}

/// Writes `tidegate.1`, `tidegate-weights.1` and so on.
fn write_all(folder: &Path, command: Command) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, ValueEnum};

    use super::*;
    use crate::cli::Arguments;

    #[test]
    fn every_command_has_a_page_and_a_completion() {
        let folder = tempfile::TempDir::new().expect("a folder");
        write_all(folder.path(), Arguments::command()).expect("pages");
        for name in
            ["tidegate", "tidegate-weights", "tidegate-rollout-start", "tidegate-audit-verify"]
        {
            let text = fs::read_to_string(folder.path().join(format!("{name}.1"))).expect(name);
            assert!(text.contains(".TH") && text.contains("SH SYNOPSIS"), "{text}");
        }
        for shell in clap_complete::Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), NAME, &mut script);
            assert!(String::from_utf8(script).expect("text").contains("break-in"), "{shell}");
        }
    }
}
