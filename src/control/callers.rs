//! Callers of the admin endpoint that were refused: counted, logged, and slowed if they guess tokens.
//!
//! Each address may send a few wrong tokens a minute; after that its tokens are not looked at for a while, right or wrong.
//! So guessing is slow, and a holder at another address is never locked out. The table of addresses has a fixed size.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{
    policy::rate::Rate,
    registry::{RateKey, RateTable},
    telemetry::seldom::Seldom,
};

/// Wrong tokens that an address may send at once.
const TRIES: u32 = 10;

/// Time in which an address may send that many more.
const PER: Duration = Duration::from_secs(60);

/// Addresses that are remembered at once.
const ADDRESSES: u32 = 4096;

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is neither a token nor a known certificate.
    Unknown,
    /// The token is wrong.
    WrongToken,
    /// The caller's address sent too many wrong tokens.
    Slowed,
    /// The caller's role does not allow the call.
    Role,
    /// Nobody has a token, and the caller is on another host.
    Remote,
    /// The request names another host, or comes from a page of another origin.
    Page,
    /// The token of the second person is wrong, or does not allow to agree.
    Second,
}

impl Refused {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::WrongToken,
        Self::Slowed,
        Self::Role,
        Self::Remote,
        Self::Page,
        Self::Second,
    ];

    /// Its name in metrics and log.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::WrongToken => "wrong_token",
            Self::Slowed => "slowed",
            Self::Role => "role",
            Self::Remote => "remote",
            Self::Page => "page",
            Self::Second => "second",
        }
    }
}

/// Refused callers.
#[derive(Debug)]
pub struct Callers {
    tries: RateTable,
    refused: [AtomicU64; Refused::ALL.len()],
    complaints: [Seldom; Refused::ALL.len()],
}

impl Default for Callers {
    fn default() -> Self {
        Self {
            tries: RateTable::new(Rate::new(TRIES, PER, TRIES), ADDRESSES, fastrand::u64(..)),
            refused: Default::default(),
            complaints: Default::default(),
        }
    }
}

impl Callers {
    /// Whether a token of the caller at `peer` is looked at; else how long it is not.
    pub fn may_try(&self, peer: IpAddr, now: Instant) -> Result<(), Duration> {
        let said = self.tries.take(key(&octets(peer)), now);
        if said.admitted { Ok(()) } else { Err(said.retry_after) }
    }

    /// Notes that the token was right: it does not count as a try.
    pub fn was_right(&self, peer: IpAddr, now: Instant) {
        self.tries.give_back(key(&octets(peer)), now);
    }

    /// Counts and logs a refused call. Each reason is logged once a minute at most.
    pub fn note(&self, refused: Refused, peer: IpAddr, detail: &str) {
        self.refused[refused as usize].fetch_add(1, Relaxed);
        if let Some(suppressed) = self.complaints[refused as usize].due(Instant::now()) {
            let (reason, peer) = (refused.label(), peer.to_canonical());
            tracing::warn!(%peer, reason, suppressed, detail, "a call of the admin endpoint was refused");
        }
    }

    /// Refused calls so far, by reason.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let count = |refused: Refused| self.refused[refused as usize].load(Relaxed);
        Refused::ALL.map(|refused| (refused.label(), count(refused))).to_vec()
    }
}

fn key(octets: &[u8; 16]) -> RateKey<'_> {
    RateKey { source: 0, value: octets }
}

/// The part of an address by which callers are told apart: a network of IPv6 is one caller.
fn octets(peer: IpAddr) -> [u8; 16] {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).octets()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn guessing_is_slow_and_others_are_not_slowed() {
        let (callers, now) = (Callers::default(), Instant::now());
        let guess = |peer: &str, after| {
            callers.may_try(address(peer), now + Duration::from_secs(after)).is_ok()
        };
        let admitted = (0..1000).filter(|_| guess("192.0.2.1", 0)).count();
        assert_eq!(admitted, TRIES as usize);
        assert!(guess("192.0.2.2", 0), "another address");
        assert!(!guess("::ffff:192.0.2.1", 0), "the same address");
        let admitted = (0..600).filter(|second| guess("192.0.2.1", *second)).count();
        assert!((99..=101).contains(&admitted), "{admitted} in ten minutes");
    }

    #[test]
    fn one_with_the_right_token_is_never_slowed_and_a_network_of_ipv6_is_one_caller() {
        let (callers, now) = (Callers::default(), Instant::now());
        for _ in 0..1000 {
            assert!(callers.may_try(address("::1"), now).is_ok());
            callers.was_right(address("::1"), now);
        }
        let mut admitted = 0;
        for number in 0..1000u16 {
            let peer = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, number));
            admitted += u32::from(callers.may_try(peer, now).is_ok());
        }
        assert_eq!(admitted, TRIES);
    }

    #[test]
    fn made_up_addresses_do_not_free_the_one_that_guesses() {
        let (callers, now) = (Callers::default(), Instant::now());
        while callers.may_try(address("192.0.2.1"), now).is_ok() {}
        for number in 0..100_000u32 {
            let peer = IpAddr::V4(std::net::Ipv4Addr::from(0x0a00_0000 + number));
            let _ = callers.may_try(peer, now);
        }
        assert!(callers.may_try(address("192.0.2.1"), now).is_err());
    }
}
