//! The parts of gRPC that the proxy needs: deadlines, statuses, and failed calls.
//!
//! A call fails with a status in the trailers of an HTTP 200. Clients take an HTTP error for a
//! failed call, too, but do not read its reason (grpc/grpc `doc/PROTOCOL-HTTP2.md`,
//! `doc/http-grpc-status-mapping.md`).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The status of a call with no known status (grpc/grpc `doc/statuscodes.md`).
const UNKNOWN: u16 = 2;

const MEDIA_TYPE: &[u8] = b"application/grpc";

/// Whether `content_type` is one of gRPC; in any case of its letters (RFC 9110 section 8.3.1).
pub(super) fn is_content_type(content_type: &[u8]) -> bool {
    content_type.split_at_checked(MEDIA_TYPE.len()).is_some_and(|(media_type, rest)| {
        // `application/grpc-web` is another protocol.
        media_type.eq_ignore_ascii_case(MEDIA_TYPE)
            && matches!(rest, [] | [b'+' | b';' | b' ' | b'\t', ..])
    })
}

/// Parses `grpc-timeout`, the time that a call may take: up to eight digits and a unit.
pub(super) fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = digits.iter().fold(0u64, |n, digit| n * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

/// The gRPC status in the `fields` of a response.
pub(super) fn status_in(fields: &HeaderMap) -> Option<u16> {
    fields.get(STATUS)?.to_str().ok()?.parse().ok()
}

/// The status that clients assume for a complete response without one; `None` where the HTTP status
/// is an error, by which the call is counted then.
pub(super) fn without_status(http: u16) -> Option<u16> {
    (http < 400).then_some(UNKNOWN)
}

/// The gRPC status of a call that fails with the HTTP `status`.
pub(super) fn from_http(status: u16) -> u16 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        408 | 504 => 4,
        429 | 502 | 503 => 14,
        _ => 2,
    }
}

/// The HTTP status by which a call that ended with `status` is counted (google/rpc/code.proto).
pub(super) fn to_http(status: u16) -> u16 {
    match status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// Trailers of a call that was cut short, where HTTP would have used `status`.
pub(super) fn trailers(status: u16, message: &'static str) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(2);
    fields.insert(STATUS, from_http(status).into());
    fields.insert(MESSAGE, HeaderValue::from_static(message));
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_up_to_eight_digits_and_a_unit() {
        for (text, time) in [
            ("1S", Some(Duration::from_secs(1))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("1 S", None),
            ("100000000S", None),
        ] {
            assert_eq!(timeout(text.as_bytes()), time, "{text:?}");
        }
    }

    #[test]
    fn only_grpc_is_grpc() {
        for yes in ["application/grpc", "application/grpc+proto", "application/grpc;v=1"] {
            assert!(is_content_type(yes.as_bytes()), "{yes}");
        }
        for no in
            ["application/grpc-web", "application/grpc-web+proto", "application/json", "", "a"]
        {
            assert!(!is_content_type(no.as_bytes()), "{no}");
        }
    }

    /// Regression: such a call was no call, so that one with a key was forwarded as a request with a body.
    #[test]
    fn a_call_is_a_call_in_any_case_of_its_media_type() {
        for yes in ["Application/GRPC", "APPLICATION/GRPC+Proto", "Application/Grpc ; v=1"] {
            assert!(is_content_type(yes.as_bytes()), "{yes}");
        }
        assert!(!is_content_type(b"Application/GRPC-Web"));
    }

    #[test]
    fn a_status_in_trailers_says_how_the_call_is_counted() {
        let fields = trailers(504, "late");
        assert_eq!(status_in(&fields), Some(4));
        assert_eq!((to_http(4), to_http(0), to_http(99)), (504, 200, 500));
        assert_eq!(status_in(&HeaderMap::new()), None);
    }

    #[test]
    fn an_answer_without_a_status_is_unknown_unless_http_says_what_went_wrong() {
        for value in ["banana", "", "-1", "1.5", "99999999"] {
            let mut fields = HeaderMap::new();
            fields.insert(STATUS, HeaderValue::from_str(value).expect("a value"));
            assert_eq!(status_in(&fields), None, "{value:?}");
        }
        assert_eq!([200, 204, 302].map(without_status), [Some(2); 3]);
        assert_eq!([401, 404, 503].map(without_status), [None; 3]);
    }
}
