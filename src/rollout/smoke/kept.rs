//! Values that a smoke check has kept: they go into later requests, and never into what people read.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Failure, bounded};
use crate::config::schema::{Piece, Template};

/// Shorter values are hidden only where they stand alone: they are no secrets, and hiding them everywhere would
/// garble other texts.
const LEAST_HIDDEN: usize = 4;

/// Where a kept value is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A path or a query: what is not unreserved (RFC 3986 section 2.3) is written as `%XX`.
    Target,
    /// A header field: as it is.
    Header,
}

/// Values by name: texts, numbers and truth values. Not `Debug`, since they may be secrets.
#[derive(Clone, Default)]
pub(super) struct KeptValues(BTreeMap<String, Value>);

impl KeptValues {
    pub(super) fn put(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    fn value(&self, name: &str) -> Result<&Value, Failure> {
        self.0.get(name).ok_or_else(|| Failure(format!("no earlier step kept `{name}`")))
    }

    /// The text of `template`, to be put in `place`.
    pub(super) fn fill(&self, template: &Template, place: Place) -> Result<String, Failure> {
        template.names().try_for_each(|name| self.value(name).map(drop))?;
        Ok(template.filled(|name| {
            let text = self.value(name).map(text).unwrap_or_default();
            match place {
                Place::Target => encoded(&text),
                Place::Header => text,
            }
        }))
    }

    /// `json` with kept values in its texts. A text that is one kept value becomes that value.
    pub(super) fn fill_json(&self, json: &Value) -> Result<Value, Failure> {
        Ok(match json {
            Value::String(text) => {
                let template: Template = text.parse().map_err(Failure)?;
                match &*template.pieces {
                    [Piece::Kept(name)] => self.value(name)?.clone(),
                    _ => Value::String(self.fill(&template, Place::Header)?),
                }
            }
            Value::Array(items) => {
                let items = items.iter().map(|item| self.fill_json(item));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            Value::Object(fields) => {
                let fields =
                    fields.iter().map(|(name, field)| Ok((name.clone(), self.fill_json(field)?)));
                Value::Object(fields.collect::<Result<_, Failure>>()?)
            }
            other => other.clone(),
        })
    }

    /// A part of an answer as people may see it: bounded, with names in the place of kept values.
    pub(super) fn shown(&self, came: &str) -> String {
        let mut shown = came.to_owned();
        // Longer ones first: a short value may be a part of a long one.
        let mut hidden: Vec<(&String, String)> =
            self.0.iter().map(|(name, value)| (name, text(value))).collect();
        hidden.sort_by_key(|(_, text)| std::cmp::Reverse(text.len()));
        for (name, text) in hidden {
            if shown.trim() == text.trim() {
                return format!("`${{{name}}}`");
            }
            // What came may have lost the spaces around it.
            let all = [forms(&text), forms(text.trim())].concat();
            for form in all.iter().filter(|form| form.len() >= LEAST_HIDDEN) {
                shown = shown.replace(form, &format!("${{{name}}}"));
            }
            shown = without_encoded(shown, text.trim(), name);
        }
        format!("`{}`", bounded(shown.trim()))
    }

    /// As [`shown`](Self::shown), for a value of a body.
    pub(super) fn shown_json(&self, came: &Value) -> String {
        match came {
            Value::String(text) => self.shown(text),
            other => self.shown(&other.to_string()),
        }
    }
}

/// The forms in which an answer may contain `text`: as it is, inside JSON, and in a URL.
fn forms(text: &str) -> [String; 3] {
    let quoted = Value::String(text.to_owned()).to_string();
    [text.to_owned(), quoted[1..quoted.len() - 1].to_owned(), encoded(text)]
}

/// `shown` with `${name}` in the place of `secret` as URLs and forms may have it: any of its bytes as `%XX`, in digits of
/// either case, and a space as `+`.
fn without_encoded(mut shown: String, secret: &str, name: &str) -> String {
    if secret.chars().count() < LEAST_HIDDEN {
        return shown;
    }
    for space in [b'+', b' '] {
        // The name in its place is shorter than what is searched, or is found no second time.
        let mut from = 0;
        while let Some((start, end)) = encoded_at(&shown, secret.as_bytes(), space, from) {
            let name = format!("${{{name}}}");
            shown.replace_range(start..end, &name);
            from = start + name.len();
        }
    }
    shown
}

/// Where `secret` begins and ends in `text` from the byte `from` on, where a `+` stands for `plus`.
fn encoded_at(text: &str, secret: &[u8], plus: u8, from: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut decoded, mut starts, mut at) = (Vec::new(), Vec::new(), from);
    while let Some(byte) = bytes.get(at) {
        starts.push(at);
        let (byte, length) = match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => ((high * 16 + low) as u8, 3),
            (b'+', ..) => (plus, 1),
            (byte, ..) => (*byte, 1),
        };
        decoded.push(byte);
        at += length;
    }
    starts.push(at);
    let first = decoded.windows(secret.len()).position(|window| window == secret)?;
    let (start, end) = (starts[first], starts[first + secret.len()]);
    (text.is_char_boundary(start) && text.is_char_boundary(end)).then_some((start, end))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
