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

/// How a version that serves alone stands. *Healthy* is about errors: certainly fewer requests fail than each bound
/// allows, with an error of 5 %.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The answer.
    pub answer: Answer,
    /// Requests with an outcome.
    pub requests: u64,
    /// The bound on failures that is decisive; `None` if there is none.
    pub errors: Option<ErrorStanding>,
    /// What is not judged, and why.
    pub unjudged: Option<Unjudged>,
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
}

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
        let answer = match (self.answer(), decisive) {
            (Answer::Fail, _) => Answer::Fail,
            (_, Some(test)) if test.is_within() => Answer::Healthy,
            _ => Answer::Undecided,
        };
        Standing {
            answer,
            requests: self.requests,
            errors: decisive.map(Test::standing),
            unjudged: self.unjudged(now),
            reason: self.verdict(now).reason,
        }
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
        let by = match source {
            Source::Slo => "slo",
            Source::Before => "the rate of the baseline before",
        };
        write!(f, "{failures} failed, allowed {} by {by}", Percent(*allowed))
    }
}
