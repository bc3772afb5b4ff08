use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

#[derive(Default)]
struct Count(usize);

impl Watch for Count {
    fn received(&mut self, _: Head) -> Result<(), Reason> {
        self.0 += 1;
        Ok(())
    }
}

/// The bytes of `wire` that pass, sent in pieces of `step` bytes and read into `space` bytes,
/// and the number of frames seen.
async fn sifted(wire: &[u8], step: usize, space: usize) -> (Vec<u8>, usize) {
    let (mut far, near) = duplex(step);
    let wire = wire.to_vec();
    let sending = tokio::spawn(async move { far.write_all(&wire).await });
    let mut near = Sifted::new(near, Count::default(), Sieve::new(2, 32 * 1024));
    let (mut passed, mut into) = (Vec::new(), vec![0; space]);
    loop {
        match near.read(&mut into).await.expect("open") {
            0 => break,
            n => passed.extend_from_slice(&into[..n]),
        }
    }
    sending.await.expect("no panic").expect("sent");
    (passed, near.watch.0)
}

#[tokio::test]
async fn only_empty_data_is_removed_in_pieces_of_any_size() {
    let (head, empty) = ([0x82, 0x86, 0x84], frame(DATA, 0, 1, &[]));
    let long = frame(DATA, 0, 1, &[7; 5000]);
    let keep = [
        b"PR".to_vec(),
        // On a stream that is not open.
        empty.clone(),
        frame(HEADERS, 0, 1, &head[..1]),
        frame(CONTINUATION, END_HEADERS, 1, &head[1..]),
        long.clone(),
        frame(DATA, 0, 1, b"x"),
        frame(DATA, PADDED, 1, &[0]),
        frame(DATA, END_STREAM, 1, &[]),
        frame(6, 0, 0, &[0; 8]),
        b"\0\0\x05cut".to_vec(),
    ];
    let mut wire = keep[..4].concat();
    for piece in &keep[4..] {
        wire.extend_from_slice(&empty.repeat(3));
        wire.extend_from_slice(piece);
    }
    for step in [1, 3, 10, 100, 8000] {
        for space in [1, 9, 100, 10_000] {
            let (passed, frames) = sifted(&wire, step, space).await;
            assert!(passed == keep.concat(), "{step} {space}: {} bytes", passed.len());
            assert_eq!(frames, 8 + 18, "{step} {space}");
        }
    }
}

/// What a block in pieces had needed was awaited again later, before frames that were there.
#[tokio::test]
async fn a_whole_frame_passes_at_once_after_a_block_in_pieces() {
    let value = [b'x'; 200];
    let fields = [&[0x82, 0x86, 0x84, 0, 1, b'a', 0x7f, 73][..], &value].concat();
    let block = frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields);
    let ping = frame(6, 0, 0, &[0; 8]);
    for space in [1, HEAD_BYTES, LEAST_SPACE - 1, LEAST_SPACE, 4096] {
        let (mut far, near) = duplex(65_536);
        let mut near = Sifted::new(near, Count::default(), Sieve::new(0, 32 * 1024));
        let mut into = vec![0; space];
        far.write_all(&block[..60]).await.expect("open");
        assert!(near.read(&mut into).now_or_never().is_none(), "the block is not whole");
        far.write_all(&block[60..]).await.expect("open");
        for whole in std::iter::once(&block).chain([&ping; 20]) {
            if whole == &ping {
                far.write_all(whole).await.expect("open");
            }
            let mut passed = Vec::new();
            while passed.len() < whole.len() {
                let read = near.read(&mut into).now_or_never();
                let n = read.expect("what is there passes").expect("open");
                passed.extend_from_slice(&into[..n]);
            }
            assert_eq!(&passed, whole, "{space}");
        }
    }
}

#[test]
fn of_a_block_that_is_not_whole_no_more_is_held_than_a_head_may_have() {
    let piece = frame(HEADERS, 0, 1, &[0x82; 900]);
    for (flags, passes) in [(0, true), (END_HEADERS, false)] {
        let mut sieve = Sieve::new(0, 1000);
        assert_eq!((sieve.sift(&mut piece.clone(), &mut ()), sieve.held.len()), (0, 909));
        let length = if passes { 900 } else { 90 };
        let more = frame(CONTINUATION, flags, 1, &vec![0x82; length]);
        let mut both = [std::mem::take(&mut sieve.held), more[..50].to_vec()].concat();
        let passed = if passes { both.len() } else { 0 };
        assert_eq!(sieve.sift(&mut both, &mut ()), passed, "{length}");
        assert_eq!(sieve.held.len(), both.len() - passed, "{length}");
    }
}

#[tokio::test]
async fn a_malformed_block_is_replaced_in_its_place() {
    let bad = [&[0x82, 0x86, 0x84, 0, 1][..], b"X", &[1, b'1']].concat();
    let (next, end) = (frame(HEADERS, 5, 3, &[0x82, 0x86, 0x84]), frame(6, 0, 0, &[0; 8]));
    let padded = [&[4][..], &[0; 5], &bad, &[0; 4]].concat();
    for block in [
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &bad),
        frame(HEADERS, END_STREAM | END_HEADERS | PADDED | PRIORITY, 1, &padded),
        [frame(HEADERS, END_STREAM, 1, &bad[..4]), frame(CONTINUATION, END_HEADERS, 1, &bad[4..])]
            .concat(),
    ] {
        let wire = [b"PR".to_vec(), block, next.clone(), end.clone()].concat();
        let malformed = frame(HEADERS, 5, 1, &[0x82, 0x86, 0x84, 0x84, 0x84]);
        let expected = [b"PR".to_vec(), malformed, next.clone(), end.clone()].concat();
        for step in [1, 7, 1000] {
            assert_eq!(sifted(&wire, step, 100).await.0, expected, "{step}");
        }
    }
}
