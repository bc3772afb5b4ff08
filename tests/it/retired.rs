//! Connections to endpoints of HTTP/2 that get no further request, and what becomes of those on them.

use std::{io::Read, thread, time::Duration};

use bytes::Bytes;
use h2::Reason;

use crate::support::{
    Client, Proxy, eventually,
    http2::{DATA, GET, HEADERS, Http2, RST_STREAM, Raw, block, frame, request},
    pattern,
    raw_origin::{RawCall, RawOrigin, go_away},
};

const EVERY_STREAM: u32 = (1 << 31) - 1;

fn to(origin: &RawOrigin) -> Proxy {
    let builder = Proxy::builder().version_speaking("v1", &[origin.address], "h2");
    builder.route("timeout: 120s").start()
}

#[test]
fn an_endpoint_that_says_go_away_is_asked_on_one_new_connection_and_finishes_the_old() {
    let origin = RawOrigin::start(|call| match call.nth {
        0 => Some([call.head(), frame(DATA, 0, call.stream, b"begun ")].concat()),
        _ => Some(call.whole()),
    });
    let proxy = to(&origin);
    let mut download = proxy.connect();
    download.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is asked", || origin.requests() == 1);
    origin.send(0, &go_away(EVERY_STREAM, 0));
    eventually("a new connection is used", || {
        proxy.get("/");
        origin.connections() == 2
    });
    for _ in 0..30 {
        assert_eq!(proxy.connect().post("/", b"stake").send().status, 200);
    }
    assert_eq!(origin.connections(), 2, "one for all of them");
    assert_eq!(proxy.all_errors("v1"), 0);
    origin.send(0, &frame(DATA, 1, 1, b"ended"));
    assert_eq!(download.answer().text(), "begun ended");
}

/// Frames on their way to clients who left made the crate end the connection, and with it all other answers.
#[test]
fn late_frames_of_streams_that_were_given_up_end_no_other_answer() {
    const LEFT: usize = 100;
    let origin = RawOrigin::start(|call| match call.nth {
        nth if nth < LEFT => Some(call.head()),
        _ => Some(call.whole()),
    });
    let proxy = to(&origin);
    let client = Http2::connect(proxy.address);
    let begun = || {
        client.run(async {
            let (head, mut stream) = client.open(request("GET", "/")).await;
            stream.send_data(Bytes::new(), true).expect("open");
            head.await.expect("an answer begins")
        })
    };
    let left: Vec<_> = (0..LEFT).map(|_| begun()).collect();
    drop(left);
    eventually("all are given up", || proxy.in_flight() == 0);
    let streams = (0..LEFT as u32).map(|nth| 1 + 2 * nth);
    let late: Vec<u8> = streams.flat_map(|stream| frame(DATA, 0, stream, b"late")).collect();
    // Each round is over with an answer behind it. By default the crate takes 1,024 such frames.
    for round in 0..30 {
        origin.send(0, &late);
        let answer = proxy.connect().post("/", b"stake").send();
        assert_eq!((answer.status, origin.connections()), (200, 1), "round {round}");
    }
    assert_eq!(proxy.all_errors("v1"), 0);
}

/// What an endpoint says of a request that it did not process.
type Refusal = fn(&RawCall) -> Vec<u8>;

const REFUSALS: [(&str, Refusal); 3] = [
    ("a refused stream", |call| frame(RST_STREAM, 0, call.stream, &7u32.to_be_bytes())),
    ("an announced end", |call| go_away(call.stream.saturating_sub(2), 0)),
    ("an end for a fault", |call| go_away(call.stream.saturating_sub(2), 2)),
];

#[test]
fn what_an_endpoint_did_not_process_is_asked_again_if_it_is_here_whole() {
    for (said, refusal) in REFUSALS {
        let origin = RawOrigin::start(move |call| match call.nth {
            1 => Some(refusal(call)),
            _ => Some(call.whole()),
        });
        let proxy = to(&origin);
        assert_eq!(proxy.get("/").status, 200);
        let answer = proxy.connect().post("/", b"stake").send();
        assert_eq!((answer.status, origin.requests()), (200, 3), "{said}");

        // The first request on a connection, of a client that says no length.
        let origin = RawOrigin::start(move |call| match call.nth {
            0 => Some(refusal(call)),
            _ => Some(call.whole()),
        });
        let proxy = to(&origin);
        let mut raw = Raw::connect(proxy.address);
        let post = [(":method", "POST"), GET[1], GET[2], GET[3]];
        let head = frame(HEADERS, 4, 1, &block(&post));
        raw.send(&[head, frame(DATA, 1, 1, b"stake")].concat());
        assert_eq!((raw.error(), origin.requests()), (None, 2), "{said}");

        // Of one whose body comes behind its head.
        let origin = RawOrigin::start(move |call| match call.nth {
            0 => Some(refusal(call)),
            _ => Some(call.whole()),
        });
        let proxy = to(&origin);
        let answer = Http2::connect(proxy.address).ask(request("POST", "/"), Some(b"stake"));
        assert_eq!((answer.status, origin.requests()), (200, 2), "{said}");
    }
}

#[test]
fn what_is_not_here_whole_is_refused_in_the_endpoints_words() {
    for (said, refusal) in REFUSALS {
        let origin = RawOrigin::start(move |call| match call.nth {
            0 => Some(call.whole()),
            _ => Some(refusal(call)),
        });
        let proxy = to(&origin);
        assert_eq!(proxy.get("/").status, 200);
        let client = Http2::connect(proxy.address);
        let large = pattern(40_000);
        for attempt in 1..4 {
            let refused = client.run(client.asked(request("POST", "/"), Some(&large)));
            let error = refused.expect_err("not processed");
            assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM), "{said}");
            assert_eq!(origin.requests(), 1 + attempt, "{said}: it is not repeated here");
        }
        assert_eq!(proxy.connect().post("/", &large).send().status, 502, "{said}");
    }
}

#[test]
fn requests_that_are_refused_together_are_asked_again_on_one_new_connection() {
    const AT_ONCE: usize = 20;
    let origin = RawOrigin::start(|call| match (call.connection, call.nth) {
        (0, 0) => Some(call.whole()),
        // Of all but the first it did nothing.
        (0, AT_ONCE) => Some(go_away(1, 0)),
        (0, _) => Some(Vec::new()),
        _ => Some(call.whole()),
    });
    let proxy = to(&origin);
    assert_eq!(proxy.get("/").status, 200);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            let client = proxy.connect();
            scope.spawn(move || {
                let mut client = client;
                assert_eq!(client.post("/", b"stake").send().status, 200);
            });
        }
    });
    assert_eq!((origin.connections(), origin.requests()), (2, 1 + 2 * AT_ONCE));
}

/// Answers the first request, and hangs at the next on the same connection.
fn hangs_after_one(call: &RawCall) -> Option<Vec<u8>> {
    ((call.connection, call.nth) == (0, 0) || call.connection > 0).then(|| call.whole())
}

fn ask(proxy: &Proxy) -> Client {
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client
}

#[test]
fn a_connection_that_went_silent_is_left_although_every_client_leaves_first() {
    let origin = RawOrigin::start(hangs_after_one);
    let proxy = to(&origin);
    assert_eq!(proxy.get("/").status, 200);
    eventually("another connection is used", || {
        let mut client = ask(&proxy);
        let stream = &mut client.wire.stream;
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("open");
        stream.read(&mut [0; 64]).is_ok_and(|n| n > 0)
    });
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_connection_that_went_silent_is_left_although_no_client_leaves() {
    let origin = RawOrigin::start(hangs_after_one);
    let proxy = to(&origin);
    assert_eq!(proxy.get("/").status, 200);
    let _waits = ask(&proxy);
    // Some seconds of waiting, and of waiting for a pong.
    thread::sleep(Duration::from_secs(8));
    assert_eq!((proxy.get("/").status, origin.connections()), (200, 2));
}
