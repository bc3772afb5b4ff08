//! Keys as a table keeps them, and how it hashes them.

use std::hash::Hasher;

use aws_lc_rs::digest::{SHA256, digest};

/// A key as a table keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PinKey([u8; 16]);

impl PinKey {
    /// The key with this text.
    pub fn of(key: &[u8]) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&digest(&SHA256, key).as_ref()[..16]);
        Self(short)
    }

    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Keys are hashes already.
#[derive(Debug, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // An array is hashed as its length, and then as its bytes.
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}
