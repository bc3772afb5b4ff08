//! Is a canary worse, certainly healthy, or neither yet? The current answer, at any time.
//!
//! A comparison without a finding does not prove that the canary is good, so *healthy* needs evidence of its
//! own: the [certificate](super::certificate). Its hypothesis is that the canary fails at least twice as often
//! as allowed, `p_c >= 2 * (r * p_b + tau)` with the tolerance `r` and `tau` of the configuration. The factor
//! of two is needed because a canary as good as the baseline would need hundreds of thousands of requests to
//! show that it is within the tolerance itself. Mean number of its own requests that a canary as good as the
//! baseline needs, at a weight of 10 % (`gate/tests.rs`):
//!
//! | `tau` | 0.3 % fail | none fail |
//! | --- | --- | --- |
//! | 0.01 %, the default | 3,700 | 27,000 |
//! | 0.3 % | 830 | 920 |
//!
//! The answer is *healthy* while
//!
//! 1. that hypothesis is rejected, with an error of at most 5 % however often it is evaluated, by the counts
//!    since the last change of the weights: a result at a smaller share is tested again;
//! 2. the evidence of all metrics against the canary is below 3 nats, which a canary within its limits exceeds
//!    in at most one of twenty comparisons. So a canary that is slower, or pays more, is not healthy even if none
//!    of its requests fails, and a canary that becomes worse is undecided before it is ejected;
//! 3. no later requests contradict it: see below;
//! 4. the canary has warmed up, if latency or amounts are compared: until then they are not; and its latency was
//!    compared for some hundred requests after that, since errors may be certain before any was.
//!
//! The certificate is final, and the evidence of (2) pays for a fault that begins late: 10 nats after a thousand
//! blocks with failures (`wealth.rs`), so that 13 nats would have to be found before a canary that was good for
//! hours is doubted. Therefore a second test begins when the certificate is reached: an e-detector of the
//! hypothesis that the canary is within what is allowed, which pays nothing for a late beginning. It is falsely
//! alarmed at most once in [`DOUBT_STAKES`] blocks with failures, in the mean. At an alarm the certificate is
//! given back, and another one has to be reached by what comes then.
//!
//! Measured (`gate/tests.rs`): a canary that is as good as the baseline for 40,000 of its requests and then fails
//! twice as often as is allowed is healthy for 3,900 requests more, and by (2) alone for 10,700.
//!
//! This keeps the bound of (1): a canary beyond the hypothesis gets another certificate only after it has got a
//! first one, so the probability that it is ever called healthy is still at most 5 %. And a canary that was
//! healthy and has become that bad gets another one with a probability of at most 5 % after each alarm.
//!
//! Where errors are not compared, there is no tolerance to test, and no canary is ever healthy. *Healthy*
//! proves nothing about latency and amounts, only that there is no evidence against them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    certificate::Certificate,
    comparison::Comparison,
    counts::{Arms, Tally},
    engine::Engine,
    limits::Limits,
    record::Entry,
    verdict::{Answer, DOUBTED, HealthFinding, known},
    warming::Warming,
};

/// The answer of a comparison, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateAnswer {
    /// The result. *Healthy* may become *undecided* or *fail* later; *fail* stays.
    pub answer: Answer,
    /// Evidence of all metrics together against the canary, in nats; absent before the first block.
    pub log_evidence: Option<f64>,
    /// The threshold of that evidence, in nats.
    pub log_threshold: f64,
    /// Evidence that the canary is healthy; absent where errors are not compared.
    pub health: Option<HealthFinding>,
    /// What is left of the warm-up and of the comparison of latencies, without which it is not *healthy*; `None` if
    /// that is over, or nothing has to warm up.
    pub warming: Option<Warming>,
    /// Requests that were compared since the comparison began: first attempts with an outcome.
    pub requests: Arms<u64>,
    /// Since when the answer has been the same, in the comparison's time; for *undecided*, since the comparison
    /// began or the canary was last healthy.
    pub since: Duration,
}

/// The mean number of blocks with failures until a certificate is given back although the canary is within what
/// is allowed, at least.
const DOUBT_STAKES: f64 = 1_000.0;

/// Evidence for a canary; the comparison collects the evidence against it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Gate {
    certificate: Option<Certificate>,
    /// Evidence against a certificate that was reached.
    doubt: Option<Engine>,
    phi: f64,
    requests: Arms<u64>,
}

impl Gate {
    /// A gate that tests for the health that `limits` require; failures come in clusters of size `phi`.
    pub fn new(limits: &Limits, phi: f64) -> Self {
        let certificate = limits.health.map(|health| Certificate::new(health, phi));
        Self { certificate, doubt: None, phi, requests: Arms::default() }
    }

    /// Whether its parts fit each other and `limits`; those that come from another process may not.
    pub fn is_sound(&self, limits: &Limits) -> bool {
        self.certificate.as_ref().map(Certificate::health) == limits.health
            && self.certificate.iter().all(Certificate::is_sound)
            && self.doubt.iter().all(Engine::is_sound)
    }

    /// Adds an input of the comparison.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Errors { at, block, route: None } => {
                self.requests.canary += block.requests.canary.trials();
                self.requests.baseline += block.requests.baseline.trials();
                self.observe(block.players, *at);
            }
            Entry::WeightStep { .. } => {
                let health = self.certificate.as_ref().map(Certificate::health);
                self.certificate = health.map(|health| Certificate::new(health, self.phi));
                self.doubt = None;
            }
            Entry::Dispersion(phi) => {
                self.phi = *phi;
                self.certificate.iter_mut().for_each(|test| test.set_dispersion(*phi));
                self.doubt.iter_mut().for_each(|test| test.set_dispersion(*phi));
            }
            Entry::Demand(limits) => {
                if let (Some(certificate), Some(health)) = (&mut self.certificate, limits.health) {
                    certificate.demand(health.beta());
                }
            }
            Entry::Errors { .. }
            | Entry::Refusals { .. }
            | Entry::Latency { .. }
            | Entry::Amounts { .. }
            | Entry::Alone { .. }
            | Entry::Asked { .. }
            | Entry::CapBursts(_) => {}
        }
    }

    /// Adds a closed block that ended at `at`: to the certificate until it is reached, and then to what may
    /// contradict it.
    fn observe(&mut self, block: Arms<Tally>, at: Duration) {
        let Some(certificate) = &mut self.certificate else { return };
        if certificate.reached_at().is_none() {
            return certificate.observe(block, at);
        }
        let doubt = self.doubt.get_or_insert_with(|| certificate.doubt(DOUBT_STAKES, self.phi));
        doubt.observe(block, at);
        if doubt.rejected_at().is_some() {
            *certificate = Certificate::new(certificate.health(), self.phi);
            self.doubt = None;
        }
    }

    /// The answer at `now`, from the entries of `comparison` and of this gate.
    pub fn answer(&self, comparison: &Comparison, now: Duration) -> Answer {
        let is_certain = self.certificate.as_ref().is_some_and(|test| test.reached_at().is_some());
        if comparison.answer() == Answer::Fail {
            Answer::Fail
        } else if is_certain
            && comparison.log_evidence() < DOUBTED
            && comparison.warming(now).is_none()
        {
            Answer::Healthy
        } else {
            Answer::Undecided
        }
    }

    /// Evidence for health; `None` where errors are not compared.
    pub fn health(&self) -> Option<HealthFinding> {
        self.certificate.as_ref().map(|certificate| {
            let (log_evidence, log_threshold) = certificate.log_evidence();
            let health = certificate.health();
            let (ratio, excess) = (health.ratio(), health.excess());
            HealthFinding { ratio, excess, log_evidence: known(log_evidence), log_threshold }
        })
    }

    /// Requests that were compared.
    pub fn requests(&self) -> Arms<u64> {
        self.requests
    }
}

#[cfg(test)]
mod tests;
