//! Warnings: settings that are valid, but rarely intended. Only the command `check` prints them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Finding, concurrency, idempotency, identity_warnings, plan_warnings, route::Match};
use crate::config::{
    pattern::KeySource,
    problem::FieldPath,
    schema::{Config, Eject, EjectErrors, Mode, OnMistake, Role, Service},
};

/// All warnings for `config`.
pub(in crate::config) fn warnings(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    let services = FieldPath::default().key("services");
    for (name, service) in &config.services {
        let path = services.key(name);
        shared_endpoints(service, &path, &mut found);
        no_second_person(config, service, &path, &mut found);
        epoch_forgotten(service, config, &path, &mut found);
        plan_warnings::of_service(service, config, &path, &mut found);
        // With a single version no player moves between versions.
        if service.versions.len() > 1 {
            not_compared(service, &path, &mut found);
            failures_not_compared(service, &path, &mut found);
            never_mistaken(service, &path, &mut found);
            if let Some(eject) = &service.eject {
                unserved_below_errors(eject, None, &path.key("eject"), &mut found);
            }
            addresses_only(service, &path, &mut found);
        }
    }
    for (index, route) in config.routes.iter().enumerate() {
        let service = config.services.get(&route.service).filter(|s| s.versions.len() > 1);
        let service = service.and_then(|service| service.eject.as_ref());
        if let (Some(own), Some(service)) = (&route.eject, service) {
            let path = FieldPath::default().key("routes").index(index).key("eject");
            unserved_below_errors(own, Some(service), &path, &mut found);
        }
    }
    plan_warnings::called_alike(config, &mut found);
    identity_warnings::warn(config, &mut found);
    concurrency::warn(config, &mut found);
    idempotency::warn(config, &mut found);
    never_reached(config, &mut found);
    found
}

fn shared_endpoints(service: &Service, path: &FieldPath, found: &mut Vec<Finding>) {
    let mut first: HashMap<String, &String> = HashMap::new();
    for (name, version) in &service.versions {
        for (index, endpoint) in version.endpoints.iter().enumerate() {
            let other = *first.entry(endpoint.to_string()).or_insert(name);
            if other != name {
                let message = format!(
                    "`{endpoint}` is an endpoint of `{other}` too, so players of both get the same \
                     release; write the version's own endpoint"
                );
                let path = path.key("versions").key(name).key("endpoints").index(index);
                found.push(Finding::new(path, message));
            }
        }
    }
}

/// Warns if a second person is asked for and there are no two who can act: then no approval is possible.
fn no_second_person(
    config: &Config,
    service: &Service,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    let roles: Vec<Role> = config.admin.iter().flat_map(|admin| admin.roles()).collect();
    let persons = roles.iter().filter(|role| **role >= Role::Approver).count();
    let acts = roles.contains(&Role::Operator);
    if service.second_person && (persons < 2 || !acts) {
        let have = match persons {
            0 => "there is none",
            1 => "there is one",
            _ => "no operator is among them",
        };
        let message = format!(
            "a second person needs a token of their own, so it takes two of `admin.tokens` with the roles `operator` or `approver`, \
             and {have}; give each person a token, or leave this out"
        );
        found.push(Finding::new(path.key("second_person"), message));
    }
}

/// Warns if the epoch of a fence is nowhere kept: it begins with the clock, which may be set back.
fn epoch_forgotten(service: &Service, config: &Config, path: &FieldPath, found: &mut Vec<Finding>) {
    if service.fence.is_some() && config.state.is_none() {
        let message = "its epoch is not kept over a restart, and falls if the clock was set back; write `state`, \
                       the folder of the journal";
        found.push(Finding::of_name(path.key("fence"), message));
    }
}

fn not_compared(service: &Service, path: &FieldPath, found: &mut Vec<Finding>) {
    if service.eject.is_some() {
        return;
    }
    let canaries = service.versions.keys().filter(|version| **version != service.baseline);
    let canaries: Vec<_> = canaries.map(|version| format!("`{version}`")).collect();
    let message = format!(
        "nothing takes {} out if it is worse than `{}`; write `eject: {{ errors: {{}} }}`",
        canaries.join(" or "),
        service.baseline
    );
    found.push(Finding::of_name(path.clone(), message));
}

/// Warns if failures are not compared: a version that fails every request has neither latency nor
/// amounts.
fn failures_not_compared(service: &Service, path: &FieldPath, found: &mut Vec<Finding>) {
    let Some(eject) = &service.eject else { return };
    let others = [("latency", eject.latency.is_some()), ("amounts", eject.amounts.is_some())];
    let others: Vec<_> =
        others.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
    if eject.errors.is_some() || others.is_empty() || eject.mode == Some(Mode::Off) {
        return;
    }
    let message = format!(
        "failures are not compared, only {}: a version that fails every request stays; add `errors: {{}}`",
        others.join(" and ")
    );
    found.push(Finding::of_name(path.key("eject"), message));
}

/// Warns if fewer unserved requests are tolerated than errors: a request that fails is not served, so the
/// tolerance of errors has no effect. `own` is of a service, or of a route of `service`.
fn unserved_below_errors(
    own: &Eject,
    service: Option<&Eject>,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    let written = |of: fn(&Eject) -> Option<&EjectErrors>| of(own).or_else(|| service.and_then(of));
    if [Some(own), service].into_iter().flatten().any(|eject| eject.mode == Some(Mode::Off)) {
        return;
    }
    // What only the service has written is a warning about the service.
    if service.is_some() && own.errors.is_none() && own.unserved.is_none() {
        return;
    }
    let errors = written(|eject| eject.errors.as_ref());
    let unserved = written(|eject| eject.unserved.as_ref());
    let (Some(errors), Some(unserved)) = (errors, unserved) else { return };
    for (field, errors, unserved) in [
        ("relative", errors.relative_or_default(), unserved.relative),
        ("absolute", errors.absolute_or_default(), unserved.absolute),
    ] {
        let Some(unserved) = unserved.filter(|unserved| *unserved < errors) else { continue };
        let message = format!(
            "`unserved` tolerates {unserved} {field}, less than the {errors} of `errors`, which so have no \
             effect: a request that fails is not served either; write at least {errors}, or leave it out"
        );
        let path = match own.unserved.is_some() {
            true => path.key("unserved").key(field),
            false => path.key("errors"),
        };
        found.push(Finding::new(path, message));
    }
}

fn never_mistaken(service: &Service, path: &FieldPath, found: &mut Vec<Finding>) {
    let Some(eject) = &service.eject else { return };
    let acts = eject.mode.is_none_or(|mode| mode == Mode::Act);
    if eject.on_mistake == Some(OnMistake::Reinstate) && !acts {
        let message = "takes nothing back, since nothing is ejected; write `mode: act`, or leave the field out";
        found.push(Finding::new(path.key("eject").key("on_mistake"), message));
    }
}

fn addresses_only(service: &Service, path: &FieldPath, found: &mut Vec<Finding>) {
    if service.cohort.key == [KeySource::ClientIp] {
        let message = "players are told apart by the client's address alone: all behind one \
                       address get the same version, and whoever changes networks may change \
                       versions; write `cohort: { key: [ header:x-player-id ] }`";
        found.push(Finding::of_name(path.clone(), message));
    }
}

/// Warns of routes that are never reached: those for which each host and method has an earlier
/// route with the same path and as many conditions, all of which hold wherever the route's own do.
/// More specific routes come first, so no other route can take all its requests.
fn never_reached(config: &Config, found: &mut Vec<Finding>) {
    let mut groups: HashMap<_, Vec<(usize, Match)>> = HashMap::new();
    for (index, route) in config.routes.iter().enumerate() {
        let mut ahead = HashSet::new();
        let (all, mut hidden) = (Match::all(&route.matches), 0);
        for one in &all {
            let group = groups.entry(one.group()).or_default();
            let first = group.iter().find(|(_, earlier)| earlier.holds_wherever(one));
            if let Some((first, _)) = first {
                ahead.insert(*first);
                hidden += 1;
            }
        }
        if hidden == all.len() {
            let routes = FieldPath::default().key("routes");
            let mut names: Vec<_> = ahead.into_iter().collect();
            names.sort_unstable();
            let names = names.into_iter().map(|first| {
                format!("`{}` ({})", routes.index(first), config.routes[first].label())
            });
            let message = format!(
                "this route is never reached: {} matches all its requests, and is asked first; \
                 write it above, or drop it",
                names.collect::<Vec<_>>().join(" or ")
            );
            found.push(Finding::new(routes.index(index), message));
        }
        for one in all {
            groups.entry(one.group()).or_default().push((index, one));
        }
    }
}

type Conditions = BTreeMap<String, BTreeSet<String>>;

impl Match {
    /// The part in which routes must agree so that one can hide another.
    fn group(&self) -> impl std::hash::Hash + Eq + use<> {
        let names = |of: &Conditions| of.keys().cloned().collect::<Vec<_>>();
        let (host, path, method) = (self.host.clone(), self.path.clone(), self.method.clone());
        (host, path, method, names(&self.headers), names(&self.query), names(&self.claims))
    }

    /// Whether all requests that match `other`, of the same group, match this, too.
    fn holds_wherever(&self, other: &Self) -> bool {
        let wider = |own: &Conditions, other: &Conditions| {
            own.values().zip(other.values()).all(|(own, other)| other.is_subset(own))
        };
        wider(&self.headers, &other.headers)
            && wider(&self.query, &other.query)
            && wider(&self.claims, &other.claims)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::warnings;

    fn told(services: &str, routes: &str) -> Vec<String> {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nservices: {services}\nroutes: {routes}\n"
        );
        assert!(crate::config::parse(&text).is_ok(), "{:?}", crate::config::parse(&text));
        warnings(&text).iter().map(ToString::to_string).collect()
    }

    const GOOD: &str = "{ s: { baseline: v1, versions: { v1: { endpoints: [ 127.0.0.1:1 ] }, \
        v2: { endpoints: [ 127.0.0.1:2 ] } }, eject: { errors: {} }, \
        cohort: { key: [ 'cookie:uid' ] } } }";

    #[test]
    fn what_takes_back_is_doubtful_where_nothing_is_ejected() {
        let versions =
            "versions: { a: { endpoints: [ 127.0.0.1:1 ] }, b: { endpoints: [ 127.0.0.1:2 ] } }";
        let told = |mode: &str| {
            let eject = format!("{{ errors: {{}}, on_mistake: reinstate, mode: {mode} }}");
            let cohort = "cohort: { key: [ 'header:x-player-id' ] }";
            let service =
                format!("{{ a: {{ baseline: a, {versions}, {cohort}, eject: {eject} }} }}");
            told(&service, "[ { service: a } ]")
        };
        assert_eq!(told("act"), [""; 0]);
        let [only] = &*told("advise") else { panic!("one warning") };
        assert!(only.contains("services.a.eject.on_mistake: takes nothing back"), "{only}");
    }

    #[test]
    fn an_interval_for_the_keys_of_a_file_is_doubtful() {
        let told = |jwks: &str, refresh: &str| {
            let jwt = format!(
                "jwt: {{ players: {{ jwks: '{jwks}', algorithms: [ RS256 ], issuer: a, audience: b{refresh} }} }}"
            );
            let told =
                told(GOOD, &format!("[ {{ service: s, auth: {{ jwt: players }} }} ]\n{jwt}"));
            told.into_iter().filter(|told| told.contains("refresh")).collect::<Vec<_>>()
        };
        let [only] = &*told("keys.json", ", refresh: 1m") else { panic!("one warning") };
        assert!(only.contains("jwt.players.refresh: it has no effect on a file"), "{only}");
        assert_eq!(told("keys.json", ""), [""; 0]);
        assert_eq!(told("https://id.example/jwks", ", refresh: 1m"), [""; 0]);
    }

    #[test]
    fn a_fence_without_a_journal_is_doubtful_since_its_epoch_may_fall_over_a_restart() {
        let service = GOOD.replace("baseline: v1,", "baseline: v1, fence: {},");
        let [only] = &*told(&service, "[ { service: s } ]") else { panic!("one warning") };
        assert!(only.contains("services.s.fence: its epoch is not kept"), "{only}");
        let kept = told(&service, "[ { service: s } ]\nstate: /var/lib/tidegate");
        assert_eq!(kept, [""; 0]);
    }

    #[test]
    fn to_compare_latency_or_amounts_without_failures_is_doubtful() {
        let of =
            |eject: &str| told(&GOOD.replace("eject: { errors: {} }", eject), "[ { service: s } ]");
        let [latency] = &*of("eject: { latency: { p95: 20% } }") else { panic!("one warning") };
        assert!(latency.contains("services.s.eject: failures are not compared, only latency: "));
        let amounts = "amounts: { pay: { header: x-pay } }, eject: { amounts: { pay: 5% } }";
        assert!(of(amounts)[0].contains("only amounts"), "{:?}", of(amounts));
        for good in ["errors: {}", "mode: off"] {
            let eject = format!("eject: {{ {good}, latency: {{ p95: 20% }} }}");
            assert_eq!(of(&eject), [""; 0], "{good}");
        }
    }

    #[test]
    fn unserved_below_errors_is_doubtful() {
        let warned = |eject: &str, route: &str| {
            let services = GOOD.replace("eject: { errors: {} }", eject);
            told(&services, &format!("[ {{ service: s{route} }} ]"))
        };
        let large = "errors: { relative: 10%, absolute: 10% }";
        let of_service = format!("eject: {{ {large}, unserved: {{ absolute: 1% }} }}");
        let [only] = &*warned(&of_service, "") else { panic!("one warning") };
        let message = "services.s.eject.unserved.absolute: `unserved` tolerates 1% absolute, less than the 10% of \
                       `errors`, which so have no effect: a request that fails is not served either; write at \
                       least 10%, or leave it out";
        assert!(only.ends_with(message), "{only}");
        let small = "eject: { errors: {}, unserved: { relative: 5% } }";
        let [only] = &*warned(small, "") else { panic!("one warning") };
        assert!(only.contains("unserved.relative: `unserved` tolerates 5% relative"), "{only}");
        let service = "eject: { errors: {}, unserved: { absolute: 1% } }";
        let of_route = format!(", eject: {{ {large} }}");
        let [only] = &*warned(service, &of_route) else { panic!("one warning") };
        assert!(
            only.contains("routes[0].eject.errors: `unserved` tolerates 1% absolute"),
            "{only}"
        );
        let of_route = ", eject: { unserved: { absolute: 0.001% } }";
        let [only] = &*warned(service, of_route) else { panic!("one warning") };
        assert!(only.contains("routes[0].eject.unserved.absolute: "), "{only}");
        for (service, route) in [
            (format!("eject: {{ {large} }}"), ""),
            (format!("eject: {{ {large}, unserved: {{ relative: 20% }} }}"), ""),
            (service.to_owned(), ", eject: { latency: { p95: 20% } }"),
        ] {
            assert_eq!(warned(&service, route), [""; 0], "{service} {route}");
        }
    }

    #[test]
    fn a_second_person_without_a_token_of_their_own_is_doubtful() {
        let services = GOOD.replace("baseline: v1,", "baseline: v1, second_person: true,");
        let with = |tokens: &str| {
            let admin = format!("admin: {{ address: 127.0.0.1:0, tokens: [ {tokens} ] }}");
            told(&services, &format!("[ {{ service: s }} ]\n{admin}"))
        };
        let (ana, ben) = ("{ name: ana, file: a }", "{ name: ben, file: b }");
        let reader = "{ name: bot, file: c, role: auditor }";
        for (tokens, have) in [
            (String::new(), "there is none"),
            (ana.to_owned(), "there is one"),
            (format!("{ana}, {reader}"), "there is one"),
        ] {
            let [only] = &*with(&tokens) else { panic!("one warning: {tokens}") };
            assert!(only.contains("services.s.second_person: ") && only.contains(have), "{only}");
        }
        assert_eq!(with(&format!("{ana}, {ben}")), [""; 0]);
    }

    #[test]
    fn two_versions_at_one_endpoint_are_the_same_release() {
        assert!(told(GOOD, "[ { service: s } ]").is_empty());
        let told = told(&GOOD.replace("127.0.0.1:2", "127.0.0.1:1"), "[ { service: s } ]");
        assert_eq!(told.len(), 1, "{told:?}");
        let line =
            "2:99: services.s.versions.v2.endpoints[0]: `127.0.0.1:1` is an endpoint of `v1` too";
        assert!(told[0].starts_with(line), "{}", told[0]);
    }

    #[test]
    fn a_canary_that_nothing_takes_out_and_players_known_by_address_are_doubtful() {
        let services = "{ s: { baseline: v1, versions: { v1: { endpoints: [ 127.0.0.1:1 ] }, \
            v2: { endpoints: [ 127.0.0.1:2 ] } } } }";
        let told = told(services, "[ { service: s } ]");
        assert_eq!(told.len(), 2, "{told:?}");
        let of = |text: &str| told.iter().any(|line| line.contains(text));
        assert!(of("nothing takes `v2` out if it is worse than `v1`"), "{told:?}");
        assert!(of("by the client's address alone"), "{told:?}");
        let one = "{ s: { baseline: v1, versions: { v1: { endpoints: [ 127.0.0.1:1 ] } } } }";
        assert!(self::told(one, "[ { service: s } ]").is_empty());
    }

    #[test]
    fn a_route_behind_one_that_matches_all_its_requests_is_never_reached() {
        let of = |first: &str, second: &str| {
            let route =
                |name, matches| format!("{{ service: s, name: {name}, match: {{ {matches} }} }}");
            told(GOOD, &format!("[ {}, {} ]", route("a", first), route("b", second)))
        };
        for (first, second) in [
            ("headers: { x: [ '1', '2' ] }", "headers: { X: '1' }"),
            (
                "path: /a, methods: [ GET, POST ], query: { q: [ a, b ] }",
                "path: /a, methods: [ POST ], query: { q: b }",
            ),
        ] {
            let told = of(first, second);
            assert_eq!(told.len(), 1, "{first}: {told:?}");
            let line = "routes[1]: this route is never reached: `routes[0]` (a) matches all";
            assert!(told[0].contains(line), "{told:?}");
        }
        for (first, second) in [
            ("headers: { x: '1' }", "headers: { x: [ '1', '2' ] }"),
            ("headers: { x: [ '1', '2' ] }", "headers: { x: '1', y: '1' }"),
            (
                "path: /a, methods: [ GET ], query: { q: [ a, b ] }",
                "path: /a, methods: [ GET, POST ], query: { q: b }",
            ),
            ("path: /*", "path: /a"),
            ("headers: { x: [ '1', '2' ] }", "host: a.test, headers: { x: '1' }"),
        ] {
            assert!(of(first, second).is_empty(), "{first} | {second}");
        }
    }
}
