//! The guarantee of alpha, through everything between a worker's cells and an ejection.
//!
//! Days of an equal canary in seconds: requests are counted in the cells as a worker counts them, the evaluator
//! polls, and the weights grow in steps, each with an epoch of its own. Simplifications: one worker; a request
//! ends in the instant it begins; forty requests per second, polled every 200 ms instead of 10, since only one
//! in a hundred such evaluations would find anything new.
//!
//! `TIDEGATE_AA_RUNS=500 cargo test --release --lib equal_canary -- --nocapture` runs whole days, in about an
//! hour on two cores; without it the runs are few and short.

use std::{f64::consts::TAU, thread};

use fastrand::Rng;

use super::{
    stage::{BASELINE, CANARY, Outcome, Stage},
    *,
};

const LOOK: Duration = Duration::from_millis(200);
const REQUESTS_PER_S: f64 = 40.0;
/// Shares of the canary, each for an equal part of the run.
const RAMP: [f64; 4] = [0.01, 0.05, 0.25, 0.5];
/// Length of the outage of both versions in each step but the first; it spans the end of the step.
const OUTAGE: Duration = Duration::from_secs(120);

/// Failure rate and latency of both versions at an instant.
struct Weather {
    failing: f64,
    /// Median latency in microseconds.
    latency_us: f64,
}

impl Weather {
    /// Rates and latencies drift by the hour; around the end of each step both versions break down.
    fn at(now: Duration, length: Duration) -> Self {
        let turn = |period_s: f64| (TAU * now.as_secs_f64() / period_s).sin();
        let step = length / RAMP.len() as u32;
        let into = now.as_secs_f64() % step.as_secs_f64();
        let outage = now > step / 2
            && (into < OUTAGE.as_secs_f64() / 2.0
                || into > step.as_secs_f64() - OUTAGE.as_secs_f64() / 2.0);
        Self {
            failing: if outage { 0.3 } else { 0.003 * 3f64.powf(turn(5.0 * 3600.0)) },
            latency_us: if outage { 60_000.0 } else { 20_000.0 * 1.5f64.powf(turn(3.0 * 3600.0)) },
        }
    }

    /// Lognormal latencies, of which one in a hundred is more than six times the median.
    fn outcome(&self, rng: &mut Rng) -> Outcome {
        if rng.f64() < self.failing {
            return Outcome::Failed;
        }
        let normal = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (TAU * rng.f64()).cos();
        Outcome::Served((self.latency_us * (0.8 * normal).exp()) as u32)
    }
}

/// When a canary is ejected whose failures and latencies are `times` those of the baseline, if at all.
fn ejected_at(eject: &str, length: Duration, times: f64, seed: u64) -> Option<Duration> {
    let mut rng = Rng::with_seed(seed);
    let mut stage = Stage::new(eject);
    let (mut step, mut due) = (None, rng.f64());
    while stage.now < length {
        let weather = Weather::at(stage.now, length);
        let now_at = (stage.now.as_secs_f64() / length.as_secs_f64() * RAMP.len() as f64) as usize;
        if step != Some(now_at) {
            stage.set_share(RAMP[now_at]);
            step = Some(now_at);
        }
        let worse =
            Weather { failing: weather.failing * times, latency_us: weather.latency_us * times };
        // The number of requests between two evaluations is random.
        due += 2.0 * rng.f64() * REQUESTS_PER_S * LOOK.as_secs_f64();
        while due >= 1.0 {
            due -= 1.0;
            match rng.f64() < RAMP[now_at] {
                true => stage.count(CANARY, worse.outcome(&mut rng)),
                false => stage.count(BASELINE, weather.outcome(&mut rng)),
            }
        }
        if stage.look_after(LOOK).iter().any(|found| matches!(found, Found::Worse(_))) {
            return Some(stage.now);
        }
    }
    None
}

/// How many of `runs` canaries are ejected.
fn ejected(eject: &str, runs: u64, length: Duration, times: f64) -> usize {
    let half = |odd: u64| {
        let seeds = (0..runs).filter(|seed| seed % 2 == odd);
        seeds.filter(|seed| ejected_at(eject, length, times, *seed).is_some()).count()
    };
    thread::scope(|scope| {
        let odd = scope.spawn(|| half(1));
        half(0) + odd.join().expect("no panic")
    })
}

/// The default limits, with p95 and p99 compared.
const DEFAULT: &str = "{ errors: {}, latency: { p95: 20%, p99: 20% } }";
/// With no tolerance, an equal canary is just at the limit.
const STRICT: &str = "{ errors: { relative: 0%, absolute: 0% }, latency: { p95: 0%, p99: 0% }, \
                      alpha: 5%, warm_up: 0s }";

#[test]
fn an_equal_canary_is_ejected_no_more_often_than_alpha_allows() {
    let runs = std::env::var("TIDEGATE_AA_RUNS").ok().and_then(|text| text.parse().ok());
    let (runs, length) = match runs {
        Some(runs) => (runs, Duration::from_secs(24 * 3600)),
        None => (4, Duration::from_secs(1200)),
    };
    let (default, strict) =
        (ejected(DEFAULT, runs, length, 1.0), ejected(STRICT, runs, length, 1.0));
    println!(
        "of {runs} equal canaries over {length:?}, {default} ejected at alpha 0.1 %, {strict} at 5 % \
         with nothing tolerated"
    );
    // Three and a half standard deviations above the mean that alpha allows.
    let most = |alpha: f64| {
        let mean = runs as f64 * alpha;
        mean + 3.5 * (mean * (1.0 - alpha)).sqrt()
    };
    assert!(default as f64 <= most(0.001) && strict as f64 <= most(0.05));
}

/// Requests and failures of a canary that becomes `bad` after five good seconds, until it is ejected. There are
/// 2,000 requests per second, 5 % of them to the canary.
fn until_ejected(eject: &str, bad: &Weather, seed: u64) -> (u32, u32) {
    // The evaluator's polling interval for a canary with failures.
    const LOOK: Duration = Duration::from_millis(2);
    let mut rng = Rng::with_seed(seed);
    let good = Weather { failing: 0.0, latency_us: 5_000.0 };
    let (onset, mut requests, mut failed) = (Duration::from_secs(5), 0, 0);
    let mut stage = Stage::new(eject);
    stage.set_share(0.05);
    while stage.now < onset + Duration::from_secs(60) {
        let is_bad = stage.now >= onset;
        for _ in 0..4 {
            if rng.f64() < 0.05 {
                let outcome = if is_bad { bad } else { &good }.outcome(&mut rng);
                stage.count(CANARY, outcome);
                requests += u32::from(is_bad);
                failed += u32::from(outcome == Outcome::Failed);
            } else {
                stage.count(BASELINE, good.outcome(&mut rng));
            }
        }
        if stage.look_after(LOOK).iter().any(|found| matches!(found, Found::Worse(_))) {
            break;
        }
    }
    (requests, failed)
}

/// The sorted costs of ejecting 20 canaries that are `bad`.
fn costs(eject: &str, bad: &Weather, cost: impl Fn((u32, u32)) -> u32) -> Vec<u32> {
    let mut costs: Vec<u32> = (0..20).map(|seed| cost(until_ejected(eject, bad, seed))).collect();
    costs.sort_unstable();
    println!("{} fail: median {}, worst {}; {eject}", bad.failing, costs[10], costs[19]);
    costs
}

#[test]
fn a_failing_canary_is_out_within_a_handful_of_failures() {
    let eject = "{ errors: { relative: 10%, absolute: 0.3% }, latency: { p99: 20% } }";
    for (failing, most) in [(1.0, 12), (0.5, 15), (0.3, 20), (0.05, 30)] {
        let failed = costs(eject, &Weather { failing, latency_us: 5_000.0 }, |(_, failed)| failed);
        assert!(failed[0] >= 3 && failed[19] <= most, "{failing}: {failed:?}");
    }
}

#[test]
fn twice_the_latency_is_found_within_800_requests() {
    let slow = Weather { failing: 0.0, latency_us: 10_000.0 };
    let of = |eject| costs(eject, &slow, |(requests, _)| requests);
    let both = of("{ errors: {}, latency: { p95: 20%, p99: 20% }, warm_up: 1s }");
    assert!(both[0] > 50 && both[19] <= 800, "{both:?}");
    // One quantile of a long tail has less information; its worst run takes longer.
    let alone = of("{ errors: {}, latency: { p99: 20% }, warm_up: 1s }");
    assert!(alone[0] > 50 && alone[10] <= 800, "{alone:?}");
}

/// The counterpart: without it, an evaluator that never ejects would pass.
#[test]
fn a_worse_canary_is_ejected_in_the_same_weather() {
    assert_eq!(ejected(DEFAULT, 4, Duration::from_secs(1200), 2.0), 4);
}
