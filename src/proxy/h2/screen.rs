//! Finds malformed fields in header blocks before the crate decodes them.
//!
//! A malformed field is an error of its stream (RFC 9113 sections 8.1.1 and 8.2.1). The crate
//! treats an invalid name or value as a compression error and ends the connection, which behind a
//! gateway carries the requests of many clients. So such a field is removed here, and two fields
//! are added that the crate treats as an error of the stream. The dynamic table (RFC 7541 section
//! 2.3.2) stays equal to the peer's: an entry of the same lengths is inserted.
//!
//! Only what must be decoded is. Names and values that were sent before are indices, and a quick
//! scan shows that a Huffman code has no control characters. Invalid HPACK passes: it is a
//! compression error.

use std::collections::VecDeque;

use http::{HeaderName, Method, StatusCode};

/// Entries of the static table (RFC 7541 appendix A).
const STATIC: usize = 61;

/// Most entries of a dynamic table of 4 KiB, which is what the crate offers.
const ENTRIES: usize = 128;

/// `:path: /` twice: malformed in any head, and in trailers.
const MALFORMED: [u8; 2] = [0x84, 0x84];

/// Most bits of a prefixed integer that are accepted.
const INTEGER_BITS: u32 = 28;

/// The kind of name of a table entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Field,
    Method,
    Status,
    /// Another pseudo-field.
    Pseudo,
    /// The name or its value was malformed.
    Malformed,
}

impl Name {
    fn of(text: &[u8]) -> Self {
        match text {
            b":method" => Self::Method,
            b":status" => Self::Status,
            b":authority" | b":scheme" | b":path" | b":protocol" => Self::Pseudo,
            _ if HeaderName::from_lowercase(text).is_ok() => Self::Field,
            _ => Self::Malformed,
        }
    }

    fn is_pseudo(self) -> bool {
        matches!(self, Self::Method | Self::Status | Self::Pseudo)
    }

    /// Whether `value` is valid for this name.
    fn takes(self, value: &Text<'_>) -> bool {
        if value.huffman && self != Self::Method && self != Self::Status && !value.has_long_run() {
            return true;
        }
        let Some(text) = value.decode() else { return true };
        match self {
            Self::Field | Self::Malformed => {
                text.iter().all(|b| matches!(b, b'\t' | b' '..=b'~' | 0x80..))
            }
            Self::Method => Method::from_bytes(&text).is_ok(),
            Self::Status => StatusCode::from_bytes(&text).is_ok(),
            Self::Pseudo => std::str::from_utf8(&text).is_ok(),
        }
    }
}

/// A string literal.
struct Text<'b> {
    bytes: &'b [u8],
    huffman: bool,
}

impl Text<'_> {
    /// Whether a Huffman code may contain a byte that is not printable ASCII: all such codes begin
    /// with ten ones.
    fn has_long_run(&self) -> bool {
        let mut run = 0;
        self.bytes.iter().any(|byte| {
            let ends = run + byte.leading_ones();
            run = if *byte == 0xff { ends } else { byte.trailing_ones() };
            ends >= 10
        })
    }

    /// The decoded text; `None` if the Huffman code is invalid.
    fn decode(&self) -> Option<std::borrow::Cow<'_, [u8]>> {
        match self.huffman {
            false => Some(self.bytes.into()),
            true => huffman::decode(self.bytes).map(Into::into),
        }
    }
}

/// Reads a header block from its front.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    /// Reads an integer with a prefix of `bits` bits (RFC 7541 section 5.1).
    fn integer(&mut self, bits: u32) -> Option<usize> {
        let (first, mut rest) = self.0.split_first()?;
        let most = (1usize << bits) - 1;
        let mut n = usize::from(*first) & most;
        if n == most {
            let mut shift = 0;
            loop {
                let (byte, after) = rest.split_first()?;
                rest = after;
                n += usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
                if shift >= INTEGER_BITS {
                    return None;
                }
            }
        }
        self.0 = rest;
        Some(n)
    }

    fn text(&mut self) -> Option<Text<'b>> {
        let huffman = self.0.first()? & 0x80 != 0;
        let length = self.integer(7)?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Text { bytes, huffman })
    }
}

/// The names of a peer's dynamic table, the youngest first.
#[derive(Debug, Default)]
pub(super) struct Screen {
    entries: VecDeque<Name>,
}

impl Screen {
    /// Returns the block to pass to the crate if a field of `block` is malformed. In `trailers`,
    /// pseudo-fields are malformed (RFC 9113 section 8.1).
    pub(super) fn screen(&mut self, block: &[u8], trailers: bool) -> Option<Vec<u8>> {
        let mut malformed = false;
        // The changed block, and how much of `block` it covers.
        let (mut patched, mut copied) = (Vec::new(), 0);
        let mut reader = Reader(block);
        while let Some(&first) = reader.0.first() {
            let start = block.len() - reader.0.len();
            if first & 0x80 != 0 {
                let name = self.name(reader.integer(7)?);
                malformed |= name == Name::Malformed || trailers && name.is_pseudo();
                continue;
            }
            if first & 0xe0 == 0x20 {
                // A new size of the table.
                reader.integer(5)?;
                continue;
            }
            let enters = first & 0x40 != 0;
            let index = reader.integer(if enters { 6 } else { 4 })?;
            let literal = if index == 0 { Some(reader.text()?) } else { None };
            let name = match &literal {
                Some(text) => Name::of(&text.decode()?),
                None => self.name(index),
            };
            let value_at = block.len() - reader.0.len();
            let value = reader.text()?;
            let fits = name.takes(&value);
            let passes = fits && (literal.is_none() || name != Name::Malformed);
            malformed |= !passes || name == Name::Malformed || trailers && name.is_pseudo();
            if !passes {
                patched.extend_from_slice(&block[copied..start]);
                copied = block.len() - reader.0.len();
                if enters {
                    if name == Name::Status || name == Name::Method && value.bytes.is_empty() {
                        // No valid field has this length, so none can be entered.
                        return None;
                    }
                    match literal {
                        None => patched.extend_from_slice(&block[start..value_at]),
                        Some(text) => {
                            patched.push(0x40);
                            let name = text.decode()?;
                            if name.is_empty() {
                                return None;
                            }
                            put_filler(&mut patched, name.len());
                        }
                    }
                    put_filler(&mut patched, value.decode()?.len());
                }
            }
            if enters {
                self.enter(if passes { name } else { Name::Malformed });
            }
        }
        malformed.then(|| {
            patched.extend_from_slice(&block[copied..]);
            patched.extend_from_slice(&MALFORMED);
            patched
        })
    }

    /// The kind of entry number `index` of both tables.
    fn name(&self, index: usize) -> Name {
        match index {
            2 | 3 => Name::Method,
            1 | 4..=7 => Name::Pseudo,
            8..=14 => Name::Status,
            // A missing index is a compression error.
            _ if index <= STATIC => Name::Field,
            _ => self.entries.get(index - STATIC - 1).copied().unwrap_or(Name::Field),
        }
    }

    fn enter(&mut self, name: Name) {
        self.entries.truncate(ENTRIES - 1);
        self.entries.push_front(name);
    }
}

/// Writes a text of `length` bytes that is valid as name and value.
fn put_filler(block: &mut Vec<u8>, length: usize) {
    match length {
        0..127 => block.push(length as u8),
        _ => {
            block.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                block.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            block.push(rest as u8);
        }
    }
    block.resize(block.len() + length, b'x');
}

/// The Huffman code of HPACK (RFC 7541 appendix B). It is canonical, so the lengths define it.
mod huffman {
    const LENGTHS: [u8; 257] = [
        13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30,
        28, 28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
        5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
        7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5,
        7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22,
        22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23,
        22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22,
        21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26,
        26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20,
        24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27,
        27, 28, 27, 27, 27, 27, 27, 26, 30,
    ];

    const LONGEST: usize = 30;

    const END: u16 = 256;

    /// For each length of a code: the first code, the number of codes, and the index of the first
    /// symbol.
    struct Table {
        first: [u32; LONGEST + 1],
        count: [u32; LONGEST + 1],
        start: [usize; LONGEST + 1],
        symbols: [u16; 257],
    }

    const TABLE: Table = {
        let mut table = Table {
            first: [0; LONGEST + 1],
            count: [0; LONGEST + 1],
            start: [0; LONGEST + 1],
            symbols: [0; 257],
        };
        let (mut length, mut placed, mut code) = (1, 0, 0);
        while length <= LONGEST {
            code <<= 1;
            (table.first[length], table.start[length]) = (code, placed);
            let mut symbol = 0;
            while symbol < LENGTHS.len() {
                if LENGTHS[symbol] as usize == length {
                    table.symbols[placed] = symbol as u16;
                    table.count[length] += 1;
                    (placed, code) = (placed + 1, code + 1);
                }
                symbol += 1;
            }
            length += 1;
        }
        table
    };

    /// Decodes `bytes`; `None` if they are no valid code.
    pub(super) fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
        static TABLE: Table = self::TABLE;
        let (mut text, mut code, mut length) = (Vec::with_capacity(bytes.len() * 2), 0u32, 0);
        for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |n| u32::from(byte >> n & 1)))
        {
            (code, length) = (code << 1 | bit, length + 1);
            let nth = code.wrapping_sub(*TABLE.first.get(length)?);
            if nth < TABLE.count[length] {
                let symbol = TABLE.symbols[TABLE.start[length] + nth as usize];
                if symbol == END {
                    return None;
                }
                text.push(symbol as u8);
                (code, length) = (0, 0);
            }
        }
        // The rest is padding: ones, fewer than a byte.
        (length < 8 && code == (1 << length) - 1).then_some(text)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_examples_of_the_rfc_are_decoded() {
            // RFC 7541 appendices C.4 and C.6.
            for (code, text) in [
                (
                    &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..],
                    &b"www.example.com"[..],
                ),
                (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], b"no-cache"),
                (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], b"custom-value"),
                (
                    &[
                        0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9,
                        0xae, 0x82, 0xae, 0x43, 0xd3,
                    ],
                    b"https://www.example.com",
                ),
                // CR is the third code of 30 bits but one.
                (&[0xff, 0xff, 0xff, 0xf7], b"\r"),
            ] {
                assert_eq!(decode(code).as_deref(), Some(text));
            }
            for none in [&[0xff][..], &[0xff, 0xff, 0xff, 0xff], &[0x00]] {
                assert_eq!(decode(none), None, "{none:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A literal field that begins with `first` and spells out its name.
    fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut block = vec![first, name.len() as u8];
        block.extend_from_slice(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value);
        block
    }

    /// A head of indices: GET, http, /.
    const HEAD: [u8; 3] = [0x82, 0x86, 0x84];

    #[test]
    fn well_formed_blocks_pass_as_they_are() {
        let mut screen = Screen::default();
        for block in [
            HEAD.to_vec(),
            [&HEAD[..], &literal(0x40, b"x-odd", b"\tvalue \xff")].concat(),
            // A new size of the table, and the youngest entry.
            [&[0x20, 0x3f, 0xe1, 0x1f][..], &HEAD, &[0xbe]].concat(),
            // In Huffman code: `:authority: www.example.com`, and as a field.
            vec![
                0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
            ],
            // Invalid HPACK, which the crate reports: a missing index, a truncated text.
            vec![0xff, 0x20],
            vec![0x00, 0x05, b'a'],
        ] {
            assert_eq!(screen.screen(&block, false), None, "{block:?}");
        }
    }

    #[test]
    fn a_malformed_field_is_taken_out_and_marked() {
        for field in [
            literal(0x00, b"X-Upper", b"1"),
            literal(0x10, b"x space", b"1"),
            literal(0x00, b"", b"1"),
            literal(0x00, b":unknown", b"1"),
            literal(0x00, b"x-lf", b"a\nb"),
            literal(0x00, b"x-nul", b"a\0b"),
            literal(0x00, b":method", b"G T"),
            literal(0x00, b":path", b"/\xff"),
            // A carriage return in Huffman code.
            vec![0x00, 0x01, b'x', 0x84, 0xff, 0xff, 0xff, 0xf7],
        ] {
            let block = [&HEAD[..], &field, &[0x90]].concat();
            let screened = Screen::default().screen(&block, false);
            assert_eq!(screened.as_deref(), Some(&[0x82, 0x86, 0x84, 0x90, 0x84, 0x84][..]));
        }
    }

    #[test]
    fn the_dynamic_table_stays_that_of_the_peer() {
        let mut screen = Screen::default();
        let block = literal(0x40, b"X-Upper", b"a\nb");
        let entered = [&literal(0x40, b"xxxxxxx", b"xxx")[..], &MALFORMED].concat();
        assert_eq!(screen.screen(&block, false), Some(entered));
        // After another insertion, the entry is the second.
        assert_eq!(screen.screen(&literal(0x40, b"x-good", b"1"), false), None);
        assert_eq!(screen.screen(&[0x82, 0xbe], false), None);
        let again = [&[0xbf][..], &MALFORMED].concat();
        assert_eq!(screen.screen(&[0xbf], false), Some(again));
        let named = [&[0x0f, 0x30, 0x01, b'1'][..], &MALFORMED].concat();
        assert_eq!(screen.screen(&[0x0f, 0x30, 0x01, b'1'], false), Some(named));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_what_it_changes_is_marked(
            blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..4),
            trailers in any::<bool>(),
        ) {
            let mut screen = Screen::default();
            for block in blocks {
                if let Some(screened) = screen.screen(&block, trailers) {
                    prop_assert!(screened.ends_with(&MALFORMED));
                }
            }
        }
    }

    #[test]
    fn trailers_have_no_pseudo_fields() {
        let mut screen = Screen::default();
        for pseudo in [vec![0x84], literal(0x00, b":path", b"/x"), vec![0x04, 0x02, b'/', b'x']] {
            assert_eq!(screen.screen(&pseudo, false), None);
            let marked = [&pseudo[..], &MALFORMED].concat();
            assert_eq!(screen.screen(&pseudo, true), Some(marked));
        }
        assert_eq!(screen.screen(&literal(0x00, b"x-sum", b"1"), true), None);
    }
}
