//! What the versions of services get, for entries about several services at once.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{snapshot::Snapshot, store::Draft};

/// Weights and shares in force, by service.
pub(super) type Splits = BTreeMap<String, Value>;

/// Most bytes that an entry has of them. An entry that is too long would be refused, and its change with it.
const MOST_BYTES: usize = 64 * 1024;

/// Those of `snapshot`: of each service `weights` and `shares`, from 0 to 1, by version.
pub(super) fn splits(snapshot: &Snapshot) -> Splits {
    let each = snapshot.services.iter().map(|service| {
        let sum: f64 = service.versions.iter().map(|v| v.share_weight().value()).sum();
        let share = |weight: f64| if sum > 0.0 { round(weight / sum) } else { 0.0 };
        let (mut weights, mut shares) = (Map::new(), Map::new());
        for version in &service.versions {
            weights.insert(version.name.to_string(), json!(version.weight));
            let share = share(version.share_weight().value());
            shares.insert(version.name.to_string(), json!(share));
        }
        (service.name.to_string(), json!({ "weights": weights, "shares": shares }))
    });
    each.collect()
}

/// Writes into the entry those that are not the same before and after.
pub(super) fn tell_moved(draft: &mut Draft, before: &Splits, after: &Splits) {
    let differs = |name: &&String| before.get(*name) != after.get(*name);
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    let names: Vec<&String> = names.filter(differs).collect();
    tell(draft, &names, before, after);
}

/// Writes into the entry all those after it, and what is known of them before.
pub(super) fn tell_all(draft: &mut Draft, before: &Splits, after: &Splits) {
    let names = after.keys().chain(before.keys().filter(|name| !after.contains_key(*name)));
    tell(draft, &names.collect::<Vec<_>>(), before, after);
}

fn tell(draft: &mut Draft, names: &[&String], before: &Splits, after: &Splits) {
    if names.is_empty() {
        return;
    }
    let (mut sides, mut bytes, mut left_out) = ([Map::new(), Map::new()], 0, 0);
    for name in names {
        let found = [before.get(*name), after.get(*name)];
        bytes +=
            found.iter().flatten().map(|split| split.to_string().len() + name.len()).sum::<usize>();
        if bytes > MOST_BYTES {
            left_out += 1;
            continue;
        }
        for (side, split) in sides.iter_mut().zip(found) {
            side.extend(split.map(|split| ((*name).clone(), split.clone())));
        }
    }
    let [of_before, of_after] = sides;
    if !of_before.is_empty() {
        draft.before["services"] = of_before.into();
    }
    draft.after["services"] = of_after.into();
    if left_out > 0 {
        draft.after["services_left_out"] = json!(left_out);
    }
}

/// To six digits, as the admin API shows shares.
fn round(share: f64) -> f64 {
    (share * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Actor;

    fn split(weight: u32) -> Value {
        json!({ "weights": { "v1": weight }, "shares": { "v1": 1.0 } })
    }

    fn draft() -> Draft {
        Draft::new("configuration", Actor::system(), "")
    }

    #[test]
    fn only_services_that_move_are_told() {
        let of = |each: &[(&str, u32)]| -> Splits {
            each.iter().map(|(name, weight)| ((*name).to_owned(), split(*weight))).collect()
        };
        let (before, after) =
            (of(&[("a", 1), ("b", 1), ("c", 1)]), of(&[("a", 1), ("b", 2), ("d", 1)]));
        let mut moved = draft();
        moved.before = json!({ "hash": "x" });
        tell_moved(&mut moved, &before, &after);
        let services = json!({ "b": split(1), "c": split(1) });
        assert_eq!(moved.before, json!({ "hash": "x", "services": services }));
        assert_eq!(moved.after, json!({ "services": { "b": split(2), "d": split(1) } }));
        let mut same = draft();
        tell_moved(&mut same, &after, &after);
        assert_eq!(same, draft());
        let mut all = draft();
        tell_all(&mut all, &Splits::new(), &after);
        assert_eq!((&all.before, all.after["services"]["a"].clone()), (&Value::Null, split(1)));
    }

    #[test]
    fn an_entry_stays_short_with_any_number_of_services() {
        let many: Splits = (0..10_000).map(|n| (format!("service-{n}"), split(n))).collect();
        let mut told = draft();
        tell_all(&mut told, &Splits::new(), &many);
        let text = told.after.to_string();
        assert!(text.len() < 2 * MOST_BYTES, "{}", text.len());
        let services = told.after["services"].as_object().expect("a map").len();
        assert_eq!(told.after["services_left_out"], json!(10_000 - services));
    }
}
