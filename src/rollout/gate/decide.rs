//! The decision from the replies of all gates of a step.

use serde::{Deserialize, Serialize};

use super::Reply;
use crate::config::schema::{Gate, GateKind, GateQuestion};

/// The reply of a gate, and its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateReply {
    /// The reply.
    pub reply: Reply,
    /// The reason, a sentence without a full stop.
    pub why: String,
}

/// How much time a gate has left to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Some, or any amount.
    Left,
    /// The time of a bake is over: evidence without a verdict passes, and others still have time.
    Baked,
    /// `within` is over, and it has never passed.
    Over,
}

/// What follows for the step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// All gates pass.
    Pass,
    /// Nothing fails that goes back: the gates, by index, that have not passed.
    Hold(Vec<usize>),
    /// A guardrail fails: its index, and why.
    Back(usize, String),
}

/// The decision of gates, each with its reply and the time that it has left. The first guardrail that
/// fails decides.
pub fn decide<'a>(
    gates: impl IntoIterator<Item = (&'a Gate, &'a GateReply, Patience)>,
) -> Decision {
    let mut missing = Vec::new();
    let mut late = None;
    for (index, (gate, said, patience)) in gates.into_iter().enumerate() {
        let is_evidence = gate.question == GateQuestion::Evidence;
        match (said.reply, gate.kind, patience) {
            (Reply::Pass, _, _) => {}
            (Reply::Fail, GateKind::Guardrail, _) => {
                let why = format!("{} fails: {}", gate.question, said.why);
                return Decision::Back(index, why);
            }
            (Reply::Undecided, _, Patience::Over | Patience::Baked) if is_evidence => {}
            (Reply::Undecided, GateKind::Guardrail, Patience::Over) => {
                let why = format!("{} did not pass in time: {}", gate.question, said.why);
                late.get_or_insert(Decision::Back(index, why));
            }
            (Reply::Fail | Reply::Undecided, _, _) => missing.push(index),
        }
    }
    match late {
        Some(back) => back,
        None if missing.is_empty() => Decision::Pass,
        None => Decision::Hold(missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(question: GateQuestion, kind: GateKind) -> Gate {
        Gate { question, kind }
    }

    #[test]
    fn each_answer_of_each_kind_decides() {
        use GateKind::{Guardrail, Signal};
        use GateQuestion::{Evidence, Slo};
        use Patience::{Baked, Left, Over};
        use Reply::{Fail, Pass, Undecided};
        let back = |why: &str| Decision::Back(0, why.to_owned());
        let hold = || Decision::Hold(vec![0]);
        for (question, kind, reply, patience, expected) in [
            (Evidence, Guardrail, Pass, Left, Decision::Pass),
            (Evidence, Guardrail, Undecided, Left, hold()),
            (Evidence, Guardrail, Undecided, Baked, Decision::Pass),
            (Evidence, Guardrail, Undecided, Over, Decision::Pass),
            (Evidence, Guardrail, Fail, Left, back("evidence fails: x")),
            (Evidence, Guardrail, Fail, Over, back("evidence fails: x")),
            (Evidence, Signal, Undecided, Over, Decision::Pass),
            (Evidence, Signal, Fail, Over, hold()),
            (Slo, Guardrail, Pass, Over, Decision::Pass),
            (Slo, Guardrail, Undecided, Left, hold()),
            (Slo, Guardrail, Undecided, Baked, hold()),
            (Slo, Guardrail, Undecided, Over, back("slo did not pass in time: x")),
            (Slo, Guardrail, Fail, Baked, back("slo fails: x")),
            (Slo, Signal, Undecided, Over, hold()),
            (Slo, Signal, Fail, Left, hold()),
            (Slo, Signal, Fail, Over, hold()),
        ] {
            let (gate, said) = (gate(question, kind), reply.because("x"));
            let decision = decide([(&gate, &said, patience)]);
            assert_eq!(decision, expected, "{gate:?} {reply:?} {patience:?}");
        }
    }

    #[test]
    fn one_failure_outweighs_all_that_is_missing() {
        let (fail, open) = (Reply::Fail.because("x"), Reply::Undecided.because("y"));
        let signal = gate(GateQuestion::Amounts, GateKind::Signal);
        let late = gate(GateQuestion::Slo, GateKind::Guardrail);
        let bad = gate(GateQuestion::Evidence, GateKind::Guardrail);
        let all = |patience| {
            [(&signal, &fail, patience), (&late, &open, patience), (&bad, &fail, patience)]
        };
        assert!(matches!(decide(all(Patience::Over)), Decision::Back(2, _)));
        let two = all(Patience::Left).into_iter().take(2);
        assert_eq!(decide(two), Decision::Hold(vec![0, 1]));
        assert_eq!(decide([]), Decision::Pass);
    }
}
