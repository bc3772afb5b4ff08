//! Collects blocks: turns the workers' rings and cells into plain data. Judges nothing.

mod account;
mod alone;
mod amounts;
mod asked;
mod line;
mod outage;
mod places;
mod service;
mod slots;
mod speed;
mod spread;
mod traffic;

use std::time::Duration;

use indexmap::IndexMap;

use self::places::Places;
pub(super) use self::service::{CarriedCollector, ServiceCollector};
use crate::{analysis::Ending, snapshot::Snapshot};

/// An evaluation that is late by more than this means that the process or the machine was stopped. Deadlines
/// then pass although the answers have arrived. A busy machine is late by less.
const STOPPED: Duration = Duration::from_millis(250);

/// Shortest time between two stops that are both excused: on a machine that is always late, a version that
/// hangs must still be found.
const STEADY: Duration = Duration::from_secs(3);

/// The collectors of all services of this process.
#[derive(Debug, Default)]
pub(super) struct Collector {
    pub(super) services: IndexMap<Box<str>, ServiceCollector>,
    places: Places,
    /// Number of outcomes lost so far.
    lost: u64,
    /// When the next evaluation is due.
    due: Option<Duration>,
    /// When the process last continued after a stop.
    went_on: Option<Duration>,
}

impl Collector {
    /// Notes where the attempts that `snapshot` compares are counted. All its services must have been followed
    /// before.
    pub(super) fn place(&mut self, snapshot: &Snapshot) {
        self.places = Places::new(snapshot, |service| self.services.get_index_of(service));
    }

    /// Begins the next evaluation, and takes the outcomes that the workers reported since the last one.
    pub(super) fn collect_outcomes(&mut self, snapshot: &Snapshot, now: Duration) {
        let compared = snapshot.services.iter().filter_map(|service| service.compared.as_ref());
        let Some(outcomes) = compared.map(|compared| &compared.outcomes).next() else { return };
        let look = outcomes.next_look();
        self.services.values_mut().for_each(|service| service.look(look, now));
        // After the counts were read, so that a counted request never has the number of a later evaluation.
        outcomes.begin_look(look);
        if self.was_stopped(now) {
            tracing::debug!(
                "a look came far too late, as after a stop of the process; \
                what began before it is not judged"
            );
            self.services.values_mut().for_each(|service| service.forget_before(look, now));
        }
        let lost = outcomes.lost();
        if std::mem::replace(&mut self.lost, lost) != lost {
            // Requests whose outcomes were lost would wait forever, and so count against the baseline.
            self.services.values_mut().for_each(|service| service.skip_to(now));
        }
        outcomes.drain(|endings| {
            self.fetch(endings);
            endings.iter().for_each(|ending| self.take_in(snapshot, ending, look, now));
        });
    }

    /// Notes that the next evaluation is due `pause` after `now`, the time of the last one. If it comes far later,
    /// the process was stopped meanwhile.
    pub(super) fn expect_after(&mut self, pause: Option<Duration>, now: Duration) {
        self.due = pause.map(|pause| now + pause);
    }

    /// Whether the process was stopped for a part of the time before the evaluation that begins at `now`.
    fn was_stopped(&mut self, now: Duration) -> bool {
        let Some(due) = self.due.take() else { return false };
        let is_steady = self.went_on.is_none_or(|went_on| now.saturating_sub(went_on) >= STEADY);
        let was_stopped = is_steady && now.saturating_sub(due) >= STOPPED;
        if was_stopped {
            self.went_on = Some(now);
        }
        was_stopped
    }

    /// Prefetches the records of the players in `endings`. Players are random, so each record is a cache miss:
    /// the misses cost little more than one when they overlap, and most of the time per outcome when they do
    /// not.
    fn fetch(&self, endings: &[Ending]) {
        let marks = endings.iter().map(|ending| {
            let place = self.places.of(ending.arm)?;
            let (_, service) = self.services.get_index(place.collector)?;
            service.marks_of(place.stratum, ending.player)
        });
        std::hint::black_box(marks.flatten().fold(0, |all, marks| all ^ marks));
    }

    /// Takes one outcome at the evaluation number `look`.
    fn take_in(&mut self, snapshot: &Snapshot, ending: &Ending, look: u32, now: Duration) {
        // An arm that the snapshot does not know belongs to a removed version.
        let Some(place) = self.places.of(ending.arm) else { return };
        let Some(service) = snapshot.services.get(place.service) else { return };
        let Some((_, collector)) = self.services.get_index_mut(place.collector) else { return };
        let counted = collector.add(service, place, ending, look, now);
        if let Some(endpoint) = self.places.endpoint(ending.endpoint) {
            endpoint.judged.add(counted);
        }
    }
}
