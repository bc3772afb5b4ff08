//! A rollout as text for people.

use std::{
    fmt::Write,
    time::{Duration, UNIX_EPOCH},
};

use humantime::format_rfc3339_seconds;

use crate::{
    admin::model::{Rollout, RolloutStep},
    cli::columns::{aligned, table},
    control::controller::percent,
    rollout::{BreakIn, Phase},
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
    text += "\n\n";
    text += &steps(rollout);
    let _ = write!(text, "\n{}", line(rollout));
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
    let waits = match &*rollout.missing {
        [] => cause.clone(),
        missing => format!("waits for {}", missing.join(", ")),
    };
    let waits = if *phase == Phase::Paused { cause.clone() } else { waits };
    let gap = if waits.is_empty() { "" } else { ": " };
    format!("{to} is {}{place}, with {share} of the players{gap}{waits}", shown(*phase))
}

/// What a break-in allows.
fn broken_into(leave: &BreakIn) -> String {
    let BreakIn { window, also, by, second, reason, until_unix_ms, .. } = leave;
    let windows = [std::slice::from_ref(window), also].concat().join(", ");
    let and = second.as_ref().map_or_else(String::new, |second| format!(" and {second}"));
    let until = until_unix_ms.map_or_else(String::new, |until| {
        format!(", until {}", format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(until)))
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
