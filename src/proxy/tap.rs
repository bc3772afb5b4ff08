//! A bounded copy of a body that passes by.

/// Keeps a copy of a body up to a bound. A body above it passes all the same, and is not kept.
#[derive(Debug)]
pub(super) struct Tap {
    /// `None` once part of the body is missing.
    copy: Option<Vec<u8>>,
    limit_bytes: usize,
}

impl Tap {
    /// Keeps a body of at most `limit_bytes`.
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { copy: Some(Vec::new()), limit_bytes }
    }

    /// The next bytes of the body.
    pub(super) fn put(&mut self, data: &[u8]) {
        match &mut self.copy {
            Some(copy) if copy.len() + data.len() <= self.limit_bytes => {
                copy.extend_from_slice(data)
            }
            _ => self.copy = None,
        }
    }

    /// Something of the message passed that the copy cannot hold: fields behind the body.
    pub(super) fn give_up(&mut self) {
        self.copy = None;
    }

    /// Whether all that passed is here.
    pub(super) fn is_whole(&self) -> bool {
        self.copy.is_some()
    }

    /// The body, if all that passed is here.
    pub(super) fn into_body(self) -> Option<Vec<u8>> {
        self.copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_whole_or_not_at_all() {
        let through = |pieces: &[&[u8]]| {
            let mut tap = Tap::new(5);
            pieces.iter().for_each(|piece| tap.put(piece));
            tap.into_body()
        };
        assert_eq!(through(&[]).as_deref(), Some(&b""[..]));
        assert_eq!(through(&[b"abc", b"", b"de"]).as_deref(), Some(&b"abcde"[..]));
        assert_eq!(through(&[b"abc", b"def"]), None);
        assert_eq!(through(&[b"abcdef", b"a"]), None, "nor what fits after what did not");
        let mut tap = Tap::new(5);
        tap.put(b"abc");
        tap.give_up();
        tap.put(b"d");
        assert_eq!(tap.into_body(), None);
    }
}
