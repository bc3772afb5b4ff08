//! Requests, failures and latency of each version before the onset, from the onset to the incident, and after it.

use super::html::Html;
use crate::incident::{
    curve::{LatencyPoint, Role, VersionCurve, second_of},
    kind::State,
    model::Incident,
    text::{count, number, offset_s, parsed, percent, ratio},
};

/// A time around the incident: its name, its beginning and its end.
type Span = (&'static str, f64, f64);

/// The times that are told apart.
fn spans(incident: &Incident) -> Vec<Span> {
    let onset_s = incident.onset_at.as_deref().and_then(parsed);
    let onset_s = onset_s.zip(parsed(&incident.at)).map(|(onset, at)| offset_s(onset, at));
    // The counters are read each second, so less than that shows nothing.
    let onset_s = onset_s.map(|onset_s| second_of(onset_s.min(0.0)));
    let mut spans = vec![("before", f64::NEG_INFINITY, onset_s.unwrap_or(0.0))];
    spans.extend(onset_s.map(|onset_s| ("from the onset", onset_s, 0.0)));
    if incident.state == State::Complete {
        spans.push(("after", 0.0, f64::INFINITY));
    }
    spans
}

/// Each version in each time.
fn each(incident: &Incident) -> impl Iterator<Item = (&VersionCurve, Span)> {
    let spans = spans(incident);
    incident
        .versions
        .iter()
        .flat_map(move |version| spans.clone().into_iter().map(move |span| (version, span)))
}

fn named(version: &VersionCurve) -> String {
    let role = match version.role {
        Role::Baseline => " (baseline)",
        Role::Subject | Role::Other => "",
    };
    format!("{}{role}", version.name)
}

/// Requests and latency.
pub(super) fn periods(html: &mut Html, incident: &Incident) {
    let rows = each(incident).map(|(version, (name, from_s, until_s))| {
        let (requests, failures) = version.rates.sum(from_s, until_s);
        let [p50, p95, p99] = latency(version, from_s, until_s);
        let cells = vec![
            ("", named(version)),
            ("", name.to_owned()),
            ("n", count(requests)),
            ("n", count(failures)),
            ("n", percent(ratio(failures, requests))),
            ("n", p50),
            ("n", p95),
            ("n", p99),
        ];
        ("", cells)
    });
    let heads = [
        ("", "version"),
        ("", "time"),
        ("n", "requests"),
        ("n", "5xx"),
        ("n", "rate"),
        ("n", "p50 ms"),
        ("n", "p95 ms"),
        ("n", "p99 ms"),
    ];
    let caption = "The same in numbers, by whole seconds, that of the incident as before it; latency is the median of the five-second values";
    html.table(caption, &heads, rows);
}

/// The medians of the quantiles within a time.
fn latency(version: &VersionCurve, from_s: f64, until_s: f64) -> [String; 3] {
    let points = version.latency.iter();
    let points: Vec<_> =
        points.filter(|point| (from_s..until_s).contains(&(point.from_s + 2.5))).collect();
    let median = |of: fn(&LatencyPoint) -> f64| {
        let mut values: Vec<f64> = points.iter().map(|point| of(point)).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().map_or("–".to_owned(), number)
    };
    [median(|point| point.p50_ms), median(|point| point.p95_ms), median(|point| point.p99_ms)]
}

/// How requests failed.
pub(super) fn failures(html: &mut Html, incident: &Incident) {
    html.section("How requests failed", |html| {
        let rows = each(incident).map(|(version, (name, from_s, until_s))| {
            let kinds = version.failed_attempts(from_s, until_s).each();
            let counts = kinds.into_iter().map(|(_, failed)| ("n", count(failed)));
            ("", [("", named(version)), ("", name.to_owned())].into_iter().chain(counts).collect())
        });
        let kinds = crate::incident::FailureKinds::default().each();
        let heads = [("", "version"), ("", "time")].into_iter();
        let heads: Vec<_> = heads.chain(kinds.into_iter().map(|(kind, _)| ("n", kind))).collect();
        let caption = "Failed attempts by kind, by whole seconds; also those of requests that another endpoint answered";
        html.table(caption, &heads, rows);
    });
}
