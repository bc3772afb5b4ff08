//! `tidegate record` and `tidegate judge`: prints the record of a comparison, and judges it again.

use std::{fs, io, io::Read, path::PathBuf, time::Duration};

use serde::de::DeserializeOwned;

use super::{
    client::{Call, ClientArguments, service_name},
    failure::{Exit, Failure},
    printable::printable,
    say::{say, say_as_is, say_json},
};
use crate::{
    analysis::{Answer, Limits, Record, Title, Tolerance, Verdict},
    config::{problem::escaped, schema::Probability, units::Share},
};

/// Arguments of `tidegate record`.
#[derive(Debug, clap::Args)]
pub(super) struct RecordArguments {
    /// The service.
    #[arg(value_parser = service_name)]
    service: String,
    /// A version that is compared or was ejected.
    #[arg(value_parser = service_name)]
    version: String,
    /// The name of a route with limits of its own. Default: all other routes together.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    #[command(flatten)]
    client: ClientArguments,
}

/// Prints the record of a comparison.
pub(super) fn record(arguments: &RecordArguments) -> Result<(), Failure> {
    let RecordArguments { service, version, route, client } = arguments;
    let mut target = format!("/v1/services/{service}/record?version={version}");
    if let Some(route) = route {
        target.push_str("&route=");
        // Percent-encoded, as in the query of a URL.
        for byte in route.bytes() {
            match byte {
                b if b.is_ascii_alphanumeric() || b"-._~/".contains(&b) => target.push(b.into()),
                b => target.push_str(&format!("%{b:02X}")),
            }
        }
    }
    say_as_is(client.text(Call::get(target))?.trim_end());
    Ok(())
}

/// Arguments of `tidegate judge`.
#[derive(Debug, clap::Args)]
pub(super) struct JudgeArguments {
    /// The record, as `tidegate record` printed it; `-` is standard input.
    file: PathBuf,
    /// Another probability of ejecting a canary that is within all tolerances, such as 0.001 or 0.1%.
    #[arg(long, value_name = "SHARE", value_parser = value::<Probability>)]
    alpha: Option<Probability>,
    /// Another tolerated excess of the error rate, as a fraction of the baseline's rate. As much is
    /// tolerated of unserved requests, unless `--unserved-relative` is given.
    #[arg(long, value_name = "SHARE", value_parser = value::<Share>)]
    errors_relative: Option<Share>,
    /// Another tolerated excess of the error rate, as a fraction of all requests. As much is
    /// tolerated of unserved requests, unless `--unserved-absolute` is given.
    #[arg(long, value_name = "SHARE", value_parser = value::<Share>)]
    errors_absolute: Option<Share>,
    /// Another tolerated excess of the rate of unserved requests, as a fraction of the baseline's
    /// rate.
    #[arg(long, value_name = "SHARE", value_parser = value::<Share>)]
    unserved_relative: Option<Share>,
    /// Another tolerated excess of the rate of unserved requests, as a fraction of all requests.
    #[arg(long, value_name = "SHARE", value_parser = value::<Share>)]
    unserved_absolute: Option<Share>,
    /// Another tolerated excess of the 95th percentile of latency.
    #[arg(long, value_name = "SHARE", value_parser = value::<Share>)]
    p95: Option<Share>,
    /// Another tolerated excess of the 99th percentile of latency.
    #[arg(long, value_name = "SHARE", value_parser = value::<Share>)]
    p99: Option<Share>,
    /// Another absolute tolerance for latency, in addition to these, such as 5ms.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    latency_absolute: Option<Duration>,
    /// Another minimum number of failures before a canary is ejected for errors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    minimum_failures: Option<u32>,
    /// Print the verdict as JSON.
    #[arg(long)]
    json: bool,
}

/// Judges a record again.
pub(super) fn judge(arguments: &JudgeArguments) -> Result<(), Failure> {
    let shown = arguments.file.display();
    let bad_file = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::File, format!("{shown}: {}", escaped(&why.to_string())))
    };
    let text = if arguments.file.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(&arguments.file)
    };
    let text = text.map_err(|error| bad_file(&error))?;
    let (title, record) = Record::read(&text).map_err(|error| bad_file(&error))?;
    if record.is_alone() && arguments.asks_for_a_comparison() {
        let why = "nothing was beside the version, so it was judged by absolute limits; of the options \
                   only --alpha and --minimum-failures apply";
        return Err(Failure::new(Exit::Arguments, format!("{shown}: {why}")));
    }
    let limits = arguments.limits(&record.limits());
    let (verdict, remark) = match &limits {
        None => {
            let verdict = record.judge(title.at);
            if verdict != title.verdict {
                let why = format!(
                    "judged again it is another verdict, so the record is not whole, or of another \
                     release:\n{}\nrecorded: {}",
                    escaped(&verdict.reason),
                    escaped(&title.verdict.reason)
                );
                return Err(Failure::new(Exit::Refused, format!("{shown}: {why}")));
            }
            (verdict, "the verdict that was recorded")
        }
        Some(limits) if record.is_whole() => {
            (record.judge_by(limits.clone(), title.at), "by other limits, from the beginning")
        }
        Some(limits) => {
            let verdict = record.judge_by(limits.clone(), title.at);
            (verdict, "by other limits, from the first kept block; earlier blocks were dropped")
        }
    };
    if arguments.json {
        say_json(&verdict)?;
    } else {
        let (title, verdict) = (printable(&title)?, printable(&verdict)?);
        say(&report(&title, record.len(), &verdict, remark));
    }
    Ok(())
}

fn report(title: &Title, entries: usize, verdict: &Verdict, remark: &str) -> String {
    let Title { service, version, baseline, route, .. } = title;
    let route = route.as_ref().map_or(String::new(), |route| format!(" on {route}"));
    let most = match (verdict.answer, verdict.findings.first(), verdict.log_evidence) {
        (Answer::Fail, ..) | (_, None, _) | (_, _, None) => String::new(),
        (_, Some(finding), Some(evidence)) => {
            let needed = verdict.log_threshold;
            // The reason of an undecided verdict contains the finding already.
            let text = match verdict.reason.contains(&finding.to_string()) {
                true => String::new(),
                false => format!("\nmost evidence against it: {finding}"),
            };
            format!("{text}; {evidence:.1} of {needed:.1} nats")
        }
    };
    format!(
        "{service}: {version} against {baseline}{route}, {entries} blocks and changes\n{remark}:\n{}{most}",
        verdict.reason
    )
}

/// Parses a value as in the configuration.
fn value<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

impl JudgeArguments {
    fn asks_for_a_comparison(&self) -> bool {
        let errors = [self.errors_relative, self.errors_absolute];
        let unserved = [self.unserved_relative, self.unserved_absolute];
        let shares = errors.into_iter().chain(unserved).chain([self.p95, self.p99]);
        shares.into_iter().any(|share| share.is_some()) || self.latency_absolute.is_some()
    }

    /// The requested limits, with the `recorded` ones as defaults; `None` if they are the same.
    fn limits(&self, recorded: &Limits) -> Option<Limits> {
        let mut limits = recorded.clone();
        let other = |known: Option<Tolerance>, relative: Option<Share>, absolute: Option<Share>| {
            if relative.is_none() && absolute.is_none() {
                return known;
            }
            let known = known.unwrap_or(Tolerance::NONE);
            let ratio = relative.map_or(known.ratio(), |share| 1.0 + share.0);
            Tolerance::new(ratio, absolute.map_or(known.excess(), |share| share.0))
        };
        limits.errors = other(recorded.errors, self.errors_relative, self.errors_absolute);
        // A request that fails is not served: other errors are tolerated only if `unserved` tolerates them.
        let raised = |written: Option<Share>, least: Option<Share>, known: Option<f64>| {
            let least = least.filter(|least| known.is_some_and(|known| known < least.0));
            written.or(least)
        };
        let known = recorded.unserved;
        let relative = known.map(|known| known.ratio() - 1.0);
        let relative = raised(self.unserved_relative, self.errors_relative, relative);
        let absolute = known.map(Tolerance::excess);
        let absolute = raised(self.unserved_absolute, self.errors_absolute, absolute);
        limits.unserved = other(known, relative, absolute);
        limits.alpha = self.alpha.map_or(limits.alpha, |alpha| alpha.0);
        limits.p95 = self.p95.map(|share| share.0).or(limits.p95);
        limits.p99 = self.p99.map(|share| share.0).or(limits.p99);
        limits.latency_absolute = self.latency_absolute.unwrap_or(limits.latency_absolute);
        limits.least_failures = self.minimum_failures.map_or(limits.least_failures, u64::from);
        (limits != *recorded).then_some(limits)
    }
}
