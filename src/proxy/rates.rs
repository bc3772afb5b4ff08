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

/// What a request has taken.
pub(super) struct Taken {
    /// The header fields that tell the client of the limits (draft-ietf-httpapi-ratelimit-headers).
    pub(super) lines: Vec<u8>,
    /// The first limit that it is over and that only advises.
    pub(super) over: Option<Box<str>>,
}

/// Takes the part of the `admitted` request of each of the `rates` of its `route`. A request that one of them refuses takes
/// from none. Limits that it is exempt from, or that only advise, are not told.
pub(super) fn take(
    rates: &[RateLimit],
    route: &Route,
    admitted: &Admitted<'_, '_>,
    request: &RequestView<'_>,
    now: Instant,
) -> Result<Taken, Stop> {
    let octets = Octets::of(subscriber(admitted.address));
    let key = |rate: &RateLimit| {
        let Some(by) = &rate.by else { return RateKey { source: 0, value: &[] } };
        match by.present(request, &route.params) {
            Some(key) => RateKey { source: key.source, value: key.value },
            None => RateKey { source: BY_ADDRESS, value: octets.as_slice() },
        }
    };
    let is_exempt = |rate: &RateLimit| {
        let exempt = rate.exempt.as_ref();
        exempt.is_some_and(|exempt| exempt.has(admitted.address, request.claims))
    };
    // A bit for each limit of which it has taken its part; there are 8 at most.
    let (mut fields, mut over, mut taken) = (Fields::new(), None, 0_u8);
    for (number, rate) in rates.iter().enumerate() {
        if is_exempt(rate) {
            continue;
        }
        let said = match rate.advises {
            true => rate.table.advise(key(rate), now),
            false => rate.table.take(key(rate), now),
        };
        taken |= u8::from(said.admitted) << number;
        if rate.advises {
            if !said.admitted && over.is_none() {
                over = Some(rate.label.clone());
            }
            continue;
        }
        fields.put(number, &rate.label, said);
        if !said.admitted {
            let before = rates.iter().enumerate().filter(|(number, _)| taken >> number & 1 == 1);
            before.for_each(|(_, before)| before.table.give_back(key(before), now));
            return Err(refuse(rate, said, fields.into_lines(rates)));
        }
    }
    Ok(Taken { lines: fields.into_lines(rates), over })
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
    Stop::Answer(problem, Some(Box::new(Extra { fields, members, by: Some(rate.label.clone()) })))
}

fn whole_seconds(time: std::time::Duration) -> u32 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Room for the lines of two or three limits.
const LINES: usize = 256;

/// The lines of `RateLimit` and `RateLimit-Policy`.
struct Fields {
    lines: Vec<u8>,
    /// A bit for each limit that has said something.
    told: u8,
}

impl Fields {
    fn new() -> Self {
        Self { lines: Vec::new(), told: 0 }
    }

    /// What the limit `label` of this number has said.
    fn put(&mut self, number: usize, label: &str, said: Said) {
        if self.told == 0 {
            self.lines.reserve(LINES);
        }
        self.told |= 1 << number;
        let (mut remaining, mut reset) = (itoa::Buffer::new(), itoa::Buffer::new());
        let start: &[u8] = if self.lines.is_empty() { b"RateLimit: \"" } else { b", \"" };
        let remaining = remaining.format(said.remaining).as_bytes();
        let reset = reset.format(whole_seconds(said.reset)).as_bytes();
        for part in [start, label.as_bytes(), b"\";r=", remaining, b";t=", reset] {
            self.lines.extend_from_slice(part);
        }
    }

    /// The lines, with the policies of those of `rates` that have said something; none if none has.
    fn into_lines(mut self, rates: &[RateLimit]) -> Vec<u8> {
        let told = rates.iter().enumerate().filter(|(number, _)| self.told >> number & 1 == 1);
        let mut start: &[u8] = b"\r\nRateLimit-Policy: ";
        for (_, rate) in told {
            self.lines.extend_from_slice(std::mem::replace(&mut start, b", "));
            self.lines.extend_from_slice(rate.policy.as_bytes());
        }
        if self.told > 0 {
            self.lines.extend_from_slice(b"\r\n");
        }
        self.lines
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
