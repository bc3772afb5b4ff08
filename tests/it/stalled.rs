//! Whoever does not read keeps nobody else from being served, at either end of the proxy.

use std::{thread, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::Response;

use crate::support::{
    Origin, Proxy, eventually,
    http2::{Asked, Http2, Origin2, read_all, reply, request, send_all},
    pattern,
};

/// Ends a body whose sender waits until the test has ended.
const FOREVER: usize = usize::MAX;

/// Sends `frames` frames of `length` bytes, as the window allows.
async fn send_frames(stream: &mut SendStream<Bytes>, frames: usize, length: usize) {
    let frame = pattern(length);
    for _ in 0..frames {
        stream.reserve_capacity(length);
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(_)) = room else { return };
        send_all(stream, &frame).await;
    }
}

/// Answers `/large` with frames of 16 KiB without end, `/small` with frames of 12 bytes without end,
/// reads what is sent to `/read`, leaves what is sent to `/deaf` unread.
async fn serve(mut asked: Asked) {
    let length = match asked.head.uri.path() {
        "/large" => 16_384,
        "/small" => 12,
        "/deaf" => return std::future::pending().await,
        _ => {
            let body = read_all(&mut asked.body).await.unwrap_or_default();
            return asked.answer(200, body.len().to_string().as_bytes());
        }
    };
    let mut stream = asked.respond.send_response(Response::new(()), false).expect("open");
    send_frames(&mut stream, FOREVER, length).await;
}

fn to(origin: &Origin2) -> Proxy {
    Proxy::builder().version_speaking("v1", &[origin.address], "h2").start()
}

/// An answer that has begun, which the test holds and does not read.
fn begun(client: &Http2, path: &str) -> Response<RecvStream> {
    client.run(async {
        let (head, mut stream) = client.open(request("GET", path)).await;
        stream.send_data(Bytes::new(), true).expect("open");
        head.await.expect("an answer begins")
    })
}

#[test]
fn answers_that_nobody_reads_stall_no_other_answer_of_the_endpoint() {
    let origin = Origin2::start(100, serve);
    let proxy = to(&origin);
    assert_eq!(proxy.get("/read").status, 200);
    // Streams, so that no socket's buffer takes what their windows do not.
    let silent = Http2::connect(proxy.address);
    let stalled: Vec<_> = (0..24).map(|_| begun(&silent, "/large")).collect();
    thread::sleep(Duration::from_secs(1));
    let answer = proxy.connect().post("/read", &pattern(100_000)).send();
    assert_eq!((answer.status, answer.text()), (200, "100000"));
    assert_eq!(origin.connections(), 1);
    drop((stalled, silent));
    eventually("all have ended", || proxy.in_flight() == 0);
    assert_eq!(proxy.all_errors("v1"), 0, "the version is not blamed");
}

#[test]
fn small_frames_that_nobody_reads_do_not_end_the_connection_of_others() {
    let origin = Origin2::start(100, serve);
    let proxy = to(&origin);
    let silent = Http2::connect(proxy.address);
    let stalled: Vec<_> = (0..12).map(|_| begun(&silent, "/small")).collect();
    thread::sleep(Duration::from_secs(3));
    assert_eq!(proxy.get("/read").status, 200);
    assert_eq!(origin.connections(), 1, "it is the same connection");
    drop(stalled);
}

#[test]
fn an_upload_that_an_endpoint_does_not_read_moves_new_requests_to_another_connection() {
    let origin = Origin2::start(100, serve);
    let proxy = to(&origin);
    assert_eq!(proxy.get("/read").status, 200);
    // More than the window of the connection, which the others share.
    let mut stuck = proxy.connect();
    stuck.send("POST /deaf HTTP/1.1\r\nHost: a\r\nContent-Length: 400000\r\n\r\n");
    stuck.send(pattern(200_000));
    eventually("it is asked", || origin.requests() == 2);
    thread::sleep(Duration::from_millis(1300));
    for _ in 0..20 {
        let answer = proxy.connect().post("/read", &pattern(100_000)).send();
        assert_eq!((answer.status, answer.text()), (200, "100000"));
    }
    assert_eq!(origin.connections(), 2, "one for all");
}

#[test]
fn uploads_to_a_version_that_does_not_read_stall_no_other_upload_of_the_client() {
    let (deaf, reads) = (Origin2::start(100, serve), Origin::answering("ok"));
    let proxy = Proxy::builder()
        .version_speaking("v1", &[deaf.address], "h2")
        .version("v2", &reads)
        .route("name: deaf, version: v1, match: { path: /deaf }")
        .route("name: rest, version: v2")
        .start();
    let client = Http2::connect(proxy.address);
    let mut stalled = Vec::new();
    for _ in 0..6 {
        stalled.push(client.run(async {
            let (head, mut stream) = client.open(request("POST", "/deaf")).await;
            let body = pattern(400_000);
            let sending = send_all(&mut stream, &body);
            let sent = tokio::time::timeout(Duration::from_millis(200), sending).await;
            assert!(sent.is_err(), "it is stuck");
            (head, stream)
        }));
    }
    let answer = client.ask(request("POST", "/read"), Some(&pattern(10_000)));
    assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
    drop(stalled);
    // The connection is still that of all of them.
    let reply = client.run(async {
        let (head, mut stream) = client.open(request("GET", "/read")).await;
        stream.send_data(Bytes::new(), true).expect("open");
        reply(head).await.expect("whole")
    });
    assert_eq!(reply.status, 200);
}
