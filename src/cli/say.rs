//! What commands print: for people without control characters, for programs as it is.

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

/// Writes what programs read on standard output. A reader that has gone, such as `head`, is no fault.
pub(super) fn say_as_is(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// The same of what an endpoint answered, as one JSON object.
pub(super) fn say_json(answer: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(answer);
    say_as_is(&text.map_err(|error| Failure::new(Exit::Fault, error))?);
    Ok(())
}
