//! Edges of the tree: maps the way to a node to that node.
//!
//! A way is a hash of the host and all segments that lead to a node, and not of the parent's
//! number. So all ways follow from the request alone, and the processor can fetch the slots of all
//! segments in parallel instead of one after the other: with 10,000 routes these fetches miss the
//! nearest caches, and their sum would dominate the time.
//!
//! The hash is a folded multiplication per eight bytes, as in wyhash, and finds the end of the
//! segment in the same pass: eight bytes are tested together (Mycroft's test for a zero byte). It
//! need not resist an attacker: clients cannot add edges, the caller checks each node that is
//! found, and a probe ends at the next empty slot of a table that only the configuration fills.

/// Odd numbers without pattern: the fractional parts of the golden ratio and of the square root of
/// 3.
const MULTIPLIERS: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xBB67_AE85_84CA_A73B];

/// Marks an empty slot.
const NONE: u32 = u32::MAX;

/// The hash of the host and the segments that lead to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way(u64);

impl Way {
    /// The way to root number `number`.
    pub(super) const fn root(number: u64) -> Self {
        Self(number.wrapping_mul(MULTIPLIERS[1]))
    }

    /// The way extended by the first segment of `path`, and that segment's length.
    #[inline]
    pub(super) fn through(self, path: &[u8]) -> (Self, usize) {
        let (mut hash, mut rest) = (self.0, path);
        loop {
            let word = first_word(rest);
            let end = first_slash(word).min(rest.len());
            if end < 8 {
                let length = path.len() - rest.len() + end;
                let word = word & ((1 << (8 * end)) - 1);
                // The length is spread over all bits; otherwise it could cancel out with a byte.
                let length_mixed = (length as u64).wrapping_mul(MULTIPLIERS[0]);
                return (
                    Self(fold(hash.wrapping_add(length_mixed) ^ word, MULTIPLIERS[1])),
                    length,
                );
            }
            hash = fold(hash ^ word, MULTIPLIERS[0]);
            rest = &rest[8..];
        }
    }

    /// The way extended by a parameter.
    #[inline]
    pub(super) fn through_parameter(self) -> Self {
        Self(fold(!self.0, MULTIPLIERS[0]))
    }
}

/// The first eight bytes of `text`, padded with zeros.
#[inline]
fn first_word(text: &[u8]) -> u64 {
    if let Some(word) = text.first_chunk::<8>() {
        return u64::from_le_bytes(*word);
    }
    match (text.first_chunk::<4>(), text.last_chunk::<4>(), text) {
        // The two overlap in equal bytes.
        (Some(first), Some(last), _) => {
            let last = u64::from(u32::from_le_bytes(*last)) << (8 * (text.len() - 4));
            u64::from(u32::from_le_bytes(*first)) | last
        }
        (_, _, [a, b, c, ..]) => u64::from_le_bytes([*a, *b, *c, 0, 0, 0, 0, 0]),
        (_, _, [a, b]) => u64::from_le_bytes([*a, *b, 0, 0, 0, 0, 0, 0]),
        (_, _, [a]) => u64::from(*a),
        (_, _, []) => 0,
    }
}

/// The index of the first slash in a word; 8 if there is none.
#[inline]
fn first_slash(word: u64) -> usize {
    const ONES: u64 = u64::MAX / 255;
    let difference = word ^ (ONES * b'/' as u64);
    let zeros = difference.wrapping_sub(ONES) & !difference & (ONES << 7);
    (zeros.trailing_zeros() / 8) as usize
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Nodes by the way to them, in an open-addressed hash at most half full.
#[derive(Debug)]
pub(super) struct Edges(Box<[Slot]>);

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The half of the way that does not determine the slot.
    tag: u32,
    node: u32,
}

impl Default for Edges {
    fn default() -> Self {
        Self::new(std::iter::empty())
    }
}

impl Edges {
    /// Builds the hash table of `edges`.
    pub(super) fn new(edges: impl Iterator<Item = (Way, u32)>) -> Self {
        let edges: Vec<(Way, u32)> = edges.collect();
        let size = (edges.len() * 2).next_power_of_two().max(2);
        let mut slots = vec![Slot { tag: 0, node: NONE }; size].into_boxed_slice();
        for (way, node) in edges {
            let mut at = way.0 as usize & (size - 1);
            while slots[at].node != NONE {
                at = (at + 1) & (size - 1);
            }
            slots[at] = Slot { tag: (way.0 >> 32) as u32, node };
        }
        Self(slots)
    }

    /// The node of `way` for which `leads_here` is true.
    #[inline]
    pub(super) fn find(&self, way: Way, leads_here: impl Fn(u32) -> bool) -> Option<u32> {
        let mask = self.0.len() - 1;
        let (mut at, tag) = (way.0 as usize & mask, (way.0 >> 32) as u32);
        loop {
            let slot = self.0[at];
            if slot.node == NONE {
                return None;
            }
            if slot.tag == tag && leads_here(slot.node) {
                return Some(slot.node);
            }
            at = (at + 1) & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ways_of_like_segments_spread_over_the_slots() {
        let like = |n| [format!("{n}"), format!("studio-{n}"), format!("{n:08}")];
        let segments = (0..10_000).flat_map(like);
        let ways = segments.map(|s| Way::root(1).through(s.as_bytes()).0.0);
        let ways: HashSet<u64> = ways.collect();
        assert_eq!(ways.len(), 30_000);
        let slots: HashSet<u64> = ways.iter().map(|way| way & 0xFFFF).collect();
        // The expectation for random slots.
        let expected = 65_536.0 * (1.0 - (-30_000.0f64 / 65_536.0).exp());
        assert!(slots.len() as f64 > 0.97 * expected, "{} slots", slots.len());
    }

    proptest! {
        #[test]
        fn a_segment_ends_at_its_slash(segment in "[^/]{0,40}", rest in "(/[a-z/]{0,20})?") {
            let way = Way::root(1).through(segment.as_bytes());
            prop_assert_eq!(way.1, segment.len());
            prop_assert_eq!(Way::root(1).through((segment + &rest).as_bytes()), way);
        }

        #[test]
        fn every_byte_and_the_order_of_segments_count(
            text in "[0-9A-Za-z._]{1,40}", at: prop::sample::Index, root in 0u64..4,
        ) {
            let through = |way: Way, text: &[u8]| way.through(text).0;
            let way = through(Way::root(root), text.as_bytes());
            let mut other = text.clone().into_bytes();
            other[at.index(text.len())] ^= 0x80;
            prop_assert_ne!(way, through(Way::root(root), &other));
            prop_assert_ne!(way, through(Way::root(root), &text.as_bytes()[1..]));
            let (ab, ba) = (through(through(way, b"a"), b"b"), through(through(way, b"b"), b"a"));
            prop_assert_ne!(ab, ba);
            prop_assert_ne!(way.through_parameter(), through(way, b""));
        }
    }
}
