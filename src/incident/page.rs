//! The report as HTML: one file, which needs no network, no script and no other file.

mod html;
mod numbers;
mod verdict;

use self::html::Html;
use super::{
    curves::charts,
    harm::HarmSource,
    kind::{Kind, State},
    model::{Incident, JournalEntry, Moment, MomentSource},
    review::Review,
    text::{count, number, percent, seconds},
};

/// The style sheet of the page.
const STYLE: &str = include_str!("page/style.css");

/// The style sheet of charts.
const CHART_STYLE: &str = include_str!("chart/style.css");

/// What the page may load: nothing. A browser enforces it should a text ever become more than text.
pub const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The page of `incident`.
pub fn page(incident: &Incident) -> String {
    let mut html = Html::default();
    html.raw("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>");
    html.raw("<meta name=\"generator\" content=\"Tidegate\"/>");
    html.raw(&format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"/>"));
    html.text(("title", ""), &incident.title);
    html.element(("style", ""), |html| {
        html.raw(STYLE);
        html.raw(CHART_STYLE);
    });
    html.raw("</head><body>\n");
    html.element(("main", ""), |html| {
        header(html, incident);
        harm(html, incident);
        before_it_returns(html, incident);
        if let Some(of) = &incident.verdict {
            verdict::section(html, of, &incident.reason);
        }
        html.section("Rates and latency by version", |html| {
            html.paragraph("A point is one second of requests, and five seconds of latency.");
            html.element(("div", "class=\"charts\""), |html| {
                for chart in charts(incident) {
                    html.element(("figure", ""), |html| html.raw(&chart.svg(None)));
                }
            });
            numbers::periods(html, incident);
        });
        numbers::failures(html, incident);
        if let Some(review) = &incident.rollout {
            rollout(html, review);
        }
        timeline(html, incident);
        journal(html, &incident.journal);
        footer(html, incident);
    });
    html.raw("</body></html>\n");
    html.into_text()
}

fn header(html: &mut Html, incident: &Incident) {
    html.element(("header", ""), |html| {
        html.element(("p", "class=\"kicker\""), |html| {
            html.say("Incident report");
            html.text(("span", "class=\"badge\""), incident.kind.label());
            html.text(("span", "class=\"badge\""), incident.state.label());
        });
        html.text(("h1", ""), &incident.title);
        if !incident.reason.is_empty() {
            html.text(("p", "class=\"lede\""), &incident.reason);
        }
        if incident.state == State::Open {
            html.paragraph(
                "This report is open: the minute after the incident is not known yet. If the process ended in \
                 that minute, the report stays as it is.",
            );
        }
        let at = |label, at: &Option<String>| at.clone().map(|at| (label, at));
        let facts = [("when", incident.at.clone()), ("by", incident.by.clone())];
        let facts = facts.into_iter().chain(at("onset, most likely", &incident.onset_at));
        let facts = facts.chain(at("judged since", &incident.judged_since));
        let facts = facts.chain([
            ("service", incident.service.clone()),
            ("version", incident.version.clone()),
        ]);
        let facts = facts
            .chain(at("endpoint", &incident.endpoint))
            .chain(at("route", &incident.route))
            .chain(at("baseline", &incident.baseline));
        html.facts(&facts.collect::<Vec<_>>());
    });
}

/// What is to be known before an ejection is undone.
fn before_it_returns(html: &mut Html, incident: &Incident) {
    let Some(command) = way_back(incident) else { return };
    html.section("Before it returns", |html| {
        let (what, effect) = match incident.kind {
            Kind::EndpointEjected => ("endpoint", "It gets its part of the version's requests"),
            _ => ("version", "Its weight counts again: its players return to it, if it is above 0,"),
        };
        html.paragraph(&format!(
            "Check first that the cause is gone: read the {what}'s own log from the onset on, and send a \
             request to it. To let only testers meet it, name the version by a rule or a smoke check."
        ));
        html.paragraph(&format!(
            "{effect} at once, not step by step, and the comparison begins anew: what still fails then harms \
             players until a new verdict. Set a small weight before, or start a rollout after it; \
             --dry-run says which share it would get. A rollout that ended with the ejection does not go on."
        ));
        html.facts(&[("then", command)]);
    });
}

/// The command that undoes an ejection.
fn way_back(incident: &Incident) -> Option<String> {
    let of_version = || format!("tidegate reinstate {} {}", incident.service, incident.version);
    match incident.kind {
        Kind::Ejected => Some(of_version()),
        Kind::EndpointEjected if !matches!(&*incident.by, "connect" | "peers") => {
            let endpoint = incident.endpoint.as_deref().unwrap_or_default();
            Some(format!("{} --endpoint {endpoint}", of_version()))
        }
        _ => None,
    }
}

fn harm(html: &mut Html, incident: &Incident) {
    let harm = &incident.harm;
    html.section("Requests harmed", |html| {
        html.element(("div", "class=\"tiles\""), |html| {
            let estimate = harm.estimate.map_or("–".to_owned(), number);
            html.tile(
                harm.estimate.is_some_and(|n| n > 0.0),
                &estimate,
                "requests harmed, estimate",
            );
            let counted = match harm.source {
                HarmSource::Verdict if incident.onset_at.is_none() => "while it was judged",
                HarmSource::Verdict => "from the onset to the verdict",
                HarmSource::Counters => "before the incident, which are counted",
            };
            if let Some(players) = harm.players {
                html.tile(false, &count(players), &format!("players who met it {counted}"));
            }
            html.tile(false, &seconds(harm.counted_s), counted);
            let covered = "with a status of 500 or above";
            let before = format!("responses {covered} before it, in the whole time of the charts");
            html.tile(false, &count(harm.failures_before), &before);
            if incident.state == State::Complete {
                let after = format!(
                    "responses {covered} after it, to the end of the charts: requests in flight, and those of players \
                     it got again"
                );
                html.tile(false, &count(harm.failures_after), &after);
            }
        });
        let kinds = harm.failed_attempts.in_words();
        html.paragraph(&harm.how);
        html.paragraph(&format!("Failed attempts in that time, by whole seconds: {kinds}."));
    });
}

fn rollout(html: &mut Html, review: &Review) {
    html.section("Rollout", |html| {
        let plan = review.plan.clone().unwrap_or_else(|| "steps of the command".to_owned());
        html.facts(&[
            ("plan", plan),
            ("started", format!("{} by {}", review.started_at, review.by)),
            ("why", review.reason.clone()),
            ("ended", format!("{}, {}", review.ended_at, review.ended)),
            ("because", review.cause.clone()),
        ]);
        let heads = [
            ("n", "step"),
            ("n", "share"),
            ("", "demands"),
            ("", "began"),
            ("n", "lasted"),
            ("", "gates"),
        ];
        let rows = review.steps.iter().map(|step| {
            let cells = vec![
                ("n", step.step.to_string()),
                ("n", percent(Some(step.share))),
                ("", step.demands.clone()),
                ("t", step.began_at.clone().unwrap_or_else(|| step.why_not_begun().to_owned())),
                ("n", step.lasted_s.map_or("–".to_owned(), seconds)),
                ("", step.gates.join("; ")),
            ];
            ("", cells)
        });
        html.table("Steps of the plan; gates with their last replies", &heads, rows);
    });
}

fn timeline(html: &mut Html, incident: &Incident) {
    html.section("Timeline", |html| {
        let rows = incident.timeline.iter().map(|moment| {
            let is_now = moment.offset_s == 0.0 && moment.source == MomentSource::Event;
            (if is_now { "now" } else { "" }, moment_cells(moment))
        });
        let heads =
            [("", "when"), ("n", "offset"), ("", "what"), ("", "subject"), ("", "by"), ("", "why")];
        html.table("Events of the service and of the process around it", &heads, rows);
    });
}

fn moment_cells(moment: &Moment) -> Vec<html::Cell> {
    let offset = match moment.offset_s {
        0.0 => "0".to_owned(),
        s if s < 0.0 => format!("−{}", seconds(s)),
        s => format!("+{}", seconds(s)),
    };
    let report = moment.incident.as_ref().map(|id| format!(" (report {id})")).unwrap_or_default();
    vec![
        ("t", moment.at.clone()),
        ("n", offset),
        ("", moment.what.clone()),
        ("", moment.subject.clone().unwrap_or_default()),
        ("", moment.by.clone().unwrap_or_default()),
        ("", format!("{}{report}", moment.reason)),
    ]
}

fn journal(html: &mut Html, entries: &[JournalEntry]) {
    html.section("Journal", |html| {
        if entries.is_empty() {
            return html
                .paragraph("No entry of the release journal is near it, or there is no journal.");
        }
        let rows = entries.iter().map(|entry| {
            let cells = vec![
                ("n", entry.seq.to_string()),
                ("t", entry.at.clone()),
                ("", entry.kind.clone()),
                ("", entry.service.clone().unwrap_or_default()),
                ("", entry.by.clone()),
                ("", entry.reason.clone()),
                ("h", entry.hash.clone()),
            ];
            ("", cells)
        });
        let heads = [
            ("n", "seq"),
            ("", "when"),
            ("", "kind"),
            ("", "service"),
            ("", "by"),
            ("", "why"),
            ("", "hash"),
        ];
        html.table("Entries of the release journal around it", &heads, rows);
    });
}

fn footer(html: &mut Html, incident: &Incident) {
    let process = &incident.process;
    html.element(("footer", ""), |html| {
        html.facts(&[
            ("incident", incident.id.to_string()),
            ("charts cover", format!("{} to {}", incident.covers.from, incident.covers.until)),
            ("instance", process.instance.clone()),
            ("Tidegate", process.binary.clone()),
            ("configuration", process.config_hash.clone()),
            ("generation", process.generation.to_string()),
        ]);
    });
}

#[cfg(test)]
mod tests;
