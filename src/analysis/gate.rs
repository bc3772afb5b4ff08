//! Is a canary worse, certainly healthy, or neither yet? The current answer, at any time.
//!
//! That a comparison has found nothing does not prove that nothing is there, so *healthy* needs evidence of
//! its own: the [certificate](super::certificate). The hypothesis is that the canary fails at least twice as often
//! as is allowed, `p_c >= 2 * (r * p_b + tau)` with the tolerance `r` and `tau` of the configuration. Twice,
//! since a canary as good as the baseline would need hundreds of thousands of requests to show that it is
//! within the tolerance itself. Requests of its own that a canary as good as the baseline needs, at a weight of
//! 10 %, in the mean (`gate/tests.rs`):
//!
//! | `tau` | 0.3 % fail | none fail |
//! | --- | --- | --- |
//! | 0.01 %, the default | 3,700 | 27,000 |
//! | 0.3 % | 830 | 920 |
//!
//! The answer is *healthy* while
//!
//! 1. that hypothesis is rejected, with an error of at most 5 % over any number of looks, by what was counted
//!    since the last change of the weights: what was certain at a smaller share is tested anew;
//! 2. the evidence of all metrics against the canary is below 3 nats, which a canary within its limits exceeds
//!    once in twenty comparisons at most. So a canary that is slower, or pays more, is not healthy although
//!    none of its requests fails, and a canary that becomes worse is undecided before it is ejected;
//! 3. the canary has warmed up, if latency or amounts are compared: until then they are not.
//!
//! Where errors are not compared, there is no tolerance to test, and no canary is ever healthy. *Healthy* does
//! not prove anything about latency and amounts, only that there is no evidence against them.

use std::time::Duration;

use super::{
    certificate::Certificate,
    comparison::Comparison,
    counts::Arms,
    limits::Limits,
    record::Entry,
    verdict::{Answer, DOUBTED, HealthFinding, known},
};

/// The answer of a comparison, and the numbers that it rests on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateAnswer {
    /// What the comparison has come to. *Healthy* may become *undecided* or *fail* later; *fail* stays.
    pub answer: Answer,
    /// Evidence of all metrics together against the canary, in nats; absent before the first block.
    pub log_evidence: Option<f64>,
    /// Evidence that fails it, in nats.
    pub log_threshold: f64,
    /// Evidence that it is healthy; absent where errors are not compared.
    pub health: Option<HealthFinding>,
    /// Requests that were compared since the comparison began: first attempts with an outcome.
    pub requests: Arms<u64>,
    /// Since when the answer stands, in the comparison's time: of *undecided*, since the comparison began or
    /// the canary was healthy last.
    pub since: Duration,
}

/// Evidence for a canary, beside the comparison, which collects evidence against it.
#[derive(Debug, Clone)]
pub struct Gate {
    certificate: Option<Certificate>,
    phi: f64,
    requests: Arms<u64>,
}

impl Gate {
    /// A gate that tests for the health that `limits` demand, for failures that come in clusters of `phi`.
    pub fn new(limits: &Limits, phi: f64) -> Self {
        let certificate = limits.health.map(|health| Certificate::new(health, phi));
        Self { certificate, phi, requests: Arms::default() }
    }

    /// Takes in what the comparison is told.
    pub fn told(&mut self, entry: &Entry) {
        match entry {
            Entry::Errors { at, block, route: None } => {
                self.requests.canary += block.requests.canary.trials();
                self.requests.baseline += block.requests.baseline.trials();
                // What is certain stays so until the weights change.
                let open = self.certificate.as_mut().filter(|test| test.reached_at().is_none());
                open.into_iter().for_each(|test| test.observe(block.players, *at));
            }
            Entry::WeightStep { .. } => {
                let health = self.certificate.as_ref().map(Certificate::health);
                self.certificate = health.map(|health| Certificate::new(health, self.phi));
            }
            Entry::Dispersion(phi) => {
                self.phi = *phi;
                self.certificate.iter_mut().for_each(|test| test.set_dispersion(*phi));
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

    /// The answer `now`, of what `comparison` and this gate were told.
    pub fn answer(&self, comparison: &Comparison, now: Duration) -> Answer {
        let is_certain = self.certificate.as_ref().is_some_and(|test| test.reached_at().is_some());
        if comparison.answer() == Answer::Fail {
            Answer::Fail
        } else if is_certain && comparison.log_evidence() < DOUBTED && comparison.judges_all(now) {
            Answer::Healthy
        } else {
            Answer::Undecided
        }
    }

    /// Evidence for health; nothing where errors are not compared.
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
