//! Log-normal latencies of median 20 ms and sigma 0.8, as in the reference; 100 requests of the
//! canary and 900 of the baseline per second.

use super::{
    super::{simulation::Traffic, wealth::Guarantee},
    *,
};

const SECOND: Duration = Duration::from_secs(1);

fn test(quantile: Quantile, alpha: f64) -> LatencyTest {
    let settings = Settings::new(Tolerance::NONE, Guarantee::Alpha(alpha));
    LatencyTest::new(Span::Head, quantile, Slower::by(0.2, Duration::ZERO), settings)
}

fn latencies(
    traffic: &mut Traffic,
    requests: u32,
    mut change: impl FnMut(f64) -> f64,
) -> Latencies {
    let mut latencies = Latencies::default();
    for _ in 0..requests {
        let latency_us = 20_000.0 * (0.8 * traffic.normal()).exp();
        latencies.record(change(latency_us) as u64);
    }
    latencies
}

/// Canary requests until the test rejects, within `seconds`.
fn requests_until_rejected(
    quantile: Quantile,
    factor: f64,
    seconds: u32,
    traffic: &mut Traffic,
) -> Option<u32> {
    // Two quantiles share 0.1 %.
    let mut test = test(quantile, 5e-4);
    let mut reference = Reference::default();
    for _ in 0..10 {
        reference.absorb(&latencies(traffic, 900, |us| us), SECOND);
    }
    (1..=seconds).find_map(|second| {
        let canary = latencies(traffic, 100, |us| us * factor);
        let baseline = latencies(traffic, 900, |us| us);
        test.observe(Arms::new(&canary, &baseline), &reference, SECOND * second);
        reference.absorb(&baseline, SECOND);
        test.engine().rejected().then_some(second * 100)
    })
}

fn median(quantile: Quantile, factor: f64) -> u32 {
    let mut traffic = Traffic::new(21);
    let mut runs = [(); 15]
        .map(|()| requests_until_rejected(quantile, factor, 200, &mut traffic).unwrap_or(u32::MAX));
    runs.sort_unstable();
    runs[7]
}

#[test]
fn slower_canaries_are_found() {
    // Medians of the reference: 200 and 400 at twice the latency, 1,100 and 2,700 at half as much
    // again.
    let twice = median(Quantile::P95, 2.0);
    assert!((100..=300).contains(&twice), "{twice}");
    let twice = median(Quantile::P99, 2.0);
    assert!((200..=700).contains(&twice), "{twice}");
    let half = median(Quantile::P95, 1.5);
    assert!((700..=1_600).contains(&half), "{half}");
}

#[test]
fn the_tolerance_is_tolerated() {
    let mut traffic = Traffic::new(22);
    for factor in [1.0, 1.2] {
        for _ in 0..5 {
            let rejected = requests_until_rejected(Quantile::P95, factor, 100, &mut traffic);
            assert_eq!(rejected, None, "at {factor} times");
        }
    }
}

#[test]
fn a_common_slowdown_while_the_weight_grows_is_nobodys_fault() {
    let mut traffic = Traffic::new(23);
    for _ in 0..5 {
        let mut test = test(Quantile::P95, 0.01);
        let mut reference = Reference::default();
        for second in 0..90u32 {
            let canary_requests = [10, 100, 500][second as usize / 30];
            let slowdown = if second >= 70 { 3.0 } else { 1.0 };
            let canary = latencies(&mut traffic, canary_requests, |us| us * slowdown);
            let baseline = latencies(&mut traffic, 1000 - canary_requests, |us| us * slowdown);
            test.observe(Arms::new(&canary, &baseline), &reference, SECOND * second);
            reference.absorb(&baseline, SECOND);
        }
        assert!(!test.engine().rejected());
    }
}

#[test]
fn nothing_is_compared_before_the_quantile_is_known() {
    let mut traffic = Traffic::new(24);
    let mut test = test(Quantile::P99, 0.01);
    let mut reference = Reference::default();
    for second in 0..3 {
        let canary = latencies(&mut traffic, 100, |us| us * 100.0);
        let baseline = latencies(&mut traffic, 900, |us| us);
        test.observe(Arms::new(&canary, &baseline), &reference, SECOND * second);
        assert_eq!(test.thresholds(), None, "2,000 requests are needed");
        reference.absorb(&baseline, SECOND);
    }
    for second in 3..7 {
        let slow = latencies(&mut traffic, 100, |us| us * 100.0);
        let baseline = latencies(&mut traffic, 900, |us| us);
        test.observe(Arms::new(&slow, &baseline), &reference, SECOND * second);
    }
    assert!(test.engine().rejected());
    let thresholds = test.thresholds().expect("thresholds");
    let factor = thresholds.canary.as_secs_f64() / thresholds.baseline.as_secs_f64();
    assert!((1.2..1.24).contains(&factor), "{factor}");
    // The 99th percentile is at 128.6 ms.
    assert!((0.11..0.16).contains(&thresholds.baseline.as_secs_f64()), "{thresholds:?}");
}

/// Once a healthy canary was ejected because every request of a quarter of a second waited.
#[test]
fn one_pause_of_the_canary_does_not_eject_it() {
    let mut traffic = Traffic::new(25);
    let mut test = test(Quantile::P99, 1e-3);
    let mut reference = Reference::default();
    for quarter in 0..400u32 {
        let pause = if quarter % 100 == 99 { 400_000.0 } else { 0.0 };
        let canary = latencies(&mut traffic, 25, |us| us + pause);
        let baseline = latencies(&mut traffic, 475, |us| us);
        test.observe(Arms::new(&canary, &baseline), &reference, SECOND * quarter / 4);
        reference.absorb(&baseline, SECOND / 4);
    }
    let (now, decides) = (test.engine().log_evidence(), test.engine().log_threshold());
    assert!(!test.engine().rejected() && now < decides, "{now} of {decides}");
}
