//! Services as a table for a terminal.

use std::fmt::Write;

use super::{columns, eject::since, rollout::report::waits};
use crate::{
    admin::model::{
        Endpoint, EndpointState, RolloutSummary, Service, State, Version, VersionVerdict,
    },
    analysis::{Answer, Verdict},
    config::actor,
    control::events::way_back,
};

const HEADINGS: [&str; 11] = [
    "SERVICE",
    "VERSION",
    "WEIGHT",
    "SHARE",
    "STATE",
    "IN FLIGHT",
    "REQUESTS",
    "ERRORS",
    "P50 MS",
    "P95 MS",
    "P99 MS",
];

/// Columns of words; the others hold numbers, which are right-aligned.
const WORDS: [usize; 3] = [0, 1, 4];

/// One line per version, the baseline marked with `*`; quantiles are of the last minute. Below them
/// one line per service that is not available, per ejected version, per endpoint that does not
/// serve, and per verdict.
pub(super) fn render<'a>(services: impl IntoIterator<Item = &'a Service>) -> String {
    let (mut table, mut out) = (columns::table(), String::new());
    table.add_row(HEADINGS);
    for service in services {
        table.add_rows(service.versions.iter().map(|version| row(service, version)));
        unserved(service, &mut out);
        rollout(service, &mut out);
        service.versions.iter().for_each(|version| ejected(service, version, &mut out));
        service.versions.iter().for_each(|version| endpoints(service, version, &mut out));
        service.verdicts.iter().for_each(|verdict| judged(service, verdict, &mut out));
    }
    columns::aligned(table, |column| !WORDS.contains(&column)) + "\n" + &out
}

/// Reports that no version serves, or that another one serves than the weights define.
fn unserved(service: &Service, text: &mut String) {
    // Writing to a string does not fail.
    if !service.available {
        let _ = writeln!(
            text,
            "{}: nobody serves: no version with a share has an endpoint",
            service.name
        );
    }
    if let Some(why) = &service.weights_refused {
        let _ = writeln!(text, "{}: the weights as written are not in force: {why}", service.name);
    }
}

/// Reports the rollout in progress.
fn rollout(service: &Service, text: &mut String) {
    let Some(rollout) = &service.rollout else { return };
    let RolloutSummary { to, phase, step, steps, cause, missing, last_transition } = rollout;
    let waits = waits((*phase, cause, missing), last_transition.as_ref());
    let phase = phase.label().replace('_', " ");
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{}: rollout to {to}: {phase}, step {step} of {steps}: {waits}",
        service.name
    );
}

/// Reports who ejected `version`, when and why; the reason of a verdict has a line of its own.
fn ejected(service: &Service, version: &Version, text: &mut String) {
    let Some(ejection) = &version.ejection else { return };
    let mut ejection = ejection.clone();
    let has_verdict = service.verdicts.iter().any(|verdict| verdict.version == version.name);
    if has_verdict && ejection.by == actor::VERDICT {
        ejection.reason.clear();
    }
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{} {}: ejected {}; `{}` reinstates it",
        service.name,
        version.name,
        since(&ejection),
        way_back(&service.name, &version.name)
    );
}

/// Reports the endpoints of `version` that do not serve, and why.
fn endpoints(service: &Service, version: &Version, text: &mut String) {
    let (service, name) = (&service.name, &version.name);
    // Writing to a string does not fail.
    if version.health_panic && version.available {
        let serve = |endpoint: &&Endpoint| endpoint.state == EndpointState::Serving;
        let (serving, all) =
            (version.endpoints.iter().filter(serve).count(), version.endpoints.len());
        let _ = writeln!(
            text,
            "{service} {name}: {serving} of {all} endpoints serve, fewer than health.panic_threshold: those \
             that are down or could not be connected are used, too"
        );
    }
    for (unresolved, why) in &version.unresolved {
        let _ = writeln!(text, "{service} {name}: {unresolved} is not resolved: {why}");
    }
    for endpoint in &version.endpoints {
        let state = match endpoint.state {
            EndpointState::Serving if !endpoint.reachable => "cannot be connected",
            EndpointState::Serving => continue,
            EndpointState::Ejected => "is ejected",
            EndpointState::Probing => "was ejected, and is probed",
            EndpointState::Down => "is down: its checks fail",
        };
        let reason = match endpoint.reason.as_deref() {
            Some("connect") => ": it could not be connected",
            Some("peers") => ": it failed more often than its peers",
            Some("word") => " by an operator",
            _ => "",
        };
        let reason = match &endpoint.ejection {
            Some(ejection) => format!(" {}", since(ejection)),
            None => reason.to_owned(),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{service} {name}: {} {state}{reason}", endpoint.address);
    }
}

/// Reports the comparison of a version, as it is or as it was at the ejection.
fn judged(service: &Service, judged: &VersionVerdict, text: &mut String) {
    let VersionVerdict { version, route, onset_at, verdict } = judged;
    let route = route.as_ref().map_or(String::new(), |route| format!(" on {route}"));
    let serves = |known: &Version| known.name == *version && known.state != State::Ejected;
    let more = match verdict.answer {
        Answer::Undecided => nearness(verdict),
        Answer::Fail
            if !verdict.alone && verdict.held.is_none() && service.versions.iter().any(serves) =>
        {
            " It is not ejected: the comparison only advises.".to_owned()
        }
        Answer::Fail | Answer::Healthy => String::new(),
    };
    // Of a version that does no worse the onset says nothing.
    let is_worse = verdict.answer == Answer::Fail || verdict.log_evidence.is_some_and(|e| e > 0.0);
    let onset = onset_at.as_ref().filter(|_| is_worse);
    let onset = onset.map_or(String::new(), |at| format!(" It began about {at}."));
    // Writing to a string does not fail.
    let _ = writeln!(text, "{} {version}{route}: {}{more}{onset}", service.name, verdict.reason);
}

/// The percentage of the evidence that ejects a version, from 10 % on.
fn nearness(verdict: &Verdict) -> String {
    let part = verdict.log_evidence.map_or(0.0, |evidence| evidence / verdict.log_threshold);
    // Rounded down, so that insufficient evidence is never 100 %.
    let percent = (part * 100.0).clamp(0.0, 99.0).floor();
    // If a verdict is held back, its sentence already reports that the evidence suffices.
    if percent < 10.0 || verdict.held.is_some() {
        return String::new();
    }
    let what = if verdict.alone { "a verdict needs" } else { "would eject it" };
    format!(" ({percent} % of the evidence that {what})")
}

fn row(service: &Service, version: &Version) -> [String; HEADINGS.len()] {
    let mark = if version.name == service.baseline { "*" } else { "" };
    let ms = |value: Option<f64>| value.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
    let state = match version.state {
        State::Serving => "serving",
        State::Idle => "idle",
        State::Draining => "draining",
        State::Ejected => "ejected",
    };
    [
        service.name.clone(),
        format!("{}{mark}", version.name),
        version.weight.to_string(),
        format!("{:.2}%", version.share * 100.0),
        state.to_owned(),
        version.in_flight.to_string(),
        version.requests.to_string(),
        version.errors.to_string(),
        ms(version.latency_ms.map(|l| l.p50)),
        ms(version.latency_ms.map(|l| l.p95)),
        ms(version.latency_ms.map(|l| l.p99)),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admin::model::{Ejection, Endpoint, LatencyMs};

    fn version(name: &str, weight: f64, latency_ms: Option<LatencyMs>) -> Version {
        Version {
            name: name.to_owned(),
            weight,
            share: weight / 100.0,
            state: State::Serving,
            available: true,
            health_panic: false,
            unresolved: Default::default(),
            ejection: None,
            in_flight: 0,
            writes_in_flight: 0,
            labels: Default::default(),
            requests: 91_022,
            errors: 31,
            error_rate: None,
            rescued: 0,
            latency_ms,
            amounts: Default::default(),
            endpoints: Vec::new(),
        }
    }

    fn by_ops(reason: &str) -> Ejection {
        Ejection {
            at: "2026-11-26T18:00:00Z".to_owned(),
            by: "ops".to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn service(versions: [Version; 2]) -> Service {
        Service {
            name: "game-api".to_owned(),
            generation: 1,
            baseline: "v41".to_owned(),
            available: true,
            weights_refused: None,
            weights_set: None,
            rollout: None,
            concurrency: Vec::new(),
            versions: versions.into(),
            verdicts: Vec::new(),
        }
    }

    #[test]
    fn columns_stand_under_their_headings() {
        let latency = LatencyMs { p50: 3.12, p95: 9.8, p99: 14.2, p999: 31.0 };
        let versions = [version("v41", 99.5, Some(latency)), version("v42", 0.5, None)];
        assert_eq!(
            render([&service(versions)]),
            "\
SERVICE   VERSION  WEIGHT   SHARE  STATE    IN FLIGHT  REQUESTS  ERRORS  P50 MS  P95 MS  P99 MS
game-api  v41*       99.5  99.50%  serving          0     91022      31     3.1     9.8    14.2
game-api  v42         0.5   0.50%  serving          0     91022      31       -       -       -
"
        );
    }

    #[test]
    fn endpoints_that_do_not_serve_stand_below() {
        let endpoint = |port: u16, state, reason: Option<&str>| Endpoint {
            address: format!("10.0.0.1:{port}"),
            state,
            reason: reason.map(str::to_owned),
            reachable: true,
            ejection: None,
            in_flight: 0,
            share: 1.0,
        };
        let mut versions = [version("v41", 95.0, None), version("v42", 5.0, None)];
        versions[0].endpoints = vec![
            endpoint(1, EndpointState::Serving, None),
            endpoint(2, EndpointState::Ejected, Some("word")),
        ];
        versions[0].endpoints[1].ejection = Some(by_ops("disk full"));
        versions[0].endpoints[0].reachable = false;
        versions[0].health_panic = true;
        versions[1].unresolved.insert("gone.test".to_owned(), "no such name".to_owned());
        versions[1].endpoints = vec![
            endpoint(3, EndpointState::Down, None),
            endpoint(4, EndpointState::Probing, Some("connect")),
        ];
        let text = render([&service(versions)]);
        let lines: Vec<_> = text.lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "game-api v41: 1 of 2 endpoints serve, fewer than health.panic_threshold: those that are down \
                 or could not be connected are used, too",
                "game-api v41: 10.0.0.1:1 cannot be connected",
                "game-api v41: 10.0.0.1:2 is ejected since 2026-11-26T18:00:00Z by ops (disk full)",
                "game-api v42: gone.test is not resolved: no such name",
                "game-api v42: 10.0.0.1:3 is down: its checks fail",
                "game-api v42: 10.0.0.1:4 was ejected, and is probed: it could not be connected",
            ]
        );
    }

    #[test]
    fn ejections_and_unserved_services_are_listed_below() {
        let mut versions = [version("v41", 95.0, None), version("v42", 5.0, None)];
        versions[1].ejection = Some(by_ops("pays twice"));
        let refused = Some("`v42` is ejected".to_owned());
        let service = Service { available: false, weights_refused: refused, ..service(versions) };
        let text = render([&service]);
        let lines: Vec<_> = text.lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "game-api: nobody serves: no version with a share has an endpoint",
                "game-api: the weights as written are not in force: `v42` is ejected",
                "game-api v42: ejected since 2026-11-26T18:00:00Z by ops (pays twice); `tidegate reinstate \
                 game-api v42` reinstates it",
            ]
        );
    }

    #[test]
    fn verdicts_are_listed_below() {
        let versions = [version("v41", 95.0, None), version("v42", 5.0, None)];
        let verdict = json!({
            "version": "v42", "route": "bet.place", "answer": "undecided", "since_s": 0.0, "compared_s": 8.7,
            "log_evidence": null, "log_threshold": 6.9, "health": null, "findings": [],
            "reason": "undecided after 8.7 s; nothing to compare yet",
        });
        let verdicts = vec![serde_json::from_value(verdict).expect("a verdict")];
        let text = render([&Service { verdicts, ..service(versions) }]);
        let last = text.lines().last().expect("lines");
        let expected = "game-api v42 on bet.place: undecided after 8.7 s; nothing to compare yet";
        assert_eq!(last, expected);
    }

    #[test]
    fn nearness_of_an_ejection_and_advice_are_shown() {
        let line = |answer: &str, log_evidence: f64| {
            let verdict = json!({
                "version": "v42", "route": null, "answer": answer, "since_s": 0.0, "compared_s": 8.7,
                "log_evidence": log_evidence, "log_threshold": 6.9, "health": null, "findings": [],
                "reason": "its sentence.",
            });
            let verdicts = vec![serde_json::from_value(verdict).expect("a verdict")];
            let versions = [version("v41", 95.0, None), version("v42", 5.0, None)];
            let text = render([&Service { verdicts, ..service(versions) }]);
            text.lines().last().expect("lines").to_owned()
        };
        assert_eq!(line("undecided", -0.4), "game-api v42: its sentence.");
        assert_eq!(
            line("undecided", 6.899),
            "game-api v42: its sentence. (99 % of the evidence that would eject it)"
        );
        assert_eq!(
            line("fail", 7.0),
            "game-api v42: its sentence. It is not ejected: the comparison only advises."
        );
    }

    /// `onset_s` counts from a moment that is shown nowhere.
    #[test]
    fn the_time_at_which_a_difference_began_is_shown() {
        let line = |log_evidence: f64| {
            let verdict = json!({
                "version": "v42", "route": null, "onset_at": "2026-11-26T18:00:00Z", "answer": "undecided",
                "since_s": 0.0, "compared_s": 8.7, "log_evidence": log_evidence, "log_threshold": 6.9,
                "health": null, "findings": [], "reason": "not certain yet: 5 % fail.",
            });
            let verdicts = vec![serde_json::from_value(verdict).expect("a verdict")];
            let versions = [version("v41", 95.0, None), version("v42", 5.0, None)];
            let text = render([&Service { verdicts, ..service(versions) }]);
            text.lines().last().expect("lines").to_owned()
        };
        assert_eq!(
            line(3.5),
            "game-api v42: not certain yet: 5 % fail. (50 % of the evidence that would eject it) It began about \
             2026-11-26T18:00:00Z."
        );
        assert_eq!(line(-1.0), "game-api v42: not certain yet: 5 % fail.");
    }
}
