//! A plan as a rollout goes through it: the steps as written, checked, and what follows from them.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::config::{
    Finding, check_steps,
    problem::FieldPath,
    schema::{Gate, GateKind, GateQuestion, Step},
};

/// The steps of a rollout. A rollout keeps its plan, so that a change of the file does not change what was
/// started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Plan {
    /// The name in the file; none if the steps came with the command.
    pub name: Option<String>,
    /// At least one; their weights grow to 100 % in the last one. Shared by all copies: they never change, and each
    /// tick makes a copy.
    #[serde(serialize_with = "steps_of")]
    steps: Arc<[Step]>,
}

fn steps_of<S: Serializer>(steps: &Arc<[Step]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(steps.iter())
}

/// A plan as it is kept. It was checked when the rollout was started, by rules of that release.
#[derive(Deserialize)]
struct Written {
    name: Option<String>,
    steps: Vec<Step>,
}

impl TryFrom<Written> for Plan {
    type Error = &'static str;

    fn try_from(Written { name, steps }: Written) -> Result<Self, &'static str> {
        if steps.is_empty() {
            return Err("a plan without a step; write at least one");
        }
        Ok(Self { name, steps: steps.into() })
    }
}

/// Why steps are no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .findings.iter().map(|f| format!("{}: {}", f.path, f.message)).collect::<Vec<_>>().join("\n"))]
pub struct PlanError {
    /// What is wrong, with paths below the one that was given; at least one.
    pub findings: Vec<Finding>,
}

impl Plan {
    /// A plan of `steps`, which stand at `path` of a file or request. A step that is baked is always
    /// judged by evidence: as a guardrail that `bake` without a verdict passes.
    pub fn new(name: Option<&str>, steps: &[Step], path: &FieldPath) -> Result<Self, PlanError> {
        let findings = check_steps(steps, path);
        if !findings.is_empty() {
            return Err(PlanError { findings });
        }
        let mut steps = steps.to_vec();
        for step in steps.iter_mut().filter(|step| step.bake.is_some()) {
            if !step.gates.iter().any(|gate| gate.question == GateQuestion::Evidence) {
                let question = GateQuestion::Evidence;
                step.gates.insert(0, Gate { question, kind: GateKind::Guardrail });
            }
        }
        Ok(Self { name: name.map(str::to_owned), steps: steps.into() })
    }

    /// The steps, at least one.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The step `index`; the last one if it has fewer.
    pub fn step(&self, index: usize) -> &Step {
        &self.steps[index.min(self.steps.len() - 1)]
    }

    /// The first step that does not take players away from a version with this share of them, 0 to 1.
    pub fn first_above(&self, share: f64) -> usize {
        // Shares of weights have rounding errors.
        let first = self.steps.iter().position(|step| step.weight.0 >= share - 1e-9);
        first.unwrap_or(self.steps.len() - 1)
    }

    /// Whether a rollout of a version with this share of players skips a step that asks for an approval: it begins
    /// at a later one.
    pub fn skips_approval(&self, share: f64) -> bool {
        let skipped = &self.steps[..self.first_above(share)];
        let mut gates = skipped.iter().flat_map(|step| &step.gates);
        gates.any(|gate| gate.question == GateQuestion::Approval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Vec<Step> {
        serde_json::from_str(text).expect(text)
    }

    #[test]
    fn a_bake_is_always_judged() {
        let steps =
            steps(r#"[{"weight":"5%","for":"2m"},{"weight":"100%","bake":"1h","gates":["slo"]}]"#);
        let plan = Plan::new(Some("p"), &steps, &FieldPath::default()).expect("a plan");
        let questions: Vec<_> = plan.step(1).gates.iter().map(|g| g.question.label()).collect();
        assert_eq!(questions, ["evidence", "slo"]);
        assert_eq!(plan.step(7), plan.step(1));
        assert_eq!([0.0, 0.05, 0.06, 1.0].map(|share| plan.first_above(share)), [0, 0, 1, 1]);
        let text = serde_json::to_string(&plan).expect("JSON");
        assert_eq!(serde_json::from_str::<Plan>(&text).expect("the same"), plan);
        assert!(serde_json::from_str::<Plan>(r#"{"name":null,"steps":[]}"#).is_err());
    }

    #[test]
    fn a_step_that_is_skipped_may_have_asked_for_an_approval() {
        let steps = steps(
            r#"[{"weight":"1%","gates":["evidence"]},{"weight":"5%","gates":["approval"]},{"weight":"100%"}]"#,
        );
        let plan = Plan::new(None, &steps, &FieldPath::default()).expect("a plan");
        let skips =
            [0.0, 0.01, 0.03, 0.05, 0.05 + 3e-9, 0.5].map(|share| plan.skips_approval(share));
        assert_eq!(skips, [false, false, false, false, true, true]);
    }

    #[test]
    fn steps_of_a_request_are_checked_as_those_of_a_file() {
        let steps = steps(r#"[{"weight":"5%"},{"weight":"50%"}]"#);
        let path = FieldPath::default().key("plan");
        let error = Plan::new(None, &steps, &path).expect_err("no plan").to_string();
        assert!(error.starts_with("plan[0]: nothing to wait for"), "{error}");
        assert!(error.contains("plan[1].weight: the last step leaves players"), "{error}");
    }
}
