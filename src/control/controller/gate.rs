//! Whether a version may grow: the question that pipelines and other controllers ask.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Controller, Rejected, split::list};
use crate::{
    analysis::{Answer, GateAnswer},
    rollout::{Outcome, Phase, share},
};

/// The answer of a gate on a version, with its numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct GateReport {
    /// The answer: *fail* if the version is ejected, worse than is tolerated, or was rolled back by its last rollout;
    /// *undecided* if it is not compared.
    pub answer: Answer,
    /// Whether the version is ejected, by a verdict or by an operator.
    pub ejected: bool,
    /// Why, as a sentence.
    pub reason: String,
    /// Since when the answer has been the same; `None` if the version is neither compared nor ejected.
    pub since: Option<SystemTime>,
    /// The numbers of the running comparison; `None` if there is none.
    pub comparison: Option<GateAnswer>,
}

impl Controller {
    /// Whether `version` of `service` is worse than its baseline, certainly healthy, or neither yet.
    ///
    /// # Errors
    ///
    /// If there is no such service or version.
    pub fn gate(&self, service: &str, version: &str) -> Result<GateReport, Rejected> {
        let known = self.known_service(service)?;
        if !known.versions.contains_key(version) {
            let known = list(known.versions.keys());
            let (service, version) = (service.to_owned(), version.to_owned());
            return Err(Rejected::NoVersion { service, version, known });
        }
        let comparison = self.evaluator.answer(service, version, self.judging_time());
        if let Some(ejection) = self.state.ejection(service, version) {
            return Ok(GateReport {
                answer: Answer::Fail,
                ejected: true,
                reason: format!("ejected {ejection}"),
                since: Some(ejection.since),
                comparison,
            });
        }
        if let Some((reason, since)) = self.was_rolled_back(service, version) {
            let (answer, since) = (Answer::Fail, Some(since));
            return Ok(GateReport { answer, ejected: false, reason, since, comparison });
        }
        let Some(found) = comparison else {
            return Ok(GateReport {
                answer: Answer::Undecided,
                ejected: false,
                reason: self.why_not_compared(service, version, &known.baseline),
                since: None,
                comparison,
            });
        };
        Ok(GateReport {
            answer: found.answer,
            ejected: false,
            reason: self.reason_of(service, version, &found),
            since: Some(self.when_judged(found.since)),
            comparison,
        })
    }

    /// Why and since when the last rollout of `service` took its players away from `version`; `None` if it did not, or
    /// the version has been given more players since than it had before that rollout.
    fn was_rolled_back(&self, service: &str, version: &str) -> Option<(String, SystemTime)> {
        let rollout = &self.rollout(service)?.rollout;
        let is_back = match rollout.phase {
            Phase::RolledBack => true,
            Phase::RollingBack => rollout.heading == Outcome::RolledBack,
            _ => false,
        };
        if !is_back || rollout.to != version {
            return None;
        }
        let shares = self.shares_with(service, &self.state, None);
        let has = shares.get(version).copied().unwrap_or_default();
        let is_later = rollout.phase.is_end() && has > share(&rollout.before, version) + 1e-9;
        let since = UNIX_EPOCH + Duration::from_millis(rollout.since_unix_ms);
        (!is_later).then(|| (format!("its rollout was rolled back: {}", rollout.cause), since))
    }

    /// The sentence of a running comparison.
    fn reason_of(&self, service: &str, version: &str, found: &GateAnswer) -> String {
        let sentence = || {
            let verdicts = self.verdicts(service).into_iter().filter(|(of, ..)| of == version);
            let part = |evidence: Option<f64>| evidence.unwrap_or(f64::NEG_INFINITY);
            let decisive = verdicts.max_by(|(_, _, a), (_, _, b)| {
                let (a_fails, b_fails) = (a.answer == Answer::Fail, b.answer == Answer::Fail);
                let evidence = part(a.log_evidence).total_cmp(&part(b.log_evidence));
                a_fails.cmp(&b_fails).then(evidence)
            });
            decisive.map(|(_, _, verdict)| verdict.reason).unwrap_or_default()
        };
        match (found.answer, found.health) {
            (Answer::Healthy, Some(health)) => format!("healthy: {health}"),
            (Answer::Undecided, Some(health)) if health.is_certain() => match found.warming {
                Some(warming) => format!("{}; {warming}", sentence()),
                // Evidence against it grows.
                None => sentence(),
            },
            (Answer::Undecided, Some(health)) => {
                let (has, needs) = (health.log_evidence.unwrap_or(0.0), health.log_threshold);
                format!("{}; evidence that it is healthy: {has:.1} of {needs:.1} nats", sentence())
            }
            (Answer::Undecided, None) => {
                format!("{}; errors are not compared, so it is never called healthy", sentence())
            }
            _ => sentence(),
        }
    }

    /// Why `version`, which is not ejected, is not compared.
    fn why_not_compared(&self, service: &str, version: &str, baseline: &str) -> String {
        let snapshot = self.snapshot();
        let Some(in_force) = snapshot.service(service) else {
            return "the service is not in force yet".to_owned();
        };
        if in_force.compared.is_none() {
            return format!("versions of `{service}` are not compared: it has no `eject`");
        }
        if version == baseline {
            return format!("`{version}` is the baseline, with which canaries are compared");
        }
        match self.shares_with(service, &self.state, None).get(version) {
            Some(share) if *share > 0.0 => {
                format!("`{version}` is not compared yet, or no baseline serves beside it")
            }
            _ => format!("`{version}` has no players: its share is 0"),
        }
    }
}
