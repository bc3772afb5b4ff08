//! What begins on a version ends on it: rounds and players over changes of weights, ejections, lost endpoints
//! and the ends of their times.

mod cookie;
mod kept;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use serde_json::{Value, json};

use crate::support::{
    Answer, Origin, Proxy, eventually,
    proxy::{Builder, SERVICE},
};

/// The example of the documentation: the version makes up the number of a round.
const ROUNDS: &str = "pin: { key: \"path:round\", begin: { path: /v1/rounds, methods: [ POST ] }, \
    end: { answer: { header: x-round-state, is: settled } }, idle: 10m, limit: 2h, on_eject: move }";

/// A version of a game: it makes up rounds, and says when one is settled.
fn game(name: &'static str) -> Origin {
    let rounds = AtomicU64::new(0);
    Origin::start(move |call| {
        call.skip_body()?;
        let target = call.target().to_owned();
        let length = name.len();
        let more = match (call.method(), &*target) {
            ("POST", "/v1/rounds") => {
                let round = rounds.fetch_add(1, SeqCst);
                format!("Location: /v1/rounds/{name}-{round}\r\n")
            }
            ("POST", _) if target.ends_with("/settle") => "X-Round-State: settled\r\n".to_owned(),
            _ => "X-Round-State: open\r\n".to_owned(),
        };
        let head = format!("HTTP/1.1 201 Made\r\nContent-Length: {length}\r\n{more}\r\n{name}");
        call.send(head)
    })
}

fn builder(origins: &[Origin; 2], pin: &str) -> Builder {
    Proxy::builder()
        .workers(2)
        .version("v41", &origins[0])
        .version("v42", &origins[1])
        .service("weights: { v41: 1, v42: 0 }")
        .service("cohort: { key: [ \"header:x-player\" ] }")
        .service(pin)
        .route("match: { path: \"/v1/rounds/{round}/*\" }")
        .route("match: { path: \"/*\" }, name: all")
        .top("admin: { address: \"127.0.0.1:0\" }")
}

fn begin(proxy: &Proxy) -> String {
    let answer = proxy.connect().post("/v1/rounds", b"{}").send();
    answer.field("location").expect("a place").to_owned()
}

fn post(proxy: &Proxy, path: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let mut admin = proxy.admin();
    admin.request("POST", path).host("localhost").body(body.as_bytes()).send()
}

fn eject(proxy: &Proxy, version: &str) -> Answer {
    post(proxy, &format!("/v1/services/{SERVICE}/eject"), &json!({ "version": version }))
}

fn get(proxy: &Proxy, path: &str) -> Value {
    let answer = proxy.admin().get(path).host("localhost").send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Pins of each version, in the order of the file.
fn pins(proxy: &Proxy) -> Vec<u64> {
    let pins = get(proxy, "/v1/pins");
    let versions = pins["services"][0]["versions"].as_array().expect("versions").clone();
    versions.iter().map(|version| version["pins"].as_u64().expect("a count")).collect()
}

fn state(proxy: &Proxy, version: usize) -> Value {
    get(proxy, &format!("/v1/services/{SERVICE}"))["versions"][version]["state"].clone()
}

#[test]
fn rounds_end_on_the_version_that_they_began_on_while_all_weight_moves_to_another() {
    let origins = [game("v41"), game("v42")];
    let proxy = builder(&origins, ROUNDS).start();
    let rounds: Vec<String> = (0..20).map(|_| begin(&proxy)).collect();
    assert_eq!((pins(&proxy), state(&proxy, 0)), (vec![20, 0], json!("serving")));
    let (stop, wrong) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let playing = rounds.chunks(10).map(|rounds| {
            let (proxy, stop, wrong) = (&proxy, &stop, &wrong);
            scope.spawn(move || {
                let mut client = proxy.connect();
                while !stop.load(SeqCst) {
                    for round in rounds {
                        let answer = client.get(&format!("{round}/state")).send();
                        let is_right = answer.text() == "v41";
                        wrong.fetch_add(u64::from(!is_right), SeqCst);
                    }
                }
            })
        });
        let playing: Vec<_> = playing.collect();
        for v42 in [1.0, 10.0, 50.0, 99.0, 100.0] {
            proxy.set_weights(&[("v41", 100.0 - v42), ("v42", v42)]);
            for _ in 0..10 {
                proxy.get("/other");
            }
        }
        stop.store(true, SeqCst);
        playing.into_iter().for_each(|player| player.join().expect("no panic"));
    });
    assert_eq!(wrong.load(SeqCst), 0, "answers of another version");
    // New rounds begin on the other version; the old one is drained by the ends of its rounds.
    let new = begin(&proxy);
    assert!(new.starts_with("/v1/rounds/v42-"), "{new}");
    assert_eq!((pins(&proxy), state(&proxy, 0)), (vec![20, 1], json!("draining")));
    for round in &rounds {
        let answer = proxy.connect().post(&format!("{round}/settle"), b"").send();
        assert_eq!(answer.text(), "v41");
    }
    assert_eq!((pins(&proxy), state(&proxy, 0)), (vec![0, 1], json!("idle")));
    assert_eq!(proxy.get(&format!("{}/state", rounds[0])).text(), "v42", "it has ended");
    let list = get(&proxy, &format!("/v1/pins?service={SERVICE}"));
    let service = &list["services"][0];
    let events = ["begun", "ended", "moved", "idle", "limit", "refused_full"];
    let events = events.map(|event| service["events"][event].as_u64());
    assert_eq!(events, [21, 20, 0, 0, 0, 0].map(Some));
    assert_eq!(
        (&service["most"], &service["idle_seconds"], &service["limit_seconds"]),
        (&json!(100_000), &json!(600), &json!(7_200))
    );
    let page = proxy.admin().get("/metrics").host("localhost").send();
    for line in [
        "tidegate_pins{service=\"game-api\",version=\"v42\"} 1",
        "tidegate_pins_oldest_seconds{service=\"game-api\",version=\"v41\"} 0",
        "tidegate_pins_total{service=\"game-api\",event=\"ended\"} 20",
    ] {
        assert!(page.text().contains(line), "{line}");
    }
}

#[test]
fn a_cutover_drains_pins_and_behind_a_fence_takes_them_with_it() {
    let origins = [game("v41"), game("v42")];
    let cut = |proxy: &Proxy, query: &str| {
        let path = format!("/v1/services/{SERVICE}/cutover{query}");
        let answer = post(proxy, &path, &json!({ "to": "v42" }));
        (answer.status, answer.text().to_owned())
    };
    let proxy = builder(&origins, ROUNDS).start();
    let round = begin(&proxy);
    let (status, text) = cut(&proxy, "?wait=drained&timeout=100ms");
    assert_eq!((status, text.contains("v41 still has 1 pin")), (504, true), "{text}");
    assert_eq!(proxy.connect().get(&format!("{round}/state")).send().text(), "v41");
    proxy.connect().post(&format!("{round}/settle"), b"{}").send();
    assert_eq!(pins(&proxy), [0, 0]);

    let proxy = builder(&origins, ROUNDS).service("fence: { required: true }").start();
    let round = begin(&proxy);
    assert_eq!(proxy.connect().get(&format!("{round}/state")).send().text(), "v41");
    let (status, text) = cut(&proxy, "?wait=drained");
    assert_eq!(status, 200, "{text}");
    assert_eq!(proxy.connect().post(&format!("{round}/bet"), b"{}").send().text(), "v42");
    assert_eq!(proxy.connect().get(&format!("{round}/state")).send().text(), "v42");
    assert_eq!(pins(&proxy), [0, 1]);
}

#[test]
fn an_ejection_moves_rounds_to_the_other_version_or_they_are_held() {
    for (on_eject, expected, counts) in [("move", "v42", [0, 1]), ("hold", "v41", [1, 0])] {
        let origins = [game("v41"), game("v42")];
        let pin = ROUNDS.replace("on_eject: move", &format!("on_eject: {on_eject}"));
        let builder = builder(&origins, &pin).service("weights: { v41: 1, v42: 1 }");
        let text = builder.text().replace("    weights: { v41: 1, v42: 0 }\n", "");
        let proxy = Proxy::start(&text);
        proxy.set_weights(&[("v41", 1.0)]);
        let round = begin(&proxy);
        proxy.set_weights(&[("v41", 1.0), ("v42", 1.0)]);
        assert_eq!(eject(&proxy, "v41").status, 200);
        for _ in 0..3 {
            assert_eq!(proxy.get(&format!("{round}/state")).text(), expected, "{on_eject}");
        }
        assert_eq!(pins(&proxy), counts, "{on_eject}");
        let moved = get(&proxy, "/v1/pins")["services"][0]["events"]["moved"].clone();
        assert_eq!(moved, json!(counts[1]));
    }
}

#[test]
fn rounds_leave_a_version_without_an_endpoint_that_works_even_if_they_are_held() {
    let origins = [game("v41"), game("v42")];
    let pin = ROUNDS.replace("on_eject: move", "on_eject: hold");
    let proxy = builder(&origins, &pin).start();
    let round = begin(&proxy);
    proxy.set_weights(&[("v42", 1.0)]);
    let path = format!("{round}/state");
    assert_eq!(proxy.get(&path).text(), "v41");
    let [old, _new] = origins;
    drop(old);
    eventually("the round goes on elsewhere", || {
        let answer = proxy.get(&path);
        answer.status == 201 && answer.text() == "v42"
    });
    assert_eq!(pins(&proxy), [0, 1]);
}

#[test]
fn a_player_is_pinned_at_once_with_the_first_of_many_requests() {
    let origins = [Origin::answering("v41"), Origin::answering("v42")];
    let pin = "pin: { key: [ \"header:x-player\", \"cookie:player\", \"query:player\" ], most: 2 }";
    let proxy = builder(&origins, pin).start();
    let ask = |player: &str| {
        let mut client = proxy.connect();
        client.get("/").header("X-Player", player).send().text().to_owned()
    };
    assert_eq!(ask("p1"), "v41");
    let cookie = || proxy.connect().get("/").header("Cookie", "a=b; player=p2").send();
    assert_eq!(cookie().text(), "v41");
    proxy.set_weights(&[("v42", 1.0)]);
    assert_eq!((ask("p1"), cookie().text()), ("v41".to_owned(), "v41"));
    assert_eq!(proxy.get("/?player=p1").text(), "v41", "the same player");
    assert_eq!(proxy.get("/").text(), "v42", "nobody");
    // There is no room for a third one, who follows the weights.
    assert_eq!(ask("p3"), "v42");
    proxy.set_weights(&[("v41", 1.0)]);
    assert_eq!(ask("p3"), "v41");
    assert_eq!(pins(&proxy), [2, 0]);
    let refused = get(&proxy, "/v1/pins")["services"][0]["events"]["refused_full"].clone();
    assert_eq!(refused, json!(2));
}

#[test]
fn players_of_many_connections_never_see_two_versions_while_weights_change() {
    let origins = [Origin::answering("v41"), Origin::answering("v42")];
    let proxy = builder(&origins, "pin: { key: \"header:x-player\" }").start();
    let stop = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (proxy, stop) = (&proxy, Arc::clone(&stop));
                scope.spawn(move || {
                    let mut client = proxy.connect();
                    let mut seen = Vec::new();
                    for n in 0_u32.. {
                        if stop.load(SeqCst) {
                            break;
                        }
                        let player = format!("p{}", n / 3);
                        let answer = client.get("/").header("X-Player", &player).send();
                        seen.push((player, answer.text().to_owned()));
                    }
                    seen
                })
            })
            .collect();
        for n in 0..100 {
            let (v41, v42) = if n % 2 == 0 { (0.0, 1.0) } else { (1.0, 0.0) };
            proxy.set_weights(&[("v41", v41), ("v42", v42)]);
            thread::yield_now();
        }
        stop.store(true, SeqCst);
        let mut versions = std::collections::HashMap::new();
        for client in clients {
            for (player, version) in client.join().expect("no panic") {
                let first = versions.entry(player.clone()).or_insert_with(|| version.clone());
                assert_eq!(*first, version, "{player}");
            }
        }
        assert!(!versions.is_empty());
    });
}

#[test]
fn pins_end_by_their_times_also_without_a_request() {
    let origins = [Origin::answering("v41"), Origin::answering("v42")];
    let pin = "pin: { key: \"header:x-player\", idle: 1s, limit: 2s }";
    let proxy = builder(&origins, pin).start();
    let ask = |player: &str| {
        let mut client = proxy.connect();
        client.get("/").header("X-Player", player).send().text().to_owned()
    };
    assert_eq!([ask("idle"), ask("busy")], ["v41", "v41"]);
    proxy.set_weights(&[("v42", 1.0)]);
    assert_eq!([ask("idle"), ask("busy")], ["v41", "v41"]);
    // The busy one is used until its limit.
    eventually("the limit ends a pin", || ask("busy") == "v42");
    eventually("silence ends a pin", || pins(&proxy)[0] == 0);
    let events = get(&proxy, "/v1/pins")["services"][0]["events"].clone();
    assert_eq!((&events["limit"], &events["idle"]), (&json!(1), &json!(1)));
    assert_eq!(state(&proxy, 0), "idle");
}

#[test]
fn a_field_of_the_answer_names_the_round_and_a_request_ends_it() {
    let version = |name: &'static str| {
        Origin::start(move |call| {
            call.skip_body()?;
            let status = if call.target().ends_with("/refused") { 409 } else { 200 };
            call.send(format!(
                "HTTP/1.1 {status} Told\r\nX-Round-Id: r-1\r\nContent-Length: 3\r\n\r\n{name}"
            ))
        })
    };
    let origins = [version("v41"), version("v42")];
    let pin = "pin: { key: \"path:round\", begin: { path: /start, answer: { header: X-Round-ID } }, \
        end: { path: \"/v1/rounds/{id}/end\", methods: [ POST ] } }";
    let proxy = builder(&origins, pin).start();
    assert_eq!(proxy.get("/v1/rounds/r-1/state").text(), "v41");
    assert_eq!(pins(&proxy), [0, 0], "it has not begun");
    proxy.get("/start");
    proxy.set_weights(&[("v42", 1.0)]);
    assert_eq!(proxy.get("/v1/rounds/r-1/state").text(), "v41");
    assert_eq!(proxy.get("/v1/rounds/r-1/end").text(), "v41", "a GET ends nothing");
    assert_eq!(proxy.connect().post("/v1/rounds/r-1/end", b"").send().text(), "v41");
    assert_eq!((pins(&proxy), proxy.get("/v1/rounds/r-1/state").text()), (vec![0, 0], "v42"));
}

#[test]
fn pinned_requests_are_no_evidence_and_the_log_names_the_pin() {
    let origins = [game("v41"), game("v42")];
    let pin = ROUNDS;
    let builder = builder(&origins, pin)
        .service("eject: { errors: { absolute: 1% } }")
        .top("access_log: { path: /dev/null }");
    let proxy = builder.start();
    let round = begin(&proxy);
    let attempts = |proxy: &Proxy| {
        let snapshot = proxy.snapshot();
        let endpoint = &snapshot.services[0].versions[0].endpoints[0];
        endpoint.attempts().trials
    };
    eventually("the begin is evidence, since chance chose its version", || attempts(&proxy) == 1);
    for _ in 0..5 {
        proxy.get(&format!("{round}/state"));
    }
    proxy.get("/other");
    // It comes last.
    eventually("others are evidence", || attempts(&proxy) == 2);
    assert_eq!(proxy.snapshot().services[0].versions[0].state.started(), 7);
}

#[test]
fn a_reload_keeps_pins_and_may_take_their_version_away() {
    let origins = [game("v41"), game("v42")];
    let builder = builder(&origins, ROUNDS);
    let proxy = builder.start_with_file();
    let round = begin(&proxy);
    let path = format!("{round}/state");
    // All weight moves by the file, and so does a limit.
    let moved = builder.text().replace("{ v41: 1, v42: 0 }", "{ v41: 0, v42: 1 }");
    let moved = moved.replace("limit: 2h", "limit: 3h");
    proxy.write(&moved);
    eventually("the file is read", || proxy.reloads().0 == 1);
    assert_eq!((proxy.get(&path).text(), pins(&proxy)), ("v41", vec![1, 0]));
    let line = format!("      v41: {{ endpoints: [ \"{}\" ] }}\n", origins[0].address);
    assert!(moved.contains(&line), "{moved}");
    let alone = moved.replace(&line, "").replace("{ v41: 0, v42: 1 }", "{ v42: 1 }");
    proxy.write(&alone.replace("baseline: v41", "baseline: v42"));
    eventually("the file is read", || proxy.reloads().0 == 2);
    let list = get(&proxy, "/v1/pins")["services"][0]["versions"].clone();
    assert_eq!(
        (&list[1]["version"], &list[1]["in_file"], &list[1]["pins"]),
        (&json!("v41"), &json!(false), &json!(1))
    );
    assert_eq!((proxy.get(&path).text(), pins(&proxy)), ("v42", vec![1]));
}

/// The limit of the issue is 30 MB for 100,000 pins.
#[test]
fn a_hundred_thousand_pins_take_less_than_ten_megabytes_also_while_the_table_grows() {
    let table = tidegate::registry::PinTable::default();
    let version = table.version("v41").number;
    let counted = allocation_counter::measure(|| {
        for n in 0..100_000_u32 {
            let key = tidegate::registry::PinKey::of(format!("round-{n}").as_bytes());
            assert_eq!(table.begin(key, version, 1_000, 100_000), Some(version));
        }
    });
    assert_eq!((table.len(), table.version("v41").live()), (100_000, 100_000));
    assert!((3_000_000..10_000_000).contains(&counted.bytes_current), "{counted:?}");
    assert!(counted.bytes_max < 15_000_000, "{counted:?}");
}

#[test]
fn the_api_and_the_command_line_show_pins_or_say_what_is_missing() {
    let origins = [game("v41"), game("v42")];
    let proxy = builder(&origins, ROUNDS).start();
    begin(&proxy);
    let answer = proxy.admin().get("/v1/pins?service=none").host("localhost").send();
    let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
    assert_eq!(answer.status, 404);
    assert_eq!(detail, "there is no service `none`; these have: `game-api`");
    let admin = format!("http://{}", proxy.admin_address());
    let mut command = crate::support::process::program();
    let output = command.args(["pins", SERVICE, "--admin", &admin]).output().expect("it runs");
    let shown = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{shown}");
    let row = shown.lines().nth(1).expect("a row");
    let words: Vec<_> = row.split_whitespace().collect();
    assert_eq!(words[..3], ["game-api", "v41", "1"], "{shown}");
    assert!(shown.contains("an ejection moves them"), "{shown}");
}

fn move_pins(proxy: &Proxy, from: &str, to: &str) -> (u16, Value) {
    let body = json!({ "service": SERVICE, "from": from, "to": to, "reason": "it loses rounds" });
    let answer = post(proxy, "/v1/pins/move", &body);
    (answer.status, answer.json())
}

#[test]
fn an_operator_moves_the_pins_of_a_version() {
    let origins = [game("v41"), game("v42")];
    let proxy = builder(&origins, ROUNDS).start();
    let rounds: Vec<String> = (0..5).map(|_| begin(&proxy)).collect();
    for (from, to, status, field) in
        [("v9", "v42", 422, "from"), ("v41", "v9", 422, "to"), ("v41", "v41", 409, "to")]
    {
        let (got, problem) = move_pins(&proxy, from, to);
        assert_eq!((got, &problem["field"]), (status, &json!(field)), "{problem}");
    }
    let body = json!({ "service": SERVICE, "from": "v41", "to": "v42" });
    let preview = post(&proxy, "/v1/pins/move?dry_run=true", &body).json();
    assert_eq!((&preview["moved"], &preview["dry_run"]), (&json!(5), &json!(true)));
    assert_eq!(pins(&proxy), [5, 0]);
    let admin = format!("http://{}", proxy.admin_address());
    let mut command = crate::support::process::program();
    let arguments = ["pins", "move", SERVICE, "v41", "v42", "--reason", "it loses rounds"];
    let output = command.args(arguments).args(["--admin", &admin]).output().expect("it runs");
    let shown = String::from_utf8(output.stdout).expect("text");
    assert_eq!(shown, "game-api: moved 5 pins of v41 to v42 (generation 2)\n");
    assert_eq!(pins(&proxy), [0, 5]);
    assert!(rounds.iter().all(|round| proxy.get(&format!("{round}/state")).text() == "v42"));
    // What begins later begins by weight.
    thread::sleep(std::time::Duration::from_millis(1_100));
    let new = begin(&proxy);
    assert_eq!(proxy.get(&format!("{new}/state")).text(), "v41");
    assert_eq!(eject(&proxy, "v42").status, 200);
    let (status, problem) = move_pins(&proxy, "v41", "v42");
    assert_eq!(status, 409);
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains("`v42` is ejected"), "{detail}");
    let without = Proxy::builder().version("v41", &origins[0]);
    let without = without.top("admin: { address: \"127.0.0.1:0\" }").start();
    let (status, problem) = move_pins(&without, "v41", "v42");
    assert_eq!((status, &problem["field"]), (409, &json!("service")));
}
