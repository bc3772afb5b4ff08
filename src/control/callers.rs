//! Callers of the admin endpoint that were refused: counted, logged, and slowed if they guess tokens.
//!
//! Each address has a bucket of wrong tokens; while it is empty, tokens from there are not looked at. So guessing is slow,
//! and a holder at another address is never locked out. Nor is one whose address is shared with somebody who guesses,
//! or with a program that has an old token: a token that was right there within the last hour is still looked at, and
//! a caller with a certificate has a bucket of its own. Both tables have a fixed size; only a right token
//! takes a place among the tokens that were right, so nobody who guesses can push one out.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    config::TokenHash,
    policy::rate::Rate,
    registry::{RateKey, RateTable},
    telemetry::seldom::Seldom,
};

/// Wrong tokens that an address may send at once.
const TRIES: u32 = 10;

/// Time after which an address may send one more. Tokens have at least 16 characters, so a guess a second finds none.
const EACH: Duration = Duration::from_secs(1);

/// Addresses that are remembered at once.
const ADDRESSES: u32 = 4096;

/// How long a token that was right is looked at, whatever else its address sends.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Right tokens that are remembered at once, each with an address.
const RIGHT: usize = 1024;

/// Whose bucket a wrong token is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// All callers at an address.
    Address(IpAddr),
    /// The holder of a certificate of `admin.certificates`, by its subject.
    Certificate(&'a str),
}

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
    /// When a token was last right at an address.
    right: Mutex<HashMap<([u8; 16], TokenHash), Instant>>,
    refused: [AtomicU64; Refused::ALL.len()],
    complaints: [Seldom; Refused::ALL.len()],
}

impl Default for Callers {
    fn default() -> Self {
        Self {
            tries: RateTable::new(Rate::new(1, EACH, TRIES), ADDRESSES, fastrand::u64(..)),
            right: Mutex::default(),
            refused: Default::default(),
            complaints: Default::default(),
        }
    }
}

impl Callers {
    /// Whether any token from `origin` is looked at; else how long only those are that were right there lately.
    pub fn may_try(&self, origin: Origin<'_>, now: Instant) -> Result<(), Duration> {
        let said = with_key(origin, |key| self.tries.take(key, now));
        if said.admitted { Ok(()) } else { Err(said.retry_after) }
    }

    /// Notes that a token from `origin`, which might be tried, was right: it does not count as a try.
    pub fn was_right(&self, origin: Origin<'_>, token: &TokenHash, now: Instant) {
        with_key(origin, |key| self.tries.give_back(key, now));
        self.renew(origin, token, now);
    }

    /// Notes that a token from `origin` was right.
    pub fn renew(&self, origin: Origin<'_>, token: &TokenHash, now: Instant) {
        // Others have no part in the bucket of a certificate.
        let Origin::Address(peer) = origin else { return };
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (octets(peer), *token);
        if right.len() >= RIGHT && !right.contains_key(&place) {
            let oldest = right.iter().min_by_key(|(_, at)| **at).map(|(place, _)| *place);
            oldest.map(|oldest| right.remove(&oldest));
        }
        right.insert(place, now);
    }

    /// Whether `token` was right at `origin` within the last hour.
    pub fn was_right_lately(&self, origin: Origin<'_>, token: &TokenHash, now: Instant) -> bool {
        let Origin::Address(peer) = origin else { return false };
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        let at = right.get(&(octets(peer), *token));
        at.is_some_and(|at| now.saturating_duration_since(*at) < REMEMBERED)
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

/// Calls `act` with the key of `origin` among the buckets.
fn with_key<T>(origin: Origin<'_>, act: impl FnOnce(RateKey<'_>) -> T) -> T {
    match origin {
        Origin::Address(peer) => act(RateKey { source: 0, value: &octets(peer) }),
        Origin::Certificate(subject) => act(RateKey { source: 1, value: subject.as_bytes() }),
    }
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

    fn address(text: &str) -> Origin<'static> {
        Origin::Address(text.parse().expect("an address"))
    }

    fn token(number: usize) -> TokenHash {
        TokenHash::of(&format!("token-of-test-{number:06}")).expect("a token")
    }

    #[test]
    fn guessing_is_slow_and_others_are_not_slowed() {
        let (callers, now) = (Callers::default(), Instant::now());
        let guess =
            |origin, after| callers.may_try(origin, now + Duration::from_millis(after)).is_ok();
        let (own, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let admitted = (0..1000).filter(|_| guess(own, 0)).count();
        assert_eq!(admitted, TRIES as usize);
        assert!(guess(other, 0), "another address");
        assert!(guess(Origin::Certificate("CN=ci"), 0), "a certificate at whatever address");
        assert!(!guess(address("::ffff:192.0.2.1"), 0), "the same address");
        let admitted = (0..6000).filter(|tenth| guess(own, tenth * 100)).count();
        assert!((598..=600).contains(&admitted), "{admitted} in ten minutes");
    }

    /// A program with an old token that asks every few seconds kept the bucket of its address empty for good.
    #[test]
    fn a_wrong_token_every_four_seconds_keeps_no_bucket_empty() {
        let (callers, now) = (Callers::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        let peer = address("192.0.2.1");
        while callers.may_try(peer, now).is_ok() {}
        for round in 1..100 {
            assert!(
                callers.may_try(peer, at(round * 4)).is_ok(),
                "the wrong one, of round {round}"
            );
            assert!(callers.may_try(peer, at(round * 4 + 1)).is_ok(), "the right one");
            callers.was_right(peer, &token(1), at(round * 4 + 1));
        }
    }

    #[test]
    fn one_with_the_right_token_is_never_slowed_and_a_network_of_ipv6_is_one_caller() {
        let (callers, now) = (Callers::default(), Instant::now());
        for _ in 0..1000 {
            assert!(callers.may_try(address("::1"), now).is_ok());
            callers.was_right(address("::1"), &token(1), now);
        }
        let mut admitted = 0;
        for number in 0..1000u16 {
            let peer = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, number));
            admitted += u32::from(callers.may_try(Origin::Address(peer), now).is_ok());
        }
        assert_eq!(admitted, TRIES);
    }

    #[test]
    fn a_token_is_remembered_where_it_was_right_for_an_hour_since_its_last_use() {
        let (callers, now) = (Callers::default(), Instant::now());
        let (here, there) = (address("192.0.2.1"), address("192.0.2.2"));
        callers.was_right(here, &token(1), now);
        let last = now + Duration::from_secs(1800);
        callers.was_right(here, &token(1), last);
        assert!(callers.was_right_lately(here, &token(1), last + Duration::from_secs(3599)));
        assert!(!callers.was_right_lately(here, &token(1), last + REMEMBERED));
        assert!(!callers.was_right_lately(there, &token(1), last), "another address");
        assert!(!callers.was_right_lately(here, &token(2), last), "another token");
        for number in 0..2 * RIGHT {
            callers.was_right(there, &token(number), last + Duration::from_secs(number as u64));
        }
        assert_eq!(callers.right.lock().expect("no panic").len(), RIGHT);
        assert!(!callers.was_right_lately(here, &token(1), last), "the oldest one had to go");
    }

    #[test]
    fn made_up_addresses_do_not_free_the_one_that_guesses() {
        let (callers, now) = (Callers::default(), Instant::now());
        while callers.may_try(address("192.0.2.1"), now).is_ok() {}
        for number in 0..100_000u32 {
            let peer = IpAddr::V4(std::net::Ipv4Addr::from(0x0a00_0000 + number));
            let _ = callers.may_try(Origin::Address(peer), now);
        }
        assert!(callers.may_try(address("192.0.2.1"), now).is_err());
    }
}
