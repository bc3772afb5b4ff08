//! Checks how versions are compared.

use super::{Finding, amounts};
use crate::config::{
    problem::FieldPath,
    schema::{Config, Eject, Failures, Mode, Route, Service, Slo},
};

/// Checks the settings of the service `name`.
pub(super) fn service(
    eject: &Eject,
    name: &str,
    config: &Config,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    let off = eject.mode == Some(Mode::Off);
    let slo = config.services.get(name).is_some_and(|service| service.slo.is_some());
    let nothing = eject.errors.is_none() && eject.latency.is_none() && eject.amounts.is_none();
    if nothing && !off && !slo {
        let message = "compares nothing; write errors, latency or amounts, or leave the field out";
        found.push(Finding::new(path.clone(), message));
    }
    limits(eject, config.services.get(name), path, found);
    let parts = config.routes.iter().zip(0..).filter(|(route, _)| route.service == name);
    let parts: Vec<_> =
        parts.filter_map(|(r, at)| Some((r.eject.as_ref()?.alpha?.0, at))).collect();
    let (mut sum, whole) = (0.0, eject.alpha_or_default());
    for (part, at) in parts {
        sum += part;
        if sum >= whole {
            let message = format!(
                "the parts of routes add up to {sum} here, which leaves nothing of the {whole} of \
                 `{name}`; write a smaller alpha, or a larger one in the service's eject"
            );
            let here = FieldPath::default().key("routes").index(at).key("eject").key("alpha");
            found.push(Finding::new(here, message).and(path.key("alpha")));
            return;
        }
    }
}

/// Checks the settings of `route`.
pub(super) fn route(
    eject: &Eject,
    route: &Route,
    config: &Config,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    let service = config.services.get(&route.service);
    if service.is_some_and(|service| service.eject.is_none()) {
        let message = format!(
            "`{}` is not compared, so its routes are not; write eject there too",
            route.service
        );
        found.push(Finding::new(path.clone(), message));
    }
    match eject.mode {
        Some(Mode::Act | Mode::Advise) => {
            let message = "what a verdict does is the service's to say; write off, or leave it out";
            found.push(Finding::new(path.key("mode"), message));
        }
        Some(Mode::Off) if *eject != (Eject { mode: eject.mode, ..Eject::default() }) => {
            let message = "off, so no other field has an effect; leave them out, or leave mode out";
            found.push(Finding::new(path.key("mode"), message));
        }
        _ => {}
    }
    for (key, written) in [
        ("ask_players", eject.ask_players.is_some()),
        ("on_mistake", eject.on_mistake.is_some()),
        ("networks", eject.networks.is_some()),
    ] {
        if written {
            let message =
                "players are the service's, not the route's; write it in the service's eject";
            found.push(Finding::new(path.key(key), message));
        }
    }
    if route.version.is_some() {
        let message = "one version serves all requests of the route, so there is nothing to compare; leave it out";
        found.push(Finding::new(path.clone(), message));
    }
    limits(eject, service, path, found);
}

fn limits(eject: &Eject, service: Option<&Service>, path: &FieldPath, found: &mut Vec<Finding>) {
    if let (Some(compared), Some(service)) = (&eject.amounts, service) {
        amounts::compared(compared, service, &path.key("amounts"), found);
    }
    if eject.latency.as_ref().is_some_and(|l| l.p95.is_none() && l.p99.is_none()) {
        let message = "compares nothing; write p95 or p99, or leave the field out";
        found.push(Finding::new(path.key("latency"), message));
    }
    let of_service = service.and_then(|service| service.eject.as_ref()?.errors.as_ref());
    if eject.unserved.is_some() && eject.errors.as_ref().or(of_service).is_none() {
        let message = "compared only where errors are; write errors too, or leave it out";
        found.push(Finding::new(path.key("unserved"), message));
    }
    if eject.minimum_failures == Some(0) {
        let message = "nobody is ejected without a failure; write 1 or more";
        found.push(Finding::new(path.key("minimum_failures"), message));
    }
}

/// Checks absolute limits together with `eject` of the service or the route; `is_asked` if rollouts
/// of the service may ask for them.
pub(super) fn slo(
    slo: &Slo,
    eject: Option<&Eject>,
    is_asked: bool,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    if *slo == Slo::default() {
        let message = "says nothing; write errors, p95 or p99, or leave the field out";
        found.push(Finding::new(path.clone(), message));
    }
    match eject.map(|eject| eject.mode) {
        _ if is_asked => {}
        None => {
            let message =
                "nobody judges by it without the service's eject; write that too, or leave it out";
            found.push(Finding::new(path.clone(), message));
        }
        Some(Some(Mode::Off)) => {
            let message =
                "nobody judges by it while eject is off; leave it out, or set another mode";
            found.push(Finding::new(path.clone(), message));
        }
        Some(_) => {}
    }
    if slo.errors.is_some_and(|share| share.0 >= 1.0) {
        let message = "all requests may fail; write less than 100%, or leave it out";
        found.push(Finding::new(path.key("errors"), message));
    }
    if slo.p95.zip(slo.p99).is_some_and(|(p95, p99)| p95 > p99) {
        let message = "shorter than p95, which is among them; write a longer one";
        found.push(Finding::new(path.key("p99"), message).and(path.key("p95")));
    }
}

/// Checks which responses are failures.
pub(super) fn failures(failures: Option<&Failures>, path: &FieldPath, found: &mut Vec<Finding>) {
    let Some(failures) = failures else { return };
    if failures.also.is_empty() && failures.except.is_empty() {
        let message = "says nothing; write also or except, or leave the field out";
        found.push(Finding::new(path.clone(), message));
    }
    for (key, list) in [("also", &failures.also), ("except", &failures.except)] {
        for (index, statuses) in list.iter().enumerate() {
            if list[..index].contains(statuses) {
                let message = format!("`{statuses}` twice; write it once");
                found.push(Finding::new(path.key(key).index(index), message));
            }
            if key == "also" && statuses.first >= 500 {
                let message = format!("`{statuses}` is a failure anyway; leave it out");
                found.push(Finding::new(path.key(key).index(index), message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    /// The problems of a service and its only route with these fields.
    fn problems(service: &str, route: &str) -> String {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nservices:\n  a:\n    baseline: v1\n    \
             versions: {{ v1: {{ endpoints: [ 10.0.0.1:1 ] }} }}\n    {service}\nroutes:\n  - service: a\n    \
             {route}\n"
        );
        parse(&text).map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn a_comparison_compares_something_and_a_route_only_what_its_service_does() {
        let errors = "eject: { errors: {} }";
        for (service, route) in [
            (errors, ""),
            ("eject: { latency: { p95: 20% }, mode: advise, warm_up: 0s }", ""),
            ("eject: { mode: off }", "eject: { mode: off }"),
            ("eject: { errors: {}, mode: off }", "eject: { errors: { relative: 5% } }"),
            (errors, "eject: { alpha: 0.0001, deadline: 1s }"),
            (errors, "eject: { latency: { p99: 10% }, minimum_failures: 1 }"),
        ] {
            assert_eq!(problems(service, route), "", "{service} {route}");
        }
        for (service, route, expected) in [
            (
                "eject: {}",
                "",
                "6:12: services.a.eject: compares nothing; write errors, latency or amounts, or leave the field out",
            ),
            (
                "eject: { latency: {} }",
                "",
                "6:23: services.a.eject.latency: compares nothing; write p95 or p99, or leave the field out",
            ),
            (
                "eject: { errors: {}, minimum_failures: 0 }",
                "",
                "6:44: services.a.eject.minimum_failures: nobody is ejected without a failure; write 1 or more",
            ),
            (
                "eject: { errors: {}, alpha: 0.0001 }",
                "eject: { alpha: 0.0001 }",
                "9:21: routes[0].eject.alpha: the parts of routes add up to 0.0001 here, which leaves nothing of the \
                 0.0001 of `a`; write a smaller alpha, or a larger one in the service's eject",
            ),
            (
                errors,
                "eject: { alpha: 0.0005 }\n  - service: a\n    match: { path: /b }\n    eject: { alpha: 0.0005 }\n  \
                 - service: a\n    match: { path: /c }\n    eject: { alpha: 0.0001 }",
                "12:21: routes[1].eject.alpha: the parts of routes add up to 0.001 here, which leaves nothing of the \
                 0.001 of `a`; write a smaller alpha, or a larger one in the service's eject",
            ),
            (
                "",
                "eject: { errors: {} }",
                "9:12: routes[0].eject: `a` is not compared, so its routes are not; write eject there too",
            ),
            (
                errors,
                "eject: { networks: true }",
                "9:24: routes[0].eject.networks: players are the service's, not the route's; write it in the \
                 service's eject",
            ),
            (
                "eject: { latency: { p99: 20% }, unserved: {} }",
                "",
                "6:47: services.a.eject.unserved: compared only where errors are; write errors too, or leave it out",
            ),
            (
                errors,
                "eject: { mode: advise }",
                "9:20: routes[0].eject.mode: what a verdict does is the service's to say; write off, or leave it out",
            ),
            (
                errors,
                "eject: { mode: off, errors: {} }",
                "9:20: routes[0].eject.mode: off, so no other field has an effect; leave them out, or leave mode out",
            ),
            (
                errors,
                "eject: { latency: {} }",
                "9:23: routes[0].eject.latency: compares nothing; write p95 or p99, or leave the field out",
            ),
            (
                errors,
                "eject: { errors: {} }\n    version: v1",
                "9:12: routes[0].eject: one version serves all requests of the route, so there is nothing to compare; \
                 leave it out",
            ),
        ] {
            assert_eq!(problems(service, route), expected, "{service} {route}");
        }
    }

    #[test]
    fn failures_say_something_once() {
        for good in [
            "failures: { also: [ 429, 408 ] }",
            "failures: { also: [ 4xx ], except: [ 404, 501 ] }",
        ] {
            assert_eq!(problems(good, good), "", "{good}");
        }
        for (bad, expected) in [
            ("failures: {}", ": says nothing; write also or except, or leave the field out"),
            ("failures: { also: [ 404, 404 ] }", ".also[1]: `404` twice; write it once"),
            ("failures: { except: [ 501, 5xx, 501 ] }", ".except[2]: `501` twice; write it once"),
            ("failures: { also: [ 503 ] }", ".also[0]: `503` is a failure anyway; leave it out"),
            ("failures: { also: [ 5xx ] }", ".also[0]: `5xx` is a failure anyway; leave it out"),
        ] {
            for (at, problem) in
                [("services.a", problems(bad, "")), ("routes[0]", problems("", bad))]
            {
                let expected = format!("{at}.failures{expected}");
                assert!(problem.ends_with(&expected), "{problem} is not {expected}");
            }
        }
    }

    #[test]
    fn limits_limit_something_and_somebody_judges_by_them() {
        let eject = "eject: { mode: advise }";
        for (service, route) in [
            (format!("{eject}\n    slo: {{ errors: 0.3%, p95: 250ms, p99: 250ms }}"), ""),
            ("eject: { errors: {} }".to_owned(), "slo: { p99: 1s }"),
            ("eject: { errors: {} }".to_owned(), "slo: { p99: 1s }\n    eject: { alpha: 1e-6 }"),
        ] {
            assert_eq!(problems(&service, route), "", "{service} {route}");
        }
        let nobody =
            "nobody judges by it without the service's eject; write that too, or leave it out";
        let off = "nobody judges by it while eject is off; leave it out, or set another mode";
        for (service, route, expected) in [
            ("slo: { errors: 1% }", "", format!("services.a.slo: {nobody}")),
            ("", "slo: { errors: 1% }", format!("routes[0].slo: {nobody}")),
            ("eject: { mode: off }", "slo: { errors: 1% }", format!("routes[0].slo: {off}")),
            ("eject: { errors: {} }", "slo: { errors: 1% }\n    eject: { mode: off }", format!("routes[0].slo: {off}")),
            (
                "eject: { errors: {} }",
                "slo: {}",
                "routes[0].slo: says nothing; write errors, p95 or p99, or leave the field out".to_owned(),
            ),
            (
                "eject: { errors: {} }",
                "slo: { errors: 100% }",
                "routes[0].slo.errors: all requests may fail; write less than 100%, or leave it out".to_owned(),
            ),
            (
                "eject: { errors: {} }",
                "slo: { p95: 2s, p99: 1s }",
                "routes[0].slo.p99: shorter than p95, which is among them; write a longer one".to_owned(),
            ),
        ] {
            let problem = problems(service, route);
            assert!(problem.ends_with(&expected), "{problem} is not {expected}");
        }
    }
}
