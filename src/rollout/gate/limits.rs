//! The gate `slo`: is a version within absolute limits, for certain?
//!
//! A limit is a share `m` of requests that may be bad: fail, or take longer than a quantile allows. p95 at
//! most 250 ms means that at most 5 % take longer than that. Against "the share is at most `m`" stand bets
//! that it is `q > m`, and against "the share is at least `m`" bets that it is `q < m`, whose mean wealth exceeds
//! `1 / alpha` with probability at most `alpha`, however often one looks ([`log_wealth`]). So it fails with an error of 0.1 % and passes with one
//! of 5 %, as the certificate of health does. A share close to the limit stays undecided.
//!
//! Rejected: to compare the measured rate or quantile with the limit. A version at its limit then passes and
//! fails in turns, and a guardrail would fail sooner or later.

use std::{fmt, time::Duration};

use super::{GateReply, Reply};
use crate::{
    analysis::{is_within, log_wealth},
    config::schema::Slo,
};

/// Probability that a version within its limits ever fails, per limit.
const ALPHA: f64 = 0.001;

/// Bets on a larger share, as multiples of the limit.
const LARGER: [f64; 8] = [1.2, 1.4, 1.8, 2.7, 5.0, 12.0, 50.0, 400.0];

/// Largest share that is bet on.
const MOST: f64 = 0.95;

/// The smallest limit: with 0 a single failure would be certainty.
const LEAST: f64 = 1e-6;

/// Fewest bad requests that fail a version, as in the comparison: with fewer one player decides.
const LEAST_BAD: u64 = 3;

/// Requests of a version since its weight was set.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Seen {
    /// First attempts with an outcome.
    pub requests: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Against the limit `p95`; absent if latency is not known.
    pub p95: Option<Slow>,
    /// Against the limit `p99`.
    pub p99: Option<Slow>,
}

/// Latency of a version against a limit of a quantile.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Slow {
    /// Requests with a latency.
    pub requests: u64,
    /// Those of them that took longer than the limit.
    pub slower: u64,
    /// The quantile itself, for the reason.
    pub quantile: Duration,
}

/// One limit with its counts.
struct Limit {
    label: &'static str,
    /// Share of requests that may be bad, 0 to 1.
    share: f64,
    requests: u64,
    bad: u64,
    shown: String,
}

/// The gate `slo`: pass if the version is certainly within all limits, fail if it is certainly beyond one.
pub fn slo(slo: &Slo, seen: &Seen) -> GateReply {
    let mut limits = Vec::new();
    if let Some(errors) = slo.errors {
        let rate = 100.0 * seen.failed as f64 / seen.requests.max(1) as f64;
        limits.push(Limit {
            label: "errors",
            share: errors.0,
            requests: seen.requests,
            bad: seen.failed,
            shown: format!(
                "{rate:.2} % of {} requests fail, limit {}",
                seen.requests,
                Percent(errors.0)
            ),
        });
    }
    for (label, limit, slow, share) in
        [("p95", slo.p95, seen.p95, 0.05), ("p99", slo.p99, seen.p99, 0.01)]
    {
        if let Some(limit) = limit {
            let Slow { requests, slower, quantile } = slow.unwrap_or_default();
            let (quantile, limit) = (ms(quantile), ms(limit));
            let shown = match requests {
                0 => format!("{label} is not known: no requests yet, limit {limit}"),
                _ => format!(
                    "{label} is {quantile}, limit {limit}; {slower} of {requests} requests took longer than that"
                ),
            };
            limits.push(Limit { label, share, requests, bad: slower, shown });
        }
    }
    if limits.is_empty() {
        return Reply::Undecided.because("the service has no limits");
    }
    if let Some(beyond) = limits.iter().find(|limit| limit.is_beyond()) {
        return Reply::Fail.because(format!("beyond the limit of {}: {beyond}", beyond.label));
    }
    let open: Vec<String> =
        limits.iter().filter(|limit| !limit.is_within()).map(Limit::to_string).collect();
    match &*open {
        [] => {
            let all: Vec<String> = limits.iter().map(Limit::to_string).collect();
            Reply::Pass.because(format!("within all limits: {}", all.join(", ")))
        }
        open => Reply::Undecided.because(format!("not certain: {}", open.join(", "))),
    }
}

impl Limit {
    fn share(&self) -> f64 {
        self.share.clamp(LEAST, MOST)
    }

    fn is_beyond(&self) -> bool {
        if self.bad < LEAST_BAD {
            return false;
        }
        let share = self.share();
        let bets = LARGER.map(|factor| (factor * share).min(MOST.max(share)));
        log_wealth(share, &bets, self.bad, self.requests) >= -ALPHA.ln()
    }

    fn is_within(&self) -> bool {
        is_within(self.share(), self.bad, self.requests)
    }
}

/// A share as a percentage, without zeros at its end.
struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded, since 0.003 * 100 is not 0.3.
        write!(f, "{} %", (self.0 * 1e8).round() / 1e6)
    }
}

/// A time in milliseconds, to the tenth.
fn ms(time: Duration) -> String {
    format!("{} ms", (time.as_secs_f64() * 1e4).round() / 10.0)
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::config::units::Share;

    fn errors(share: f64) -> Slo {
        Slo { errors: Some(Share(share)), ..Slo::default() }
    }

    fn seen(requests: u64, failed: u64) -> Seen {
        Seen { requests, failed, ..Seen::default() }
    }

    #[test]
    fn what_is_certain_is_said_with_its_numbers() {
        let of = |requests, failed| slo(&errors(0.003), &seen(requests, failed));
        assert_eq!(of(0, 0).reply, Reply::Undecided);
        assert_eq!(of(1_000, 0).reply, Reply::Undecided);
        // ln(4 * 20) / 0.003
        assert_eq!(
            of(1_500, 0),
            Reply::Pass.because("within all limits: 0.00 % of 1500 requests fail, limit 0.3 %")
        );
        assert_eq!(of(20_000, 60).reply, Reply::Undecided, "at the limit nothing is certain");
        assert_eq!(of(2, 2).reply, Reply::Undecided, "one player may have failed twice");
        let fail = of(1_000, 30);
        assert_eq!(
            fail,
            Reply::Fail
                .because("beyond the limit of errors: 3.00 % of 1000 requests fail, limit 0.3 %")
        );
        assert_eq!(slo(&Slo::default(), &seen(9_000, 0)).reply, Reply::Undecided);
        assert_eq!(slo(&errors(0.0), &seen(100, 3)).reply, Reply::Fail);
        assert_eq!(slo(&errors(1.0), &seen(100, 100)).reply, Reply::Undecided);
    }

    #[test]
    fn quantiles_are_shares_of_slow_requests() {
        let limits = Slo { p95: Some(Duration::from_millis(250)), ..Slo::default() };
        let of = |slower, quantile| {
            let quantile = Duration::from_millis(quantile);
            let slow = Slow { requests: 2_000, slower, quantile };
            slo(&limits, &Seen { p95: Some(slow), ..Seen::default() })
        };
        assert_eq!(
            of(50, 180),
            Reply::Pass.because(
                "within all limits: p95 is 180 ms, limit 250 ms; 50 of 2000 requests took longer than that"
            )
        );
        assert_eq!(of(100, 250).reply, Reply::Undecided);
        assert_eq!(of(200, 400).reply, Reply::Fail);
        let unknown = slo(&limits, &seen(9_000, 0));
        assert_eq!(
            unknown,
            Reply::Undecided
                .because("not certain: p95 is not known: no requests yet, limit 250 ms")
        );
        let both = Slo { errors: Some(Share(0.003)), ..limits };
        let slow = Slow { requests: 2_000, slower: 50, quantile: Duration::from_millis(180) };
        let all = Seen { p95: Some(slow), ..seen(9_000, 9_000) };
        assert_eq!(slo(&both, &all).reply, Reply::Fail, "one limit suffices");
        let some = Seen { p95: Some(slow), ..seen(100, 0) };
        assert!(slo(&both, &some).why.starts_with("not certain: 0.00 % of 100 requests"));
    }

    #[test]
    fn the_least_requests_that_pass_are_those_that_the_check_of_a_file_takes() {
        for share in [0.0001, 0.003, 0.01, 0.05] {
            let passes =
                |requests: u64| slo(&errors(share), &seen(requests, 0)).reply == Reply::Pass;
            let least = crate::config::least_requests(share);
            let (less, more) = ((0.97 * least) as u64, (1.03 * least).ceil() as u64);
            assert!(!passes(less) && passes(more), "{share}: {least}");
        }
    }

    /// Runs of 20,000 requests at `rate`, looked at after each hundred, that ever answer `reply`.
    fn ever(rate: f64, reply: Reply, runs: u64) -> u64 {
        let mut rng = Rng::with_seed(7);
        let limits = errors(0.01);
        let run = |rng: &mut Rng| {
            let mut failed = 0;
            (1..=200).any(|hundreds| {
                failed += (0..100).filter(|_| rng.f64() < rate).count() as u64;
                slo(&limits, &seen(100 * hundreds, failed)).reply == reply
            })
        };
        (0..runs).filter(|_| run(&mut rng)).count() as u64
    }

    #[test]
    fn errors_are_as_rare_as_is_promised_however_often_one_looks() {
        // At the very limit: 0.4 and 20 expected at most, and three standard deviations.
        assert!(ever(0.01, Reply::Fail, 400) <= 3);
        assert!(ever(0.01, Reply::Pass, 400) <= 34);
        assert_eq!(ever(0.003, Reply::Pass, 100), 100);
        assert_eq!(ever(0.03, Reply::Fail, 100), 100);
    }
}
