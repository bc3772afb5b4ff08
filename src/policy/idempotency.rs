//! Whether a request with an `Idempotency-Key` begins, waits, gets the response to an earlier one, or is refused
//! (draft-ietf-httpapi-idempotency-key-header).
//!
//! A key is *begun* before the request is sent. It ends in one of three ways: it is *answered*, and its response
//! is final; it is *freed*, since the version cannot have processed the request; or it is *unsure*: the request
//! was sent, and nobody knows whether it was processed. An unsure key never begins again by itself.

use std::borrow::Cow;

use crate::config::schema::{ErrorAnswers, Unsure};

/// Longest key in bytes.
pub const LONGEST_KEY: usize = 255;

/// Why the value of `Idempotency-Key` is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadKey(
    /// What is wrong.
    pub &'static str,
);

/// The key in the value of a field: a string of structured fields (RFC 9651 section 3.3.3), or the same without
/// quotes, as many clients write it. Both forms of a text are the same key.
pub fn parse_key(value: &[u8]) -> Result<Cow<'_, [u8]>, BadKey> {
    let value = value.trim_ascii();
    let key = match value.split_first() {
        Some((b'"', quoted)) => unquoted(quoted)?,
        _ => Cow::Borrowed(value),
    };
    if key.is_empty() {
        return Err(BadKey("the idempotency key is empty"));
    }
    if key.len() > LONGEST_KEY {
        return Err(BadKey("the idempotency key is longer than 255 characters"));
    }
    let is_bare = matches!(key, Cow::Borrowed(bare) if bare.len() == value.len());
    let is_fit = |byte: &u8| match is_bare {
        true => byte.is_ascii_graphic() && !b"\",;\\".contains(byte),
        false => matches!(byte, b' '..=b'~'),
    };
    if !key.iter().all(is_fit) {
        return Err(BadKey("the idempotency key is no string of visible ASCII characters"));
    }
    Ok(key)
}

/// How a key is written: with quotes or without. A service that reads the field as it is takes both for two keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// Without quotes.
    Bare,
    /// As a string of structured fields.
    Quoted,
}

impl Spelling {
    /// That of the key in the value of a field.
    pub fn of(value: &[u8]) -> Self {
        if value.trim_ascii_start().starts_with(b"\"") { Self::Quoted } else { Self::Bare }
    }

    /// The value of a field with this `key`, which was read from one that was written so.
    pub fn write(self, key: &[u8]) -> Vec<u8> {
        if self == Self::Bare {
            return key.to_vec();
        }
        let mut value = Vec::with_capacity(key.len() + 2);
        value.push(b'"');
        for byte in key {
            if matches!(byte, b'"' | b'\\') {
                value.push(b'\\');
            }
            value.push(*byte);
        }
        value.push(b'"');
        value
    }
}

/// The text of a string after its first quote.
fn unquoted(quoted: &[u8]) -> Result<Cow<'_, [u8]>, BadKey> {
    const OPEN: BadKey =
        BadKey("the idempotency key is no string: its quotes or escapes are malformed");
    let body = quoted.strip_suffix(b"\"").ok_or(OPEN)?;
    if !body.iter().any(|byte| matches!(byte, b'"' | b'\\')) {
        return Ok(Cow::Borrowed(body));
    }
    let (mut text, mut rest) = (Vec::with_capacity(body.len()), body.iter());
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => return Err(OPEN),
            b'\\' => match rest.next() {
                Some(escaped @ (b'"' | b'\\')) => text.push(*escaped),
                _ => return Err(OPEN),
            },
            byte => text.push(*byte),
        }
    }
    Ok(Cow::Owned(text))
}

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// A request with it is under way.
    Begun,
    /// It has a final response; whether that is kept.
    Answered {
        /// Whether it can be replayed.
        kept: bool,
    },
    /// The request may have been processed.
    Unsure,
}

/// What becomes of a request with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It begins the key, and is sent.
    Begin,
    /// It waits until the key has ended.
    Wait,
    /// It gets the response that is kept.
    Replay,
    /// It was processed, and its response is not kept: 409.
    NotKept,
    /// It may have been processed: 409.
    Unsure,
    /// Its key was used for another request: 422.
    Mismatch,
}

/// What becomes of a request whose key is `known`, if it is, with a request that `is_same`.
pub fn verdict(known: Option<(Known, bool)>, unsure: Unsure) -> Verdict {
    match known {
        None => Verdict::Begin,
        Some((_, false)) => Verdict::Mismatch,
        Some((Known::Begun, true)) => Verdict::Wait,
        Some((Known::Answered { kept: true }, true)) => Verdict::Replay,
        Some((Known::Answered { kept: false }, true)) => Verdict::NotKept,
        Some((Known::Unsure, true)) => match unsure {
            Unsure::Conflict => Verdict::Unsure,
            Unsure::Ask => Verdict::Begin,
        },
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With a whole response of this status.
    Answered(u16),
    /// Without one, and nothing of it reached a version that can have processed it.
    Unsent,
    /// Without one, after it was sent.
    Lost,
}

/// What becomes of the key of a request that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is answered.
    Answer,
    /// It is forgotten.
    Free,
    /// It is unsure.
    Hold,
}

/// What becomes of the key of a request that ended so. A version that responds 408, 409, 425 or 429 says that it
/// did not process the request now, so the client may try again. If the key `was_unsure` before, only a final
/// response changes that: the earlier request may still have been processed.
pub fn fate(ending: Ending, was_unsure: bool, errors: ErrorAnswers) -> Fate {
    let fate = match ending {
        Ending::Answered(408 | 409 | 425 | 429) | Ending::Unsent => Fate::Free,
        Ending::Answered(500..) if errors == ErrorAnswers::Unsure => Fate::Hold,
        Ending::Answered(..200) | Ending::Lost => Fate::Hold,
        Ending::Answered(_) => Fate::Answer,
    };
    if was_unsure && fate == Fate::Free { Fate::Hold } else { fate }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_a_string_with_or_without_quotes_and_bounded() {
        for (value, key) in [
            (
                &b"\"8e03978e-40d5-43dd-bc93-6894a57f9324\""[..],
                "8e03978e-40d5-43dd-bc93-6894a57f9324",
            ),
            (b"8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            (b"  \"a b\" ", "a b"),
            (br#""a\"b\\c""#, r#"a"b\c"#),
            (b"round:7/bet=1", "round:7/bet=1"),
        ] {
            assert_eq!(parse_key(value).as_deref(), Ok(key.as_bytes()), "{key}");
        }
        let long = "x".repeat(256);
        for value in [
            &b""[..],
            b"\"\"",
            b"\"",
            b"\"a",
            b"\"a\"b\"",
            br#""a\b""#,
            br#""a\""#,
            b"a b",
            b"a,b",
            b"a;b",
            b"a\"b",
            b"\"\x7f\"",
            b"\xff",
            b"\"a\";p=1",
            long.as_bytes(),
        ] {
            assert!(parse_key(value).is_err(), "{:?}", value.escape_ascii().to_string());
        }
        assert!(parse_key(&long.as_bytes()[1..]).is_ok());
    }

    #[test]
    fn the_corpus_of_keys_holds() {
        crate::config::fuzzing::replay("idempotency_key", crate::policy::fuzzing::idempotency_key);
    }

    #[test]
    fn a_key_is_written_as_it_was() {
        for value in [&b"k-1"[..], b"\"k-1\"", br#""a \" b\\""#, b"a'b~"] {
            let key = parse_key(value).expect("a key");
            assert_eq!(Spelling::of(value).write(&key), value, "{}", value.escape_ascii());
        }
        assert_eq!(Spelling::of(b" \"k\" "), Spelling::Quoted);
        assert_eq!(Spelling::Quoted.write(b"k"), b"\"k\"");
    }

    #[test]
    fn what_becomes_of_a_request_follows_from_what_is_known_of_its_key() {
        use Unsure::{Ask, Conflict};
        let answered = |kept| Known::Answered { kept };
        for (known, unsure, expected) in [
            (None, Conflict, Verdict::Begin),
            (Some((Known::Begun, true)), Conflict, Verdict::Wait),
            (Some((Known::Begun, true)), Ask, Verdict::Wait),
            (Some((Known::Begun, false)), Ask, Verdict::Mismatch),
            (Some((answered(true), true)), Conflict, Verdict::Replay),
            (Some((answered(false), true)), Ask, Verdict::NotKept),
            (Some((answered(true), false)), Ask, Verdict::Mismatch),
            (Some((Known::Unsure, true)), Conflict, Verdict::Unsure),
            (Some((Known::Unsure, true)), Ask, Verdict::Begin),
            (Some((Known::Unsure, false)), Ask, Verdict::Mismatch),
        ] {
            assert_eq!(verdict(known, unsure), expected, "{known:?} {unsure:?}");
        }
    }

    #[test]
    fn what_becomes_of_a_key_follows_from_how_its_request_ended() {
        use Ending::{Answered, Lost, Unsent};
        use ErrorAnswers::{Replay, Unsure};
        for (ending, was_unsure, errors, expected) in [
            (Answered(200), false, Unsure, Fate::Answer),
            (Answered(303), false, Unsure, Fate::Answer),
            (Answered(402), false, Unsure, Fate::Answer),
            (Answered(422), true, Unsure, Fate::Answer),
            (Answered(408), false, Unsure, Fate::Free),
            (Answered(409), false, Unsure, Fate::Free),
            (Answered(425), false, Unsure, Fate::Free),
            (Answered(429), false, Replay, Fate::Free),
            (Answered(429), true, Replay, Fate::Hold),
            (Answered(500), false, Unsure, Fate::Hold),
            (Answered(503), false, Unsure, Fate::Hold),
            (Answered(500), false, Replay, Fate::Answer),
            (Answered(101), false, Replay, Fate::Hold),
            (Unsent, false, Unsure, Fate::Free),
            (Unsent, true, Unsure, Fate::Hold),
            (Lost, false, Replay, Fate::Hold),
        ] {
            assert_eq!(fate(ending, was_unsure, errors), expected, "{ending:?} {was_unsure}");
        }
    }

    #[derive(Debug, Clone)]
    enum Event {
        Arrives,
        Ends(Ending, bool),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let ending = prop_oneof![
            (100u16..600).prop_map(Ending::Answered),
            Just(Ending::Unsent),
            Just(Ending::Lost),
        ];
        let event = prop_oneof![
            Just(Event::Arrives),
            (ending, any::<bool>()).prop_map(|(ending, kept)| Event::Ends(ending, kept)),
        ];
        prop::collection::vec(event, 0..60)
    }

    proptest! {
        /// The machine against a version that processes all it can have processed.
        #[test]
        fn no_request_is_sent_after_one_that_may_have_been_processed(
            events in events(), replay in any::<bool>(),
        ) {
            let errors = if replay { ErrorAnswers::Replay } else { ErrorAnswers::Unsure };
            let (mut known, mut maybe_processed) = (None, false);
            for event in events {
                match event {
                    Event::Arrives => {
                        if verdict(known.map(|known| (known, true)), Unsure::Conflict) == Verdict::Begin {
                            prop_assert!(!maybe_processed);
                            known = Some(Known::Begun);
                        }
                    }
                    Event::Ends(ending, kept) if known == Some(Known::Begun) => {
                        let refused = matches!(ending, Ending::Answered(408 | 409 | 425 | 429));
                        maybe_processed |= ending != Ending::Unsent && !refused;
                        known = match fate(ending, false, errors) {
                            Fate::Answer => Some(Known::Answered { kept }),
                            Fate::Free => None,
                            Fate::Hold => Some(Known::Unsure),
                        };
                    }
                    Event::Ends(..) => {}
                }
            }
        }
    }
}
