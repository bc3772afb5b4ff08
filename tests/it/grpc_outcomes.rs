//! As what calls of gRPC count in the comparison, where clients and the answer's head see them differently.

use std::future::pending;

use http::Response;
use tidegate::{analysis::Counter, registry::ErrorKind};

use crate::{
    grpc::{call, grpc_status, status},
    support::{
        Proxy, eventually,
        http2::{Asked, Http2, Origin2, read_all},
    },
};

/// First attempts at the only version, and those of them that failed.
fn attempts(proxy: &Proxy) -> Counter {
    proxy.snapshot().services[0].versions[0].known[0].state.attempts()
}

fn proxy(origin: &Origin2, eject: &str) -> Proxy {
    let builder = Proxy::builder().version_speaking("v1", &[origin.address], "h2");
    builder.service(&format!("eject: {eject}")).top("admin: { address: 127.0.0.1:0 }").start()
}

/// Answers with a message, and ends as the path says: `/HTTP-STATUS/PLACE/GRPC-STATUS`.
async fn serve(mut asked: Asked) {
    let path = asked.head.uri.path().to_owned();
    let parts: Vec<_> = path.split('/').skip(1).collect();
    let [http, place, code] = parts[..] else { panic!("{path}") };
    read_all(&mut asked.body).await.expect("whole");
    let mut response = Response::builder().status(http).body(()).expect("a response");
    if place == "head" {
        *response.headers_mut() = status(code);
    }
    let mut stream = asked.respond.send_response(response, false).expect("open");
    stream.send_data("a message".into(), place != "behind").expect("open");
    if place == "behind" {
        stream.send_trailers(status(code)).expect("open");
    }
}

#[test]
fn an_answer_that_ends_without_a_status_is_a_failure() {
    let origin = Origin2::start(100, serve);
    let proxy = proxy(&origin, "{ errors: {} }");
    let client = Http2::connect(proxy.address);
    // Path, status of HTTP and of gRPC that the client sees, and whether it counts as a failure.
    let cases = [
        ("/200/behind/0", 200, Some("0"), false),
        ("/200/nowhere/-", 200, None, true),
        ("/302/nowhere/-", 302, None, true),
        ("/200/behind/banana", 200, Some("banana"), true),
        ("/200/behind/-1", 200, Some("-1"), true),
        // Messages followed it, and no status did.
        ("/200/head/0", 200, Some("0"), true),
        ("/401/nowhere/-", 401, None, false),
        ("/503/nowhere/-", 503, None, true),
    ];
    let (mut trials, mut failures) = (0, 0);
    for (path, http, code, failed) in cases {
        let answer = client.ask(call(path), Some(b"x"));
        assert_eq!((answer.status, grpc_status(&answer)), (http, code), "{path}");
        assert_eq!(answer.body, b"a message", "{path}");
        trials += 1;
        failures += u64::from(failed);
        eventually(path, || attempts(&proxy) == Counter { trials, failures });
    }
    assert_eq!(proxy.errors("v1", ErrorKind::Status), failures);
    // Who does not speak gRPC reads no status.
    let plain = client.get("/200/nowhere/-");
    assert_eq!(plain.status, 200);
    eventually("it is counted", || attempts(&proxy) == Counter { trials: trials + 1, failures });
}

/// Never answers, or begins to and does not go on.
async fn hang(mut asked: Asked) {
    let begins = asked.head.uri.path() == "/begins";
    let head = Response::new(());
    let _stream = begins.then(|| asked.respond.send_response(head, false).expect("open"));
    pending::<()>().await;
}

#[test]
fn a_deadline_sooner_than_an_answer_is_waited_for_is_the_clients() {
    let origin = Origin2::start(100, hang);
    let proxy = proxy(&origin, "{ errors: {}, deadline: 400ms }");
    let client = Http2::connect(proxy.address);
    let calls = 6;
    for n in 0..calls {
        let path = if n % 2 == 0 { "/hangs" } else { "/begins" };
        let answer = client.ask(call(path).header("grpc-timeout", "50m"), Some(b"x"));
        assert_eq!((answer.status, grpc_status(&answer)), (200, Some("4")), "{path}");
    }
    eventually("they have ended", || proxy.in_flight() == 0);
    assert_eq!(attempts(&proxy).failures, 0);
    // Nor is another connection made for each of them.
    assert!(origin.connections() < 3, "{} connections", origin.connections());
    // A longer one is the version's failure.
    for path in ["/hangs", "/begins"] {
        let answer = client.ask(call(path).header("grpc-timeout", "800m"), Some(b"x"));
        assert_eq!((answer.status, grpc_status(&answer)), (200, Some("4")), "{path}");
    }
    eventually("both are counted", || attempts(&proxy).failures == 2);
    assert_eq!(proxy.all_errors("v1"), calls + 2);
}
