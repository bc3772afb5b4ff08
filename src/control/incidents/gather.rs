//! What is known around an incident: rates, latency, events, and entries of the journal.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    control::{events::Event, tasks::ControlPlane},
    incident::{
        Evidence, FailedSecond, JournalEntry, LatencyPoint, Moment, MomentSource, Moments, Opened,
        RateCurve, Role, Sums, VersionCurve, offset_s, thousandths,
    },
    rollout::Judged,
    snapshot::{Service, Version},
    store::{EntryKind, Filter, Reader},
    telemetry::{histogram::SliceQuantiles, rates::Second},
};

/// Time after an incident that its report covers.
pub const AFTERMATH: Duration = Duration::from_secs(60);

/// Time before an incident that its curves cover.
const BEFORE: Duration = Duration::from_secs(300);

/// The same of a rollout: all that is kept.
const BEFORE_END: Duration = Duration::from_secs(600);

/// Events before an incident that its timeline has, and entries of the journal.
const EVENTS_BEFORE: Duration = Duration::from_secs(600);
const ENTRIES_BEFORE: Duration = Duration::from_secs(1_800);

/// Most events, and entries of the journal, in a report.
const MOST_EVENTS: usize = 200;
const MOST_ENTRIES: usize = 60;

/// Most versions with curves in a report.
const MOST_VERSIONS: usize = 4;

/// Where seconds of the process are on the clock.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// The incident.
    at: SystemTime,
    now: (Instant, SystemTime),
    started: Instant,
}

impl Clock {
    /// `instant` in seconds since the incident.
    fn offset_s(self, instant: Instant) -> f64 {
        let since_now = match instant.checked_duration_since(self.now.0) {
            Some(after) => after.as_secs_f64(),
            None => -self.now.0.duration_since(instant).as_secs_f64(),
        };
        thousandths(since_now + offset_s(self.now.1, self.at))
    }

    /// The number of the second of the process in which a moment `offset_s` after the incident is.
    fn second(self, offset_s: f64) -> u32 {
        let origin_s = self.offset_s(self.started);
        (offset_s - origin_s).floor().clamp(0.0, f64::from(u32::MAX)) as u32
    }
}

/// The rates of `seconds` without gaps, from second `first` up to `last`, exclusive.
fn dense(seconds: &[Second], (first, last): (u32, u32), from_s: f64) -> RateCurve {
    let length = last.saturating_sub(first) as usize;
    let mut curve = RateCurve { from_s, requests: vec![0; length], failures: vec![0; length] };
    for second in seconds {
        let place = second.at_s.checked_sub(first).map(|place| place as usize);
        if let Some(place) = place.filter(|place| *place < length) {
            (curve.requests[place], curve.failures[place]) = (second.requests, second.failures);
        }
    }
    curve
}

impl ControlPlane {
    /// What is known now around `opened`, without the journal.
    pub(super) fn evidence(&self, opened: &Opened) -> Evidence {
        self.note_rates();
        let (snapshot, started, instance) = {
            let controller = self.controller();
            (controller.snapshot(), controller.started(), controller.instance())
        };
        let clock =
            Clock { at: opened.at, now: (Instant::now(), SystemTime::now()), started: started.0 };
        let before = if opened.happened.rollout.is_some() { BEFORE_END } else { BEFORE };
        let from = opened.at.checked_sub(before).unwrap_or(opened.at).max(started.1).min(opened.at);
        let until = clock.now.1.min(opened.at + AFTERMATH).max(opened.at);
        let span = (offset_s(from, opened.at), offset_s(until, opened.at));
        let service = snapshot.service(&opened.happened.service);
        let versions = service.map(|service| self.curves(service, opened, clock, span));
        Evidence {
            from,
            until,
            events: self.events_near(opened, until),
            journal: Vec::new(),
            versions: versions.unwrap_or_default(),
            moments: service
                .map(|service| self.moments(service, opened, clock))
                .unwrap_or_default(),
            instance,
        }
    }

    /// What the versions of `service` had counted at the moments from which, and up to which, a harm is counted.
    fn moments(&self, service: &Service, opened: &Opened, clock: Clock) -> Moments {
        let history = self.history();
        let until = |second: u32| -> Sums {
            let each = service.versions.iter();
            let of = |version: &Version| history.until(version.state.id, second);
            each.map(|version| (version.name.to_string(), of(version))).collect()
        };
        let window_s = -BEFORE.as_secs_f64();
        let is_known = window_s > clock.offset_s(clock.started);
        let earlier = opened.earlier.as_ref().map(|earlier| offset_s(earlier.at, opened.at));
        Moments {
            incident: until(clock.second(0.0)),
            // The second in which it begins counts.
            window: match clock.second(window_s).checked_sub(1).filter(|_| is_known) {
                Some(second) => until(second),
                None => Sums::default(),
            },
            earlier: earlier.map(|at_s| until(clock.second(at_s))),
        }
    }

    fn curves(
        &self,
        service: &Service,
        opened: &Opened,
        clock: Clock,
        (from_s, until_s): (f64, f64),
    ) -> Vec<VersionCurve> {
        // The last second may still go on.
        let bounds = (clock.second(from_s), clock.second(until_s) + 1);
        let origin_s = clock.offset_s(clock.started);
        let role = |name: &str| match name {
            _ if name == opened.happened.version => Role::Subject,
            _ if Some(name) == opened.baseline.as_deref() => Role::Baseline,
            _ => Role::Other,
        };
        let each = service.versions.iter().map(|version| {
            let seconds = self.history().since(version.state.id, bounds.0);
            let failed = self.history().failed_since(version.state.id, bounds.0);
            let begins_s = |second: u32| thousandths(origin_s + f64::from(second));
            let failed = failed.into_iter().filter(|(second, _)| *second < bounds.1);
            let failed =
                failed.map(|(second, kinds)| FailedSecond { from_s: begins_s(second), kinds });
            VersionCurve {
                name: version.name.to_string(),
                role: role(&version.name),
                rates: dense(&seconds, bounds, begins_s(bounds.0)),
                latency: self.latency(version, clock, (from_s, until_s)),
                failed_attempts: failed.collect(),
            }
        });
        let requests =
            |curve: &VersionCurve| curve.rates.requests.iter().map(|n| u64::from(*n)).sum::<u64>();
        let mut each: Vec<_> = each.collect();
        each.retain(|curve| curve.role != Role::Other || requests(curve) > 0);
        each.sort_by_key(|curve| (curve.role == Role::Other, u64::MAX - requests(curve)));
        each.truncate(MOST_VERSIONS);
        each
    }

    fn latency(
        &self,
        version: &Version,
        clock: Clock,
        (from_s, until_s): (f64, f64),
    ) -> Vec<LatencyPoint> {
        let past = self.latencies().collector.past(version.state.id, clock.now.0);
        let points = past.into_iter().map(|(from, slice)| point(clock.offset_s(from), slice));
        points.filter(|point| (from_s - 5.0..until_s).contains(&point.from_s)).collect()
    }

    /// Events of the service and of the process around the incident.
    fn events_near(&self, opened: &Opened, until: SystemTime) -> Vec<Moment> {
        let from = beginning(opened, EVENTS_BEFORE);
        let controller = self.controller();
        let events = controller.events().since(0).filter_map(|event| {
            let of = event.matter.service.as_deref();
            let is_near = of.is_none_or(|of| of == opened.happened.service);
            let at = humantime::parse_rfc3339(&event.at).ok().filter(|_| is_near)?;
            (from <= at && at <= until).then(|| moment(event, at, opened))
        });
        let mut events: Vec<_> = events.collect();
        events.drain(..events.len().saturating_sub(MOST_EVENTS));
        events
    }
}

/// Entries of the journal in `folder` around an incident, the oldest first. Blocks. Without a journal that can be
/// read, none: a report is worth more than its entries.
pub(super) fn entries_near(folder: &Path, opened: &Opened, until: SystemTime) -> Vec<JournalEntry> {
    let filter = Filter {
        from: Some(beginning(opened, ENTRIES_BEFORE)),
        to: until.checked_add(Duration::from_secs(1)),
        limit: Some(1_000),
        newest_first: true,
        ..Filter::default()
    };
    let entries = Reader::open(folder).and_then(|reader| reader.show(&filter));
    let entries = entries.unwrap_or_else(|error| {
        tracing::warn!(%error, incident = %opened.id, "the report has no entries of the journal");
        Vec::new()
    });
    let is_near = |entry: &JournalEntry| {
        entry.service.as_deref().is_none_or(|of| of == opened.happened.service)
    };
    let near = entries.iter().map(JournalEntry::from).filter(is_near);
    let mut near: Vec<_> = near.take(MOST_ENTRIES).collect();
    near.reverse();
    near
}

/// What gates had said when the rollout that ended went on, by the journal in `folder`, the oldest first; nothing for
/// other incidents, or if it cannot be read. Blocks.
pub(super) fn judged(folder: &Path, opened: &Opened) -> Vec<Judged> {
    let Some(review) = &opened.happened.rollout else { return Vec::new() };
    let filter = Filter {
        service: Some(opened.happened.service.clone()),
        kind: Some(EntryKind::Rollout.label().to_owned()),
        from: humantime::parse_rfc3339(&review.started_at).ok(),
        to: opened.at.checked_add(Duration::from_secs(1)),
        limit: Some(1_000),
        newest_first: true,
        ..Filter::default()
    };
    let entries = Reader::open(folder).and_then(|reader| reader.show(&filter)).unwrap_or_default();
    let of_it = entries.iter().filter(|stored| stored.entry.after["version"] == *review.to);
    let judged = |judged: &serde_json::Value| serde_json::from_value(judged.clone()).ok();
    of_it.rev().filter_map(|stored| judged(&stored.entry.after["judged"])).collect()
}

/// The beginning of what is told: `before` the incident, or the start of its rollout.
fn beginning(opened: &Opened, before: Duration) -> SystemTime {
    let from = opened.at.checked_sub(before).unwrap_or(SystemTime::UNIX_EPOCH);
    let rollout = opened.happened.rollout.as_ref();
    let started = rollout.and_then(|review| humantime::parse_rfc3339(&review.started_at).ok());
    started.map_or(from, |started| started.min(from))
}

fn point(from_s: f64, slice: SliceQuantiles) -> LatencyPoint {
    let ms = |us: u32| f64::from(us) / 1e3;
    LatencyPoint {
        from_s,
        count: slice.count,
        p50_ms: ms(slice.p50_us),
        p95_ms: ms(slice.p95_us),
        p99_ms: ms(slice.p99_us),
    }
}

fn moment(event: &Event, at: SystemTime, opened: &Opened) -> Moment {
    let matter = &event.matter;
    let subject: Vec<&str> = [&matter.version, &matter.endpoint, &matter.route]
        .into_iter()
        .flatten()
        .map(|s| &**s)
        .collect();
    let own = matter.incident.as_ref().map(|incident| incident.id.clone());
    let moment = Moment {
        source: MomentSource::Event,
        subject: (!subject.is_empty()).then(|| subject.join(" ")),
        by: matter.by.clone(),
        incident: own.clone().filter(|id| *id != opened.id),
        ..Moment::event(at, opened.at, event.kind.label(), matter.reason.clone())
    };
    match own {
        // The event has milliseconds, the incident more.
        Some(id) if id == opened.id => Moment { offset_s: 0.0, ..moment },
        _ => moment,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_of_the_process_are_found_on_the_clock() {
        let started = Instant::now();
        let now = (
            started + Duration::from_secs(100),
            SystemTime::UNIX_EPOCH + Duration::from_secs(5_000),
        );
        let clock = Clock { at: now.1 - Duration::from_millis(60_250), now, started };
        assert_eq!(clock.offset_s(started), -39.75);
        assert_eq!(clock.offset_s(started + Duration::from_secs(40)), 0.25);
        assert_eq!((clock.second(-39.75), clock.second(0.25), clock.second(-500.0)), (0, 40, 0));
    }

    #[test]
    fn seconds_without_requests_are_zeros() {
        let second = |at_s, requests, failures| Second { at_s, requests, failures };
        let seconds = [second(9, 1, 1), second(10, 5, 1), second(12, 7, 0), second(13, 9, 9)];
        let curve = dense(&seconds, (10, 13), -3.5);
        assert_eq!(
            (curve.from_s, curve.requests, curve.failures),
            (-3.5, vec![5, 0, 7], vec![1, 0, 0])
        );
        assert_eq!(dense(&seconds, (10, 10), 0.0).requests, Vec::<u32>::new());
    }
}
