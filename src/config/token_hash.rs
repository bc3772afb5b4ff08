//! Hashes of the tokens of the admin endpoint: nothing else is kept of them.
//!
//! A token is a long random text, so one round of SHA-256 is enough: nobody can try all of them.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest::{SHA256, digest};
use subtle::{Choice, ConstantTimeEq};

/// Shortest secret of a token, in bytes.
const MIN_SECRET_BYTES: usize = 16;

/// Before the digits of a hash.
pub(super) const PREFIX: &str = "sha256:";

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of `token`.
    ///
    /// # Errors
    ///
    /// If it is too short, or has other than visible ASCII characters.
    pub fn of(token: &str) -> Result<Self, String> {
        if token.len() < MIN_SECRET_BYTES || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!(
                "no token; write at least {MIN_SECRET_BYTES} visible ASCII characters in one line"
            ));
        }
        Ok(Self::digest(token.as_bytes()))
    }

    /// Whether `token` has this hash, in a time that does not depend on how much of it is right.
    pub fn is_of(&self, token: &[u8]) -> Choice {
        self.0.ct_eq(&Self::digest(token).0)
    }

    fn digest(token: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token).as_ref());
        Self(hash)
    }
}

impl FromStr for TokenHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == 64);
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let digits = digits.filter(|digits| digits.bytes().all(is_digit));
        let mut hash = [0; 32];
        for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
            let byte_of =
                digits.and_then(|digits| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok());
            *byte = byte_of.ok_or_else(|| {
                format!("not a hash; write {PREFIX} and 64 digits of 0-9 and a-f, as `tidegate token` prints them")
            })?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_one_token_and_shows_nothing_of_it() {
        let hash = TokenHash::of("0123456789abcdef").unwrap();
        let text = hash.to_string();
        // As `printf %s 0123456789abcdef | sha256sum` prints it.
        assert_eq!(text, "sha256:9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f");
        assert_eq!(text.parse(), Ok(hash));
        assert!(bool::from(hash.is_of(b"0123456789abcdef")));
        for other in [&b""[..], b"0123456789abcdee", b"0123456789abcdef0", text.as_bytes()] {
            assert!(!bool::from(hash.is_of(other)));
        }
        assert!(!format!("{hash:?}").contains("9f9f"));
        for bad in
            ["", "sha256:", "sha256:9f", &text[7..], &text.to_uppercase(), &format!("{text}0")]
        {
            assert!(bad.parse::<TokenHash>().is_err(), "{bad}");
        }
        assert!(TokenHash::of("short").is_err() && TokenHash::of("0123456789 abcdef").is_err());
    }
}
