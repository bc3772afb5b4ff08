//! What befalls idempotency keys and keys of issuers, as events.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use super::Controller;
use crate::{
    config::{
        Config,
        schema::{Idempotency, Route},
    },
    control::event::{EventDetails, EventKind},
    registry::{KeyTrouble, Registry},
};

/// What was found at the last look.
#[derive(Debug, Default)]
pub(in crate::control) struct Found {
    trouble: Option<KeyTrouble>,
    moved: u64,
    /// Issuers without keys, each with the event for why.
    keyless: BTreeMap<String, EventKind>,
}

impl Controller {
    /// Records what has befallen keys since `before`.
    pub(in crate::control) fn watch_keys(&mut self, before: &mut Found) {
        let log = self.registry.key_log();
        let found = Found {
            trouble: log.and_then(|log| log.health().trouble()),
            moved: log.map_or(0, |log| log.health().carried_over()),
            keyless: self.keyless(),
        };
        for (kind, reason) in news(before, &found, SystemTime::now()) {
            if matches!(kind, EventKind::JwtRevoked | EventKind::JwtMissing) {
                tracing::warn!("{reason}");
            }
            self.record(kind, EventDetails { reason, ..EventDetails::default() });
        }
        *before = found;
    }

    /// Names of issuers whose keys have never come, so that their tokens cannot be verified.
    pub fn issuers_without_keys(&self) -> Vec<String> {
        let snapshot = self.snapshot();
        let each = snapshot.issuers.all().iter().filter(|issuer| issuer.keys.keys().is_none());
        each.map(|issuer| issuer.name.to_string()).collect()
    }

    /// Issuers that have no keys: none came, although they were fetched, or their set is empty.
    fn keyless(&self) -> BTreeMap<String, EventKind> {
        let snapshot = self.snapshot();
        let each = snapshot.issuers.all().iter().filter_map(|issuer| {
            let kind = match issuer.keys.keys().as_ref() {
                Some(keys) => keys.is_empty().then_some(EventKind::JwtRevoked),
                None => issuer.keys.fetching().error.map(|_| EventKind::JwtMissing),
            };
            Some((issuer.name.to_string(), kind?))
        });
        each.collect()
    }

    /// Records which idempotency keys the configuration in force makes unknown to their routes; returns a sentence for each
    /// route.
    pub(super) fn note_forgotten_keys(&mut self, old: &Config) -> Vec<String> {
        let forgotten = forgotten(old, &self.config, &self.registry);
        for (service, reason) in &forgotten {
            let (service, reason) = (Some(service.clone()), reason.clone());
            self.record(
                EventKind::IdempotencyForgotten,
                EventDetails { service, reason, ..EventDetails::default() },
            );
        }
        forgotten.into_iter().map(|(_, reason)| reason).collect()
    }
}

/// That what could not be written since `since` is written again at `now`; `subject` is with its verb. The fault is over,
/// so it is not repeated.
pub(super) fn works_again(subject: &str, since: SystemTime, now: SystemTime) -> String {
    let seconds = now.duration_since(since).unwrap_or_default().as_secs();
    match seconds {
        0 => format!("{subject} written again, after less than a second"),
        _ => {
            let lasted = humantime::format_duration(Duration::from_secs(seconds));
            format!("{subject} written again, after {lasted}")
        }
    }
}

/// The events from one look to the next, with their reasons.
fn news(before: &Found, found: &Found, now: SystemTime) -> Vec<(EventKind, String)> {
    let mut news = Vec::new();
    if found.moved > before.moved {
        let reason = "`idempotency.db` was removed or replaced while it was in use; its keys are in the file there now";
        news.push((EventKind::IdempotencyMoved, reason.to_owned()));
    }
    match (&before.trouble, &found.trouble) {
        (None, Some(trouble)) => news.push((EventKind::IdempotencyFailing, trouble.reason.clone())),
        (Some(before), None) => {
            let reason = works_again("idempotency keys are", before.since, now);
            news.push((EventKind::IdempotencyWorks, reason));
        }
        _ => {}
    }
    for (name, kind) in &found.keyless {
        if before.keyless.get(name) == Some(kind) {
            continue;
        }
        let reason = match kind {
            EventKind::JwtMissing => format!(
                "the keys of issuer `{name}` have never come: requests with its tokens are answered 503"
            ),
            _ => format!("the set of keys of issuer `{name}` is empty: all its tokens are refused"),
        };
        news.push((*kind, reason));
    }
    for name in before.keyless.keys().filter(|name| !found.keyless.contains_key(*name)) {
        let reason = format!("issuer `{name}` has keys again, or is gone");
        news.push((EventKind::JwtRestored, reason));
    }
    news
}

/// For each route of `old` whose idempotency keys are unknown once `new` is in force: its service, and why.
fn forgotten(old: &Config, new: &Config, registry: &Registry) -> Vec<(String, String)> {
    let routes = old.routes.iter().filter_map(|route| Some((route, route.idempotency.as_ref()?)));
    let each = routes.filter_map(|(route, before)| {
        let label = route.label();
        let scope = before.scope(&label);
        let (why, remedy) = why_forgotten((route, before), old, new)?;
        let keys = match registry.keys_known(&route.service, scope)? {
            Some(0) => return None,
            Some(count) => format!("its {count} idempotency keys are"),
            None => "its idempotency keys are".to_owned(),
        };
        let what = "a write that comes again with one of them is sent again";
        let reason = format!("route `{label}` {why}: {keys} not known to it, and {what}; {remedy}");
        Some((route.service.clone(), reason))
    });
    each.collect()
}

/// Why the keys of a route of `old`, with its policy, are not known once `new` is in force, and how they stay known; `None`
/// if they are known.
fn why_forgotten(
    (route, before): (&Route, &Idempotency),
    old: &Config,
    new: &Config,
) -> Option<(String, String)> {
    let label = route.label();
    let scope = before.scope(&label);
    let has_keys = |now: &Route| {
        let keys = now.idempotency.as_ref().map(|keys| keys.scope(&now.label()) == scope);
        now.service == route.service && keys == Some(true)
    };
    let namesake = new.routes.iter().find(|now| now.label() == label);
    // Of a route with another name, one that shared the keys before has had requests of its own.
    let shared =
        |now: &Route| old.routes.iter().any(|was| was.label() == now.label() && has_keys(was));
    let heir = match namesake {
        Some(now) => Some(now).filter(|now| has_keys(now)),
        None => new.routes.iter().find(|now| has_keys(now) && !shared(now)),
    };
    let name = format!(
        "to keep them, write `idempotency: {{ name: \"{scope}\" }}` at the route of `{}` that has its requests now",
        route.service
    );
    let Some(now) = heir else {
        return Some(match namesake {
            None => ("is gone, or has another name".to_owned(), name),
            Some(now) if now.service != route.service => (
                format!("leads to `{}` instead of `{}`", now.service, route.service),
                "keys belong to their service: to keep them, keep its name, and give it other versions"
                    .to_owned(),
            ),
            Some(now) if now.idempotency.is_none() => (
                "has no `idempotency` any more".to_owned(),
                "its keys are known again if it gets that back within their window".to_owned(),
            ),
            Some(_) => ("has another `idempotency.name`".to_owned(), name),
        });
    };
    let players = |config: &Config, keys: &Idempotency| {
        let service = config.services.get(&route.service);
        keys.players(service.map(|s| &*s.cohort.key).unwrap_or_default()).to_vec()
    };
    let (before, after) = (players(old, before), players(new, now.idempotency.as_ref()?));
    (before != after).then(|| {
        let sources: Vec<_> = before.iter().map(|source| format!("\"{source}\"")).collect();
        let by = sources.join(", ");
        (
            "tells players apart by another `cohort.key` or `idempotency.by` (players whose source of the key is the same keep \
             theirs)"
                .to_owned(),
            format!("to keep them, write `idempotency: {{ by: [ {by} ] }}`"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(service: &str, cohort: &str, idempotency: &str, name: &str) -> Config {
        let of = |name: &str| {
            format!(
                "{name}: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 ] }} }}, cohort: {{ key: [ {cohort} ] }} }}"
            )
        };
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nservices: {{ {}, {} }}\nroutes: [ {{ name: {name}, match: {{ path: /a }}, \
             service: {service}{idempotency} }}, {{ service: a }} ]\nstate: /tmp/x",
            of("a"),
            of("b")
        );
        crate::config::parse(&text).expect("a good file")
    }

    #[test]
    fn a_file_that_makes_keys_unknown_says_which_and_why() {
        let (player, keyed) = ("\"header:x-p\"", ", idempotency: {}");
        let old = file("a", player, keyed, "bet");
        let registry = Registry::new(1);
        let why = |new: &Config| forgotten(&old, new, &registry);
        assert_eq!(why(&file("b", player, keyed, "bet")), [], "it had no requests");
        let table = registry.keys("a", "bet");
        assert_eq!(why(&file("b", player, keyed, "bet")), [], "it has no keys");
        let rules = crate::registry::KeyRules {
            window: 60,
            most: 9,
            memory: 1 << 20,
            waiting: 9,
            unsure: Default::default(),
            errors: Default::default(),
        };
        let print = crate::registry::Fingerprint::of(
            "a",
            ("POST", "/a", ""),
            b"",
            crate::policy::idempotency::Spelling::Bare,
        );
        let entered = table.enter(table.id(("header:x-p", b"p"), b"k"), print, &rules);
        let crate::registry::Entered::Begin(lease) = entered else { panic!("{entered:?}") };
        lease.answered(200, || None);
        assert_eq!(why(&old), []);
        assert_eq!(why(&file("a", player, ", idempotency: { window: 1h }", "bet")), []);
        for (new, expected) in [
            (file("b", player, keyed, "bet"), "leads to `b` instead of `a`"),
            (file("a", player, keyed, "stake"), "is gone, or has another name"),
            (file("a", player, "", "bet"), "has no `idempotency` any more"),
            (
                file("a", "\"cookie:p\"", keyed, "bet"),
                "write `idempotency: { by: [ \"header:x-p\" ] }`",
            ),
            (file("a", player, keyed, "stake"), "write `idempotency: { name: \"bet\" }`"),
            (
                file("a", player, ", idempotency: { name: stake }", "bet"),
                "has another `idempotency.name`",
            ),
        ] {
            let why = why(&new);
            assert_eq!((why.len(), &*why[0].0), (1, "a"), "{why:?}");
            assert!(
                why[0].1.contains(expected) && why[0].1.contains("1 idempotency keys"),
                "{why:?}"
            );
        }
        // What the sentences say keeps them.
        let named = ", idempotency: { name: bet }";
        assert_eq!(why(&file("a", player, named, "stake")), []);
        let by = ", idempotency: { by: \"header:x-p\" }";
        assert_eq!(why(&file("a", "\"cookie:p\"", by, "bet")), []);
        // Each of two routes that share keys is looked at by itself.
        let two = |bet: &str, stake: &str| {
            let route = |name: &str, keys: &str| {
                format!("name: {name}, match: {{ path: /{name} }}, service: a{keys}")
            };
            let second = format!("{} }}, {{ {}", route("bet", bet), route("stake", stake));
            let text = format!(
                "listen: [ {{ address: 127.0.0.1:0 }} ]\nservices: {{ a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ \
                 127.0.0.1:1 ] }} }}, cohort: {{ key: [ {player} ] }} }} }}\nroutes: [ {{ {second} }} ]\nstate: /tmp/x"
            );
            crate::config::parse(&text).expect("a good file")
        };
        let (named, own) =
            (", idempotency: { name: bet }", ", idempotency: { name: bet, by: \"cookie:p\" }");
        let shared = two(named, named);
        let of = |old: &Config, new: &Config| forgotten(old, new, &registry);
        for (new, which) in [
            (two(named, ", idempotency: { name: stake }"), "route `stake` has another"),
            (two(", idempotency: {}", own), "route `stake` tells players apart"),
            (two(", idempotency: { name: other }", named), "route `bet` has another"),
            (file("a", player, named, "bet"), "route `stake` is gone"),
        ] {
            let told = of(&shared, &new);
            assert!(told.len() == 1 && told[0].1.starts_with(which), "{which}: {told:?}");
        }
        let (different, later) = (two(named, own), two(", idempotency: {}", own));
        assert_eq!(of(&different, &later), [], "each has its own players, before as after");
        // Also once nothing has the table any more.
        drop(table);
        registry.forget_unused();
        assert_eq!(why(&file("b", player, keyed, "bet")).len(), 1);
        let again = registry.keys("a", "bet");
        assert_eq!(again.len(), 1, "taken out and put back");
    }

    /// The event that a fault is over ended with the fault, and said `after 0s`.
    #[test]
    fn what_works_again_is_told_without_the_fault() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let told = |since, now| works_again("the journal is", at(since), at(now));
        assert_eq!(told(1, 62), "the journal is written again, after 1m 1s");
        assert_eq!(told(1, 1), "the journal is written again, after less than a second");
        assert_eq!(told(2, 1), "the journal is written again, after less than a second");
        let trouble = KeyTrouble { since: at(1), reason: "the disk is full".to_owned() };
        let found = |trouble| Found { trouble, ..Found::default() };
        let news = news(&found(Some(trouble)), &found(None), at(62));
        assert_eq!(news[0].1, "idempotency keys are written again, after 1m 1s");
    }

    #[test]
    fn each_change_is_told_once() {
        let trouble = |reason: &str| {
            Some(KeyTrouble { since: SystemTime::UNIX_EPOCH, reason: reason.to_owned() })
        };
        let (missing, revoked) = (EventKind::JwtMissing, EventKind::JwtRevoked);
        let found = |trouble, moved, keyless: &[(&str, EventKind)]| Found {
            trouble,
            moved,
            keyless: keyless.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect(),
        };
        let kinds = |before: &Found, after: &Found| -> Vec<_> {
            let news = news(before, after, SystemTime::UNIX_EPOCH + Duration::from_secs(61));
            assert!(news.iter().all(|(_, reason)| !reason.is_empty()));
            news.into_iter().map(|(kind, _)| kind.label()).collect()
        };
        let quiet = found(None, 0, &[]);
        assert_eq!(kinds(&quiet, &quiet), [""; 0]);
        let failing = found(trouble("full"), 0, &[("a", revoked)]);
        assert_eq!(kinds(&quiet, &failing), ["idempotency_failing", "jwt_revoked"]);
        assert_eq!(kinds(&failing, &found(trouble("gone"), 0, &[("a", revoked)])), [""; 0]);
        let over = found(None, 1, &[("b", revoked)]);
        assert_eq!(
            kinds(&failing, &over),
            ["idempotency_moved", "idempotency_works", "jwt_revoked", "jwt_restored"]
        );
        let unreached = found(None, 0, &[("a", missing)]);
        assert_eq!(kinds(&quiet, &unreached), ["jwt_missing"]);
        assert_eq!(kinds(&unreached, &found(None, 0, &[("a", revoked)])), ["jwt_revoked"]);
        assert_eq!(kinds(&unreached, &quiet), ["jwt_restored"]);
    }
}
