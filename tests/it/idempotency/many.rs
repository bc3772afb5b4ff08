//! A flood of keys.

use super::*;

/// Sends `count` distinct keys over each of some connections.
fn flood(address: SocketAddr, connections: usize, count: usize) -> HashMap<u16, usize> {
    let threads: Vec<_> = (0..connections)
        .map(|connection| {
            thread::spawn(move || {
                let (mut client, mut statuses) =
                    (Client::connect(address), HashMap::<u16, usize>::new());
                for n in 0..count {
                    let status = post(&mut client, &format!("{connection}-{n}"), b"x").status;
                    *statuses.entry(status).or_default() += 1;
                }
                statuses
            })
        })
        .collect();
    let mut all: HashMap<u16, usize> = HashMap::new();
    for thread in threads {
        for (status, count) in thread.join().expect("no panic") {
            *all.entry(status).or_default() += count;
        }
    }
    all
}

#[test]
fn a_flood_of_keys_is_refused_beyond_the_limit_and_takes_no_memory() {
    let origin = Origin::answering("ok");
    let process = keyed(&origin, "keys: 20000, memory: 1MiB, answer: 4KiB").workers(2).spawn();
    let first = flood(process.address, 8, 2_500);
    assert_eq!(first, HashMap::from([(200, 20_000)]));
    let before = process.peak_kib();
    let more = flood(process.address, 8, 12_500);
    // Those of the first round are replayed.
    assert_eq!(more, HashMap::from([(200, 20_000), (503, 80_000)]));
    // The peak is a sum of counts that lag behind, so it may also seem to fall.
    let grown = process.peak_kib().saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB");
    assert_eq!(origin.requests(), 20_000);
}

/// Not a test of speed, since machines differ: prints what keys cost.
#[test]
#[ignore = "a measurement"]
fn what_keys_cost() {
    let origin = Origin::answering("ok");
    let folder = TempDir::new().expect("a folder");
    let state = format!("state: {}", folder.path().join("state").display());
    let plain = Proxy::builder().version("v1", &origin).workers(1).spawn();
    let memory = keyed(&origin, "").workers(1).spawn();
    let disk = keyed(&origin, "").workers(1).top(&state).spawn();
    for (name, process) in [("plain", &plain), ("memory", &memory), ("disk", &disk)] {
        for connections in [1, 8, 64] {
            let began = std::time::Instant::now();
            let count = 3200 / connections;
            flood(process.address, connections, count);
            let each = began.elapsed().as_micros() as usize / (count * connections);
            println!("{name} {connections}: {each} us per request");
        }
    }
}
