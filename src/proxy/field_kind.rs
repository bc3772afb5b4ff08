//! Classifies field names, and knows those that only trusted peers may use.
//!
//! CGI, WSGI, Rack, PHP and several servers turn bytes of a name that are neither letters nor
//! digits into `_`, so an application reads `X_Real.IP` as it reads `X-Real-IP`. Names are
//! therefore compared with all such bytes taken for `-`. A field that the proxy reads or writes, or
//! that identifies a client, passes in its own spelling or not at all. `docs/http.md` lists the
//! names.
//!
//! Nearly all names are none of these. A table made at compile time recognises most of them by two
//! letters and the length, so that the usual head costs a few instructions per field.

use crate::routing::as_read;

/// The kind of a header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldKind {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    /// Belongs to one connection and is never passed on (RFC 9110 section 7.6.1), as are the fields
    /// that `Connection` names, and the amounts that are configured to be removed.
    HopByHop,
    /// What the sender accepts, such as trailers. Hop-by-hop, too.
    Te,
    KeepAlive,
    Upgrade,
    Expect,
    /// Written by the proxy: `X-Forwarded-For`, `-Proto` and `-Host`, `X-Client-Cert-Subject`.
    XForwarded,
    /// Another field by which a proxy identifies its client, such as `Forwarded` (RFC 7239): passed
    /// on from trusted peers only.
    Claim,
    /// `Tidegate-Epoch`: written by the proxy where a service has a fence.
    Epoch,
    /// Another spelling of one of the names above that some applications read as that name.
    Disguised,
    RequestId,
    Date,
    Other,
}

impl FieldKind {
    /// Whether a field of a response concerns more than one connection; `Content-Length` aside.
    #[inline]
    pub(super) fn is_end_to_end(self) -> bool {
        matches!(
            self,
            Self::Other
                | Self::Date
                | Self::Expect
                | Self::Host
                | Self::XForwarded
                | Self::Claim
                | Self::Epoch
                | Self::RequestId
        )
    }

    /// Whether a request's field of this kind counts from a trusted peer only.
    #[inline]
    pub(super) fn is_claim(self) -> bool {
        matches!(self, Self::XForwarded | Self::Claim | Self::Epoch)
    }
}

/// Classifies the field `name` of a request.
pub(super) fn known_of_client(name: &str) -> FieldKind {
    match known(name) {
        FieldKind::Other if may_be_reserved(name.as_bytes()) => reserved(name.as_bytes()),
        kind => kind,
    }
}

/// Classifies the field `name` of a response: an endpoint may use any name.
pub(super) fn known(name: &str) -> FieldKind {
    let name = name.as_bytes();
    match name.len() {
        2 if is(name, b"te") => FieldKind::Te,
        4 if is(name, b"host") => FieldKind::Host,
        4 if is(name, b"date") => FieldKind::Date,
        6 if is(name, b"expect") => FieldKind::Expect,
        7 if is(name, b"upgrade") => FieldKind::Upgrade,
        7 if is(name, b"trailer") => FieldKind::HopByHop,
        9 if is(name, b"forwarded") => FieldKind::Claim,
        10 if is(name, b"connection") => FieldKind::Connection,
        10 if is(name, b"keep-alive") => FieldKind::KeepAlive,
        12 if is(name, b"x-request-id") => FieldKind::RequestId,
        14 if is(name, b"content-length") => FieldKind::ContentLength,
        15 if is(name, b"x-forwarded-for") => FieldKind::XForwarded,
        16 if is(name, b"proxy-connection") => FieldKind::HopByHop,
        16 if is(name, b"x-forwarded-host") => FieldKind::XForwarded,
        17 if is(name, b"transfer-encoding") => FieldKind::TransferEncoding,
        17 if is(name, b"x-forwarded-proto") => FieldKind::XForwarded,
        18 if is(name, b"proxy-authenticate") => FieldKind::HopByHop,
        19 if is(name, b"proxy-authorization") => FieldKind::HopByHop,
        21 if is(name, b"x-client-cert-subject") => FieldKind::XForwarded,
        _ => FieldKind::Other,
    }
}

/// Whether `name`, a token (RFC 9110 section 5.6.2), is `known`, which is in lower case and has letters and
/// `-` alone. No other byte of a token differs from one of these in the bit of the case only. Lengths are
/// constants, so that whole words are compared: the first and the last ones, which may overlap.
#[inline(always)]
fn is<const N: usize>(name: &[u8], known: &[u8; N]) -> bool {
    const CASE: u64 = 0x2020_2020_2020_2020;
    let Ok(name) = <&[u8; N]>::try_from(name) else { return false };
    let eight = |at: usize| {
        let word =
            |bytes: &[u8; N]| bytes[at..].first_chunk().map_or(0, |w| u64::from_le_bytes(*w));
        word(name) | CASE == word(known)
    };
    let four = |at: usize| {
        let word =
            |bytes: &[u8; N]| bytes[at..].first_chunk().map_or(0, |w| u32::from_le_bytes(*w));
        word(name) | CASE as u32 == word(known)
    };
    match N {
        0..4 => name.eq_ignore_ascii_case(known),
        4..8 => four(0) && four(N - 4),
        8..=16 => eight(0) && eight(N - 8),
        17..=24 => eight(0) && eight(8) && eight(N - 8),
        _ => name.eq_ignore_ascii_case(known),
    }
}

/// The names above that have other spellings, those with a `-`; and the mark of smoke requests, which no client
/// may send in any spelling.
const OWN: [&[u8]; 12] = [
    b"content-length",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"tidegate-smoke",
    b"transfer-encoding",
    b"x-client-cert-subject",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-request-id",
];

/// Names by which proxies and content delivery networks identify a client, and the one by which they tell a
/// version the time that is left for a request.
const CLAIMS: [&[u8]; 23] = [
    b"cf-connecting-ip",
    b"cf-connecting-ipv6",
    b"client-ip",
    b"fastly-client-ip",
    b"fly-client-ip",
    b"true-client-ip",
    b"x-appengine-user-ip",
    b"x-arr-clientcert",
    b"x-azure-clientip",
    b"x-azure-socketip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-envoy-expected-rq-timeout-ms",
    b"x-envoy-external-address",
    b"x-forwarded",
    b"x-original-for",
    b"x-original-forwarded-for",
    b"x-original-host",
    b"x-original-proto",
    b"x-originating-ip",
    b"x-real-ip",
    b"x-remote-addr",
    b"x-remote-ip",
];

/// Prefixes of such names: client certificates as proxies forward them (`Client-Cert` is RFC 9440),
/// anything else that is forwarded, and the proxy's own names.
const CLAIM_PREFIXES: [&[u8]; 8] = [
    b"client-cert",
    b"ssl-client-",
    b"tidegate-",
    b"x-amzn-mtls-",
    b"x-client-cert",
    b"x-forwarded-",
    b"x-ssl-",
    b"x-tls-client-",
];

/// The epoch of a service's fence.
const EPOCH: &[u8] = b"tidegate-epoch";

/// Longest length that the table distinguishes; longer names count as this long.
const LONGEST: usize = 31;

/// Bit set of the lengths of the reserved names, indexed by two letters of the name.
static LENGTHS: [u32; 1024] = {
    let mut table = [0; 1024];
    let mut n = 0;
    while n < OWN.len() {
        table[letters(OWN[n])] |= 1 << length(OWN[n]);
        n += 1;
    }
    n = 0;
    while n < CLAIMS.len() {
        table[letters(CLAIMS[n])] |= 1 << length(CLAIMS[n]);
        n += 1;
    }
    n = 0;
    while n < CLAIM_PREFIXES.len() {
        table[letters(CLAIM_PREFIXES[n])] |= u32::MAX << length(CLAIM_PREFIXES[n]);
        n += 1;
    }
    table
};

const fn length(name: &[u8]) -> usize {
    if name.len() < LONGEST { name.len() } else { LONGEST }
}

/// Index made of the first letter of `name` and the second one, or the third one of `x-` names;
/// case is ignored. The name has at least three bytes.
const fn letters(name: &[u8]) -> usize {
    const CASELESS: u8 = 31;
    let first = name[0] & CASELESS;
    let second = if first == b'x' & CASELESS { name[2] } else { name[1] } & CASELESS;
    (first as usize) << 5 | second as usize
}

/// Whether `name` may be a reserved one; false for nearly all others.
#[inline]
fn may_be_reserved(name: &[u8]) -> bool {
    name.len() > 2 && LENGTHS[letters(name)] >> length(name) & 1 == 1
}

/// Classifies a name that [`known`] does not know.
#[inline(never)]
fn reserved(name: &[u8]) -> FieldKind {
    if OWN.iter().any(|own| is_same(name, own)) {
        return FieldKind::Disguised;
    }
    let begins = |prefix: &&[u8]| name.get(..prefix.len()).is_some_and(|n| is_same(n, prefix));
    if !CLAIMS.iter().any(|claim| is_same(name, claim)) && !CLAIM_PREFIXES.iter().any(begins) {
        return FieldKind::Other;
    }
    let is_plain = name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
    match is_plain {
        true if name.eq_ignore_ascii_case(EPOCH) => FieldKind::Epoch,
        true => FieldKind::Claim,
        false => FieldKind::Disguised,
    }
}

/// Whether an application may read `name` as one of `others`, which are in lower case, with `-` for what is no letter or digit.
#[cold]
pub(super) fn is_one_of(name: &str, others: &[Box<str>]) -> bool {
    others.iter().any(|other| is_same(name.as_bytes(), other.as_bytes()))
}

/// Whether an application may read `name` as `other`, which is in lower case.
pub(super) fn is_same(name: &[u8], other: &[u8]) -> bool {
    name.len() == other.len() && name.iter().zip(other).all(|(a, b)| as_read(*a) == *b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reserved_name_is_found_in_every_spelling() {
        let own = OWN.iter().map(|name| (*name, ""));
        let claims = CLAIMS.iter().map(|name| (*name, ""));
        let longer = CLAIM_PREFIXES
            .iter()
            .flat_map(|name| [(*name, "x"), (*name, "something-that-is-longer-than-the-longest")]);
        for (name, more) in own.chain(claims).chain(longer) {
            let name = format!("{}{more}", std::str::from_utf8(name).expect("ASCII"));
            for plain in [name.clone(), name.to_ascii_uppercase()] {
                let kind = known_of_client(&plain);
                // No client may send this one.
                let is_never_read = name == "tidegate-smoke";
                assert_ne!(kind, FieldKind::Other, "{plain}");
                assert_eq!(kind == FieldKind::Disguised, is_never_read, "{plain}");
                for other in ["_", ".", "~", "'"] {
                    let one = plain.replacen('-', other, 1);
                    assert_eq!(known_of_client(&one), FieldKind::Disguised, "{one}");
                    assert_eq!(
                        known_of_client(&plain.replace('-', other)),
                        FieldKind::Disguised,
                        "{plain}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_name_is_known_in_any_case_and_in_no_other_spelling() {
        let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        let bytes: Vec<u8> = (0..=127).filter(token).collect();
        for name in ["te", "host", "keep-alive", "content-length", "x-client-cert-subject"] {
            let kind = known(name);
            assert_ne!(kind, FieldKind::Other, "{name}");
            for at in 0..name.len() {
                for byte in &bytes {
                    let mut other = name.as_bytes().to_vec();
                    other[at] = *byte;
                    let same = other.eq_ignore_ascii_case(name.as_bytes());
                    let other = String::from_utf8(other).expect("ASCII");
                    assert_eq!(known(&other) == kind, same, "{other}");
                }
            }
        }
    }

    #[test]
    fn usual_names_are_not_looked_at_twice() {
        for name in [
            "a",
            "xx",
            "accept-encoding",
            "authorization",
            "cache-control",
            "content-type",
            "cookie",
            "grpc-timeout",
            "if-none-match",
            "sec-websocket-key",
            "traceparent",
            "tracestate",
            "user-agent",
            "via",
            "x-player-id",
            "x_player_id",
        ] {
            assert!(!may_be_reserved(name.as_bytes()), "{name}");
            assert_eq!(known_of_client(name), FieldKind::Other, "{name}");
        }
        for epoch in ["tidegate-epoch", "Tidegate-Epoch"] {
            assert_eq!(known_of_client(epoch), FieldKind::Epoch);
        }
        for other in ["tidegate_epoch", "Tidegate.Epoch"] {
            assert_eq!(known_of_client(other), FieldKind::Disguised);
        }
        // Other names with the same letters and length.
        for name in ["x-reel-ip", "xxreal-ip", "clientcert-x", "x-forwardedfor"] {
            assert_eq!(known_of_client(name), FieldKind::Other, "{name}");
        }
    }
}
