//! What is said at the end: what was seen, and whether it was as promised.

use std::{fmt::Write, time::Duration};

use super::{
    game::Version,
    ledger::Ledger,
    observe::Observed,
    script::expected,
    view::{millis, thousands},
};

/// All that was seen.
#[derive(Debug)]
pub(super) struct Summary<'a> {
    /// What the players saw.
    pub(super) ledger: &'a Ledger,
    /// What the proxy saw.
    pub(super) observed: Observed,
    /// How long the players played.
    pub(super) lasted: Duration,
    /// Mean time in the proxy apart from waiting for the version.
    pub(super) own_time: Option<Duration>,
    /// Somebody else changed the weights meanwhile, so moves say nothing.
    pub(super) meddled: bool,
}

impl Summary<'_> {
    /// Whether every request was answered and nobody moved but to the growing version.
    pub(super) fn is_as_promised(&self) -> bool {
        self.ledger.failures() == 0 && (self.meddled || self.ledger.elsewhere() == 0)
    }

    /// The text, ending in a newline.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` never fails.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (ledger, players) = (self.ledger, self.ledger.seats().len());
        let (seconds, requests) = (self.lasted.as_secs_f64(), ledger.requests());
        writeln!(
            out,
            "\n{} requests of {players} players in {seconds:.1} s ({} a second), {} failures",
            thousands(requests),
            thousands((requests as f64 / seconds).round()),
            ledger.failures(),
        )?;
        if let Some(why) = ledger.first_failure() {
            writeln!(out, "  the first failure: {why}")?;
        }

        writeln!(
            out,
            "\n  weight of v42   players on v42       seen   moved to v42   moved elsewhere"
        )?;
        for step in ledger.steps() {
            let (mean, spread) = expected(step.weight, players);
            writeln!(
                out,
                "  {:>13}   {:>8.0} ± {spread:<3.0}   {:>8}   {:>12}   {:>15}",
                step.weight, mean, step.on_v42, step.to_growing, step.elsewhere
            )?;
        }
        writeln!(out, "  (± two standard deviations of a random draw of {players} players)")?;

        writeln!(
            out,
            "\n  version    requests   errors    p50 ms    p99 ms   (until it answered)"
        )?;
        for (version, seen) in Version::ALL.into_iter().zip(&self.observed.versions) {
            let total = &seen.latency.total;
            let (p50, p99) = (millis(total, |q| q.p50), millis(total, |q| q.p99));
            let (name, requests) = (version.name(), thousands(total.count));
            writeln!(out, "  {name:<7}  {requests:>10}   {:>6}   {p50}   {p99}", seen.errors)?;
        }
        if let Some(own) = self.own_time {
            let micros = own.as_secs_f64() * 1e6;
            let build = if cfg!(debug_assertions) { ", unoptimized build" } else { "" };
            writeln!(
                out,
                "\n  mean time in the proxy beside that: {micros:.0} µs a request{build}"
            )?;
        }
        writeln!(out, "\n{}", self.verdict())
    }

    fn verdict(&self) -> String {
        let failures = match self.ledger.failures() {
            0 => "Every request was answered".to_owned(),
            n => format!("Requests that FAILED: {n}"),
        };
        let moves = match self.ledger.elsewhere() {
            _ if self.meddled => "others changed weights too, so moves are not judged".to_owned(),
            0 => "nobody moved but to the growing version".to_owned(),
            n => format!("moves NOT to the growing version: {n}"),
        };
        format!("{failures}; {moves}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(ledger: &Ledger, meddled: bool) -> Summary<'_> {
        let (observed, lasted) = (Observed::default(), Duration::from_secs(2));
        Summary { ledger, observed, lasted, own_time: None, meddled }
    }

    #[test]
    fn failures_and_wrong_moves_break_the_promise() {
        let mut ledger = Ledger::new(400);
        ledger.begin_step(0);
        ledger.answered(0, Version::V41);
        ledger.begin_step(25);
        ledger.answered(0, Version::V42);
        let text = summary(&ledger, false).text();
        assert!(summary(&ledger, false).is_as_promised(), "{text}");
        assert!(text.contains("100 ± 17 "), "{text}");
        assert!(
            text.ends_with(
                "Every request was answered; nobody moved but to the growing version.\n"
            ),
            "{text}"
        );

        ledger.answered(0, Version::V41);
        let text = summary(&ledger, false).text();
        assert!(!summary(&ledger, false).is_as_promised(), "{text}");
        assert!(text.contains("moves NOT to the growing version: 1"), "{text}");
        assert!(summary(&ledger, true).is_as_promised());

        ledger.failed("/v1/spins: reset".to_owned());
        let text = summary(&ledger, true).text();
        assert!(!summary(&ledger, true).is_as_promised(), "{text}");
        assert!(
            text.contains("Requests that FAILED: 1") && text.contains("/v1/spins: reset"),
            "{text}"
        );
    }

    #[test]
    fn the_summary_fits_eighty_columns() {
        let mut ledger = Ledger::new(10_000);
        ledger.begin_step(25);
        let summary =
            Summary { own_time: Some(Duration::from_micros(73)), ..summary(&ledger, true) };
        for line in summary.text().lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
