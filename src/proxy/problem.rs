//! Maps errors to the responses that clients get: one table of status, kind and text.
//!
//! These responses are RFC 9457 problem documents with the kind of the error and the id of the
//! request. They never contain an address or a name from behind the proxy; those are in the log.

use super::{
    buffer::Buffer,
    grpc,
    head::HeadError,
    rewrite::{Persistence, RequestId, put_field, put_status},
};
use crate::registry::ErrorKind;

/// Why a request got no response from a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProxyError {
    /// No route matches.
    NoRoute,
    /// No version of the service has weight.
    NoVersion,
    /// The version has no endpoint.
    NoEndpoint,
    /// The endpoint refused the connection.
    Connect,
    /// The endpoint did not take the connection in time.
    ConnectTimeout,
    /// The TLS handshake failed, or the endpoint's certificate is not the expected one.
    Tls,
    /// The endpoint did not answer in time.
    Timeout,
    /// The connection broke before the response was complete.
    Reset,
    /// The answer was not HTTP.
    Protocol,
    /// The head of the response has too many fields.
    ManyFields,
    /// The head of the response is too large.
    LargeHead,
    /// This process has no descriptor, memory or port left for a connection.
    Want,
    /// The version has reached its limit of requests in flight.
    TooManyRequests,
    /// The limit of requests that wait for a connection is reached.
    TooManyPending,
}

/// Default of `Retry-After`, in seconds.
pub(super) const RETRY_AFTER: u32 = 1;

impl ProxyError {
    /// The kind in `tidegate_upstream_errors_total`; `None` where no endpoint is to blame.
    pub(super) fn upstream_kind(self) -> Option<ErrorKind> {
        match self {
            Self::NoRoute | Self::NoVersion | Self::NoEndpoint => None,
            Self::Want | Self::TooManyRequests | Self::TooManyPending => None,
            Self::Connect | Self::ConnectTimeout | Self::Tls => Some(ErrorKind::Connect),
            Self::Timeout => Some(ErrorKind::Timeout),
            Self::Reset => Some(ErrorKind::Reset),
            Self::Protocol | Self::ManyFields | Self::LargeHead => Some(ErrorKind::Protocol),
        }
    }

    /// Whether the request was not sent to the version, so that the error is no evidence about it.
    pub(super) fn is_shed(self) -> bool {
        matches!(self, Self::Want | Self::TooManyRequests | Self::TooManyPending)
    }

    /// The problem to send to the client.
    pub(super) fn problem(self) -> Problem {
        let (status, kind, detail) = match self {
            Self::NoRoute => (404, "no_route", "no route leads anywhere from this request"),
            Self::NoVersion => (503, "no_version", "no version of the service takes requests"),
            Self::NoEndpoint => (503, "no_endpoint", "the version has no endpoint"),
            Self::Connect => (502, "connect", "the service could not be reached"),
            Self::ConnectTimeout => {
                (504, "connect_timeout", "the service could not be reached in time")
            }
            Self::Tls => (502, "tls", "no encrypted connection to the service could be had"),
            Self::Timeout => (504, "timeout", "the service did not answer in time"),
            Self::Reset => (502, "reset", "the service ended the connection before it answered"),
            Self::Protocol => (502, "protocol", "the service's answer could not be understood"),
            Self::ManyFields => {
                (502, "protocol", "the service's answer has more than 4096 header fields")
            }
            Self::LargeHead => {
                (502, "protocol", "the head of the service's answer is larger than 256 KiB")
            }
            Self::Want => (503, "descriptors", "the proxy can open no more connections now"),
            Self::TooManyRequests => {
                (503, "breaker", "the service has as many requests in flight as it takes")
            }
            Self::TooManyPending => {
                (503, "breaker", "too many requests wait for a connection to the service")
            }
        };
        Problem { status, kind, detail, retry_after: RETRY_AFTER }
    }
}

/// A response made by the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) detail: &'static str,
    /// `Retry-After` in seconds; sent with a 429 or a 503.
    pub(super) retry_after: u32,
}

/// What the response with a problem says beside it.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// Header fields, each a line with its end.
    pub(super) fields: Vec<u8>,
    /// Members of the JSON document, each with a comma before it.
    pub(super) members: String,
    /// The name of what refused the request, for the access log; clients do not see it.
    pub(super) by: Option<Box<str>>,
}

impl Extra {
    /// That of a refusal by a limit of requests in flight: of the service, or of the route.
    pub(super) fn of_limit(is_shared: bool) -> Box<Self> {
        let by = if is_shared { "service" } else { "route" };
        Box::new(Self { by: Some(by.into()), ..Self::default() })
    }
}

impl From<HeadError> for Problem {
    fn from(refusal: HeadError) -> Self {
        let kind = match refusal.status {
            408 => "request_timeout",
            414 => "target_too_long",
            417 => "expectation",
            431 => "header_too_large",
            501 => "not_implemented",
            505 => "http_version",
            _ => "bad_request",
        };
        let HeadError { status, detail } = refusal;
        Self { status, kind, detail, retry_after: RETRY_AFTER }
    }
}

impl Problem {
    /// The response to OPTIONS or TRACE with `Max-Forwards: 0`.
    #[cold]
    pub(super) fn of_last(method: &str) -> Self {
        if method == "OPTIONS" {
            return Self {
                status: 204,
                kind: "max_forwards",
                detail: "",
                retry_after: RETRY_AFTER,
            };
        }
        let detail = "TRACE may go no further, and nothing is sent back here";
        HeadError { status: 501, detail }.into()
    }

    /// Writes the response to a gRPC call: a status without a body.
    pub(super) fn write_to_grpc(&self, out: &mut Buffer, extra: Option<&Extra>, date: &str) {
        put_status(out, 200, "OK");
        put_field(out, "Content-Type", b"application/grpc");
        let status = grpc::from_http(self.status);
        put_field(out, "Grpc-Status", itoa::Buffer::new().format(status).as_bytes());
        put_field(out, "Grpc-Message", self.detail.as_bytes());
        if let Some(extra) = extra {
            self.put_retry_after(out);
            out.put(&extra.fields);
        }
        put_field(out, "Date", date.as_bytes());
        out.put(b"\r\n");
    }

    fn put_retry_after(&self, out: &mut Buffer) {
        if matches!(self.status, 429 | 503) {
            let mut seconds = itoa::Buffer::new();
            put_field(out, "Retry-After", seconds.format(self.retry_after).as_bytes());
        }
    }

    /// Writes the response; `head_only` leaves out the body but not its length. Returns the bytes of the body.
    pub(super) fn write(
        &self,
        out: &mut Buffer,
        id: Option<&RequestId>,
        extra: Option<&Extra>,
        head_only: bool,
        persistence: Persistence,
        date: &str,
    ) -> u64 {
        if self.status == 204 {
            put_status(out, 204, "No Content");
            put_field(out, "Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE");
            put_field(out, "Date", date.as_bytes());
            out.put(persistence.line());
            out.put(b"\r\n");
            return 0;
        }
        let title = reason(self.status);
        let id = id.map_or("", RequestId::as_str);
        let (fields, members) =
            extra.map_or((&[][..], ""), |extra| (&extra.fields, &extra.members));
        // Titles, kinds and details are constants and ids are checked: nothing needs escaping.
        let body = format!(
            "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{},\"kind\":\"{}\",\"detail\":\"{}\",\"request_id\":\"{id}\"{members}}}\n",
            self.status, self.kind, self.detail,
        );
        put_status(out, self.status, title);
        put_field(out, "Content-Type", b"application/problem+json");
        put_field(out, "Content-Length", itoa::Buffer::new().format(body.len()).as_bytes());
        put_field(out, "Cache-Control", b"no-store");
        self.put_retry_after(out);
        put_field(out, "Date", date.as_bytes());
        out.put(fields);
        out.put(persistence.line());
        out.put(b"\r\n");
        if head_only {
            return 0;
        }
        out.put(body.as_bytes());
        body.len() as u64
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::buffer::Blocks, *};

    #[test]
    fn a_problem_names_kind_and_request_and_nothing_behind_the_proxy() {
        let mut out = Blocks::default().take();
        let id = RequestId::from_random(7);
        ProxyError::Timeout.problem().write(
            &mut out,
            Some(&id),
            None,
            false,
            Persistence::Close,
            "now",
        );
        let text = std::str::from_utf8(out.data()).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        let document: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(document["status"], 504);
        assert_eq!(document["kind"], "timeout");
        assert_eq!(document["request_id"], id.as_str());
    }
}
