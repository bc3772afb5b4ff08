//! HTTP/2 at both ends, and in between.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Response};
use tidegate::{
    app::Ended,
    registry::{ErrorKind, RetryReason},
};
use tokio::sync::Semaphore;

use crate::support::{
    Origin, Proxy, eventually,
    http2::{Http2, Origin2, read_all, reply, request, send_all},
    pattern,
    proxy::Builder,
};

/// A proxy whose version `v1` speaks HTTP/2.
fn to_h2(origin: &Origin2) -> Builder {
    Proxy::builder().version_speaking("v1", &[origin.address], "h2")
}

#[test]
fn a_stream_becomes_one_request_in_its_canonical_form() {
    let origin = Origin::start(|call| {
        call.read_body()?;
        call.send(
            "HTTP/1.1 201 Made\r\nX-One: 1\r\nX-Two: a\r\nX-Two: b\r\nConnection: X-One\r\n",
        )?;
        call.send("Keep-Alive: timeout=5\r\nContent-Length: 4\r\n\r\ndone")
    });
    let proxy = Proxy::to(&origin);
    let client = Http2::connect(proxy.address);
    let bet = request("POST", "/v1/../bets?x=1")
        .header("cookie", "uid=7")
        .header("cookie", "theme=dark")
        .header("te", "trailers")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-request-id", "id-1");
    let answer = client.ask(bet, Some(b"stake"));
    assert_eq!((answer.status, &answer.body[..]), (201, &b"done"[..]));
    let two: Vec<_> = answer.headers.get_all("x-two").iter().collect();
    assert_eq!(two, ["a", "b"]);
    for dropped in ["x-one", "connection", "keep-alive", "transfer-encoding"] {
        assert_eq!(answer.field(dropped), None, "{dropped}");
    }
    assert!(answer.field("date").is_some());
    let seen = origin.last();
    assert_eq!(
        seen.head.raw,
        "POST /bets?x=1 HTTP/1.1\r\nHost: api.test\r\ncookie: uid=7; theme=dark\r\n\
         Transfer-Encoding: chunked\r\nVia: 2.0 tidegate\r\nX-Forwarded-For: 127.0.0.1\r\n\
         X-Forwarded-Proto: http\r\nX-Forwarded-Host: api.test\r\nX-Request-Id: id-1\r\n\r\n"
    );
    assert_eq!(seen.body, b"stake");
}

#[test]
fn bodies_of_any_size_pass_both_ways_whatever_is_spoken() {
    let echo1 = Origin::start(|call| {
        call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        call.echo_chunks()
    });
    let echo2 = Origin2::start(100, |mut asked| async move {
        let mut stream = asked.respond.send_response(Response::new(()), false).expect("open");
        while let Some(Ok(chunk)) = asked.body.data().await {
            asked.body.flow_control().release_capacity(chunk.len()).expect("open");
            send_all(&mut stream, &chunk).await;
        }
        stream.send_data(Bytes::new(), true).expect("open");
    });
    for proxy in [Proxy::to(&echo1), to_h2(&echo2).start()] {
        let client = Http2::connect(proxy.address);
        for length in [0, 1, 16_383, 16_384, 70_000, 1_000_000] {
            let body = pattern(length);
            let answer = client.ask(request("POST", "/"), Some(&body));
            assert!(answer.body == body, "{length} bytes came back as {}", answer.body.len());
            // A client of HTTP/1.1 sends chunks, and gets some.
            let mut wire = proxy.connect();
            let mut bytes =
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for chunk in body.chunks(9000) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            let sending = wire.wire.stream.try_clone().expect("a descriptor");
            let sending = std::thread::spawn(move || {
                use std::io::Write;
                (&sending).write_all(&bytes).expect("the proxy reads");
            });
            let answer = wire.answer();
            sending.join().expect("sent");
            assert!(answer.body == body, "{length} bytes came back as {}", answer.body.len());
        }
    }
}

#[test]
fn a_slow_reader_slows_the_writer() {
    // More than all windows and buffers on the way hold.
    const LENGTH: usize = 64 << 20;
    let (sent, written) = std::sync::mpsc::channel();
    let sent = std::sync::Mutex::new(sent);
    let origin = Origin::start(move |call| {
        call.skip_body()?;
        call.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"))?;
        for block in pattern(LENGTH).chunks(1 << 16) {
            call.send(block)?;
        }
        let _ = sent.lock().expect("no panic").send(());
        Ok(())
    });
    let proxy = Proxy::to(&origin);
    let client = Http2::connect(proxy.address);
    let (head, mut stream) = client.run(client.open(request("GET", "/")));
    client.run(async { stream.send_data(Bytes::new(), true).expect("open") });
    let mut body = client.run(head).expect("a head").into_body();
    // Nothing is taken, so nothing moves; other streams of the connection do.
    let waited = written.recv_timeout(Duration::from_millis(300));
    assert!(waited.is_err(), "all of it was taken from the origin");
    let read = client.run(read_all(&mut body)).expect("whole");
    assert!(read == pattern(LENGTH));
    written.recv().expect("sent");
}

#[test]
fn trailers_pass_between_streams_whether_or_not_the_length_was_announced() {
    let origin = Origin2::start(100, |mut asked| async move {
        let body = read_all(&mut asked.body).await.expect("whole");
        let told = asked.body.trailers().await.expect("open").expect("trailers");
        let length = asked.head.headers.get("content-length").cloned();
        let mut head = Response::new(());
        length.map(|length| head.headers_mut().insert("content-length", length));
        let mut stream = asked.respond.send_response(head, false).expect("open");
        send_all(&mut stream, &body).await;
        stream.send_trailers(told).expect("open");
    });
    let proxy = to_h2(&origin).start();
    let client = Http2::connect(proxy.address);
    for length in [1, 4, 30_000] {
        for is_announced in [false, true] {
            let reply = client.run(async {
                let mut head = request("POST", "/");
                if is_announced {
                    head = head.header("content-length", length.to_string());
                }
                let (head, mut stream) = client.open(head).await;
                send_all(&mut stream, &pattern(length)).await;
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", "42".parse().expect("a value"));
                stream.send_trailers(trailers).expect("open");
                reply(head).await.expect("whole")
            });
            assert!(reply.body == pattern(length), "{length} {is_announced}");
            assert_eq!(reply.trailer("x-sum"), Some("42"), "{length} {is_announced}");
        }
    }
}

#[test]
fn trailers_follow_an_empty_body_of_announced_length() {
    let origin = Origin2::start(100, |mut asked| async move {
        let head = Response::builder().header("content-length", "0").body(()).expect("a head");
        let mut stream = asked.respond.send_response(head, false).expect("open");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "42".parse().expect("a value"));
        stream.send_trailers(trailers).expect("open");
    });
    let proxy = to_h2(&origin).start();
    assert_eq!(Http2::connect(proxy.address).get("/").trailer("x-sum"), Some("42"));
    let plain = proxy.get("/");
    assert_eq!((plain.status, plain.text()), (200, ""));
}

#[test]
fn trailers_behind_chunks_reach_clients_that_take_them() {
    let chunks = Origin::start(|call| {
        call.skip_body()?;
        call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")?;
        call.send("2\r\nok\r\n0\r\nX-Sum: 42\r\nContent-Length: 7\r\nSet-Cookie: a=b\r\n\r\n")
    });
    let stream = Origin2::start(100, |mut asked| async move {
        let mut stream = asked.respond.send_response(Response::new(()), false).expect("open");
        send_all(&mut stream, b"ok").await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "42".parse().expect("a value"));
        trailers.insert("set-cookie", "a=b".parse().expect("a value"));
        stream.send_trailers(trailers).expect("open");
    });
    for proxy in [Proxy::to(&chunks), to_h2(&stream).start()] {
        let reply = Http2::connect(proxy.address).get("/");
        assert_eq!((&reply.body[..], reply.trailer("x-sum")), (&b"ok"[..], Some("42")));
        assert_eq!(reply.trailers.expect("some").len(), 1, "the others may not be trailers");
        for (asks, behind) in [("TE: trailers\r\nConnection: TE\r\n", "x-sum: 42\r\n"), ("", "")] {
            let mut client = proxy.connect();
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{asks}\r\n"));
            client.wire.head().expect("open").expect("a head");
            assert_eq!(client.wire.chunk().expect("a chunk"), b"ok");
            let end = format!("0\r\n{behind}\r\n");
            assert_eq!(client.wire.exactly_bytes(end.len()), end.as_bytes());
        }
    }
}

#[test]
fn interim_answers_pass_in_order() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        call.read_body()?;
        call.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")?;
        call.answer(200, b"ok")
    });
    let proxy = Proxy::to(&origin);
    let client = Http2::connect(proxy.address);
    let (interim, answer) = client.run(async {
        let asking = request("POST", "/").header("expect", "100-continue");
        let (mut head, mut stream) = client.open(asking).await;
        let mut interim = Vec::new();
        let go_on = std::future::poll_fn(|cx| head.poll_informational(cx)).await;
        interim.push(go_on.expect("one").expect("open").status().as_u16());
        stream.send_data(Bytes::from_static(b"body"), true).expect("open");
        let hints = std::future::poll_fn(|cx| head.poll_informational(cx)).await;
        interim.push(hints.expect("one").expect("open").status().as_u16());
        (interim, reply(head).await.expect("whole"))
    });
    assert_eq!((interim, &answer.body[..]), (vec![100, 103], &b"ok"[..]));
    assert_eq!(origin.last().body, b"body");
}

#[test]
fn answers_without_a_body_have_none() {
    for (status, fields) in
        [(204, ""), (304, "Content-Length: 5\r\n"), (200, "Content-Length: 0\r\n")]
    {
        let origin = Origin::start(move |call| {
            call.skip_body()?;
            call.send(format!("HTTP/1.1 {status} Told\r\n{fields}\r\n"))
        });
        let proxy = Proxy::to(&origin);
        let client = Http2::connect(proxy.address);
        let answer = client.get("/");
        assert_eq!((answer.status, answer.body.len()), (status, 0));
        assert_eq!(client.get("/").status, status, "the connection lives");
    }
    let origin = Origin::answering("twelve bytes");
    let proxy = Proxy::to(&origin);
    let answer = Http2::connect(proxy.address).ask(request("HEAD", "/"), None);
    assert_eq!((answer.field("content-length"), answer.body.len()), (Some("12"), 0));
}

#[test]
fn requests_share_a_connection_to_an_endpoint_and_take_another_when_its_streams_are_full() {
    let gate = std::sync::Arc::new(Semaphore::new(0));
    let (held, opened) = (std::sync::Arc::clone(&gate), gate);
    let origin = Origin2::start(3, move |asked| {
        let held = std::sync::Arc::clone(&held);
        async move {
            held.acquire().await.expect("open").forget();
            asked.answer(200, b"ok");
        }
    });
    let proxy = to_h2(&origin).start();
    // The endpoint's limit is known from the first answer on.
    opened.add_permits(1);
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(origin.connections(), 1);
    let client = Http2::connect(proxy.address);
    client.run(async {
        let asking = (0..7).map(|_| client.asked(request("GET", "/"), None));
        let asking: Vec<_> = asking.map(Box::pin).collect();
        let all = async {
            for answer in futures_in_order(asking).await {
                assert_eq!(answer.expect("whole").status, 200);
            }
        };
        let watch = async {
            while origin.requests() < 8 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert_eq!(origin.connections(), 3, "seven requests, three streams each");
            opened.add_permits(7);
        };
        tokio::join!(all, watch)
    });
}

/// Polls all of `work` at once; the results in order.
async fn futures_in_order<F: Future + Unpin>(mut work: Vec<F>) -> Vec<F::Output> {
    let mut done: Vec<Option<F::Output>> = work.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in work.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(output) = std::pin::Pin::new(future).poll(cx)
            {
                *done = Some(output);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[test]
fn a_post_that_the_endpoint_refused_unread_is_sent_again_and_another_is_not() {
    for (reason, answered) in [(Reason::REFUSED_STREAM, true), (Reason::INTERNAL_ERROR, false)] {
        let origin = Origin2::start(100, move |mut asked| async move {
            match asked.nth {
                1 => asked.respond.send_reset(reason),
                _ => asked.answer(200, b"ok"),
            }
        });
        let proxy = to_h2(&origin).start();
        assert_eq!(proxy.get("/").status, 200);
        let answer = proxy.connect().post("/", b"a bet").send();
        assert_eq!(answer.status, if answered { 200 } else { 502 }, "{reason:?}");
        let retries = u64::from(answered);
        assert_eq!(proxy.retries("v1", RetryReason::StaleConnection), retries, "{reason:?}");
        assert_eq!(origin.requests(), 2 + retries as usize, "{reason:?}");
    }
}

/// The further attempt had no time left, and the endpoint was counted as slow.
#[test]
fn a_refused_post_whose_upload_took_long_has_as_much_time_again() {
    let origin = Origin2::start(100, move |mut asked| async move {
        let body = read_all(&mut asked.body).await.expect("whole");
        match asked.nth {
            0 => asked.respond.send_reset(Reason::REFUSED_STREAM),
            _ => asked.answer(200, &body),
        }
    });
    let proxy = to_h2(&origin).route("timeout: 300ms").start();
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\na");
    for byte in [" ", "b", "e", "t"] {
        std::thread::sleep(Duration::from_millis(150));
        client.send(byte);
    }
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (200, "a bet"));
    assert_eq!(proxy.errors("v1", ErrorKind::Timeout), 0);
}

#[test]
fn a_connection_that_did_not_answer_in_time_is_used_no_more() {
    let origin = Origin2::start(100, |asked| async move {
        match asked.nth {
            0 => std::future::pending().await,
            _ => asked.answer(200, b"ok"),
        }
    });
    let proxy = to_h2(&origin).route("timeout: 100ms").start();
    assert_eq!(proxy.get("/").status, 504);
    assert_eq!((proxy.get("/").status, origin.connections()), (200, 2));
}

#[test]
fn a_cut_answer_is_not_passed_for_whole() {
    let origin = Origin::start(|call| {
        call.skip_body()?;
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")?;
        call.close();
        Ok(())
    });
    let proxy = Proxy::to(&origin);
    let client = Http2::connect(proxy.address);
    let error = client.run(client.asked(request("GET", "/"), None)).expect_err("cut");
    assert!(error.is_reset(), "{error}");
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
}

#[test]
fn a_client_that_breaks_off_is_noticed_and_its_request_with_it() {
    let origin = Origin::start(|call| {
        call.skip_body()?;
        call.await_end()
    });
    let proxy = Proxy::to(&origin);
    let client = Http2::connect(proxy.address);
    client.run(async {
        let (head, mut stream) = client.open(request("GET", "/")).await;
        stream.send_data(Bytes::new(), true).expect("open");
        while origin.requests() < 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        stream.send_reset(Reason::CANCEL);
        drop(head);
    });
    origin.await_open(0);
}

#[test]
fn problems_are_told_on_streams_too_and_the_connection_stays() {
    let origin = Origin::answering("ok");
    let proxy = Proxy::builder().version("v1", &origin).route("match: { path: /here }").start();
    let client = Http2::connect(proxy.address);
    let lost = client.get("/elsewhere");
    assert_eq!((lost.status, lost.field("content-type")), (404, Some("application/problem+json")));
    let odd = client.ask(request("GET", "/here").header("expect", "magic"), None);
    assert_eq!(odd.status, 417);
    let far = client.get("/%2e%2e/%2e%2e/here");
    assert_eq!(far.status, 400);
    assert_eq!(client.get("/here").status, 200);
    drop(origin);
    assert_eq!(client.get("/here").status, 502);
}

#[test]
fn a_drain_says_go_away_and_finishes_what_is_on_its_way() {
    let gate = std::sync::Arc::new(std::sync::Mutex::new(()));
    let (held, door) = (std::sync::Arc::clone(&gate), gate);
    let closed = door.lock().expect("no panic");
    let origin = Origin::start(move |call| {
        call.skip_body()?;
        drop(held.lock());
        call.answer(200, b"at last")
    });
    let proxy = Proxy::builder().version("v1", &origin).top("shutdown: { deadline: 10s }").start();
    let (client, idle) = (Http2::connect(proxy.address), Http2::connect(proxy.address));
    let (head, mut stream) = client.run(client.open(request("GET", "/")));
    client.run(async { stream.send_data(Bytes::new(), true).expect("open") });
    origin.await_requests(1);
    let ending = std::thread::spawn(move || proxy.shutdown());
    // An idle one is told at once.
    assert!(idle.await_end().is_ok(), "NO_ERROR");
    // From now on no stream begins.
    eventually("the client is told to go", || {
        let mut send = client.send.clone();
        client.run(std::future::poll_fn(|cx| send.poll_ready(cx))).is_err()
    });
    drop(closed);
    assert_eq!(client.run(reply(head)).expect("whole").body, b"at last");
    assert!(client.await_end().is_ok());
    assert_eq!(ending.join().expect("ended"), Ended::Drained);
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    let origin = Origin::answering("ok");
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.top("limits: { idle_timeout: 200ms }").start();
    let client = Http2::connect(proxy.address);
    assert_eq!(client.get("/").status, 200);
    assert!(client.await_end().is_ok(), "NO_ERROR");
}
