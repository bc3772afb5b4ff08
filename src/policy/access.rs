//! Whether a client's address is admitted.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::schema;

/// Lists of addresses. A look-up takes time that grows with the logarithm of their length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// `None`: everybody who is not denied.
    allow: Option<Ranges>,
    deny: Ranges,
}

impl Access {
    /// The lists as written.
    pub fn new(written: &schema::Access) -> Self {
        let allow = (!written.allow.is_empty()).then(|| Ranges::new(&written.allow));
        Self { allow, deny: Ranges::new(&written.deny) }
    }

    /// Whether the client at `address` is admitted: it is on no `deny` list, and on `allow` if there is one.
    pub fn admits(&self, address: IpAddr) -> bool {
        !self.deny.contain(address) && self.allow.as_ref().is_none_or(|a| a.contain(address))
    }
}

/// Clients whom a limit is not asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exempted(Ranges);

impl Exempted {
    /// Those of `networks`.
    pub fn new(networks: &[IpNet]) -> Self {
        Self(Ranges::new(networks))
    }

    /// Whether the client at `address` is one of them.
    pub fn has(&self, address: IpAddr) -> bool {
        self.0.contain(address)
    }
}

/// Ranges of IPv4 and of IPv6 addresses: sorted, and no two of them touch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ranges {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Ranges {
    fn new(networks: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(n) => v4.push((n.network().to_bits(), n.broadcast().to_bits())),
                IpNet::V6(n) => v6.push((n.network().to_bits(), n.broadcast().to_bits())),
            }
        }
        Self {
            v4: merged(v4, |last| last.checked_add(1)),
            v6: merged(v6, |last| last.checked_add(1)),
        }
    }

    fn contain(&self, address: IpAddr) -> bool {
        // A client of a socket for both families may be written as `::ffff:192.0.2.1`.
        match address.to_canonical() {
            IpAddr::V4(address) => is_within(&self.v4, address.to_bits()),
            IpAddr::V6(address) => is_within(&self.v6, address.to_bits()),
        }
    }
}

/// `ranges`, each from its first to its last address, sorted and without overlaps; `next` is the address after one.
fn merged<A: Ord + Copy>(mut ranges: Vec<(A, A)>, next: impl Fn(A) -> Option<A>) -> Box<[(A, A)]> {
    ranges.sort_unstable();
    let mut merged: Vec<(A, A)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if next(*end).is_none_or(|after| first <= after) => {
                *end = last.max(*end)
            }
            _ => merged.push((first, last)),
        }
    }
    merged.into()
}

/// Whether one of the sorted `ranges` contains `address`.
fn is_within<A: Ord>(ranges: &[(A, A)], address: A) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).is_some_and(|at| address <= ranges[at].1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a network")).collect()
    }

    fn access(allow: &[&str], deny: &[&str]) -> Access {
        Access::new(&schema::Access { allow: networks(allow), deny: networks(deny) })
    }

    #[test]
    fn deny_wins_and_allow_admits_nobody_else() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let office = access(&["10.0.0.0/8", "2001:db8::/32"], &["10.9.0.0/16"]);
        for (client, admitted) in [
            ("10.0.0.1", true),
            ("10.8.255.255", true),
            ("10.9.0.0", false),
            ("10.10.0.0", true),
            ("11.0.0.0", false),
            ("::ffff:10.1.1.1", true),
            ("::ffff:10.9.1.1", false),
            ("2001:db8::7", true),
            ("2001:db9::", false),
        ] {
            assert_eq!(office.admits(address(client)), admitted, "{client}");
        }
        let banned = access(&[], &["192.0.2.7/32"]);
        assert!(!banned.admits(address("192.0.2.7")));
        assert!(banned.admits(address("192.0.2.8")) && banned.admits(address("::1")));
    }

    #[test]
    fn a_range_to_the_last_address_is_merged_with_what_it_contains() {
        let all = access(&["0.0.0.0/0", "255.255.255.255/32", "::/0"], &[]);
        for client in
            ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
        {
            assert!(all.admits(client.parse().expect("an address")), "{client}");
        }
    }

    proptest! {
        #[test]
        fn the_lists_say_what_their_networks_say_one_by_one(
            networks in prop::collection::vec((0u32..64, 26u8..=32), 0..12),
            client in 0u32..64,
        ) {
            let networks: Vec<IpNet> = networks
                .iter()
                .map(|(at, prefix)| IpNet::new(IpAddr::V4((*at).into()), *prefix).expect("a prefix"))
                .collect();
            let client = IpAddr::V4(client.into());
            let one_by_one = networks.iter().any(|network| network.contains(&client));
            prop_assert_eq!(Ranges::new(&networks).contain(client), one_by_one);
        }
    }
}
