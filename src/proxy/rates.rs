//! Limits of rates on the path: a request takes its part of each, or is answered 429.

use std::{net::IpAddr, time::Instant};

use super::{
    admit::Admitted,
    client_limits::subscriber,
    problem::{Extra, Problem},
    rejected::Stop,
};
use crate::{
    policy::rate::Said,
    registry::RateKey,
    routing::RequestView,
    snapshot::{RateLimit, Route},
};

/// Number of the source of a key that is the client's address.
const BY_ADDRESS: u16 = u16::MAX;

/// Takes the part of the `admitted` request of each of the `rates` of its `route`. Returns the header fields that tell
/// the client of them (draft-ietf-httpapi-ratelimit-headers). A request over one of them takes from none.
pub(super) fn take(
    rates: &[RateLimit],
    route: &Route,
    admitted: &Admitted<'_, '_>,
    request: &RequestView<'_>,
    now: Instant,
) -> Result<Vec<u8>, Stop> {
    let octets = Octets::of(subscriber(admitted.address));
    let key = |rate: &RateLimit| {
        let Some(by) = &rate.by else { return RateKey { source: 0, value: &[] } };
        match by.present(request, &route.params) {
            Some(key) => RateKey { source: key.source, value: key.value },
            None => RateKey { source: BY_ADDRESS, value: octets.as_slice() },
        }
    };
    let mut fields = Fields::new();
    for (number, rate) in rates.iter().enumerate() {
        let said = rate.table.take(key(rate), now);
        fields.put(&rate.label, said);
        if !said.admitted {
            rates[..number].iter().for_each(|taken| taken.table.give_back(key(taken), now));
            return Err(refuse(rate, said, fields.into_lines(&rates[..=number])));
        }
    }
    Ok(fields.into_lines(rates))
}

/// The response to a request over a limit (RFC 6585 section 4).
#[cold]
fn refuse(rate: &RateLimit, said: Said, fields: Vec<u8>) -> Stop {
    let problem = Problem {
        status: 429,
        kind: "rate",
        detail: "more requests came than the limit admits; this request was not sent",
        retry_after: whole_seconds(said.retry_after).max(1),
    };
    // Names of limits need no escaping.
    let members = format!(",\"violated-policies\":[\"{}\"]", rate.label);
    Stop::Answer(problem, Some(Box::new(Extra { fields, members })))
}

fn whole_seconds(time: std::time::Duration) -> u32 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Room for the lines of two or three limits.
const LINES: usize = 256;

/// The lines of `RateLimit` and `RateLimit-Policy`.
struct Fields(Vec<u8>);

impl Fields {
    fn new() -> Self {
        Self(Vec::with_capacity(LINES))
    }

    /// What the limit `label` has said.
    fn put(&mut self, label: &str, said: Said) {
        let (mut remaining, mut reset) = (itoa::Buffer::new(), itoa::Buffer::new());
        let start: &[u8] = if self.0.is_empty() { b"RateLimit: \"" } else { b", \"" };
        let remaining = remaining.format(said.remaining).as_bytes();
        let reset = reset.format(whole_seconds(said.reset)).as_bytes();
        for part in [start, label.as_bytes(), b"\";r=", remaining, b";t=", reset] {
            self.0.extend_from_slice(part);
        }
    }

    /// The lines, with the policies of the limits that have said something.
    fn into_lines(mut self, asked: &[RateLimit]) -> Vec<u8> {
        for (number, rate) in asked.iter().enumerate() {
            let start: &[u8] = if number == 0 { b"\r\nRateLimit-Policy: " } else { b", " };
            self.0.extend_from_slice(start);
            self.0.extend_from_slice(rate.policy.as_bytes());
        }
        self.0.extend_from_slice(b"\r\n");
        self.0
    }
}

/// An address as octets.
struct Octets([u8; 16], usize);

impl Octets {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => {
                let mut octets = [0; 16];
                octets[..4].copy_from_slice(&address.octets());
                Self(octets, 4)
            }
            IpAddr::V6(address) => Self(address.octets(), 16),
        }
    }

    fn as_slice(&self) -> &[u8] {
        &self.0[..self.1]
    }
}
