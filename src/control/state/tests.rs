use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    config::problem::FieldPath,
    control::{carried::WhySet, fences::FenceMark},
    rollout,
};

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()])
}

fn time() -> impl Strategy<Value = SystemTime> {
    (1_u64..10_000_000_000).prop_map(|us| SystemTime::UNIX_EPOCH + Duration::from_micros(us))
}

fn weights() -> impl Strategy<Value = IndexMap<String, Weight>> {
    let weight = (0.0_f64..1e6).prop_map(|w| Weight::new(w).expect("a weight"));
    prop::collection::vec((name(), weight), 1..3).prop_map(|each| each.into_iter().collect())
}

fn verdict() -> Verdict {
    serde_json::from_value(serde_json::json!({
        "answer": "fail", "since_s": 1.5, "compared_s": 2.5, "log_evidence": 9.0,
        "log_threshold": 6.5, "health": null, "findings": [], "reason": "worse"
    }))
    .expect("a verdict")
}

fn ejection() -> impl Strategy<Value = Ejection> {
    let verdict = prop::option::of(prop::option::of(name()).prop_map(|r| (r, verdict())));
    (time(), name(), name(), verdict).prop_map(|(since, by, reason, verdict)| Ejection {
        since,
        by,
        reason,
        verdict,
    })
}

/// A rollout after its first tick.
fn rollout(service: String, at: SystemTime) -> Rollout {
    let steps = r#"[{ "weight": "5%", "for": "1m" }, { "weight": "100%", "bake": "1h" }]"#;
    let steps: Vec<_> = serde_json::from_str(steps).expect("steps");
    let start = rollout::Start {
        service,
        to: "v2".to_owned(),
        plan: rollout::Plan::new(None, &steps, &FieldPath::default()).expect("a plan"),
        by: "ana".to_owned(),
        reason: String::new(),
        urgent: true,
        second_person: false,
        weights: IndexMap::from([("v1".to_owned(), Weight::ONE)]),
        ejected: BTreeSet::new(),
    };
    let (rollout, _) = rollout::start(start, None, at).expect("it starts");
    rollout::apply(&rollout, rollout::Event::Tick(rollout::Observed::default()), at)
        .expect("a tick")
        .0
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        Just(Scope::Process),
        name().prop_map(Scope::Service),
        name().prop_map(|route| Scope::Route(format!("/{route}/{{id}}"))),
    ]
}

fn mode() -> impl Strategy<Value = Mode> {
    (time(), prop::option::of(time()), prop::option::of(name())).prop_map(
        |(since, until, message)| Mode {
            since: since.into(),
            until: until.map(Into::into),
            by: "ops".to_owned(),
            reason: String::new(),
            message,
            notice: None,
            route_of: None,
        },
    )
}

fn notice(from: SystemTime) -> Notice {
    let (from, until) = (UtcTime::from(from), UtcTime::from(from + Duration::from_secs(60)));
    let text = serde_json::json!({ "from": from, "until": until, "text": { "en": "soon" } });
    serde_json::from_value(text).expect("a notice")
}

fn change() -> impl Strategy<Value = Change> {
    let place = || (name(), name());
    let manual = (time(), name(), name()).prop_map(|(since, by, reason)| ManualEjection {
        since,
        by,
        reason,
    });
    let stand_in = (name(), name()).prop_map(|(version, why)| StandIn { version, why });
    prop_oneof![
        (
            (name(), weights(), prop::option::of(weights()), any::<bool>()),
            (prop::option::of((name(), time())), prop::collection::vec(weights(), 0..3)),
        )
            .prop_map(|((service, set, file, is_cutover), (why, mut earlier))| {
                let before = earlier.pop();
                let why = why.map(|(by, at)| WhySet::new(&by, "", at));
                let weights = SetWeights { set, file, why, before, earlier };
                match is_cutover {
                    true => Change::CutOver { service, weights },
                    false => Change::WeightsSet { service, weights },
                }
            }),
        (place(), ejection()).prop_map(|((service, version), ejection)| {
            Change::VersionEjected { service, version, ejection }
        }),
        (place(), name()).prop_map(|((service, version), reason)| {
            Change::EjectionMistaken { service, version, reason }
        }),
        (place(), any::<bool>()).prop_map(|((service, version), by_itself)| {
            Change::VersionReinstated { service, version, by_itself }
        }),
        (place(), name(), manual).prop_map(|((service, version), endpoint, ejection)| {
            Change::EndpointEjected { service, version, endpoint, ejection }
        }),
        (place(), name()).prop_map(|((service, version), endpoint)| {
            Change::EndpointReinstated { service, version, endpoint }
        }),
        (place(), name(), 0_u32..100, name()).prop_map(|((service, from), to, before, by)| {
            let (until, reason) = (before + 50, String::new());
            Change::PinsMoved { service, from, rule: MovedPins { to, before, until, by, reason } }
        }),
        (prop::collection::btree_set(name(), 0..2), prop::collection::btree_set(place(), 0..3))
            .prop_map(|(weights, gone)| Change::FileTaken {
                at: SystemTime::UNIX_EPOCH,
                weights,
                gone,
                held: BTreeMap::new(),
                moved: BTreeMap::new(),
            }),
        (name(), 1_u64..9, prop::option::of(name())).prop_map(|(service, epoch, writer)| {
            Change::WritesMoved(FenceMarks::from([(service, FenceMark { epoch, writer })]))
        }),
        prop::collection::btree_map(name(), stand_in, 0..3).prop_map(Change::StandInsChosen),
        name().prop_map(|service| Change::StandInReleased { service }),
        prop::collection::btree_set(name(), 1..3)
            .prop_map(|services| Change::EpochsBegun { services }),
        (1_u64..1_000).prop_map(|generation| Change::Compiled { generation }),
        (name(), time())
            .prop_map(|(service, at)| { Change::RolloutMoved(Box::new(rollout(service, at))) }),
        name().prop_map(|service| Change::RolloutForgotten { service }),
        (
            scope(),
            prop::option::of((mode(), prop::option::of(name()))),
            prop::collection::vec((name(), time()), 0..2)
        )
            .prop_map(|(scope, mode, settled)| {
                let mode = mode.map(|(mode, notice)| Mode { notice, ..mode });
                let settled = settled.into_iter().map(|(name, from)| (name, from.into())).collect();
                Change::ModeSet { scope, mode, settled }
            }),
        (name(), time(), name(), 0_u64..9).prop_map(|(notice, from, receiver, lead)| {
            Change::NoticeSent { notice, from: from.into(), receiver, lead }
        }),
        (name(), prop::option::of(time()))
            .prop_map(|(name, from)| Change::NoticeSet { name, notice: from.map(notice) }),
    ]
}

fn replay(changes: &[Change]) -> ControlState {
    let mut state = ControlState::at(1);
    changes.iter().cloned().for_each(|change| state.apply(change));
    state
}

fn read_again(state: &ControlState) -> ControlState {
    let text = serde_json::to_string(state).expect("JSON");
    serde_json::from_str(&text).expect("a state")
}

proptest! {
    #[test]
    fn rows_are_the_state_and_the_differences_lead_to_them(
        changes in prop::collection::vec(change(), 0..20),
    ) {
        let (mut state, mut rows) = (ControlState::at(1), ControlState::at(1).rows());
        for change in changes {
            let after = state.after(change);
            rows::apply(&mut rows, &rows::difference(&state.rows(), &after.rows()));
            prop_assert_eq!(&rows, &after.rows());
            prop_assert!(rows.keys().all(|key| rows::is_known(key)));
            prop_assert_eq!(ControlState::from_rows(&rows), Ok(after.clone()));
            state = after;
        }
    }

    #[test]
    fn changes_of_different_things_are_written_in_any_order(one in change(), other in change()) {
        let start = ControlState::at(1);
        let [one, other] = [one, other].map(|change| {
            rows::difference(&start.rows(), &start.after(change).rows())
        });
        prop_assume!(!one.iter().any(|row| other.iter().any(|its| its.key == row.key)));
        let both = |first, second| {
            let mut rows = start.rows();
            rows::apply(&mut rows, first);
            rows::apply(&mut rows, second);
            rows
        };
        prop_assert_eq!(both(&one, &other), both(&other, &one));
    }

    #[test]
    fn changes_one_by_one_are_the_changes_replayed(
        changes in prop::collection::vec(change(), 0..20),
    ) {
        let mut state = ControlState::at(1);
        for (n, change) in changes.iter().enumerate() {
            state = state.after(change.clone());
            prop_assert_eq!(&state, &replay(&changes[..=n]));
            prop_assert_eq!(&read_again(&state), &state);
        }
        let resumed = ControlState::default().after(Change::Resumed(Box::new(state.clone())));
        let own = Change::StandInsChosen(state.stand_ins().clone());
        prop_assert_eq!(resumed.after(own), state, "another process goes on where it was");
    }

    #[test]
    fn a_reinstatement_undoes_an_ejection(
        changes in prop::collection::vec(change(), 0..20),
        ejection in ejection(),
    ) {
        let (service, version) = ("a".to_owned(), "b".to_owned());
        let back = Change::VersionReinstated {
            service: service.clone(),
            version: version.clone(),
            by_itself: false,
        };
        let before = replay(&changes).after(back.clone());
        let out = before.after(Change::VersionEjected { service, version, ejection });
        prop_assert!(out.ejection("a", "b").is_some());
        prop_assert!(!out.decides_as(&before));
        prop_assert_eq!(out.after(back), before);
    }
}

#[test]
fn an_endpoint_comes_back_and_weights_end_a_stand_in() {
    let (service, version) = ("a".to_owned(), "v1".to_owned());
    let endpoint = "10.0.0.1:80".to_owned();
    let stand_in = StandIn { version: version.clone(), why: "v2 is ejected".to_owned() };
    let stand_ins = StandIns::from([(service.clone(), stand_in)]);
    let start = ControlState::at(7).after(Change::StandInsChosen(stand_ins));
    assert_eq!(start.weights_ahead()["a"]["v1"], Weight::ONE);
    let ejection =
        ManualEjection { since: NOT_SAID, by: "ops".to_owned(), reason: "disk".to_owned() };
    let out = start.after(Change::EndpointEjected {
        service: service.clone(),
        version: version.clone(),
        endpoint: endpoint.clone(),
        ejection,
    });
    assert_eq!(out.endpoints().len(), 1);
    let back = Change::EndpointReinstated { service: service.clone(), version, endpoint };
    assert_eq!(out.after(back), start);
    let (file, why, before, earlier) = (None, None, None, Vec::new());
    let weights = SetWeights { set: IndexMap::new(), file, why, before, earlier };
    let set = start.after(Change::WeightsSet { service, weights });
    assert!(set.stand_ins().is_empty() && set.weights_ahead()["a"].is_empty());
}

/// An ejection was forgotten when its version left the file, and the version served again once a file had it
/// again.
#[test]
fn a_version_that_left_the_file_stays_ejected_and_the_oldest_of_too_many_are_forgotten() {
    let at = |s: usize| SystemTime::UNIX_EPOCH + Duration::from_secs(s as u64);
    let (by, reason) = ("ops".to_owned(), "pays twice".to_owned());
    let place = |n: usize| ("a".to_owned(), format!("v{n}"));
    let mut state = ControlState::at(1);
    let most = MOST_ABSENT + 3;
    for n in 0..most {
        let ((service, version), since) = (place(n), at(most - n));
        let ejection = Ejection { since, by: by.clone(), reason: reason.clone(), verdict: None };
        state.apply(Change::VersionEjected { service, version, ejection });
        let ((service, version), endpoint) = (place(n), "10.0.0.1:80".to_owned());
        let ejection = ManualEjection { since, by: by.clone(), reason: reason.clone() };
        state.apply(Change::EndpointEjected { service, version, endpoint, ejection });
    }
    let (weights, held) = (BTreeSet::new(), BTreeMap::new());
    let at = SystemTime::UNIX_EPOCH;
    let taken = |gone| {
        let (weights, held, moved) = (weights.clone(), held.clone(), held.clone());
        Change::FileTaken { at, weights, gone, held, moved }
    };
    assert_eq!(state.after(taken(BTreeSet::from([place(0), place(9)]))), state);
    let but_one = state.after(taken((0..most).filter(|n| *n != most - 1).map(place).collect()));
    let forgotten = |state: &ControlState| -> Vec<usize> {
        let is_out = |n: &usize| state.ejection("a", &format!("v{n}")).is_some();
        (0..most).filter(|n| !is_out(n)).collect()
    };
    // The last one was ejected first, and is in the file.
    assert_eq!(forgotten(&but_one), [most - 3, most - 2]);
    assert_eq!(but_one.endpoints().len(), most - 2);
}

/// The format of the first release with takeovers: other fields were added later.
fn moved(from: &str, to: &str, before: u32) -> Change {
    let (until, by, reason) = (before + 50, "ann".to_owned(), String::new());
    let rule = MovedPins { to: to.to_owned(), before, until, by, reason };
    Change::PinsMoved { service: "wallet".to_owned(), from: from.to_owned(), rule }
}

fn moves(state: &ControlState) -> Vec<(String, String)> {
    let all = state.pin_moves_by_service().remove("wallet").unwrap_or_default();
    all.into_iter().map(|one| (one.from, one.to)).collect()
}

/// Regression: moves within one second were applied by the names of their versions, and a later move of a version
/// replaced its earlier one.
#[test]
fn moves_of_pins_are_kept_in_the_order_in_which_they_were_made() {
    let made = [("v3", "v2"), ("v2", "v1"), ("v1", "v3"), ("v3", "v1")];
    let pairs = |made: &[(&str, &str)]| -> Vec<(String, String)> {
        made.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
    };
    let all: Vec<Change> = made.iter().map(|(from, to)| moved(from, to, 1_000)).collect();
    let state = replay(&all);
    assert_eq!(moves(&state), pairs(&made));
    assert_eq!(moves(&read_again(&state)), pairs(&made));
    let text = serde_json::to_string(&state).expect("JSON");
    let handed: ControlState = serde_json::from_str(&text).expect("a state");
    assert_eq!(moves(&handed), pairs(&made));
    // The first ones have ended, and what follows has a higher place all the same.
    let last = |state: &ControlState| state.pin_moves().keys().next_back().expect("one").1;
    let later = state.after(moved("v2", "v3", 1_051));
    assert_eq!(moves(&later), pairs(&[("v2", "v3")]));
    assert!(last(&later) > last(&state), "{} {}", last(&later), last(&state));
}

/// An older release has one row for each version that had pins, and no order but the time.
#[test]
fn moves_of_pins_of_an_older_release_are_read() {
    let row = |to: &str, before: u32| {
        format!(r#"{{"to":"{to}","before":{before},"until":2000,"by":"ann","reason":""}}"#)
    };
    let rows = rows::Rows::from([
        ("pin_move/wallet/v1".to_owned(), row("v2", 1_001).into()),
        ("pin_move/wallet/v3".to_owned(), row("v1", 1_000).into()),
    ]);
    let state = ControlState::from_rows(&rows).expect("a state");
    let expected = [("v3", "v1"), ("v1", "v2")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(moves(&state), expected);
    let handed = r#"{"generation": 3, "weights": {}, "ejected": {}, "pin_moves": [
        {"service": "wallet", "from": "v1", "to": "v2", "before": 1001, "until": 2000, "by": "a", "reason": ""},
        {"service": "wallet", "from": "v3", "to": "v1", "before": 1000, "until": 2000, "by": "a", "reason": ""}]}"#;
    let state: ControlState = serde_json::from_str(handed).expect("a state");
    assert_eq!(moves(&state), expected);
    let next = state.after(moved("v1", "v3", 1_001));
    assert_eq!(moves(&next).last().map(|(from, to)| (&**from, &**to)), Some(("v1", "v3")));
}

#[test]
fn what_an_older_process_hands_over_is_understood() {
    let text = r#"{
        "generation": 12,
        "weights": { "a": { "set": { "v2": 1.0 }, "file": { "v1": 1.0 } } },
        "ejected": { "a": [ "v1" ] },
        "reasons": [ { "service": "a", "version": "v3", "by": "ops", "reason": "gone" } ],
        "endpoints": { "a": { "v2": [ "10.0.0.1:80" ] } }
    }"#;
    let state: ControlState = serde_json::from_str(text).expect("a state");
    assert_eq!((state.generation(), state.overrides()["a"]["v2"]), (12, Weight::ONE));
    assert!(state.ejection("a", "v3").is_none(), "it is only explained");
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
    let state = state.dated(now);
    let why = state.ejection("a", "v1").expect("it is out");
    assert_eq!((&*why.by, why.since), ("another process", now));
    let endpoint = ("a".to_owned(), "v2".to_owned(), "10.0.0.1:80".to_owned());
    assert_eq!(state.endpoints()[&endpoint].since, now);
    let least: ControlState =
        serde_json::from_str(r#"{ "generation": 1, "weights": {} }"#).expect("a state");
    assert_eq!(least, ControlState::at(1));
}

/// An older process neither writes nor knows who set weights.
#[test]
fn who_set_weights_is_handed_over_and_may_be_unknown() {
    let old = r#"{ "set": { "v2": 1.0 }, "file": null }"#;
    let read: SetWeights = serde_json::from_str(old).expect("weights");
    assert_eq!((&read.why, &*read.told()), (&None, "weights set at runtime"));
    assert_eq!(serde_json::to_string(&read).expect("JSON"), old.replace(' ', ""));
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
    let why = Some(WhySet::new("ops", "canary looks good.", at));
    let set = SetWeights { why, ..read };
    let text = serde_json::to_string(&set).expect("JSON");
    assert!(text.contains(r#""why":{"by":"ops","reason":"canary looks good.","at_unix_ms":1500}"#));
    assert_eq!(serde_json::from_str::<SetWeights>(&text).expect("weights"), set);
    assert_eq!(set.told(), "weights set by ops (canary looks good) at 1970-01-01T00:00:01Z");
}

#[test]
fn what_is_handed_over_is_what_an_older_process_reads() {
    let (service, version) = ("a".to_owned(), "v2".to_owned());
    let since = SystemTime::UNIX_EPOCH + Duration::from_micros(1_500_700);
    let (by, reason) = ("ops".to_owned(), "pays twice".to_owned());
    let ejection = Ejection { since, by, reason, verdict: None };
    let state = ControlState::at(3).after(Change::VersionEjected { service, version, ejection });
    let written = serde_json::to_value(&state).expect("JSON");
    assert_eq!(written["ejected"], serde_json::json!({ "a": [ "v2" ] }));
    assert_eq!(
        written["reasons"],
        serde_json::json!([ {
            "service": "a", "version": "v2", "by": "ops", "reason": "pays twice",
            "route": null, "verdict": null, "at_unix_ms": 1500
        } ])
    );
}
