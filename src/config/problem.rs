//! Problems of a file: where they are, and what would be right.
//!
//! Every message has the form `what is wrong; what would be right`, since the person who reads it
//! is about to edit that line.

use std::{fmt, path::Path};

use serde::{Serialize, Serializer};

/// A position in the text. Both numbers begin at 1; a column is a character, not a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Position {
    /// The first character.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// One step down from a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// To a field of a map.
    Key(String),
    /// To an element of a list, counted from 0.
    Index(usize),
}

/// The path from the top of the file to a value: `services.game-api.weights.v43`,
/// `listen[0].address`. A name with other characters than letters, digits, `_`, `-` and `/` is
/// quoted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldPath {
    /// The steps, outermost first; empty for the whole file.
    pub steps: Vec<Step>,
}

impl FieldPath {
    /// The path of a field below `self`.
    pub fn key(&self, name: impl Into<String>) -> Self {
        self.step(Step::Key(name.into()))
    }

    /// The path of an element below `self`.
    pub fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    /// Whether one of the two paths is a prefix of the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.steps.iter().zip(&other.steps).all(|(a, b)| a == b)
    }

    fn step(&self, step: Step) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { steps }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-/".contains(&b);
        for (nth, step) in self.steps.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(name) => {
                    if nth > 0 {
                        f.write_str(".")?;
                    }
                    if !name.is_empty() && name.bytes().all(plain) {
                        f.write_str(name)?;
                    } else {
                        write!(f, "{name:?}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Serialize for FieldPath {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// One problem. Shown as `LINE:COLUMN: FIELD.PATH: what is wrong; what would be right`, in one
/// line: control characters in quoted text are escaped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Where it is; for a missing field, where its map begins.
    #[serde(flatten)]
    pub at: Position,
    /// Which value. Empty: the text as a whole.
    pub path: FieldPath,
    /// What is wrong, a semicolon, what would be right.
    pub message: String,
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut map = s.serialize_struct("Position", 2)?;
        map.serialize_field("line", &self.line)?;
        map.serialize_field("column", &self.column)?;
        map.end()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.at.line, self.at.column)?;
        if !self.path.steps.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&escaped(&self.message))
    }
}

/// Escapes the control characters in `text`, and those that change the direction or the lines of what follows.
/// A terminal obeys them: a newline in a quoted name would look like a line of the program, and an override of
/// the direction shows a text as another one.
pub(crate) fn escaped(text: &str) -> String {
    escaped_but(text, |_| false)
}

/// Escapes all control characters except those for which `kept` is true.
pub(crate) fn escaped_but(text: &str, kept: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_obeyed(c) && !kept(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// Whether a terminal, or a program that shows text, obeys the character instead of showing it.
fn is_obeyed(c: char) -> bool {
    let moves = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || moves
}

/// Most problems that are searched for: nobody reads more, and each costs a few readings.
pub(super) const MAX_PROBLEMS: usize = 100;

/// All problems of a file, in the order of the text; never empty. If there are more than a hundred,
/// the last one reports that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Sorts problems in the order of the text; `None` if there are none.
    pub(super) fn sorted(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort();
        problems.dedup();
        if problems.len() > MAX_PROBLEMS {
            problems.truncate(MAX_PROBLEMS);
            let at = problems[MAX_PROBLEMS - 1].at;
            let message = "there are more problems; mend these first".to_owned();
            problems.push(Problem { at, path: FieldPath::default(), message });
        }
        (!problems.is_empty()).then_some(Self(problems))
    }

    /// The problems, in the order of the text.
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }

    /// One line per problem, prefixed with `FILE:`.
    pub fn in_file(&self, file: &Path) -> String {
        let lines: Vec<_> = self.0.iter().map(|p| format!("{}:{p}", file.display())).collect();
        lines.join("\n")
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, problem) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// The known name that `written` is probably a misspelling of: at most two edits away, and at most
/// half of its letters, so that `tls` is not taken for `log`.
pub(crate) fn closest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // The time for the distance grows with both lengths.
    let written: String = written.chars().take(64).collect();
    // The plural of a word in -y is three edits away.
    let singular = written.strip_suffix("ies").map(|stem| format!("{stem}y"));
    let edits = |name: &str| match singular.as_deref() == Some(name) {
        true => 0,
        false => strsim::osa_distance(&written, name),
    };
    known
        .into_iter()
        .map(|name| (edits(name), name))
        .filter(|(edits, name)| *edits <= 2 && edits * 2 <= name.len())
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plural_is_taken_for_a_misspelling() {
        assert_eq!(closest("retries", ["retry", "rules"]), Some("retry"));
        assert_eq!(closest("series", ["retry", "rules"]), None);
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        let text = "a\u{202e}b\u{2066}c\u{1b}[2J\u{200f}\u{2028}";
        assert_eq!(escaped(text), r"a\u{202e}b\u{2066}c\u{1b}[2J\u{200f}\u{2028}");
        assert_eq!(escaped("Spiel ü שלום"), "Spiel ü שלום");
    }

    #[test]
    fn paths_read_as_people_write_them() {
        let root = FieldPath::default();
        assert_eq!(root.key("listen").index(0).key("address").to_string(), "listen[0].address");
        assert_eq!(root.key("versions").key("v4.2").to_string(), r#"versions."v4.2""#);
        assert!(root.key("a").overlaps(&root.key("a").key("b")));
        assert!(!root.key("a").overlaps(&root.key("b")));
    }

    #[test]
    fn a_quoted_text_of_two_lines_is_shown_in_one() {
        let message = "the text `a\n\u{1b}[2J\u{85}é` stands here; write a list".to_owned();
        let problem = Problem { at: Position::START, path: FieldPath::default(), message };
        assert_eq!(
            problem.to_string(),
            "1:1: the text `a\\n\\u{1b}[2J\\u{85}é` stands here; write a list"
        );
    }

    #[test]
    fn a_typing_error_finds_its_word() {
        assert_eq!(closest("weihgts", ["weights", "versions"]), Some("weights"));
        assert_eq!(closest("v43", ["v41", "v42"]), Some("v41"));
        assert_eq!(closest("retry", ["timeout", "name"]), None);
        assert_eq!(closest("tls", ["address"]), None);
    }
}
