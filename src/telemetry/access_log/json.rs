//! The fields of a line, as JSON.
//!
//! Keys include the comma before and the colon after them: one copy instead of three.

use std::{io::Write, net::IpAddr};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends a number.
pub(super) fn number(out: &mut Vec<u8>, key: &'static str, value: Option<u64>) {
    out.extend_from_slice(key.as_bytes());
    match value {
        Some(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends bytes as hexadecimal digits; `key` has the quote before them.
pub(super) fn hex(out: &mut Vec<u8>, key: &'static str, bytes: &[u8]) {
    out.extend_from_slice(key.as_bytes());
    for byte in bytes {
        out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    out.push(b'"');
}

/// Appends the client's address.
pub(super) fn client(out: &mut Vec<u8>, client: IpAddr) {
    out.extend_from_slice(br#","client":""#);
    match client {
        IpAddr::V4(v4) => {
            for octet in v4.octets() {
                out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
                out.push(b'.');
            }
            out.pop();
        }
        // Writing to a Vec does not fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
    out.push(b'"');
}

/// Appends bytes as a string; invalid UTF-8 becomes `\ufffd`.
pub(super) fn text(out: &mut Vec<u8>, key: &'static str, value: Option<&[u8]>) {
    out.extend_from_slice(key.as_bytes());
    let Some(value) = value else {
        return out.extend_from_slice(b"null");
    };
    out.push(b'"');
    if is_plain(value) {
        out.extend_from_slice(value);
    } else {
        for chunk in value.utf8_chunks() {
            chunk.valid().bytes().for_each(|byte| escape(out, byte));
            if !chunk.invalid().is_empty() {
                out.extend_from_slice(b"\\ufffd");
            }
        }
    }
    out.push(b'"');
}

/// Whether text can be copied: ASCII, no control characters, no quote and no backslash. Eight bytes
/// at a time (Bit Twiddling Hacks, "Determine if a word has a byte less than n").
fn is_plain(value: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    let special = |word: u64| {
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let backslash = zero(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        (word | quote | backslash | control) & (ONES << 7)
    };
    let (words, rest) = value.as_chunks::<8>();
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    let found = words.iter().fold(0, |found, word| found | special(u64::from_le_bytes(*word)));
    found | special(u64::from_le_bytes(last)) == 0
}

/// Appends a byte of valid UTF-8 (RFC 8259, section 7).
fn escape(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        0..=0x1f => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        _ => out.push(byte),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn plain_text_is_what_needs_no_escape(value in "[ -~]{0,30}", odd: u8, at in 0usize..31) {
            let mut value: Vec<u8> = value.into();
            value.insert(at.min(value.len()), odd);
            let plain = |byte: &u8| matches!(byte, b' '..=0x7f) && !matches!(byte, b'"' | b'\\');
            prop_assert_eq!(is_plain(&value), value.iter().all(plain));
        }
    }
}
