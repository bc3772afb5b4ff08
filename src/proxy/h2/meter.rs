//! Limits the work that a client can cause without sending requests.
//!
//! Some frames cause work without advancing a request: resets, pings, settings, priorities, windows
//! opened by a byte, empty DATA. Each takes from an allowance; requests and time add to it. A
//! client without allowance gets `ENHANCE_YOUR_CALM` (RFC 9113 sections 5.1.2, 6.5 and 10.5). One
//! allowance is better than a rate for each kind: a browser that cancels a page full of images
//! resets a hundred streams at once and then none for a minute, and floods mix kinds.
//!
//! Clients that exchange messages may do more. gRPC clients and proxies send a PING, and open
//! windows, for each message or frame that they read, however small; some do so for those that they
//! send. So each DATA frame and each byte earns the cost of the frames that may answer it, and that
//! stays as long as the connection: a busy client answers many frames at once. It pays only for
//! such frames, not for resets: a request with a body can be cancelled as well as one without.
//!
//! Streams that are reset because of the client's errors cost as much as those that the client
//! resets; otherwise it could start and abort requests without end (CVE-2025-8671).

use h2::Reason;
use tokio::time::{Duration, Instant};

use super::{
    open::{OpenStreams, Sender},
    sieve::{DATA, END_STREAM, HEADERS, Head, RST_STREAM},
};

/// Initial allowance, and the most that requests and time can accumulate.
const ALLOWANCE: i64 = 2000;

/// The most that DATA frames can earn: PINGs for twenty thousand messages.
const EARNED: i64 = 250_000;

/// Allowance added per second.
const PER_SECOND: i64 = 100;

/// Earned by a DATA frame, beside its bytes: a PING, and a window of the stream and of the
/// connection.
const PER_FRAME: i64 = 12;

/// Earned by a byte of DATA. Several messages may share a frame; the shortest has five bytes.
const PER_BYTE: i64 = 3;

/// Largest payload without a setting that changes it.
const LARGEST: usize = 16_384;

/// Bytes of a frame's head, and of a reset with its code.
const HEAD_BYTES: usize = 9;
const RESET_BYTES: usize = 13;

/// Counts a connection's frames.
#[derive(Debug)]
pub(super) struct Meter {
    left: i64,
    /// Earned by DATA frames.
    earned: i64,
    refilled: Instant,
    /// The head of a sent frame, as far as it is known.
    head: [u8; RESET_BYTES],
    filled: usize,
    /// Bytes until the next head.
    skip: usize,
    open: OpenStreams,
}

impl Meter {
    /// Creates the meter of a connection that begins `now`.
    pub(super) fn new(now: Instant) -> Self {
        let (left, head) = (ALLOWANCE, [0; RESET_BYTES]);
        let open = OpenStreams::default();
        Self { left, earned: 0, refilled: now, head, filled: 0, skip: 0, open }
    }

    /// Counts a received frame; the error is the reason to end the connection.
    pub(super) fn received(
        &mut self,
        head: Head,
        now: impl FnOnce() -> Instant,
    ) -> Result<(), Reason> {
        if !can_be(head) {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        self.open.note(Sender::Client, head);
        self.charge(head);
        self.check(now)
    }

    /// The number of open streams.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Fails if the allowance is used up.
    fn check(&mut self, now: impl FnOnce() -> Instant) -> Result<(), Reason> {
        if self.left >= 0 {
            return Ok(());
        }
        let now = now();
        let since = now.saturating_duration_since(self.refilled).min(Duration::from_secs(60));
        self.refilled = now;
        self.give(since.as_millis() as i64 * PER_SECOND / 1000);
        if self.left >= 0 { Ok(()) } else { Err(Reason::ENHANCE_YOUR_CALM) }
    }

    /// Counts the frames in `bytes`, which were sent next; the error is the reason to end the
    /// connection.
    pub(super) fn sent(
        &mut self,
        mut bytes: &[u8],
        now: impl FnOnce() -> Instant,
    ) -> Result<(), Reason> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return self.check(now);
            }
            let is_reset = self.filled >= HEAD_BYTES && self.head[3] == RST_STREAM;
            let whole = if is_reset { RESET_BYTES } else { HEAD_BYTES };
            let n = (whole - self.filled).min(bytes.len());
            self.head[self.filled..][..n].copy_from_slice(&bytes[..n]);
            self.filled += n;
            bytes = &bytes[n..];
            if self.filled == RESET_BYTES || self.filled == HEAD_BYTES && self.head[3] != RST_STREAM
            {
                self.leave();
            }
        }
    }

    /// Counts the frame whose head was sent.
    fn leave(&mut self) {
        let head = Head::read(self.head.first_chunk().expect("longer than a head"));
        self.open.note(Sender::Here, head);
        match head.kind {
            DATA => {
                self.pass(head.length);
                self.give((head.length / 4096) as i64);
            }
            HEADERS if head.flags & END_STREAM != 0 => self.pass(0),
            RST_STREAM => {
                let [.., a, b, c, d] = self.head;
                self.left -= match u32::from_be_bytes([a, b, c, d]) {
                    // The client's errors: protocol, flow control, closed stream, frame size.
                    1 | 3 | 5 | 6 => RESET,
                    // A refused stream earns nothing.
                    7 => REQUEST,
                    _ => 0,
                };
            }
            _ => {}
        }
        self.skip = HEAD_BYTES + head.length - self.filled;
        self.filled = 0;
    }

    /// Adds to the allowance, or takes from it, for a received frame.
    fn charge(&mut self, head: Head) {
        match head.kind {
            // Empty DATA only costs its parsing.
            DATA if head.is_empty_data() => self.answer(1),
            // DATA advances a body.
            DATA => {
                self.pass(head.length);
                self.give(1 + (head.length / 256) as i64);
            }
            HEADERS => self.give(REQUEST),
            // PRIORITY, which is deprecated and may be ignored.
            2 => self.answer(2),
            RST_STREAM => self.left -= RESET,
            // SETTINGS, PING: each is answered.
            4 | 6 => self.answer(10),
            // WINDOW_UPDATE: a reader sends one or two for each DATA frame that it gets.
            8 => self.answer(1),
            // CONTINUATION, GOAWAY, and unknown kinds.
            _ => self.left -= 5,
        }
    }

    /// A DATA frame of `length` bytes was passed, in either direction.
    fn pass(&mut self, length: usize) {
        self.earned = (self.earned + PER_FRAME + PER_BYTE * length as i64).min(EARNED);
    }

    /// Takes the cost of a frame that may answer DATA: from the earned part first.
    fn answer(&mut self, cost: i64) {
        let paid = cost.min(self.earned);
        self.earned -= paid;
        self.left -= cost - paid;
    }

    fn give(&mut self, n: i64) {
        self.left = (self.left + n).min(ALLOWANCE);
    }
}

/// Whether the length is possible for the kind of frame (RFC 9113 sections 4.2 and 6).
fn can_be(head: Head) -> bool {
    const ACK: u8 = 1;
    let Head { length, kind, flags, .. } = head;
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

/// Allowance added by a request.
const REQUEST: i64 = 5;

/// A reset costs, with its HEADERS, the work of a request.
const RESET: i64 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: u8, length: usize) -> Head {
        Head { length, kind, flags: 0, stream: 1 }
    }

    /// A frame as bytes.
    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Number of frames until the allowance is used up, without time passing; at most `limit`.
    fn frames_until_calm(kinds: &[u8], length: usize, limit: usize) -> usize {
        let now = Instant::now();
        let mut meter = Meter::new(now);
        (0..limit)
            .find(|n| meter.received(head(kinds[n % kinds.len()], length), || now).is_err())
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
            (&[0], 0, 2010),      // DATA without a byte
            (&[1, 0, 3], 4, 690), // rapid reset of requests with a body
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
        // One of four requests is cancelled.
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
            let fault = Meter::new(now).received(head(kind, length), || now);
            assert_eq!(fault, Err(Reason::FRAME_SIZE_ERROR), "{kind} of {length}");
        }
        let acknowledged = Head { flags: 1, ..head(4, 6) };
        let fault = Meter::new(now).received(acknowledged, || now);
        assert_eq!(fault, Err(Reason::FRAME_SIZE_ERROR));
    }

    #[test]
    fn whoever_reads_may_ping_and_open_windows_for_each_message_at_any_pace() {
        let now = Instant::now();
        let (ping, window) = (head(6, 8), head(8, 4));
        // Messages of 8 bytes with their prefix of five, one by one and many in a frame.
        for in_a_frame in [1, 100] {
            let payload = vec![7; 13 * in_a_frame];
            for at_once in [1, 100] {
                let mut meter = Meter::new(now);
                for _ in 0..10_000 / in_a_frame / at_once {
                    for _ in 0..at_once {
                        let sent = meter.sent(&frame(DATA, 0, &payload), || now);
                        assert_eq!(sent, Ok(()));
                    }
                    for n in 0..at_once * in_a_frame {
                        for head in [window, window, ping] {
                            assert_eq!(meter.received(head, || now), Ok(()), "{n}");
                        }
                    }
                }
            }
        }
        // And for each message that the client sends.
        let mut meter = Meter::new(now);
        for n in 0..10_000 {
            for head in [head(DATA, 13), ping] {
                assert_eq!(meter.received(head, || now), Ok(()), "{n}");
            }
        }
    }

    #[test]
    fn streams_reset_for_the_clients_errors_cost_as_much_as_those_that_it_resets() {
        let now = Instant::now();
        let served = |code: u32| {
            let mut meter = Meter::new(now);
            let reset = frame(RST_STREAM, 0, &code.to_be_bytes());
            (0..1000)
                .find(|_| {
                    let fault = meter.received(head(HEADERS, 40), || now).is_err();
                    // In pieces of any size; also where nothing more comes in.
                    let mut pieces = reset.chunks(5);
                    fault | pieces.any(|piece| meter.sent(piece, || now).is_err())
                })
                .unwrap_or(1000)
        };
        // INTERNAL_ERROR and REFUSED_STREAM are not the client's.
        assert_eq!((served(2), served(7)), (1000, 1000));
        assert!((150..250).contains(&served(1)), "{}", served(1));
    }

    #[test]
    fn time_gives_back() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        for n in 0..100_000 {
            // Ten pings a second are no flood.
            let now = start + Duration::from_millis(100 * n);
            assert_eq!(meter.received(head(6, 8), || now), Ok(()), "ping {n}");
        }
    }

    #[test]
    fn how_bytes_leave_makes_no_difference() {
        let now = Instant::now();
        let wire: Vec<u8> =
            [(4, 0, 600), (1, 4, 100), (0, 0, 900), (1, 5, 40), (3, 0, 4), (0, 1, 0)]
                .iter()
                .flat_map(|&(kind, flags, length)| frame(kind, flags, &vec![0; length]))
                .collect();
        let mut whole = Meter::new(now);
        whole.sent(&wire, || now).expect("calm");
        assert_eq!(whole.earned, 3 * PER_FRAME + 900 * PER_BYTE);
        for step in [1, 2, 7, 10, 100] {
            let mut pieces = Meter::new(now);
            wire.chunks(step).for_each(|piece| pieces.sent(piece, || now).expect("calm"));
            assert_eq!((pieces.earned, pieces.skip, pieces.filled), (whole.earned, 0, 0), "{step}");
        }
    }
}
