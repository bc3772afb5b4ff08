//! Where a body ends, found while it streams by (RFC 9112 sections 6 and 7).

/// How a message marks the end of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// After that many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// By the end of the connection; responses only.
    UntilClose,
}

impl Framing {
    /// Whether the length is unknown before the body ends.
    pub(super) fn is_open(self) -> bool {
        !matches!(self, Self::Length(_))
    }
}

/// Digits of a chunk size: 60 bits are enough and cannot overflow.
const SIZE_DIGITS: u8 = 15;

/// Most bytes of chunk extensions and trailers of one message. They are read and dropped, except
/// trailers of a response whose client accepts them.
const DISCARD_BYTES: u32 = 8 * 1024;

/// Finds a body's bytes among its framing.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    discarded: u32,
    /// The lines of the trailers, if they are kept.
    trailers: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Left(u64),
    UntilClose,
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
    },
    SizeEnd {
        size: u64,
    },
    Chunk(u64),
    ChunkEnd,
    ChunkEndLf,
    /// At the start of a trailer line, or of the empty line that ends the body.
    TrailerStart,
    Trailer,
    TrailerEnd,
    LastLf,
    Done,
}

/// The chunked framing is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Result of a decoding step: `skip` bytes of framing, followed by `data` bytes of body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) skip: usize,
    pub(super) data: usize,
}

impl Decoder {
    pub(super) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(left) => State::Left(left),
            Framing::Chunked => State::Size { size: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, discarded: 0, trailers: None }
    }

    /// Keeps the lines that follow the last chunk.
    pub(super) fn keep_trailers(&mut self) {
        self.trailers = Some(Vec::new());
    }

    /// The lines that followed the last chunk, if any were kept.
    pub(super) fn take_trailers(&mut self) -> Option<Vec<u8>> {
        self.trailers.take().filter(|lines| !lines.is_empty())
    }

    /// Whether the body has ended.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the end of the connection ends the body, rather than cutting it short.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Decodes `input`, which must start where the last call's `skip` and `data` ended. If `data`
    /// is 0, more input is needed or the body has ended.
    #[inline]
    pub(super) fn decode(&mut self, input: &[u8]) -> Result<Found, Malformed> {
        let mut skip = 0;
        loop {
            let rest = input.len() - skip;
            match self.state {
                State::Done => return Ok(Found { skip, data: 0 }),
                State::UntilClose => return Ok(Found { skip, data: rest }),
                State::Left(left) => {
                    let data = left.min(rest as u64);
                    self.state = if left == data { State::Done } else { State::Left(left - data) };
                    return Ok(Found { skip, data: data as usize });
                }
                State::Chunk(left) if rest > 0 => {
                    let data = left.min(rest as u64);
                    self.state =
                        if left == data { State::ChunkEnd } else { State::Chunk(left - data) };
                    return Ok(Found { skip, data: data as usize });
                }
                _ => {}
            }
            let Some(byte) = input.get(skip) else {
                return Ok(Found { skip, data: 0 });
            };
            self.state = self.step(*byte)?;
            skip += 1;
        }
    }

    /// The state after one byte of chunked framing.
    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        let sized = |size| if size == 0 { State::TrailerStart } else { State::Chunk(size) };
        Ok(match (self.state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS {
                    return Err(Malformed);
                }
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err(Malformed),
            (State::Size { size, .. } | State::Extension { size }, b'\r') => {
                State::SizeEnd { size }
            }
            (State::Size { size, .. }, b';') => State::Extension { size },
            (State::Extension { .. } | State::Trailer, b'\n' | 0) => return Err(Malformed),
            (State::Extension { size }, _) => {
                self.discard()?;
                State::Extension { size }
            }
            (State::SizeEnd { size }, b'\n') => sized(size),
            (State::ChunkEnd, b'\r') => State::ChunkEndLf,
            (State::ChunkEndLf, b'\n') => State::Size { size: 0, digits: 0 },
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::Trailer, b'\r') => State::TrailerEnd,
            (State::TrailerStart, b'\n' | 0) => return Err(Malformed),
            (State::TrailerStart | State::Trailer, _) => {
                self.discard()?;
                self.keep(&[byte]);
                State::Trailer
            }
            (State::TrailerEnd, b'\n') => {
                self.keep(b"\r\n");
                State::TrailerStart
            }
            (State::LastLf, b'\n') => State::Done,
            _ => return Err(Malformed),
        })
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(lines) = &mut self.trailers {
            lines.extend_from_slice(bytes);
        }
    }

    fn discard(&mut self) -> Result<(), Malformed> {
        self.discarded += 1;
        if self.discarded > DISCARD_BYTES { Err(Malformed) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes `input` in pieces of `step` bytes. Returns the body, the number of bytes after its
    /// end, and whether it ended.
    fn decode(
        framing: Framing,
        input: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let (mut decoder, mut body, mut at, mut end) = (Decoder::new(framing), Vec::new(), 0, 0);
        while !decoder.is_done() {
            let found = decoder.decode(&input[at..end])?;
            body.extend_from_slice(&input[at + found.skip..at + found.skip + found.data]);
            at += found.skip + found.data;
            if found.data == 0 && !decoder.is_done() {
                if end == input.len() {
                    break;
                }
                end = (end + step).min(input.len());
            }
        }
        Ok((body, input.len() - at, decoder.is_done()))
    }

    #[test]
    fn chunks_are_joined_and_the_rest_is_left() {
        let text = b"4\r\nWiki\r\n6;a=\"b\"\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nX-T: 1\r\n\r\nGET";
        for step in 1..text.len() {
            let got = decode(Framing::Chunked, text, step).expect("well formed");
            assert_eq!(got, (b"Wikipedia in \r\n\r\nchunks.".to_vec(), got.1, true));
        }
        assert_eq!(
            decode(Framing::Chunked, text, 1),
            Ok((b"Wikipedia in \r\n\r\nchunks.".to_vec(), 3, true))
        );
        assert_eq!(decode(Framing::Length(3), b"abcdef", 2), Ok((b"abc".to_vec(), 3, true)));
        assert_eq!(decode(Framing::Length(9), b"abc", 2), Ok((b"abc".to_vec(), 0, false)));
        assert_eq!(decode(Framing::UntilClose, b"abc", 2), Ok((b"abc".to_vec(), 0, false)));
    }

    #[test]
    fn framing_that_others_could_read_differently_is_malformed() {
        let long = format!("1;{}\r\n", "x".repeat(9000));
        for text in [
            "\r\n",
            " 4\r\nWiki\r\n",
            "4 \r\nWiki\r\n",
            "+4\r\nWiki\r\n",
            "0x4\r\nWiki\r\n",
            "4\nWiki\r\n",
            "4\r\nWiki\n0\r\n\r\n",
            "4\r\nWikiX\r\n",
            "4\rWiki",
            "-1\r\n",
            "fffffffffffffffff\r\n",
            "0\r\n\n",
            "0\r\nX: 1\n\r\n",
            "4;a\nb\r\nWiki",
            "0\r\n\rX",
            "g\r\n",
            &long,
        ] {
            assert_eq!(decode(Framing::Chunked, text.as_bytes(), 1), Err(Malformed), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_body_in_any_chunks_and_pieces_comes_out_whole(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8), step in 1usize..700,
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\nnext");
            let got = decode(Framing::Chunked, &wire, step);
            prop_assert_eq!(got.map(|g| (g.0, g.2)), Ok((chunks.concat(), true)));
        }

        #[test]
        fn no_bytes_make_it_panic_or_stall(input in prop::collection::vec(any::<u8>(), 0..400), step in 1usize..50) {
            let _ = decode(Framing::Chunked, &input, step);
        }
    }
}
