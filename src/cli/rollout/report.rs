//! A rollout as text for people.

use std::{
    fmt::Write,
    time::{Duration, UNIX_EPOCH},
};

use crate::{
    admin::model::{Rollout, RolloutEntry, RolloutStep},
    cli::columns::{aligned, table},
    control::controller::percent,
    rollout::{BreakIn, On, Phase},
    telemetry::rfc3339,
};

/// A rollout with its steps, gates and what it waits for.
pub(super) fn report(rollout: &Rollout) -> String {
    let Rollout { service, to, by, started, .. } = rollout;
    let plan = rollout.plan.as_deref().unwrap_or("its own steps");
    let mut text = format!("{service}: {to} by {plan}, started {started} by {by}");
    if !rollout.reason.is_empty() {
        // Writing to a string does not fail.
        let _ = write!(text, " ({})", rollout.reason);
    }
    if let Some(due) = &rollout.due {
        let _ = write!(text, "\nurgent (p1): {to} must have all players by {due}");
    }
    text += "\n\n";
    text += &steps(rollout);
    let _ = write!(text, "\n{}", line(rollout));
    if let Some(of_when) = rollout.phase.is_end().then(|| last_looked_at(rollout))
        && !rollout.gates.is_empty()
    {
        let _ = write!(text, "\ngates of step {} {of_when}:", rollout.step);
    }
    for gate in &rollout.gates {
        let (name, reply, why) = (&gate.gate, gate.reply.label(), &gate.why);
        let _ = write!(text, "\n  {name}: {reply}: {why}");
    }
    if let Some(leave) = rollout.break_in.as_ref().filter(|_| !rollout.phase.is_end()) {
        let _ = write!(text, "\n{}", broken_into(leave));
    }
    if let Some(next) = next(rollout) {
        let _ = write!(text, "\n{next}");
    }
    text
}

fn steps(rollout: &Rollout) -> String {
    let mut all = table();
    all.set_header(["", "step", "share", "at least", "gates"]);
    let is_over = |number: usize| number < rollout.step || rollout.phase == Phase::Done;
    for (index, step) in rollout.steps.iter().enumerate() {
        let number = index + 1;
        let mark = match () {
            () if is_over(number) => "✓",
            () if number == rollout.step && !rollout.phase.is_end() => "▶",
            () => "",
        };
        let RolloutStep { share, least_s, bake, gates } = step;
        let least = (*least_s).map_or_else(String::new, seconds);
        let least = if *bake { format!("bake {least}") } else { least };
        all.add_row([
            mark.to_owned(),
            number.to_string(),
            percent(*share),
            least,
            gates.join(", "),
        ]);
    }
    aligned(all, |column| matches!(column, 1 | 2))
}

/// The rollout in one line.
pub(super) fn line(rollout: &Rollout) -> String {
    let Rollout { to, phase, step, steps, cause, .. } = rollout;
    let (share, of) = (percent(rollout.share), steps.len());
    let place = match phase.is_end() {
        true => String::new(),
        false => format!(", step {step} of {of}"),
    };
    let waits = waits((*phase, cause, &rollout.missing), rollout.last_transition.as_ref());
    let gap = if waits.is_empty() { "" } else { ": " };
    format!("{to} is {}{place}, with {share} of the players{gap}{waits}", shown(*phase))
}

/// What it waits for, or why it is in its phase. If somebody said something since, the next look at the gates follows
/// from that.
pub(in crate::cli) fn waits(
    (phase, cause, missing): (Phase, &str, &[String]),
    last: Option<&RolloutEntry>,
) -> String {
    let said = last.filter(|_| phase != Phase::Paused && !phase.is_end()).and_then(said);
    match (missing, said) {
        _ if phase == Phase::Paused => cause.to_owned(),
        ([], Some(said)) => said,
        ([], None) => cause.to_owned(),
        (missing, _) => format!("waits for {}", missing.join(", ")),
    }
}

/// What a person did last that leaves the rollout in its phase.
fn said(last: &RolloutEntry) -> Option<String> {
    let RolloutEntry { on, by, reason, approves, .. } = last;
    let what = match (&**on, approves) {
        ("promote", _) => "promoted",
        ("approve", Some(false)) => "not approved",
        ("approve", _) => "approved",
        ("break_in", _) => "broken into its window",
        _ => return None,
    };
    let gap = if reason.is_empty() { "" } else { ": " };
    Some(format!("{what} by {by}{gap}{reason}"))
}

/// When the gates of a rollout that has ended were looked at last.
fn last_looked_at(rollout: &Rollout) -> &'static str {
    match rollout.entries.iter().any(|entry| entry.on == On::Ejected.label()) {
        true => "before the version was ejected",
        false => "when it ended",
    }
}

/// What a break-in allows.
fn broken_into(leave: &BreakIn) -> String {
    let BreakIn { window, also, by, second, reason, until_unix_ms, .. } = leave;
    let windows = [std::slice::from_ref(window), also].concat().join(", ");
    let and = second.as_ref().map_or_else(String::new, |second| format!(" and {second}"));
    let until = until_unix_ms.map_or_else(String::new, |until| {
        format!(", until {}", rfc3339::seconds(UNIX_EPOCH + Duration::from_millis(until)))
    });
    format!("it may grow in the window {windows}{until}, which {by}{and} broke into: {reason}")
}

/// The command that is probably wanted next.
fn next(rollout: &Rollout) -> Option<String> {
    let Rollout { service, .. } = rollout;
    let asks = rollout.missing.iter().any(|missing| missing.starts_with("approval"));
    match rollout.phase {
        Phase::Paused => Some(format!(
            "`tidegate rollout resume {service}` lets it go on, `tidegate rollout abort {service}` gives it up"
        )),
        Phase::Done if rollout.way_back => {
            Some(format!("`tidegate rollout rollback {service}` restores the split before it"))
        }
        _ if asks => Some(format!("`tidegate rollout approve {service}` approves the step")),
        phase if phase.is_end() => None,
        _ => Some(format!("`tidegate rollout wait {service}` waits for its end")),
    }
}

fn shown(phase: Phase) -> String {
    phase.label().replace('_', " ")
}

/// `90s` as `1m 30s`.
fn seconds(seconds: f64) -> String {
    let time = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
    humantime::format_duration(time).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rollout(change: serde_json::Value) -> Rollout {
        let mut whole = json!({
            "service": "game-api", "to": "v42", "plan": "careful", "by": "ann", "reason": "4.2",
            "started": "2026-11-28T15:00:00.000Z", "due": null, "phase": "holding",
            "since": "2026-11-28T15:00:00.000Z", "cause": "waits for evidence (undecided: nothing is certain)",
            "last_transition": null, "step": 1,
            "steps": [{ "share": 0.05, "least_s": 60.0, "bake": false, "gates": ["evidence"] },
                      { "share": 1.0, "least_s": null, "bake": false, "gates": [] }],
            "share": 0.05, "weights": {}, "before": {}, "by_hand": false, "way_back": true,
            "watched_s": 1.0, "requests": 7,
            "gates": [{ "gate": "evidence", "kind": "guardrail", "reply": "pass", "why": "certainly healthy" }],
            "missing": [], "frozen": null, "break_in": null, "entries": [],
        });
        whole.as_object_mut().expect("a map").extend(change.as_object().expect("a map").clone());
        serde_json::from_value(whole).expect("a rollout")
    }

    fn turn(on: &str, phase: &str) -> serde_json::Value {
        json!({ "at": "2026-11-28T15:01:00.000Z", "on": on, "from": phase, "to": phase, "step": 1,
                "by": "bob", "reason": "seen enough" })
    }

    /// Regression: after `promote` and `break-in` the line was that of what had been waited for before.
    #[test]
    fn what_a_person_said_last_is_what_the_line_says() {
        let at = |phase: &str, on: &str, missing: &[&str]| {
            line(&rollout(
                json!({ "phase": phase, "last_transition": turn(on, phase), "missing": missing }),
            ))
        };
        let promoted =
            "v42 is holding, step 1 of 2, with 5% of the players: promoted by bob: seen enough";
        assert_eq!(at("holding", "promote", &[]), promoted);
        assert!(
            at("pending", "break_in", &[])
                .ends_with(": broken into its window by bob: seen enough")
        );
        assert!(
            at("holding", "promote", &["the window friday-peak"])
                .ends_with(": waits for the window friday-peak")
        );
        assert!(at("growing", "grow", &[]).contains("nothing is certain"), "its cause");
        assert!(at("rolled_back", "approve", &[]).contains("nothing is certain"), "its cause");
    }

    /// Regression: `evidence: pass` stood below "v42 was ejected".
    #[test]
    fn gates_of_a_rollout_that_has_ended_say_of_when_they_are() {
        let ended = |on: &str| {
            report(&rollout(
                json!({ "phase": "rolled_back", "cause": "v42 was ejected", "entries": [turn(on, "growing")] }),
            ))
        };
        let ejected = ended("ejected");
        assert!(
            ejected.contains("gates of step 1 before the version was ejected:\n  evidence: pass"),
            "{ejected}"
        );
        assert!(ended("guardrail").contains("gates of step 1 when it ended:\n"), "{ejected}");
        assert!(!report(&rollout(json!({}))).contains("gates of step"));
    }

    #[test]
    fn an_urgent_rollout_says_so_and_until_when() {
        let text = report(&rollout(json!({ "due": "2026-11-29T15:00:00.000Z" })));
        assert!(
            text.contains("\nurgent (p1): v42 must have all players by 2026-11-29T15:00:00.000Z\n"),
            "{text}"
        );
        assert!(!report(&rollout(json!({}))).contains("urgent"));
    }
}
