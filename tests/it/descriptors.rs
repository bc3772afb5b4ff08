//! What happens when descriptors are short: it is the process's own fault, so endpoints stay in, and probes and
//! operators get through.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use crate::support::{
    Client, Origin, Proxy, eventually,
    http2::Http2,
    process::{Process, free_address},
};

/// Descriptors of the process: some thirty are in use at its start, and sixteen are kept back.
const FEW: u32 = 120;

/// The process before `origins`, the endpoints of one version, and its admin endpoint.
fn start(origins: &[SocketAddr]) -> (Process, SocketAddr) {
    let admin = free_address();
    let builder = Proxy::builder().workers(1).version_at("v1", origins);
    let builder = builder.service("pool: { idle_connections: 0 }");
    let builder = builder.service("health: { tcp: {}, interval: 100ms, connect_faults: 1 }");
    let builder = builder.top(&format!("admin: {{ address: {admin} }}"));
    let process =
        Process::spawn_with_descriptors(FEW, |address| builder.clone().listen(address).text());
    (process, admin)
}

/// States of the endpoints.
fn states(admin: SocketAddr) -> Vec<String> {
    let answer = Client::connect(admin).get("/v1/services/game-api").host("localhost").send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let endpoints = answer.json()["versions"][0]["endpoints"].clone();
    let each = endpoints.as_array().expect("a list").iter();
    each.map(|endpoint| endpoint["state"].as_str().expect("a text").to_owned()).collect()
}

fn metric(admin: SocketAddr, name: &str) -> f64 {
    let page = Client::connect(admin).get("/metrics").host("localhost").send();
    let line = page.text().lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    line.unwrap_or_else(|| panic!("no {name}")).trim().parse().expect("a number")
}

#[test]
fn idle_clients_leave_descriptors_to_endpoints_probes_and_operators() {
    let origins = [Origin::answering("ok"), Origin::answering("ok")];
    let (process, admin) = start(&[origins[0].address, origins[1].address]);
    let mut early: Vec<_> = (0..10).map(|_| process.connect()).collect();
    early.iter_mut().for_each(|client| assert_eq!(client.get("/").send().status, 200));
    let _idle: Vec<_> =
        (0..2 * FEW).filter_map(|_| TcpStream::connect(process.address).ok()).collect();
    let limit = metric(admin, "tidegate_connections_limit ");
    assert!((10.0..f64::from(FEW) / 2.0).contains(&limit), "{limit}");
    let shed = "tidegate_connections_shed_total{listener=\"{}\",limit=\"per_client\"}"
        .replace("{}", &process.address.to_string());
    eventually("what is above the limit is shed", || metric(admin, &shed) > f64::from(FEW));
    for _ in 0..3 {
        early.iter_mut().for_each(|client| assert_eq!(client.get("/").send().status, 200));
    }
    assert_eq!(states(admin), ["serving", "serving"]);
    assert_eq!(Client::connect(admin).get("/readyz").host("localhost").send().status, 200);
}

#[test]
fn requests_for_which_there_is_no_descriptor_are_a_503_that_blames_no_endpoint() {
    const ASKED: usize = 100;
    let (go_on, waits) = mpsc::channel::<()>();
    let waits = Arc::new(Mutex::new(waits));
    let waiting = || {
        let waits = Arc::clone(&waits);
        Origin::start(move |call| {
            // Ends when the test drops the other end.
            let _ = waits.lock().expect("no panic").recv();
            call.answer(200, b"ok")
        })
    };
    let (origin, other) = (waiting(), waiting());
    let (process, admin) = start(&[origin.address, other.address]);
    let client = Http2::connect(process.address);
    // Each that gets a connection waits with it.
    let replies = thread::scope(|scope| {
        let asked: Vec<_> = (0..ASKED).map(|_| scope.spawn(|| client.get("/"))).collect();
        eventually("some get no connection", || {
            metric(admin, "tidegate_connections_wanting_total{side=\"endpoint\"}") > 0.0
        });
        assert_eq!(states(admin), ["serving", "serving"]);
        drop(go_on);
        asked.into_iter().map(|asked| asked.join().expect("an answer")).collect::<Vec<_>>()
    });
    let mut refused = 0;
    for reply in replies {
        if reply.status != 200 {
            let problem: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
            assert_eq!((reply.status, &problem["kind"]), (503, &"descriptors".into()));
            assert_eq!(reply.field("retry-after"), Some("1"));
            refused += 1;
        }
    }
    assert!((1..ASKED).contains(&refused), "{refused} were refused");
    assert_eq!(states(admin), ["serving", "serving"]);
    let errors = format!(
        "tidegate_upstream_errors_total{{service=\"game-api\",version=\"v1\",endpoint=\"{}\",kind=\"connect\"}}",
        origin.address
    );
    assert_eq!(metric(admin, &errors), 0.0);
    let said = || process.log().matches("no resource left").count();
    eventually("it is said", || said() > 0);
    assert_eq!(said(), 1, "{}", process.log());
    assert_eq!(process.connect().get("/").send().status, 200);
}
