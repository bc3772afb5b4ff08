//! Minutes of a busy day in seconds: two real NGINX backends, clients that never stop, and a change of
//! weights or of the file every 100 ms. No request fails, and no player moves whom the weights did not
//! move.
//!
//! `TIDEGATE_SOAK_SECONDS` says how long; 5 by default.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use tidegate::{config::units::Weight, routing::Split};

use crate::support::{Proxy, SetOnDrop, lacks, nginx::Nginx, proxy::Builder};

const CLIENTS: usize = 6;
const PLAYERS: u64 = 5000;
const CHANGE_EVERY: Duration = Duration::from_millis(100);
const SALT: &str = "soak";

/// Every split that was ever in force, by the number of its change, and how far changes are.
struct History {
    splits: Mutex<Vec<Split>>,
    /// Number of the last change that was begun, and of the last that was acknowledged.
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

impl History {
    fn starting_with(weights: [f64; 2]) -> Self {
        let splits = Mutex::new(vec![split(weights)]);
        Self { splits, begun: AtomicU64::new(0), acknowledged: AtomicU64::new(0) }
    }

    /// Changes the weights by `change`, which returns once they are in force.
    fn change(&self, weights: [f64; 2], change: impl FnOnce()) {
        self.splits.lock().expect("no panic").push(split(weights));
        let number = self.begun.fetch_add(1, SeqCst) + 1;
        change();
        self.acknowledged.store(number, SeqCst);
    }

    /// Whether `version` is right for `player` by a split that was in force since change `since`.
    fn allows(&self, player: &str, version: &str, since: u64) -> bool {
        let until = self.begun.load(SeqCst);
        let splits = self.splits.lock().expect("no panic");
        let expected = |split: &Split| split.assign(player.as_bytes()).expect("a version");
        let names = splits[since as usize..=until as usize].iter().map(expected);
        names.into_iter().any(|number| ["v1", "v2"][usize::from(number)] == version)
    }
}

fn split(weights: [f64; 2]) -> Split {
    let weights = weights.map(|w| Weight::new(w).expect("a weight"));
    Split::new(SALT, ["v1", "v2"].into_iter().zip(weights))
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    failed: AtomicU64,
    moved: AtomicU64,
}

/// One client: a connection, and a player per request.
fn play(proxy: &Proxy, history: &History, counts: &Counts, ended: &AtomicBool) {
    let mut client = proxy.connect();
    while !ended.load(SeqCst) {
        let player = format!("player-{}", fastrand::u64(..PLAYERS));
        let since = history.acknowledged.load(SeqCst);
        let answer = client.get("/").header("X-Player", &player).try_send();
        counts.requests.fetch_add(1, SeqCst);
        match answer {
            Ok(answer) if answer.status == 200 => {
                if !history.allows(&player, answer.text(), since) {
                    counts.moved.fetch_add(1, SeqCst);
                }
            }
            failed => {
                println!("failed: {failed:?}");
                counts.failed.fetch_add(1, SeqCst);
                client = proxy.connect();
            }
        }
    }
}

/// The file after change number `number`: other routes, the same weights.
fn file(builder: &Builder, number: u64) -> String {
    let many = (0..number % 20).fold(builder.clone(), |builder, n| {
        builder.route(&format!("match: {{ path: /extra-{n}/* }}"))
    });
    many.route("name: rest").text()
}

#[test]
fn nothing_fails_and_nobody_moves_while_weights_and_files_change() {
    if lacks("nginx", "nginx-light") {
        return;
    }
    let seconds = std::env::var("TIDEGATE_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let duration = Duration::from_secs(seconds.unwrap_or(5));
    // Few requests per connection, so that kept connections end all the time.
    let few = "keepalive_requests 500; keepalive_timeout 1s;";
    let backend = |name| Nginx::start(few, &format!("location / {{ return 200 \"{name}\"; }}"));
    let backends = ["v1", "v2"].map(backend);
    let builder = Proxy::builder()
        .workers(2)
        .version_at("v1", &[backends[0].address])
        .version_at("v2", &[backends[1].address])
        .service("weights: { v1: 95, v2: 5 }")
        .service(&format!("cohort: {{ key: [ \"header:x-player\" ], salt: {SALT} }}"));
    let proxy = Proxy::start_with_file(&file(&builder, 0));
    let (history, counts) = (History::starting_with([95.0, 5.0]), Counts::default());
    let ended = AtomicBool::new(false);
    let mut changes = 0;
    thread::scope(|scope| {
        let _end = SetOnDrop(&ended);
        for _ in 0..CLIENTS {
            scope.spawn(|| play(&proxy, &history, &counts, &ended));
        }
        let end = Instant::now() + duration;
        while Instant::now() < end {
            changes += 1;
            if changes % 2 == 0 {
                proxy.write(&file(&builder, changes));
            } else {
                let canary = fastrand::u32(0..=100).into();
                let weights = [100.0 - canary, canary];
                history.change(weights, || {
                    proxy.set_weights(&[("v1", weights[0]), ("v2", weights[1])]);
                });
            }
            // The pace of changes, not a wait for one.
            thread::sleep(CHANGE_EVERY);
        }
    });
    let [requests, failed, moved] =
        [&counts.requests, &counts.failed, &counts.moved].map(|count| count.load(SeqCst));
    let (reloads, refused) = proxy.reloads();
    println!(
        "{requests} requests, {failed} failed, {moved} players moved; {changes} changes, {reloads} reloads"
    );
    assert_eq!((failed, moved, refused), (0, 0, 0));
    assert!(requests > 100 && changes > 10 && reloads > 1, "too little happened");
}
