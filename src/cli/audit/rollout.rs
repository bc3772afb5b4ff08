//! What an entry about a rollout changed, in words: `v42 by careful, step 1 -> 2 of 3, growing; v41 95% -> 75%, v42 5%
//! -> 25%`; what was decided and by whom, and what the gates said that it rests on.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    control::controller::percent,
    rollout::{GateSaid, ITSELF, Judged},
};

/// Whether entries of this kind are about a rollout.
pub(super) fn is_meant(kind: &str) -> bool {
    matches!(kind, "rollout_started" | "rollout" | "rollout_progress")
}

/// The change of a rollout in lines: what it changed, what was decided, and what the gates said. `None` of an entry
/// without a phase, as of a later release.
pub(super) fn in_words(before: &Value, after: &Value) -> Option<Vec<String>> {
    let mut lines = vec![changed(before, after)?];
    lines.extend(decided(&after["decided"]));
    let judged: Option<Judged> = serde_json::from_value(after["judged"].clone()).ok();
    lines.extend(judged.iter().flat_map(judgement));
    Some(lines)
}

/// What was decided; `None` of an entry of an earlier release, which does not say.
fn decided(decisions: &Value) -> Option<String> {
    let each = decisions.as_array()?.iter().enumerate().filter_map(|(nth, decision)| {
        let text = |field: &str| decision[field].as_str().filter(|text| !text.is_empty());
        let what = text("what")?.replace('_', " ");
        let by = text("by").filter(|by| *by != ITSELF);
        let by = by.map_or(String::new(), |by| format!(" by {by}"));
        // The reason of the first one is that of the entry.
        let why = text("reason").filter(|why| nth > 0 && decisions[0]["reason"] != **why);
        let why = why.map_or(String::new(), |why| format!(" ({why})"));
        Some(format!("{what}{by}{why}"))
    });
    let each: Vec<_> = each.collect();
    (!each.is_empty()).then(|| format!("decided: {}", each.join(", then ")))
}

/// The step that was judged, and each gate in a line.
fn judgement(judged: &Judged) -> Vec<String> {
    let Judged { step, watched_s, requests, gates, more_gates, promoted_by } = judged;
    let mut lines =
        vec![format!("step {step} was watched for {watched_s:.1} s, {requests} requests")];
    lines
        .extend(promoted_by.iter().map(|by| format!("{by} had skipped what was left of the step")));
    lines.extend(
        gates
            .iter()
            .map(|GateSaid { gate, reply, why, .. }| format!("{gate}: {}: {why}", reply.label())),
    );
    lines.extend((*more_gates > 0).then(|| format!("and {more_gates} more gates, not kept")));
    lines
}

fn changed(before: &Value, after: &Value) -> Option<String> {
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
    let now = after["shares"].as_object()?;
    // A version that has no share any more is not named.
    let had = before["shares"].as_object().into_iter().flatten();
    let versions: BTreeSet<&String> = had.chain(now).map(|(version, _)| version).collect();
    let each = versions.into_iter().filter_map(|version| {
        let share = |side: &Value| side["shares"][version].as_f64();
        let (then, share) = (share(before), share(after).unwrap_or(0.0));
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
        let told =
            |before: &Value, after: &Value| in_words(before, after).expect("a rollout").join("\n");
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
        // A version without a share is not named in the entry.
        let mut away = back.clone();
        away["shares"] = json!({ "v1": 1.0 });
        assert_eq!(
            told(&state("rolling_back", 2, 0.25), &away),
            told(&state("rolling_back", 2, 0.25), &back)
        );
        // Of an earlier release.
        let old = json!({ "version": "v2", "phase": "growing", "step": 2 });
        assert_eq!(told(&Value::Null, &old), "v2, step 2, growing");
        assert_eq!(in_words(&Value::Null, &json!({ "version": "v2" })), None);
    }

    #[test]
    fn what_was_decided_and_why_it_was_allowed_is_told() {
        let mut grown = json!({ "version": "v2", "phase": "growing", "step": 2, "on": ["grow"] });
        grown["decided"] = json!([{ "what": "grow", "by": "rollout", "reason": "step 2 of 3" }]);
        grown["judged"] = json!({
            "step": 1, "watched_s": 31.5, "requests": 120, "promoted_by": "bob", "more_gates": 2,
            "gates": [
                { "gate": "evidence", "kind": "guardrail", "reply": "pass", "why": "certainly healthy" },
                { "gate": "approval", "kind": "signal", "reply": "undecided", "why": "waits for one" },
            ],
        });
        assert_eq!(
            in_words(&Value::Null, &grown).expect("a rollout"),
            [
                "v2, step 2, growing",
                "decided: grow",
                "step 1 was watched for 31.5 s, 120 requests",
                "bob had skipped what was left of the step",
                "evidence: pass: certainly healthy",
                "approval: undecided: waits for one",
                "and 2 more gates, not kept",
            ]
        );
        let decisions = json!([
            { "what": "reject", "by": "ann", "reason": "too slow" },
            { "what": "rollback", "by": "ann", "reason": "too slow" },
            { "what": "restored", "by": "rollout", "reason": "its end" },
        ]);
        let says = "decided: reject by ann, then rollback by ann, then restored (its end)";
        assert_eq!(decided(&decisions).as_deref(), Some(says));
        assert_eq!((decided(&Value::Null), decided(&json!([]))), (None, None));
    }
}
