//! Calls of gRPC: what passes, how they fail, and as what they count.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use tidegate::registry::ErrorKind;

use crate::support::{
    Proxy, eventually,
    http2::{Asked, Http2, Origin2, Reply, read_all, reply, request, send_all},
};

pub(crate) fn call(path: &str) -> http::request::Builder {
    request("POST", path).header("content-type", "application/grpc").header("te", "trailers")
}

pub(crate) fn status(code: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().expect("a value"));
    trailers
}

/// Answers with the messages that came and `code`; `/only` without a body.
async fn serve(mut asked: Asked) {
    let path = asked.head.uri.path().to_owned();
    let code = path.rsplit('/').next().expect("a name").to_owned();
    if path.starts_with("/only") {
        let mut response = Response::new(());
        *response.headers_mut() = status(&code);
        response.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
        asked.respond.send_response(response, true).expect("open");
        return;
    }
    let response = Response::builder().header("content-type", "application/grpc");
    let response = response.body(()).expect("a response");
    let mut stream = asked.respond.send_response(response, false).expect("open");
    if path.starts_with("/silent") {
        std::future::pending::<()>().await;
    }
    let body = read_all(&mut asked.body).await.expect("whole");
    send_all(&mut stream, &body).await;
    stream.send_trailers(status(&code)).expect("open");
}

pub(crate) fn grpc_status(reply: &Reply) -> Option<&str> {
    reply.trailer("grpc-status").or(reply.field("grpc-status"))
}

#[test]
fn messages_trailers_and_deadlines_pass() {
    let origin = Origin2::start(100, serve);
    let proxy = Proxy::builder().version_speaking("v1", &[origin.address], "h2").start();
    let client = Http2::connect(proxy.address);
    let answer = client.ask(call("/echo/0").header("grpc-timeout", "9S"), Some(b"\0\0\0\0\x02hi"));
    assert_eq!((answer.status, &answer.body[..]), (200, &b"\0\0\0\0\x02hi"[..]));
    assert_eq!(answer.trailer("grpc-status"), Some("0"));
    let seen = origin.last();
    assert_eq!(seen.headers()["te"], "trailers");
    assert_eq!(seen.headers()["grpc-timeout"], "9S");
    assert_eq!(seen.uri().path(), "/echo/0");
    assert_eq!(seen.uri().authority().expect("one").as_str(), "api.test");
    // An answer of trailers only stays one.
    let only = client.ask(call("/only/5"), Some(b""));
    assert_eq!((only.field("grpc-status"), only.body.len(), &only.trailers), (Some("5"), 0, &None));
}

#[test]
fn messages_pass_one_by_one_in_both_directions() {
    let origin = Origin2::start(100, |mut asked| async move {
        let mut stream = asked.respond.send_response(Response::new(()), false).expect("open");
        while let Some(Ok(message)) = asked.body.data().await {
            asked.body.flow_control().release_capacity(message.len()).expect("open");
            send_all(&mut stream, &message).await;
        }
        stream.send_trailers(status("0")).expect("open");
    });
    let proxy = Proxy::builder().version_speaking("v1", &[origin.address], "h2").start();
    let client = Http2::connect(proxy.address);
    client.run(async {
        let (head, mut stream) = client.open(call("/chat")).await;
        let mut answer = head.await.expect("a head, before any message").into_body();
        for n in 0..20u8 {
            let message = [0, 0, 0, 0, 1, n];
            send_all(&mut stream, &message).await;
            // The next is sent only when this one came back.
            let echoed = answer.data().await.expect("a message").expect("open");
            answer.flow_control().release_capacity(echoed.len()).expect("open");
            assert_eq!(&echoed[..], message);
        }
        stream.send_data(Bytes::new(), true).expect("open");
        assert!(answer.data().await.is_none());
        let trailers = answer.trailers().await.expect("open").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
    });
}

#[test]
fn calls_fail_in_the_way_of_grpc() {
    let origin = Origin2::start(100, serve);
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (gone, listener) = (gone.local_addr().expect("bound"), gone);
    drop(listener);
    let proxy = Proxy::builder()
        .version_speaking("v1", &[origin.address], "h2")
        .version_speaking("gone", &[gone], "h2")
        .route("name: gone, version: gone, match: { path: /gone }")
        .route("name: slow, timeout: 100ms, match: { path: /hang }")
        .route("name: all, match: { path: /silent/* }")
        .start();
    let client = Http2::connect(proxy.address);
    for (path, code) in [("/gone", "14"), ("/nowhere", "12")] {
        let answer = client.ask(call(path), Some(b""));
        assert_eq!((answer.status, grpc_status(&answer)), (200, Some(code)), "{path}");
        assert_eq!(answer.field("content-type"), Some("application/grpc"), "{path}");
        assert!(answer.body.is_empty(), "{path}");
    }
    // A deadline that passes once the answer has begun ends it with a status, too.
    let late = client.ask(call("/silent/0").header("grpc-timeout", "150m"), Some(b""));
    assert_eq!((late.status, grpc_status(&late)), (200, Some("4")));
    // The same without gRPC is a problem document.
    let plain = client.get("/gone");
    assert_eq!(
        (plain.status, plain.field("content-type")),
        (502, Some("application/problem+json"))
    );
    assert_eq!(proxy.errors("v1", ErrorKind::Timeout), 1);
}

#[test]
fn a_deadline_that_passes_before_the_answer_is_a_4() {
    let origin = Origin2::start(100, |asked| async move {
        std::future::pending::<()>().await;
        drop(asked);
    });
    let proxy = Proxy::builder().version_speaking("v1", &[origin.address], "h2").start();
    let client = Http2::connect(proxy.address);
    let began = std::time::Instant::now();
    let answer = client.ask(call("/hang").header("grpc-timeout", "100m"), Some(b""));
    assert_eq!((answer.status, grpc_status(&answer)), (200, Some("4")));
    assert!(began.elapsed() < Duration::from_secs(20), "the route's own time is longer");
}

#[test]
fn a_call_counts_by_its_status() {
    let origin = Origin2::start(100, serve);
    let proxy = Proxy::builder().version_speaking("v1", &[origin.address], "h2").start();
    let client = Http2::connect(proxy.address);
    for code in ["0", "5", "13", "14"] {
        client.ask(call(&format!("/echo/{code}")), Some(b"x"));
        client.ask(call(&format!("/only/{code}")), Some(b""));
    }
    let classes = || {
        let snapshot = proxy.snapshot();
        let series = &snapshot.routes[0].series[0];
        (0..6).map(|n| series.cells.sum(|c| c.classes[n].read())).collect::<Vec<_>>()
    };
    eventually("all are counted", || classes().iter().sum::<u64>() == 8);
    // 2xx: status 0; 4xx: 5, NOT_FOUND; 5xx: 13, INTERNAL, and 14, UNAVAILABLE.
    assert_eq!(classes(), [0, 2, 0, 2, 4, 0]);
    assert_eq!(proxy.errors("v1", ErrorKind::Status), 4);
}

#[test]
fn a_call_that_is_cancelled_is_cancelled_at_the_server() {
    let (told, was_told) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let told = std::sync::Arc::new(told);
    let origin = Origin2::start(100, move |mut asked| {
        let told = std::sync::Arc::clone(&told);
        async move {
            let reason = std::future::poll_fn(|cx| asked.respond.poll_reset(cx)).await;
            told.lock().expect("no panic").send(reason.is_ok()).expect("awaited");
        }
    });
    let proxy = Proxy::builder().version_speaking("v1", &[origin.address], "h2").start();
    let client = Http2::connect(proxy.address);
    let (head, mut stream) = client.run(client.open(call("/hang")));
    eventually("it began", || origin.requests() == 1);
    client.run(async {
        stream.send_reset(h2::Reason::CANCEL);
        assert!(reply(head).await.is_err());
    });
    assert!(was_told.recv_timeout(crate::support::PATIENCE).expect("cancelled"));
}
