//! What the control plane does beside: canaries are judged at the same pace meanwhile.

use std::{
    fmt::Write as _,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use tidegate::registry::Outcomes;

use crate::support::{Origin, Proxy, SetOnDrop, eventually, proxy::SERVICE};

/// Many, so that a page of metrics or a snapshot takes a second or so in a program that is not optimized.
const ROUTES: usize = 8000;

/// More than a look is late on a busy machine.
const LATE: Duration = Duration::from_millis(250);

/// A canary is looked at every 10 ms. Scrapes, reloads and messages to receivers took as long as they liked
/// on the same thread, or while they held what a look needs.
#[test]
fn scrapes_reloads_and_slow_receivers_hold_up_no_look_at_a_canary() {
    let origins = [Origin::answering("v1"), Origin::answering("v2"), Origin::answering("v3")];
    // Takes connections into its queue, and never says anything.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let receiver = silent.local_addr().expect("bound");
    let text = |marker: usize| {
        let builder = Proxy::builder().version("v1", &origins[0]).version("v2", &origins[1]);
        let builder = builder.version("v3", &origins[2]).service("weights: { v1: 90, v2: 10 }");
        let builder = builder.service("eject: { errors: { absolute: 1% } }");
        let builder = builder.top("admin: { address: \"127.0.0.1:0\" }");
        let alerts = format!("webhooks: [ {{ url: 'https://{receiver}/' }} ], timeout: 1s");
        let mut text = builder.top(&format!("alerts: {{ {alerts} }}")).text();
        for n in 0..ROUTES {
            let path = format!("/game-{n}/{marker}");
            writeln!(text, "  - {{ service: {SERVICE}, match: {{ path: \"{path}\" }} }}")
                .expect("memory");
        }
        text
    };
    let proxy = Proxy::start_with_file(&text(0));
    let mut admin = proxy.admin();
    let eject = format!("/v1/services/{SERVICE}/eject");
    let eject = admin.post(&eject, br#"{"version":"v3"}"#).host("localhost");
    assert_eq!(eject.header("Content-Type", "application/json").send().status, 200);
    let compared = proxy.snapshot().services[0].compared.clone().expect("they are compared");
    let (ended, scrapes) = (AtomicBool::new(false), AtomicUsize::new(0));
    let longest = thread::scope(|scope| {
        let _end = SetOnDrop(&ended);
        let pace = scope.spawn(|| longest_pause(&compared.outcomes, &ended));
        for _ in 0..2 {
            scope.spawn(|| {
                while !ended.load(SeqCst) {
                    let page = proxy.admin().get("/metrics").host("localhost").send();
                    assert_eq!(page.status, 200);
                    scrapes.fetch_add(1, SeqCst);
                }
            });
        }
        for marker in 1..=3 {
            proxy.write(&text(marker));
            eventually("it is reloaded", || proxy.reloads().0 == marker as u64);
        }
        eventually("metrics were scraped", || scrapes.load(SeqCst) > 3);
        eventually("the receiver was asked", || {
            proxy.controller().webhooks().values().any(|n| n[1] > 0)
        });
        ended.store(true, SeqCst);
        pace.join().expect("no panic")
    });
    println!("longest pause between two looks: {longest:?}");
    assert!(longest < LATE, "{longest:?} passed between two looks");
}

/// The longest time without a look until all has `ended`.
fn longest_pause(outcomes: &Arc<Outcomes>, ended: &AtomicBool) -> Duration {
    let (mut look, mut at, mut longest) = (outcomes.look(), Instant::now(), Duration::ZERO);
    while !ended.load(SeqCst) {
        // The pace at which the looks are watched, not a wait for one.
        thread::sleep(Duration::from_micros(500));
        let (now, newer) = (Instant::now(), outcomes.look());
        longest = longest.max(now - at);
        if newer != look {
            (look, at) = (newer, now);
        }
    }
    longest
}
