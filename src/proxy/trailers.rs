//! Fields that follow a body (RFC 9110 section 6.5).
//!
//! They go on to whoever has a form for them and asked: streams, and clients of HTTP/1.1 with `TE: trailers`.
//! What a recipient would have needed before the body is dropped from them, since whoever joins them
//! with the head could be told there what the head was checked for (section 6.5.1).

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    buffer::Buffer,
    field_kind::{FieldKind, known_of_client},
};

/// Most fields of trailers.
const MOST: usize = 64;

/// Whether trailers may not have the field: what the proxy reads or writes or that says who a client is, in
/// any spelling that an application reads as the same, routing, what modifies or authenticates a request,
/// and what controls an answer or its content.
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

/// Drops the fields that trailers may not have; nothing if no other is left.
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

/// The fields in `lines`, which followed the last chunk, without the empty line; nothing if they are none.
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

/// Writes `fields` behind the last chunk.
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
