//! Normalizes paths before they are matched; they are forwarded in the form that was matched.
//!
//! If a proxy matches `/public/%2e%2e/admin` as a path below `/public` and forwards it to a server
//! that reads it as `/admin`, access rules have no effect. So percent-encoding of unreserved
//! characters is decoded and dot segments are removed once, here (RFC 3986 sections 6.2.2 and
//! 5.2.4). Paths that servers are known to read differently are rejected: those that climb above
//! their root, and those with encoded control characters, backslashes, or dot segments hidden
//! behind an encoded slash or a `;`.

use std::borrow::Cow;

/// Why a path is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPath {
    /// `%` is not followed by two hexadecimal digits (RFC 3986 section 2.1).
    Encoding,
    /// An encoded control character.
    Control,
    /// A backslash, which some servers read as a slash.
    Backslash,
    /// More `..` than segments before them, or a hidden dot segment.
    DotSegment,
}

impl BadPath {
    /// The text for the client.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Encoding => "the path has a % that is not followed by two hexadecimal digits",
            Self::Control => "the path has an encoded control character",
            Self::Backslash => "the path has a backslash",
            Self::DotSegment => {
                "the path has dot segments that lead above its root or are disguised"
            }
        }
    }
}

/// The normalized form of `path`, which begins with `/` and has neither query nor fragment.
pub fn normalize(path: &str) -> Result<Cow<'_, str>, BadPath> {
    let bytes = path.as_bytes();
    // Nearly every path is normalized already: one scan, and nothing is copied.
    let mut previous = 0;
    let plain = bytes.iter().all(|byte| {
        let suspect = *byte == b'%' || *byte == b'\\' || (*byte == b'.' && previous == b'/');
        previous = *byte;
        !suspect
    });
    if plain {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode_unreserved(bytes)?;
    let normal = remove_dot_segments(&decoded)?;
    // Only ASCII was removed or added.
    Ok(if normal == path { Cow::Borrowed(path) } else { Cow::Owned(normal) })
}

/// Decodes unreserved characters, and writes the remaining encodings in upper case.
fn decode_unreserved(bytes: &[u8]) -> Result<String, BadPath> {
    let mut decoded = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'\\' => return Err(BadPath::Backslash),
            b'%' => {
                let [high, low, tail @ ..] = rest else { return Err(BadPath::Encoding) };
                rest = tail;
                let digit = |d: &u8| (*d as char).to_digit(16).ok_or(BadPath::Encoding);
                let value = (digit(high)? * 16 + digit(low)?) as u8;
                match value {
                    0..=0x1F | 0x7F => return Err(BadPath::Control),
                    b'\\' => return Err(BadPath::Backslash),
                    b'-' | b'.' | b'_' | b'~' => decoded.push(value as char),
                    _ if value.is_ascii_alphanumeric() => decoded.push(value as char),
                    _ => {
                        decoded.push('%');
                        decoded.push(high.to_ascii_uppercase() as char);
                        decoded.push(low.to_ascii_uppercase() as char);
                    }
                }
            }
            byte => decoded.push(*byte as char),
        }
    }
    Ok(decoded)
}

fn remove_dot_segments(path: &str) -> Result<String, BadPath> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop().ok_or(BadPath::DotSegment)?;
                if last {
                    kept.push("");
                }
            }
            _ if is_disguised(segment) => return Err(BadPath::DotSegment),
            _ => kept.push(segment),
        }
    }
    Ok(format!("/{}", kept.join("/")))
}

/// Whether a server that decodes `%2F`, or that cuts a segment at `;`, would find a dot segment.
fn is_disguised(segment: &str) -> bool {
    segment.split("%2F").any(|part| {
        let name = part.split(';').next().unwrap_or(part);
        (name == "." || name == "..") && name.len() != segment.len()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_a_path_becomes_one() {
        for (path, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b/", "/a//b/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/%61/%2e%2E/b", "/b"),
            ("/a/%2e", "/a/"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%20b%C3%a9", "/a%20b%C3%A9"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a/..b/c..", "/a/..b/c.."),
            ("/a;x=1/b", "/a;x=1/b"),
            ("/%7Euser", "/~user"),
        ] {
            assert_eq!(normalize(path).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn what_servers_read_differently_is_refused() {
        for (path, why) in [
            ("/..", BadPath::DotSegment),
            ("/a/../../b", BadPath::DotSegment),
            ("/%2e%2e/b", BadPath::DotSegment),
            ("/public/..%2fadmin", BadPath::DotSegment),
            ("/public/%2e%2e%2Fadmin", BadPath::DotSegment),
            ("/public/x%2f../admin", BadPath::DotSegment),
            ("/public/..;/admin", BadPath::DotSegment),
            ("/public/.;x/admin", BadPath::DotSegment),
            ("/a\\b", BadPath::Backslash),
            ("/a%5cb", BadPath::Backslash),
            ("/a%00b", BadPath::Control),
            ("/a%0d%0ab", BadPath::Control),
            ("/a%7fb", BadPath::Control),
            ("/a%", BadPath::Encoding),
            ("/a%2", BadPath::Encoding),
            ("/a%zz", BadPath::Encoding),
            ("/a%+1", BadPath::Encoding),
        ] {
            assert_eq!(normalize(path), Err(why), "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_one_form_is_its_own_form(path in "(/([a-c.%2eEfF;\\\\]|%2[eEfF]|%41){0,6}){1,6}") {
            if let Ok(normal) = normalize(&path) {
                let again = normalize(&normal);
                prop_assert_eq!(again.as_deref(), Ok(&*normal), "from {}", path);
                prop_assert!(!normal.split('/').any(|s| s == "." || s == ".."));
            }
        }
    }
}
