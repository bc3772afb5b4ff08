//! A file of keys that is removed while it is in use, a clock that is wrong, and files that make keys unknown.

use rustix::process::Signal;

use super::*;

fn database(folder: &TempDir) -> rusqlite::Connection {
    let path = folder.path().join("state/idempotency.db");
    rusqlite::Connection::open(path).expect("a database")
}

fn in_folder(origin: &Origin, folder: &TempDir) -> Builder {
    let state = folder.path().join("state");
    keyed(origin, "window: 1h")
        .top(&format!("state: {}", state.display()))
        .top("admin: { address: \"127.0.0.1:0\" }")
}

/// What the admin endpoint shows of the families of idempotency keys.
fn metrics(proxy: &Proxy) -> String {
    proxy.admin().get("/metrics").host("localhost").send().text().to_owned()
}

/// Reasons of the events of that kind.
fn told(proxy: &Proxy, kind: &str) -> Vec<String> {
    let controller = proxy.controller();
    let events = controller.events().since(0).filter(|event| event.kind.label() == kind);
    events.map(|event| event.matter.reason.clone()).collect()
}

/// `idempotency.db` and what is beside it: removed as somebody does who wants space, or thinks of a fresh start.
#[test]
fn a_file_of_keys_that_is_removed_forgets_none_and_is_told() {
    let ledger = Ledger::default();
    let origin = bookkeeper(&ledger);
    let folder = TempDir::new().expect("a folder");
    let text = in_folder(&origin, &folder);
    let proxy = text.start();
    assert_eq!(post(&mut proxy.connect(), "before", b"x").status, 201);
    // How it ended is on the disk within 20 ms.
    thread::sleep(Duration::from_millis(200));
    for end in ["", "-wal", "-shm"] {
        let path = folder.path().join(format!("state/idempotency.db{end}"));
        std::fs::remove_file(path).expect("it is there");
    }
    assert!(replayed(&post(&mut proxy.connect(), "before", b"x")));
    assert_eq!(post(&mut proxy.connect(), "after", b"x").text(), "processed 1");
    eventually("it is told", || told(&proxy, "idempotency_moved").len() == 1);
    let page = metrics(&proxy);
    assert!(page.contains("tidegate_idempotency_moved_total 1"), "{page}");
    assert!(page.contains("tidegate_idempotency_failing 0"), "{page}");
    proxy.shutdown();
    let proxy = text.start();
    for key in ["before", "after"] {
        assert!(replayed(&post(&mut proxy.connect(), key, b"x")), "{key}");
    }
    assert_eq!(ledger.twice(), Vec::<String>::new());
}

#[test]
fn a_folder_of_keys_that_is_moved_away_refuses_writes_with_a_key_until_it_is_back() {
    let ledger = Ledger::default();
    let origin = bookkeeper(&ledger);
    let folder = TempDir::new().expect("a folder");
    let proxy = in_folder(&origin, &folder).start();
    assert_eq!(post(&mut proxy.connect(), "k", b"x").status, 201);
    let (state, away) = (folder.path().join("state"), folder.path().join("away"));
    std::fs::rename(&state, &away).expect("a folder");
    let refused = post(&mut proxy.connect(), "new", b"x");
    assert_eq!((refused.status, refused.kind()), (503, "idempotency_store".to_owned()));
    assert!(metrics(&proxy).contains("tidegate_idempotency_failing 1"));
    eventually("it is an event", || told(&proxy, "idempotency_failing").len() == 1);
    std::fs::rename(&away, &state).expect("a folder");
    // Nobody asks for a key meanwhile.
    eventually("it is over", || told(&proxy, "idempotency_works").len() == 1);
    assert!(metrics(&proxy).contains("tidegate_idempotency_failing 0"));
    assert!(replayed(&post(&mut proxy.connect(), "k", b"x")));
    assert_eq!(post(&mut proxy.connect(), "new", b"x").text(), "processed 1");
}

/// The served time was left long before or after the clock's: by a clock that was wrong at the start, or was set since.
#[test]
fn keys_outlive_a_clock_that_is_wrong_restarts_and_takeovers() {
    for ms in [86_400_000_i64, 4_000_000_000_000] {
        let ledger = Ledger::default();
        let origin = bookkeeper(&ledger);
        let folder = TempDir::new().expect("a folder");
        let text = in_folder(&origin, &folder);
        let mut process = text.spawn();
        assert_eq!(post(&mut process.connect(), "first", b"x").status, 201);
        process.signal(Signal::KILL);
        process.wait();
        // As after a boot of the machine.
        let left = "UPDATE served SET ms = ?1, boot = 'an earlier one'";
        assert_eq!(database(&folder).execute(left, [ms]).expect("a row"), 1);
        let process = text.spawn();
        assert_eq!(post(&mut process.connect(), "k", b"x").text(), "processed 1");
        // What forgets keys has looked at them.
        thread::sleep(Duration::from_millis(1_300));
        process.signal(Signal::USR2);
        eventually("the new process serves", || process.pids().len() == 2);
        assert!(replayed(&post(&mut process.connect(), "k", b"x")), "{ms}: after a takeover");
        thread::sleep(Duration::from_millis(1_300));
        assert!(replayed(&post(&mut process.connect(), "k", b"x")), "{ms}");
        assert_eq!(ledger.times("k"), 1);
    }
}

#[test]
fn a_file_that_takes_keys_from_their_route_says_so_and_gives_them_back_with_the_policy() {
    let ledger = Ledger::default();
    let origin = bookkeeper(&ledger);
    let proxy = keyed(&origin, "").start_with_file();
    assert_eq!(post(&mut proxy.connect(), "k", b"x").status, 201);
    let without = Proxy::builder()
        .version("v1", &origin)
        .service("cohort: { key: [ \"header:x-player\" ] }")
        .route("name: bet");
    proxy.write(&without.text());
    eventually("it is told", || told(&proxy, "idempotency_forgotten").len() == 1);
    let reason = told(&proxy, "idempotency_forgotten").remove(0);
    assert!(reason.contains("route `bet` has no `idempotency` any more"), "{reason}");
    assert!(reason.contains("its 1 idempotency keys are not known to it"), "{reason}");
    eventually("the event of the file says so, too", || {
        told(&proxy, "configuration").iter().any(|told| told.contains(&reason))
    });
    proxy.write(&keyed(&origin, "").text());
    eventually("it is in force", || proxy.reloads().0 == 2);
    assert!(replayed(&post(&mut proxy.connect(), "k", b"x")), "it is known again");
    assert_eq!(ledger.times("k"), 1);
}
