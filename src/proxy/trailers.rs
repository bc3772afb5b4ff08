//! Fields that follow a body (RFC 9110 section 6.5).
//!
//! Trailers are passed on to streams, and to HTTP/1.1 clients that sent `TE: trailers`. Fields that
//! a recipient needs before the body are dropped: a recipient that merges trailers into the head
//! would accept there what the proxy had removed from the head (section 6.5.1).

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    buffer::Buffer,
    field_kind::{FieldKind, known_of_client},
};

/// Most fields of trailers.
const MOST: usize = 64;

/// Whether trailers may not have the field: fields that the proxy reads or writes or that identify
/// a client, in any spelling that an application reads as the same; fields that route, modify or
/// authenticate a request; and fields that control a response or its content.
fn is_forbidden(name: &HeaderName) -> bool {
    let name = name.as_str();
    known_of_client(name) != FieldKind::Other
        || matches!(
            name,
            "accept-encoding"
                | "age"
                | "authorization"
                | "cache-control"
                | "content-encoding"
                | "content-range"
                | "content-type"
                | "cookie"
                | "expires"
                | "location"
                | "max-forwards"
                | "pragma"
                | "range"
                | "retry-after"
                | "set-cookie"
                | "vary"
                | "via"
                | "www-authenticate"
        )
        || ["if-", "sec-"].iter().any(|start| name.starts_with(start))
}

/// Drops the fields that trailers may not have; `None` if no field is left.
pub(super) fn permitted(fields: HeaderMap) -> Option<HeaderMap> {
    let all = fields.len();
    if !fields.keys().any(is_forbidden) {
        return (all > 0).then_some(fields);
    }
    let mut kept = HeaderMap::with_capacity(all);
    for (name, value) in fields.iter().filter(|(name, _)| !is_forbidden(name)) {
        kept.append(name, value.clone());
    }
    (!kept.is_empty()).then_some(kept)
}

/// Parses the `lines` that followed the last chunk, without the empty line; `None` if they are
/// malformed or no field is left.
pub(super) fn read(mut lines: Vec<u8>) -> Option<HeaderMap> {
    lines.extend_from_slice(b"\r\n");
    let mut space = [httparse::EMPTY_HEADER; MOST];
    let Ok(httparse::Status::Complete((_, found))) = httparse::parse_headers(&lines, &mut space)
    else {
        return None;
    };
    let mut fields = HeaderMap::with_capacity(found.len());
    for field in found {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        fields.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    permitted(fields)
}

/// Writes `fields` after the last chunk.
pub(super) fn write(out: &mut Buffer, fields: &HeaderMap) {
    for (name, value) in fields {
        out.put(name.as_str().as_bytes());
        out.put(b": ");
        out.put(value.as_bytes());
        out.put(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_head_is_checked_for_is_not_said_behind_it() {
        let lines = b"X-Sum: 42\r\nGrpc-Status: 0\r\nContent-Length: 7\r\nSet-Cookie: a=b\r\nIf-Match: *\r\n\
            X-Forwarded-For: 6.6.6.6\r\nX_Client_IP: 6.6.6.6\r\n\
            Tidegate_Version: v9\r\nTransfer-Encoding: chunked\r\nHost: evil\r\nx-sum: 43\r\n";
        let fields = read(lines.to_vec()).expect("two are left");
        let sums: Vec<_> = fields.get_all("x-sum").iter().collect();
        assert_eq!(sums, ["42", "43"]);
        assert_eq!((fields.len(), &fields["grpc-status"]), (3, &HeaderValue::from_static("0")));
        for none in [&b""[..], b"Host: a\r\n", b"no field\r\n", b": none\r\n"] {
            assert_eq!(read(none.to_vec()), None);
        }
    }
}
