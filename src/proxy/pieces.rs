//! Decides when a head that arrives in pieces is parsed.
//!
//! A head is parsed with its first piece, since most heads arrive in one piece. After that it is
//! parsed only when its end has arrived, so that a head sent byte by byte costs no more than one
//! sent at once.

use super::buffer::Buffer;

/// How far an incomplete head has been scanned.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// Bytes in which no end was found; 0 before the first piece.
    scanned: usize,
}

impl Pieces {
    /// Whether `bytes`, which extend those of the last call, may hold a complete head.
    #[inline]
    pub(super) fn may_be_whole(&mut self, bytes: &[u8]) -> bool {
        let is_first = self.scanned == 0;
        is_first || ends_in(bytes, &mut self.scanned)
    }

    /// Called when the head in `inbox` was parsed and is incomplete. Drops empty lines before it
    /// (RFC 9112 section 2.2), since each looks like an end.
    pub(super) fn wait(&mut self, inbox: &mut Buffer) {
        let is_line_end = |b: &&u8| matches!(b, b'\r' | b'\n');
        let empty = inbox.data().iter().take_while(is_line_end).count();
        // A last CR may be half a line end.
        inbox.consume(empty - usize::from(inbox.data()[..empty].ends_with(b"\r")));
        self.scanned = inbox.len();
    }
}

/// Whether `bytes` hold an empty line; bytes before `scanned` are not scanned again.
fn ends_in(bytes: &[u8], scanned: &mut usize) -> bool {
    let from = scanned.saturating_sub(3);
    *scanned = bytes.len();
    memchr::memchr_iter(b'\n', &bytes[from..])
        .any(|at| matches!(&bytes[from + at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_found_across_pieces() {
        for text in ["GET / HTTP/1.1\r\nHost: a\r\n\r\nbody", "GET / HTTP/1.1\nHost: a\n\nbody"] {
            let end = text.find("body").expect("there");
            for step in 1..text.len() {
                let mut scanned = 0;
                let mut at = 0;
                let found = loop {
                    at = (at + step).min(text.len());
                    if ends_in(&text.as_bytes()[..at], &mut scanned) {
                        break true;
                    }
                    if at == text.len() {
                        break false;
                    }
                };
                assert!(found && at >= end, "step {step} stopped at {at}");
            }
        }
        assert!(!ends_in(b"GET / HTTP/1.1\r\nHost: a\r\n", &mut 0));
    }

    /// How often a head is parsed that arrives as `text` byte by byte.
    fn looks(text: &[u8]) -> usize {
        let (mut inbox, mut pieces, mut looks) = (Buffer::hollow(), Pieces::default(), 0);
        for byte in text {
            inbox.put(&[*byte]);
            if pieces.may_be_whole(inbox.data()) {
                looks += 1;
                pieces.wait(&mut inbox);
            }
        }
        looks
    }

    #[test]
    fn a_head_in_pieces_is_read_when_it_begins_and_when_it_ends() {
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        assert_eq!(looks(long.as_bytes()), 2);
    }

    #[test]
    fn empty_lines_before_a_head_are_not_kept() {
        let (mut inbox, mut pieces) = (Buffer::hollow(), Pieces::default());
        for _ in 0..10_000 {
            for byte in b"\r\n" {
                inbox.put(&[*byte]);
                if pieces.may_be_whole(inbox.data()) {
                    pieces.wait(&mut inbox);
                }
            }
            assert!(inbox.len() <= 4, "{} bytes are looked at again", inbox.len());
        }
        inbox.put(b"GET");
        pieces.wait(&mut inbox);
        assert_eq!(inbox.data(), b"GET");
    }
}
