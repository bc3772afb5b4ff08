//! The parts of WebSocket (RFC 6455) that the proxy needs: both halves of the opening handshake, to
//! translate between HTTP/1.1 and streams, and the bounds of frames, so that an open WebSocket can
//! be closed cleanly.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};

/// Appended to the key before hashing (RFC 6455 section 1.3).
const SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Code of a close frame: going away (RFC 6455 section 7.4.1).
const GOING_AWAY: [u8; 2] = 1001u16.to_be_bytes();

/// A `Sec-WebSocket-Key` of 128 `random` bits.
pub(super) fn key(random: u128) -> String {
    STANDARD.encode(random.to_be_bytes())
}

/// The `Sec-WebSocket-Accept` for `key`.
pub(super) fn accept(key: &[u8]) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(SUFFIX);
    STANDARD.encode(hash.finish().as_ref())
}

/// A close frame of a server.
pub(super) fn close_from_server() -> [u8; 4] {
    [0x88, 2, GOING_AWAY[0], GOING_AWAY[1]]
}

/// A close frame of a client, masked with `mask`.
pub(super) fn close_from_client(mask: [u8; 4]) -> [u8; 8] {
    let [a, b, c, d] = mask;
    [0x88, 0x82, a, b, c, d, GOING_AWAY[0] ^ a, GOING_AWAY[1] ^ b]
}

/// Follows one direction of a WebSocket and knows whether a frame is incomplete.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; 14],
    filled: usize,
    /// Bytes of the payload still to come.
    left: u64,
}

impl Frames {
    /// Takes the next `bytes`.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let n = self.left.min(bytes.len() as u64);
                self.left -= n;
                bytes = &bytes[n as usize..];
                continue;
            }
            self.head[self.filled] = bytes[0];
            self.filled += 1;
            bytes = &bytes[1..];
            if let Some(length) = payload_length(&self.head[..self.filled]) {
                self.left = length;
                self.filled = 0;
            }
        }
    }

    /// Whether the last frame has ended, and no other has begun.
    pub(super) fn is_between(&self) -> bool {
        self.filled == 0 && self.left == 0
    }
}

/// Length of the payload that follows the frame's head (RFC 6455 section 5.2); `None` if the head
/// is incomplete.
fn payload_length(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (size, length) = match second & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(head.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(head.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    (head.len() == size + mask).then_some(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_handshake_is_that_of_the_rfc() {
        // RFC 6455 section 1.3.
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(key(0).len(), 24);
    }

    fn frame(length: u64, masked: bool) -> Vec<u8> {
        let bit = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x82];
        match length {
            0..126 => bytes.push(bit | length as u8),
            126..65536 => {
                bytes.push(bit | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(bit | 127);
                bytes.extend_from_slice(&length.to_be_bytes());
            }
        }
        bytes.extend_from_slice(if masked { &[1, 2, 3, 4] } else { &[] });
        bytes.resize(bytes.len() + length as usize, 7);
        bytes
    }

    proptest! {
        #[test]
        fn frames_end_where_they_end_in_pieces_of_any_size(
            frames in prop::collection::vec(
                (prop_oneof![0u64..130, 65_530u64..65_540, Just(126u64), Just(127)], any::<bool>()), 1..6,
            ),
            step in 1usize..5000,
        ) {
            let mut follower = Frames::default();
            for (length, masked) in frames {
                let bytes = frame(length, masked);
                let (last, begun) = bytes.split_last().expect("a head");
                for piece in begun.chunks(step) {
                    follower.follow(piece);
                    prop_assert!(!follower.is_between());
                }
                follower.follow(&[*last]);
                prop_assert!(follower.is_between());
            }
        }
    }

    #[test]
    fn close_frames_are_whole_frames() {
        for bytes in [&close_from_server()[..], &close_from_client([9, 8, 7, 6])] {
            let mut follower = Frames::default();
            follower.follow(&bytes[..bytes.len() - 1]);
            assert!(!follower.is_between());
            follower.follow(&bytes[bytes.len() - 1..]);
            assert!(follower.is_between());
        }
    }
}
