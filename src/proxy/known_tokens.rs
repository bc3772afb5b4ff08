//! Tokens that a worker has verified, with what they say.
//!
//! Two maps: tokens go into the young one; when that is full, it becomes the old one, and the old one is dropped. A token found in the
//! old one goes back into the young one. So what is used stays, memory is bounded whatever clients send, and nothing is ordered.
//! Only verified tokens are kept, so a stranger can push nothing out.

use std::rc::Rc;

use foldhash::HashMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{policy::token::Verified, routing::Claims};

/// Most tokens of a map.
const MOST: usize = 4096;

/// Most bytes of a map.
const MOST_BYTES: usize = 4 << 20;

/// Tokens that were verified.
pub(super) struct KnownTokens {
    seed: u64,
    young: HashMap<u64, Token>,
    old: HashMap<u64, Token>,
    /// Bytes of the young ones.
    bytes: usize,
}

struct Token {
    /// The whole token: equal hashes are not enough.
    text: Box<[u8]>,
    /// Numbers of the issuer and of the keys by which it was verified.
    by: (u64, u64),
    until_s: u64,
    claims: Rc<Claims>,
}

impl Default for KnownTokens {
    fn default() -> Self {
        let (young, old) = Default::default();
        Self { seed: fastrand::u64(..), young, old, bytes: 0 }
    }
}

impl KnownTokens {
    /// What `token` says, if it was verified by the issuer and keys of these numbers, and still counts at `now_s`.
    pub(super) fn find(&mut self, token: &[u8], by: (u64, u64), now_s: u64) -> Option<Rc<Claims>> {
        let hash = xxh3_64_with_seed(token, self.seed);
        let counts = |t: &Token| t.by == by && now_s < t.until_s && *t.text == *token;
        if let Some(found) = self.young.get(&hash) {
            return counts(found).then(|| Rc::clone(&found.claims));
        }
        let found = self.old.remove(&hash).filter(counts)?;
        let claims = Rc::clone(&found.claims);
        self.keep(hash, found);
        Some(claims)
    }

    /// Remembers that `token` was `verified` by the issuer and keys of these numbers; returns what it says.
    pub(super) fn put(&mut self, token: &[u8], by: (u64, u64), verified: Verified) -> Rc<Claims> {
        let Verified { claims, until_s } = verified;
        let claims = Rc::new(claims);
        let hash = xxh3_64_with_seed(token, self.seed);
        self.keep(hash, Token { text: token.into(), by, until_s, claims: Rc::clone(&claims) });
        claims
    }

    fn keep(&mut self, hash: u64, token: Token) {
        let bytes = token.text.len() + token.claims.bytes();
        if bytes > MOST_BYTES {
            return;
        }
        if self.young.len() >= MOST || self.bytes + bytes > MOST_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.young.insert(hash, token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(until_s: u64) -> Verified {
        Verified { claims: Claims::default(), until_s }
    }

    #[test]
    fn a_token_is_found_until_it_expires_or_the_keys_change() {
        let mut known = KnownTokens::default();
        known.put(b"a", (1, 1), verified(100));
        assert!(known.find(b"a", (1, 1), 99).is_some());
        assert!(known.find(b"a", (1, 1), 100).is_none());
        assert!(known.find(b"a", (1, 2), 99).is_none(), "other keys");
        assert!(known.find(b"a", (2, 1), 99).is_none(), "another issuer");
        assert!(known.find(b"b", (1, 1), 99).is_none());
    }

    #[test]
    fn a_flood_of_tokens_takes_no_more_memory_and_leaves_what_is_used() {
        let mut known = KnownTokens::default();
        known.put(b"used", (1, 1), verified(100));
        for number in 0..100_000u32 {
            known.put(&number.to_le_bytes(), (1, 1), verified(100));
            if number % 1000 == 0 {
                assert!(known.find(b"used", (1, 1), 0).is_some(), "{number}");
            }
        }
        assert!(known.young.len() <= MOST && known.old.len() <= MOST);
        let large = vec![b'x'; 8 << 10];
        for number in 0..5_000u32 {
            let token = [&large[..], &number.to_le_bytes()].concat();
            known.put(&token, (1, 1), verified(100));
        }
        assert!(known.bytes <= MOST_BYTES && known.young.len() < 600);
    }
}
