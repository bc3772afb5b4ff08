//! The verdict as a table of its findings.

use super::html::{Cell, Html};
use crate::{
    analysis::{Answer, Counts, Finding, Mean, Numbers, Rate, Verdict},
    incident::text::{count, number, percent, seconds},
};

/// The section of a verdict; `said` is what the page has said already.
pub(super) fn section(html: &mut Html, verdict: &Verdict, said: &str) {
    let heading = match verdict.answer {
        Answer::Fail => "Verdict",
        Answer::Healthy | Answer::Undecided => "Comparison at that moment",
    };
    html.section(heading, |html| {
        if verdict.reason != said {
            html.paragraph(&verdict.reason);
        }
        let evidence = match verdict.log_evidence {
            Some(evidence) => format!(
                "{} nats of evidence against it, where {} decide",
                number(evidence),
                number(verdict.log_threshold)
            ),
            None => "no evidence yet".to_owned(),
        };
        let answer = match verdict.answer {
            Answer::Fail => "fail",
            Answer::Healthy => "healthy",
            Answer::Undecided => "undecided",
        };
        let held = verdict.held.map(|held| ("held back", held.to_string()));
        let alone = verdict.alone.then(|| ("baseline", "none: it was judged alone".to_owned()));
        let facts = [
            ("answer", answer.to_owned()),
            ("evidence", evidence),
            ("compared for", seconds(verdict.compared_s)),
        ];
        let is_slow = |finding: &Finding| match &finding.numbers {
            Numbers::Latency { .. } => true,
            Numbers::Bound { slow_ms, .. } => slow_ms.is_some(),
            _ => false,
        };
        let warm = verdict.warm_up_s.filter(|_| verdict.findings.iter().any(is_slow));
        let warm = warm
            .map(|time| ("slow requests", format!("counted after a warm-up of {}", seconds(time))));
        let facts: Vec<_> = facts.into_iter().chain(held).chain(alone).chain(warm).collect();
        html.facts(&facts);
        let heads = [
            ("", "gate"),
            ("n", "version"),
            ("n", "baseline"),
            ("n", "ratio (95 % interval)"),
            ("", "allowed"),
            ("n", "evidence, nats"),
        ];
        let rows = verdict.findings.iter().map(|finding| ("", row(finding)));
        html.table("Findings, the strongest first; counts are since the onset", &heads, rows);
    });
}

fn row(finding: &Finding) -> Vec<Cell> {
    let [version, baseline, ratio, allowed] = cells(&finding.numbers);
    let evidence = finding.log_evidence.map_or("–".to_owned(), number);
    vec![
        ("", finding.gate()),
        ("n", version),
        ("n", baseline),
        ("n", ratio),
        ("", allowed),
        ("n", evidence),
    ]
}

/// The version, the baseline, their ratio, and what is allowed.
fn cells(numbers: &Numbers) -> [String; 4] {
    let none = || "–".to_owned();
    match numbers {
        Numbers::Errors { counts, tolerated_ratio, tolerated_excess } => {
            let [version, baseline] = arms(counts);
            let more = match *tolerated_excess {
                0.0 => String::new(),
                excess => format!(" and {} more", percent(Some(excess))),
            };
            let allowed = format!("{} × the baseline's rate{more}", number(*tolerated_ratio));
            [version, baseline, ratio(counts), allowed]
        }
        Numbers::Latency { counts, canary_slow_ms, tolerated_factor, tolerated_ms, .. } => {
            let [version, baseline] = arms(counts);
            let more = match *tolerated_ms {
                0.0 => String::new(),
                more => format!(" and {} ms more", number(more)),
            };
            let slow = canary_slow_ms
                .map_or(String::new(), |ms| format!("; slow is {} ms or longer", number(ms)));
            let allowed =
                format!("{} × the baseline's latency{more}{slow}", number(*tolerated_factor));
            [version, baseline, ratio(counts), allowed]
        }
        Numbers::Bound { counts, since_onset, source, tolerated_share, .. } => {
            let allowed = format!("{} ({})", percent(Some(*tolerated_share)), source.label());
            [rate(counts.or_since(*since_onset)), none(), none(), allowed]
        }
        Numbers::Recovery { canary, baseline } => {
            let allowed = "players who had failed twice, served elsewhere".to_owned();
            [rate(*canary), rate(*baseline), none(), allowed]
        }
        Numbers::Amount { canary, baseline, ratio, tolerated_ratio, .. } => {
            let ratio = ratio.map_or_else(none, number);
            let allowed = format!("a ratio of {}", number(*tolerated_ratio));
            [mean(*canary), mean(*baseline), ratio, allowed]
        }
        Numbers::DerivedAmount { canary, baseline, tolerated_difference, .. } => {
            let allowed = tolerated_difference
                .map_or_else(none, |tolerated| format!("a difference of {}", number(tolerated)));
            [mean(*canary), mean(*baseline), none(), allowed]
        }
    }
}

fn arms(counts: &Counts) -> [String; 2] {
    match counts.canary_requests.requests {
        0 => [counts.canary_since_onset, counts.baseline_since_onset].map(rate),
        _ => [counts.canary_requests, counts.baseline_requests].map(rate),
    }
}

fn ratio(counts: &Counts) -> String {
    let interval = counts
        .ratio_interval
        .map_or(String::new(), |[low, high]| format!(" ({} – {})", number(low), number(high)));
    counts.ratio.map_or("–".to_owned(), |ratio| format!("{}{interval}", number(ratio)))
}

fn rate(rate: Rate) -> String {
    format!("{} of {} ({})", count(rate.failures), count(rate.requests), percent(rate.rate))
}

fn mean(mean: Mean) -> String {
    let value = mean.mean.map_or("–".to_owned(), number);
    format!("{value} in the mean of {}", count(mean.requests))
}
