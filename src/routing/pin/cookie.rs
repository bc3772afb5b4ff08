//! Pins that clients keep: a signed cookie names the version.
//!
//! ```text
//! 1 ~ KEY ~ BEGAN ~ RENEWED ~ VERSION ~ MAC
//! 2 ~ KEY ~ BEGAN ~ RENEWED ~ MOVE ~ VERSION ~ MAC
//! ```
//!
//! MOVE is the last move by an operator that VERSION is the result of; the first form is that of a cookie before
//! any. Times have too few digits to tell what came first within a second. Both times are seconds since 1970, in decimal; the MAC is HMAC-SHA256 over the service and all that stands
//! before it, in base64url. The service is signed, so that a cookie of one service says nothing to another. A
//! value is compared in constant time; whatever is wrong with a cookie, it is as if there were none.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::Pin;
use crate::{config::schema, routing::RequestView};

/// The form of a value before any move.
const FORM: &str = "1";

/// The form of a value after a move.
const MOVED_FORM: &str = "2";

/// Separates the parts of a value; names have no such character.
const BETWEEN: char = '~';

/// Longest value that is looked at: two names of 64 characters, two times, a move and the MAC.
const MOST_BYTES: usize = 256;

/// The cookie of a service's pins.
#[derive(Debug)]
pub struct PinCookie {
    /// Its name.
    pub name: Box<str>,
    /// `SERVICE`, and what separates it from the signed text.
    signed_first: Box<str>,
    keys: Box<[(Box<str>, hmac::Key)]>,
}

/// What a request's cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'a> {
    /// There is none.
    Nothing,
    /// It is malformed, not signed by a known key, or changed.
    Forged,
    /// A version by name, when the pin began, and when the cookie was made.
    Pinned {
        /// The version.
        version: &'a str,
        /// When the pin began.
        began: u32,
        /// When the cookie was made.
        renewed: u32,
        /// The last move that it is the result of; 0 if there was none.
        known: u64,
    },
}

impl PinCookie {
    /// The cookie of `service`. Keys whose files were not read sign nothing.
    pub fn new(service: &str, cookie: &schema::PinCookie) -> Self {
        let keys = cookie.keys.iter().filter(|key| !key.secret.bytes().is_empty());
        let keys = keys.map(|key| {
            (key.id.as_str().into(), hmac::Key::new(hmac::HMAC_SHA256, key.secret.bytes()))
        });
        Self {
            name: cookie.name.as_str().into(),
            signed_first: format!("{service}\u{1f}").into(),
            keys: keys.collect(),
        }
    }

    /// What the cookie of `request` says. Of several with the name the first one counts.
    pub fn read<'a>(&self, request: &RequestView<'a>) -> Said<'a> {
        match request.cookie(&self.name) {
            None => Said::Nothing,
            Some(value) => self.verified(value).unwrap_or(Said::Forged),
        }
    }

    fn verified<'a>(&self, value: &'a [u8]) -> Option<Said<'a>> {
        let value = std::str::from_utf8(value).ok().filter(|v| v.len() <= MOST_BYTES)?;
        let (text, mac) = value.rsplit_once(BETWEEN)?;
        let mut parts = text.split(BETWEEN);
        let mut next = || parts.next();
        let (form, id, began, renewed) = (next()?, next()?, next()?, next()?);
        let known = match form {
            FORM => "0",
            MOVED_FORM => next()?,
            _ => return None,
        };
        let version = next()?;
        if next().is_some() {
            return None;
        }
        let (_, key) = self.keys.iter().find(|(known, _)| **known == *id)?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        // Compares in constant time.
        hmac::verify(key, self.signed(text).as_bytes(), &mac).ok()?;
        let (began, renewed) = (began.parse().ok()?, renewed.parse().ok()?);
        Some(Said::Pinned { version, began, renewed, known: known.parse().ok()? })
    }

    fn signed(&self, text: &str) -> String {
        format!("{}{text}", self.signed_first)
    }

    /// The field that gives a client the pin `pin` to `version`, with its name and the end of its line; `None`
    /// without a key. `known` is the last move that the version is the result of, 0 if there was none. The client
    /// keeps it for `seconds`.
    pub fn line(
        &self,
        version: &str,
        pin: Pin,
        known: u64,
        seconds: u32,
        is_secure: bool,
    ) -> Option<String> {
        let (id, key) = self.keys.first()?;
        let Pin { began, used, .. } = pin;
        let text = match known {
            0 => format!("{FORM}~{id}~{began}~{used}~{version}"),
            _ => format!("{MOVED_FORM}~{id}~{began}~{used}~{known}~{version}"),
        };
        let mac = hmac::sign(key, self.signed(&text).as_bytes());
        let value = format!("{text}{BETWEEN}{}", URL_SAFE_NO_PAD.encode(mac));
        Some(self.field(&value, seconds, is_secure))
    }

    /// The field that takes the cookie from a client.
    pub fn end_line(&self, is_secure: bool) -> String {
        self.field("", 0, is_secure)
    }

    fn field(&self, value: &str, seconds: u32, is_secure: bool) -> String {
        let secure = if is_secure { "; Secure" } else { "" };
        format!(
            "Set-Cookie: {}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}\r\n",
            self.name
        )
    }

    /// The head `text` without this cookie; `None` if it has none.
    pub fn removed_from(&self, text: &[u8]) -> Option<Vec<u8>> {
        const FIELD: &[u8] = b"cookie:";
        let mut out: Option<Vec<u8>> = None;
        let mut at = 0;
        while let Some(length) = memchr::memmem::find(&text[at..], b"\r\n") {
            let line = &text[at..at + length];
            let is_cookie =
                line.get(..FIELD.len()).is_some_and(|name| name.eq_ignore_ascii_case(FIELD));
            let others = is_cookie.then(|| self.others(&line[FIELD.len()..])).flatten();
            if let Some(others) = others {
                let out = out.get_or_insert_with(|| text[..at].to_vec());
                if !others.is_empty() {
                    out.extend_from_slice(&line[..FIELD.len()]);
                    out.push(b' ');
                    out.extend_from_slice(&others.join(&b"; "[..]));
                    out.extend_from_slice(b"\r\n");
                }
            } else if let Some(out) = &mut out {
                out.extend_from_slice(&text[at..at + length + 2]);
            }
            at += length + 2;
            if length == 0 {
                break;
            }
        }
        let mut out = out?;
        out.extend_from_slice(&text[at..]);
        Some(out)
    }

    /// The cookies of a field's `value` besides this one; `None` if this one is not among them.
    fn others<'a>(&self, value: &'a [u8]) -> Option<Vec<&'a [u8]>> {
        let name = self.name.as_bytes();
        // A backend may take a name with a space behind it for the same.
        let is_it = |pair: &&[u8]| {
            memchr::memchr(b'=', pair).is_some_and(|end| pair[..end].trim_ascii_end() == name)
        };
        let pairs = value.split(|b| *b == b';').map(<[u8]>::trim_ascii).filter(|p| !p.is_empty());
        let (ours, others): (Vec<_>, Vec<_>) = pairs.partition(is_it);
        (!ours.is_empty()).then_some(others)
    }
}

#[cfg(test)]
mod tests {
    use httparse::Header;
    use proptest::prelude::*;

    use super::*;

    fn cookie(service: &str, keys: &[(&str, &str)]) -> PinCookie {
        let keys = keys.iter().map(|(id, secret)| schema::PinCookieKey {
            id: (*id).to_owned(),
            file: "x".into(),
            secret: schema::PinSecret::new(secret),
        });
        let written = schema::PinCookie { name: "tg-pin".to_owned(), keys: keys.collect() };
        PinCookie::new(service, &written)
    }

    const OLD: (&str, &str) = ("k1", "0123456789abcdef0123456789abcdef");
    const NEW: (&str, &str) = ("k2", "fedcba9876543210fedcba9876543210");
    const PIN: Pin = Pin { version: 3, began: 1_000, used: 1_200 };

    fn value(line: &str) -> String {
        let value = line.strip_prefix("Set-Cookie: tg-pin=").expect("its name");
        value.split(';').next().expect("a value").to_owned()
    }

    /// What `reader` reads of a request with `value`.
    fn read(reader: &PinCookie, value: &str) -> Option<(String, u32, u32, u64)> {
        let field = format!("a=b; tg-pin={value}");
        let headers = [Header { name: "Cookie", value: field.as_bytes() }];
        let request = RequestView {
            method: "GET",
            host: "",
            path: "/",
            query: "",
            headers: &headers,
            client: [10, 0, 0, 1].into(),
            client_text: b"",
            claims: None,
        };
        match reader.read(&request) {
            Said::Pinned { version, began, renewed, known } => {
                Some((version.to_owned(), began, renewed, known))
            }
            Said::Forged => None,
            Said::Nothing => panic!("there is one"),
        }
    }

    #[test]
    fn a_cookie_is_read_as_it_was_signed_also_after_the_keys_have_rotated() {
        let old = cookie("wallet", &[OLD]);
        let line = old.line("v4.1-a", PIN, 0, 7_200, false).expect("a key");
        assert!(line.ends_with("; Path=/; Max-Age=7200; HttpOnly; SameSite=Lax\r\n"), "{line}");
        assert!(
            old.line("v1", PIN, 0, 1, true).expect("a key").ends_with("; SameSite=Lax; Secure\r\n")
        );
        let signed = value(&line);
        let expected = Some(("v4.1-a".to_owned(), 1_000, 1_200, 0));
        assert_eq!(read(&old, &signed), expected);
        let moved = value(&old.line("v4.1-a", PIN, u64::MAX, 7_200, false).expect("a key"));
        assert!(moved.starts_with("2~k1~1000~1200~18446744073709551615~v4.1-a~"), "{moved}");
        assert_eq!(read(&old, &moved), Some(("v4.1-a".to_owned(), 1_000, 1_200, u64::MAX)));
        let both = cookie("wallet", &[NEW, OLD]);
        assert_eq!(read(&both, &signed), expected);
        let new = value(&both.line("v42", PIN, 0, 7_200, false).expect("a key"));
        assert!(new.starts_with("1~k2~1000~1200~v42~"), "{new}");
        assert_eq!((read(&old, &new), read(&cookie("wallet", &[NEW]), &signed)), (None, None));
        assert_eq!(read(&cookie("other", &[NEW, OLD]), &signed), None, "of another service");
        assert!(cookie("wallet", &[("k1", "")]).line("v1", PIN, 0, 1, false).is_none());
    }

    #[test]
    fn a_cookie_is_not_passed_on() {
        let cookie = cookie("wallet", &[OLD]);
        let without = |text: &str| {
            let left = cookie.removed_from(text.as_bytes());
            left.map(|left| String::from_utf8(left).expect("text"))
        };
        assert_eq!(
            without(
                "GET / HTTP/1.1\r\nHost: a\r\nCOOKIE: a=b; tg-pin=x;c=d\r\nX: 1\r\n\r\ntg-pin=1\r\n"
            )
            .as_deref(),
            Some("GET / HTTP/1.1\r\nHost: a\r\nCOOKIE: a=b; c=d\r\nX: 1\r\n\r\ntg-pin=1\r\n")
        );
        assert_eq!(
            without("GET / HTTP/1.1\r\nCookie: tg-pin=x; tg-pin=y\r\nCookie: tg-pin2=z\r\n\r\n")
                .as_deref(),
            Some("GET / HTTP/1.1\r\nCookie: tg-pin2=z\r\n\r\n")
        );
        assert_eq!(
            without("GET /tg-pin=1 HTTP/1.1\r\nCookie: xtg-pin=1\r\n\r\nCookie: tg-pin=1\r\n\r\n"),
            None
        );
    }

    proptest! {
        #[test]
        fn whoever_changes_a_cookie_has_none(at in 0usize..90, to in "[ -:<-~]", other in "\\PC{0,80}", known in 0u64..2) {
            let cookie = cookie("wallet", &[OLD, NEW]);
            let good = value(&cookie.line("v41", PIN, known, 60, false).expect("a key"));
            let mut bytes = good.clone().into_bytes();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to.as_bytes()[0];
            }
            let changed = String::from_utf8(bytes).expect("ASCII");
            // White space at the end is none of the value.
            if changed.trim_end() != good && !changed.contains('"') {
                prop_assert_eq!(read(&cookie, &changed), None);
            }
            if !other.contains(';') {
                prop_assert_eq!(read(&cookie, &other), None);
            }
        }

        #[test]
        fn any_head_stays_whole(text in "[a-z:;= \r\n-]{0,80}") {
            let cookie = cookie("wallet", &[OLD]);
            let head = format!("GET / HTTP/1.1\r\n{text}\r\n\r\nbody");
            let left = cookie.removed_from(head.as_bytes());
            prop_assert!(left.is_none_or(|left| left.ends_with(b"body") && left.len() < head.len() + 80));
        }
    }
}
