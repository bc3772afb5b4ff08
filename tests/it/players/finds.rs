//! Bad canaries, which go soon whatever players and clients do.

use std::{thread, time::Duration};

use super::{
    Run,
    stage::{BOTH, ERRORS, Pace, Setup, Stage},
};
use crate::support::{backends::Fault, load::Clients};

/// Longest wait for an ejection.
const LIMIT: Duration = Duration::from_secs(60);

fn leaving(setup: Setup, after: Duration) -> Setup {
    let clients = setup.clients.into_iter().map(|clients| clients.leaving_after(after)).collect();
    Setup { clients, ..setup }
}

/// Requests that reached the canary from the fault until it was out.
fn requests(pace: Pace, stage: &Stage, begin: impl FnOnce()) -> Run {
    if let Err(reason) = stage.serve_well(pace) {
        return Run::busy(reason);
    }
    let watched = stage.watch(LIMIT, begin);
    let mut run = Run::of(stage, &watched, watched.requests);
    run.note = format!("{} clients left; {}", watched.seen.left, run.note);
    run
}

/// The canary never answers this share of its requests any more, and clients leave.
pub(super) fn hung(pace: Pace, share: f64, patience: Duration) -> Run {
    let stage = leaving(Setup::new(5.0, 1_000.0, ERRORS), patience).start();
    requests(pace, &stage, || stage.canary(|canary| canary.fault = Fault::Hang(share)))
}

/// The canary takes 400 times as long, and clients leave.
pub(super) fn slow(pace: Pace) -> Run {
    let stage = leaving(Setup::new(5.0, 1_000.0, BOTH), Duration::from_secs(1)).start();
    requests(pace, &stage, || stage.canary(|canary| canary.latency = Duration::from_secs(2)))
}

/// Some bodies of the canary take 28 seconds, and clients leave after 10.
pub(super) fn drip(pace: Pace) -> Run {
    let stage = leaving(Setup::new(5.0, 1_000.0, BOTH), Duration::from_secs(10)).start();
    let fault = Fault::Drip(0.3, Duration::from_secs(28));
    requests(pace, &stage, || stage.canary(|canary| canary.fault = fault))
}

/// The canary's answers break `after` their heads, or say no more for so long.
pub(super) fn breaks(pace: Pace, after: Duration) -> Run {
    let stage = Setup::new(5.0, 1_000.0, ERRORS).start();
    requests(pace, &stage, || stage.canary(|canary| canary.fault = Fault::Break(after)))
}

/// All requests of the canary fail, some time after its baseline was restarted endpoint by endpoint.
pub(super) fn restarted(pace: Pace) -> Run {
    let setup = Setup { endpoints: [4, 1], ..Setup::new(5.0, 1_000.0, ERRORS) };
    let stage = setup.start();
    if let Err(reason) = stage.serve_well(pace) {
        return Run::busy(reason);
    }
    for endpoint in &stage.baseline {
        stage.backend(*endpoint).fault(Fault::Share(1.0, 503));
        thread::sleep(Duration::from_secs(1));
        stage.backend(*endpoint).fault(Fault::None);
        if let Err(reason) = stage.serve(pace, Duration::from_secs(9)) {
            return Run::busy(reason);
        }
    }
    let watched =
        stage.watch(LIMIT, || stage.canary(|canary| canary.fault = Fault::Share(1.0, 500)));
    Run::of(&stage, &watched, watched.seen.canary_failed)
}

/// All requests of a tenth of the players fail, on the canary only.
pub(super) fn tenth_of_players(pace: Pace) -> Run {
    let mut setup = Setup::new(5.0, 2_000.0, ERRORS);
    setup.clients = vec![Clients::new(2_000.0).players(4_000)];
    let stage = setup.start();
    if let Err(reason) = stage.serve_well(pace) {
        return Run::busy(reason);
    }
    let before = stage.events().len();
    let watched = stage.watch(LIMIT, || stage.canary(|canary| canary.fault = Fault::OneOf(10)));
    let mut run = Run::of(&stage, &watched, watched.seen.canary_failed);
    let events = stage.events().split_off(before);
    run.told = events.iter().any(|kind| !kind.starts_with("near_miss"));
    run.note = format!("events {events:?}; {}", run.note);
    run
}

/// A rare and precious route fails altogether, on the canary only.
pub(super) fn payout(pace: Pace) -> Run {
    let per_s = 2_000.0;
    let rare = Clients::new(0.002 * per_s).players(10_000).path("/payout");
    let mut setup = Setup::new(5.0, per_s, ERRORS);
    setup.clients.push(rare);
    setup.routes = &["name: payout, match: { path: /payout }"];
    let stage = setup.start();
    if let Err(reason) = stage.serve_well(pace) {
        return Run::busy(reason);
    }
    let fault = Fault::Path("/payout");
    let watched =
        stage.watch(Duration::from_secs(120), || stage.canary(|canary| canary.fault = fault));
    let payouts = stage.load.seen_by(1).canary_failed;
    assert!(payouts > 0 || watched.ejected.is_some(), "no payout failed");
    Run::of(&stage, &watched, payouts)
}

/// All requests of the canary fail: what everything else is measured by.
pub(super) fn all(pace: Pace) -> Run {
    let stage = Setup::new(5.0, 1_000.0, ERRORS).start();
    if let Err(reason) = stage.serve_well(pace) {
        return Run::busy(reason);
    }
    let watched =
        stage.watch(LIMIT, || stage.canary(|canary| canary.fault = Fault::Share(1.0, 500)));
    Run::of(&stage, &watched, watched.seen.canary_failed)
}
