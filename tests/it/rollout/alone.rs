//! One person who tries everything against the approvals of a service with `second_person`.

use tidegate::{
    config::units::Weight,
    control::{
        Asked, Controller, Rejected, WeightsChange,
        controller::{
            ChangeHead, Cutover, Destination, Moment, MovePins, Operation, PlanAsked, RolloutAsked,
            RolloutChange, Target,
        },
        reach::Reach,
    },
    rollout::{Event, Observed, Reply},
    store::Actor,
};

use super::*;

const SERVICE: &str = "game-api";
const VERSIONS: [&str; 3] = ["v1", "v2", "v3"];

/// What the plan gives without an approval.
const FIRST_STEP: f64 = 0.2;

fn ana() -> ChangeHead {
    let actor = Actor { name: "ana".to_owned(), ..Actor::system() };
    ChangeHead { reason: "because".to_owned(), ..ChangeHead::of(actor) }
}

/// Shares of players by version, 0 to 1, as if no version was ejected.
fn shares(controller: &Controller) -> [f64; 3] {
    let snapshot = controller.snapshot();
    let weights = [0, 1, 2].map(|n| snapshot.services[0].versions[n].weight.value());
    weights.map(|weight| weight / weights.iter().sum::<f64>())
}

fn weights(of: [f64; 3], head: ChangeHead) -> WeightsChange {
    let each = VERSIONS.iter().zip(of);
    let each = each.map(|(name, w)| ((*name).to_owned(), Weight::new(w).expect("a weight")));
    let asked = Asked::Weights { weights: each.collect(), only: true };
    WeightsChange { service: SERVICE.to_owned(), asked, reach: Reach::Insisted, head }
}

/// Two persons bring all versions back, end the rollout, and set these shares.
fn begin_anew(controller: &mut Controller, shares: [f64; 3]) {
    let both = ChangeHead { second: Some("ben".to_owned()), ..ana() };
    for version in VERSIONS {
        let (service, version) = (SERVICE.to_owned(), version.to_owned());
        let target = Target { service, version, endpoint: None, head: both.clone() };
        // It may not be ejected.
        let _ = controller.reinstate(target);
    }
    controller.set_weights(weights(shares, both.clone())).expect("two agree");
    let event = Event::Abort { by: "ana".to_owned(), reason: "enough".to_owned() };
    let asked = RolloutAsked::Event(Box::new(event));
    let (service, reach) = (SERVICE.to_owned(), Reach::Insisted);
    // It may have ended.
    let _ = controller.change_rollout(RolloutChange { service, asked, reach, head: both });
}

/// A command of ana's, or time that passes; what it is, and why it was refused.
fn step(
    rng: &mut fastrand::Rng,
    moment: &mut Duration,
    controller: &mut Controller,
) -> (String, Option<Rejected>) {
    let service = || SERVICE.to_owned();
    let version = VERSIONS[rng.usize(..3)].to_owned();
    let target =
        || Target { service: service(), version: version.clone(), endpoint: None, head: ana() };
    let event = |event: Event| RolloutAsked::Event(Box::new(event));
    let (by, reason) = ("ana".to_owned(), "because".to_owned());
    let asked = match rng.u8(..16) {
        0 => {
            let made = controller.eject(target());
            return (format!("eject {version}"), made.err());
        }
        1 | 2 => {
            let made = controller.reinstate(target());
            return (format!("reinstate {version}"), made.err());
        }
        3 => {
            let now = shares(controller);
            let part = |of: f64| if rng.bool() { of } else { of * rng.f64() * 1.1 };
            let change = weights(now.map(part), ana());
            let what = format!("{:?}", change.asked);
            return (what, controller.set_weights(change).err());
        }
        4 | 5 => {
            let to = match rng.u8(..8) {
                0 => Destination::Version(version),
                _ => Destination::Before,
            };
            let (fence, reach, head) = (None, Reach::Insisted, ana());
            let cutover = Cutover { service: service(), to, fence, reach, head };
            let what = format!("cutover {:?}", cutover.to);
            return (what, controller.cut_over(&cutover).err());
        }
        6 if rng.u8(..4) == 0 => {
            let state = controller.carried();
            controller.inherit(state);
            return ("a takeover".to_owned(), None);
        }
        6 => {
            let from = VERSIONS[rng.usize(..3)].to_owned();
            let what = format!("pins from {from} to {version}");
            let asked = MovePins { service: service(), from, to: version.clone(), head: ana() };
            let refused = asked.make(controller, Moment::now()).err();
            assert!(refused.is_some() || version == "v1", "{what}");
            return (what, refused);
        }
        7 => RolloutAsked::Start { to: version, plan: PlanAsked::OfService, urgent: false },
        8 => event(Event::Rollback { by, reason, at_once: rng.bool() }),
        9 => event(Event::Abort { by, reason }),
        10 => event(Event::Resume { by, reason }),
        11 => event(Event::Promote { by, reason }),
        12 => event(Event::Approve { by, approves: true, reason }),
        13 => event(Event::Pause { by, reason }),
        _ => {
            *moment += Duration::from_secs(1);
            let evidence = Some(Reply::Pass.because("good"));
            event(Event::Tick(Observed { moment: *moment, evidence, ..Observed::default() }))
        }
    };
    let what = format!("{asked:?}");
    let (reach, head) = (Reach::Insisted, ana());
    let change = RolloutChange { service: service(), asked, reach, head };
    (what, controller.change_rollout(change).err())
}

/// Regression: the way back wrote weight 0 for a version that was ejected at that moment, so one person gave another canary
/// the players of the baseline for good. The shares that are compared are those without ejections: an ejection may send a canary more
/// players, until it is taken back.
#[test]
fn nobody_alone_gives_a_canary_more_than_it_had_or_its_plan_gives() {
    let versions = Versions::new();
    let third = &versions.origins[0];
    let plan =
        "plans: { careful: [ { weight: 20%, gates: [ approval ] }, { weight: 100%, for: 1h } ] }";
    let fields = ["second_person: true", "rollout: careful", "pin: { key: 'header:x-round' }"];
    let proxy = versions.builder(&fields).version("v3", third).top(plan).start();
    // While it is held, nothing else lets time pass.
    let mut controller = proxy.controller();
    let before = [0.8, 0.15, 0.05];
    let mut moment = Duration::ZERO;
    let mut rollouts = 0;
    for seed in 0..300 {
        begin_anew(&mut controller, before);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut told = vec![format!("seed {seed}, {:?}", shares(&controller))];
        let mut most = before;
        for _ in 0..60 {
            let (what, refused) = step(&mut rng, &mut moment, &mut controller);
            let now = shares(&controller);
            for version in [1, 2] {
                let start = format!("Start {{ to: {:?}", VERSIONS[version]);
                if what.starts_with(&start) && refused.is_none() {
                    rollouts += 1;
                    most[version] = most[version].max(FIRST_STEP);
                }
            }
            told.push(format!("{what}: {:?}, {now:?}", refused.map(|why| why.to_string())));
            let is_within = now[1..].iter().zip(&most[1..]).all(|(now, most)| *now <= most + 1e-9);
            assert!(is_within, "at most {most:?}: {}", told.join("\n"));
        }
    }
    assert!(rollouts > 300, "{rollouts} were started");
}
