//! Healthy canaries, which stay whatever players, clients and machines do.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use super::{
    Run,
    stage::{BOTH, ERRORS, Pace, Setup, Stage, keys_of_canary},
};
use crate::support::{backends::Fault, load::Clients};

/// A cold start that is over before `warm_up` is.
const COLD: &str = "errors: { relative: 10%, absolute: 0.3% }, \
                    latency: { p95: 20%, p99: 20% }, warm_up: 12s";
const NETWORKS: &str = "errors: { relative: 10%, absolute: 0.3% }, networks: true";
/// What a cold endpoint takes for an answer, and for how long.
const COLD_LATENCY: Duration = Duration::from_millis(100);
const COLD_TIME: Duration = Duration::from_secs(10);

/// Failed answers of the canary while `limit` passes.
fn watch(stage: &Stage, limit: Duration, begin: impl FnOnce()) -> Run {
    let watched = stage.watch(limit, begin);
    Run::of(stage, &watched, watched.seen.canary_failed)
}

/// Players of the canary whose every request fails on either version, and who ask so often altogether.
fn cursed_players(
    pace: Pace,
    setup: Setup,
    players: usize,
    per_s: f64,
    from: Option<IpAddr>,
) -> Run {
    let keys = keys_of_canary(setup.share, players);
    let bots = Clients::new(per_s).named(keys);
    let bots = if let Some(from) = from { bots.from(from) } else { bots };
    let stage = setup.start();
    if let Err(reason) = stage.serve_well(pace) {
        return Run::busy(reason);
    }
    let mut asking = None;
    let watched = stage.watch(pace.limit(20), || asking = Some(stage.more(bots)));
    let failed = asking.map_or(0, |load| load.seen().canary_failed);
    assert!(failed > 0 || watched.ejected.is_some(), "no cursed player reached the canary");
    Run::of(&stage, &watched, failed)
}

/// One player fails on either version.
pub(super) fn cursed(pace: Pace, share: f64, per_s: f64, of_player_per_s: f64) -> Run {
    cursed_players(pace, Setup::new(share, per_s, ERRORS), 1, of_player_per_s, None)
}

/// Many keys of one address fail on either version.
pub(super) fn network(pace: Pace) -> Run {
    let from = IpAddr::from([127, 9, 9, 9]);
    cursed_players(pace, Setup::new(5.0, 1_000.0, NETWORKS), 20, 20.0, Some(from))
}

/// Many keys fail on either version, and nothing tells that they belong together.
pub(super) fn many_keys(pace: Pace) -> Run {
    cursed_players(pace, Setup::new(5.0, 1_000.0, ERRORS), 20, 20.0, None)
}

/// Nothing is wrong, on a machine that is as busy as it is.
pub(super) fn equal(pace: Pace) -> Run {
    let mut setup = Setup::new(5.0, 1_000.0, BOTH);
    setup.behavior.sigma = 0.8;
    watch(&setup.start(), pace.limit(30), || ())
}

/// As many requests fail on either version, and at once; the canary serves the others slowly, which is not
/// compared. Of its newest requests only the failures have ended.
pub(super) fn serves_slowly(pace: Pace) -> Run {
    let stage = Setup::new(50.0, 250.0, ERRORS).start();
    stage.baseline(|baseline| baseline.fault = Fault::AtOnce(0.05));
    stage.canary(|canary| {
        canary.fault = Fault::AtOnce(0.05);
        canary.latency = Duration::from_millis(800);
    });
    let before = stage.load.seen();
    let mut run = watch(&stage, pace.limit(30), || ());
    run.cost = stage.load.seen().since(before).canary_failed;
    assert!(run.cost > 0, "nothing failed");
    run
}

/// An outage of both versions, in which each fails after a time of its own.
pub(super) fn told_later(pace: Pace, baseline_ms: u64, canary_ms: u64) -> Run {
    let outage = |ms| Fault::Outage(Duration::from_millis(ms));
    let setup = Setup::new(20.0, 1_000.0, ERRORS);
    shared(pace, setup, outage(baseline_ms), outage(canary_ms))
}

/// Both versions hang for a while, and clients leave after a second.
pub(super) fn hung(pace: Pace) -> Run {
    let mut setup = Setup::new(20.0, 1_000.0, BOTH);
    let clients = Clients::new(setup.per_s).players(10_000);
    setup.clients = vec![clients.leaving_after(Duration::from_secs(1))];
    shared(pace, setup, Fault::Hang(1.0), Fault::Hang(1.0))
}

/// Both versions have a fault for three seconds.
fn shared(pace: Pace, setup: Setup, of_baseline: Fault, of_canary: Fault) -> Run {
    let stage = setup.start();
    if let Err(reason) = stage.serve_well(pace) {
        return Run::busy(reason);
    }
    stage.baseline(|baseline| baseline.fault = of_baseline);
    stage.canary(|canary| canary.fault = of_canary);
    let before = stage.load.seen();
    thread::sleep(Duration::from_secs(3));
    stage.baseline(|baseline| baseline.fault = Fault::None);
    stage.canary(|canary| canary.fault = Fault::None);
    let watched = stage.watch(pace.limit(7), || ());
    let seen = stage.load.seen().since(before);
    assert!(seen.canary_failed + seen.left > 100, "there was no outage: {seen:?}");
    Run::of(&stage, &watched, seen.canary_failed)
}

/// The canary's weight falls twice just as an outage of both versions ends. `fault` is the outage, in
/// which each request fails a second after it began, or all at the outage's end.
pub(super) fn two_changes(pace: Pace, fault: Fault) -> Run {
    let stage = Setup::new(50.0, 1_000.0, ERRORS).start();
    if let Err(reason) = stage.serve_well(pace) {
        return Run::busy(reason);
    }
    let all = |fault| {
        stage.baseline(|baseline| baseline.fault = fault);
        stage.canary(|canary| canary.fault = fault);
    };
    all(fault);
    let before = stage.load.seen();
    thread::sleep(Duration::from_secs(1));
    stage.weights(25.0);
    thread::sleep(Duration::from_millis(50));
    stage.weights(1.0);
    thread::sleep(Duration::from_millis(20));
    all(Fault::None);
    let watched = stage.watch(pace.limit(10), || ());
    let failed = stage.load.seen().since(before).canary_failed;
    assert!(failed > 0, "there was no outage");
    Run::of(&stage, &watched, failed)
}

/// A new connection costs 15 ms, and the few requests of a small canary need a new one more often.
pub(super) fn new_connections(pace: Pace) -> Run {
    let mut setup = Setup::new(1.0, 100.0, BOTH);
    setup.behavior.connecting = Duration::from_millis(15);
    setup.behavior.idle = Duration::from_secs(1);
    let stage = setup.start();
    let mut run = watch(&stage, pace.limit(60), || ());
    let made = |endpoint| stage.backend(endpoint).connections();
    run.note = format!("{} and {} connections; {}", made(0), made(1), run.note);
    run
}

/// The canary is slow for the first seconds of its life.
pub(super) fn cold_start(pace: Pace) -> Run {
    let stage = Setup::new(5.0, 1_000.0, COLD).start();
    stage.canary(|canary| canary.cold = Some((Instant::now() + COLD_TIME, COLD_LATENCY)));
    watch(&stage, pace.limit(20), || ())
}

/// An endpoint that is slow for the first seconds of its life joins a warm canary.
pub(super) fn cold_endpoint(pace: Pace) -> Run {
    let setup = Setup { endpoints: [2, 2], ..Setup::new(5.0, 1_000.0, COLD) };
    let stage = setup.start();
    let [first, second] = [stage.canary[0], stage.canary[1]];
    stage.reload(&[first]);
    if let Err(reason) = stage.serve(pace, Duration::from_secs(15)) {
        return Run::busy(reason);
    }
    let joins = || {
        let cold = Some((Instant::now() + COLD_TIME, COLD_LATENCY));
        stage.backend(second).behave(|endpoint| endpoint.cold = cold);
        stage.reload(&[first, second]);
    };
    let before = stage.backend(second).requests();
    let run = watch(&stage, pace.limit(20), joins);
    assert!(stage.backend(second).requests() > before, "the endpoint did not join");
    run
}

/// One of the canary's three endpoints fails everything: it goes, and the version stays.
pub(super) fn one_of_three(pace: Pace) -> Run {
    let setup = Setup { endpoints: [3, 3], ..Setup::new(5.0, 1_000.0, ERRORS) };
    let stage = setup.start();
    if let Err(reason) = stage.serve_well(pace) {
        return Run::busy(reason);
    }
    breaks(&stage, pace, Fault::Share(1.0, 500))
}

/// One of the canary's three endpoints fails one named route, which is one of fifty requests.
pub(super) fn one_of_three_payouts(pace: Pace) -> Run {
    let per_s = 2_000.0;
    let mut setup = Setup { endpoints: [3, 3], ..Setup::new(25.0, per_s, ERRORS) };
    setup.clients.push(Clients::new(0.02 * per_s).players(10_000).path("/payout"));
    setup.routes = &["name: payout, match: { path: /payout }"];
    let stage = setup.start();
    if let Err(reason) = stage.serve_well(pace) {
        return Run::busy(reason);
    }
    breaks(&stage, pace, Fault::Path("/payout"))
}

/// An endpoint of the canary has a `fault`, for which it is to be taken out.
fn breaks(stage: &Stage, pace: Pace, fault: Fault) -> Run {
    let broken = stage.backend(stage.canary[1]);
    let mut run = watch(stage, pace.limit(30), || broken.fault(fault));
    let gone = format!("endpoint ejected {}", broken.address);
    if !stage.told().contains(&gone) {
        run.missing = Some("the endpoint was not ejected");
    }
    run
}
