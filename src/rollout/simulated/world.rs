//! What surrounds a simulated rollout: plans, versions, weights, windows, people, and answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use fastrand::Rng;

use super::super::{
    MOST_GAP,
    event::{Action, Event, Observed, Start},
    gate::{GateReply, Reply},
    phase::Phase,
    plan::Plan,
    split::Weights,
    start,
    state::{Frozen, Rollout, ms},
};
use crate::config::{
    problem::FieldPath,
    schema::{Gate, GateKind, GateQuestion, GateWebhook, Step},
    units::{Share, Weight},
};

const VERSIONS: [&str; 3] = ["v40", "v41", "v42"];
const PEOPLE: [&str; 3] = ["ana", "bo", "cy"];

pub(super) struct World {
    pub(super) rng: Rng,
    /// The wall time, which somebody sets now and then.
    pub(super) now: SystemTime,
    /// The clock that nobody sets.
    moment: Duration,
    /// How long before the present tick the last one was.
    pub(super) passed: Duration,
    /// The split before the rollout, of versions that the file has.
    pub(super) before: Weights,
    /// The weights in force.
    pub(super) weights: Weights,
    pub(super) ejected: BTreeSet<String>,
    /// Versions that the file has.
    versions: BTreeSet<String>,
    frozen: Option<Frozen>,
    /// Questions without an answer.
    pub(super) open: Vec<u64>,
    /// Smoke checks by the number of their runs, and those that passed, with the time on the rollout's clock.
    smokes: BTreeMap<u64, String>,
    pub(super) passes: Vec<(String, u64)>,
    unreached: Option<Box<str>>,
    incomparable: Option<Box<str>>,
    requests: u64,
    /// Of 256 answers, those that fail, and those that are undecided.
    fails: u8,
    undecided: u8,
}

impl World {
    pub(super) fn new(mut rng: Rng) -> Self {
        let weight = |w: f64| Weight::new(w).expect("a weight");
        let mut before = Weights::new();
        for (name, most) in VERSIONS.iter().zip([100.0, 100.0, 20.0]) {
            let value = if rng.u8(..) < 100 { 0.0 } else { most * rng.f64() };
            before.insert((*name).to_owned(), weight(value));
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000 + rng.u64(..1 << 24));
        let (fails, undecided) = if rng.bool() { (0, 40) } else { (rng.u8(..30), rng.u8(..200)) };
        Self {
            now,
            moment: Duration::from_millis(rng.u64(..1 << 40)),
            passed: Duration::ZERO,
            weights: before.clone(),
            before,
            ejected: BTreeSet::new(),
            versions: VERSIONS.map(str::to_owned).into(),
            frozen: None,
            open: Vec::new(),
            smokes: BTreeMap::new(),
            passes: Vec::new(),
            unreached: None,
            incomparable: None,
            requests: rng.u64(..1_000_000),
            fails,
            undecided,
            rng,
        }
    }

    fn is_rare(&mut self) -> bool {
        self.rng.u8(..) < 26
    }

    fn person(&mut self) -> String {
        self.rng.choice(PEOPLE).expect("three").to_owned()
    }

    fn version(&mut self) -> String {
        self.rng.choice(VERSIONS).expect("three").to_owned()
    }

    fn time(&mut self) -> Option<Duration> {
        (self.rng.u8(..) < 160).then(|| Duration::from_secs(self.rng.u64(1..40)))
    }

    /// The gates of the step `index`, whose smoke check is its own.
    fn gates(&mut self, index: usize) -> Vec<Gate> {
        let url = "http://gate/".to_owned();
        let all = [
            GateQuestion::Evidence,
            GateQuestion::Slo,
            GateQuestion::Amounts,
            GateQuestion::Approval,
            GateQuestion::Smoke(format!("money-path-{index}")),
            GateQuestion::Webhook(GateWebhook { name: None, url, timeout: Duration::from_secs(2) }),
        ];
        let mut gates = Vec::new();
        for question in all {
            let kind = if self.rng.bool() { GateKind::Guardrail } else { GateKind::Signal };
            if self.rng.u8(..) < 70 {
                gates.push(Gate { question, kind });
            }
        }
        gates
    }

    fn plan(&mut self) -> Plan {
        let number = self.rng.usize(1..=5);
        let mut weights: Vec<u32> = (1..number).map(|_| self.rng.u32(1..100)).collect();
        weights.push(100);
        weights.sort_unstable();
        weights.dedup();
        let last = weights.len() - 1;
        let mut steps = Vec::new();
        for (index, weight) in weights.into_iter().enumerate() {
            let gates = self.gates(index);
            let bake = self.time().filter(|_| index == last);
            let least = self.time().filter(|_| bake.is_none());
            let within = self.time().filter(|_| bake.is_none() && !gates.is_empty());
            let within = within.map(|time| time + least.unwrap_or_default());
            let requests = (self.rng.u8(..) < 50).then(|| self.rng.u64(1..500));
            // Something to wait for.
            let least = if index < last { least.or(Some(Duration::from_secs(1))) } else { least };
            let weight = Share(f64::from(weight) / 100.0);
            steps.push(Step { weight, least, within, gates, bake, requests });
        }
        let path = FieldPath::default();
        Plan::new(None, &steps, &path).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts a rollout; `None` if it is refused, such as where no other version has weight.
    pub(super) fn start(&mut self) -> Option<Rollout> {
        if self.is_rare() {
            let version = self.version();
            self.ejected.insert(version);
        }
        let request = Start {
            urgent: self.rng.bool(),
            service: "wallet".to_owned(),
            to: "v42".to_owned(),
            plan: self.plan(),
            by: self.person(),
            reason: "4.2".to_owned(),
            second_person: self.rng.bool(),
            weights: self.weights.clone(),
            ejected: self.ejected.clone(),
        };
        start(request, None, self.now).ok().map(|(rollout, _)| rollout)
    }

    fn reply(&mut self) -> GateReply {
        let drawn = self.rng.u8(..);
        let reply = match drawn {
            _ if drawn < self.fails => Reply::Fail,
            _ if drawn < self.fails.saturating_add(self.undecided) => Reply::Undecided,
            _ => Reply::Pass,
        };
        reply.because("drawn")
    }

    fn pass(&mut self, passed: Duration) {
        self.now += passed;
        self.moment += passed;
        self.passed = passed;
    }

    /// Another process goes on, with a clock of its own.
    pub(super) fn restart(&mut self) {
        self.open.clear();
        self.moment = Duration::from_millis(self.rng.u64(..1 << 40));
    }

    fn observed(&mut self) -> Observed {
        self.requests += self.rng.u64(..50);
        if self.is_rare() {
            self.requests = 0;
        }
        if self.is_rare() {
            let window = ["peak", "final"][self.rng.usize(..2)].to_owned();
            let also = if self.rng.bool() { vec!["read-only".to_owned()] } else { Vec::new() };
            let second_person = self.rng.bool();
            let since_unix_ms = [(window.clone(), self.rng.u64(..3))].into();
            let until_unix_ms = None;
            let frozen = Frozen { window, also, since_unix_ms, until_unix_ms, second_person };
            self.frozen = Some(frozen);
        } else if self.is_rare() {
            self.frozen = None;
        }
        for place in 0..2 {
            let why = [Some(Box::from("why")), None][usize::from(self.rng.u8(..) < 200)].clone();
            if self.is_rare() {
                *[&mut self.unreached, &mut self.incomparable][place] = why;
            }
        }
        let mut replies = Vec::new();
        for ask in std::mem::take(&mut self.open) {
            match self.rng.u8(..) {
                0..100 => self.open.push(ask),
                100..110 => {}
                _ => replies.push((ask, self.reply())),
            }
        }
        let mut measured = || Some(self.reply()).filter(|_| self.rng.u8(..) < 240);
        let (evidence, slo, amounts) = (measured(), measured(), measured());
        Observed {
            moment: self.moment,
            frozen: self.frozen.clone(),
            unreached: self.unreached.clone(),
            incomparable: self.incomparable.clone(),
            requests: self.requests,
            evidence,
            slo,
            amounts,
            replies,
        }
    }

    /// What happens next.
    pub(super) fn event(&mut self, rollout: &Rollout) -> Event {
        if self.rng.u8(..) < 200 {
            let passed_ms = match self.rng.u8(..) {
                0..4 => self.rng.u64(..100_000_000),
                _ => self.rng.u64(..ms(MOST_GAP)),
            };
            self.pass(Duration::from_millis(passed_ms));
            match self.rng.u8(..) {
                0..4 => self.now -= Duration::from_secs(3600),
                4..6 => self.now += Duration::from_secs(86_400),
                _ => {}
            }
            return Event::Tick(self.observed());
        }
        let (by, reason) = (self.person(), "a reason".to_owned());
        if rollout.phase == Phase::Done && self.is_rare() {
            self.ejected.insert(rollout.to.clone());
            return Event::Ejected { version: rollout.to.clone(), reason };
        }
        match self.rng.u8(..100) {
            0..8 => Event::Pause { by, reason },
            8..28 => Event::Resume { by, reason },
            28..36 => Event::Promote { by, reason },
            36..50 => Event::Approve { by, approves: self.rng.u8(..) < 240, reason },
            50..60 => {
                let second = self.rng.bool().then(|| self.person());
                Event::BreakIn { by, second, reason }
            }
            60..62 => Event::Abort { by, reason },
            62..64 => Event::Rollback { by, reason, at_once: self.rng.bool() },
            64..67 => {
                let version = if self.rng.bool() { self.version() } else { "v41".to_owned() };
                self.ejected.insert(version.clone());
                Event::Ejected { version, reason }
            }
            67..78 => {
                let version = self.version();
                // The version itself comes back when its rollout has ended.
                if version == rollout.to && !rollout.phase.is_end() {
                    return Event::Baseline { ready: self.rng.bool() };
                }
                self.ejected.remove(&version);
                Event::Reinstated { version }
            }
            78..83 => {
                let weight = |w: f64| Weight::new(w).expect("a weight");
                let share = self.rng.f64();
                let mut weights = Weights::new();
                for name in self.versions.clone() {
                    let value = if name == rollout.to { share } else { 1.0 - share };
                    weights.insert(name, weight(value));
                }
                self.weights.clone_from(&weights);
                Event::WeightsByHand { weights, by }
            }
            83..85 if self.rng.u8(..) < 80 => {
                let version = self.version();
                if self.versions.len() > 1 {
                    self.versions.remove(&version);
                }
                self.reload(rollout)
            }
            83..86 => self.reload(rollout),
            _ => Event::Baseline { ready: self.rng.bool() },
        }
    }

    fn reload(&mut self, rollout: &Rollout) -> Event {
        let is_over = matches!(rollout.phase, Phase::RolledBack | Phase::Aborted);
        if !is_over {
            self.before.retain(|name, _| self.versions.contains(name));
            self.weights.retain(|name, _| self.versions.contains(name));
            self.ejected.retain(|name| self.versions.contains(name));
        }
        Event::Reloaded { versions: self.versions.clone(), second_person: self.rng.bool() }
    }

    /// A tick on which all passes that can.
    pub(super) fn quiet_tick(&mut self) -> Event {
        self.pass(Duration::from_secs(2));
        self.requests += 10;
        let pass = Reply::Pass.because("quiet");
        let replies = self.open.drain(..).map(|ask| (ask, pass.clone())).collect();
        let measured = Some(pass);
        Event::Tick(Observed {
            moment: self.moment,
            frozen: None,
            unreached: None,
            incomparable: None,
            requests: self.requests,
            evidence: measured.clone(),
            slo: measured.clone(),
            amounts: measured,
            replies,
        })
    }

    /// Notes the smoke checks of which `seen` says that they passed, at `clock_ms`.
    pub(super) fn note_passes(&mut self, seen: &Observed, clock_ms: u64) {
        for (ask, _) in seen.replies.iter().filter(|(_, said)| said.reply == Reply::Pass) {
            self.passes.extend(self.smokes.get(ask).map(|name| (name.clone(), clock_ms)));
        }
    }

    pub(super) fn carry_out(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::SetWeights(weights) => self.weights.clone_from(weights),
                Action::RunSmoke { ask, name } => {
                    self.open.push(*ask);
                    self.smokes.insert(*ask, name.clone());
                }
                Action::CallWebhook { ask, .. } => self.open.push(*ask),
                Action::Record(_) | Action::Warn(_) | Action::Finish(_) => {}
            }
        }
    }
}
