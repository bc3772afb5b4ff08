//! Verdicts and findings as sentences. They quote the numbers that decided: those since the difference
//! began, not the sums in which it would be hidden.

use std::fmt;

use super::{
    Answer, Component, Counts, Finding, HealthFinding, Mean, Metric, Numbers, Rate, Source, Verdict,
};

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.compared_s;
        match self.answer {
            Answer::Fail => {
                let who = if self.alone { "it" } else { "the canary" };
                write!(f, "fail after {after:.1} s: {who} ")?;
                self.difference(f)?;
            }
            Answer::Pass => match self.health {
                Some(health) => write!(f, "pass after {:.1} s: {health}", self.since_s)?,
                None => write!(f, "pass after {:.1} s", self.since_s)?,
            },
            Answer::Undecided => write!(f, "undecided after {after:.1} s")?,
        }
        if let Some(finding) = self.findings.first() {
            let separator = if self.answer == Answer::Fail { "; " } else { "; most evidence: " };
            write!(f, "{separator}{finding}")?;
        }
        match self.log_evidence {
            Some(evidence) => {
                write!(f, "; log evidence {evidence:.2} of {:.2}", self.log_threshold)
            }
            None => write!(f, "; nothing to compare yet"),
        }?;
        if self.alone && self.answer == Answer::Fail {
            write!(
                f,
                "; no baseline serves beside it, so this cannot be told from an outage that every \
                 version would share"
            )?;
        }
        Ok(())
    }
}

impl Verdict {
    /// What is wrong with a failed canary.
    fn difference(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(finding) = self.findings.first() else {
            return write!(f, "is worse than is tolerated");
        };
        let amount = finding.amount.as_deref().unwrap_or("amount");
        match finding.metric {
            Metric::Errors => write!(f, "fails more often than is tolerated"),
            Metric::LatencyP95 | Metric::LatencyP99 => write!(f, "is slower than is tolerated"),
            Metric::AmountLow => write!(f, "has a lower `{amount}` than is tolerated"),
            Metric::AmountHigh => write!(f, "has a higher `{amount}` than is tolerated"),
        }
    }
}

impl fmt::Display for HealthFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the canary fails less than {} times as often as the baseline", self.ratio)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.numbers {
            Numbers::Errors { counts, tolerated_ratio, tolerated_excess } => {
                self.counts(f, counts, "failed")?;
                write!(f, "; tolerated {tolerated_ratio} times")?;
                if *tolerated_excess > 0.0 {
                    write!(f, " and {}", Percent(*tolerated_excess))?;
                }
            }
            Numbers::Latency { counts, canary_slow_ms, baseline_slow_ms, tolerated_factor } => {
                self.counts(f, counts, "were slow")?;
                if let Some((canary, baseline)) = canary_slow_ms.zip(*baseline_slow_ms) {
                    write!(f, "; slow from {canary:.1} ms on, the baseline from {baseline:.1} ms")?;
                }
                write!(f, "; tolerated {tolerated_factor} times the latency")?;
            }
            Numbers::Bound { counts, source, tolerated_share, slow_ms } => {
                write!(f, "{counts} ")?;
                match slow_ms {
                    Some(slow_ms) => write!(f, "took {slow_ms:.1} ms or longer")?,
                    None => write!(f, "failed")?,
                }
                write!(f, ", {} tolerated by ", Percent(*tolerated_share))?;
                match source {
                    Source::Slo => write!(f, "slo")?,
                    Source::Before => write!(f, "the rate of the baseline before")?,
                }
            }
            Numbers::Amount { canary, baseline, ratio, clipped_at, tolerated_ratio } => {
                self.means(f, canary, baseline)?;
                if let Some(ratio) = ratio {
                    write!(f, ", {ratio:.3} times")?;
                }
                if let Some(clip) = clipped_at {
                    write!(f, ", clipped at {clip:.2}")?;
                }
                write!(f, "; tolerated a ratio of {tolerated_ratio:.3}")?;
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
                    write!(f, ", {:.4} {which}", difference.abs())?;
                }
                if let Some(clip) = clipped_at {
                    write!(f, ", clipped at {clip:.2} either way")?;
                }
                if let Some(tolerated) = tolerated_difference {
                    write!(f, "; tolerated a difference of {tolerated:.4}")?;
                }
            }
        }
        match self.component {
            Some(Component::Ratio(factor)) => write!(f, "; about {factor} times what is tolerated"),
            Some(Component::Gross(share)) => {
                write!(f, "; about {} of what the baseline serves", Percent(share))
            }
            None => Ok(()),
        }
    }
}

impl Finding {
    fn means(&self, f: &mut fmt::Formatter<'_>, canary: &Mean, baseline: &Mean) -> fmt::Result {
        if let Some(amount) = &self.amount {
            write!(f, "`{amount}` has ")?;
        }
        write!(f, "{canary} of the canary against {baseline}")
    }

    fn counts(&self, f: &mut fmt::Formatter<'_>, counts: &Counts, what: &str) -> fmt::Result {
        let Counts { canary_since_onset: canary, baseline_since_onset: baseline, .. } = counts;
        if canary.requests > 0
            && let Some(onset_s) = self.onset_s
        {
            write!(
                f,
                "since {onset_s:.1} s {canary} of the canary {what}, {baseline} of the baseline"
            )?;
        } else {
            let Counts { canary, baseline, .. } = counts;
            write!(f, "{canary} of the canary {what}, {baseline} of the baseline")?;
        }
        let Some(ratio) = counts.ratio else { return Ok(()) };
        write!(f, ", over all {ratio:.2} times")?;
        match counts.ratio_interval {
            Some([low, high]) => write!(f, " ({low:.2} to {high:.2} at 95 %)"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} requests", self.failures, self.requests)?;
        self.rate.map_or(Ok(()), |rate| write!(f, " ({})", Percent(rate)))
    }
}

impl fmt::Display for Mean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mean {
            Some(mean) => write!(f, "a mean of {mean:.4} over {} requests", self.requests),
            None => write!(f, "no requests"),
        }
    }
}

/// A share in percent, to three digits.
struct Percent(f64);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_three_digits() {
        let texts =
            [0.0, 1.0, 0.5, 0.12345, 0.003, 1e-4, 0.0012345].map(|s| Percent(s).to_string());
        assert_eq!(texts, ["0 %", "100 %", "50 %", "12.3 %", "0.3 %", "0.01 %", "0.123 %"]);
    }
}
