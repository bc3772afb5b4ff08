//! Output of commands: without control characters for people, unchanged for programs.

use std::{
    io::{self, Write},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

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
    // Where nobody reads it, there is nobody to tell that either.
    let _ = writeln!(io::stderr(), "{}", lines(text));
}

/// Writes output for programs on standard output. A reader that has gone, such as `head`, is no
/// error.
pub(super) fn say_as_is(text: &str) {
    let mut out = io::stdout();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
        && !LOST.swap(true, Relaxed)
    {
        complain(&format!("the output cannot be written: {error}"));
    }
}

/// Whether part of the output could not be written, so that the command did not do what it was asked for.
pub(super) fn has_lost_output() -> bool {
    LOST.load(Relaxed)
}

static LOST: AtomicBool = AtomicBool::new(false);

/// Writes the response of an endpoint as one JSON object.
pub(super) fn say_json(answer: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(answer);
    say_as_is(&text.map_err(|error| Failure::new(Exit::Fault, error))?);
    Ok(())
}
