//! What people read on a terminal: text of others without control characters.
//!
//! A terminal obeys what it is sent: ESC begins commands that move the cursor, clear the screen or name the
//! window, and a line's end in a reason makes a line that looks like the program's. So each text of a
//! server or a file is escaped where it comes in, line's ends included, and each line once more where it
//! goes out, whatever it was made of. JSON is for programs and goes out as it is.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::failure::{Exit, Failure};
use crate::config::problem::{escaped, escaped_but};

/// `answer` with all its text in lines of their own made harmless.
pub(super) fn printable<T: Serialize + DeserializeOwned>(answer: &T) -> Result<T, Failure> {
    let fault = |error| Failure::new(Exit::Fault, error);
    let mut value = serde_json::to_value(answer).map_err(fault)?;
    escape(&mut value);
    serde_json::from_value(value).map_err(fault)
}

/// The same of JSON: texts and names of fields.
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

/// Lines that are to be printed: only their ends, and tabs, are left of control characters.
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
