//! Draws frames over one another, below what the terminal already shows.
//!
//! No alternate screen: the configuration above and the last frame stay readable afterwards. No raw
//! mode either, so Ctrl-C stays a signal and a crash leaves a usable terminal.

use std::io::{self, IsTerminal, Write};

use crossterm::{
    cursor::{Hide, MoveToColumn, MoveUp, Show},
    queue,
    style::Print,
    terminal::{self, BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate},
};

use super::view::{COLUMNS, LINES};

/// Whether standard output is a terminal that wants frames and has room for them.
pub(super) fn is_wanted() -> bool {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let fits = |(columns, rows)| usize::from(columns) >= COLUMNS && usize::from(rows) > LINES;
    !plain && io::stdout().is_terminal() && terminal::size().is_ok_and(fits)
}

/// The place where frames are drawn, or lines printed; gives the cursor back when dropped.
pub(super) struct Screen<'a> {
    out: &'a mut dyn Write,
    /// Height of the frame that is shown; 0 while there is none.
    drawn: u16,
}

impl<'a> Screen<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, drawn: 0 }
    }

    /// Adds a plain line.
    pub(super) fn print(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// Puts `lines` in the place of the last frame.
    pub(super) fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        // Gathered and written at once: half a frame would be seen as a flicker.
        let mut frame = Vec::new();
        queue!(frame, BeginSynchronizedUpdate, Hide, MoveToColumn(0))?;
        if self.drawn > 0 {
            queue!(frame, MoveUp(self.drawn))?;
        }
        for line in lines {
            queue!(frame, Print(line), Clear(ClearType::UntilNewLine), Print("\n"))?;
        }
        queue!(frame, Clear(ClearType::FromCursorDown), EndSynchronizedUpdate)?;
        self.drawn = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        self.out.write_all(&frame)?;
        self.out.flush()
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        if self.drawn == 0 {
            return;
        }
        // The signal's echo, `^C`, may stand below the frame.
        let cleared =
            queue!(&mut self.out, MoveToColumn(0), Clear(ClearType::FromCursorDown), Show);
        // Nobody is left to be told that the terminal is gone.
        let _ = cleared.and_then(|()| self.out.flush());
    }
}
