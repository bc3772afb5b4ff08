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
        say::{complain, say, say_as_is},
        wrapped::wrapped_to,
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
                        true => say_line(&rollout)?,
                        false => say(&report(&printable(&rollout)?)),
                    }
                    return Ok(exit(rollout.phase));
                }
                progress.show(&rollout)?;
                if timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
                    progress.end();
                    if json {
                        say_line(&rollout)?;
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

/// A rollout as one line of JSON.
fn say_line(rollout: &Rollout) -> Result<(), Failure> {
    let text = serde_json::to_string(rollout);
    say_as_is(&text.map_err(|error| Failure::new(Exit::Fault, error))?);
    Ok(())
}

/// Progress: for programs a line of JSON for each change; on a terminal text that is written over; elsewhere a line of
/// text for each change.
struct Progress {
    json: bool,
    is_terminal: bool,
    /// The last line without its numbers, which change all the time.
    last: String,
    /// Lines on the screen that the next text is written over.
    rows: usize,
}

impl Progress {
    fn new(json: bool) -> Self {
        let is_terminal = io::stdout().is_terminal() && !json;
        Self { json, is_terminal, last: String::new(), rows: 0 }
    }

    fn show(&mut self, rollout: &Rollout) -> Result<(), Failure> {
        let shown = printable(rollout)?;
        let line = line(&shown);
        if self.is_terminal {
            let columns = screen_width();
            // The last column may begin a new line.
            let text = wrapped_to(&line, 2, columns - 1);
            let mut out = io::stdout().lock();
            let _ = write!(out, "{}{text}", over(self.rows)).and_then(|()| out.flush());
            self.rows = rows(&text, columns);
            return Ok(());
        }
        let kept = essence(&line);
        if kept != self.last {
            match self.json {
                true => say_line(rollout)?,
                false => say(&line),
            }
            self.last = kept;
        }
        Ok(())
    }

    fn end(&mut self) {
        if self.is_terminal {
            let mut out = io::stdout().lock();
            let _ = write!(out, "{}", over(self.rows)).and_then(|()| out.flush());
            self.rows = 0;
        }
    }
}

/// What leads to the beginning of a text of so many lines, at whose end the cursor is, and clears the screen from there.
fn over(rows: usize) -> String {
    match rows {
        0 | 1 => "\r\x1b[J".to_owned(),
        more => format!("\r\x1b[{}A\x1b[J", more - 1),
    }
}

/// Lines that `text` takes on a screen of so many columns: a long word takes several.
fn rows(text: &str, columns: usize) -> usize {
    text.lines().map(|line| line.chars().count().div_ceil(columns).max(1)).sum()
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
    // A terminal that does not know its width says 0.
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { 80 } else { columns.max(20) }
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

    /// Regression: on 80 columns the end of the line was cut, and with it why the rollout waits.
    #[test]
    fn a_line_that_is_longer_than_the_screen_is_wrapped_and_written_over_as_a_whole() {
        let line = "v2 is holding, step 2 of 4, with 5% of the players: waits for evidence (undecided: nothing is \
                    certain), the window friday-peak until 2026-11-28T23:59:00Z";
        let text = wrapped_to(line, 2, 79);
        assert_eq!(
            (rows(&text, 80), rows("short", 80), rows(&"x".repeat(200), 80)),
            (3, 1, 3),
            "{text}"
        );
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>(),
            line.split_whitespace().collect::<Vec<_>>()
        );
        assert_eq!((over(1), over(2)), ("\r\x1b[J".to_owned(), "\r\x1b[1A\x1b[J".to_owned()));
    }
}
