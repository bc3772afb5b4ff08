//! Tests that the time for a head grows linearly with its length, whatever its content.
//!
//! A worker is one thread, so a slow head delays all its other clients. Times are noisy, and a
//! debug build is slow: the tests compare the least of several times for heads of one kind and two
//! lengths.

use std::{
    hint::black_box,
    mem::MaybeUninit,
    time::{Duration, Instant},
};

use super::{
    buffer::Buffer,
    forwarded,
    head::{Fields, MAX_FIELDS, NO_KINDS, parse_request, parse_response},
    rewrite::{Delimiter, ForwardingInfo, Persistence, RequestId, write_request, write_response},
};

/// The shorter length, and the factor of the longer one.
const BYTES: usize = 16 * 1024;
const TIMES: usize = 4;

/// Parses the request as one of a trusted proxy's client, and rewrites it unless it is rejected.
fn pass_request(text: &[u8]) {
    let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut kinds = NO_KINDS;
    let Ok(parsed) = parse_request(text, &mut fields, &mut kinds) else { return };
    let (head, _) = parsed.expect("complete");
    let trusted = ["10.0.0.0/8".parse().expect("a network")];
    let read = forwarded::read(head.headers, [10, 0, 0, 9].into(), &trusted);
    let origin = ForwardingInfo {
        peer: b"10.0.0.9",
        forwarded: read.as_ref(),
        encrypted: false,
        subject: None,
        authority: head.authority,
        id: &RequestId::from_random(7),
        upgrade: None,
        epoch: None,
        added: b"",
        reserved: &[],
        via: b"",
    };
    let mut out = Buffer::hollow();
    write_request(&mut out, &head, &origin);
    black_box(out.data());
}

fn pass_answer(text: &[u8]) {
    let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut kinds = NO_KINDS;
    let Ok(parsed) = parse_response(text, &mut fields, &mut kinds, false) else { return };
    let (head, _) = parsed.expect("complete");
    let mut out = Buffer::hollow();
    write_response(&mut out, &head, Delimiter::None, Persistence::Implied, None, b"");
    black_box(out.data());
}

fn least_time(pass: fn(&[u8]), text: &[u8]) -> Duration {
    let time = || {
        let began = Instant::now();
        pass(text);
        began.elapsed()
    };
    (0..20).map(|_| time()).min().expect("some times")
}

/// A head that begins with `start`, is filled with `piece`, and ends with `fields` short fields.
fn head(start: &str, piece: &str, fields: usize, bytes: usize) -> Vec<u8> {
    let named: String = (0..fields).map(|n| format!("a{n:02x}: b\r\n")).collect();
    let room = bytes - start.len() - named.len() - 24;
    let filled = format!("{start}{}", piece.repeat(room / piece.len()));
    let end = if filled.ends_with('\n') { "" } else { "\r\n" };
    let rest = if filled.contains("Host") { "" } else { " HTTP/1.1\r\nHost: x" };
    format!("{filled}{rest}{end}{named}\r\n").into_bytes()
}

/// Compares the times of a short and a long head that begin with `start` and are filled with
/// `piece`.
fn assert_in_proportion(name: &str, pass: fn(&[u8]), start: &str, piece: &str, fields: usize) {
    let time = |bytes| least_time(pass, &head(start, piece, fields, bytes));
    // A head that is rejected early may take no time at all.
    let times = (0..20).map(|_| (time(BYTES).max(Duration::from_micros(20)), time(BYTES * TIMES)));
    // Quadratic time exceeds the bound in every pair, whatever the load of the machine.
    let mut seen = Vec::new();
    let mut times = times.inspect(|pair| seen.push(*pair));
    let found = times.any(|(short, long)| long < short * (2 * TIMES as u32));
    assert!(found, "{name}: times of a head and of one four times as long: {seen:?}");
}

#[test]
fn no_request_costs_more_than_its_length() {
    let old = "GET / HTTP/1.0\r\nHost: x\r\n";
    let new = "GET / HTTP/1.1\r\nHost: x\r\n";
    for (name, start, piece, fields) in [
        ("usual", format!("{new}X: "), "x", 90),
        ("options of an old client", format!("{old}Connection: "), "keep-alive,", 0),
        ("options", format!("{new}Connection: close,"), "q,", 90),
        ("empty options", format!("{new}Connection: close"), ", ", 90),
        ("lists of options", new.to_owned(), "Connection: a\r\n", 0),
        ("protocols", format!("{new}Connection: upgrade\r\nUpgrade: "), "q,", 0),
        ("chain", format!("{new}X-Forwarded-For: "), "10.0.0.1,", 0),
        ("host", "GET / HTTP/1.1\r\nHost: ".to_owned(), "a.", 0),
        ("path", "GET /%41".to_owned(), "/../a", 0),
        ("query", "GET /?".to_owned(), "a&", 0),
        ("cookies", format!("{new}Cookie: "), "a=1;", 0),
        ("names", new.to_owned(), "x-forwarded-something_long: 1\r\n", 0),
    ] {
        assert_in_proportion(name, pass_request, &start, piece, fields);
    }
}

#[test]
fn no_answer_costs_more_than_its_length() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n";
    for (name, start, piece, fields) in [
        ("options", format!("{answer}Connection: close,"), "q,", 90),
        ("age", format!("{answer}Keep-Alive: "), "q,", 0),
    ] {
        assert_in_proportion(name, pass_answer, &start, piece, fields);
    }
}
