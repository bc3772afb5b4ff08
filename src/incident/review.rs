//! A rollout in review: which steps it took, when, and why it went on or back.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::text::{number, rfc3339, seconds};
use crate::{
    config::schema::{GateKind, Step},
    rollout::{Entry, GateReply, Judged, On, Reply, Rollout},
};

/// A rollout that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Review {
    /// The version that grew.
    pub to: String,
    /// The name of the plan; absent if the steps came with the command.
    pub plan: Option<String>,
    /// Who started it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it was started.
    pub started_at: String,
    /// When it ended.
    pub ended_at: String,
    /// The phase in which it ended: `done`, `rolled_back` or `aborted`.
    pub ended: String,
    /// Why it ended, a sentence without a full stop.
    pub cause: String,
    /// All steps of the plan.
    pub steps: Vec<ReviewedStep>,
    /// All transitions, in their order.
    pub transitions: Vec<Turn>,
}

/// A step of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReviewedStep {
    /// Its number, from 1.
    pub step: usize,
    /// The share of players, 0 to 1.
    pub share: f64,
    /// What the plan demands, in words.
    pub demands: String,
    /// When its weight was set; absent if that was not reached.
    pub began_at: Option<String>,
    /// How long it lasted, in seconds; absent if it was not reached.
    pub lasted_s: Option<f64>,
    /// The gates of the step, each with its latest reply, if it is known: of steps before the last one the journal has
    /// them.
    pub gates: Vec<String>,
}

/// A transition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// When.
    pub at: String,
    /// What led to it.
    pub on: String,
    /// The phase before.
    pub from: String,
    /// The phase after.
    pub to: String,
    /// The step, from 1.
    pub step: usize,
    /// Who: a token's name; `rollout` if it went on by itself.
    pub by: String,
    /// Why, a sentence without a full stop.
    pub reason: String,
}

impl Review {
    /// A rollout as it is at its end.
    pub fn new(rollout: &Rollout) -> Self {
        let ended = rollout.since_unix_ms;
        let steps = rollout.plan.steps().iter().enumerate();
        let steps = steps.map(|(nth, step)| reviewed((nth, step), rollout, ended));
        Self {
            to: rollout.to.clone(),
            plan: rollout.plan.name.clone(),
            by: rollout.by.clone(),
            reason: rollout.reason.clone(),
            started_at: rfc3339(at(rollout.started_unix_ms)),
            ended_at: rfc3339(at(ended)),
            ended: rollout.phase.label().to_owned(),
            cause: rollout.cause.clone(),
            steps: steps.collect(),
            transitions: rollout.entries.iter().map(Turn::from).collect(),
        }
    }

    /// Adds the replies of the gates of steps before the last one, as the journal has them: `judged`, the oldest first.
    pub fn learn(&mut self, judged: &[Judged]) {
        for step in &mut self.steps {
            let of_step = || judged.iter().rev().filter(|judged| judged.step == step.step);
            for gate in &mut step.gates {
                let known = of_step().flat_map(|judged| &judged.gates);
                let mut replies = known.filter(|said| *gate == bare(&said.gate, said.kind));
                if let Some(said) = replies.next() {
                    *gate += &replied(said.reply, &said.why);
                }
            }
        }
    }
}

impl ReviewedStep {
    /// What is said in the place of when it began.
    pub fn why_not_begun(&self) -> &'static str {
        if self.has_replies() { "not begun" } else { "not reached" }
    }

    /// Whether a gate has replied, as a smoke check does before the step.
    pub fn has_replies(&self) -> bool {
        self.gates.iter().any(|gate| gate.contains("): "))
    }
}

/// A gate without a reply.
fn bare(name: &str, kind: GateKind) -> String {
    let kind = match kind {
        GateKind::Guardrail => "guardrail",
        GateKind::Signal => "signal",
    };
    format!("{name} ({kind})")
}

fn replied(reply: Reply, why: &str) -> String {
    format!(": {}, {why}", reply.label())
}

impl From<&Entry> for Turn {
    fn from(entry: &Entry) -> Self {
        Self {
            at: rfc3339(at(entry.at_unix_ms)),
            on: entry.decided().to_owned(),
            from: entry.from.label().to_owned(),
            to: entry.to.label().to_owned(),
            step: entry.step + 1,
            by: entry.by.clone(),
            reason: entry.reason.clone(),
        }
    }
}

fn at(unix_ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_millis(unix_ms))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn reviewed((nth, step): (usize, &Step), rollout: &Rollout, ended_unix_ms: u64) -> ReviewedStep {
    let entries = &rollout.entries;
    // A step begins when its weight is set, and ends when the next one begins or players are taken away.
    let sets = |entry: &&Entry| matches!(entry.on, On::Grow | On::Bake);
    let began = entries.iter().find(|entry| sets(entry) && entry.step == nth);
    let began_unix_ms = began.map(|entry| entry.at_unix_ms);
    let after = entries.iter().filter(|entry| Some(entry.at_unix_ms) >= began_unix_ms);
    let left = after.clone().find(|entry| {
        let goes_on = sets(entry) && entry.step > nth;
        goes_on
            || entry.from != entry.to && (entry.to.is_end() || entry.to.label() == "rolling_back")
    });
    let until = left.map_or(ended_unix_ms, |entry| entry.at_unix_ms);
    let lasted = began_unix_ms.map(|began| until.saturating_sub(began));
    let replies = (nth == rollout.step).then_some(&rollout.progress.replies);
    // An ejection comes between two looks at the gates.
    let is_ejected = entries.iter().any(|entry| entry.on == On::Ejected);
    let before = if is_ejected { " (before the version was ejected)" } else { "" };
    let gates = step.gates.iter().enumerate().map(|(gate, of)| {
        let reply = replies.and_then(|replies| replies.get(gate)?.as_ref());
        let reply = reply.map_or(String::new(), |GateReply { reply, why }| {
            format!("{}{before}", replied(*reply, why))
        });
        format!("{}{reply}", bare(&of.question.to_string(), of.kind))
    });
    ReviewedStep {
        step: nth + 1,
        share: step.weight.0,
        demands: demands(step),
        began_at: began_unix_ms.map(|began| rfc3339(at(began))),
        lasted_s: lasted.map(|lasted| lasted as f64 / 1e3),
        gates: gates.collect(),
    }
}

/// What a step demands besides its gates.
fn demands(step: &Step) -> String {
    let time = |what: &str, time: Option<Duration>| {
        time.map(|time| format!("{what} {}", seconds(time.as_secs_f64())))
    };
    let requests = step.requests.map(|least| format!("{} requests", number(least as f64)));
    let all = [time("at least", step.least), time("at most", step.within), time("bake", step.bake)];
    let all: Vec<String> = all.into_iter().flatten().chain(requests).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{problem::FieldPath, units::Weight},
        rollout::{Event, Observed, Plan, Start, apply, start},
    };

    const PLAN: &str = r#"[{"weight":"5%","for":"30s","requests":100,"gates":["evidence"]},
        {"weight":"50%","for":"1m","within":"10m","gates":["evidence","approval"]},
        {"weight":"100%","bake":"2h"}]"#;

    /// A rollout that passes its first step and fails in the second one.
    fn failed() -> Rollout {
        let steps: Vec<Step> = serde_json::from_str(PLAN).expect("steps");
        let weight = |w| Weight::new(w).expect("a weight");
        let begin = Start {
            urgent: false,
            service: "game-api".to_owned(),
            to: "v42".to_owned(),
            plan: Plan::new(Some("careful"), &steps, &FieldPath::default()).expect("a plan"),
            by: "ci".to_owned(),
            reason: "release 42".to_owned(),
            second_person: false,
            weights: [("v41".to_owned(), weight(100.0)), ("v42".to_owned(), weight(0.0))].into(),
            ejected: Default::default(),
        };
        let mut rollout = start(begin, None, at(0)).expect("started").0;
        for second in 1..60 {
            let reply = if second < 50 { Reply::Pass } else { Reply::Fail };
            let observed = Observed {
                moment: Duration::from_secs(second),
                requests: 20 * second,
                evidence: Some(reply.because("it says so")),
                ..Observed::default()
            };
            rollout = apply(&rollout, Event::Tick(observed), at(second * 1_000)).expect("a tick").0;
        }
        rollout
    }

    #[test]
    fn a_review_has_the_steps_with_their_times_and_what_ended_it() {
        let review = Review::new(&failed());
        assert_eq!(
            (&*review.ended, &*review.started_at),
            ("rolled_back", "1970-01-01T00:00:00.000Z")
        );
        assert_eq!((review.plan.as_deref(), &*review.by), (Some("careful"), "ci"));
        let [first, second, third] = &*review.steps else { panic!("three steps") };
        assert_eq!((first.share, &*first.demands), (0.05, "at least 30 s, 100 requests"));
        assert_eq!(first.began_at.as_deref(), Some("1970-01-01T00:00:01.000Z"));
        let lasted = first.lasted_s.expect("it was reached");
        assert!((30.0..=32.0).contains(&lasted), "{lasted}");
        assert_eq!(&*second.demands, "at least 60 s, at most 10 min");
        let until = first.lasted_s.zip(second.lasted_s).map(|(first, second)| 1.0 + first + second);
        assert_eq!(until, Some(50.0), "until the guardrail failed");
        assert_eq!(second.gates[0], "evidence (guardrail): fail, it says so");
        assert!(second.gates[1].starts_with("approval (signal)"), "{:?}", second.gates);
        assert_eq!(first.gates, ["evidence (guardrail)"], "nothing remembers it here");
        assert_eq!((third.began_at.as_deref(), third.lasted_s), (None, None));
        assert_eq!(third.demands, "bake 2 h");
        let turns: Vec<_> = review.transitions.iter().map(|turn| &*turn.on).collect();
        assert!(turns.starts_with(&["grow"]) && turns.contains(&"guardrail"), "{turns:?}");
        assert_eq!(turns.last(), Some(&"restored"));
    }

    /// Regression: a report had the replies of the last step alone, although the journal has those of all.
    #[test]
    fn the_replies_of_earlier_steps_are_those_of_the_journal() {
        let judged = |step: usize, gates: serde_json::Value| -> Judged {
            let entry = serde_json::json!({ "step": step, "watched_s": 30.0, "requests": 600, "gates": gates });
            serde_json::from_value(entry).expect("a judgement")
        };
        let said = |gate: &str, kind: &str, why: &str| serde_json::json!({ "gate": gate, "kind": kind, "reply": "pass", "why": why });
        let mut review = Review::new(&failed());
        review.learn(&[
            judged(1, serde_json::json!([said("evidence", "guardrail", "at first")])),
            judged(1, serde_json::json!([said("evidence", "guardrail", "certainly healthy")])),
            judged(
                2,
                serde_json::json!([
                    said("evidence", "guardrail", "older"),
                    said("approval", "signal", "ann approves")
                ]),
            ),
        ]);
        assert_eq!(review.steps[0].gates, ["evidence (guardrail): pass, certainly healthy"]);
        let [evidence, approval] = &*review.steps[1].gates else { panic!("{:?}", review.steps[1]) };
        assert_eq!(evidence, "evidence (guardrail): fail, it says so");
        assert!(approval.starts_with("approval (signal): undecided"), "its own reply: {approval}");
    }

    #[test]
    fn replies_before_an_ejection_say_so() {
        let mut rollout = failed();
        // As it was while the second step was in force.
        rollout.phase = crate::rollout::Phase::Growing;
        let ejected =
            Event::Ejected { version: "v42".to_owned(), reason: "v42 is worse".to_owned() };
        let ended = apply(&rollout, ejected, at(60_000)).expect("no command").0;
        let gates = &Review::new(&ended).steps[1].gates;
        assert!(gates[0].ends_with("it says so (before the version was ejected)"), "{gates:?}");
    }
}
