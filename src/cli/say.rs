//! Output of commands: without control characters for people, unchanged for programs.

use std::io::{self, Write};

use super::{
    failure::{Exit, Failure},
    printable::lines,
};

/// Writes lines for people on standard output.
pub(super) fn say(text: &str) {
    say_as_is(&lines(text));
}

/// Writes lines for people on standard error.
pub(super) fn complain(text: &str) {
    eprintln!("{}", lines(text));
}

/// Writes output for programs on standard output. A reader that has gone, such as `head`, is no
/// error.
pub(super) fn say_as_is(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Writes the response of an endpoint as one JSON object.
pub(super) fn say_json(answer: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(answer);
    say_as_is(&text.map_err(|error| Failure::new(Exit::Fault, error))?);
    Ok(())
}
