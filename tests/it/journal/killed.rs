//! `kill -9` at random moments under a stream of changes of several callers.
//!
//! Each caller changes the weights of a service of its own, to a number that grows. So after a kill the state
//! must have the last number that was acknowledged to it, or the one that it had sent and got no answer to.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::*;

/// Callers, and so services.
const CALLERS: usize = 4;

/// Rounds, unless `TIDEGATE_KILLS` gives another number.
const ROUNDS: u32 = 20;

/// Longest time of a round from its first change to the kill.
const MOST_MS: u64 = 150;

/// What became of the changes of a caller.
#[derive(Debug, Clone, Copy)]
struct Told {
    sent: u64,
    acknowledged: u64,
}

fn text(address: SocketAddr, admin: SocketAddr, state: &Path, origin: &Origin) -> String {
    let endpoint = origin.address;
    let services: String = (0..CALLERS)
        .map(|n| {
            format!(
                "  s{n}: {{ baseline: v1, weights: {{ v1: 1, v2: 1 }}, versions: {{ v1: {{ endpoints: [ {endpoint} ] }}, \
                 v2: {{ endpoints: [ {endpoint} ] }} }} }}\n"
            )
        })
        .collect();
    let routes: String = (0..CALLERS)
        .map(|n| format!("  - {{ match: {{ path: /s{n} }}, service: s{n} }}\n"))
        .collect();
    format!(
        "workers: 1\nlisten: [ {{ address: \"{address}\" }} ]\nadmin: {{ address: \"{admin}\" }}\n\
         state: '{}'\nservices:\n{services}routes:\n{routes}",
        state.display()
    )
}

/// Changes the weights of service `n` until the process is gone.
fn change(mut client: Client, n: usize, mut told: Told) -> Told {
    let path = format!("/v1/services/s{n}/weights");
    loop {
        let next = told.sent + 1;
        let body = json!({ "weights": { "v1": next, "v2": 1 } }).to_string();
        told.sent = next;
        let answer =
            client.request("PUT", &path).host("localhost").body(body.as_bytes()).try_send();
        match answer {
            Ok(answer) if answer.status == 200 => told.acknowledged = next,
            Ok(answer) => panic!("{answer:?}"),
            Err(_) => return told,
        }
    }
}

#[test]
fn every_change_acknowledged_is_there_after_a_kill_and_none_is_half_done() {
    let origin = Origin::answering("ok");
    let folder = TempDir::new().expect("a folder");
    let (state, address, admin) = (folder.path().join("state"), free_address(), free_address());
    let text = text(address, admin, &state, &origin);
    let rounds = std::env::var("TIDEGATE_KILLS").ok().and_then(|text| text.parse().ok());
    let start = || {
        let process = Process::spawn_at(address, &text);
        serves(admin);
        process
    };
    let mut told = [Told { sent: 1, acknowledged: 0 }; CALLERS];
    let mut changes = 0;
    for round in 0..rounds.unwrap_or(ROUNDS) {
        let mut process = start();
        let shown = Client::connect(admin).get("/v1/services").host("localhost").send().json();
        for (n, Told { sent, acknowledged }) in told.iter_mut().enumerate() {
            let shown = shown["services"][n]["versions"][0]["weight"].as_f64().expect("a number");
            let shown = shown as u64;
            assert!(
                (*acknowledged..=*sent).contains(&shown),
                "round {round}: s{n} has {shown}; {acknowledged} was acknowledged, {sent} was sent"
            );
            // From here on this is what it is.
            *acknowledged = shown;
        }
        thread::scope(|scope| {
            // The kill may come before a thread has begun.
            let clients = told.map(|_| Client::connect(admin));
            let callers: Vec<_> = told
                .into_iter()
                .zip(clients)
                .enumerate()
                .map(|(n, (told, client))| scope.spawn(move || change(client, n, told)))
                .collect();
            thread::sleep(Duration::from_millis(fastrand::u64(1..=MOST_MS)));
            process.signal(Signal::KILL);
            for (caller, told) in callers.into_iter().zip(&mut told) {
                let before = told.acknowledged;
                *told = caller.join().expect("no panic");
                changes += told.acknowledged - before.min(told.acknowledged);
            }
        });
        process.wait();
        let read = Instant::now();
        check(&state, &told, round);
        assert!(read.elapsed() < Duration::from_secs(30));
    }
    println!("measured: {changes} changes acknowledged");
    assert!(changes > u64::from(ROUNDS), "only {changes} changes were acknowledged");
}

/// Every change acknowledged is an entry, the state is what the last entry of each service says, and the chain
/// verifies.
fn check(state: &Path, told: &[Told; CALLERS], round: u32) {
    // As after any kill, the next process reads the log of the database first; a reader does so, too.
    verify(state);
    let reader = Reader::open(state).expect("a journal");
    let rows = reader.state().expect("rows");
    for (n, Told { sent, acknowledged }) in told.iter().enumerate() {
        let filter = Filter {
            service: Some(format!("s{n}")),
            kind: Some("weights".to_owned()),
            newest_first: true,
            limit: Some(2),
            ..Filter::default()
        };
        let last = reader.show(&filter).expect("entries");
        let Some(last) = last.first() else {
            // The first number is that of the file.
            assert!(*acknowledged <= 1, "round {round}: s{n} has no entry");
            continue;
        };
        let written = last.entry.after["v1"].as_f64().expect("a weight") as u64;
        assert!((*acknowledged..=*sent).contains(&written), "round {round}: s{n}: {written}");
        let row = &rows[&format!("weights/s{n}")];
        assert_eq!(row.value["set"], last.entry.after, "round {round}: s{n}");
    }
}
