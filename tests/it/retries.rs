//! Requests that are sent again after a failure, and those that never are.

mod ejected;
mod rescue;
mod storm;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use http::Response;
use tidegate::registry::{RetryReason, Withheld};

use crate::support::{
    Origin, Proxy, eventually,
    http2::{Asked, Http2, Origin2, read_all, request},
    origin::Call,
    proxy::Builder,
};

/// An origin that fails as `fault` does until it has failed `times`, and then answers its name.
fn failing(
    name: &'static str,
    times: usize,
    fault: impl Fn(&mut Call<'_>) -> std::io::Result<()> + Send + Sync + 'static,
) -> Origin {
    let failed = AtomicUsize::new(0);
    Origin::start(move |call| {
        call.read_body()?;
        match failed.fetch_add(1, SeqCst) < times {
            true => fault(call),
            false => call.answer(200, name.as_bytes()),
        }
    })
}

fn resets(call: &mut Call<'_>) -> std::io::Result<()> {
    call.reset();
    Ok(())
}

fn refuses(call: &mut Call<'_>) -> std::io::Result<()> {
    call.answer(503, b"not now")
}

fn one(origin: &Origin, retry: &str) -> Builder {
    Proxy::builder().version("v1", origin).route(&format!("timeout: 2s, retry: {retry}"))
}

fn withheld(proxy: &Proxy, version: &str, reason: Withheld) -> u64 {
    let snapshot = proxy.snapshot();
    let version = snapshot.services[0].version(version).expect("a version");
    version.state.cells.sum(|cells| cells.withheld[reason as usize].read())
}

fn rescued(proxy: &Proxy, version: &str) -> u64 {
    let snapshot = proxy.snapshot();
    let version = snapshot.services[0].version(version).expect("a version");
    version.state.cells.sum(|cells| cells.rescued.read())
}

#[test]
fn a_read_is_sent_again_after_a_reset_and_after_an_error_and_a_write_is_not() {
    for (fault, reason) in
        [(resets as fn(&mut Call<'_>) -> _, RetryReason::Reset), (refuses, RetryReason::Status)]
    {
        let origin = failing("ok", 1, fault);
        let proxy = one(&origin, "{ }").start();
        let answer = proxy.get("/");
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{reason:?}");
        assert_eq!(origin.requests(), 2);
        eventually("counted", || proxy.retries("v1", reason) == 1);
        // The rule above all others.
        let origin = failing("ok", 1, fault);
        let proxy = one(&origin, "{ idempotency_key: honoured }").start();
        assert!(proxy.connect().post("/", b"stake").send().status >= 500);
        assert_eq!(origin.requests(), 1);
        eventually("counted", || withheld(&proxy, "v1", Withheld::NotIdempotent) == 1);
    }
}

#[test]
fn a_route_without_the_policy_repeats_nothing_of_this() {
    let origin = failing("ok", 1, refuses);
    let proxy = Proxy::to(&origin);
    assert_eq!(proxy.get("/").status, 503);
    assert_eq!((origin.requests(), proxy.retries("v1", RetryReason::Status)), (1, 0));
}

#[test]
fn a_write_with_a_key_is_sent_again_whole_where_the_route_says_that_keys_are_honoured() {
    let bodies: [&[u8]; 3] = [b"stake=10", &[b'x'; 40_000], b""];
    for body in bodies {
        for (trust, requests) in [("honoured", 2), ("ignored", 1)] {
            let origin = failing("ok", 1, resets);
            let proxy = one(&origin, &format!("{{ idempotency_key: {trust} }}")).start();
            let mut client = proxy.connect();
            let answer = client.post("/bets", body).header("Idempotency-Key", "\"7\"").send();
            let expected = if requests == 2 { 200 } else { 502 };
            assert_eq!((answer.status, origin.requests()), (expected, requests), "{trust}");
            let seen = origin.seen();
            assert!(seen.iter().all(|seen| seen.body == body), "{} bytes", body.len());
            assert_eq!(client.get("/next").send().status, 200, "the connection stays");
        }
    }
}

/// A version that cannot read a key may take the request for one without, and act twice.
#[test]
fn a_key_that_nobody_can_read_is_none() {
    let long = "k".repeat(300);
    for keys in [&[""][..], &["\"\""], &["\"7"], &["7, 8"], &[&long], &["7", "8"], &["7", "7"]] {
        let origin = failing("ok", 1, resets);
        let proxy = one(&origin, "{ idempotency_key: honoured }").start();
        let mut client = proxy.connect();
        let bet = client.post("/bets", b"stake=10");
        let bet = keys.iter().fold(bet, |bet, key| bet.header("Idempotency-Key", key));
        assert_eq!((bet.send().status, origin.requests()), (502, 1), "{keys:?}");
    }
}

#[test]
fn a_body_in_chunks_is_kept_and_sent_with_its_length() {
    let origin = failing("ok", 1, refuses);
    let proxy = one(&origin, "{ idempotency_key: honoured }").start();
    let mut client = proxy.connect();
    client.send("POST /bets HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 7\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nstake\r\n");
    client.send("3\r\n=10\r\n0\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    for seen in origin.seen() {
        assert_eq!(
            (&seen.body[..], seen.head.field("content-length")),
            (&b"stake=10"[..], Some("8"))
        );
        assert_eq!(seen.head.field("transfer-encoding"), None);
    }
    assert_eq!(origin.requests(), 2);
}

#[test]
fn a_body_that_is_late_or_large_is_passed_on_and_its_request_not_repeated() {
    let origin = Origin::start(|call| {
        call.read_body()?;
        call.answer(503, b"no")
    });
    let proxy = one(&origin, "{ idempotency_key: honoured, body_wait: 1ms, body: 1KiB }").start();
    let mut client = proxy.connect();
    let large = client.post("/", &[b'x'; 40_000]).header("Idempotency-Key", "1").send();
    assert_eq!((large.status, origin.requests()), (503, 1));
    assert_eq!(origin.last().body.len(), 40_000);
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 2\r\nContent-Length: 9\r\n\r\nstak");
    origin.await_requests(2);
    client.send("e=100");
    assert_eq!((client.answer().status, origin.requests()), (503, 2));
    eventually("its body was read", || origin.last().body == b"stake=100");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 3\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nstak\r\n");
    origin.await_requests(3);
    client.send("1\r\ne\r\n0\r\n\r\n");
    assert_eq!((client.answer().status, origin.requests()), (503, 3));
    eventually("its body was read", || origin.last().body == b"stake");
    eventually("counted", || withheld(&proxy, "v1", Withheld::Body) == 3);
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_body_is_asked_and_not_repeated() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        call.read_body()?;
        call.answer(503, b"no")
    });
    let proxy = one(&origin, "{ idempotency_key: honoured, body_wait: 1s }").start();
    let mut client = proxy.connect();
    let began = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 2\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(
        client.wire.head().expect("read").expect("a head").start_line(),
        "HTTP/1.1 100 Continue"
    );
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    client.send("stake");
    assert_eq!((client.answer().status, origin.requests()), (503, 1));
}

#[test]
fn bodies_of_streams_are_kept_too_and_go_to_either_protocol() {
    for length in [None, Some(5)] {
        let origin = failing("ok", 1, refuses);
        let proxy = one(&origin, "{ idempotency_key: honoured, body_wait: 1s }").start();
        let client = Http2::connect(proxy.address);
        let status = client.run(async {
            let mut asked = request("POST", "/bets").header("idempotency-key", "7");
            if let Some(length) = length {
                asked = asked.header("content-length", length);
            }
            let (answer, mut body) = client.open(asked).await;
            body.send_data("st".into(), false).expect("open");
            body.send_data("ake".into(), true).expect("open");
            answer.await.expect("an answer").status()
        });
        assert_eq!((status.as_u16(), origin.requests()), (200, 2), "{length:?}");
        assert!(origin.seen().iter().all(|seen| seen.body == b"stake"), "{:?}", origin.seen());
    }
}

/// Answers 503 to the first request, breaks the stream of the second one, and answers the third one.
async fn unsure(mut asked: Asked) {
    let body = read_all(&mut asked.body).await.expect("whole");
    match asked.nth {
        0 => {
            let answer = Response::builder().status(503).body(()).expect("a response");
            asked.respond.send_response(answer, true).expect("open");
        }
        1 => asked.respond.send_reset(h2::Reason::INTERNAL_ERROR),
        _ => {
            let mut stream = asked.respond.send_response(Response::new(()), false).expect("open");
            stream.send_data(body.into(), true).expect("open");
        }
    }
}

#[test]
fn endpoints_of_http2_get_a_request_again_with_its_body() {
    let bodies = [
        "Content-Length: 5\r\n\r\nstake",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nstake\r\n0\r\n\r\n",
    ];
    for rest in bodies {
        let origin = Origin2::start(100, unsure);
        let retry = "retry: { attempts: 3, idempotency_key: honoured, backoff: 1ms }";
        let builder = Proxy::builder().version_speaking("v1", &[origin.address], "h2");
        let proxy = builder.route(retry).start();
        let mut client = proxy.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 7\r\n{rest}"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (200, "stake"));
        eventually("counted", || proxy.retries("v1", RetryReason::Reset) == 1);
        assert_eq!(proxy.retries("v1", RetryReason::Status), 1);
    }
}

#[test]
fn a_call_is_told_the_time_that_is_left_when_it_is_made_again() {
    let origin = failing("ok", 1, |call| {
        call.send("HTTP/1.1 503 Later\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
    });
    let proxy = one(&origin, "{ idempotency_key: honoured }").start();
    let client = Http2::connect(proxy.address);
    let call = request("POST", "/game/bet").header("content-type", "application/grpc");
    let call = call.header("grpc-timeout", "1800m").header("idempotency-key", "7");
    client.ask(call, Some(b"\0\0\0\0\x02hi"));
    let told: Vec<String> = (origin.seen().iter())
        .map(|seen| seen.head.field("grpc-timeout").expect("a deadline").to_owned())
        .collect();
    assert_eq!((&*told[0], told.len()), ("1800m", 2));
    let left = told[1].strip_suffix('m').and_then(|left| left.parse::<u64>().ok());
    assert!(left.is_some_and(|left| left <= 800), "{told:?}");
    let seen = origin.last();
    assert_eq!(seen.head.field("x-envoy-expected-rq-timeout-ms"), None);
}

/// A connection that was kept and turned out closed did not count, so a request of two attempts was sent three times.
#[test]
fn a_request_on_a_stale_connection_is_sent_no_more_often_than_its_route_says() {
    let origin = Origin::start(|call| match call.target() {
        "/first" => call.answer(200, b"ok"),
        _ => resets(call),
    });
    let retry = "{ attempts: 2, on: [ reset ], backoff: 1ms }";
    let proxy = one(&origin, retry).start();
    let mut client = proxy.connect();
    assert_eq!(client.get("/first").send().status, 200);
    let answer = client.get("/lost").send();
    assert_eq!((answer.status, answer.kind()), (502, "reset".to_owned()));
    assert_eq!(origin.requests(), 3, "the first one, and two attempts");
    assert_eq!(proxy.retries("v1", RetryReason::StaleConnection), 1);
    assert_eq!(withheld(&proxy, "v1", Withheld::Attempts), 1);
    // A write is not sent again at all.
    assert_eq!(client.get("/first").send().status, 200);
    assert_eq!(client.post("/lost", b"stake").send().status, 502);
    assert_eq!(origin.requests(), 5);
}

/// Regression: such second sendings cost nothing of the budget, so that a service which broke its connections got half as many
/// requests again.
#[test]
fn a_second_sending_after_a_stale_connection_costs_part_of_the_budget() {
    let origin = Origin::start(|call| match call.target() {
        "/first" => call.answer(200, b"ok"),
        _ => resets(call),
    });
    let proxy = one(&origin, "{ on: [ reset ], budget: 1%, min_per_second: 0 }").start();
    let mut client = proxy.connect();
    assert_eq!(client.get("/first").send().status, 200);
    let answer = client.get("/lost").send();
    assert_eq!((answer.status, answer.kind()), (502, "reset".to_owned()));
    assert_eq!(origin.requests(), 2, "the budget has none for a route with so few requests");
    assert_eq!(proxy.retries("v1", RetryReason::StaleConnection), 0);
    assert_eq!(withheld(&proxy, "v1", Withheld::Budget), 1);
    // The floor is taken from, too.
    let proxy = one(&origin, "{ on: [ 5xx ], attempts: 5, budget: 0%, min_per_second: 1 }").start();
    let mut client = proxy.connect();
    let before = origin.requests();
    for _ in 0..12 {
        assert_eq!(client.get("/first").send().status, 200);
        assert_eq!(client.get("/lost").send().status, 502);
    }
    let repeated = proxy.retries("v1", RetryReason::StaleConnection);
    assert_eq!((repeated, origin.requests() - before), (10, 34), "those of ten seconds");
}

/// Regression: a GET of a route that writes was sent twice, since its method is safe.
#[test]
fn a_write_on_a_stale_connection_is_sent_once_whatever_its_method() {
    let origin = Origin::start(|call| match call.target() {
        "/first" => call.answer(200, b"ok"),
        _ => resets(call),
    });
    for more in ["", ", retry: { attempts: 3, on: [ reset ], backoff: 1ms }"] {
        let proxy = Proxy::builder()
            .version("v1", &origin)
            .route(&format!("match: {{ path: /write }}, class: write{more}"))
            .route("name: rest")
            .start();
        let mut client = proxy.connect();
        for method in ["GET", "HEAD", "OPTIONS", "POST"] {
            assert_eq!(client.get("/first").send().status, 200);
            let before = origin.requests();
            assert_eq!(client.request(method, "/write").send().status, 502, "{method}{more}");
            assert_eq!(origin.requests(), before + 1, "{method}{more}");
        }
    }
}

#[test]
fn another_endpoint_gets_the_second_attempt() {
    let (bad, good) = (failing("bad", usize::MAX, refuses), Origin::answering("good"));
    let proxy = Proxy::builder()
        .version_at("v1", &[bad.address, good.address])
        .route("retry: { backoff: 0s }")
        .start();
    let mut client = proxy.connect();
    for _ in 0..40 {
        assert_eq!(client.get("/").send().text(), "good");
    }
    assert!(bad.requests() > 0);
    assert_eq!(good.requests(), 40);
    assert!(bad.connections() < bad.requests(), "short errors do not cost the connection");
}

#[test]
fn an_error_whose_body_does_not_end_costs_its_connection_and_confuses_no_other_answer() {
    let failed = AtomicUsize::new(0);
    let bad = Origin::start(move |call| match failed.fetch_add(1, SeqCst) {
        0 => {
            call.send("HTTP/1.1 500 No\r\nContent-Length: 1000000\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")?;
            call.await_end()
        }
        _ => call.answer(200, b"ok"),
    });
    let proxy = one(&bad, "{ backoff: 0s }").start();
    let mut client = proxy.connect();
    for _ in 0..3 {
        let answer = client.get("/").send();
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }
    assert_eq!((bad.connections(), bad.requests()), (2, 4));
}

#[test]
fn an_attempt_that_hangs_ends_in_its_time_and_the_next_one_answers() {
    let origin = failing("ok", 1, |call| call.await_end());
    let retry = "{ on: [ timeout ], attempt_timeout: 100ms, backoff: 0s }";
    let proxy = one(&origin, retry).start();
    let began = Instant::now();
    assert_eq!(proxy.get("/").status, 200);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(100) && took < Duration::from_millis(1900), "{took:?}");
    eventually("counted", || proxy.retries("v1", RetryReason::Timeout) == 1);
}

#[test]
fn the_deadline_of_the_route_is_that_of_all_attempts_and_is_told_to_each() {
    let origin = Origin::start(|call| call.await_end());
    let retry = "{ attempts: 5, on: [ timeout ], attempt_timeout: 150ms, backoff: 0s }";
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.route(&format!("timeout: 400ms, retry: {retry}")).start();
    let began = Instant::now();
    let answer = proxy.get("/");
    assert_eq!((answer.status, answer.kind().as_str()), (504, "timeout"));
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    let left = |seen: &crate::support::origin::Seen| {
        let text = seen.head.field("x-envoy-expected-rq-timeout-ms").expect("the time left");
        text.parse::<u64>().expect("milliseconds")
    };
    let told: Vec<u64> = origin.seen().iter().map(left).collect();
    assert_eq!((told[0], told.len()), (400, 3), "{told:?}");
    assert!(told[1] <= 250 && told[2] <= 100, "{told:?}");
    eventually("counted", || withheld(&proxy, "v1", Withheld::Deadline) == 1);
}

#[test]
fn a_stranger_cannot_tell_an_endpoint_how_long_it_has() {
    let origin = Origin::answering("ok");
    let proxy = one(&origin, "{ }").start();
    let mut client = proxy.connect();
    let name = "X-Envoy-Expected-Rq-Timeout-Ms";
    assert_eq!(client.get("/").header(name, "9999999").send().status, 200);
    let told: Vec<_> = origin.last().head.all(name).map(str::to_owned).collect();
    assert_eq!(told, ["2000"]);
    let proxy = Proxy::builder().version("v1", &origin).route("timeout: 2s, retry: { }");
    let proxy = proxy.top("trusted_proxies: [ 127.0.0.1 ]").start();
    let mut front = proxy.connect();
    // What is no time, or more than the route's, is not said.
    for (said, told) in [
        (&["700"][..], "700"),
        (&["9999999"], "2000"),
        (&["0"], "2000"),
        (&["abc"], "2000"),
        (&["+700"], "2000"),
        (&["100, 200"], "2000"),
        (&["700", "800"], "2000"),
        (&["2000", "800"], "2000"),
    ] {
        let mut asked = front.get("/").header("X-Forwarded-For", "192.0.2.7");
        for value in said {
            asked = asked.header(name, value);
        }
        assert_eq!(asked.send().status, 200);
        let seen: Vec<_> = origin.last().head.all(name).map(str::to_owned).collect();
        assert_eq!(seen, [told], "{said:?}");
    }
}

#[test]
fn retry_after_is_waited_for_or_ends_the_attempts() {
    let origin = failing("ok", 1, |call| {
        call.send("HTTP/1.1 503 Later\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
    });
    let proxy = one(&origin, "{ }").start();
    let began = Instant::now();
    assert_eq!(proxy.get("/").status, 200);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    for value in ["2", "Fri, 31 Dec 2999 23:59:59 GMT"] {
        let answer =
            format!("HTTP/1.1 503 Later\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n");
        let origin = failing("ok", 1, move |call| call.send(&answer));
        let proxy = one(&origin, "{ }").start();
        let answer = proxy.get("/");
        assert_eq!((answer.status, answer.field("retry-after")), (503, Some(value)));
        eventually("counted", || withheld(&proxy, "v1", Withheld::RetryAfter) == 1);
    }
}

#[test]
fn the_budget_bounds_what_failures_add_and_is_one_for_all_workers() {
    let origin = failing("never", usize::MAX, refuses);
    let retry = "{ budget: 0%, min_per_second: 2, backoff: 0s }";
    let proxy = one(&origin, retry).workers(3).start();
    for _ in 0..15 {
        // On a connection of its own, so that all workers get some.
        for _ in 0..4 {
            assert_eq!(proxy.get("/").status, 503);
        }
    }
    let retries = proxy.retries("v1", RetryReason::Status);
    assert!((20..=40).contains(&retries), "{retries}: that of ten seconds at once");
    assert_eq!(origin.requests() as u64, 60 + retries);
    eventually("counted", || withheld(&proxy, "v1", Withheld::Budget) == 60 - retries);
}

#[test]
fn what_has_begun_for_the_client_is_not_repeated() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")?;
        call.answer(503, b"no")
    });
    let proxy = one(&origin, "{ }").start();
    let answer = proxy.get("/");
    assert_eq!((answer.status, &answer.interim[..], origin.requests()), (503, &[103][..], 1));
    eventually("counted", || withheld(&proxy, "v1", Withheld::Begun) == 1);
}

#[test]
fn a_client_that_leaves_in_the_pause_is_sent_nowhere() {
    let origin = failing("ok", 1, |call| {
        call.send("HTTP/1.1 503 Later\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
    });
    let proxy = one(&origin, "{ }").start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it pauses", || proxy.retries("v1", RetryReason::Status) == 1);
    client.reset();
    eventually("it ended", || proxy.in_flight() == 0);
    assert_eq!(origin.requests(), 1);
}
