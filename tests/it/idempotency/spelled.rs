//! How a key is written, and to which host its request goes.

use super::*;

/// An origin that resets the first requests with the body `first`, and answers others; and what it got as keys.
fn forgetful(resets: usize) -> (Origin, Arc<Mutex<Vec<Vec<String>>>>) {
    let got: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
    let seen = Arc::clone(&got);
    let left = AtomicUsize::new(resets);
    let origin = Origin::start(move |call| {
        call.read_body()?;
        let fields = call.head.all("idempotency-key").map(str::to_owned).collect();
        seen.lock().expect("no panic").push(fields);
        if left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            call.reset();
            return Ok(());
        }
        call.answer(201, b"placed")
    });
    (origin, got)
}

fn ask(client: &mut Client, fields: &[(&str, &str)]) -> Answer {
    let request = client.post("/bets", b"x").header("X-Player", "p1");
    fields.iter().fold(request, |request, (name, value)| request.header(name, value)).send()
}

/// Asked again, the version gets the key as it got it first: else it takes it for two.
#[test]
fn an_unsure_key_is_asked_for_in_the_spelling_of_the_first_request() {
    for (first, later) in [("\"k-1\"", "k-1"), ("k-1", "\"k-1\""), (r#""a \" \\""#, r#""a \" \\""#)]
    {
        for kept in [false, true] {
            let (origin, got) = forgetful(4);
            let folder = TempDir::new().expect("a folder");
            let state = format!("state: {}", folder.path().join("state").display());
            let text = keyed(&origin, "unsure: ask").top(if kept { &state } else { "" });
            let mut process = text.spawn();
            let key = "Idempotency-Key";
            assert_eq!(ask(&mut process.connect(), &[(key, first)]).status, 502);
            assert_eq!(ask(&mut process.connect(), &[(key, later)]).status, 502);
            let named = [(key, later), ("Connection", "Idempotency-Key, X-Player")];
            assert_eq!(ask(&mut process.connect(), &named).status, 502);
            if kept {
                process.signal(rustix::process::Signal::KILL);
                process.wait();
                process = text.spawn();
            }
            let http2 = Http2::connect(process.address);
            let head = http::Request::post("http://game.test/bets");
            let head = head.header("x-player", "p1").header("idempotency-key", later);
            let status = http2.run(async {
                let (response, mut body) = http2.open(head).await;
                body.send_data("x".into(), true).expect("an open stream");
                response.await.expect("a response").status()
            });
            assert_eq!(status, 502, "{first} {kept}");
            assert_eq!(ask(&mut process.connect(), &[(key, later)]).status, 201);
            assert!(replayed(&ask(&mut process.connect(), &[(key, first)])));
            let got = got.lock().expect("no panic").clone();
            assert_eq!(got, vec![vec![first.to_owned()]; 5], "{later} {kept}");
        }
    }
}

/// Whoever names the field in `Connection` would have the version process a write without its key.
#[test]
fn a_key_reaches_the_version_whatever_connection_names() {
    let (origin, got) = forgetful(0);
    let proxy = keyed(&origin, "").start();
    let fields = [("Idempotency-Key", "\"k\""), ("Connection", "close, idempotency-KEY")];
    assert_eq!(ask(&mut proxy.connect(), &fields).status, 201);
    assert_eq!(*got.lock().expect("no panic"), [["\"k\""]]);
}

/// Applications read `Idempotency_Key` as the field, and Tidegate would not.
#[test]
fn a_key_in_another_spelling_of_the_field_is_refused() {
    let (origin, _) = forgetful(0);
    for fields in ["", "required: true"] {
        let proxy = keyed(&origin, fields).start();
        for name in ["Idempotency_Key", "idempotency.key", "IDEMPOTENCY~KEY"] {
            let refused = ask(&mut proxy.connect(), &[(name, "k")]);
            assert_eq!((refused.status, refused.kind()), (400, "idempotency_malformed".to_owned()));
            let both = ask(&mut proxy.connect(), &[("Idempotency-Key", "k"), (name, "k")]);
            assert_eq!((both.status, both.kind()), (400, "idempotency_malformed".to_owned()));
        }
    }
    assert_eq!(origin.requests(), 0);
}

#[test]
fn a_key_is_of_one_host_however_that_is_written() {
    let (origin, _) = forgetful(0);
    let proxy = keyed(&origin, "").start();
    let bet = |host: &str| {
        let mut client = proxy.connect();
        let request = client.post("/bets", b"x").host(host).header("X-Player", "p1");
        let answer = request.header("Idempotency-Key", "k").send();
        (answer.status, replayed(&answer))
    };
    assert_eq!(bet("a.example"), (201, false));
    for same in ["a.example", "A.Example", "a.example:443", "a.example.", "a.EXAMPLE.:80"] {
        assert_eq!(bet(same), (201, true), "{same}");
    }
    for other in ["b.example", "a.example.org", "127.0.0.1", "[::1]"] {
        assert_eq!(bet(other), (422, false), "{other}");
    }
    let http2 = Http2::connect(proxy.address);
    let status = |uri: &str| {
        let head = http::Request::post(uri).header("x-player", "p1").header("idempotency-key", "k");
        http2.run(async {
            let (response, mut body) = http2.open(head).await;
            body.send_data("x".into(), true).expect("an open stream");
            response.await.expect("a response").status().as_u16()
        })
    };
    assert_eq!(status("http://a.example/bets"), 201);
    assert_eq!(status("http://b.example/bets"), 422);
    assert_eq!(origin.requests(), 1);
}

/// What exceeds the announced length comes in a frame of its own, after a pause: the request is malformed, and a write that is
/// malformed is not processed.
#[test]
fn a_body_that_goes_on_after_its_length_is_not_sent() {
    let (origin, _) = forgetful(0);
    let proxy = keyed(&origin, "").start();
    let send = |length: &str, frames: &'static [&'static [u8]]| {
        let http2 = Http2::connect(proxy.address);
        let head = http::Request::post("http://game.test/bets").header("x-player", "p1");
        let head = head.header("idempotency-key", length).header("content-length", length);
        http2.run(async {
            let (response, mut body) = http2.open(head).await;
            for (n, frame) in frames.iter().enumerate() {
                let _ = body.send_data((*frame).into(), n + 1 == frames.len());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            response.await.map(|response| response.status().as_u16()).ok()
        })
    };
    assert_eq!(send("1", &[b"x", b"yyy"]), None);
    assert_eq!(send("3", &[b"x", b"y"]), None);
    assert_eq!(origin.requests(), 0);
    assert_eq!(send("2", &[b"x", b"y", b""]), Some(201));
    assert_eq!(send("4", &[b"xxxx"]), Some(201));
    assert_eq!(origin.requests(), 2);
    assert_eq!(origin.last().head.field("content-length"), Some("4"));
}
