//! Checks which requests of a route are processed once.

use std::time::Duration;

use super::{Finding, limit};
use crate::config::{
    pattern::KeySource,
    problem::FieldPath,
    schema::{Class, Config, Idempotency, Route},
    units::ByteSize,
};

/// Methods that read.
const READING: [&str; 4] = ["GET", "HEAD", "OPTIONS", "TRACE"];

/// Checks `idempotency` of `route`.
pub(super) fn check(
    route: &Route,
    idempotency: &Idempotency,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    if only_reads(route) {
        let message = "all requests of the route read, and only writes take part; leave it out";
        found.push(Finding::of_name(path.clone(), message));
    }
    if let Some(name) = &idempotency.name
        && (!(1..=256).contains(&name.len()) || name.chars().any(char::is_control))
    {
        let message = "no name; write 1 to 256 bytes without control characters, such as the former name of the route";
        found.push(Finding::new(path.key("name"), message));
    }
    if let Some(by) = &idempotency.by {
        limit::sources(by.as_slice(), route, &path.key("by"), found);
    }
    let Idempotency { window, body, answer, memory, keys, wait, waiting, .. } = idempotency;
    let mut bounds = |name: &str, is_within: bool, right: &str| {
        if !is_within {
            found.push(Finding::new(path.key(name), format!("out of range; write {right}")));
        }
    };
    let within = |time: &Duration, least, most| {
        (Duration::from_millis(least)..=Duration::from_secs(most)).contains(time)
    };
    bounds("window", within(window, 60_000, 744 * 3600), "1m to 744h");
    bounds("wait", within(wait, 100, 600), "100ms to 10m");
    bounds("body", body.0 <= 1 << 20, "at most 1MiB");
    bounds("answer", answer.0 <= 1 << 20, "at most 1MiB");
    bounds("memory", memory.0 <= 16 << 30, "at most 16GiB");
    bounds("keys", (1..=10_000_000).contains(keys), "1 to 10000000");
    bounds("waiting", *waiting <= 100_000, "at most 100000");
    let least = ByteSize(answer.0.saturating_mul(16));
    if *memory < least {
        let message = format!("less than 16 responses of `answer` bytes; write at least {least}");
        found.push(Finding::new(path.key("memory"), message).and(path.key("answer")));
    }
}

/// Checks that routes that share their keys agree on what holds for all of them: otherwise a key that one route remembers is
/// forgotten or displaced by the other, and a write is processed twice.
pub(super) fn shared(config: &Config, found: &mut Vec<Finding>) {
    let keyed = config.routes.iter().enumerate().filter_map(|(index, route)| {
        let keys = route.idempotency.as_ref()?;
        Some((index, route, keys, keys.scope(&route.label()).to_owned()))
    });
    let keyed: Vec<_> = keyed.collect();
    for (at, (index, route, keys, scope)) in keyed.iter().enumerate() {
        let mut before = keyed[..at].iter();
        let first =
            before.find(|(_, other, _, name)| (&other.service, name) == (&route.service, scope));
        let Some((earlier, _, other, _)) = first else { continue };
        let path = |index| FieldPath::default().key("routes").index(index).key("idempotency");
        let (here, there) = (path(*index), path(*earlier));
        let time = |time: Duration| humantime::format_duration(time).to_string();
        for (name, own, others) in [
            ("window", time(keys.window), time(other.window)),
            ("keys", keys.keys.to_string(), other.keys.to_string()),
            ("memory", keys.memory.to_string(), other.memory.to_string()),
            ("waiting", keys.waiting.to_string(), other.waiting.to_string()),
        ] {
            if own != others {
                let message = format!(
                    "{own} here and {others} in `{there}`, and both routes share their keys by the name `{scope}`; write \
                     the same in both, or another `name`"
                );
                found.push(Finding::new(here.key(name), message).and(there.key(name)));
            }
        }
    }
}

/// Whether no request of `route` writes.
pub(super) fn only_reads(route: &Route) -> bool {
    let methods = &route.matches.methods;
    let reads = |method: &String| READING.contains(&method.as_str());
    match route.class {
        Some(class) => class == Class::Read,
        None => !methods.is_empty() && methods.iter().all(reads),
    }
}

/// Warns of keys that a restart forgets, and of keys that players share.
pub(super) fn warn(config: &Config, found: &mut Vec<Finding>) {
    for (index, route) in config.routes.iter().enumerate() {
        let Some(idempotency) = &route.idempotency else { continue };
        let path = FieldPath::default().key("routes").index(index).key("idempotency");
        let cohort = config.services.get(&route.service).map(|service| &*service.cohort.key);
        let players = idempotency.players(cohort.unwrap_or_default());
        if players.first() == Some(&KeySource::ClientIp) {
            let message = "players are told apart by their address alone, so a player who sends the key of another one \
                           behind the same address gets that one's response; write `cohort: { key: [ \"header:NAME\" ] }` \
                           in the service, or `by` here, with what names the player";
            found.push(Finding::of_name(path.clone(), message));
        }
        if config.state.is_none() {
            let message = "there is no `state`, so a restart or an upgrade forgets all keys, and a request may be \
                           processed twice; name a folder to keep them in";
            found.push(Finding::of_name(path, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn text(cohort: &str, idempotency: &str) -> String {
        format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nstate: /tmp/x\nservices: {{ a: {{ baseline: v1, \
             versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 ] }} }}{cohort} }} }}\nroutes:\n- service: a\n  \
             idempotency: {{ {idempotency} }}\n"
        )
    }

    #[test]
    fn players_who_are_told_apart_by_their_address_alone_are_warned_of() {
        let player = ", cohort: { key: [ \"header:x-player\" ] }";
        for (cohort, idempotency, warns) in [
            ("", "", true),
            ("", "by: \"header:x-player\"", false),
            (player, "", false),
            (player, "by: client-ip", true),
        ] {
            let config = parse(&text(cohort, idempotency)).expect("a good file");
            let mut found = Vec::new();
            warn(&config, &mut found);
            assert_eq!(found.len(), usize::from(warns), "{cohort} {idempotency}: {found:?}");
        }
    }

    /// Regression: a key was known for as long as the route said that it came on, and the other one sent it again.
    #[test]
    fn routes_that_share_keys_agree_on_what_holds_for_all_of_them() {
        for (first, second, says) in [
            ("name: bets, window: 24h", "name: bets, window: 1h", "window: 1h here and 1day in"),
            ("name: bets", "name: bets, keys: 10", "keys: 10 here and 1000000 in"),
            ("name: bets", "name: bets, memory: 32MiB", "memory: 32MiB here and 64MiB in"),
            ("name: bets, waiting: 5", "name: bets", "waiting: 1000 here and 5 in"),
            ("window: 2h", "name: default", "window: 1day here and 2h in"),
            ("name: bets, window: 24h", "name: bets", ""),
            ("name: bets, window: 1h", "name: other", ""),
            ("name: bets, wait: 1s, answer: 1KiB", "name: bets, unsure: ask, required: true", ""),
        ] {
            let second =
                format!("- {{ service: a, match: {{ path: /b }}, idempotency: {{ {second} }} }}\n");
            let found = parse(&(text("", first) + &second)).map(drop);
            match found {
                Ok(()) => assert_eq!(says, "", "{first}, {second}"),
                Err(problems) => {
                    let problems = problems.to_string();
                    assert!(!says.is_empty() && problems.contains(says), "{problems}");
                }
            }
        }
    }

    #[test]
    fn a_name_and_sources_that_cannot_be_meant_are_named() {
        for (idempotency, place, says) in [
            ("name: \"\"", "idempotency.name", "1 to 256"),
            ("name: \"a\\nb\"", "idempotency.name", "control"),
            ("by: []", "idempotency.by", "no source"),
            ("by: path:round", "idempotency.by", "{round}"),
            ("by: claim:sub", "idempotency.by", "no token"),
        ] {
            let found = parse(&text("", idempotency)).map(drop).expect_err(idempotency).to_string();
            assert!(found.contains(place) && found.contains(says), "{idempotency}: {found}");
        }
        let good = parse(&text("", "name: bet.place, by: [ \"cookie:uid\", client-ip ]"));
        assert!(good.is_ok(), "{good:?}");
    }
}
