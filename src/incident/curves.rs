//! The charts of an incident: failed requests, requests, and quantiles of latency, by version.
//!
//! Rates are drawn second by second, however long the time is: a mean over more would hide a fault of a second.

use std::time::SystemTime;

use super::{
    chart::{Chart, Line, Mark, MarkWeight},
    curve::{LatencyPoint, Role, VersionCurve},
    kind::Kind,
    model::{Incident, MomentSource},
    text::{number, offset_s, parsed, ratio},
};

/// Length of a point of latency, in seconds.
const COARSE_S: f64 = 5.0;

/// Most notes at the axis of time.
const MOST_NOTES: usize = 40;

/// The charts, in the order of the page.
pub(super) fn charts(incident: &Incident) -> Vec<Chart> {
    let frame = Frame::of(incident);
    let errors = frame.by_rates(Named {
        key: "failed",
        title: "Failed requests",
        unit: "% of requests, each second",
        least_top: 1.0,
        of: |requests, failures| ratio(failures, requests).map(|share| 100.0 * share),
    });
    let requests = frame.by_rates(Named {
        key: "requests",
        title: "Requests",
        unit: "per second",
        least_top: 1.0,
        of: |requests, _| Some(requests as f64),
    });
    let p50 = frame.by_latency("p50", "Latency, p50: half of the responses", |point| point.p50_ms);
    let p95 = frame.by_latency("p95", "Latency, p95", |point| point.p95_ms);
    let p99 = frame.by_latency("p99", "Latency, p99", |point| point.p99_ms);
    vec![errors, requests, p50, p95, p99]
}

/// A chart of rates.
struct Named {
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    least_top: f64,
    /// The value of a second: of requests and failures.
    of: fn(u64, u64) -> Option<f64>,
}

/// What all charts of an incident share.
struct Frame<'a> {
    versions: &'a [VersionCurve],
    origin: SystemTime,
    span_s: (f64, f64),
    /// Until then the curves are known.
    known_s: f64,
    marks: Vec<Mark>,
}

impl<'a> Frame<'a> {
    fn of(incident: &'a Incident) -> Self {
        let origin = parsed(&incident.at).unwrap_or(SystemTime::UNIX_EPOCH);
        let offset = |at: &str| parsed(at).map_or(0.0, |at| offset_s(at, origin));
        let from = offset(&incident.covers.from).min(-COARSE_S);
        let known_s = offset(&incident.covers.until);
        let span_s = (from, known_s.max(COARSE_S));
        Self { versions: &incident.versions, origin, span_s, known_s, marks: marks(incident) }
    }

    fn chart(&self, key: &'static str, title: &str, unit: &'static str, lines: Vec<Line>) -> Chart {
        Chart {
            key,
            title: title.to_owned(),
            description: described(title, unit, &lines),
            unit,
            origin: self.origin,
            span_s: self.span_s,
            least_top: 0.0,
            lines,
            marks: self.marks.clone(),
        }
    }

    fn by_rates(&self, named: Named) -> Chart {
        let Named { key, title, unit, least_top, of } = named;
        let lines = self.lines(|version| {
            let seconds = self.seconds(version);
            pieces(seconds.map(|(at, sum)| (at, of(sum.0, sum.1))))
        });
        Chart { least_top, ..self.chart(key, title, unit, lines) }
    }

    fn by_latency(&self, key: &'static str, title: &str, of: fn(&LatencyPoint) -> f64) -> Chart {
        let lines = self.lines(|version| {
            let mut before: Option<f64> = None;
            let mut points = Vec::new();
            for point in &version.latency {
                if before.is_some_and(|before| point.from_s - before > 1.5 * COARSE_S) {
                    points.push((point.from_s, None));
                }
                before = Some(point.from_s);
                points.push((point.from_s + COARSE_S / 2.0, Some(of(point))));
            }
            pieces(points.into_iter())
        });
        self.chart(key, title, "ms, each five seconds", lines)
    }

    fn lines(&self, pieces: impl Fn(&VersionCurve) -> Vec<Vec<(f64, f64)>>) -> Vec<Line> {
        let mut others = 2..;
        let each = self.versions.iter().map(|version| Line {
            name: match version.role {
                Role::Baseline => format!("{} (baseline)", version.name),
                Role::Subject | Role::Other => version.name.clone(),
            },
            look: match version.role {
                Role::Subject => 0,
                Role::Baseline => 1,
                Role::Other => others.next().unwrap_or(2),
            },
            pieces: pieces(version),
        });
        each.collect()
    }

    /// The seconds of a version, between two of which the incident is: the middle, and requests and failures.
    fn seconds(&self, version: &VersionCurve) -> impl Iterator<Item = (f64, (u64, u64))> {
        let (first, last) = (self.span_s.0.ceil() as i64, self.known_s.floor() as i64);
        let rates = version.rates.clone();
        (first..last).map(move |nth| {
            let from = nth as f64;
            (from + 0.5, rates.sum(from, from + 1.0))
        })
    }
}

/// Points without gaps.
fn pieces(points: impl Iterator<Item = (f64, Option<f64>)>) -> Vec<Vec<(f64, f64)>> {
    let mut pieces = vec![Vec::new()];
    for (at, value) in points {
        match (value, pieces.last_mut()) {
            (Some(value), Some(piece)) => piece.push((at, value)),
            (None, Some(piece)) if !piece.is_empty() => pieces.push(Vec::new()),
            _ => {}
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// The chart in words: the mean and the largest value before the incident, and the mean after it.
fn described(title: &str, unit: &str, lines: &[Line]) -> String {
    let mut text = format!("{title}, {unit}, by version over time.");
    for line in lines {
        let points = || line.pieces.iter().flatten();
        let mean = |values: Vec<f64>| {
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let before: Vec<f64> = points().filter(|(at, _)| *at < 0.0).map(|(_, v)| *v).collect();
        let after: Vec<f64> = points().filter(|(at, _)| *at >= 0.0).map(|(_, v)| *v).collect();
        let most = before.iter().copied().fold(0.0, f64::max);
        let shown = |mean: Option<f64>| mean.map_or("no values".to_owned(), number);
        text.push_str(&format!(
            " {}: mean before the incident {}, at most {}; mean after it {}.",
            line.name,
            shown(mean(before)),
            number(most),
            shown(mean(after))
        ));
    }
    text
}

/// The incident, the onset, and other events.
fn marks(incident: &Incident) -> Vec<Mark> {
    let label = match incident.kind {
        Kind::Ejected | Kind::EndpointEjected => "ejected",
        Kind::RolledBack | Kind::RolloutRolledBack => "rolled back",
        Kind::RolloutDone => "done",
        Kind::RolloutAborted => "aborted",
    };
    let mut marks = Vec::new();
    let notes = incident.timeline.iter().rev();
    let notes =
        notes.filter(|moment| moment.source != MomentSource::Verdict && moment.offset_s != 0.0);
    for moment in notes.take(MOST_NOTES) {
        let label = format!("{} {}", &moment.at, moment.what);
        marks.push(Mark { at_s: moment.offset_s, label, weight: MarkWeight::Note });
    }
    let onset = incident.timeline.iter().find(|moment| moment.source == MomentSource::Verdict);
    marks.extend(onset.map(|moment| Mark {
        at_s: moment.offset_s,
        label: moment.what.clone(),
        weight: MarkWeight::Onset,
    }));
    marks.push(Mark { at_s: 0.0, label: label.to_owned(), weight: MarkWeight::Incident });
    marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::{
        example::{evidence, opened},
        kind::State,
    };

    fn incident() -> Incident {
        Incident::new(&opened(), evidence(), State::Complete, None)
    }

    #[test]
    fn there_is_a_line_of_each_version_in_each_chart() {
        let charts = charts(&incident());
        let keys: Vec<_> = charts.iter().map(|chart| chart.key).collect();
        assert_eq!(keys, ["failed", "requests", "p50", "p95", "p99"]);
        for chart in &charts {
            let lines: Vec<_> = chart.lines.iter().map(|line| (&*line.name, line.look)).collect();
            assert_eq!(lines, [("v42", 0), ("v41 (baseline)", 1)]);
            assert!(chart.lines.iter().all(|line| !line.pieces.is_empty()), "{}", chart.key);
            assert_eq!(chart.span_s, (-300.0, 60.0));
        }
        // Without requests there is no share of failed ones.
        let failed = &charts[0].lines[0].pieces;
        let last = failed.last().and_then(|piece| piece.last()).expect("points");
        assert!((last.0, last.1) == (-0.5, 30.0), "{last:?}");
        let about = &charts[0].description;
        assert!(
            about.contains(
                "v42: mean before the incident 0.833, at most 30; mean after it no values."
            ),
            "{about}"
        );
    }

    /// Regression: of more than 100 seconds a point was the mean of five, so that a second in which a third of all
    /// requests failed was drawn as 7 %.
    #[test]
    fn a_second_of_failures_is_drawn_as_high_as_it_was() {
        let mut incident = incident();
        let rates = &mut incident.versions[0].rates;
        let nth = rates.requests.len() - 90;
        (rates.requests[nth], rates.failures[nth]) = (90, 30);
        let failed = &charts(&incident)[0];
        let at_s = rates_at(&incident, nth);
        let points = || failed.lines[0].pieces.iter().flatten();
        let point = points().find(|(at, _)| (at - at_s).abs() < 0.5).expect("a point");
        assert!((point.1 - 100.0 / 3.0).abs() < 1e-9, "{point:?}");
        assert_eq!(failed.unit, "% of requests, each second");
    }

    /// The middle of that second.
    fn rates_at(incident: &Incident, nth: usize) -> f64 {
        incident.versions[0].rates.from_s + nth as f64 + 0.5
    }

    #[test]
    fn a_gap_interrupts_a_line() {
        let points =
            [(1.0, Some(1.0)), (2.0, None), (3.0, None), (4.0, Some(2.0)), (5.0, Some(3.0))];
        let found = pieces(points.into_iter());
        assert_eq!(found, [vec![(1.0, 1.0)], vec![(4.0, 2.0), (5.0, 3.0)]]);
        assert!(pieces(std::iter::empty()).is_empty());
    }

    #[test]
    fn the_incident_is_marked_and_what_else_happened() {
        let marks = marks(&incident());
        let shown: Vec<_> = marks.iter().map(|mark| (mark.at_s, mark.weight)).collect();
        let of = |at_s| (at_s, MarkWeight::Note);
        let onset = (-0.9, MarkWeight::Onset);
        assert_eq!(shown, [of(12.0), of(-180.0), onset, (0.0, MarkWeight::Incident)]);
    }
}
