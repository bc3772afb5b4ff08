//! Waits for the end of a rollout, with its progress.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use super::report::{line, report};
use crate::{
    admin::model::Rollout,
    cli::{
        client::{Call, ClientArguments},
        failure::{Exit, Failure},
        printable::printable,
        say::{complain, say, say_json},
    },
    rollout::Phase,
};

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// How long the endpoint may be unreachable: a process that is started anew, or that another one replaces.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the rollout of the service has ended that was `started` at this time, or the one that is there
/// now; or for `timeout`.
pub(super) fn wait(
    (client, service): (&ClientArguments, &str),
    timeout: Option<Duration>,
    json: bool,
    mut started: Option<String>,
) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let mut progress = Progress::new(json);
    let mut unreachable: Option<Instant> = None;
    loop {
        let target = format!("/v1/services/{service}/rollout");
        match client.call::<Rollout>(Call::get(target)) {
            Ok(rollout) => {
                unreachable = None;
                let ours = started.get_or_insert_with(|| rollout.started.clone());
                if *ours != rollout.started {
                    progress.end();
                    let next = &rollout.started;
                    let message = format!(
                        "the rollout that was started at {ours} has ended, and another one was started at {next}; \
                         `tidegate audit show` and `tidegate incidents` say how it ended"
                    );
                    complain(&message);
                    return Ok(Exit::RolledBack.into());
                }
                if rollout.phase.is_end() {
                    progress.end();
                    match json {
                        true => say_json(&rollout)?,
                        false => say(&report(&printable(&rollout)?)),
                    }
                    return Ok(exit(rollout.phase));
                }
                progress.show(&printable(&rollout)?);
                if timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
                    progress.end();
                    if json {
                        say_json(&rollout)?;
                    }
                    complain("the time to wait is over; the rollout goes on");
                    return Ok(Exit::Waiting.into());
                }
            }
            Err(failure) if failure.exit == Exit::Unavailable => {
                let since = *unreachable.get_or_insert_with(Instant::now);
                if since.elapsed() >= PATIENCE {
                    progress.end();
                    return Err(failure);
                }
            }
            Err(failure) => {
                progress.end();
                return Err(failure);
            }
        }
        thread::sleep(LOOK);
    }
}

fn exit(phase: Phase) -> ExitCode {
    match phase {
        Phase::Done => ExitCode::SUCCESS,
        _ => Exit::RolledBack.into(),
    }
}

/// Progress on the screen: one line that is written over on a terminal, a line for each change elsewhere.
struct Progress {
    is_quiet: bool,
    is_terminal: bool,
    /// The last line without its numbers, which change all the time.
    last: String,
}

impl Progress {
    fn new(is_quiet: bool) -> Self {
        Self { is_quiet, is_terminal: io::stdout().is_terminal(), last: String::new() }
    }

    fn show(&mut self, rollout: &Rollout) {
        if self.is_quiet {
            return;
        }
        let line = line(rollout);
        if self.is_terminal {
            // A line longer than the screen could not be written over.
            let line: String = line.chars().take(screen_width().saturating_sub(1)).collect();
            let mut out = io::stdout().lock();
            let _ = write!(out, "\r\x1b[K{line}").and_then(|()| out.flush());
            return;
        }
        let kept = essence(&line);
        if kept != self.last {
            say(&line);
            self.last = kept;
        }
    }

    fn end(&mut self) {
        if self.is_terminal && !self.is_quiet {
            let mut out = io::stdout().lock();
            let _ = write!(out, "\r\x1b[K").and_then(|()| out.flush());
        }
    }
}

/// A line without the numbers and times in what it waits for.
fn essence(line: &str) -> String {
    let (place, waits) = line.split_once(": ").unwrap_or((line, ""));
    let waits: String = waits.chars().filter(|c| !c.is_ascii_digit()).collect();
    let waits: Vec<&str> = waits.split_whitespace().filter(|word| !is_unit(word)).collect();
    format!("{place}: {}", waits.join(" "))
}

fn is_unit(word: &str) -> bool {
    matches!(word.trim_end_matches(','), "s" | "m" | "h" | "ms" | "day" | "days")
}

fn screen_width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    size.map_or(80, |size| usize::from(size.ws_col).max(20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_repeated_only_when_more_than_numbers_changed() {
        let at = |left: &str| {
            format!(
                "v2 is growing, step 1 of 3, with 1% of the players: waits for {left}, 12 requests"
            )
        };
        assert_eq!(essence(&at("1m 2s")), essence(&at("59s")));
        assert_ne!(essence(&at("59s")), essence(&at("approval")));
        let next = at("9s").replace("step 1", "step 2");
        assert_ne!(essence(&at("9s")), essence(&next));
    }
}
