use std::mem::MaybeUninit;

use super::{response::keep_alive_seconds, *};
use crate::proxy::{body::Framing, field_kind::FieldKind};

fn fields<'b>() -> Fields<'b> {
    [const { MaybeUninit::uninit() }; MAX_FIELDS]
}

fn refused(text: &str) -> u16 {
    match parse_request(text.as_bytes(), &mut fields(), &mut { NO_KINDS }) {
        Err(refusal) => refusal.status,
        Ok(head) => panic!("{text:?} gave {head:?}"),
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let get = |rest: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{rest}\r\n\r\n");
    for (status, text) in [
        (400, "GET / HTTP/1.1\r\n\r\n".into()),
        (400, get("Host: b")),
        (400, get("Host: a")),
        (400, get("Content-Length: 1\r\nContent-Length: 1")),
        (400, get("Content-Length: 1\r\nContent-Length: 2")),
        (400, get("Content-Length: 1, 1")),
        (400, get("Content-Length: +1")),
        (400, get("Content-Length: 0x1")),
        (400, get("Content-Length:")),
        (400, get("Content-Length: 99999999999999999999")),
        (400, get("Content-Length: 1\r\nTransfer-Encoding: chunked")),
        (501, get("Transfer-Encoding: gzip, chunked")),
        (501, get("Transfer-Encoding: chunked, chunked")),
        (501, get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked")),
        (501, get("Transfer-Encoding: xchunked")),
        (400, get("X : y")),
        (400, get("X: y\r\n z")),
        (400, get("X: a\rb")),
        (400, get("X: a\0b")),
        (400, get("X\0: a")),
        (417, get("Expect: more")),
        (400, "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into()),
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n".into()),
        (400, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /é HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /a/..%2fb HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\nHost: :80\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into()),
        (501, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".into()),
        (400, "\x16\x03\x01\x02\0".into()),
    ] {
        assert_eq!(refused(&text), status, "{text:?}");
    }
}

#[test]
fn a_request_is_read_once_for_all() {
    let text =
        b"POST http://API.example.com:8080/v1/bets?x=1 HTTP/1.1\r\nHost: api.example.com:8080\r\n\
        Content-Length: 12\r\nConnection: close, X-Secret\r\nExpect: 100-Continue\r\n\r\nrest";
    let (mut fields, mut kinds) = (fields(), NO_KINDS);
    let parsed = parse_request(text, &mut fields, &mut kinds).expect("well formed");
    let (head, length) = parsed.expect("complete");
    assert_eq!((&*head.path, head.query), ("/v1/bets", Some("x=1")));
    assert_eq!((head.authority, head.host()), ("API.example.com:8080", "API.example.com"));
    assert_eq!(head.framing, Framing::Length(12));
    assert!(head.expects_continue && !head.keep_alive && !head.http10);
    assert_eq!(&text[length..], b"rest");
}

#[test]
fn a_host_with_the_dot_of_the_root_is_that_host() {
    for (host, expected) in [
        ("api.example.", "api.example"),
        ("api.example.:8080", "api.example"),
        ("api.example:8080", "api.example"),
        ("[::1]:80", "[::1]"),
        (".", ""),
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let (mut fields, mut kinds) = (fields(), NO_KINDS);
        let head = parse_request(text.as_bytes(), &mut fields, &mut kinds);
        let (head, _) = head.expect("well formed").expect("complete");
        assert_eq!((head.host(), head.authority), (expected, host));
    }
}

#[test]
fn forwards_are_counted_down_to_the_last() {
    for (value, ends, left) in [
        ("0", true, None),
        ("00", true, None),
        ("1", false, Some(0)),
        ("10", false, Some(9)),
        ("99999999999", false, Some(u32::MAX - 1)),
        ("-1", false, None),
        ("", false, None),
        ("1, 2", false, None),
    ] {
        let text = format!("TRACE / HTTP/1.1\r\nHost: a\r\nMAX-Forwards: {value}\r\n\r\n");
        let (mut fields, mut kinds) = (fields(), NO_KINDS);
        let head = parse_request(text.as_bytes(), &mut fields, &mut kinds);
        let (mut head, _) = head.expect("well formed").expect("complete");
        assert_eq!((head.count_forwards(), head.max_forwards), (ends, left), "{value:?}");
        let passes =
            head.fields().any(|(f, kind)| f.name == "MAX-Forwards" && kind == FieldKind::Other);
        assert_eq!(passes, !ends && left.is_none(), "{value:?}");
    }
}

#[test]
fn older_clients_keep_the_connection_only_if_they_say_so() {
    let keeps = |text: &str| {
        let (mut fields, mut kinds) = (fields(), NO_KINDS);
        let head = parse_request(text.as_bytes(), &mut fields, &mut kinds);
        let head = head.expect("well formed");
        head.expect("complete").0.keep_alive
    };
    assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
    assert!(keeps("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.0\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n"));
    assert!(keeps("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.1\r\nHost: a\r\nConnection: CLOSE\r\n\r\n"));
}

#[test]
fn an_answer_ends_where_the_standard_says() {
    let framing = |text: &str, head_only| {
        let (mut fields, mut kinds) = (fields(), NO_KINDS);
        parse_response(text.as_bytes(), &mut fields, &mut kinds, head_only)
            .map(|head| head.map(|(h, _)| (h.status, h.framing, h.keep_alive)))
    };
    let ok = |status, framing, keep| Ok(Some((status, framing, keep)));
    for (text, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ok(200, Framing::Length(5), true)),
        (
            "HTTP/1.1 200\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
            ok(200, Framing::Length(5), false),
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", ok(200, Framing::Length(5), false)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", ok(200, Framing::Chunked, true)),
        ("HTTP/1.1 200 OK\r\n\r\n", ok(200, Framing::UntilClose, false)),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", ok(204, Framing::Length(0), true)),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            ok(304, Framing::Length(0), true),
        ),
        ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", ok(103, Framing::Length(0), true)),
        ("HTTP/1.1 200 OK\r\nContent-Le", Ok(None)),
    ] {
        assert_eq!(framing(text, false), expected, "{text:?}");
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(framing(head, true), ok(200, Framing::Length(0), true));
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 020 No\r\n\r\n",
    ] {
        assert!(framing(text, false).is_err(), "{text:?}");
    }
}

#[test]
fn a_date_that_is_dropped_with_its_connection_does_not_count() {
    for (fields, expected) in [
        ("Date: x\r\n", true),
        ("Date: x\r\nConnection: X-Inner\r\n", true),
        ("Connection: close, date\r\nDate: x\r\n", false),
        ("", false),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let (mut space, mut kinds) = (self::fields(), NO_KINDS);
        let head = parse_response(text.as_bytes(), &mut space, &mut kinds, false);
        let head = head.expect("well formed");
        assert_eq!(head.expect("complete").0.has_date, expected, "{fields:?}");
    }
}

#[test]
fn an_endpoint_says_how_long_it_keeps_a_connection() {
    for (value, expected) in [
        ("timeout=5", Some(5)),
        ("max=100, Timeout=5", Some(5)),
        ("timeout=x", None),
        ("max=100", None),
    ] {
        assert_eq!(keep_alive_seconds(value.as_bytes()), expected, "{value}");
    }
}
