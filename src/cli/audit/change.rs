//! What an entry changed, in words.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{rollout, split};
use crate::cli::wrapped::shortened;

/// Longest text of one value, in characters. `--json` shows all of it.
const MOST_OF_A_VALUE: usize = 40;

/// Longest text of a change, in characters: four lines.
const MOST_OF_A_CHANGE: usize = 400;

/// The change from `before` to `after` in lines: `v41 95 -> 90, v42 5 -> 10`. None if there is none. Of an entry about
/// several services, those come first, or only the one `asked` for. A rollout has lines of its own. What is cut ends with
/// `…`.
pub(super) fn in_lines(
    kind: &str,
    (before, after): (&Value, &Value),
    asked: Option<&str>,
) -> Vec<String> {
    let rollout = rollout::is_meant(kind).then(|| rollout::in_words(before, after)).flatten();
    rollout.unwrap_or_else(|| match in_words((before, after), asked) {
        none if none == "-" => Vec::new(),
        text => vec![text],
    })
}

fn in_words((before, after): (&Value, &Value), asked: Option<&str>) -> String {
    // What the entry of another change led to.
    if let (Some(seq), Some(_)) = (before["seq"].as_u64(), before["hash"].as_str()) {
        let more = plain_or_services(&Value::Null, after, asked);
        let gap = if more == "-" { String::new() } else { format!(": {more}") };
        return shortened(&format!("entry {seq}{gap}"), MOST_OF_A_CHANGE);
    }
    plain_or_services(before, after, asked)
}

fn plain_or_services(before: &Value, after: &Value, asked: Option<&str>) -> String {
    let of_services = split::in_words(before, after, asked);
    if of_services.is_empty() {
        return shortened(&plain(before, after), MOST_OF_A_CHANGE);
    }
    let (mut before, mut after) = (before.clone(), after.clone());
    for side in [&mut before, &mut after] {
        let Some(fields) = side.as_object_mut() else { continue };
        fields.remove("services");
        // Lists of what was dropped are mostly empty.
        fields.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
        if fields.is_empty() {
            *side = Value::Null;
        }
    }
    let text = match plain(&before, &after) {
        none if none == "-" => of_services,
        rest => format!("{of_services}; {rest}"),
    };
    shortened(&text, MOST_OF_A_CHANGE)
}

fn plain(before: &Value, after: &Value) -> String {
    match (before, after) {
        (Value::Null, Value::Null) => "-".to_owned(),
        (Value::Null, after) => content(after),
        (before, Value::Null) => format!("was {}", content(before)),
        (before, after) if before == after => format!("as before: {}", content(after)),
        (Value::Object(_), Value::Object(_)) => fields(before, after),
        (before, after) => format!("{} -> {}", value(before), value(after)),
    }
}

/// The fields of two objects: first what is the same in both, then what changed.
fn fields(before: &Value, after: &Value) -> String {
    let names: BTreeSet<&String> =
        [before, after].into_iter().filter_map(Value::as_object).flat_map(|o| o.keys()).collect();
    let is_same = |name: &&&String| before.get(**name) == after.get(**name);
    let (same, changed): (Vec<&String>, Vec<&String>) = (
        names.iter().filter(is_same).copied().collect(),
        names.iter().filter(|n| !is_same(n)).copied().collect(),
    );
    let same: Vec<String> = same.into_iter().map(|name| field(name, &after[name])).collect();
    let changed: Vec<String> = changed
        .into_iter()
        .map(|name| match (before.get(name), after.get(name)) {
            (Some(Value::Bool(before)), Some(Value::Bool(after))) => {
                format!("{} -> {}", flag(name, *before), flag(name, *after))
            }
            (Some(before), Some(after)) => format!("{name} {} -> {}", value(before), value(after)),
            (Some(before), None) => format!("{name} {} -> none", value(before)),
            (None, Some(after)) => field(name, after),
            (None, None) => name.clone(),
        })
        .collect();
    match same.is_empty() {
        true => changed.join(", "),
        false => format!("{}: {}", same.join(", "), changed.join(", ")),
    }
}

fn content(content: &Value) -> String {
    match content {
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| field(name, value)).collect();
            fields.join(", ")
        }
        other => value(other),
    }
}

fn field(name: &str, content: &Value) -> String {
    match content {
        Value::Bool(set) => flag(name, *set),
        content => format!("{name} {}", value(content)),
    }
}

fn flag(name: &str, set: bool) -> String {
    if set { name.to_owned() } else { format!("not {name}") }
}

fn value(value_of: &Value) -> String {
    let text = match value_of {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        // As it was written on the command line: 90 rather than 90.0.
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < 1e15 => format!("{float}"),
            _ => number.to_string(),
        },
        Value::Bool(set) => set.to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(value).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(_) => format!("({})", content(value_of)),
    };
    shortened(&text, MOST_OF_A_VALUE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_told_in_words() {
        for (before, after, expected) in [
            (
                json!({ "v41": 95.0, "v42": 5.0 }),
                json!({ "v41": 90, "v42": 10.5 }),
                "v41 95 -> 90, v42 5 -> 10.5",
            ),
            (json!({ "v41": 100 }), json!({ "v41": 90, "v42": 10 }), "v41 100 -> 90, v42 10"),
            (
                json!({ "v41": 90, "v42": 10 }),
                json!({ "v41": 100 }),
                "v41 90 -> 100, v42 10 -> none",
            ),
            (
                json!({ "version": "v42", "ejected": false }),
                json!({ "version": "v42", "ejected": true }),
                "version v42: not ejected -> ejected",
            ),
            (json!({ "v41": 1 }), json!({ "v41": 1 }), "as before: v41 1"),
            (json!(null), json!({ "version": "v42", "ejected": true }), "ejected, version v42"),
            (json!({ "a": null }), json!(null), "was a none"),
            (json!("off"), json!("auto"), "off -> auto"),
            (json!(null), json!(null), "-"),
            (json!({ "a": [1] }), json!({ "a": [1, 2] }), "a [1] -> [1, 2]"),
            (json!(null), json!({ "a": ["x", { "b": "y", "c": true }] }), "a [x, (b y, c)]"),
            (json!({ "seq": 17, "hash": "x" }), json!(null), "entry 17"),
            (
                json!({ "seq": 17, "hash": "x" }),
                json!({ "uploads_cut": 2 }),
                "entry 17: uploads_cut 2",
            ),
        ] {
            assert_eq!(in_words((&before, &after), None), expected);
        }
        let before = json!({ "hash": "x", "services": { "a": { "weights": { "v1": 1 } } } });
        let after = json!({ "hash": "y", "versions_gone": [], "services": { "a": { "weights": { "v1": 2 } } } });
        assert_eq!(in_words((&before, &after), None), "a v1 1 -> 2; hash x -> y");
        let long = in_words((&json!(null), &json!("é".repeat(50))), None);
        assert_eq!(long, format!("{}…", "é".repeat(39)));
        let many: Vec<String> = (0..50).map(|n| format!("version-{n}")).collect();
        let many: Value =
            many.into_iter().map(|name| (name, json!(1))).collect::<serde_json::Map<_, _>>().into();
        assert_eq!(in_words((&json!(null), &many), None).chars().count(), MOST_OF_A_CHANGE);
    }
}
