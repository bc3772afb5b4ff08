//! Pins that clients keep in a signed cookie.

use std::fs;

use tempfile::TempDir;

use super::*;

const FIRST: &str = "0123456789abcdef0123456789abcdef";
const SECOND: &str = "fedcba9876543210fedcba9876543210";

/// Answers with the version's name, and with the cookies that it got.
fn version(name: &'static str) -> Origin {
    Origin::start(move |call| {
        call.skip_body()?;
        let cookies = call.head.field("cookie").unwrap_or("none").to_owned();
        let state = if call.target() == "/end" { "settled" } else { "open" };
        call.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Cookies: {cookies}\r\nX-Round-State: {state}\r\n\r\n{name}",
            name.len()
        ))
    })
}

struct Stage {
    proxy: Proxy,
    folder: TempDir,
    text: String,
    _origins: [Origin; 2],
}

/// `keys` are files of the folder; the first one signs.
fn pin(folder: &TempDir, keys: &[&str], more: &str) -> String {
    let key = |id: &&str| format!("{{ id: {id}, file: '{}' }}", folder.path().join(id).display());
    let keys: Vec<String> = keys.iter().map(key).collect();
    format!("pin: {{ cookie: {{ keys: [ {} ] }}, {more} }}", keys.join(", "))
}

fn stage(more: &str) -> Stage {
    let folder = TempDir::new().expect("a folder");
    fs::write(folder.path().join("k1"), FIRST).expect("a file");
    fs::write(folder.path().join("k2"), SECOND).expect("a file");
    let origins = [version("v41"), version("v42")];
    let text = builder(&origins, &pin(&folder, &["k1"], more)).text();
    Stage { proxy: Proxy::start_with_file(&text), folder, text, _origins: origins }
}

/// Asks with `cookie`; returns the answer and the cookie that came with it.
fn ask(proxy: &Proxy, path: &str, cookie: &str) -> (Answer, Option<String>) {
    let mut client = proxy.connect();
    let answer = client.get(path).header("Cookie", cookie).send();
    let set = answer.field("set-cookie").map(str::to_owned);
    (answer, set)
}

fn value(set: &str) -> String {
    set.split(';').next().expect("a value").to_owned()
}

fn events(proxy: &Proxy, event: &str) -> Value {
    get(proxy, "/v1/pins")["services"][0]["events"][event].clone()
}

#[test]
fn a_client_keeps_its_version_and_the_version_never_sees_the_cookie() {
    let stage =
        stage("end: { answer: { header: x-round-state, is: settled } }, idle: 10m, limit: 2h");
    let proxy = &stage.proxy;
    let (answer, set) = ask(proxy, "/", "a=b");
    let set = set.expect("a cookie");
    assert_eq!(answer.text(), "v41");
    assert!(set.starts_with("tg-pin=1~k1~"), "{set}");
    assert!(set.ends_with("; Path=/; Max-Age=7200; HttpOnly; SameSite=Lax"), "{set}");
    proxy.set_weights(&[("v42", 1.0)]);
    let cookie = value(&set);
    let (answer, again) = ask(proxy, "/", &format!("a=b; {cookie}; c=d"));
    assert_eq!((answer.text(), again), ("v41", None), "it is fresh");
    assert_eq!(answer.field("x-cookies"), Some("a=b; c=d"));
    let (answer, _) = ask(proxy, "/", &cookie);
    assert_eq!(answer.field("x-cookies"), Some("none"));
    // Nobody counts cookies, but the drain waits for those that were seen.
    let pins = get(proxy, "/v1/pins")["services"][0].clone();
    assert_eq!((&pins["kept_by"], &pins["pins"]), (&json!("cookie"), &Value::Null));
    let left = pins["versions"][0]["cookies_end_in_seconds"].as_u64().expect("a time");
    assert!((600..=750).contains(&left), "{left}");
    assert_eq!(state(proxy, 0), "draining");
    let (answer, end) = ask(proxy, "/end", &cookie);
    assert_eq!(answer.text(), "v41");
    assert_eq!(end.as_deref(), Some("tg-pin=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"));
    let (answer, new) = ask(proxy, "/", "tg-pin=");
    assert_eq!(answer.text(), "v42");
    assert!(new.is_some_and(|new| new.contains("~v42~")));
}

#[test]
fn forged_and_foreign_cookies_are_ignored_counted_and_not_passed_on() {
    let stage = stage("idle: 10m");
    let proxy = &stage.proxy;
    let (_, set) = ask(proxy, "/", "a=b");
    let good = value(&set.expect("a cookie"));
    proxy.set_weights(&[("v42", 1.0)]);
    let forged = good.replace("~v41~", "~v42~");
    let later = good.replacen("~k1~1", "~k1~2", 1);
    let unknown = good.replace("~k1~", "~k9~");
    for bad in [
        &*forged,
        &later,
        &unknown,
        "tg-pin=x",
        "tg-pin=1~k1~1~1~v41~AAAA",
        &good[..good.len() - 1],
    ] {
        let (answer, set) = ask(proxy, "/", bad);
        assert_eq!((answer.text(), answer.field("x-cookies")), ("v42", Some("none")), "{bad}");
        assert!(set.is_some_and(|set| set.contains("~v42~")), "{bad}: a new one");
    }
    assert_eq!(events(proxy, "cookie_rejected"), json!(6));
    assert_eq!(ask(proxy, "/", &good).0.text(), "v41");
}

#[test]
fn keys_rotate_by_a_reload_and_cookies_of_earlier_keys_stay_good() {
    let stage = stage("idle: 10m");
    let Stage { proxy, folder, text, .. } = &stage;
    let (_, set) = ask(proxy, "/", "a=b");
    let old = value(&set.expect("a cookie"));
    proxy.set_weights(&[("v42", 1.0)]);
    let (before, both) =
        (pin(folder, &["k1"], "idle: 10m"), pin(folder, &["k2", "k1"], "idle: 10m"));
    assert!(text.contains(&before));
    let text = text.replace(&before, &both);
    proxy.write(&text);
    eventually("the file is read", || proxy.reloads().0 == 1);
    assert_eq!(ask(proxy, "/", &old).0.text(), "v41");
    let (_, set) = ask(proxy, "/", "a=b");
    assert!(set.is_some_and(|set| set.starts_with("tg-pin=1~k2~")), "the new key signs");
    // The first key goes; so do its cookies.
    let alone = pin(folder, &["k2"], "idle: 10m");
    proxy.write(&text.replace(&both, &alone));
    eventually("the file is read", || proxy.reloads().0 == 2);
    assert_eq!(ask(proxy, "/", &old).0.text(), "v42");
    // A key that is not there changes nothing.
    fs::remove_file(folder.path().join("k2")).expect("a file");
    proxy.app().reload();
    assert_eq!(proxy.reloads(), (2, 1));
    fs::write(folder.path().join("k2"), FIRST).expect("a file");
    proxy.app().reload();
    assert_eq!(proxy.reloads(), (3, 1), "another key with the same name is in force");
}

#[test]
fn cookies_end_by_their_times_and_move_with_an_ejection() {
    let stage = stage("idle: 1s, limit: 3s");
    let proxy = &stage.proxy;
    let (_, set) = ask(proxy, "/", "a=b");
    let mut cookie = value(&set.expect("a cookie"));
    let idle = cookie.clone();
    proxy.set_weights(&[("v42", 1.0)]);
    // It is renewed while it is used, until its limit.
    let mut renewed = 0;
    eventually("the limit ends it", || {
        let (answer, set) = ask(proxy, "/", &cookie);
        if let Some(set) = set {
            cookie = value(&set);
            renewed += 1;
        }
        answer.text() == "v42"
    });
    assert!(renewed >= 2, "{renewed}");
    assert_eq!(events(proxy, "limit"), json!(1));
    assert_eq!(ask(proxy, "/", &idle).0.text(), "v42");
    let (_, set) = ask(proxy, "/", "a=b");
    let cookie = value(&set.expect("a cookie"));
    proxy.set_weights(&[("v41", 1.0), ("v42", 1.0)]);
    assert_eq!(eject(proxy, "v42").status, 200);
    let (answer, set) = ask(proxy, "/", &cookie);
    assert_eq!(answer.text(), "v41");
    let moved = set.expect("the new version");
    assert!(moved.contains("~v41~"), "{moved}");
    assert_eq!(events(proxy, "moved"), json!(1));
}

#[test]
fn an_operator_moves_clients_with_cookies_that_were_made_before() {
    let stage = stage("idle: 10m");
    let proxy = &stage.proxy;
    let (_, set) = ask(proxy, "/", "a=b");
    let cookie = value(&set.expect("a cookie"));
    let (status, answer) = move_pins(proxy, "v41", "v42");
    assert_eq!((status, &answer["moved"]), (200, &Value::Null));
    assert!(answer["until"].is_string(), "{answer}");
    let (answer, set) = ask(proxy, "/", &cookie);
    assert_eq!(answer.text(), "v42");
    let moved = value(&set.expect("a cookie of the new version"));
    assert!(moved.contains("~v42~"), "{moved}");
    assert_eq!(ask(proxy, "/", &moved).0.text(), "v42");
    assert_eq!(events(proxy, "forced"), json!(1));
    // What began later is another matter.
    thread::sleep(std::time::Duration::from_millis(2_100));
    let (answer, set) = ask(proxy, "/", "a=b");
    assert_eq!(answer.text(), "v41");
    assert_eq!(ask(proxy, "/", &value(&set.expect("a cookie"))).0.text(), "v41");
}
