//! Headers of the PROXY protocol, versions 1 and 2: the client behind a balancer that does not
//! speak HTTP.
//!
//! Source: `doc/proxy-protocol.txt` of HAProxy, sections 2.1 and 2.2. Pure: bytes in, an address
//! out. Bytes are a header, the beginning of one, or malformed. There is no guessing whether a
//! connection has a header, since a listener knows which peers send it. Every beginning of a header
//! needs more bytes, so the reader may take all bytes of an unfinished header off the connection.
//!
//! Of version 2 the addresses are read and the further fields (TLVs) skipped, including the
//! optional checksum: TCP has its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most bytes of a header. A version 1 line has 107 at most; version 2 could have 64 KiB, of which
/// addresses take 36 (216 for Unix sockets) and real senders use some hundreds for TLVs.
pub(super) const MAX_HEAD_BYTES: usize = V2_FIXED_BYTES + V2_MAX_REST_BYTES;

/// Longest line of version 1, with CR and LF.
const V1_MAX_BYTES: usize = 107;

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, and the length of the rest.
const V2_FIXED_BYTES: usize = 16;
const V2_MAX_REST_BYTES: usize = 4096;

/// The client according to a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Its address.
    Address(IpAddr),
    /// The connection is the balancer's own (`LOCAL`, such as a health check), or the client has no
    /// known IP address (`UNKNOWN`, `AF_UNSPEC`, `AF_UNIX`): the peer's address counts.
    Unknown,
}

/// The bytes are neither a header nor the beginning of one, with the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Parses the header at the start of `bytes`. Returns the client and the header's length, or `None`
/// if more bytes are needed.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Source, usize)>, Malformed> {
    if begins(bytes, V2_SIGNATURE) {
        version_2(bytes)
    } else if begins(bytes, V1_SIGNATURE) {
        version_1(bytes)
    } else {
        Err(Malformed("no signature of the PROXY protocol"))
    }
}

/// Whether `bytes` begin with `signature`, or are a prefix of it.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(a, b)| a == b)
}

/// `PROXY TCP4 192.0.2.7 10.0.0.1 51234 443`, and CR LF.
fn version_1(bytes: &[u8]) -> Result<Option<(Source, usize)>, Malformed> {
    let line = &bytes[..bytes.len().min(V1_MAX_BYTES)];
    let Some(end) = memchr::memchr(b'\n', line) else {
        return match line.len() {
            V1_MAX_BYTES => Err(Malformed("the line is longer than 107 bytes")),
            _ => Ok(None),
        };
    };
    let text = line[..end].strip_suffix(b"\r").ok_or(Malformed("the line ends without CR"))?;
    let text = std::str::from_utf8(text).map_err(|_| Malformed("the line is no text"))?;
    if text.contains('\r') {
        return Err(Malformed("CR within the line"));
    }
    let mut words = text.split(' ').skip(1);
    let source = match words.next() {
        // The rest of the line is ignored.
        Some("UNKNOWN") => Source::Unknown,
        Some("TCP4") => addresses::<Ipv4Addr>(words)?,
        Some("TCP6") => addresses::<Ipv6Addr>(words)?,
        _ => return Err(Malformed("the family is not TCP4, TCP6 or UNKNOWN")),
    };
    Ok(Some((source, end + 1)))
}

/// Source, destination and their ports; all must be well formed, and nothing may follow.
fn addresses<'a, A>(mut words: impl Iterator<Item = &'a str>) -> Result<Source, Malformed>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let mut address = || words.next().and_then(|word| word.parse::<A>().ok());
    let (source, target) = (address(), address());
    let port = |word: &str| {
        let digits = word.bytes().all(|b| b.is_ascii_digit());
        let plain = digits && (word == "0" || !word.starts_with('0'));
        plain && word.parse::<u16>().is_ok()
    };
    let ports = words.next().is_some_and(port) && words.next().is_some_and(port);
    match (source, target, ports, words.next()) {
        (Some(source), Some(_), true, None) => Ok(Source::Address(canonical(source))),
        _ => Err(Malformed("the addresses are malformed")),
    }
}

/// Signature, command, family, length, addresses, TLVs: all binary, in network order.
fn version_2(bytes: &[u8]) -> Result<Option<(Source, usize)>, Malformed> {
    let Some(command) = bytes.get(12) else { return Ok(None) };
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed("neither version 2 nor a command that it has")),
    };
    let Some(family) = bytes.get(13) else { return Ok(None) };
    let (family, transport) = (family >> 4, family & 15);
    if family > 3 || transport > 2 {
        return Err(Malformed("a family or transport that version 2 does not have"));
    }
    let &[high, low] = bytes.get(14..V2_FIXED_BYTES).unwrap_or_default() else { return Ok(None) };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if rest > V2_MAX_REST_BYTES {
        return Err(Malformed("the head is longer than 4 KiB"));
    }
    // Without a transport the addresses are ignored.
    let wanted = match family {
        _ if local || transport == 0 => 0,
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    };
    if rest < wanted {
        return Err(Malformed("the head is shorter than its addresses"));
    }
    let length = V2_FIXED_BYTES + rest;
    let Some(rest) = bytes.get(V2_FIXED_BYTES..length) else { return Ok(None) };
    let source = match wanted {
        12 => rest.first_chunk::<4>().map(|octets| canonical(Ipv4Addr::from(*octets))),
        36 => rest.first_chunk::<16>().map(|octets| canonical(Ipv6Addr::from(*octets))),
        _ => None,
    };
    Ok(Some((source.map_or(Source::Unknown, Source::Address), length)))
}

/// An IPv4 client of an IPv6 socket is still an IPv4 client.
fn canonical(address: impl Into<IpAddr>) -> IpAddr {
    address.into().to_canonical()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    fn v1(source: SocketAddr, target: SocketAddr) -> Vec<u8> {
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from, to) = (source.ip(), target.ip());
        format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), target.port()).into_bytes()
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, rest].concat()
    }

    /// Addresses and ports as version 2 writes them.
    fn block(source: SocketAddr, target: SocketAddr) -> Vec<u8> {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let port = |a: SocketAddr| a.port().to_be_bytes().to_vec();
        [octets(source.ip()), octets(target.ip()), port(source), port(target)].concat()
    }

    fn endpoints() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let v4 = any::<([u8; 4], [u8; 4], u16, u16)>()
            .prop_map(|(a, b, c, d)| (SocketAddr::from((a, c)), SocketAddr::from((b, d))));
        let v6 = any::<([u16; 8], [u16; 8], u16, u16)>()
            .prop_map(|(a, b, c, d)| (SocketAddr::from((a, c)), SocketAddr::from((b, d))));
        prop_oneof![v4, v6]
    }

    #[test]
    fn heads_read_as_the_specification_says() {
        let address = |text: &str| Source::Address(text.parse().expect("an address"));
        for (text, source) in [
            ("PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\r\n", address("192.0.2.7")),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 0 65535\r\n", address("2001:db8::7")),
            ("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", address("192.0.2.7")),
            ("PROXY UNKNOWN\r\n", Source::Unknown),
            ("PROXY UNKNOWN ff:ff whatever 9\r\n", Source::Unknown),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(Some((source, text.len()))), "{text}");
            let followed = format!("{text}GET / HTTP/1.1\r\n");
            assert_eq!(parse(followed.as_bytes()), Ok(Some((source, text.len()))), "{text}");
        }
        let four = block(([192, 0, 2, 7], 1).into(), ([10, 0, 0, 1], 2).into());
        let mut unix = vec![b'/'; 216];
        unix[20] = 0;
        // A CRC32c and a no-op, and a checksum that is wrong: skipped.
        let tlvs = [&four[..], &[3, 0, 4, 1, 2, 3, 4, 4, 0, 1, 0]].concat();
        for (command, family, rest, source) in [
            (0x21, 0x11, &four[..], address("192.0.2.7")),
            (0x21, 0x12, &four[..], address("192.0.2.7")),
            (0x21, 0x11, &tlvs[..], address("192.0.2.7")),
            (0x20, 0x11, &four[..], Source::Unknown),
            (0x20, 0x00, &[], Source::Unknown),
            (0x21, 0x00, &[1, 2, 3], Source::Unknown),
            (0x21, 0x31, &unix[..], Source::Unknown),
        ] {
            let head = v2(command, family, rest);
            assert_eq!(parse(&head), Ok(Some((source, head.len()))), "{command:x} {family:x}");
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
        let four = block(([192, 0, 2, 7], 1).into(), ([10, 0, 0, 1], 2).into());
        for bytes in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"\x16\x03\x01\x02\0".to_vec(),
            b"proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n".to_vec(),
            b"PROXY UNKNOWN\rx\r\n".to_vec(),
            b"PROXY UNKNOWN \xff\r\n".to_vec(),
            line(""),
            line("TCP5 192.0.2.7 10.0.0.1 1 2"),
            line("TCP4"),
            line("TCP4 192.0.2.7 10.0.0.1 1"),
            line("TCP4 192.0.2.7 10.0.0.1 1 2 3"),
            line("TCP4 192.0.2.7 10.0.0.1 1 2 "),
            line("TCP4  192.0.2.7 10.0.0.1 1 2"),
            line("TCP4 192.0.2.07 10.0.0.1 1 2"),
            line("TCP4 192.0.2.7 10.0.0.1 01 2"),
            line("TCP4 192.0.2.7 10.0.0.1 +1 2"),
            line("TCP4 192.0.2.7 10.0.0.1 1 65536"),
            line("TCP4 2001:db8::7 2001:db8::1 1 2"),
            line("TCP6 192.0.2.7 10.0.0.1 1 2"),
            line(&format!("UNKNOWN {}", "x".repeat(100))),
            [b'P', b'R'].iter().chain(&[b'\r'; 3]).copied().collect(),
            v2(0x11, 0x11, &four),
            v2(0x22, 0x11, &four),
            v2(0x21, 0x41, &four),
            v2(0x21, 0x13, &four),
            v2(0x21, 0x11, &four[..11]),
            v2(0x21, 0x21, &four),
            v2(0x21, 0x31, &four),
            v2(0x20, 0x00, &[0; 4097]),
        ] {
            assert!(parse(&bytes).is_err(), "{:?}", String::from_utf8_lossy(&bytes));
        }
        let longest = line(&format!("UNKNOWN {}", "x".repeat(107 - 16)));
        assert_eq!(parse(&longest), Ok(Some((Source::Unknown, 107))));
        let longest = v2(0x20, 0x00, &[0; 4096]);
        assert_eq!(parse(&longest), Ok(Some((Source::Unknown, MAX_HEAD_BYTES))));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_every_beginning_needs_more(
            (source, target) in endpoints(),
            tlvs in prop::collection::vec(any::<u8>(), 0..300),
            rest in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let family = if source.is_ipv4() { 0x11 } else { 0x21 };
            let with_tlvs = [block(source, target), tlvs].concat();
            for head in [v1(source, target), v2(0x21, family, &with_tlvs)] {
                let found = Source::Address(source.ip().to_canonical());
                let bytes = [&head[..], &rest[..]].concat();
                prop_assert_eq!(parse(&bytes), Ok(Some((found, head.len()))));
                for end in 0..head.len() {
                    prop_assert_eq!(parse(&head[..end]), Ok(None), "{} bytes", end);
                }
            }
        }

        #[test]
        fn any_bytes_are_answered_within_bounds(
            signature in prop::sample::select(vec![&b""[..], V1_SIGNATURE, V2_SIGNATURE, b"PROXY TCP4 "]),
            tail in prop::collection::vec(any::<u8>(), 0..5000),
        ) {
            let bytes = [signature, &tail[..]].concat();
            match parse(&bytes) {
                Ok(Some((_, length))) => prop_assert!(length <= bytes.len().min(MAX_HEAD_BYTES)),
                Ok(None) => prop_assert!(bytes.len() < MAX_HEAD_BYTES),
                Err(_) => {}
            }
        }
    }
}
