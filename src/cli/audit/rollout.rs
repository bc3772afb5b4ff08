//! What an entry about a rollout changed, in words: `v42 by careful, step 1 -> 2 of 3, growing; v41 95% -> 75%, v42 5%
//! -> 25%`.

use serde_json::Value;

use crate::control::controller::percent;

/// Whether entries of this kind are about a rollout.
pub(super) fn is_meant(kind: &str) -> bool {
    matches!(kind, "rollout_started" | "rollout" | "rollout_progress")
}

/// The change of a rollout; `None` of an entry without a phase, as of a later release.
pub(super) fn in_words(before: &Value, after: &Value) -> Option<String> {
    let version = after["version"].as_str()?;
    let phase = phases(before, after)?;
    // Entries of earlier releases have neither the name of the plan nor the number of steps.
    let plan = [&after["plan_name"], &after["plan"]["name"]].into_iter().find_map(Value::as_str);
    let by = plan.map_or(String::new(), |plan| format!(" by {plan}"));
    let steps = after["plan"]["steps"].as_array().map(|steps| steps.len() as u64);
    let of = after["steps"].as_u64().or(steps).map_or(String::new(), |of| format!(" of {of}"));
    let step = from_to(before["step"].as_u64(), after["step"].as_u64()?, |step| step.to_string());
    let mut parts = vec![format!("{version}{by}, step {step}{of}, {phase}")];
    parts.extend(shares(before, after));
    parts.extend(after["requests"].as_u64().map(|seen| format!("{seen} requests seen")));
    parts.extend((after["urgent"] == true).then(|| "urgent".to_owned()));
    let leave = after["break_in"].as_object();
    parts.extend(leave.map(|_| "in spite of a closed window".to_owned()));
    Some(parts.join("; "))
}

fn phases(before: &Value, after: &Value) -> Option<String> {
    let words = |phase: &str| phase.replace('_', " ");
    let now = words(after["phase"].as_str()?);
    let then = before["phase"].as_str().map(words).filter(|then| *then != now);
    Some(then.map_or(now.clone(), |then| format!("{then} -> {now}")))
}

/// The shares of players that the rollout sets, those of all versions with any.
fn shares(before: &Value, after: &Value) -> Option<String> {
    let each = after["shares"].as_object()?.iter().filter_map(|(version, share)| {
        let share = share.as_f64()?;
        let then = before["shares"][version].as_f64();
        let is_known = share > 0.0 || then.is_some_and(|then| then > 0.0);
        is_known.then(|| format!("{version} {}", from_to(then, share, percent)))
    });
    Some(each.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
}

fn from_to<T: PartialEq>(before: Option<T>, after: T, text: impl Fn(T) -> String) -> String {
    match before {
        Some(before) if before != after => format!("{} -> {}", text(before), text(after)),
        _ => text(after),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rollout_is_a_line() {
        let state = |phase: &str, step: u64, v2: f64| {
            json!({
                "version": "v2", "phase": phase, "step": step, "steps": 3, "plan_name": "careful",
                "weights": { "v1": 100.0 * (1.0 - v2), "v2": 100.0 * v2 },
                "shares": { "v1": 1.0 - v2, "v2": v2 },
            })
        };
        let mut begun = state("pending", 1, 0.0);
        begun["plan"] = json!({ "name": "careful", "steps": [1, 2, 3] });
        begun["urgent"] = json!(false);
        let told = |before: &Value, after: &Value| in_words(before, after).expect("a rollout");
        assert_eq!(told(&Value::Null, &begun), "v2 by careful, step 1 of 3, pending; v1 100%");
        let (holding, growing) = (state("holding", 1, 0.05), state("growing", 2, 0.25));
        assert_eq!(
            told(&holding, &growing),
            "v2 by careful, step 1 -> 2 of 3, holding -> growing; v1 95% -> 75%, v2 5% -> 25%"
        );
        let mut seen = growing.clone();
        (seen["requests"], seen["break_in"]) = (json!(120), json!({ "by": "ann" }));
        assert_eq!(
            told(&Value::Null, &seen),
            "v2 by careful, step 2 of 3, growing; v1 75%, v2 25%; 120 requests seen; in spite of a closed window"
        );
        let back = state("rolled_back", 2, 0.0);
        assert_eq!(
            told(&state("rolling_back", 2, 0.25), &back),
            "v2 by careful, step 2 of 3, rolling back -> rolled back; v1 75% -> 100%, v2 25% -> 0%"
        );
        // Of an earlier release.
        let old = json!({ "version": "v2", "phase": "growing", "step": 2 });
        assert_eq!(told(&Value::Null, &old), "v2, step 2, growing");
        assert_eq!(in_words(&Value::Null, &json!({ "version": "v2" })), None);
    }
}
