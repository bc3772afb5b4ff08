//! gRPC's health protocol: the call `grpc.health.v1.Health/Check`; only `SERVING` is good.
//!
//! Its two messages have one field each, so they are encoded and decoded here
//! (<https://github.com/grpc/grpc-proto/blob/master/grpc/health/v1/health.proto>).

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, header};

use super::BODY_BYTES;
use crate::tls::Transport;

const MEDIA_TYPE: &[u8] = b"application/grpc";

/// Path of the call.
pub(super) const PATH: &str = "/grpc.health.v1.Health/Check";

/// Sends `request` for `service`; the error describes what is wrong.
pub(super) async fn call(
    transport: Transport,
    request: Request<()>,
    service: &str,
) -> Result<(), String> {
    let words = |error: h2::Error| error.to_string();
    let (send, connection) = super::speak_h2(transport).await.map_err(words)?;
    let answered = async {
        let mut send = send.ready().await?;
        let (answer, mut body) = send.send_request(request, false)?;
        body.send_data(message(service), true)?;
        let (head, mut body) = answer.await?.into_parts();
        let mut read = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            read.put(data);
            if read.len() > BODY_BYTES {
                return Ok(Err("its answer is too large".to_owned()));
            }
        }
        let trailers = body.trailers().await?;
        Ok(judge(head.status, &head.headers, trailers.as_ref(), &read))
    };
    super::beside(connection, answered).await.map_err(words)?
}

/// The request message for `service`, with its prefix.
fn message(service: &str) -> Bytes {
    let mut field = BytesMut::new();
    if !service.is_empty() {
        field.put_u8(1 << 3 | 2);
        put_varint(&mut field, service.len());
        field.put_slice(service.as_bytes());
    }
    let mut message = BytesMut::with_capacity(5 + field.len());
    message.put_u8(0);
    message.put_u32(field.len() as u32);
    message.put(field);
    message.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Checks a response.
fn judge(
    status: StatusCode,
    head: &HeaderMap,
    trailers: Option<&HeaderMap>,
    body: &[u8],
) -> Result<(), String> {
    if status != StatusCode::OK {
        return Err(format!("it answered {}", status.as_u16()));
    }
    let kind = head.get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let kind = kind.get(..MEDIA_TYPE.len()).unwrap_or_default();
    if !kind.eq_ignore_ascii_case(MEDIA_TYPE) {
        return Err("its answer is not gRPC".to_owned());
    }
    let outcome = trailers.and_then(|t| t.get("grpc-status")).or_else(|| head.get("grpc-status"));
    match outcome.map(|outcome| outcome.as_bytes()) {
        Some(b"0") => {}
        Some(b"5") => return Err("it does not know the service (NOT_FOUND)".to_owned()),
        Some(b"12") => {
            return Err("it has no grpc.health.v1.Health (UNIMPLEMENTED)".to_owned());
        }
        Some(code) => return Err(format!("grpc-status {}", String::from_utf8_lossy(code))),
        None => return Err("its answer has no grpc-status".to_owned()),
    }
    match body.split_first_chunk::<5>() {
        Some(([0, length @ ..], message))
            if u32::from_be_bytes(*length) as usize == message.len() =>
        {
            match serving_status(message) {
                Some(1) => Ok(()),
                Some(0) => Err("it answered UNKNOWN".to_owned()),
                Some(2) => Err("it answered NOT_SERVING".to_owned()),
                Some(3) => Err("it answered SERVICE_UNKNOWN".to_owned()),
                _ => Err("its answer could not be understood".to_owned()),
            }
        }
        _ => Err("its answer could not be understood".to_owned()),
    }
}

/// The field `status` of the message, 0 if it is absent; `None` if the message is malformed.
fn serving_status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = take_varint(&mut message)?,
            (_, 0) => drop(take_varint(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let each = fields
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        each.collect()
    }

    fn judged(status: u16, code: &'static str, body: &[u8]) -> Result<(), String> {
        let status = StatusCode::from_u16(status).expect("a status");
        let head = fields(&[("content-type", "application/grpc+proto")]);
        judge(status, &head, Some(&fields(&[("grpc-status", code)])), body)
    }

    #[test]
    fn the_question_is_as_protobuf_has_it() {
        assert_eq!(message(""), &b"\0\0\0\0\0"[..]);
        assert_eq!(message("a.B"), &b"\0\0\0\0\x05\x0A\x03a.B"[..]);
        let long = "s".repeat(300);
        assert_eq!(message(&long)[..8], b"\0\0\0\x01\x2F\x0A\xAC\x02"[..]);
    }

    #[test]
    fn serving_alone_is_good() {
        assert_eq!(judged(200, "0", b"\0\0\0\0\x02\x08\x01"), Ok(()));
        // Unknown fields are skipped.
        assert_eq!(judged(200, "0", b"\0\0\0\0\x06\x12\x02ok\x08\x01"), Ok(()));
        for (status, code, body, why) in [
            (200, "0", &b"\0\0\0\0\0"[..], "it answered UNKNOWN"),
            (200, "0", b"\0\0\0\0\x02\x08\x02", "it answered NOT_SERVING"),
            (200, "0", b"\0\0\0\0\x02\x08\x03", "it answered SERVICE_UNKNOWN"),
            (200, "5", b"", "it does not know the service (NOT_FOUND)"),
            (200, "12", b"", "it has no grpc.health.v1.Health (UNIMPLEMENTED)"),
            (200, "14", b"", "grpc-status 14"),
            (503, "0", b"", "it answered 503"),
            // Compressed, truncated, too long, and an unfinished varint.
            (200, "0", b"\x01\0\0\0\x02\x08\x01", "its answer could not be understood"),
            (200, "0", b"\0\0\0\0\x02\x08", "its answer could not be understood"),
            (200, "0", b"\0\0\0\0\x02\x08\x01\x08", "its answer could not be understood"),
            (200, "0", b"\0\0\0\0\x02\x08\xFF", "its answer could not be understood"),
        ] {
            assert_eq!(judged(status, code, body), Err(why.to_owned()));
        }
    }

    #[test]
    fn what_is_not_grpc_is_not_taken_for_it() {
        let web = fields(&[("content-type", "text/html"), ("grpc-status", "0")]);
        let judged = judge(StatusCode::OK, &web, None, b"\0\0\0\0\x02\x08\x01");
        assert_eq!(judged, Err("its answer is not gRPC".to_owned()));
        // A status without a message is in the head.
        let head = fields(&[("content-type", "application/grpc"), ("grpc-status", "12")]);
        let judged = judge(StatusCode::OK, &head, None, b"");
        assert_eq!(judged, Err("it has no grpc.health.v1.Health (UNIMPLEMENTED)".to_owned()));
        let head = fields(&[("content-type", "Application/GRPC")]);
        let judged = judge(StatusCode::OK, &head, None, b"\0\0\0\0\x02\x08\x01");
        assert_eq!(judged, Err("its answer has no grpc-status".to_owned()));
    }
}
