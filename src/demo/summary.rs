//! The summary at the end: the observations, and whether they are as promised.

use std::{fmt::Write, time::Duration};

use super::{
    game::Version,
    ledger::{Ledger, Step},
    observe::Observed,
    script::{CHECKS, FAULT, FAULT_SHARE, checks, expected},
    stage::Ejected,
    view::{INNER, counted, millis, thousands, wrapped},
};

/// The observations.
#[derive(Debug)]
pub(super) struct Summary<'a> {
    /// The players' view.
    pub(super) ledger: &'a Ledger,
    /// The proxy's view.
    pub(super) observed: Observed,
    /// How long the players played.
    pub(super) lasted: Duration,
    /// How long each step of growth was.
    pub(super) growth: Duration,
    /// Mean time in the proxy apart from waiting for the version.
    pub(super) own_time: Option<Duration>,
    /// Whether another client changed the split, so that moves are no evidence about it.
    pub(super) meddled: bool,
    /// Whether the script was completed.
    pub(super) completed: bool,
    /// When v42 failed first, since the players began.
    pub(super) first_fault: Option<Duration>,
    /// The first ejection of v42.
    pub(super) ejected: Option<Ejected>,
}

impl Summary<'_> {
    /// Whether every request was answered, those that v42 failed by v41, v42 was ejected because of
    /// those, and players moved only as the split requires.
    pub(super) fn is_as_promised(&self) -> bool {
        let as_split = self.ledger.elsewhere() == 0 && !self.left_early();
        let ejected =
            if self.completed { self.out_after().is_some() } else { !self.was_too_early() };
        let absorbed = self.ledger.faults().count == 0;
        self.ledger.failures() == 0 && (self.meddled || (absorbed && as_split && ejected))
    }

    /// From the first fault to the ejection that followed it.
    fn out_after(&self) -> Option<Duration> {
        self.ejected.as_ref()?.at.checked_sub(self.first_fault?)
    }

    /// Whether v42 was ejected before it failed any request.
    fn was_too_early(&self) -> bool {
        self.ejected.is_some() && self.out_after().is_none()
    }

    /// The step in which v42 failed.
    fn fault_step(&self) -> Option<&Step> {
        self.ledger.steps().get(FAULT)
    }

    /// Whether a player left v42 before it was ejected, which nothing but the ejection may cause.
    fn left_early(&self) -> bool {
        let left = self.fault_step().and_then(|step| step.first_move);
        left.is_some_and(|left| self.ejected.as_ref().is_none_or(|ejected| left < ejected.at))
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
            "\n{} requests of {players} players in {seconds:.1} s ({} a second), {}, {}",
            thousands(requests),
            thousands((requests as f64 / seconds).round()),
            counted(ledger.faults().count, "fault"),
            counted(ledger.failures(), "failure"),
        )?;
        if let Some(why) = ledger.first_failure() {
            writeln!(out, "  the first failure: {why}")?;
        }

        writeln!(
            out,
            "\n  weight of v42   players on v42       seen   moved            moved elsewhere"
        )?;
        for (number, step) in ledger.steps().iter().enumerate() {
            let (label, weight) = match &self.ejected {
                Some(_) if number == FAULT => ("ejected".to_owned(), 0),
                _ => (step.weight.to_string(), step.weight),
            };
            let (mean, spread) = expected(weight, players);
            let to = step.growing.unwrap_or(Version::V42).name();
            writeln!(
                out,
                "  {label:>13}   {mean:>8.0} ± {spread:<3.0}   {:>8}   {:>6} to {to:<3}   {:>15}",
                step.on_v42, step.to_growing, step.elsewhere
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
        self.write_ejection(out)?;
        writeln!(out, "\n{}", self.verdict())
    }

    /// Writes the effect of the fault, and what it would have been.
    fn write_ejection(&self, out: &mut String) -> std::fmt::Result {
        let Some(ejected) = &self.ejected else { return Ok(()) };
        let (faults, share) = (self.ledger.faults(), FAULT_SHARE * 100.0);
        writeln!(out, "\n  The verdict that ejected v42:")?;
        let reason = wrapped(&ejected.reason, INNER - 2);
        reason.iter().try_for_each(|line| writeln!(out, "    {line}"))?;
        let Some(after) = self.out_after() else { return Ok(()) };
        let before = &self.ledger.steps()[FAULT - 1];
        let rate = before.of_v42 as f64 / self.growth.as_secs_f64();
        let checks = checks(rate, before.on_v42);
        let (count, hit) = (thousands(faults.count), self.ledger.players_hit());
        let (absorbed, spared) = (thousands(faults.absorbed), self.ledger.players_spared());
        let ms = after.as_secs_f64() * 1e3;
        // After a reinstatement v42 continues to fail.
        let requests = match self.meddled {
            false => format!(", within {} of its requests", thousands(faults.of_answers)),
            true => String::new(),
        };
        writeln!(
            out,
            "\n  v42 was out {ms:.0} ms after its first fault{requests}\n\n\
             \x20                                        failed answers   players hit\n\
             \x20 Tidegate, as seen by players          {count:>15}   {hit:>11}\n\
             \x20 failed by v42, answered by v41        {absorbed:>15}   {spared:>11}\n\
             \x20 five one-minute checks, as computed   {:>15}   {:>11.0}\n\
             \x20   ({rate:.0} requests a second to v42 × {share:.0} % × {} s; {} players on it)",
            thousands(checks.faults.round()),
            checks.players,
            CHECKS.as_secs(),
            before.on_v42,
        )
    }

    fn verdict(&self) -> String {
        let failures = match (self.ledger.failures(), self.ledger.faults().count) {
            (0, 0) if self.ledger.faults().absorbed > 0 => {
                let absorbed = thousands(self.ledger.faults().absorbed);
                format!("Every request was answered, {absorbed} by v41 after v42 had failed")
            }
            (0, 0) => "Every request was answered".to_owned(),
            (0, n) => format!("Every request was answered BUT {n} that v42 failed as planned"),
            (n, _) => format!("Requests that FAILED: {n}"),
        };
        if self.meddled {
            return format!("{failures};\nothers changed the split too, so moves are not judged.");
        }
        let ejected = match self.out_after() {
            Some(_) => "v42 was ejected, ",
            None if self.was_too_early() => "v42 was ejected BEFORE it failed, ",
            None if self.completed => "v42 was NOT ejected, ",
            None => "",
        };
        let moves = match self.ledger.elsewhere() {
            0 if self.left_early() => "players left v42 BEFORE that".to_owned(),
            0 => "nobody moved but as the split says".to_owned(),
            n => format!("moves NOT as the split says: {n}"),
        };
        format!("{failures};\n{ejected}{moves}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(ledger: &Ledger) -> Summary<'_> {
        let (observed, lasted, growth) =
            (Observed::default(), Duration::from_secs(7), Duration::from_secs(1));
        let (own_time, meddled, completed) = (None, false, false);
        let (first_fault, ejected) = (None, None);
        Summary {
            ledger,
            observed,
            lasted,
            growth,
            own_time,
            meddled,
            completed,
            first_fault,
            ejected,
        }
    }

    fn meddled(ledger: &Ledger) -> Summary<'_> {
        Summary { meddled: true, ..summary(ledger) }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn ejected(millis: u64) -> Option<Ejected> {
        let reason = "fail after 3.1 s: the canary fails more often than is tolerated; ".repeat(5);
        Some(Ejected { at: at(millis), reason })
    }

    /// Four steps of a second, in which v42 gets the first of 400 players, and answers that player
    /// three times.
    fn grown() -> Ledger {
        let mut ledger = Ledger::new(400);
        ledger.begin_step(0);
        ledger.answered(0, Version::V41, at(10));
        ledger.begin_step(1);
        ledger.begin_step(5);
        ledger.begin_step(25);
        (0..3).for_each(|turn| ledger.answered(0, Version::V42, at(3_010 + turn)));
        ledger
    }

    #[test]
    fn failures_and_wrong_moves_break_the_promise() {
        let mut ledger = grown();
        let text = summary(&ledger).text();
        assert!(summary(&ledger).is_as_promised(), "{text}");
        assert!(text.contains("100 ± 17 ") && !text.contains("ejected"), "{text}");
        let end = "Every request was answered;\nnobody moved but as the split says.\n";
        assert!(text.ends_with(end), "{text}");

        ledger.answered(0, Version::V41, at(3_500));
        let text = summary(&ledger).text();
        assert!(!summary(&ledger).is_as_promised(), "{text}");
        assert!(text.contains("moves NOT as the split says: 1"), "{text}");
        assert!(meddled(&ledger).is_as_promised());

        ledger.failed("/v1/spins: reset".to_owned());
        let text = meddled(&ledger).text();
        assert!(!meddled(&ledger).is_as_promised(), "{text}");
        assert!(text.contains("Requests that FAILED: 1") && text.contains("/v1/spins: reset"));
    }

    #[test]
    fn an_ejection_is_told_with_what_five_checks_would_have_cost() {
        let mut ledger = grown();
        ledger.begin_fault();
        ledger.rescued(0);
        ledger.answered(0, Version::V42, at(4_200));
        ledger.answered(0, Version::V41, at(4_300));
        let summary = Summary {
            completed: true,
            first_fault: Some(at(4_100)),
            ejected: ejected(4_250),
            ..summary(&ledger)
        };
        let text = summary.text();
        assert!(summary.is_as_promised(), "{text}");
        assert!(text.contains(", 0 faults, 0 failures"), "{text}");
        assert!(text.contains("out 150 ms after its first fault, within 2 of its requests"));
        assert!(
            text.contains("as seen by players                        0             0"),
            "{text}"
        );
        assert!(text.contains("answered by v41                      1             1"), "{text}");
        // Three answers in the second before: 3 × 30 % × 300 s.
        assert!(text.contains("as computed               270             1"), "{text}");
        assert!(
            text.contains("      ejected          0 ± 0            0        1 to v41"),
            "{text}"
        );
        let end = "Every request was answered, 1 by v41 after v42 had failed;\n\
                   v42 was ejected, nobody moved but as the split says.\n";
        assert!(text.ends_with(end), "{text}");
        // One that a player saw breaks the promise.
        ledger.begin_fault();
        ledger.faulted(0, at(4_400));
        let seen = Summary {
            completed: true,
            first_fault: Some(at(4_100)),
            ejected: ejected(4_250),
            ..self::summary(&ledger)
        };
        assert!(!seen.is_as_promised() && seen.text().contains("BUT 1 that v42 failed"));
    }

    #[test]
    fn a_canary_that_stays_or_goes_without_reason_breaks_the_promise() {
        let mut ledger = grown();
        let early = Summary { ejected: ejected(3_500), ..summary(&ledger) };
        assert!(!early.is_as_promised() && early.text().contains("BEFORE it failed"));
        ledger.begin_fault();
        ledger.rescued(0);
        let interrupted = summary(&ledger);
        assert!(interrupted.is_as_promised(), "{}", interrupted.text());
        let stays = Summary { completed: true, ..summary(&ledger) };
        assert!(!stays.is_as_promised() && stays.text().contains("NOT ejected"));
        ledger.answered(0, Version::V41, at(4_200));
        let left = Summary {
            completed: true,
            first_fault: Some(at(4_100)),
            ejected: ejected(4_250),
            ..summary(&ledger)
        };
        assert!(!left.is_as_promised() && left.text().contains("left v42 BEFORE that"));
    }

    #[test]
    fn the_summary_fits_eighty_columns() {
        let mut ledger = Ledger::new(10_000);
        [0, 1, 5, 25].into_iter().for_each(|weight| ledger.begin_step(weight));
        ledger.begin_fault();
        ledger.faulted(1, at(4_100));
        let own_time = Some(Duration::from_micros(73));
        for meddled in [true, false] {
            let (completed, first_fault, ejected) = (true, Some(at(4_100)), ejected(14_250));
            let some =
                Summary { own_time, meddled, completed, first_fault, ejected, ..summary(&ledger) };
            for line in some.text().lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }
}
