//! What an entry changed of services, in words: their weights, and the shares of players.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::control::controller::percent;

/// The changes of the services in `before.services` and `after.services`, or of the one `asked` for:
/// `game-api v1 3 -> 1 (75% -> 50%), v2 1 (25% -> 50%)`. Empty if there are none.
pub(super) fn in_words(before: &Value, after: &Value, asked: Option<&str>) -> String {
    let (before, after) = (&before["services"], &after["services"]);
    let names =
        keys(before, after).into_iter().filter(|name| asked.is_none_or(|asked| asked == *name));
    let each = names.map(|name| format!("{name} {}", service(&before[name], &after[name])));
    each.collect::<Vec<_>>().join("; ")
}

fn service(before: &Value, after: &Value) -> String {
    if after.is_null() {
        return "is gone".to_owned();
    }
    let names = keys(&before["weights"], &after["weights"]);
    let each = names.into_iter().map(|name| {
        let of = |side: &Value, what: &str| side[what][name].as_f64();
        let weight =
            from_to(of(before, "weights"), of(after, "weights"), |weight| weight.to_string());
        // A version with a weight and without a share has none.
        let of_share = |side: &Value| {
            let is_known = side["shares"].is_object() && of(side, "weights").is_some();
            of(side, "shares").or(is_known.then_some(0.0))
        };
        let share = from_to(of_share(before), of_share(after), percent);
        let share = if share.is_empty() { share } else { format!(" ({share})") };
        format!("{name} {weight}{share}")
    });
    each.collect::<Vec<_>>().join(", ")
}

fn from_to(before: Option<f64>, after: Option<f64>, text: impl Fn(f64) -> String) -> String {
    match (before, after) {
        (Some(before), Some(after)) if before != after => {
            format!("{} -> {}", text(before), text(after))
        }
        (_, Some(after)) => text(after),
        (Some(before), None) => format!("{} -> none", text(before)),
        (None, None) => String::new(),
    }
}

fn keys<'a>(before: &'a Value, after: &'a Value) -> BTreeSet<&'a str> {
    let names = [before, after].into_iter().filter_map(Value::as_object);
    names.flat_map(|fields| fields.keys().map(String::as_str)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn weights_and_shares_are_told_by_service() {
        let split = |v1: f64, v2: f64| {
            let share = |weight| weight / (v1 + v2);
            json!({ "weights": { "v1": v1, "v2": v2 }, "shares": { "v1": share(v1), "v2": share(v2) } })
        };
        let before = json!({ "services": { "game-api": split(3.0, 1.0), "old": split(1.0, 1.0) } });
        let after =
            json!({ "services": { "game-api": split(1.0, 1.0), "wallet": split(1.0, 3.0) } });
        assert_eq!(
            in_words(&before, &after, None),
            "game-api v1 3 -> 1 (75% -> 50%), v2 1 (25% -> 50%); old is gone; wallet v1 1 (25%), v2 3 (75%)"
        );
        assert_eq!(in_words(&before, &after, Some("old")), "old is gone");
        assert_eq!(in_words(&json!(null), &json!({ "hash": "x" }), None), "");
        let known = json!({ "services": { "a": { "weights": { "v1": 1, "v3": 2 } } } });
        let now = json!({ "services": { "a": split(1.0, 0.0) } });
        assert_eq!(in_words(&known, &now, None), "a v1 1 (100%), v2 0 (0%), v3 2 -> none");
    }
}
