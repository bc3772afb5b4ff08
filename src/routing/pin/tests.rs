use std::{collections::HashMap, time::Duration};

use httparse::Header;
use proptest::prelude::*;

use super::*;
use crate::config::{schema::Config, units::Weight};
use crate::routing::Split;

const ROUNDS: &str = "key: 'path:round', begin: { path: /v1/rounds, methods: [ POST ] }, \
    end: { answer: { header: X-Round-State, is: [ settled, void ] } }";

fn config(pin: &str) -> Config {
    let parsed = crate::config::parse(&format!(
        "listen: [ {{ address: '127.0.0.1:0' }} ]\n\
         routes: [ {{ service: a }}, {{ service: a, match: {{ path: '/v1/rounds/{{round}}/*' }} }},\n\
         {{ service: a, match: {{ path: '/v2/{{x}}/{{round}}' }} }} ]\n\
         services:\n  a:\n    baseline: v1\n    versions: {{ v1: {{ endpoints: [ '127.0.0.1:1' ] }} }}\n\
         \x20   pin: {{ {pin} }}\n"
    ));
    parsed.unwrap_or_else(|problems| panic!("{problems}"))
}

fn rules(pin: &str) -> PinRules {
    let config = config(pin);
    let pin = config.services["a"].pin.as_ref().expect("pins");
    PinRules::new(pin, config.routes.iter().filter_map(|route| route.matches.path.as_ref()))
}

fn request<'a>(method: &'a str, path: &'a str, headers: &'a [Header<'a>]) -> RequestView<'a> {
    RequestView {
        method,
        host: "",
        path,
        query: "",
        headers,
        client: [10, 0, 0, 1].into(),
        client_text: b"10.0.0.1",
        claims: None,
    }
}

#[test]
fn a_round_begins_with_the_location_of_its_creation() {
    let rules = rules(ROUNDS);
    assert_eq!(rules.begins(&request("POST", "/v1/rounds", &[]), false), Begins::WhenNamed);
    assert_eq!(rules.begins(&request("GET", "/v1/rounds", &[]), false), Begins::Not);
    assert_eq!(rules.begins(&request("POST", "/v1/rounds/7", &[]), true), Begins::Not);
    let named = |status, location: &'static str| {
        let field = |name: &str| (name == "location").then_some(location.as_bytes());
        rules.named(status, field).map(|key| String::from_utf8_lossy(key).into_owned())
    };
    assert_eq!(named(201, "/v1/rounds/r7").as_deref(), Some("r7"));
    assert_eq!(named(201, "https://api.example.com/v1/rounds/r7/spin?x#y").as_deref(), Some("r7"));
    assert_eq!(named(303, "/v2/any/r8").as_deref(), Some("r8"));
    for (status, location) in [
        (500, "/v1/rounds/r7"),
        (409, "/v1/rounds/r7"),
        (201, "/v1/rounds/"),
        (201, "/v1/rounds"),
        (201, "/v9/rounds/r7"),
        (201, "https://api.example.com"),
        (201, ""),
    ] {
        assert_eq!(named(status, location), None, "{status} {location}");
    }
    assert_eq!(rules.named(201, |_| None), None);
}

#[test]
fn a_field_of_the_answer_names_the_round_even_if_the_request_has_a_key() {
    let rules = rules(
        "key: [ 'path:round', 'header:x-player' ], begin: { methods: [ POST ], answer: { header: X-Round-Id } }",
    );
    for has_key in [false, true] {
        let begins = rules.begins(&request("POST", "/v1/rounds", &[]), has_key);
        assert_eq!(begins, Begins::WhenNamed);
    }
    let field = |name: &str| (name == "x-round-id").then_some(&b" r9 "[..]);
    assert_eq!(rules.named(200, field), Some(&b"r9"[..]));
    assert_eq!(rules.named(200, |_| Some(b" ")), None);
}

#[test]
fn a_player_begins_at_once_with_the_first_request() {
    let rules = rules("key: 'header:x-player'");
    let headers = [Header { name: "X-Player", value: b"p1" }];
    let view = request("GET", "/", &headers);
    assert_eq!(rules.key(&view, &[]), Some(&b"p1"[..]));
    assert_eq!(rules.begins(&view, true), Begins::Now);
    assert_eq!(rules.key(&request("GET", "/", &[]), &[]), None, "no address instead");
    assert_eq!(rules.begins(&request("GET", "/", &[]), false), Begins::Not);
    assert!(!rules.may_end(&view) && !rules.ends(200, |_| None));
}

#[test]
fn a_pin_ends_when_the_answer_says_so() {
    let rules = rules(ROUNDS);
    assert!(rules.may_end(&request("GET", "/v1/rounds/7/state", &[])));
    let says = |state: &'static str| {
        rules.ends(409, |name| (name == "x-round-state").then_some(state.as_bytes()))
    };
    assert!(says("settled") && says(" void"));
    assert!(!says("open") && !says("Settled") && !rules.ends(200, |_| None));
}

#[test]
fn a_pin_ends_with_the_request_that_ends_it_if_that_succeeded() {
    let rules =
        rules("key: 'path:round', end: { path: '/v1/rounds/{id}/settle', methods: [ POST ] }");
    assert!(rules.may_end(&request("POST", "/v1/rounds/7/settle", &[])));
    for (method, path) in [
        ("GET", "/v1/rounds/7/settle"),
        ("POST", "/v1/rounds/7"),
        ("POST", "/v1/rounds//settle"),
        ("POST", "/v1/rounds/7/settle/again"),
    ] {
        assert!(!rules.may_end(&request(method, path, &[])), "{method} {path}");
    }
    assert!(rules.ends(204, |_| None) && !rules.ends(302, |_| None) && !rules.ends(500, |_| None));
}

#[test]
fn times_end_pins_and_whole_seconds_are_given() {
    let terms = PinTerms { idle: 10, limit: 60, on_eject: PinOnEject::Move };
    let pin = Pin { version: 0, began: 100, used: 130 };
    let at = |now| terms.fate(pin, now, Host::Serves);
    assert_eq!(
        [at(140), at(141), at(160), at(161)],
        [Fate::Stays, Fate::Idle, Fate::Idle, Fate::Limit]
    );
    assert_eq!(at(90), Fate::Stays, "a clock that was set back ends nothing");
}

#[test]
fn times_are_rounded_up_to_whole_seconds() {
    let config = config("key: client-ip, idle: 1500ms, limit: 3s, on_eject: hold");
    let pin = config.services["a"].pin.as_ref().expect("pins");
    assert_eq!((pin.idle, pin.most), (Duration::from_millis(1500), None));
    assert_eq!(PinTerms::new(pin), PinTerms { idle: 2, limit: 3, on_eject: PinOnEject::Hold });
}

/// What happens in the model: time passes, weights change, versions are ejected, reinstated, lost and found, a
/// request comes.
#[derive(Debug, Clone)]
enum Happens {
    Time(u32),
    Weights(Vec<u8>),
    Ejected(usize, bool),
    Out(usize, bool),
    Request(u8),
    Forced(u8, u16),
}

const VERSIONS: usize = 3;

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (0u32..40).prop_map(Happens::Time),
        prop::collection::vec(0u8..10, VERSIONS).prop_map(Happens::Weights),
        (0..VERSIONS, any::<bool>()).prop_map(|(v, out)| Happens::Ejected(v, out)),
        (0..VERSIONS, any::<bool>()).prop_map(|(v, out)| Happens::Out(v, out)),
        (0u8..6).prop_map(Happens::Request),
        (0u8..6, 0..VERSIONS as u16).prop_map(|(round, to)| Happens::Forced(round, to)),
    ]
}

/// Regression: a pin that began after a move, in the same second, was moved too; and a cookie that was made anew
/// was moved once more by moves that it was the result of.
#[test]
fn a_cookie_is_moved_by_later_moves_only() {
    let one = |from: &str, to: &str, order| {
        let (from, to) = (from.to_owned(), to.to_owned());
        PinMove { from, to, before: 1_000, order }
    };
    let moves = [one("a", "b", 1_000), one("c", "a", 1_001)];
    assert_eq!(after_moves(&moves, "a", 1_000, 0), "b");
    assert_eq!(after_moves(&moves, "a", 1_000, 1_000), "a", "it began after the first move");
    assert_eq!(after_moves(&moves, "c", 1_000, 0), "a");
    assert_eq!(after_moves(&moves, "a", 1_000, 1_001), "a", "made anew after both");
    assert_eq!(after_moves(&moves, "a", 1_001, 0), "a", "it began later");
}

/// What happens to a pin in a cookie and to one in the table: time passes, it is moved, it is used.
#[derive(Debug, Clone)]
enum Turn {
    Passes(u32),
    Moves(usize, usize),
    Uses { renews: bool },
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        (0u32..2).prop_map(Turn::Passes),
        (0..VERSIONS, 0..VERSIONS).prop_map(|(from, to)| Turn::Moves(from, to)),
        any::<bool>().prop_map(|renews| Turn::Uses { renews }),
    ]
}

proptest! {
    #[test]
    fn a_cookie_follows_the_same_moves_as_a_pin_of_the_table(
        earlier in prop::collection::vec(turn(), 0..10),
        later in prop::collection::vec(turn(), 1..40),
        begins in 0..VERSIONS,
    ) {
        let names = ["a", "b", "c"];
        let (mut now, mut moves): (u32, Vec<PinMove>) = (1_000, Vec::new());
        let (mut began, mut table, mut cookie) = (now, names[begins], (names[begins], 0));
        let first = earlier.len();
        for (n, turn) in earlier.into_iter().chain(later).enumerate() {
            if n == first {
                let known = moves.last().map_or(0, |last| last.order);
                (began, table, cookie) = (now, names[begins], (names[begins], known));
            }
            match turn {
                Turn::Passes(seconds) => now += seconds,
                Turn::Moves(from, to) => {
                    let order = moves.last().map_or(1, |last| last.order + 1).max(now.into());
                    let (from, to) = (names[from], names[to]);
                    moves.push(PinMove { from: from.into(), to: to.into(), before: now, order });
                    table = if table == from { to } else { table };
                }
                Turn::Uses { renews } => {
                    let after = after_moves(&moves, cookie.0, began, cookie.1).to_owned();
                    prop_assert_eq!(&*after, table);
                    if renews || after != cookie.0 {
                        cookie = (table, moves.last().map_or(0, |last| last.order));
                    }
                }
            }
        }
        prop_assert_eq!(after_moves(&moves, cookie.0, began, cookie.1), table);
    }

    /// What begins on a version ends on it whatever weights do, unless the version was ejected or lost, somebody
    /// forced it, or one of its times passed.
    #[test]
    fn what_begins_on_a_version_ends_on_it(
        story in prop::collection::vec(happens(), 1..60),
        holds in any::<bool>(), idle in 5u32..60, limit in 60u32..200,
    ) {
        let on_eject = if holds { PinOnEject::Hold } else { PinOnEject::Move };
        let terms = PinTerms { idle, limit, on_eject };
        let (mut now, mut weights) = (1_000, vec![1u8; VERSIONS]);
        let (mut ejected, mut out) = ([false; VERSIONS], [false; VERSIONS]);
        let mut pins: HashMap<u8, Pin> = HashMap::new();
        for happens in story {
            match happens {
                Happens::Time(passes) => now += passes,
                Happens::Weights(to) => weights = to,
                Happens::Ejected(version, is) => ejected[version] = is,
                Happens::Out(version, is) => out[version] = is,
                Happens::Forced(round, to) => {
                    if let Some(pin) = pins.get_mut(&round) {
                        pin.version = to;
                    }
                }
                Happens::Request(round) => {
                    let in_force = |v: usize| match ejected[v] || out[v] {
                        true => Weight::ZERO,
                        false => Weight::new(f64::from(weights[v])).expect("a weight"),
                    };
                    let names = ["a", "b", "c"].into_iter().enumerate();
                    let split = Split::new("", names.map(|(v, name)| (name, in_force(v))));
                    let assigned = split.assign(&[round]);
                    let before = pins.get(&round).copied();
                    let host = |v: u16| match (out[usize::from(v)], ejected[usize::from(v)]) {
                        (true, _) => Host::Out,
                        (false, true) => Host::Ejected,
                        (false, false) => Host::Serves,
                    };
                    let fate = before.map(|pin| terms.fate(pin, now, host(pin.version)));
                    let served = match (before, fate) {
                        (Some(pin), Some(Fate::Stays)) => Some(pin.version),
                        (Some(pin), Some(Fate::Moves)) => assigned.or(Some(pin.version)),
                        _ => assigned,
                    };
                    if let (Some(pin), Some(version)) = (before, served) {
                        let has_ended = now - pin.began > limit || now - pin.used > idle;
                        let may_move = out[usize::from(pin.version)]
                            || ejected[usize::from(pin.version)] && !holds;
                        prop_assert!(
                            version == pin.version || has_ended || may_move,
                            "{pin:?} went to {version} at {now}"
                        );
                    }
                    match served {
                        None => drop(pins.remove(&round)),
                        Some(version) => {
                            let goes_on = matches!(fate, Some(Fate::Stays | Fate::Moves));
                            let began = before.filter(|_| goes_on).map_or(now, |pin| pin.began);
                            pins.insert(round, Pin { version, began, used: now });
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn any_location_is_read_or_not(text in "\\PC{0,60}|[a-z:/?#]{0,40}") {
        let rules = rules(ROUNDS);
        if let Some(key) = rules.named(201, |_| Some(text.as_bytes())) {
            prop_assert!(!key.is_empty() && !key.contains(&b'/'));
        }
    }
}
