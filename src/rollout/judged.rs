//! What the gates of a step said when a rollout decided: for the journal, which is read years later.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gate::{GateReply, Reply};
use crate::config::schema::{Gate, GateKind};

/// Most gates whose replies are kept, and most characters of each reason.
const MOST_GATES: usize = 20;
const MOST_OF_A_REASON: usize = 400;

/// A step as it was judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Its number, from 1.
    pub step: usize,
    /// How long it was watched, in seconds, without pauses.
    pub watched_s: f64,
    /// Requests of the version in that time.
    pub requests: u64,
    /// Its gates, each with its reply at that moment.
    pub gates: Vec<GateSaid>,
    /// Gates beyond these, which are not kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_gates: usize,
    /// Who skipped what was left of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_by: Option<String>,
}

/// What a gate said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateSaid {
    /// Its name, such as `evidence` or `smoke money-path`.
    pub gate: String,
    /// What it does when it fails.
    pub kind: GateKind,
    /// Its reply.
    pub reply: Reply,
    /// The reason with its numbers; where it was longer than is kept, it ends with how much is not.
    pub why: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Judged {
    /// Step number `nth`, from 0, which was watched for `watched_ms` and had so many `requests`, with what its `gates` said.
    pub(super) fn new<'a>(
        nth: usize,
        (watched_ms, requests): (u64, u64),
        gates: impl Iterator<Item = (&'a Gate, &'a GateReply)>,
        promoted_by: Option<&str>,
    ) -> Self {
        let said = gates.map(|(gate, said)| GateSaid {
            gate: gate.question.to_string(),
            kind: gate.kind,
            reply: said.reply,
            why: kept(&said.why),
        });
        let mut gates: Vec<_> = said.collect();
        let more_gates = gates.len().saturating_sub(MOST_GATES);
        gates.truncate(MOST_GATES);
        Self {
            step: nth + 1,
            watched_s: Duration::from_millis(watched_ms).as_secs_f64(),
            requests,
            gates,
            more_gates,
            promoted_by: promoted_by.map(str::to_owned),
        }
    }
}

/// The beginning of a reason, which says how much is left out.
fn kept(why: &str) -> String {
    let length = why.chars().count();
    match length.checked_sub(MOST_OF_A_REASON).filter(|more| *more > 0) {
        None => why.to_owned(),
        Some(more) => {
            let kept: String = why.chars().take(MOST_OF_A_REASON).collect();
            format!("{kept} (and {more} more characters)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::GateQuestion;

    #[test]
    fn what_is_kept_is_bounded_and_says_so() {
        let gate = Gate { question: GateQuestion::Evidence, kind: GateKind::Guardrail };
        let said = Reply::Pass.because("é".repeat(500));
        let judged = Judged::new(1, (31_500, 120), [(&gate, &said); 25].into_iter(), Some("ann"));
        assert_eq!((judged.step, judged.watched_s, judged.requests), (2, 31.5, 120));
        assert_eq!((judged.gates.len(), judged.more_gates), (MOST_GATES, 5));
        assert_eq!(judged.promoted_by.as_deref(), Some("ann"));
        let why = &judged.gates[0].why;
        assert!(why.ends_with("é (and 100 more characters)") && why.chars().count() < 430, "{why}");
        let text = serde_json::to_string(&judged).expect("JSON");
        assert_eq!(serde_json::from_str::<Judged>(&text).expect("the same"), judged);
        assert_eq!(kept("short"), "short");
    }
}
