//! How far a long command is, on standard error if that is a terminal.

use std::{
    io::{self, BufRead, IsTerminal, Read, Write},
    time::{Duration, Instant},
};

/// Pause between two lines, and before the first: a short command shows none.
const PAUSE: Duration = Duration::from_millis(500);

/// The progress of a command; dropped, it leaves no trace.
#[derive(Debug)]
pub(super) struct Progress {
    is_on: bool,
    is_shown: bool,
    last: Instant,
    done: u64,
    total: Option<u64>,
    what: &'static str,
}

impl Progress {
    /// Counts `what`, of which there are `total` if that is known.
    pub(super) fn of(what: &'static str, total: Option<u64>) -> Self {
        let is_on = io::stderr().is_terminal();
        Self { is_on, is_shown: false, last: Instant::now(), done: 0, total, what }
    }

    /// Counts `more`.
    pub(super) fn add(&mut self, more: u64) {
        self.done = self.done.saturating_add(more);
        if !self.is_on || self.last.elapsed() < PAUSE {
            return;
        }
        (self.last, self.is_shown) = (Instant::now(), true);
        let _ = write!(io::stderr(), "\r{}\u{1b}[K", self.line());
    }

    fn line(&self) -> String {
        let Self { done, total, what, .. } = self;
        match total.filter(|total| *total > 0) {
            // Exact, and the journal may have grown meanwhile.
            Some(total) => {
                let percent = (u128::from(*done) * 100 / u128::from(total)).min(100);
                format!("{done} of {total} {what} ({percent} %)")
            }
            None => format!("{done} {what}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}

/// Input whose bytes are counted.
pub(super) struct Watched<R> {
    input: R,
    progress: Progress,
}

impl<R> Watched<R> {
    pub(super) fn new(input: R, total: Option<u64>) -> Self {
        Self { input, progress: Progress::of("bytes", total) }
    }
}

impl<R: BufRead> Read for Watched<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(to)?;
        self.progress.add(read as u64);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Watched<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, read: usize) {
        self.progress.add(read as u64);
        self.input.consume(read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_far_it_is() {
        let mut progress = Progress::of("entries", Some(2000));
        progress.is_on = false;
        progress.add(1500);
        assert_eq!(progress.line(), "1500 of 2000 entries (75 %)");
        progress.add(1500);
        assert_eq!(progress.line(), "3000 of 2000 entries (100 %)");
        assert_eq!(Progress::of("bytes", None).line(), "0 bytes");
    }

    #[test]
    fn counted_input_is_the_input() {
        let mut watched = Watched::new(&b"one\ntwo\n"[..], Some(8));
        let mut text = String::new();
        watched.read_line(&mut text).unwrap();
        watched.read_to_string(&mut text).unwrap();
        assert_eq!((&*text, watched.progress.done), ("one\ntwo\n", 8));
    }
}
