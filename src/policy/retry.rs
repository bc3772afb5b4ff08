//! Whether a request is sent once more after a failed attempt, where, and when.
//!
//! One function decides ([`decide`]), and one rule stands above all others: a request that may have
//! been acted upon is sent again only if that does no harm. It does none if the request changes
//! nothing, if its method is idempotent (RFC 9110 section 9.2.2), or if it has an `Idempotency-Key`
//! that the route says its versions honour. A stake is taken by a POST without a key: such a request
//! goes to a second endpoint only if not one byte of it was sent to the first.
//!
//! Every request that is not sent again has one reason, the first of those in the order of
//! [`Withheld`].

mod budget;
mod lost;

use std::time::Duration;

pub use self::{
    budget::{Allowance, Budget},
    lost::{Lost, may_repeat},
};
use super::class::is_repeatable;
use crate::config::schema::{self, Class, KeyTrust, Rescue, RetryOn};

/// Why an attempt was repeated; the `reason` label of `tidegate_retries_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryReason {
    /// The endpoint could not be connected, so nothing had been sent.
    Connect,
    /// A pooled connection turned out to be closed before any byte of a response.
    StaleConnection,
    /// The connection broke before the response, or what came was not HTTP.
    Reset,
    /// No response in the time of an attempt.
    Timeout,
    /// The response had a status of 500 or more.
    Status,
}

impl RetryReason {
    /// All reasons, in the order of their counts.
    pub const ALL: [Self; 5] =
        [Self::Connect, Self::StaleConnection, Self::Reset, Self::Timeout, Self::Status];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::StaleConnection => "stale_connection",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Status => "5xx",
        }
    }
}

/// Why a failed request was not repeated; the `reason` label of `tidegate_retries_withheld_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Withheld {
    /// The route does not repeat after this failure.
    NotListed,
    /// It may have been acted upon, and repeating it could do harm.
    NotIdempotent,
    /// Its body is not here: too large, or too slow to be waited for.
    Body,
    /// The client has got a part of an interim response.
    Begun,
    /// All attempts were made.
    Attempts,
    /// The version has been ejected since, and the request is not rescued.
    Ejected,
    /// The endpoint asked for a pause that ends after the route's deadline.
    RetryAfter,
    /// The route's deadline comes first.
    Deadline,
    /// The budget is used up.
    Budget,
}

impl Withheld {
    /// All reasons, in the order of their counts.
    pub const ALL: [Self; 9] = [
        Self::NotListed,
        Self::NotIdempotent,
        Self::Body,
        Self::Begun,
        Self::Attempts,
        Self::Ejected,
        Self::RetryAfter,
        Self::Deadline,
        Self::Budget,
    ];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotListed => "not_listed",
            Self::NotIdempotent => "not_idempotent",
            Self::Body => "body",
            Self::Begun => "begun",
            Self::Attempts => "attempts",
            Self::Ejected => "ejected",
            Self::RetryAfter => "retry_after",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
        }
    }
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No endpoint could be connected.
    Unconnected,
    /// The connection broke, or what came was not HTTP.
    Reset,
    /// There was no response in time.
    Timeout,
    /// The response has a status of 500 or more.
    Status,
    /// This process could not make the attempt, so that another one would fail, too.
    Ours,
}

/// What an endpoint said of when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// Nothing.
    Unsaid,
    /// After this time.
    In(Duration),
    /// In a form that is not read here: at a date, which is seldom near.
    Unread,
}

/// A request as far as repeating it is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Whether it reads or writes: by its route, otherwise by its method.
    pub class: Class,
    /// Its method.
    pub method: &'a str,
    /// It has an `Idempotency-Key`.
    pub keyed: bool,
    /// Its key is remembered here, so that it is processed once: its method is not trusted to make it so.
    pub once: bool,
    /// All of it can still be sent.
    pub whole: bool,
    /// Its service has a fence, so that only one version may take writes at a time.
    pub fenced: bool,
    /// It belongs to its version: by a route, a rule or a pin, or since it changes the protocol.
    pub bound: bool,
}

/// A failed attempt.
#[derive(Debug, Clone, Copy)]
pub struct Failed<'a> {
    /// The request.
    pub request: Request<'a>,
    /// How it failed.
    pub outcome: Outcome,
    /// No endpoint can have processed it, in this attempt and those before: not one byte was sent, or
    /// the stream was refused.
    pub unprocessed: bool,
    /// The client has got something of an interim response.
    pub begun: bool,
    /// Attempts made, this one included.
    pub attempts: u32,
    /// It went to a canary, and an endpoint of the baseline works.
    pub has_rescuer: bool,
    /// Its version has been ejected since.
    pub ousted: bool,
    /// What the endpoint said of when to come back.
    pub retry_after: RetryAfter,
    /// Time until the route's deadline.
    pub left: Duration,
    /// A random number, 0 to 1.
    pub random: f64,
}

/// Where a request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To another endpoint of the same version, if it has one.
    SameVersion,
    /// To the baseline.
    Baseline,
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is sent again.
    Again {
        /// Where.
        place: Place,
        /// After this pause.
        after: Duration,
        /// Why.
        reason: RetryReason,
    },
    /// It is not sent again.
    GiveUp(Withheld),
}

/// How a route repeats requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    attempts: u32,
    on: Box<[RetryOn]>,
    keys_honoured: bool,
    rescue: Rescue,
    backoff: Duration,
    max_backoff: Duration,
    /// What it may spend.
    pub allowance: Allowance,
}

impl Rules {
    /// The rules as written.
    pub fn new(written: &schema::Retry) -> Self {
        Self {
            attempts: written.attempts,
            on: written.on.as_slice().into(),
            keys_honoured: written.idempotency_key == KeyTrust::Honoured,
            rescue: written.rescue,
            backoff: written.backoff,
            max_backoff: written.max_backoff,
            allowance: Allowance {
                share: written.budget.0,
                min_per_second: written.min_per_second,
            },
        }
    }

    /// Whether a request that was sent so often is sent no more.
    pub fn are_spent(&self, attempts: u32) -> bool {
        attempts >= self.attempts
    }

    /// The reason to repeat after `outcome`, if it is one.
    fn reason(&self, outcome: Outcome) -> Option<RetryReason> {
        let (listed, reason) = match outcome {
            Outcome::Unconnected => (RetryOn::Connect, RetryReason::Connect),
            Outcome::Reset => (RetryOn::Reset, RetryReason::Reset),
            Outcome::Timeout => (RetryOn::Timeout, RetryReason::Timeout),
            Outcome::Status => (RetryOn::Status, RetryReason::Status),
            Outcome::Ours => return None,
        };
        self.on.contains(&listed).then_some(reason)
    }

    /// Whether repeating `request` does no harm although it may have been processed.
    fn is_repeatable(&self, request: Request<'_>) -> bool {
        let by_method = is_repeatable(request.method, request.class);
        (by_method && !request.once) || (request.keyed && self.keys_honoured)
    }

    /// Where a failed request is sent again.
    fn place(&self, failed: &Failed<'_>) -> Place {
        match failed.has_rescuer && self.covers(failed.request, failed.unprocessed) {
            true => Place::Baseline,
            false => Place::SameVersion,
        }
    }

    /// Whether the baseline may answer a failed request.
    fn covers(&self, request: Request<'_>, unprocessed: bool) -> bool {
        let writes = request.class == Class::Write;
        let covers = match self.rescue {
            Rescue::Off => false,
            Rescue::Reads => !writes || unprocessed,
            Rescue::SharedStore => !writes || unprocessed || request.keyed,
        };
        covers && !request.bound && !(writes && request.fenced)
    }

    /// Whether the baseline may answer a request whose connection was lost after it was sent.
    pub fn rescues_lost(&self, request: Request<'_>) -> bool {
        self.on.contains(&RetryOn::Reset) && self.covers(request, false)
    }

    /// The pause after `attempts`: full jitter, so that requests that failed together do not come
    /// back together (Brooker 2015, "Exponential Backoff And Jitter").
    fn pause(&self, attempts: u32, random: f64) -> Duration {
        let doubled = self.backoff.saturating_mul(1 << (attempts - 1).min(16));
        doubled.min(self.max_backoff).mul_f64(random)
    }
}

/// Decides what follows a `failed` attempt. `may_spend` takes one attempt out of the budget, and is
/// called only if nothing else is against it.
pub fn decide(rules: &Rules, failed: &Failed<'_>, may_spend: impl FnOnce() -> bool) -> Next {
    let Some(reason) = rules.reason(failed.outcome) else {
        return Next::GiveUp(Withheld::NotListed);
    };
    if !failed.unprocessed && !rules.is_repeatable(failed.request) {
        return Next::GiveUp(Withheld::NotIdempotent);
    }
    if !failed.request.whole {
        return Next::GiveUp(Withheld::Body);
    }
    if failed.begun {
        return Next::GiveUp(Withheld::Begun);
    }
    if rules.are_spent(failed.attempts) {
        return Next::GiveUp(Withheld::Attempts);
    }
    let place = rules.place(failed);
    if place == Place::SameVersion && failed.ousted {
        return Next::GiveUp(Withheld::Ejected);
    }
    // The pause is for those that failed: the baseline is not asked to wait for a canary.
    let after = match place {
        Place::Baseline => Duration::ZERO,
        Place::SameVersion => {
            let asked = match failed.retry_after {
                RetryAfter::Unsaid => Duration::ZERO,
                RetryAfter::In(time) if time < failed.left => time,
                RetryAfter::In(_) | RetryAfter::Unread => {
                    return Next::GiveUp(Withheld::RetryAfter);
                }
            };
            rules.pause(failed.attempts, failed.random).max(asked)
        }
    };
    if after >= failed.left {
        return Next::GiveUp(Withheld::Deadline);
    }
    match may_spend() {
        true => Next::Again { place, after, reason },
        false => Next::GiveUp(Withheld::Budget),
    }
}

#[cfg(test)]
mod tests;
