//! What the answer of an authorizer means.

use http::{HeaderMap, StatusCode, header::WWW_AUTHENTICATE};

/// Most bytes of fields that are taken over from an answer.
const MOST_BYTES: usize = 16 << 10;

/// Whether a request may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, with these header fields for the version, each a line with its end.
    Allowed(Box<[u8]>),
    /// It is refused with this status, and with these header fields for the client.
    Denied(u16, Box<[u8]>),
    /// Nobody knows.
    Failed,
}

impl Verdict {
    /// The verdict of an answer with this `status` and these `headers`, of which the version gets those named in `copy`.
    ///
    /// An answer that asks for patience (408, 425, 429) is about the authorizer and not about the request.
    pub fn of(status: StatusCode, headers: &HeaderMap, copy: &[Box<str>]) -> Self {
        let lines = |names: &mut dyn Iterator<Item = &str>| {
            let mut lines = Vec::new();
            for name in names {
                for value in headers.get_all(name) {
                    lines.extend_from_slice(name.as_bytes());
                    lines.extend_from_slice(b": ");
                    lines.extend_from_slice(value.as_bytes());
                    lines.extend_from_slice(b"\r\n");
                }
            }
            (lines.len() <= MOST_BYTES).then(|| lines.into_boxed_slice())
        };
        match status.as_u16() {
            200..=299 => lines(&mut copy.iter().map(|n| &**n)).map_or(Self::Failed, Self::Allowed),
            401 => {
                let challenge = lines(&mut [WWW_AUTHENTICATE.as_str()].into_iter());
                Self::Denied(401, challenge.unwrap_or_default())
            }
            408 | 425 | 429 => Self::Failed,
            400..=499 => Self::Denied(403, Box::default()),
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_success_lets_a_request_go_on() {
        let mut headers = HeaderMap::new();
        headers.append("x-rights", "play".parse().expect("a value"));
        headers.append("X-Rights", "chat".parse().expect("a value"));
        headers.append("x-other", "no".parse().expect("a value"));
        headers.append(WWW_AUTHENTICATE, "Bearer realm=\"a\"".parse().expect("a value"));
        let of = |status: u16| {
            let status = StatusCode::from_u16(status).expect("a status");
            Verdict::of(status, &headers, &["x-rights".into()])
        };
        let lines = |text: &str| text.as_bytes().into();
        let allowed = Verdict::Allowed(lines("x-rights: play\r\nx-rights: chat\r\n"));
        assert_eq!((of(200), of(204)), (allowed.clone(), allowed));
        let challenge = lines("www-authenticate: Bearer realm=\"a\"\r\n");
        assert_eq!(of(401), Verdict::Denied(401, challenge));
        for status in [400, 402, 403, 404, 451] {
            assert_eq!(of(status), Verdict::Denied(403, Box::default()), "{status}");
        }
        for status in [100, 301, 302, 304, 408, 425, 429, 500, 503, 599] {
            assert_eq!(of(status), Verdict::Failed, "{status}");
        }
        headers.insert("x-rights", "r".repeat(MOST_BYTES).parse().expect("a value"));
        let large = Verdict::of(StatusCode::OK, &headers, &["x-rights".into()]);
        assert_eq!(large, Verdict::Failed);
    }
}
