//! Draws frames over one another, on the alternate screen of the terminal.
//!
//! A resized window wraps its lines, so no frame depends on the previous one: each begins at the
//! top, and clears the screen when the size has changed. The main screen is not touched; the last
//! frame is printed there at the end. There is no raw mode, so Ctrl-C stays a signal.

use std::io::{self, IsTerminal, Write};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    queue,
    style::Print,
    terminal::{
        self, BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate,
        EnterAlternateScreen, LeaveAlternateScreen,
    },
};

use super::view::{COLUMNS, LINES};

/// Columns and rows of a window.
pub(super) type Size = (u16, u16);

/// Whether standard output is a terminal that can show frames and has room for them. `NO_COLOR`
/// only removes the colors, which crossterm does.
pub(super) fn is_wanted() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    !dumb && io::stdout().is_terminal() && terminal::size().is_ok_and(fits)
}

/// The size of the window now, if it is known.
pub(super) fn size() -> Option<Size> {
    let known = terminal::window_size().ok().map(|window| (window.columns, window.rows));
    known.filter(|(columns, rows)| *columns > 0 && *rows > 0)
}

fn fits((columns, rows): Size) -> bool {
    usize::from(columns) >= COLUMNS && usize::from(rows) > LINES
}

/// The screen on which frames are drawn, or lines printed; restores the terminal when dropped.
pub(super) struct Screen<'a> {
    out: &'a mut dyn Write,
    /// The last frame, if there is one.
    shown: Option<Vec<String>>,
    /// The size of the window that it was drawn for.
    size: Option<Size>,
}

impl<'a> Screen<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, shown: None, size: None }
    }

    /// Adds a plain line.
    pub(super) fn print(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// Replaces the last frame by `lines`, in a window of `size`; shows a message if the window is
    /// too small.
    pub(super) fn draw(&mut self, lines: Vec<String>, size: Option<Size>) -> io::Result<()> {
        // Written at once, since half a frame would flicker.
        let mut frame = Vec::new();
        queue!(frame, BeginSynchronizedUpdate)?;
        if self.shown.is_none() {
            queue!(frame, EnterAlternateScreen, Hide)?;
        }
        if self.shown.is_none() || self.size != size {
            queue!(frame, Clear(ClearType::All))?;
        }
        match size.filter(|size| !fits(*size)) {
            None => {
                for (row, line) in (0..).zip(&lines) {
                    queue!(frame, MoveTo(0, row), Print(line), Clear(ClearType::UntilNewLine))?;
                }
            }
            Some((columns, rows)) => {
                let (width, height) = (COLUMNS, LINES + 1);
                let text = format!("window of {columns}x{rows} is too small: {width}x{height}");
                let text: String = text.chars().take(columns.into()).collect();
                queue!(frame, MoveTo(0, 0), Print(text), Clear(ClearType::UntilNewLine))?;
            }
        }
        queue!(frame, EndSynchronizedUpdate)?;
        self.out.write_all(&frame)?;
        (self.shown, self.size) = (Some(lines), size);
        self.out.flush()
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        let Some(lines) = self.shown.take() else { return };
        let given_back = queue!(&mut self.out, LeaveAlternateScreen, Show);
        let printed = given_back.and_then(|()| {
            lines.iter().try_for_each(|line| writeln!(self.out, "{line}"))?;
            self.out.flush()
        });
        // If the terminal is gone, there is nowhere to report it.
        drop(printed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sequences that clear the screen, move to the start of a row, and leave.
    const CLEAR: &str = "\u{1b}[2J";
    const LEAVE: &str = "\u{1b}[?1049l";

    fn drawn(sizes: &[Size]) -> String {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out);
        for (number, size) in sizes.iter().enumerate() {
            let lines = (0..LINES).map(|row| format!("frame {number} row {row};")).collect();
            screen.draw(lines, Some(*size)).expect("memory");
        }
        drop(screen);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn each_frame_begins_at_the_top_and_a_resized_window_is_cleared() {
        let text = drawn(&[(80, 24), (80, 24), (120, 40), (80, 24)]);
        assert_eq!(text.matches(CLEAR).count(), 3, "{text:?}");
        assert_eq!(text.matches("\u{1b}[1;1Hframe").count(), 4, "{text:?}");
        let (live, left) = text.split_once(LEAVE).expect("it leaves");
        assert!(!live.contains('\n'), "no frame scrolls: {live:?}");
        assert_eq!(left.matches("frame 3 row ").count(), LINES, "the last frame stays: {left:?}");
        assert!(left.starts_with("\u{1b}[?25h"), "the cursor is back: {left:?}");
    }

    #[test]
    fn a_window_that_is_too_small_gets_one_line_until_it_is_large_again() {
        let text = drawn(&[(80, 24), (70, 20), (30, 5), (100, 30)]);
        let shown: Vec<_> = text.split(CLEAR).skip(1).collect();
        assert!(shown[1].contains("window of 70x20 is too small: 80x24"), "{text:?}");
        assert!(shown[2].contains("Hwindow of 30x5 is too small: 8\u{1b}"), "{text:?}");
        assert!(!shown[1].contains("frame") && !shown[2].contains("frame"), "{text:?}");
        assert!(shown[3].contains("frame 3 row 0;"), "{text:?}");
    }
}
