use std::collections::HashMap;

use super::*;
use crate::{
    analysis::Counter,
    config::{parse, units::Share},
    health::WHOLE,
    registry::{EndpointState, ErrorKind, Registry},
    snapshot::{Overrides, Resolved, RuntimeState, SnapshotInputs, usable},
};

/// A service `a` with three endpoints of v1 and one of v2, its registry and monitor.
struct Bench {
    snapshot: Snapshot,
    watch: EndpointMonitor,
    now: Duration,
}

impl Bench {
    fn new(fields: &str) -> Self {
        Self::with_canary("10.0.0.2:1", fields)
    }

    /// With other endpoints of v2.
    fn with_canary(canary: &str, fields: &str) -> Self {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nroutes: [ {{ service: a }} ]\nservices:\n  a:\n    \
             baseline: v1\n    versions:\n      v1: {{ endpoints: [ 10.0.0.1:1, 10.0.0.1:2, 10.0.0.1:3 ] }}\n      \
             v2: {{ endpoints: [ {canary} ] }}\n    {fields}\n"
        );
        let config = parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
        let (overrides, decided, resolved) =
            (Overrides::new(), RuntimeState::default(), Resolved::new());
        let sources = SnapshotInputs {
            config: &config,
            overrides: &overrides,
            decided: &decided,
            resolved: &resolved,
            tls: &HashMap::new(),
            access_log: None,
        };
        let snapshot = Snapshot::compile(1, sources, None, &Registry::new(2));
        let mut bench =
            Self { snapshot, watch: EndpointMonitor::default(), now: Duration::from_secs(1) };
        bench.look();
        bench
    }

    fn state(&self, endpoint: usize) -> &EndpointState {
        &self.snapshot.services[0].versions[0].known[endpoint].state
    }

    fn standing(&self, endpoint: usize) -> State {
        self.state(endpoint).standing.state()
    }

    fn look(&mut self) -> EndpointPoll {
        self.watch.look(&self.snapshot, self.now, 64, || 0.5)
    }

    fn pass(&mut self, time: Duration) -> EndpointPoll {
        self.now += time;
        self.look()
    }

    /// Adds attempts at an endpoint on a worker, `faults` of which could not connect.
    fn attempts(&self, endpoint: usize, worker: usize, all: u64, faults: u64) {
        let cells = self.state(endpoint).cells.of(worker);
        cells.started.add(all);
        cells.errors[ErrorKind::Connect as usize].add(faults);
        cells.connected.add(all - faults);
    }
}

#[test]
fn faults_of_all_workers_in_a_row_eject_and_a_probe_brings_back() {
    let mut bench = Bench::new("connect_timeout: 1s");
    bench.attempts(1, 0, 2, 2);
    assert!(bench.pass(SLOW_LOOK).moves.is_empty());
    bench.attempts(1, 1, 1, 1);
    let look = bench.pass(SLOW_LOOK);
    let [moved] = &*look.moves else { panic!("{look:?}") };
    assert_eq!((moved.to, moved.cause), (State::Ejected, Some(Cause::Connect)));
    assert_eq!(moved.pause, Some(Duration::from_secs(30)));
    assert_eq!(bench.standing(1), State::Ejected);
    assert_eq!(bench.state(1).standing.ejections[Cause::Connect as usize].read(), 1);
    let look = bench.pass(Duration::from_secs(30));
    let [(id, probe)] = &*look.probes else { panic!("{look:?}") };
    assert_eq!((bench.standing(1), probe.address), (State::Probing, bench.state(1).address));
    assert!(bench.look().probes.is_empty(), "it is being probed");
    bench.watch.probed(&bench.snapshot, *id, Err("no".to_owned()), bench.now, 0.5);
    let look = bench.look();
    assert_eq!(
        (bench.standing(1), look.next),
        (State::Probing, Some(bench.now + Duration::from_secs(2)))
    );
    let look = bench.pass(Duration::from_secs(2));
    bench.watch.probed(&bench.snapshot, look.probes[0].0, Ok(()), bench.now, 0.5);
    let moved = bench.look().moves.remove(0);
    // The endpoint has not been probed.
    assert_eq!((moved.to, &*moved.reason), (State::Serving, "it can be connected"));
    assert_eq!(bench.state(1).standing.checks.each_ref().map(|c| c.read()), [1, 1]);
    assert!(bench.state(1).standing.share() < WHOLE, "it starts slowly");
}

/// Regression: the prober panicked, and the endpoint was never probed again.
#[test]
fn an_endpoint_whose_probe_is_forgotten_is_probed_again() {
    let mut bench = Bench::new("connect_timeout: 1s");
    bench.attempts(1, 0, 3, 3);
    bench.pass(SLOW_LOOK);
    assert_eq!(bench.pass(Duration::from_secs(30)).probes.len(), 1);
    assert!(bench.look().probes.is_empty(), "it is being probed");
    bench.watch.forget_probes();
    assert_eq!(bench.look().probes.len(), 1);
}

#[test]
fn it_sleeps_while_there_is_no_traffic() {
    let mut bench = Bench::new("connect_timeout: 1s");
    assert_eq!(bench.look().next, None);
    assert!(bench.watch.waits_for_traffic(bench.now));
    bench.watch.traffic(bench.now);
    assert_eq!(bench.look().next, Some(bench.now + SLOW_LOOK));
    bench.attempts(0, 0, 1, 0);
    let look = bench.pass(SLOW_LOOK);
    assert_eq!(look.next, Some(bench.now + SLOW_LOOK));
    assert_eq!(bench.pass(LINGER).next, None, "nothing was counted since");
    let bench = Bench::new("health: { connect_faults: 0 }");
    assert!(bench.watch.waits_for_traffic(bench.now), "what endpoints say of their load matters");
}

#[test]
fn an_endpoint_with_too_much_to_do_gets_a_smaller_share_until_it_says_so_no_more() {
    let mut bench = Bench::new("connect_timeout: 1s");
    let cells = |bench: &Bench, overloaded: u64| {
        let cells = bench.state(0).cells.of(1);
        cells.started.add(10);
        cells.finished.add(10);
        cells.overloaded.add(overloaded);
        cells.rests_until_ms.raise((bench.now + Duration::from_secs(1)).as_millis() as u64);
    };
    bench.watch.traffic(bench.now);
    cells(&bench, 10);
    let look = bench.pass(SLOW_LOOK);
    let shares = |bench: &Bench| [0, 1, 2].map(|n| bench.state(n).standing.share());
    assert_eq!(shares(&bench), [WHOLE / 2, WHOLE, WHOLE]);
    assert_eq!((bench.standing(0), look.moves.len()), (State::Serving, 0));
    bench.pass(Duration::from_millis(900));
    assert_eq!(shares(&bench)[0], WHOLE / 2, "`Retry-After` is not over");
    // Without traffic, by time alone.
    while let Some(next) = bench.look().next {
        bench.now = next;
    }
    assert_eq!(shares(&bench), [WHOLE; 3]);
    // The only endpoint of a version has no peers that could take more.
    let cells = bench.snapshot.services[0].versions[1].known[0].state.cells.of(0);
    cells.finished.add(10);
    cells.overloaded.add(10);
    bench.pass(SLOW_LOOK);
    let alone = &bench.snapshot.services[0].versions[1].known[0].state;
    assert_eq!(alone.standing.share(), WHOLE);
}

#[test]
fn probes_fill_the_room_with_the_longest_due_first() {
    let mut bench = Bench::new("health: { tcp: {} }");
    bench.now += Duration::from_secs(9);
    let look = bench.watch.look(&bench.snapshot, bench.now, 3, || 0.5);
    assert_eq!((look.probes.len(), look.next), (3, None), "a free place wakes it");
    let look = bench.watch.look(&bench.snapshot, bench.now, 64, || 0.5);
    assert_eq!(look.probes.len(), 1);
}

#[test]
fn an_endpoint_worse_than_its_peers_is_ejected_or_only_reported() {
    for (mode, out) in [("act", State::Ejected), ("advise", State::Serving)] {
        let mut bench = Bench::new(&format!("eject: {{ errors: {{}}, mode: {mode} }}"));
        let mut moves = Vec::new();
        for _ in 0..200 {
            for endpoint in 0..3 {
                let cells = bench.state(endpoint).cells.of(0);
                cells.started.add(2);
                cells.trials.add(2);
                cells.failures.add(if endpoint == 2 { 1 } else { 0 });
            }
            let look = bench.pass(LOOK);
            assert_eq!(look.next, Some(bench.now + LOOK));
            moves.extend(look.moves);
            if !moves.is_empty() {
                break;
            }
        }
        let [moved] = &*moves else { panic!("{moves:?}") };
        assert_eq!((&*moved.endpoint, moved.cause), ("10.0.0.1:3", Some(Cause::Peers)));
        assert_eq!(moved.advice, mode == "advise");
        assert!(moved.reason.contains(" failed, of its peers' 0 of "), "{}", moved.reason);
        assert_eq!(bench.standing(2), out, "{mode}");
    }
}

#[test]
fn one_of_two_endpoints_of_a_canary_is_out_by_what_the_baseline_does() {
    for (weights, out) in [("{ v1: 95, v2: 5 }", true), ("{ v1: 0, v2: 100 }", false)] {
        let fields = format!("weights: {weights}\n    eject: {{ errors: {{}} }}");
        let mut bench = Bench::with_canary("10.0.0.2:1, 10.0.0.2:2", &fields);
        let (mut moves, mut failed) = (Vec::new(), 0);
        for _ in 0..200 {
            for (version, requests) in [(0, 10), (1, 1)] {
                for (number, known) in
                    bench.snapshot.services[0].versions[version].known.iter().enumerate()
                {
                    known.state.cells.of(0).started.add(requests);
                    let fails = version == 1 && number == 1;
                    known
                        .state
                        .judged
                        .add(Counter { trials: requests, failures: u64::from(fails) });
                    failed += u64::from(fails && moves.is_empty());
                }
            }
            moves.extend(bench.pass(LOOK).moves);
        }
        let gone: Vec<_> = moves.iter().map(|moved| (&*moved.endpoint, moved.cause)).collect();
        let expected = out.then_some(("10.0.0.2:2", Some(Cause::Peers)));
        assert_eq!(gone, Vec::from_iter(expected), "{weights}");
        assert!(!out || failed <= 12, "{failed} failures");
    }
}

#[test]
fn a_manual_ejection_lasts_until_reinstatement_which_clears_the_history() {
    let mut bench = Bench::new("connect_timeout: 1s");
    let id = bench.state(0).id;
    bench.watch.eject(&bench.snapshot, id, bench.now);
    bench.watch.eject(&bench.snapshot, id, bench.now);
    assert_eq!(bench.state(0).standing.ejections[Cause::Manual as usize].read(), 1, "once");
    assert_eq!(bench.pass(Duration::from_secs(100_000)).next, None);
    assert_eq!(
        (bench.standing(0), bench.state(0).standing.cause()),
        (State::Ejected, Some(Cause::Manual))
    );
    bench.watch.reinstate(&bench.snapshot, id, bench.now);
    assert_eq!((bench.standing(0), bench.state(0).standing.cause()), (State::Serving, None));
}

#[test]
fn a_manual_ejection_of_another_process_applies_when_the_endpoint_appears() {
    let mut old = Bench::new("connect_timeout: 1s");
    let id = old.state(0).id;
    old.watch.eject(&old.snapshot, id, old.now);
    let mut carried = old.watch.kept_out.clone();
    assert_eq!(carried["a"]["v1"].iter().collect::<Vec<_>>(), ["10.0.0.1:1"]);
    // The name of this endpoint is not resolved yet.
    let of_v2 = carried.get_mut("a").expect("just seen").entry("v2".to_owned()).or_default();
    of_v2.insert("10.0.0.2:1".to_owned());

    let mut new = Bench::new("connect_timeout: 1s");
    let later = std::mem::take(&mut new.snapshot.services[0].versions[1].known);
    new.snapshot.generation += 1;
    new.watch.inherit(&new.snapshot, carried.clone(), new.now);
    assert_eq!((new.standing(0), new.standing(1)), (State::Ejected, State::Serving));
    assert_eq!(new.state(0).standing.ejections[Cause::Manual as usize].read(), 0, "not its own");
    assert_eq!(new.watch.kept_out, carried, "and so on");
    new.snapshot.services[0].versions[1].known = later;
    new.snapshot.generation += 1;
    new.look();
    let known = &new.snapshot.services[0].versions[1].known;
    assert_eq!(known[0].state.standing.cause(), Some(Cause::Manual));
}

#[test]
fn a_manual_ejection_outlasts_a_change_of_addresses() {
    let mut bench = Bench::new("connect_timeout: 1s");
    let id = bench.state(0).id;
    bench.watch.eject(&bench.snapshot, id, bench.now);
    let known = std::mem::take(&mut bench.snapshot.services[0].versions[0].known);
    bench.snapshot.generation += 1;
    bench.look();
    bench.snapshot.services[0].versions[0].known = known;
    bench.snapshot.generation += 1;
    bench.look();
    assert_eq!(bench.state(0).standing.cause(), Some(Cause::Manual));
    bench.watch.reinstate(&bench.snapshot, id, bench.now);
    assert!(bench.watch.kept_out["a"]["v1"].is_empty());
}

/// Regression: nine of ten endpoints refused connections for a second, and the tenth got all requests for
/// thirty.
#[test]
fn where_too_few_serve_those_out_for_faults_are_used_until_enough_are_back() {
    let mut bench = Bench::new("connect_timeout: 1s");
    for endpoint in [0, 1] {
        bench.attempts(endpoint, 0, 3, 3);
    }
    let look = bench.pass(SLOW_LOOK);
    assert_eq!(look.moves.len(), 2);
    let panic = |serving, begins| Notice {
        service: "a".into(),
        version: "v1".into(),
        what: NoticeKind::Panic { serving, of: 3 },
        begins,
    };
    assert_eq!(look.notices, [panic(1, true)]);
    let used =
        |bench: &Bench| usable(&bench.snapshot.services[0].versions[0].known, Share(0.5)).count();
    assert_eq!(used(&bench), 3);
    // They are probed at once, not after thirty seconds.
    let look = bench.look();
    assert!(look.notices.is_empty(), "it is said once");
    let [first, second] = [0, 1].map(|n| look.probes.get(n).expect("two").0);
    assert_eq!([0, 1].map(|n| bench.standing(n)), [State::Probing; 2]);
    assert_eq!(used(&bench), 3);
    bench.watch.probed(&bench.snapshot, first, Ok(()), bench.now, 0.5);
    assert_eq!(bench.look().notices, [panic(2, false)]);
    assert_eq!(used(&bench), 2);
    // The other endpoint was in use until now, too.
    bench.pass(Duration::from_secs(1));
    bench.watch.probed(&bench.snapshot, second, Ok(()), bench.now, 0.5);
    assert_eq!([0, 1].map(|n| bench.standing(n)), [State::Serving; 2]);
    assert_eq!([0, 1].map(|n| bench.state(n).standing.share()), [WHOLE; 2]);
}

#[test]
fn a_resting_endpoint_is_not_probed_sooner_while_enough_others_serve() {
    let mut bench = Bench::new("connect_timeout: 1s");
    bench.attempts(0, 0, 3, 3);
    bench.pass(SLOW_LOOK);
    // A connection that began before the endpoint was ejected.
    bench.attempts(0, 0, 1, 0);
    assert!(bench.pass(SLOW_LOOK).probes.is_empty());
    assert_eq!(bench.standing(0), State::Ejected);
}

#[test]
fn an_unreachable_only_endpoint_serves_and_is_reported_once() {
    let mut bench = Bench::new("connect_timeout: 1s");
    let state = std::sync::Arc::clone(&bench.snapshot.services[0].versions[1].known[0].state);
    let cells = state.cells.of(0);
    let mut said = Vec::new();
    for faults in [2, 1, 5] {
        cells.started.add(faults);
        cells.errors[ErrorKind::Connect as usize].add(faults);
        said.push(bench.pass(SLOW_LOOK).notices.len());
    }
    assert_eq!(said, [0, 1, 0]);
    assert_eq!((state.standing.state(), state.standing.is_unreachable()), (State::Serving, true));
    cells.connected.add(1);
    let look = bench.pass(SLOW_LOOK);
    let [notice] = &*look.notices else { panic!("{look:?}") };
    assert_eq!((notice.begins, state.standing.is_unreachable()), (false, false));
}

/// Regression: a command was refused since a connection failed, and a verdict then gave all players to that endpoint.
#[test]
fn a_connection_that_a_command_tried_in_vain_is_known_until_one_is_accepted() {
    let mut bench = Bench::new("connect_timeout: 1s");
    let state = std::sync::Arc::clone(&bench.snapshot.services[0].versions[1].known[0].state);
    assert_eq!(bench.snapshot.services[0].versions[1].share_weight().value(), 0.0);
    let refused = |id| (id, "Connection refused".to_owned());
    let mut tried = |accepted: Option<u32>, failed: &[u32]| {
        let failed = failed.iter().copied().map(refused).collect();
        bench.watch.tried(&bench.snapshot, &Tried { accepted, failed }, bench.now);
        let look = bench.pass(SLOW_LOOK);
        let begins: Vec<bool> = look.notices.iter().map(|notice| notice.begins).collect();
        (state.standing.is_unreachable(), begins)
    };
    assert_eq!(tried(None, &[state.id]), (true, vec![true]));
    assert_eq!(state.standing.state(), State::Serving, "it is the only one");
    assert_eq!(tried(None, &[state.id]), (true, vec![]), "it is reported once");
    assert_eq!(tried(Some(state.id), &[]), (false, vec![false]));
    // Of a version with players requests tell.
    let others: Vec<u32> = (0..3).map(|n| bench.state(n).id).collect();
    let failed = others.iter().copied().map(refused).collect();
    bench.watch.tried(&bench.snapshot, &Tried { accepted: None, failed }, bench.now);
    assert_eq!([0, 1, 2].map(|n| bench.standing(n)), [State::Serving; 3]);
}
