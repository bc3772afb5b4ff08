//! The reply of each gate, from numbers, people and programs, and the decision from all replies of a step.
//!
//! | gate | pass | fail | undecided |
//! | --- | --- | --- | --- |
//! | `evidence` | certainly healthy ([`crate::analysis::Gate`]), and the sample ratio is right | the comparison fails the version | else |
//! | `slo` | certainly within all limits | certainly beyond one | else |
//! | `amounts` | enough amounts, and no evidence against any | evidence against one suffices | else |
//! | `approval` | a person approves | a person refuses | no reply yet |
//! | `smoke` | every step is answered as expected | one is not | it has not run |
//! | `webhook` | status 200 to 202 | another status | no response |
//!
//! Decisions: a guardrail that fails goes back; a signal that fails holds; undecided holds. When `within` of
//! the step is over, evidence without a verdict passes, another guardrail that has never passed in the step
//! fails, and another signal goes on holding.

mod decide;
mod limits;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::{
    decide::{Decision, GateReply, Patience, decide},
    limits::{Seen, Slow, slo},
};
use super::ratio::Mismatch;
use crate::analysis::{Answer, GateAnswer, Metric, Numbers, Standing, Verdict};

/// The result of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// In favor of the version.
    Pass,
    /// Against it.
    Fail,
    /// Neither yet.
    Undecided,
}

impl Reply {
    /// The name in the API and the journal.
    pub fn label(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Undecided => "undecided",
        }
    }

    /// The result with its reason, a sentence without a full stop.
    pub fn because(self, why: impl Into<String>) -> GateReply {
        GateReply { reply: self, why: why.into() }
    }
}

/// Amounts of each version from which on the gate `amounts` can pass.
const LEAST_AMOUNTS: u64 = 500;

/// Evidence, in nats, below which nothing speaks against a version: one within its limits exceeds it in one
/// of twenty comparisons at most.
const DOUBTED: f64 = 3.0;

/// The gate `evidence`. If the sample ratio is wrong, the players of the two versions are not comparable:
/// the gate can fail, and cannot pass.
pub fn evidence(gate: &GateAnswer, ratio: Option<&Mismatch>) -> GateReply {
    let against = gate.log_evidence.unwrap_or(0.0);
    let requests = gate.requests.canary;
    match (gate.answer, ratio) {
        (Answer::Fail, _) => Reply::Fail.because(format!(
            "worse than the baseline: evidence of {against:.1} nats, where {:.1} suffice, after {requests} compared requests",
            gate.log_threshold
        )),
        (_, Some(mismatch)) => {
            Reply::Undecided.because(format!("evidence is not believed: {mismatch}"))
        }
        (Answer::Healthy, None) => {
            let what = gate.health.map(|health| format!(": {health}")).unwrap_or_default();
            Reply::Pass.because(format!("certainly healthy after {requests} compared requests{what}"))
        }
        (Answer::Undecided, None) => {
            let (found, needed) = gate.health.map_or((None, None), |health| {
                (health.log_evidence, Some(health.log_threshold))
            });
            let of = needed.map(|needed| {
                format!(": {:.1} of {needed:.1} nats for its health", found.unwrap_or(0.0))
            });
            let of = of.unwrap_or_default();
            let doubt = match against {
                DOUBTED.. => format!(", and {against:.1} nats against it"),
                _ => String::new(),
            };
            Reply::Undecided.because(match gate.warming {
                Some(warming) => format!("{warming}; after {requests} compared requests{of}{doubt}"),
                None => format!("nothing is certain after {requests} compared requests{of}{doubt}"),
            })
        }
    }
}

/// The gate `evidence` of a version that serves without a baseline, as in a bake: by its limits, and by the past. Its
/// reason says what was not judged.
pub fn evidence_alone(standing: &Standing) -> GateReply {
    let reply = match standing.answer {
        Answer::Fail => Reply::Fail,
        Answer::Healthy => Reply::Pass,
        Answer::Undecided => Reply::Undecided,
    };
    reply.because(standing.to_string())
}

/// The gate `amounts`, from the verdict of the comparison; none before the first one. There is no certificate
/// that amounts agree, so it passes if each amount was seen often enough and nothing speaks against any.
pub fn amounts(verdict: Option<&Verdict>) -> GateReply {
    let mut fewest: Option<u64> = None;
    let mut worst: Option<(f64, String)> = None;
    for finding in verdict.iter().flat_map(|verdict| &verdict.findings) {
        let counted = match &finding.numbers {
            Numbers::Amount { canary, baseline, .. }
            | Numbers::DerivedAmount { canary, baseline, .. } => {
                canary.requests.min(baseline.requests)
            }
            _ => continue,
        };
        fewest = Some(fewest.map_or(counted, |fewest| fewest.min(counted)));
        let side = if finding.metric == Metric::AmountLow { "too low" } else { "too high" };
        let evidence = finding.log_evidence.unwrap_or(0.0);
        if worst.as_ref().is_none_or(|(most, _)| evidence > *most) {
            let name = finding.amount.as_deref().unwrap_or("an amount");
            worst = Some((evidence, format!("{name} is {side}")));
        }
    }
    let (Some(fewest), Some((most, what)), Some(verdict)) = (fewest, worst, verdict) else {
        return Reply::Undecided.because("no amounts have been compared");
    };
    if most >= verdict.log_threshold {
        let needed = verdict.log_threshold;
        Reply::Fail
            .because(format!("{what}: evidence of {most:.1} nats, where {needed:.1} suffice"))
    } else if most >= DOUBTED {
        Reply::Undecided.because(format!("{what}: evidence of {most:.1} nats"))
    } else if fewest < LEAST_AMOUNTS {
        Reply::Undecided.because(format!("{fewest} of {LEAST_AMOUNTS} amounts of each version"))
    } else {
        Reply::Pass.because(format!("nothing speaks against {fewest} amounts of each version"))
    }
}

/// The approval of a step by a person, or the refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Who: a token's name.
    pub by: String,
    /// Whether the person approves.
    pub approves: bool,
    /// Why; may be empty for an approval.
    pub reason: String,
}

/// The gate `approval`: the latest reply counts.
pub fn approval(said: Option<&Approval>, second_person: bool) -> GateReply {
    match said {
        Some(Approval { by, approves: true, .. }) => Reply::Pass.because(format!("{by} approves")),
        Some(Approval { by, reason, .. }) => {
            Reply::Fail.because(format!("{by} does not approve: {reason}"))
        }
        None if second_person => Reply::Undecided.because("waits for a second person to approve"),
        None => Reply::Undecided.because("waits for an approval"),
    }
}

/// Longest message of a webhook that is kept, in characters.
const MESSAGE: usize = 200;

/// The gate `webhook`, by Flagger's rule: the statuses 200 to 202 pass, and every other one fails with the body
/// as its message. Without a response, `status` absent and `body` the error, the gate is undecided,
/// unlike in Flagger: a receiver that is down holds a rollout and does not roll it back.
pub fn webhook(status: Option<u16>, body: &str) -> GateReply {
    let mut message: String = body.trim().chars().take(MESSAGE).collect();
    if message.len() < body.trim().len() {
        message.push('…');
    }
    match status {
        Some(status @ 200..=202) => Reply::Pass.because(format!("status {status}")),
        Some(status) if message.is_empty() => Reply::Fail.because(format!("status {status}")),
        Some(status) => Reply::Fail.because(format!("status {status}: {message}")),
        None => Reply::Undecided.because(format!("no answer: {message}")),
    }
}

/// How long something has lasted, in whole seconds, for sentences.
pub(super) fn in_words(time: Duration) -> String {
    let seconds = Duration::from_secs(time.as_secs().max(u64::from(!time.is_zero())));
    humantime::format_duration(seconds).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{Arms, Finding, HealthFinding, Mean, Warming};

    fn gate_answer(answer: Answer) -> GateAnswer {
        GateAnswer {
            answer,
            log_evidence: Some(7.25),
            log_threshold: 6.9,
            health: Some(HealthFinding {
                ratio: 2.2,
                excess: 0.0,
                log_evidence: Some(1.5),
                log_threshold: 3.0,
            }),
            warming: None,
            requests: Arms::new(830, 9_000),
            since: Duration::ZERO,
        }
    }

    #[test]
    fn evidence_answers_as_the_comparison_unless_players_are_not_comparable() {
        let of = |answer, ratio| evidence(&gate_answer(answer), ratio);
        let fail = of(Answer::Fail, None);
        assert_eq!(fail.reply, Reply::Fail);
        assert_eq!(
            fail.why,
            "worse than the baseline: evidence of 7.2 nats, where 6.9 suffice, after 830 compared requests"
        );
        let undecided = of(Answer::Undecided, None);
        assert_eq!(undecided.reply, Reply::Undecided);
        assert_eq!(
            undecided.why,
            "nothing is certain after 830 compared requests: 1.5 of 3.0 nats for its health, and 7.2 nats against it"
        );
        let warming = Warming::Time(Duration::from_secs(12));
        let cold = GateAnswer {
            warming: Some(warming),
            log_evidence: Some(0.5),
            ..gate_answer(Answer::Undecided)
        };
        assert_eq!(
            evidence(&cold, None).why,
            "warming up, 12 s left; after 830 compared requests: 1.5 of 3.0 nats for its health"
        );
        let healthy = of(Answer::Healthy, None);
        assert!(healthy.reply == Reply::Pass && healthy.why.contains("2.2 times"), "{healthy:?}");
        let mismatch = Mismatch::of_moved(7, 1_000);
        let doubted = of(Answer::Healthy, Some(&mismatch));
        assert_eq!(doubted.reply, Reply::Undecided);
        assert!(doubted.why.starts_with("evidence is not believed: "), "{}", doubted.why);
        assert_eq!(of(Answer::Fail, Some(&mismatch)).reply, Reply::Fail);
    }

    fn verdict(log_evidence: f64, requests: u64) -> Verdict {
        let mean = Mean { requests, mean: Some(2.0) };
        let numbers = Numbers::Amount {
            canary: mean,
            baseline: mean,
            ratio: None,
            clipped_at: None,
            tolerated_ratio: 1.05,
        };
        let finding = Finding {
            metric: Metric::AmountHigh,
            amount: Some("payout".to_owned()),
            route: None,
            log_evidence: Some(log_evidence),
            component: None,
            onset_s: None,
            numbers,
        };
        Verdict {
            answer: Answer::Undecided,
            alone: false,
            since_s: 0.0,
            compared_s: 0.0,
            log_evidence: None,
            log_threshold: 6.9,
            warm_up_s: None,
            health: None,
            held: None,
            findings: vec![finding],
            reason: String::new(),
        }
    }

    #[test]
    fn amounts_pass_when_many_agree() {
        let of = |evidence, requests| amounts(Some(&verdict(evidence, requests)));
        assert_eq!(amounts(None).reply, Reply::Undecided);
        assert_eq!(of(0.5, 499).why, "499 of 500 amounts of each version");
        assert_eq!(of(0.5, 500).reply, Reply::Pass);
        assert_eq!(of(3.0, 500).reply, Reply::Undecided);
        let fail = of(7.0, 10);
        assert_eq!(fail.reply, Reply::Fail);
        assert_eq!(fail.why, "payout is too high: evidence of 7.0 nats, where 6.9 suffice");
    }

    #[test]
    fn people_and_programs_answer() {
        let said = |approves| Approval {
            by: "ana".to_owned(),
            approves,
            reason: "the wallet differs".to_owned(),
        };
        assert_eq!(approval(None, true).why, "waits for a second person to approve");
        assert_eq!(approval(None, false).reply, Reply::Undecided);
        assert_eq!(approval(Some(&said(true)), true).reply, Reply::Pass);
        let refused = approval(Some(&said(false)), false);
        assert_eq!(refused, Reply::Fail.because("ana does not approve: the wallet differs"));
        for status in 200..=202 {
            assert_eq!(webhook(Some(status), "no").reply, Reply::Pass);
        }
        for status in [100, 199, 203, 204, 301, 404, 500] {
            assert_eq!(webhook(Some(status), "").reply, Reply::Fail, "{status}");
        }
        assert_eq!(webhook(Some(412), " closed \n").why, "status 412: closed");
        assert_eq!(webhook(None, "timed out"), Reply::Undecided.because("no answer: timed out"));
        assert!(webhook(Some(500), &"é".repeat(1000)).why.chars().count() < 220);
    }
}
