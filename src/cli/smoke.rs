//! `tidegate smoke`: runs a smoke check against a version.

use std::{process::ExitCode, time::Duration};

use super::{
    client::{Call, ClientArguments, service_name},
    columns::{aligned, table},
    failure::{Exit, Failure},
    printable::printable,
    say::{say, say_json},
};
use crate::{
    admin::model::SmokeQuestion,
    config::schema::MAX_SMOKE_TIME,
    rollout::{SmokeReport, SmokeStepReport},
};

/// Longest wait: a check, and its answer.
const PATIENCE: Duration = MAX_SMOKE_TIME.saturating_add(Duration::from_secs(10));

/// Arguments of `tidegate smoke`.
#[derive(Debug, clap::Args)]
pub(super) struct SmokeArguments {
    /// The service.
    #[arg(value_parser = service_name)]
    service: String,
    /// Its version, which needs no weight.
    version: String,
    /// The smoke check, a name under `smoke` in the file.
    check: String,
    /// Print the response of the admin endpoint as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArguments,
}

/// Runs the check; fails if the version does not pass it.
pub(super) fn run(arguments: &SmokeArguments) -> Result<ExitCode, Failure> {
    let question =
        SmokeQuestion { version: arguments.version.clone(), check: arguments.check.clone() };
    let call = Call::post(format!("/v1/services/{}/smoke", arguments.service), &question)?;
    let report: SmokeReport = arguments.client.call_within(call, PATIENCE)?;
    match arguments.json {
        true => say_json(&report)?,
        false => say(&shown(&printable(&report)?)),
    }
    Ok(if report.passed { ExitCode::SUCCESS } else { Exit::Failed.into() })
}

/// A line per step, and the result.
fn shown(report: &SmokeReport) -> String {
    let mut steps = table();
    steps.set_header(["step", "request", "status", "ms", "result"]);
    for (index, step) in report.steps.iter().enumerate() {
        let SmokeStepReport { request, passed, status, took_ms } = step;
        let dash = || "-".to_owned();
        steps.add_row([
            (index + 1).to_string(),
            request.clone(),
            status.map_or_else(dash, |status| status.to_string()),
            took_ms.map_or_else(dash, |took| format!("{took:.1}")),
            match passed {
                Some(true) => "passed",
                Some(false) => "failed",
                None => "not sent",
            }
            .to_owned(),
        ]);
    }
    let steps = aligned(steps, |column| matches!(column, 0 | 2 | 3));
    let SmokeReport { service, version, check, took_ms, .. } = report;
    let result = match (&report.reason, report.failed_step) {
        (None, _) => format!("passes {check} ({took_ms:.0} ms)"),
        (Some(why), Some(step)) => format!("fails {check} at step {step}: {why}"),
        (Some(why), None) => format!("fails {check}: {why}"),
    };
    format!("{steps}\n{service}: {version} {result}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_line_per_step_and_the_reason() {
        let step = |request: &str, passed, status, took_ms| SmokeStepReport {
            request: request.to_owned(),
            passed,
            status,
            took_ms,
        };
        let mut report = SmokeReport {
            service: "game".to_owned(),
            version: "v2".to_owned(),
            check: "money".to_owned(),
            passed: false,
            failed_step: Some(2),
            reason: Some("expected the status 2xx, got 500".to_owned()),
            took_ms: 16.0,
            steps: vec![
                step("POST /login", Some(true), Some(200), Some(3.25)),
                step("GET /rounds/${round}", Some(false), Some(500), Some(12.0)),
                step("GET /", None, None, None),
            ],
        };
        assert_eq!(
            shown(&report),
            "\
step  request               status    ms  result
   1  POST /login              200   3.2  passed
   2  GET /rounds/${round}     500  12.0  failed
   3  GET /                      -     -  not sent
game: v2 fails money at step 2: expected the status 2xx, got 500"
        );
        (report.reason, report.steps) = (None, report.steps[..1].to_vec());
        assert!(shown(&report).ends_with("\ngame: v2 passes money (16 ms)"));
    }
}
