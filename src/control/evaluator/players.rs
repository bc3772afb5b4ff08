//! The guarantee of alpha with realistic players, who stay on one version and differ from each other.
//!
//! A proxy assigns players at random, not requests. One player whose every request fails, a bot that sends a
//! hundred times as much as others, or a client that retries ten times must not eject a healthy canary; a worse
//! canary must be ejected all the same. Here such players send requests, which are counted in the cells as a
//! worker counts them, and the evaluator polls every 10 ms.
//!
//! Without `TIDEGATE_PLAYERS` there are a few short runs. Tables of 200 seeds take minutes to hours each, on
//! two cores:
//!
//!     TIDEGATE_PLAYERS=cursed,bots TIDEGATE_PLAYERS_SEEDS=200 \
//!         cargo test --release --lib evaluator::players -- --nocapture
//!
//! A table that was interrupted after 18 rows of healthy canaries is continued with `differ:18`.

mod amounts;
mod attack;
mod detection;
mod draw;
mod population;
mod run;
mod table;
mod validity;

use self::table::Report;
use super::stage::{Outcome, Stage};
use crate::registry::Player;

/// A request that ends in the instant it begins.
#[derive(Debug, Clone, Copy)]
struct Request {
    version: usize,
    /// Hash of the cohort key, independent of the one that decides the version.
    key: u32,
    /// Network of the client.
    network: u32,
    /// Number of the endpoint among those of the version.
    endpoint: usize,
    outcome: Outcome,
    /// The amount `stake` in the response, if that is compared.
    carried: Option<f64>,
}

/// Counts a request now, as a worker does. All simulated requests are counted by this function.
fn ask(stage: &mut Stage, request: Request) {
    let Request { version, key, network, endpoint, outcome, carried } = request;
    let (player, network) = (player(key), player(network));
    let service = &stage.snapshot.services[0];
    let group = service.versions[version].endpoints[endpoint].group;
    stage.ask(version, player, network, group, outcome);
    let Some(evidence) = &stage.snapshot.routes[0].evidence else { return };
    let amounts = &evidence.arms[version].amounts;
    if let (Outcome::Served(_), Some(carried), Some(amount)) = (outcome, carried, amounts.first())
        && !evidence.state.paid.has(player)
    {
        evidence.state.paid.add(player);
        amount.record(0, carried, || 0.0);
    }
}

fn player(key: u32) -> Player {
    Player::of(&key.to_le_bytes())
}

/// The function that makes the table `name`.
fn table(name: &str) -> fn(&mut Report) {
    match name {
        "short" => validity::short,
        "cursed" => validity::cursed,
        "shard" => validity::shard,
        "slow" => validity::slow,
        "retry" => validity::retry,
        "differ" => validity::differ,
        "bots" => validity::bots,
        "boundary" => validity::boundary,
        "attack" => attack::attack,
        "detect" => detection::detect,
        "pods" => detection::pods,
        "slowdetect" => detection::slowdetect,
        "late" => detection::late,
        "ramp" => detection::ramp,
        "phi" => detection::phi_after_restart,
        "bursts" => detection::bursts,
        "amounts" => amounts::amounts,
        _ => panic!("no table is called `{name}`"),
    }
}

/// Makes the tables that `TIDEGATE_PLAYERS` names, or a short one. At `f799450`, which counts requests and not
/// players, the short one fails.
#[test]
fn players_eject_no_healthy_canary() {
    let asked = std::env::var("TIDEGATE_PLAYERS").unwrap_or_else(|_| "short".to_owned());
    let seeds = std::env::var("TIDEGATE_PLAYERS_SEEDS").ok().and_then(|text| text.parse().ok());
    for name in asked.split(',') {
        let (name, rows) = name.split_once(':').unwrap_or((name, "0"));
        let rows = rows.parse().expect("a number of rows to leave out");
        let seeds = seeds.unwrap_or(if name == "short" { 10 } else { 20 });
        let mut report = Report::new(seeds, rows);
        table(name)(&mut report);
        assert_eq!(report.broken(), [""; 0], "{name}: ejected more often than alpha allows");
    }
}
