//! An address as text.

use std::{fmt::Write, net::IpAddr};

/// An address as text, without allocation.
#[derive(Clone, Copy)]
pub(super) struct AddressText {
    text: [u8; 46],
    length: u8,
}

impl AddressText {
    pub(super) fn new(address: IpAddr) -> Self {
        let mut this = Self { text: [0; 46], length: 0 };
        // The longest form of an address is 45 bytes.
        let _ = write!(this, "{address}");
        this
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }
}

impl Write for AddressText {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let (from, to) = (usize::from(self.length), usize::from(self.length) + part.len());
        self.text.get_mut(from..to).ok_or(std::fmt::Error)?.copy_from_slice(part.as_bytes());
        self.length = to as u8;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_addresses_fit() {
        for text in ["127.0.0.1", "::1", "2001:db8:1111:2222:3333:4444:5555:6666"] {
            assert_eq!(
                AddressText::new(text.parse().expect("an address")).as_bytes(),
                text.as_bytes()
            );
        }
    }
}
