//! How a version that serves alone stands: worse, certainly within its limits, or neither yet, and why.

use std::{fmt, time::Duration};

use super::{
    super::{
        fixed::{is_within, least_requests},
        verdict::{Answer, Percent, Source},
        warming::Warming,
    },
    Alone, Test,
};

/// How a version that serves alone stands. *Healthy*: certainly fewer requests fail than each bound allows, and certainly
/// fewer are slow than each bound on latency allows, each with an error of 5 %.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The answer.
    pub answer: Answer,
    /// Requests with an outcome.
    pub requests: u64,
    /// The bound on failures that is decisive; `None` if there is none.
    pub errors: Option<ErrorStanding>,
    /// The latency that is not judged, or not certain, and why.
    pub unjudged: Option<Unjudged>,
    /// Whether it is too early to go on without an answer about latency: one may come soon.
    pub waits: bool,
    /// The sentence of the verdict.
    pub reason: String,
}

/// Failures against a bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorStanding {
    /// Failed requests.
    pub failures: u64,
    /// Share of requests that may fail, 0 to 1.
    pub allowed: f64,
    /// Where that comes from.
    pub source: Source,
    /// Requests after which it would be certain if none failed.
    pub least: u64,
}

/// Latency that is not judged, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unjudged {
    /// The version warms up.
    Warms(Warming),
    /// Latency of the past says nothing about a larger load. In requests per second: now, and then.
    Load {
        /// Of the version.
        now: f64,
        /// Of the baseline before.
        then: f64,
    },
    /// It is judged, and nothing is certain.
    Open {
        /// Slow requests, in whole blocks.
        slow: u64,
        /// All requests of these blocks.
        requests: u64,
        /// From how many microseconds on a request is slow.
        slow_us: u64,
        /// Share of requests that may be slow, 0 to 1.
        allowed: f64,
        /// Where that comes from.
        source: Source,
    },
}

/// How long an answer about latency is waited for, as a multiple of the warm-up, and at least: a version that is slow in
/// each request fails after the warm-up and three or four blocks of ten seconds.
const WAITED_FOR: u32 = 10;
const WAITED_AT_LEAST: Duration = Duration::from_secs(300);

impl Alone {
    /// How the version stands at `now`.
    pub fn standing(&self, now: Duration) -> Standing {
        let of_errors = || self.tests.iter().filter(|test| test.first_slow.is_none());
        let decisive = of_errors().min_by(|a, b| {
            // What is open comes first, and then what is strictest.
            let key = |test: &Test| (test.is_within(), test.bound.share);
            let ((a_within, a), (b_within, b)) = (key(a), key(b));
            a_within.cmp(&b_within).then(a.total_cmp(&b))
        });
        let unjudged = self.unjudged(now);
        let open = self.open();
        let unjudged = match unjudged {
            Some(Unjudged::Warms(_)) => unjudged,
            _ => open.map(Test::open_standing).or(unjudged),
        };
        let answer = match (self.answer(), decisive, unjudged) {
            (Answer::Fail, _, _) => Answer::Fail,
            (_, Some(test), None) if test.is_within() => Answer::Healthy,
            _ => Answer::Undecided,
        };
        let longest = (self.warm_up * WAITED_FOR).max(WAITED_AT_LEAST);
        let is_early = now.saturating_sub(self.began) < longest;
        Standing {
            answer,
            requests: self.requests,
            errors: decisive.map(Test::standing),
            unjudged,
            waits: answer == Answer::Undecided && open.is_some() && is_early,
            reason: self.verdict(now).reason,
        }
    }

    /// The limit of latency that is judged, now or as soon as the version is warm, and of which nothing is certain.
    fn open(&self) -> Option<&Test> {
        let may_be_judged =
            |test: &&Test| self.load.per_s().is_none() || self.load.is_comparable(test.bound.per_s);
        let mut timed = self.tests.iter().filter(|test| test.first_slow.is_some());
        timed.find(|test| may_be_judged(test) && !test.is_within())
    }

    /// What is not judged at `now`.
    pub(super) fn unjudged(&self, now: Duration) -> Option<Unjudged> {
        let timed = || self.tests.iter().filter(|test| test.first_slow.is_some());
        timed().next()?;
        if let Some(warming) = self.warming(now) {
            return Some(Unjudged::Warms(warming));
        }
        let apart = timed().find(|test| !self.load.is_comparable(test.bound.per_s))?;
        let (now, then) = self.load.per_s().zip(apart.bound.per_s)?;
        Some(Unjudged::Load { now, then })
    }
}

impl Test {
    fn is_within(&self) -> bool {
        is_within(self.bound.share, self.total.failures(), self.total.trials())
    }

    fn standing(&self) -> ErrorStanding {
        let (allowed, source) = (self.bound.share, self.bound.source);
        let least = least_requests(allowed);
        ErrorStanding { failures: self.total.failures(), allowed, source, least }
    }

    fn open_standing(&self) -> Unjudged {
        Unjudged::Open {
            slow: self.total.failures(),
            requests: self.total.trials(),
            slow_us: self.bound.slow_us.unwrap_or_default(),
            allowed: self.bound.share,
            source: self.bound.source,
        }
    }
}

impl fmt::Display for Unjudged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Warms(warming) => write!(f, "latency is not judged yet: {warming}"),
            Self::Load { now, then } => write!(
                f,
                "latency is not compared with that of the baseline before: {now:.1} requests a second now, {then:.1} \
                 then"
            ),
            Self::Open { slow, requests, slow_us, allowed, source } => write!(
                f,
                "nothing is certain about latency: {slow} of {requests} requests took {} ms or longer, allowed {} by {}",
                *slow_us as f64 / 1e3,
                Percent(*allowed),
                named(*source)
            ),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.requests;
        match (self.answer, self.errors) {
            // It has what is not judged.
            (Answer::Fail, _) => return f.write_str(self.reason.trim_end_matches('.')),
            (Answer::Healthy, Some(errors)) => {
                write!(f, "certainly within its limits after {requests} requests: {errors}")?;
            }
            (_, Some(errors)) if errors.is_within(requests) => write!(
                f,
                "its errors are certainly within their limits after {requests} requests: {errors}"
            )?,
            (_, Some(errors)) if requests < errors.least => write!(
                f,
                "too few requests: {requests} of the {} that it takes at least; {errors}",
                errors.least
            )?,
            (_, Some(errors)) => {
                write!(f, "nothing is certain after {requests} requests: {errors}")?;
            }
            (_, None) => f.write_str(
                "errors are not judged: there is no `slo.errors`, and too little is known of the baseline before",
            )?,
        }
        match &self.unjudged {
            Some(unjudged) => write!(f, "; {unjudged}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ErrorStanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { failures, allowed, source, .. } = self;
        write!(f, "{failures} failed, allowed {} by {}", Percent(*allowed), named(*source))
    }
}

impl ErrorStanding {
    fn is_within(&self, requests: u64) -> bool {
        is_within(self.allowed, self.failures, requests)
    }
}

fn named(source: Source) -> &'static str {
    match source {
        Source::Slo => "slo",
        Source::Before => "the rate of the baseline before",
    }
}
