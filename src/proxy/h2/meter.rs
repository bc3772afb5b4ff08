//! Bounds what a stranger can have a connection do for nothing.
//!
//! Some frames cost the receiver work and bring no request on: resets, pings, settings, priorities,
//! windows opened by a byte. Each takes from an allowance; requests, bodies and time give to it. Who
//! has used it up is told `ENHANCE_YOUR_CALM` (RFC 9113 sections 5.1.2, 6.5 and 10.5). An allowance
//! rather than a rate of each kind: a browser that cancels a page full of images resets a hundred streams
//! at once and then none for a minute, and floods mix kinds.
//!
//! The meter reads heads of frames as bytes pass, and says of those whose size cannot be that it cannot
//! (section 4.2). What they hold, and floods of CONTINUATION and of small DATA, is the `h2` crate's affair.

use h2::Reason;
use tokio::time::{Duration, Instant};

/// What a new connection may use at once, and the most that can be saved up.
const ALLOWANCE: i64 = 2000;

/// What comes back each second.
const PER_SECOND: i64 = 100;

/// The client's words before its first frame (RFC 9113 section 3.4).
const PREFACE_BYTES: usize = 24;

const HEAD_BYTES: usize = 9;

/// Largest payload, as it is without a setting that says otherwise.
const LARGEST: usize = 16_384;

/// Counts a connection's frames.
#[derive(Debug)]
pub(super) struct Meter {
    head: [u8; HEAD_BYTES],
    filled: usize,
    /// Bytes until the next head.
    skip: usize,
    left: i64,
    refilled: Instant,
}

impl Meter {
    /// A meter of a connection that begins `now`, preface first.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            head: [0; HEAD_BYTES],
            filled: 0,
            skip: PREFACE_BYTES,
            left: ALLOWANCE,
            refilled: now,
        }
    }

    /// Follows `bytes` that came in, or tells why the connection must end.
    pub(super) fn follow(
        &mut self,
        mut bytes: &[u8],
        now: impl FnOnce() -> Instant,
    ) -> Result<(), Reason> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                break;
            }
            let n = (HEAD_BYTES - self.filled).min(bytes.len());
            self.head[self.filled..][..n].copy_from_slice(&bytes[..n]);
            self.filled += n;
            bytes = &bytes[n..];
            if self.filled == HEAD_BYTES {
                self.filled = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                if !can_be(kind, flags, self.skip) {
                    return Err(Reason::FRAME_SIZE_ERROR);
                }
                self.left = (self.left + price(kind, self.skip)).min(ALLOWANCE);
            }
        }
        if self.left >= 0 {
            return Ok(());
        }
        let now = now();
        let since = now.saturating_duration_since(self.refilled).min(Duration::from_secs(60));
        self.refilled = now;
        self.left = (self.left + since.as_millis() as i64 * PER_SECOND / 1000).min(ALLOWANCE);
        if self.left >= 0 { Ok(()) } else { Err(Reason::ENHANCE_YOUR_CALM) }
    }

    /// `bytes` went out in one write: whoever reads opens windows.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.left = (self.left + (bytes / 4096) as i64).min(ALLOWANCE);
    }
}

/// Whether a frame of `kind` can have `length` bytes (RFC 9113 sections 4.2 and 6).
fn can_be(kind: u8, flags: u8, length: usize) -> bool {
    const ACK: u8 = 1;
    match kind {
        // PRIORITY.
        2 => length == 5,
        // RST_STREAM and WINDOW_UPDATE.
        3 | 8 => length == 4,
        // SETTINGS.
        4 if flags & ACK != 0 => length == 0,
        4 => length.is_multiple_of(6) && length <= LARGEST,
        // PING.
        6 => length == 8,
        _ => length <= LARGEST,
    }
}

/// What a frame gives to the allowance, or takes from it.
fn price(kind: u8, length: usize) -> i64 {
    match kind {
        // DATA moves a body on.
        0 => 1 + (length / 256) as i64,
        // HEADERS.
        1 => 5,
        // PRIORITY, which is deprecated and may be ignored.
        2 => -2,
        // RST_STREAM: with its HEADERS it costs the work of a request.
        3 => -15,
        // SETTINGS, PING: each is answered.
        4 | 6 => -10,
        // WINDOW_UPDATE: a reader sends one or two for each frame of DATA that it gets.
        8 => -1,
        // CONTINUATION.
        9 => -5,
        // GOAWAY, and kinds that nobody knows.
        _ => -5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let mut bytes = (length as u32).to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, 0, 0, 0, 0, 1]);
        bytes.resize(HEAD_BYTES + length, 0xff);
        bytes
    }

    /// Frames until the allowance is used up, at one moment; at most `limit`.
    fn frames_until_calm(kinds: &[u8], length: usize, limit: usize) -> usize {
        let now = Instant::now();
        let mut meter = Meter::new(now);
        meter.follow(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", || now).expect("calm");
        (0..limit)
            .find(|n| meter.follow(&frame(kinds[n % kinds.len()], length), || now).is_err())
            .unwrap_or(limit)
    }

    #[test]
    fn floods_are_bounded_and_requests_are_not() {
        for (kinds, length, most) in [
            (&[3u8][..], 4, 140), // resets
            (&[1, 3], 4, 410),    // rapid reset, CVE-2023-44487
            (&[6], 8, 210),       // pings
            (&[4], 0, 210),       // settings
            (&[8], 4, 2010),      // windows opened by a byte
            (&[2], 5, 1010),      // priorities
            (&[0xbe], 1, 410),    // of no known kind
        ] {
            let n = frames_until_calm(kinds, length, 10_000);
            assert!(n < most, "{kinds:?} passed {n}");
            assert!(n > most / 2, "{kinds:?} stopped at {n}");
        }
        // Requests, and downloads whose windows are opened twice per request.
        assert_eq!(frames_until_calm(&[1], 40, 100_000), 100_000);
        assert_eq!(frames_until_calm(&[1, 8, 8], 4, 100_000), 100_000);
        // An upload.
        assert_eq!(frames_until_calm(&[0], 16_000, 100_000), 100_000);
        // One of four requests broken off.
        assert_eq!(frames_until_calm(&[1, 1, 1, 1, 3], 4, 100_000), 100_000);
    }

    #[test]
    fn frames_of_a_size_that_cannot_be_end_the_connection() {
        let now = Instant::now();
        for (kind, length) in [
            (2, 4),
            (3, 5),
            (4, 5),
            (4, 16_386),
            (6, 7),
            (8, 0),
            (0, 16_385),
            (1, 1 << 20),
            (99, 1 << 23),
        ] {
            let mut meter = Meter::new(now);
            meter.follow(&[0; PREFACE_BYTES], || now).expect("calm");
            let fault = meter.follow(&frame(kind, length)[..HEAD_BYTES], || now);
            assert_eq!(fault, Err(Reason::FRAME_SIZE_ERROR), "{kind} of {length}");
        }
        let mut meter = Meter::new(now);
        meter.follow(&[0; PREFACE_BYTES], || now).expect("calm");
        let acknowledged = [0, 0, 6, 4, 1, 0, 0, 0, 0];
        assert_eq!(meter.follow(&acknowledged, || now), Err(Reason::FRAME_SIZE_ERROR));
    }

    #[test]
    fn a_long_download_may_open_its_windows() {
        let now = Instant::now();
        let mut meter = Meter::new(now);
        meter.follow(&[0; PREFACE_BYTES], || now).expect("calm");
        for n in 0..100_000 {
            meter.sent(16_384);
            let windows = [frame(8, 4), frame(8, 4)].concat();
            assert_eq!(meter.follow(&windows, || now), Ok(()), "{n}");
        }
    }

    #[test]
    fn time_gives_back() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        meter.follow(&[0; PREFACE_BYTES], || start).expect("calm");
        for n in 0..100_000 {
            // Ten pings a second are no flood.
            let now = start + Duration::from_millis(100 * n);
            assert_eq!(meter.follow(&frame(6, 8), || now), Ok(()), "ping {n}");
        }
    }

    #[test]
    fn how_bytes_arrive_makes_no_difference() {
        let now = Instant::now();
        let mut wire = vec![0; PREFACE_BYTES];
        for (kind, length) in [(4, 600), (1, 100), (0, 9000), (8, 4), (3, 4), (6, 8), (99, 7)] {
            wire.extend_from_slice(&frame(kind, length));
        }
        let mut whole = Meter::new(now);
        whole.follow(&wire, || now).expect("calm");
        for step in [1, 2, 7, 10, 100] {
            let mut pieces = Meter::new(now);
            for piece in wire.chunks(step) {
                pieces.follow(piece, || now).expect("calm");
            }
            assert_eq!((pieces.left, pieces.skip, pieces.filled), (whole.left, 0, 0), "{step}");
        }
    }
}
