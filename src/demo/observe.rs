//! The proxy's view of the versions, as in the metrics and the admin API.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::game::{BY, SERVICE, Version};
use crate::{
    analysis::Verdict,
    control::{
        events::{Event, EventKind},
        scrape,
        tasks::ControlPlane,
    },
    registry::Origin,
    snapshot,
    telemetry::{collector::Latency, histogram::Quantiles, metrics::State},
};

/// Interval of rates.
const RECENT: Duration = Duration::from_secs(2);

/// The state of the comparison of v42 with v41.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    /// Whether another client changed the split.
    pub(super) meddled: bool,
    /// How often a verdict ejected v42.
    pub(super) ejections: u64,
    /// The current verdict; `None` while nothing is compared.
    pub(super) verdict: Option<Verdict>,
    /// Since when v42 is ejected, if it is.
    pub(super) ejected_at: Option<std::time::Instant>,
}

/// Whether `event` is a change that neither the demonstration nor a verdict made.
fn is_meddling(event: &Event) -> bool {
    let by = event.matter.by.as_deref().unwrap_or_default();
    match event.kind {
        EventKind::Weights | EventKind::Reinstated | EventKind::RolloutStarted => by != BY,
        EventKind::Ejected => by != "verdict",
        EventKind::Rollout => ![BY, "rollout"].contains(&by),
        _ => false,
    }
}

/// The observed state of both versions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Observed {
    /// v41 and v42.
    pub(super) versions: [VersionSeen; 2],
}

/// The observed state of a version.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct VersionSeen {
    /// Its state.
    pub(super) state: State,
    /// Its weight.
    pub(super) weight: f64,
    /// Its share of players by the split, 0 to 1.
    pub(super) share: f64,
    /// Requests answered per second, over the last two seconds.
    pub(super) requests_per_second: f64,
    /// Requests that were answered 5xx, since start.
    pub(super) errors: u64,
    /// Its latency.
    pub(super) latency: Latency,
}

/// Observes the versions repeatedly.
#[derive(Debug)]
pub(super) struct Observer {
    observatory: ControlPlane,
    /// Requests finished by version, as of a time; oldest first.
    recent: VecDeque<(Instant, [u64; 2])>,
}

impl Observer {
    pub(super) fn new(observatory: ControlPlane) -> Self {
        Self { observatory, recent: VecDeque::new() }
    }

    /// The current state of the comparison.
    pub(super) fn judged(&self) -> Judged {
        let controller = self.observatory.controller();
        let canary = Version::V42.name();
        let verdicts = controller.verdicts(SERVICE).into_iter();
        Judged {
            meddled: controller.events().since(0).any(|event| is_meddling(event)),
            ejections: controller.ejected_by_verdict(SERVICE, canary),
            verdict: verdicts.map(|(_, _, verdict)| verdict).next(),
            ejected_at: controller.judged_at(SERVICE, canary).map(|at| controller.started().0 + at),
        }
    }

    /// The current state of both versions.
    pub(super) async fn look(&mut self) -> Observed {
        let (snapshot, latencies) = self.observatory.latencies_by_version().await;
        let services = snapshot.services.iter().zip(latencies);
        let service = services.into_iter().find(|(service, _)| *service.name == *SERVICE);
        let Some((service, latencies)) = service else { return Observed::default() };
        let of = |version: Version| {
            let known = service.versions.iter().position(|v| *v.name == *version.name());
            known.map(|at| (&service.versions[at], latencies[at]))
        };
        let versions = Version::ALL.map(of);
        let now = Instant::now();
        let count = |v: &snapshot::Version| v.state.ended(&Origin::ALL).0;
        let finished = versions.map(|known| known.map_or(0, |(v, _)| count(v)));
        let rates = self.rates(now, finished);
        let weights: f64 = service.versions.iter().map(|v| v.share_weight().value()).sum();
        let seen = |(known, requests_per_second): (Option<(&snapshot::Version, _)>, _)| {
            known.map_or_else(VersionSeen::default, |(version, latency)| VersionSeen {
                state: scrape::state(version),
                weight: version.weight.value(),
                share: version.share_weight().value() / weights,
                requests_per_second,
                errors: version.state.ended(&Origin::ALL).1,
                latency,
            })
        };
        let [v41, v42] = versions;
        let versions = [seen((v41, rates[0])), seen((v42, rates[1]))];
        Observed { versions }
    }

    fn rates(&mut self, now: Instant, finished: [u64; 2]) -> [f64; 2] {
        self.recent.push_back((now, finished));
        while self.recent.len() > 2 && now - self.recent[1].0 >= RECENT {
            self.recent.pop_front();
        }
        let (then, before) = self.recent[0];
        let seconds = (now - then).as_secs_f64();
        let rate = |at: usize| match finished[at] - before[at] {
            _ if seconds == 0.0 => 0.0,
            requests => requests as f64 / seconds,
        };
        [rate(0), rate(1)]
    }

    /// Mean time that the proxy adds to a request: from its head to the last byte of its response,
    /// minus the time from sending it to the version to the head of the response. `None` unless
    /// both were measured for the same requests.
    ///
    /// Means, because means of the same requests may be subtracted; quantiles may not.
    pub(super) async fn own_time(&self) -> Option<Duration> {
        let scrape = self.observatory.scrape().await;
        let whole = scrape.series.iter().filter(|series| series.service == SERVICE);
        let (whole, requests) = whole.fold((Duration::ZERO, 0), |(sum, n), series| {
            (sum + series.durations.sum(), n + series.durations.count())
        });
        let service = scrape.services.iter().find(|service| service.name == SERVICE)?;
        let endpoints = service.versions.iter().flat_map(|version| &version.endpoints);
        let waits: Vec<Quantiles> = endpoints.map(|endpoint| endpoint.total).collect();
        let waited: Duration = waits.iter().map(|wait| wait.sum).sum();
        let answers: u64 = waits.iter().map(|wait| wait.count).sum();
        let own = whole.checked_sub(waited).filter(|_| requests == answers && requests > 0)?;
        Some(own.div_f64(requests as f64))
    }
}
