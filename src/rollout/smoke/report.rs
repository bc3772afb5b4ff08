//! What a smoke check has shown: for the gate, the API and the command line.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    super::gate::{GateReply, Reply},
    Failure,
};

/// The result of a smoke check. It contains no kept value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SmokeReport {
    /// The service.
    pub service: String,
    /// The version that was checked.
    pub version: String,
    /// The smoke check.
    pub check: String,
    /// Whether every step was answered as expected.
    pub passed: bool,
    /// Number of the step that failed, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_step: Option<usize>,
    /// Why the check failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Time of the whole check, in milliseconds.
    pub took_ms: f64,
    /// All steps, in order. Those after one that failed were not sent.
    pub steps: Vec<SmokeStepReport>,
}

/// A step of a [`SmokeReport`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SmokeStepReport {
    /// The request as it is written, with the names of kept values.
    pub request: String,
    /// Whether it was answered as expected; absent if it was not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<bool>,
    /// Status of the answer; absent if there was none from the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Time to the last byte of the answer, or to the failure, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<f64>,
}

impl SmokeReport {
    /// The report of a check of `version` of `service` that has not begun; `requests` are those of its steps.
    pub fn new<'a>(
        (service, version, check): (&str, &str, &str),
        requests: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let steps = requests.into_iter().map(|request| SmokeStepReport {
            request: request.to_owned(),
            passed: None,
            status: None,
            took_ms: None,
        });
        Self {
            service: service.to_owned(),
            version: version.to_owned(),
            check: check.to_owned(),
            passed: false,
            failed_step: None,
            reason: None,
            took_ms: 0.0,
            steps: steps.collect(),
        }
    }

    /// Notes how step `at`, counted from 0, ended: after `took`, with the `status` of its answer.
    pub fn note(
        &mut self,
        at: usize,
        status: Option<u16>,
        took: Duration,
        outcome: &Result<(), Failure>,
    ) {
        if let Some(step) = self.steps.get_mut(at) {
            (step.passed, step.status) = (Some(outcome.is_ok()), status);
            step.took_ms = Some(milliseconds(took));
        }
        if let Err(Failure(why)) = outcome {
            (self.failed_step, self.reason) = (Some(at + 1), Some(why.clone()));
        }
    }

    /// The check ended after `took`.
    pub fn end(mut self, took: Duration) -> Self {
        self.passed = self.reason.is_none() && self.steps.iter().all(|s| s.passed == Some(true));
        self.took_ms = milliseconds(took);
        self
    }

    /// The check could not be run.
    pub fn refused(mut self, why: impl Into<String>) -> Self {
        self.reason = Some(why.into());
        self
    }

    /// The reply of the gate that asked for the check.
    pub fn reply(&self) -> GateReply {
        match (self.passed, self.summary()) {
            (true, _) => Reply::Pass.because(format!("all {} steps passed", self.steps.len())),
            (false, why) => Reply::Fail.because(why.unwrap_or_else(|| "it did not run".to_owned())),
        }
    }

    /// The reason in one line, with the step: for the gate, the event and the log; `None` if it passed.
    pub fn summary(&self) -> Option<String> {
        let why = self.reason.as_ref()?;
        let request =
            self.failed_step.and_then(|number| Some((number, self.steps.get(number - 1)?)));
        Some(match request {
            Some((number, step)) => format!("step {number} ({}): {why}", step.request),
            None => why.clone(),
        })
    }
}

/// In microseconds' precision.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}
