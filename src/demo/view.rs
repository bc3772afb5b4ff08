//! The live view as text: a frame for a terminal, a line for anything else. Pure.
//!
//! A frame is at most [`COLUMNS`] wide and always of the same height, so that it can be drawn over
//! the last one. Versions are distinguished by sign as well as by color.

mod evidence;

use std::fmt::Display;

use crossterm::style::{Color, Stylize};

pub(super) use self::evidence::{chart, wrapped};
use super::{
    game::{SERVICE, Version},
    ledger::{Ledger, Move, Seat},
    observe::{Observed, VersionSeen},
    script::{FAULT, Moment, STEPS, WEIGHTS, expected, title},
    trace::Trace,
};
use crate::telemetry::{histogram::Quantiles, metrics::State};

/// Widest line.
pub(super) const COLUMNS: usize = 80;
/// Lines of a frame.
pub(super) const LINES: usize = MAP_ROWS + evidence::ROWS + evidence::REASON + 10;
/// Width between the margins.
pub(super) const INNER: usize = COLUMNS - 4;
/// Rows of the map of players.
const MAP_ROWS: usize = 6;
/// Cells of the bar that shows a version's share.
const BAR: usize = 10;

const V41: Color = Color::Blue;
const V42: Color = Color::Green;
const ARRIVED: Color = Color::Yellow;
const WRONG: Color = Color::Red;

/// The data that is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene<'a> {
    /// The current moment of the script.
    pub(super) moment: Moment,
    /// The proxy's view.
    pub(super) observed: &'a Observed,
    /// The players' view.
    pub(super) ledger: &'a Ledger,
    /// The evidence against v42.
    pub(super) trace: &'a Trace,
    /// The verdict as a sentence; empty while nothing is compared.
    pub(super) reason: &'a str,
    /// Address and port of the admin API.
    pub(super) admin: &'a str,
}

impl Scene<'_> {
    /// Whether v42 is ejected.
    fn is_ejected(&self) -> bool {
        self.observed.versions[Version::V42 as usize].state == State::Ejected
    }
}

/// The command that shows what became of the rollout.
pub(super) fn its_end(admin: &str) -> String {
    format!("curl http://{admin}/v1/services/{SERVICE}/rollout")
}

/// The frame of a terminal, [`LINES`] lines.
pub(super) fn frame(scene: &Scene<'_>) -> Vec<String> {
    let mut lines = vec![heading(scene), timeline(scene.moment), table_head()];
    lines.extend(Version::ALL.map(|version| row(version, scene)));
    lines.extend(map(scene.ledger.seats()));
    lines.extend([legend(scene), moves(scene.ledger), String::new()]);
    let bars = if scene.trace.is_decided() { WRONG } else { ARRIVED };
    lines.extend(chart(scene.trace).map(|row| format!("  {}", row.with(bars))));
    lines.extend(evidence::reason(scene.reason).into_iter().map(|text| format!("  {text}")));
    let first = match scene.is_ejected() {
        true => format!("its rollout: {}", its_end(scene.admin)),
        false => String::new(),
    };
    let second = format!("curl http://{}/v1/services", scene.admin);
    let end = "Ctrl-C ends it";
    lines.push(format!("  {first}").dim().to_string());
    lines.push(format!("  {second:<0$}{end}", INNER - end.len()).dim().to_string());
    lines
}

/// The same in one line.
pub(super) fn line(scene: &Scene<'_>) -> String {
    let Moment { step, left, .. } = scene.moment;
    let [v41, v42] = &scene.observed.versions;
    let (ledger, players) = (scene.ledger, scene.ledger.on(Version::V42));
    let (moved, to, elsewhere) = moved(ledger);
    let evidence = match scene.trace.latest() {
        Some(latest) => format!("{latest:.1} of {:.1}", scene.trace.threshold()),
        None => "none".to_owned(),
    };
    format!(
        "step {}/{STEPS} {:>3.0} s left: v42 {}, weight {:>2}, {players} of {} players; \
         {:.0} + {:.0} req/s, p99 {} and {} ms; {moved} moved to {}, {elsewhere} elsewhere; \
         {} absorbed, {}, {}; evidence {evidence}",
        step + 1,
        left.as_secs_f64(),
        state(v42.state),
        v42.weight,
        ledger.seats().len(),
        v41.requests_per_second,
        v42.requests_per_second,
        millis(&v41.latency.minute, |q| q.p99).trim(),
        millis(&v42.latency.minute, |q| q.p99).trim(),
        to.name(),
        ledger.faults().absorbed,
        counted(ledger.faults().count, "fault"),
        counted(ledger.failures(), "failure"),
    )
}

fn heading(scene: &Scene<'_>) -> String {
    let Moment { step, left, .. } = scene.moment;
    let at = format!("step {} of {STEPS}, {:4.1} s left", step + 1, left.as_secs_f64());
    let text = match scene.is_ejected() {
        true => "v42 is ejected; everybody plays on v41".to_owned(),
        false => title(step),
    };
    let gap = INNER.saturating_sub("tidegate".len() + 3 + text.chars().count() + at.len());
    format!("  {}   {}{:gap$}{}", "tidegate".bold().with(V42), text.bold(), "", at.dim())
}

/// The steps as one bar each, filled by progress.
fn timeline(moment: Moment) -> String {
    let mut labels: Vec<_> = WEIGHTS.iter().map(|weight| format!("{weight} % ")).collect();
    labels.push("fault ".to_owned());
    let texts: usize = labels.iter().map(String::len).sum();
    let width = (INNER - texts - (STEPS - 1)) / STEPS;
    let each = labels.into_iter().enumerate().map(|(step, label)| {
        let full = match step.cmp(&moment.step) {
            std::cmp::Ordering::Less => width,
            std::cmp::Ordering::Equal => width * usize::from(moment.permille) / 1000,
            std::cmp::Ordering::Greater => 0,
        };
        let label = if step <= moment.step { label.bold() } else { label.dim() };
        let filled = "━".repeat(full).with(if step == FAULT { WRONG } else { V42 });
        format!("{label}{filled}{}", "─".repeat(width - full).dim())
    });
    format!("  {}", each.collect::<Vec<_>>().join(" "))
}

fn table_head() -> String {
    let text = format!(
        "  version    state weight    share  {:BAR$}     seen   req/s errors  p99 ms",
        "players"
    );
    text.dim().to_string()
}

fn row(version: Version, scene: &Scene<'_>) -> String {
    let seen = &scene.observed.versions[version as usize];
    let VersionSeen { weight, share, requests_per_second, errors, latency, .. } = seen;
    let state = format!("{:>8}", state(seen.state));
    let state = if seen.state == State::Ejected { state.with(WRONG).bold() } else { state.reset() };
    let players = scene.ledger.on(version) as f64 / scene.ledger.seats().len() as f64;
    let errors = format!("{errors:>6}");
    let errors = if seen.errors > 0 { errors.with(WRONG).bold() } else { errors.reset() };
    let (filled, rest) = bar(players);
    format!(
        "  {} {state} {weight:>6} {:>6.1} %  {}{} {:>6.1} % {requests_per_second:>7.0} {errors} {}",
        format!("{:<7}", version.name()).with(color(version)).bold(),
        share * 100.0,
        filled.with(color(version)),
        rest.dim(),
        players * 100.0,
        millis(&latency.minute, |q| q.p99),
    )
}

/// The state as in the admin API.
fn state(state: State) -> &'static str {
    match state {
        State::Serving => "serving",
        State::Idle => "idle",
        State::Draining => "draining",
        State::Ejected => "ejected",
    }
}

fn color(version: Version) -> Color {
    match version {
        Version::V41 => V41,
        Version::V42 => V42,
    }
}

/// A bar of [`BAR`] cells, filled to the precision of an eighth, and its empty rest.
fn bar(share: f64) -> (String, String) {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    // A share above 0 is shown as at least an eighth.
    let eighths = (share * (BAR * 8) as f64).round().max(f64::from(u8::from(share > 0.0)));
    let eighths = (eighths as usize).min(BAR * 8);
    let filled = "█".repeat(eighths / 8) + EIGHTHS[eighths % 8];
    (filled, "·".repeat(BAR - eighths.div_ceil(8)))
}

/// Every player as a sign, in order of number; if there are too many, the first ones.
fn map(seats: &[Seat]) -> Vec<String> {
    let columns = seats.len().div_ceil(MAP_ROWS).clamp(1, INNER);
    let mut rows: Vec<String> = seats
        .chunks(columns)
        .take(MAP_ROWS)
        .map(|seats| format!("  {}", seats.iter().map(sign).collect::<String>()))
        .collect();
    rows.resize(MAP_ROWS, String::new());
    rows
}

fn sign(seat: &Seat) -> String {
    let sign = match (seat.moved, seat.version) {
        (Some(Move::Elsewhere), _) => "!".with(WRONG).bold(),
        (Some(Move::ToGrowing), _) => "◆".with(ARRIVED),
        (None, Some(Version::V42)) => "■".with(V42),
        (None, Some(Version::V41)) => "·".with(V41),
        (None, None) => " ".reset(),
    };
    sign.to_string()
}

fn legend(scene: &Scene<'_>) -> String {
    let (ledger, players) = (scene.ledger, scene.ledger.seats().len());
    let weight = ledger.steps().last().map_or(0, |step| step.weight);
    let (mean, spread) = expected(if scene.is_ejected() { 0 } else { weight }, players);
    let (_, to, _) = moved(ledger);
    let arrived = |version| match version == to {
        true => "◆".with(ARRIVED).to_string(),
        false => String::new(),
    };
    let shown = MAP_ROWS * INNER;
    let last = match players {
        players if players > shown => format!("(the first {shown} shown)"),
        _ => format!("{} new in this step", "◆".with(ARRIVED)),
    };
    format!(
        "  {}{} {} on v41   {}{} {} on v42 ({mean:.0} ± {spread:.0} expected)   {last}",
        "·".with(V41).bold(),
        arrived(Version::V41),
        ledger.on(Version::V41),
        "■".with(V42),
        arrived(Version::V42),
        ledger.on(Version::V42),
    )
}

/// Moves of this step: the number to the expected version, that version, and the number of other
/// moves.
fn moved(ledger: &Ledger) -> (usize, Version, usize) {
    ledger.steps().last().map_or((0, Version::V42, 0), |step| {
        (step.to_growing, step.growing.unwrap_or(Version::V42), step.elsewhere)
    })
}

fn moves(ledger: &Ledger) -> String {
    let (moved, to, elsewhere) = moved(ledger);
    let elsewhere = match elsewhere {
        0 => "0 elsewhere".to_owned().with(V42),
        n => format!("{n} ELSEWHERE").with(WRONG).bold(),
    };
    let faults = match ledger.faults().count {
        0 => String::new(),
        n => {
            let ending = if n == 1 { "" } else { "s" };
            format!("{} fault{ending}, ", n.to_string().with(WRONG).bold())
        }
    };
    let absorbed = match ledger.faults().absorbed {
        0 => String::new(),
        n => format!("{} absorbed, ", n.to_string().bold()),
    };
    let failures = match ledger.failures() {
        0 => "0 failures".to_owned().with(V42),
        n => counted(n, "failure").to_uppercase().with(WRONG).bold(),
    };
    format!(
        "  moved: {} to {}, {elsewhere}; {} requests, {absorbed}{faults}{failures}",
        moved.to_string().bold(),
        to.name(),
        thousands(ledger.requests()).bold(),
    )
}

/// `1 fault`, `2 faults`.
pub(super) fn counted(number: u64, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// A number with separated thousands.
pub(super) fn thousands(number: impl Display) -> String {
    let digits = number.to_string();
    let parts: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|part| std::str::from_utf8(part).unwrap_or_default())
        .collect();
    parts.join(",")
}

/// A quantile in milliseconds, 7 columns; a dash if there is none.
pub(super) fn millis(of: &Quantiles, quantile: fn(&Quantiles) -> std::time::Duration) -> String {
    match of.count {
        0 => format!("{:>7}", "-"),
        _ => format!("{:>7.1}", quantile(of).as_secs_f64() * 1e3),
    }
}

#[cfg(test)]
mod tests;
