//! Reads and changes heads in the form in which they are sent, which is the canonical one.
//!
//! Only requests that failed come here. The head was written by `rewrite.rs`: no line is folded, and
//! each field is `Name: value` with one space.

use super::buffer::Buffer;

/// The line by which a request announces chunks.
const CHUNKED: &[u8] = b"Transfer-Encoding: chunked\r\n";

/// The method of the request in `text`.
pub(super) fn method(text: &[u8]) -> &str {
    let end = memchr::memchr(b' ', text).unwrap_or(0);
    std::str::from_utf8(&text[..end]).unwrap_or("")
}

/// The value of the first field called `name` in the head at the start of `text`.
pub(super) fn field<'t>(text: &'t [u8], name: &str) -> Option<&'t [u8]> {
    let place = place(text, name)?;
    Some(&text[place.0..place.1])
}

/// The value of the field called `name`, if there is exactly one.
pub(super) fn only_field<'t>(text: &'t [u8], name: &str) -> Option<&'t [u8]> {
    let (start, end) = place(text, name)?;
    place(&text[start..], name).is_none().then_some(&text[start..end])
}

/// Replaces the value of the first field called `name`, if the head in `text` has one.
pub(super) fn set_field(text: &mut Buffer, name: &str, value: &[u8]) {
    if let Some((start, end)) = place(text.data(), name) {
        replace(text, (start, end), value);
    }
}

/// Replaces the value of the first field called `name`, if the head in `text` has one, and removes further ones.
pub(super) fn set_only_field(text: &mut Buffer, name: &str, value: &[u8]) {
    let Some((start, end)) = place(text.data(), name) else { return };
    replace(text, (start, end), value);
    let behind = start + value.len();
    while let Some((more, end)) = place(&text.data()[behind..], name) {
        // The line with its name, `: ` and its end.
        let line = behind + more - name.len() - 2;
        replace(text, (line, behind + end + 2), b"");
    }
}

/// Lets a head that announces chunks announce the length of the body that follows it in `text`: as a
/// whole it has no chunks, and no endpoint need be told of any.
pub(super) fn measure(text: &mut Buffer) {
    let (data, mut at) = (text.data(), 0);
    let Some(head) = memchr::memmem::find(data, b"\r\n\r\n").map(|end| end + 4) else { return };
    while at < head {
        if data[at..].starts_with(CHUNKED) {
            let line = format!("Content-Length: {}\r\n", data.len() - head);
            return replace(text, (at, at + CHUNKED.len()), line.as_bytes());
        }
        at += data[at..].iter().position(|b| *b == b'\n').map_or(head, |end| end + 1);
    }
}

/// Where the value of the first field called `name` stands in the head at the start of `text`.
fn place(text: &[u8], name: &str) -> Option<(usize, usize)> {
    let mut at = memchr::memchr(b'\n', text)? + 1;
    loop {
        let end = at + memchr::memchr(b'\r', &text[at..])?;
        let line = &text[at..end];
        if line.is_empty() {
            return None;
        }
        let named = line.get(..name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name.as_bytes()));
        if let (true, Some(value)) =
            (named, line.get(name.len()..).and_then(|l| l.strip_prefix(b": ")))
        {
            return Some((end - value.len(), end));
        }
        at = end + 2;
    }
}

fn replace(text: &mut Buffer, (start, end): (usize, usize), with: &[u8]) {
    let data = text.data();
    let changed = [&data[..start], with, &data[end..]].concat();
    text.clear();
    text.put(&changed);
}

#[cfg(test)]
mod tests {
    use super::{super::buffer::Blocks, *};

    fn buffer(text: &str) -> Buffer {
        let mut buffer = Blocks::default().take();
        buffer.put(text.as_bytes());
        buffer
    }

    #[test]
    fn fields_are_found_in_the_head_alone_and_in_any_case() {
        let text = b"POST /bets HTTP/1.1\r\nHost: a\r\nidempotency-KEY: \"7\"\r\nEmpty: \r\n\r\nX-Body: 1\r\n\r\n";
        assert_eq!(method(text), "POST");
        assert_eq!(field(text, "Idempotency-Key"), Some(&b"\"7\""[..]));
        assert_eq!(field(text, "Empty"), Some(&b""[..]));
        assert_eq!(field(text, "Idempotency"), None);
        assert_eq!(field(text, "X-Body"), None);
        assert_eq!((method(b""), field(b"", "Host")), ("", None));
    }

    #[test]
    fn a_value_is_replaced_by_one_of_another_length_and_the_body_stays() {
        let mut text = buffer("GET / HTTP/1.1\r\nLeft: 2000\r\nHost: a\r\n\r\nLeft: 7");
        set_field(&mut text, "left", b"15");
        set_field(&mut text, "absent", b"15");
        assert_eq!(text.data(), b"GET / HTTP/1.1\r\nLeft: 15\r\nHost: a\r\n\r\nLeft: 7");
    }

    #[test]
    fn of_several_fields_of_a_name_one_is_left() {
        let mut text = buffer(
            "GET / HTTP/1.1\r\nLeft: 2000\r\nHost: a\r\nleft: 7\r\nLEFT: x\r\nB: 1\r\n\r\nLeft: 7\r\n\r\n",
        );
        set_only_field(&mut text, "Left", b"15");
        set_only_field(&mut text, "Absent", b"15");
        assert_eq!(
            text.data(),
            b"GET / HTTP/1.1\r\nLeft: 15\r\nHost: a\r\nB: 1\r\n\r\nLeft: 7\r\n\r\n"
        );
    }

    #[test]
    fn a_whole_body_has_a_length_instead_of_chunks() {
        let mut text = buffer(
            "POST / HTTP/1.1\r\nX: Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\nVia: x\r\n\r\nstake",
        );
        measure(&mut text);
        assert_eq!(
            text.data(),
            b"POST / HTTP/1.1\r\nX: Transfer-Encoding: chunked\r\nContent-Length: 5\r\nVia: x\r\n\r\nstake"
        );
        let same = text.data().to_vec();
        measure(&mut text);
        assert_eq!(text.data(), &same[..]);
    }
}
