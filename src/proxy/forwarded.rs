//! What a trusted proxy reports of its client: `X-Forwarded-For`, `-Proto` and `-Host`.
//!
//! Each proxy of a chain appends the address of its peer, so the list is true from its right end to
//! the first address that is not a trusted proxy. That address is the client's; everything left of
//! it is the client's own claim. The search also ends at an entry that is no address, and after
//! [`MAX_HOPS`]; then the last address found is the client's.
//!
//! `Forwarded` (RFC 7239) is passed on from trusted peers but not read: proxies that write it write
//! `X-Forwarded-For`, too, and the two could contradict each other.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use httparse::Header;
use ipnet::IpNet;

use super::{
    address::AddressText,
    head::{parse_authority, tokens},
};

/// Most entries that are read: far more than any chain of proxies has, and a bound on the cost of a
/// head.
const MAX_HOPS: usize = 100;

/// The client of a request, as a trusted peer reports it.
pub(super) struct Forwarded<'b> {
    /// The client's address.
    pub(super) client: IpAddr,
    pub(super) client_text: AddressText,
    /// The client's scheme, if the field is well formed and occurs once.
    pub(super) proto: Option<&'static str>,
    /// The host that the client requested, likewise.
    pub(super) host: Option<&'b str>,
}

/// Reads the forwarding fields in `headers`; `None` unless `peer` is one of the `trusted` proxies.
#[inline(never)]
pub(super) fn read<'b>(
    headers: &[Header<'b>],
    peer: IpAddr,
    trusted: &[IpNet],
) -> Option<Forwarded<'b>> {
    if !contains(trusted, peer) {
        return None;
    }
    let client = client(headers, peer, trusted);
    let proto = only(headers, "x-forwarded-proto").and_then(|value| {
        ["http", "https"].into_iter().find(|known| value.eq_ignore_ascii_case(known.as_bytes()))
    });
    let host = only(headers, "x-forwarded-host")
        .and_then(|value| parse_authority(value).ok())
        .filter(|host| !host.is_empty());
    Some(Forwarded { client, client_text: AddressText::new(client), proto, host })
}

/// Whether one of `networks` contains `address`.
pub(super) fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// The values of all `X-Forwarded-For` fields, in order.
pub(super) fn chain<'b>(headers: &[Header<'b>]) -> impl DoubleEndedIterator<Item = &'b [u8]> {
    let fields = headers.iter().filter(|h| h.name.eq_ignore_ascii_case("x-forwarded-for"));
    fields.map(|h| h.value).filter(|value| !value.is_empty())
}

fn client(headers: &[Header<'_>], peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer;
    let entries = chain(headers).rev().flat_map(|value| tokens(value).rev());
    for entry in entries.take(MAX_HOPS) {
        let Some(address) = address(entry) else { break };
        client = address;
        if !contains(trusted, address) {
            break;
        }
    }
    client
}

/// Parses an address as proxies write it: bare, in brackets, or with the source port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let address = match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(inside) => inside.parse::<Ipv6Addr>().ok()?.into(),
        None => match text.parse::<IpAddr>() {
            Ok(address) => address,
            Err(_) => text.parse::<SocketAddr>().ok()?.ip(),
        },
    };
    Some(address.to_canonical())
}

/// The value of the field `name`, if there is exactly one.
fn only<'b>(headers: &[Header<'b>], name: &str) -> Option<&'b [u8]> {
    let mut fields = headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
    fields.next().filter(|_| fields.next().is_none()).map(|h| h.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: [u8; 4] = [10, 0, 0, 1];

    fn trusted() -> Vec<IpNet> {
        ["10.0.0.0/8", "2001:db8:1::/48"].map(|n| n.parse().expect("a network")).to_vec()
    }

    fn field<'b>(name: &'b str, value: &'b str) -> Header<'b> {
        Header { name, value: value.as_bytes() }
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_trusted() {
        for (fields, client) in [
            (&[][..], "10.0.0.1"),
            (&[""], "10.0.0.1"),
            (&["192.0.2.7"], "192.0.2.7"),
            (&["6.6.6.6, 192.0.2.7"], "192.0.2.7"),
            (&["6.6.6.6, 192.0.2.7, 10.0.0.3,10.0.0.2"], "192.0.2.7"),
            (&["6.6.6.6, 192.0.2.7", " 10.0.0.3 ,, ", "10.0.0.2"], "192.0.2.7"),
            (&["6.6.6.6", "192.0.2.7"], "192.0.2.7"),
            // All of them are trusted: the leftmost one is the client.
            (&["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
            (&["192.0.2.7, 2001:db8:1::5"], "192.0.2.7"),
            (&["2001:DB8:2:0::7"], "2001:db8:2::7"),
            (&["::ffff:192.0.2.7"], "192.0.2.7"),
            (&["192.0.2.7:51234, ::ffff:10.0.0.2"], "192.0.2.7"),
            (&["[2001:db8:2::7]:443"], "2001:db8:2::7"),
            (&["[2001:db8:2::7]"], "2001:db8:2::7"),
            // An entry that is no address ends the search.
            (&["192.0.2.7, unknown"], "10.0.0.1"),
            (&["192.0.2.7, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["192.0.2.7, 192.0.2.300"], "10.0.0.1"),
            (&["192.0.2.7 10.0.0.2"], "10.0.0.1"),
            (&["[192.0.2.7]"], "10.0.0.1"),
            (&["fe80::1%eth0"], "10.0.0.1"),
            (&["192.0.2.7, é"], "10.0.0.1"),
        ] {
            let headers: Vec<_> = fields.iter().map(|v| field("X-Forwarded-FOR", v)).collect();
            let found = read(&headers, PEER.into(), &trusted()).expect("trusted");
            assert_eq!(
                (found.client.to_string(), found.client_text.as_bytes()),
                (client.into(), client.as_bytes())
            );
        }
    }

    #[test]
    fn a_chain_is_read_without_allocation() {
        let headers = [
            field("X-Forwarded-For", "6.6.6.6, 2001:db8:2::7, 10.0.0.8:4711"),
            field("X-Forwarded-For", "2001:db8:1::5, 10.0.0.2"),
            field("X-Forwarded-Host", "a.test"),
        ];
        let trusted = trusted();
        let counted = allocation_counter::measure(|| {
            let found = read(&headers, PEER.into(), &trusted).expect("trusted");
            assert_eq!(found.client_text.as_bytes(), b"2001:db8:2::7");
        });
        assert_eq!(counted.count_total, 0);
    }

    #[test]
    fn strangers_say_nothing() {
        let headers = [field("X-Forwarded-For", "192.0.2.7")];
        assert!(read(&headers, [192, 0, 2, 1].into(), &trusted()).is_none());
    }

    #[test]
    fn scheme_and_host_are_taken_if_told_once_and_well_formed() {
        for (fields, proto, host) in [
            (
                &[("X-Forwarded-Proto", "HTTPS"), ("X-Forwarded-Host", "a.test:8443")][..],
                Some("https"),
                Some("a.test:8443"),
            ),
            (&[("x-forwarded-proto", "http")], Some("http"), None),
            (&[("X-Forwarded-Proto", "https, http"), ("X-Forwarded-Host", "a, b")], None, None),
            (&[("X-Forwarded-Proto", "javascript"), ("X-Forwarded-Host", "")], None, None),
            (&[("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "https")], None, None),
            (&[("X-Forwarded-Host", "a"), ("X-Forwarded-Host", "b")], None, None),
        ] {
            let headers: Vec<_> = fields.iter().map(|(n, v)| field(n, v)).collect();
            let found = read(&headers, PEER.into(), &trusted()).expect("trusted");
            assert_eq!((found.proto, found.host), (proto, host), "{fields:?}");
        }
    }
}
