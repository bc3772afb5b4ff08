//! Keys of requests that are sent again.

use super::*;

type Script = fn(&mut crate::support::origin::Call<'_>) -> std::io::Result<()>;

/// An origin that does what `scripts` say, one after the other, and then answers 201.
fn scripted(scripts: &'static [Script]) -> Origin {
    let asked = AtomicUsize::new(0);
    Origin::start(move |call| {
        call.read_body()?;
        match scripts.get(asked.fetch_add(1, SeqCst)) {
            Some(script) => script(call),
            None => call.answer(201, b"placed"),
        }
    })
}

fn resets(call: &mut crate::support::origin::Call<'_>) -> std::io::Result<()> {
    call.reset();
    Ok(())
}

fn refuses(call: &mut crate::support::origin::Call<'_>) -> std::io::Result<()> {
    call.answer(503, b"a long text that is not the response to the key")
}

fn too_many(call: &mut crate::support::origin::Call<'_>) -> std::io::Result<()> {
    call.answer(429, b"later")
}

fn bet(proxy: &Proxy, method: &str) -> (u16, String, bool) {
    let mut client = proxy.connect();
    let request = client.request(method, "/bets").header("Idempotency-Key", "k");
    let answer = request.header("X-Player", "p1").body(b"x").send();
    let is_problem = answer.field("content-type") == Some("application/problem+json");
    let text = if is_problem { answer.kind() } else { answer.text().to_owned() };
    (answer.status, text, replayed(&answer))
}

fn repeating(origin: &Origin, retry: &str) -> Proxy {
    Proxy::builder()
        .version("v1", origin)
        .service("cohort: { key: [ \"header:x-player\" ] }")
        .route(&format!("timeout: 5s, idempotency: {{ }}, retry: {{ {retry} }}"))
        .start()
}

#[test]
fn the_response_to_a_key_is_that_of_its_last_attempt() {
    for scripts in [&[resets as Script], &[refuses as Script]] {
        let origin = scripted(scripts);
        let proxy = repeating(&origin, "idempotency_key: honoured");
        assert_eq!(bet(&proxy, "POST"), (201, "placed".into(), false));
        assert_eq!(bet(&proxy, "POST"), (201, "placed".into(), true));
        assert_eq!(origin.requests(), 2);
    }
}

#[test]
fn a_write_whose_key_its_versions_do_not_honour_is_sent_once_whatever_its_method() {
    for method in ["POST", "PUT", "DELETE"] {
        let origin = scripted(&[resets]);
        let proxy = repeating(&origin, "");
        assert_eq!(bet(&proxy, method).0, 502, "{method}");
        assert_eq!(bet(&proxy, method), (409, "idempotency_unsure".into(), false), "{method}");
        assert_eq!(origin.requests(), 1, "{method}");
    }
}

#[test]
fn a_last_attempt_that_is_refused_says_nothing_of_one_before_it() {
    for scripts in [&[resets as Script, too_many], &[refuses as Script, too_many]] {
        let origin = scripted(scripts);
        let proxy = repeating(&origin, "idempotency_key: honoured");
        assert_eq!(bet(&proxy, "POST").0, 429);
        assert_eq!(bet(&proxy, "POST"), (409, "idempotency_unsure".into(), false));
        assert_eq!(origin.requests(), 2);
    }
    // A first attempt that is refused frees the key.
    let origin = scripted(&[too_many]);
    let proxy = repeating(&origin, "idempotency_key: honoured");
    assert_eq!(bet(&proxy, "POST").0, 429);
    assert_eq!(bet(&proxy, "POST"), (201, "placed".into(), false));
}

#[test]
fn a_client_that_leaves_between_two_attempts_finds_the_response_when_it_comes_back() {
    let origin = scripted(&[|call| {
        call.send("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
    }]);
    let proxy = repeating(&origin, "idempotency_key: honoured");
    let mut client = proxy.connect();
    client.send("POST /bets HTTP/1.1\r\nHost: game.test\r\nX-Player: p1\r\nIdempotency-Key: k\r\nContent-Length: 1\r\n\r\nx");
    origin.await_requests(1);
    client.reset();
    assert_eq!(bet(&proxy, "POST"), (201, "placed".into(), true));
    assert_eq!(origin.requests(), 2);
}

#[test]
fn a_replayed_response_tells_the_rate_that_is_left_and_takes_part_in_it() {
    let origin = scripted(&[]);
    let proxy = Proxy::builder()
        .version("v1", &origin)
        .service("cohort: { key: [ \"header:x-player\" ] }")
        .route("idempotency: { }, limit: { rates: [ { requests: 2, per: 1h, by: [ \"header:x-player\" ] } ] }")
        .start();
    let mut client = proxy.connect();
    let first = post(&mut client, "k", b"x");
    let again = post(&mut client, "k", b"x");
    assert_eq!((first.status, again.status, replayed(&again)), (201, 201, true));
    assert!(first.field("ratelimit").is_some_and(|left| left.contains("r=1")), "{first:?}");
    assert!(again.field("ratelimit").is_some_and(|left| left.contains("r=0")), "{again:?}");
    assert_eq!(post(&mut client, "k", b"x").status, 429);
    assert_eq!(origin.requests(), 1);
}
