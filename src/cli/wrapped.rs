//! Lines that fit a terminal.

/// Columns of a line for people.
pub(super) const COLUMNS: usize = 100;

/// `text` in lines of at most [`COLUMNS`], all but the first of which begin with `indent` spaces. A word that is longer
/// than a line stays whole, since a name or a command is to be copied.
pub(super) fn wrapped(text: &str, indent: usize) -> String {
    wrapped_to(text, indent, COLUMNS)
}

/// The same in lines of at most so many `columns`.
pub(super) fn wrapped_to(text: &str, indent: usize, columns: usize) -> String {
    let (mut lines, mut used) = (String::new(), 0);
    for word in text.split_inclusive(' ') {
        let length = word.trim_end().chars().count();
        if used > indent && used + length > columns {
            lines.truncate(lines.trim_end().len());
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            used = indent;
        }
        lines.push_str(word);
        used += word.chars().count();
    }
    lines
}

/// `text`, cut to `most` characters.
pub(super) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => {
            let kept: String = text.chars().take(most.saturating_sub(1)).collect();
            format!("{kept}…")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_lose_nothing() {
        assert_eq!(wrapped("short", 4), "short");
        let text = "wort ".repeat(60);
        let lines = wrapped(text.trim_end(), 6);
        assert!(lines.lines().all(|line| line.chars().count() <= COLUMNS), "{lines}");
        assert!(lines.lines().skip(1).all(|line| line.starts_with("      wort")), "{lines}");
        assert_eq!(lines.split_whitespace().count(), 60);
        let long = "x".repeat(300);
        assert_eq!(wrapped(&format!("see {long} there"), 2), format!("see\n  {long}\n  there"));
    }

    #[test]
    fn a_text_is_cut_by_characters() {
        assert_eq!((shortened("äöü", 3), shortened("äöüx", 3)), ("äöü".into(), "äö…".into()));
        assert_eq!(shortened("äöü", 0), "…");
    }
}
