//! Removes control characters from text that is shown on a terminal.
//!
//! A terminal obeys control characters: ESC begins commands that move the cursor, clear the screen
//! or set the title, and a newline in a reason makes a line that looks like the program's. So each
//! text of a server or a file is escaped when it is read, including newlines, and each line again
//! when it is printed. JSON is for programs and is printed unchanged.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::failure::{Exit, Failure};
use crate::config::problem::{escaped, escaped_but};

/// Escapes all texts in `answer`.
pub(super) fn printable<T: Serialize + DeserializeOwned>(answer: &T) -> Result<T, Failure> {
    let fault = |error| Failure::new(Exit::Fault, error);
    let mut value = serde_json::to_value(answer).map_err(fault)?;
    escape(&mut value);
    serde_json::from_value(value).map_err(fault)
}

/// Escapes the texts and the names of fields of a JSON value.
pub(super) fn escape(value: &mut Value) {
    match value {
        Value::String(text) => *text = escaped(text),
        Value::Array(all) => all.iter_mut().for_each(escape),
        Value::Object(fields) => {
            let each = std::mem::take(fields).into_iter();
            fields.extend(each.map(|(name, mut value)| {
                escape(&mut value);
                (escaped(&name), value)
            }));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Lines to print: of control characters, only newlines and tabs are kept.
pub(super) fn lines(text: &str) -> String {
    escaped_but(text, |c| matches!(c, '\n' | '\t'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        let value = json!({ "a\rb": [ "x\u{1b}[2J\n", 1 ], "at": null });
        let shown = json!({ "a\\rb": [ "x\\u{1b}[2J\\n", 1 ], "at": null });
        assert_eq!(printable(&value), Ok(shown));
        assert_eq!(lines("a\tb\nc\u{9b}31m\u{7f}\r"), "a\tb\nc\\u{9b}31m\\u{7f}\\r");
        assert_eq!(lines("Zürich, 東京"), "Zürich, 東京");
    }
}
