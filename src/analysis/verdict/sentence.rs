//! Verdicts and findings as sentences: what, how bad, for how many players, compared with what, how
//! certain. They use the counts since the onset of the difference, not the totals, which would hide
//! it.

use std::fmt;

use super::{
    Answer, Counts, DOUBTED, Finding, HealthFinding, HeldBack, Mean, Metric, Numbers, Rate, Source,
    Verdict,
};

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MinimumFailures { failures, least } => {
                write!(
                    f,
                    "The evidence suffices, and waits for `minimum_failures`: {failures} of {least}"
                )
            }
            Self::OneEndpoint => {
                f.write_str("The evidence suffices, but not without the worst endpoint")
            }
            Self::NothingElseServes { kept_ms } => {
                let kept_s = *kept_ms as f64 / 1e3;
                write!(f, "It was kept for {kept_s:.1} s after that, since nothing else served")
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.answer {
            Answer::Undecided => match (self.log_evidence, self.findings.first()) {
                (Some(evidence), Some(finding)) if evidence >= DOUBTED => {
                    write!(f, "not certain yet: {finding}")?;
                    if let Some(held) = self.held {
                        write!(f, ". {held}")?;
                    }
                }
                (Some(_), _) => match self.findings.iter().find(|finding| finding.seems_worse()) {
                    Some(finding) => write!(f, "not enough evidence yet: {finding}")?,
                    None => write!(f, "within its limits so far")?,
                },
                (None, _) => write!(f, "nothing to compare yet")?,
            },
            Answer::Healthy => match self.health {
                Some(health) => write!(f, "{health}")?,
                None => write!(f, "healthy")?,
            },
            Answer::Fail => {
                let Some(finding) = self.findings.first() else {
                    return write!(f, "worse than is allowed");
                };
                finding.sentence(f, Some(self.since_s))?;
                if let Some(other) = self.other() {
                    write!(f, ". Also: {other}")?;
                }
                if let Some(evidence) = self.log_evidence {
                    write!(f, ". Wrong once in {}", Thousands(evidence.exp()))?;
                }
                write!(f, ".")?;
                if self.alone {
                    write!(
                        f,
                        " No baseline serves beside it, so an outage that every version would share \
                         looks the same."
                    )?;
                }
            }
        }
        Ok(())
    }
}

/// Failures, and multiple of the allowed rate, from which on a canary is not called good, even if
/// the evidence is small.
const SEEMS_WORSE: (u64, f64) = (3, 2.0);

impl Verdict {
    /// The worst finding of another kind that is as certain as the deciding one.
    fn other(&self) -> Option<&Finding> {
        let (first, others) = self.findings.split_first()?;
        let mut others = others.iter().filter(|other| other.metric.kind() != first.metric.kind());
        others.find(|other| other.log_evidence.is_some_and(|nats| nats >= self.log_threshold))
    }
}

impl Finding {
    /// Whether recent failures are far beyond the allowed rate, whatever the evidence.
    fn seems_worse(&self) -> bool {
        let Numbers::Errors { counts, tolerated_ratio, tolerated_excess } = &self.numbers else {
            return false;
        };
        let (canary, _) = counts.shown();
        let allowed = counts.allowed(*tolerated_ratio, *tolerated_excess);
        let (failures, times) = SEEMS_WORSE;
        canary.failures >= failures && canary.rate.is_some_and(|rate| rate > times * allowed)
    }
}

impl fmt::Display for HealthFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its failures are fewer than {} times the baseline's", self.ratio)?;
        match self.excess {
            0.0 => Ok(()),
            excess => write!(f, " plus {} of its requests", Percent(excess)),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sentence(f, None)
    }
}

impl Finding {
    /// Writes the finding; `until_s` is the time of the decision, in seconds since the comparison
    /// began.
    fn sentence(&self, f: &mut fmt::Formatter<'_>, until_s: Option<f64>) -> fmt::Result {
        match &self.numbers {
            Numbers::Errors { counts, tolerated_ratio, tolerated_excess } => {
                self.rates(f, counts, until_s)?;
                let allowed = counts.allowed(*tolerated_ratio, *tolerated_excess);
                write!(f, "; allowed {}", Percent(allowed))
            }
            Numbers::Latency {
                counts,
                canary_slow_ms,
                baseline_slow_ms,
                tolerated_factor,
                tolerated_ms,
            } => {
                self.rates(f, counts, until_s)?;
                if let Some((canary, baseline)) = canary_slow_ms.zip(*baseline_slow_ms) {
                    write!(
                        f,
                        "; slow is {canary:.1} ms or longer, of the baseline {baseline:.1} ms"
                    )?;
                }
                let quantile = match self.metric {
                    Metric::LatencyP95 | Metric::WholeP95 => "p95",
                    _ => "p99",
                };
                write!(f, "; allowed {tolerated_factor} times the baseline's {quantile}")?;
                match *tolerated_ms {
                    0.0 => Ok(()),
                    more => write!(f, " and {more} ms"),
                }
            }
            Numbers::Bound { counts, since_onset, source, tolerated_share, slow_ms } => {
                let counts = counts.or_since(*since_onset);
                write!(f, "{} of its requests ", Share(&counts))?;
                match slow_ms {
                    Some(slow_ms) => write!(f, "took {slow_ms:.1} ms or longer")?,
                    None => write!(f, "failed")?,
                }
                write!(f, " ({} of {}", counts.failures, counts.requests)?;
                match (until_s, self.onset_s) {
                    (Some(until), Some(from)) if since_onset.requests > 0 => {
                        write!(f, ", {:.1} s", (until - from).max(0.0))?;
                    }
                    (Some(judged_s), _) => write!(f, ", judged for {judged_s:.1} s")?,
                    (None, _) => {}
                }
                write!(f, "); allowed {}", Percent(*tolerated_share))?;
                match source {
                    Source::Slo => write!(f, " by slo"),
                    Source::Before => write!(f, " by the rate of the baseline before"),
                }
            }
            Numbers::Recovery { canary, baseline } => write!(
                f,
                "{} of its players who failed twice in a row were served when sent to the baseline ({} \
                 of {}); of the baseline's own, {} are served when they ask again ({} of {})",
                Share(canary),
                canary.failures,
                canary.requests,
                Share(baseline),
                baseline.failures,
                baseline.requests
            ),
            Numbers::Amount { canary, baseline, ratio, clipped_at, tolerated_ratio } => {
                self.means(f, canary, baseline)?;
                if let Some(ratio) = ratio {
                    write!(f, "; {ratio:.3} times the baseline")?;
                }
                // Canary to baseline, like the ratio before it.
                let allowed = match self.metric {
                    Metric::AmountLow => 1.0 / tolerated_ratio,
                    _ => *tolerated_ratio,
                };
                write!(f, ", allowed {allowed:.3} times")?;
                match clipped_at {
                    Some(clip) => {
                        write!(f, ". A larger amount than {0} counts as {0}", Money(*clip))
                    }
                    None => Ok(()),
                }
            }
            Numbers::DerivedAmount {
                canary,
                baseline,
                difference,
                clipped_at,
                tolerated_difference,
            } => {
                self.means(f, canary, baseline)?;
                if let Some(difference) = difference {
                    let which = if *difference < 0.0 { "lower" } else { "higher" };
                    write!(f, "; {} {which}", Money(difference.abs()))?;
                }
                if let Some(tolerated) = tolerated_difference {
                    write!(f, ", allowed {}", Money(*tolerated))?;
                }
                match clipped_at {
                    Some(clip) => {
                        write!(f, ". An amount beyond {0} or -{0} counts as that", Money(*clip))
                    }
                    None => Ok(()),
                }
            }
        }
    }

    fn means(&self, f: &mut fmt::Formatter<'_>, canary: &Mean, baseline: &Mean) -> fmt::Result {
        let amount = self.amount.as_deref().unwrap_or("amount");
        let which = match self.metric {
            Metric::AmountLow => "lower",
            _ => "higher",
        };
        write!(f, "its `{amount}` is {which}: {canary}; baseline {baseline}")
    }

    fn rates(
        &self,
        f: &mut fmt::Formatter<'_>,
        counts: &Counts,
        until_s: Option<f64>,
    ) -> fmt::Result {
        let what = match self.metric {
            Metric::Errors => "failed",
            Metric::Unserved => "failed or were left by their clients",
            Metric::Refusals => "were refused (4xx)",
            Metric::LatencyP95 | Metric::LatencyP99 => "were slow to begin",
            Metric::WholeP95 | Metric::WholeP99 => "were slow to end",
            Metric::Recovery | Metric::AmountLow | Metric::AmountHigh => "differ",
        };
        let (canary, baseline) = counts.shown();
        write!(f, "{} of its requests", Share(&canary))?;
        if let Some(route) = &self.route {
            write!(f, " on {route}")?;
        }
        write!(f, " {what} ({} of {}", canary.failures, canary.requests)?;
        if counts.players() > 0 {
            let players = counts.players();
            write!(f, ", {players} {}", if players == 1 { "player" } else { "players" })?;
        }
        if let Some((from, until)) = self.onset_s.zip(until_s) {
            write!(f, ", {:.1} s", (until - from).max(0.0))?;
        }
        write!(
            f,
            "); baseline {} ({} of {})",
            Share(&baseline),
            baseline.failures,
            baseline.requests
        )
    }
}

impl Counts {
    /// The shown rates of both arms: of all requests since the onset of the difference if they were
    /// counted, otherwise of the trials.
    pub(super) fn shown(&self) -> (Rate, Rate) {
        if self.canary_requests.requests > 0 {
            (self.canary_requests, self.baseline_requests)
        } else if self.canary_since_onset.requests > 0 {
            (self.canary_since_onset, self.baseline_since_onset)
        } else {
            (self.canary, self.baseline)
        }
    }

    /// The allowed rate of failures, given the baseline's.
    fn allowed(&self, ratio: f64, excess: f64) -> f64 {
        let (_, baseline) = self.shown();
        ratio * baseline.rate.unwrap_or(0.0) + excess
    }

    /// Bad players of the canary since the onset of the difference; each counts once per cycle.
    fn players(&self) -> u64 {
        if self.canary_since_onset.requests > 0 {
            self.canary_since_onset.failures
        } else {
            self.canary.failures
        }
    }
}

impl fmt::Display for Mean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mean {
            Some(mean) => write!(f, "{} in the mean of {} requests", Money(mean), self.requests),
            None => write!(f, "no requests"),
        }
    }
}

/// The share of bad requests in percent.
struct Share<'a>(&'a Rate);

impl fmt::Display for Share<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Percent(self.0.rate.unwrap_or(0.0)))
    }
}

/// A share in percent, to three digits.
pub(in crate::analysis) struct Percent(pub(in crate::analysis) f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.0 * 100.0;
        if percent == 0.0 || !percent.is_finite() {
            return write!(f, "{percent} %");
        }
        let digits = (2.0 - percent.abs().log10().floor()).clamp(0.0, 9.0) as usize;
        let text = format!("{percent:.digits$}");
        let text = if text.contains('.') { text.trim_end_matches('0') } else { &text };
        write!(f, "{} %", text.trim_end_matches('.'))
    }
}

/// An amount of money: with hundredths and separated thousands or, below 1, with three digits.
struct Money(f64);

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        let digits = match size {
            _ if size == 0.0 || !size.is_finite() => 2,
            // Rounding up would add a digit.
            _ if size >= 0.9995 => 2,
            _ => (2.0 - size.log10().floor()).clamp(2.0, 9.0) as usize,
        };
        let text = format!("{size:.digits$}");
        let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
        if self.0 < 0.0 {
            write!(f, "-")?;
        }
        apart(f, whole)?;
        if rest.is_empty() { Ok(()) } else { write!(f, ".{rest}") }
    }
}

/// Digits with separated thousands.
fn apart(f: &mut fmt::Formatter<'_>, digits: &str) -> fmt::Result {
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            write!(f, ",")?;
        }
        write!(f, "{digit}")?;
    }
    Ok(())
}

/// Largest odds that are shown: beyond them, causes that the bound does not cover are likelier.
const SUREST: f64 = 1e6;

/// A large number to two digits, with separated thousands.
struct Thousands(f64);

impl fmt::Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0.clamp(1.0, SUREST);
        let unit = 10_f64.powf((number.log10().floor() - 1.0).max(0.0));
        // Rounded down, so that the certainty is not overstated.
        apart(f, &format!("{:.0}", (number / unit).floor() * unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_three_digits() {
        let texts =
            [0.0, 1.0, 0.5, 0.12345, 0.003, 1e-4, 0.0012345].map(|s| Percent(s).to_string());
        assert_eq!(texts, ["0 %", "100 %", "50 %", "12.3 %", "0.3 %", "0.01 %", "0.123 %"]);
    }

    #[test]
    fn money_is_read_as_books_write_it() {
        let texts = [0.0, 27.0, 0.5, 0.02346, -2.0072, 1_234_567.891, 999.999, 0.99951, 1e-12];
        let texts = texts.map(|amount| Money(amount).to_string());
        let expected = [
            "0.00",
            "27.00",
            "0.500",
            "0.0235",
            "-2.01",
            "1,234,567.89",
            "1,000.00",
            "1.00",
            "0.000000000",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn odds_have_two_digits_and_are_never_made_larger() {
        let texts = [1.0, 27.9, 999.0, 1_299.0, 1_380.0, 25_999.0, 1.57e6, 1e300];
        let texts = texts.map(|n| Thousands(n).to_string());
        assert_eq!(texts, ["1", "27", "990", "1,200", "1,300", "25,000", "1,000,000", "1,000,000"]);
    }
}
