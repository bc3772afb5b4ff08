//! Fields that proxies add to messages (RFC 9110 section 7.6).

use crate::config::schema;

/// HTTP versions of received messages, as written in `Via`.
const VERSIONS: [&str; 3] = ["1.0", "1.1", "2.0"];

/// The line that marks requests of smoke checks. A client's field of this name is dropped (`proxy/field_kind.rs`).
const SMOKE: &[u8] = b"Tidegate-Smoke: 1\r\n";

/// Fields that are added to forwarded messages.
#[derive(Debug)]
pub struct Forwarding {
    /// The `Via` line for each HTTP version of the received message: 1.0, 1.1, 2. Empty if none is
    /// added.
    requests: [Box<[u8]>; 3],
    answers: [Box<[u8]>; 3],
    smoke: Box<[u8]>,
    /// Whether `Max-Forwards` is counted down.
    pub max_forwards: bool,
}

impl Forwarding {
    /// Compiles the configured fields.
    pub fn new(forwarding: &schema::Forwarding) -> Self {
        let lines = |wanted: bool| {
            VERSIONS.map(|version| match &*forwarding.via {
                name if wanted && !name.is_empty() => {
                    format!("Via: {version} {name}\r\n").into_bytes().into()
                }
                _ => Box::default(),
            })
        };
        let requests = lines(true);
        Self {
            smoke: [&requests[1], SMOKE].concat().into(),
            requests,
            answers: lines(forwarding.via_answers),
            max_forwards: forwarding.max_forwards,
        }
    }

    /// The `Via` line of a request received with HTTP version number `version`.
    pub fn request_via(&self, version: usize) -> &[u8] {
        &self.requests[version]
    }

    /// The `Via` line of a smoke request, and the line that marks it.
    pub fn smoke_lines(&self) -> &[u8] {
        &self.smoke
    }

    /// The `Via` line of a response.
    pub fn answer_via(&self, version: usize) -> &[u8] {
        &self.answers[version]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_the_version_and_the_name() {
        let forwarding = |via: &str, via_answers| {
            Forwarding::new(&schema::Forwarding {
                via: via.into(),
                via_answers,
                max_forwards: true,
            })
        };
        let usual = forwarding("edge", false);
        assert_eq!(usual.request_via(0), b"Via: 1.0 edge\r\n");
        assert_eq!(usual.request_via(2), b"Via: 2.0 edge\r\n");
        assert_eq!(usual.smoke_lines(), b"Via: 1.1 edge\r\nTidegate-Smoke: 1\r\n");
        assert!((0..3).all(|version| usual.answer_via(version).is_empty()));
        assert_eq!(forwarding("edge", true).answer_via(1), b"Via: 1.1 edge\r\n");
        let none = forwarding("", true);
        assert_eq!(none.smoke_lines(), b"Tidegate-Smoke: 1\r\n");
        assert!((0..3).all(|v| none.request_via(v).is_empty() && none.answer_via(v).is_empty()));
    }
}
